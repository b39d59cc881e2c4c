"""A memory small enough to follow by hand: two fast weights, one slow weight, learned rates."""

import torch
from torch import Tensor, nn

from ttmem.core import (
    LearnedRates,
    Log,
    Rule,
    State,
    adam,
    associative,
    begin,
    chain,
    clip,
    fold,
    gradient_step,
    momentum,
    scheduled_step,
    sgd,
    titans,
)
from ttmem.core.objectives import Objective

RULES = {"sgd": sgd, "momentum": momentum, "titans": titans, "adam": adam, "clip": lambda: chain(clip(0.05), titans())}


class Toy(nn.Module):
    """Reads `tanh(x slow w) + c`; `w` and `c` are fast, `slow` is not."""

    def __init__(self, steps: int = 3):
        super().__init__()
        self.init = nn.ParameterDict({"w": torch.randn(3, 2) * 0.5, "c": torch.randn(2) * 0.5})
        self.slow = nn.Parameter(torch.randn(3, 3))
        self.rates = LearnedRates({"w": 0.05, "c": 0.08}, steps, momentum=0.6, forget=0.1)

    def start(self, rule: Rule, batch: int) -> State:
        return begin(rule, {n: p.expand(batch, *p.shape) for n, p in self.init.items()})

    def recall(self, fast: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.tanh(x @ self.slow @ fast["w"]) + fast["c"][:, None]

    @property
    def objective(self) -> Objective:
        return associative(self.recall)

    def write(self, rule: Rule, stream: list, meta: str = "second", recompute: bool = False) -> tuple[State, Log]:
        step = scheduled_step(self.objective, rule, self.rates, meta, len(stream))
        return fold(step, self.start(rule, len(stream[0][0])), stream, recompute)

    def step(self, rule: Rule, meta: str = "second"):
        return gradient_step(self.objective, rule, self.rates, meta)

    def outer(self, state: State, asked: tuple[Tensor, Tensor]) -> Tensor:
        return self.objective(state.fast, asked).sum()


def pairs(batch: int = 2, tokens: int = 4) -> tuple[Tensor, Tensor]:
    """Keys and values."""
    return torch.randn(batch, tokens, 3), torch.randn(batch, tokens, 2)
