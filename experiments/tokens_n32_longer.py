"""32 pairs further: the run of tokens_n32.py goes on in bf16, half the time of a step where the processor has it.

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n32_longer.py
    ttmem train experiments/tokens_n32_longer.py --out runs/tokens-n32-longest --override train.seed=7 \
        train.start_from=runs/tokens-n32-longer/model.safetensors train.steps=7000 train.decay=0.8 train.floor=0.003
    ttmem eval runs/tokens-n32-longest/model.safetensors --samples 5000

In the root of the repository. Each begins at full step size and decays to almost nothing, which is where it gains.
"""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig

EXPERIMENT = Experiment(
    name="tokens-n32-longer",
    task="N32-K2V2-V62",
    model=ModelConfig(memory="tokens", layers=2, dim=128, hidden=192, window=1, slots=8, weigh=True, weight=0.1),
    train=TrainConfig(
        steps=2600,
        start_from="runs/tokens-n32/model.safetensors",
        batch=16,
        queries=32,
        muon_lr=0.01,
        rates_lr=2.0,
        warmup=100,
        decay=0.6,
        floor=0.01,
        eval_every=500,
        eval_samples=500,
        precision="bf16",
    ),
    expected={"exact_match": 0.97},
)
