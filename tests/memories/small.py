"""Long-term memories small enough to be tried in every option, and texts for them."""

from typing import Any

import torch
from torch import Tensor

from ttmem.core.state import map_state
from ttmem.memories import LongTermMemory, LongTermState

DIM, HEADS, CHUNK, T = 8, 2, 7, 23
OPTIONS = {
    "default": {},
    "deep": {"depth": 4, "clip": 1.0},
    "channel": {"depth": 3, "forget": "channel", "norm": False},
    "linear": {"depth": 1, "norm": False, "clip": None},
    "still": {"momentum": False, "conv": 0},
    "bare": {"depth": 1, "norm": False, "momentum": False, "forget": "none", "conv": 0},
    "kept": {"depth": 2, "forget": "none", "conv": 2, "recompute": False},
}


def memory_of(kind: str = "default", **options: Any) -> LongTermMemory:
    """A small memory that forgets, carries on and steps with numbers one can see."""
    base = {"heads": HEADS, "expansion": 2, "chunk_size": CHUNK, "lr_max": 0.5}
    memory = LongTermMemory(DIM, **base | OPTIONS[kind] | options)
    torch.nn.init.normal_(memory.gates.linear.weight, std=0.5)
    torch.nn.init.normal_(memory.gates.linear.bias, mean=-1.5)
    with torch.no_grad():  # a deep memory that forgets fast is soon nothing, and learns nothing
        memory.gates.linear.bias.unflatten(0, (-1, sum(memory.gates.sizes)))[:, sum(memory.gates.sizes[:2]) :] -= 2.5
    if memory.config.norm:
        torch.nn.init.normal_(memory.norm_gain, mean=0.5, std=0.2)
        torch.nn.init.normal_(memory.norm_bias, std=0.2)
    return memory


def text(n: int = 2, t: int = T) -> Tensor:
    """Features of `n` texts."""
    return torch.randn(n, t, DIM)


def of_sample(state: LongTermState, i: int) -> LongTermState:
    """The state of sample `i` alone."""
    heads = slice(i * HEADS, (i + 1) * HEADS)
    return LongTermState(map_state(lambda x: x[heads], state.memory), state.conv[i : i + 1], state.chunk_size)


def in_pieces(memory: LongTermMemory, x: Tensor, cuts: list[int]) -> tuple[Tensor, LongTermState]:
    """A text read piece by piece, cut before the tokens `cuts`."""
    outs, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = memory(piece, state)
        outs.append(y)
    return torch.cat(outs, dim=1), state
