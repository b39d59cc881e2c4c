"""96 pairs, and 64, in the same 8 x 128 floats: five write steps with momentum, from the two plain ones of 32 pairs.

The aims are exact match >= 0.97 on the test split of 96 pairs (GradMem, K = 5: 0.884) and >= 0.995 on that of 64
(0.991).

    ttmem train experiments/tokens_n32.py
    ttmem train experiments/tokens_n96.py
    ttmem eval runs/tokens-n96/model.safetensors --samples 500 --queries 96
    ttmem eval runs/tokens-n96/model.safetensors --task N64-K2V2-V62 --samples 1000 --queries 64

In the root of the repository; push.py does this seed by seed. Two hours and a half for the second on one of two busy
cores of an Intel Xeon; where bf16 is the faster (an AMD EPYC: twice), `train.precision=bf16`. The rates are low: a run
at muon_lr=0.008, with learned addresses beside the sines, stood at .75 from step 300 to 680 (LOG.md), perhaps because
the length of Muon's steps does not shrink with the gradient. It takes the steps: seed 0 had .957 after 3,300 of a
shorter schedule.
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
        addresses="sines",
        stem=True,
        weigh=True,
        weigh_steps=True,
        rule="momentum",
        momentum=0.5,
        weight=0.0,
    ),
    train=TrainConfig(
        steps=4000,
        start_from="runs/tokens-n32/model.safetensors",
        batch=8,
        queries=96,
        lr=0.001,
        muon_lr=0.003,
        rates_lr=40.0,
        warmup=50,
        decay=0.8,
        floor=0.003,
        eval_every=300,
        eval_samples=50,
        eval_queries=96,
        precision="fp32",
        compile=True,
    ),
    expected={"exact_match": 0.97},
)
