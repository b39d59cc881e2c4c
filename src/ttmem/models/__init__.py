"""Architectures, one page each."""

from .base import Backbone, Episode, MemoryModel, Outcome
from .build import MODELS, ModelConfig, build, config_of
from .forward_memory import ForwardMemory
from .full_context import FullContext
from .meta_memory import MetaMemory, WriteConfig
from .titans import MIXERS, Titans
from .titans_config import PRESETS, TitansConfig, preset
from .transformer import Transformer, TransformerConfig

__all__ = [
    "MIXERS",
    "MODELS",
    "PRESETS",
    "Backbone",
    "Episode",
    "ForwardMemory",
    "FullContext",
    "MemoryModel",
    "MetaMemory",
    "ModelConfig",
    "Outcome",
    "Titans",
    "TitansConfig",
    "Transformer",
    "TransformerConfig",
    "WriteConfig",
    "build",
    "config_of",
    "preset",
]
