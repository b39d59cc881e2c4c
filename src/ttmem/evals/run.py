"""Ask a model of a task, with the control that its memory was reset."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.state import Log, State, tensors
from ..tasks.base import Episode, Task
from .fit import check_fit
from .report import Report, by_slice, clustered

BATCH = 500
"""Contexts drawn at a time; fixed, so that split, seed and number of samples name the same questions everywhere."""

AT_ONCE, FEWEST = 2**14, 16
"""Tokens that a CPU reads at once, of contexts or of questions, in no fewer rows: where it reads more, fresh memory
costs it up to as much time as the arithmetic, and with fewer rows the calls do."""

NOTHING = 1e-18
"""A surprise that is none: what the norm of a gradient of zeros comes to in float32, and more."""


@dataclass
class Tally:
    """What is counted, batch after batch."""

    exact: list[Tensor] = field(default_factory=list)
    exact_reset: list[Tensor] = field(default_factory=list)
    right: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"write": 0.0, "answer": 0.0})
    logs: list[Log] = field(default_factory=list)
    slices: list[dict[str, Tensor]] = field(default_factory=list)
    memory_bytes: int = 0


def evaluate(  # noqa: PLR0913  # what is asked, each by its name
    model: nn.Module,
    task: Task,
    samples: int = 10_000,
    seed: int = 1,
    steps: int | None = None,
    split: str = "test",
    queries: int | None = 1,
) -> Report:
    """Exact match on questions to `samples` contexts, and on the same questions with the memory reset.

    `steps` write steps (None: as trained); `queries` questions of each context (None: all there are). The model is put
    in evaluation mode for the time; nothing is learned. A smaller number of samples asks the first of the same
    questions. Raises ValueError for samples or steps below 1, more questions than there are, an unknown split, and a
    task whose ids or padding are not the model's.

    >>> from ttmem.models import ModelConfig, build
    >>> from ttmem.tasks import AssociativeRetrieval
    >>> model = build(ModelConfig(dim=16, layers=1), seed=0)
    >>> report = evaluate(model, AssociativeRetrieval.from_name("N1-K1V1-V62"), samples=20)
    >>> report.samples, report.memory_bytes                              # 8 tokens of 16 numbers of 4 bytes
    (20, 512)
    """
    if samples < 1 or (steps is not None and steps < 1):
        raise ValueError(f"samples and steps must be >= 1, got {samples} and {steps}")
    check_fit(model, task)
    tally = Tally()
    with evaluating(model) as device:
        for episode in episodes(task, samples, seed, split, queries):
            for piece in pieces(episode, device):
                count(tally, model, piece.to(device), steps)
    return summarise(tally, {"task": task.name, "split": split, "samples": samples, "seed": seed, "steps": steps})


def steps_curve(
    model: nn.Module,
    task: Task,
    steps: Iterable[int] = range(1, 31),
    samples: int = 2_000,
    seed: int = 1,
    split: str = "test",
) -> list[Report]:
    """One report per number of write steps, all on the same questions: does writing longer than in training help?"""
    return [evaluate(model, task, samples, seed, number, split) for number in steps]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode and no gradients for a while; gives the model's device."""
    modes = {module: module.training for module in model.modules()}  # parts may be in modes of their own
    model.eval()
    try:
        with torch.no_grad():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        for module, training in modes.items():
            module.training = training


def episodes(task: Task, samples: int, seed: int, split: str, queries: int | None = 1) -> Iterator[Episode]:
    """The first `samples` contexts of a split, with so many questions each."""
    for index, left in enumerate(range(samples, 0, -BATCH)):
        yield task.sample(BATCH, split, seed, index, queries=queries)[: min(left, BATCH)]


def pieces(episode: Episode, device: torch.device) -> Iterator[Episode]:
    """The episode, on a CPU some rows at a time."""
    rows, tokens = episode.context.shape
    asked = episode.target.shape[1] * (episode.query.shape[2] + episode.target.shape[2])
    tokens = max(tokens, asked)
    size = max(AT_ONCE // max(tokens, 1), FEWEST) if device.type == "cpu" else rows
    yield from (episode[first : first + size] for first in range(0, rows, size))


def count(tally: Tally, model: Any, episode: Episode, steps: int | None) -> None:
    """Write a batch, ask it, ask it again of a memory that read nothing, and add up."""
    empty = model.start(len(episode))
    with timed(tally.seconds, "write", episode.context.device):
        state, log = model.write(empty, episode.context, steps)
    with timed(tally.seconds, "answer", episode.context.device):
        right = correct(model, state, episode)
    tally.exact.append((right | ~episode.answer).all(-1).cpu())
    tally.exact_reset.append((correct(model, empty, episode) | ~episode.answer).all(-1).cpu())
    tally.right += int((right & episode.answer).sum())
    tally.tokens += int(episode.answer.sum())
    tally.logs.append(Log(log.loss.float().cpu(), log.surprise.float().cpu()))
    tally.slices.append({name: values.cpu() for name, values in episode.slices.items()})
    cost = getattr(model, "memory_bytes", memory_bytes)  # a model whose state is not what it would hold in use says so
    tally.memory_bytes = max(tally.memory_bytes, cost(state, len(episode)))


def correct(model: Any, state: State, episode: Episode) -> Tensor:
    """Which target tokens are the likeliest, each given those before it, `(b, q, y)`."""
    return model.read(state, episode.query, episode.target).argmax(-1) == episode.target


def memory_bytes(state: State, batch: int) -> int:
    """Bytes that one row of a memory takes, every number in 4 bytes."""
    return 4 * sum(leaf.numel() for leaf in tensors(state.fast)) // batch


@contextmanager
def timed(seconds: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Add the time that the block takes on the device, in seconds."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    yield
    wait()
    seconds[name] += time.perf_counter() - begun


def summarise(tally: Tally, asked: dict[str, Any]) -> Report:
    """The report of what was counted."""
    exact, reset = torch.cat(tally.exact), torch.cat(tally.exact_reset)
    slices = {name: torch.cat([part[name] for part in tally.slices]) for name in tally.slices[0]}
    samples, queries = asked["samples"], exact.shape[1]
    return Report(
        **asked,
        queries=queries,
        exact_match=exact.double().mean().item(),
        exact_match_reset=reset.double().mean().item(),
        token_accuracy=tally.right / max(tally.tokens, 1),
        interval=clustered(exact),
        memory_bytes=tally.memory_bytes,
        write_seconds=tally.seconds["write"] / samples,
        answer_seconds=tally.seconds["answer"] / samples / queries,
        write_loss=mean_loss(tally.logs),
        slices=by_slice(exact, slices),
    )


def mean_loss(logs: list[Log]) -> tuple[float, ...]:
    """The mean loss before each step, over the rows that had something to write then.

    Segments beyond a row's last are empty: they cost nothing and surprise nobody, and batches may have fewer of them.
    """
    longest = max(len(log.loss) for log in logs)
    filled = [Log(*(F.pad(part, (0, 0, 0, longest - len(log.loss))) for part in log)) for log in logs]
    loss, surprise = (torch.cat(parts, dim=1) for parts in zip(*filled, strict=True))
    wrote = (loss != 0) | (surprise > NOTHING)
    return tuple((loss.double().sum(1) / wrote.sum(1).clamp(min=1)).tolist())
