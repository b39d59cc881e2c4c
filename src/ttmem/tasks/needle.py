"""A needle in a haystack: one sentence with a magic value, hidden in long text, and the question for the value."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple
from uuid import UUID

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from ..checks import not_negative, one_of
from .base import SPLITS, Episode, random_stream
from .corpus import Bytes, check, locate, read_text
from .layout import below

KINDS = {"passkey": "number", "number": "number", "word": "word", "uuid": "uuid"}
DIGITS = 7
LONGEST = 1_000_000  # bytes of a context; an evaluation draws 500 at a time
ESSAYS = "niah/PaulGrahamEssays"
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic {what}s for {key} is: {value}."
QUESTION = "The special magic {what} for {key} mentioned in the provided text is "
FIRSTS = (
    "amber brisk calm dusty eager fancy gentle hollow icy jolly keen lively mellow noble orange plain quiet rapid "
    "silver tidy upper vivid warm young zesty"
).split()
SECONDS = (
    "anchor bridge candle desert engine forest garden harbor island jacket kettle ladder meadow needle orchard pepper "
    "quarry river saddle temple umbrella valley window yard zebra"
).split()

_NAME = re.compile(r"needle:([a-z]+):(\d+)(?::d(\d+))?")
_LONGEST = {"word": 15, "uuid": 36}  # bytes of a value; a word is two of at most seven letters and a hyphen
_WORD = re.compile(r"(?<![\w'’-])[a-z]{4,7}(?![\w'’-])")


class Haystack(NamedTuple):
    """Bytes that repeat without end, where in them a needle may go (before these), and what closes a needle."""

    ids: Int[Tensor, "n"]
    joints: Int[Tensor, "j"]
    gap: str


@dataclass(frozen=True)
class Needle:
    """Find the value of the one magic sentence in a haystack of exactly `length` bytes.

        context  ...The sun is yellow. Here we go. There and back again.
                 One of the special magic numbers for amber-river is: 4071358.
                 The grass is green. The sky is blue. The sun is ye...                   written, then gone
        query    The special magic number for amber-river mentioned in the provided text is    (and a space)
        target   4071358.
        counts   ^^^^^^^                                                exact match: every byte of the value right

    | kind | haystack | value | in RULER |
    |---|---|---|---|
    | passkey | five sentences, over and over | a number | niah_single_1 |
    | number | essays | a number | niah_single_2 |
    | word | essays | two words of the essays joined by a hyphen | niah_single_3 has uuids |
    | uuid | essays | 32 random hexadecimal digits, 8-4-4-4-12 | niah_single_3 |

    The place of the needle is uniform over the bytes of the haystack, which is shifted so that a sentence begins there
    (passkey: the five sentences begin); essays are read in a ring. Keys are 25 x 25 pairs of words. Numbers and words
    that stand anywhere in the essays are never values. Train, validation and test have essays of their own: of ten
    files in the order of their names the second is validation, the third test. Ids are those of `Text`.

    Args:
        kind: passkey, number, word or uuid.
        length: bytes of the context.
        digits: of a number, 1 to 18; the first is never 0.
        data: the data folder, with the essays in niah/PaulGrahamEssays; None: TTMEM_DATA. passkey needs none.

    Raises ValueError for a field out of range and where the essays are missing, which are read when first needed.
    Source: RULER, arXiv 2404.06654; Titans, arXiv 2501.00663.

    >>> task = Needle.from_name("needle:passkey:160:d4")
    >>> episode = task.sample(batch=2, split="test", seed=0, index=0)
    >>> print(task.decode(episode.context[0]))
    . The sky is blue. The sun is yellow. Here we go. There and back again.
    One of the special magic numbers for tidy-zebra is: 1170.
    The grass is green. The sky is
    >>> task.decode(episode.query[0, 0]), task.decode(episode.target[0, 0])
    ('The special magic number for tidy-zebra mentioned in the provided text is ', '1170.')
    """

    kind: str
    length: int
    digits: int = DIGITS
    data: str | Path | None = None

    vocab: ClassVar[int] = Bytes().vocab
    pad: ClassVar[int] = Bytes().pad
    separator: ClassVar[None] = None  # nothing ends a segment
    pairs: ClassVar[int] = 1  # questions that a context has

    def __post_init__(self):
        one_of(self, {"kind": tuple(KINDS)})
        if not 1 <= self.digits <= 18:
            raise ValueError(f"digits must be between 1 and 18, got {self.digits}")
        if self.digits != DIGITS and KINDS[self.kind] != "number":
            raise ValueError(f"digits is for passkey and number, got {self.digits} for {self.kind}: leave it out")
        if self.length > LONGEST:
            raise ValueError(f"length must be <= {LONGEST:,}, got {self.length}")
        if self.length < self._longest:
            raise ValueError(f"length must be >= {self._longest} to hold the needle of {self.kind}, got {self.length}")
        if self.kind != "passkey":
            essays(self.data)

    @classmethod
    def from_name(cls, name: str, data: str | Path | None = None) -> "Needle":
        """The task of `needle:KIND:LENGTH`, or `needle:KIND:LENGTH:dDIGITS` for numbers of so many digits.

        >>> Needle.from_name("needle:passkey:1024:d4").digits
        4
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"task name must look like needle:passkey:1024 or needle:passkey:1024:d4, got {name!r}")
        kind, length, digits = match.groups()
        return cls(kind, int(length), int(digits or DIGITS), data)

    @property
    def name(self) -> str:
        """The task's name, which `from_name` reads back (`data` is no part of it)."""
        return f"needle:{self.kind}:{self.length}" + (f":d{self.digits}" if self.digits != DIGITS else "")

    def sample(
        self, batch: int, split: str = "train", seed: int = 0, index: int = 0, queries: int | None = None
    ) -> Episode:
        """Batch number `index` of a split: the same (split, seed, index) gives the same batch everywhere.

        Slices: `depth`, the tenth of the haystack (0 to 9) that the needle stands in. Raises ValueError for an unknown
        split, and for more than the one question there is.
        """
        check(split, queries)
        not_negative(batch=batch)
        if not batch:
            return self.sample(1, split, seed, index, queries)[:0]  # texts of which there are none have no width
        stream = random_stream(split, seed, index)
        what, keys, values = KINDS[self.kind], draw_keys(batch, stream), self._values(batch, stream)
        said = [{"what": what, "key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        haystack = self._haystacks[split]
        needle = rows(NEEDLE.format(**each) + haystack.gap for each in said)
        size = (needle != self.pad).sum(1)
        before = below((self.length - size + 1)[:, None], stream)[:, 0]
        context = hide(needle, before, haystack, self.length, stream)
        query, target = rows(QUESTION.format(**each) for each in said), rows(f"{value}." for value in values)
        answer = torch.arange(target.shape[1]) < (target != self.pad).sum(1, keepdim=True) - 1
        depth = before * 10 // (self.length - size + 1)
        return Episode(context, query[:, None], target[:, None], answer[:, None], {"depth": depth[:, None]}, self.pad)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, one per byte."""
        return Bytes().encode(text).tolist()

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids, without padding; ValueError for an id that is no token."""
        return Bytes().decode(ids)

    @property
    def _longest(self) -> int:
        key, value = max(map(len, FIRSTS)) + 1 + max(map(len, SECONDS)), _LONGEST.get(self.kind, self.digits)
        return len(NEEDLE.format(what=KINDS[self.kind], key="k" * key, value="v" * value)) + 1

    def _values(self, batch: int, stream: Generator) -> list[str]:
        if self.kind == "uuid":
            parts = torch.randint(2**32, (batch, 4), generator=stream).tolist()
            return [str(UUID(int=a << 96 | b << 64 | c << 32 | d, version=4)) for a, b, c, d in parts]
        if self.kind == "word":
            return hyphenated(batch, *self._words, stream)
        return numbers(batch, self.digits, self._taken, stream)

    @cached_property
    def _essays(self) -> list[str]:
        return [" ".join(read_text(path).split()) + " " for path in essays(self.data)]

    @cached_property
    def _words(self) -> tuple[list[str], list[str]]:
        return vocabulary("".join(self._essays))

    @cached_property
    def _taken(self) -> Int[Tensor, "m"]:
        return standing("" if self.kind == "passkey" else "".join(self._essays), self.digits)

    @cached_property
    def _haystacks(self) -> dict[str, Haystack]:
        if self.kind == "passkey":
            return dict.fromkeys(SPLITS, Haystack(Bytes().encode(NOISE + "\n"), torch.zeros(1, dtype=torch.long), "\n"))
        parts = ("train", "validation", "test", *["train"] * 7)
        texts = {split: "" for split in SPLITS}
        for number, essay in enumerate(self._essays):
            texts[parts[number % 10]] += essay
        return {split: haystack(text) for split, text in texts.items()}


def essays(data: str | Path | None) -> list[Path]:
    """The essays' files; ValueError where there are too few for three splits."""
    folder = locate(ESSAYS, data)
    files = sorted(folder.glob("*.txt"))
    if len(files) < len(SPLITS):
        raise ValueError(f"{folder} must hold at least 3 essays (*.txt), one for each split, got {len(files)}")
    return files


def haystack(text: str) -> Haystack:
    """A text to hide needles in, before its sentences."""
    raw = text.encode()
    ends = [0, *(match.end() for match in re.finditer(rb"[.!?][)\"']* ", raw))]
    joints = torch.tensor(ends).remainder(len(raw)).unique()  # the ring's end is its beginning
    return Haystack(Bytes().encode(text), joints, " ")


def hide(
    needle: Int[Tensor, "b m"], before: Int[Tensor, "b"], haystack: Haystack, length: int, stream: Generator
) -> Int[Tensor, "b {length}"]:
    """Contexts: each needle (padded) behind `before` bytes of the haystack, cut so that a sentence begins after it."""
    size = (needle != Bytes().pad).sum(1, keepdim=True)
    joint = haystack.joints[torch.randint(len(haystack.joints), (len(needle), 1), generator=stream)]
    place = torch.arange(length) - before[:, None]
    straw = haystack.ids[(joint + place.where(place < 0, place - size)) % len(haystack.ids)].long()
    inside = (place >= 0) & (place < size)
    return straw.where(~inside, needle.gather(1, place.clamp(0, needle.shape[1] - 1)))


def rows(texts: Iterable[str]) -> Int[Tensor, "b n"]:
    """Ids of texts, right-padded."""
    return pad_sequence([Bytes().encode(text) for text in texts], batch_first=True, padding_value=Bytes().pad).long()


def draw_keys(batch: int, stream: Generator) -> list[str]:
    """Keys such as `amber-river`."""
    chosen = torch.randint(len(FIRSTS) * len(SECONDS), (batch,), generator=stream).tolist()
    return [f"{FIRSTS[i // len(SECONDS)]}-{SECONDS[i % len(SECONDS)]}" for i in chosen]


def standing(text: str, digits: int) -> Int[Tensor, "m"]:
    """All numbers of so many digits that stand in a text, longer ones' parts too, in order.

    >>> standing("In 2010, 120 of 31", digits=2)
    tensor([10, 12, 20, 31])
    """
    runs = re.findall(r"[0-9]+", text)
    found = {run[i : i + digits] for run in runs for i in range(len(run) - digits + 1)}
    return torch.tensor(sorted(int(each) for each in found if each[0] != "0"), dtype=torch.long)


def numbers(batch: int, digits: int, taken: Int[Tensor, "m"], stream: Generator) -> list[str]:
    """Numbers of so many digits, uniform over those not taken (in order); ValueError where all are.

    >>> numbers(3, 1, torch.tensor([1, 2, 3, 5, 6, 7, 9]), torch.Generator().manual_seed(0))
    ['4', '8', '8']
    """
    first = 10 ** (digits - 1)
    free = 9 * first - len(taken)
    if free < 1:
        raise ValueError(f"digits must be more than {digits}: every number of {digits} digits stands in the haystack")
    rank = torch.randint(free, (batch,), generator=stream)
    # So many free numbers lie below each that is taken; the number of a rank jumps over those taken before it.
    jumped = torch.searchsorted(taken - first - torch.arange(len(taken)), rank, right=True)
    return [str(number) for number in (first + rank + jumped).tolist()]


def vocabulary(text: str) -> tuple[list[str], list[str]]:
    """The words of 4 to 7 letters of a text: those that never end before a hyphen there, and all.

    So no word of the first list, joined by a hyphen to one of the second, stands in the text.

    >>> vocabulary("a well-known word, well known, in lower case")
    (['case', 'known', 'lower', 'word'], ['case', 'known', 'lower', 'well', 'word'])
    """
    words = sorted(set(_WORD.findall(text)))
    before = (*re.findall(r"(\w+)-", text), *FIRSTS)  # keys have hyphens too
    ends = {run[-size:] for run in before for size in range(4, 8)}
    return [word for word in words if word not in ends], words


def hyphenated(batch: int, firsts: list[str], seconds: list[str], stream: Generator) -> list[str]:
    """Values such as `market-spoken`; ValueError for an empty list."""
    if not firsts:
        raise ValueError("the essays must have words of 4 to 7 letters for kind word, and have none: give longer ones")
    chosen = torch.randint(len(firsts) * len(seconds), (batch,), generator=stream).tolist()
    return [f"{firsts[i // len(seconds)]}-{seconds[i % len(seconds)]}" for i in chosen]
