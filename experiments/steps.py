"""Exact match against write steps at test time, 1 to 30, of the shipped memories.

    python experiments/steps.py            # about two minutes a memory, on one core
    python experiments/steps.py --table    # the picture of what is there

All were trained with K = 2. 500 contexts of the test split, the memory reset as the control; steps.json, steps.png.
"""

import argparse
import json
from pathlib import Path

import torch
from study import known

from ttmem.checkpoint import replace_file
from ttmem.evals import steps_curve
from ttmem.evals.plots import pyplot
from ttmem.zoo import load

HERE, SAMPLES, TRAINED = Path(__file__).parent, 500, 2
STEPS = (1, 2, 3, 5, 8, 15, 30)
SETS = {
    "N1-K4V4-S1_16-32": ("tokens-n1", "neural-memory-n1", "memory-mlp-n1"),
    "N2-K4V4-S2_16-32": ("tokens-n2", "neural-memory-n2", "memory-mlp-n2"),
    "N8-K2V2-V62": ("tokens-n8",),
}


def curve(name: str, task: str) -> dict:
    """The points of one checkpoint."""
    loaded = load(name)
    reports = steps_curve(loaded.model, loaded.make_task(task), STEPS, SAMPLES)
    kept = ("steps", "exact_match", "interval", "exact_match_reset", "write_seconds")
    return {
        "checkpoint": name,
        "fingerprint": loaded.fingerprint,
        "task": task,
        "samples": SAMPLES,
        "points": [{key: getattr(report, key) for key in kept} for report in reports],
    }


def current(path: Path) -> dict[str, dict]:
    """The curves of today's checkpoints."""
    return {row["checkpoint"]: row for row in known(path) if row["fingerprint"] == load(row["checkpoint"]).fingerprint}


def draw(curves: list[dict], path: Path) -> None:
    """A panel a set, a line a memory, bands of 95 %."""
    figure, panels = pyplot().subplots(1, len(SETS), figsize=(4 * len(SETS), 3.6), sharey=True, layout="constrained")
    for axes, (task, names) in zip(panels, SETS.items(), strict=True):
        for found in (each for each in curves if each["checkpoint"] in names):
            low, high = zip(*(point["interval"] for point in found["points"]), strict=True)
            right = [point["exact_match"] for point in found["points"]]
            (line,) = axes.plot(STEPS, right, marker="o", markersize=4, label=found["checkpoint"])
            axes.fill_between(STEPS, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.axvline(TRAINED, color="0.5", linewidth=0.8, linestyle=":")
        axes.set(title=task, xlabel="write steps (trained with 2)", xscale="log", ylim=(-0.03, 1.03))
        axes.set_xticks(STEPS, [str(count) for count in STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if axes.lines[1:]:  # beside the number of steps in training
            axes.legend(frameon=False, fontsize=8, loc="lower left")
    panels[0].set_ylabel("exact match, test")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure what is asked, keep what is still true of the shipped checkpoints, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", nargs="*", default=[name for names in SETS.values() for name in names])
    parser.add_argument("--table", action="store_true", help="measure nothing")
    asked, path = parser.parse_args(), HERE / "steps.json"
    torch.set_num_threads(1)
    for task, names in () if asked.table else SETS.items():
        for name in (each for each in names if each in asked.names):
            found = curve(name, task)
            kept = current(path) | {name: found}  # read now: others may have written meanwhile
            replace_file(path, (json.dumps(list(kept.values()), indent=1) + "\n").encode())
            best = max(found["points"], key=lambda point: point["exact_match"])
            print(f"{name}: best {best['exact_match']:.4f} with {best['steps']} steps", flush=True)
    draw(list(current(path).values()), HERE / "steps.png")


if __name__ == "__main__":
    main()
