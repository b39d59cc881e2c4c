"""Carried writes: one pair per segment, 1 to 20 segments, each written into the memory that the one before left.

    python experiments/carried.py --seeds 0 1 2
    python experiments/carried.py --table

RMT4 trained on 1 to 8 segments of one pair (2 + 2 characters among 9-16), asked for every pair after 1..20 of them on
the test split: how much is known of the newest pair, and of each older one. As it is; with each thing that might keep
a memory from being written over: learned momentum and forgetting, a gate, a replay, learned weights of tokens; with
step sizes that stay where they start; shown 16 segments, the outer gradient through the last four; with memory tokens
that are found by what they hold instead of by learned addresses; and read by sines. "sines to 20" goes on from the run
of "sines" of its seed, in runs/ (so no --runs, and that variant first), for 600 steps on up to 20 segments. RMT, PRMT4
and ARMT beside.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study
import torch

from ttmem.evals.plots import pyplot
from ttmem.evals.run import BATCH, correct, evaluating, memory_bytes
from ttmem.models import Config, LayeredConfig, ModelConfig
from ttmem.tasks import make_task
from ttmem.training import Stage, TrainConfig

MOST, TRAINED, SAMPLES = 20, 8, 1000
COLUMNS = 4
"""Heat maps beside each other in the picture."""
TASK = "N{0}-K2V2-E{0}_9-16"
BASE = ModelConfig(
    memory="rmt4", layers=2, hidden=96, window=1, slots=32, addresses="learned", read_gate=True, stem=True
)
SINES = replace(BASE, addresses="sines", read_gate=False)
VARIANTS: dict[str, Config] = {
    "rmt4": BASE,
    "forgetting": replace(BASE, rule="titans", momentum=0.1, forget=0.003),
    "gate": replace(BASE, gate=True),
    "replay": replace(BASE, replay=0.1),
    "weigh": replace(BASE, weigh=True),
    "fixed step sizes": BASE,
    "rmt4 to 16": replace(BASE, truncate=4),
    "content addresses": replace(BASE, addresses="content"),
    "sines": SINES,
    "sines to 20": SINES,
    "rmt": ModelConfig(memory="rmt", layers=2, hidden=96, slots=32),
    "prmt4": LayeredConfig("prmt4", memory_heads=1),
    "armt": LayeredConfig("armt"),
}
OWN: dict[str, dict[str, Any]] = {"prmt4": {"muon_lr": 0.02, "steps": 4000}, "armt": {"muon_lr": 0.02}}
OWN["fixed step sizes"] = {"rates_lr": 0.0}
OWN["sines to 20"] = {"start_from": "runs/carried-sines-{seed}/model.safetensors", "muon_lr": 0.005, "steps": 600}
STAGES = (
    Stage("N4-K1V1-V62", threshold=0.8),
    Stage("N4-K2V2-V62", threshold=0.8),
    Stage(TASK.format(2), threshold=0.8),
    Stage(TASK.format(4), threshold=0.8, rehearsal=0.2),
)
LAST = Stage(TASK.format(TRAINED), rehearsal=0.4)
SHOWN = {"rmt4 to 16": 16, "sines to 20": MOST}
LONGER = (replace(LAST, threshold=0.85, rehearsal=0.2), Stage(TASK.format(16), rehearsal=0.4))
TRAIN = TrainConfig(steps=2600, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.4, floor=0.01, eval_every=200)


def measure(model: Any) -> dict:
    """Exact match by number of segments and age: `ages[n - 1][a]` of the pair with `a` writes after its own."""
    found = [ages(model, count) for count in range(1, MOST + 1)]
    return {"ages": found, "samples": SAMPLES, "memory_bytes": memory_bytes(model.start(1), 1)}


def ages(model: Any, count: int) -> list[float]:
    """Of so many segments each one's pair, the newest first: the share of `SAMPLES` test contexts that know it."""
    known, task = [], make_task(TASK.format(count))
    with evaluating(model):
        for episode in (task.sample(BATCH, "test", seed=1, index=i) for i in range(SAMPLES // BATCH)):
            state, _ = model.write(model.start(BATCH), episode.context)
            right = (correct(model, state, episode) | ~episode.answer).all(-1)
            known.append(right.gather(1, episode.slices["segment"].argsort(dim=1, descending=True)))
    return [round(share, 4) for share in torch.cat(known).double().mean(0).tolist()]


def draw(rows: list[dict], path: Path) -> None:
    """A heat map a variant, segments x age, mean over seeds."""
    import numpy

    found = {name: [row for row in rows if row["variant"] == name] for name in VARIANTS}
    found = {name: own for name, own in found.items() if own}
    lines = -(-len(found) // COLUMNS)
    figure, panels = pyplot().subplots(
        lines, COLUMNS, figsize=(3.5 * COLUMNS + 1, 3.8 * lines), layout="constrained", squeeze=False, sharey=True
    )
    for axes in panels.flat[len(found) :]:
        axes.remove()
    for axes, (name, own) in zip(panels.flat, found.items(), strict=False):
        grid = numpy.full((MOST, MOST), numpy.nan)
        for count in range(MOST):
            grid[: count + 1, count] = numpy.mean([row["ages"][count] for row in own], axis=0)
        image = axes.imshow(
            grid, origin="lower", vmin=0, vmax=1, extent=(0.5, MOST + 0.5, -0.5, MOST - 0.5), aspect="auto"
        )
        axes.axvline(SHOWN.get(name, TRAINED) + 0.5, color="0.5", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(0, MOST, 5))
        seeds = f"{len(own)} seed{'s' * (len(own) > 1)}, {own[0]['memory_bytes']:,} bytes"
        told = f"newest of {MOST}: {grid[0, -1]:.3f}, oldest: {grid[-1, -1]:.3f}"
        axes.set(xlabel="segments written", title=f"{name} ({seeds})\n{told}")
    for axes in panels[:, 0]:
        axes.set_ylabel("writes after the pair's own")
    figure.colorbar(image, ax=panels[0], label="exact match, test")
    figure.savefig(path, dpi=150)


CURRICULA = {
    "rmt4 to 16": (*STAGES, *LONGER),
    "sines to 20": (replace(LAST, threshold=0.8, rehearsal=0.0), Stage(TASK.format(MOST), rehearsal=0.4)),
}
STUDIES = {
    "carried": study.Study("carried", LAST.task, VARIANTS, TRAIN, measure, draw, (*STAGES, LAST), OWN, CURRICULA)
}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
