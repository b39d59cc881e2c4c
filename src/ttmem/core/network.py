"""The network inside a Titans memory: its forward pass, and the gradient of its write loss by hand.

A memory of depth L is a dict `w1 .. wL` of matrices `(n, d_in, d_out)`, one copy per row; a token is a row vector:

    M(x) = h_L,  h_l = a_{l-1} w_l,  a_0 = x,  a_l = gelu(h_l)       with a norm: M(x) = x + LN(h_L) * gain + bias

The gradient of one token is rank one in each layer, `a^T delta`, so only `a` and `delta` are ever made; autograd, which
cannot know that, would make the matrices. The hand-written gradient is itself differentiable.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .state import Tree


class Norm(NamedTuple):
    """`M(x) = x + LN(h) * gain + bias`, as in the NeurIPS text; gain and bias are no part of the state, `(n, 1, d)`."""

    gain: Float[Tensor, "n 1 d"]
    bias: Float[Tensor, "n 1 d"]
    eps: float = 1e-5


def activation(h: Tensor) -> Tensor:
    """GELU, in its exact form."""
    return F.gelu(h)


def through_activation(grad: Tensor, h: Tensor) -> Tensor:
    """The gradient before a GELU, of the gradient behind it."""
    return _ThroughGelu.apply(grad, h)


class _ThroughGelu(torch.autograd.Function):
    """`grad * gelu'(h)` in one pass each way; torch's own formula for its derivative takes three times as long."""

    @staticmethod
    def forward(ctx, grad: Tensor, h: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grad, h)
        return torch.ops.aten.gelu_backward(grad, h)

    @staticmethod
    def backward(ctx, outer: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        grad, h = ctx.saved_tensors
        square = h * h
        bend = torch.exp(square * -0.5) * ((2 - square) * (2 * torch.pi) ** -0.5)  # gelu''
        return through_activation(outer, h), bend * grad * outer


def finish(h: Float[Tensor, "n t d"], x: Float[Tensor, "n t d"], norm: Norm | None) -> Float[Tensor, "n t d"]:
    """What the memory answers, given what its last layer says of input `x`."""
    if norm is None:
        return h
    return x + F.layer_norm(h, h.shape[-1:], eps=norm.eps) * norm.gain + norm.bias


def read(fast: Tree, x: Float[Tensor, "n t d"], norm: Norm | None = None) -> Float[Tensor, "n t d"]:
    """M(x), for every token from the same weights."""
    h = x
    for layer, weight in enumerate(fast.values()):
        h = (activation(h) if layer else h) @ weight
    return finish(h, x, norm)


def surprises(
    fast: Tree, k: Float[Tensor, "n t d"], v: Float[Tensor, "n t d"], norm: Norm | None, clip: float | None
) -> list[tuple[Tensor, Tensor]]:
    """Of each layer the rows `a, delta` whose outer products are the gradients of `||M(k_t) - v_t||^2`, token by token.

    With `clip` each token's gradient in each layer has at most that norm, which for rank one is |a| |delta|.
    """
    *weights, last = fast.values()
    inputs, sums = [k], []
    for weight in weights:
        sums.append(inputs[-1] @ weight)
        inputs.append(activation(sums[-1]))
    if norm is None:
        delta = torch.baddbmm(v, inputs[-1], last, beta=-2, alpha=2)
    else:
        delta = error_of(inputs[-1] @ last, k, v, norm)
    found = [(inputs[-1], delta)]
    for h, weight, a in zip(sums[::-1], [last, *weights[:0:-1]], inputs[-2::-1], strict=False):
        delta = through_activation(delta @ weight.transpose(1, 2), h)
        found.append((a, delta))
    return [(a, delta if clip is None else limited(a, delta, clip)) for a, delta in reversed(found)]


def error_of(h: Tensor, k: Tensor, v: Tensor, norm: Norm | None) -> Tensor:
    """The gradient of the squared error with respect to what the last layer says."""
    error = 2 * (finish(h, k, norm) - v)
    if norm is None:
        return error
    variance, mean = torch.var_mean(h, dim=-1, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + norm.eps)
    unit, error = (h - mean) * scale, error * norm.gain
    return scale * (error - error.mean(-1, keepdim=True) - unit * (error * unit).mean(-1, keepdim=True))


def limited(a: Tensor, delta: Tensor, clip: float) -> Tensor:
    """`delta`, smaller where its outer product with `a` is longer than `clip`."""
    size = length(a) * length(delta)
    return delta * (clip / size.clamp_min(clip))


def length(x: Tensor, least: float = 0.0) -> Tensor:
    """The Euclidean length of each vector, `(..., 1)`, at least `least`; its derivatives are finite at zero."""
    return torch.sqrt(x.square().sum(-1, keepdim=True).clamp_min(max(least**2, torch.finfo(x.dtype).tiny)))


def unit(x: Tensor) -> Tensor:
    """Each vector at length 1, or 1,000 times as long where that is shorter: a vector of zeros, as of a silent input,
    stays one, and its gradient is no longer than that."""
    return x / length(x, least=1e-3)
