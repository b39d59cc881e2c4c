"""Length generalisation: trained on at most 4 segments, asked after up to 128, most of which are filler.

    python experiments/cells.py --cells rmt4-n4 prmt4-n4 armt-n4 rmt-n4 --seeds 0   # the models, where there are none
    python experiments/longer.py
    python experiments/longer.py --long 0 1 2        # also train the two that have been shown up to 32 segments
    python experiments/longer.py --table                                            # the picture of what is there

Four pairs of 2 + 2 characters in 4, 8, .. 128 segments of 16-32 characters, `N4-K2V2-S128_16-32`: the question
is what the filler leaves of them. rmt4-long and prmt4-long go on from the shipped models on up to 32 segments, with
the outer gradient through the last four (`truncate`). Exact match on 500 contexts of the test split; longer.json,
longer.png.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import study
import torch
from cells import LONG, experiment_of

from ttmem.checkpoint import replace_file
from ttmem.evals import evaluate
from ttmem.evals.plots import pyplot
from ttmem.tasks import make_task
from ttmem.zoo import load

HERE, SAMPLES, TRAINED, LONGEST = Path(__file__).parent, 500, 4, 32
CELLS = (*LONG, "prmt4-n4", "rmt4-n4", "armt-n4", "rmt-n4")
SEGMENTS = (4, 8, 16, 32, 64, 128)


def measured(cell: str, seed: int, path: Path) -> dict:
    """Exact match of one model at every number of segments."""
    model, found = load(path).model, []
    for segments in SEGMENTS:
        report = evaluate(model, make_task(f"N4-K2V2-S{segments}_16-32"), samples=SAMPLES, seed=1)
        found.append({"segments": segments, "exact_match": report.exact_match, "reset": report.exact_match_reset})
        print(f"{cell}, seed {seed}: {segments:>4} segments {report.exact_match:.3f}", flush=True)
    row = {"variant": cell, "seed": seed, "recipe": study.recipe(experiment_of(cell)), "samples": SAMPLES}
    return row | {"memory_bytes": report.memory_bytes, "segments": found}


def current(path: Path) -> list[dict]:
    """The rows of today's recipes."""
    return [row for row in study.known(path) if row["recipe"] == study.recipe(experiment_of(row["variant"]))]


def keep(path: Path, rows: list[dict]) -> None:
    """Write the rows in order."""
    rows = sorted(rows, key=lambda row: (CELLS.index(row["variant"]), row["seed"]))
    replace_file(path, (json.dumps(rows, indent=1) + "\n").encode())


def counts(row: dict) -> list[tuple[int, int]]:
    """Of a row the right answers and the questions at each number of segments."""
    return [(round(each["exact_match"] * row["samples"]), row["samples"]) for each in row["segments"]]


def draw(rows: list[dict], path: Path) -> None:
    """Exact match against segments, one line a memory."""
    figure, axes = pyplot().subplots(figsize=(7, 4), layout="constrained")
    study.accuracy_lines(axes, SEGMENTS, rows, counts)
    for shown in (TRAINED, LONGEST):
        axes.axvline(shown, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel=f"segments (trained on {TRAINED}, or long: {LONGEST})",
        ylabel="exact match, test",
        ylim=(-0.03, 1.03),
    )
    axes.set_xticks(SEGMENTS, [str(count) for count in SEGMENTS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="memory (seeds)")
    figure.savefig(path, dpi=150)


def there(cell: str, seed: int, asked: argparse.Namespace) -> Path | None:
    """The trained model of a cell, where there is one."""
    out = asked.runs / f"{cell}-{seed}"
    if cell in LONG:
        if seed not in asked.long:
            return None
        experiment = experiment_of(cell)
        study.trained(replace(experiment, train=replace(experiment.train, seed=seed)), out)
        return out / "model.safetensors"
    return out / "model.safetensors" if (out / "report.json").is_file() else None


def main() -> None:
    """Measure each model that is there and has not been, draw all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--long", nargs="*", type=int, default=[], help="seeds of prmt4-long and rmt4-long to train")
    parser.add_argument("--only", choices=CELLS, help="of these cells one")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    asked, path = parser.parse_args(), HERE / "longer.json"
    torch.set_num_threads(1)
    cells = [] if asked.table else [asked.only] if asked.only else CELLS
    for cell, seed in product(cells, range(3)):
        known = any((row["variant"], row["seed"]) == (cell, seed) for row in current(path))
        model = None if known else there(cell, seed, asked)
        if model is not None:
            row = measured(cell, seed, model)
            keep(path, [*current(path), row])  # read again: others may have written meanwhile
    rows = current(path)
    keep(path, rows)
    draw(rows, HERE / "longer.png")


if __name__ == "__main__":
    main()
