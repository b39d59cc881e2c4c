"""Laws of random streams and of episodes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import N2, PUBLISHED, equal, named
from ttmem.tasks import SPLITS, Needle, Task, Text
from ttmem.tasks.base import random_stream


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_same_split_seed_and_index_give_the_same_batch(name):
    draw = [named(name).sample(4, "test", 1, 2) for _ in range(2)]
    assert equal(*draw)


def test_a_batch_does_not_depend_on_torchs_own_random_state():
    task = named(N2)
    first = task.sample(4)
    torch.manual_seed(99)
    torch.rand(7)
    before = torch.get_rng_state()
    assert equal(first, task.sample(4))
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_is_the_same_today_as_when_it_was_published():
    task = named(N2)
    assert task.decode(task.sample(1, "test", seed=1).context[0]) == "toAfWBDL2YjUP7jH0BD4|9!LE9C:XNLP!Q!b60T:9FCX!qS|"


def test_splits_seeds_and_indexes_differ():
    draws = [named(N2).sample(1, s, seed, i).context for s in SPLITS for seed in range(3) for i in range(3)]
    assert len({tuple(context.flatten().tolist()) for context in draws}) == len(draws)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_two_splits_share_a_stream(seed, index):
    # two of the 32 bits that torch's generator uses name the split, so no seed and no index makes two meet
    assert [random_stream(split, seed, index).initial_seed() // 2**30 for split in SPLITS] == [0, 1, 2]


@given(st.integers(0, 1000), st.integers(0, 2**29), st.integers(1, 2**29))
def test_no_two_batches_of_a_split_share_a_stream(seed, index, step):
    a, b = (random_stream("train", seed, i).initial_seed() for i in (index, index + step))
    assert a != b


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
        named(N2).sample(1, "dev")


@pytest.mark.parametrize(
    "task", [named(N2), Needle("passkey", 160), Text.from_dataset(["to be"] * 9, 8, 99, split="test")]
)
def test_a_batch_may_be_empty_and_not_less_than_that(task):
    none, one = task.sample(0, "test"), task.sample(1, "test")
    assert len(none) == 0 and none.slices.keys() == one.slices.keys()
    assert all(getattr(none, part).ndim == getattr(one, part).ndim for part in ("context", "query", "target", "answer"))
    with pytest.raises(ValueError, match="^batch must be >= 0, got -1$"):
        task.sample(-1, "test")


def test_rows_and_devices_take_every_tensor_along():
    episode = named(N2).sample(6)
    assert len(episode[2:4]) == 2 and torch.equal(episode[2:4].slices["noise"], episode.slices["noise"][2:4])
    assert torch.equal(episode[2:4].target, episode.target[2:4])
    moved = episode.to("meta")
    assert {
        x.device.type for x in (moved.context, moved.query, moved.target, moved.answer, *moved.slices.values())
    } == {"meta"}


def test_a_set_is_a_task_and_an_episode_is_none():
    assert isinstance(named(N2), Task) and not isinstance(named(N2).sample(1), Task)
