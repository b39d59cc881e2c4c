"""Every published cell, seed by seed: train, evaluate on the test split, collect.

    python experiments/cells.py --cells tokens-n1 tokens-n2 --seeds 0 1 2   # trains what is not there yet
    python experiments/cells.py --table                                    # the table and picture of what is there
    python experiments/cells.py --ship                                     # the best on validation into the package

One process per core at most (OMP_NUM_THREADS=1). A run that was stopped goes on; a finished one is not done again.
Reports go to runs/CELL-SEED/report.json and are collected in experiments/results.json, the source of README's table.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from study import cost, done, keep, known, recipe, trained

from ttmem.checkpoint import load_model, replace_file, save_model
from ttmem.evals import evaluate
from ttmem.training import Experiment, load_experiment, override
from ttmem.zoo import load

HERE = Path(__file__).parent
KINDS = ("tokens", "neural-memory", "memory-mlp")
CELLS = [f"{kind}-{size}" for size in ("n1", "n2") for kind in KINDS] + ["tokens-n8"]
CELLS += [f"{kind}-{size}" for kind in ("rmt4", "prmt4") for size in ("n1", "n2", "n4")]
LONG = ["rmt4-long", "prmt4-long"]
"""Trained on up to 32 segments (longer.py asks them up to 128)."""
CELLS += LONG
BASELINES = ["none-n2", "forward-n2", "full-n2"]
BASELINES += [f"{kind}-{size}" for kind in ("rmt", "armt") for size in ("n1", "n2", "n4")]
DECK = {"neural-memory-n1": 0.999, "memory-mlp-n1": 0.947, "neural-memory-n2": 0.721, "memory-mlp-n2": 0.045}
DECK |= {"rmt4-n1": 0.99, "rmt4-n2": 0.0, "prmt4-n1": 0.06, "prmt4-n2": 0.0}
KEPT = (
    "exact_match",
    "exact_match_reset",
    "token_accuracy",
    "interval",
    "samples",
    "memory_bytes",
    "write_seconds",
    "answer_seconds",
    "task",
)


def run_cell(name: str, seed: int, runs: Path) -> None:
    """Train one cell with one seed where needed, and evaluate it on 10,000 test contexts (`LONG`: 2,000)."""
    out, experiment = runs / f"{name}-{seed}", override(experiment_of(name), [f"train.seed={seed}"])
    if not done(out / "report.json", recipe(experiment)):
        result = trained(experiment, out)
        report = (
            {"cell": name, "seed": seed, "recipe": recipe(experiment)}
            | tested(out, 2_000 if name in LONG else 10_000)
            | cost(result)
        )
        keep(out / "report.json", report)


def experiment_of(name: str) -> Experiment:
    """The experiment of a cell."""
    return load_experiment(HERE / f"{name.replace('-', '_')}.py")


def tested(out: Path, samples: int) -> dict:
    """Scores on the test split."""
    loaded, began = load(out / "model.safetensors"), time.perf_counter()
    report = evaluate(loaded.model, loaded.make_task(), samples=samples, seed=1)
    return {key: getattr(report, key) for key in KEPT} | {"eval_seconds": round(time.perf_counter() - began, 1)}


def collect(runs: Path) -> list[dict]:
    """All reports by cell and seed, those of `runs` before those already in results.json, written there.

    Reports of a recipe that has changed since are left out: every published row belongs to the file beside it.
    """
    order, path = [*CELLS, *BASELINES], HERE / "results.json"
    here = [json.loads(report.read_text()) for report in runs.glob("*/report.json")]
    found = {(r["cell"], r["seed"]): r for r in [*known(path), *here] if r["cell"] in order}
    found = {key: r for key, r in found.items() if r["recipe"] == recipe(experiment_of(r["cell"]))}
    rows = sorted(found.values(), key=lambda r: (order.index(r["cell"]), r["seed"]))
    replace_file(path, (json.dumps(rows, indent=1) + "\n").encode())
    return rows


def ship(reports: list[dict], runs: Path) -> None:
    """Copy each cell's run that was best on *validation* into the package, its test score in the metadata."""
    for cell in CELLS:
        rows = [r for r in reports if r["cell"] == cell and (runs / f"{cell}-{r['seed']}" / "report.json").is_file()]
        found = {r["seed"]: load_model(runs / f"{cell}-{r['seed']}" / "model.safetensors") for r in rows}
        if found:
            seed = max(found, key=lambda s: (found[s].meta["scores"]["exact_match"], -s))
            report = next(r for r in rows if r["seed"] == seed)
            meta = found[seed].meta | {key: report[key] for key in ("exact_match", "interval", "samples")}
            path = HERE.parent / "src" / "ttmem" / "checkpoints" / f"{cell}.safetensors"
            save_model(path, found[seed].config, found[seed].tensors, meta)
            print(f"{path.relative_to(HERE.parent)}  {path.stat().st_size / 1e6:.2f} MB  seed {seed}")


def table(reports: list[dict]) -> str:
    """The cells as a Markdown table: one row a cell, seeds side by side."""
    head = ("cell", "exact match on the test split, by seed", "deck", "reset", "memory", "write", "steps", "minutes")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for cell in dict.fromkeys(r["cell"] for r in reports):
        rows = [r for r in reports if r["cell"] == cell]
        most = {
            key: max(r[key] for r in rows) for key in ("exact_match_reset", "write_seconds", "steps", "train_minutes")
        }
        scores = " ".join(f"{r['exact_match']:.4f}" for r in rows)
        cost = f"{rows[0]['memory_bytes']:,} B | {1000 * most['write_seconds']:.1f} ms | {most['steps']}"
        reset, minutes = f"{most['exact_match_reset']:.4f}", f"{most['train_minutes']:.1f}"
        lines.append(f"| {cell} | {scores} | {DECK.get(cell, '-')} | {reset} | {cost} | {minutes} |")
    return "\n".join(lines)


def picture(reports: list[dict], path: Path) -> None:
    """Ours, a dot a seed with its 95 % interval, beside the deck's numbers."""
    from ttmem.evals.plots import pyplot

    cells = list(dict.fromkeys(r["cell"] for r in reports))
    figure, axes = pyplot().subplots(figsize=(8, 0.45 * len(cells) + 1.6), layout="constrained")
    for y, cell in enumerate(cells):
        draw_cell(axes, y, [r for r in reports if r["cell"] == cell])
    axes.plot([], [], "o", color="C0", label="ours, a dot a seed")
    axes.plot(
        [DECK[c] for c in cells if c in DECK],
        [cells.index(c) for c in cells if c in DECK],
        "D",
        color="C1",
        label="deck",
    )
    axes.set(
        yticks=range(len(cells)), yticklabels=cells, xlim=(-0.02, 1.02), xlabel="exact match, test split (bar: 95 %)"
    )
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def draw_cell(axes: Any, y: int, rows: list[dict]) -> None:
    """One cell's seeds around the height y."""
    for i, r in enumerate(rows):
        low, high = r["interval"]
        error = [[r["exact_match"] - low], [high - r["exact_match"]]]
        axes.errorbar(r["exact_match"], y + 0.14 * (i - 1), xerr=error, fmt="o", color="C0", ms=4)


def main() -> None:
    """Train what was asked for, then collect and show everything there is."""
    asked = arguments()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        for name in asked.cells:
            run_cell(name, seed, asked.runs)
    reports = collect(asked.runs)
    print(table(reports))
    if asked.table:
        picture(reports, HERE / "results.png")
    if asked.ship:
        ship(reports, asked.runs)


def arguments() -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="*", default=[], choices=[*CELLS, *BASELINES])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--ship", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
