"""The push: how many pairs 8 x 128 floats hold, seed by seed.

    python experiments/push.py --seeds 0 1 2     # about three hours a seed on one of two busy cores; goes on if stopped
    python experiments/push.py --table           # collects and draws
    python experiments/push.py --ship            # the 96 pairs that are best on validation into the package

Three runs a seed: tokens_n32.py, its end tokens_n32_last.py, and tokens_n96.py from the first of them. 32 pairs are
asked of the second, 96 and 64 of the third: test split, all pairs of each context, and of the memory when it was reset.
Rows: push.json, picture: push.png.
"""

import argparse
import json
from pathlib import Path

import torch
from study import HERE, cost, done, keep, keep_all, known, recipe, trained

from ttmem.checkpoint import load_model, save_model
from ttmem.evals import evaluate
from ttmem.evals.plots import pyplot
from ttmem.tasks import make_task
from ttmem.training import Experiment, load_experiment, override
from ttmem.zoo import load

FIRST, LAST, MOST = "tokens-n32", "tokens-n32-last", "tokens-n96"
ASKED = {LAST: {32: 3000}, MOST: {64: 500, 96: 500}}
"""Of each run: pairs of a context, and contexts."""
PUBLISHED = {32: 0.983, 64: 0.991, 96: 0.884}
"""GradMem, K = 2, 5, 5 (arXiv 2603.13875)."""
AIMS = {32: 0.995, 64: 0.995, 96: 0.97}


def experiment_of(name: str, seed: int, runs: Path) -> Experiment:
    """A run; the end of 32 pairs draws other contexts than its beginning."""
    changes = [f"train.seed={seed + 10 if name == LAST else seed}"]
    if name != FIRST:
        changes.append(f"train.start_from={runs / f'{FIRST}-{seed}' / 'model.safetensors'}")
    return override(written(name), changes)


def written(name: str) -> Experiment:
    """A run as its file has it."""
    return load_experiment(HERE / f"{name.replace('-', '_')}.py")


def digest(name: str) -> str:
    """Of the run and the one before it, whatever the seed and the folder."""
    return "-".join(recipe(written(each)) for each in dict.fromkeys((FIRST, name)))


def run(name: str, seed: int, runs: Path) -> None:
    """Train and ask, unless that is done."""
    out = runs / f"{name}-{seed}"
    if done(out / "rows.json", digest(name)):
        return
    result = trained(experiment_of(name, seed, runs), out)
    if name in ASKED:
        keep(out / "rows.json", asked(name, seed, out) | {"cost": cost(result)})


def asked(name: str, seed: int, out: Path) -> dict:
    """What the weights in a folder answer."""
    model, scores = load(out / "model.safetensors").model, []
    for pairs, samples in ASKED[name].items():
        report = evaluate(model, make_task(f"N{pairs}-K2V2-V62"), samples, queries=pairs)
        told = ("exact_match", "interval", "exact_match_reset", "samples", "memory_bytes", "write_seconds")
        scores.append({"pairs": pairs} | {key: getattr(report, key) for key in told})
    return {"run": name, "seed": seed, "recipe": digest(name), "scores": scores}


def collect(runs: Path) -> list[dict]:
    """All rows of today's recipes, those of `runs` before those known."""
    path = HERE / "push.json"
    here = [json.loads(found.read_text()) for found in sorted(runs.glob("tokens-n*/rows.json"))]
    found = {(row["run"], row["seed"]): row for row in [*known(path), *here] if row["recipe"] == digest(row["run"])}
    rows = [row for _, row in sorted(found.items())]
    keep_all(path, rows)
    return rows


def ship(rows: list[dict], runs: Path) -> None:
    """Copy the run of 96 pairs that was best on *validation* into the package, its test score in the metadata."""
    tested = {row["seed"]: row for row in rows if row["run"] == MOST}
    found = {
        s: load_model(runs / f"{MOST}-{s}" / "model.safetensors") for s in tested if (runs / f"{MOST}-{s}").is_dir()
    }
    seed = max(found, key=lambda s: (found[s].meta["scores"]["exact_match"], -s))
    score = next(each for each in tested[seed]["scores"] if each["pairs"] == 96)
    meta = found[seed].meta | {key: score[key] for key in ("exact_match", "interval", "samples")}
    meta["experiment"] = experiment_of(MOST, seed, Path("runs")).as_dict()
    path = HERE.parent / "src" / "ttmem" / "checkpoints" / f"{MOST}.safetensors"
    save_model(path, found[seed].config, found[seed].tensors, meta)
    print(f"{path.relative_to(HERE.parent)}  {path.stat().st_size / 1e6:.2f} MB  seed {seed}")


def points(rows: list[dict]) -> list[tuple[int, int, dict]]:
    """Pairs, seed and score of each row's questions."""
    found = [(score["pairs"], row["seed"], score) for row in rows for score in row["scores"]]
    return sorted(found, key=lambda each: each[:2])


def table(rows: list[dict]) -> str:
    """As Markdown."""
    lines = ["| pairs | seed | exact match (95 %) | reset | contexts | aim | GradMem |", "|---" * 7 + "|"]
    for pairs, seed, score in points(rows):
        low, high = score["interval"]
        said = f"{score['exact_match']:.5f} ({low:.5f} to {high:.5f}) | {score['exact_match_reset']:.4f}"
        lines.append(f"| {pairs} | {seed} | {said} | {score['samples']} | {AIMS[pairs]} | {PUBLISHED[pairs]} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    """A dot a seed with its interval, beside the aim and what is published."""
    figure, axes = pyplot().subplots(figsize=(7, 3.4), layout="constrained")
    seeds = sorted({row["seed"] for row in rows})
    for pairs, seed, score in points(rows):
        place = list(AIMS).index(pairs) + 0.1 * (seeds.index(seed) - (len(seeds) - 1) / 2)
        error = [[score["exact_match"] - score["interval"][0]], [score["interval"][1] - score["exact_match"]]]
        axes.errorbar(place, score["exact_match"], yerr=error, fmt="o", color="C0", ms=5)
    axes.plot([], [], "o", color="C0", label="here, a dot a seed (95 %)")
    for values, mark, color, label in ((PUBLISHED, "D", "C1", "GradMem"), (AIMS, "_", "0.4", "aim")):
        axes.plot(
            range(len(values)),
            list(values.values()),
            mark,
            color=color,
            ms=6 if mark == "D" else 12,
            label=label,
            linestyle="",
        )
    axes.set_xticks(range(len(AIMS)), [f"{pairs} pairs, {2 if pairs == 32 else 5} steps" for pairs in AIMS])
    axes.set(ylabel="exact match, test", xlim=(-0.5, 2.5), ylim=(0.86, 1.005), title="8 x 128 floats, all pairs asked")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train what was asked for, then collect and show everything there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="train nothing; collect and draw")
    parser.add_argument("--ship", action="store_true", help="copy the best weights of 96 pairs into the package")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in [] if given.table or given.ship else given.seeds:
        for name in (FIRST, MOST, LAST):
            run(name, seed, given.runs)
    rows = collect(given.runs)
    print(table(rows))
    if rows:
        draw(rows, HERE / "push.png")
    if given.ship:
        ship(rows, given.runs)


if __name__ == "__main__":
    main()
