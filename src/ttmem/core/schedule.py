"""Two walks over the grid of (segment, layer) cells of a model whose memories stay inside their layers.

             segment 0   1   2   3                a cell needs what came out below it (same segment, layer before)
    layer 2          2   3   4   5                and what its own layer remembers (segment before). All cells of one
    layer 1          1   2   3   4                diagonal s + l are independent of each other: they run as one call on
    layer 0          0   1   2   3   <- diagonal  stacked weights, S + L - 1 calls instead of S L, with the same result.

Source: Diagonal Batching (Sivtsov et al. 2025, arXiv 2506.05229). `fold_sequential` is the slow twin.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .state import Tree, map_state

Cell = Callable[[Tree, Tensor, Tree, Tensor], tuple[Tensor, Tree]]
"""`cell(weights, x, state, lengths) -> (x, state)`: g layers, each on a segment of its own.

Weights and state lead with g; x is `(g, b, t, d)`, lengths `(g, b)` says how many tokens of each row are real.
"""


class Stack(NamedTuple):
    """Layers of one kind: what a group of them does, and the weights of all of them, each tensor `(layers, ...)`."""

    cell: Cell
    weights: Tree

    @property
    def layers(self) -> int:
        """How many."""
        return len(next(iter(self.weights.values())))


class Grid(NamedTuple):
    """Segments of equal width side by side, right-padded; a row that has no more segments has empty ones."""

    segments: Float[Tensor, "s b t d"]
    lengths: Int[Tensor, "s b"]


def stack_of(model: Any) -> Stack:
    """The layers of a model for `fold_diagonal`.

    Raises ValueError for one without a method `stack`: its recurrence crosses layers, and `crosses_layers` says how.
    """
    if hasattr(model, "stack"):
        return model.stack()
    name = type(model).__name__
    why = getattr(model, "crosses_layers", "it does not give its layers as a stack, each with a memory of its own")
    raise ValueError(f"schedule must be sequential for {name}: {why}")


def fold_sequential(stack: Stack, state: Tree, grid: Grid) -> tuple[Float[Tensor, "s b t d"], Tree]:
    """One segment after the other through all layers; gives the top outputs and the state of all layers."""
    weights, states = apart(stack.weights, stack.layers), apart(state, stack.layers)
    tops = []
    for x, lengths in zip(grid.segments, grid.lengths, strict=True):
        x = x[None]
        for layer, own in enumerate(weights):
            x, states[layer] = stack.cell(own, x, states[layer], lengths[None])
        tops.append(x)
    return torch.cat(tops), joined(states)


def fold_diagonal(stack: Stack, state: Tree, grid: Grid) -> tuple[Float[Tensor, "s b t d"], Tree]:
    """`fold_sequential` in S + L - 1 grouped calls; nothing is changed in place, so it trains as well."""
    count, layers = len(grid.segments), stack.layers
    lengths, segments = grid.lengths.flip(0), grid.segments.split(1)
    waiting, done, tops = apart(state, layers), [], []
    x, active = grid.segments[:0], _part(state, 0, 0)
    for diagonal in range(count + layers - 1):
        low, high = max(0, diagonal - count + 1), min(diagonal + 1, layers)
        if diagonal < count:
            x = torch.cat([segments[diagonal], x])
        if diagonal < layers:
            active = joined([active, waiting[diagonal]])
        # layer l works on segment diagonal - l: from the newest segment at the bottom to the oldest at the top
        first = count - 1 - diagonal + low
        own = lengths[first : first + high - low]
        x, active = stack.cell(_part(stack.weights, low, high), x, active, own)
        if high == layers:
            x, top = x[:-1], x[-1:]
            tops.append(top)
        if low == diagonal - count + 1:
            done.append(_part(active, 0, 1))
            active = _part(active, 1, high - low)
    return torch.cat(tops), joined(done)


FOLDS: dict[str, Callable[[Stack, Tree, Grid], tuple[Tensor, Tree]]] = {
    "diagonal": fold_diagonal,
    "sequential": fold_sequential,
}


def apart(tree: Tree, layers: int) -> list[Tree]:
    """A tree per layer; together they have one backward, where slices would have one of full size each."""
    parts = {name: leaf.split(1) for name, leaf in tree.items()}
    return [{name: part[layer] for name, part in parts.items()} for layer in range(layers)]


def joined(trees: list[Tree]) -> Tree:
    """One tree of all layers."""
    return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}


def _part(tree: Tree, low: int, high: int) -> Tree:
    """Layers low..high - 1."""
    whole = len(next(iter(tree.values())))
    return tree if (low, high) == (0, whole) else map_state(lambda leaf: leaf[low:high], tree)
