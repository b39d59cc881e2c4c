"""Measuring: how often a memory answers right, against how many write steps, and what it costs."""

from .capacity import Point
from .decode import Answer, decode
from .language import nats, nats_by_position
from .report import Report, wilson
from .run import BATCH, evaluate, steps_curve

__all__ = [
    "BATCH",
    "Answer",
    "Point",
    "Report",
    "decode",
    "evaluate",
    "nats",
    "nats_by_position",
    "steps_curve",
    "wilson",
]
