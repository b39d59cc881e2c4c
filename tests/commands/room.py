"""A folder with small untrained checkpoints, and commands run in it."""

import json

from ttmem.cli import main

CONTEXT = "q!aLA3:w5fz!5X|!7gjy:l8fG!ywS|"
EXPERIMENT = """
from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig
model = ModelConfig(dim=16, layers=1, slots=2)
EXPERIMENT = Experiment("tiny", "N1-K1V1-V62", model, train=TrainConfig(steps=3, batch=4, eval_samples=4, warmup=1))
"""


def said(capsys, *words: str) -> dict:
    """What a command says as JSON."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    """The one line that a command says for bad input."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("ttmem: ") and "Traceback" not in err
    return err
