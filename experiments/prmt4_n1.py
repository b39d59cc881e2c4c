"""PRMT4 on one pair of 4 + 4 characters in one segment of 16-32 characters: exact match >= 0.99 on the test
split (the deck: .06).

    ttmem train experiments/prmt4_n1.py
    ttmem eval runs/prmt4-n1/model.safetensors --task N1-K4V4-S1_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/prmt4-n1-1). What they gave, and the time each took: results.json,
made by cells.py.
"""

from ttmem.models import LayeredConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="prmt4-n1",
    task="N1-K4V4-S1_16-32",
    model=LayeredConfig("prmt4", dim=64, layers=3),
    train=TrainConfig(steps=600, batch=32, muon_lr=0.02, warmup=100, decay=0.5, floor=0.01, eval_every=150),
    expected={"exact_match": 0.99},
)
