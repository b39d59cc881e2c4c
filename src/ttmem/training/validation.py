"""Exact match on the validation split, for early stops; the test split is never looked at while training."""

import torch
from torch import nn

from ..tasks import AssociativeRetrieval

SEED = 0


@torch.no_grad()
def validate(model: nn.Module, task: AssociativeRetrieval, samples: int, batch: int = 500) -> float:
    """The share of `samples` validation contexts whose one question is answered exactly."""
    device, right = next(model.parameters()).device, 0
    training = model.training
    model.eval()
    for index, size in enumerate(sizes(samples, batch)):
        episode = task.sample(size, "validation", SEED, index, queries=1).to(device)
        right += int(model(episode).exact.sum())
    model.train(training)
    return right / samples


def sizes(samples: int, batch: int) -> list[int]:
    """The sizes of the batches that make up `samples`.

    >>> sizes(1200, 500)
    [500, 500, 200]
    """
    return [min(batch, samples - done) for done in range(0, samples, batch)]
