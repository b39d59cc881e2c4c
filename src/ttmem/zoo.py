"""Checkpoints by name or path: the ones shipped inside the package, and your own."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from .checkpoint import fill, load_model, shelf
from .memory_file import Writer
from .models import build, config_of
from .tasks import make_task

NAMES = (
    "tokens-n1",
    "neural-memory-n1",
    "memory-mlp-n1",
    "tokens-n2",
    "neural-memory-n2",
    "memory-mlp-n2",
    "tokens-n8",
    "tokens-n96",
    "rmt4-n1",
    "rmt4-n2",
    "rmt4-n4",
    "rmt4-long",
    "prmt4-n1",
    "prmt4-n2",
    "prmt4-n4",
)
"""What is shipped: the kind of memory, and how many pairs it was trained to hold."""


@dataclass(frozen=True)
class Loaded:
    """A `model` (an nn.Module) with what its checkpoint says: the `facts` of its training, among them its `task`, and
    its `config`."""

    name: str
    path: Path
    model: Any
    fingerprint: str
    facts: dict[str, Any]
    config: dict[str, Any]

    @property
    def task(self) -> str | None:
        """The name of the task it was trained for."""
        return self.facts.get("task")

    @property
    def writer(self) -> Writer:
        """Who this model is in the memory files it writes."""
        return Writer.of(self.model, self.name, self.fingerprint)

    def make_task(self, name: str | None = None) -> Any:
        """The task of a name, or the one it was trained for; ValueError where neither is known."""
        if name is None and self.task is None:
            raise ValueError(f"{self.path} does not say its task: give --task, such as N2-K4V4-S2_16-32")
        return make_task(str(self.task) if name is None else name)


def folder() -> Path:
    """Where the shipped checkpoints lie."""
    return shelf()


def is_shipped(name: str) -> bool:
    """Whether the checkpoint of a name is in this installation."""
    return name in NAMES and (folder() / f"{name}.safetensors").is_file()


def locate(where: str | Path) -> Path:
    """The file of a path or of a shipped name; FileNotFoundError names what there is.

    A file in the current folder goes before a shipped checkpoint of the same name.
    """
    if Path(where).is_file():
        return Path(where)
    if is_shipped(str(where)):
        return folder() / f"{where}.safetensors"
    if not str(where):
        raise ValueError("the checkpoint must be a file or a name, got ''")
    if Path(where).is_dir():
        raise ValueError(f"{where} is a folder: give a file in it")
    if str(where) in NAMES:
        there = ", ".join(filter(is_shipped, NAMES)) or "none"
        raise FileNotFoundError(f"checkpoint {where} is not in this installation, which has: {there}")
    raise FileNotFoundError(f"there is no file {where}, and no shipped checkpoint of that name: {', '.join(NAMES)}")


def load(where: str | Path) -> Loaded:
    """A checkpoint's model, in evaluation mode, from a path or a shipped name (`ttmem models` lists them).

    Raises FileNotFoundError for neither, ValueError for a file that is no checkpoint, is corrupt, or holds numbers that
    are not finite.
    """
    path = locate(where)
    found = load_model(path)
    model = rebuild(path, found.config)
    fill(model, found.tensors, path)
    for part, tensor in found.tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path} holds numbers that are not finite, in {part}: train it again, or fetch it again")
    name = str(where) if str(where) in NAMES else str(found.meta.get("name", path.stem))
    return Loaded(name, path, model.eval(), found.fingerprint, found.meta, dict(found.config))


def rebuild(path: Path, config: Mapping[str, Any]) -> nn.Module:
    """The model of a stored config, its weights not yet set."""
    try:
        return build(config_of(config), seed=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a config that this ttmem does not know: {error}") from error


def listing() -> list[dict[str, Any]]:
    """What is shipped, in the order of NAMES: name, task, recorded exact match, bytes of the file and of a memory."""
    return [entry(name) for name in NAMES]


def entry(name: str) -> dict[str, Any]:
    """A line of the listing; `shipped` is False, and the rest None, where the file is not in this installation."""
    if not is_shipped(name):
        unknown = dict.fromkeys(("task", "exact_match", "bytes", "memory_bytes"))
        return {"name": name, "shipped": False} | unknown
    loaded = load(name)
    return {
        "name": name,
        "shipped": True,
        "task": loaded.task,
        "exact_match": recorded(loaded.facts),
        "bytes": loaded.path.stat().st_size,
        "memory_bytes": 4 * sum(map(prod, loaded.writer.shapes.values())),
    }


def recorded(facts: Mapping[str, Any]) -> float | None:
    """The exact match in a checkpoint's facts: on the test split where that was recorded, else on validation."""
    return facts.get("exact_match", facts.get("scores", {}).get("exact_match"))
