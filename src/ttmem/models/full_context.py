"""No memory but the context itself: the upper bound, whose state grows with what was read.

[context | query] ──backbone──> answer
"""

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor, nn

from ..checks import not_negative
from ..core.state import Log, State
from .base import Backbone, Episode, Outcome, answer_logits, fits, join, of_rows, once, score


class FullContext(nn.Module):
    """A plain decoder that reads the context again for every question (a KV cache, in the form that trains).

    With `reads=False` it keeps nothing at all: the lower bound, which can only guess from the question.
    """

    def __init__(self, backbone: Backbone, pad: int = 0, reads: bool = True):
        super().__init__()
        fits(backbone, 0)
        self.backbone, self.pad, self.reads = backbone, pad, reads

    def start(self, batch: int) -> State:
        """An empty context."""
        not_negative(batch=batch)
        return State({"context": torch.full((batch, 0), self.pad)})

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """Keep the context's ids; no `steps` but 1."""
        once(steps)
        state = of_rows(state, len(context), {"context": None})
        new = context if self.reads else context[:, :0]
        kept = torch.cat([state.fast["context"].to(context), new], dim=1)
        nothing = torch.zeros(0, len(context), device=context.device)
        return State({"context": kept}, (), state.step + 1), Log(nothing, nothing)

    def memory_bytes(self, state: State, batch: int) -> int:
        """What one row takes in use: keys and values of every token in every layer, in 4 bytes a number."""
        blocks = getattr(self.backbone, "blocks", ())
        return 4 * 2 * len(blocks) * self.backbone.dim * state.fast["context"].shape[1]

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Tensor:
        """Logits `(b, q, y, vocab)` of every target token from the whole context and the query."""
        state = of_rows(state, len(query), {"context": None})
        seen = repeat(state.fast["context"].to(query), "b t -> b q t", q=query.shape[1])
        joined = join(torch.cat([seen, query], dim=-1), target, self.pad)
        return answer_logits(self.backbone, None, joined, len(query))

    def loss(self, episode: Episode) -> Outcome:
        """Answer all questions with the context in view."""
        state, _ = self.write(self.start(len(episode.context)), episode.context)
        return score(self.read(state, episode.query, episode.target), episode)

    forward = loss
