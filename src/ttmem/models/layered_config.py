"""What shapes a model with a memory in every layer: ARMT and PRMT4."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from ..checks import at_least, below, one_of, own
from ..core.schedule import FOLDS
from ..memories.associative import BOUNDS, TARGETS, AssociativeMatrix, LayerNetwork
from .segments import check_cut, check_separator, check_truncate

LAYERED = ("armt", "prmt4")
_ARMT, _PRMT4 = LAYERED
_OWN = dict.fromkeys(("slots", "key", "features"), (_ARMT,)) | dict.fromkeys(
    ("memory_heads", "memory_depth", "memory_expansion", "steps", "target", "momentum", "bound", "damped"), (_PRMT4,)
)
_CHOICES = {"architecture": LAYERED, "schedule": tuple(FOLDS), "target": TARGETS, "bound": BOUNDS}
_LEAST = {
    "vocab": 1,
    "dim": 1,
    "layers": 1,
    "heads": 1,
    "hidden": 1,
    "conv": 0,
    "slots": 1,
    "features": 1,
    "key": 1,
    "memory_heads": 1,
    "memory_depth": 1,
    "memory_expansion": 1,
    "steps": 1,
    "context_loss": 0,
    "pad": 0,
}


@dataclass(frozen=True)
class LayeredConfig:
    """A decoder that reads its context segment by segment and carries a memory in each layer.

    Args:
        architecture: armt (an associative matrix, written by memory tokens) or prmt4 (a network, written by gradient
            steps on the layer's own states).
        vocab, dim, layers, heads: of the decoder; ids >= vocab do not exist.
        hidden: width of SwiGLU; None takes 8/3 of dim, up to a multiple of 8.
        conv: kernel of the short causal convolutions, before attention and (prmt4) over the memory's q, k, v; 0: none.
        slots: armt: memory tokens behind each segment.
        key, features: armt: width of queries and keys (None: dim / 2), and nu of their DPFP features.
        memory_heads, memory_depth, memory_expansion: prmt4: memories side by side in a layer (None: heads), matrices
            of each, and the width between these as a multiple of a head's.
        steps: prmt4: gradient steps for each segment; at test time any number can be asked for.
        target: prmt4: what a memory answers to a token's key: value (a projection of the layer's input), hidden (the
            layer's output), residual (output - input).
        momentum: prmt4: whether past surprise carries on.
        damped: prmt4: a step is shorter by what its momentum adds later; without, learned momentum above .5 may let the
            memory overshoot further and further.
        bound: prmt4: what keeps a step from overshooting: sum (a segment's tokens share one step) or overlap (tokens
            with unlike keys get a step each, for a matrix of tokens x tokens; for memories of depth 1).
        separator: the id that closes a segment and belongs to it (69: `|` of associative retrieval); None: none does,
            and segments have `segment_size` tokens.
        truncate: of each context the outer loop goes back through the last so many segments only, which `context_loss`
            is then counted on; what the memories were before them is taken as given (None: through all).
        schedule: diagonal (cells of many layers in one call) or sequential: the same numbers.
        context_loss: weight of the language-model loss on the context, beside that on the answers.
        pad: the id that fills up rows, which no text may contain.

    >>> LayeredConfig(separator=None)
    Traceback (most recent call last):
    ValueError: give either separator or segment_size, the other None, got None and None
    """

    architecture: str = "prmt4"
    vocab: int = 70
    dim: int = 64
    layers: int = 3
    heads: int = 4
    hidden: int | None = None
    conv: int = 4
    slots: int = 8
    key: int | None = None
    features: int = 3
    memory_heads: int | None = None
    memory_depth: int = 1
    memory_expansion: int = 2
    steps: int = 2
    target: str = "value"
    momentum: bool = True
    bound: str = "sum"
    damped: bool = False
    separator: int | None = 69
    segment_size: int | None = None
    truncate: int | None = None
    schedule: str = "diagonal"
    context_loss: float = 0.0
    pad: int = 0

    def __post_init__(self):
        at_least(self, _LEAST)
        one_of(self, _CHOICES)
        own(self, "architecture", _OWN)
        if self.bound == "overlap" and self.memory_depth > 1:
            raise ValueError(f"bound must be sum where memory_depth is above 1, got overlap at {self.memory_depth}")
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim must be a multiple of 2 heads = {2 * self.heads}, got {self.dim}")
        if self.dim % (self.memory_heads or 1):
            raise ValueError(f"dim must be a multiple of memory_heads = {self.memory_heads}, got {self.dim}")
        check_cut(self.separator, self.segment_size)
        check_truncate(self)
        below(self, {"pad": self.vocab})
        check_separator(self)

    carried: ClassVar[bool] = True  # from segment to segment

    @property
    def hidden_size(self) -> int:
        """The width of SwiGLU."""
        return self.hidden or ceil(self.dim / 3) * 8

    @property
    def matrix(self) -> AssociativeMatrix:
        """The memory of an armt layer."""
        return AssociativeMatrix(self.dim, self.key or ceil(self.dim / 2), self.features)

    @property
    def network(self) -> LayerNetwork:
        """The memory of a prmt4 layer."""
        return LayerNetwork(
            self.dim,
            heads=self.memory_heads or self.heads,
            depth=self.memory_depth,
            expansion=self.memory_expansion,
            steps=self.steps,
            target=self.target,
            conv=self.conv,
            momentum=self.momentum,
            bound=self.bound,
            damped=self.damped,
            clip=10.0 if self.memory_depth > 1 else None,  # a step of a linear memory cannot overshoot
        )
