"""A Llama-like decoder that reads memory tokens in front of its own (Touvron et al. 2023).

memory tokens  m_1 .. m_M ──┐ seen by every token, see only themselves
tokens         x_1 .. x_T ──┴─> [norm, conv, attention] + [norm, SwiGLU], L times ─> norm ─> logits
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..checks import at_least, one_of
from ..nn.attention import attend, attend_near, visible
from ..nn.conv import CausalConv
from ..nn.layers import RMSNorm, SwiGLU, outputs, rotary
from .base import spread

SHORT = 4
"""Windows up to this long do not pay for the whole square of scores."""


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of the decoder.

    Args:
        vocab: number of token ids.
        dim: width; `layers`, `heads`: depth and attention heads (heads divide dim).
        hidden: width of the feed-forward; None takes 8/3 of dim, up to a multiple of 8, which matrix products like.
        conv: kernel of the short causal convolution before attention; 0 leaves it out.
        positions: "none" or "rope". Without positions a memory can only be addressed by content, which is what
            reading by key needs; with them the write finds the easier address first: the place in the context.
        window: tokens see at most this many tokens back, themselves included (and all memory tokens); None: all.
        read_gate: what attention hands a token is multiplied, number by number, by a learned function of the token,
            1 at first. Unlike a softmax over slots it has signs, so that two keys that look at the same slots still
            read, and write, along other directions: a small memory holds more pairs.
        addresses: what tokens look for a memory by. "content": memory tokens are tokens, whose attention keys and whose
            states in deeper layers follow from what they hold. "learned": each layer has learned keys for its `slots`
            memory tokens, and reads values of these as they are; a write then changes what is found and not by whom.
            "sines": so too, but a token reads every number of every memory token with a coefficient of its own, the
            sine of a learned linear function of the token. Shares of a softmax are positive, and few; random features
            of this kind (Rahimi & Recht 2007) are nearly as unlike as random signs, and so few write steps fill a
            memory. Each layer has slots * dim * dim more weights. With either kind the first token of a context is told
            from the last memory token alone, and rope is refused.
        slots: memory tokens; asked for by learned addresses and sines.
        stem: tokens pass a convolution and a feed-forward before the first layer, which add nothing at first. Without
            it the first layer looks for a key by a sum over its tokens, so that two keys that share one look alike.
    """

    vocab: int = 70
    dim: int = 64
    layers: int = 3
    heads: int = 4
    hidden: int | None = None
    conv: int = 4
    positions: str = "none"
    window: int | None = None
    addresses: str = "content"
    slots: int = 8
    read_gate: bool = False
    stem: bool = False

    def __post_init__(self):
        at_least(self, {"vocab": 1, "dim": 1, "layers": 1, "heads": 1, "hidden": 1, "conv": 0, "window": 1, "slots": 1})
        one_of(self, {"positions": ("none", "rope"), "addresses": ("content", "learned", "sines")})
        if self.dim % self.heads or (self.positions == "rope" and self.dim // self.heads % 2):
            raise ValueError(f"heads must divide dim (into even parts with rope), got {self.heads} and {self.dim}")
        if self.addresses != "content" and self.positions == "rope":
            raise ValueError(
                f"addresses must be content for positions=rope, got {self.addresses}: such memory tokens have no place"
            )

    @property
    def hidden_size(self) -> int:
        """The feed-forward's width."""
        return self.hidden or ceil(self.dim / 3) * 8


class Looks(NamedTuple):
    """What tokens look with: queries, keys and values `(b, h, t, e)`, the gate of what they read `(b, t, d)` and their
    coefficients of a memory's numbers `(b, t, slots, d)`, where there are such."""

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor | None
    sines: Tensor | None


class Ahead(NamedTuple):
    """Tokens as far as the memory in front of them has no say: behind the stem, and what the first layer looks with
    (None where that hangs on the memory, as with `content` addresses behind a convolution). A write of K steps asks for
    this once."""

    x: Tensor
    looks: Looks | None


class Attention(nn.Module):
    """Causal self-attention of tokens behind a prefix that they all see."""

    neutral = ("read_gate",)

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.conv = CausalConv(config.dim, config.conv) if config.conv else None
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.read_gate = nn.Linear(config.dim, config.dim, bias=False) if config.read_gate else None
        shape = (1, config.heads, config.slots, config.dim // config.heads)
        self.addresses = nn.Parameter(torch.randn(shape)) if config.addresses == "learned" else None
        sines = config.addresses == "sines"
        self.sines = nn.Linear(config.dim, config.slots * config.dim, bias=False) if sines else None
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def project(self, x: Tensor, past: Tensor | None, start: int) -> Looks:
        """What tokens look with; `past` is what the convolution sees before them."""
        x = self.conv(x, past) if self.conv else x
        q, k, v = rearrange(self.qkv(x), "b t (n h e) -> n b h t e", n=3, h=self.config.heads)
        if self.config.positions == "rope":
            q, k = rotary(q, start), rotary(k, start)
        gate = 1 + self.read_gate(x) if self.read_gate else None
        sines = rearrange(self.sines(x).sin(), "b t (m d) -> b t m d", d=self.config.dim) if self.sines else None
        return Looks(q, k, v, gate, sines)

    def values(self, memory: Tensor) -> Tensor:
        """What a memory hands out, by head, where it is not looked at by its content."""
        if memory.shape[1] != self.config.slots:
            raise ValueError(f"slots is {self.config.slots}, but the memory has {memory.shape[1]} tokens")
        found = outputs(self.qkv, memory, 2 * self.config.dim, 3 * self.config.dim)
        return rearrange(found, "b t (h e) -> b h t e", h=self.config.heads)

    def mix(
        self,
        looks: Looks,
        keys: Sequence[Tensor] = (),
        values: Sequence[Tensor] = (),
        held: Tensor | None = None,
        window: int | None = None,
    ) -> Tensor:
        """Attention over keys and values, behind which come the tokens' own; and what sines read of `held`."""
        found = self.attend(looks.q, [*keys, looks.k], [*values, looks.v], window)
        read = rearrange(found, "b h t e -> b t (h e)")
        if looks.sines is not None and held is not None:
            read = read + (looks.sines * rearrange(held, "b h m e -> b 1 m (h e)")).sum(2)
        return self.out(read if looks.gate is None else read * looks.gate)

    def attend(self, q: Tensor, keys: list[Tensor], values: list[Tensor], window: int | None) -> Tensor:
        """What each head reads."""
        if window is not None and window <= SHORT:
            return attend_near(q, keys, values, window)
        keys = [k.expand(len(q), -1, -1, -1) for k in keys]
        k, v = (torch.cat(parts, dim=2) if len(parts) > 1 else parts[0] for parts in (keys, values))
        t, prefix = q.shape[2], k.shape[2] - q.shape[2]
        mask = visible(t, prefix, window, q.device)
        return attend(q, k, v, mask)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to its input."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention, self.feed = Attention(config), SwiGLU(config.dim, config.hidden_size)
        self.before_attention, self.before_feed = RMSNorm(config.dim), RMSNorm(config.dim)

    def looks(self, x: Tensor, past: Tensor | None = None, start: int = 0) -> Looks:
        """What tokens look with; `past`, behind its norm, is what the convolution sees before them."""
        return self.attention.project(self.before_attention(x), past, start)

    def forward(self, x: Tensor, prefix: Tensor | None, looks: Looks | None = None) -> tuple[Tensor, Tensor | None]:
        attention, rows, content = self.attention, len(x), self.attention.config.addresses == "content"
        past, start, held = None, 0, None
        keys: list[Tensor] = []
        values: list[Tensor] = []
        if prefix is not None and content:
            past, start = self.before_attention(prefix), prefix.shape[1]
            own = attention.project(past, None, 0)
            keys, values = [spread(own.k, rows)], [spread(own.v, rows)]
            prefix = prefix + attention.mix(own)
            prefix = prefix + self.feed(self.before_feed(prefix))
            past = spread(past, rows)
        elif prefix is not None:
            held = spread(attention.values(self.before_attention(prefix)), rows)
            if attention.addresses is not None:
                keys, values = [attention.addresses], [held]
        looks = self.looks(x, past, start) if looks is None else looks
        x = x + attention.mix(looks, keys, values, held, attention.config.window)
        return x + self.feed(self.before_feed(x)), prefix


class Stem(nn.Module):
    """What tokens pass before the first layer: their last few mixed (with `conv`), and bent by a feed-forward.

    The memory in front of them is left out. So the gradient of a write does not go through it.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.norm, self.conv = RMSNorm(config.dim), CausalConv(config.dim, config.conv) if config.conv else None
        self.feed = SwiGLU(config.dim, config.hidden_size)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        mixed = self.norm(x)
        return x + self.feed(self.conv(mixed) if self.conv else mixed)


class Transformer(nn.Module):
    """The decoder, as a backbone: `embed`, `hidden`, `logits`.

    >>> backbone = Transformer(TransformerConfig(dim=32, layers=2))
    >>> x = backbone.embed(torch.zeros(6, 5, dtype=torch.long))            # 6 rows: 3 questions for each of 2 memories
    >>> h, last = backbone.hidden(x, prefix=torch.zeros(2, 8, 32))
    >>> h.shape, last.shape, backbone.logits(h).shape
    (torch.Size([6, 5, 32]), torch.Size([2, 32]), torch.Size([6, 5, 70]))
    """

    neutral = ("stem",)

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config, self.dim, self.vocab = config, config.dim, config.vocab
        self.slots = config.slots if config.addresses != "content" else None  # None: any number
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.stem = Stem(config) if config.stem else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02); what ends in the residual stream smaller by sqrt(2 layers); gates and the stem silent.

        Learned addresses stay as they were made, Normal(0, 1). Sines begin with angles of about two radians, where
        those of tokens that are not alike are not either.
        """
        for name, weight in self.named_parameters():
            if name.endswith(("embedding.weight", "head.weight", "qkv.weight", "up.weight")):
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("sines.weight"):
                nn.init.normal_(weight, std=2 * self.dim**-0.5)
            elif name.endswith(("read_gate.weight", "stem.feed.down.weight")):
                nn.init.zeros_(weight)
            elif name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 * (2 * self.config.layers) ** -0.5)

    def embed(self, ids: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
        """The embeddings of ids."""
        return self.embedding(ids)

    def ahead(self, x: Float[Tensor, "r t d"]) -> Ahead:
        """What of `hidden` is the same behind any memory."""
        x = self.stem(x) if self.stem else x
        first = self.blocks[0]
        assert isinstance(first, Block)
        return Ahead(x, first.looks(x) if self.config.addresses != "content" else None)

    def hidden(
        self, x: Float[Tensor, "r t d"] | Ahead, prefix: Float[Tensor, "b m d"] | None = None
    ) -> tuple[Float[Tensor, "r t d"], Float[Tensor, "b d"] | None]:
        """Hidden states of the tokens, and of the prefix's last token (which predicts the first token).

        `r` is a multiple of `b`: rows of x that belong together share one prefix. Tokens are causal, so padding on the
        right changes nothing. A memory kept in float32 is read in the dtype of the tokens. Who reads the same tokens
        behind several memories may ask for their `ahead` once, and give that.
        """
        x, looks = x if isinstance(x, Ahead) else self.ahead(x)
        prefix = None if prefix is None else prefix.to(x.dtype)
        for block in self.blocks:
            x, prefix = block(x, prefix, looks)
            looks = None
        return self.norm(x), None if prefix is None else self.norm(prefix[:, -1])

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Next-token logits."""
        return self.head(hidden)
