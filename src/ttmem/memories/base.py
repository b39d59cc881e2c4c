"""What every memory has: initial values, the tokens a backbone reads, and what is kept after a write."""

from typing import Any, NamedTuple

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checks import not_negative
from ..core.state import Tree


class Source(NamedTuple):
    """The context as a memory sees it: embeddings `(b, t, d)`, which of them are tokens, not padding, `(b, t)`, and how
    much each counts in the write (None: all the same). `ahead` is for the backbone, which may keep there what it made
    of the embeddings, and need not make again at each step of a write."""

    embeddings: Float[Tensor, "b t d"]
    mask: Bool[Tensor, "b t"]
    weight: Float[Tensor, "b t"] | None = None
    ahead: Any = None


def wide(x: Tensor) -> Tensor:
    """At least float32: steps are smaller than what short floats can add."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Memory(nn.Module):
    """Fast weights and how a backbone reads them.

    The module holds only the *initial* values, which the outer loop learns; the fast weights themselves travel as a
    tree. What is carried from write to write, and kept in the end, are the tokens alone, under the name `mem`.

    Args:
        slots: number of memory tokens M.
        dim: their width d.
    """

    kind = ""

    def __init__(self, slots: int, dim: int):
        super().__init__()
        if slots < 1 or dim < 1:
            raise ValueError(f"slots and dim must be >= 1, got {slots} and {dim}")
        self.slots, self.dim = slots, dim
        self.init = nn.ParameterDict({"mem": torch.randn(slots, dim) * 0.02})

    @property
    def names(self) -> list[str]:
        """The fast weights a write changes."""
        return list(self.init)

    def start(self, batch: int) -> Tree:
        """The memory before any write, `{"mem": (batch, slots, dim)}`: copies, never a view of the weights."""
        not_negative(batch=batch)
        return {"mem": repeat(wide(self.init["mem"]), "m d -> b m d", b=batch).clone()}

    def open(self, kept: Tree) -> Tree:
        """What a write changes: the kept tokens, and copies of the initial values of the rest, in one type."""
        batch = len(kept["mem"])
        rest = {n: wide(w).expand(batch, *w.shape) for n, w in self.init.items() if n != "mem"}
        return {"mem": kept["mem"].to(wide(self.init["mem"]).dtype)} | rest

    def tokens(self, fast: Tree, source: Source) -> Float[Tensor, "b m d"]:
        """The memory tokens the backbone reads while `source` is being written."""
        raise NotImplementedError
