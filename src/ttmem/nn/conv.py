"""A short causal convolution, for one layer or for a stack of them.

It hands each token its neighbours, without which heads that match a key and read what followed it form late or not at
all. Its gradient is written by hand, in half the time of the shifted sums' own, and can itself be differentiated.
"""

from typing import Any

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
    seen = x if past is None else torch.cat([past[..., -reach:, :] if reach else past[..., :0, :], x], dim=-2)
    both = torch.promote_types(x.dtype, weight.dtype)  # under autocast they differ
    seen = F.pad(seen, (0, 0, t + reach - seen.shape[-2], 0)).to(both)
    taps = weight.to(both).movedim(-2, 0)[..., None, None, :]
    if torch.compiler.is_compiling():  # the compiler fuses the sum, and cannot look into a hand-written gradient twice
        return x + sum(seen[..., i : i + t, :] * tap for i, tap in enumerate(taps))
    return x + Taps.apply(seen, taps)


class Taps(torch.autograd.Function):
    """`sum_i seen[i : i + t] * taps[i]` for taps `(k, *g, 1, 1, d)`; t is what k taps leave of the tokens."""

    @staticmethod
    def forward(seen: Tensor, taps: Tensor) -> Tensor:
        """One pass over the tokens for each tap."""
        t = seen.shape[-2] - len(taps) + 1
        out = seen[..., :t, :] * taps[0]
        for i in range(1, len(taps)):
            out.addcmul_(seen[..., i : i + t, :], taps[i])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Apart from `forward`, as torch.func needs it."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The same sum with the taps in reverse, and what each tap met; both in terms that have gradients."""
        (seen, taps), t = ctx.saved_tensors, outer.shape[-2]
        of_seen = of_taps = None
        if ctx.needs_input_grad[0]:
            reach = len(taps) - 1
            of_seen = Taps.apply(F.pad(outer, (0, 0, reach, reach)), taps.flip(0))
        if ctx.needs_input_grad[1]:
            met = [(outer * seen[..., i : i + t, :]).sum((-3, -2), keepdim=True) for i in range(len(taps))]
            of_taps = torch.stack(met)
        return of_seen, of_taps


class CausalConv(nn.Module):
    """`causal_conv` of one layer; it starts near the identity."""

    def __init__(self, dim: int, kernel: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel, dim) * 0.3 * kernel**-0.5)
        self.kernel = kernel

    def forward(self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b p d"] | None = None) -> Float[Tensor, "b t d"]:
        """See `causal_conv`."""
        return causal_conv(x, self.weight, past)
