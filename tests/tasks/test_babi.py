"""Laws of bAbI's words as tokens, and of reading its files and BABILong's."""

import json
import re
from collections import Counter
from zlib import crc32

import pytest

from ttmem.tasks import BabiLong, babi, read_babilong
from ttmem.tasks.babi import END, FIRST_BUCKET, SEPARATOR, read_babi


def test_tokens_mean_the_same_everywhere():
    task = BabiLong("qa1", 0)
    assert (task.vocab, task.pad, task.separator) == (1058, 0, None)
    assert BabiLong("qa1", 1024, segment=64).separator == 1
    assert task.encode("Where is Mary? <end>") == [56, 28, 34, 5, 3, *babi.encode("end"), 3]
    dont = FIRST_BUCKET + crc32(b"don't") % 1000
    assert task.encode("JOHN, don’t; don't _well-known_ 42") == [30, 6, dont, 3, dont, *babi.encode("well-known 42")]
    assert [task.decode([i]) for i in (0, 1, 2, 3, 4, 57, 58, 1057)] == (
        ["", "<sep>", "<end>", "<unk>", ".", "who", "<word-0>", "<word-999>"]
    )
    assert task.encode(task.decode(range(4, FIRST_BUCKET))) == list(range(4, FIRST_BUCKET))


def test_every_word_of_the_tasks_has_an_id_of_its_own(data):
    for path in (data / "babi/tasks_1-20_v1-2").glob("en*/qa[1-5]_*.txt"):
        text = re.sub(r"\t([\w ]+)\t[\d ]+", r" \1", re.sub(r"^\d+", "", path.read_text(), flags=re.M))
        assert 3 < min(ids := set(babi.encode(text))) and max(ids) < FIRST_BUCKET


# Files of bAbI


def test_a_question_has_the_facts_so_far_and_rests_on_the_last_of_those_named(tmp_path):
    lines = ["1 Mary got the milk.", "2 John moved to the office.", "3 Where is the milk? \toffice\t2 1"]
    lines += ["4 Mary moved to the garden.", "5 Where is the milk?\tgarden\t1 4", *lines[:3]]
    (tmp_path / "qa2.txt").write_text("\n".join(lines))
    first, second, third = read_babi(tmp_path / "qa2.txt")
    facts = [tuple(babi.encode(line[2:])) for line in lines]
    assert first.facts == (facts[0], facts[1]) and second.facts == (facts[0], facts[1], facts[3])
    assert (first.story, first.support, second.story, second.support) == (1, 1, 1, 2)
    assert third == first._replace(story=2) and second.answer == tuple(babi.encode("garden"))


def test_the_larger_set_goes_before_the_smaller_which_alone_has_qa3_to_train_on(tmp_path):
    for name in ("en/qa1_a_train.txt", "en/qa3_b_train.txt", "en-10k/qa1_a_train.txt", "en-10k/qa10_c_train.txt"):
        path = tmp_path / babi.FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = [babi.find(kind, "train", tmp_path).relative_to(tmp_path / babi.FOLDER) for kind in ("qa1", "qa3")]
    assert list(map(str, found)) == ["en-10k/qa1_a_train.txt", "en/qa3_b_train.txt"]


@pytest.mark.parametrize(
    "line", ["Mary went.", "3 Where is Mary?\tgarden", "3 Where?\tgarden\tone", "3 Where?\tgarden\t7"]
)
def test_a_bad_line_of_babi_is_refused_by_its_number(tmp_path, line):
    (tmp_path / "qa1.txt").write_text(f"1 Mary went to the garden.\n2 Where is Mary? \tgarden\t1\n{line}\n")
    with pytest.raises(ValueError, match="qa1.txt, line 3: "):
        read_babi(tmp_path / "qa1.txt")


def test_facts_that_come_again_are_left_out_of_the_earlier_split_with_what_else_could_be_asked_of_them():
    def question(story, facts, asked="who?"):
        return babi.Question(story, ((facts,),), (babi.encode(asked)[0],), (7,), 0)

    own = [question(10, 1), question(1, 1, "where?"), question(2, 2), question(3, 3), question(4, 3, "where?")]
    test = [question(1, 2, "where?"), question(2, 3)]
    splits = babi.part(own, test)
    assert splits == {"train": [own[1], own[2], own[4]], "validation": [own[0]], "test": test}
    splits = babi.part(own, test, by_facts=True)
    assert splits == {"train": [], "validation": [own[0]], "test": test}


@pytest.mark.parametrize("kind", ["qa1", "qa2", "qa4", "qa5"])
def test_no_question_of_a_later_split_can_be_asked_in_an_earlier_one(data, kind):
    task = BabiLong(kind, 0, data=data)
    told = [
        {each.facts if task.pairs > 1 else (each.facts, each.question) for each in task._questions[split]}
        for split in ("train", "validation", "test")
    ]
    assert not told[0] & told[1] | told[0] & told[2] | told[1] & told[2]


# BABILong's own files

SAMPLE = {"input": "Call me Mary. Mary went to the garden.", "question": "Where is Mary? ", "target": "garden"}


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_of_babilong_is_read_with_the_ids_of_the_task(tmp_path, listed):
    samples, path = [SAMPLE, SAMPLE | {"input": "Mary.", "target": "milk,apple", "id": 7}], tmp_path / "1k.json"
    path.write_text(json.dumps(samples, indent=1) if listed else "\n".join(map(json.dumps, samples)) + "\n")
    first, second = read_babilong(path)
    assert first.context.tolist() == [babi.encode(SAMPLE["input"])] and len(first) == 1
    assert first.query.tolist() == [[babi.encode("where is mary?")]]
    assert second.target.tolist() == [[[*babi.encode("milk, apple"), END]]] and second.slices == {}
    assert second.answer.tolist() == [[[True, True, True, False]]]
    assert next(read_babilong(path, segment=4)).context.tolist()[0][4::5] == [SEPARATOR, SEPARATOR]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {key: SAMPLE[key] for key in ("input", "target")},
            "field question is missing; a sample is an object with input,",
        ),
        (SAMPLE | {"target": 5}, "field target must be a text with words, got '5'"),
        (SAMPLE | {"input": " "}, "field input must be a text with words, got ' '"),
        ([1], "field input is missing"),
    ],
)
def test_a_bad_sample_is_refused_by_number_and_field(tmp_path, bad, message):
    for where, text in (("row 2", json.dumps([SAMPLE, bad])), ("line 2", f"{json.dumps(SAMPLE)}\n{json.dumps(bad)}")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=f"bad.json, {where}: {message}"):
            list(read_babilong(tmp_path / "bad.json"))


def test_a_line_that_is_no_json_is_refused_by_its_number(tmp_path):
    (tmp_path / "bad.jsonl").write_text(f"{json.dumps(SAMPLE)}\n\n{{'input'\n")
    with pytest.raises(ValueError, match="bad.jsonl, line 3: must be JSON: "):
        list(read_babilong(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize(("kind", "rate"), [("qa1", 0.19), ("qa2", 0.18), ("qa4", 0.18), ("qa5", 0.37)])
def test_the_question_alone_tells_little(data, kind, rate):
    """The rates in docs/segments.md: the answer that the training split gives to a question most often."""
    splits = babi.part(*(read_babi(babi.find(kind, part, data)) for part in ("train", "test")))
    said: dict = {}
    for each in splits["train"]:
        said.setdefault(each.question, Counter())[each.answer] += 1
    right = [said[q.question].most_common(1)[0][0] == q.answer for q in splits["test"] if q.question in said]
    assert round(sum(right) / len(splits["test"]), 2) == rate
