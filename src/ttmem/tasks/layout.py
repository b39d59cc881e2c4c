"""Draw contexts of pairs among random characters, many at once."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from .characters import BAR, FIRST, PAD


class Frame(NamedTuple):
    """What contexts look like: segments, least and most characters of each, characters of a pair, letters used; `each`:
    every segment has one pair."""

    segments: int
    fill_min: int
    fill_max: int
    pair: int
    alphabet: int
    each: bool = False

    def length(self, pairs: int) -> int:
        """Characters of the longest context: all pairs in one segment, the other segments filled up."""
        if self.each:
            return self.segments * (max(self.fill_max, self.pair) + 1)
        return max(self.fill_max, pairs * self.pair) + (self.segments - 1) * self.fill_max + self.segments


class Layout(NamedTuple):
    """Where the pairs stand in their order, the segment of each, the `|` of each segment; `noise` counts filler."""

    start: Int[Tensor, "b n"]
    segment: Int[Tensor, "b n"]
    ends: Int[Tensor, "b m"]
    noise: Int[Tensor, "b"]


def distinct(
    batch: int, pairs: int, length: int, alphabet: int, stream: Generator
) -> Int[Tensor, "{batch} {pairs} {length}"]:
    """Keys that differ within a row, as digits below `alphabet`; every tuple of different keys is equally likely.

    Repeats are drawn again until there are none: which keys come out cannot depend on their names, so all tuples stay
    equally likely. Where the pairs use up much of the keys that would take long, and all keys are shuffled instead.
    """
    possible = alphabet**length
    if possible <= 4 * pairs:
        chosen = torch.rand(batch, possible, generator=stream).argsort(dim=1, stable=True)[:, :pairs]
        return chosen[..., None] // alphabet ** torch.arange(length) % alphabet
    keys = torch.randint(alphabet, (batch, pairs, length), generator=stream)
    again = repeats(keys, alphabet)
    while again.any():
        rows = again.any(dim=1)
        keys[again] = torch.randint(alphabet, (int(again.sum()), length), generator=stream)
        again[rows] = repeats(keys[rows], alphabet)
    return keys


def repeats(keys: Int[Tensor, "b n k"], alphabet: int) -> Bool[Tensor, "b n"]:
    """Which keys of a row equal one before them (long keys: and, hardly ever, one more; never one less)."""
    code = keys[..., 0]
    for digit in keys[..., 1:].unbind(-1):
        code = code * alphabet + digit  # int64 wraps round: equal keys keep equal codes
    ordered, order = code.sort(dim=1, stable=True)
    return torch.zeros_like(code, dtype=torch.bool).scatter(1, order[:, 1:], ordered[:, 1:] == ordered[:, :-1])


def below(bound: Int[Tensor, "b n"], stream: Generator) -> Int[Tensor, "b n"]:
    """Uniform whole numbers in [0, bound), each with its own bound."""
    return torch.randint(2**62, bound.shape, generator=stream) % bound


def lay_out(batch: int, pairs: int, frame: Frame, stream: Generator) -> Layout:
    """Draw where the pairs of each context stand.

    Pairs are alike until their characters are put in, so their places are sorted and the first pair takes the first.
    """
    if frame.each:
        segment = torch.arange(pairs).expand(batch, pairs)
    else:
        segment = torch.randint(frame.segments, (batch, pairs), generator=stream)
    taken = torch.zeros(batch, frame.segments, dtype=torch.long)
    taken = taken.scatter_add(1, segment, torch.full_like(segment, frame.pair))
    least, most = (frame.fill_min - taken).clamp(min=0), (frame.fill_max - taken).clamp(min=0)
    filler = least + below(most - least + 1, stream)
    gap = below(filler.gather(1, segment) + 1, stream)
    place = (segment * (frame.fill_max + 1) + gap).sort(dim=1).values
    segment, gap = place // (frame.fill_max + 1), place % (frame.fill_max + 1)
    before = (filler.cumsum(1) - filler).gather(1, segment) + gap
    start = before + segment + frame.pair * torch.arange(pairs)
    return Layout(start, segment, (filler + taken + 1).cumsum(1) - 1, filler.sum(1))


def compose(
    pairs: Int[Tensor, "b n p"], layout: Layout, frame: Frame, length: int, stream: Generator
) -> Int[Tensor, "b {length}"]:
    """Contexts: filler everywhere, over it the spelt pairs, the ends of segments, and padding after the last."""
    ids = torch.randint(FIRST, FIRST + frame.alphabet, (len(pairs), length), generator=stream)
    at = layout.start[..., None] + torch.arange(frame.pair)
    ids.scatter_(1, at.flatten(1), pairs.flatten(1)).scatter_(1, layout.ends, BAR)
    return ids.masked_fill(torch.arange(length) > layout.ends[:, -1:], PAD)


def spell(*parts: int | Int[Tensor, "b n _"]) -> Int[Tensor, "b n _"]:
    """Join characters along the last dimension; a number stands for one character in every row."""
    like = next(part for part in parts if isinstance(part, Tensor))
    return torch.cat(
        [part if isinstance(part, Tensor) else like.new_full((*like.shape[:2], 1), part) for part in parts], -1
    )
