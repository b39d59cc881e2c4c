"""One token per character: the 70 ids of the associative-retrieval sets.

[PAD] 0, [BOS] 1, [EOS] 2, [UNK] 3, a-z 4..29, A-Z 30..55, 0-9 56..65, `!` 66, `?` 67, `:` 68, `|` 69.
"""

import string
from collections.abc import Iterable

from jaxtyping import Int
from torch import Tensor

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
ALPHABET = string.ascii_letters + string.digits
STRUCTURE = "!?:|"
TOKENS = (*SPECIAL, *ALPHABET, *STRUCTURE)
VOCAB = len(TOKENS)
PAD = 0
FIRST = len(SPECIAL)  # the id of "a"; the alphabet's ids follow without a gap
BANG, ASK, COLON, BAR = range(VOCAB - len(STRUCTURE), VOCAB)

_IDS = {character: i for i, character in enumerate(TOKENS) if i >= FIRST}


def encode(text: str) -> list[int]:
    """Ids of a text, one per character; ValueError names the first character outside the alphabet and its place.

    >>> encode("aZ9!|")
    [4, 55, 65, 66, 69]
    """
    check(text, ALPHABET + STRUCTURE, "text")
    return [_IDS[character] for character in text]


def decode(ids: Iterable[int] | Int[Tensor, "n"]) -> str:
    """Text of ids (numbers or a tensor), without padding; ValueError for an id that is no token.

    >>> decode([4, 55, 65, 66, 69, 0, 0])
    'aZ9!|'
    """
    numbers = [int(i) for i in ids]
    for i in numbers:
        if not 0 <= i < VOCAB:
            raise ValueError(f"id must be between 0 and {VOCAB - 1}, got {i}")
    return "".join(TOKENS[i] for i in numbers if i != PAD)


def check(text: str, allowed: str, what: str) -> None:
    """Raise ValueError for the first character of `text` that is not allowed, with its place (from 1)."""
    for place, character in enumerate(text, 1):
        if character not in allowed:
            where = f"{what} {text!r}" if len(text) <= 40 else what
            raise ValueError(f"{where}: character {place}, {character!r}, is outside the alphabet {describe(allowed)}")


def describe(allowed: str) -> str:
    """The alphabet in a few characters, for messages.

    >>> describe(ALPHABET + STRUCTURE), describe(ALPHABET[:3])
    ('a-z A-Z 0-9 ! ? : |', 'a b c')
    """
    runs = {string.ascii_lowercase: "a-z ", string.ascii_uppercase: "A-Z ", string.digits: "0-9 "}
    parts, rest = "", allowed
    for run, short in runs.items():
        if run in rest:
            parts, rest = parts + short, rest.replace(run, "")
    return (parts + " ".join(rest)).strip()
