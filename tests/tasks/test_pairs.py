"""A user's own pairs become an episode, or a line that says why not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import N2, equal, grammar, named
from ttmem.tasks import parse_pairs
from ttmem.tasks.characters import ALPHABET


@given(st.sets(st.text(ALPHABET, min_size=4, max_size=4), min_size=1, max_size=5), st.integers(0, 99), st.data())
def test_own_pairs_are_all_written_in_order_and_all_asked(keys, seed, data):
    task = named("N5-K4V2-S3_16-32")
    pairs = [(key, data.draw(st.text(ALPHABET, min_size=2, max_size=2))) for key in sorted(keys)]
    episode = task.episode_from_pairs(pairs, seed)
    assert sum(grammar(task.decode(episode.context[0]), 4, 2), []) == pairs
    assert [task.decode(query) for query in episode.query[0]] == [f"?!{key}:" for key, _ in pairs]
    assert [task.decode(target) for target in episode.target[0]] == [f"{value}!|" for _, value in pairs]
    assert episode.context.shape == (1, task.context_length)


def test_a_context_written_out_is_the_same_episode():
    task = named(N2)
    episode = task.episode_from_pairs([("ab12", "x9Qz"), ("cd34", "y8Rw")], seed=5)
    assert equal(episode, task.episode_from_text(task.decode(episode.context[0])))


def test_a_drawn_context_read_as_text_asks_the_same():
    task = named("N3-K2V2-S2_16-32")
    drawn = task.sample(1, index=4)
    asked = [task.decode(query)[2:-1] for query in drawn.query[0]]
    assert equal(drawn, task.episode_from_text(task.decode(drawn.context[0]), asked))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "takes 1 to 2 pairs, got 0"),
        ([("aaaa", "bbbb"), ("cccc", "dddd"), ("eeee", "ffff")], "N2-K4V4-S2_16-32 takes 1 to 2 pairs, got 3"),
        ([("aaa", "bbbb")], "key must have 4 characters for N2-K4V4-S2_16-32, got 'aaa' with 3"),
        ([("aaaa", "bbbbb")], "value must have 4 characters .* got 'bbbbb' with 5"),
        ([("aaaa", "b!bb")], "value 'b!bb': character 2, '!', is outside the alphabet a-z A-Z 0-9"),
        ([("aaaa", "bbbb"), ("aaaa", "cccc")], "key 'aaaa' comes twice"),
    ],
)
def test_own_pairs_that_do_not_fit_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        named(N2).episode_from_pairs(pairs)


@pytest.mark.parametrize(
    ("context", "keys", "message"),
    [
        ("!aaaa:bbbb!", None, "context must end with '|'"),
        ("abcd|", None, "holds no pair of the form !KKKK:VVVV!"),
        ("!aaaa:bbbb!c!d|", None, "character 13 of the context, '!'"),
        ("!aaaa:bbbb!|x|", ["cccc"], "key 'cccc' is not in the context, which has aaaa"),
        ("!aaaa:bbbb!|x|", [], "keys must name at least one key"),
        ("!aaaa:bbbb!!aaaa:cccc!|x|", None, "key 'aaaa' comes twice"),
        ("!aaaa:bbbb!|", None, "context must have 2 segments for N2-K4V4-S2_16-32, each ended by '.', got 1"),
        ("!aaaa:bbbb!" + "x" * 60 + "|", None, "context must have at most 66 characters .* got 72"),
    ],
)
def test_a_context_of_another_form_is_refused(context, keys, message):
    with pytest.raises(ValueError, match=message):
        named(N2).episode_from_text(context, keys)


def test_the_question_for_a_key_is_the_one_in_episodes():
    task = named(N2)
    episode = task.episode_from_pairs([("ab12", "x9Qz")])
    assert torch.equal(task.query_for("ab12"), episode.query[0, 0])
    with pytest.raises(ValueError, match="key must have 4 characters"):
        task.query_for("ab")
    with pytest.raises(ValueError, match="character 2, 'e', is outside the alphabet a b c d"):
        named("N2-K2V2-V4").query_for("de")


@pytest.mark.parametrize("line", ["ab cd", "ab:cd", "ab,cd", "ab : cd", " ab\tcd ", "ab, cd"])
def test_a_line_holds_a_pair_in_any_of_three_forms(line):
    assert parse_pairs(f"\n{line}\n\nef gh\n") == [("ab", "cd"), ("ef", "gh")]


@pytest.mark.parametrize("line", ["ab", "ab cd ef", "ab:", ":cd", "a:b:c"])
def test_a_line_of_another_form_is_named(line):
    with pytest.raises(ValueError, match=f"line 3: write 'key value', 'key:value' or 'key,value', got '{line}'"):
        parse_pairs(f"ab cd\n\n{line}\n")


def test_a_file_without_pairs_is_refused():
    with pytest.raises(ValueError, match="no pairs"):
        parse_pairs("\n  \n")
