from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.tiny import episode, ids
from ttmem.models.base import join, score

pytestmark = pytest.mark.usefixtures("float64")


def slow_join(query, target, pad):
    """Each row as lists: query tokens, target tokens, padding; and where the t-th target token is predicted."""
    rows = []
    for q, y in zip(query.flatten(0, 1).tolist(), target.flatten(0, 1).tolist(), strict=True):
        said, answered = [x for x in q if x != pad], [x for x in y if x != pad]
        rows.append((said + answered, len(q) + len(y), [len(said) - 1 + t for t in range(len(answered))]))
    return rows


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=2, max_size=6).filter(
        lambda x: not len(x) % 2
    ),
    pad=st.sampled_from([0, 9]),
)
def test_join_is_the_slow_join_on_lists(sizes, pad):
    query, target = torch.full((len(sizes), 4), pad), torch.full((len(sizes), 3), pad)
    for i, (s, y) in enumerate(sizes):
        query[i, :s], target[i, :y] = ids(s), ids(y)
    joined = join(query.view(2, -1, 4), target.view(2, -1, 3), pad)
    for i, (row, width, places) in enumerate(slow_join(query.view(2, -1, 4), target.view(2, -1, 3), pad)):
        assert joined.ids[i].tolist() == row + [pad] * (width - len(row))
        assert joined.place[i, : len(places)].tolist() == places
        assert [joined.ids[i, place + 1] for place in places] == target[i, : len(places)].tolist()


@pytest.mark.parametrize("query, target", [((4, 3), (4, 2)), ((2, 2, 3), (2, 1, 2)), ((2, 2, 3), (4, 2))])
def test_questions_and_answers_of_other_shapes_are_refused(query, target):
    untyped = join.__wrapped__ if hasattr(join, "__wrapped__") else join  # tests check annotations, users' calls do not
    with pytest.raises(ValueError, match=r"(query|target) must be \(batch, questions, tokens\), .* got \("):
        untyped(torch.ones(query, dtype=torch.long), torch.ones(target, dtype=torch.long), 0)


def logits_for(guesses):
    return F.one_hot(guesses, 7).double() * 5


def test_score_counts_an_answer_when_all_its_answer_tokens_are_right():
    asked = episode()
    target = torch.tensor([[[1, 2, 3], [4, 5, 0]], [[6, 1, 2], [3, 4, 5]]])
    answer = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[1, 1, 0], [1, 1, 0]]]).bool()
    guesses = torch.tensor([[[1, 2, 6], [4, 6, 6]], [[6, 2, 2], [1, 4, 5]]])
    outcome = score(logits_for(guesses), replace(asked, target=target, answer=answer))
    assert outcome.exact.tolist() == [[True, True], [False, False]]
    assert outcome.right.tolist() == (guesses == target).tolist()


def test_the_read_loss_is_the_mean_over_all_tokens_that_are_not_padding():
    asked = episode(3, 2)
    logits = torch.randn(3, 2, 3, 7)
    nats = [
        -logits[b, q, y].log_softmax(-1)[asked.target[b, q, y]].item()
        for b, q, y in (asked.target != 0).nonzero().tolist()
    ]
    outcome = score(logits, asked)
    assert outcome.loss.item() == pytest.approx(sum(nats) / len(nats), rel=1e-12)
    assert torch.equal(outcome.parts["read"], outcome.loss)


def test_what_is_guessed_for_padding_changes_no_loss_and_no_count():
    asked, logits = episode(3, 2), torch.randn(3, 2, 3, 7)
    noisy = torch.where((asked.target == 0)[..., None], 50 * torch.randn_like(logits), logits)
    one, two = score(logits, asked), score(noisy, asked)
    assert torch.equal(one.loss, two.loss) and torch.equal(one.exact, two.exact)
