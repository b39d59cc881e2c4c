"""Titans models as the rest of the package knows them: the four methods, gradients, precision, learning."""

from dataclasses import replace
from math import log

import pytest
import torch
import torch.nn.functional as F

from apart import printed
from ttmem.core.state import tensors
from ttmem.evals import evaluate, nats, nats_by_position
from ttmem.evals.run import memory_bytes
from ttmem.models import build, preset
from ttmem.tasks import AssociativeRetrieval, Text

VOCAB, PAD = 70, 0
SMALL = {"dim": 16, "vocab": VOCAB, "pad": PAD, "hidden": 16, "chunk_size": 4, "segment_size": 6, "window_size": 5}
KINDS = ["lmm", "mac", "mac queries", "mag", "mal", "swa", "full"]
every = pytest.mark.parametrize("kind", KINDS)
exact = pytest.mark.usefixtures("float64")
near = {"rtol": 0, "atol": 1e-10}
TASK = AssociativeRetrieval.from_name("N3-K1V2-S1_2-20")


def config(kind, **changes):
    """Of a small model; "mac queries" has memory tokens."""
    queries = 3 if kind == "mac queries" else 0
    return preset("tiny", kind.split()[0], memory_tokens=queries, **SMALL | changes)


def model(kind, **changes):
    """A small model whose weights are large enough to matter."""
    made = build(config(kind, **changes), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made


def text(*shape):
    return torch.randint(1, VOCAB, shape)


def answers(made, asked):
    state, _ = made.write(made.start(len(asked)), asked.context)
    return made.read(state, asked.query, asked.target)


def real(row):
    return row[row != PAD]


def nats_of(made, row):
    """Nats of each token of a row of real tokens but the first, from the equation."""
    chance = made(row[None])[0][0, :-1].log_softmax(-1)
    return -chance[torch.arange(len(row) - 1), row[1:]]


@exact
@every
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_each_question_behind_its_context(kind):
    made, asked = model(kind, layers=1, context_loss=0.5), TASK.sample(3, queries=2)
    assert (asked.context == PAD).any() and (asked.context[:, -1] != PAD).sum() < 3
    read, written = [], []
    for context, query, target in zip(asked.context, asked.query, asked.target, strict=True):
        written.append(nats_of(made, real(context)).mean())
        for one, answer in zip(query, target, strict=True):
            row = torch.cat([real(part) for part in (context, one, answer)])
            read.append(nats_of(made, row)[-len(real(answer)) :])
    outcome = made.loss(asked)
    torch.testing.assert_close(outcome.parts["read"], torch.cat(read).mean(), **near)
    torch.testing.assert_close(outcome.parts["write"], torch.stack(written).mean(), **near)
    torch.testing.assert_close(outcome.loss, outcome.parts["read"] + 0.5 * outcome.parts["write"], **near)
    plain = model(kind, layers=1).loss(asked)
    torch.testing.assert_close(plain.loss, outcome.parts["read"], **near)
    assert "write" not in plain.parts
    log = made.write(made.start(3), asked.context)[1]
    torch.testing.assert_close(log.loss, torch.stack(written)[None], **near)


@exact
@every
@torch.no_grad()
def test_questions_of_one_context_do_not_meet(kind):
    made, asked = model(kind), TASK.sample(2)
    state, _ = made.write(made.start(2), asked.context)
    together = made.read(state, asked.query, asked.target)
    for i in range(3):
        alone = made.read(state, asked.query[:, i : i + 1], asked.target[:, i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, **near)
    torch.testing.assert_close(made.read(state, asked.query, asked.target), together, **near)


@exact
@every
@torch.no_grad()
def test_a_context_may_be_written_in_pieces(kind):
    made, asked = model(kind), TASK.sample(2, queries=1)
    whole = answers(made, asked)
    for cut in (0, 10):
        state, _ = made.write(made.start(2), asked.context[:, :cut])
        state, _ = made.write(state, asked.context[:, cut:])
        torch.testing.assert_close(made.read(state, asked.query, asked.target), whole, **near)


@exact
@every
@torch.no_grad()
def test_padding_of_contexts_questions_and_answers_changes_no_answer(kind):
    made, asked = model(kind, layers=1), TASK.sample(2, queries=2)
    context, query, target = (F.pad(x, (0, n)) for x, n in ((asked.context, 5), (asked.query, 2), (asked.target, 1)))
    wider = replace(asked, context=context, query=query, target=target, answer=F.pad(asked.answer, (0, 1)))
    torch.testing.assert_close(answers(made, wider)[:, :, :-1], answers(made, asked), **near)
    torch.testing.assert_close(made.loss(wider).loss, made.loss(asked).loss, **near)
    asked.query[0, 0] = F.pad(real(asked.query[0, 0])[2:], (0, 2))  # now the questions differ in length
    mixed = answers(made, asked)
    for row in range(2):
        for i in range(2):
            state, _ = made.write(made.start(1), real(asked.context[row])[None])
            query, target = real(asked.query[row, i]), real(asked.target[row, i])
            alone = made.read(state, query[None, None], target[None, None])[0, 0]
            torch.testing.assert_close(mixed[row, i, : len(target)], alone, **near)


@exact
@every
@torch.no_grad()
def test_text_without_a_context_is_predicted_from_an_empty_memory(kind):
    task = Text.from_dataset(["To be, or not to be: that is the question. " * 9] * 3, length=17, limit=1000)
    made, asked = model(kind, vocab=task.vocab, pad=task.pad, context_loss=1.0), task.sample(3)
    assert asked.context.shape == (3, 0)
    windows = torch.cat([asked.query, asked.target], dim=-1)[:, 0]
    wanted = F.cross_entropy(made(windows[:, :-1])[0].mT, windows[:, 1:], reduction="none")
    torch.testing.assert_close(made.loss(asked).loss, wanted.mean(), **near)
    torch.testing.assert_close(nats_by_position(made, windows, rows=2), wanted.float(), rtol=0, atol=1e-5)
    for told in (task, replace(task, history=2)):
        tested = told.sample(16, "test", 1, 0)[:2]
        assert nats(made, told, samples=2) == pytest.approx(float(made.loss(tested).parts["read"]), abs=1e-5)
    assert tested.context.shape[1]


@pytest.mark.parametrize("kind", ["mac", "full"])
def test_an_evaluation_counts_right_answers_and_bytes(kind):
    made, task = model(kind, layers=1), AssociativeRetrieval.from_name("N2-K1V1-V62")
    report = evaluate(made, task, samples=5)
    asked = task.sample(500, "test", 1, 0, queries=1)[:5]
    right = (answers(made, asked).argmax(-1) == asked.target) | ~asked.answer
    assert report.exact_match == pytest.approx(right.all(-1).double().mean())
    assert report.memory_bytes == memory_bytes(made.write(made.start(5), asked.context)[0], 5) > 0


@every
@torch.no_grad()
def test_a_state_does_not_grow_but_that_of_full_attention(kind):
    made = model(kind)
    short, long = (memory_bytes(made(text(2, t))[1], 2) for t in (10, 100))
    assert long == 10 * short - 9 * 4 * 2 if kind == "full" else long == short  # `full` counts its tokens, per layer


@every
def test_a_second_write_step_is_refused(kind):
    made = model(kind)
    with pytest.raises(ValueError, match="steps must be 1"):
        made.write(made.start(1), text(1, 4), steps=2)


def gradients(made, ids):
    """The loss of a text, and the gradient of every parameter."""
    made.zero_grad()
    loss = F.cross_entropy(made(ids[:, :-1])[0].mT, ids[:, 1:])
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in made.named_parameters()}


def silent(grads):
    """Parameters without a gradient; the parts of projections (q, k, v) and the rows of gates count alone."""
    found = []
    for name, grad in grads.items():
        parts = {"qkv.weight": 3, "linear.weight": len(grad), "linear.bias": len(grad)}
        count = next((n for end, n in parts.items() if name.endswith(end)), 1)
        found += [f"{name} {i}" for i, part in enumerate(grad.chunk(count)) if not part.any()]
    return found


@exact
@every
@pytest.mark.parametrize("t", [4, 23])
def test_every_parameter_gets_a_gradient_even_below_the_chunk(kind, t):
    assert silent(gradients(model(kind), text(2, t))[1]) == []


@exact
@pytest.mark.parametrize(
    "kind, changes",
    [("lmm", {"forget": "channel", "memory_depth": 4}), ("lmm", {"forget": "none", "conv": 0})]
    + [("mac", {"gate": "product", "persistent_tokens": 0}), ("mal", {"momentum": False, "tied": False})]
    + [("mag", {"memory_depth": 1, "memory_norm": False})],
    ids=str,
)
def test_with_every_option_every_parameter_gets_a_gradient(kind, changes):
    assert silent(gradients(model(kind, **changes), text(2, 13))[1]) == []


@exact
@every
def test_gradients_of_a_stream_are_those_of_one_call(kind):
    made, ids, weight = model(kind), text(2, 17), torch.randn(2, 17, VOCAB)
    (first, half), whole = made(ids[:, :9]), made(ids)[0]
    streamed = torch.cat([first, made(ids[:, 9:], half)[0]], dim=1)
    both = (torch.autograd.grad((y * weight).sum(), list(made.parameters())) for y in (whole, streamed))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@exact
@every
def test_computing_blocks_and_chunks_again_changes_no_gradient_and_keeps_less(kind):
    ids, kept, found = text(2, 17), [], []
    for checkpoint, recompute in ((False, False), (False, True), (True, False), (True, True)):
        made, seen = model(kind, layers=1, checkpoint=checkpoint, recompute=recompute), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, seen=seen: seen.append(x.numel()) or x, lambda x: x):
            found.append(gradients(made, ids))
        kept.append(sum(seen))
    for loss, grads in found[1:]:
        torch.testing.assert_close(loss, found[0][0], **near)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, found[0][1][name], rtol=1e-9, atol=1e-11)
    assert kept[2] < kept[0] and kept[3] < kept[0]
    assert (kept[1] < kept[0]) == (kind not in ("swa", "full"))


