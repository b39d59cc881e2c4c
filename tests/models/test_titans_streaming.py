"""A Titans model reads a sequence as one, wherever it is cut, padded or batched; and never the future."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ttmem import save_state
from ttmem.core.state import map_state, tensors
from ttmem.models import build, preset

pytestmark = pytest.mark.usefixtures("float64")
T, VOCAB, PAD = 23, 20, 0
SMALL = {"dim": 16, "vocab": VOCAB, "pad": PAD, "hidden": 16, "chunk_size": 4, "segment_size": 6, "window_size": 5}
KINDS = ["lmm", "mac", "mac queries", "mag", "mal", "swa", "full"]
every = pytest.mark.parametrize("kind", KINDS)
OPTIONS = [
    ("lmm", {"memory_depth": 1}),
    ("lmm", {"memory_depth": 4, "momentum": False}),
    ("lmm", {"memory_norm": False, "memory_heads": 4, "conv": 0}),
    ("lmm", {"persistent_tokens": 0, "forget": "channel", "recompute": False}),
    ("mac", {"persistent_tokens": 0, "gate": "product"}),
    ("mac", {"memory_depth": 3, "forget": "none", "clip": None, "memory_norm": False}),
    ("mac", {"momentum": False, "forget": "channel", "memory_heads": 1}),
    ("mac", {"segment_size": 1}),
    ("mac", {"segment_size": 64, "chunk_size": 64}),
    ("mac queries", {"segment_size": 1, "persistent_tokens": 0}),
    ("mac queries", {"segment_size": 7, "chunk_size": 3, "gate": "product"}),
    ("mag", {"window_size": 1, "gate": "product"}),
    ("mag", {"window_size": 64, "persistent_tokens": 0, "memory_depth": 1}),
    ("mal", {"window_size": 1, "chunk_size": 1}),
    ("mal", {"persistent_tokens": 5, "forget": "none", "memory_heads": 4}),
    ("swa", {"window_size": 1, "persistent_tokens": 0}),
    ("full", {"persistent_tokens": 0, "tied": False}),
]
options = pytest.mark.parametrize("kind, changes", OPTIONS, ids=str)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def model(kind, **changes):
    """A small model whose weights are large enough to matter; "mac queries" has memory tokens."""
    queries = 3 if kind == "mac queries" else 0
    made = build(preset("tiny", kind.split()[0], memory_tokens=queries, **SMALL | changes), seed=0)
    generator = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made


def text(*shape):
    return torch.randint(1, VOCAB, shape)


def stream(made, ids, pieces, state=None):
    outs = []
    for piece in ids.split(pieces, dim=1):
        logits, state = made(piece, state)
        outs.append(logits)
    return torch.cat(outs, dim=1), state


def same(got, wanted, atol=1e-9):
    """Logits and states, down to every tensor of these."""
    assert len(tensors(got)) == len(tensors(wanted))
    for one, other in zip(tensors(got), tensors(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)
    assert got[1].step == wanted[1].step


def edited(ids, place):
    """The same text with another token at `place` of its rows."""
    other = ids.clone()
    other[..., place] = other[..., place] % (VOCAB - 1) + 1
    return other


@every
def test_streaming_at_every_split_equals_one_call(kind):
    made, ids = model(kind, layers=1), text(2, T)
    whole = made(ids)
    for n in range(T + 1):
        same(stream(made, ids, [n, T - n]), whole)


@every
def test_token_by_token_and_three_pieces_equal_one_call(kind):
    made, ids = model(kind), text(2, T)
    whole = made(ids)
    for pieces in ([1] * T, [5, 9, 9], [4, 2, 17], [0, 12, 11]):
        same(stream(made, ids, pieces), whole)


@options
def test_with_every_option_streaming_equals_one_call(kind, changes):
    made, ids = model(kind, layers=1, **changes), text(2, T)
    whole = made(ids)
    for pieces in ([1] * T, [6, 8, 9], [11, 1, 11]):
        same(stream(made, ids, pieces), whole)


@every
def test_no_tokens_leave_the_state_as_it_is(kind):
    made, ids = model(kind), text(2, 9)
    same(made(ids[:, :0]), (torch.zeros(2, 0, VOCAB), made.start(2)))
    state = made(ids)[1]
    assert made(ids[:, :0], state)[1] is state


def assert_causal(made, cuts):
    """An edit of any token t changes what is said at t, and no bit of what is said before it."""
    ids = text(1, T).expand(T, -1)
    other = torch.where(torch.eye(T, dtype=torch.bool), edited(ids, slice(None)), ids)
    before, after = (stream(made, each, cuts)[0] for each in (ids, other))
    moved = (before != after).any(-1)
    assert not moved.tril(-1).any()
    assert moved.diagonal().all()


@every
@pytest.mark.parametrize("pieces", [[T], [1, 3, 8, 11]], ids=str)
def test_the_future_does_not_leak(kind, pieces):
    assert_causal(model(kind), pieces)


@options
def test_with_no_option_the_future_leaks(kind, changes):
    made = model(kind, layers=1, **changes)
    assert_causal(made, [T])
    assert_causal(made, [10, 13])


@pytest.mark.parametrize("kind, reaches", [(kind, kind != "swa") for kind in KINDS])
def test_the_first_token_reaches_the_last_where_there_is_a_memory(kind, reaches):
    made, ids = model(kind), text(2, 60)
    assert made.config.layers * (made.config.window_size - 1) < 59
    moved = (made(ids)[0] - made(edited(ids, 0))[0]).abs()[:, -1].amax(-1)
    assert (moved > 1e-8).all() if reaches else not moved.any()


@pytest.mark.parametrize("kind, reaches", [(kind, kind != "swa") for kind in KINDS])
def test_an_earlier_text_is_remembered_until_the_state_is_reset(kind, reaches):
    made, one, other, ids = model(kind), text(2, T), text(2, T), text(2, 30)
    after_one, after_other, fresh = (made(ids, state)[0] for state in (made(one)[1], made(other)[1], None))
    assert torch.equal(fresh, made(ids, made.start(2))[0])
    for moved in ((after_one - fresh).abs(), (after_one - after_other).abs()):
        assert (moved[:, 0].amax(-1) > 1e-6).all()
        assert (moved[:, -1].amax(-1) > 1e-8).all() if reaches else not moved[:, -1].any()


@every
@pytest.mark.parametrize("pieces", [[T], [9, 14]], ids=str)
def test_samples_do_not_meet(kind, pieces):
    made, ids = model(kind), text(3, T)
    other = ids.clone()
    other[1] = edited(ids[1], slice(None))
    (y, state), (z, end) = (stream(made, each, pieces) for each in (ids, other))
    assert torch.equal(y[[0, 2]], z[[0, 2]]) and (y[1] != z[1]).any(-1).all()
    for one, two in zip(tensors(state), tensors(end), strict=True):
        assert torch.equal(*(leaf.unflatten(0, (3, -1))[[0, 2]] for leaf in (one, two)))


def masks(t):
    """Padding on the left, on the right, holes, none, and nothing else."""
    place = torch.arange(t)
    return torch.stack([place >= 6, place < t - 4, torch.rand(t) > 0.4, place >= 0, place < 0])


@every
def test_padded_rows_equal_each_row_alone_and_go_on_so(kind):
    made, state, alone = model(kind), None, [None] * 5
    for t in (T, 9, 1, 12):
        ids, mask = text(5, t), masks(t)[torch.randperm(5)]
        logits, state = made(ids, state, mask)
        assert not logits[~mask].any()
        for row in range(5):
            wanted, alone[row] = made(ids[row : row + 1, mask[row]], alone[row])
            torch.testing.assert_close(logits[row, mask[row]], wanted[0], rtol=0, atol=1e-9)


def test_rows_of_mac_that_stand_apart_go_on_in_pieces_up_to_the_next_end_of_a_segment():
    made, ids = model("mac", layers=1, segment_size=6), text(2, 10)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, :4] = False  # the first row stands at place 4 of its segment, the second at its end
    _, state = made(ids, mask=mask)
    mixer, sizes = made.blocks[0].mixer, []
    piece = mixer.piece
    mixer.piece = lambda x, *rest: sizes.append(x.shape[1]) or piece(x, *rest)
    made(text(2, 14), state)
    assert sizes == [2, 4, 2, 4, 2]
    sizes.clear()
    made(text(2, 14), state, mask=torch.tensor([[True], [False]]).expand(2, 14))  # the second row has ended
    assert sizes == [2, 6, 6]


@every
def test_what_stands_in_the_padding_does_not_matter(kind):
    made, ids, mask = model(kind), text(5, T), masks(T)
    other = torch.where(mask, ids, text(5, T))
    assert (ids != other).any()
    (y, state), (z, end) = (made(each, None, mask) for each in (ids, other))
    assert torch.equal(y, z)
    held, more = text(5, 9), masks(9)
    assert torch.equal(made(held, state, more)[0], made(held, end, more)[0])


def greedy(made, prompt, mask, count):
    """The likeliest tokens behind prompts, each read once; and the logits they were chosen by."""
    logits, state = made(prompt, None, mask)
    last = mask.long().cumsum(1).argmax(1)
    said = [logits[torch.arange(len(prompt)), last]]
    for _ in range(count - 1):
        logits, state = made(said[-1].argmax(-1)[:, None], state)
        said.append(logits[:, 0])
    return torch.stack(said, dim=1)


@every
def test_generating_from_the_state_equals_generating_from_scratch(kind):
    made, prompt = model(kind, layers=1), text(2, 15)
    said = greedy(made, prompt, torch.ones_like(prompt, dtype=torch.bool), 9)
    for i in range(9):
        ids = torch.cat([prompt, said[:, :i].argmax(-1)], dim=1)
        torch.testing.assert_close(said[:, i], made(ids)[0][:, -1], rtol=0, atol=1e-9)


@every
def test_generating_from_left_padded_prompts_equals_each_prompt_alone(kind):
    made, prompt, lengths = model(kind), text(3, 17), torch.tensor([17, 4, 11])
    mask = torch.arange(17) >= 17 - lengths[:, None]
    said = greedy(made, prompt, mask, 8)
    for row, n in enumerate(lengths):
        alone = greedy(made, prompt[row : row + 1, 17 - n :], torch.ones(1, int(n), dtype=torch.bool), 8)
        torch.testing.assert_close(said[row], alone[0], rtol=0, atol=1e-9)


GO_ON = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from ttmem import load_state
from ttmem.models import build, config_of
torch.set_num_threads(1)
for folder in Path(sys.argv[1]).iterdir():
    said, ids = json.loads((folder / "config.json").read_text()), load_file(folder / "ids.safetensors")["ids"]
    made = build(config_of(said)).double()
    made.load_state_dict(load_file(folder / "weights.safetensors"))
    # of `full`, whose state grows, a state in that form comes of reading as much
    like = made(ids[:, :9])[1] if folder.name == "full" else made.start(len(ids))
    state = load_state(folder / "a.state", like)
    with torch.no_grad():
        save_file({"logits": made(ids, state)[0]}, folder / "end.safetensors")
"""


def saved(folder, made, state, ids):
    """Writes a model, its state, and what is to be read next."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(asdict(made.config)))
    save_file(made.state_dict(), folder / "weights.safetensors")
    save_file({"ids": ids.contiguous()}, folder / "ids.safetensors")
    save_state(folder / "a.state", state)


def test_a_saved_state_goes_on_in_another_process(tmp_path):
    wanted = {}
    for kind in KINDS:
        made, ids = model(kind), text(2, T)
        wanted[kind] = made(ids)[0][:, 9:]
        saved(tmp_path / kind, made, made(ids[:, :9])[1], ids[:, 9:])
    source = Path(__file__).parents[2] / "src"
    command = [sys.executable, "-W", "error", "-c", GO_ON, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    for kind in KINDS:
        end = load_file(tmp_path / kind / "end.safetensors")
        torch.testing.assert_close(end["logits"], wanted[kind], rtol=0, atol=1e-9)


def test_a_state_of_another_batch_is_refused():
    for kind in KINDS:
        made, ids = model(kind), text(2, 9)
        with pytest.raises(ValueError, match="batch"):
            made(ids, map_state(lambda x: x.repeat_interleave(2, 0), made(ids)[1]))
