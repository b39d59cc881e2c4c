"""Memory tokens on 32 pairs of 2 + 2 characters in 8 x 128 floats, K = 2. The aim is exact match >= 0.995 on the test
split (GradMem, K = 2: 0.983, after some 200k steps and more). The first of two parts: tokens_n32_last.py goes on.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n32_last.py

What lets so small a memory hold so much, each of it measured in LOG.md: sines that read it, behind a stem
(docs/meta-memory.md); weights of the tokens of a context, each step its own; an outer write loss that counts a tenth,
and nothing in the second part. Validation asks all pairs: one question a context cannot tell such weights apart.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n32",
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
        weight=0.1,
    ),
    stages=(
        Stage("N4-K1V1-V62", threshold=0.8, max_steps=600),
        Stage("N8-K2V2-V62", threshold=0.9, max_steps=600),
    ),
    train=TrainConfig(
        steps=600,
        batch=16,
        queries=32,
        muon_lr=0.008,
        rates_lr=2.0,
        warmup=100,
        decay=0.2,
        floor=0.5,
        eval_every=600,
        eval_samples=100,
        eval_queries=32,
        precision="bf16",
        compile=True,
    ),
    expected={"exact_match": 0.97},
)
