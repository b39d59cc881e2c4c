"""What the rows of `titans.py` are made of: a cell of the table, how it is measured, and what a row has to give."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttmem.core.state import map_state


@dataclass(frozen=True)
class Setting:
    """How all rows are measured: at most `repeats` times, and no longer than about `seconds` per column."""

    repeats: int = 7
    seconds: float = 2.0
    threads: int = 1
    backend: str = "inductor"


@dataclass(frozen=True)
class Cell:
    """What is computed: a memory of `heads` x `width` channels, so deep, written in chunks of so many tokens."""

    depth: int = 1
    chunk: int = 64
    heads: int = 1
    width: int = 128
    batch: int = 2
    tokens: int = 1024
    device: str = "cpu"

    def features(self) -> Tensor:
        """What a layer reads, `(batch, tokens, heads * width)`."""
        draw = torch.Generator().manual_seed(1)
        x = torch.randn(self.batch, self.tokens, self.heads * self.width, generator=draw)
        return x.to(self.device).requires_grad_()


def nothing() -> None:
    """No law beyond those of every row."""


@dataclass(frozen=True)
class Subject:
    """What a row measures: outputs, what gradients are taken for, and the same outputs in float64, token by token.

    `exact(n)` gives those of the first n tokens; None: no recurrence is known here. `law` is checked besides those of
    every row. `counted`: the share of its matrix products is told.
    """

    cell: Cell
    forward: Callable[[], Tensor]
    leaves: list[Tensor]
    exact: Callable[[int], Tensor] | None = None
    law: Callable[[], None] = nothing
    counted: bool = False


def double(thing: Any) -> Any:
    """A copy in float64 on the CPU, out of every graph."""
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).double().cpu()
    return map_state(lambda leaf: leaf.detach().cpu().double() if leaf.is_floating_point() else leaf.cpu(), thing)
