"""Long contexts in parts: where a segment ends, and how the segments of many rows stand side by side."""

import torch
from jaxtyping import Int
from torch import Tensor


def cut(
    ids: Int[Tensor, "b t"], pad: int, separator: int | None = None, size: int | None = None
) -> Int[Tensor, "b s l"]:
    """Right-padded rows as segments, each right-padded: cut behind every `separator`, or every `size` tokens.

    A separator closes its segment and belongs to it; tokens behind the last one are a segment as well. Rows with fewer
    segments than others have empty ones, all padding, at the end. There is always at least one.

    >>> cut(torch.tensor([[5, 1, 6, 7, 1], [8, 1, 0, 0, 0]]), pad=0, separator=1)
    tensor([[[5, 1, 0],
             [6, 7, 1]],
    <BLANKLINE>
            [[8, 1, 0],
             [0, 0, 0]]])

    Raises ValueError unless exactly one of `separator` and `size` is given.
    """
    check_cut(separator, size)
    real, place = ids != pad, torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if size is not None:
        segment, within = place // size, place % size
    else:
        ends = ids.eq(separator)  # type: ignore[arg-type]
        segment = ends.cumsum(1) - ends.long()  # a separator still belongs to what it closes
        begins = segment.diff(dim=1, prepend=segment[:, :1] - 1) > 0
        within = place - torch.where(begins, place, 0).cummax(1).values
    count = [max(int(((x + 1) * real).amax()), 1) if x.numel() else 1 for x in (segment, within)]
    rows = ids.new_full((len(ids), *count), pad)
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    return rows.index_put((row[real], segment[real], within[real]), ids[real])


def check_cut(separator: int | None, size: int | None) -> None:
    """Raise ValueError unless one of the two says where a segment ends."""
    if (separator is None) == (size is None):
        raise ValueError(f"give either separator or segment_size, the other None, got {separator} and {size}")
    if size is not None and size < 1:
        raise ValueError(f"segment_size must be >= 1, got {size}")