@every
def test_under_bf16_autocast_outputs_are_bf16_finite_and_near(kind):
    made, ids = build(config(kind), seed=0), text(4, 40)
    wanted = made(ids)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = made(ids[:, :9])
        logits = torch.cat([first, made(ids[:, 9:], state)[0]], dim=1)
    assert logits.dtype == torch.bfloat16 and all(leaf.isfinite().all() for leaf in tensors(state))
    assert all(leaf.dtype == torch.float32 for w in ("w1", "w2") for leaf in memories(state, w))
    assert (logits - wanted).square().mean() < 0.01 * wanted.square().mean()
    F.cross_entropy(logits.float().mT, ids).backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


def memories(state, name):
    """The matrices `name` of all memories in a state."""
    states = [getattr(layer, "memory", None) for layer in state.fast.values()]
    states = [getattr(each, "memory", each) for each in states]
    return [each.fast[name] for each in states if each is not None]


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_outputs_follow_the_weights_dtype(kind, dtype):
    made, ids = build(config(kind), seed=0).to(dtype), text(2, 13)
    logits, wanted = made(ids)[0], build(config(kind), seed=0)(ids)[0].to(dtype)
    assert logits.dtype == dtype and logits.isfinite().all()
    assert (logits - wanted).square().mean() < 0.01 * wanted.square().mean()


