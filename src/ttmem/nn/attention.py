"""Attention: the one place of the package that picks a backend. All but `attend_fused` can be differentiated twice."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    q: Float[Tensor, "b h t e"],
    k: Float[Tensor, "b h s e"],
    v: Float[Tensor, "b h s e"],
    mask: Bool[Tensor, "*#bh #t s"] | None = None,
) -> Float[Tensor, "b h t e"]:
    """Softmax attention of `t` queries over `s` keys; `mask` is true where a query may look.

    Written out as matrix products, because the fused kernels of `scaled_dot_product_attention` have no second
    derivative, which a second-order write needs; on small segments it is also as fast.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ v


def attend_fused(
    q: Float[Tensor, "b h t e"],
    k: Float[Tensor, "b h s e"],
    v: Float[Tensor, "b h s e"],
    bias: Float[Tensor, "*#bh #t s"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h t e"]:
    """`attend` by a fused kernel, which never keeps the `(t, s)` shares: first derivatives only.

    `bias` is added to the scaled scores (-inf: may not look); every query must be left with a key. `causal` (then
    t = s, and no bias) hides what comes after a token, and spares the kernel that half of the work.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)


def visible(t: int, prefix: int, window: int | None, device: torch.device) -> Bool[Tensor, "t s"]:
    """Who sees whom when `t` tokens follow `prefix` memory tokens: `(t, prefix + t)`, true where allowed.

    Every token sees the whole prefix, itself, and what came before it, at most `window` tokens of it (None: all).

    >>> visible(3, 1, 2, torch.device("cpu")).int().tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]
    """
    # A mask takes so many bytes. Compiled code has it built in, and torch.compile warns of a cache.
    kept = t * (prefix + t) <= _KEPT and not torch.compiler.is_compiling()
    make = _kept if kept else _made
    return make(t, prefix, window, device)


def _made(t: int, prefix: int, window: int | None, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        row, column = torch.arange(t, device=device)[:, None], torch.arange(t, device=device)
        near = (column <= row) & (row - column < (window or t + 1))
        return torch.cat([near.new_ones(t, prefix), near], dim=1)


_KEPT, _kept = 2**20, lru_cache(maxsize=64)(_made)


def attend_near(
    q: Float[Tensor, "b h t e"],
    keys: list[Float[Tensor, "#b h _ e"]],
    values: list[Float[Tensor, "b h _ e"]],
    window: int,
) -> Float[Tensor, "b h t e"]:
    """`attend` behind the mask of `visible`, at the cost of prefix + window keys per token instead of all of them.

    The last of `keys` and `values` are the tokens' own, the one before (if any) the prefix's, of one row for all or a
    row each. Worth it for short windows, where the full square of scores would be nearly all mask.
    """
    near = torch.stack([(q * shifted(keys[-1], i)).sum(-1) for i in range(window)], dim=-1)
    if window > 1:
        back = torch.arange(window, device=q.device)
        near = near.masked_fill(back > torch.arange(q.shape[2], device=q.device)[:, None], torch.finfo(q.dtype).min)
    scores = [q @ k.transpose(-1, -2) for k in keys[:-1]] + [near]
    share = (torch.cat(scores, dim=-1) * q.shape[-1] ** -0.5).softmax(-1)
    far, close = share[..., :-window], share[..., -window:]
    out = sum(close[..., i : i + 1] * shifted(values[-1], i) for i in range(window))
    return out + far @ values[0] if len(values) > 1 else out


def shifted(x: Float[Tensor, "b h t e"], by: int) -> Float[Tensor, "b h t e"]:
    """Each token's predecessor `by` places back, zeros before the first."""
    return F.pad(x, (0, 0, by, 0))[:, :, : x.shape[2]] if by else x
