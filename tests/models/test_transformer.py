from dataclasses import replace

import pytest
import torch

from models.tiny import SMALL, ids
from ttmem.models import Transformer, TransformerConfig

pytestmark = pytest.mark.usefixtures("float64")
SHAPE = {"vocab": 7, "dim": 8, "layers": 3, "heads": 2, "hidden": 8}
positions = pytest.mark.parametrize("positions", ["none", "rope"])
convs = pytest.mark.parametrize("conv", [0, 4])


def transformer(**changes):
    backbone = Transformer(TransformerConfig(**SHAPE | changes))
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return backbone


@positions
@convs
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_a_prefix_is_the_beginning_of_one_causal_sequence(positions, conv, prefix):
    backbone = transformer(positions=positions, conv=conv)
    memory, x = torch.randn(2, prefix, 8), torch.randn(2, 4, 8)
    hidden, last = backbone.hidden(x, memory)
    whole, none = backbone.hidden(torch.cat([memory, x], dim=1))
    torch.testing.assert_close(hidden, whole[:, prefix:], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, whole[:, prefix - 1], rtol=1e-11, atol=1e-11)
    assert none is None


@positions
@convs
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("token", [0, 2, 4])
def test_the_future_does_not_leak(positions, conv, prefix, window, token):
    backbone = transformer(positions=positions, conv=conv, window=window)
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


@positions
@pytest.mark.parametrize("window", [None, 2])
def test_every_memory_token_reaches_every_token(positions, window):
    backbone, memory = transformer(positions=positions, conv=0, window=window), torch.randn(1, 3, 8)
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


def test_a_window_wider_than_the_tokens_is_no_window():
    wide = transformer(window=9)
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


@positions
def test_several_questions_share_a_memory_as_if_each_had_its_own(positions):
    backbone = transformer(positions=positions)
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


@positions
def test_the_decoder_can_be_differentiated_twice(positions):
    backbone = Transformer(TransformerConfig(vocab=5, dim=4, layers=1, heads=2, hidden=4, positions=positions))
    memory, x = torch.randn(1, 1, 4, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda m, x: backbone.hidden(x, m)[0].square(), (memory, x))


def test_every_weight_of_the_decoder_is_used():
    backbone, x = transformer(), ids(2, 5)
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
    ],
)
def test_an_impossible_shape_is_named_in_the_error(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
