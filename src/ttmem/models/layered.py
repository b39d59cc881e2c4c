"""What ARMT and PRMT4 share: a decoder of stacked layers that reads its context segment by segment.

    context ──cut──► segments ──embedding──► (segment, layer) grid ──norm, head──► next-token logits
                                             each layer carries a memory from segment to segment
    question ──embedding──► layers, which read their memories and write nothing ──norm, head──► answer

The layers' weights are stacked on the way, so that a schedule can run many of them in one call (`core.schedule`); what
a layer does is the pages armt.py and prmt4.py. Attention, convolutions and positions begin anew with each segment.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.schedule import FOLDS, Grid, Stack, fold_sequential
from ..core.state import Log, State, Tree, map_state
from ..memories.base import wide
from ..memories.handover import adopted
from ..nn.conv import causal_conv
from ..nn.layers import RMSNorm
from ..nn.stacked import attention, linear, rms_norm, swiglu
from .base import Episode, Outcome, join, of_rows, score
from .layered_config import LayeredConfig
from .segments import begun, cut, parted

AT_ONCE = 2**12
"""Tokens of a context whose logits are made at once."""


class Layered(nn.Module):
    """A language model with a memory in every layer; `stack` and `start` make it ARMT or PRMT4.

    State leaves are `(batch, layers, ...)`.
    """

    losses_are = "of each segment's next characters, which only context_loss trains for"

    def __init__(self, config: LayeredConfig, own: Tree):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.dim)
        stacked = block_weights(config) | own
        self.blocks = nn.ModuleList(
            nn.ParameterDict({name: weight[layer] for name, weight in stacked.items()})
            for layer in range(config.layers)
        )
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)

    @property
    def weights(self) -> Tree:
        """The layers' weights, stacked; their own tensors stay apart, as optimizers of matrices want them."""
        parts = [dict(layer.named_parameters()) for layer in self.blocks]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def start(self, batch: int) -> State:
        """A memory that has read nothing."""
        raise NotImplementedError

    def stack(self, steps: int | None = None) -> Stack:
        """What the layers do with a segment: read their memories, and write them."""
        raise NotImplementedError

    def recall(self, weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
        """A cell that only reads."""
        raise NotImplementedError

    def grid(self, x: Float[Tensor, "s b t d"], lengths: Int[Tensor, "s b"]) -> Grid:
        """Segments as the layers want them."""
        return Grid(x, lengths)

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """Read a right-padded context; the log's loss is each segment's mean nats per token, `(segments, batch)`."""
        state, loss, _ = self.read_context(state, context, steps)
        return state, Log(loss.detach(), torch.zeros_like(loss))

    def read_context(
        self, state: State, context: Int[Tensor, "b t"], steps: int | None = None
    ) -> tuple[State, Float[Tensor, "s b"], Int[Tensor, "s b"]]:
        """The state behind a context, each segment's mean nats per token, and how many tokens that is the mean of.

        The context begins a segment: a memory may be written in pieces that end where segments end.
        """
        state, tops, ids = self.behind(state, context, steps)
        return state, *self.nats(tops, ids)

    def behind(
        self, state: State, context: Int[Tensor, "b t"], steps: int | None = None
    ) -> tuple[State, Float[Tensor, "s b _ d"], Int[Tensor, "s b l"]]:
        """The state behind a context, what the last layer gives for each segment, and its ids: what costs no logits."""
        config, state = self.config, self.own(state, len(context))
        ids = rearrange(cut(context, config.pad, config.separator, config.segment_size), "b s t -> s b t")
        grid = self.grid(self.embedding(ids), (ids != config.pad).sum(-1))
        tops, fast = FOLDS[config.schedule](self.stack(steps), flipped(state.fast), grid)
        return State(flipped(fast), (), state.step + len(ids)), tops, ids

    def own(self, state: State, rows: int) -> State:
        """A state of this model and so many rows, in the type that its weights compute with."""
        state = of_rows(state, rows, self.start(1).fast)
        return state._replace(fast=adopted(state.fast, wide(self.embedding.weight).dtype))

    def nats(
        self, tops: Float[Tensor, "s b _ d"], ids: Int[Tensor, "s b l"]
    ) -> tuple[Float[Tensor, "s b"], Int[Tensor, "s b"]]:
        """Each segment's mean nats per token, and how many tokens that is the mean of.

        Logits of a few segments at a time: those of a long context would take more memory than all the rest.
        """
        targets, tops = ids[..., 1:].long(), tops[:, :, : ids.shape[2] - 1]
        told = targets != self.config.pad
        size = max(AT_ONCE // max(targets[0].numel(), 1), 1)
        parts = zip(tops.split(size), targets.split(size), strict=True)
        nats = torch.cat([each_nats(self.logits(x), y) for x, y in parts])
        count = told.sum(-1)
        return (nats * told).sum(-1) / count.clamp(min=1), count

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Next-token logits of what the last layer gives."""
        return self.head(self.norm(hidden))

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Float[Tensor, "b q y v"]:
        """Logits of the target's tokens: each question is a segment of its own, which writes nothing."""
        state = self.own(state, len(query))
        joined = join(query, target, self.config.pad)
        ids = joined.ids[:, :-1]
        grid = Grid(self.embedding(ids)[None], (ids != self.config.pad).sum(1)[None])
        tops, _ = fold_sequential(self.stack()._replace(cell=self.recall), flipped(state.fast), grid)
        asked = tops[0].gather(1, joined.place[..., None].expand(-1, -1, tops.shape[-1]))
        return self.logits(asked).unflatten(0, query.shape[:2])

    def loss(self, episode: Episode) -> Outcome:
        """Read the context, answer from the memories; with `context_loss`, predicting the context counts as well."""
        state, tops, ids = self.outer_context(episode.context)
        outcome = score(self.read(state, episode.query, episode.target), episode)
        if not self.config.context_loss:  # logits of every token of the context would cost as much as a layer
            return outcome
        nats, count = self.nats(tops, ids)
        written = (nats * count).sum() / count.sum().clamp(min=1)
        loss = outcome.loss + self.config.context_loss * written
        return outcome._replace(loss=loss, parts=outcome.parts | {"write": written.detach()})

    def outer_context(
        self, context: Int[Tensor, "b t"]
    ) -> tuple[State, Float[Tensor, "s b _ d"], Int[Tensor, "s b l"]]:
        """`behind` what the outer loop differentiates through: all segments, with `truncate` the last."""
        config = self.config
        if config.truncate is None:
            return self.behind(self.start(len(context)), context)
        early, late = parted(context, config.pad, config.truncate, config.separator, config.segment_size)
        return self.behind(begun(self.start, self.behind, early, config.pad), late)

    forward = loss


def each_nats(logits: Float[Tensor, "*b v"], targets: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """What each target costs, in nats."""
    logits = wide(logits).flatten(0, -2)
    return F.cross_entropy(logits, targets.flatten(), reduction="none").view(targets.shape)


def block_weights(config: LayeredConfig) -> Tree:
    """Initial weights of attention and feed-forward: normal(0, 0.02), smaller where they end in the residual stream."""
    layers, dim, hidden = config.layers, config.dim, config.hidden_size
    small = small_deviation(config)
    conv = {"conv": torch.randn(layers, config.conv, dim) * 0.3 * config.conv**-0.5} if config.conv else {}
    return conv | {
        "norm_attention": torch.ones(layers, dim),
        "qkv": torch.randn(layers, dim, 3 * dim) * 0.02,
        "out": torch.randn(layers, dim, dim) * small,
        "norm_feed": torch.ones(layers, dim),
        "up": torch.randn(layers, dim, 2 * hidden) * 0.02,
        "down": torch.randn(layers, hidden, dim) * small,
    }


def small_deviation(config: LayeredConfig) -> float:
    """Of weights that end in the residual stream, to which every layer adds."""
    return 0.02 * (2 * config.layers) ** -0.5


def block(weights: Tree, x: Float[Tensor, "g b t d"], heads: int) -> Float[Tensor, "g b t d"]:
    """Causal attention inside the segment and the gated feed-forward, each behind a norm and added to its input."""
    seen = rms_norm(x, weights["norm_attention"])
    seen = causal_conv(seen, weights["conv"]) if "conv" in weights else seen
    x = x + linear(attention(linear(seen, weights["qkv"]), heads), weights["out"])
    return x + swiglu(rms_norm(x, weights["norm_feed"]), weights["up"], weights["down"])


def flipped(fast: Tree) -> Tree:
    """From leaves that lead with the batch, as states do, to leaves that lead with the layer; and back."""
    return map_state(lambda leaf: leaf.transpose(0, 1), fast)
