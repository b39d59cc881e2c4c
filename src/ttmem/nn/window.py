"""Sliding-window attention that streams: what a call leaves behind is a `Window`, whatever came before.

    past     a b c                         window 4: the past holds the last 3 tokens
    new            d e f g h i j k         h attends to e f g h, and to the whole prefix
    blocks   a b c[d e f]                  queries in brackets, their keys and the 3 before them:
                   d e f[g h i]            cost and memory are O(t * window)
                         g h i[j k .]

Rotary positions are relative to the call: slot 0 of the past is position 0, so no stream is long enough for large
angles, and the product of two turned vectors depends on their distance alone (Su et al. 2021). The prefix, the
persistent tokens of Titans (Behrouz et al. 2025, section 3.3), has no position: its logits are unturned.

First derivatives only: without a prefix a fused kernel attends. With one, its logits need unturned queries, which a
kernel takes only as twice as many channels; matrix products over small blocks were up to twice as fast on a CPU.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from .attention import attend_fused
from .layers import turn

Prefix = tuple[Float[Tensor, "... h p e"], Float[Tensor, "... h p e"]]
"""Keys and values that every token sees: `(h, p, e)`, or `(b, h, p, e)` where rows have their own."""


class QKV(NamedTuple):
    """Queries, keys and values of new tokens, not turned."""

    q: Float[Tensor, "b h t e"]
    k: Float[Tensor, "b h t e"]
    v: Float[Tensor, "b h t e"]


class Window(NamedTuple):
    """What windowed attention carries: keys (not turned) and values of the last `w` tokens, and how many are real.

    `w` is window - 1, or all tokens so far where there is no window. Right-aligned, the newest last; row r's first
    w - count[r] slots are empty (zeros), and nobody attends to them.
    """

    keys: Float[Tensor, "b h w e"]
    values: Float[Tensor, "b h w e"]
    count: Int[Tensor, "b"]  # type: ignore[assignment]  # tuple.count is not missed


def empty_window(batch: int, heads: int, window: int | None, width: int, like: Tensor) -> Window:
    """A `Window` before the first token, with the dtype and device of `like`; a window of None is full attention.

    >>> empty_window(2, 4, 64, 16, torch.zeros(())).keys.shape
    torch.Size([2, 4, 63, 16])

    Raises ValueError unless window is None or >= 1, and width is even.
    """
    _check_window(window)
    if width % 2:
        raise ValueError(f"width must be even, as rotary positions turn pairs of channels, got {width}")
    keys, values = (like.new_zeros(batch, heads, (window or 1) - 1, width) for _ in range(2))
    return Window(keys, values, torch.zeros(batch, dtype=torch.long, device=like.device))


def slide(
    tokens: QKV,
    past: Window,
    window: int | None,
    prefix: Prefix | None = None,
    lengths: Int[Tensor, "b"] | None = None,
) -> tuple[Float[Tensor, "b h t e"], Window]:
    """Causal attention over the last `window` tokens and the prefix; gives the outputs and the next call's past.

        out_t = softmax([q_t . k_prefix, R_t q_t . R_s k_s] / sqrt(e)) [v_prefix, v_s],   t - window < s <= t

    Any split of a stream into calls gives the same outputs and the same end. With `window` None a token attends to
    all before it, and the past grows by t with each call. `lengths` (0..t; not checked, that would wait for the device)
    are the real tokens of each row, which padding follows: nobody real attends to it, its own outputs mean nothing, and
    it is not carried. The past is not cut from the graph.

    >>> q = k = v = torch.eye(4)[None, None]
    >>> out, past = slide(QKV(q, k, v), empty_window(1, 1, 3, 4, q), 3, lengths=torch.tensor([1]))
    >>> out.shape, past.count
    (torch.Size([1, 1, 4, 4]), tensor([1]))

    Raises ValueError where `past` was made for another window, batch or head.
    """
    b, h, t, e = tokens.k.shape
    check_past(past, window, (b, h, e))
    width = past.keys.shape[2]
    seen = Window(torch.cat([past.keys, tokens.k], dim=2), torch.cat([past.values, tokens.v], dim=2), past.count)
    out = _attend(tokens.q, seen, window, prefix)
    return out, newest(seen, t, width if window else width + t, lengths)


def _check_window(window: int | None) -> None:
    if window is not None and window < 1:
        raise ValueError(f"window must be >= 1, or None for full attention, got {window}")


def check_past(past: Window, window: int | None, shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless the past is one of this window, and of tokens of this shape: batch, heads, width."""
    _check_window(window)
    held = past.keys.shape[2]
    if window and held != window - 1:
        raise ValueError(f"past holds {held} tokens, a window of {window} needs {window - 1}: use empty_window's")
    theirs = past.keys.shape[0], past.keys.shape[1], past.keys.shape[3]
    if shape != theirs:
        raise ValueError(
            f"past has (batch, heads, width) {theirs}, the tokens have {shape}: use these tokens' own past"
        )


