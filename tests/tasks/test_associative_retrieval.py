"""Laws of the associative-retrieval sets: their grammar, their questions, their names."""

import re
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import N2, PUBLISHED, assert_uniform, grammar, named, tasks
from ttmem.tasks import SPLITS, AssociativeRetrieval
from ttmem.tasks.characters import ALPHABET


@given(tasks(), st.integers(0, 1000))
def test_every_context_reads_back_to_its_pairs_in_their_segments(task, index):
    episode = task.sample(16, index=index)
    for row in range(len(episode)):
        segments = grammar(task.decode(episode.context[row]), task.key, task.value)
        written = [(*pair, place) for place, segment in enumerate(segments) for pair in segment]
        assert len(segments) == task.segments and len(written) == task.pairs
        assert len({key for key, _, _ in written}) == task.pairs
        assert set("".join(key + value for key, value, _ in written)) <= set(ALPHABET[: task.alphabet])
        for q, position in enumerate(episode.slices["position"][row].tolist()):
            key, value, segment = written[position]
            assert task.decode(episode.query[row, q]) == f"?!{key}:"
            assert task.decode(episode.target[row, q]) == f"{value}!|"
            assert episode.slices["segment"][row, q] == segment


@given(tasks(), st.integers(0, 1000))
def test_segments_keep_their_length_unless_the_pairs_alone_are_longer(task, index):
    episode = task.sample(16, index=index)
    for row in episode.context:
        texts = task.decode(row).split("|")[:-1]
        for text, pairs in zip(texts, grammar(task.decode(row), task.key, task.value), strict=True):
            taken = len(pairs) * (task.key + task.value + 3)
            assert max(task.fill_min, taken) <= len(text) <= max(task.fill_max, taken)


@given(tasks())
def test_noise_counts_the_characters_outside_pairs_and_ends(task):
    episode = task.sample(8)
    taken = task.pairs * (task.key + task.value + 3) + task.segments
    for row, noise in zip(episode.context, episode.slices["noise"], strict=True):
        assert set(noise.tolist()) == {len(task.decode(row)) - taken}


@given(tasks(), st.sampled_from(SPLITS))
def test_shapes_are_the_same_for_every_batch_of_a_task(task, split):
    shapes = {(e.context.shape, e.query.shape, e.target.shape) for e in (task.sample(5, split, i, i) for i in range(4))}
    questions = (5, task.pairs)
    assert shapes == {((5, task.context_length), (*questions, task.key + 3), (*questions, task.value + 2))}


def test_the_longest_context_fills_the_row_and_all_are_padded_on_the_right():
    context = named("N2-K1V1-S2_3-6").sample(4096).context
    filled = context != 0
    assert (filled.sum(1) == context.shape[1]).any()
    assert torch.equal(filled, filled.sort(dim=1, descending=True, stable=True).values)


@pytest.mark.parametrize("pairs", [1, 8, 96])
def test_sets_without_filler_are_seven_characters_a_pair_and_one(pairs):
    task = named(f"N{pairs}-K2V2-V62_1M")
    context = task.sample(4).context
    assert context.shape[1] == task.context_length == 7 * pairs + 1
    assert (context != 0).all()
    assert re.fullmatch(r"(!\w\w:\w\w!)+\|", task.decode(context[0]))


def test_the_published_example_reads_back():
    context = "q!aLA3:w5fz!5X!7gjy:l8fG!ywS|"
    task = named("N2-K4V4-S1_16-32")
    episode = task.episode_from_text(context, ["7gjy"])
    assert task.decode(episode.context[0]) == context
    assert task.decode(episode.query[0, 0]) == "?!7gjy:"
    assert task.decode(episode.target[0, 0]) == "l8fG!|"
    assert {name: x.tolist() for name, x in episode.slices.items()} == {
        "position": [[1]], "segment": [[0]], "noise": [[6]]}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_answer_is_the_value_without_what_closes_it(name):
    episode = named(name).sample(3)
    assert torch.equal(episode.answer, episode.target < 66)
    assert episode.answer.sum(-1).unique().tolist() == [named(name).value]


