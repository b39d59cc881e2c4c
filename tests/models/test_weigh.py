"""Learned weights of a context's tokens: what they do to a write, and what the outer loop may learn of them."""

import pytest
import torch
import torch.nn.functional as F

from core.differences import slopes
from models.tiny import SMALL, episode, ids, memory_of, model
from training.short import MODEL_CONFIG, experiment
from ttmem.checkpoint import fill, save_model
from ttmem.core.rates import with_more_steps
from ttmem.memories.base import Source
from ttmem.models import ModelConfig, build
from ttmem.training import override, train

near = {"rtol": 1e-7, "atol": 1e-9}
double = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", ["tokens", "neural", "mlp", "rmt4"])


def made_of(kind, **changes):
    return model(kind, weigh=True, separator=6, **changes)


@double
@kinds
def test_new_weights_change_nothing(kind):
    config = ModelConfig(**vars(SMALL) | {"memory": kind, "separator": 6})
    plain, weighed = build(config, seed=0), build(ModelConfig(**vars(config) | {"weigh": True}), seed=0)
    fill(weighed, plain.state_dict(), "x", weighed.neutral)
    asked = episode()
    assert plain.loss(asked).loss.equal(weighed.loss(asked).loss)


@double
def test_a_step_is_the_gradient_of_the_weighed_mean_written_out():
    made, context = made_of("tokens", steps=1, head=False), ids(1, 5)
    mem = made.memory.init["mem"].detach()[None].requires_grad_()
    sequence = torch.cat([mem, made.backbone.embed(context)[:, :-1]], dim=1)
    logits = made.backbone.logits(made.backbone.hidden(sequence)[0])[:, made.memory.slots - 1 :]
    nats = F.cross_entropy(logits[0], context[0], reduction="none")
    weights = made.weigh(made.backbone.embed(context))[0, :, 0]
    assert 0 < weights.min() < weights.max() < 2 and weights.std() > 1e-3
    (gradient,) = torch.autograd.grad((weights * nats).mean(), mem)
    written = made.write(made.start(1), context)[0]
    torch.testing.assert_close(memory_of(written), mem - made.config.lr * gradient, **near)


@double
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_each_step_weighs_by_its_own_and_the_last_of_them_serve_on(steps):
    made, context = made_of("tokens", steps=2, weigh_steps=True), ids(2, 6)
    weights = made.weigh(made.backbone.embed(context))
    assert weights.shape == (2, 6, 2) and (weights[..., 0] - weights[..., 1]).abs().max() > 1e-3
    mem, embeddings, mask = made.start(2).fast["mem"], made.backbone.embed(context), context != 0
    for step in range(steps):
        mem = mem.detach().requires_grad_()
        own = Source(embeddings, mask, weights[..., min(step, 1)])
        (gradient,) = torch.autograd.grad(made.reconstruction(mem, context, own).sum(), mem, retain_graph=True)
        mem = mem - made.rates(step).lr["mem"] * gradient
    written, log = made.write(made.start(2), context, steps)
    torch.testing.assert_close(memory_of(written), mem, **near)
    left = made.reconstruction(memory_of(written), context, Source(embeddings, mask, weights[..., 1])).mean()
    torch.testing.assert_close(made.left(written, context), left, **near)
    assert len(log.loss) == steps


@double
@kinds
def test_a_run_goes_on_from_weights_that_all_steps_shared_and_writes_alike(kind):
    shared, own = made_of(kind, steps=3), made_of(kind, steps=3, weigh_steps=True)
    fill(own, with_more_steps(own, shared.state_dict()), "x")
    asked = episode()
    torch.testing.assert_close(shared.loss(asked).loss, own.loss(asked).loss, rtol=1e-13, atol=0)


def test_steps_have_weights_of_their_own_only_where_tokens_have():
    with pytest.raises(ValueError, match="weigh_steps must be False where weigh is"):
        ModelConfig(weigh_steps=True)


@double
def test_a_token_is_weighed_by_itself_and_the_seven_before_it():
    made, context = made_of("tokens"), ids(1, 20)
    before = made.weigh(made.backbone.embed(context))[0, :, 0]
    changed = context.clone()
    changed[0, 6] = changed[0, 6] % 5 + 1
    after = made.weigh(made.backbone.embed(changed))[0, :, 0]
    assert [t for t in range(20) if before[t] != after[t]] == list(range(6, 14))


@double
@kinds
@pytest.mark.parametrize("own", [False, True])
def test_the_meta_gradient_of_the_weights_is_the_finite_difference(kind, own):
    made, asked = made_of(kind, layers=1, weight=0.0, weigh_steps=own), episode()
    for name, parameter in made.weigh.named_parameters():
        exact, measured = slopes(lambda: made.loss(asked).loss, [parameter])
        assert exact.abs() > 0
        torch.testing.assert_close(exact, measured, rtol=1e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@double
@kinds
def test_the_outer_write_loss_is_not_made_small_by_the_weights(kind):
    made, asked = made_of(kind), episode()
    state = made.write(made.start(2), asked.context)[0]
    made.left(state._replace(fast={"mem": memory_of(state).detach()}), asked.context).backward()
    assert all(weight.grad is None for weight in made.weigh.parameters())
    assert made.backbone.embedding.weight.grad.any()


def test_a_run_starts_from_a_checkpoint_without_weights_and_from_no_other_that_lacks_something(tmp_path):
    plain, path = build(MODEL_CONFIG, seed=3), tmp_path / "plain.safetensors"
    save_model(path, vars(MODEL_CONFIG), plain.state_dict(), {})
    run = override(experiment(steps=1, start_from=str(path)), ["model.weigh=true"])
    assert train(run, tmp_path / "run", progress=False).steps == 1
    with pytest.raises(ValueError, match="does not fit the model: it lacks projection;"):
        train(override(run, ["model.projection=true"]), tmp_path / "other", progress=False)
