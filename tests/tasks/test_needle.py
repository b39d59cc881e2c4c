"""Laws of the needle in a haystack: it is there once, where it is said to be, and only the context knows its value."""

import re
import time

import pytest
import torch

from tasks.reading import assert_uniform, equal
from ttmem.tasks import SPLITS, Needle, Task, Text
from ttmem.tasks.needle import FIRSTS, NOISE, SECONDS, numbers, standing, vocabulary

KINDS = ("passkey", "number", "word", "uuid")
VALUE = {
    "passkey": "[1-9][0-9]{6}", "number": "[1-9][0-9]{6}", "word": "[a-z]{4,7}-[a-z]{4,7}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"}  # fmt: skip
SENTENCE = "One of the special magic (number|word|uuid)s for ([a-z]+-[a-z]+) is: ({})\\.[ \n]"
PER_FILE = (
    "Essay {0} number {0} says so: “{0} is well-known, said {0}!” It was high time in {1}. Ask {0} (again?) then. "
)


def essay(i: int) -> str:
    return PER_FILE.format("abcdefghijkl"[i] * 5, 1990 + i) * 9


@pytest.fixture
def folder(tmp_path):
    """A data folder with twelve essays, each with a word and a year of its own."""
    (tmp_path / "niah/PaulGrahamEssays").mkdir(parents=True)
    for i in range(12):
        (tmp_path / f"niah/PaulGrahamEssays/{i:02}.txt").write_text(essay(i).replace(". ", ".\n\n"), encoding="utf-8")
    return tmp_path


def latin(ids: torch.Tensor) -> str:
    """One character per byte, so that places in the text are places in the context."""
    return bytes(ids.tolist()).decode("latin-1")


def byte_text(text: str) -> str:
    return text.encode().decode("latin-1")


def find(task: Needle, context: str) -> re.Match:
    """The one needle of a context, by a second reading."""
    value = VALUE[task.kind].replace("6", str(task.digits - 1)) if task.kind in KINDS[:2] else VALUE[task.kind]
    (found,) = re.finditer(SENTENCE.format(value), context)
    return found


def unpadded(task: Needle, ids: torch.Tensor) -> str:
    assert (ids.diff(dim=-1)[ids[:-1] == task.pad] == 0).all()  # padding is on the right only
    return task.decode(ids)


def assert_hidden(task: Needle, split: str, whole: str | None = None) -> None:
    """Every row of a batch: one needle, at its depth, where a sentence begins; and its value nowhere else."""
    episode = task.sample(64, split)
    assert episode.context.shape == (64, task.length) and int(episode.context.max()) < 256
    for row in range(64):
        context = latin(episode.context[row])
        found = find(task, context)
        what, key, value = found.groups()
        assert unpadded(task, episode.query[row, 0]) == (
            f"The special magic {what} for {key} mentioned in the provided text is "
        )
        assert unpadded(task, episode.target[row, 0]) == f"{value}."
        assert task.decode(episode.target[row, 0][episode.answer[row, 0]]) == value
        rest = context[: found.start()] + context[found.end() :]
        assert int(episode.slices["depth"][row, 0]) == found.start() * 10 // (len(rest) + 1)
        assert value not in rest and context.count(value) == 1
        assert whole is None or value not in whole
        assert found.start() < 5 or re.search(r"[.!?][)\"']*[ \n]$", context[: found.start()])


# The needle


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [150, 700])
def test_the_needle_is_there_once_at_its_depth_and_answers_the_question(folder, kind, length):
    for split in SPLITS:
        assert_hidden(Needle(kind, length, data=folder), split, byte_text("".join(map(essay, range(12)))))


def test_the_needle_stands_at_every_place_with_equal_chance(folder):
    for kind in ("passkey", "number"):
        task = Needle(kind, 300, data=folder)
        starts = [latin(row).index("One of the") for row in task.sample(2_000).context]
        assert min(starts) == 0 and max(starts) > 300 - 90
        assert_uniform(task.sample(4_000).slices["depth"], 10)


