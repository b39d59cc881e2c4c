"""Language modelling: windows of text files, told one byte, or one token of a tokenizer, at a time."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from ..checks import at_least, not_negative, one_of
from .base import SPLITS, Episode, random_stream
from .corpus import Bytes, Coder, Packed, Tokens, check, locate, pack, read_documents, stretch, there
from .layout import below

DOCUMENTS = ("carried", "reset")
_NAME = re.compile(r"text:(\d+):([^:]+?)(?::(carried|reset))?(?::history=(\d+))?(?::tokenizer=(.+))?")


@dataclass(frozen=True)
class Text:
    """Predict every next token of a window of text, with nothing written before, or with its `history` written.

        file      <s>To be, or not to be: that is the question.     <s>: the separator before a document
        context   <s>To                                             what stands before the window: none without history
        query        b                                              the window's first token
        target        e, or not to                                  the `length` tokens after it, all of which count

    Of each document the last 5 % are test, the 5 % before validation, the rest train (`name.txt@test`: all of the file
    is test), and a split's parts are packed one behind the other. A document is a Project Gutenberg book without header
    and licence, an article of a WikiText file (` = Title = `), or else a whole file; line ends become LF.

    Args:
        length: tokens to predict.
        sources: UTF-8 text files, absolute or in the data folder, each as `FILE` or `FILE@SPLIT`.
        documents: "carried", a window is any `length` + 1 packed tokens, separators among them; or "reset", it lies in
            one document, drawn in proportion to its tokens, and where that is shorter the target ends in padding.
        history: the context is up to so many times `length` tokens before the window (in its document if "reset"), how
            many times is drawn for each batch from 0 to `history`.
        tokenizer: a JSON file of the library `tokenizers`; None: bytes.
        data: the data folder; None: the one in TTMEM_DATA.
        packed: the tokens of each split in place of files (`from_dataset`).

    Raises ValueError for a field out of range and where the data folder is needed and unknown, FileNotFoundError for a
    file that is not there. Files are read when first needed.
    """

    length: int
    sources: tuple[str, ...]
    documents: str = "carried"
    tokenizer: str | None = None
    data: str | Path | None = None
    history: int = 0
    packed: dict[str, Tensor] | None = field(default=None, repr=False, compare=False)

    pairs: ClassVar[int] = 1  # questions that a context has: the window
    separator: ClassVar[None] = None  # no id ends a segment
    measure: ClassVar[str] = "nats"  # what is validated: a whole window is never right

    def __post_init__(self):
        at_least(self, {"length": 1, "history": 0})
        one_of(self, {"documents": DOCUMENTS})
        for source in self.sources if self.packed is None else ():
            file, only = parted(source)
            if only not in (None, *SPLITS):
                raise ValueError(f"source must be FILE or FILE@SPLIT, SPLIT one of {', '.join(SPLITS)}, got {source!r}")
            there(locate(file, self.data))
        if self.tokenizer is not None:
            there(locate(self.tokenizer, self.data))

    @classmethod
    def from_name(
        cls, name: str, data: str | Path | None = None, tokenizer: str | None = None, documents: str | None = None
    ) -> "Text":
        """The task of `text:LENGTH:SOURCE[+SOURCE...][:reset][:history=N][:tokenizer=FILE]`.

        What is given as an argument goes before the same in the name.

        `text:256:gutenberg/10136.txt+lm/wikitext-2/test.txt@test:reset` predicts 256 bytes at a time, tests on all of
        the second file, and crosses no document.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"task name must look like text:256:lm/a.txt+lm/b.txt@test or ...:reset, got {name!r}")
        length, sources, said, history, file = match.groups()
        documents, tokenizer = documents or said or "carried", tokenizer or file
        return cls(int(length), tuple(sources.split("+")), documents, tokenizer, data, int(history or 0))

    @classmethod
    def from_dataset(
        cls,
        texts: Iterable[str | Mapping[str, Any]],
        length: int,
        limit: int,
        tokenizer: str | None = None,
        documents: str = "carried",
        split: str | None = None,
    ) -> "Text":
        """The first `limit` tokens (separators not counted) of any texts, each a document, such as a streamed dataset.

        A row is a text, or has one as its "text", as `datasets.load_dataset(..., streaming=True)` gives them; of other
        columns make texts first: `(row["content"] for row in rows)`. No more rows are fetched than it takes.

        With `split` all of them are of that split. `from_name` cannot read its name back. `dataclasses.replace(task,
        history=7)` gives it a history.

        >>> task = Text.from_dataset(["To be, or not to be"] * 9, length=8, limit=100)
        >>> episode = task.sample(batch=4)
        >>> episode.context.shape, episode.query.shape, episode.target.shape
        (torch.Size([4, 0]), torch.Size([4, 1, 1]), torch.Size([4, 1, 8]))
        """
        if limit < 1 or split not in (None, *SPLITS):
            raise ValueError(f"limit must be >= 1, split one of {', '.join(SPLITS)} or None, got {limit} and {split!r}")
        coder = cls(length, (), documents, tokenizer).coder
        packed = pack(((text_of(row), split) for row in texts), coder, limit)
        return cls(length, ("dataset",), documents, tokenizer, packed=packed)

    @property
    def name(self) -> str:
        """The task's name, which `from_name` reads back (`data` is no part of it)."""
        reset = ":reset" if self.documents == "reset" else ""
        history = f":history={self.history}" if self.history else ""
        tokenizer = f":tokenizer={self.tokenizer}" if self.tokenizer else ""
        return f"text:{self.length}:{'+'.join(self.sources)}{reset}{history}{tokenizer}"

    @cached_property
    def coder(self) -> Coder:
        """What makes ids of text."""
        return Bytes() if self.tokenizer is None else Tokens(locate(self.tokenizer, self.data))

    @property
    def vocab(self) -> int:
        """Number of ids: 258 for bytes."""
        return self.coder.vocab

    @property
    def pad(self) -> int:
        """The id that fills up rows: 257 for bytes."""
        return self.coder.pad

    def sample(
        self, batch: int, split: str = "train", seed: int = 0, index: int = 0, queries: int | None = None
    ) -> Episode:
        """Batch number `index` of a split: windows drawn uniformly, the same for the same (split, seed, index).

        Raises ValueError for an unknown split or one with too little text, and for more than the one question there is.
        """
        check(split, queries)
        not_negative(batch=batch)
        stream = random_stream(split, seed, index)
        packed = self._stretches(split, self.length)
        room = packed.stop - packed.first
        token = torch.randint(int(room.sum()), (batch,), generator=stream)
        which = torch.searchsorted(room.cumsum(0), token, right=True)
        choices = (room - self.length).clamp(min=1)[which]
        start = packed.first[which] + below(choices[:, None], stream)[:, 0]
        window = self._read(packed, start, packed.stop[which], self.length + 1)[:, None]
        target = window[..., 1:]
        before = self.length * int(torch.randint(self.history + 1, (), generator=stream)) if self.history else 0
        context = self._read(packed, torch.maximum(start - before, packed.first[which]), start, before)
        return Episode(context, window[..., :1], target, target != self.pad, {}, self.pad)

    def windows(
        self, split: str, length: int, count: int | None = None, stride: int | None = None
    ) -> Int[Tensor, "n {length}+1"]:
        """The windows of a split from its beginning on, `stride` apart: with None each token is predicted once.

        `count` of them, spread evenly. The tail of the split that fills no window is left out ("carried"), the tail of
        a document is padded ("reset"). Raises ValueError for a number out of range or too little text.
        """
        check(split)
        if length < 1 or (stride is not None and stride < 1):
            raise ValueError(f"length and stride must be >= 1, got {length} and {stride}")
        packed, step = self._stretches(split, length), stride or length
        room = packed.stop - packed.first
        many = (room - self._least(length)) // step + 1
        which = torch.arange(len(many)).repeat_interleave(many)
        start = packed.first[which] + step * (torch.arange(len(which)) - (many.cumsum(0) - many)[which])
        if count is not None and not 1 <= count <= len(which):
            raise ValueError(f"count must be between 1 and the {len(which)} windows of {split}, got {count}")
        kept = torch.arange(count or len(which)) * len(which) // (count or len(which))
        return self._read(packed, start[kept], packed.stop[which[kept]], length + 1)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without a separator before it."""
        return self.coder.encode(text).tolist()

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids, without separators and padding; ValueError for an id that is no token."""
        return self.coder.decode(ids)

    @cached_property
    def _splits(self) -> dict[str, Packed]:
        reset, bos = self.documents == "reset", self.coder.bos
        packed = self.packed or pack(self._texts(), self.coder)
        return {split: stretch(ids, bos, reset) for split, ids in packed.items()}

    def _texts(self) -> Iterator[tuple[str, str | None]]:
        for file, only in map(parted, self.sources):
            for document in read_documents(locate(file, self.data)):
                yield document, only

    def _stretches(self, split: str, length: int) -> Packed:
        packed, least = self._splits[split], self._least(length)
        if not len(packed.first) or packed.stop[-1] - packed.first[-1] < least:
            found = f"got {len(packed.ids)} in split {split} of {self.name}"
            raise ValueError(f"a window needs {least} tokens of text, {found}: give more text or take a shorter length")
        return packed

    def _least(self, length: int) -> int:
        return 2 if self.documents == "reset" else length + 1

    def _read(
        self, packed: Packed, start: Int[Tensor, "b"], stop: Int[Tensor, "b"], tokens: int
    ) -> Int[Tensor, "b {tokens}"]:
        place = start[:, None] + torch.arange(tokens)
        ids = packed.ids[place.clamp(max=len(packed.ids) - 1)].long()
        return ids.masked_fill(place >= stop[:, None], self.pad)


def text_of(row: str | Mapping[str, Any]) -> str:
    """The text of a dataset's row; ValueError for one without."""
    found = row.get("text") if isinstance(row, Mapping) else row
    if not isinstance(found, str):
        had = f"one with {', '.join(row)}" if isinstance(row, Mapping) else type(row).__name__
        raise ValueError(f'a row must be a text or have one as its "text", got {had}')
    return found


def parted(source: str) -> tuple[str, str | None]:
    """The file of a source, and the one split that it serves.

    >>> parted("lm/a.txt"), parted("lm/b.txt@test")
    (('lm/a.txt', None), ('lm/b.txt', 'test'))
    """
    file, _, only = source.partition("@")
    return file, only or None
