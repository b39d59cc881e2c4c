import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttmem.nn.ragged import alignment, check_mask, latest, pack, unpack

pytestmark = pytest.mark.usefixtures("float64")
masks = st.integers(1, 7).flatmap(
    lambda t: st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=1, max_size=4).map(torch.tensor)
)
lengths_of = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)
shapes = st.sampled_from([(), (2,), (2, 3)])


@given(mask=masks, shape=shapes)
def test_aligned_rows_begin_with_their_real_tokens_in_order(mask, shape):
    x = torch.randn(*mask.shape, *shape)
    rows = alignment(mask)
    for i, row in enumerate(rows.align(x)):
        assert rows.lengths[i] == mask[i].sum() and torch.equal(row[: rows.lengths[i]], x[i][mask[i]])


@given(mask=masks, shape=shapes)
def test_restoring_undoes_aligning_and_puts_zeros_where_there_is_padding(mask, shape):
    x = torch.randn(*mask.shape, *shape)
    rows = alignment(mask)
    back = rows.restore(rows.align(x))
    assert torch.equal(back[mask], x[mask]) and not back[~mask].any()


def test_what_is_restored_does_not_depend_on_what_stood_behind_a_row():
    mask, x = torch.tensor([[False, True, False, True], [True, True, True, False]]), torch.randn(2, 4, 3)
    rows = alignment(mask)
    behind = (torch.arange(4) >= rows.lengths[:, None])[..., None]
    assert torch.equal(rows.restore(torch.where(behind, 7.0, rows.align(x))), rows.restore(rows.align(x)))


def test_aligning_and_restoring_hand_each_real_token_its_gradient():
    mask, x = torch.rand(3, 6) < 0.6, torch.randn(3, 6, 2, requires_grad=True)
    rows, weight = alignment(mask), torch.randn(3, 6, 2)
    (gradient,) = torch.autograd.grad((rows.restore(rows.align(x)) * weight).sum(), x)
    assert torch.equal(gradient, weight * mask[..., None])


@given(lengths=lengths_of, shape=shapes)
def test_unpacked_rows_are_the_sequences_and_zeros(lengths, shape):
    x, offsets = torch.randn(sum(lengths), *shape), torch.tensor([0, *lengths]).cumsum(0)
    rows, found = unpack(x, offsets)
    assert found.tolist() == lengths and rows.shape == (len(lengths), max(lengths), *shape)
    for i, length in enumerate(lengths):
        assert torch.equal(rows[i, :length], x[offsets[i] : offsets[i + 1]]) and not rows[i, length:].any()


@given(lengths=lengths_of, shape=shapes)
def test_packing_undoes_unpacking(lengths, shape):
    x, offsets = torch.randn(sum(lengths), *shape), torch.tensor([0, *lengths]).cumsum(0)
    assert torch.equal(pack(*unpack(x, offsets)), x)


@pytest.mark.parametrize("offsets", [[], [0], [5], [1, 5], [0, 4], [0, 6], [0, 3, 2, 5], [5, 0], [-5, 0, 5]])
def test_offsets_that_cut_no_sequences_are_named_in_the_error(offsets):
    with pytest.raises(ValueError) as error:
        unpack(torch.randn(5, 2), torch.tensor(offsets, dtype=torch.long))
    assert str(error.value) == f"offsets must rise from 0 to the 5 packed tokens, got {offsets}"


def test_a_mask_of_floats_is_refused():
    with pytest.raises(ValueError, match="mask must be bool, true where there is a token, got torch.float64"):
        check_mask.__wrapped__(torch.ones(2, 3), torch.randn(2, 3, 4))


@pytest.mark.parametrize("offsets", [[0, 5], torch.tensor([0.0, 5.0]), torch.tensor(5)])
def test_offsets_that_are_no_row_of_integers_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets must be a tensor of ints"):
        unpack.__wrapped__(torch.randn(5, 2), offsets)


@given(lengths=lengths_of, past=st.integers(0, 4), shape=shapes)
def test_the_latest_tokens_are_the_last_real_ones_row_by_row(lengths, past, shape):
    t = max(lengths)
    before, x = torch.randn(len(lengths), past, *shape), torch.randn(len(lengths), t, *shape)
    found = latest(before, x, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        assert torch.equal(found[i], torch.cat([before[i], x[i, :length]])[length:])


@given(t=st.integers(1, 6), past=st.integers(0, 4))
def test_without_lengths_all_tokens_are_real(t, past):
    before, x = torch.randn(2, past, 3), torch.randn(2, t, 3)
    assert torch.equal(latest(before, x, None), latest(before, x, torch.tensor([t, t])))
    assert torch.equal(latest(before, x, None), torch.cat([before, x], dim=1)[:, t:])


@given(t=st.integers(1, 6), cut=st.integers(0, 6))
def test_the_latest_tokens_in_two_pieces_are_those_of_the_whole(t, cut):
    before, x = torch.randn(2, 3, 2), torch.randn(2, t, 2)
    half = latest(before, x[:, :cut], None)
    assert torch.equal(latest(half, x[:, cut:], None), latest(before, x, None))
