"""A user's own pairs: text in, pairs out."""

import re
from typing import NamedTuple

_LINE = re.compile(r"([^\s:,]+)(?:\s*[:,]\s*|\s+)([^\s:,]+)")


class Found(NamedTuple):
    """The pairs of a context in their order, the segment of each, and how many filler characters lie around them."""

    pairs: list[tuple[str, str]]
    segments: list[int]
    noise: int


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Pairs from lines `key value`, `key:value` or `key,value`; empty lines are skipped.

    Raises ValueError with the line's number where a line holds anything else, and when there is no pair at all.

    >>> parse_pairs('''ab12 x9Qz
    ... cd34: y8Rw''')
    [('ab12', 'x9Qz'), ('cd34', 'y8Rw')]
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"line {number}: write 'key value', 'key:value' or 'key,value', got {line.strip()!r}")
        pairs.append((match[1], match[2]))
    if not pairs:
        raise ValueError("no pairs: write one 'key value' per line")
    return pairs


def read_context(text: str, key: int, value: int) -> Found:
    """Find the pairs `!K:V!` of keys and values of given lengths in a context whose segments each end with `|`.

    Raises ValueError when the context does not end with `|`, holds no pair, or has a `!`, `?` or `:` outside a pair.

    >>> read_context("q!ab:12!|x!cd:34!yz|", key=2, value=2)
    Found(pairs=[('ab', '12'), ('cd', '34')], segments=[0, 1], noise=4)
    """
    if not text.endswith("|"):
        raise ValueError(f"context must end with '|', got {text[-20:]!r}: put one after each segment")
    pair = re.compile(rf"!([^!?:|]{{{key}}}):([^!?:|]{{{value}}})!")
    found = list(pair.finditer(text))
    stray = re.search(r"[!?:]", pair.sub(lambda match: " " * len(match[0]), text))
    if stray is not None:
        near = text[max(stray.start() - 8, 0) : stray.end() + 8]
        raise ValueError(
            f"character {stray.end()} of the context, {stray[0]!r} in {near!r}, is in no pair of the form "
            f"!{'K' * key}:{'V' * value}!"
        )
    if not found:
        raise ValueError(f"the context holds no pair of the form !{'K' * key}:{'V' * value}!")
    segments = [text.count("|", 0, match.start()) for match in found]
    noise = len(text) - text.count("|") - sum(len(match[0]) for match in found)
    return Found([(match[1], match[2]) for match in found], segments, noise)
