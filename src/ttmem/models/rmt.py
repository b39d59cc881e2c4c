"""RMT, the recurrent memory transformer: memory tokens written by forward passes, segment after segment.

m_0 ──► [m_0 | segment 1 | m_0] ──backbone──► m_1 ──► [m_1 | segment 2 | m_1] ──backbone──► m_2 ... ──► [m_S | query]

Each arrow is ForwardMemory's write; the memory is what comes out at the positions behind the segment. The outer loop
goes back through all segments. Source: Bulatov et al. 2022, arXiv 2207.06881.
"""

from jaxtyping import Int
from torch import Tensor

from ..core.state import Log, State
from .base import Backbone
from .forward_memory import ForwardMemory
from .segments import SegmentConfig, cut, outer_write


class RMT(ForwardMemory):
    """ForwardMemory that reads a context in segments and carries its memory from one to the next."""

    crosses_layers = "its memory goes from the last layer of a segment to the first layer of the next"

    def __init__(self, backbone: Backbone, slots: int = 8, config: SegmentConfig | None = None, pad: int = 0):
        super().__init__(backbone, slots, pad)
        self.config = config or SegmentConfig()

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """One forward pass a segment; there is no loss to report, and no `steps` but 1."""
        for segment in cut(context, self.pad, self.config.separator, self.config.segment_size).unbind(1):
            state, _ = super().write(state, segment, steps)
        nothing = state.fast["mem"].new_zeros(0, len(context))
        return state, Log(nothing, nothing)

    def outer_write(self, context: Int[Tensor, "b t"]) -> tuple[State, Log]:
        """Write all segments; with `truncate` the outer loop sees the last of them."""
        return outer_write(self, context, self.config, self.pad)
