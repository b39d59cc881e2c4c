"""Stacked bricks are the bricks of `nn.layers`, layer by layer."""

import pytest
import torch

from ttmem.nn import RMSNorm, SwiGLU, attend, rotary, visible
from ttmem.nn import stacked as bricks

pytestmark = pytest.mark.usefixtures("float64")
G, B, T, D = 3, 2, 5, 8
near = {"rtol": 0, "atol": 1e-12}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


def assert_layer_by_layer(found, layer):
    """The group's outputs, and the gradients of all its weights and inputs, are those of layers run one by one."""
    together, given = found
    alone = torch.stack([layer(i) for i in range(G)])
    torch.testing.assert_close(together, alone, **near)
    noise = torch.randn_like(alone)
    grads = (torch.autograd.grad((out * noise).sum(), given) for out in (together, alone))
    for one, other in zip(*grads, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, **near)


def test_a_linear_layer_is_its_product():
    x, w = drawn(G, B, T, D), drawn(G, D, 6)
    assert_layer_by_layer((bricks.linear(x, w), (x, w)), lambda i: x[i] @ w[i])


def test_the_norm_is_the_norm():
    x, w = drawn(G, B, T, D), drawn(G, D)
    assert_layer_by_layer((bricks.rms_norm(x, w), (x, w)), lambda i: filled(RMSNorm(D), weight=w[i])(x[i]))


def test_the_feed_forward_is_the_feed_forward():
    x, up, down = drawn(G, B, T, D), drawn(G, D, 12), drawn(G, 6, D)

    def layer(i):
        feed = SwiGLU(D, 6)
        filled(feed.up, weight=up[i].T), filled(feed.down, weight=down[i].T)
        return feed(x[i])

    assert_layer_by_layer((bricks.swiglu(x, up, down), (x, up, down)), layer)


def test_attention_is_attention_with_a_causal_mask():
    qkv, heads = drawn(G, B, T, 3 * D), 2

    def layer(i):
        q, k, v = qkv[i].unflatten(-1, (3, heads, D // heads)).permute(2, 0, 3, 1, 4)
        y = attend(rotary(q), rotary(k), v, visible(T, 0, None, q.device))
        return y.transpose(1, 2).flatten(2)

    found = bricks.attention(qkv, heads)
    torch.testing.assert_close(found, torch.stack([layer(i) for i in range(G)]), rtol=0, atol=1e-6)  # float32 angles


def test_attention_does_not_see_the_future_nor_other_rows_or_layers():
    qkv = torch.randn(G, B, T, 3 * D)
    before, changed = bricks.attention(qkv, 2), qkv.clone()
    changed[1, 0, 3] += 1
    moved = (bricks.attention(changed, 2) != before).any(-1)
    wanted = torch.zeros(G, B, T, dtype=torch.bool)
    wanted[1, 0, 3:] = True
    assert torch.equal(moved, wanted)


def filled(module, weight):
    """The module with another tensor as its weight, through which gradients go on."""
    del module.weight
    module.weight = weight
    return module
