"""ARMT on four pairs of 2 + 2 characters in four segments of 16-32 characters, a baseline: reported, whatever it is.

    ttmem train experiments/armt_n4.py
    ttmem eval runs/armt-n4/model.safetensors --task N4-K2V2-S4_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/armt-n4-1). What they gave, and the time each took: results.json,
made by cells.py.
"""

from ttmem.models import LayeredConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="armt-n4",
    task="N4-K2V2-S4_16-32",
    model=LayeredConfig("armt", dim=64, layers=3),
    stages=(Stage("N4-K1V1-V62", threshold=0.8, max_steps=500), Stage("N4-K2V2-V62", threshold=0.8, max_steps=500)),
    train=TrainConfig(steps=2000, batch=32, muon_lr=0.02, warmup=100, decay=0.5, floor=0.01, eval_every=150),
)
