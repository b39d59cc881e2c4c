"""States and weights that a long-term memory did not make: of other floats, from inference mode, for another chunk."""

import io

import pytest
import torch

from apart import printed
from memories.small import OPTIONS, memory_of, text
from ttmem import load_state, save_state
from ttmem.checkpoint import save_model
from ttmem.core import State
from ttmem.core.state import map_state, tensors
from ttmem.memories import LongTermMemory

kinds = pytest.mark.parametrize("kind", OPTIONS)
floats = [torch.float32, torch.float64, torch.bfloat16]


def of_chunk(size: int, seed: int = 0) -> LongTermMemory:
    torch.manual_seed(seed)
    return LongTermMemory(16, heads=2, chunk_size=size)


@kinds
@pytest.mark.parametrize("theirs", floats, ids=str)
@pytest.mark.parametrize("own", floats, ids=str)
def test_a_state_of_other_floats_is_taken_as_those_of_start(kind, own, theirs):
    memory, x = memory_of(kind).to(own), text().to(own)
    _, half = memory(x[:, :10])
    held = map_state(lambda leaf: leaf.to(theirs) if leaf.is_floating_point() else leaf, half)
    types = iter([leaf.dtype for leaf in tensors(memory.start(2))])
    found, wanted = memory(x[:, 10:], held), memory(x[:, 10:], map_state(lambda leaf: leaf.to(next(types)), held))
    pairs = zip(tensors(found), tensors(wanted), strict=True)
    assert found[0].dtype == own and found[1].memory.fast["w1"].dtype == torch.promote_types(own, torch.float32)
    assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.usefixtures("float64")
def test_a_state_in_a_file_goes_on_as_if_it_had_not_been_away(kind, tmp_path):
    memory, x = memory_of(kind), text().double()
    wanted, _ = memory(x)
    _, half = memory(x[:, :7])
    back = load_state(save_state(tmp_path / "half.state", half), like=memory.start(len(x)))
    assert type(back) is type(half) and back.chunk_size == half.chunk_size
    for one, two in zip(tensors(back), tensors(half), strict=True):
        assert torch.equal(one, two) and not one.requires_grad
    torch.testing.assert_close(memory(x[:, 7:], back)[0], wanted[:, 7:])


@pytest.mark.parametrize(
    "like, said", [({"heads": 4}, "they differ in memory.fast.w1"), ({"momentum": False}, "memory.velocity")]
)
def test_a_file_with_the_state_of_another_memory_is_refused(like, said, tmp_path):
    _, state = memory_of()(text())
    path = save_state(tmp_path / "a.state", state)
    with pytest.raises(ValueError, match=said) as caught:
        load_state(path, like=memory_of(**like).start(2))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_is_no_state(tmp_path):
    path = save_model(tmp_path / "a.safetensors", {}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="no ttmem-state"):
        load_state(path, like=memory_of().start(1))


@pytest.mark.parametrize("own", [True, False])
def test_the_state_of_a_memory_with_another_norm_is_refused(own):
    _, state = memory_of(norm=not own)(text())
    with pytest.raises(ValueError, match=f"^state must be of a memory with norm={own}, it is of another$"):
        memory_of(norm=own)(text(), state)
    memory_of(norm=own)(text(), state._replace(norm=None))  # an older one, which does not say


def test_what_is_no_state_and_offsets_that_are_no_tensor_are_named(unchecked):
    memory, x = memory_of(), text()
    with pytest.raises(ValueError, match="^state must be a LongTermState, got State$"):
        memory(x, State({}))
    with pytest.raises(ValueError, match=r"^offsets must be a tensor of ints, .* got \[0, 23\]"):
        memory.packed(x[0], [0, 23])


@pytest.mark.parametrize("field, value", [("chunk_size", 8.0), ("heads", 2.0), ("conv", "4")])
def test_an_option_that_is_no_whole_number_is_named(field, value, unchecked):
    with pytest.raises(ValueError, match=f"^{field} must be a whole number, got {value!r}$"):
        LongTermMemory(32, **{field: value})


def kept(memory: LongTermMemory) -> dict:
    """Its `state_dict()` after a stay in a file of torch's."""
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", [LongTermMemory.state_dict, kept])
def test_the_weights_of_another_chunk_size_load_only_without_their_note(way):
    trained, other = of_chunk(8), of_chunk(64, seed=1)
    with pytest.raises(ValueError, match="^chunk_size must be that of the weights, 8, got 64: load dict"):
        torch.nn.Sequential(other).load_state_dict(way(torch.nn.Sequential(trained)))
    other.load_state_dict(dict(way(trained)))
    assert all(map(torch.equal, other.parameters(), trained.parameters()))


def test_the_note_of_the_chunk_size_is_no_entry_of_the_weights_and_a_round_trip_changes_none():
    trained, other = of_chunk(8), of_chunk(8, seed=1)
    said = trained.state_dict()
    assert said.keys() == dict(trained.named_parameters()).keys()
    other.load_state_dict(kept(trained))
    assert all(torch.equal(weight, said[name]) for name, weight in other.state_dict().items())


COMPILED = """
import logging, sys
import torch
from ttmem.memories import LongTermMemory
torch.set_num_threads(1)
torch._logging.set_logs(dynamo=logging.ERROR)  # the place in the chunk is looked up: two graphs, and it says so
torch.manual_seed(0)
memory, x = LongTermMemory(16, heads=2, chunk_size=4, depth=1, momentum=False).double(), torch.randn(1, 9, 16).double()
with torch.inference_mode():
    _, state = memory(x[:, :3])
found = []
for run in (memory, torch.compile(memory, backend=sys.argv[1])):
    memory.zero_grad()
    y, _ = run(x[:, 3:], state)
    y.square().sum().backward()
    found.append([y.detach(), *(p.grad for p in memory.parameters() if p.grad is not None)])
print(max(float((a - b).abs().max()) for a, b in zip(*found, strict=True)))
"""


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compiled_a_memory_goes_on_with_gradients_from_what_was_read_in_inference_mode(backend):
    assert float(printed(COMPILED, backend)) < 1e-12
