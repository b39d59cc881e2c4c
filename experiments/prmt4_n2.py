"""PRMT4 on two pairs of 4 + 4 characters in two segments of 16-32 characters: exact match >= 0.99 on the test
split (the deck: 0.0).

    ttmem train experiments/prmt4_n2.py
    ttmem eval runs/prmt4-n2/model.safetensors --task N2-K4V4-S2_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/prmt4-n2-1). What they gave, and the time each took: results.json,
made by cells.py.
"""

from ttmem.models import LayeredConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="prmt4-n2",
    task="N2-K4V4-S2_16-32",
    model=LayeredConfig("prmt4", dim=64, layers=3, memory_heads=1, bound="overlap"),
    stages=(Stage("N4-K1V1-V62", threshold=0.8), Stage("N4-K2V2-V62", threshold=0.8)),
    train=TrainConfig(steps=3000, batch=32, muon_lr=0.02, warmup=100, decay=0.5, floor=0.01, eval_every=150),
    expected={"exact_match": 0.99},
)
