"""What is written: memories made of fast weights."""

from .base import Memory, Source
from .long_term import LongTermConfig, LongTermMemory, LongTermState
from .memory_mlp import MemoryMLP
from .neural_memory import NeuralMemory
from .tokens import MemoryTokens

MEMORIES: dict[str, type[Memory]] = {m.kind: m for m in (MemoryTokens, NeuralMemory, MemoryMLP)}

__all__ = [
    "MEMORIES",
    "LongTermConfig",
    "LongTermMemory",
    "LongTermState",
    "Memory",
    "MemoryMLP",
    "MemoryTokens",
    "NeuralMemory",
    "Source",
]
