"""32 pairs to the end: the run of tokens_n32.py goes on without an outer write loss, at half the rate, which falls.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n32_last.py
    ttmem eval runs/tokens-n32-last/model.safetensors --samples 3000 --queries 32

In the root of the repository. With the write loss it is not safe to go on: in both runs that went past 800 steps it
rose, in one from .04 to .57 nats within fifty steps (LOG.md), and the answers suffered.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n32-last",
    task="N32-K2V2-V62",
    model=ModelConfig(
        memory="tokens",
        layers=2,
        dim=128,
        hidden=192,
        window=1,
        slots=8,
        addresses="sines",
        stem=True,
        weigh=True,
        weigh_steps=True,
        weight=0.0,
    ),
    train=TrainConfig(
        steps=1200,
        seed=10,
        start_from="runs/tokens-n32/model.safetensors",
        batch=16,
        queries=32,
        muon_lr=0.004,
        rates_lr=2.0,
        warmup=50,
        decay=0.95,
        floor=0.003,
        eval_every=400,
        eval_samples=300,
        eval_queries=32,
        precision="bf16",
        compile=True,
    ),
    expected={"exact_match": 0.995},
)
