"""A needle in a haystack: trained at one length, tested up to 16 times longer.

    python experiments/titans_needle.py --study passkey --seeds 0 1 2
    TTMEM_DATA=DATA python experiments/titans_needle.py --study number      # haystack of essays; DATA holds niah/
    TTMEM_DATA=DATA python experiments/titans_needle.py --study word
    python experiments/titans_needle.py --study passkey --table

RULER's S-NIAH, byte by byte: the haystack is read once, then gone; the number is asked of the state alone. All four
models, the plain window (which cannot know), and a TTT-like memory (no momentum, no forgetting). Exact match of all
digits on the test split, with a thin line a seed, and with the memory reset.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study

from ttmem.evals import evaluate
from ttmem.evals.plots import pyplot
from ttmem.models import TitansConfig
from ttmem.tasks import make_task
from ttmem.training import Stage, TrainConfig

LENGTH, TIMES, SAMPLES = 128, (1, 2, 4, 8, 16), 250
BASE = TitansConfig(
    architecture="lmm", dim=64, layers=2, heads=2, chunk_size=16, segment_size=32, window_size=32, recompute=False
)
TRAIN = TrainConfig(steps=1000, batch=8, lr=3e-3, muon_lr=0.02, warmup=100, eval_every=250, eval_samples=100, decay=0.3)
VARIANTS = {name: replace(BASE, architecture=name) for name in ("lmm", "mac", "mag", "mal", "swa")}
VARIANTS["ttt"] = replace(BASE, momentum=False, forget="none")
PASSKEY = VARIANTS | {"mac 2000": VARIANTS["mac"]}
OWN = {"mac 2000": {"steps": 2000}}
"""MAC finds the passkey later than the others: at 1,000 steps one seed of two has not."""
LONGER = replace(TRAIN, steps=2000)
"""Seven digits among essays: after 1,000 steps MAL knows .73 of the numbers, and still rises."""
WORDS = replace(TRAIN, steps=3000)
FIRST = Stage("needle:passkey:80:d1", threshold=0.8, max_steps=400)
"""One digit in a short text: the way off the plateau on which digits are guessed, where MAC stays longest."""


def task(kind: str, times: int = 1) -> str:
    """The task's name at a multiple of the training length."""
    return f"needle:{kind}:{LENGTH * times}" + (":d4" if kind == "passkey" else "")


def measure(kind: str) -> Any:
    """Exact match at every length."""

    def ask(model: Any) -> dict:
        found = {}
        for times in TIMES:
            report = evaluate(model, make_task(task(kind, times)), samples=SAMPLES, seed=1)
            found[str(times)] = {"exact_match": report.exact_match, "reset": report.exact_match_reset}
        return {"lengths": found, "samples": SAMPLES, "state_bytes": report.memory_bytes}

    return ask


def counts(row: dict) -> list[tuple[int, int]]:
    """Of a row the right answers and the questions at each length."""
    return [(round(row["lengths"][str(t)]["exact_match"] * row["samples"]), row["samples"]) for t in TIMES]


def draw(rows: list[dict], path: Path) -> None:
    """Exact match against length, one line a variant."""
    figure, axes = pyplot().subplots(figsize=(7, 4), layout="constrained")
    study.accuracy_lines(axes, [LENGTH * t for t in TIMES], rows, counts)
    axes.set(xscale="log", xlabel="haystack, bytes", ylabel="exact match, test", ylim=(-0.03, 1.03))
    axes.set_xticks([LENGTH * t for t in TIMES], [str(LENGTH * t) for t in TIMES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="model (seeds)", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)


def needles(
    kind: str, variants: dict[str, TitansConfig], train: TrainConfig, stages: tuple[Stage, ...] = (FIRST,)
) -> study.Study:
    """The study of one kind of needle."""
    own = {name: OWN[name] for name in variants if name in OWN}
    return study.Study(f"titans_needle_{kind}", task(kind), variants, train, measure(kind), draw, stages, own)


def words() -> study.Study:
    """Words, by way of numbers: without these MAC knew none of them after 1,440 steps (LOG.md)."""
    numbers = Stage("needle:number:128", threshold=0.5, max_steps=1200)
    return needles("word", VARIANTS, WORDS, (FIRST, numbers))


STUDIES = {
    "passkey": needles("passkey", PASSKEY, TRAIN),
    "number": lambda: needles("number", VARIANTS, LONGER),
    "word": words,
}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
