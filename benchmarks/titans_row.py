"""One row of `titans.py`, measured alone in a fresh process: what is timed, its error, its memory, its laws.

`python benchmarks/titans_row.py '{"kind": "chunks", "cell": {...}, "setting": {...}}'` prints one line of JSON. A law
that fails is an error before anything is timed.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from one_row import LawBroken, clock, peak_bytes, summary
from products import multiply_adds, products_of, seconds_of
from titans_cell import Cell, Setting, Subject, double, nothing
from torch import Tensor

from ttmem.core import ChunkState, Form, Rows, tokenwise
from ttmem.core.state import map_state, tensors
from ttmem.memories import LongTermMemory

engine = importlib.import_module("ttmem.core.chunkwise")
layers = importlib.import_module("ttmem.memories.long_term")


def memory_rows(cell: Cell) -> tuple[ChunkState, Rows, list[Tensor]]:
    """A memory and what it reads, and of that what gradients are taken for; gates near those of a fresh layer."""
    draw = torch.Generator().manual_seed(0)
    n, t, d, depth = cell.batch * cell.heads, cell.tokens, cell.width, cell.depth

    def some(*shape: int, shift: float = 0.0) -> Tensor:
        return (torch.randn(*shape, generator=draw) + shift).to(cell.device)

    q, k = (F.normalize(some(n, t, d), dim=-1) for _ in range(2))
    lr = some(n, t, depth, shift=-4.0).sigmoid()
    momentum = F.logsigmoid(some(n, t, depth, shift=1.0))
    keep = tuple(F.logsigmoid(some(n, t, 1, shift=4.0)) for _ in range(depth))
    rows = Rows(q, k, some(n, t, d) * d**-0.5, lr, momentum, keep)
    widths = [d, *[4 * d] * (depth - 1), d]
    fast = {f"w{i + 1}": some(n, a, b) * a**-0.5 for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))}
    leaves = [leaf.requires_grad_() for leaf in tensors((*rows, fast))]
    velocity = {name: torch.zeros_like(weight) for name, weight in fast.items()}
    return ChunkState(fast, velocity, fast, torch.zeros(n, dtype=torch.long, device=cell.device)), rows, leaves


def chunks(recompute: bool, compiled: bool = False) -> Callable[[Cell, Setting], Subject]:
    """Our memory alone, chunk by chunk: q, k, v and gates are given."""

    def subject(cell: Cell, setting: Setting) -> Subject:
        state, rows, leaves = memory_rows(cell)
        form = Form(cell.chunk, recompute=recompute)

        def forward() -> Tensor:
            return engine.chunkwise(state, rows, form, phase=0)[0]

        law = as_eager(step_of(forward, leaves), setting.backend) if compiled else nothing
        return Subject(cell, forward, leaves, by_tokens(state, rows, form), law, counted=not compiled)

    return subject


def as_eager(step: Callable[[], tuple[Tensor, list[Tensor]]], backend: str) -> Callable[[], None]:
    """Compiles the engine's chunk from here on; the law that the step's gradients are those of the eager one."""
    eager = engine.write_chunk
    engine.write_chunk = torch.compile(eager, fullgraph=True, dynamic=False, backend=backend)

    def law() -> None:
        with patch.object(engine, "write_chunk", eager):
            wanted = step()[1]
        check_same(step()[1], wanted)

    return law


def check_same(compiled: list[Tensor], eager: list[Tensor]) -> None:
    """The law that compiled gradients are the eager ones."""
    for ours, theirs in zip(compiled, eager, strict=True):
        if not (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-6:
            raise LawBroken(f"the compiled gradient of shape {tuple(theirs.shape)} is not the eager one")


def by_tokens(state: ChunkState, rows: Rows, form: Form) -> Callable[[int], Tensor]:
    """The recurrence in float64, over the first tokens."""
    return lambda tokens: tokenwise(double(state), map_state(lambda part: part[:, :tokens], double(rows)), form)[0]


def token_loop(cell: Cell, setting: Setting) -> Subject:
    """Our memory alone, token by token; two chunks of one sample, since it holds the weights of every token."""
    cell = replace(cell, batch=1, tokens=2 * cell.chunk)
    state, rows, leaves = memory_rows(cell)
    form = Form(cell.chunk)
    return Subject(cell, lambda: tokenwise(state, rows, form)[0], leaves, by_tokens(state, rows, form))


def layer(recompute: bool, compiled: bool = False) -> Callable[[Cell, Setting], Subject]:
    """LongTermMemory with all its projections; norm and clip off, which the peer does not have either."""

    def subject(cell: Cell, setting: Setting) -> Subject:
        torch.manual_seed(0)
        shape = {"heads": cell.heads, "depth": cell.depth, "chunk_size": cell.chunk}
        memory = LongTermMemory(cell.heads * cell.width, **shape, norm=False, clip=None, recompute=recompute)
        memory, x = memory.to(cell.device), cell.features()

        def exact(tokens: int) -> Tensor:
            with patch.object(layers, "chunkwise", lambda *given, phase: tokenwise(*given)):
                return double(memory)(double(x)[:, :tokens])[0]

        leaves = [x, *memory.parameters()]
        if not compiled:
            return Subject(cell, lambda: memory(x)[0], leaves, exact, counted=True)
        fast = torch.compile(memory, fullgraph=True, dynamic=False, backend=setting.backend)
        steps = [step_of(lambda call=call: call(x)[0], leaves) for call in (fast, memory)]
        return Subject(cell, lambda: fast(x)[0], leaves, exact, lambda: check_same(*(step()[1] for step in steps)))

    return subject


def peer(mode: str) -> Callable[[Cell, Setting], Subject]:
    """A mode of the peer, which is imported only here."""
    return lambda cell, setting: getattr(importlib.import_module("titans_peer"), mode)(cell)


ROWS: dict[str, Callable[[Cell, Setting], Subject]] = {
    "peer, same function": peer("exact_mode"),
    "peer, coarse": peer("coarse_mode"),
    "token loop": token_loop,
    "chunks": chunks(recompute=True),
    "chunks, stored": chunks(recompute=False),
    "chunks, compiled": chunks(recompute=False, compiled=True),
    "layer": layer(recompute=True),
    "layer, stored": layer(recompute=False),
    "layer, compiled": layer(recompute=False, compiled=True),
}
"""Every kind of row. Whole models and decoding belong here too: a function of a cell that gives a Subject."""


def step_of(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """Forward and backward into fresh gradients: the loss and the gradients."""

    def step() -> tuple[Tensor, list[Tensor]]:
        for leaf in leaves:
            leaf.grad = None
        loss = forward().square().sum()
        loss.backward()
        return loss.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]

    return step


def check_recurrence(depth: int) -> None:
    """chunkwise = tokenwise to 1e-10 in float64: outputs, the end state, gradients, recomputed and stored."""
    cell = Cell(depth=depth, chunk=8, width=6, tokens=27)
    for recompute in (False, True):
        form, found = Form(cell.chunk, recompute=recompute), []
        for function in (tokenwise, engine.chunkwise):
            state, rows, _ = memory_rows(cell)
            state, rows = double(state), double(rows)
            leaves = [leaf.requires_grad_() for leaf in tensors((*rows, state.fast))]
            y, end = function(state._replace(anchor=state.fast), rows, form)
            ends = [y, *end.fast.values(), *end.velocity.values()]
            found.append([*ends, *torch.autograd.grad(sum(part.square().sum() for part in ends), leaves)])
        off = max((a - b).abs().max() / b.abs().max().clamp_min(1) for a, b in zip(*found, strict=True))
        if not off < 1e-10:
            raise LawBroken(f"chunkwise is {off:.1e} off tokenwise at depth {depth}, recompute {recompute}")


def error_of(subject: Subject, y: Tensor) -> float | None:
    """The largest error of the first chunks' outputs, as a part of the largest output; three chunks or 128 tokens."""
    tokens = min(subject.cell.tokens, max(3 * subject.cell.chunk, 128))
    if not y.isfinite().all():
        raise LawBroken("outputs are not finite")
    if subject.exact is None:
        return None
    wanted = subject.exact(tokens)
    return float((y[:, :tokens].cpu() - wanted).abs().max() / wanted.abs().max())


