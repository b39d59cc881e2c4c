"""ARMT: an associative matrix in every layer (Associative Recurrent Memory Transformer, arXiv 2407.04841, section 3).

    [x_1 .. x_T | m_1 .. m_M] ──► + A phi(q) / (z . phi(q)) ──► attention, SwiGLU ──► [y_1 .. y_T | m'_1 .. m'_M]
            segment   memory tokens         ▲ read before the layer                         written behind it │
                                            └──── A, z of this layer ◄──────── delta rule ◄───────────────────┘

The memory tokens begin each segment as the same learned ones: nothing but A and z goes from segment to segment, and
that inside its layer. Decided here: norms before the memory's projections; beta is one number per token.
"""

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..checks import not_negative
from ..core.schedule import Grid, Stack
from ..core.state import State, Tree
from .base import once
from .layered import Layered, block, flipped, small_deviation
from .layered_config import LayeredConfig


class ARMT(Layered):
    """A decoder whose layers write an associative matrix at the end of each segment, in one forward pass.

    >>> model = ARMT(LayeredConfig("armt", dim=16, heads=2, slots=4))
    >>> state, log = model.write(model.start(2), torch.tensor([[5, 6, 69, 7, 69], [8, 69, 0, 0, 0]]))
    >>> state.fast["a"].shape, log.loss.shape       # two rows of three layers; two segments
    (torch.Size([2, 3, 48, 16]), torch.Size([2, 2]))
    """

    def __init__(self, config: LayeredConfig):
        super().__init__(config, config.matrix.weights(config.layers, small_deviation(config)))
        self.memory = config.matrix
        self.init = nn.Parameter(torch.randn(config.slots, config.dim) * 0.02)

    def start(self, batch: int) -> State:
        """A and z are zero."""
        not_negative(batch=batch)
        return State(flipped(self.memory.start(self.config.layers, batch, self.init)))

    def grid(self, x: Float[Tensor, "s b t d"], lengths: Int[Tensor, "s b"]) -> Grid:
        """Put the memory tokens right behind each row's tokens, so that they see all of these and no padding."""
        tokens = repeat(self.init, "m d -> s b m d", s=x.shape[0], b=x.shape[1])
        x = torch.cat([x, torch.zeros_like(tokens)], dim=2).scatter(2, self.places(lengths), tokens)
        return Grid(x, lengths)

    def places(self, lengths: Int[Tensor, "g b"]) -> Int[Tensor, "g b m d"]:
        """Where the memory tokens are."""
        place = lengths[..., None] + torch.arange(len(self.init), device=lengths.device)
        return repeat(place, "g b m -> g b m d", d=self.config.dim)

    def stack(self, steps: int | None = None) -> Stack:
        """The layers; they write in one go, so `steps` can only be 1."""
        once(steps)
        return Stack(self.cell, self.weights)

    def cell(self, weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
        """Read, run the layer, write; rows without a token write nothing."""
        y, _ = self.recall(weights, x, state, lengths)
        tokens = y.gather(2, self.places(lengths))
        return y, self.memory.write(weights, state, tokens, lengths > 0)

    def recall(self, weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
        """Read and run the layer."""
        x = x + self.memory.read(weights, state, x)
        return block(weights, x, self.config.heads), state
