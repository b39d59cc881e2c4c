"""titans-pytorch 0.5.5 as the peer of `titans.py`, set up to compute what our memory computes.

Its NeuralMemory with `chunk_size=1, batch_size=C` takes a gradient per token, at the memory where the last batch of C
tokens ended: the paper's function, and ours. Norms off, loss a sum over channels, no gate and no mixing of heads behind
the memory, one gate for all layers: then both give the same numbers, which `check_peer` shows in float64.

With `chunk_size=C, batch_size=C` it is another function: the gradients of C tokens are summed into one, momentum and
forgetting are applied once per chunk from the mean token, and a token reads the memory of the chunk before.
"""

import importlib.util
import warnings
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from one_row import LawBroken
from titans_cell import Cell, Subject, double
from torch import Tensor, nn

from ttmem.core import ChunkState, Form, Rows, tokenwise

INSTALL = "pip install -c constraints.txt titans-pytorch==0.5.5"
LR_MAX = 0.003
WEIGHT_BYTES = 256 << 20
"""Of all tokens' weights together; the peak is some ten to twenty times that."""


def installed() -> bool:
    """Whether the peer can be imported."""
    return importlib.util.find_spec("titans_pytorch") is not None


def peer_memory(cell: Cell, coarse: bool) -> Any:
    """Its memory for a cell, in its exact or its coarse mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it scripts a function, which torch calls deprecated
        from titans_pytorch import MemoryMLP, NeuralMemory
    torch.manual_seed(0)
    memory = NeuralMemory(
        dim=cell.width * cell.heads,
        dim_head=cell.width,
        heads=cell.heads,
        chunk_size=cell.chunk if coarse else 1,
        batch_size=cell.chunk,
        model=MemoryMLP(cell.width, cell.depth, 4.0),
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
        store_memory_loss_fn=lambda said, value: (said - value).pow(2).sum(dim=-1),
        default_step_transform_max_lr=LR_MAX,
    )
    memory.retrieve_gate, memory.combine_heads = None, nn.Identity()
    nn.init.constant_(memory.to_momentum[0].bias, 1.0)
    nn.init.constant_(memory.to_decay_factor[0].bias, -4.0)  # else it forgets half of all at every token
    return memory.to(cell.device)


def as_ours(memory: Any, x: Tensor, chunk: int) -> tuple[ChunkState, Rows, Form]:
    """What our memory has to be given to compute what theirs does with x."""
    depth = memory.num_memory_parameter_tensors
    q, k, v = (
        memory.split_heads(part(x)).flatten(0, 1) for part in (memory.to_queries, memory.to_keys, memory.to_values)
    )
    lr = memory.adaptive_step_transform(memory.to_adaptive_step(x))[..., None].expand(-1, -1, depth)
    momentum = F.logsigmoid(memory.to_momentum(x))[0].expand(-1, -1, depth)
    keep = F.logsigmoid(-memory.to_decay_factor(x))
    fast = {f"w{i + 1}": weight for i, weight in enumerate(memory.init_weights(len(x)).values())}
    velocity = {name: torch.zeros_like(weight) for name, weight in fast.items()}
    seen = torch.zeros(len(q), dtype=torch.long, device=x.device)
    return ChunkState(fast, velocity, fast, seen), Rows(q, k, v, lr, momentum, (keep,) * depth), Form(chunk)


def by_tokens(memory: Any, x: Tensor, chunk: int) -> Tensor:
    """Its outputs, by our token loop."""
    y, _ = tokenwise(*as_ours(memory, x, chunk))
    return memory.merge_heads(y.unflatten(0, (len(x), -1)))


def check_peer(cell: Cell) -> None:
    """Their exact mode = our recurrence in float64, on a small cell with several chunks and a rest."""
    small = replace(cell, chunk=4, width=8, batch=2, tokens=14, device="cpu")
    memory, x = peer_memory(small, coarse=False).double(), small.features().double()
    with torch.no_grad():
        off = (memory(x)[0] - by_tokens(memory, x, small.chunk)).abs().max()
    if not off < 1e-10:
        raise LawBroken(f"the peer's outputs are {off:.1e} off the recurrence it is compared with")


def shortened(cell: Cell) -> Cell:
    """The cell with as many tokens as the peer's exact mode can hold: it makes weights for each of them.

    At least two chunks of one sample; else the longest, in powers of two, whose weights stay within WEIGHT_BYTES.
    """
    hidden = 4 * cell.width
    inner = hidden * hidden * (cell.depth - 2) + 2 * cell.width * hidden
    weights = cell.width**2 if cell.depth == 1 else inner
    fit = WEIGHT_BYTES // (4 * weights * cell.heads)
    batch = cell.batch if cell.batch * 2 * cell.chunk <= fit else 1
    tokens = 2 * cell.chunk
    while 2 * tokens * batch <= fit and 2 * tokens <= cell.tokens:
        tokens *= 2
    return replace(cell, batch=batch, tokens=tokens)


def exact_mode(cell: Cell) -> Subject:
    """The peer at our function; on fewer tokens where it would not fit."""
    cell = shortened(cell)
    memory, x = peer_memory(cell, coarse=False), cell.features()

    def exact(tokens: int) -> Tensor:
        return by_tokens(double(memory), double(x)[:, :tokens], cell.chunk)

    return Subject(cell, lambda: memory(x)[0], [x, *memory.parameters()], exact, law=lambda: check_peer(cell))


def coarse_mode(cell: Cell) -> Subject:
    """The peer at a function of its own, for which there is no recurrence here."""
    memory, x = peer_memory(cell, coarse=True), cell.features()
    return Subject(cell, lambda: memory(x)[0], [x, *memory.parameters()])
