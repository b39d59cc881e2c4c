"""What is asked: episodes of contexts and questions. Tasks know no model."""

from .associative_retrieval import AssociativeRetrieval
from .base import SPLITS, Episode, Task
from .pairs import parse_pairs

__all__ = ["SPLITS", "AssociativeRetrieval", "Episode", "Task", "parse_pairs"]
