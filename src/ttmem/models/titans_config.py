"""What shapes a Titans language model, and the sizes of the paper."""

from dataclasses import dataclass, replace

from ..checks import at_least, below, one_of, whole
from ..memories.long_term import LongTermConfig

ARCHITECTURES = ("lmm", "mac", "mag", "mal", "swa", "full")
_CHOICES = {"architecture": ARCHITECTURES, "gate": ("two-way", "product")}
_LEAST = {
    "vocab": 1,
    "dim": 1,
    "layers": 1,
    "heads": 1,
    "hidden": 1,
    "memory_heads": 1,
    "memory_depth": 1,
    "memory_expansion": 1,
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
        truncate: the outer gradient of the answers stops at the memory that the context left (truncated
            backpropagation); without `context_loss` the context is then read at a third of the cost.
        pad: the id that fills up rows, which no text may contain; below vocab, or -1: none.

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
    lr_max: float | None = None
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
    truncate: bool = False
    pad: int = 257

    def __post_init__(self):
        whole(self, [field for field in (*_LEAST, "pad") if field != "context_loss"])
        at_least(self, _LEAST)
        below(self, {"pad": self.vocab})
        one_of(self, _CHOICES)
        self._check_together()

    def _check_together(self) -> None:
        if self.memory_tokens and self.architecture != "mac":
            raise ValueError(f"memory_tokens must be 0 for {self.architecture}: only mac has them")
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim must be a multiple of 2 heads = {2 * self.heads}, got {self.dim}")
        if self.memory_heads and self.dim % self.memory_heads:
            raise ValueError(f"dim must be a multiple of memory_heads = {self.memory_heads}, got {self.dim}")
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
    pad=0,  # <unk> of the paper's tokenizer (Llama 2), which spells what it does not know in bytes
)
_TINY = TitansConfig(dim=32, layers=2, heads=2, chunk_size=8, segment_size=16, window_size=16, persistent_tokens=2)
PRESETS: dict[str, TitansConfig] = {
    "tiny": _TINY,
    "170M": replace(_PAPER, dim=768, layers=12, heads=16),
    "340M": replace(_PAPER, dim=1024, layers=24, heads=16),
    "400M": replace(_PAPER, dim=1024, layers=24, heads=16),
    "760M": replace(_PAPER, dim=1536, layers=24, heads=16),
    "1.3B": replace(_PAPER, dim=2048, layers=18, heads=8),
}
"""Shapes by name (paper, table of configurations; its 400M has none); `preset` makes an architecture of one."""

_HIDDEN = {  # in the order of ARCHITECTURES
    "170M": (3776, 2432, 2496, 2752, 4224, 4224),
    "340M": (2240, 448, 512, 832, 2752, 2752),
    "400M": (3008, 1216, 1344, 1664, 3584, 3584),
    "760M": (3520, 896, 960, 1472, 4352, 4352),
    "1.3B": (6976, 3520, 3584, 4288, 8384, 8384),
}


def preset(name: str, architecture: str, **changes: object) -> TitansConfig:
    """A size of the paper as one of the architectures; ValueError for a name that is none.

    Blocks, width and heads are the paper's (400M, to which it gives no shape, has those of 340M). The width of the
    feed-forward, which the paper does not tell, is what brings each architecture to the size in the name, so that the
    architectures of one preset are equal in parameters, here in millions (embedding tied, vocab 32000):

              blocks   dim  heads     lmm     mac     mag     mal     swa    full
        170M      12   768     16   170.1   170.7   170.1   170.1   170.9   170.9
        340M      24  1024     16   342.2   342.3   340.7   339.1   339.5   339.5
        400M      24  1024     16   398.9   399.0   402.1   400.5   400.9   400.9
        760M      24  1536     16   758.7   761.2   758.8   758.8   761.7   761.7
        1.3B      18  2048      8  1297.1  1302.0  1299.5  1301.9  1299.5  1299.5

    `changes` are fields of the config; the width of the feed-forward stays unless `hidden` is one of them.

    >>> preset("170M", "mag").dim, preset("170M", "mag").hidden
    (768, 2496)
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    hidden = dict(zip(ARCHITECTURES, _HIDDEN.get(name, ()), strict=False))
    tokens = 256 if architecture == "mac" and name != "tiny" else 0
    own = {"architecture": architecture, "hidden": hidden.get(architecture), "memory_tokens": tokens}
    return replace(PRESETS[name], **(own | changes))  # type: ignore[arg-type]
