from dataclasses import replace

import pytest
import torch

from models.tiny import LEARNED, SINES, SMALL, episode, ids, model, transformer
from ttmem.checkpoint import fill, neutral
from ttmem.models import Transformer, TransformerConfig

pytestmark = pytest.mark.usefixtures("float64")
ROPE = {"positions": "rope"}
looks = pytest.mark.parametrize("look", [{}, ROPE, LEARNED, SINES], ids=str)
positions = pytest.mark.parametrize("positions", ["none", "rope"])
convs = pytest.mark.parametrize("conv", [0, 4])
gates = pytest.mark.parametrize("gate", [False, True], ids=["plain", "gated"])


@positions
@convs
@gates
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_a_prefix_is_the_beginning_of_one_causal_sequence(positions, conv, gate, prefix):
    backbone = transformer(positions=positions, conv=conv, read_gate=gate)
    memory, x = torch.randn(2, prefix, 8), torch.randn(2, 4, 8)
    hidden, last = backbone.hidden(x, memory)
    whole, none = backbone.hidden(torch.cat([memory, x], dim=1))
    torch.testing.assert_close(hidden, whole[:, prefix:], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, whole[:, prefix - 1], rtol=1e-11, atol=1e-11)
    assert none is None


@convs
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("token", [0, 2, 4])
@pytest.mark.parametrize("option", [{}, ROPE, LEARNED, SINES, {"read_gate": True}, {"stem": True}], ids=str)
def test_the_future_does_not_leak(conv, prefix, window, token, option):
    backbone = transformer(conv=conv, window=window, **option)
    memory = torch.randn(2, prefix, 8) if prefix else None
    x = torch.randn(2, 5, 8)
    changed = x.clone()
    changed[:, token] += 1
    before, after = backbone.hidden(x, memory)[0], backbone.hidden(changed, memory)[0]
    torch.testing.assert_close(before[:, :token], after[:, :token], rtol=1e-13, atol=1e-13)
    assert (before[:, token] - after[:, token]).abs().min() > 1e-6


@positions
def test_tokens_cannot_change_the_memory_in_front_of_them(positions):
    backbone, memory = transformer(positions=positions), torch.randn(2, 3, 8)
    one, two = (backbone.hidden(torch.randn(2, 4, 8), memory)[1] for _ in range(2))
    assert torch.equal(one, two)


@looks
@pytest.mark.parametrize("window", [None, 2])
def test_every_memory_token_reaches_every_token(window, look):
    backbone, memory = transformer(conv=0, window=window, **look), torch.randn(1, 3, 8)
    memory.requires_grad_()
    hidden, _ = backbone.hidden(torch.randn(1, 6, 8), memory)
    for row in hidden[0]:
        (gradient,) = torch.autograd.grad(row.sum(), memory, retain_graph=True)
        assert gradient.abs().sum(-1).min() > 0


@positions
@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("prefix", [0, 3])
def test_a_window_hides_what_is_further_back_than_the_layers_reach(positions, window, prefix):
    backbone = transformer(positions=positions, conv=0, window=window)
    memory, x = torch.randn(2, 3, 8) if prefix else None, torch.randn(2, 9, 8)
    reach, changed = 3 * (window - 1), x.clone()
    changed[:, 1] += 1
    before, after = (backbone.hidden(y, memory)[0] for y in (x, changed))
    far = 1 + reach + 1
    torch.testing.assert_close(before[:, far:], after[:, far:], rtol=1e-13, atol=1e-13)
    assert (before[:, far - 1] - after[:, far - 1]).abs().max() > 1e-9


@looks
def test_a_window_wider_than_the_tokens_is_no_window(look):
    wide = transformer(window=9, **look)
    memory, x = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    windowed = wide.hidden(x, memory)[0]
    for block in wide.blocks:
        block.attention.config = replace(block.attention.config, window=None)
    assert torch.equal(windowed, wide.hidden(x, memory)[0])