def _attend(q: Float[Tensor, "b h t e"], seen: Window, window: int | None, prefix: Prefix | None) -> Tensor:
    t, s = q.shape[2], seen.keys.shape[2]
    cos, sin = turns(s, q)
    turned, keys = turn(q, cos[s - t :], sin[s - t :]), turn(seen.keys, cos, sin)
    if s == t and window is None and prefix is None:
        return attend_fused(turned, keys, seen.values, causal=True)
    size = _block_size(t, window)
    blocks = QKV(*(_blocks(x, t, size) for x in (turned, keys, seen.values)))
    bias = _bias(blocks, seen.count, window)
    if prefix is None:
        out = _attend_alone(blocks, bias)
    else:
        far = _blocks((q * q.shape[3] ** -0.5) @ prefix[0].mT, t, size)
        out = _attend_jointly(blocks, bias, far, prefix[1])
    return rearrange(out, "b n h c e -> b h (n c) e")[:, :, :t]


def turns(length: int, like: Float[Tensor, "*b e"]) -> tuple[Float[Tensor, "s e"], Float[Tensor, "s e"]]:
    """Cosines and sines of positions 0..length - 1, of the width, dtype and device of `like`."""
    table = turn_table(1 << (length - 1).bit_length(), like.shape[-1], like.dtype, like.device)
    return table[0][:length], table[1][:length]


@lru_cache(maxsize=64)
def turn_table(length: int, e: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `turns` cuts from: few lengths, kept; computed in float64, so that only the last digit is lost."""
    with torch.inference_mode(False):
        frequency = 10_000.0 ** (-torch.arange(0, e, 2, dtype=torch.float64) / e)
        angle = (torch.arange(length, dtype=torch.float64)[:, None] * frequency).repeat(1, 2)
        return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def _block_size(t: int, window: int | None) -> int:
    """Queries per block: half a window within 32..128, the fastest of those tried; then as even as they can be."""
    if window is None or not t:
        return max(t, 1)
    blocks = -(-t // min(max(window // 2, 32), 128))
    return -(-t // blocks)


def _blocks(x: Float[Tensor, "b h s e"], t: int, size: int) -> Float[Tensor, "b n h c e"]:
    """The last `t` tokens in blocks of `size`, each with the s - t tokens before it; zeros pad the last block."""
    pad = max(-t % size, size - t)
    x = F.pad(x, (0, 0, 0, pad)) if pad else x
    return rearrange(x.unfold(2, x.shape[2] - pad - t + size, size), "b h n e c -> b n h c e")


def _bias(blocks: QKV, count: Int[Tensor, "b"], window: int | None) -> Float[Tensor, "b n 1 c s"]:
    """0 where a query of a block may look, -inf elsewhere: later tokens, those out of reach, empty slots."""
    n, (size, s) = blocks.q.shape[1], (blocks.q.shape[3], blocks.k.shape[3])
    query, key, block = (torch.arange(i, device=count.device) for i in (size, s, n))
    back = query[:, None] + (s - size) - key
    near = (back >= 0) if window is None else (back >= 0) & (back < window)
    real = block[:, None] * size + key >= (s - size) - count[:, None, None]
    bias = blocks.q.new_zeros(len(count), n, 1, size, s)
    return bias.masked_fill_(~(near & real[:, :, None, None]), -torch.inf)


def _attend_alone(blocks: QKV, bias: Float[Tensor, "b n 1 c s"]) -> Float[Tensor, "b n h c e"]:
    q, k, v = (x.flatten(0, 1) for x in blocks)
    return attend_fused(q, k, v, bias.flatten(0, 1)).unflatten(0, blocks.q.shape[:2])


def _attend_jointly(
    blocks: QKV,
    bias: Float[Tensor, "b n 1 c s"],
    far: Float[Tensor, "b n h c p"],
    values: Float[Tensor, "... h p e"],
) -> Float[Tensor, "b n h c e"]:
    """One softmax over the prefix, whose logits are `far` and whose values are given, and the tokens of each block."""
    b, n, h, _, e = blocks.q.shape
    near = ((blocks.q * e**-0.5) @ blocks.k.mT).add_(bias)
    share = torch.cat([far, near], dim=-1).softmax(-1)
    values = (values if values.ndim == 4 else values[None])[:, None].expand(b, n, h, -1, e)
    return share @ torch.cat([values, blocks.v], dim=3)


def newest(seen: Window, t: int, width: int, lengths: Int[Tensor, "b"] | None) -> Window:
    """The last `width` (at most all) real tokens of rows, when `t` slots of `seen` are new, `lengths` of them real."""
    old = seen.keys.shape[2] - t
    if lengths is None:
        # A copy, as a view would hold on to the whole call's keys for the sake of a window.
        keys, values = (x[:, :, old + t - width :].clone() for x in seen[:2])
        return Window(keys, values, (seen.count + t).clamp_max(width))
    slot = (old + lengths - width)[:, None] + torch.arange(width, device=lengths.device)
    found = (x.take_along_dim(slot.clamp_min(0)[:, None, :, None], dim=2) for x in seen[:2])
    keys, values = (x.masked_fill((slot < 0)[:, None, :, None], 0) for x in found)
    return Window(keys, values, (seen.count + lengths).clamp_max(width))
