import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ttmem.nn import QKV, Window, attend, attend_fused, empty_window, slide, visible
from ttmem.nn.window import turn_table

pytestmark = pytest.mark.usefixtures("float64")
CPU = torch.device("cpu")
WINDOWS = [1, 2, 5, 8, 64, None]
B, H, E = 2, 3, 4


def tokens(t, b=B, h=H, e=E):
    return QKV(*(torch.randn(b, h, t, e) for _ in range(3)))


def persistent(kind, p=3):
    shape = {"shared": (H, p, E), "by row": (B, H, p, E)}
    return None if kind == "none" else (torch.randn(shape[kind]), torch.randn(shape[kind]))


def fresh(x, window):
    return empty_window(*x.q.shape[:2], window, x.q.shape[3], x.q)


def cut(x, *slices):
    return QKV(*(part[slices] for part in x))


def turned(x):
    """Rotary positions as complex numbers."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)


def naive(x, window, prefix=None):
    """The whole square of scores, from the equation."""
    t = x.q.shape[2]
    back = torch.arange(t)[:, None] - torch.arange(t)
    hidden = (back < 0) | (back >= (window or t))
    scores, values = (turned(x.q) @ turned(x.k).mH).real.masked_fill(hidden, -torch.inf), x.v
    if prefix:
        keys, far = (part.expand(len(x.q), *part.shape[-3:]) for part in prefix)
        scores, values = torch.cat([x.q @ keys.mT, scores], -1), torch.cat([far, values], 2)
    return (scores / x.q.shape[-1] ** 0.5).softmax(-1) @ values


def stream(x, window, pieces, prefix=None):
    past, outs, done = fresh(x, window), [], 0
    for size in pieces:
        out, past = slide(cut(x, ..., slice(done, done + size), slice(None)), past, window, prefix)
        outs.append(out)
        done += size
    return torch.cat(outs, 2), past


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def real(past, row):
    """The tokens of a row that a window really holds."""
    n = int(past.count[row])
    keys, values = (x[row, :, x.shape[2] - n :] for x in past[:2])
    assert not any(x[row, :, : x.shape[2] - n].any() for x in past[:2])
    return keys, values


@pytest.mark.parametrize("prefix", ["none", "shared", "by row"])
@pytest.mark.parametrize("window", [*WINDOWS, 100])
@pytest.mark.parametrize("t", [1, 23, 150])
def test_windowed_attention_is_the_masked_square_of_scores(window, prefix, t):
    x, prefix = tokens(t), persistent(prefix)
    same(slide(x, fresh(x, window), window, prefix)[0], naive(x, window, prefix))


@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("window", WINDOWS)
def test_streaming_at_every_split_equals_one_call(window, prefix):
    x, prefix = tokens(23), persistent(prefix)
    out, end = stream(x, window, [23], prefix)
    for pieces in [(i, 23 - i) for i in range(24)] + [[1] * 23, [5, 1, 0, 9, 8]]:
        same(stream(x, window, pieces, prefix), (out, end))


@pytest.mark.parametrize("window", WINDOWS)
def test_streaming_in_blocks_equals_one_call(window):
    x, prefix = tokens(300), persistent("shared")
    same(stream(x, window, [131, 40, 1, 128], prefix), stream(x, window, [300], prefix))


@pytest.mark.parametrize("window", WINDOWS)
def test_the_window_holds_the_last_keys_and_values_as_they_came(window):
    x = tokens(23)
    width = 23 if window is None else min(window - 1, 23)
    past = stream(x, window, [9, 14])[1]
    assert past.count.tolist() == [width] * B
    for row in range(B):
        for held, came in zip(real(past, row), (x.k, x.v), strict=True):
            assert torch.equal(held, came[row, :, 23 - width :])


def test_the_window_does_not_hold_on_to_the_whole_call():
    x = tokens(400)
    for held in stream(x, 5, [400])[1][:2]:
        assert held.untyped_storage().nbytes() == B * H * 4 * E * 8


@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("window", WINDOWS)
def test_ragged_rows_equal_each_row_alone_and_go_on_so(window, prefix):
    prefix, calls = persistent(prefix), [(40, [0, 3, 40, 11]), (7, [7, 0, 2, 0]), (70, [1, 70, 0, 33])]
    ragged = fresh(tokens(1, b=4), window)
    alone = [fresh(tokens(1, b=1), window) for _ in range(4)]
    for t, lengths in calls:
        x = tokens(t, b=4)
        out, ragged = slide(x, ragged, window, prefix, torch.tensor(lengths))
        assert out.isfinite().all()
        for row, n in enumerate(lengths):
            wanted, alone[row] = slide(cut(x, slice(row, row + 1), slice(None), slice(n)), alone[row], window, prefix)
            same(out[row, :, :n], wanted[0])
            same(real(ragged, row), real(alone[row], 0))


@pytest.mark.parametrize("window", [5, None])
def test_padding_is_neither_seen_nor_carried(window):
    x, lengths = tokens(9), torch.tensor([4, 0])
    other = QKV(*(part.clone() for part in x))
    for part in other:
        part[0, :, 4:], part[1] = 7.0, -7.0
    (out, past), (changed, other_past) = (slide(y, fresh(y, window), window, None, lengths) for y in (x, other))
    assert torch.equal(out[0, :, :4], changed[0, :, :4])
    assert all(torch.equal(*pair) for pair in zip(past, other_past, strict=True))


@pytest.mark.parametrize("prefix", ["none", "shared"])
def test_empty_slots_are_not_attended(prefix):
    x, prefix, past = tokens(6), persistent(prefix), fresh(tokens(6), 5)
    filled = Window(past.keys + 9, past.values - 9, past.count)
    assert torch.equal(*(slide(x, w, 5, prefix)[0] for w in (past, filled)))


@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("window", [1, 2, 5, 64])
@pytest.mark.parametrize("token", [0, 37, 99])
def test_a_token_reaches_itself_and_the_window_after_it_alone(window, prefix, token):
    x, prefix = tokens(100), persistent(prefix)
    edited = QKV(*(part.clone() for part in x))
    for part in edited:
        part[:, :, token] += 1
    before, after = (slide(y, fresh(y, window), window, prefix)[0] for y in (x, edited))
    moved = (before != after).any(-1).any(0).any(0)
    reached = torch.zeros(100, dtype=torch.bool)
    reached[token : token + window] = True
    assert torch.equal(moved, reached)


def test_what_the_prefix_says_does_not_depend_on_the_position():
    q, prefix = torch.randn(B, H, 1, E).expand(-1, -1, 90, -1), persistent("shared", p=7)
    x = QKV(q, torch.zeros_like(q), torch.zeros_like(q))  # the tokens' logits are zero wherever they stand
    out = slide(x, fresh(x, 1), 1, prefix)[0]
    same(out, out[:, :, :1].expand_as(out))
    share = torch.cat([q[:, :, 0] @ prefix[0][0].mT * 0, torch.zeros(B, H, 1)], -1)
    share[..., :7] = torch.einsum("bhe,hpe->bhp", q[:, :, 0], prefix[0]) / E**0.5
    same(out[:, :, 0], torch.einsum("bhp,hpe->bhe", share.softmax(-1)[..., :7], prefix[1]))


def test_a_prefix_of_no_tokens_is_no_prefix():
    x, nothing = tokens(50), (torch.zeros(H, 0, E), torch.zeros(H, 0, E))
    same(slide(x, fresh(x, 8), 8, nothing)[0], slide(x, fresh(x, 8), 8)[0])


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("prefix", ["none", "shared", "by row"])
def test_gradients_are_those_of_finite_differences(window, prefix):
    held = stream(tokens(2), window, [2])[1]
    given = [*tokens(3), *held[:2], *(persistent(prefix, p=2) or [])]

    def run(q, k, v, keys, values, *far):
        out, past = slide(QKV(q, k, v), Window(keys, values, held.count), window, far or None, torch.tensor([3, 1]))
        return out[0], out[1, :, :1], *past[:2]

    assert torch.autograd.gradcheck(run, [x.detach().requires_grad_() for x in given])


@pytest.mark.parametrize("window", [5, 64, None])
def test_gradients_in_blocks_are_those_of_the_square_of_scores(window):
    x, prefix = tokens(150), persistent("shared")
    leaves, weight = [part.requires_grad_() for part in (*x, *prefix)], torch.randn(B, H, 150, E)
    for far, given in ((prefix, leaves), (None, leaves[:3])):
        fast, slow = slide(x, fresh(x, window), window, far)[0], naive(x, window, far)
        same(*(torch.autograd.grad((out * weight).sum(), given) for out in (fast, slow)))


def test_after_a_hundred_thousand_tokens_float32_is_as_exact_as_at_the_start():
    x = QKV(*(part.float() for part in tokens(100_064, b=1)))
    prefix = tuple(part.float() for part in persistent("shared"))
    with torch.no_grad():
        streamed = stream(x, 32, [25_000, 1, 49_999, 25_000, 64], prefix)[0]
        last = cut(x, ..., slice(-95, None), slice(None))
        anew = slide(last, fresh(last, 32), 32, prefix)[0]
    torch.testing.assert_close(streamed[:, :, -64:], anew[:, :, -64:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("window", [5, None])
def test_it_runs_under_inference_mode_and_what_that_made_serves_training(window, prefix):
    x, prefix = tokens(40), persistent(prefix)
    turn_table.cache_clear()
    with torch.inference_mode():
        out, past = stream(x, window, [17, 23], prefix)
    same(out, naive(x, window, prefix))
    x.k.requires_grad_()
    slide(x, fresh(x, window), window, prefix)[0].sum().backward()
    assert x.k.grad.any()


@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("window", [5, None])
@pytest.mark.parametrize("mixed", [False, True])
def test_autocast_to_bfloat16_moves_only_the_last_digits(window, prefix, mixed):
    x, prefix = tokens(40), persistent(prefix)
    wanted = naive(x, window, prefix)
    x, prefix = QKV(*(part.float() for part in x)), prefix and tuple(part.float() for part in prefix)
    x = x._replace(v=x.v.bfloat16()) if mixed else x
    leaf = x.k.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out, past = stream(x, window, [17, 23], prefix)
    assert out.dtype == torch.bfloat16 and past.keys.dtype == torch.float32
    torch.testing.assert_close(out.double(), wanted, rtol=0.05, atol=0.05)
    assert torch.autograd.grad(out.sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_short_and_finite(dtype):
    x, prefix = QKV(*(part.to(dtype) for part in tokens(40))), tuple(p.to(dtype) for p in persistent("shared"))
    for far in (None, prefix):
        out, past = slide(x, fresh(x, 5), 5, far, torch.tensor([0, 30]))
        assert out.dtype == past.keys.dtype == dtype and out.isfinite().all()


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that an operation gives, forward and backward; views do not count."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("prefix", ["none", "shared"])
def test_memory_grows_with_the_tokens_and_not_with_their_square(prefix):
    prefix = persistent(prefix)
    peaks = []
    for t in (4096, 8192):
        x = QKV(*(part.requires_grad_() for part in tokens(t, b=1)))
        with Largest() as largest:
            slide(x, fresh(x, 64), 64, prefix)[0].sum().backward()
        peaks.append(largest.numbers)
    assert peaks[1] < 2.1 * peaks[0] and peaks[1] <= H * 8192 * (64 + 32 + 3)


def test_full_attention_from_the_start_keeps_no_square_of_scores():
    x, kept = QKV(*(part.requires_grad_() for part in tokens(512, b=1))), []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y.numel()) or y, lambda y: y):
        slide(x, fresh(x, None), None)[0].sum().backward()
    assert kept and max(kept) <= H * 512 * E


@pytest.mark.parametrize("window", [None, 2])
def test_fused_attention_is_attention(window):
    q, k, v = tokens(6)
    mask = visible(6, 0, window, CPU)
    bias = torch.zeros(6, 6).masked_fill(~mask, -torch.inf)
    same(attend_fused(q, k, v, bias), attend(q, k, v, mask))
    same(attend_fused(q, k, v), attend(q, k, v))
    same(attend_fused(q, k, v, causal=True), attend(q, k, v, visible(6, 0, None, CPU)))


def test_wrong_input_is_named():
    x = tokens(4)
    with pytest.raises(ValueError, match="window must be >= 1, or None for full attention, got 0"):
        empty_window(B, H, 0, E, x.q)
    with pytest.raises(ValueError, match="width must be even.*got 5"):
        empty_window(B, H, 8, 5, x.q)
    with pytest.raises(ValueError, match="window must be >= 1, or None for full attention, got -1"):
        slide(x, fresh(x, 8), -1)
    with pytest.raises(ValueError, match="past holds 7 tokens, a window of 9 needs 8"):
        slide(x, fresh(x, 8), 9)
    with pytest.raises(ValueError, match=r"past has \(batch, heads, width\) \(3, 3, 4\), the tokens have \(2, 3, 4\)"):
        slide(x, empty_window(3, H, 8, E, x.q), 8)
