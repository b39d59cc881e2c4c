"""Memory tokens on eight pairs of 2 + 2 characters, no filler: exact match >= 0.99 on the test split with 8 x 128
floats (GradMem: 99.6 with K = 2, after about 200k steps).

    ttmem train experiments/tokens_n8.py
    ttmem eval runs/tokens-n8/model.safetensors --task N8-K2V2-V62

Seeds 0, 1, 2 (--override train.seed=1 --out runs/tokens-n8-1). What they gave, and the time each took:
results.json, made by cells.py.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n8",
    task="N8-K2V2-V62",
    model=ModelConfig(memory="tokens", layers=2, dim=128, hidden=192, window=1, slots=8),
    stages=(Stage("N4-K1V1-V62", threshold=0.8),),
    train=TrainConfig(
        steps=4200, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.5, floor=0.01, eval_every=200
    ),
    expected={"exact_match": 0.99},
)
