"""Small untrained checkpoints for tests."""

from dataclasses import asdict
from pathlib import Path

from ttmem.checkpoint import save_model
from ttmem.models import ModelConfig, build

TASK = "N2-K4V4-S2_16-32"
SMALL = {"dim": 16, "layers": 1, "slots": 4}


def checkpoint(path: Path, memory: str = "tokens", seed: int = 0, **facts) -> Path:
    """A model that was never trained, as a file."""
    config = ModelConfig(memory=memory, **SMALL)
    facts = {"name": path.stem, "task": TASK} | facts
    return save_model(path, asdict(config), build(config, seed).state_dict(), facts)
