"""Architectures, one page each."""

from .base import Backbone, Episode, MemoryModel, Outcome
from .build import MODELS, ModelConfig, build, config_of
from .forward_memory import ForwardMemory
from .full_context import FullContext
from .meta_memory import MetaMemory, WriteConfig
from .rmt import RMT
from .rmt4 import RMT4, CarryConfig
from .titans import MIXERS, Titans
from .titans_config import PRESETS, TitansConfig, preset
from .transformer import Transformer, TransformerConfig

__all__ = [
    "MIXERS",
    "MODELS",
    "PRESETS",
    "Backbone",
    "CarryConfig",
    "Episode",
    "ForwardMemory",
    "FullContext",
    "MemoryModel",
    "MetaMemory",
    "ModelConfig",
    "Outcome",
    "RMT",
    "RMT4",
    "Titans",
    "TitansConfig",
    "Transformer",
    "TransformerConfig",
    "WriteConfig",
    "build",
    "config_of",
    "preset",
]
