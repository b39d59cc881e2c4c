"""What is trained on, and when it gets harder: stages of tasks, promoted by the running exact match."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from ..checks import at_least, one_of, positive
from ..tasks import Task, make_task

ON_BUDGET = ("promote", "stop")


@dataclass(frozen=True)
class Stage:
    """One task of a curriculum, and when it is left.

    Args:
        task: its name, any field of the task in it: `N4-K1V1-V62`.
        threshold: running exact match that promotes (of no use in the last stage).
        half_life: steps after which a step's exact match counts half in the running mean, which starts at 0.
        min_steps: no promotion before so many steps in the stage.
        max_steps: the stage's budget; None: none.
        on_budget: what happens when it is used up: "promote" or "stop" (the last stage always stops).
        rehearsal: share of batches drawn from earlier stages, which ones is decided by the step alone.
        queries: questions of each context in this stage; None: as the training config says.
    """

    task: str
    threshold: float = 0.9
    half_life: float = 14.0
    min_steps: int = 0
    max_steps: int | None = None
    on_budget: str = "promote"
    rehearsal: float = 0.0
    queries: int | None = None

    def __post_init__(self):
        make_task(self.task)
        if not 0 <= self.threshold <= 1 or not 0 <= self.rehearsal < 1:
            raise ValueError(f"threshold and rehearsal must be in [0, 1), got {self.threshold} and {self.rehearsal}")
        positive(self, ("half_life",))
        at_least(self, {"queries": 1})
        one_of(self, {"on_budget": ON_BUDGET})
        if self.max_steps is not None and self.max_steps < max(self.min_steps, 1):
            raise ValueError(f"max_steps must be >= min_steps and 1, got {self.max_steps}")

    def spent(self, steps: int) -> bool:
        """Whether so many steps use up the stage's budget."""
        return self.max_steps is not None and steps >= self.max_steps


class Promotion(NamedTuple):
    """The task that was left, after which step of the run, with which running exact match."""

    task: str
    step: int
    mean: float


@dataclass(frozen=True)
class Standing:
    """Where a run is in its curriculum: stage number, running exact match and steps in it, promotions so far.

    >>> standing = Standing(1, 0.25, 3, (Promotion("N1-K1V1-V62", 40, 0.91),))
    >>> Standing.from_dict(standing.as_dict()) == standing
    True
    """

    stage: int = 0
    mean: float = 0.0
    steps: int = 0
    promotions: tuple[Promotion, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "Standing":
        """The standing that `as_dict` told."""
        return cls(**{**said, "promotions": tuple(Promotion(*each) for each in said["promotions"])})


@dataclass(frozen=True)
class Curriculum:
    """Stages in their order; the last one is the target.

    It keeps nothing: a standing and the exact match of a step go in, the next standing comes out.

    >>> curriculum = Curriculum((Stage("N4-K1V1-V62", threshold=0.5, half_life=1.0), Stage("N4-K2V2-V62")))
    >>> curriculum.advance(Standing(), exact=1.0, step=1)
    Standing(stage=1, mean=0.0, steps=0, promotions=(Promotion(task='N4-K1V1-V62', step=1, mean=0.5),))
    """

    stages: tuple[Stage, ...]

    def __post_init__(self):
        if not self.stages:
            raise ValueError("a curriculum needs at least one stage")

    def is_last(self, standing: Standing) -> bool:
        """Whether the target has been reached."""
        return standing.stage == len(self.stages) - 1

    def draw(self, standing: Standing, step: int, seed: int) -> int:
        """The number of the stage that the batch of this step comes from: the current one, or one to rehearse."""
        chance = random.Random(f"rehearsal/{seed}/{step}")
        if standing.stage and chance.random() < self.stages[standing.stage].rehearsal:
            return chance.randrange(standing.stage)
        return standing.stage

    def advance(self, standing: Standing, exact: float | None, step: int) -> Standing:
        """The standing after a step with this exact match (None for a rehearsal, which moves no mean)."""
        stage = self.stages[standing.stage]
        keep = 0.5 ** (1 / stage.half_life)
        mean = standing.mean if exact is None else keep * standing.mean + (1 - keep) * exact
        moved = replace(standing, mean=mean, steps=standing.steps + 1)
        if self.is_last(moved) or not self._passed(stage, moved):
            return moved
        return Standing(moved.stage + 1, promotions=(*moved.promotions, Promotion(stage.task, step, mean)))

    def is_over(self, standing: Standing) -> bool:
        """Whether a stage's budget ends the run."""
        stage = self.stages[standing.stage]
        return stage.spent(standing.steps) and (self.is_last(standing) or stage.on_budget == "stop")

    def _passed(self, stage: Stage, standing: Standing) -> bool:
        good = standing.mean >= stage.threshold and standing.steps >= stage.min_steps
        return good or (stage.on_budget == "promote" and stage.spent(standing.steps))


def questions(task: Task, wanted: int | None) -> int | None:
    """How many questions to ask of each context: as many as wanted, no more than there are."""
    return None if wanted is None else min(wanted, getattr(task, "pairs", wanted))
