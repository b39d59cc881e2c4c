import pytest
import torch

from core.titans_rows import assert_close, leaf
from ttmem.core.coefficients import coefficients, span_products

pytestmark = pytest.mark.usefixtures("float64")
T, CHANNELS = 5, 2
heards = pytest.mark.parametrize("heard", [None, [1.0, 1.0, 1.0, 0.0, 0.0], [0.0] * T], ids=["all", "three", "none"])


def drawn(heard):
    """Gates of one chunk, shut where a token is not heard."""
    heard = None if heard is None else torch.tensor([heard])
    open_ = torch.ones(1, T) if heard is None else heard
    return torch.rand(1, T) * open_, -torch.rand(1, T) * open_, -torch.rand(1, T, CHANNELS) * open_[..., None], heard


def walked(lr, momentum, keep, heard):
    """W and S behind each token as rows of weights: of W before, of S before, of each gradient."""
    fast, past = torch.eye(T + 2)[0].expand(CHANNELS, -1), torch.eye(T + 2)[1].expand(CHANNELS, -1)
    found = []
    for t in range(T):
        if heard is None or heard[0, t]:
            past = (momentum[0, t].exp() if momentum is not None else 0) * past + lr[0, t] * torch.eye(T + 2)[t + 2]
            fast = (keep[0, t].exp()[:, None] if keep is not None else 1) * fast + past
        found.append(fast)
    return torch.stack(found, dim=1), past[0]


@heards
def test_coefficients_are_what_the_recurrence_gathers(heard):
    gates = drawn(heard)
    found, (fast, past) = coefficients(*gates), walked(*gates)
    assert_close(found.first[0].T, fast[:, :, 0])
    assert_close(found.past[0].T, fast[:, :, 1])
    assert_close(found.mix[0], fast[:, :, 2:])
    assert_close((found.carry[0, 0, 0], found.tail[0, :, 0]), (past[1], past[2:]))


@heards
def test_without_momentum_a_gradient_acts_once(heard):
    lr, _, keep, heard = drawn(heard)
    found, (fast, _) = coefficients(lr, None, keep, heard), walked(lr, None, keep, heard)
    assert_close((found.first[0].T, found.mix[0]), (fast[:, :, 0], fast[:, :, 2:]))
    assert found.past is found.carry is found.tail is None


@heards
def test_without_forgetting_all_channels_keep_everything(heard):
    lr, momentum, _, heard = drawn(heard)
    found, (fast, _) = coefficients(lr, momentum, None, heard), walked(lr, momentum, None, heard)
    assert torch.equal(found.first, torch.ones(1, T, 1))
    assert_close(found.mix[0], fast[:1, :, 2:])


def test_all_chunks_at_once_are_each_chunk_alone():
    lr, momentum, keep = torch.rand(2, 3, T), -torch.rand(2, 3, T), -torch.rand(2, 3, T, CHANNELS)
    found = coefficients(lr, momentum, keep)
    for i in range(3):
        assert_close(tuple(found.chunks()[i]), tuple(coefficients(lr[:, i], momentum[:, i], keep[:, i])))


def test_products_of_gates_have_exact_gradients():
    assert torch.autograd.gradcheck(span_products, leaf(-torch.rand(2, T)))


def test_products_of_gates_that_are_shut_are_zero_and_never_more_than_one():
    found = span_products(torch.full((1, 500), -20.0))
    assert torch.isfinite(found).all() and found.max() == 1 and not found.triu(1).any() and found[0, 1, 0] < 1e-8
