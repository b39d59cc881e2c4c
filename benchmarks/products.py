"""The matrix products of a step, as they were executed, and the time this machine needs for them alone.

A step's products are recorded where torch dispatches them: forward, backward, and the forward that is computed again.
Each is then run by itself, with the same shapes, on operands that lie in order and into memory that is there already.
What a step takes beyond that is not multiplication. What the chunk-wise form executes, in multiply-adds for one row,
one chunk of t tokens and one layer from e to o channels:

    surprise     k through the layer                    t e o
                 the error back through it              t e o        (not in the first layer)
    reads        z W, z S                             2 t e o
    scores       z a^T, and times delta                 t t (e + o)
    writes       a^T delta into W, into S             2 t e o
    coefficients D N, D f                               t t (t + 1)

Backward is twice that, less what nothing asks for: the last chunk's writes, and the gradient of S before the first.
Where chunks are computed again, forward counts twice.
"""

from collections import Counter
from collections.abc import Callable

import torch
from one_row import clock
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, int, int, int]
"""Batch n, and (m, k) @ (k, p)."""
OPERANDS = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "baddbmm_": 1}
"""Operators that multiply matrices, and where their two factors begin among the arguments."""


class Recorder(TorchDispatchMode):
    """Counts the matrix products that are executed under it, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Shape] = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        start = OPERANDS.get(operator._overloadpacket.__name__)
        if start is not None:
            (*batch, m, k), p = args[start].shape, args[start + 1].shape[-1]
            self.seen[*(batch or [1]), m, k, p] += 1
        return operator(*args, **(kwargs or {}))


def products_of(step: Callable[[], Tensor]) -> Counter[Shape]:
    """The matrix products of a call.

    >>> dict(products_of(lambda: torch.ones(5, 3) @ torch.ones(3, 7)))
    {(1, 5, 3, 7): 1}
    """
    with Recorder() as recorder:
        step()
    return recorder.seen


def multiply_adds(products: Counter[Shape]) -> int:
    """All of them together; a floating-point operation is half of one."""
    return sum(n * m * k * p * count for (n, m, k, p), count in products.items())


def seconds_of(products: Counter[Shape], device: str, steady: int) -> float:
    """The least time that the products take by themselves; `steady` picks wall (0) or CPU seconds (1)."""
    return sum(count * least(shape, device, steady) for shape, count in products.items())


def least(shape: Shape, device: str, steady: int, rounds: int = 8) -> float:
    """Seconds of one product: the best round of a few calls of about a millisecond together."""
    n, m, k, p = shape
    a, b = torch.randn(n, m, k, device=device), torch.randn(n, k, p, device=device)
    out = torch.bmm(a, b)
    calls = max(1, min(64, 50_000_000 // (n * m * k * p)))

    def several() -> Tensor:
        for _ in range(calls):
            torch.bmm(a, b, out=out)
        return out

    several()
    return min(clock(several, device)[steady] for _ in range(rounds)) / calls
