"""Tasks by name."""

from typing import Any

from .associative_retrieval import AssociativeRetrieval
from .babilong import BabiLong
from .base import Task
from .needle import Needle
from .text import Text

TASKS: dict[str, Any] = {"text": Text, "needle": Needle, "babilong": BabiLong}


def make_task(name: str) -> Task:
    """The task of a name: `text:...`, `needle:...`, `babilong:...`, or a set of associative retrieval.

    Raises ValueError where there is none.

    >>> [make_task(name).vocab for name in ("N2-K4V4-S2_16-32", "needle:passkey:256", "babilong:qa1:4k")]
    [70, 258, 1058]
    """
    kind: Any = TASKS.get(name.partition(":")[0], AssociativeRetrieval)
    return kind.from_name(name)
