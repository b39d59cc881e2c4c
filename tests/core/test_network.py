import math

import pytest
import torch
import torch.nn.functional as F

from core.titans_rows import DIM, Case, assert_close, leaf, norm_of, weights
from ttmem.core import Norm, associative, surprise
from ttmem.core.network import activation, error_of, finish, limited, read, surprises, through_activation

pytestmark = pytest.mark.usefixtures("float64")
CASES = [Case(depth=depth, norm=norm) for depth in (1, 2, 3, 4) for norm in (False, True)]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"depth{case.depth}-norm{case.norm}")
norms = pytest.mark.parametrize("norm", [False, True])


def tokens(n=2, t=5):
    return leaf(torch.randn(n, t, DIM)), leaf(torch.randn(n, t, DIM))


def by_formula(fast, x, norm):
    """The memory's answer to one token of one row, written with sums over channels."""
    h = x
    for i, weight in enumerate(fast):
        h = h * (1 + torch.special.erf(h / math.sqrt(2))) / 2 if i else h
        h = sum(h[c] * weight[c] for c in range(len(h)))
    if norm is None:
        return h
    centred = h - h.sum() / DIM
    return x + centred / torch.sqrt((centred**2).sum() / DIM + norm.eps) * norm.gain + norm.bias


@cases
def test_reading_is_the_formula_row_by_row_and_token_by_token(case):
    fast, norm, (x, _) = weights(case), norm_of(case), tokens()
    found = read(fast, x, norm)
    for i in range(2):
        own = None if norm is None else Norm(norm.gain[i, 0], norm.bias[i, 0], norm.eps)
        for t in range(5):
            assert_close(found[i, t], by_formula([w[i] for w in fast.values()], x[i, t], own))


def by_autograd(fast, k, v, norm):
    """The gradient of each token's loss, `(token, n, d_in, d_out)` for every layer."""
    objective = associative(lambda w, x: read(w, x, norm))
    found = [surprise(objective, fast, (k[:, t : t + 1], v[:, t : t + 1]))[0] for t in range(k.shape[1])]
    return [torch.stack([grads[name] for grads in found]) for name in fast]


def outer(pairs):
    """The matrices that the rows `a, delta` stand for."""
    return [torch.einsum("nta,ntb->tnab", a, delta) for a, delta in pairs]


@cases
def test_surprises_are_the_gradients_of_autograd_token_by_token(case):
    fast, norm, (k, v) = weights(case), norm_of(case), tokens()
    assert_close(outer(surprises(fast, k, v, norm, None)), by_autograd(fast, k, v, norm))


@cases
def test_clipping_shortens_long_surprises_layer_by_layer_and_keeps_their_direction(case):
    fast, norm, (k, v) = weights(case), norm_of(case), tokens()
    grads = by_autograd(fast, k, v, norm)
    sizes = [grad.flatten(2).norm(dim=-1)[..., None, None] for grad in grads]
    clip = torch.stack(sizes).median().item()
    found = outer(surprises(fast, k, v, norm, clip))
    assert all((matrix.flatten(2).norm(dim=-1) <= clip * (1 + 1e-12)).all() for matrix in found)
    wanted = [torch.where(size > clip, grad * clip / size, grad) for size, grad in zip(sizes, grads, strict=True)]
    assert_close(found, wanted)


@norms
def test_the_error_is_the_slope_of_the_squared_distance(norm):
    norm, (k, v) = norm_of(Case(norm=norm)), tokens()
    h = leaf(torch.randn_like(k))
    exact = torch.autograd.grad((finish(h, k, norm) - v).square().sum(), h)[0]
    assert_close(error_of(h, k, v, norm), exact)


