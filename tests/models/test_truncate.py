"""Truncated backpropagation: what the context left in memory is taken as given."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ttmem.core.state import map_state
from ttmem.models import Titans, build, preset
from ttmem.models.titans_config import ARCHITECTURES
from ttmem.tasks import AssociativeRetrieval

PAD = 0
TASK = AssociativeRetrieval.from_name("N3-K1V2-S1_2-20")


def model(kind: str, context_loss: float) -> Titans:
    """A small model that truncates, whose weights are large enough to matter."""
    small = preset("tiny", kind, vocab=70, pad=PAD, dim=16, hidden=16, layers=1, chunk_size=4, segment_size=6)
    made = build(replace(small, truncate=True, context_loss=context_loss), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_truncation_takes_the_memory_that_the_context_left_as_given(kind, weight):
    made, asked = model(kind, context_loss=weight), TASK.sample(2)
    outcome = made.loss(asked)
    outcome.loss.backward()
    found = {name: weight.grad for name, weight in made.named_parameters()}
    made.zero_grad()
    loss = weight * made.read_context(made.start(2), asked.context)[1].mean()
    state = made.write(made.start(2), asked.context)[0]
    logits = made.read(map_state(torch.detach, state), asked.query, asked.target)
    kept = asked.target != PAD
    loss = loss + F.cross_entropy(logits[kept], asked.target[kept])
    torch.testing.assert_close(outcome.loss, loss, rtol=0, atol=1e-10)
    loss.backward()
    for name, grad in found.items():
        wanted, there = made.get_parameter(name).grad, grad is not None
        assert there or wanted is None or not wanted.any(), name
        if there:
            torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-10)
    without = build(replace(made.config, truncate=False), seed=0)
    without.load_state_dict(made.state_dict())
    torch.testing.assert_close(without.loss(asked).loss, outcome.loss, rtol=0, atol=1e-10)
