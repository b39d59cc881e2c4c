"""Bricks that can be differentiated twice."""

from .attention import attend, visible
from .layers import CausalConv, RMSNorm, SwiGLU, rotary

__all__ = ["CausalConv", "RMSNorm", "SwiGLU", "attend", "rotary", "visible"]
