"""Faults that were once here, or in others' memories: none of them may come back."""

import pytest
import torch

from ttmem.memories import LongTermMemory
from ttmem.models import Titans, preset
from ttmem.nn.ragged import check_mask
from ttmem.training import TrainConfig
from ttmem.training.optimizer import part_of

DIM = 8


def memory(**options) -> LongTermMemory:
    torch.manual_seed(0)
    return LongTermMemory(DIM, **{"heads": 2, "chunk_size": 4} | options)


def test_a_state_holds_on_to_nothing_of_the_text_but_what_it_needs():
    _, state = memory()(torch.randn(1, 500, DIM))
    assert state.conv.untyped_storage().nbytes() == state.conv.numel() * state.conv.element_size()


def test_a_memory_that_has_read_nothing_is_no_view_of_the_learned_weights():
    layer = memory()
    state = layer.start(1).memory
    assert state.fast["w1"].data_ptr() != layer.init["w1"].data_ptr()


def test_what_stands_in_padding_may_even_be_no_number():
    layer, x = memory(), torch.randn(2, 9, DIM)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 2:5] = mask[1, :3] = False
    clean, _ = layer(x, mask=mask)
    found, _ = layer(x.masked_fill(~mask[..., None], torch.nan), mask=mask)
    torch.testing.assert_close(found, clean, rtol=0, atol=0)


def test_the_backward_pass_runs_inside_autocast_as_well():
    layer, x = memory(), torch.randn(2, 9, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)[0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("shape", [(2, 5), (3, 9), (2, 9, 1)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask must be \(2, 9\)"):
        check_mask(torch.ones(shape, dtype=torch.bool), torch.randn(2, 9, DIM))


def test_an_empty_batch_is_refused_in_words():
    with pytest.raises(ValueError, match="batch >= 1"):
        memory()(torch.randn(0, 9, DIM))


@pytest.mark.parametrize("muon", [0.0, 0.01])
def test_what_a_memory_starts_from_is_neither_decayed_nor_made_orthogonal(muon):
    model, config = Titans(preset("tiny", "mac", memory_tokens=2)), TrainConfig(muon_lr=muon)
    parts = {name: part_of(name, weight, config) for name, weight in model.named_parameters()}
    free = ("init.", "norm_gain", "norm_bias", "persistent", "queries")
    assert {part for name, part in parts.items() if any(word in name for word in free)} == {"free"}
    assert {part for name, part in parts.items() if "gates.linear.weight" in name} == {"decayed"}
    assert parts["blocks.0.feed.up.weight"] == ("muon" if muon else "decayed")


def test_features_of_another_type_are_refused_with_the_mend(unchecked):
    memory = LongTermMemory(8, heads=2)
    for x in (torch.randn(1, 3, 8).double(), torch.ones(1, 3, 8, dtype=torch.long)):
        with pytest.raises(ValueError, match=f"x must be torch.float32, as the weights are, got {x.dtype}"):
            memory(x)


def test_a_mask_of_numbers_is_refused_with_the_mend(unchecked):
    memory = LongTermMemory(8, heads=2)
    with pytest.raises(ValueError, match=r"mask must be bool, .* got torch.int64: give mask.bool\(\)"):
        memory(torch.randn(1, 3, 8), mask=torch.tensor([[30, 1, 1]]))


def test_a_state_of_another_width_whose_heads_are_alike_is_refused():
    narrow, wide = LongTermMemory(16, heads=1), LongTermMemory(32, heads=2)
    _, state = narrow(torch.randn(4, 5, 16))
    with pytest.raises(ValueError, match="state must be of a memory with dim=32"):
        wide(torch.randn(2, 5, 32), state)


@pytest.mark.parametrize("given, wanted", [("mag", "mal"), ("lmm", "mac"), ("swa", "lmm")])
def test_the_state_of_another_architecture_is_refused(given, wanted):
    ids = torch.randint(0, 256, (1, 5))
    _, state = Titans(preset("tiny", given))(ids)
    with pytest.raises(ValueError, match="state must be"):
        Titans(preset("tiny", wanted))(ids, state)


@pytest.mark.parametrize("changes, said", [({"layers": 1}, "layers"), ({"segment_size": 8}, "segment_size")])
def test_the_state_of_another_shape_is_refused(changes, said):
    ids = torch.randint(0, 256, (1, 5))
    _, state = Titans(preset("tiny", "mac", **changes))(ids)
    with pytest.raises(ValueError, match=said):
        Titans(preset("tiny", "mac"))(ids, state)
