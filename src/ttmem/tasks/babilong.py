"""BABILong: the facts of a bAbI story, in their order, between the sentences of books, and a question about them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Generator, Tensor

from ..checks import at_least, not_negative, one_of
from .babi import (
    END,
    FIELDS,
    PAD,
    SEPARATOR,
    VOCAB,
    Question,
    Stories,
    asked,
    decode,
    encode,
    find,
    fitting,
    ids_of,
    objects,
    part,
    read_babi,
)
from .base import SPLITS, Episode, random_stream
from .corpus import check, locate, read_documents
from .layout import below

KINDS = ("qa1", "qa2", "qa3", "qa4", "qa5")
BOOKS = "gutenberg"
SHORTEST = 10  # tokens of a sentence of the books, as in the reference

_NAME = re.compile(r"babilong:(qa\d+):(\d+)(k?)(?::s(\d+))?")
_GAP = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’)\]])\s+|\n\s*\n")
_LONGEST = 2**24  # tokens: an evaluation draws 500 contexts at a time
_AT_ONCE = 2**21  # tokens: what is needed besides the contexts themselves stays small at any length


class Background(NamedTuple):
    """Sentences in a ring: their tokens, and where each begins, round after round."""

    ids: Int[Tensor, "n"]
    joints: Int[Tensor, "j"]
    sentences: int


@dataclass(frozen=True)
class BabiLong:
    """Answer a question about facts that are strewn over `length` tokens of books.

        context  <word-5> <word-68> of the <word-9>. mary moved to the bathroom. the <word-1> was <word-77>,
                 and john. john went to the hallway. mary went to the office. <word-31> the       written, then gone
        query    where is mary?
        target   office <end>
        counts   ^^^^^^                                            exact match: every word of the answer right

    BABILong's recipe: whole sentences of the books, of 10 tokens at least, from a random one on; the last one is cut so
    that facts and background are `length` tokens. Each fact has a uniform place among the gaps between sentences (the
    two ends too), sorted so that facts keep their order. Stories that do not fit in `length` are left out. A token is a
    word (`encode`).

    | kind | asked for | supporting facts | questions: train, validation, test |
    |---|---|---|---|
    | qa1 | the place of a person | 1 | 8940, 1000, 1000 |
    | qa2 | the place of a thing | 2 | 9000, 1000, 1000 |
    | qa3 | where a thing was before | 3 | 900, 100, 1000 |
    | qa4 | what lies beside a place | 1 | 6563, 848, 1000 |
    | qa5 | who gave what to whom | 1 | 8998, 1000, 1000 |

    Train and validation are different stories of bAbI's training file, test is its test file (`babi.part`); of three
    books in the order of their names the first is train, the second validation, the third test.

    Args:
        kind: qa1 to qa5.
        length: tokens of the context, separators not counted; 0: only the facts, right-padded.
        segment: tokens behind each of which a separator is put in; None: no separators.
        data: the data folder, with babi/tasks_1-20_v1-2 and gutenberg/*.txt; None: TTMEM_DATA.

    Raises ValueError for a field out of range, and for data that are missing when they are first needed.
    Source: BABILong, arXiv 2406.10149; bAbI, arXiv 1502.05698.

    >>> task = BabiLong.from_name("babilong:qa1:1k")
    >>> task.length, task.decode(task.encode("Where is Mary?"))
    (1024, 'where is mary?')
    """

    kind: str
    length: int
    segment: int | None = None
    data: str | Path | None = None

    vocab: ClassVar[int] = VOCAB
    pad: ClassVar[int] = PAD
    persons: ClassVar[int] = 4  # of qa1

    def __post_init__(self):
        one_of(self, {"kind": tuple(KINDS)})
        at_least(self, {"length": 0, "segment": 1})
        if self.length > _LONGEST:
            raise ValueError(f"length must be <= {_LONGEST:,} tokens, got {self.length:,}")

    @classmethod
    def from_name(cls, name: str, data: str | Path | None = None) -> "BabiLong":
        """The task of `babilong:KIND:LENGTH`, with `:sTOKENS` for a separator behind so many; 4k is 4096.

        >>> BabiLong.from_name("babilong:qa2:256:s64").name
        'babilong:qa2:256:s64'
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"task name must look like babilong:qa1:0k, babilong:qa1:256 or ...:s128, got {name!r}")
        kind, length, thousands, segment = match.groups()
        return cls(kind, int(length) * (1024 if thousands else 1), int(segment) if segment else None, data)

    @property
    def separator(self) -> int | None:
        """The id that ends a segment; None where nothing does."""
        return SEPARATOR if self.segment else None

    @property
    def pairs(self) -> int:
        """Questions that can be asked of a context: bAbI's own, and in qa1 for as many persons as there are."""
        return self.persons if self.kind == "qa1" else 1

    @property
    def name(self) -> str:
        """The task's name, which `from_name` reads back (`data` is no part of it)."""
        length = str(self.length) if self.length % 1024 else f"{self.length // 1024}k"
        return f"babilong:{self.kind}:{length}" + (f":s{self.segment}" if self.segment else "")

    def sample(
        self, batch: int, split: str = "train", seed: int = 0, index: int = 0, queries: int | None = None
    ) -> Episode:
        """Batch number `index` of a split: the same (split, seed, index) gives the same batch everywhere.

        The first question is bAbI's own. Of a story of qa1 `queries` may be up to `pairs`: the others ask for the place
        of persons that the facts name, drawn by their facts, the same one perhaps twice.

        Slices: `fact`, the tenth of the context (0 to 9) in which the last supporting fact begins; `facts`, their
        number. Raises ValueError for an unknown split, one without data, and for more questions than there are.
        """
        check(split)
        count = 1 if queries is None else queries
        if not 1 <= count <= self.pairs:
            raise ValueError(f"queries must be between 1 and the {self.pairs} of {self.kind}, got {queries}")
        not_negative(batch=batch)
        stream = random_stream(split, seed, index)
        stories = self._stories(split)
        stories = stories.take(torch.randint(len(stories.size), (batch,), generator=stream))
        if self.length:
            context, before = hide(stories, self._background(split), self.length, stream)
            size = torch.full_like(stories.size, self.length)
        else:
            context, before, size = bare(stories), torch.zeros_like(stories.begin), stories.size
        context = separated(context, self.segment) if self.segment else context
        question, answer, support = asked(stories, count, stream)
        start = (before + stories.begin).gather(1, support)
        slices = {"fact": start * 10 // size[:, None], "facts": stories.facts[:, None].expand(-1, count)}
        return episode(context, question, answer, slices)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, one for each word and sign."""
        return encode(text)

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids, without padding; ValueError for an id that is no token."""
        return decode(ids)

    @cached_property
    def _made(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _questions(self) -> dict[str, list[Question]]:
        train, test = (read_babi(find(self.kind, each, self.data)) for each in ("train", "test"))
        return part(train, test, by_facts=self.pairs > 1)

    def _stories(self, split: str) -> Stories:
        if f"{split} stories" not in self._made:
            self._made[f"{split} stories"] = fitting(self._questions[split], self.length, f"{split} of {self.name}")
        return self._made[f"{split} stories"]

    def _background(self, split: str) -> Background:
        if split not in self._made:
            self._made[split] = background(books(split, self.data), self.length)
        return self._made[split]


def books(split: str, data: str | Path | None) -> list[Path]:
    """The books of a split: of three in the order of their names one each. ValueError where there are fewer."""
    folder = locate(BOOKS, data)
    files = sorted(folder.glob("*.txt"))
    if len(files) < len(SPLITS):
        raise ValueError(f"{folder} must hold at least 3 books (*.txt), one for each split, got {len(files)}")
    return files[SPLITS.index(split) :: len(SPLITS)]


def background(files: list[Path], length: int) -> Background:
    """The sentences of books, ready for contexts of so many tokens; ValueError where no sentence is long enough."""
    texts = chain(*map(read_documents, files))
    kept = [ids for text in texts for said in _GAP.split(text) if len(ids := encode(said)) >= SHORTEST]
    if not kept:
        raise ValueError(f"{files[0]} must hold sentences of {SHORTEST} words or more, and has none: give longer books")
    tokens = torch.tensor(list(chain(*kept)), dtype=torch.int16)
    begin = torch.tensor([0, *map(len, kept[:-1])]).cumsum(0)
    rounds = torch.arange(length // len(tokens) + 3) * len(tokens)  # a joint lies behind the end of any context
    return Background(tokens, (rounds[:, None] + begin).flatten(), len(kept))


def hide(
    stories: Stories, book: Background, length: int, stream: Generator
) -> tuple[Int[Tensor, "b {length}"], Int[Tensor, "b f"]]:
    """Contexts, and how many tokens of the book stand before each fact."""
    first = torch.randint(book.sentences, (len(stories.size), 1), generator=stream)
    room = length - stories.size[:, None]
    base = book.joints[first]
    sentences = torch.searchsorted(book.joints, base + room) - first
    gap = below((sentences + 1).expand_as(stories.begin), stream)
    real = torch.arange(gap.shape[1]) < stories.facts[:, None]
    gap = gap.where(real, sentences).sort(1).values
    before = (book.joints[first + gap] - base).minimum(room)
    step = max(1, _AT_ONCE // length)
    parts = [slice(i, i + step) for i in range(0, max(len(first), 1), step)]
    return torch.cat([mix(stories.take(each), before[each], base[each], book.ids, length) for each in parts]), before


def mix(
    stories: Stories, before: Int[Tensor, "b f"], base: Int[Tensor, "b 1"], ids: Int[Tensor, "n"], length: int
) -> Int[Tensor, "b {length}"]:
    """Each fact behind its number of background tokens, which begin at `base`."""
    token = torch.arange(stories.tokens.shape[1]).expand_as(stories.tokens).contiguous()
    fact = torch.searchsorted(stories.begin, token, right=True) - 1
    at = (token + before.gather(1, fact)).where(token < stories.size[:, None], length)  # padding: one beyond the end
    taken = torch.zeros(len(at), length + 1, dtype=torch.bool).scatter_(1, at, True)
    straw = (base + torch.arange(length + 1) - taken.cumsum(1)) % len(ids)
    return ids[straw].scatter_(1, at, stories.tokens)[:, :length].long()


def bare(stories: Stories) -> Int[Tensor, "b t"]:
    """Contexts of nothing but the facts."""
    longest = int(stories.size.max()) if len(stories.size) else 0
    return stories.tokens[:, :longest].long()


def separated(context: Int[Tensor, "b t"], every: int) -> Int[Tensor, "b _"]:
    """Contexts with a separator behind every so many tokens; there is none in padding.

    >>> separated(torch.tensor([[7, 8, 9, 10, 11], [7, 8, 9, 0, 0]]), 2)
    tensor([[ 7,  8,  1,  9, 10,  1, 11],
            [ 7,  8,  1,  9,  0,  0,  0]])
    """
    place = torch.arange(context.shape[1])
    wide = context.new_full((len(context), len(place) + len(place) // every), PAD)
    wide[:, place + place // every] = context
    wide[:, every :: every + 1] = SEPARATOR * (context[:, every - 1 :: every] != PAD)
    return wide


def episode(
    context: Int[Tensor, "b t"], question: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"], slices: dict[str, Tensor]
) -> Episode:
    """Questions for each context; of an answer all counts but what ends it."""
    return Episode(context, question, target, (target != PAD) & (target != END), slices, PAD)


def read_babilong(path: str | Path, segment: int | None = None) -> Iterator[Episode]:
    """The samples of a file in BABILong's own format, an episode of one context each, with the ids of `BabiLong`.

    JSON Lines, or a JSON list, of objects with the texts `input`, `question` and `target`; other fields are ignored.
    With `segment` a separator stands behind every so many tokens. Raises ValueError, when it gets there, for the first
    line that is none, with its number and field.
    """
    for where, row in objects(Path(path)):
        context, question, target = (ids_of(row, field, where) for field in FIELDS)
        context = separated(context, segment) if segment else context
        yield episode(context, question[:, None], F.pad(target, (0, 1), value=END)[:, None], {})
