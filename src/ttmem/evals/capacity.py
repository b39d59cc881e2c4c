"""How much a memory holds for what it costs: exact match against bytes, write steps and seconds to write."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from ..tasks.base import Task
from .report import wilson
from .run import evaluate

STEPS = (1, 2, 3, 5, 8)


@dataclass(frozen=True)
class Point:
    """One memory, written with so many steps: how often it answered right, and what it cost.

    Args:
        name: of the memory; points of one name and number of steps, from several seeds, are pooled in the picture.
        steps: write steps; None for a memory that is not written by gradient steps.
        exact_match, interval: with 95 %, on `samples` contexts; `exact_match_reset` is the control.
        memory_bytes: of one memory, every number in 4 bytes; write_seconds: to write one context.
    """

    name: str
    steps: int | None
    exact_match: float
    interval: tuple[float, float]
    exact_match_reset: float
    memory_bytes: int
    write_seconds: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def measure(
    name: str, model: nn.Module, task: Task, steps: Iterable[int] = STEPS, samples: int = 2_000, seed: int = 1
) -> list[Point]:
    """A point for each number of write steps, or one for a model that has none; all on the same test questions.

    A number that comes twice is measured once.

    >>> from ttmem.models import ModelConfig, build
    >>> from ttmem.tasks import make_task
    >>> points = measure("mine", build(ModelConfig(dim=16, layers=1), 0), make_task("N1-K1V1-V62"), (1, 2), samples=10)
    >>> [(point.steps, point.memory_bytes) for point in points]
    [(1, 512), (2, 512)]
    """
    asked = list(dict.fromkeys(steps)) if getattr(model, "takes_steps", False) else [None]
    points = []
    for number in asked:
        report = evaluate(model, task, samples, seed, number)
        scores = (report.exact_match, report.interval, report.exact_match_reset)
        points.append(Point(name, number, *scores, report.memory_bytes, report.write_seconds, samples))
    return points


def pooled(points: Iterable[Point]) -> list[Point]:
    """Points of one name and number of steps (seeds) as one, over all their samples; the slowest write counts.

    The interval is that of all samples, and reaches from the lowest seed to the highest at least: what another seed
    would give is more often unsure than what this one gives.
    """
    found: dict[tuple[str, int | None], list[Point]] = {}
    for point in points:
        found.setdefault((point.name, point.steps), []).append(point)
    return [together(same) for same in found.values()]


def together(points: list[Point]) -> Point:
    """Points of one memory with several seeds as one."""
    samples = sum(point.samples for point in points)
    right = sum(round(point.exact_match * point.samples) for point in points)
    reset = sum(point.exact_match_reset * point.samples for point in points) / samples
    slowest = max(point.write_seconds for point in points)
    low, high = wilson(right, samples)
    found = [point.exact_match for point in points]
    scores: Mapping[str, Any] = {"exact_match": right / samples, "interval": (min(low, *found), max(high, *found))}
    return replace(points[0], **scores, exact_match_reset=reset, write_seconds=slowest, samples=samples)
