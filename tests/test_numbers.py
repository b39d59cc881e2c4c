"""The numbers of the tables in README and docs are those that the experiments wrote down."""

import json
import re
from collections.abc import Callable
from statistics import fmean, stdev
from typing import NamedTuple

import pytest

from guards_code import ROOT

CELLS = {
    "memory tokens": "tokens",
    "NeuralMemory": "neural-memory",
    "MemoryMLP": "memory-mlp",
    "RMT4, segment after segment": "rmt4",
    "PRMT4, a memory in each layer": "prmt4",
    "baseline RMT: a forward pass writes": "rmt",
    "baseline ARMT: a delta rule writes": "armt",
    "PRMT4": "prmt4",
    "RMT4": "rmt4",
    "RMT, ARMT (baselines)": "rmt armt",
}
BOOKS = {
    "RMT4, addresses by content": "rmt4",
    "RMT4, learned addresses": "rmt4 addresses",
    "... then 1,300 steps more": "rmt4 addresses on",
    "LMM (Titans)": "lmm",
    "PRMT4 to 4k": "prmt4 to 4k",
    "PRMT4": "prmt4",
    "MAC (Titans)": "mac",
    "ARMT": "armt",
}
NEEDLES = {
    "a memory without momentum and forgetting, as in TTT": "ttt",
    "MAC, 2,000 steps": "mac 2000",
    "MAC": "mac",
    "MAL": "mal",
    "MAG": "mag",
    "LMM": "lmm",
    "sliding window of 32": "swa",
}
CAPACITY = {
    "memory tokens": "tokens",
    "NeuralMemory": "neural-memory",
    "MemoryMLP": "memory-mlp",
    "RMT4 with `weigh`, two segments, half the rate": "rmt4",
    "RMT, two segments": "rmt",
    "PRMT4, two segments": "prmt4",
    "ARMT, two segments": "armt",
    "Titans LMM": "lmm",
    "the whole context in view": "full",
}
CARRIED = {
    "RMT4, learned addresses, gate and stem": "rmt4",
    "... with learned momentum and forgetting": "forgetting",
    "... with a gate": "gate",
    "... with weights of tokens": "weigh",
    "... with a replay": "replay",
    "... with step sizes that stay at 2.5": "fixed step sizes",
    "... shown 16 segments, the outer gradient through the last four": "rmt4 to 16",
    "RMT4, sines and stem": "sines",
    "... then 600 steps on up to 20 segments": "sines to 20",
}
TEXT = {
    "sliding window of 64": "swa",
    "MAL": "mal",
    "MAG": "mag",
    "MAC": "mac",
    "LMM, no attention at all": "lmm",
    "LMM": "lmm",
    "full attention, rotary": "full",
    "without momentum": "no momentum",
    "without forgetting": "no forgetting",
    "without the convolution": "no conv",
    "without persistent tokens": "no persistent",
    "linear memory: depth 1, no norm in it": "linear memory",
}
LONGER = {
    "PRMT4, 98,304 bytes, trained on four segments": "prmt4-n4",
    "RMT4, 8,192 bytes, trained on four segments": "rmt4-n4",
    "PRMT4 long, 98,304 bytes, trained on up to 32": "prmt4-long",
    "RMT4 long, 8,192 bytes, trained on up to 32": "rmt4-long",
}
NUMBER = re.compile(r"(?<![\d,.])-?(?:\d?\.\d+|[01])(?!\d|[.,]\d)")


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "experiments" / f"{name}.json").read_text(encoding="utf-8"))


def of(name: str, variant: str) -> list[dict]:
    """The rows of a variant, by seed."""
    found = sorted((row for row in results(name) if row["variant"] == variant), key=lambda row: row["seed"])
    assert found, f"{variant} is not in {name}.json"
    return found


def span(rows: list[dict]) -> str:
    """Minutes of training, as the tables say them."""
    minutes = sorted(round(row["train_minutes"]) for row in rows)
    return f"{minutes[0]} to {minutes[-1]}" if minutes[0] < minutes[-1] else f"{minutes[0]}"


