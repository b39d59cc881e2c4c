"""The Titans memory over a sequence, exactly: chunk by chunk in matrix products, and token by token beside it.

A memory of depth L is a network of L matrices, one copy per row (a row is one head of one sample); `network.py` has it.

    surprise    S_t = eta_t S_{t-1} - theta_t grad ||M_anchor(k_t) - v_t||^2
    write       W_t = (1 - alpha_t) W_{t-1} + S_t
    read        y_t = M_t(q_t)

The anchor is the memory at the end of the last chunk: `chunk` is part of the function, no tile size (Titans, arXiv
2501.00663, eqs. 8-15). Inside a chunk every gradient is rank one, `a_j^T delta_j`; no token needs weights of its own:

    out_i = b_i z_i W + f_i z_i S - sum_{j <= i} G_ij (a_j . z_i) delta_j

is what a layer says of its input z_i, with b, f, G from `coefficients`. Only the walk over the chunks is sequential.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .coefficients import Coefficients, coefficients
from .layer import Layer, layer_chunk
from .network import Norm, activation, finish, read, surprises
from .state import Tree


class ChunkState(NamedTuple):
    """A Titans memory in the middle of a stream.

    `fast` and `velocity` are W and S now (velocity is empty without momentum), `anchor` is W where the running chunk
    began, at which its gradients are taken; `seen` are the tokens written so far.
    """

    fast: Tree
    velocity: Tree
    anchor: Tree
    seen: Int[Tensor, "n"]


class Rows(NamedTuple):
    """What a memory reads, row by row: queries, keys, values, and the gates of each layer.

    `lr` is theta >= 0, `momentum` is log eta and `keep` is log(1 - alpha), both <= 0, or None for a memory without; one
    number per layer, or per channel of a layer's input in `keep`. `heard` is 0 for tokens that write nothing, for which
    lr, momentum and keep must be 0 (`silent` sees to it); None: all write.
    """

    q: Float[Tensor, "n t d"]
    k: Float[Tensor, "n t d"]
    v: Float[Tensor, "n t d"]
    lr: Float[Tensor, "n t l"]
    momentum: Float[Tensor, "n t l"] | None
    keep: tuple[Float[Tensor, "n t _"], ...] | None
    heard: Float[Tensor, "n t"] | None = None

    def split(self, sizes: list[int]) -> "list[Rows]":
        """Pieces of so many tokens each; together they have one backward, where slices would have one each."""

        def cut(x: Any) -> Any:
            return [None] * len(sizes) if x is None else x.split(sizes, dim=1)

        keep = cut(None) if self.keep is None else list(zip(*map(cut, self.keep), strict=True))
        parts = [cut(x) for x in (self.q, self.k, self.v, self.lr, self.momentum)]
        return [Rows(*part) for part in zip(*parts, keep, cut(self.heard), strict=True)]


class Form(NamedTuple):
    """What stays the same over a stream.

    Tokens per `chunk`; the memory's `norm` (None: a plain MLP); `clip`, the largest surprise of a token in one layer
    (None: any); `recompute`: the backward pass runs chunks again instead of keeping what they computed.
    """

    chunk: int
    norm: Norm | None = None
    clip: float | None = None
    recompute: bool = True


class Span(NamedTuple):
    """`chunks` of `size` tokens; `begun`: they go on in a chunk that has its anchor."""

    chunks: int
    size: int
    begun: bool = False


def chunkwise(
    state: ChunkState, rows: Rows, form: Form, lengths: Int[Tensor, "n"] | None = None, phase: int | None = None
) -> tuple[Float[Tensor, "n t d"], ChunkState]:
    """Write and read a sequence of any length, as `tokenwise` does, in matrix products; goes on inside a chunk.

    `phase` is `state.seen` modulo the chunk, where the caller knows it; else it is looked up.

    Rows are left-aligned: tokens at and behind a row's `lengths` write nothing, and their outputs mean nothing.
    They may stand at different places of their chunks.
    """
    t = rows.q.shape[1]
    phase = common_phase(state.seen, form.chunk) if phase is None else phase
    if t == 1:
        return tokenwise(state, rows, form, lengths, phase)
    if phase is None:
        return staggered(state, rows, form, lengths)
    count = state.seen + (t if lengths is None else lengths)
    y, state = walked(state, rows if lengths is None else silent(rows, lengths), form, phase)
    return y, state._replace(seen=count)


def walked(state: ChunkState, rows: Rows, form: Form, phase: int) -> tuple[Float[Tensor, "n t d"], ChunkState]:
    """Span by span, from a place inside the chunk that all rows share; `seen` is left to the caller."""
    walk = _recomputed if form.recompute and torch.is_grad_enabled() else _walk
    outs, found = [], spans(rows.q.shape[1], phase, form)
    for span, part in zip(found, rows.split([span.chunks * span.size for span in found]), strict=True):
        y, state = walk(state, part, span, form)
        outs.append(y)
    return torch.cat(outs, dim=1), state


def staggered(
    state: ChunkState, rows: Rows, form: Form, lengths: Int[Tensor, "n"] | None
) -> tuple[Float[Tensor, "n t d"], ChunkState]:
    """Rows that stand at different places of their chunks, on one grid: as many silent tokens stand in front of a row
    as its chunk has seen, so that all chunks end together.

        place 0    a b c d | e f g . | . .        chunk 4; a dot is silent
        place 2    . . a b | c d e f | g .        a, b go on at the anchor that the row's chunk has
    """
    t, place = rows.q.shape[1], (state.seen % form.chunk)[:, None]
    own = torch.arange(t + form.chunk - 1, device=place.device) - place
    end = t if lengths is None else lengths[:, None]
    y, after = walked(state, muted(picked(rows, own.clamp(0, t - 1)), (own >= 0) & (own < end)), form, 0)
    back = (place + torch.arange(t, device=place.device))[..., None]
    return y.gather(1, back.expand_as(rows.q)), after._replace(seen=state.seen + (t if lengths is None else lengths))


def picked(rows: Rows, index: Int[Tensor, "n s"]) -> Rows:
    """The tokens at these places of each row."""

    def pick(x: Any) -> Any:
        return None if x is None else x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    keep = None if rows.keep is None else tuple(map(pick, rows.keep))
    return Rows(pick(rows.q), pick(rows.k), pick(rows.v), pick(rows.lr), pick(rows.momentum), keep)


def common_phase(count: Int[Tensor, "n"], chunk: int) -> int | None:
    """The place inside its chunk that every row stands at; None where they differ."""
    phases = count % chunk
    return int(phases[0]) if bool((phases == phases[0]).all()) else None


def spans(t: int, phase: int, form: Form) -> list[Span]:
    """How `t` tokens are walked: the rest of a begun chunk, whole chunks in groups, and what is left.

    Only the states of one group are stored at a time; groups of about sqrt(chunks) cost the least memory.

    >>> [(span.chunks, span.size) for span in spans(23, 3, Form(chunk=4))]
    [(1, 1), (2, 4), (2, 4), (1, 4), (1, 2)]
    """
    head = min(t, -phase % form.chunk)
    whole, rest = divmod(t - head, form.chunk)
    group = max(1, math.isqrt(whole) if form.recompute else whole)
    found = [Span(1, head, True)] if head else []
    found += [Span(min(group, whole - i), form.chunk) for i in range(0, whole, group)]
    return [*found, Span(1, rest)] if rest else found


def silent(rows: Rows, lengths: Int[Tensor, "n"]) -> Rows:
    """The rows, in which tokens behind their row's length write nothing."""
    return muted(rows, torch.arange(rows.q.shape[1], device=lengths.device) < lengths[:, None])


