"""What shapes a Titans language model, and the sizes of the paper."""

from dataclasses import dataclass, replace

from ..memories.long_term import LongTermConfig

ARCHITECTURES = ("lmm", "mac", "mag", "mal", "swa", "full")
_LEAST = {
    "vocab": 1,
    "layers": 1,
    "segment_size": 1,
    "window_size": 1,
    "persistent_tokens": 0,
    "memory_tokens": 0,
    "context_loss": 0,
}


@dataclass(frozen=True)
class TitansConfig:
    """A stack of blocks around a neural long-term memory.

    Four lengths, four things: the *chunk* shares one gradient anchor (`chunk_size`), the *segment* is attended together
    in MAC (`segment_size`), the *window* is what a token attends to in MAG and MAL (`window_size`), the *batch* are
    independent rows, each with a memory of its own.

    Args:
        architecture: lmm, mac, mag, mal (Titans); swa, full (plain attention over a window, over everything).
        vocab, dim, layers, heads: of the decoder; ids >= vocab do not exist.
        hidden: width of SwiGLU; None takes 8/3 dim, rounded up to a multiple of 64.
        memory_depth, memory_expansion, memory_norm: the memory network (LongTermConfig: depth, expansion, norm).
        memory_heads: memories side by side; None: heads.
        chunk_size, momentum, forget, conv, lr_max, clip, recompute: as in LongTermConfig.
        segment_size, window_size: see above.
        persistent_tokens: learned tokens in front of every segment or window (mac, mag, swa, full), or read by the
            memory before the first token (lmm, mal).
        memory_tokens: mac only; 0: each token of a segment recalls for itself; n: n learned queries recall for all.
        gate: how mac and mag join attention and memory: two-way (each let through by the other), product
            (y by sigma(m)).
        tied: the head shares the embedding.
        checkpoint: the backward pass computes whole blocks again.
        context_loss: weight of the language-model loss on the context, beside that on the answers.
        pad: the id that fills up rows, which no text may contain.

    >>> TitansConfig(persistent_tokens=-1)
    Traceback (most recent call last):
    ValueError: persistent_tokens must be >= 0, got -1
    """

    architecture: str = "mac"
    vocab: int = 258
    dim: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int | None = None
    memory_heads: int | None = None
    memory_depth: int = 2
    memory_expansion: int = 4
    memory_norm: bool = True
    chunk_size: int = 16
    momentum: bool = True
    forget: str = "scalar"
    conv: int = 4
    lr_max: float = 1.0
    clip: float | None = 10.0
    recompute: bool = True
    segment_size: int = 64
    window_size: int = 64
    persistent_tokens: int = 4
    memory_tokens: int = 0
    gate: str = "two-way"
    tied: bool = True
    checkpoint: bool = False
    context_loss: float = 0.0
    pad: int = 257

    def __post_init__(self):
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be >= {least}, got {getattr(self, field)}")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r}")
        if self.gate not in ("two-way", "product"):
            raise ValueError(f"gate must be two-way or product, got {self.gate!r}")
        if self.memory_tokens and self.architecture != "mac":
            raise ValueError(f"memory_tokens must be 0 for {self.architecture}: only mac has them")
        if self.heads < 1 or self.dim % (2 * self.heads):
            raise ValueError(f"dim must be a multiple of 2 heads = {2 * self.heads}, got {self.dim}")
        _ = self.memory

    @property
    def memory(self) -> LongTermConfig:
        """The memory of each block."""
        return LongTermConfig(
            self.dim,
            heads=self.memory_heads or self.heads,
            depth=self.memory_depth,
            expansion=self.memory_expansion,
            chunk_size=self.chunk_size,
            norm=self.memory_norm,
            momentum=self.momentum,
            forget=self.forget,
            conv=self.conv,
            lr_max=self.lr_max,
            clip=self.clip,
            recompute=self.recompute,
        )

    @property
    def hidden_size(self) -> int:
        """The width of SwiGLU."""
        return self.hidden or -(-self.dim * 8 // 3 // 64) * 64


_PAPER = TitansConfig(
    vocab=32_000,
    chunk_size=16,
    segment_size=512,
    window_size=2048,
    persistent_tokens=128,
    memory_tokens=0,
    checkpoint=True,
)
_TINY = TitansConfig(dim=32, layers=2, heads=2, chunk_size=8, segment_size=16, window_size=16, persistent_tokens=2)
PRESETS: dict[str, TitansConfig] = {
    "tiny": _TINY,
    "170M": replace(_PAPER, dim=768, layers=12, heads=16),
    "340M": replace(_PAPER, dim=1024, layers=24, heads=16),
    "400M": replace(_PAPER, dim=1024, layers=28, heads=16),
    "760M": replace(_PAPER, dim=1536, layers=24, heads=16),
    "1.3B": replace(_PAPER, dim=2048, layers=18, heads=8),
}
"""Sizes by name (paper, table of configurations); its 400M has no shape, ours is the 340M with 28 blocks."""


def preset(name: str, architecture: str, **changes: object) -> TitansConfig:
    """A size of the paper as one of the architectures; ValueError for a name that is none.

    >>> preset("170M", "mag").dim
    768
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    tokens = 256 if architecture == "mac" and name != "tiny" else 0
    return replace(PRESETS[name], architecture=architecture, memory_tokens=tokens, **changes)  # type: ignore[arg-type]
