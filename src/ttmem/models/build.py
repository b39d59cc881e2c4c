"""From one flat config to a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from ..checks import at_least, one_of, own
from ..memories import MemoryMLP, MemoryTokens, NeuralMemory
from .armt import ARMT
from .forward_memory import ForwardMemory
from .full_context import FullContext
from .layered_config import LAYERED, LayeredConfig
from .meta_memory import MetaMemory, WriteConfig
from .prmt4 import PRMT4
from .rmt import RMT
from .rmt4 import RMT4, CarryConfig
from .segments import check_separator
from .titans import Titans
from .titans_config import TitansConfig
from .transformer import Transformer, TransformerConfig

CARRIED, BARE = ("rmt", "rmt4"), ("none", "full")
STEPS = ("tokens", "neural", "mlp", "rmt4")
"""Memories that are written by gradient steps."""
FOR = {
    **{each.name: STEPS for each in fields(WriteConfig) if each.name not in ("lr", "memory_lr", "weight")},
    "replay": ("rmt4",),
    "gate": ("rmt4",),
    "truncate": CARRIED,
    "segment_size": CARRIED,
    "memory_output": ("neural",),
    "memory_hidden": ("mlp",),
}
"""Options that only these memories have: set for another one, they would change nothing. What says how large or how
fast (`slots`, `lr`, `weight`) may stand in one config for many memories."""


@dataclass(frozen=True)
class ModelConfig(CarryConfig, TransformerConfig):
    """Everything that shapes a model: the decoder's fields, the write's fields, and the memory's.

    Args:
        memory: tokens, neural, mlp; rmt4 (tokens carried over segments); or a baseline: none (never written), forward
            (one forward pass), rmt (a forward pass a segment), full (the context itself).
        memory_conv: kernel of the convolution over emb(C) in neural and mlp.
        memory_output: neural has a fourth fast weight, W_o.
        memory_hidden: width of mlp's network; None takes 2 dim.
    """

    memory: str = "tokens"
    memory_conv: int = 4
    memory_output: bool = False
    memory_hidden: int | None = None

    def __post_init__(self):
        TransformerConfig.__post_init__(self)
        CarryConfig.__post_init__(self)
        one_of(self, {"memory": tuple(MODELS)})
        at_least(self, {"memory_conv": 0, "memory_hidden": 1})
        if self.addresses != "content" and self.memory in BARE:
            raise ValueError(
                f"addresses must be content for memory={self.memory}, which has no memory tokens to look for"
            )
        # one step is what a forward pass takes as well
        own(self, "memory", {name: whose for name, whose in FOR.items() if (name, self.steps) != ("steps", 1)})
        if self.carried:
            check_separator(self)

    @property
    def carried(self) -> bool:
        """Whether the memory is written segment by segment."""
        return self.memory in CARRIED


def tokens(config: ModelConfig) -> nn.Module:
    """Memory tokens."""
    return MetaMemory(Transformer(config), MemoryTokens(config.slots, config.dim), config)


def neural(config: ModelConfig) -> nn.Module:
    """The deck's NeuralMemory."""
    memory = NeuralMemory(config.slots, config.dim, config.heads, config.memory_output, config.memory_conv)
    return MetaMemory(Transformer(config), memory, config)


def mlp(config: ModelConfig) -> nn.Module:
    """The deck's MemoryMLP."""
    memory = MemoryMLP(config.slots, config.dim, config.memory_hidden, config.memory_conv)
    return MetaMemory(Transformer(config), memory, config)


def rmt4(config: ModelConfig) -> nn.Module:
    """Memory tokens, carried from segment to segment."""
    return RMT4(Transformer(config), config.slots, config)


def none(config: ModelConfig) -> nn.Module:
    """No memory at all: guessing from the question."""
    return FullContext(Transformer(config), reads=False)


def forward(config: ModelConfig) -> nn.Module:
    """Memory tokens written by one forward pass."""
    return ForwardMemory(Transformer(config), config.slots)


def rmt(config: ModelConfig) -> nn.Module:
    """Memory tokens written by a forward pass a segment."""
    return RMT(Transformer(config), config.slots, config)


def full(config: ModelConfig) -> nn.Module:
    """The context itself."""
    return FullContext(Transformer(config))


MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "tokens": tokens,
    "neural": neural,
    "mlp": mlp,
    "rmt4": rmt4,
    "none": none,
    "forward": forward,
    "rmt": rmt,
    "full": full,
}


Config = ModelConfig | TitansConfig | LayeredConfig
"""The config of any family."""


def config_of(said: Mapping[str, Any]) -> Config:
    """The config that plain values tell, of any family; TypeError for a field that it does not know."""
    if "architecture" not in said:
        return ModelConfig(**said)
    return LayeredConfig(**said) if said["architecture"] in LAYERED else TitansConfig(**said)


def build(config: Config, seed: int | None = None) -> nn.Module:
    """The model of a config; with a seed its initial weights are the same every time.

    >>> sum(p.numel() for p in build(ModelConfig(memory="neural")).parameters())
    178312
    """
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(config, LayeredConfig):
            return {"armt": ARMT, "prmt4": PRMT4}[config.architecture](config)
        return Titans(config) if isinstance(config, TitansConfig) else MODELS[config.memory](config)
