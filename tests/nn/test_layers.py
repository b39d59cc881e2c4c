import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ttmem.nn import RMSNorm, SwiGLU, rotary
from ttmem.nn.layers import outputs

pytestmark = pytest.mark.usefixtures("float64")


def test_a_normed_vector_has_mean_square_one_and_forgets_its_length():
    norm, x = RMSNorm(8, eps=0.0), torch.randn(2, 3, 8)
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(2, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm(7 * x), norm(x), rtol=1e-12, atol=1e-12)


def test_the_norm_of_zero_is_zero_with_a_finite_gradient():
    x = torch.zeros(1, 8, requires_grad=True)
    RMSNorm(8)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_swiglu_is_its_formula():
    feed, x = SwiGLU(4, 6), torch.randn(2, 3, 4)
    gate, up = feed.up.weight[:6], feed.up.weight[6:]
    wanted = (F.silu(x @ gate.T) * (x @ up.T)) @ feed.down.weight.T
    torch.testing.assert_close(feed(x), wanted, rtol=1e-12, atol=1e-12)


def test_rotary_is_a_rotation():
    x = torch.randn(2, 2, 5, 6)
    turned = rotary(x, start=11)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert torch.equal(rotary(x)[:, :, 0], x[:, :, 0]) and not torch.allclose(turned, x)


def test_rotary_turns_the_first_pair_of_channels_by_one_radian_per_position():
    x = torch.zeros(1, 1, 4, 6)
    x[..., 0] = 1.0
    turned = rotary(x, start=2)[0, 0]
    wanted = torch.tensor([[math.cos(p), math.sin(p)] for p in (2, 3, 4, 5)])
    torch.testing.assert_close(turned[:, [0, 3]], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [1, 50])
def test_rotary_products_depend_on_the_distance_alone(shift):
    q, k = torch.randn(1, 1, 5, 6), torch.randn(1, 1, 5, 6)
    here, there = (rotary(q, s) @ rotary(k, s).mT for s in (0, shift))
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(rotary(q, shift) @ rotary(k).mT, here, atol=1e-2)


def test_rotary_may_start_anywhere():
    x = torch.randn(1, 2, 7, 4)
    assert torch.equal(rotary(x)[:, :, 3:], rotary(x[:, :, 3:], start=3))


def test_some_outputs_of_a_layer_are_those_of_all_of_it_also_behind_an_adapter():
    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear):
            super().__init__()
            self.base, self.weight = base, base.weight

        def forward(self, x):
            return self.base(x) + x.sum(-1, keepdim=True)

    base, x = nn.Linear(4, 12, bias=False), torch.randn(2, 3, 4)
    for layer in (base, Adapter(base)):
        torch.testing.assert_close(outputs(layer, x, 4, 12), layer(x)[..., 4:])
