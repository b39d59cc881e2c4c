"""Long contexts in parts: where a segment ends, and how the segments of many rows stand side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..checks import at_least, whole
from ..core.state import Log, State
from .base import MemoryModel


@dataclass(frozen=True)
class SegmentConfig:
    """Where segments end, and how far the outer loop goes back.

    Args:
        separator: the id that closes a segment (default: `|` of associative retrieval); None where `segment_size` cuts.
        segment_size: tokens of a segment; None where `separator` cuts.
        truncate: of each context the outer loop goes back through the last so many segments only; what the memory was
            before them is taken as given (None: through all).
    """

    separator: int | None = 69
    segment_size: int | None = None
    truncate: int | None = None

    def __post_init__(self):
        check_cut(self.separator, self.segment_size)
        check_truncate(self)


def cut(
    ids: Int[Tensor, "b t"], pad: int, separator: int | None = None, size: int | None = None
) -> Int[Tensor, "b s l"]:
    """Rows as segments, each right-padded: cut behind every `separator`, or every `size` tokens; padding is left out.

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
    ids = aligned(ids, ids != pad, pad)  # a row that is padded on the left would begin with an empty segment
    segment, within = places(ids, separator, size)
    real = ids != pad
    count = [max(int(((x + 1) * real).amax()), 1) if x.numel() else 1 for x in (segment, within)]
    rows = ids.new_full((len(ids), *count), pad)
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    return rows.index_put((row[real], segment[real], within[real]), ids[real])


def places(
    ids: Int[Tensor, "b t"], separator: int | None, size: int | None
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Of each token the number of its segment, and its place in there."""
    check_cut(separator, size)
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if size is not None:
        return place // size, place % size
    ends = ids.eq(separator)  # type: ignore[arg-type]
    segment = ends.cumsum(1) - ends.long()  # a separator still belongs to what it closes
    begins = segment.diff(dim=1, prepend=segment[:, :1] - 1) > 0
    return segment, place - torch.where(begins, place, 0).cummax(1).values


def parted(
    ids: Int[Tensor, "b t"], pad: int, last: int, separator: int | None = None, size: int | None = None
) -> tuple[Int[Tensor, "b e"], Int[Tensor, "b l"]]:
    """Each row in two: what stands before its last `last` segments, and those; both right-padded.

    >>> parted(torch.tensor([[5, 1, 6, 7, 1], [8, 1, 0, 0, 0]]), pad=0, last=1, separator=1)
    (tensor([[5, 1],
            [0, 0]]), tensor([[6, 7, 1],
            [8, 1, 0]]))
    """
    ids = pushed(ids, pad)
    segment, _ = places(ids, separator, size)
    real = ids != pad
    count = torch.where(real, segment + 1, 0).amax(1, keepdim=True) if ids.shape[1] else segment
    early = real & (segment < count - last)
    return aligned(ids, early, pad), aligned(ids, real & ~early, pad)


def pushed(ids: Int[Tensor, "b t"], pad: int) -> Int[Tensor, "b t"]:
    """The tokens of each row at its front, in order, all padding behind.

    >>> pushed(torch.tensor([[0, 5, 0, 6], [7, 8, 0, 0]]), pad=0)
    tensor([[5, 6, 0, 0],
            [7, 8, 0, 0]])
    """
    return ids.gather(1, ids.eq(pad).to(torch.int8).argsort(dim=1, stable=True))


def aligned(ids: Int[Tensor, "b t"], kept: Bool[Tensor, "b t"], pad: int) -> Int[Tensor, "b n"]:
    """The kept tokens of each row at its front, padding behind, no wider than the longest."""
    width = int(kept.sum(1).amax()) if kept.numel() else 0
    return pushed(torch.where(kept, ids, pad), pad)[:, :width]


def outer_write(model: MemoryModel, context: Int[Tensor, "b t"], config: SegmentConfig, pad: int) -> tuple[State, Log]:
    """The write that the outer loop differentiates through: of a whole context, or with `truncate` of its end."""
    if config.truncate is None:
        return model.write(model.start(len(context)), context)
    early, late = parted(context, pad, config.truncate, config.separator, config.segment_size)
    return model.write(begun(model.start, model.write, early, pad), late)


def begun(start: Callable[[int], State], write: Callable[..., tuple], context: Int[Tensor, "b t"], pad: int) -> State:
    """The memory that `write` leaves of a context, taken as given by the outer loop (truncated back-propagation).

    Rows of which nothing stands there keep the initial memory, which the outer loop does see.
    """
    begin = start(len(context))
    if not context.shape[1]:
        return begin
    with torch.no_grad():
        state, *_ = write(start(len(context)), context)
    told = (context != pad).any(1)

    def joined(own: Tensor, left: Tensor) -> Tensor:
        return torch.where(told.view(-1, *[1] * (own.ndim - 1)), left, own)

    return state._replace(fast={name: joined(leaf, state.fast[name]) for name, leaf in begin.fast.items()})


def spread_out(segments: Int[Tensor, "b s l"], pad: int, most: int) -> Int[Tensor, "b m l"]:
    """At most so many segments of each row, evenly spread over those it has, the first and the last among them.

    >>> spread_out(torch.tensor([[[5], [6], [7], [8], [9]], [[5], [6], [0], [0], [0]]]), pad=0, most=3)[..., 0]
    tensor([[5, 7, 9],
            [5, 6, 0]])
    """
    if segments.shape[1] <= most:
        return segments
    count = (segments != pad).any(2).sum(1, keepdim=True)
    place = torch.arange(most, device=segments.device).expand(len(segments), -1)
    even = place * (count - 1) // (most - 1) if most > 1 else count - 1
    chosen = torch.where(count > most, even, place)[..., None]
    return segments.gather(1, chosen.expand(-1, -1, segments.shape[2]))


def check_truncate(config: Any) -> None:
    """Raise ValueError unless `truncate` is a whole number of segments, or None; for Titans it is a yes or no."""
    if isinstance(config.truncate, bool):
        raise ValueError(f"truncate must be a number of segments or None, got {config.truncate}")
    whole(config, ("truncate",))
    at_least(config, {"truncate": 1})


def check_separator(config: Any) -> None:
    """Raise ValueError where `separator` is no id of the vocabulary, or padding."""
    whole(config, ("separator",))
    at_least(config, {"separator": 0})
    if config.separator is not None and config.separator >= config.vocab:
        mend = "give the task's, or None and a segment_size"
        raise ValueError(f"separator must be < vocab = {config.vocab}, got {config.separator}: {mend}")
    pad = getattr(config, "pad", 0)
    if config.separator == pad:
        raise ValueError(f"separator must be another id than pad = {pad}, got {config.separator}")


def check_cut(separator: int | None, size: int | None) -> None:
    """Raise ValueError unless one of the two says where a segment ends."""
    if (separator is None) == (size is None):
        raise ValueError(f"give either separator or segment_size, the other None, got {separator} and {size}")
    if size is not None and not (hasattr(size, "__index__") and size >= 1):
        raise ValueError(f"segment_size must be a whole number >= 1, got {size}")
