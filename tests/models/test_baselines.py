"""The baselines: no memory, a forward write, the whole context; and the builder of all models."""

import pytest
import torch
import torch.nn.functional as F

from models.tiny import SMALL, episode, ids, memory_of, model
from ttmem.models import MODELS, ForwardMemory, Transformer, TransformerConfig, build

pytestmark = pytest.mark.usefixtures("float64")
near = {"rtol": 1e-11, "atol": 1e-12}
every = pytest.mark.parametrize("kind", MODELS)


def answers(made, asked, context=None):
    state, _ = made.write(made.start(len(asked.context)), asked.context if context is None else context)
    return made.read(state, asked.query, asked.target)


@every
def test_every_model_answers_through_the_four_methods(kind):
    made, asked = model(kind), episode(3, 2)
    outcome = made.loss(asked)
    logits = answers(made, asked)
    assert logits.shape == (3, 2, 3, 7) and outcome.exact.shape == (3, 2)
    torch.testing.assert_close(made(asked).loss, outcome.loss)
    wanted = (logits.argmax(-1) == asked.target) | ~asked.answer
    assert torch.equal(outcome.exact, wanted.all(-1))


@every
def test_padding_the_context_changes_no_answer(kind):
    made, asked = model(kind), episode(3, 2)
    one, two = answers(made, asked), answers(made, asked, F.pad(asked.context, (0, 5)))
    torch.testing.assert_close(one, two, **near)


@every
def test_an_answer_needs_its_own_row_alone(kind):
    made, asked = model(kind), episode(3, 2)
    together = answers(made, asked)
    for i in range(3):
        torch.testing.assert_close(answers(made, asked[i : i + 1])[0], together[i], **near)


@every
def test_the_context_matters_to_every_model_but_the_one_without_memory(kind):
    made, asked = model(kind), episode(2, 2)
    difference = (answers(made, asked) - answers(made, asked, ids(2, 6))).abs().amax((1, 2, 3))
    assert not difference.any() if kind == "none" else (difference > 1e-4).all()


@every
def test_every_trained_weight_gets_a_gradient(kind):
    made = model(kind)
    made.loss(episode()).loss.backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@every
def test_every_model_learns_a_sample_by_heart(kind):
    made, asked = model(kind), episode(2, 1)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    before = made.loss(asked).parts["read"]
    for _ in range(40):
        optimizer.zero_grad()
        outcome = made.loss(asked)
        outcome.loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)  # without, the end depends on last digits
        optimizer.step()
    assert outcome.parts["read"] < 0.3 * before


@pytest.mark.parametrize(
    "kind, options, line",
    [
        ("tokens", {"gate": True}, "gate must be False for memory=tokens, got True: an option of rmt4"),
        ("rmt", {"replay": 0.5}, "replay must be 0.0 for memory=rmt, got 0.5: an option of rmt4"),
        ("rmt", {"steps": 5}, "steps must be 2 for memory=rmt, got 5: an option of tokens, neural, mlp, rmt4"),
        ("mlp", {"separator": None, "segment_size": 8}, "segment_size must be None for memory=mlp, got 8: an option"),
        ("neural", {"truncate": 2}, "truncate must be None for memory=neural, got 2: an option of rmt, rmt4"),
        ("none", {"rule": "adam"}, "rule must be sgd for memory=none, got adam"),
        ("tokens", {"memory_hidden": 8}, "memory_hidden must be None for memory=tokens, got 8: an option of mlp"),
        ("forward", {"recompute": True}, "recompute must be False for memory=forward, got True: an option of tokens"),
        ("full", {"meta_gradient": "first"}, "meta_gradient must be second for memory=full, got first"),
        ("tokens", {"momentum": 0.9}, "momentum must be 0.5 for rule=sgd, got 0.9: an option of momentum, titans"),
        ("rmt4", {"rule": "momentum", "forget": 0.3}, "forget must be 0.01 for rule=momentum, got 0.3: an option of"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(kind, options, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        model(kind, **options)


def test_the_full_context_is_one_plain_sequence():
    made, context, query, target = model("full"), ids(1, 5), ids(1, 1, 3), ids(1, 1, 2)
    state, _ = made.write(made.start(1), context)
    row = torch.cat([context, query[0], target[0]], dim=1)
    logits = made.backbone.logits(made.backbone.hidden(made.backbone.embed(row))[0])
    torch.testing.assert_close(made.read(state, query, target)[0, 0], logits[0, 7:9], **near)


@pytest.mark.parametrize("cut", [0, 2, 6])
def test_the_full_context_may_be_read_in_pieces(cut):
    made, asked = model("full"), episode(3, 2)
    state, _ = made.write(made.start(3), asked.context[:, :cut])
    state, _ = made.write(state, asked.context[:, cut:])
    torch.testing.assert_close(made.read(state, asked.query, asked.target), answers(made, asked), **near)


def test_a_forward_write_is_what_stands_behind_the_context():
    made, context = model("forward"), ids(1, 5)
    mem = made.memory.init["mem"][None]
    sequence = torch.cat([mem, made.backbone.embed(context), mem], dim=1)
    state, _ = made.write(made.start(1), context)
    torch.testing.assert_close(memory_of(state), made.backbone.hidden(sequence)[0][:, -3:], **near)


def test_a_forward_write_that_could_not_see_the_context_is_refused():
    with pytest.raises(ValueError, match="window must be None"):
        ForwardMemory(Transformer(TransformerConfig(window=4)))


def test_with_bf16_weights_a_forward_memory_is_float32():
    made, asked = model("forward").to(torch.bfloat16), episode()
    state, _ = made.write(made.start(2), asked.context)
    assert memory_of(state).dtype == torch.float32
    assert torch.isfinite(made.loss(asked).loss)


@every
def test_a_seed_gives_the_same_weights_and_leaves_the_world_s_dice_alone(kind):
    config = SMALL.__class__(**(vars(SMALL) | {"memory": kind}))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = build(config, 1), build(config, 1), build(config, 2)
    assert torch.equal(torch.rand(1), expected)
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
