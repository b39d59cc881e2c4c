"""The recurrence against the engine with autograd, the chunk-wise form against the recurrence; what both promise."""

from itertools import accumulate, combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.titans_rows import (
    ROWS,
    Case,
    alone,
    assert_close,
    assert_same,
    drawn,
    engine,
    form_of,
    garbled,
    gradients,
    in_pieces,
    leaf,
    memo_of,
    rates_of,
    row,
    row_form,
    rule_of,
    sources,
    started,
)
from ttmem.core import ChunkState, Form, Rows, associative, begin, chunkwise, fold, from_data, gradient_step, tokenwise
from ttmem.core.chunkwise import spans
from ttmem.core.network import read
from ttmem.core.state import tensors

pytestmark = pytest.mark.usefixtures("float64")
FORGET = ("scalar", "channel", "none")
walks = pytest.mark.parametrize("walk", [chunkwise, tokenwise])


ENGINE = [
    Case(depth, eta, kind, norm=depth % 2 == 0) for depth in (1, 2, 3, 4) for eta in (True, False) for kind in FORGET
]


@pytest.mark.parametrize("chunk", [1, 7, 16])
@pytest.mark.parametrize("case", [*ENGINE, Case(3, clip=1.0), Case(1, norm=True), Case(4, norm=False)], ids=str)
def test_the_recurrence_is_the_engine_with_autograd_at_the_anchor(case, chunk):
    state, rows, form = started(case, seen=3), drawn(case, 18), form_of(case, chunk)
    assert_same(tokenwise(state, rows, form), engine(case, state, rows, form), sources(state, rows, form))


@pytest.mark.parametrize("case", [Case(1), Case(2, forget="channel"), Case(3, momentum=False, norm=False)], ids=str)
def test_with_chunks_of_one_token_it_is_the_fold_of_gradient_steps(case):
    state, rows, form, outs = started(case), drawn(case, 6), form_of(case, 1), []
    objective = associative(lambda fast, x: read(fast, x, form.norm))
    step = gradient_step(lambda fast, data: objective(fast, data[:2]), rule_of(case), from_data(lambda data: data[2]))
    now = begin(rule_of(case), state.fast)._replace(velocity=memo_of(case, state.velocity))
    for t in range(6):
        now, _ = fold(step, now, [(rows.k[:, t : t + 1], rows.v[:, t : t + 1], rates_of(list(state.fast), rows, t))])
        outs.append(read(now.fast, rows.q[:, t : t + 1], form.norm))
    y, end = chunkwise(state, rows, form)
    assert_same((y, end.fast), (torch.cat(outs, dim=1), now.fast), sources(state, rows, form))
    assert_close((end.fast, end.velocity), (now.fast, now.velocity[-2] if case.momentum else {}))


AXES = {
    "depth": (1, 2, 3, 4),
    "chunk": (1, 7, 16, 64),
    "chunks": (0.5, 1, 2, 2.5),
    "momentum": (True, False),
    "forget": FORGET,
    "norm": (True, False),
    "clip": (None, 0.8),
    "recompute": (True, False),
    "seen": (0, 3),
}
ALL = list(product(*AXES.values()))
SOME = ALL[::163]


def assert_the_twins_agree(depth, chunk, chunks, *rest):
    *kind, recompute, seen = rest
    case = Case(depth, *kind)
    state, rows, form = (
        started(case, seen=seen),
        drawn(case, int(chunk * chunks + 0.5)),
        form_of(case, chunk, recompute),
    )
    assert_same(chunkwise(state, rows, form), tokenwise(state, rows, form), sources(state, rows, form))


@pytest.mark.parametrize("option", SOME, ids=lambda option: "-".join(map(str, option)))
def test_the_chunk_wise_form_is_the_recurrence(option):
    assert_the_twins_agree(*option)


def test_every_pair_of_options_is_among_those_tried():
    for i, j in combinations(range(len(AXES)), 2):
        wanted = set(product(list(AXES.values())[i], list(AXES.values())[j]))
        assert {(option[i], option[j]) for option in SOME} == wanted


@pytest.mark.slow
@pytest.mark.parametrize("depth", AXES["depth"])
@pytest.mark.parametrize("chunk", AXES["chunk"])
def test_the_chunk_wise_form_is_the_recurrence_for_every_option(depth, chunk):
    for option in ALL:
        if option[:2] == (depth, chunk):
            assert_the_twins_agree(*option)


