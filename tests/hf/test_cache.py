import copy

import pytest
import torch

from hf.small import ARCHITECTURES, ids, model
from ttmem.core.state import tensors
from ttmem.hf import TitansCache
from ttmem.hf.cache import trail

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("architecture", [*ARCHITECTURES, "swa", "full"])


def read(made, rows):
    with torch.no_grad():
        return made(rows).past_key_values


def test_a_new_memory_has_read_nothing():
    memory = TitansCache()
    assert (memory.get_seq_length(), memory.batch_size, len(memory), memory.has_previous_state()) == (0, -1, 0, False)
    assert repr(memory) == "TitansCache(rows=0, tokens=0)"
    memory.reorder_cache(torch.tensor([0]))
    assert memory.state is None


@every
@pytest.mark.parametrize("changes", [{}, {"conv": 0, "persistent_tokens": 0, "momentum": False, "window_size": 1}])
def test_selected_rows_are_the_memories_of_those_rows(architecture, changes):
    made, rows, more = model(architecture, **changes), ids(3, 9), ids(4, 3)
    memory, order = read(made, rows), torch.tensor([2, 0, 0, 1])
    assert memory.batch_size == 3
    memory.reorder_cache(order)
    assert memory.batch_size == 4
    expected = read(made, rows[order])
    for own, other in zip(tensors(memory.state), tensors(expected.state), strict=True):
        torch.testing.assert_close(own, other)
    logits = made(more, past_key_values=memory).logits
    torch.testing.assert_close(logits, made(more, past_key_values=expected).logits)


def test_repeated_rows_stand_side_by_side():
    made, rows = model(), ids(2, 7)
    memory = read(made, rows)
    memory.batch_repeat_interleave(3)
    expected = read(made, rows.repeat_interleave(3, 0))
    for own, other in zip(tensors(memory.state), tensors(expected.state), strict=True):
        torch.testing.assert_close(own, other)
    assert torch.equal(memory.trail, expected.trail)


def test_a_deep_copy_is_a_memory_of_its_own():
    made, rows = model(), ids(1, 7)
    memory = read(made, rows)
    kept, before = copy.deepcopy(memory), [leaf.clone() for leaf in tensors(memory.state)]
    made(ids(1, 5), past_key_values=memory)
    assert (kept.get_seq_length(), memory.get_seq_length()) == (7, 12)
    assert all(torch.equal(a, b) for a, b in zip(tensors(kept.state), before, strict=True))


def test_a_deep_copy_of_a_memory_with_gradients_has_the_same_ones():
    made, rows, more, found = model(), ids(1, 7), ids(1, 5), []
    for keep in (lambda memory: memory, copy.deepcopy):
        made.zero_grad()
        memory = keep(made(rows).past_key_values)
        logits = made(more, past_key_values=memory).logits
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in made.parameters())])
    assert all(map(torch.equal, *found))


def test_a_memory_read_in_inference_mode_goes_on_with_gradients():
    made, rows, more = model(), ids(1, 7), ids(1, 5)
    with torch.inference_mode():
        memory = made(rows).past_key_values
    logits = made(more, past_key_values=memory).logits
    logits.sum().backward()
    torch.testing.assert_close(logits, made(torch.cat([rows, more], dim=1)).logits[:, 7:])


def test_a_reset_memory_is_a_new_one():
    made, rows = model(), ids(2, 7)
    memory = read(made, rows)
    memory.reset()
    out = made(rows, past_key_values=memory)
    torch.testing.assert_close(out.logits, made(rows).logits)
    assert memory.begins(torch.cat([rows, rows], dim=1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_size_does_not_grow_with_what_was_read(architecture):
    made = model(architecture)
    sizes = {sum(leaf.nbytes for leaf in tensors(read(made, ids(1, n)).state)) for n in (3, 20, 47)}
    assert len(sizes) == 1


def test_what_would_unread_tokens_is_refused():
    memory = read(model(), ids(1, 5))
    with pytest.raises(ValueError, match="crop: a memory cannot unread tokens; keep copy.deepcopy"):
        memory.crop(-2)
    with pytest.raises(ValueError, match="assisted decoding: a memory cannot unread"):
        memory.activate_past_recording()
    with pytest.raises(ValueError, match="holds no keys and values"):
        memory.update(torch.zeros(1), torch.zeros(1), 0)
    memory.crop(0)
    assert memory.get_seq_length() == 5


def test_a_memory_knows_ids_that_begin_with_what_it_read():
    made, rows = model(), ids(2, 12)
    memory = read(made, rows[:, :5])
    made(rows[:, 5:8], past_key_values=memory)
    assert memory.begins(rows)
    assert not memory.begins(rows[:, :8])
    changed = rows.clone()
    changed[1, 3] = changed[1, 3] % 22 + 1
    assert not memory.begins(changed)
    assert not memory.begins(rows[[1, 0]])


def test_behind_embeddings_a_memory_knows_no_ids():
    made, rows = model(), ids(2, 6)
    memory = made(inputs_embeds=made.get_input_embeddings()(rows[:, :3])).past_key_values
    made(rows[:, 3:5], past_key_values=memory)
    assert not memory.begins(rows)


def test_the_trail_is_the_recurrence_modulo_two_to_the_64():
    rows, factor = ids(1, 40), 6_364_136_223_846_793_005
    slow = 0
    for token in rows[0].tolist():
        slow = (slow * factor + token + 1) % 2**64
    assert int(trail(rows)[0]) % 2**64 == slow