@norms
def test_the_error_is_the_finite_difference_of_the_squared_distance(norm):
    norm, (k, v) = norm_of(Case(norm=norm)), tokens()
    h, direction = torch.randn_like(k), torch.randn_like(k)
    ahead, behind = ((finish(h + step * direction, k, norm) - v).square().sum() for step in (1e-5, -1e-5))
    torch.testing.assert_close((error_of(h, k, v, norm) * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-7, atol=0)


@pytest.mark.parametrize("clip", [None, 0.5])
@cases
def test_the_meta_gradient_of_surprises_is_the_finite_difference(case, clip):
    fast, norm, pair = weights(case, n=1), norm_of(case, n=1), tokens(n=1, t=2)
    sources = (*pair, *fast.values(), *(() if norm is None else norm[:2]))

    def rows(k, v, *rest):
        own = None if norm is None else Norm(*rest[-2:], norm.eps)
        found = surprises(dict(zip(fast, rest, strict=False)), k, v, own, clip)
        return tuple(x.clone() for pair in found for x in pair)

    assert torch.autograd.gradcheck(rows, sources)


@cases
def test_the_meta_gradient_of_surprises_is_that_of_autograd(case):
    fast, norm, (k, v) = weights(case), norm_of(case), tokens()
    sources = [k, v, *fast.values(), *(() if norm is None else norm[:2])]
    ours, theirs = (
        torch.autograd.grad(sum(matrix.sin().sum() for matrix in matrices), sources, allow_unused=True)
        for matrices in (outer(surprises(fast, k, v, norm, None)), by_autograd(fast, k, v, norm))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert_close(torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other)


def test_the_gradient_through_the_activation_is_that_of_autograd():
    grad, h = leaf(torch.randn(40)), leaf(4 * torch.randn(40))
    assert_close(through_activation(grad, h), torch.autograd.grad(activation(h), h, grad)[0])


def test_the_gradient_through_the_activation_can_be_differentiated():
    grad, h = leaf(torch.randn(20)), leaf(3 * torch.randn(20))
    assert torch.autograd.gradcheck(through_activation, (grad, h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 30.0, 1e5])
def test_the_gradient_through_the_activation_is_finite_and_keeps_its_dtype(dtype, size):
    h = torch.tensor([-size, size], dtype=dtype, requires_grad=True)
    grad = torch.ones(2, dtype=dtype, requires_grad=True)
    found = through_activation(grad, h)
    bends = torch.autograd.grad(found.sum(), (grad, h))
    assert found.dtype == dtype and all(torch.isfinite(x).all() and x.dtype == dtype for x in (found, *bends))


def test_the_gradient_through_the_activation_can_be_differentiated_twice():
    grad, h = leaf(torch.randn(4)), leaf(torch.randn(4))
    assert torch.autograd.gradgradcheck(through_activation, (grad, h))


def test_a_row_s_surprise_depends_on_that_row_alone():
    case = Case(depth=3)
    fast, norm, (k, v) = weights(case), norm_of(case), tokens()
    before = surprises(fast, k, v, norm, 0.5)
    changed = [x + torch.tensor([0.0, 1.0])[:, None, None] for x in (k, v)]
    for (a, delta), (other_a, other_delta) in zip(before, surprises(fast, *changed, norm, 0.5), strict=True):
        assert torch.equal(a[0], other_a[0]) and torch.equal(delta[0], other_delta[0])
        assert not torch.equal(delta[1], other_delta[1])


@pytest.mark.parametrize("zero", ["a", "delta", "both"])
def test_clipping_nothing_leaves_nothing_and_a_finite_gradient(zero):
    a, delta = (leaf(torch.full((1, 2, 3), float(zero not in (name, "both")))) for name in ("a", "delta"))
    found = limited(a, delta, 0.5)
    assert torch.equal(found, delta)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(found.sum(), (a, delta), materialize_grads=True))


def test_the_norm_is_torch_s_layer_norm_and_a_residual():
    norm, (h, x) = norm_of(Case()), tokens()
    for i, found in enumerate(finish(h, x, norm)):
        assert_close(found, x[i] + F.layer_norm(h[i], (DIM,), norm.gain[i, 0], norm.bias[i, 0], norm.eps))
