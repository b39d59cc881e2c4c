"""Answering from memory and question alone, one token after the other."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.state import State
from .fit import pad_of


class Answer(NamedTuple):
    """The `ids` of each answer, and the `probability` the model gave to each of them."""

    ids: Int[Tensor, "b q y"]
    probability: Float[Tensor, "b q y"]


@torch.no_grad()
def decode(model: Any, state: State, query: Int[Tensor, "b q s"], length: int, pad: int | None = None) -> Answer:
    """The `length` likeliest tokens behind each question, each chosen before the next (greedy); never the padding.

    `pad` is the padding's id; None: the model's own, 0 for one that names none. Where the teacher-forced reading is
    right in every token, this gives the same tokens. Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"length must be >= 1, got {length}")
    pad = (pad_of(model) or 0) if pad is None else pad
    ids = torch.full((*query.shape[:2], length), pad, dtype=torch.long, device=query.device)
    probability = torch.zeros(ids.shape, device=query.device)
    for i in range(length):
        logits = model.read(state, query, ids[..., : i + 1])[..., -1, :].float()
        logits[..., pad] = -torch.inf
        best = logits.softmax(-1).max(-1)
        probability[..., i], ids[..., i] = best
    return Answer(ids, probability)
