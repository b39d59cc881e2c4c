"""Architectures, one page each."""

from .base import Backbone, Episode, MemoryModel, Outcome
from .build import MODELS, ModelConfig, build
from .forward_memory import ForwardMemory
from .full_context import FullContext
from .meta_memory import MetaMemory, WriteConfig
from .transformer import Transformer, TransformerConfig

__all__ = [
    "MODELS",
    "Backbone",
    "Episode",
    "ForwardMemory",
    "FullContext",
    "MemoryModel",
    "MetaMemory",
    "ModelConfig",
    "Outcome",
    "Transformer",
    "TransformerConfig",
    "WriteConfig",
    "build",
]
