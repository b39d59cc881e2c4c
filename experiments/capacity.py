"""The curve nobody has: exact match against bytes, write steps and seconds, for every memory of the package on one set.

    python experiments/capacity.py --seeds 0 1 2
    python experiments/capacity.py --study addresses --seeds 0 1 2
    python experiments/capacity.py --table

Eight pairs of 2 + 2 characters in one context (`N8-K2V2-V62`), the same outer loop and number of contexts for all
(RMT4, whose chained writes diverge at that rate, has half of it): memory tokens, NeuralMemory, MemoryMLP (8 x 64
numbers kept), RMT4 and RMT (the same tokens, in two segments, written by gradient or forward), PRMT4, ARMT and the
Titans LMM (a memory in every layer), and the whole context in view, whose bytes are those of a KV cache. Rows in
capacity.json; capacity.png pools the seeds. `ttmem curve` draws the same for any checkpoints.

`addresses`: the memory tokens again, looked for by learned addresses, through a gate, behind a stem, and by sines
(addresses.json).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study

from ttmem.evals.capacity import Point, measure, pooled
from ttmem.evals.plots import capacity_image, pyplot
from ttmem.models import Config, LayeredConfig, ModelConfig, TitansConfig
from ttmem.tasks import make_task
from ttmem.training import Stage, TrainConfig

TASK, SAMPLES, STEPS, SEGMENT = "N8-K2V2-V62", 2_000, (1, 2, 3, 5, 8), 32
TOKENS = ModelConfig(layers=2, hidden=96, window=1, slots=8)
ARMT = LayeredConfig("armt", layers=2, hidden=96, separator=None, segment_size=SEGMENT)
VARIANTS: dict[str, Config] = {
    "tokens": TOKENS,
    "neural-memory": replace(TOKENS, memory="neural"),
    "memory-mlp": replace(TOKENS, memory="mlp"),
    "rmt4": replace(TOKENS, memory="rmt4", weigh=True, segment_size=SEGMENT, separator=None),
    "rmt": replace(TOKENS, memory="rmt", window=None, segment_size=SEGMENT, separator=None),
    "armt": ARMT,
    "prmt4": replace(ARMT, architecture="prmt4", memory_heads=1, bound="overlap"),
    "lmm": TitansConfig(
        "lmm", vocab=70, layers=2, heads=2, hidden=96, memory_depth=1, memory_norm=False, recompute=False, pad=0
    ),
    "full": ModelConfig(memory="full", layers=2, hidden=96),
}
LEARNED = {"addresses": "learned"}
LOOKS: dict[str, dict[str, Any]] = {
    "tokens": {},
    "learned addresses": LEARNED,
    "gate and stem": {"read_gate": True, "stem": True},
    "learned addresses and stem": LEARNED | {"stem": True},
    "all three": LEARNED | {"read_gate": True, "stem": True},
    "sines": {"addresses": "sines"},
    "sines and stem": {"addresses": "sines", "stem": True},
}
STAGES = (Stage("N4-K1V1-V62", threshold=0.8, max_steps=600), Stage("N4-K2V2-V62", threshold=0.8, max_steps=600))
OWN = {"rmt4": {"muon_lr": 0.005}}
TRAIN = TrainConfig(steps=2000, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.4, floor=0.01, eval_every=500)


def ask(model: Any) -> dict:
    """The points of a model: one for each number of write steps where it takes a number."""
    task = make_task(TASK)
    return {"points": [point.as_dict() for point in measure("", model, task, STEPS, SAMPLES)]}


def draw(rows: list[dict], path: Path) -> None:
    """All memories, seeds pooled."""
    points = [
        Point(**(point | {"name": row["variant"], "interval": tuple(point["interval"])}))
        for row in rows
        for point in row["points"]
    ]
    capacity_image(path, pooled(points), TASK)


def draw_looks(rows: list[dict], path: Path) -> None:
    """Exact match against write steps, a line a variant: the mean of seeds, and each seed a dot."""
    figure, axes = pyplot().subplots(figsize=(8, 3.6), layout="constrained")
    for name in (name for name in LOOKS if any(row["variant"] == name for row in rows)):
        own = [[point["exact_match"] for point in row["points"]] for row in rows if row["variant"] == name]
        line = axes.plot(STEPS, [sum(each) / len(own) for each in zip(*own, strict=True)], label=name)[0]
        for each in own:
            axes.plot(STEPS, each, "o", color=line.get_color(), markersize=4)
    axes.axvline(2, color="0.5", linewidth=0.8, linestyle="--")
    axes.set(xlabel="write steps (trained with two)", ylabel="exact match, test", xticks=STEPS, title=TASK)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)


LOOKING = {name: replace(TOKENS, **more) for name, more in LOOKS.items()}
STUDIES = {
    "capacity": study.Study("capacity", TASK, VARIANTS, TRAIN, ask, draw, STAGES, OWN),
    "addresses": study.Study("addresses", TASK, LOOKING, TRAIN, ask, draw_looks, STAGES),
}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
