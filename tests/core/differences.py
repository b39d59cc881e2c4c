"""Derivatives without derivatives: what every meta-gradient is held against."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def slopes(loss: Callable[[], Tensor], parameters: Iterable[Tensor], eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The slope of `loss` along one random direction of the parameters: by autograd, and by central differences."""
    parameters = list(parameters)
    directions = [torch.randn_like(p) for p in parameters]
    grads = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    exact = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    return exact, central(loss, parameters, directions, eps)


@torch.no_grad()
def central(loss: Callable[[], Tensor], parameters: list[Tensor], directions: list[Tensor], eps: float) -> Tensor:
    """(loss(p + eps d) - loss(p - eps d)) / 2 eps."""
    values = []
    for move in (eps, -2 * eps):
        torch._foreach_add_(parameters, directions, alpha=move)
        values.append(loss())
    torch._foreach_add_(parameters, directions, alpha=eps)
    return (values[0] - values[1]) / (2 * eps)
