"""Models and episodes small enough for finite differences."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ttmem.core import State
from ttmem.models import ModelConfig, Transformer, TransformerConfig, build
from ttmem.tasks import Episode

VOCAB = 7
SMALL = ModelConfig(vocab=VOCAB, dim=8, layers=2, heads=2, hidden=8, slots=3, lr=0.5, memory_lr=0.1, separator=6)

SHAPE = {"vocab": 7, "dim": 8, "layers": 3, "heads": 2, "hidden": 8}
LEARNED = {"addresses": "learned", "slots": 3}
SINES = {"addresses": "sines", "slots": 3}


def transformer(**changes) -> Transformer:
    """A small decoder with weights large enough to matter."""
    backbone = Transformer(TransformerConfig(**SHAPE | changes))
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return backbone


def model(memory: str = "tokens", seed: int = 0, **changes) -> nn.Module:
    """A small float64 model whose weights are large enough to matter."""
    made = build(replace(SMALL, memory=memory, **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if not name.startswith("rates"):
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made.double()


def ids(*shape: int) -> Tensor:
    """Random ids without padding."""
    return torch.randint(1, VOCAB, shape)


def padded(rows: Tensor, lengths: list[int]) -> Tensor:
    """The rows cut to their lengths, padding (0) behind."""
    place = torch.arange(rows.shape[-1])
    return torch.where(place < torch.tensor(lengths).reshape(rows.shape[:-1] + (1,)), rows, 0)


def episode(batch: int = 2, questions: int = 2) -> Episode:
    """Random contexts, questions and answers, all ragged; the last token of an answer does not count."""
    rows = batch * questions
    context = padded(ids(batch, 6), [6 - i % 3 for i in range(batch)])
    query = padded(ids(rows, 3), [3 - i % 2 for i in range(rows)]).view(batch, questions, 3)
    target = padded(ids(rows, 3), [3 - i % 2 for i in range(rows)]).view(batch, questions, 3)
    answer = (target != 0) & (torch.arange(3) < 1)
    return Episode(context, query, target, answer, {"position": torch.zeros(batch, questions, dtype=torch.long)})


def memory_of(state: State) -> Tensor:
    """The kept tokens."""
    return state.fast["mem"]
