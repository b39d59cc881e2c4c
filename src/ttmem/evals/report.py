"""What an evaluation says, and how sure it is."""

import json
import math
from dataclasses import asdict, dataclass

from jaxtyping import Bool
from torch import Tensor

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: 95 % lie within plus and minus Z."""


def wilson(right: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a rate when `right` of `samples` are right; within [0, 1], and never without width.

    >>> tuple(round(x, 4) for x in wilson(999, 1000))
    (0.9944, 0.9998)

    Raises ValueError where not 0 <= right <= samples with samples >= 1.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if samples < 1 or not 0 <= right <= samples:
        raise ValueError(f"right must be between 0 and samples >= 1, got {right} of {samples}")
    rate, scale = right / samples, 1 + Z**2 / samples
    middle = (rate + Z**2 / (2 * samples)) / scale
    half = Z / scale * math.sqrt(rate * (1 - rate) / samples + Z**2 / (4 * samples**2))
    low, high = (0.0 if right == 0 else middle - half), (1.0 if right == samples else middle + half)
    return max(low, 0.0), min(high, 1.0)


def clustered(exact: Bool[Tensor, "n q"]) -> tuple[float, float]:
    """The 95 % interval of a rate over n contexts with q questions each, some of which may fail together.

    Wilson's, for as many independent questions as would leave the rate as uncertain as the contexts' own rates do: n
    where a context knows all or nothing, n q where its questions have nothing to do with each other (Kish 1965, the
    design effect). Where all contexts are alike, n.

    >>> import torch
    >>> clustered(torch.ones(50, 8, dtype=torch.bool)) == wilson(50, 50)
    True
    """
    rates, (contexts, questions) = exact.double().mean(1), exact.shape
    rate, spread = rates.mean().item(), rates.var(correction=0).item()
    worth = min(max(rate * (1 - rate) / spread, 1.0), questions) if spread > 0 else 1.0
    samples = max(round(contexts * worth), 1)
    return wilson(round(rate * samples), samples)


@dataclass(frozen=True)
class Report:
    """The result of `evaluate`: rates are between 0 and 1.

    Args:
        task, split, samples, seed: what was asked: so many contexts.
        steps: write steps; None: as many as the model was trained with.
        exact_match: answers right in every value character.
        exact_match_reset: the same questions with a memory that was never written (the control: must be at chance).
        token_accuracy: value characters right, each given the right ones before it.
        interval: 95 % of `exact_match` (Wilson; with several questions a context as in `clustered`).
        memory_bytes: what is kept of one context, 4 bytes per number.
        write_seconds, answer_seconds: per context and per question, measured in batches.
        write_loss: nats per token before each write step, segment after segment, mean over the contexts that have the
            segment; empty where nothing is descended.
        slices: exact match and samples by slice and label, `{"position": {"0": {"exact_match": ..., "samples": ...}}}`.
        queries: questions of each context.
    """

    task: str
    split: str
    samples: int
    seed: int
    steps: int | None
    exact_match: float
    exact_match_reset: float
    token_accuracy: float
    interval: tuple[float, float]
    memory_bytes: int
    write_seconds: float
    answer_seconds: float
    write_loss: tuple[float, ...]
    slices: dict[str, dict[str, dict[str, float]]]
    queries: int = 1

    def to_json(self) -> str:
        """All fields, as one JSON object."""
        return json.dumps(asdict(self), indent=2)


def by_slice(exact: Tensor, slices: dict[str, Tensor], bins: int = 5) -> dict[str, dict[str, dict[str, float]]]:
    """Exact match by the values of each slice; `noise`, which has many, in up to `bins` ranges of equal width."""
    found = {}
    for name, values in slices.items():
        width = -(-(int(values.max()) + 1) // bins) if name == "noise" else 1
        found[name] = {_label(int(b), width): _rate(exact[values // width == b]) for b in (values // width).unique()}
    return found


def _label(bin: int, width: int) -> str:
    return str(bin) if width == 1 else f"{bin * width}-{(bin + 1) * width - 1}"


def _rate(exact: Tensor) -> dict[str, float]:
    return {"exact_match": exact.double().mean().item(), "samples": exact.numel()}
