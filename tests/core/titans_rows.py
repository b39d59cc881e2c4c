"""Titans memories small enough to be held against autograd: random weights, rows and gates, and what is compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttmem.core import ChunkState, Form, Norm, Rates, Rows, Rule, associative, chain, forget, momentum, sgd, surprise
from ttmem.core.network import read
from ttmem.core.state import map_state, tensors

ROWS, DIM, HIDDEN = 2, 3, 4


class Case(NamedTuple):
    """One kind of memory."""

    depth: int = 2
    momentum: bool = True
    forget: str = "scalar"
    norm: bool = True
    clip: float | None = None

    @property
    def widths(self) -> list[int]:
        """Channels before, between and behind its layers."""
        return [DIM] + [HIDDEN] * (self.depth - 1) + [DIM]


def leaf(x: Tensor) -> Tensor:
    """The same numbers, at which gradients end."""
    return x.detach().clone().requires_grad_()


def weights(case: Case, n: int = ROWS) -> dict[str, Tensor]:
    """One matrix per layer and row."""
    pairs = zip(case.widths[:-1], case.widths[1:], strict=True)
    return {f"w{i + 1}": leaf(torch.randn(n, a, b) * (2 / a) ** 0.5) for i, (a, b) in enumerate(pairs)}


def norm_of(case: Case, n: int = ROWS) -> Norm | None:
    """A norm that is not the identity."""
    if not case.norm:
        return None
    return Norm(leaf(1 + 0.3 * torch.randn(n, 1, DIM)), leaf(0.3 * torch.randn(n, 1, DIM)), eps=0.1)


def started(case: Case, n: int = ROWS, seen: int = 0) -> ChunkState:
    """A memory in the middle of its life: a velocity that is not zero, an anchor that is not W."""
    velocity = {name: leaf(0.3 * torch.randn_like(w)) for name, w in weights(case, n).items()} if case.momentum else {}
    return ChunkState(weights(case, n), velocity, weights(case, n), torch.full((n,), seen))


def drawn(case: Case, t: int, n: int = ROWS) -> Rows:
    """Queries, keys, values and gates of `t` tokens; every gate differs from token to token and layer to layer."""
    channels = {"none": None, "scalar": [1] * case.depth, "channel": case.widths[:-1]}[case.forget]
    q, k, v = (leaf(torch.randn(n, t, DIM)) for _ in range(3))
    keep = None if channels is None else tuple(leaf(-0.4 * torch.rand(n, t, c)) for c in channels)
    momentum = leaf(-2 * torch.rand(n, t, case.depth)) if case.momentum else None
    return Rows(q, k, v, leaf(0.04 * torch.rand(n, t, case.depth)), momentum, keep)


def form_of(case: Case, chunk: int, recompute: bool = False, n: int = ROWS) -> Form:
    """How the memory is walked."""
    return Form(chunk, norm_of(case, n), case.clip, recompute)


def gradients(result: Any, sources: Any) -> list[Tensor]:
    """Of a fixed random number made of everything in `result`, with respect to every leaf in `sources`."""
    noise = torch.Generator().manual_seed(1)
    parts = [x for x in tensors(result) if x.requires_grad]
    total = sum((x * torch.randn(x.shape, generator=noise, dtype=x.dtype)).sum() for x in parts)
    inputs = [x for x in tensors(sources) if x.requires_grad]
    return list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    """Every tensor of `found` is that of `wanted`, up to a share of its largest number."""
    found, wanted = (tuple(x) if isinstance(x, list) else x for x in (found, wanted))
    pairs = list(zip(tensors(found), tensors(wanted), strict=True))
    assert pairs, "there is nothing to compare"
    for one, other in pairs:
        assert one.shape == other.shape and one.dtype == other.dtype
        size = max(float(other.detach().abs().max()), 1e-3) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size)


def row(tree: Any, i: int) -> Any:
    """Row `i` of everything, as a batch of one."""
    return map_state(lambda x: x[i : i + 1], tree)


def row_form(form: Form, i: int) -> Form:
    """The form that row `i` alone is walked by."""
    return form._replace(norm=None if form.norm is None else Norm(*row(tuple(form.norm[:2]), i), form.norm.eps))


def sources(state: ChunkState, rows: Rows, form: Form) -> tuple:
    """Everything that gradients are taken of, the anchor last."""
    norm = () if form.norm is None else tuple(form.norm[:2])
    return tuple(rows), norm, state.fast, state.velocity, state.anchor


def assert_same(one: Any, other: Any, inputs: tuple) -> None:
    """Equal outputs, end states and gradients; only those of the anchor, which may be without use, may be zero."""
    assert_close(one, other)
    grads = gradients(other, inputs)
    assert all(bool(g.any()) for g in grads[: -len(inputs[-1])]), "the comparison sees no gradients"
    assert_close(gradients(one, inputs), grads)


def garbled(rows: Rows, lengths: torch.Tensor) -> Rows:
    """Other tokens and gates behind each row's length."""
    behind = (torch.arange(rows.q.shape[1]) >= lengths[:, None])[..., None]

    def other(x):
        return torch.where(behind, -9 * torch.rand_like(x), x)

    keep = None if rows.keep is None else tuple(other(part) for part in rows.keep)
    q, k, v = (other(part) for part in rows[:3])
    momentum = None if rows.momentum is None else other(rows.momentum)
    return Rows(q, k, v, torch.where(behind, 5.0, rows.lr), momentum, keep)


