"""RMT on one pair of 4 + 4 characters in one segment of 16-32 characters, a baseline: reported, whatever it is.

    ttmem train experiments/rmt_n1.py
    ttmem eval runs/rmt-n1/model.safetensors --task N1-K4V4-S1_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/rmt-n1-1). What they gave, and the time each took: results.json,
made by cells.py.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="rmt-n1",
    task="N1-K4V4-S1_16-32",
    model=ModelConfig(memory="rmt", layers=3, slots=32),
    stages=(Stage("N4-K1V1-V62", threshold=0.8, max_steps=500), Stage("N4-K2V2-V62", threshold=0.8, max_steps=500)),
    train=TrainConfig(steps=2000, batch=32, muon_lr=0.01, warmup=100, decay=0.5, floor=0.01, eval_every=150),
)
