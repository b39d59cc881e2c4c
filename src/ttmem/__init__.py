"""Memory trained at test time: fast weights that a model writes by gradient descent while it runs.

>>> import ttmem
>>> model = ttmem.build(ttmem.ModelConfig(dim=16, layers=1), seed=0)
>>> task = ttmem.AssociativeRetrieval.from_name("N2-K4V4-S2_16-32")
>>> state, log = model.write(model.start(3), task.sample(batch=3).context)

Names and modules (`ttmem.models.Titans`) are imported when they are first used, so `import ttmem` alone needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import load_state, save_state
    from .core import State, fold, gradient_step
    from .evals import Report, decode, evaluate, steps_curve
    from .memories import LongTermMemory
    from .memory_file import MemoryMismatch, load_memory, save_memory
    from .models import MetaMemory, ModelConfig, build
    from .tasks import AssociativeRetrieval, Episode
    from .zoo import load

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load_state", "save_state"),
    "core": ("State", "fold", "gradient_step"),
    "evals": ("Report", "decode", "evaluate", "steps_curve"),
    "memories": ("LongTermMemory",),
    "memory_file": ("MemoryMismatch", "load_memory", "save_memory"),
    "models": ("MetaMemory", "ModelConfig", "build"),
    "tasks": ("AssociativeRetrieval", "Episode"),
    "zoo": ("load",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {*_HOMES, "cli", "hf", "nn", "training"}

__all__ = [
    "AssociativeRetrieval",
    "Episode",
    "LongTermMemory",
    "MemoryMismatch",
    "MetaMemory",
    "ModelConfig",
    "Report",
    "State",
    "__version__",
    "build",
    "decode",
    "evaluate",
    "fold",
    "gradient_step",
    "load",
    "load_memory",
    "load_state",
    "save_memory",
    "save_state",
    "steps_curve",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'ttmem' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
