"""Tasks by name."""

from typing import Any

from .associative_retrieval import AssociativeRetrieval
from .base import Task
from .needle import Needle
from .text import Text

TASKS: dict[str, Any] = {"text": Text, "needle": Needle}


def make_task(name: str) -> Task:
    """The task of a name: `text:...`, `needle:...`, or a set of associative retrieval; ValueError where there is none.

    >>> make_task("N2-K4V4-S2_16-32").vocab, make_task("needle:passkey:256").vocab
    (70, 258)
    """
    kind: Any = TASKS.get(name.partition(":")[0], AssociativeRetrieval)
    return kind.from_name(name)
