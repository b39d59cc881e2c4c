"""Bricks of the decoders: normalisation, rotary positions, the gated feed-forward."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last dimension (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def outputs(linear: nn.Module, x: Float[Tensor, "*b d"], first: int, end: int) -> Float[Tensor, "*b e"]:
    """Channels `first` to before `end` of what a layer without bias gives, at the cost of these alone.

    What stands in the layer's place, as an adapter does, is asked for all of them.
    """
    if type(linear) is nn.Linear:
        return F.linear(x, linear.weight[first:end])
    return linear(x)[..., first:end]


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def rotary(x: Float[Tensor, "b h t e"], start: int = 0, base: float = 10_000.0) -> Float[Tensor, "b h t e"]:
    """Rotate pairs of channels by an angle that grows with the position `start, start + 1, ...` (Su et al. 2021)."""
    t, e = x.shape[-2:]
    frequency = base ** (-torch.arange(0, e, 2, device=x.device, dtype=torch.float32) / e)
    angle = torch.arange(start, start + t, device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = (part.repeat(1, 2).to(x.dtype) for part in (angle.cos(), angle.sin()))
    return turn(x, cos, sin)


def turn(x: Float[Tensor, "*b t e"], cos: Float[Tensor, "t e"], sin: Float[Tensor, "t e"]) -> Float[Tensor, "*b t e"]:
    """The rotation of `rotary` for angles that are known: channel i turns with channel i + e / 2."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
