"""A run in a process of its own, killed with SIGKILL from inside: `victim.py OUT before|save|never STEP`."""

import os
import signal
import sys
from pathlib import Path

from training.short import experiment
from ttmem.training import train
from ttmem.training.loop import Trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(moment: str, step: int) -> None:
    """Let the process die before a step, or while it saves the first state after it."""
    learn, replace = Trainer.learn, os.replace

    def learn_or_die(trainer, *rest):
        if trainer.state.step == step and moment == "before":
            die()
        if trainer.state.step == step and moment == "save":
            os.replace = lambda source, target: die() if "state" in str(target) else replace(source, target)
        return learn(trainer, *rest)

    Trainer.learn = learn_or_die


if __name__ == "__main__":
    doom(sys.argv[2], int(sys.argv[3]))
    train(experiment(), Path(sys.argv[1]), progress=False)
