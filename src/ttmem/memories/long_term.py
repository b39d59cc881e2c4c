"""The neural long-term memory of Titans as a layer: projections, gates, and a network that is written as it reads.

    x ──► q k v (conv, silu, |q| = |k| = 1) ──┐
    x ──► theta eta alpha ────────────────────┤
    state ──► write: S = eta S - theta grad ||M(k) - v||^2,  W = (1 - alpha) W + S ──► state
                                              └──► read: M(q) ──► norm, gate(x), out ──► y

Source: Titans (arXiv 2501.00663), sections 3 and 4; what the paper leaves open: docs/titans.md. The paper's name for it
is neural memory; the deck's NeuralMemory (`ttmem.memories.NeuralMemory`), cross-attention through which memory tokens
are read, is another thing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..checks import at_least, one_of, positive, whole
from ..core.chunkwise import ChunkState, Form, Rows, chunkwise
from ..core.network import Norm, read, unit
from ..core.state import Tree
from ..nn.conv import CausalConv
from ..nn.layers import RMSNorm, outputs
from ..nn.ragged import alignment, check_mask, latest, pack, unpack
from .base import wide
from .handover import adopted, check_chunk, tell_chunk

FORGET = ("scalar", "channel", "none")
_LEAST = {"dim": 1, "heads": 1, "depth": 1, "expansion": 1, "chunk_size": 1, "conv": 0}


@dataclass(frozen=True)
class LongTermConfig:
    """Everything that shapes a LongTermMemory.

    Args:
        dim: width of what it reads and gives.
        heads: memories side by side, each `dim / heads` wide.
        depth: matrices of the memory network; 1 is a linear memory.
        expansion: width of its hidden layers, as a multiple of the head's.
        chunk_size: tokens whose surprise is taken at the same memory. Part of the function: a model is trained for one.
        norm: `M(x) = x + LN(...)` instead of the plain network.
        momentum: whether past surprise carries on (eta).
        forget: scalar (one alpha per layer), channel (one per input channel of a layer), none.
        conv: kernel of the causal convolution over q, k, v; 0: none.
        lr_max: largest theta; None: 1 / chunk_size, so that a chunk's summed gradients weigh no more than their mean.
        clip: largest norm of one token's surprise in one layer; None: any. It keeps deep memories finite.
        recompute: the backward pass computes chunks again instead of storing them.

    >>> LongTermConfig(256, chunk_size=0)
    Traceback (most recent call last):
    ValueError: chunk_size must be >= 1, got 0
    """

    dim: int
    heads: int = 4
    depth: int = 2
    expansion: int = 4
    chunk_size: int = 64
    norm: bool = True
    momentum: bool = True
    forget: str = "scalar"
    conv: int = 4
    lr_max: float | None = None
    clip: float | None = 10.0
    recompute: bool = True

    def __post_init__(self):
        whole(self, _LEAST)
        at_least(self, _LEAST)
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads = {self.heads}, got {self.dim}")
        one_of(self, {"forget": FORGET})
        positive(self, ("lr_max", "clip"))

    @property
    def largest_lr(self) -> float:
        """theta's upper end."""
        return 1 / self.chunk_size if self.lr_max is None else self.lr_max

    @property
    def widths(self) -> list[int]:
        """Channels before, between and behind the layers of the memory network."""
        head = self.dim // self.heads
        return [head] + [head * self.expansion] * (self.depth - 1) + [head]


class LongTermState(NamedTuple):
    """What a LongTermMemory carries: its memory, one row per sample and head, the tokens the conv still sees, and what
    it was written with: the chunk size, and whether the network has a norm (None: it does not say)."""

    memory: ChunkState
    conv: Float[Tensor, "b p c"]
    chunk_size: int
    norm: bool | None = None


