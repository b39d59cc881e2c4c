"""A short causal convolution, for one layer or for a stack of them.

It hands each token its neighbours, without which heads that match a key and read what followed it form late or not at
all. It and all its derivatives are those of one sum of products, sum_ti x_{t+i} y_t w_i, by one of its three factors:

    slide    y_t = sum_i x_{t+i} w_i      the convolution
    spread   x_s = sum_i y_{s-i} w_i      its gradient by the tokens
    meet     w_i = sum_t x_{t+i} y_t      its gradient by the kernel
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
    seen = x if past is None else torch.cat([past[..., max(past.shape[-2] - reach, 0) :, :], x], dim=-2)
    missing = t + reach - seen.shape[-2]
    seen = F.pad(seen, (0, 0, missing, 0)) if missing else seen
    if not torch.compiler.is_compiling():
        return Slide.apply(seen, weight, True)
    for i, tap in enumerate(taps(weight)):  # a compiler fuses this, and knows its second derivatives, not Slide's
        x = torch.addcmul(x, seen[..., i : i + t, :], tap)
    return x


def taps(w: Float[Tensor, "*g k d"]) -> Float[Tensor, "k *g 1 1 d"]:
    """The kernel place by place."""
    return w.movedim(-2, 0)[..., None, None, :]


def kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """What all three keep for their gradients: both factors, and where it is said, whether the token is added."""
    first, second, *ctx.own = inputs
    ctx.save_for_backward(first, second)


class Slide(torch.autograd.Function):
    """`slide`, and where `own` the token itself is added."""

    @staticmethod
    def forward(x: Float[Tensor, "*g b s d"], w: Float[Tensor, "*g k d"], own: bool) -> Float[Tensor, "*g b t d"]:
        """In place after the first product."""
        reach = w.shape[-2] - 1
        t = x.shape[-2] - reach
        first, *more = taps(w)
        y = torch.addcmul(x[..., reach:, :], x[..., :t, :], first) if own else x[..., :t, :] * first
        for i, tap in enumerate(more, 1):
            y.addcmul_(x[..., i : i + t, :], tap)
        return y

    setup_context = staticmethod(kept)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        """By the other two."""
        (x, w), (of_x, of_w, _) = ctx.saved_tensors, ctx.needs_input_grad
        return Spread.apply(y, w, *ctx.own) if of_x else None, Meet.apply(x, y) if of_w else None, None


class Spread(torch.autograd.Function):
    """`spread`: each place hands on to those that it saw, and where `own` once more to itself."""

    @staticmethod
    def forward(y: Float[Tensor, "*g b t d"], w: Float[Tensor, "*g k d"], own: bool) -> Float[Tensor, "*g b s d"]:
        """In place, in room of its own."""
        t, reach = y.shape[-2], w.shape[-2] - 1
        *before, last = taps(w)
        x = y.new_empty(*y.shape[:-2], t + reach, y.shape[-1], dtype=torch.promote_types(y.dtype, w.dtype))
        x[..., :reach, :] = 0
        x[..., reach:, :] = torch.addcmul(y, y, last) if own else y * last
        for i, tap in enumerate(before):
            x[..., i : i + t, :].addcmul_(y, tap)
        return x

    setup_context = staticmethod(kept)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, ...]:
        """By the other two."""
        (y, w), (of_y, of_w, _) = ctx.saved_tensors, ctx.needs_input_grad
        return Slide.apply(x, w, *ctx.own) if of_y else None, Meet.apply(x, y) if of_w else None, None


class Meet(torch.autograd.Function):
    """`meet`: one product in room that is used again, and its sum, for each place of the kernel."""

    @staticmethod
    def forward(x: Float[Tensor, "*g b s d"], y: Float[Tensor, "*g b t d"]) -> Float[Tensor, "*g k d"]:
        """Place by place."""
        t, room = y.shape[-2], torch.empty_like(y, dtype=torch.promote_types(x.dtype, y.dtype))
        shifts = range(x.shape[-2] - t + 1)
        return torch.stack([torch.mul(x[..., i : i + t, :], y, out=room).sum((-3, -2)) for i in shifts], dim=-2)

    setup_context = staticmethod(kept)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        """By the other two."""
        (x, y), (of_x, of_y) = ctx.saved_tensors, ctx.needs_input_grad
        return Spread.apply(y, w, False) if of_x else None, Slide.apply(x, w, False) if of_y else None


class CausalConv(nn.Module):
    """`causal_conv` of one layer; it starts near the identity."""

    def __init__(self, dim: int, kernel: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel, dim) * 0.3 * kernel**-0.5)

    def forward(self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b p d"] | None = None) -> Float[Tensor, "b t d"]:
        """See `causal_conv`."""
        return causal_conv(x, self.weight, past)