@pytest.mark.parametrize("kind", ["lmm", "mac"])
def test_a_model_learns_random_texts_by_heart(kind):
    ids = torch.randint(1, 12, (4, 48))
    changes = {"dim": 32, "layers": 1, "vocab": 12, "hidden": 64, "chunk_size": 16, "segment_size": 16}
    made, fresh = (build(config(kind, recompute=False, **changes), seed) for seed in (0, 1))
    optimizer, steps = torch.optim.Adam(made.parameters(), 0.01), 0
    while gradients(made, ids)[0] > 0.2:
        assert (steps := steps + 1) <= 60
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    assert 0 < gradients(fresh, ids)[0] - log(12) < 1.5  # a tied head guesses the token itself at first


COMPILED = """
import logging, sys
import torch
from ttmem.models import build, preset
torch.set_num_threads(1)
torch._logging.set_logs(dynamo=logging.ERROR)  # states make it look at numbers: several graphs, and it says so
small = {"dim": 16, "layers": 1, "chunk_size": 4, "segment_size": 4, "window_size": 5, "persistent_tokens": 0}
made, ids = build(preset("tiny", sys.argv[1], **small), seed=0).double(), torch.arange(16).view(2, 8)
with torch.no_grad():
    wanted, got = made(ids)[0], torch.compile(made, backend="aot_eager")(ids)[0]
print(float((got - wanted).abs().max()))
"""


@pytest.mark.parametrize(
    "architecture", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("lmm", "mac", "mag", "mal")), "swa"]
)
def test_compiled_outputs_are_the_eager_ones(architecture):
    assert float(printed(COMPILED, architecture)) < 1e-12