class LongTermMemory(nn.Module):
    """A layer whose weights learn while it reads (Titans' LMM); takes any features, `(batch, time, dim)`.

    `y, state = memory(x)`, and `memory(x2, state)` goes on where `x` ended: the same as one call on both, wherever the
    split. The options are the fields of LongTermConfig.

    `load_state_dict` refuses the `state_dict()` of another chunk size, another function; `dict(state_dict)` loads.

    >>> memory = LongTermMemory(dim=32, heads=2, chunk_size=8)
    >>> x = torch.randn(3, 21, 32)
    >>> y, state = memory(x)
    >>> first, half = memory(x[:, :13])
    >>> rest, _ = memory(x[:, 13:], half)
    >>> torch.allclose(torch.cat([first, rest], dim=1), y, atol=1e-5)
    True
    """

    begun = 0  # tokens that `start` has read

    def __init__(self, dim: int, **options: Any):
        super().__init__()
        config = self.config = LongTermConfig(dim, **options)
        widths, heads = config.widths, config.heads
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.init = nn.ParameterDict(
            {f"w{i + 1}": torch.randn(heads, a, b) * a**-0.5 for i, (a, b) in enumerate(pairs)}
        )
        if config.norm:
            # What LN would enlarge, the gain makes small again: M starts as the plain network beside its input. With a
            # gain of 1 the inner loop is unstable at first, and gradients grow tenfold with every doubling of the text.
            self.norm_gain = nn.Parameter(torch.full((heads, widths[0]), 2.0 ** (1 - config.depth) * widths[0] ** -0.5))
            self.norm_bias = nn.Parameter(torch.zeros(heads, widths[0]))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = CausalConv(3 * dim, config.conv) if config.conv else None
        self.gates = Gates(config)
        self.out_norm = RMSNorm(widths[0])
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.register_state_dict_post_hook(tell_chunk)
        self.register_load_state_dict_pre_hook(check_chunk)

    def start(self, batch: int) -> LongTermState:
        """A memory that has read nothing: the learned initial weights, no momentum."""
        fast = {name: wide(w).repeat(batch, 1, 1) for name, w in self.init.items()}  # a copy for a batch of 1 as well
        velocity = {name: torch.zeros_like(w) for name, w in fast.items()} if self.config.momentum else {}
        count = torch.zeros(batch * self.config.heads, dtype=torch.long, device=self.qkv.weight.device)
        tail = self.qkv.weight.new_zeros(batch, max(self.config.conv - 1, 0), 3 * self.config.dim)
        return LongTermState(ChunkState(fast, velocity, fast, count), tail, self.config.chunk_size, self.config.norm)

    def forward(
        self, x: Float[Tensor, "b t d"], state: LongTermState | None = None, mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], LongTermState]:
        """Write and read `x`; where `mask` is false there is padding, which writes nothing and reads zero.

        Raises ValueError for a state of another batch or memory. One of other float types is cast to those of `start`.
        """
        if mask is None:
            return self.stream(x, state)
        check_mask(mask, x)
        rows = alignment(mask)
        y, state = self.stream(rows.align(x), state, rows.lengths)
        return rows.restore(y), state

    def packed(self, x: Float[Tensor, "t d"], offsets: Int[Tensor, "_"]) -> tuple[Float[Tensor, "t d"], LongTermState]:
        """Sequences end to end, each with a memory of its own: sequence i is `x[offsets[i]:offsets[i + 1]]`."""
        rows, lengths = unpack(x, offsets)
        y, state = self.stream(rows, lengths=lengths)
        return pack(y, lengths), state

    def stream(
        self, x: Float[Tensor, "b t d"], state: LongTermState | None = None, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], LongTermState]:
        """`forward` for left-aligned rows, the first `lengths` tokens of which are real."""
        if x.ndim != 3 or 0 in x.shape or x.shape[2] != self.config.dim:
            raise ValueError(f"x must be (batch >= 1, time >= 1, {self.config.dim}), got {tuple(x.shape)}")
        if x.dtype != self.qkv.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x must be {self.qkv.weight.dtype}, as the weights are, got {x.dtype}: use x.to(...)")
        if state is None:
            return self.go_on(x, self.start(len(x)), lengths, self.begun % self.config.chunk_size)
        return self.go_on(x, self.fitted(state, len(x)), lengths)

    def go_on(
        self,
        x: Float[Tensor, "b t d"],
        state: LongTermState,
        lengths: Int[Tensor, "b"] | None,
        phase: int | None = None,
    ) -> tuple[Float[Tensor, "b t d"], LongTermState]:
        """`stream` from a state that fits; `phase` is its place inside the chunk, where that is known."""
        qkv = self.qkv(x).to(state.conv.dtype)
        tail = latest(state.conv, qkv, lengths)
        if self.conv is not None:
            qkv = self.conv(qkv, state.conv)
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = split(qkv, self.config.heads)
            rows = Rows(q, k, v, *self.gates(x))
            each = None if lengths is None else lengths.repeat_interleave(self.config.heads)
            y, memory = chunkwise(state.memory, rows, self.form(len(x)), each, phase=phase)
        return self.finish(y, x), state._replace(memory=memory, conv=tail)

    def recall(self, fast: Tree, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Read with `x` from fixed weights, writing nothing; the queries see no conv (MAC's `M*(q)`)."""
        with torch.autocast(x.device.type, enabled=False):
            q = outputs(self.qkv, x.to(self.qkv.weight.dtype), 0, self.config.dim)
            q = rearrange(wide(F.silu(q)), "b t (h e) -> (b h) t e", h=self.config.heads)
            y = read(fast, unit(q), self.form(len(x)).norm)
        return self.finish(y, x)

    def form(self, batch: int) -> Form:
        """How the memory is walked."""
        names = ("norm_gain", "norm_bias") if self.config.norm else ()
        return form_of(self.config, *(repeat(getattr(self, name), "h d -> (n h) d", n=batch) for name in names))

    def finish(self, y: Float[Tensor, "n t e"], x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Normalise each head, gate by the input, project."""
        y = rearrange(self.out_norm(y.to(self.out_norm.weight.dtype)), "(b h) t e -> b t (h e)", b=len(x))
        return self.out(y.to(x.dtype) * F.silu(self.out_gate(x)))

    def fitted(self, state: LongTermState, batch: int) -> LongTermState:
        """The state in the float types that `start` gives it; ValueError for that of another batch or memory."""
        self.check(state, batch)
        short = self.qkv.weight.dtype
        memory = adopted(state.memory, torch.promote_types(short, torch.float32))
        return LongTermState(memory, adopted(state.conv, short), self.config.chunk_size, self.config.norm)

    def check(self, state: Any, batch: int) -> None:
        """Raise ValueError unless the state is one of this memory and batch."""
        if not isinstance(state, LongTermState):
            raise ValueError(f"state must be a LongTermState, got {type(state).__name__}")
        config, found = self.config, [(name, tuple(w.shape)) for name, w in state.memory.fast.items()]
        own = [(name, (batch * len(w), *w.shape[1:])) for name, w in self.init.items()]
        if found != own:
            raise ValueError(f"state must be of this memory and a batch of {batch}: it has {found}, not {own}")
        if state.chunk_size != config.chunk_size:
            raise ValueError(f"state must be of chunk_size {config.chunk_size}, it has {state.chunk_size}")
        alike = {
            "dim": state.conv.shape[::2] == (batch, 3 * config.dim),
            "conv": state.conv.shape[1] == max(config.conv - 1, 0),
            "momentum": bool(state.memory.velocity) == config.momentum,
            "norm": state.norm in (None, config.norm),
        }
        for name in (name for name, same in alike.items() if not same):
            raise ValueError(f"state must be of a memory with {name}={getattr(config, name)}, it is of another")


class Gates(nn.Module):
    """theta, eta and alpha of every token, head and memory layer, from the token."""

    def __init__(self, config: LongTermConfig):
        super().__init__()
        self.config = config
        keep = {"scalar": [1] * config.depth, "channel": config.widths[:-1], "none": []}[config.forget]
        self.sizes = [config.depth, config.depth * config.momentum, *keep]
        self.linear = nn.Linear(config.dim, config.heads * sum(self.sizes))
        nn.init.normal_(self.linear.weight, std=0.02)
        with torch.no_grad():
            # theta .05 of its largest and eta .73: 2 C theta / (1 - eta) = .35, so that even a chunk of one token
            # repeated is written stably. alpha from .007 to .001 over the heads: memories of 150 to 1,000 tokens;
            # faster ones forget a deep memory down to zero, where it has no gradient left to come back by.
            alphas = [[-5.0 - 2.0 * head / max(config.heads - 1, 1)] for head in range(config.heads)]
            spread = torch.tensor(alphas).expand(-1, sum(keep))
            first = torch.tensor([-3.0] * self.sizes[0] + [1.0] * self.sizes[1]).expand(config.heads, -1)
            self.linear.bias.copy_(torch.cat([first, spread], dim=1).flatten())

    def forward(self, x: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...] | None]:
        """What `opened` makes of it."""
        heads = self.config.heads
        said = rearrange(self.linear(x.to(self.linear.weight.dtype)), "b t (h g) -> (b h) t g", h=heads)
        return opened(said, self.config, self.sizes)


def opened(
    said: Float[Tensor, "n t g"], config: LongTermConfig, sizes: list[int]
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...] | None]:
    """`lr`, and the logs of momentum and of what is kept, as `Rows` wants them, of what the gates' layer says."""
    lr, momentum, *keep = wide(said).split(sizes, dim=-1)
    kept = tuple(log_sigmoid(-part) for part in keep)
    return lr.sigmoid() * config.largest_lr, log_sigmoid(momentum) if config.momentum else None, kept or None


def form_of(config: LongTermConfig, *norm: Float[Tensor, "n d"]) -> Form:
    """How the memories of n rows are walked; `norm` are gain and bias, where there is one."""
    made = Norm(wide(norm[0])[:, None], wide(norm[1])[:, None]) if norm else None
    return Form(config.chunk_size, made, config.clip, config.recompute)


def split(qkv: Float[Tensor, "b t c"], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(n, t, e)`, one row per sample and head; queries and keys of length 1."""
    q, k, v = rearrange(wide(F.silu(qkv)), "b t (part h e) -> part (b h) t e", part=3, h=heads).unbind()
    return unit(q), unit(k), v


def log_sigmoid(x: Tensor) -> Tensor:
    """The log of a gate, at least -20: sums over a chunk keep their digits, and exp(-20) is nothing."""
    return F.logsigmoid(x).clamp_min(-20.0)
