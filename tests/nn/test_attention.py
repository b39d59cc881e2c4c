import pytest
import torch
import torch.nn.functional as F

from ttmem.nn import attend, attention, visible
from ttmem.nn.attention import attend_near

pytestmark = pytest.mark.usefixtures("float64")
CPU = torch.device("cpu")


def qkv(t=3, s=5, b=2, h=2, e=4):
    return torch.randn(b, h, t, e), torch.randn(b, h, s, e), torch.randn(b, h, s, e)


@pytest.mark.parametrize("mask", [None, visible(3, 2, None, CPU), torch.tensor([[[[True, False, True, True, False]]]])])
def test_attention_is_the_fused_one(mask):
    q, k, v = qkv()
    mask = None if mask is None else mask.expand(1, 1, 3, 5)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attend(q, k, v, mask), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_can_be_differentiated_twice(masked):
    q, k, v = (x.requires_grad_() for x in qkv(t=2, s=3, b=1, h=1, e=2))
    mask = visible(2, 1, None, CPU)[None, None] if masked else None
    assert torch.autograd.gradcheck(attend, (q, k, v, mask))
    assert torch.autograd.gradgradcheck(attend, (q, k, v, mask))


def test_what_is_masked_gets_no_weight_and_no_gradient():
    q, k, v = (x.requires_grad_() for x in qkv())
    mask = torch.tensor([True, True, False, True, False]).expand(1, 1, 3, 5)
    grads = torch.autograd.grad(attend(q, k, v, mask).square().sum(), (k, v))
    for gradient in grads:
        assert not gradient[:, :, [2, 4]].any() and gradient[:, :, [0, 1, 3]].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masking_does_not_overflow_in_short_floats(dtype):
    q, k, v = (x.to(dtype) for x in qkv())
    mask = torch.zeros(1, 1, 3, 5, dtype=torch.bool)
    out = attend(q, k, v, mask)
    assert out.dtype == dtype and torch.isfinite(out).all()


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("window", [None, 1, 2, 9])
def test_visible_says_who_sees_whom(prefix, window):
    seen = visible(5, prefix, window, CPU)
    for row in range(5):
        for column in range(prefix + 5):
            back = row - (column - prefix)
            wanted = column < prefix or (back >= 0 and (window is None or back < window))
            assert seen[row, column].item() == wanted


def test_a_mask_first_made_in_inference_mode_serves_training_too():
    attention._kept.cache_clear()
    with torch.inference_mode():
        visible(3, 2, None, CPU)
    q, k, v = (x.requires_grad_() for x in qkv())
    attend(q, k, v, visible(3, 2, None, CPU)[None, None]).sum().backward()
    assert k.grad.any()


def test_small_masks_are_made_once_and_large_ones_not_kept():
    assert visible(40, 2, None, CPU) is visible(40, 2, None, CPU)
    before = attention._kept.cache_info().currsize
    assert visible(1024, 8, None, CPU).shape == (1024, 1032)
    assert attention._kept.cache_info().currsize == before


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("t", [1, 2, 7])
def test_a_short_window_is_masked_attention_at_a_lower_price(window, prefix, t):
    q, k, v = (torch.randn(2, 3, t, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    far = [torch.randn(2, 3, prefix, 4, dtype=torch.float64) for _ in range(2)]
    keys, values = ([far[0], k], [far[1], v]) if prefix else ([k], [v])
    mask = visible(t, prefix, window, torch.device("cpu"))
    slow = attend(q, torch.cat(keys, 2), torch.cat(values, 2), mask)
    fast = attend_near(q, keys, values, window)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    weight = torch.randn_like(slow)
    for twin in zip(*(torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (fast, slow)), strict=True):
        torch.testing.assert_close(*twin, rtol=0, atol=1e-12)
