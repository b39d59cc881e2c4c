"""Laws of language modelling from files: what a document is, what a split is, what a window may hold."""

import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import assert_uniform, equal
from ttmem.tasks import SPLITS, Task, Text
from ttmem.tasks.corpus import Bytes, read_documents

BOS, PAD = 256, 257
THREE = "a" * 900 + "b" * 50 + "c" * 50  # train, validation and test of one document
WIKI = (
    " \n = Ant = \n \n An ant . \n = 1 <unk> + C = \n so . \n \n = = Life = = \n \n Busy . \n \n = Bee = \n \n Bee . \n"
)
BOOK = (
    "\ufeffThe Project Gutenberg EBook\r\n*** START: no mark ***\r\n\r\n"
    "***START OF THE PROJECT GUTENBERG EBOOK ANTS AND\r\nBEES***\r\n\r\n\r\nANTS\r\n\r\n* * *\r\n\r\nThe end.\r\n\r\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK ANTS ***\r\nLicence"
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file to the data folder."""
    monkeypatch.setenv("TTMEM_DATA", str(tmp_path))
    return lambda name, text: (tmp_path / name).write_text(text, encoding="utf-8", newline="")


def dataset(*texts: str, length: int = 8, **options) -> Text:
    return Text.from_dataset(texts, length, 10**6, **options)


def window(episode) -> torch.Tensor:
    assert episode.context.shape == (len(episode), 0) and episode.query.shape == (len(episode), 1, 1)
    return torch.cat([episode.query, episode.target], dim=-1)[:, 0]


# Documents


def test_a_book_loses_its_header_and_licence_and_its_carriage_returns(write, tmp_path):
    write("book.txt", BOOK)
    assert read_documents(tmp_path / "book.txt") == ["ANTS\n\n* * *\n\nThe end.\n"]


def test_wikitext_is_cut_before_titles_and_not_at_sections_or_formulas(write, tmp_path):
    write("wiki.txt", WIKI)
    ant, bee = read_documents(tmp_path / "wiki.txt")
    assert ant.startswith(" = Ant = \n") and "= = Life" in ant and "1 <unk> + C" in ant
    assert bee == " = Bee = \n \n Bee . \n"


def test_any_other_file_is_one_document(write, tmp_path):
    write("plain.txt", "one = two\n\n three\r\nfour")
    assert read_documents(tmp_path / "plain.txt") == ["one = two\n\n three\nfour"]


# Splits


def test_of_each_document_the_end_is_held_out_and_nothing_is_lost_or_shared(write):
    write("a.txt", THREE)
    write("b.txt", THREE.upper())
    task = Text.from_name("text:8:a.txt+b.txt")
    whole = {"train": "a" * 900, "validation": "b" * 50, "test": "c" * 50}
    for split, text in whole.items():
        row = task.windows(split, 2 * len(text) + 1)[0].tolist()
        assert row == [BOS, *text.encode(), BOS, *text.upper().encode()]


@pytest.mark.parametrize("documents", ["carried", "reset"])
def test_no_window_crosses_splits(documents):
    task = dataset(*[THREE] * 4, documents=documents)
    for split, letter in zip(SPLITS, "abc", strict=True):
        allowed = {ord(letter), BOS} if documents == "carried" else {ord(letter)}
        assert set(window(task.sample(500, split)).flatten().tolist()) == allowed
        assert set(task.windows(split, 20).flatten().tolist()) <= {ord(letter), BOS, PAD}


def test_a_source_named_with_a_split_serves_that_one_whole_and_no_other(write):
    write("a.txt", "a" * 1000)
    write("t.txt", "t" * 300)
    task = Text.from_name("text:8:a.txt+t.txt@test")
    told = {split: task.decode(task.windows(split, 8, stride=1).flatten()) for split in SPLITS}
    assert "t" not in told["train"] + told["validation"]
    assert task.windows("test", 1).shape[0] == 1 + 50 + 1 + 300 - 1


# Windows


def test_a_window_is_a_piece_of_the_text_and_the_target_follows_the_query():
    text = "".join(chr(97 + i % 26) + str(i) for i in range(400))
    task, train = dataset(text), text[: len(text) - 2 * (len(text) * 5 // 100)]
    episode = task.sample(300)
    told = {task.decode(row) for row in window(episode)}
    assert len(told) > 100 and all(row in train for row in told)
    assert episode.answer.all() and episode.pad == task.pad == PAD and episode.slices == {}


def test_carried_windows_start_anywhere_with_equal_chance():
    task = dataset(bytes(range(30, 62)).decode(), length=12, split="train")
    starts = window(task.sample(6_000))[:, 0]
    assert_uniform(starts, 33 - 12)


def test_reset_windows_keep_to_one_document_and_carried_ones_do_not():
    texts = [letter * size for letter, size in zip("abcdef", (200, 2, 9, 10, 40, 500), strict=True)]
    reset, carried = (dataset(*texts, split="test", documents=mode) for mode in ("reset", "carried"))
    for rows in (window(reset.sample(2_000, "test")), reset.windows("test", 30)):
        told = [set(row.tolist()) - {PAD} for row in rows]
        assert all(len(letters) == 1 for letters in told) and BOS not in set().union(*told)
        assert set().union(*told) == set(b"abcdef")
    assert any(BOS in row[1:-1].tolist() for row in window(carried.sample(500, "test")))


def test_reset_pads_only_documents_that_are_too_short_and_does_not_count_the_padding():
    episode = dataset("a" * 5, "b" * 50, documents="reset", split="train").sample(500)
    first = episode.query[:, 0, 0]
    assert torch.equal(episode.answer, episode.target != PAD)
    assert episode.answer[first == ord("b")].all()
    assert (episode.answer[first == ord("a"), 0] == (torch.arange(8) < 4)).all()


def test_reset_draws_documents_in_proportion_to_their_tokens_and_their_windows_with_equal_chance():
    text = bytes(range(48, 78)).decode()
    first = window(dataset(text, "~" * 90, documents="reset", split="train").sample(8_000))[:, 0]
    ours = first != ord("~")
    assert abs(ours.double().mean() - 0.25) < 5 * (0.25 * 0.75 / 8_000) ** 0.5
    assert_uniform(first[ours], 30 - 8)


@pytest.mark.parametrize("documents", ["carried", "reset"])
def test_evaluation_windows_predict_every_token_once(documents):
    text = bytes(range(32, 127)).decode() * 3
    windows = dataset(text, documents=documents, split="test").windows("test", 8)
    told = [BOS, *text.encode()] if documents == "carried" else list(text.encode())
    targets = windows[:, 1:].flatten().tolist()
    assert targets == told[1 : 1 + len(targets)] if documents == "carried" else targets[: len(told) - 1] == told[1:]
    assert len(told) - 1 - sum(i != PAD for i in targets) < (8 if documents == "carried" else 1)
    assert torch.equal(windows[1:, 0], windows[:-1, -1])


def test_evaluation_windows_may_be_longer_fewer_and_nearer():
    task = dataset("x" * 2_000, "y" * 2_000, split="test")
    assert task.windows("test", 64).shape == (62, 65)
    every, some = task.windows("test", 16, stride=3), task.windows("test", 16, count=10, stride=3)
    assert torch.equal(some, every[torch.arange(10) * len(every) // 10])
    assert torch.equal(every[1, :-3], every[0, 3:])


# The stream


def test_the_same_numbers_give_the_same_batch_and_others_another(write):
    write("a.txt", "".join(map(str, range(5_000))))
    draw = [Text.from_name("text:16:a.txt").sample(4, "test", 1, 2) for _ in range(2)]
    assert equal(*draw)
    others = [(s, seed, i) for s in SPLITS for seed in range(2) for i in range(3)]
    told = {tuple(window(Text.from_name("text:16:a.txt").sample(4, *each)).flatten().tolist()) for each in others}
    assert len(told) == len(others)


def test_text_is_a_task(write):
    write("a.txt", THREE)
    assert isinstance(Text.from_name("text:8:a.txt"), Task)


# Ids


@given(st.text(max_size=40))
def test_bytes_decode_to_what_was_encoded(text):
    ids = dataset(text).encode(text)
    assert ids == list(text.encode()) and dataset(text).decode([BOS, *ids, PAD]) == text


def test_an_id_that_is_no_token_is_refused():
    with pytest.raises(ValueError, match="id must be between 0 and 257, got 258"):
        Bytes().decode([258])


@pytest.fixture
def tokenizer(write):
    """The name of a tokenizer file with two words and one for the unknown."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the library tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"ant": 0, "bee": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    write("words.json", made.to_str())
    return "words.json"


def test_a_tokenizer_adds_a_separator_and_padding_behind_its_own_ids(write, tokenizer):
    write("a.txt", "ant bee cat " * 50)
    task = Text.from_name("text:5:a.txt:reset:tokenizer=words.json")
    assert (task.encode("bee cat ant"), task.decode([3, 1, 0, 4]), task.vocab, task.pad) == ([1, 2, 0], "bee ant", 5, 4)
    assert task.windows("test", 10).tolist() == [[2, 0, 1, 2, 0, 1, 2, 4, 4, 4, 4]]
    assert task == Text.from_name("text:5:a.txt", tokenizer=tokenizer, documents="reset")


def test_a_file_that_is_no_tokenizer_is_refused(write, tokenizer):
    write("a.txt", THREE)
    with pytest.raises(ValueError, match="tokenizer must be a JSON file of the library tokenizers, got .*a.txt"):
        _ = Text.from_name("text:5:a.txt:tokenizer=a.txt").vocab


def test_without_the_library_the_mend_is_named(write, monkeypatch):
    write("a.txt", THREE)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="pip install tokenizers"):
        _ = Text.from_name("text:5:a.txt:tokenizer=a.txt").vocab