def muted(rows: Rows, heard: Bool[Tensor, "n t"]) -> Rows:
    """The rows, in which only tokens that are heard write."""
    loud = heard.to(rows.lr.dtype)
    each = loud[..., None]
    momentum = None if rows.momentum is None else rows.momentum * each
    keep = None if rows.keep is None else tuple(part * each for part in rows.keep)
    return rows._replace(lr=rows.lr * each, momentum=momentum, keep=keep, heard=loud)


def _recomputed(*call: Any) -> tuple[Tensor, ChunkState]:
    return checkpoint(_walk, *call, use_reentrant=False, preserve_rng_state=False)


def _walk(state: ChunkState, rows: Rows, span: Span, form: Form) -> tuple[Tensor, ChunkState]:
    """Chunks of equal size, one after another; the coefficients of all of them in one call per layer."""
    outs = []
    weights = zip(*(weight.chunks() for weight in chunk_weights(rows, span.chunks)), strict=True)
    for part, own in zip(rows.split([span.size] * span.chunks), weights, strict=True):
        if not span.begun:
            state = anchored(state, None if part.heard is None else part.heard[:, 0] > 0)
        y, state = write_chunk(state, part, own, form)
        outs.append(y)
    return torch.cat(outs, dim=1), state


def chunk_weights(rows: Rows, chunks: int) -> list[Coefficients]:
    """The coefficients of every layer, for `chunks` chunks of equal size."""

    def cut(x: Any) -> Any:
        return None if x is None else x.unflatten(1, (chunks, -1))

    keeps = [None] * rows.lr.shape[2] if rows.keep is None else rows.keep
    momenta = [None] * rows.lr.shape[2] if rows.momentum is None else rows.momentum.unbind(-1)
    layers, heard = zip(rows.lr.unbind(-1), momenta, keeps, strict=True), cut(rows.heard)
    return [coefficients(cut(lr), cut(momentum), cut(keep), heard) for lr, momentum, keep in layers]


