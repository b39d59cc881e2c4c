"""States of Titans that come from elsewhere: from inference mode, of other floats, of another model or batch."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
import torch.nn.functional as F

from ttmem.core.state import map_state, tensors
from ttmem.models import Titans, TitansConfig, build, preset
from ttmem.models.lmm import PersistentMemory

SMALL = {"dim": 16, "vocab": 20, "pad": 0, "hidden": 16, "chunk_size": 4, "segment_size": 6, "window_size": 5}
KINDS = ["lmm", "mac", "mac queries", "mag", "mal", "swa", "full"]
every = pytest.mark.parametrize("kind", KINDS)
floats = [torch.float32, torch.float64, torch.bfloat16]


def model(kind: str, **changes) -> Titans:
    """A small one; "mac queries" has memory tokens."""
    queries = 3 if kind == "mac queries" else 0
    return build(preset("tiny", kind.split()[0], **{"memory_tokens": queries} | SMALL | changes), seed=0)


def text(*shape: int) -> torch.Tensor:
    return torch.randint(1, 20, shape)


def cast(state, dtype):
    """The same state, its floats of another type."""
    return map_state(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, state)


def learned(made, ids, state):
    """Logits and gradients of going on from a state."""
    made.zero_grad()
    logits, _ = made(ids[:, :-1], state)
    F.cross_entropy(logits.mT, ids[:, 1:]).backward()
    return [logits.detach(), *(p.grad for p in made.parameters() if p.grad is not None)]


@pytest.mark.usefixtures("float64")
@every
@pytest.mark.parametrize("cut", [1, 6, 7, 13])  # 6: where a segment ends
def test_what_was_read_in_inference_mode_is_gone_on_from_with_gradients(kind, cut):
    made, ids, found = model(kind), text(2, 23), []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            _, state = made(ids[:, :cut])
        found.append(learned(made, ids[:, cut:], state))
    assert len(found[0]) == len(found[1]) > 1
    assert all(map(torch.equal, *found))


@every
@pytest.mark.parametrize("theirs", floats, ids=str)
@pytest.mark.parametrize("own", floats, ids=str)
@torch.no_grad()
def test_a_state_of_other_floats_is_taken_as_those_of_the_model(kind, own, theirs):
    made, ids = model(kind).to(own), text(2, 23)
    held = cast(made(ids[:, :9])[1], theirs)
    own_floats = iter([leaf.dtype for leaf in tensors(made(ids[:, :9])[1])])
    same = map_state(lambda leaf: leaf.to(next(own_floats)), held)
    found, wanted = made(ids[:, 9:], held), made(ids[:, 9:], same)
    pairs = zip(tensors(found), tensors(wanted), strict=True)
    assert found[0].dtype == own
    assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("own, theirs", [(3, 5), (5, 0), (0, 5)])
def test_the_state_of_other_memory_tokens_is_refused(own, theirs):
    ids = text(2, 7)
    wide = {"segment_size": 16}
    _, state = model("mac", memory_tokens=theirs, **wide)(ids)
    with pytest.raises(
        ValueError, match=f"^state must be of memory_tokens={own}, it has {theirs or 15} recalled ones$"
    ):
        model("mac", memory_tokens=own, **wide)(ids, state)


@pytest.mark.parametrize("kind", ["lmm", "mac", "mag", "mal"])
@pytest.mark.parametrize("own", [True, False])
def test_the_state_of_a_memory_with_another_norm_is_refused(kind, own):
    ids = text(2, 7)
    _, state = model(kind, memory_norm=not own)(ids)
    with pytest.raises(ValueError, match=f"^state must be of a memory with norm={own}, it is of another$"):
        model(kind, memory_norm=own)(ids, state)


@every
def test_even_without_tokens_the_state_of_another_batch_or_model_is_refused(kind):
    made, ids = model(kind), text(2, 7)
    _, state = made(ids)
    with pytest.raises(ValueError, match="batch"):
        made(ids[:1, :0], state)
    with pytest.raises(ValueError, match="state must have the model's 1 layers, it has 2"):
        model(kind, layers=1)(ids[:, :0], state)
    with pytest.raises(ValueError, match="each layer's state must be a"):
        model("mag" if kind == "lmm" else "lmm")(ids[:, :0], state)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tokens", [0, 2, 4, 7])
def test_a_persistent_memory_without_a_state_begins_where_its_start_ends(tokens):
    memory = PersistentMemory(preset("tiny", "lmm", persistent_tokens=tokens, **SMALL))
    x, offsets = torch.randn(2, 13, 16), torch.tensor([0, 13, 26])
    wanted = memory(x, memory.start(2))
    packed = memory.packed(x.flatten(0, 1), offsets)
    for found in (memory(x), (packed[0].unflatten(0, (2, 13)), packed[1])):
        for one, other in zip(tensors(found), tensors(wanted), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users have it: nobody looks at types and shapes but the code itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("field, value", [("heads", 2.0), ("segment_size", 8.0), ("pad", 1.0), ("conv", "4")])
def test_a_field_that_is_no_whole_number_is_named(field, value, unchecked):
    with pytest.raises(ValueError, match=f"^{field} must be a whole number, got {value!r}$"):
        TitansConfig(**{field: value})


@every
def test_what_is_no_text_mask_or_state_is_named(kind, unchecked):
    made, ids = model(kind), text(2, 7)
    with pytest.raises(ValueError, match=r"^ids must be \(batch, time\), got \(7,\)$"):
        made(ids[0])
    with pytest.raises(ValueError, match=r"^embeddings must be \(batch, time, dim\), got \(7, 16\)$"):
        made.hidden(made.embedding(ids[0]))
    with pytest.raises(ValueError, match=r"^mask must be bool, .* got torch.float32: give mask.bool\(\)$"):
        made(ids, None, torch.ones(2, 7))
    for length in (7, 0):
        with pytest.raises(ValueError, match=r"^state must be a State, as a call gives it, got (\w+)$"):
            made(ids[:, :length], made.start(2).fast["0"])
