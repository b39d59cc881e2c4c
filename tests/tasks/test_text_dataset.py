"""Text from a dataset: rows that are texts or have one, read as far as it takes."""

import itertools

import pytest
import torch

from ttmem.tasks import Text


def test_a_dataset_is_read_up_to_the_limit_and_no_further():
    read = []
    texts = (read.append(i) or "word " * 10 for i in itertools.count())
    task = Text.from_dataset(texts, length=8, limit=120, split="train")
    assert len(read) == 3 and task.windows("train", 1).shape[0] == 120 + 3 - 1
    assert task.name == "text:8:dataset" and task.vocab == 258


def test_rows_of_a_dataset_are_their_texts():
    rows = [{"text": "to be or not", "title": "Hamlet"}] * 9
    ours, plain = (Text.from_dataset(texts, 4, 99) for texts in (rows, [row["text"] for row in rows]))
    assert torch.equal(ours.sample(5).target, plain.sample(5).target)
    for row, had in (({"content": "a", "title": "b"}, "one with content, title"), ({"text": 7}, "one with text")):
        with pytest.raises(ValueError, match=f'a row must be a text or have one as its "text", got {had}'):
            Text.from_dataset(iter([row]), 4, 99)
