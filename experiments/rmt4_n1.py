"""RMT4 on one pair of 4 + 4 characters in one segment of 16-32 characters: exact match >= 0.99 on the test
split (the deck: .99).

    ttmem train experiments/rmt4_n1.py
    ttmem eval runs/rmt4-n1/model.safetensors --task N1-K4V4-S1_16-32

Seeds 0, 1, 2 (--override train.seed=1 --out runs/rmt4-n1-1). What they gave, and the time each took: results.json,
made by cells.py.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="rmt4-n1",
    task="N1-K4V4-S1_16-32",
    model=ModelConfig(memory="rmt4", layers=2, hidden=96, window=1, slots=32),
    stages=(Stage("N1-K2V2-S1_8-16", threshold=0.8),),
    train=TrainConfig(
        steps=900, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.5, floor=0.01, eval_every=200
    ),
    expected={"exact_match": 0.99},
)