# Questions


def test_asking_all_asks_every_pair_once_in_an_order_that_ignores_the_context():
    position = named("N3-K2V2-V62").sample(6_000).slices["position"]
    assert torch.equal(position.sort(dim=1).values, torch.arange(3).expand(6_000, 3))
    assert_uniform([tuple(row) for row in position.tolist()], 6)


def test_one_question_asks_each_pair_with_equal_chance():
    position = named("N8-K2V2-V62").sample(8_000, queries=1).slices["position"]
    assert position.shape == (8_000, 1)
    assert_uniform(position, 8)


def test_k_questions_are_any_k_different_pairs():
    position = named("N4-K2V2-V62").sample(6_000, queries=2).slices["position"]
    assert_uniform([tuple(row) for row in position.tolist()], 12)


def test_asking_less_changes_no_context_and_no_question_asked():
    task = named("N4-K2V2-S2_0-20")
    every, some = task.sample(8, index=3), task.sample(8, index=3, queries=2)
    assert torch.equal(every.context, some.context) and torch.equal(every.query[:, :2], some.query)
    assert torch.equal(every.target[:, :2], some.target)


def test_the_task_can_say_how_many_are_asked():
    task = AssociativeRetrieval(pairs=4, key=2, value=2, queries=1)
    assert task.sample(2).query.shape[1] == 1 and task.sample(2, queries=3).query.shape[1] == 3


# Names and fields


@given(tasks())
def test_a_name_reads_back_to_the_task(task):
    assert AssociativeRetrieval.from_name(task.name) == task


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_read_back_with_and_without_a_size(name):
    assert named(name).name == name
    assert named(f"{name}_1M") == named(f"{name}_5000") == named(name)


@pytest.mark.parametrize(
    "name", ["", "N2", "N2-K4V4", "N2-K4V4-S2", "n2-K4V4-V62", "N2-K4V4-S2_16-32-x", "N2-K4V4-V62_1G"]
)
def test_a_name_of_another_form_is_refused_with_the_form(name):
    with pytest.raises(ValueError, match=f"must look like N2-K4V4-S2_16-32 or N8-K2V2-V62, got '{name}'"):
        named(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": 0}, "pairs must be >= 1, got 0"),
        ({"key": 0}, "key must be >= 1, got 0"),
        ({"segments": 0}, "segments must be >= 1, got 0"),
        ({"fill_min": -1}, "fill_min must be >= 0, got -1"),
        ({"fill_min": 9, "fill_max": 8}, "fill_max must be >= fill_min, got 8 < 9"),
        ({"alphabet": 63}, "alphabet must be <= 62, got 63"),
        ({"pairs": 63, "key": 1}, "pairs must be <= the 62 different keys .* got 63: take fewer pairs or a longer key"),
        ({"queries": 3}, "queries must be between 1 and pairs = 2, got 3"),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value_and_mend(fields, message):
    with pytest.raises(ValueError, match=message):
        AssociativeRetrieval(**{"pairs": 2, "key": 4, "value": 4} | fields)


@pytest.mark.parametrize("queries", [0, 3])
def test_more_or_fewer_questions_than_there_are_pairs_are_refused(queries):
    with pytest.raises(ValueError, match=f"queries must be between 1 and pairs = 2, got {queries}"):
        named(N2).sample(1, queries=queries)


# Speed


def rate(name: str, batches: int) -> float:
    """Samples per second of processor time, so that other work on the machine does not count."""
    task = named(name)
    task.sample(4096)
    start = time.process_time()
    for index in range(batches):
        task.sample(4096, index=index)
    return 4096 * batches / (time.process_time() - start)


def test_data_does_not_limit_training():
    assert rate(N2, 2) > 20_000  # a fifth of what is promised: with checked shapes, on any machine


@pytest.mark.slow
def test_a_hundred_thousand_samples_a_second_on_one_core():
    assert rate(N2, 20) > 100_000