def test_without_positions_and_convolution_the_order_of_what_came_before_does_not_matter():
    x = torch.randn(2, 5, 8)
    swapped, ends = x[:, [3, 1, 2, 0, 4]], {}
    for positions in ("none", "rope"):
        backbone = transformer(positions=positions, conv=0, layers=1)
        ends[positions] = torch.stack([backbone.hidden(y)[0][:, -1] for y in (x, swapped)])
    torch.testing.assert_close(*ends["none"], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(*ends["rope"], rtol=1e-3)


@looks
@pytest.mark.parametrize("window", [None, 1])
def test_several_questions_share_a_memory_as_if_each_had_its_own(window, look):
    backbone = transformer(window=window, **look)
    memory, x = torch.randn(2, 3, 8), torch.randn(6, 4, 8)
    hidden, last = backbone.hidden(x, memory)
    for row in range(6):
        own = memory[row // 3 : row // 3 + 1]
        alone, alone_last = backbone.hidden(x[row : row + 1], own)
        torch.testing.assert_close(hidden[row : row + 1], alone, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(last[row // 3][None], alone_last, rtol=1e-11, atol=1e-11)


@positions
@convs
def test_padding_on_the_right_changes_nothing(positions, conv):
    backbone, x, memory = transformer(positions=positions, conv=conv), ids(2, 5), torch.randn(2, 3, 8)
    longer = torch.cat([x, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    short, long = (backbone.hidden(backbone.embed(y), memory)[0] for y in (x, longer))
    torch.testing.assert_close(short, long[:, :5], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "more",
    [{}, ROPE, *({"addresses": kind, "slots": 1, "read_gate": True, "stem": True} for kind in ("learned", "sines"))],
    ids=str,
)
def test_the_decoder_can_be_differentiated_twice(more):
    backbone = Transformer(TransformerConfig(**{"vocab": 5, "dim": 4, "layers": 1, "heads": 2, "hidden": 4} | more))
    memory, x = torch.randn(1, 1, 4, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda m, x: backbone.hidden(x, m)[0].square(), (memory, x))


@pytest.mark.parametrize("more", [{}, LEARNED | {"read_gate": True, "stem": True}, SINES], ids=str)
def test_every_weight_of_the_decoder_is_used(more):
    backbone, x = transformer(**more), ids(2, 5)
    backbone.logits(backbone.hidden(backbone.embed(x), torch.randn(2, 3, 8))[0]).square().sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vocab": 0}, "vocab must be >= 1, got 0"),
        ({"dim": -8}, "dim must be >= 1, got -8"),
        ({"layers": 0}, "layers must be >= 1, got 0"),
        ({"heads": 0}, "heads must be >= 1, got 0"),
        ({"heads": 3}, "heads must divide dim .* got 3 and 8"),
        ({"heads": 8, "positions": "rope"}, "heads must divide dim .* got 8 and 8"),
        ({"positions": "absolute"}, "^positions must be one of none, rope, got 'absolute'$"),
        ({"conv": -1}, "^conv must be >= 0, got -1$"),
        ({"window": 0}, "^window must be >= 1, got 0$"),
        ({"addresses": "hashed"}, "^addresses must be one of content, learned, sines, got 'hashed'$"),
        (
            {"addresses": "learned", "positions": "rope"},
            "^addresses must be content for positions=rope, got learned: such",
        ),
        (
            {"addresses": "sines", "positions": "rope"},
            "^addresses must be content for positions=rope, got sines: such",
        ),
        ({"addresses": "sines", "memory": "none"}, "^addresses must be content for memory=none, which has no memory"),
        ({"addresses": "learned", "memory": "full"}, "^addresses must be content for memory=full, which has no memory"),
    ],
)
def test_an_impossible_shape_is_named_in_the_error(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize("kind", ["tokens", "neural", "mlp", "rmt4", "rmt", "forward", "full"])
@pytest.mark.parametrize("options", [{"read_gate": True}, {"stem": True}, {"read_gate": True, "stem": True}], ids=str)
def test_a_checkpoint_without_gate_or_stem_is_the_start_of_a_model_that_has_them(kind, options):
    separator = {"separator": 6} if kind in ("rmt", "rmt4") else {}
    plain, more = model(kind, **separator), model(kind, seed=1, **separator, **options)
    for name, weight in more.named_parameters():
        if name.endswith(("read_gate.weight", "stem.feed.down.weight")):
            torch.nn.init.zeros_(weight)
    fill(more, plain.state_dict(), "x", neutral(more))
    asked = episode()
    assert more.loss(asked).loss.equal(plain.loss(asked).loss)


def test_what_changes_nothing_at_first_is_known_by_whose_part_it_is():
    made = model(stem=True, read_gate=True, weigh=True)
    gates = {f"backbone.blocks.{i}.attention.read_gate" for i in (0, 1)}
    assert set(neutral(made)) >= gates | {"backbone.stem", "weigh"}
    lacking = {name: weight for name, weight in made.state_dict().items() if not name.startswith("backbone.blocks.1.")}
    with pytest.raises(ValueError, match="x does not fit the model: it lacks backbone.blocks.1.attention.conv"):
        fill(made, lacking, "x", neutral(made))


@convs
def test_a_stem_bends_tokens_alone_before_the_first_layer(conv):
    backbone, x, memory = transformer(stem=True, conv=conv), torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    stem, backbone.stem = backbone.stem, None
    mixed = x / (x.square().mean(-1, keepdim=True) + stem.norm.eps).sqrt() * stem.norm.weight
    mixed = stem.conv(mixed) if conv else mixed
    gate, up = (mixed @ stem.feed.up.weight.T).chunk(2, dim=-1)
    bent = x + (gate * gate.sigmoid() * up) @ stem.feed.down.weight.T
    expected, last = backbone.hidden(bent, memory)
    backbone.stem = stem
    found = backbone.hidden(x, memory)
    torch.testing.assert_close(found, (expected, last), rtol=1e-11, atol=1e-11)
    if conv:  # a token's place in the stem's output knows of the one before it, which a feed-forward alone cannot
        assert not torch.allclose(stem(x)[:, 1:], stem(x[:, 1:]))


def test_with_a_stem_an_address_is_no_sum_over_the_tokens_of_a_key():
    """Mixed differences over two characters, of the first layer's queries: nothing without a stem but the norm's."""
    for stem in (False, True):
        backbone = transformer(stem=stem, conv=4)
        attention, e = backbone.blocks[0].attention, torch.randn(2, 2, 8)
        keys = torch.stack([torch.stack([e[0, i], e[1, j]]) for i in (0, 1) for j in (0, 1)])
        seen = backbone.stem(keys) if stem else keys
        q = attention.project(seen, None, 0)[0][:, :, -1]
        bent = (q[0] - q[1] - q[2] + q[3]).abs().max()
        assert (bent > 1e-2) if stem else (bent < 1e-12)
