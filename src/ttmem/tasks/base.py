"""What a sample looks like: contexts to write, questions to answer from memory alone."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SPLITS = ("train", "validation", "test")
_STREAMS = (*SPLITS, "user")  # "user": where the filler around a user's own pairs is drawn from


@dataclass(frozen=True)
class Episode:
    """A batch: contexts to write, and questions about each to answer without it.

    Args:
        context: ids, right-padded with `pad`.
        query: q >= 1 questions per context, right-padded with `pad`.
        target: what must follow each query, right-padded with `pad`.
        answer: the target tokens that count for exact match (the value, not what closes it).
        slices: one whole number per question, by name, to report results by.
        pad: the id that fills up rows.

    >>> from ttmem.tasks import AssociativeRetrieval
    >>> episode = AssociativeRetrieval.from_name("N2-K4V4-S2_16-32").sample(batch=3)
    >>> episode.context.shape, episode.query.shape, len(episode[:2])
    (torch.Size([3, 66]), torch.Size([3, 2, 7]), 2)
    """

    context: Int[Tensor, "b t"]
    query: Int[Tensor, "b q s"]
    target: Int[Tensor, "b q y"]
    answer: Bool[Tensor, "b q y"]
    slices: dict[str, Int[Tensor, "b q"]]
    pad: int = 0

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: slice) -> "Episode":
        """The rows of a slice, as an episode."""
        return self._each(lambda x: x[rows])

    def to(self, device: torch.device | str) -> "Episode":
        """The same episode on a device."""
        return self._each(lambda x: x.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Episode":
        slices = {name: change(x) for name, x in self.slices.items()}
        context, query, target, answer = map(change, (self.context, self.query, self.target, self.answer))
        return Episode(context, query, target, answer, slices, self.pad)


@runtime_checkable
class Task(Protocol):
    """A stream of episodes: `sample` keeps no state, so any process can draw any batch."""

    @property
    def name(self) -> str:
        """What the task is called on the command line and in reports."""

    @property
    def vocab(self) -> int:
        """Number of token ids."""

    def sample(
        self, batch: int, split: str = "train", seed: int = 0, index: int = 0, queries: int | None = None
    ) -> Episode:
        """Batch number `index` of a split: the same numbers give the same batch everywhere."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids."""


def random_stream(split: str, seed: int, index: int) -> torch.Generator:
    """The random numbers of one batch; no two splits, and no two batches of a split and seed (< 2**30), share a stream.

    The seed has 32 bits, all that torch's CPU generator uses of any seed: two name the split, and thirty hold a map of
    the index that never meets itself (an odd multiplier and an offset, both hashed from split and seed).
    """
    if split not in _STREAMS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    digest = hashlib.sha256(f"{split}/{seed}".encode()).digest()
    multiplier, offset = int.from_bytes(digest[:4], "big") | 1, int.from_bytes(digest[4:8], "big")
    batch = (offset + index * multiplier) % 2**30
    return torch.Generator().manual_seed(_STREAMS.index(split) * 2**30 + batch)
