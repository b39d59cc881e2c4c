"""NeuralMemory on one pair of 4 + 4 characters in 16-32 characters of noise: exact match >= .999 (the deck: .999)."""

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig

EXPERIMENT = Experiment(
    name="neural-memory-n1",
    task="N1-K4V4-S1_16-32",
    model=ModelConfig(memory="neural", layers=2, hidden=96, window=1, slots=16),
    stages=(Stage("N1-K2V2-S1_8-16", threshold=0.8),),
    train=TrainConfig(steps=1500, batch=32, muon_lr=0.01, rates_lr=2.0, warmup=100, decay=0.4, floor=0.01, eval_every=250),
    expected={"exact_match": 0.999},
)
