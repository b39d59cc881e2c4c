"""Bricks of all layers at once: weights stacked as `(g, ...)`, inputs `(g, b, t, d)`, one matrix product for the group.

    x_1 w_1  ..  x_g w_g     g layers, each on its own input ──► one batched product

Functions of weights, not modules: a schedule picks which layers run, and weights as a tree can be split once for all of
them, where a module that sliced its own would have a backward of full size for every slice. Each is the brick of
`nn.layers` of the same name, layer by layer. Matrices are `(g, in, out)`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from .attention import attend_fused
from .layers import turn
from .window import turns


def linear(x: Float[Tensor, "g b t i"], weight: Float[Tensor, "g i o"]) -> Float[Tensor, "g b t o"]:
    """`x w` of each layer.

    >>> linear(torch.ones(2, 1, 3, 4), torch.ones(2, 4, 5)).shape
    torch.Size([2, 1, 3, 5])
    """
    return torch.bmm(x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])


def rms_norm(x: Float[Tensor, "g b t d"], weight: Float[Tensor, "g d"], eps: float = 1e-6) -> Tensor:
    """`x / rms(x) * weight`."""
    return F.rms_norm(x, x.shape[-1:], eps=eps) * weight[:, None, None].to(x.dtype)


def swiglu(x: Float[Tensor, "g b t d"], up: Float[Tensor, "g d u"], down: Float[Tensor, "g h d"]) -> Tensor:
    """`down(silu(gate(x)) * up(x))`; `up` holds both, the gate first."""
    gate, value = linear(x, up).chunk(2, dim=-1)
    return linear(F.silu(gate) * value, down)


def attention(qkv: Float[Tensor, "g b t c"], heads: int) -> Float[Tensor, "g b t d"]:
    """Causal softmax attention with rotary positions, of queries, keys and values side by side: first derivatives only.

    Padding behind a row needs no mask, since nobody looks ahead.
    """
    q, k, v = rearrange(qkv, "g b t (n h e) -> n (g b) h t e", n=3, h=heads)
    cos, sin = turns(q.shape[2], q)
    y = attend_fused(turn(q, cos, sin), turn(k, cos, sin), v, causal=True)
    return rearrange(y, "(g b) h t e -> g b t (h e)", g=len(qkv))
