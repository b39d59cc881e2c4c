"""Sharded runs in two processes, in float64: `sharded.py OUT stop|kill|rest`."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from training.short import QUICK, TARGET
from ttmem.models import TitansConfig
from ttmem.tasks import make_task
from ttmem.training import Experiment, TrainConfig, train
from ttmem.training.loop import Trainer

OTHERS = ("lmm", "mag", "mal")
KILLED, SIGNALLED, SAVED = 3, 1, 3
"""After how many steps a process dies; after how many it is asked to stop, and has saved."""
TINY: dict[str, Any] = dict(dim=8, layers=2, heads=2, chunk_size=8, segment_size=8, window_size=8, persistent_tokens=2)


def titans(architecture: str = "mac", **changes: Any) -> Experiment:
    """A run of five steps, with one context and two questions per process."""
    settings = QUICK | dict(steps=5, batch=2, eval_every=2, eval_samples=3, checkpoint_every=2, sharded=True)
    task = make_task(TARGET)
    asked = {"memory_tokens": 2} if architecture == "mac" else {}  # and blocks computed again: as the presets have it
    said = TINY | asked | {"vocab": task.vocab, "pad": task.pad, "context_loss": 0.5, "checkpoint": True}
    model = TitansConfig(architecture=architecture, **said)
    return Experiment("sharded", TARGET, model, (), TrainConfig(**settings | changes))


def send(number: int, step: int) -> None:
    """Let this process send itself a signal as it begins with a step, once."""
    learn = Trainer.learn

    def send_and_learn(trainer, *rest):
        if trainer.state.step == step:
            Trainer.learn = learn
            os.kill(os.getpid(), number)
        return learn(trainer, *rest)

    Trainer.learn = send_and_learn


def look(trainer: Trainer) -> dict[str, int]:
    """How many numbers this process holds of weights and moments after a step, and how many there are."""
    trainer.advance()
    kept = [tensor for moments in trainer.optimizers[0].state.values() for tensor in moments.values()]
    tensors = [*trainer.model.parameters(), *(tensor for tensor in kept if tensor.ndim)]
    return {"here": sum(t.to_local().numel() for t in tensors), "all": sum(t.numel() for t in tensors)}


def stop(out: Path, main: bool) -> None:
    """A run that is stopped and goes on, one that a single process began, and one without interruption."""
    if not main:
        send(signal.SIGTERM, SIGNALLED)  # one process is asked, both stop
    stopped = train(titans(), out / "stopped", progress=False)
    assert (stopped.stopped, stopped.steps) == ("interrupted", SAVED), stopped
    if main:
        shutil.copytree(out / "stopped", out / "moved")
    for name in ("stopped", "single", "mac"):
        train(titans(), out / name, progress=False)
    found = look(Trainer(titans(), out / "look", progress=False))
    (out / f"share{os.environ['RANK']}.json").write_text(json.dumps(found))


def kill(out: Path, main: bool) -> None:
    """A run whose main process is killed."""
    if main:
        send(signal.SIGKILL, KILLED)
    train(titans(), out / "killed", progress=False)


def rest(out: Path, main: bool) -> None:
    """What the killed run goes on to, and the other architectures."""
    train(titans(), out / "killed", progress=False)
    for architecture in OTHERS:
        train(titans(architecture), out / architecture, progress=False)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    {"stop": stop, "kill": kill, "rest": rest}[sys.argv[2]](Path(sys.argv[1]), os.environ["RANK"] == "0")