def retrieval(row: str, column: str) -> list[float] | str:
    """Exact match of a cell by seed, or its minutes; the tables have cells as rows and tasks as columns or turned."""
    task, cells = (column, row) if row in CELLS else (row, column)
    names = CELLS[cells].split()
    tasks = re.findall(r"^N(\d)", task) or ["1", "2", "4"]
    found = [[r for r in results("results") if r["cell"] == f"{name}-n{n}"] for name in names for n in tasks]
    if task.startswith("minutes"):
        return span(sum(found, []))
    digits = 3 if row.startswith("baseline") or column.endswith("(baselines)") else 4
    return [round(report["exact_match"], digits) for reports in found for report in reports]


def books(kind: str) -> Callable[[str, str], list[float] | str]:
    """Accuracy at a length, bytes, minutes."""

    def told(row: str, column: str) -> list[float] | str:
        own = of(f"babilong_{kind}", BOOKS[row])
        if "bytes" in column:
            return f"{own[0]['state_bytes']:,}"
        if column == "minutes":
            return span(own)
        length = "0k" if column == "only the facts" else column
        return [round(seed["lengths"][length]["exact_match"], 2) for seed in own]

    return told


def asked(row: str, column: str) -> list[float] | str:
    """The same for rows that say the kind themselves."""
    kind, name = row.split(": ")
    return books(kind.lower())(name, column)


def needle(kind: str) -> Callable[[str, str], list[float]]:
    """Exact match at a length, by seed."""

    def told(row: str, column: str) -> list[float]:
        times = int(re.sub(r"\D", "", column)) // 128
        return [seed["lengths"][str(times)]["exact_match"] for seed in of(f"titans_needle_{kind}", NEEDLES[row])]

    return told


def carried(row: str, column: str) -> list[float] | str:
    """The newest pair, the oldest and the least known one after so many writes."""
    (own,) = of("carried", CARRIED.get(row, row.lower()))
    if column == "bytes":
        return f"{own['memory_bytes']:,}"
    if column == "minutes":
        return span([own])
    ages = own["ages"][7 if "eight" in column else 19]
    return [ages[0], ages[-1], min(ages)]


def capacity(row: str, column: str) -> list[float] | str:
    """Exact match by write steps, mean of seeds; or each seed's with two, its bytes, its minutes."""
    own = of("capacity", CAPACITY[row])
    points = [seed["points"] for seed in own]
    if column == "bytes":
        return f"{points[0][0]['memory_bytes']:,}"
    if column == "minutes":
        return span(own)
    if column.startswith("ms"):
        return f"{1e3 * max(point[min(1, len(point) - 1)]['write_seconds'] for point in points):.1f}"
    scores = [[point["exact_match"] for point in seed] for seed in points]
    if column.endswith("a seed each"):
        return [round(seed[min(1, len(seed) - 1)], 3) for seed in scores]
    return [round(sum(each) / len(each), 3) for each in zip(*scores, strict=True)]


def longer(row: str, column: str) -> list[float]:
    """Exact match after so many segments."""
    (own,) = of("longer", LONGER[row])
    return [point["exact_match"] for point in own["segments"] if point["segments"] == int(column)]


def text(study: str, base: str) -> Callable[[str, str], list[float]]:
    """The base's own nats; of others how many more than the base of the same seed on the same windows, and the lowest
    and the highest seed, or of one seed half the 95 % interval over windows."""
    plain = {row["seed"]: row["binned"] for row in results("titans_text") if row["variant"] == base}

    def told(row: str, column: str) -> list[float]:
        end = int(re.findall(r"[\d,]+", column)[0].replace(",", "")) // 32  # bytes of a bin
        bins, own = slice(end // 2 if end > 8 else 0, end), of(study, TEXT.get(row, row))
        nats = [[fmean(window[bins]) for window in seed["binned"]] for seed in own]
        if TEXT.get(row, row) == base:
            return [round(fmean(map(fmean, nats)), 3)]
        least = [[fmean(window[bins]) for window in plain[seed["seed"]]] for seed in own]
        more = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(nats, least, strict=True)]
        seeds = list(map(fmean, more))
        spread = [min(seeds), max(seeds)] if len(seeds) > 1 else [1.96 * stdev(more[0]) / len(more[0]) ** 0.5]
        return [round(number, 3) for number in (fmean(seeds), *spread)]

    return told


