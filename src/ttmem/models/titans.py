"""The language model around the Titans architectures: embedding, blocks, head; a state goes in, a state comes out.

    ids ──► embedding ──► [ mixer ──► x + SwiGLU(norm(x)) ] x layers ──► norm ──► head ──► logits

A mixer is one of the pages lmm.py, mac.py, mag.py, mal.py, or plain attention (sliding.py).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import not_negative
from ..core.state import Log, State, detach, map_state
from ..memories.base import wide
from ..nn.layers import RMSNorm, SwiGLU
from ..nn.ragged import alignment, check_mask
from .base import Episode, Outcome, join, once, score
from .lmm import LMM
from .mac import MAC
from .mag import MAG
from .mal import MAL
from .sliding import full, swa
from .titans_config import TitansConfig

MIXERS: dict[str, Callable[[TitansConfig], nn.Module]] = {
    "lmm": LMM,
    "mac": MAC,
    "mag": MAG,
    "mal": MAL,
    "swa": swa,
    "full": full,
}


class Block(nn.Module):
    """A mixer and a gated feed-forward, each added to its input."""

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.mixer: Any = MIXERS[config.architecture](config)
        self.norm = RMSNorm(config.dim)
        self.feed = SwiGLU(config.dim, config.hidden_size)
        self.checkpoint = config.checkpoint

    def start(self, batch: int) -> Any:
        """What the mixer carries before the first token, never a view of its weights: sharding frees those."""
        return self.mixer.start(batch)

    def check(self, state: Any, batch: int) -> None:
        """Raise ValueError for a state of another batch or layer, as `run` does."""
        self.check_kind(state)
        self.mixer.check(state, batch)

    def check_kind(self, state: Any) -> None:
        """Raise ValueError for a state of another kind of layer."""
        if not isinstance(state, self.mixer.carries):
            kinds = f"{self.mixer.carries.__name__}, the state of {type(self.mixer).__name__}"
            raise ValueError(f"each layer's state must be a {kinds}, got {type(state).__name__}")

    def forward(self, x: Float[Tensor, "b t d"], state: Any, lengths: Int[Tensor, "b"] | None = None) -> Any:
        """`(x, state)`: the layer's output and what it carries; without a state it begins with one."""
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return checkpoint(self.run, x, state, lengths, use_reentrant=False, preserve_rng_state=False)
        return self.run(x, state, lengths)

    def run(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """The block itself."""
        state = self.start(len(x)) if state is None else state
        self.check_kind(state)
        x, state = self.mixer(x, state, lengths)
        return x + self.feed(self.norm(x)), state


class Titans(nn.Module):
    """A decoder whose blocks carry a state instead of a growing cache (but `full`, the baseline, whose state grows).

    `logits, state = model(ids)`, and `model(more, state)` goes on as if both had been one sequence, wherever the split.

    >>> from ttmem.models import preset
    >>> model = Titans(preset("tiny", "mac"))
    >>> ids = torch.randint(0, 258, (2, 50))
    >>> logits, state = model(ids)
    >>> first, half = model(ids[:, :23])
    >>> rest, _ = model(ids[:, 23:], half)
    >>> torch.allclose(torch.cat([first, rest], dim=1), logits, atol=1e-4)
    True
    """

    losses_are = "of the context's next characters"
    crosses_layers = (
        "walk an LMM by models.lmm_stack.walk; mac, mag and mal attend to a past of their own in each layer"
    )

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        self.head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)

    def start(self, batch: int) -> State:
        """A state that has read nothing."""
        not_negative(batch=batch)
        return State({name: block.start(batch) for name, block in self.blocks.named_children()})  # type: ignore[operator]

    def unread(self) -> State:
        """As `start`, but each block starts when it runs: of a sharded one there are no weights before."""
        return State(dict.fromkeys(name for name, _ in self.blocks.named_children()))  # type: ignore[arg-type]

    def forward(
        self, ids: Int[Tensor, "b t"], state: State | None = None, mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t v"], State]:
        """Next-token logits, and the state behind the last token; where `mask` is false there is padding.

        A state of other float types is cast to those of `start`. Raises ValueError for one of another batch or model.
        """
        if ids.ndim != 2:
            raise ValueError(f"ids must be (batch, time), got {tuple(ids.shape)}")
        if mask is not None:
            check_mask(mask, ids)
            ids = ids.masked_fill(~mask, 0)  # what stands in padding may be anything
        hidden, state = self.hidden(self.embedding(ids), state, mask)
        return self.logits(hidden), state

    def hidden(
        self, x: Float[Tensor, "b t d"], state: State | None = None, mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Hidden states of embeddings, zero where there is padding."""
        if mask is None:
            return self.stream(x, state)
        check_mask(mask, x)
        rows = alignment(mask)
        hidden, state = self.stream(rows.align(x), state, rows.lengths)
        return rows.restore(hidden), state

    def stream(
        self, x: Float[Tensor, "b t d"], state: State | None = None, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """`hidden` for left-aligned rows, the first `lengths` tokens of which are real."""
        if x.ndim != 3:
            raise ValueError(f"embeddings must be (batch, time, dim), got {tuple(x.shape)}")
        if not len(x):
            raise ValueError("ids must have a row, got an empty batch")
        if not x.shape[1]:
            return self.norm(x), self.start(len(x)) if state is None else self.checked(state, len(x))
        state, carried = self.unread() if state is None else state, {}
        self.check_layers(state)
        for name, block in zip(state.fast, self.blocks, strict=True):
            x, carried[name] = block(x, state.fast[name], lengths)
        return self.norm(x), State(carried, (), state.step + x.shape[1])

    def checked(self, state: State, batch: int) -> State:
        """The state itself; ValueError for one of another batch or model."""
        self.check_layers(state)
        for own, block in zip(state.fast.values(), self.blocks, strict=True):
            if own is not None:
                block.check(own, batch)  # type: ignore[operator]
        return state

    def check_layers(self, state: State) -> None:
        """Raise ValueError unless there is something for each layer."""
        if not isinstance(state, State):
            raise ValueError(f"state must be a State, as a call gives it, got {type(state).__name__}")
        if len(state.fast) != len(self.blocks):
            raise ValueError(f"state must have the model's {len(self.blocks)} layers, it has {len(state.fast)}")

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Next-token logits of hidden states."""
        return F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """Read a right-padded context; the log's loss is its mean nats per token."""
        once(steps)
        state, loss = self.read_context(state, context)
        return state, Log(loss[None].detach(), torch.zeros_like(loss)[None])

    def read_context(self, state: State, context: Int[Tensor, "b t"]) -> tuple[State, Float[Tensor, "b"]]:
        """The state behind a context, and each row's mean nats per token of it."""
        state, hidden = self.behind(state, context)
        return state, self.nats(hidden, context)

    def behind(self, state: State, context: Int[Tensor, "b t"]) -> tuple[State, Float[Tensor, "b t d"]]:
        """The state behind a right-padded context, and its hidden states: what costs no logits."""
        hidden, state = self.stream(self.embedding(context), state, (context != self.config.pad).sum(1))
        return state, hidden

    def nats(self, hidden: Float[Tensor, "b t d"], context: Int[Tensor, "b t"]) -> Float[Tensor, "b"]:
        """Each row's mean nats per token of a context with these hidden states."""
        if not context.shape[1]:
            return torch.zeros(len(context), device=context.device)
        told = context[:, 1:] != self.config.pad
        nats = F.cross_entropy(wide(self.logits(hidden[:, :-1]).mT), context[:, 1:].long(), reduction="none") * told
        return nats.sum(1) / told.sum(1).clamp(min=1)

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Float[Tensor, "b q y v"]:
        """Logits of the target's tokens, each question asked of its own copy of the state."""
        batch, questions = query.shape[:2]
        joined = join(query, target, self.config.pad)
        ids = joined.ids[:, :-1]
        lengths = (ids != self.config.pad).sum(1)
        hidden, _ = self.stream(self.embedding(ids), repeated(self.checked(state, batch), batch, questions), lengths)
        asked = hidden.gather(1, joined.place[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.logits(asked).unflatten(0, (batch, questions))

    def loss(self, episode: Episode) -> Outcome:
        """Read the context, answer from the state; with `context_loss`, predicting the context counts as well."""
        truncate, weight, context = self.config.truncate, self.config.context_loss, episode.context
        with torch.set_grad_enabled(torch.is_grad_enabled() and (weight > 0 or not truncate)):
            state, hidden = self.behind(self.unread(), context)
        outcome = score(self.read(detach(state) if truncate else state, episode.query, episode.target), episode)
        if not weight:  # logits of every token of the context would cost as much as a layer
            return outcome
        nats = self.nats(hidden, context).mean()
        return outcome._replace(loss=outcome.loss + weight * nats, parts=outcome.parts | {"write": nats.detach()})


def repeated(state: State, batch: int, times: int) -> State:
    """Every row of a state `times` times over; leaves lead with a multiple of the batch (heads are rows as well)."""
    if times == 1:
        return state
    return map_state(lambda x: x.unflatten(0, (batch, -1)).repeat_interleave(times, 0).flatten(0, 1), state)
