"""MAG, memory as a gate: attention and memory side by side (Titans, arXiv 2501.00663, section 4.2).

          ┌──► sliding-window attention over [persistent ‖ x] ──► y ──┐
x ──► norm┤                                                           ├──► gate(y, m) ──► + x
          └──► memory: write, read ──────────────────────────────► m ─┘
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..memories.long_term import LongTermMemory, LongTermState
from ..nn.layers import RMSNorm
from ..nn.window import Window
from .sliding import SlidingAttention
from .titans_config import TitansConfig


class Gate(nn.Module):
    """Joins attention y and memory m, both normalised with learned weights: `out(y sigma(m) + m sigma(y))`.

    The paper's `y sigma(m)` (`gate="product"`) lets the memory only dampen what attention found; in the two-way gate,
    the default here, what only the memory knows gets through as well.
    """

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.norm_y, self.norm_m = RMSNorm(config.dim), RMSNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.both = config.gate == "two-way"

    def forward(self, y: Float[Tensor, "b t d"], m: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Join."""
        y, m = self.norm_y(y), self.norm_m(m)
        joined = y * torch.sigmoid(m)
        return self.out(joined + m * torch.sigmoid(y) if self.both else joined)


class MAGState(NamedTuple):
    """The memory, and the window."""

    memory: LongTermState
    window: Window


class MAG(nn.Module):
    """Attention and memory, gated, as a block's mixer."""

    carries = MAGState

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.memory = LongTermMemory(**vars(config.memory))
        self.attention = SlidingAttention(config, config.window_size, config.persistent_tokens)
        self.gate = Gate(config)

    def start(self, batch: int) -> MAGState:
        """Nothing read."""
        return MAGState(self.memory.start(batch), self.attention.start(batch))

    def check(self, state: MAGState, batch: int) -> None:
        """Raise ValueError for the state of another batch, memory or window."""
        self.memory.check(state.memory, batch)
        self.attention.check(state.window, batch)

    def forward(
        self, x: Float[Tensor, "b t d"], state: MAGState, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], MAGState]:
        """Attend; write and read; join."""
        seen = self.norm(x)
        y, window = self.attention(seen, state.window, lengths)
        recalled, memory = self.memory.stream(seen, state.memory, lengths)
        return x + self.gate(y, recalled), MAGState(memory, window)
