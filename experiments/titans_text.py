"""Titans on text, byte by byte: loss against position up to 8 times the training length.

    TTMEM_DATA=DATA python experiments/titans_text.py --seeds 0 1 2
    TTMEM_DATA=DATA python experiments/titans_text.py --variants lmm "depth 4"
    TTMEM_DATA=DATA python experiments/titans_text.py --study history --seeds 0
    TTMEM_DATA=DATA python experiments/titans_text.py --table

DATA holds books (gutenberg/*.txt) and WikiText-2 (lm/wikitext-2). Trained on windows of 256 bytes, tested on windows of
2,048 of the held-out 5 % of each source. Three questions: the architectures at equal parameters (widths of the
feed-forward set so, within 1 %), the depth of LMM's memory, and what each of its parts is worth (both at equal
feed-forward). Rows: titans_text.json; picture: titans_text.png, mean and 95 % interval over windows and seeds.

The study `history` asks what it takes to go on beyond the trained length: the same architectures and steps, the last
400 of them with a memory that has read up to seven windows before; the gradient stays within the window.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import study
import torch

from ttmem.evals import nats_by_position
from ttmem.evals.plots import pyplot
from ttmem.models import TitansConfig
from ttmem.tasks import make_task
from ttmem.training import Stage, TrainConfig

LENGTH, TIMES, WINDOWS = 256, 8, 96
SOURCES = [f"gutenberg/{book}.txt" for book in (10136, 10146, 10321, 10356, 10762, 10800)]
SOURCES += ["lm/wikitext-2/valid.txt", "lm/wikitext-2/test.txt@test"]
TASK = f"text:{LENGTH}:{'+'.join(SOURCES)}"
BASE = TitansConfig(
    architecture="lmm", dim=96, layers=2, heads=3, chunk_size=32, segment_size=64, window_size=64, recompute=False
)
TRAIN = TrainConfig(
    steps=1000, batch=8, lr=3e-3, muon_lr=0.02, warmup=100, schedule="cosine", eval_every=250, eval_samples=64
)
HIDDEN = {"lmm": 416, "mac": 256, "mag": 256, "mal": 288, "swa": 544, "full": 544}
"""Widths of the feed-forward that make the architectures equally large."""


def architecture(name: str, **changes: Any) -> TitansConfig:
    """One of the six, at equal parameters."""
    return replace(BASE, architecture=name, hidden=HIDDEN[name], **changes)


def measure(model: Any) -> dict:
    """Nats per byte in eighths of the training length up to 8 times it, by window: `(windows, 64)`."""
    found = binned(model, LENGTH * TIMES, WINDOWS, LENGTH // 8)
    return {"nats": round(float(torch.tensor(found).mean()), 4), "binned": found}


def measure_far(model: Any) -> dict:
    """The same, and up to 32 times the training length in steps of it, on fewer windows: `(24, 32)`."""
    return measure(model) | {"far": binned(model, LENGTH * TIMES * 4, WINDOWS // 4, LENGTH)}


def binned(model: Any, length: int, count: int, size: int) -> list[list[float]]:
    """Nats per byte of test windows, the mean of so many bytes at a time."""
    nats = nats_by_position(model, make_task(TASK).windows("test", length, count=count), rows=8)
    return [[round(x, 4) for x in row] for row in nats.unflatten(1, (-1, size)).mean(-1).tolist()]


VARIANTS = {
    **{name: architecture(name) for name in HIDDEN},
    **{f"depth {depth}": architecture("lmm", memory_depth=depth) for depth in (1, 3, 4)},
    "no momentum": architecture("lmm", momentum=False),
    "no forgetting": architecture("lmm", forget="none"),
    "no conv": architecture("lmm", conv=0),
    "no persistent": architecture("lmm", persistent_tokens=0),
    "linear memory": architecture("lmm", memory_depth=1, memory_norm=False),
}
PANELS = {
    "architectures": list(HIDDEN),
    "depth of LMM's memory (lmm: 2)": ["depth 1", "lmm", "depth 3", "depth 4"],
    "LMM without": ["lmm", "no momentum", "no forgetting", "no conv", "no persistent", "linear memory"],
}


UPTO = tuple(LENGTH * 2**i for i in range(6))
"""Where the table is cut: each column is what lies between the end of the one before and its own."""


def beyond(rows: list[dict], windows: list[dict], field: str = "binned") -> torch.Tensor:
    """Nats more than the plain window of the same seed says of the same text: `(seeds, windows, bins)`."""
    plain = {row["seed"]: torch.tensor(row[field]) for row in windows}
    found = [torch.tensor(row[field]) - plain[row["seed"]] for row in rows if row["seed"] in plain]
    return torch.stack(found) if found else torch.empty(0, 0, len(rows[0][field][0]) if rows else 0)


def interval(parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over seeds and windows `(seeds, windows, bins)`, and half its 95 % interval over windows: all seeds read the
    same ones, so these are what is drawn by chance."""
    windows = parts.mean(0)
    return windows.mean(0), 1.96 * windows.std(0) / len(windows) ** 0.5