def anchored(state: ChunkState, active: Bool[Tensor, "n"] | None) -> ChunkState:
    """The state at the start of a chunk: gradients are from now on taken at W, in rows where a token follows."""
    if active is None:
        return state._replace(anchor=state.fast)
    pick = active[:, None, None]
    return state._replace(anchor={name: torch.where(pick, w, state.anchor[name]) for name, w in state.fast.items()})


def write_chunk(
    state: ChunkState, rows: Rows, weights: Sequence[Coefficients], form: Form
) -> tuple[Float[Tensor, "n t d"], ChunkState]:
    """The tokens of one chunk, or of a part of it: what each of them reads, and the memory behind the last."""
    written = surprises(state.anchor, rows.k, rows.v, form.norm, form.clip)
    fast, velocity, z = {}, {}, rows.q
    for i, (name, weight, own) in enumerate(zip(state.fast, weights, written, strict=True)):
        z = activation(z) if i else z
        layer = Layer(state.fast[name], state.velocity.get(name), *own)
        z, fast[name], past = layer_chunk(layer, weight, z)
        if past is not None:
            velocity[name] = past
    return finish(z, rows.q, form.norm), state._replace(fast=fast, velocity=velocity)


def tokenwise(
    state: ChunkState, rows: Rows, form: Form, lengths: Int[Tensor, "n"] | None = None, phase: int | None = None
) -> tuple[Float[Tensor, "n t d"], ChunkState]:
    """The recurrence as it is written above, one token after another: the slow twin of `chunkwise`.

    Rows may stand at different places of their chunks; `phase` is their place where it is known to be the same.
    """
    rows, outs = rows if lengths is None else silent(rows, lengths), []
    for t, token in enumerate(rows.split([1] * rows.q.shape[1])):
        there = torch.ones_like(state.seen) if lengths is None else (lengths > t).long()
        if phase is None or lengths is not None:
            state = anchored(state, (state.seen % form.chunk == 0) & (there > 0))
        elif (phase + t) % form.chunk == 0:
            state = anchored(state, None)
        state = write_token(state, token, form)
        state = state._replace(seen=state.seen + there)
        outs.append(read(state.fast, token.q, form.norm))
    return torch.cat(outs, dim=1), state


def write_token(state: ChunkState, token: Rows, form: Form) -> ChunkState:
    """`S_t = eta S - theta a^T delta` and `W_t = (1 - alpha) W + S_t`, layer by layer."""
    fast, velocity = {}, {}
    for i, (name, (a, delta)) in enumerate(
        zip(state.fast, surprises(state.anchor, token.k, token.v, form.norm, form.clip), strict=True)
    ):
        scaled = token.lr[:, :, i, None] * a.transpose(1, 2)
        if token.momentum is None:
            change = -scaled * delta
        else:
            past = token.momentum[:, :, i, None].exp() * state.velocity[name]
            change = velocity[name] = torch.baddbmm(past, scaled, delta, alpha=-1)
        heard = change if token.heard is None else token.heard[:, :, None] * change
        keep = None if token.keep is None else token.keep[i].transpose(1, 2).exp()
        fast[name] = state.fast[name] + heard if keep is None else torch.addcmul(heard, keep, state.fast[name])
    return state._replace(fast=fast, velocity=velocity)