# Names and fields


@pytest.mark.parametrize("name", ["text:8:a.txt", "text:64:a.txt+t.txt@test:reset", "text:8:a.txt:reset:history=12"])
def test_a_name_reads_back_to_the_task(write, name):
    write("a.txt", THREE)
    write("t.txt", THREE)
    assert Text.from_name(name).name == name


def test_absolute_paths_need_no_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TTMEM_DATA", raising=False)
    (tmp_path / "a.txt").write_text(THREE)
    assert Text.from_name(f"text:8:{tmp_path / 'a.txt'}").sample(2).target.shape == (2, 1, 8)
    assert Text.from_name("text:8:a.txt", data=tmp_path).sample(2).target.shape == (2, 1, 8)
    with pytest.raises(
        ValueError, match="^a.txt is looked for in the data folder: give data=FOLDER, or set TTMEM_DATA"
    ):
        Text.from_name("text:8:a.txt")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Text.from_name("text:a.txt"), "task name must look like text:256:.* got 'text:a.txt'"),
        (lambda: Text.from_name("text:0:a.txt"), "length must be >= 1, got 0"),
        (lambda: Text.from_name("text:8:a.txt@dev"), "SPLIT one of train, validation, test, got 'a.txt@dev'"),
        (lambda: Text.from_name("text:8:none.txt"), "no file at .*none.txt: check its name and the data folder"),
        (lambda: Text.from_name("text:8:a.txt", documents="cut"), "documents must be one of .* got 'cut'"),
        (lambda: Text.from_name("text:60:a.txt").sample(1, "test"), "needs 61 tokens of text, got 51 in split test"),
        (lambda: Text.from_name("text:8:a.txt@test").sample(1), "needs 9 tokens of text, got 0 in split train of"),
        (lambda: Text.from_name("text:8:a.txt").sample(1, "dev"), "split must be one of .* got 'dev'"),
        (lambda: Text.from_name("text:8:a.txt").sample(1, queries=2), "queries must be 1, .* got 2"),
        (lambda: Text.from_name("text:8:a.txt").windows("test", 0), "length and stride must be >= 1, got 0 and None"),
        (lambda: Text.from_name("text:8:a.txt").windows("test", 8, 7), "count must be between 1 and the 6 windows of"),
        (lambda: Text.from_name("text:8:latin.txt").sample(1), "latin.txt must be UTF-8, and byte 2 is not"),
        (lambda: Text.from_dataset(["a"], 8, 0), "limit must be >= 1, .* got 0 and None"),
    ],
)
def test_bad_input_is_named_in_one_line_with_its_mend(write, tmp_path, ask, message):
    write("a.txt", THREE)
    (tmp_path / "latin.txt").write_bytes(b"ab\xe9t")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)


# Real files, and speed


def test_real_books_and_articles_are_cut_where_they_should_be(data):
    books = [read_documents(path) for path in sorted((data / "gutenberg").glob("*.txt"))]
    assert books and all(
        len(book) == 1 and "Gutenberg License" not in book[0] and "\r" not in book[0] for book in books
    )
    for name in ("valid", "test"):
        articles = read_documents(data / f"lm/wikitext-2/{name}.txt")
        assert len(articles) == 60 and all(article.startswith(" = ") for article in articles)


def test_data_does_not_limit_training(data):
    task = Text.from_name("text:256:lm/wikitext-2/valid.txt:reset", data)
    task.sample(64)
    start = time.process_time()
    for index in range(50):
        task.sample(64, index=index)
    assert 50 * 64 * 256 / (time.process_time() - start) > 1_000_000
