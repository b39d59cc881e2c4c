"""MAL, memory as a layer: the memory first, attention over what it says (Titans, arXiv 2501.00663, section 4.3).

persistent ──► memory                               read once, before the first token
x ──► norm ──► memory ──► + x = m                   each token writes, then reads
m ──► norm ──► sliding-window attention ──► + m     one after the other, as in Samba
"""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..memories.long_term import LongTermState
from ..nn.layers import RMSNorm
from ..nn.window import Window
from .lmm import PersistentMemory
from .sliding import SlidingAttention
from .titans_config import TitansConfig


class MALState(NamedTuple):
    """The memory, and the window over what it said."""

    memory: LongTermState
    window: Window


class MAL(nn.Module):
    """Memory, then attention, as a block's mixer."""

    carries = MALState

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.memory_norm, self.norm = RMSNorm(config.dim), RMSNorm(config.dim)
        self.memory = PersistentMemory(config)
        self.attention = SlidingAttention(config, config.window_size, persistent=0)

    def start(self, batch: int) -> MALState:
        """Nothing read but the persistent tokens."""
        return MALState(self.memory.start(batch), self.attention.start(batch))

    def check(self, state: MALState, batch: int) -> None:
        """Raise ValueError for the state of another batch, memory or window."""
        self.memory.check(state.memory, batch)
        self.attention.check(state.window, batch)

    def forward(
        self, x: Float[Tensor, "b t d"], state: MALState, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], MALState]:
        """Write and read, then attend."""
        recalled, memory = self.memory.stream(self.memory_norm(x), state.memory, lengths)
        x = x + recalled
        y, window = self.attention(self.norm(x), state.window, lengths)
        return x + y, MALState(memory, window)