def alone(walk: Callable, state: ChunkState, rows: Rows, form: Form, i: int) -> tuple[Tensor, ChunkState]:
    """What row `i` reads and is left with, where it is the only one."""
    return walk(row(state, i), row(rows, i), row_form(form, i))


def in_pieces(
    walk: Callable, state: ChunkState, rows: Rows, form: Form, pieces: list[int]
) -> tuple[Tensor, ChunkState]:
    """One call after another."""
    outs = []
    for part in rows.split(pieces):
        y, state = walk(state, part, form)
        outs.append(y)
    return torch.cat(outs, dim=1), state


def clip_layers(limit: float) -> Rule:
    """A rule of the engine: each layer's surprise gets norm <= limit."""

    def update(grads, memo, fast, rates):
        sizes = {n: g.flatten(1).norm(dim=1)[:, None, None] for n, g in grads.items()}
        return {n: torch.where(sizes[n] > limit, g * limit / sizes[n], g) for n, g in grads.items()}, memo

    return Rule(lambda fast: (), update)


def rule_of(case: Case) -> Rule:
    """The engine's rule for this kind of memory."""
    parts = [momentum() if case.momentum else sgd(), forget()]
    return chain(*([clip_layers(case.clip)] if case.clip else []), *parts)


def memo_of(case: Case, velocity: dict[str, Tensor]) -> tuple:
    """What that rule remembers."""
    return (*([()] if case.clip else []), velocity if case.momentum else (), ())


def rates_of(names: list[str], rows: Rows, t: int) -> Rates:
    """The engine's rates of one token: one number, or one per channel, for every row and layer."""
    lr = {n: rows.lr[:, t, i] for i, n in enumerate(names)}
    eta = 0.0 if rows.momentum is None else {n: rows.momentum[:, t, i].exp() for i, n in enumerate(names)}
    alpha = 0.0 if rows.keep is None else {n: 1 - x[:, t].exp() for n, x in zip(names, rows.keep, strict=True)}
    return Rates(lr, eta, alpha)


def engine(case: Case, state: ChunkState, rows: Rows, form: Form) -> tuple[Tensor, ChunkState]:
    """Every token written by the engine, with the gradient of autograd at the anchor; and what each then reads."""
    rule, names, outs = rule_of(case), list(state.fast), []
    objective = associative(lambda fast, x: read(fast, x, form.norm))
    fast, memo, anchor = state.fast, memo_of(case, state.velocity), state.anchor
    for t in range(rows.q.shape[1]):
        anchor = fast if (int(state.seen[0]) + t) % form.chunk == 0 else anchor
        grads, _ = surprise(objective, anchor, (rows.k[:, t : t + 1], rows.v[:, t : t + 1]))
        change, memo = rule.update(grads, memo, fast, rates_of(names, rows, t))
        fast = {n: w + change[n] for n, w in fast.items()}
        outs.append(read(fast, rows.q[:, t : t + 1], form.norm))
    velocity = memo[-2] if case.momentum else {}
    return torch.cat(outs, dim=1), ChunkState(fast, velocity, anchor, state.seen + rows.q.shape[1])
