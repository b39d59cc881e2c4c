"""Laws of BABILong: all facts are there, in order, at uniform places of a book, and the answer follows from them."""

import re
import time

import pytest
import torch

from tasks.reading import assert_uniform, equal
from tasks.stories import FACT, PEOPLE, WORDS, babi_text, book_text, data_folder, facts_of, made, rows, solve, told
from ttmem.tasks import SPLITS, BabiLong, Task, babi, babilong
from ttmem.tasks.babi import END, FIRST_BUCKET, PAD, SEPARATOR, VOCAB
from ttmem.tasks.babilong import separated


@pytest.fixture
def folder(tmp_path):
    return data_folder(tmp_path)


# The facts


@pytest.mark.parametrize("length", [0, 60, 128, 1500])
def test_all_facts_of_a_story_are_there_in_order(folder, length):
    for split, file in (("train", "train"), ("validation", "train"), ("test", "test")):
        known = told((folder / f"babi/tasks_1-20_v1-2/en-10k/qa1_made-up_{file}.txt").read_text())
        for context, question, answer in rows(made(folder, length), split):
            assert (facts_of(context), question, answer) in known


@pytest.mark.parametrize("length", [0, 60, 128])
def test_the_answer_follows_from_the_facts_and_the_mask_counts_it_alone(folder, length):
    task = made(folder, length)
    assert all(solve(context, question) == answer for context, question, answer in rows(task, "test", 200))
    episode = task.sample(20)
    assert (episode.target[..., -1] == END).all() and torch.equal(episode.answer, episode.target != END)


@pytest.mark.parametrize("length", [0, 60, 128])
def test_more_questions_are_the_same_kind_and_follow_from_the_same_facts(folder, length):
    task = made(folder, length)
    first, more = (task.sample(64, queries=queries) for queries in (None, 4))
    assert torch.equal(first.context, more.context) and torch.equal(first.query, more.query[:, :1])
    assert torch.equal(first.target, more.target[:, :1]) and torch.equal(
        first.slices["fact"], more.slices["fact"][:, :1]
    )
    persons = set()
    for context, queries, answers, tenths in zip(
        more.context, more.query, more.target, more.slices["fact"], strict=True
    ):
        said, size = task.decode(context), int((context != PAD).sum())
        for query, answer, tenth in zip(queries, answers, tenths, strict=True):
            question = task.decode(query)
            assert solve(said, question) + " <end>" == task.decode(answer)
            last = [found for found in FACT.finditer(said) if found[1] == question.split()[2][:-1]][-1]
            assert length or tenth == len(task.encode(said[: last.start()])) * 10 // size  # buckets do not read back
            persons.add(last[1])
    assert persons == {name.lower() for name in PEOPLE}
    assert (more.query[:, 1:] != first.query).any(-1).float().mean() > 0.3  # others than bAbI's own


def test_a_context_has_exactly_the_length_asked_for(folder):
    for length in (16, 61, 128, 5000):
        context = made(folder, length).sample(32).context
        assert context.shape == (32, length) and bool((context > SEPARATOR).all())


def test_without_a_book_a_context_is_its_facts(folder):
    for context, *_ in rows(made(folder, 0), "train"):
        assert FACT.sub("", context).strip() == ""


def test_between_the_facts_stand_whole_sentences_of_the_books_of_the_split_in_their_order(folder):
    for split in SPLITS:
        ring = made(folder, 100)._background(split).ids.tolist()
        assert len(ring) == 400 and ring == babi.encode(re.sub("Chapter.*|Yes.*", "", book_text(WORDS[split])))
        for length in (100, 900):
            for row in made(folder, length).sample(32, split).context.tolist():
                straw, i, cut = [], 0, False
                while i < length:
                    if 6 < row[i] < FIRST_BUCKET:  # a fact, behind whole sentences or at the very end
                        cut, i = cut or len(straw) % 10 > 0, row.index(4, i) + 1
                    else:
                        assert not cut
                        straw, i = [*straw, row[i]], i + 1
                assert any(straw == (ring * 4)[begin : begin + len(straw)] for begin in range(0, 400, 10))


