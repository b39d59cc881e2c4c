"""The deck's NeuralMemory: memory tokens that look at the context through a cross-attention trained at test time.

    mem ──W_q──> q ┐
    emb(C) ─W_k─> k ├─ CrossAttn ──(W_o)──> + mem = the tokens the backbone reads
    emb(C) ─W_v─> v ┘

Not the neural long-term memory of Titans, which is a layer inside the model.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..core.state import Tree
from ..nn.attention import attend
from ..nn.conv import CausalConv
from ..nn.layers import RMSNorm
from .base import Memory, Source


class NeuralMemory(Memory):
    """`mem + CrossAttn(q = W_q mem, k = W_k emb(C), v = W_v emb(C))`; `mem` and every W are fast weights.

    Args:
        slots, dim: M memory tokens of width d.
        heads: attention heads (divide dim).
        output: a fourth fast weight W_o after the heads.
        conv: kernel of a short causal convolution over the normed embeddings (slow weights): without order in
            emb(C) the cross-attention sees a bag of characters; 0 leaves it out.

    Raises ValueError when heads do not divide dim. Source: the deck "Meta-learned memory", section 2 of its table.
    """

    kind = "neural"

    def __init__(self, slots: int, dim: int, heads: int = 4, output: bool = False, conv: int = 4):
        super().__init__(slots, dim)
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got {heads} and {dim}")
        self.heads, self.norm = heads, RMSNorm(dim)
        self.conv = CausalConv(dim, conv) if conv else None
        scale = {"w_q": 1.0, "w_k": 1.0, "w_v": 0.01} | ({"w_o": 1.0} if output else {})
        self.init.update({name: torch.randn(dim, dim) * s * dim**-0.5 for name, s in scale.items()})

    def tokens(self, fast: Tree, source: Source) -> Float[Tensor, "b m d"]:
        seen = self.norm(source.embeddings)
        seen = (self.conv(seen) if self.conv else seen).to(fast["mem"].dtype)
        q, k, v = fast["mem"] @ fast["w_q"], seen @ fast["w_k"], seen @ fast["w_v"]
        q, k, v = (rearrange(x, "b t (h e) -> b h t e", h=self.heads) for x in (q, k, v))
        recalled = rearrange(attend(q, k, v, source.mask[:, None, None, :]), "b h m e -> b m (h e)")
        return fast["mem"] + (recalled @ fast["w_o"] if "w_o" in fast else recalled)
