"""How fast a memory is written: constants, learned numbers, or numbers computed from what is read."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Rate = float | Tensor | Mapping[str, Any]
"""One number, a tensor with a number for each row (or row and first dimensions), or one of these per fast weight."""


class Rates(NamedTuple):
    """Step size `lr` (theta), `momentum` (eta: past surprise that stays), `forget` (alpha: share that is dropped)."""

    lr: Rate = 1.0
    momentum: Rate = 0.0
    forget: Rate = 0.0


RateSource = Callable[[int, Any], Rates]
"""`rates(step, data)`: the rates of write number `step` (from 0), which may look at the data written."""


def rate_of(rate: Rate, name: str) -> float | Tensor:
    """The rate of one fast weight."""
    return rate[name] if isinstance(rate, Mapping) else rate


def constant(lr: Rate, momentum: Rate = 0.0, forget: Rate = 0.0) -> RateSource:
    """The same rates at every step.

    >>> constant(0.5)(3, None).lr
    0.5
    """
    rates = Rates(lr, momentum, forget)
    return lambda step, data: rates


def from_data(rates: Callable[[Any], Rates]) -> RateSource:
    """Rates computed from the data written (as the gates of Titans are), the same function at every step."""
    return lambda step, data: rates(data)


class LearnedRates(nn.Module):
    """Rates learned by the outer loop, one per step and per fast weight: Meta-SGD (Li et al. 2017).

    The step size is kept as its logarithm, momentum and forgetting as logits, so each stays in its range. After the
    last learned step the last step's rates serve on, so a memory may be written more often than it was trained for.

    Args:
        lr: the step size to start from (> 0), by name of fast weight; one not named here has no rate (KeyError).
        steps: how many steps have rates of their own.
        momentum, forget: starting values in (0, 1), or None to leave that part out.
    """

    def __init__(self, lr: Mapping[str, float], steps: int, momentum: float | None = None, forget: float | None = None):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be >= 1, got {steps}")
        if not lr or min(lr.values()) <= 0:
            raise ValueError(f"lr must be > 0 for every fast weight, got {dict(lr)}")
        self.steps, self.names, self.parts = steps, list(lr), ["lr"]
        self.raw = nn.ParameterDict({f"lr_{name}": torch.tensor(x).log().repeat(steps) for name, x in lr.items()})
        for part, start in (("momentum", momentum), ("forget", forget)):
            if start is not None:
                if not 0 < start < 1:
                    raise ValueError(f"{part} must be > 0 and < 1, or None to leave it out, got {start}")
                self.parts.append(part)
                raw = torch.logit(torch.tensor(start)).repeat(steps)
                self.raw.update({f"{part}_{name}": raw.clone() for name in lr})

    def forward(self, step: int, data: Any = None) -> Rates:
        row = min(step, self.steps - 1)
        return Rates(**{part: {name: self._value(part, name)[row] for name in self.names} for part in self.parts})

    @property
    def neutral(self) -> tuple[str, ...]:
        """The parameters that a rule without momentum or forgetting has not: a run may go on from such a one."""
        return tuple(f"raw.{part}_{name}" for part in self.parts if part != "lr" for name in self.names)

    @property
    def per_step(self) -> dict[str, int]:
        """The parameters whose first dimension counts steps, and how many they have."""
        return {f"raw.{name}": self.steps for name in self.raw}

    def _value(self, part: str, name: str) -> Tensor:
        raw = self.raw[f"{part}_{name}"]
        return raw.exp() if part == "lr" else raw.sigmoid()


def with_more_steps(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model that was trained with fewer write steps, as `model` has them: what belongs to a step is
    told by its module's `per_step`, and the last one's serves on, so that both write alike."""
    found = dict(tensors)
    for prefix, module in model.named_modules():
        for name, steps in getattr(module, "per_step", {}).items():
            key = f"{prefix}.{name}"
            given = found.get(key)
            if given is not None and 0 < len(given) < steps:
                found[key] = torch.cat([given, given[-1:].expand(steps - len(given), *given.shape[1:])])
    return found
