import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ttmem.memories import MEMORIES, MemoryMLP, MemoryTokens, NeuralMemory, Source
from ttmem.memories.memory_mlp import pooling

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", MEMORIES)
DIM, SLOTS = 8, 3


def source(batch=2, t=6, lengths=(6, 4)):
    return Source(torch.randn(batch, t, DIM), torch.arange(t) < torch.tensor(lengths)[:, None])


def opened(memory, batch=2):
    return memory.open(memory.start(batch))


def test_the_kinds_are_known_by_name():
    assert {kind: memory.kind for kind, memory in MEMORIES.items()} == {k: k for k in ("tokens", "neural", "mlp")}


@kinds
def test_opening_adds_fresh_initial_weights_to_the_kept_tokens(kind):
    memory = MEMORIES[kind](SLOTS, DIM)
    kept = {"mem": torch.randn(2, SLOTS, DIM)}
    fast = memory.open(kept)
    assert list(fast) == memory.names and fast["mem"] is kept["mem"]
    for name in set(memory.names) - {"mem"}:
        assert torch.equal(fast[name], memory.init[name].expand(2, -1, -1))


@kinds
def test_every_row_starts_from_the_same_learned_tokens(kind):
    memory = MEMORIES[kind](SLOTS, DIM)
    start = memory.start(5)
    assert list(start) == ["mem"] and all(torch.equal(row, memory.init["mem"]) for row in start["mem"])


@kinds
def test_what_stands_in_the_padding_does_not_matter(kind):
    memory, seen = MEMORIES[kind](SLOTS, DIM), source()
    other = torch.where(seen.mask[..., None], seen.embeddings, 9 * torch.randn(2, 6, DIM))
    fast = opened(memory)
    assert torch.equal(memory.tokens(fast, seen), memory.tokens(fast, Source(other, seen.mask)))


@kinds
def test_more_padding_changes_nothing(kind):
    memory, seen = MEMORIES[kind](SLOTS, DIM), source()
    longer = Source(F.pad(seen.embeddings, (0, 0, 0, 5)), F.pad(seen.mask, (0, 5)))
    fast = opened(memory)
    torch.testing.assert_close(memory.tokens(fast, seen), memory.tokens(fast, longer), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["neural", "mlp"])
def test_the_tokens_follow_the_context(kind):
    memory = MEMORIES[kind](SLOTS, DIM)
    fast, one, two = opened(memory), source(), source()
    assert (memory.tokens(fast, one) - memory.tokens(fast, two)).abs().max() > 1e-4


def test_memory_tokens_read_nothing_but_themselves():
    memory = MemoryTokens(SLOTS, DIM)
    fast = opened(memory)
    assert memory.tokens(fast, source()) is fast["mem"]


@pytest.mark.parametrize("output", [False, True])
def test_neural_memory_without_values_is_its_tokens(output):
    memory = NeuralMemory(SLOTS, DIM, heads=2, output=output)
    fast = opened(memory) | {"w_v": torch.zeros(2, DIM, DIM)}
    assert torch.equal(memory.tokens(fast, source()), fast["mem"])


def test_neural_memory_is_a_cross_attention_over_the_context():
    memory, seen = NeuralMemory(SLOTS, DIM, heads=2, output=True, conv=0), source()
    fast = opened(memory)
    layer = torch.nn.MultiheadAttention(DIM, 2, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([memory.init[n].T for n in ("w_q", "w_k", "w_v")]))
        layer.out_proj.weight.copy_(memory.init["w_o"].T)
    normed = memory.norm(seen.embeddings)
    recalled, _ = layer(fast["mem"], normed, normed, key_padding_mask=~seen.mask)
    torch.testing.assert_close(memory.tokens(fast, seen), fast["mem"] + recalled, rtol=1e-12, atol=1e-12)


def test_each_row_of_neural_memory_uses_its_own_matrices():
    memory, seen = NeuralMemory(SLOTS, DIM, heads=2), source()
    fast = opened(memory)
    changed = fast | {"w_k": fast["w_k"].clone()}
    changed["w_k"][1] += 1
    one, other = memory.tokens(fast, seen), memory.tokens(changed, seen)
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])


@pytest.mark.parametrize("hidden", [None, 5])
def test_memory_mlp_is_a_network_on_the_pooled_context(hidden):
    memory, seen = MemoryMLP(SLOTS, DIM, hidden=hidden, conv=0), source()
    fast = opened(memory)
    assert fast["w_1"].shape == (2, DIM, hidden or 2 * DIM)
    for i, n in enumerate(seen.mask.sum(1)):
        rows = F.adaptive_avg_pool1d(memory.norm(seen.embeddings)[i, :n].T, SLOTS).T
        wanted = memory.init["mem"] + F.gelu(rows @ memory.init["w_1"]) @ memory.init["w_2"]
        torch.testing.assert_close(memory.tokens(fast, seen)[i], wanted, rtol=1e-12, atol=1e-12)


@given(slots=st.integers(1, 9), lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), spare=st.integers(0, 3))
def test_pooling_is_torch_s_on_the_unpadded_rows(slots, lengths, spare):
    t = max(lengths) + spare
    x, mask = torch.randn(len(lengths), t, 2), torch.arange(t) < torch.tensor(lengths)[:, None]
    pooled = pooling(mask, slots, x.dtype) @ x
    for i, n in enumerate(lengths):
        wanted = F.adaptive_avg_pool1d(x[i, :n].T, slots).T
        torch.testing.assert_close(pooled[i], wanted, rtol=1e-12, atol=1e-12)


def test_an_empty_row_pools_to_zero():
    assert not pooling(torch.zeros(1, 4, dtype=torch.bool), 3, torch.float64).any()


@kinds
def test_the_tokens_can_be_differentiated_twice_in_every_fast_weight(kind):
    memory = MEMORIES[kind](2, 4)
    seen = Source(torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    fast = {n: w.detach().clone().requires_grad_() for n, w in opened(memory, 1).items()}
    assert torch.autograd.gradgradcheck(
        lambda *weights: memory.tokens(dict(zip(fast, weights, strict=True)), seen).square(), tuple(fast.values())
    )


@kinds
@pytest.mark.parametrize("slots, dim", [(0, 8), (3, 0), (-1, 8)])
def test_sizes_that_make_no_memory_are_named_in_the_error(kind, slots, dim):
    with pytest.raises(ValueError, match=f"slots and dim must be >= 1, got {slots} and {dim}"):
        MEMORIES[kind](slots, dim)


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_width_are_named_in_the_error(heads):
    with pytest.raises(ValueError, match=f"heads must divide dim, got {heads} and 8"):
        NeuralMemory(SLOTS, DIM, heads=heads)
