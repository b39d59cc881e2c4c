"""Memory tokens on 96 pairs of 2 + 2 characters in the same 8 x 128 floats, K = 5. The aim is exact match >= 0.97 on
the test split (GradMem, K = 5: 0.884); it ends at .846, and goes on with momentum
in tokens_n96_momentum.py.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n64.py
    ttmem train experiments/tokens_n96.py
    ttmem eval runs/tokens-n96/model.safetensors --samples 500 --queries 96

It goes on from the run of tokens_n64.py, in the root of the repository.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n96",
    task="N96-K2V2-V62",
    model=ModelConfig(
        memory="tokens",
        steps=5,
        layers=2,
        dim=128,
        hidden=192,
        window=1,
        slots=8,
        addresses="learned",
        read_gate=True,
        stem=True,
        weigh=True,
        weigh_steps=True,
        weight=0.1,
    ),
    train=TrainConfig(
        steps=1000,
        start_from="runs/tokens-n64/model.safetensors",
        batch=8,
        queries=96,
        muon_lr=0.008,
        rates_lr=2.0,
        warmup=50,
        decay=0.7,
        floor=0.003,
        eval_every=250,
        eval_samples=50,
        eval_queries=96,
        precision="bf16",
        compile=True,
    ),
    expected={"exact_match": 0.7},
)
