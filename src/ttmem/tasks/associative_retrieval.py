"""Associative retrieval: find the value of a key, from a memory of a context of pairs among random characters."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from ..checks import at_least, not_negative
from . import characters
from .base import Episode, random_stream
from .characters import ALPHABET, ASK, BANG, BAR, COLON, FIRST, PAD
from .layout import Frame, compose, distinct, lay_out, spell
from .pairs import read_context

_NAME = re.compile(
    r"N(?P<pairs>\d+)-K(?P<key>\d+)V(?P<value>\d+)(?:-V(?P<alphabet>\d+))?"
    r"(?:-(?P<kind>[SE])(?P<segments>\d+)_(?P<fill_min>\d+)-(?P<fill_max>\d+))?(?:_\d+[kKM]?)?"
)
_LEAST = {"pairs": 1, "key": 1, "value": 1, "segments": 1, "fill_min": 0, "fill_max": 0, "alphabet": 1}
# An evaluation draws 500 contexts at a time: far beyond these, one batch takes all the memory there is.
_MOST = {"pairs": 10_000, "key": 100, "value": 1_000, "segments": 10_000, "fill_max": 100_000}
_LONGEST = 100_000


class Written(NamedTuple):
    """Contexts and the pairs in them, in the context's order, with each one's segment; `noise` counts filler."""

    context: Int[Tensor, "b t"]
    keys: Int[Tensor, "b n k"]
    values: Int[Tensor, "b n v"]
    segment: Int[Tensor, "b n"]
    noise: Int[Tensor, "b"]


@dataclass(frozen=True)
class AssociativeRetrieval:
    """Pairs `!key:value!` among random characters; asked `?!key:`, the memory must answer `value!|`.

        context   q!aLA3:w5fz!5X!7gjy:l8fG!ywS|       written, then gone
        input     ?!7gjy:l8fG!                        query, then the target as far as it is known
        label           l8fG!|                        the target, each character under the one before it
        counts          ^^^^                          exact match: every character of the value right

    Each pair goes to a segment chosen uniformly. A segment whose pairs take P characters gets
    uniform(max(fill_min - P, 0), max(fill_max - P, 0)) random characters, each pair is inserted at a uniform position
    of these, and `|` ends the segment. So pairs longer than fill_max have no filler around them.

    Args:
        pairs: N, pairs per context; keys differ, values may repeat.
        key, value: characters of each.
        segments: parts of the context, each ended by `|`.
        fill_min, fill_max: characters of a segment, its `|` not counted.
        alphabet: how many of a-zA-Z0-9 are used.
        queries: how many pairs are asked per context, drawn without replacement; None: all, in random order.
        each: every segment has one pair, instead of pairs choosing theirs (E for S in the name: `N4-K2V2-E4_9-16`).

    Raises ValueError for a field out of range. Source: the key-value sets of GradMem, arXiv 2603.13875.

    >>> task = AssociativeRetrieval.from_name("N2-K4V4-S2_16-32")
    >>> episode = task.sample(batch=64, split="train", seed=0, index=0)
    >>> episode.context.shape, episode.query.shape, episode.target.shape
    (torch.Size([64, 66]), torch.Size([64, 2, 7]), torch.Size([64, 2, 6]))
    """

    pairs: int
    key: int
    value: int
    segments: int = 1
    fill_min: int = 0
    fill_max: int = 0
    alphabet: int = len(ALPHABET)
    queries: int | None = None
    each: bool = False

    vocab: ClassVar[int] = characters.VOCAB
    pad: ClassVar[int] = PAD
    separator: ClassVar[int] = BAR  # what ends a segment

    def __post_init__(self):
        at_least(self, _LEAST)
        for field, most in _MOST.items():
            if getattr(self, field) > most:
                raise ValueError(f"{field} must be <= {most:,}, got {getattr(self, field)}")
        if self.fill_max < self.fill_min:
            raise ValueError(f"fill_max must be >= fill_min, got {self.fill_max} < {self.fill_min}")
        if self.each and self.pairs != self.segments:
            raise ValueError(f"pairs must be segments = {self.segments} where each has one, got {self.pairs}")
        if self.alphabet > len(ALPHABET):
            raise ValueError(f"alphabet must be <= {len(ALPHABET)}, got {self.alphabet}")
        if self.pairs > self.alphabet**self.key:
            keys = f"{self.alphabet**self.key} different keys of {self.key} of {self.alphabet} characters"
            raise ValueError(f"pairs must be <= the {keys}, got {self.pairs}: take fewer pairs or a longer key")
        self._count(self.queries)
        if self.context_length > _LONGEST:
            long = f"context must have at most {_LONGEST:,} characters, {self.name} has up to {self.context_length:,}"
            raise ValueError(f"{long}: take fewer pairs or segments, or less filler")

    @classmethod
    def from_name(cls, name: str) -> "AssociativeRetrieval":
        """The set of a name; a number of samples at its end is read over (the stream has no end).

        >>> AssociativeRetrieval.from_name("N8-K2V2-V62_1M").context_length
        57
        """
        match = _NAME.fullmatch(name)
        said = match.groupdict() if match else {}
        each = said.pop("kind", None) == "E"
        fields = {field: int(number) for field, number in said.items() if number}
        if not fields.keys() & {"alphabet", "segments"}:
            raise ValueError(f"task name must look like N2-K4V4-S2_16-32 or N8-K2V2-V62, got {name!r}")
        return cls(**fields, each=each)

    @property
    def name(self) -> str:
        """The set's name, which `from_name` reads back (`queries` is no part of it)."""
        filled = (self.segments, self.fill_max, self.each) != (1, 0, False)
        letters = f"-V{self.alphabet}" if self.alphabet != len(ALPHABET) or not filled else ""
        segments = f"-{'E' if self.each else 'S'}{self.segments}_{self.fill_min}-{self.fill_max}" if filled else ""
        return f"N{self.pairs}-K{self.key}V{self.value}{letters}{segments}"

    @property
    def context_length(self) -> int:
        """Characters of the longest possible context, to which all are padded: shapes never change within a task."""
        return self._frame.length(self.pairs)

    def sample(
        self, batch: int, split: str = "train", seed: int = 0, index: int = 0, queries: int | None = None
    ) -> Episode:
        """Batch number `index` of a split: the same (split, seed, index) gives the same batch everywhere.

        `queries=1` is the published metric: one uniformly chosen pair. How many are asked changes no context.
        Slices: `position` of the asked pair among the pairs, its `segment`, and `noise`, the context's filler
        characters. Raises ValueError for an unknown split, queries that are not 1 to `pairs`, or a negative batch.
        """
        not_negative(batch=batch)
        count = self._count(self.queries if queries is None else queries)
        stream = random_stream(split, seed, index)
        keys = FIRST + distinct(batch, self.pairs, self.key, self.alphabet, stream)
        values = torch.randint(FIRST, FIRST + self.alphabet, (batch, self.pairs, self.value), generator=stream)
        written = self._write(keys, values, stream)
        asked = torch.rand(batch, self.pairs, generator=stream).argsort(dim=1, stable=True)[:, :count]
        return ask(written, asked)

    def episode_from_pairs(self, pairs: Sequence[tuple[str, str]], seed: int = 0) -> Episode:
        """A user's own pairs in one context, in their order, with filler as in training; every key is asked.

        Raises ValueError for no pair or more than `pairs`, another length than the task's, a foreign character, or a
        key that comes twice.

        >>> task = AssociativeRetrieval.from_name("N2-K4V4-V62")
        >>> task.decode(task.episode_from_pairs([("ab12", "x9Qz"), ("cd34", "y8Rw")]).context[0])
        '!ab12:x9Qz!!cd34:y8Rw!|'
        """
        written = self._write(*self._tensors(pairs), random_stream("user", seed, 0))
        return ask(written, torch.arange(len(pairs))[None])

    def episode_from_text(self, context: str, keys: Sequence[str] | None = None) -> Episode:
        """A ready context, asked for the keys given (all, where none is); the answers are read from the context.

        Raises ValueError where the context does not follow the task's grammar, is too long, or lacks a key.

        >>> task = AssociativeRetrieval.from_name("N2-K4V4-S1_16-32")
        >>> episode = task.episode_from_text("q!aLA3:w5fz!5X!7gjy:l8fG!ywS|", ["7gjy"])
        >>> task.decode(episode.query[0, 0]), task.decode(episode.target[0, 0])
        ('?!7gjy:', 'l8fG!|')
        """
        ids, length = self.encode(context), self.context_length
        if len(ids) > length:
            raise ValueError(f"context must have at most {length} characters for {self.name}, got {len(ids)}")
        found = read_context(context, self.key, self.value)
        if context.count("|") != self.segments:
            counted = context.count("|")
            raise ValueError(
                f"context must have {self.segments} segments for {self.name}, each ended by '|', got {counted}"
            )
        row = torch.tensor([ids + [PAD] * (length - len(ids))])
        segments, noise = torch.tensor([found.segments]), torch.tensor([found.noise])
        asked = torch.tensor([places([key for key, _ in found.pairs], keys)])
        return ask(Written(row, *self._tensors(found.pairs), segments, noise), asked)

    def query_for(self, key: str) -> Int[Tensor, "s"]:
        """Ids of the question for a key; ValueError where the key is none of this task.

        >>> task = AssociativeRetrieval.from_name("N2-K4V4-S2_16-32")
        >>> task.decode(task.query_for("7gjy"))
        '?!7gjy:'
        """
        return torch.tensor([ASK, BANG, *self._ids("key", key, self.key), COLON])

    def encode(self, text: str) -> list[int]:
        """Ids of a text, one per character; ValueError names a foreign character and its place."""
        return characters.encode(text)

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids, without padding."""
        return characters.decode(ids)

    @property
    def _frame(self) -> Frame:
        pair = self.key + self.value + 3
        return Frame(self.segments, self.fill_min, self.fill_max, pair, self.alphabet, self.each)

    def _write(self, keys: Tensor, values: Tensor, stream: Generator) -> Written:
        layout = lay_out(len(keys), keys.shape[1], self._frame, stream)
        context = compose(spell(BANG, keys, COLON, values, BANG), layout, self._frame, self.context_length, stream)
        return Written(context, keys, values, layout.segment, layout.noise)

    def _count(self, queries: int | None) -> int:
        if queries is not None and not 1 <= queries <= self.pairs:
            raise ValueError(f"queries must be between 1 and pairs = {self.pairs}, got {queries}")
        return self.pairs if queries is None else queries

    def _ids(self, what: str, text: str, length: int) -> list[int]:
        if len(text) != length:
            raise ValueError(f"{what} must have {length} characters for {self.name}, got {text!r} with {len(text)}")
        characters.check(text, ALPHABET[: self.alphabet], what)
        return characters.encode(text)

    def _tensors(self, pairs: Sequence[tuple[str, str]]) -> tuple[Int[Tensor, "1 n k"], Int[Tensor, "1 n v"]]:
        if not 1 <= len(pairs) <= self.pairs:
            takes = "1 pair" if self.pairs == 1 else f"1 to {self.pairs} pairs"
            raise ValueError(f"{self.name} takes {takes}, got {len(pairs)}")
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} comes twice: keys must differ")
            seen.add(key)
        keys = torch.tensor([[self._ids("key", key, self.key) for key, _ in pairs]])
        return keys, torch.tensor([[self._ids("value", value, self.value) for _, value in pairs]])


def ask(written: Written, asked: Int[Tensor, "b q"]) -> Episode:
    """The episode that asks for the pairs at the places `asked`."""
    rows = torch.arange(len(asked))[:, None]
    target = spell(written.values[rows, asked], BANG, BAR)
    answer = torch.zeros_like(target, dtype=torch.bool)
    answer[..., : written.values.shape[-1]] = True
    noise = written.noise[:, None].repeat(1, asked.shape[1])
    slices = {"position": asked, "segment": written.segment.gather(1, asked), "noise": noise}
    return Episode(written.context, spell(ASK, BANG, written.keys[rows, asked], COLON), target, answer, slices, PAD)


def places(written: list[str], keys: Sequence[str] | None) -> list[int]:
    """Where the keys stand among the written ones; all places for None."""
    if keys is None:
        return list(range(len(written)))
    for key in keys:
        if key not in written:
            raise ValueError(f"key {key!r} is not in the context, which has {', '.join(written)}")
    if not keys:
        raise ValueError("keys must name at least one key of the context; leave it out to ask them all")
    return [written.index(key) for key in keys]
