"""What the memory at each token of a chunk is made of: weights of what was there before, and of each token's gradient.

forgetting   D_ik = prod_{k < m <= i} (1 - alpha_m)
momentum     N_kj = prod_{j < m <= k} eta_m
gradients    G = D N diag(theta)
W before     b_i = prod_{m <= i} (1 - alpha_m)
S before     f_i = sum_k D_ik prod_{m <= k} eta_m
"""

from typing import NamedTuple

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

    def chunk(self, i: int) -> "Coefficients":
        """Those of chunk `i`."""
        first, past, mix, carry, tail = (None if part is None else part[:, i] for part in self)
        return Coefficients(first, past, mix, carry, tail)  # type: ignore[arg-type]


def span_products(logs: Float[Tensor, "*c t"]) -> Float[Tensor, "*c t t"]:
    """Products of the gates behind j up to i for i >= j, and 0 above, from their logs.

    >>> span_products(torch.tensor([0.5, 0.5, 0.5]).log()).tolist()
    [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, 0.5, 1.0]]
    """
    total, t = logs.cumsum(-1), logs.shape[-1]
    above = torch.ones(t, t, dtype=torch.bool, device=logs.device).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(above, -torch.inf).exp()


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
    carried = span_products(momentum) * lr[..., None, :]
    left = momentum.cumsum(-1).exp()
    past = decay @ left[..., None, :, None]
    mix = decay @ carried.unsqueeze(-3)
    return Coefficients(first, past[..., 0].transpose(-1, -2), mix, left[..., -1:, None], carried[..., -1, :, None])
