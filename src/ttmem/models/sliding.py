"""Attention over a sliding window, with persistent tokens that are always in view.

The short-term memory of MAG and MAL, and, alone, the baselines `swa` (a window) and `full` (all that was read).

    x ──► q k v ──► softmax(q [k_persistent, k_window]) [v_persistent, v_window] ──► out
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..memories.handover import adopted
from ..nn.layers import RMSNorm, outputs
from ..nn.window import QKV, Window, check_past, empty_window, slide
from .titans_config import TitansConfig


class SlidingAttention(nn.Module):
    """Multi-head attention over the last `window` tokens (None: all) and `persistent` learned tokens."""

    def __init__(self, config: TitansConfig, window: int | None, persistent: int):
        super().__init__()
        self.heads, self.window = config.heads, window
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        # At first attention is an average over the window. Added at full size it drowns the token, and what MAC's
        # memory is written with is the same for all tokens: nothing is learnt.
        nn.init.normal_(self.out.weight, std=0.02 * (2 * config.layers) ** -0.5)
        self.persistent = nn.Parameter(torch.randn(persistent, config.dim) * 0.5) if persistent else None

    def start(self, batch: int) -> Window:
        """A window that has seen nothing."""
        weight = self.qkv.weight
        return empty_window(batch, self.heads, self.window, weight.shape[1] // self.heads, weight)

    def fitted(self, past: Window) -> Window:
        """A window in the float type that `start` gives it."""
        return adopted(past, self.qkv.weight.dtype)

    def check(self, past: Window, batch: int) -> None:
        """Raise ValueError for what was read with another window, batch or number of heads."""
        check_past(past, self.window, (batch, self.heads, self.qkv.weight.shape[1] // self.heads))

    def forward(
        self, x: Float[Tensor, "b t d"], past: Window, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Window]:
        """What each token gathers from the tokens in its window, and the window for the next call."""
        y, past = slide(self.project(x), self.fitted(past), self.window, self.prefix(), lengths)
        return self.out(rearrange(y, "b h t e -> b t (h e)")), past

    def project(self, x: Float[Tensor, "b t d"]) -> QKV:
        """Queries, keys and values of tokens."""
        return QKV(*rearrange(self.qkv(x), "b t (part h e) -> part b h t e", part=3, h=self.heads))

    def prefix(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the persistent tokens."""
        if self.persistent is None:
            return None
        k, v = self.shown(self.persistent[None])
        return k[0], v[0]

    def shown(self, x: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b h t e"], Float[Tensor, "b h t e"]]:
        """Keys and values of what is attended to, and asks nothing itself."""
        dim = x.shape[2]
        k, v = rearrange(outputs(self.qkv, x, dim, 3 * dim), "b t (part h e) -> part b h t e", part=2, h=self.heads)
        return k, v


class Sliding(nn.Module):
    """Plain attention as a block's mixer: `x + attention(norm(x))`."""

    carries = Window

    def __init__(self, config: TitansConfig, window: int | None):
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.attention = SlidingAttention(config, window, config.persistent_tokens)

    def start(self, batch: int) -> Window:
        """A window that has seen nothing."""
        return self.attention.start(batch)

    def check(self, state: Window, batch: int) -> None:
        """Raise ValueError for what was read with another window, batch or number of heads."""
        self.attention.check(state, batch)

    def forward(self, x: Tensor, state: Window, lengths: Tensor | None = None) -> tuple[Tensor, Window]:
        """Attend."""
        y, state = self.attention(self.norm(x), state, lengths)
        return x + y, state


def swa(config: TitansConfig) -> nn.Module:
    """Attention over `window_size` tokens."""
    return Sliding(config, config.window_size)


def full(config: TitansConfig) -> nn.Module:
    """Attention over all tokens; its state grows with them."""
    return Sliding(config, None)
