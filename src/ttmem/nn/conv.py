"""A short causal convolution, for one layer or for a stack of them.

It hands each token its neighbours, without which heads that match a key and read what followed it form late or not at
all. Written as shifted sums: cheap for a short kernel, and differentiable as often as asked.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def causal_conv(
    x: Float[Tensor, "*g b t d"], weight: Float[Tensor, "*g k d"], past: Float[Tensor, "*g b p d"] | None = None
) -> Float[Tensor, "*g b t d"]:
    """Depthwise convolution over the last k tokens, added to its input.

    `past` are the tokens before `x`; where there are fewer than k - 1 of them, zeros stand in.

    >>> causal_conv(torch.ones(1, 4, 1), torch.tensor([[0.5], [0.25]])).flatten().tolist()
    [1.25, 1.75, 1.75, 1.75]
    """
    t, reach = x.shape[-2], weight.shape[-2] - 1
    seen = x if past is None else torch.cat([past[..., max(past.shape[-2] - reach, 0) :, :], x], dim=-2)
    seen = F.pad(seen, (0, 0, t + reach - seen.shape[-2], 0))
    out = x
    for i, tap in enumerate(weight.movedim(-2, 0)[..., None, None, :]):
        out = torch.addcmul(out, seen[..., i : i + t, :], tap)
    return out


class CausalConv(nn.Module):
    """`causal_conv` of one layer; it starts near the identity."""

    def __init__(self, dim: int, kernel: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel, dim) * 0.3 * kernel**-0.5)

    def forward(self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b p d"] | None = None) -> Float[Tensor, "b t d"]:
        """See `causal_conv`."""
        return causal_conv(x, self.weight, past)
