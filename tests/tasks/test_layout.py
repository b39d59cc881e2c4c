"""What is left to chance in a context is as likely as the set's definition says."""

from collections import Counter
from itertools import permutations, product

import pytest
import torch

from tasks.reading import N2, assert_uniform, named
from ttmem.tasks import AssociativeRetrieval


def test_pairs_choose_their_segment_evenly_and_two_share_one_half_the_time():
    segment = named(N2).sample(20_000).slices["segment"]
    shared = (segment[:, 0] == segment[:, 1]).double().mean()
    assert abs(shared - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(segment.double().mean() - 0.5) < 5 * 0.5 / 40_000**0.5


def test_a_pair_stands_anywhere_in_its_filler_with_equal_chance():
    context = named("N1-K1V1-S1_13-13").sample(20_000).context
    assert_uniform((context == 66).int().argmax(dim=1), 9)  # 8 characters around a pair of 5: 9 gaps


def test_two_pairs_choose_their_gaps_independently():
    task = named("N2-K1V1-S1_13-13")  # 3 characters around two pairs: 4 gaps each
    starts = (task.sample(20_000).context == 68).nonzero()[:, 1].view(-1, 2) - 2
    gaps = starts - torch.tensor([0, 5])
    counts = Counter(map(tuple, gaps.tolist()))
    for low, high in product(range(4), repeat=2):
        chance = 0 if low > high else (1 if low == high else 2) / 16
        assert abs(counts[low, high] / 20_000 - chance) < 5 * (chance / 20_000) ** 0.5 + 1e-12


def test_filler_has_every_length_with_equal_chance():
    task = named("N1-K4V4-S1_16-32")
    noise = task.sample(20_000).slices["noise"]
    assert (noise.min(), noise.max()) == (5, 21)  # a pair takes 11 characters
    assert_uniform(noise, 17)


def test_characters_of_keys_values_and_filler_are_uniform():
    task = named("N1-K2V2-V10-S1_20-20")
    episode = task.sample(5_000)
    assert_uniform(episode.query[..., 2:4], 10)
    assert_uniform(episode.target[..., :2], 10)
    assert_uniform(episode.context[episode.context < 66], 10)


@pytest.mark.parametrize("alphabet", [3, 4, 40])
def test_every_tuple_of_different_keys_is_equally_likely(alphabet):
    task = AssociativeRetrieval(pairs=2, key=1, value=1, alphabet=alphabet)
    keys = task.sample(60_000).context[:, [1, 6]]
    possible = set(permutations(range(4, 4 + alphabet), 2))
    drawn = [tuple(pair) for pair in keys.tolist()]
    assert set(drawn) <= possible
    assert_uniform(drawn, len(possible))


@pytest.mark.parametrize("name", ["N62-K1V1-V62", "N60-K1V1-V62", "N100-K2V1-V10", "N200-K2V1-V62", "N64-K6V1-V2"])
def test_keys_differ_when_pairs_use_up_most_or_all_of_them(name):
    task = named(name)
    keys = task.sample(64).query[..., 2 : 2 + task.key]
    assert all(len({tuple(key) for key in row}) == task.pairs for row in keys.tolist())


def test_keys_longer_than_an_integer_holds_still_differ():
    keys = AssociativeRetrieval(pairs=50, key=70, value=1, alphabet=2).sample(32).query[..., 2:72]
    assert all(len({tuple(key) for key in row}) == 50 for row in keys.tolist())


def test_where_each_segment_has_one_pair_they_stand_in_their_order():
    task = named("N4-K2V2-E4_9-16")
    text = [task.decode(row) for row in task.sample(200).context]
    assert all([part.count("!") for part in row.split("|")] == [2, 2, 2, 2, 0] for row in text)
    lengths = {len(part) for row in text for part in row.split("|")[:-1]}
    assert lengths == set(range(9, 17))
    episode = task.sample(50)
    assert torch.equal(episode.slices["segment"], episode.slices["position"])


def test_a_pair_for_each_segment_needs_as_many_pairs_as_segments():
    with pytest.raises(ValueError, match="pairs must be segments = 3 where each has one, got 2"):
        named("N2-K2V2-E3_9-16")
