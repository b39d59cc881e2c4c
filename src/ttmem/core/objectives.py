"""What a write makes smaller: losses with one number per row, so that the gradient of their sum is per sample."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .state import Tree

Objective = Callable[[Tree, Any], Tensor]
"""`objective(fast, data) -> (batch,)`: the loss of each row, which no other row can change."""


def token_loss(
    logits: Float[Tensor, "b t v"],
    targets: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    weight: Float[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b"]:
    """Mean negative log-likelihood of each row's tokens in nats, over the positions where `mask` is true.

    A row without any such position has loss 0. With `weight` each token's nats are multiplied by its own. Source:
    GradMem (arXiv 2603.13875), the write loss.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none").view(targets.shape)
    nats = nats if weight is None else nats * weight
    return (nats * mask).sum(1) / mask.sum(1).clamp(min=1)


def associative(read: Callable[[Tree, Tensor], Tensor]) -> Objective:
    """`||M(k) - v||^2` summed over tokens and channels (Titans, eq. 12); data is `(keys, values)`, each `(b, t, d)`.

    A third element, a boolean mask `(b, t)`, leaves tokens out.
    """

    def objective(fast: Tree, data: tuple[Tensor, ...]) -> Tensor:
        keys, values, *mask = data
        error = (read(fast, keys) - values).square().sum(-1)
        return (error * mask[0] if mask else error).sum(1)

    return objective
