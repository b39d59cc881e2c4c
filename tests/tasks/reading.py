"""A second reading of the associative-retrieval sets, and what chance allows: shared by the tests of this folder."""

from collections import Counter

import torch
from hypothesis import strategies as st
from torch import Tensor

from ttmem.tasks import AssociativeRetrieval, Episode
from ttmem.tasks.characters import ALPHABET

N2 = "N2-K4V4-S2_16-32"
PUBLISHED = ["N1-K4V4-S1_16-32", N2, "N8-K2V2-V62", "N4-K1V1-V62", "N3-K2V1-S3_0-10", "N4-K1V2-V10-S2_0-40"]


def named(name: str) -> AssociativeRetrieval:
    return AssociativeRetrieval.from_name(name)


def grammar(context: str, key: int, value: int) -> list[list[tuple[str, str]]]:
    """A second reading of the grammar, character by character: the pairs of each segment."""
    segments: list[list[tuple[str, str]]] = [[]]
    i, length = 0, key + value + 3
    while i < len(context):
        if context[i] == "!":
            pair = context[i : i + length]
            assert pair[key + 1] == ":" and pair[-1] == "!" and len(pair) == length
            segments[-1].append((pair[1 : key + 1], pair[key + 2 : -1]))
            i += length
            continue
        assert context[i] in ALPHABET + "|"
        segments += [[]] if context[i] == "|" else []
        i += 1
    assert segments.pop() == [] and context[-1] == "|"
    return segments


def equal(a: Episode, b: Episode) -> bool:
    mine, other = ([e.context, e.query, e.target, e.answer, *e.slices.values()] for e in (a, b))
    return list(a.slices) == list(b.slices) and all(torch.equal(x, y) for x, y in zip(mine, other, strict=True))


def assert_uniform(draws: Tensor | list, cells: int) -> None:
    """Pearson's chi-square, 5 standard deviations above its mean at most."""
    counts = Counter(draws.flatten().tolist() if isinstance(draws, Tensor) else draws)
    expected = sum(counts.values()) / cells
    assert expected > 20 and len(counts) <= cells
    statistic = sum((n - expected) ** 2 / expected for n in counts.values()) + (cells - len(counts)) * expected
    assert statistic < (cells - 1) + 5 * (2 * (cells - 1)) ** 0.5, f"{statistic:.1f} for {cells} cells"


@st.composite
def tasks(draw) -> AssociativeRetrieval:
    key, value, alphabet = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 62))
    pairs = draw(st.integers(1, min(9, alphabet**key)))
    least = draw(st.integers(0, 20))
    most = draw(st.integers(least, 40))
    return AssociativeRetrieval(pairs, key, value, draw(st.integers(1, 4)), least, most, alphabet)
