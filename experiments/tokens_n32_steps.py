"""32 pairs, weighed anew by each write step: the run of tokens_n32_longer.py goes on with `weigh_steps`, compiled.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n32_longer.py                                  # and its second command
    ttmem train experiments/tokens_n32_steps.py --override train.seed=11
    ttmem train experiments/tokens_n32_steps.py --out runs/tokens-n32-last --override train.seed=13 \\
        train.start_from=runs/tokens-n32-steps/model.safetensors model.weight=0 train.muon_lr=0.004 train.steps=3000 \\
        train.decay=0.95
    ttmem eval runs/tokens-n32-last/model.safetensors --samples 3000 --queries 32

In the root of the repository; test split .9908 after the first, .9929 after the second. Validation asks all pairs: with
one question a context it kept weights of .985 where the last ones had .992 (LOG.md).
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n32-steps",
    task="N32-K2V2-V62",
    model=ModelConfig(
        memory="tokens", layers=2, dim=128, hidden=192, window=1, slots=8, weigh=True, weigh_steps=True, weight=0.1
    ),
    train=TrainConfig(
        steps=2400,
        start_from="runs/tokens-n32-longest/model.safetensors",
        batch=16,
        queries=32,
        muon_lr=0.007,
        rates_lr=2.0,
        warmup=50,
        decay=0.8,
        floor=0.003,
        eval_every=800,
        eval_samples=300,
        eval_queries=32,
        precision="bf16",
        compile=True,
    ),
    expected={"exact_match": 0.985},
)
