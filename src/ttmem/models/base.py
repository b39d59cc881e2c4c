"""What the rest of the package knows of a model: four methods, and of a backbone: three."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.state import Log, State, usable


class Outcome(NamedTuple):
    """What an episode gives the outer loop: the loss to minimise, its parts in nats, and which answers are right."""

    loss: Float[Tensor, ""]
    parts: dict[str, Tensor]
    exact: Bool[Tensor, "b q"]
    right: Bool[Tensor, "b q y"]


@runtime_checkable
class Episode(Protocol):
    """A batch of contexts to write and questions to answer from memory alone (`ttmem.tasks.Episode`)."""

    context: Tensor
    query: Tensor
    target: Tensor
    answer: Tensor
    pad: int


@runtime_checkable
class Backbone(Protocol):
    """A decoder that memory tokens can be put in front of; `ttmem.models.Transformer` is one.

    It may have a fourth method, `ahead(x)`: what of `hidden(x, prefix)` is the same behind any prefix. `hidden` then
    takes that in the place of `x` as well, and a write of K steps makes it once.
    """

    dim: int
    vocab: int

    @property
    def head(self) -> nn.Module:
        """What makes logits of hidden states; a write head starts as its copy."""

    def embed(self, ids: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        """Embeddings of ids."""

    def hidden(self, x: Tensor, prefix: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states of the tokens behind the prefix, and of the prefix's last token."""

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Next-token logits."""


@runtime_checkable
class MemoryModel(Protocol):
    """Tasks, evaluation, serving and training know a model by these four methods only."""

    def start(self, batch: int) -> State:
        """A memory that has read nothing."""

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """Read the context into the memory."""

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Float[Tensor, "b q y v"]:
        """Logits of the target's tokens, from the memory and the query alone."""

    def loss(self, episode: Episode) -> Outcome:
        """Write, read, and compare."""


class Joined(NamedTuple):
    """Questions and answers as rows of one sequence, and where in it each target token is predicted."""

    ids: Int[Tensor, "r n"]
    place: Int[Tensor, "r y"]


def join(query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"], pad: int) -> Joined:
    """Put each target right behind its query, padding moved to the end; ValueError where a query has no token.

    >>> join(torch.tensor([[[7, 0]]]), torch.tensor([[[8, 9]]]), pad=0)
    Joined(ids=tensor([[7, 8, 9, 0]]), place=tensor([[0, 1]]))
    """
    for name, ids in (("query", query), ("target", target)):
        if ids.ndim != 3 or ids.shape[:2] != query.shape[:2]:
            shapes = f"{tuple(query.shape)} and {tuple(target.shape)}"
            raise ValueError(f"{name} must be (batch, questions, tokens), for query and target alike, got {shapes}")
    query, target = query.flatten(0, 1), target.flatten(0, 1)
    row = torch.cat([query, target], dim=1)
    order = (row == pad).to(torch.int8).argsort(dim=1, stable=True)
    first = (query != pad).sum(1, keepdim=True) - 1
    # Only where looking costs nothing: on a GPU it would wait for all that was asked of it so far.
    if first.device.type == "cpu" and not torch.compiler.is_compiling() and (first < 0).any():
        raise ValueError("query must have a token in every row, one is all padding")
    return Joined(row.gather(1, order), first + torch.arange(target.shape[1], device=row.device))


def of_rows(state: State, rows: int, like: Mapping[str, Tensor | None]) -> State:
    """The state, fit for autograd; ValueError unless it is as `like`, a state of this model (None: of any width), and
    has so many rows, one or more.

    Several questions share a memory, and a memory of another batch, or of a smaller model, would pass as theirs.
    """
    if rows < 1:
        raise ValueError("context and query must have a row, got an empty batch")
    held = set(getattr(state, "fast", ()))
    if held != set(like):
        found = ", ".join(sorted(held)) or type(state).__name__
        raise ValueError(f"state must hold {', '.join(sorted(like))}, as start and write give it, got {found}")
    batch = {len(leaf) for leaf in state.fast.values()}
    if batch != {rows}:
        raise ValueError(f"state must be of a batch of {rows}, got one of {', '.join(map(str, sorted(batch)))}")
    for name, leaf in state.fast.items():
        own, shape = like[name], tuple(leaf.shape[1:])
        if own is not None and own.shape[1:] != shape:
            asked = tuple(own.shape[1:])
            raise ValueError(f"state must hold {name} of {asked} in each row, as start gives it, got {shape}")
    return usable(state)


def fits(backbone: Backbone, slots: int) -> None:
    """Raise ValueError where a backbone looks at another number of memory tokens than the memory has."""
    known = getattr(backbone, "slots", None)
    if known not in (None, slots):
        raise ValueError(f"the memory has slots {slots}, the backbone's addresses {known}: give both the same")


def spread(x: Tensor, rows: int) -> Tensor:
    """Repeat each row so that there are `rows` of them: several questions share one memory."""
    return x if len(x) == rows else repeat(x, "b ... -> (b q) ...", q=rows // len(x))


def answer_logits(
    backbone: Backbone, memory: Float[Tensor, "b m d"] | None, joined: Joined, batch: int
) -> Float[Tensor, "b q y v"]:
    """Logits of the target tokens of `batch` x q joined rows, behind a memory."""
    hidden, _ = backbone.hidden(backbone.embed(joined.ids[:, :-1]), memory)
    asked = hidden.gather(1, joined.place[..., None].expand(-1, -1, hidden.shape[-1]))
    return rearrange(backbone.logits(asked), "(b q) y v -> b q y v", b=batch)


def score(logits: Float[Tensor, "b q y v"], episode: Episode) -> Outcome:
    """The read loss (mean nats per target token) and which answers are right in every answer token."""
    target = episode.target.to(torch.long)
    kept = target != episode.pad
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nats = F.cross_entropy(wide.flatten(0, 2), target.flatten(), reduction="none").view(target.shape)
    read = (nats * kept).sum() / kept.sum().clamp(min=1)
    right = logits.argmax(-1) == target
    return Outcome(read, {"read": read.detach()}, (right | ~episode.answer).all(-1), right)


def once(steps: int | None) -> None:
    """Raise ValueError unless a model that writes in one go is asked for one step."""
    if steps not in (None, 1):
        raise ValueError(f"steps must be 1 for a model that takes no gradient steps to write, got {steps}")
