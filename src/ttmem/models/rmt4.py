"""RMT4 = RMT + MAML: a memory carried over segments, and written into each time by gradient steps (the deck).

            segment 1               segment 2                    query
                │                       │                          │
m_0 ──K steps on L(m; s_1)──► m_1 ──K steps on L(m; s_2)──► m_2 ──read──► answer      (the query is not written)

L(m; s) is the log-loss of the segment, as in meta_memory.py, and the outer loop goes back through all K S steps. Its
write loss asks the *last* memory for every segment: what a later write destroys is paid for. Further ways not to
forget, each of them an option: learned momentum and forgetting (`rule="titans"`), step sizes learned per step, a gate,
and a replay of what the memory said before. Give it a backbone with learned addresses or sines: where memory tokens are
found by what they hold, the outer gradient of chained writes can explode (docs/segments.md).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..checks import at_least
from ..core.objectives import Objective
from ..core.state import Log, State, Tree, detach, usable
from ..memories.base import Source
from ..memories.tokens import MemoryTokens
from ..nn.layers import RMSNorm
from .base import Backbone, of_rows
from .meta_memory import MetaMemory, WriteConfig
from .segments import SegmentConfig, cut, outer_write, spread_out


@dataclass(frozen=True)
class CarryConfig(WriteConfig, SegmentConfig):
    """How a memory is written into again and again; beside its own fields those of WriteConfig and SegmentConfig.

    Args:
        replay: weight of the replay in the write: the mean squared change of what the backbone says to `probes` learned
            tokens behind the memory. 0: no replay.
        probes: how many.
        gate: whether a learned gate, per slot and channel, decides how much of a segment's change is kept.
    """

    replay: float = 0.0
    probes: int = 8
    gate: bool = False

    def __post_init__(self):
        WriteConfig.__post_init__(self)
        SegmentConfig.__post_init__(self)
        at_least(self, {"replay": 0, "probes": 1})


class RMT4(MetaMemory):
    """Memory tokens written by K gradient steps a segment, carried from one to the next.

    >>> from ttmem.models import Transformer, TransformerConfig
    >>> model = RMT4(Transformer(TransformerConfig(dim=32, layers=2)), slots=4)
    >>> context = torch.randint(4, 66, (3, 20)).index_fill(1, torch.tensor([9, 19]), 69)   # two segments of 10
    >>> state, log = model.write(model.start(3), context)
    >>> state.fast["mem"].shape, state.step, log.loss.shape                                # two steps a segment
    (torch.Size([3, 4, 32]), 2, torch.Size([4, 3]))
    """

    config: CarryConfig
    losses_are = "before each step, segment after segment"
    crosses_layers = "a write is a gradient through all layers of a segment before the next one can begin"

    def __init__(self, backbone: Backbone, slots: int = 8, config: CarryConfig = CarryConfig(), pad: int = 0):
        super().__init__(backbone, MemoryTokens(slots, backbone.dim), config, pad)
        dim = backbone.dim
        self.queries = nn.Parameter(torch.randn(config.probes, dim) * 0.02) if config.replay else None
        self.gate = Gate(dim) if config.gate else None

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """K gradient steps on each segment in turn; the log's fields are `(segments * steps, batch)`.

        A row that has no more segments keeps its memory, bit for bit, and costs nothing; its log says 0 there.
        """
        logs = []
        for segment in self.segments(context).unbind(1):
            state, log = self.write_told(state, segment, steps)
            logs.append(log)
        return state, Log(*(torch.cat(part) for part in zip(*logs, strict=True)))

    def write_told(self, state: State, segment: Int[Tensor, "b t"], steps: int | None) -> tuple[State, Log]:
        """Write the rows that have some of a segment, and leave the others out of the work."""
        told = (segment != self.pad).any(1)
        if told.all() or not told.any():
            return self.write_segment(state, segment, steps)
        state, rows = usable(of_rows(state, len(segment), self.start(1).fast)), told.nonzero()[:, 0]
        own, log = self.write_segment(state._replace(fast={"mem": state.fast["mem"][rows]}), segment[rows], steps)
        fast = {"mem": state.fast["mem"].index_copy(0, rows, own.fast["mem"])}
        parts = (part.new_zeros(len(part), len(segment)).index_copy(1, rows, part) for part in log)
        return own._replace(fast=fast), Log(*parts)

    def outer_write(self, context: Int[Tensor, "b t"]) -> tuple[State, Log]:
        """Write all segments; with `truncate` the outer loop sees the last of them."""
        return outer_write(self, context, self.config, self.pad)

    def segments(self, context: Int[Tensor, "b t"]) -> Int[Tensor, "b s l"]:
        """The context in its parts."""
        return cut(context, self.pad, self.config.separator, self.config.segment_size)

    def write_segment(self, state: State, segment: Int[Tensor, "b t"], steps: int | None) -> tuple[State, Log]:
        """K gradient steps on one segment; a row that has none of it keeps its memory, gate or not."""
        written, log = super().write(state, segment, steps)
        if self.gate is not None:
            written = written._replace(fast={"mem": self.gate(usable(state).fast["mem"], written.fast["mem"])})
            written = detach(written) if self.config.meta_gradient == "none" else written
        return written, log

    def objective(self, before: State) -> Objective:
        """The segment's log-loss, and with `replay` how much the memory's answers to the probes change."""
        write = super().objective(before)
        if self.queries is None:
            return write
        said = self.say(before.fast["mem"])

        def both(fast: Tree, data: tuple[Tensor, Source]) -> Tensor:
            change = (self.say(fast["mem"]) - said).square().mean((1, 2))
            return write(fast, data) + self.config.replay * change

        return both

    def say(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b p d"]:
        """What the backbone says to the probes behind a memory."""
        assert self.queries is not None
        return self.backbone.hidden(self.queries.expand(len(tokens), -1, -1), self.project(tokens))[0]

    def left(self, state: State, context: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
        """The write loss that the last memory leaves, over all segments of all rows.

        With `truncate` over as many of each row, evenly spread, so that it does not grow with the context either.
        """
        segments, most = self.segments(context), self.config.truncate
        segments = segments if most is None else spread_out(segments, self.pad, most)
        told = (segments != self.pad).any(2)
        if not told.any():
            return self.remains(state, segments[:, 0]).mean()  # of nothing: 0
        if told.all():
            return self.remains(state, segments.flatten(0, 1)).mean()
        state = state._replace(fast={"mem": state.fast["mem"][told.nonzero()[:, 0]]})  # one for each segment there is
        return self.remains(state, segments[told]).mean()


class Gate(nn.Module):
    """`old + sigmoid(W [norm(old), norm(new - old)] + b) * (new - old)`, nearly all of the change at first."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm_old, self.norm_change = RMSNorm(dim), RMSNorm(dim)
        self.linear = nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, 3.0)

    def forward(self, old: Float[Tensor, "b m d"], new: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        """Join."""
        change = new - old
        seen = torch.cat([self.norm_old(old), self.norm_change(change)], dim=-1)
        return old + torch.sigmoid(self.linear(seen.to(self.linear.weight.dtype))) * change
