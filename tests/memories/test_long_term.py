"""A text in pieces, padded, packed or in company is the text; every part of the memory is written, read and learned."""

import pytest
import torch
import torch.nn.functional as F

from core.titans_rows import assert_close
from memories.small import CHUNK, DIM, HEADS, OPTIONS, T, in_pieces, memory_of, of_sample, text
from ttmem.core.state import tensors

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", OPTIONS)


@kinds
def test_a_text_in_two_pieces_is_the_text_wherever_it_is_cut(kind):
    memory, x = memory_of(kind), text()
    with torch.no_grad():
        whole = memory(x)
        for cut in range(1, T):
            assert_close(in_pieces(memory, x, [cut]), whole)


@kinds
def test_gradients_run_through_a_cut(kind):
    memory, x = memory_of(kind), text()
    noise = torch.randn_like(x)
    one, other = (
        torch.autograd.grad((y * noise).sum(), list(memory.parameters()))
        for y, _ in (memory(x), in_pieces(memory, x, [9, 10]))
    )
    assert_close(one, other)


MASKS = {
    "left": torch.arange(T) >= torch.tensor([[9], [0], [22]]),
    "right": torch.arange(T) < torch.tensor([[9], [23], [1]]),
    "holes": (torch.arange(T) * torch.tensor([[1], [2], [5]])) % 3 != 0,
    "empty": torch.arange(T) < torch.tensor([[0], [14], [7]]),
}


@pytest.mark.parametrize("mask", MASKS)
@kinds
def test_padding_anywhere_leaves_each_text_as_it_is_alone(kind, mask):
    memory, x, mask, more = memory_of(kind), text(3), MASKS[mask], text(3, 9)
    garbage = torch.where(mask[..., None], x, 50 * torch.randn_like(x))
    y, state = memory(garbage, mask=mask)
    rest, end = memory(more, state)
    assert not y[~mask].any()
    for i in range(3):
        own = x[i : i + 1, mask[i]]
        alone, middle = memory(own) if mask[i].any() else (own, memory.start(1))
        assert_close((y[i : i + 1, mask[i]], of_sample(state, i)), (alone, middle))
        assert_close((rest[i : i + 1], of_sample(end, i)), memory(more[i : i + 1], middle))


@kinds
def test_packed_texts_are_each_text_alone(kind):
    memory, offsets = memory_of(kind), torch.tensor([0, 5, 5, 19, 26])
    x = torch.randn(26, DIM)
    y, state = memory.packed(x, offsets)
    for i, (start, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        wanted = memory(x[None, start:end]) if end > start else (x[None, start:end], memory.start(1))
        assert_close((y[None, start:end], of_sample(state, i)), wanted)


@kinds
def test_a_sample_reads_nothing_of_the_others(kind):
    memory, x = memory_of(kind), text(3)
    changed = torch.cat([x[:1], x[1:2] + 1, x[2:]])
    (y, state), (other, other_state) = memory(x), memory(changed)
    for i in (0, 2):
        pairs = zip(tensors((y[i], of_sample(state, i))), tensors((other[i], of_sample(other_state, i))), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.allclose(y[1], other[1])


@pytest.mark.parametrize("cuts", [[], [4, 15]], ids=["whole", "pieces"])
@kinds
def test_no_token_changes_what_was_read_before_it(kind, cuts):
    memory, x = memory_of(kind), text(1)
    with torch.no_grad():
        y, _ = in_pieces(memory, x, cuts)
        for t in range(T):
            changed = x.clone()
            changed[:, t] += 1
            other, _ = in_pieces(memory, changed, cuts)
            assert torch.equal(y[:, :t], other[:, :t])
            assert all((y[:, s] - other[:, s]).abs().max() > 1e-9 for s in range(t, T))


@pytest.mark.parametrize("t", [CHUNK - 2, T])
@kinds
def test_every_part_of_every_parameter_is_learned(kind, t):
    memory, x = memory_of(kind), text(4, t)
    memory(x)[0].square().sum().backward()
    for name, p in memory.named_parameters():
        rows = p.grad.flatten(1) if p.ndim > 1 else p.grad[:, None]
        assert torch.isfinite(p.grad).all() and rows.any(dim=1).all(), f"{name} has rows without a gradient"


@pytest.mark.parametrize("t", [1, CHUNK - 1, T])
@kinds
def test_the_memory_is_written_however_short_the_text(kind, t):
    memory = memory_of(kind)
    start, (_, state) = memory.start(2), memory(text(2, t))
    for part in ("fast", "velocity"):
        before, after = getattr(start.memory, part), getattr(state.memory, part)
        assert before.keys() == after.keys()
        assert all((after[n] - before[n]).abs().amax(dim=(1, 2)).min() > 1e-6 for n in before)
    assert (state.memory.seen == t).all()


@kinds
def test_what_is_read_later_depends_on_what_was_read_before(kind):
    memory, second = memory_of(kind, conv=0), text()
    after_one, after_other, reset = (memory(second, state)[0] for state in (memory(text())[1], memory(text())[1], None))
    assert min((a - b).abs().max() for a, b in ((after_one, after_other), (after_one, reset))) > 1e-3
    assert torch.equal(reset, memory(second, memory.start(2))[0])


@kinds
def test_recalling_reads_the_memory_and_writes_nothing(kind):
    memory, x = memory_of(kind, conv=0, momentum=False), text()
    _, state = memory(text())
    before = [part.clone() for part in tensors(state)]
    found = memory.recall(state.memory.fast, x)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
    with torch.no_grad():
        memory.gates.linear.weight.zero_()
        memory.gates.linear.bias.fill_(-1e9)  # no step, nothing forgotten
    y, same = memory(x, state)
    assert_close(found, y)
    assert_close(same.memory.fast, state.memory.fast)


def test_a_linear_memory_follows_the_delta_rule():
    memory, x = memory_of("bare", clip=None, chunk_size=1, lr_max=0.7), text(2, 9)
    q, k, v = F.silu(x @ memory.qkv.weight.T).view(2, 9, 3, HEADS, -1).unbind(2)
    q, k = (part / part.norm(dim=-1, keepdim=True) for part in (q, k))
    theta = 0.7 * torch.sigmoid(memory.gates.linear(x))
    fast, outs = memory.init["w1"].expand(2, -1, -1, -1), []
    for t in range(9):
        error = torch.einsum("bhi,bhij->bhj", k[:, t], fast) - v[:, t]
        fast = fast - 2 * theta[:, t, :, None, None] * k[:, t, :, :, None] * error[:, :, None]
        outs.append(torch.einsum("bhi,bhij->bhj", q[:, t], fast))
    y = torch.stack(outs, dim=1)
    y = y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6)
    wanted = (y.flatten(2) * F.silu(x @ memory.out_gate.weight.T)) @ memory.out.weight.T
    found, state = memory(x)
    assert_close((found, state.memory.fast["w1"]), (wanted, fast.flatten(0, 1)))
