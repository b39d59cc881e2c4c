"""What takes a memory off the plateau where it holds every value and picks one at random: one lever at a time.

    python experiments/levers.py --seeds 0 1 2
    python experiments/levers.py --table

Four pairs of one character each without filler (`N4-K1V1-V62`), memory tokens, 8 of 64 numbers, the recipe of
tokens_n2.py. The number is the outer step at which the running exact match passes .8 (the plateau is .25); a run that
is still below after 600 steps ends there. Each variant changes one thing. Rows: levers.json, picture: levers.png.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study

from ttmem.evals import evaluate
from ttmem.evals.plots import pyplot
from ttmem.models import Config, ModelConfig
from ttmem.tasks import make_task
from ttmem.training import Stage, TrainConfig

TASK, MOST = "N4-K1V1-V62", 600
BASE = ModelConfig(layers=2, hidden=96, window=1, slots=8)
CHANGES: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "rotary positions": {"positions": "rope"},
    "window: all": {"window": None},
    "no convolution": {"conv": 0},
    "one head for write and read": {"head": False},
    "3 layers": {"layers": 3},
    "8 heads": {"heads": 8},
    "32 slots": {"slots": 32},
    "K = 1": {"steps": 1},
    "K = 3": {"steps": 3},
    "no write loss": {"weight": 0.0},
    "learned weights of tokens": {"weigh": True},
    "memory projection": {"projection": True},
    "learned addresses": {"addresses": "learned"},
    "gate on what is read": {"read_gate": True},
    "stem": {"stem": True},
    "sines": {"addresses": "sines"},
    "sines and stem": {"addresses": "sines", "stem": True},
    "learned addresses, gate, stem": {"addresses": "learned", "read_gate": True, "stem": True},
    "first order": {"meta_gradient": "first"},
}
OWN: dict[str, dict[str, Any]] = {
    "AdamW instead of Muon": {"muon_lr": 0.0},
    "Muon .02": {"muon_lr": 0.02},
    "one question a write": {"queries": 1},
}
VARIANTS: dict[str, Config] = {name: replace(BASE, **changes) for name, changes in CHANGES.items()}
VARIANTS |= dict.fromkeys(OWN, BASE)
TRAIN = TrainConfig(
    steps=MOST, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, schedule="constant", final_steps=1, eval_every=0
)


def measure(model: Any) -> dict:
    """Where the run ended: exact match on the test split."""
    return {"exact_match": evaluate(model, make_task(TASK), samples=1000, seed=1).exact_match}


def draw(rows: list[dict], path: Path) -> None:
    """Steps by variant, a dot a seed; open dots are runs that were still on the plateau when their steps ran out."""
    names = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    figure, axes = pyplot().subplots(figsize=(8, 0.32 * len(names) + 1.2), layout="constrained")
    for y, name in enumerate(names):
        own = sorted((row for row in rows if row["variant"] == name), key=lambda row: row["seed"])
        for place, row in enumerate(own):
            fill = "none" if row["steps"] >= MOST else "C0"
            axes.plot(row["steps"], y + 0.18 * (place - (len(own) - 1) / 2), "o", color="C0", markerfacecolor=fill)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, MOST * 1.03))
    axes.set_xlabel(f"outer steps until the running exact match passes .8 (open: not in {MOST})")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


# The second stage is one step long: the run ends where the first is passed.
STUDIES = {
    "levers": study.Study(
        "levers", "N4-K2V2-V62", VARIANTS, TRAIN, measure, draw, (Stage(TASK, threshold=0.8, max_steps=MOST),), OWN
    )
}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
