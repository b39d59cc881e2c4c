"""PRMT4, the deck's Parallel RMT4: a small network in every layer, written by gradient steps on the layer's own states.

    x ──► norm ──┬─► + gate out(norm(M(q))) ──► attention, SwiGLU ──► y
                 │         ▲ read before the layer                    │
                 │         M of this layer, from segment to segment   │
                 └─ k, v ──► K gradient steps on sum_t theta_t ||M(k_t) - target_t||^2 ◄── y (target: hidden, residual)

A layer's write needs its own input and output only. Of the deck's PRMT4 no code is public; what it leaves open is
decided here: M is a linear map or an MLP per head, as in Titans (arXiv 2501.00663), written segment by segment; keys
see the tokens before theirs through a short convolution, so that a key may lead to what followed it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checks import not_negative
from ..core.schedule import Stack
from ..core.state import State, Tree
from ..memories.associative import Pass
from ..nn.stacked import rms_norm
from .layered import Layered, block, flipped, small_deviation
from .layered_config import LayeredConfig


class PRMT4(Layered):
    """A decoder whose layers train a memory on each segment; the outer loop differentiates through those steps.

    >>> model = PRMT4(LayeredConfig("prmt4", dim=16, heads=2, target="hidden"))
    >>> state, log = model.write(model.start(2), torch.tensor([[5, 6, 69, 7, 69], [8, 69, 0, 0, 0]]))
    >>> state.fast["w1"].shape, log.loss.shape      # two rows of three layers of two heads; two segments
    (torch.Size([2, 3, 2, 8, 8]), torch.Size([2, 2]))
    """

    takes_steps = True

    def __init__(self, config: LayeredConfig):
        super().__init__(config, config.network.weights(config.layers, small_deviation(config)))
        self.memory = config.network
        self.init = nn.ParameterDict(self.memory.init(config.layers))

    def start(self, batch: int) -> State:
        """The learned initial memory of each layer, and no momentum."""
        not_negative(batch=batch)
        return State(flipped(self.memory.start(dict(self.init), batch)))

    def stack(self, steps: int | None = None) -> Stack:
        """The layers, writing with so many steps (None: as configured)."""
        not_negative(steps=self.memory.steps if steps is None else steps)

        def cell(weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
            seen, y = self.run(weights, x, state)
            real = torch.arange(x.shape[2], device=x.device) < lengths[..., None]
            return y, self.memory.write(weights, state, Pass(seen, x, y), real, steps)

        return Stack(cell, self.weights)

    def recall(self, weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
        """Read and run the layer."""
        return self.run(weights, x, state)[1], state

    def run(
        self, weights: Tree, x: Float[Tensor, "g b t d"], state: Tree
    ) -> tuple[Float[Tensor, "g b t d"], Float[Tensor, "g b t d"]]:
        """What the memory sees of the input, and the layer's output."""
        seen = rms_norm(x, weights["norm_read"])
        return seen, block(weights, x + self.memory.read(weights, state, seen), self.config.heads)