@pytest.mark.parametrize("forget", FORGET)
def test_gates_that_are_shut_or_wide_open_stay_exact(forget):
    case = Case(2, forget=forget)
    state, rows, form = started(case), drawn(case, 40), form_of(case, 16)
    shut, open_ = torch.rand(ROWS, 40, 1) < 0.2, torch.rand(ROWS, 40, 1) < 0.2

    def turned(gate):
        return leaf(torch.where(open_, 0.0, torch.where(shut, -20.0, gate)))

    keep = None if rows.keep is None else tuple(turned(part) for part in rows.keep)
    rows = rows._replace(lr=leaf(torch.where(open_, 0.0, rows.lr)), momentum=turned(rows.momentum), keep=keep)
    assert_same(chunkwise(state, rows, form), tokenwise(state, rows, form), sources(state, rows, form))


@given(t=st.integers(1, 90), phase=st.integers(0, 9), chunk=st.integers(1, 9), recompute=st.booleans())
def test_spans_take_every_token_once_and_begin_at_the_bounds_of_chunks(t, phase, chunk, recompute):
    phase, at = phase % chunk, 0
    for span in spans(t, phase, Form(chunk, recompute=recompute)):
        assert span.size >= 1 and span.chunks >= 1
        assert span.begun == ((phase + at) % chunk != 0)
        assert span.size == chunk or span.chunks == 1
        at += span.chunks * span.size
        assert (phase + at) % chunk == 0 or at == t
    assert at == t


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize("case", [Case(2), Case(3, False, "channel", False, 0.8)], ids=str)
def test_a_sequence_in_two_pieces_is_the_sequence_wherever_it_is_cut(case, chunk):
    state, rows, form = started(case), drawn(case, 23), form_of(case, chunk)
    whole = chunkwise(state, rows, form)
    for cut in range(1, 23):
        assert_close(in_pieces(chunkwise, state, rows, form, [cut, 23 - cut]), whole)


@given(chunk=st.integers(1, 9), seen=st.integers(0, 9), pieces=st.lists(st.integers(1, 12), min_size=2, max_size=5))
def test_a_sequence_in_any_pieces_is_the_sequence(chunk, seen, pieces):
    case = Case(2)
    state, rows, form = started(case, seen=seen), drawn(case, sum(pieces)), form_of(case, chunk)
    assert_close(in_pieces(chunkwise, state, rows, form, pieces), tokenwise(state, rows, form))


@walks
def test_gradients_run_through_a_cut(walk):
    case = Case(2)
    state, rows, form = started(case), drawn(case, 23), form_of(case, 7, recompute=True)
    assert_same(in_pieces(walk, state, rows, form, [10, 1, 12]), walk(state, rows, form), sources(state, rows, form))


UNEVEN = torch.tensor([0, 1, 4, 11, 8, 23])
KINDS = [Case(2), Case(1, False, "none", False), Case(3, True, "channel", True, 0.8)]
kinds = pytest.mark.parametrize("case", KINDS, ids=str)


def assert_rows_are_alone(found, walk, state, rows, form, lengths):
    """What each row read, and its end state, are those of its tokens alone; a row of none is as it was."""
    y, end = found
    for i, length in enumerate(lengths):
        if not length:
            assert_close(row(end, i), row(state, i))
        else:
            own = alone(walk, state, rows.split([length, rows.q.shape[1] - length])[0], form, i)
            assert_close((y[i : i + 1, :length], row(end, i)), own)


@walks
@pytest.mark.parametrize("seen", [0, 3])
@kinds
def test_a_row_with_a_length_is_its_tokens_alone_whatever_stands_behind_them(case, seen, walk):
    state, rows, form = started(case, 6, seen), drawn(case, 23, 6), form_of(case, 4, n=6)
    found = walk(state, garbled(rows, UNEVEN), form, UNEVEN)
    assert_rows_are_alone(found, walk, state, rows, form, UNEVEN.tolist())


@pytest.mark.parametrize("t", [1, 2, 19])
@kinds
def test_rows_at_different_places_of_their_chunks_go_on_exactly(case, t):
    state, rows, more, form = started(case, 6), drawn(case, 23, 6), drawn(case, t, 6), form_of(case, 4, n=6)
    _, half = chunkwise(state, garbled(rows, UNEVEN), form, UNEVEN)
    assert torch.equal(half.seen, UNEVEN)
    y, end = chunkwise(half, more, form)
    for i, length in enumerate(UNEVEN.tolist()):
        middle = (
            alone(chunkwise, state, rows.split([length, rows.q.shape[1] - length])[0], form, i)[1]
            if length
            else row(state, i)
        )
        wanted = chunkwise(middle, row(more, i), form._replace(norm=row_form(form, i).norm))
        assert_close((row(y, i), row(end, i)), wanted)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("t", [2, 5, 19])