class Table(NamedTuple):
    """A table of a page: how its first line begins, what its cells must say, the rows that no file holds, and its place
    among the tables that begin so."""

    page: str
    header: str
    told: Callable[[str, str], list[float] | str]
    without: tuple[str, ...] = ()
    place: int = 0

    def start(self, page: str) -> int:
        """Where it begins in the text of the page."""
        found = [match.start() for match in re.finditer(re.escape(self.header), page)]
        assert len(found) > self.place, f"{self.page} has no table {self.place + 1} that begins with {self.header}"
        return found[self.place]


LENGTHS = "| accuracy at tokens of context | memory, bytes | minutes | only the facts |"
TABLES = {
    "README, retrieval": Table("README.md", "| exact match | N1-K4V4-S1 |", retrieval),
    "README, books": Table("README.md", "| | bytes of memory | 512 |", asked),
    "retrieval": Table("docs/results.md", "| exact match (the deck's), training time | NeuralMemory |", retrieval),
    "segments": Table(
        "docs/results.md",
        "| exact match (the deck's), training time | PRMT4 |",
        retrieval,
        ("the last, asked", "... after 700", "a pair in each", "... read by sines"),
    ),
    **{
        f"needles, {kind}": Table("docs/results.md", "| bytes of haystack |", needle(kind), place=place)
        for place, kind in enumerate(("passkey", "number"))
    },
    **{
        f"books, {kind}": Table("docs/segments.md", LENGTHS, books(kind), ("contexts asked",), place)
        for place, kind in enumerate(("qa1", "qa4", "qa5", "qa2"))
    },
    "capacity": Table("docs/segments.md", "| memory | bytes | with 1, 2, 3, 5, 8", capacity),
    "carried": Table("docs/segments.md", "| | bytes | after eight writes:", carried),
    **{
        f"text, {name}": Table("docs/titans.md", "| | to 256 (trained) |", text(f"titans_{study}", base), place=place)
        for place, (name, study, base) in enumerate(
            (("short", "text", "swa"), ("history", "history", "swa"), ("parts", "text", "lmm"))
        )
    },
    "longer": Table("docs/segments.md", "| segments | 4 | 8 |", longer, ("... the same without",)),
}


def cells(table: Table, page: str) -> list[tuple[str, str, str]]:
    """Of a table each cell with the names of its row and column, without bold, brackets and minutes after scores."""
    top, _, *rows = page[table.start(page) :].split("\n\n")[0].splitlines()
    split = [[cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in (top, *rows)]
    return [
        (row[0], column, re.sub(r"\(.*?\)|[,;] [\d, to]+min$", "", cell).strip())
        for row in split[1:]
        for column, cell in zip(split[0][1:], row[1:], strict=True)
        if cell
    ]


def wrong(table: Table, page: str) -> list[str]:
    """Cells that say something else than the experiments' files."""
    found = []
    for row, column, cell in cells(table, page):
        if row.startswith(table.without or ("|",)):
            continue
        told = table.told(row, column)
        said = cell.removesuffix(" more") if isinstance(told, str) else [float(x) for x in NUMBER.findall(cell)]
        if said != told:
            found.append(f"{row}, {column}: {said} for {told}")
    return found


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_experiments_found(name):
    table = TABLES[name]
    page = (ROOT / table.page).read_text(encoding="utf-8")
    assert wrong(table, page) == []


@pytest.mark.parametrize("name", TABLES)
def test_any_wrong_digit_is_seen(name):
    table = TABLES[name]
    page = (ROOT / table.page).read_text(encoding="utf-8")
    digit = re.compile(r"\.\d*(\d)").search(page, page.index("|---|", table.start(page)))
    other = page[: digit.end() - 1] + str((int(digit[1]) + 1) % 10) + page[digit.end() :]
    assert len(wrong(table, other)) == 1


def test_the_push_s_seed_0_is_the_first_of_its_cells():
    """The other seeds stand in LOG.md alone."""
    kept = {
        score["pairs"]: score["exact_match"] for row in results("push") if row["seed"] == 0 for score in row["scores"]
    }
    table = Table("README.md", "| pairs | write steps | exact match | GradMem |", capacity)
    page = (ROOT / table.page).read_text(encoding="utf-8")
    said = {int(row): cell for row, column, cell in cells(table, page) if column == "exact match"}
    assert {pairs: float(NUMBER.findall(said[pairs])[0]) for pairs in kept} == {n: round(x, 3) for n, x in kept.items()}
