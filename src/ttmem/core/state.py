"""What a memory holds: fast weights, and what the write rule remembers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tree = dict[str, Tensor]
"""Named tensors whose leading dimension is the batch: one copy of the fast weights per row."""

Velocity = tuple
"""What a rule remembers between steps; each rule defines its own layout, made of trees and nested tuples."""


class State(NamedTuple):
    """A memory in the middle of being written.

    `fast` are the weights the write changes, `velocity` what the rule remembers (momentum, Adam's moments), `step` the
    number of writes done so far: rates may depend on it, so writing 2 + 3 times equals writing 5 times.
    """

    fast: Tree
    velocity: Velocity = ()
    step: int = 0


class Log(NamedTuple):
    """What one write reports: the `loss` before it and the norm of its `surprise` (the gradient), each `(batch,)`."""

    loss: Tensor
    surprise: Tensor


def map_state(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `function` to every tensor of a nested structure of dicts and (named) tuples; other leaves are kept."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: map_state(function, leaf) for name, leaf in tree.items()}
    if isinstance(tree, tuple):
        leaves = [map_state(function, leaf) for leaf in tree]
        return type(tree)(*leaves) if hasattr(tree, "_fields") else tuple(leaves)
    return tree


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a nested structure, in a fixed order."""
    found: list[Tensor] = []

    def collect(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    map_state(collect, tree)
    return found


def entries(tree: Any, path: str = "") -> dict[str, Any]:
    """All leaves of nested dicts and (named) tuples, tensors or not, by their place there.

    >>> entries({"0": State({"w": 1}, (2,)), "mem": 3})
    {'0.fast.w': 1, '0.velocity.0': 2, '0.step': 0, 'mem': 3}
    """
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    elif isinstance(tree, tuple):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {path: tree}
    inner = (entries(part, f"{path}.{name}" if path else str(name)) for name, part in tree.items())
    return {name: leaf for each in inner for name, leaf in each.items()}


def named(tree: Any) -> Tree:
    """The tensors among `entries`."""
    return {name: leaf for name, leaf in entries(tree).items() if isinstance(leaf, Tensor)}


def refilled(like: Any, leaves: Mapping[str, Any], path: str = "") -> Any:
    """A tree in the form of another, with the leaves that `entries` gave."""
    if not isinstance(like, (dict, tuple)):
        return leaves[path]
    if isinstance(like, dict):
        return {name: refilled(part, leaves, f"{path}.{name}" if path else str(name)) for name, part in like.items()}
    names = getattr(like, "_fields", range(len(like)))
    parts = [
        refilled(part, leaves, f"{path}.{name}" if path else str(name)) for name, part in zip(names, like, strict=True)
    ]
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def detach(state: State) -> State:
    """The same memory, cut from the graph that wrote it.

    >>> detach(State({"w": torch.ones(1, 2, requires_grad=True)})).fast["w"].requires_grad
    False
    """
    return map_state(lambda leaf: leaf.detach(), state)


def usable(tree: Any) -> Any:
    """The same tensors, copied where they were written in inference mode: autograd refuses those outside it."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return tree
    return map_state(lambda leaf: leaf.clone() if leaf.is_inference() else leaf, tree)


def row_norm(tree: Tree) -> Tensor:
    """The Euclidean norm of each row over all tensors of the tree, `(batch,)`; its gradient at zero is zero."""
    squares = torch.stack([leaf.flatten(1).square().sum(1) for leaf in tree.values()]).sum(0)
    return torch.sqrt(squares.clamp_min(torch.finfo(squares.dtype).tiny))
