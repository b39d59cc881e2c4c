"""The surprise: the gradient of a write objective, and how much of the write the outer loop sees."""

from typing import Any

import torch
from torch import Tensor

from .objectives import Objective
from .state import Tree

META_GRADIENTS = ("second", "first", "none")


def check_meta_gradient(meta: str) -> str:
    """Return `meta` if it is one of `second`, `first`, `none` or `last_K` (K >= 1), else raise ValueError."""
    if meta in META_GRADIENTS or (meta.startswith("last_") and meta[5:].isdigit() and int(meta[5:]) > 0):
        return meta
    raise ValueError(f"meta_gradient must be second, first, none or last_K (last_2, say), got {meta!r}")


def at_step(meta: str, step: int, steps: int) -> str:
    """The meta-gradient of step `step` out of `steps`: `last_K` is `first` at first and `second` in the last K."""
    if not meta.startswith("last_"):
        return meta
    return "second" if step >= steps - int(meta[5:]) else "first"


def surprise(objective: Objective, fast: Tree, data: Any, meta: str = "second") -> tuple[Tree, Tensor]:
    """The gradient of each row's loss with respect to its fast weights, and the losses `(batch,)`.

    Rows are independent, so the gradient of the sum is the gradient of each. `meta` says what the outer loop sees of
    it: `second` everything, `first` and `none` a constant. Works for callers under `torch.no_grad()` (the result then
    has no graph) and `torch.inference_mode()`.
    """
    second = meta == "second" and torch.is_grad_enabled()
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return _functional(objective, fast, data, second)
    with torch.enable_grad():
        leaves = {n: w if second and w.requires_grad else _leaf(w) for n, w in fast.items()}
        losses = objective(leaves, data)
        grads = torch.autograd.grad(
            losses.sum(), list(leaves.values()), create_graph=second, allow_unused=True, materialize_grads=True
        )
    return dict(zip(leaves, grads, strict=True)), losses if second else losses.detach()


def _leaf(weight: Tensor) -> Tensor:
    """A leaf with the same numbers; autograd refuses what was written in inference mode, so that is copied."""
    return (weight.clone() if weight.is_inference() else weight.detach()).requires_grad_()


def _functional(objective: Objective, fast: Tree, data: Any, second: bool) -> tuple[Tree, Tensor]:
    """The same by torch.func, which runs where autograd.grad does not: in inference mode, and inside torch.compile.

    What the compiler sees is a forward pass that holds the inner gradient, and differentiates that once; it refuses to
    differentiate a gradient of its own a second time.
    """

    def total(weights: Tree) -> tuple[Tensor, Tensor]:
        losses = objective(weights, data)
        return losses.sum(), losses

    grads, losses = torch.func.grad(total, has_aux=True)(fast)
    if second:
        return grads, losses
    return {name: grad.detach() for name, grad in grads.items()}, losses.detach()
