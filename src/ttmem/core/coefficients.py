"""What the memory at each token of a chunk is made of: weights of what was there before, and of each token's gradient.

forgetting   D_ik = prod_{k < m <= i} (1 - alpha_m)
momentum     N_kj = prod_{j < m <= k} eta_m
gradients    G = D N diag(theta)
W before     b_i = prod_{m <= i} (1 - alpha_m)
S before     f_i = sum_k D_ik prod_{m <= k} eta_m
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Coefficients(NamedTuple):
    """What a token's memory is made of: `first` b, of W at the start; `past` f, of S there; `mix` G, of each gradient.

    S at the end is `carry` S - `tail` gradients. The channel axis `e` has one entry where all channels forget alike.
    """

    first: Float[Tensor, "*c t e"]
    past: Float[Tensor, "*c t e"] | None
    mix: Float[Tensor, "*c e t t"]
    carry: Float[Tensor, "*c 1 1"] | None
    tail: Float[Tensor, "*c t 1"] | None

    def chunks(self) -> "list[Coefficients]":
        """Those of each chunk; the chunks are the second axis."""
        count = self.mix.shape[1]
        parts = [[None] * count if part is None else part.unbind(1) for part in self]
        return [Coefficients(*part) for part in zip(*parts, strict=True)]


def span_products(logs: Float[Tensor, "*c t"]) -> Float[Tensor, "*c t t"]:
    """Products of the gates behind j up to i for i >= j, and 0 above, from their logs.

    >>> span_products(torch.tensor([0.5, 0.5, 0.5]).log()).tolist()
    [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, 0.5, 1.0]]
    """
    return SpanProducts.apply(logs)


class SpanProducts(torch.autograd.Function):
    """`span_products`; its gradient in one product, two sums and a running sum from the end."""

    @staticmethod
    def forward(ctx: Any, logs: Tensor) -> Tensor:
        """Sums of logs between any two tokens, and their exponents; infinities above the diagonal are dropped."""
        total = logs.cumsum(-1)
        products = (total[..., :, None] - total[..., None, :]).exp_().tril_()
        ctx.save_for_backward(products)
        return products

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        """A log counts in every product whose span holds it."""
        first_order_only()
        (products,) = ctx.saved_tensors
        flow = outer * products
        return (flow.sum(-1) - flow.sum(-2)).flip(-1).cumsum(-1).flip(-1)


def first_order_only() -> None:
    """Raise RuntimeError where a backward pass is itself to be differentiated: it is written for numbers."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("the chunk-wise form has first derivatives only; for second ones take core.tokenwise")


def coefficients(
    lr: Float[Tensor, "*c t"],
    momentum: Float[Tensor, "*c t"] | None,
    keep: Float[Tensor, "*c t e"] | None,
    heard: Float[Tensor, "*c t"] | None = None,
) -> Coefficients:
    """The weights of all chunks of a layer at once: `G = D N diag(theta)`, D from forgetting and N from momentum.

    A token that is not heard leaves W and S as they are: S is not added to W there.
    """
    keep = torch.zeros_like(lr)[..., None] if keep is None else keep
    decay = span_products(keep.transpose(-1, -2))
    first = keep.cumsum(-2).exp()
    if momentum is None:
        return Coefficients(first, None, decay * lr[..., None, None, :], None, None)
    decay = decay if heard is None else decay * heard[..., None, None, :]
    total = momentum.cumsum(-1)
    left = total.exp()
    past = (decay @ left[..., None, :, None])[..., 0].transpose(-1, -2)
    mix = (decay @ span_products(momentum).unsqueeze(-3)) * lr[..., None, None, :]
    tail = (total[..., -1:] - total).exp() * lr
    return Coefficients(first, past, mix, left[..., -1:, None], tail[..., None])
