"""64 and 96 pairs in one go: five write steps with momentum, straight from the two plain ones of 32 pairs.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n32_last.py
    ttmem train experiments/tokens_five.py
    ttmem eval runs/tokens-five/model.safetensors --task N64-K2V2-V62 --samples 1000 --queries 64
    ttmem eval runs/tokens-five/model.safetensors --samples 500 --queries 96

In the root of the repository. 64 pairs are passed within a hundred steps; training on 96 goes on making them better.
tokens_n96_momentum.py ends higher, after four times as many steps.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-five",
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
        rule="momentum",
        momentum=0.2,
        weight=0.1,
    ),
    stages=(Stage("N64-K2V2-V62", threshold=0.95, max_steps=300),),
    train=TrainConfig(
        steps=1500,
        start_from="runs/tokens-n32-last/model.safetensors",
        batch=8,
        queries=96,
        muon_lr=0.008,
        rates_lr=5.0,
        warmup=50,
        decay=0.8,
        floor=0.003,
        eval_every=500,
        eval_samples=50,
        eval_queries=96,
        precision="bf16",
        compile=True,
    ),
    expected={"exact_match": 0.85},
)
