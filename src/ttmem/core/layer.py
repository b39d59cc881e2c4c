"""One layer of a Titans memory over one chunk: what it says of its inputs, and its weights behind the last token.

    said = b z W + f z S - P delta            P_ij = G_ij (a_j . z_i)
    W'   = b_T W + f_T S - (a G_T)^T delta    S' = c S - (a h)^T delta

`by_autograd` is these lines; `LayerChunk`, their gradient by hand in the least number of products, is what runs where
there is momentum and one forgetting gate per layer.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .coefficients import Coefficients, first_order_only


class Layer(NamedTuple):
    """One layer of the memory at the start of a chunk, and the gradients `a^T delta` of the chunk's tokens."""

    fast: Float[Tensor, "n e o"]
    velocity: Float[Tensor, "n e o"] | None
    a: Float[Tensor, "n t e"]
    delta: Float[Tensor, "n t o"]


def layer_chunk(
    layer: Layer, weight: Coefficients, z: Float[Tensor, "n t e"]
) -> tuple[Float[Tensor, "n t o"], Tensor, Tensor | None]:
    """What a layer says of its inputs `z`, and its W and S at the chunk's end."""
    if weight.mix.shape[1] > 1 or layer.velocity is None:
        return by_autograd(layer, weight, z)
    mix = weight.mix.squeeze(1)
    return LayerChunk.apply(*layer, z, weight.first, weight.past, mix, weight.carry, weight.tail)


def by_autograd(
    layer: Layer, weight: Coefficients, z: Float[Tensor, "n t e"]
) -> tuple[Float[Tensor, "n t o"], Tensor, Tensor | None]:
    """`layer_chunk`, as it is written above."""
    a, delta = layer.a, layer.delta
    said = (weight.first * z) @ layer.fast - scores(weight.mix, z, a) @ delta
    last = weight.mix[:, :, -1].transpose(1, 2)
    fast = weight.first[:, -1, :, None] * layer.fast - (a * last).transpose(1, 2) @ delta
    if layer.velocity is None or weight.past is None:
        return said, fast, None
    assert weight.carry is not None and weight.tail is not None
    said = said + (weight.past * z) @ layer.velocity
    fast = fast + weight.past[:, -1, :, None] * layer.velocity
    velocity = weight.carry * layer.velocity - (a * weight.tail).transpose(1, 2) @ delta
    return said, fast, velocity


def scores(
    mix: Float[Tensor, "n _ t t"], z: Float[Tensor, "n t e"], a: Float[Tensor, "n t e"]
) -> Float[Tensor, "n t t"]:
    """`G_ij (a_j . z_i)`, with a G of its own for each channel where these forget apart."""
    if mix.shape[1] == 1:
        return mix[:, 0] * (z @ a.transpose(1, 2))
    return torch.einsum("neij,nie,nje->nij", mix, z, a)


class LayerChunk(torch.autograd.Function):
    """`by_autograd` for one forgetting gate and momentum; the sums of products are made in place."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `layer_chunk`; `mix` is `(n, t, t)`."""
        w, s, a, delta, z, first, past, mix, carry, tail = given
        inner = z @ a.transpose(1, 2)
        said = torch.bmm(z * first, w)
        said.baddbmm_(z * past, s).baddbmm_(mix * inner, delta, alpha=-1)
        fast = (w * first[:, -1:]).addcmul_(s, past[:, -1:])
        fast.baddbmm_((a * mix[:, -1, :, None]).transpose(1, 2), delta, alpha=-1)
        velocity = (s * carry).baddbmm_((a * tail).transpose(1, 2), delta, alpha=-1)
        ctx.save_for_backward(*given, inner)
        return said, fast, velocity

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the order of `forward`'s arguments."""
        first_order_only()
        with torch.autocast(outer[0].device.type, enabled=False):
            return LayerChunk.gradient(outer, ctx.saved_tensors)

    @staticmethod
    def gradient(outer: tuple[Tensor, ...], saved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`backward`, in the dtype of what was saved."""
        (y, gw, gs), (w, s, a, delta, z, first, past, mix, carry, tail, inner) = outer, saved
        last = mix[:, -1, :, None]
        # the scores
        of_scores = torch.bmm(y, delta.transpose(1, 2)).neg_()
        of_delta = torch.bmm((mix * inner).transpose(1, 2), y)
        of_delta.baddbmm_(a * last, gw).baddbmm_(a * tail, gs).neg_()
        of_mix = of_scores * inner
        of_scores.mul_(mix)
        # what is read of W and S
        yw, ys = torch.bmm(y, w.transpose(1, 2)), torch.bmm(y, s.transpose(1, 2))
        of_first, of_past = (z * yw).sum(-1, keepdim=True), (z * ys).sum(-1, keepdim=True)
        of_z = yw.mul_(first).addcmul_(ys, past).baddbmm_(of_scores, a)
        # what is written to them
        uw, us = torch.bmm(delta, gw.transpose(1, 2)), torch.bmm(delta, gs.transpose(1, 2))
        of_mix[:, -1].sub_((a * uw).sum(-1))
        of_tail = (a * us).sum(-1, keepdim=True).neg_()
        of_a = uw.mul_(last).addcmul_(us, tail).neg_().baddbmm_(of_scores.transpose(1, 2), z)
        # W and S themselves
        of_first[:, -1:].add_((gw * w).sum((1, 2), keepdim=True))
        of_past[:, -1:].add_((gw * s).sum((1, 2), keepdim=True))
        of_carry = (gs * s).sum((1, 2), keepdim=True)
        of_w = (gw * first[:, -1:]).baddbmm_((z * first).transpose(1, 2), y)
        of_s = (gs * carry).addcmul_(gw, past[:, -1:]).baddbmm_((z * past).transpose(1, 2), y)
        return of_w, of_s, of_a, of_delta, of_z, of_first, of_past, of_mix, of_carry, of_tail
