"""What is asked: episodes of contexts and questions. Tasks know no model."""

from .associative_retrieval import AssociativeRetrieval
from .babilong import BabiLong, read_babilong
from .base import SPLITS, Episode, Task
from .names import make_task
from .needle import Needle
from .pairs import parse_pairs
from .text import Text

__all__ = [
    "SPLITS",
    "AssociativeRetrieval",
    "BabiLong",
    "Episode",
    "Needle",
    "Task",
    "Text",
    "make_task",
    "parse_pairs",
    "read_babilong",
]