def test_without_its_needle_a_context_is_a_piece_of_the_haystack(folder):
    train = "".join(essay(i) for i in range(12) if i % 10 not in (1, 2))
    for task, ring in ((Needle("passkey", 500), NOISE + "\n"), (Needle("number", 9_000, data=folder), train)):
        for row in task.sample(8).context:
            context = latin(row)
            found = find(task, context)
            rest = context[: found.start()] + context[found.end() :]
            assert rest in byte_text(ring) * (len(rest) // len(ring) + 2)


def test_noise_is_whole_before_and_after_the_needle():
    for row in Needle("passkey", 400).sample(32).context:
        before, after = re.split("One of the .*\n", latin(row))
        assert (NOISE + "\n").startswith(after[:90]) and (before == "" or before.endswith("\n"))


# Values


def test_numbers_have_the_digits_asked_for_and_each_is_as_likely(folder):
    task = Needle.from_name("needle:passkey:160:d1")
    assert_uniform([task.decode(row) for row in task.sample(4_000).target[:, 0]], 9)
    assert_hidden(Needle("passkey", 160, digits=18), "train")


def test_a_number_that_stands_in_an_essay_is_never_a_value(folder):
    years = {str(1990 + i) for i in range(12)}
    parts = {each[i : i + 3] for each in years for i in range(2)} - {each for each in ("000", "001")}
    assert parts == {"199", "200", "990", "991", "992", "993", "994", "995", "996", "997", "998", "999"}
    target = Needle("number", 200, digits=3, data=folder).sample(20_000).target[:, 0, :3]
    drawn = {latin(row) for row in target}
    assert len(drawn) == 900 - 12 and not drawn & parts


def test_numbers_are_uniform_over_those_that_are_free():
    taken = standing("12 and 10 of 98999", digits=2)
    assert taken.tolist() == [10, 12, 89, 98, 99]
    drawn = numbers(20_000, 2, taken, torch.Generator().manual_seed(0))
    assert set(map(int, drawn)) == set(range(10, 100)) - set(taken.tolist())
    assert_uniform(drawn, 85)


def test_words_are_of_the_essays_and_never_stand_there_joined():
    text = "The high-level plan, a mid-level sketch; Well-known level needles are high and plain.\n"
    firsts, seconds = vocabulary(text)
    assert seconds == ["high", "level", "needles", "plain", "plan", "sketch"]
    assert firsts == ["level", "needles", "plan", "sketch"]  # `plain` begins keys
    assert not any(f"{a}-{b}" in text for a in firsts for b in seconds)


def test_a_key_is_any_pair_and_says_nothing_of_the_value():
    task = Needle("passkey", 160, digits=1)
    episode = task.sample(4_600)
    keys = [latin(row[row < 256]).split()[5].split("-") for row in episode.query[:, 0]]
    values = [latin(row[:1]) for row in episode.target[:, 0]]
    assert_uniform([first for first, _ in keys], len(FIRSTS))
    assert_uniform([second for _, second in keys], len(SECONDS))
    assert_uniform([(first, value) for (first, _), value in zip(keys, values, strict=True)], len(FIRSTS) * 9)


# Splits and the stream


def test_each_split_has_essays_of_its_own(folder):
    told = {split: set() for split in SPLITS}
    for split in SPLITS:
        for row in Needle("number", 900, data=folder).sample(64, split).context:
            told[split] |= {found[0] for found in re.findall(r"([a-l])\1{4}", latin(row))}
    assert told == {"train": set("adefghijk"), "validation": {"b", "l"}, "test": {"c"}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_give_the_same_batch_and_others_another(folder, kind):
    draw = [Needle(kind, 200, data=folder).sample(4, "test", 1, 2) for _ in range(2)]
    assert equal(*draw)
    others = [(s, seed, i) for s in SPLITS for seed in range(3) for i in range(3)]
    task = Needle(kind, 200, data=folder)
    assert len({tuple(task.sample(2, *each).context.flatten().tolist()) for each in others}) == len(others)


def test_a_batch_is_the_same_today_as_when_it_was_published():
    task = Needle("passkey", 160, digits=4)
    assert task.decode(task.sample(2, "test").context[0]).split("\n")[1] == (
        "One of the special magic numbers for tidy-zebra is: 1170."
    )


def test_needles_are_a_task_with_the_ids_of_text():
    task = Needle("passkey", 160)
    text = Text.from_dataset([NOISE], 8, 100)
    assert isinstance(task, Task) and (task.vocab, task.pad) == (text.vocab, text.pad)
    assert task.encode("né") == text.encode("né") and task.decode(task.encode("né")) == "né"


# Names and fields


@pytest.mark.parametrize(
    "name", ["needle:passkey:1024", "needle:number:200:d4", "needle:word:512", "needle:uuid:16384"]
)
def test_a_name_reads_back_to_the_task(folder, name):
    task = Needle.from_name(name, folder)
    assert task.name == name and Needle(task.kind, task.length, task.digits, folder) == task


def test_only_kinds_with_essays_need_data(monkeypatch, tmp_path):
    monkeypatch.delenv("TTMEM_DATA", raising=False)
    assert Needle.from_name("needle:passkey:160").sample(2).context.shape == (2, 160)
    for kind in KINDS[1:]:
        with pytest.raises(ValueError, match="niah/PaulGrahamEssays is looked for in the data folder: .* TTMEM_DATA"):
            Needle(kind, 1024)
    monkeypatch.setenv("TTMEM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"PaulGrahamEssays must hold at least 3 essays \(\*.txt\), .* got 0$"):
        Needle("word", 1024)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda data: Needle.from_name("needle:passkey"), "must look like needle:passkey:1024 .* got 'needle:passkey'"),
        (lambda data: Needle("pass", 1024), "kind must be one of passkey, number, word, uuid, got 'pass'"),
        (lambda data: Needle("passkey", 20), "length must be >= 66 to hold the needle of passkey, got 20"),
        (lambda data: Needle("passkey", 200, digits=0), "digits must be between 1 and 18, got 0"),
        (lambda data: Needle("word", 200, 4, data), "digits is for passkey and number, got 4 for word: leave it out"),
        (lambda data: Needle("passkey", 200).sample(1, "user"), "split must be one of .*, got 'user'"),
        (lambda data: Needle("passkey", 200).sample(1, queries=2), "queries must be 1, .*, got 2"),
        (
            lambda data: numbers(1, 1, torch.arange(1, 10), torch.Generator()),
            "digits must be more than 1: every number of 1 digits",
        ),
    ],
)
def test_bad_input_is_named_in_one_line_with_its_mend(folder, ask, message):
    with pytest.raises(ValueError, match=message) as caught:
        ask(folder)
    assert "\n" not in str(caught.value)


def test_the_least_length_holds_every_needle():
    contexts = Needle("passkey", 66).sample(500).context
    assert all(find(Needle("passkey", 66), latin(row)) for row in contexts)


# Real essays, and speed


@pytest.mark.parametrize("kind", KINDS[1:])
def test_real_essays_hide_needles_as_made_ones_do(data, kind):
    files = sorted((data / "niah/PaulGrahamEssays").glob("*.txt"))
    whole = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in files)
    for length in (256, 4096):
        assert_hidden(Needle(kind, length, data=data), "test", byte_text(whole))


def test_data_does_not_limit_training():
    task = Needle("passkey", 1024)
    task.sample(64)
    start = time.process_time()
    for index in range(20):
        task.sample(64, index=index)
    assert 20 * 64 * 1024 / (time.process_time() - start) > 2_000_000
