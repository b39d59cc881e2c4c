"""Laws of windows of text with a history: the context is the text before them, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from ttmem.tasks import Text

BOS, PAD = 256, 257


def dataset(*texts: str, documents: str = "carried") -> Text:
    return Text.from_dataset(texts, 8, 10**6, documents=documents, split="train")


def test_the_context_is_what_stands_before_the_window_and_the_windows_are_those_without_it():
    text = bytes(range(32, 127)).decode()
    plain = dataset(text)
    told = replace(plain, history=3)
    whole, lengths = [BOS, *text.encode()], set()
    for index in range(40):
        episode = told.sample(6, index=index)
        assert torch.equal(episode.query, plain.sample(6, index=index).query)
        lengths.add(episode.context.shape[1])
        for context, query, target in zip(episode.context, episode.query, episode.target, strict=True):
            place = whole.index(int(query))
            before = whole[max(place - episode.context.shape[1], 0) : place]
            assert context.tolist() == before + [PAD] * (episode.context.shape[1] - len(before))
            assert target[0].tolist() == whole[place + 1 : place + 9]
    assert lengths == {0, 8, 16, 24}


def test_the_history_of_a_reset_window_is_of_its_document():
    task = replace(dataset(*(letter * 30 for letter in "abc"), documents="reset"), history=9)
    for index in range(10):
        episode = task.sample(8, index=index)
        for context, query in zip(episode.context, episode.query, strict=True):
            assert set(context.tolist()) <= {int(query), PAD}


@pytest.mark.parametrize("history", ["x", "-1"])
def test_a_history_that_is_no_number_is_refused(history):
    with pytest.raises(ValueError, match=f"task name must look like .* got 'text:8:a.txt:history={history}'"):
        Text.from_name(f"text:8:a.txt:history={history}")
    with pytest.raises(ValueError, match="history must be >= 0, got -1"):
        replace(dataset("text"), history=-1)