def band(axes: Any, place: torch.Tensor, parts: torch.Tensor, label: str, **style: Any) -> None:
    """A line with its interval, which reaches from the lowest seed to the highest at least."""
    (mean, half), seeds = interval(parts), parts.mean(1)
    (drawn,) = axes.plot(place, mean, label=label, **style)
    low, high = (mean - half).minimum(seeds.amin(0)), (mean + half).maximum(seeds.amax(0))
    axes.fill_between(place, low, high, color=drawn.get_color(), alpha=0.13, linewidth=0)


def cell(parts: torch.Tensor) -> str:
    """The mean of `(seeds, windows, 1)`: with the lowest and the highest seed, or of one seed its interval."""
    mean, half = (float(x) for x in interval(parts))
    if len(parts) == 1:
        return f"{mean:+.3f} ± {half:.3f}"
    seeds = parts.mean((1, 2)).tolist()
    return f"{mean:+.3f} ({min(seeds):+.3f} to {max(seeds):+.3f})"


def tell(
    rows: list[dict],
    windows: list[dict],
    field: str = "binned",
    size: int = LENGTH // 8,
    base: str = "the plain window",
) -> None:
    """What `beyond` says, variant by variant, between the end of one column and that of the next."""
    columns = [end for end in UPTO if end <= len(rows[0][field][0]) * size]
    ends = [0, *(end // size for end in columns)]
    print(f"| nats more than {base} | " + " | ".join(f"to {end}" for end in columns) + " |")
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == name]
        more = beyond(own, windows, field)
        if not len(more):  # no plain window of the same seed yet
            continue
        cells = [cell(more[..., a:b].mean(-1, keepdim=True)) for a, b in zip(ends, ends[1:], strict=False)]
        print(f"| {name} ({len(own)}) | {' | '.join(cells)} |")


def draw(rows: list[dict], path: Path) -> None:
    """Loss against position, a panel a question, one line a variant, seeds and windows together.

    What goes beyond 2.5 nats, as full attention does, leaves the picture.
    """
    tell(rows, [row for row in rows if row["variant"] == "swa"])
    parts = [row for row in rows if row["variant"] not in HIDDEN]
    if parts:
        tell(parts, [row for row in rows if row["variant"] == "lmm"], base="LMM")
    figure, panels = pyplot().subplots(1, len(PANELS), figsize=(5.2 * len(PANELS), 4.4), layout="constrained")
    for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
        for name in names:
            line(axes, name, [row for row in rows if row["variant"] == name])
        axes.axvline(LENGTH, color="0.6", linewidth=0.8, linestyle="--")
        axes.set(xscale="log", title=title, xlabel=f"position, bytes (trained to {LENGTH})", ylim=(1.5, 2.5))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, title="mean of all positions (seeds)", title_fontsize=8)
    panels[0].set_ylabel("nats per byte, test")
    figure.savefig(path, dpi=150)


def line(axes: Any, name: str, rows: list[dict]) -> None:
    """One variant, where it has been trained."""
    if not rows:
        return
    place = (torch.arange(8 * TIMES) + 0.5) * (LENGTH // 8)
    parts = torch.stack([torch.tensor(row["binned"]) for row in rows])
    band(axes, place, parts, f"{name}: {float(parts.mean()):.3f} ({len(rows)})")


def beside(rows: list[dict], path: Path) -> None:
    """Nats more than the plain window, with history and without (the rows of the study `text`), against position."""
    without = json.loads(path.with_name("titans_text.json").read_text())
    plain = [row for row in without if row["variant"] == "swa"]
    tell(rows, plain)
    tell(rows, [row for row in rows if row["variant"] == "swa"], "far", LENGTH)
    names = [name for name in HIDDEN if any(row["variant"] == name for row in rows)]
    figure, panels = pyplot().subplots(
        1, len(names), figsize=(2.7 * len(names) + 0.6, 3.2), layout="constrained", sharey=True, squeeze=False
    )
    place = (torch.arange(TIMES) + 0.5) * LENGTH
    for axes, name in zip(panels[0], names, strict=True):
        for title, found in (("with history", rows), ("without", without)):
            own = [row for row in found if row["variant"] == name]
            more = beyond(own, plain)
            if len(more):
                band(axes, place, more.unflatten(2, (TIMES, -1)).mean(-1), f"{title} ({len(own)})", marker=".")
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.axvline(LENGTH, color="0.6", linewidth=0.8, linestyle="--")
        axes.set(title=name, xlabel="position, bytes", ylim=(-0.1, 0.4))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, title="trained (seeds)", title_fontsize=8, loc="upper left")
    panels[0][0].set_ylabel("nats more than a window of 64")
    figure.savefig(path, dpi=150)


HISTORY = {name: replace(config, truncate=True) for name, config in VARIANTS.items() if name in HIDDEN}


def history() -> study.Study:
    """The last 400 steps behind a history."""
    stages, task = (Stage(TASK, max_steps=600),), f"{TASK}:history={TIMES - 1}"
    return study.Study("titans_history", task, HISTORY, TRAIN, measure_far, beside, stages)


STUDIES = {"text": study.Study("titans_text", TASK, VARIANTS, TRAIN, measure, draw), "history": history}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
