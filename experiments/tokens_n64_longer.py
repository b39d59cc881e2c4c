"""64 pairs further: the run of tokens_n64.py goes on in bf16, with all pairs asked.

    ttmem train experiments/tokens_n64.py
    ttmem train experiments/tokens_n64_longer.py --override train.seed=7
    ttmem eval runs/tokens-n64-longer/model.safetensors --samples 1000

In the root of the repository, after tokens_n32.py; see LOG.md for what it has come to.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n64-longer",
    task="N64-K2V2-V62",
    model=ModelConfig(
        memory="tokens", steps=5, layers=2, dim=128, hidden=192, window=1, slots=8, weigh=True, weight=0.1
    ),
    train=TrainConfig(
        steps=3600,
        start_from="runs/tokens-n64/model.safetensors",
        batch=8,
        queries=64,
        muon_lr=0.007,
        rates_lr=2.0,
        warmup=50,
        decay=0.8,
        floor=0.003,
        eval_every=400,
        eval_samples=250,
        precision="bf16",
    ),
    expected={"exact_match": 0.98},
)
