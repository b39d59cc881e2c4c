"""Bricks that can be differentiated twice; windowed attention and what is named fused, once."""

from .attention import attend, attend_fused, visible
from .conv import CausalConv, causal_conv
from .layers import RMSNorm, SwiGLU, rotary
from .window import QKV, Window, empty_window, slide

__all__ = [
    "CausalConv",
    "QKV",
    "RMSNorm",
    "SwiGLU",
    "Window",
    "attend",
    "attend_fused",
    "causal_conv",
    "empty_window",
    "rotary",
    "slide",
    "visible",
]
