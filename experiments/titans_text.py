"""Titans on text, byte by byte: loss against position up to 8 times the training length.

    TTMEM_DATA=DATA python experiments/titans_text.py --study architectures --seeds 0 1 2
    TTMEM_DATA=DATA python experiments/titans_text.py --study depth
    TTMEM_DATA=DATA python experiments/titans_text.py --study ablation
    python experiments/titans_text.py --study architectures --table

DATA holds books (gutenberg/*.txt) and WikiText-2 (lm/wikitext-2). Trained on windows of 256 bytes, tested on windows
of 2,048 of the held-out 5 % of each source. Models of equal width and depth, the feed-forward's width set so that their
parameters are equal within 1 % (depth: equal feed-forward). Rows: titans_text_STUDY.json; pictures:
titans_text_STUDY.png, mean and 95 % interval over windows and seeds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study
import torch

from ttmem.evals import nats_by_position
from ttmem.evals.plots import pyplot
from ttmem.models import TitansConfig
from ttmem.tasks import make_task
from ttmem.training import TrainConfig

LENGTH, TIMES, WINDOWS = 256, 8, 96
SOURCES = [f"gutenberg/{book}.txt" for book in (10136, 10146, 10321, 10356, 10762, 10800)]
SOURCES += ["lm/wikitext-2/valid.txt", "lm/wikitext-2/test.txt@test"]
TASK = f"text:{LENGTH}:{'+'.join(SOURCES)}"
BASE = TitansConfig(
    architecture="lmm", dim=96, layers=2, heads=3, chunk_size=32, segment_size=64, window_size=64, recompute=False
)
TRAIN = TrainConfig(
    steps=1500, batch=8, lr=3e-3, weight_decay=0.1, warmup=100, schedule="cosine", eval_every=250, eval_samples=64
)
HIDDEN = {"lmm": 416, "mac": 256, "mag": 256, "mal": 288, "swa": 544, "full": 544}
"""Widths of the feed-forward that make the architectures equally large."""


def architecture(name: str, **changes: Any) -> TitansConfig:
    """One of the six, at equal parameters."""
    return replace(BASE, architecture=name, hidden=HIDDEN[name], **changes)


def measure(model: Any) -> dict:
    """Nats per byte in eighths of the training length up to 8 times it, by window: `(windows, 64)`."""
    windows = make_task(TASK).windows("test", LENGTH * TIMES, count=WINDOWS)
    nats = nats_by_position(model, windows, rows=8)
    binned = nats.unflatten(1, (-1, LENGTH // 8)).mean(-1)
    return {"nats": round(float(nats.mean()), 4), "binned": [[round(x, 4) for x in row] for row in binned.tolist()]}


def draw(rows: list[dict], path: Path) -> None:
    """Loss against position, one line a variant, seeds and windows together."""
    figure, axes = pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    place = (torch.arange(LENGTH * TIMES // (LENGTH // 8)) + 0.5) * (LENGTH // 8)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        binned = torch.cat([torch.tensor(row["binned"]) for row in rows if row["variant"] == variant])
        mean, half = binned.mean(0), 1.96 * binned.std(0) / len(binned) ** 0.5
        seeds = sum(row["variant"] == variant for row in rows)
        (line,) = axes.plot(place, mean, label=f"{variant} ({float(binned.mean()):.3f}, {seeds} seeds)")
        axes.fill_between(place, mean - half, mean + half, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axvline(LENGTH, color="0.6", linewidth=0.8)
    axes.text(LENGTH * 1.02, axes.get_ylim()[1], "trained length", va="top", color="0.4")
    axes.set(xscale="log", xlabel="position in the window, bytes", ylabel="nats per byte, test")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


ABLATION = {
    "lmm": {},
    "no momentum": {"momentum": False},
    "no forgetting": {"forget": "none"},
    "no conv": {"conv": 0},
    "no persistent": {"persistent_tokens": 0},
    "linear memory": {"memory_depth": 1, "memory_norm": False},
}
STUDIES = {
    name: study.Study(f"titans_text_{name}", TASK, variants, TRAIN, measure, draw)
    for name, variants in {
        "architectures": {name: architecture(name) for name in HIDDEN},
        "depth": {f"depth {d}": architecture("lmm", memory_depth=d) for d in (1, 2, 3, 4)},
        "ablation": {name: architecture("lmm", **changes) for name, changes in ABLATION.items()},
    }.items()
}

if __name__ == "__main__":
    study.main(STUDIES)
