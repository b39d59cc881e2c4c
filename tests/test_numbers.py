"""The numbers of the README's tables are those that the experiments wrote down."""

import json
import re

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
}
BOOKS = {"RMT4": "rmt4", "LMM (Titans)": "lmm", "PRMT4, shown up to 4k": "prmt4 to 4k"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(page: str, header: str) -> list[list[str]]:
    """The rows below a table's first line, as cells."""
    _, _, body = page.partition(f"{header}\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.split("\n\n")[0].splitlines()[1:]]


def numbers(cell: str) -> list[float]:
    """The scores of a cell, without what stands in brackets."""
    return [float(found) for found in re.findall(r"\d*\.\d+", re.sub(r"\(.*?\)", "", cell))]


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "experiments" / name).read_text(encoding="utf-8"))


def wrong_retrieval(page: str) -> list[str]:
    """Cells of the table of associative retrieval that results.json does not say."""
    table = rows(page, "| exact match | N1-K4V4-S1 | N2-K4V4-S2 | N4-K2V2-S4 | minutes of training |")
    assert [label for label, *_ in table] == list(CELLS)
    wrong = []
    for label, *scores, minutes in table:
        reports = {n: [r for r in results("results.json") if r["cell"] == f"{CELLS[label]}-n{n}"] for n in (1, 2, 4)}
        for (n, found), cell in zip(reports.items(), scores, strict=True):
            digits = 3 if label.startswith("baseline") else 4
            if numbers(cell) != [round(report["exact_match"], digits) for report in found]:
                wrong.append(f"{label}, N{n}: {cell}")
        taken = [report["train_minutes"] for found in reports.values() for report in found]
        if minutes != f"{min(taken):.0f} to {max(taken):.0f}":
            wrong.append(f"{label}: {minutes} minutes")
    return wrong


def wrong_books(page: str) -> list[str]:
    """Cells of the table of facts in books that babilong_qa1.json does not say."""
    table = rows(page, "| | bytes of memory | 512 | 2k | 8k | 16k | 64k |")
    found = {row["variant"]: row for row in results("babilong_qa1.json")}
    wrong = []
    for label, size, *scores in table[:-1]:
        row = found[BOOKS[label]]
        told = [row["lengths"][length]["exact_match"] for length in ("512", "2k", "8k", "16k", "64k")]
        said = [number for cell in scores for number in numbers(cell)]
        if said != [round(score, 2) for score in told] or size != f"{row['state_bytes']:,}":
            wrong.append(label)
    return wrong


def test_the_tables_say_what_the_experiments_found():
    assert wrong_retrieval(README) == [] and wrong_books(README) == []


@pytest.mark.parametrize("old, new", [("**.9852", "**.9862"), ("| 4 to 22 |", "| 4 to 20 |")])
def test_a_wrong_score_or_time_is_seen(old, new):
    assert old in README
    assert len(wrong_retrieval(README.replace(old, new))) == 1


def test_a_wrong_accuracy_in_books_is_seen():
    assert "4,096 | .94" in README
    assert wrong_books(README.replace("4,096 | .94", "4,096 | .95")) == ["RMT4"]
