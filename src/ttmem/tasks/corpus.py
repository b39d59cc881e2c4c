"""Texts as tokens: read files and split them into documents, make ids of them, pack a split's documents in a row."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from .base import SPLITS

HELD_OUT = 5  # per cent of a document for validation, and as much for the test

_START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG.*?\*\*\*", re.M | re.S)
_END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG", re.M)
_ARTICLE = re.compile(r"^ ?\n(?= = (?!= )[^\n]*(?<! =) = ?\n ?\n)", re.M)  # the blank line before ` = Title = `


class Coder:
    """Ids 0 to `tokens` - 1 for text, then `bos`, the separator before each document, then `pad`."""

    tokens: int

    @property
    def bos(self) -> int:
        """The separator, which no text contains."""
        return self.tokens

    @property
    def pad(self) -> int:
        """What fills up rows."""
        return self.tokens + 1

    @property
    def vocab(self) -> int:
        """Number of ids."""
        return self.tokens + 2

    def encode(self, text: str) -> Int[Tensor, "n"]:
        """Ids of a text."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int] | Int[Tensor, "n"]) -> str:
        """Text of ids, without separators and padding; ValueError for an id that is no token."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
        for i in numbers:
            if not 0 <= i < self.vocab:
                raise ValueError(f"id must be between 0 and {self.vocab - 1}, got {i}")
        return self._text([i for i in numbers if i < self.tokens])

    def _text(self, ids: list[int]) -> str:
        raise NotImplementedError


class Bytes(Coder):
    """The 256 bytes of UTF-8, 256 the separator, 257 padding; bytes that are no UTF-8 decode to U+FFFD.

    >>> Bytes().encode("né").tolist(), Bytes().decode([256, 110, 195, 169, 257])
    ([110, 195, 169], 'né')
    """

    tokens = 256

    def encode(self, text: str) -> Int[Tensor, "n"]:
        """Ids of a text, one per byte."""
        raw = bytearray(text.encode())
        return torch.frombuffer(raw, dtype=torch.uint8).to(torch.int16) if raw else torch.empty(0, dtype=torch.int16)

    def _text(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


class Tokens(Coder):
    """The ids of a JSON file of the library `tokenizers`; separator and padding are two ids behind its own.

    Raises ImportError where the library is not installed, ValueError for a file that it cannot read.
    """

    def __init__(self, path: Path):
        try:
            from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise ImportError("a tokenizer file needs tokenizers: pip install tokenizers") from error
        text = read_text(path)
        try:
            self._tokenizer: Any = Tokenizer.from_str(text)
        except Exception as error:  # what the library raises has no type of its own
            raise ValueError(f"tokenizer must be a JSON file of the library tokenizers, got {path}: {error}") from error
        self.tokens = 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, text: str) -> Int[Tensor, "n"]:
        """Ids of a text, without the tokenizer's own special tokens around it."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)


def locate(name: str, data: str | Path | None) -> Path:
    """The path of a name: absolute, or in the data folder, which is `data` or else TTMEM_DATA.

    Raises ValueError where the folder is needed and neither is given.
    """
    folder = data or os.environ.get("TTMEM_DATA")
    if not folder and not Path(name).is_absolute():
        raise ValueError(f"{name} is looked for in the data folder: give data=FOLDER, or set TTMEM_DATA to it")
    return Path(folder or "", name)


def there(path: Path) -> Path:
    """The path, if a file is there; else FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}: check its name and the data folder (data=FOLDER, or TTMEM_DATA)")
    return path


def read_text(path: Path) -> str:
    """A UTF-8 file with LF line ends and no byte order mark; ValueError for another encoding."""
    try:
        return there(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, and byte {error.start} is not: convert the file") from error


def read_documents(path: Path) -> list[str]:
    """A Project Gutenberg book without header and licence, the articles of a WikiText file, or the whole file."""
    text = read_text(path)
    start = _START.search(text)
    if start is None:
        return [part for part in _ARTICLE.split(text) if part.strip()]
    end = _END.search(text, start.end())
    return [text[start.end() : end.start() if end else None].strip() + "\n"]


def pack(texts: Iterable[tuple[str, str | None]], coder: Coder, limit: int | None = None) -> dict[str, Tensor]:
    """Per split its part of every text, a separator before each; a text that comes with a split is of that one alone.

    Reads no text beyond the one with token number `limit`.
    """
    parts: dict[str, list[Tensor]] = {split: [coder.encode("")] for split in SPLITS}
    left = limit
    for text, only in texts:
        ids = coder.encode(text)[:left]
        for split, part in cut(ids, only).items():
            parts[split] += [part.new_tensor([coder.bos]), part] if len(part) else []
        left = None if left is None else left - len(ids)
        if left == 0:
            break
    return {split: torch.cat(part) for split, part in parts.items()}


def cut(ids: Int[Tensor, "n"], only: str | None = None) -> dict[str, Tensor]:
    """The part of a document that belongs to each split.

    >>> {split: len(part) for split, part in cut(torch.arange(119)).items()}
    {'train': 109, 'validation': 5, 'test': 5}
    """
    held = len(ids) * HELD_OUT // 100
    sizes = (len(ids) - 2 * held, held, held)
    return dict(zip(SPLITS, ids.split(sizes), strict=True)) if only is None else {only: ids}


class Packed(NamedTuple):
    """The tokens of a split, and the stretches of them, from `first` to before `stop`, that no window may leave."""

    ids: Int[Tensor, "n"]
    first: Int[Tensor, "d"]
    stop: Int[Tensor, "d"]


def stretch(ids: Int[Tensor, "n"], bos: int, reset: bool) -> Packed:
    """All tokens as one stretch, or with `reset` each document behind its separator; none of less than two tokens.

    >>> stretch(torch.tensor([256, 7, 8, 256, 9, 256, 1, 2, 3]), bos=256, reset=True)[1:]
    (tensor([1, 6]), tensor([3, 9]))
    """
    begin = (ids == bos).nonzero()[:, 0] + 1 if reset else torch.zeros(1, dtype=torch.long)
    stop = torch.cat([begin[1:] - 1, torch.tensor([len(ids)])])[: len(begin)]
    kept = stop - begin >= 2
    return Packed(ids, begin[kept], stop[kept])


def check(split: str, queries: int | None = None) -> None:
    """Raise ValueError for an unknown split, and where more is asked than the one question that a context has."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if queries not in (None, 1):
        raise ValueError(f"queries must be 1, all that this task can ask of a context, got {queries}")