@kinds
def test_rows_at_different_places_are_the_recurrence_in_outputs_states_and_gradients(case, t, recompute):
    places, lengths = torch.tensor([0, 1, 4, 6, 7, 2]), torch.tensor([t, 0, t - 1, 1, t, t])
    state = started(case, 6)._replace(seen=places)
    rows, form = drawn(case, t, 6), form_of(case, 4, recompute, n=6)
    for own in (None, lengths):
        real = torch.arange(t) < (torch.full((6,), t) if own is None else own)[:, None]
        (y, end), (wanted, last) = (walk(state, rows, form, own) for walk in (chunkwise, tokenwise))
        assert torch.equal(end.seen, last.seen)
        assert_same((y * real[..., None], end), (wanted * real[..., None], last), sources(state, rows, form))


@walks
def test_tokens_behind_a_row_s_length_get_no_gradient(walk):
    case, lengths = Case(2), torch.tensor([0, 9])
    state, rows, form = started(case), drawn(case, 23), form_of(case, 4, recompute=True)
    y, end = walk(state, rows, form, lengths)
    for gradient in gradients((y[1, :9], end), tuple(rows)):
        assert not gradient[0].any() and gradient[1, :9].any() and not gradient[1, 9:].any()


@kinds
def test_computing_again_is_storing_bit_for_bit(case):
    state, rows, form = started(case, seen=3), drawn(case, 50), form_of(case, 7)
    stored, again = (chunkwise(state, rows, form._replace(recompute=kind)) for kind in (False, True))
    inputs = sources(state, rows, form)
    results = [tensors((*found, tuple(gradients(found, inputs)))) for found in (stored, again)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def peak_bytes(chunks, recompute):
    """The most memory that forward and backward pass hold at a time; a state outweighs the tokens of its chunk."""
    fast = {"w1": leaf(torch.randn(1, 16, 64) / 4), "w2": leaf(torch.randn(1, 64, 16) / 8)}
    q, k, v = (leaf(torch.randn(1, 2 * chunks, 16) / 4) for _ in range(3))
    gates = torch.full((1, 2 * chunks, 2), 0.01)
    rows = Rows(q, k, v, gates, -gates, None)
    state = ChunkState(fast, {n: torch.zeros_like(w) for n, w in fast.items()}, fast, torch.zeros(1, dtype=torch.long))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        chunkwise(state, rows, Form(2, recompute=recompute))[0].sum().backward()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_computing_again_takes_little_memory_that_grows_with_the_root_of_the_chunks():
    stored, few, many = peak_bytes(64, False), peak_bytes(16, True), peak_bytes(64, True)
    assert many < stored / 3 and many < 2.5 * few


@walks
def test_a_token_changes_nothing_before_it(walk):
    case = Case(3)
    state, rows, form = started(case), drawn(case, 23), form_of(case, 7)
    for t in (0, 6, 7, 15, 22):
        for gradient in gradients(walk(state, rows, form)[0][:, t], tuple(rows)):
            assert gradient[:, : t + 1].any() and not gradient[:, t + 1 :].any()


def test_no_gradient_runs_from_one_row_to_another():
    case = Case(3)
    state, rows, form = started(case), drawn(case, 23), form_of(case, 7)
    found = chunkwise(state, rows, form)
    for gradient in gradients(row(found, 0), sources(state, rows, form)[:-1]):
        assert gradient[0].any() and not gradient[1].any()


def test_the_chunk_is_part_of_the_function():
    case = Case(2)
    state, rows, form = started(case), drawn(case, 23), form_of(case, 7)
    one, other = (chunkwise(state, rows, form._replace(chunk=chunk))[0] for chunk in (7, 8))
    assert_close(one[:, :7], other[:, :7])
    assert (one[:, 7:] - other[:, 7:]).abs().max() > 1e-3


def test_a_memory_that_read_pairs_with_orthogonal_keys_answers_each_key_with_its_value():
    keys, values = torch.linalg.qr(torch.randn(2, 8, 8))[0], torch.randn(2, 8, 8)
    fast = {"w1": torch.randn(2, 8, 8)}
    rows = Rows(keys, keys, values, torch.full((2, 8, 1), 0.5), None, None)
    y, end = chunkwise(ChunkState(fast, {}, fast, torch.zeros(2, dtype=torch.long)), rows, Form(chunk=3))
    assert_close(y, values)
    assert_close(read(end.fast, keys), values)
