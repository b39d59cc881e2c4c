"""LMM: the long-term memory alone mixes the sequence (Titans, arXiv 2501.00663, section 3).

persistent ──► memory                    read once, before the first token
x ──► norm ──► memory ──► + x            each token writes, then reads
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..memories.long_term import LongTermMemory, LongTermState
from ..nn.layers import RMSNorm
from .titans_config import TitansConfig


class PersistentMemory(LongTermMemory):
    """A long-term memory that reads `persistent` learned tokens before anything else."""

    def __init__(self, config: TitansConfig):
        super().__init__(**vars(config.memory))
        self.begun = tokens = config.persistent_tokens
        self.persistent = nn.Parameter(torch.randn(tokens, config.dim) * 0.5) if tokens else None

    def start(self, batch: int) -> LongTermState:
        """A memory that has read the persistent tokens, and nothing else."""
        state = super().start(batch)
        if self.persistent is not None:
            _, state = self.stream(self.persistent.expand(batch, -1, -1), state)
        return state


class LMM(nn.Module):
    """The memory as a block's mixer."""

    carries = LongTermState

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.memory = PersistentMemory(config)

    def start(self, batch: int) -> LongTermState:
        """A memory that has read the persistent tokens."""
        return self.memory.start(batch)

    def check(self, state: LongTermState, batch: int) -> None:
        """Raise ValueError for the state of another batch or memory."""
        self.memory.check(state, batch)

    def forward(
        self, x: Float[Tensor, "b t d"], state: LongTermState, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], LongTermState]:
        """Write and read."""
        y, state = self.memory.stream(self.norm(x), state, lengths)
        return x + y, state
