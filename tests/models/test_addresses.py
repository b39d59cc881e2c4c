"""How tokens look at a memory: through a gate, by learned addresses, by sines."""

from copy import deepcopy

import pytest
import torch

from models.tiny import LEARNED, SHAPE, SINES, transformer
from ttmem.memories import MemoryTokens
from ttmem.models import RMT, RMT4, MetaMemory, Transformer, TransformerConfig

pytestmark = pytest.mark.usefixtures("float64")
MAKERS = [lambda b: MetaMemory(b, MemoryTokens(5, 8)), lambda b: RMT4(b, 5), lambda b: RMT(b, 5)]


@pytest.mark.parametrize("window", [None, 1])
def test_a_gate_multiplies_what_a_token_reads_and_knows_nothing_of_the_memory(window):
    """One layer without a feed-forward: the token plus `out((1 + W x) * read)`, x as attention sees it."""
    backbone = transformer(layers=1, window=window, read_gate=True)
    block, x, memory = backbone.blocks[0], torch.randn(2, 1, 8), torch.randn(2, 3, 8)
    torch.nn.init.zeros_(block.feed.down.weight)
    seen = block.before_attention(torch.cat([memory, x], dim=1))
    mixed = block.attention.conv(seen)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in block.attention.qkv(mixed).chunk(3, dim=-1))
    share = (q[:, :, -1:] @ k.transpose(-1, -2) / 2).softmax(-1)
    read = (share @ v).transpose(1, 2).flatten(2)
    gate = 1 + mixed[:, -1:] @ block.attention.read_gate.weight.T
    assert gate.min() < 0 < gate.max()
    expected = backbone.norm(x + (gate * read) @ block.attention.out.weight.T)
    torch.testing.assert_close(backbone.hidden(x, memory)[0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("window", [None, 1])
def test_learned_addresses_find_the_memory_s_own_values_in_every_layer(window):
    """Each layer written out: a token, its own key, and the memory as it was given, whatever the layer before made."""
    backbone = transformer(window=window, conv=0, **LEARNED)
    x, memory = torch.randn(2, 1, 8), torch.randn(2, 3, 8)
    hidden, last = backbone.hidden(x, memory)
    for block in backbone.blocks:
        attention = block.attention
        (q, k, v), held = attention.project(block.before_attention(x), None, 0)[:3], block.before_attention(memory)
        held = (held @ attention.qkv.weight[16:].T).unflatten(-1, (2, 4)).transpose(1, 2)
        keys = torch.cat([attention.addresses.expand(2, -1, -1, -1), k], dim=2)
        read = (q @ keys.transpose(-1, -2) / 2).softmax(-1) @ torch.cat([held, v], dim=2)
        x = x + attention.out(read.transpose(1, 2).flatten(2))
        x = x + block.feed(block.before_feed(x))
    torch.testing.assert_close(hidden, backbone.norm(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, backbone.norm(memory[:, -1]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("more", [{}, {"read_gate": True}], ids=str)
def test_sines_read_every_number_of_every_slot_with_a_coefficient_of_its_own(window, more):
    """Each layer written out: what tokens read of tokens, and the sum over slots of `sin(W x)` times what they hold."""
    backbone = transformer(window=window, **SINES | more)
    x, memory = torch.randn(4, 5, 8), torch.randn(2, 3, 8)
    hidden, last = backbone.hidden(x, memory)
    for block in backbone.blocks:
        attention, seen = block.attention, block.attention.conv(block.before_attention(x))
        held = (block.before_attention(memory) @ attention.qkv.weight[16:].T).repeat_interleave(2, 0)
        angles = torch.einsum("mde,rte->rtmd", attention.sines.weight.view(3, 8, 8), seen)
        found = torch.einsum("rtmd,rmd->rtd", angles.sin(), held)
        gate = 1 + seen @ attention.read_gate.weight.T if more else 1
        alone = deepcopy(block)  # what tokens read of tokens, and nothing else
        torch.nn.init.zeros_(alone.feed.down.weight)
        x = alone(x, None)[0] + (gate * found) @ attention.out.weight.T
        x = x + block.feed(block.before_feed(x))
    torch.testing.assert_close(hidden, backbone.norm(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, backbone.norm(memory[:, -1]), rtol=1e-11, atol=1e-11)


def test_sines_of_tokens_that_are_not_alike_are_not_either():
    """At the start: cosines of the coefficients of random tokens, little more than those of as many random signs."""
    attention = Transformer(TransformerConfig(**SHAPE | SINES | {"dim": 64, "slots": 8})).blocks[0].attention
    sines = attention.project(torch.randn(1, 200, 64), None, 0).sines.flatten(2)[0]
    unit = sines / sines.norm(dim=-1, keepdim=True)
    others = (unit @ unit.T)[~torch.eye(200, dtype=torch.bool)]
    assert others.square().mean().sqrt() < 2 * (8 * 64) ** -0.5


@pytest.mark.parametrize("addresses", ["content", "learned", "sines"])
def test_what_a_write_changes_is_the_values_and_with_learned_addresses_these_alone(addresses):
    """One layer reads a sum over slots: it is linear in the normed memory where the shares do not depend on it."""
    backbone, x = transformer(layers=1, conv=0, addresses=addresses, slots=3), torch.randn(2, 4, 8)
    torch.nn.init.zeros_(backbone.blocks[0].feed.down.weight)
    backbone.norm = torch.nn.Identity()
    memory, nothing = torch.randn(2, 3, 8), torch.zeros(2, 3, 8)
    one, other, none = (backbone.hidden(x, m)[0] for m in (memory, -memory, nothing))
    bent = (one + other - 2 * none).abs().max()
    assert (bent > 1e-3) if addresses == "content" else (bent < 1e-11)


@pytest.mark.parametrize("look", [LEARNED, SINES], ids=str)
def test_a_memory_of_another_size_than_its_addresses_is_refused(look):
    with pytest.raises(ValueError, match="^slots is 3, but the memory has 5 tokens$"):
        transformer(**look).hidden(torch.randn(2, 4, 8), torch.randn(2, 5, 8))


@pytest.mark.parametrize("look", [LEARNED, SINES], ids=str)
@pytest.mark.parametrize("make", MAKERS)
def test_a_model_of_another_size_than_its_addresses_is_refused_when_it_is_made(make, look):
    with pytest.raises(ValueError, match="the memory has slots 5, the backbone's addresses 3: give both the same"):
        make(transformer(**look))


def test_a_learned_address_is_the_same_wherever_a_token_stands():
    backbone = transformer(window=1, conv=0, **LEARNED)
    hidden = backbone.hidden(torch.randn(2, 1, 8).expand(-1, 5, -1), torch.randn(2, 3, 8))[0]
    torch.testing.assert_close(hidden, hidden[:, :1].expand(-1, 5, -1), rtol=1e-12, atol=1e-12)
