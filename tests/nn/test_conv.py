"""The short convolution is its sum, sees no future, goes on where it ended, and has as many gradients as asked for."""

import pytest
import torch

from ttmem.nn import CausalConv, causal_conv

pytestmark = pytest.mark.usefixtures("float64")
kernels = pytest.mark.parametrize("kernel", [1, 2, 4])


def drawn(*shape):
    return torch.randn(shape, requires_grad=True)


def summed(x, weight, past):
    """Token by token, as it is defined; one layer."""
    kernel, before = len(weight), past.shape[1]
    seen = torch.cat([past, x], dim=1)
    taps = [[seen[:, t - j] * weight[kernel - 1 - j] for j in range(min(kernel, t + 1))] for t in range(seen.shape[1])]
    return x + torch.stack([sum(found) for found in taps[before:]], dim=1)


@kernels
@pytest.mark.parametrize("past", [0, 1, 3, 7])
@pytest.mark.parametrize("t", [1, 6])
def test_the_convolution_is_its_sum_token_by_token_and_so_are_its_first_and_second_gradients(kernel, past, t):
    given = drawn(2, t, 3), drawn(kernel, 3), drawn(2, past, 3)
    found = []
    for form in (causal_conv, summed):
        y = form(*given)
        first = torch.autograd.grad(y.sin().sum(), given, create_graph=True, materialize_grads=True)
        total = sum(grad.square().sum() for grad in first)
        found.append((y, *first, *torch.autograd.grad(total, given, materialize_grads=True)))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-11, atol=1e-11)


@kernels
def test_the_layers_of_a_group_have_a_kernel_each(kernel):
    x, weight, past = drawn(2, 3, 5, 4), drawn(2, kernel, 4), drawn(2, 3, 2, 4)
    alone = [causal_conv(*each) for each in zip(x, weight, past, strict=True)]
    torch.testing.assert_close(causal_conv(x, weight, past), torch.stack(alone), rtol=0, atol=0)
    grads = torch.autograd.grad(causal_conv(x, weight, past).sin().sum(), (x, weight, past), materialize_grads=True)
    wanted = torch.autograd.grad(sum(y.sin().sum() for y in alone), (x, weight, past), materialize_grads=True)
    for mine, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("token", [0, 3, 5])
def test_the_convolution_does_not_see_the_future(token):
    conv, x = CausalConv(3, 4), torch.randn(2, 6, 3)
    changed = x.clone()
    changed[:, token] += 1
    before, after = conv(x), conv(changed)
    assert torch.equal(before[:, :token], after[:, :token]) and not torch.equal(before[:, token], after[:, token])


@kernels
@pytest.mark.parametrize("past", [0, 1, 3, 7])
def test_the_convolution_of_a_sequence_in_two_pieces_is_the_convolution_of_the_whole(kernel, past):
    conv, x = CausalConv(3, kernel), torch.randn(2, past + 5, 3)
    torch.testing.assert_close(conv(x[:, past:], x[:, :past]), conv(x)[:, past:], rtol=1e-12, atol=1e-12)


def test_the_convolution_has_second_gradients_by_difference_quotients_too():
    assert torch.autograd.gradgradcheck(
        lambda *x: causal_conv(*x).square(), (drawn(1, 4, 2), drawn(3, 2), drawn(1, 2, 2))
    )


def test_torch_func_and_inference_mode_take_it():
    x, weight = torch.randn(2, 5, 3), torch.randn(4, 3)
    ask = lambda x, weight: causal_conv(x, weight).sin().sum()  # noqa: E731
    wanted = torch.autograd.grad(ask(x.requires_grad_(), weight), x)[0]
    torch.testing.assert_close(torch.func.grad(ask)(x.detach(), weight), wanted, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        torch.testing.assert_close(torch.func.grad(ask)(x.detach(), weight), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("one, other", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_half_precision_is_widened_to_the_wider_of_tokens_and_kernel(one, other):
    x, weight = torch.randn(1, 4, 2).to(one).requires_grad_(), torch.randn(3, 2).to(other).requires_grad_()
    y = causal_conv(x, weight)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, causal_conv(x.float(), weight.float()), rtol=0, atol=0)
    assert [grad.dtype for grad in torch.autograd.grad(y.sum(), (x, weight))] == [one, other]
