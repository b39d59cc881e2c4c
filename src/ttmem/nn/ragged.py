"""Rows of unequal length: padding anywhere, and sequences packed end to end, as left-aligned rows."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Alignment(NamedTuple):
    """How padded rows are aligned: `order` puts each row's real tokens first, `lengths` says how many there are."""

    order: Int[Tensor, "b t"]
    lengths: Int[Tensor, "b"]

    def align(self, x: Tensor) -> Tensor:
        """`x` `(b, t, ...)` with every row's tokens at its left, and zeros behind them."""
        there, order = (part.reshape(part.shape + (1,) * (x.ndim - 2)) for part in (self.real, self.order))
        return x.gather(1, order.expand_as(x)).masked_fill(~there, 0)  # whatever stands in padding, NaN as well

    def restore(self, x: Tensor) -> Tensor:
        """The tokens of aligned `x` back in their places; zeros where there is padding."""
        there, order = (part.reshape(part.shape + (1,) * (x.ndim - 2)) for part in (self.real, self.order))
        return torch.zeros_like(x).scatter(1, order.expand_as(x), x.masked_fill(~there, 0))

    @property
    def real(self) -> Bool[Tensor, "b t"]:
        """Which places of aligned rows are tokens."""
        return torch.arange(self.order.shape[1], device=self.order.device) < self.lengths[:, None]


def alignment(mask: Bool[Tensor, "b t"]) -> Alignment:
    """How to align rows whose real tokens `mask` marks; the tokens keep their order.

    >>> rows = torch.tensor([[0, 5, 6], [7, 0, 8]])
    >>> alignment(rows > 0).align(rows).tolist()
    [[5, 6, 0], [7, 8, 0]]
    """
    return Alignment((~mask).to(torch.int8).argsort(dim=1, stable=True), mask.sum(1))


def check_mask(mask: Bool[Tensor, "..."], x: Tensor) -> None:
    """Raise ValueError unless the mask says yes or no to each token of `x` `(b, t, ...)`."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, true where there is a token, got {mask.dtype}: give mask.bool()")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask must be {tuple(x.shape[:2])}, as x has tokens, got {tuple(mask.shape)}")


def unpack(x: Float[Tensor, "t *d"], offsets: Int[Tensor, "_"]) -> tuple[Tensor, Int[Tensor, "b"]]:
    """Sequences packed end to end as zero-padded rows, and their lengths; sequence i is `x[offsets[i]:offsets[i + 1]]`.

    Raises ValueError where the offsets do not go from 0 to the end of `x` without a step back, or are no integers.

    >>> rows, lengths = unpack(torch.arange(1.0, 6.0), torch.tensor([0, 2, 5]))
    >>> rows.tolist(), lengths.tolist()
    ([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]], [2, 3])
    """
    if not isinstance(offsets, Tensor) or offsets.ndim != 1 or offsets.is_floating_point():
        raise ValueError(
            f"offsets must be a tensor of ints, one behind the other, got {offsets!r}: torch.tensor([0, 2])"
        )
    lengths = offsets.diff()
    if not len(lengths) or int(offsets[0]) or int(offsets[-1]) != len(x) or bool((lengths < 0).any()):
        raise ValueError(f"offsets must rise from 0 to the {len(x)} packed tokens, got {offsets.tolist()}")
    rows = torch.nn.utils.rnn.pad_sequence(list(x.split(lengths.tolist())), batch_first=True)
    return rows, lengths.to(x.device)


def pack(rows: Float[Tensor, "b t *d"], lengths: Int[Tensor, "b"]) -> Tensor:
    """The first tokens of each row end to end: what `unpack` undoes."""
    return rows[torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]]


def latest(past: Float[Tensor, "b p *d"], x: Float[Tensor, "b t *d"], lengths: Int[Tensor, "b"] | None) -> Tensor:
    """The last `p` real tokens of each row of `past` followed by `x`."""
    p, seen = past.shape[1], torch.cat([past, x], dim=1)
    if lengths is None:
        return seen[:, seen.shape[1] - p :].clone()  # a view would hold on to the whole call
    index = (lengths[:, None] + torch.arange(p, device=x.device)).reshape(len(x), p, *(1,) * (x.ndim - 2))
    return seen.gather(1, index.expand_as(past))
