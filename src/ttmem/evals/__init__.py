"""Measuring: how often a memory answers right, against how many write steps, and what it costs."""

from .decode import Answer, decode
from .report import Report, wilson
from .run import BATCH, evaluate, steps_curve

__all__ = ["BATCH", "Answer", "Report", "decode", "evaluate", "steps_curve", "wilson"]