def test_a_fact_stands_in_every_gap_with_equal_chance(folder):
    gaps, length = [], 12 + 9 * 10  # two facts and nine sentences
    for index in range(6):
        for row in made(folder, length).sample(500, index=index).context:
            at = (row == babi.encode("to")[0]).nonzero()[:, 0] - 2
            short = len(at) == 2 and not (row == babi.encode("back")[0]).any()
            gaps += [(int(place) - 6 * i) // 10 for i, place in enumerate(at)] if short else []
    assert len(gaps) > 300 and set(gaps) == set(range(10))
    assert_uniform(gaps, 10)


def test_slices_say_where_the_last_supporting_fact_begins_and_how_many_facts_there_are(folder):
    for length in (0, 128, 700):
        episode = made(folder, length).sample(200, "test")
        for row, (fact, facts) in enumerate(
            zip(*(episode.slices[name][:, 0] for name in ("fact", "facts")), strict=True)
        ):
            context = episode.context[row][episode.context[row] != PAD]
            begin = int((context == episode.query[row, 0, 2]).nonzero()[-1])  # the last word of whom is asked for
            assert int(fact) == begin * 10 // len(context)
            assert int(facts) == int((context == babi.encode("to")[0]).sum())
        assert_uniform(episode.slices["facts"] // 2, 5) if length == 700 else None


def test_stories_that_do_not_fit_are_left_out(folder):
    assert set(made(folder, 30).sample(200).slices["facts"].flatten().tolist()) == {2, 4}
    with pytest.raises(
        ValueError, match="no question fits in train of babilong:qa1:11; the shortest story has 12 tokens"
    ):
        made(folder, 11).sample(1)


# Separators, splits, the stream


@pytest.mark.parametrize("every", [1, 7, 64, 128, 500])
def test_a_separator_stands_behind_every_so_many_tokens_and_changes_nothing_else(folder, every):
    for length in (0, 128, 300):
        plain, cut = (made(folder, length, segment).sample(32) for segment in (None, every))
        for ids, wide in zip(plain.context, cut.context, strict=True):
            words = ids[ids != PAD]
            expected = [x for part in words.split(every) for x in (*part.tolist(), SEPARATOR)[: every + 1]]
            expected = expected if len(words) % every == 0 else expected[:-1]
            assert wide[wide != PAD].tolist() == expected and not wide[len(expected) :].any()
        assert torch.equal(plain.slices["fact"], cut.slices["fact"]) and plain.pad == PAD
    assert separated(torch.empty(2, 0, dtype=torch.long), 3).shape == (2, 0)


def test_no_question_is_asked_of_the_same_facts_in_two_splits(folder):
    seen = {}
    for split in SPLITS:
        drawn = [row for index in range(4) for row in rows(made(folder, 128), split, 500, index)]
        seen[split] = {(facts_of(context), question) for context, question, _ in drawn}
    first, second, third = (seen[split] for split in SPLITS)
    assert not first & second and not (first | second) & third
    assert len(first) > 200 and len(second) > 20 and len(third) > 100


def test_a_question_that_the_test_asks_of_the_same_facts_is_not_trained_on(folder):
    room = folder / "babi/tasks_1-20_v1-2/en-10k"
    test = (room / "qa1_made-up_test.txt").read_text()
    (room / "qa1_made-up_train.txt").write_text(test + babi_text(30, seed=3) + babi_text(30, seed=3))
    found = made(folder, 0)._questions
    asked = {split: {(each.facts, each.question) for each in found[split]} for split in SPLITS}
    assert not asked["train"] & asked["test"] and not asked["train"] & asked["validation"]
    assert len(found["test"]) == 150 and 0 < len(found["validation"]) <= 30 and len(found["train"]) > 200


def test_the_same_numbers_give_the_same_batch_and_others_another(folder):
    assert equal(*(made(folder, 128).sample(4, "test", 1, 2) for _ in range(2)))
    others = [(s, seed, i) for s in SPLITS for seed in range(3) for i in range(3)]
    task = made(folder, 128)
    assert len({tuple(task.sample(2, *each).context.flatten().tolist()) for each in others}) == len(others)


def test_long_contexts_are_the_same_in_pieces(folder, monkeypatch):
    whole = made(folder, 700).sample(20)
    monkeypatch.setattr(babilong, "_AT_ONCE", 3 * 700)
    assert equal(whole, made(folder, 700).sample(20))


# Names and data


@pytest.mark.parametrize(
    "name", ["babilong:qa1:0k", "babilong:qa2:256", "babilong:qa5:64k:s128", "babilong:qa4:1000:s64"]
)
def test_a_name_reads_back_to_the_task(name):
    task = BabiLong.from_name(name)
    assert task.name == name and BabiLong(task.kind, task.length, task.segment) == task
    assert isinstance(task, Task) and BabiLong.from_name("babilong:qa1:4096").name == "babilong:qa1:4k"


def test_data_are_looked_for_when_they_are_needed(monkeypatch, tmp_path):
    monkeypatch.delenv("TTMEM_DATA", raising=False)
    task = BabiLong.from_name("babilong:qa1:1k")
    with pytest.raises(ValueError, match="babi/tasks_1-20_v1-2 is looked for in the data folder: .* TTMEM_DATA"):
        task.sample(1)
    monkeypatch.setenv("TTMEM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"must hold qa1_\*_train.txt of bAbI v1.2 in en-10k or en, and holds none"):
        task.sample(1)


def test_books_that_are_missing_or_too_short_are_named(folder):
    (folder / "gutenberg/1.txt").write_text("Too short. " * 9)
    with pytest.raises(ValueError, match=r"1.txt must hold sentences of 10 words or more, and has none"):
        made(folder, 128).sample(1, "validation")
    (folder / "gutenberg/1.txt").unlink()
    with pytest.raises(ValueError, match=r"gutenberg must hold at least 3 books \(\*.txt\), .* got 2$"):
        made(folder, 128).sample(1)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: BabiLong.from_name("babilong:qa1"), "must look like babilong:qa1:0k, .* got 'babilong:qa1'"),
        (lambda: BabiLong.from_name("babilong:qa6:1k"), "kind must be one of qa1, .*, qa5, got 'qa6'"),
        (lambda: BabiLong("qa1", -1), "length must be >= 0, got -1"),
        (lambda: BabiLong.from_name("babilong:qa1:1k:s0"), "segment must be >= 1, got 0"),
        (lambda: BabiLong("qa1", 0).sample(1, "user"), "split must be one of .*, got 'user'"),
        (lambda: BabiLong("qa1", 0).sample(1, queries=5), "queries must be between 1 and the 4 of qa1, got 5"),
        (lambda: BabiLong("qa1", 0).sample(1, queries=0), "queries must be between 1 and the 4 of qa1, got 0"),
        (lambda: BabiLong("qa2", 0).sample(1, queries=2), "queries must be between 1 and the 1 of qa2, got 2"),
        (lambda: BabiLong.from_name("babilong:qa1:99999k"), "length must be <= 16,777,216 tokens, got 102,398,976"),
        (lambda: BabiLong("qa1", 0).sample(-1), "batch must be >= 0, got -1"),
        (lambda: BabiLong("qa1", 0).decode([3, VOCAB]), "id must be between 0 and 1057, got 1058"),
    ],
)
def test_bad_input_is_named_in_one_line_with_its_mend(ask, message):
    with pytest.raises(ValueError, match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)


