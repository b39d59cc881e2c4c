"""Whether a task's ids are those that a model knows, as far as the model says so."""

from typing import Any

from ..tasks.base import Task


def check_fit(model: Any, task: Task) -> None:
    """Raise ValueError where model and task have other ids or another padding; a model that tells none passes."""
    ids, pad, wanted = vocab_of(model), pad_of(model), getattr(task, "pad", 0)
    if ids not in (None, task.vocab):
        raise ValueError(f"model.vocab must be the {task.vocab} ids of {task.name}, got {ids}: take another task")
    if pad not in (None, wanted):
        raise ValueError(f"model.pad must be {wanted}, the padding of {task.name}, got {pad}: take another task")
    check_segments(getattr(model, "config", None), task)


def check_segments(config: Any, task: Task) -> None:
    """Raise ValueError where a model's segments end at an id with which the task ends none; a task that does not say
    with which passes."""
    own = config.separator if getattr(config, "carried", False) else None
    wanted = getattr(task, "separator", own)
    if own is not None and own != wanted:
        mend = f"give {wanted}" if wanted is not None else "it has none: give None, and a segment_size"
        raise ValueError(f"model.separator must be what ends a segment of {task.name}, got {own}: {mend}")


def vocab_of(model: Any) -> int | None:
    """How many ids a model knows; None where it does not say.

    >>> from ttmem.models import Titans, preset
    >>> vocab_of(Titans(preset("tiny", "lmm")))
    258
    """
    return told(getattr(model, "backbone", model), "vocab")


def pad_of(model: Any) -> int | None:
    """The id that a model reads as padding; None where it does not say."""
    return told(model, "pad")


def told(model: Any, name: str) -> int | None:
    """A number of a model, or else of its config."""
    found = getattr(model, name, getattr(getattr(model, "config", None), name, None))
    return found if isinstance(found, int) else None