def turns(call: Callable[[], Any], setting: Setting, device: str) -> dict[str, float]:
    """Least and median seconds of a few calls."""
    seconds = [clock(call, device)]
    while len(seconds) < setting.repeats and sum(wall for wall, _ in seconds) < setting.seconds:
        seconds.append(clock(call, device))
    return summary(seconds)


def measure(kind: str, cell: Cell, setting: Setting) -> dict:
    """Everything the table says of a row, laws first."""
    torch.set_num_threads(setting.threads)
    check_recurrence(cell.depth)
    subject = ROWS[kind](cell, setting)
    subject.law()
    step, cell = step_of(subject.forward, subject.leaves), subject.cell
    peak = peak_bytes(step, cell.device)
    with torch.no_grad():
        error = error_of(subject, subject.forward())
        if error is not None and not error < 1e-3:
            raise LawBroken(f"outputs are {error:.1e} off the recurrence")
        forward = turns(subject.forward, setting, cell.device)
    both = turns(step, setting, cell.device)
    products = products_of(step) if subject.counted else None
    steady = int(cell.device == "cpu" and setting.threads == 1)
    name = ("wall_min", "cpu_min")[steady]
    return asdict(cell) | {
        "kind": kind,
        "error": error,
        "peak_bytes": peak,
        "forward_seconds": forward,
        "seconds": both,
        "forward_rate": cell.batch * cell.tokens / forward[name],
        "rate": cell.batch * cell.tokens / both[name],
        "multiply_adds": products and multiply_adds(products),
        "of_products": products and seconds_of(products, cell.device, steady) / both[name],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        print(json.dumps(measure(given["kind"], Cell(**given["cell"]), Setting(**given["setting"]))))
    except LawBroken as broken:
        sys.exit(f"a law is broken: {broken}")
