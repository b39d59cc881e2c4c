"""A layer over a chunk: the gradient by hand is autograd's, and says so where it cannot be differentiated again."""

import pytest
import torch

from ttmem.core.coefficients import coefficients
from ttmem.core.layer import Layer, by_autograd, layer_chunk

N, T, IN, OUT = 2, 5, 3, 4


def made() -> tuple[list[torch.Tensor], Layer, torch.Tensor]:
    torch.manual_seed(0)
    leaves = [torch.randn(*s, dtype=torch.float64) for s in ((N, IN, OUT), (N, IN, OUT), (N, T, IN), (N, T, OUT))]
    leaves += [torch.randn(N, T, IN, dtype=torch.float64)]
    gates = [torch.rand(N, T, dtype=torch.float64), -torch.rand(N, T, dtype=torch.float64)]
    gates += [-torch.rand(N, T, 1, dtype=torch.float64)]
    leaves = [leaf.requires_grad_() for leaf in (*leaves, *gates)]
    return leaves, Layer(*leaves[:4]), leaves[4]


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1, 2)])
def test_the_gradient_by_hand_is_that_of_autograd(wanted):
    leaves, layer, z = made()
    found = []
    for form in (layer_chunk, by_autograd):
        outs = form(layer, coefficients(*leaves[5:]), z)
        total = sum((outs[i] * torch.linspace(1, 2, outs[i].numel()).view_as(outs[i]).sin()).sum() for i in wanted)
        grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        found.append([*outs, *grads])
    for hand, auto in zip(*found, strict=True):
        torch.testing.assert_close(hand, auto, rtol=1e-12, atol=1e-12)


def test_finite_differences_agree_with_the_gradient_by_hand():
    leaves, _, _ = made()

    def run(w, s, a, delta, z, *gates):
        return layer_chunk(Layer(w, s, a, delta), coefficients(*gates), z)

    assert torch.autograd.gradcheck(run, leaves)


def test_a_second_derivative_is_refused_and_told_where_to_get_one():
    leaves, layer, z = made()
    said, _, _ = layer_chunk(layer, coefficients(*leaves[5:]), z)
    with pytest.raises(RuntimeError, match="tokenwise"):
        torch.autograd.grad(said.square().sum(), z, create_graph=True)
