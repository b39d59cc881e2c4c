"""Baseline. No memory, the same decoder and budget, on two pairs of 4 + 4 characters in two segments of 16-32
characters, to compare with.

    ttmem train experiments/none_n2.py
    ttmem eval runs/none-n2/model.safetensors --task N2-K4V4-S2_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/none-n2-1). What they gave, and the time each took:
results.json, made by cells.py.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="none-n2",
    task="N2-K4V4-S2_16-32",
    model=ModelConfig(memory="none", layers=2, hidden=96),
    train=TrainConfig(
        steps=2000, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.5, floor=0.01, eval_every=200
    ),
)