# The real bAbI and real books, and speed


@pytest.mark.parametrize("kind", babilong.KINDS)
def test_real_books_hide_real_stories(data, kind):
    known = told("".join(path.read_text() for path in (data / "babi/tasks_1-20_v1-2").glob(f"en*/{kind}_*.txt")))
    for split in SPLITS if kind == "qa1" else ("test",):
        task = BabiLong(kind, 1024, None, data)
        asked = {(question, answer) for _, question, answer in known}
        for context, question, answer in rows(task, split, 40):
            assert (question, answer) in asked
            places = [f for f, q, a in known if (q, a) == (question, answer) and in_order(f, context)]
            assert places and (kind != "qa1" or solve(context, question) == answer)
        if kind == "qa1":
            more = task.sample(200, split, queries=4)
            for context, queries, answers in zip(more.context, more.query, more.target, strict=True):
                said = [solve(task.decode(context), task.decode(query)) for query in queries]
                assert [f"{place} <end>" for place in said] == [task.decode(answer) for answer in answers]


def in_order(facts: tuple[str, ...], context: str) -> bool:
    place = 0
    for fact in facts:
        place = context.find(fact, place) + len(fact)
        if place < len(fact):
            return False
    return True


def test_data_do_not_limit_training(folder):
    task = made(folder, 256)
    task.sample(16)
    start = time.process_time()
    for index in range(50):
        task.sample(16, index=index)
    assert len(task.sample(0)) == len(made(folder, 0).sample(0)) == 0
    assert 50 * 16 / (time.process_time() - start) > 2_000
