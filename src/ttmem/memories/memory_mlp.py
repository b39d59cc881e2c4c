"""The deck's MemoryMLP: memory tokens plus what a small network, trained at test time, makes of the context.

emb(C), T rows ──average to M rows──> MLP (fast weights) ──> + mem = the tokens the backbone reads
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.state import Tree
from ..nn.conv import CausalConv
from ..nn.layers import RMSNorm
from .base import Memory, Source


def pooling(mask: Bool[Tensor, "b t"], slots: int, dtype: torch.dtype) -> Float[Tensor, "b m t"]:
    """The matrix of adaptive average pooling of each row's n real tokens to `slots` positions.

    Slot j is the mean of tokens floor(j n / M) .. ceil((j+1) n / M) - 1, as in `adaptive_avg_pool1d`; padding on the
    right takes no part.

    >>> pooling(torch.tensor([[True, True, True, False]]), 2, torch.float32)[0].tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    """
    n = mask.sum(1)[:, None]
    slot, place = torch.arange(slots, device=mask.device), torch.arange(mask.shape[1], device=mask.device)
    first = (slot * n) // slots
    last = ((slot + 1) * n + slots - 1) // slots
    inside = (place >= first[..., None]) & (place < last[..., None])
    return inside.to(dtype) / inside.sum(-1, keepdim=True).clamp(min=1)


class MemoryMLP(Memory):
    """`mem + MLP(pool(emb(C)))`, `MLP(x) = W_2 gelu(W_1 x)`; `mem`, `w_1` and `w_2` are fast weights.

    Args:
        slots, dim: M memory tokens of width d.
        hidden: width of the MLP; None takes 2 dim.
        conv: kernel of a short causal convolution over the normed embeddings (slow weights); 0 leaves it out.

    Source: the deck "Meta-learned memory"; how T embeddings become M slots is our decision (masked average pooling).
    """

    kind = "mlp"

    def __init__(self, slots: int, dim: int, hidden: int | None = None, conv: int = 4):
        super().__init__(slots, dim)
        hidden = hidden or 2 * dim
        self.norm, self.conv = RMSNorm(dim), CausalConv(dim, conv) if conv else None
        self.init["w_1"] = torch.randn(dim, hidden) * dim**-0.5
        self.init["w_2"] = torch.randn(hidden, dim) * 0.01 * hidden**-0.5

    def tokens(self, fast: Tree, source: Source) -> Float[Tensor, "b m d"]:
        seen = self.norm(source.embeddings)
        seen = (self.conv(seen) if self.conv else seen).to(fast["mem"].dtype)
        pooled = pooling(source.mask, self.slots, seen.dtype) @ seen
        return fast["mem"] + F.gelu(pooled @ fast["w_1"]) @ fast["w_2"]
