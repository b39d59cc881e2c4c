"""Architectures, one page each."""

from .armt import ARMT
from .base import Backbone, Episode, MemoryModel, Outcome
from .build import MODELS, Config, ModelConfig, build, config_of
from .forward_memory import ForwardMemory
from .full_context import FullContext
from .layered import Layered
from .layered_config import LayeredConfig
from .meta_memory import MetaMemory, WriteConfig
from .prmt4 import PRMT4
from .rmt import RMT
from .rmt4 import RMT4, CarryConfig
from .titans import MIXERS, Titans
from .titans_config import PRESETS, TitansConfig, preset
from .transformer import Transformer, TransformerConfig

__all__ = [
    "ARMT",
    "MIXERS",
    "MODELS",
    "PRESETS",
    "PRMT4",
    "Backbone",
    "CarryConfig",
    "Config",
    "Episode",
    "ForwardMemory",
    "FullContext",
    "Layered",
    "LayeredConfig",
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
