"""Memory tokens: the fast weights are what the backbone reads, nothing between (prompt tuning; GradMem)."""

from jaxtyping import Float
from torch import Tensor

from ..core.state import Tree
from .base import Memory, Source


class MemoryTokens(Memory):
    """M vectors of width d in front of the sequence.

    >>> memory = MemoryTokens(slots=8, dim=32)
    >>> memory.start(4)["mem"].shape
    torch.Size([4, 8, 32])

    Source: GradMem (Kuratov et al. 2026, arXiv 2603.13875).
    """

    kind = "tokens"

    def tokens(self, fast: Tree, source: Source) -> Float[Tensor, "b m d"]:
        return fast["mem"]
