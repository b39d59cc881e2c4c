"""How well a model predicts text: nats per token, and where in the sequence."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..tasks.base import Task
from .fit import check_fit
from .run import evaluating

ROWS = 16
"""Windows read at a time."""


def nats(model: nn.Module, task: Task, samples: int = 200, seed: int = 1, split: str = "test") -> float:
    """Mean nats per token over `samples` windows of a split; padding does not count.

    Bits per byte are nats / ln 2, where the tokens are bytes; perplexity is exp(nats). Raises ValueError for samples
    below 1, and for a task whose ids or padding are not the model's.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    check_fit(model, task)
    total, tokens = 0.0, 0
    with evaluating(model) as device:
        for index, left in enumerate(range(samples, 0, -ROWS)):
            episode = task.sample(ROWS, split, seed, index)[: min(left, ROWS)].to(device)
            each = read_nats(model, episode.query, episode.target, episode.context)
            real = episode.target != episode.pad
            total, tokens = total + float((each * real).sum()), tokens + int(real.sum())
    return total / max(tokens, 1)


def nats_by_position(model: nn.Module, windows: Int[Tensor, "n t"], rows: int = ROWS) -> Float[Tensor, "n t-1"]:
    """Nats of every token behind the first of each window, read from an empty memory: loss against position.

    >>> from ttmem.models import Titans, preset
    >>> nats_by_position(Titans(preset("tiny", "lmm")), torch.randint(0, 256, (3, 33))).shape
    torch.Size([3, 32])
    """
    with evaluating(model) as device:
        parts = [part.to(device) for part in windows.split(rows)]
        return torch.cat([read_nats(model, part[:, None, :1], part[:, None, 1:])[:, 0].cpu() for part in parts])


def read_nats(
    model: Any, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"], context: Int[Tensor, "b t"] | None = None
) -> Float[Tensor, "b q y"]:
    """Nats of each target token, given those before it and the memory of the context."""
    state = model.start(len(query))
    state = state if context is None or not context.shape[1] else model.write(state, context)[0]
    logits = model.read(state, query, target)
    flat = F.cross_entropy(logits.flatten(0, 2).float(), target.flatten().long(), reduction="none")
    return flat.view(target.shape)
