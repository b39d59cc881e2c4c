"""RMT4 on up to 32 segments, most of them filler: four pairs of 2 + 2 characters somewhere in them.

    ttmem train experiments/rmt4_long.py
    python experiments/longer.py

It goes on from the shipped rmt4-n4, which was trained on four segments, in the root of the repository. The outer loop
goes back through the last four segments only (`truncate`); those before are written as they are in use, without a
gradient. longer.py asks it up to 128 segments beside the model that it started from.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="rmt4-long",
    task="N4-K2V2-S32_16-32",
    model=ModelConfig(memory="rmt4", layers=2, hidden=96, window=1, slots=32, weigh=True, truncate=4),
    stages=(
        Stage("N4-K2V2-S4_16-32", max_steps=1),
        Stage("N4-K2V2-S8_16-32", threshold=0.97, max_steps=150, rehearsal=0.2),
        Stage("N4-K2V2-S16_16-32", threshold=0.97, max_steps=250, rehearsal=0.3),
        Stage("N4-K2V2-S32_16-32", rehearsal=0.5),
    ),
    train=TrainConfig(
        steps=700,
        start_from="src/ttmem/checkpoints/rmt4-n4.safetensors",
        batch=32,
        lr=5e-4,
        muon_lr=0.003,
        rates_lr=2.0,
        warmup=50,
        decay=0.5,
        floor=0.01,
        eval_every=100,
        eval_samples=100,
    ),
)
