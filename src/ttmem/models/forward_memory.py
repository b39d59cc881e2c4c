"""Forward-only write, the baseline: the memory is what the backbone puts out at memory positions (RMT's write).

[memory | c_1 .. c_T | memory] ──backbone──> hidden states of the last M positions = the new memory
"""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..core.state import Log, State
from ..memories.tokens import MemoryTokens
from .base import Backbone, Episode, Outcome, answer_logits, fits, join, of_rows, once, score
from .segments import pushed


class ForwardMemory(nn.Module):
    """Memory tokens written by one forward pass; read as `MetaMemory` reads.

    The backbone must see the whole context from the positions behind it: give it no window.
    Source: RMT (Bulatov et al. 2022, arXiv 2207.06881), one segment.
    """

    def __init__(self, backbone: Backbone, slots: int = 8, pad: int = 0):
        super().__init__()
        if getattr(getattr(backbone, "config", None), "window", None) is not None:
            raise ValueError("window must be None for a forward write: the memory would not see the context")
        fits(backbone, slots)
        self.backbone, self.pad = backbone, pad
        self.memory = MemoryTokens(slots, backbone.dim)

    def start(self, batch: int) -> State:
        """A memory that has read nothing."""
        return State(self.memory.start(batch))

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """One forward pass, a row of padding keeps its memory; there is no loss to report, and no `steps` but 1."""
        once(steps)
        old, context = of_rows(state, len(context), self.start(1).fast).fast["mem"], pushed(context, self.pad)
        length, slots = (context != self.pad).sum(1), self.memory.slots
        place = length[:, None] + torch.arange(slots, device=context.device)
        index = place[..., None].expand(-1, -1, self.backbone.dim)
        x = self.backbone.embed(context)
        own = old.to(x.dtype)
        x = torch.cat([x, torch.zeros_like(own)], dim=1).scatter(1, index, own)
        hidden, _ = self.backbone.hidden(x, old)
        nothing = old.new_zeros(0, len(context))
        new = torch.where((length > 0)[:, None, None], hidden.gather(1, index).to(old.dtype), old)
        return State({"mem": new}, (), state.step + 1), Log(nothing, nothing)

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Tensor:
        """Logits `(b, q, y, vocab)` of every target token from the memory and the query."""
        memory = of_rows(state, len(query), self.start(1).fast).fast["mem"]
        return answer_logits(self.backbone, memory, join(query, target, self.pad), len(query))

    def loss(self, episode: Episode) -> Outcome:
        """Write each context, answer all its questions."""
        state, _ = self.outer_write(episode.context)
        return score(self.read(state, episode.query, episode.target), episode)

    def outer_write(self, context: Int[Tensor, "b t"]) -> tuple[State, Log]:
        """The write that the outer loop differentiates through."""
        return self.write(self.start(len(context)), context)

    forward = loss
