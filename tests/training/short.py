"""Runs of seconds: a tiny model, tiny tasks, few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ttmem.models import ModelConfig
from ttmem.training import Experiment, Stage, TrainConfig
from ttmem.training.loop import MODEL, STATE

HERE = Path(__file__).resolve().parent
MODEL_CONFIG = ModelConfig(dim=16, layers=1, heads=2, slots=2, steps=1)
EASY, TARGET = "N1-K1V1-V2", "N2-K1V1-V2"
QUICK: dict[str, Any] = dict(
    steps=12, batch=8, warmup=3, decay=4.0, lr=5e-3, eval_every=4, eval_samples=20, log_every=1, checkpoint_every=5
)


def experiment(stages: tuple[Stage, ...] | None = None, task: str = TARGET, **changes: Any) -> Experiment:
    """A run of 12 steps, 6 of them in an easier stage, unless told otherwise."""
    first = (Stage(EASY, threshold=0.0, min_steps=6),) if stages is None else stages
    return Experiment("short", task, MODEL_CONFIG, first, TrainConfig(**QUICK | changes))


def weights(out: Path, name: str = STATE) -> dict[str, Tensor]:
    """All tensors of a run's state, or of its model."""
    return load_file(out / name)


def history(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's history."""
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def untimed(out: Path) -> list[dict[str, Any]]:
    """The history without what a clock told."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "rate")} for line in history(out)]


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, moments, best model and history agree bit for bit."""
    for name in (STATE, MODEL):
        ours, theirs = weights(a, name), weights(b, name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), name
    assert untimed(a) == untimed(b)


def run_script(name: str, *arguments: Any, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """A script of this folder in a process of its own, with one thread; where it dies in C code, its errors say at
    which Python line."""
    folders = [str(HERE.parents[1] / "src"), str(HERE.parent)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, *launcher, str(HERE / name), *map(str, arguments)]
    return subprocess.run(command, env=env, timeout=240, capture_output=True, text=True)
