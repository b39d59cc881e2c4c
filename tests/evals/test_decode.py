import pytest
import torch
from torch import nn

from ttmem.core import State
from ttmem.evals import decode
from ttmem.models import LayeredConfig, ModelConfig, Titans, build, preset
from ttmem.tasks import AssociativeRetrieval

TASK = AssociativeRetrieval.from_name("N2-K2V3-S1_8-16")
MEMORIES = ["tokens", "neural", "mlp", "forward", "full"]


def small(memory: str) -> nn.Module:
    model = build(ModelConfig(memory=memory, dim=16, layers=2), seed=0).double().eval()
    with torch.no_grad():
        model.backbone.head.weight.mul_(50)  # answers that differ from row to row
    return model


@pytest.mark.parametrize("memory", MEMORIES)
def test_every_token_is_the_likeliest_behind_those_before_it(memory):
    model, episode = small(memory), TASK.sample(6)
    state, _ = model.write(model.start(6), episode.context)
    answer = decode(model, state, episode.query, 5)
    logits = model.read(state, episode.query, answer.ids)
    logits[..., 0] = -torch.inf
    assert torch.equal(logits.argmax(-1), answer.ids)
    likely = logits.softmax(-1).amax(-1).float()
    assert torch.allclose(answer.probability, likely, atol=1e-6) and answer.ids.shape == (6, 2, 5)


def test_decoding_is_right_exactly_where_the_teacher_forced_reading_is():
    model = small("tokens")
    episode = TASK.sample(4)
    state, _ = model.write(model.start(4), episode.context)
    told = decode(model, state, episode.query, episode.target.shape[-1]).ids
    mixed = torch.where(torch.arange(4)[:, None, None] % 2 == 0, told, episode.target)
    forced = model.read(state, episode.query, mixed).argmax(-1) == mixed
    assert torch.equal(forced.all(-1), (told == mixed).all(-1))


def test_a_short_answer_is_the_beginning_of_a_long_one():
    model, episode = small("neural"), TASK.sample(3)
    state, _ = model.write(model.start(3), episode.context)
    long, short = (decode(model, state, episode.query, length).ids for length in (5, 2))
    assert torch.equal(long[..., :2], short)


def test_padding_is_never_an_answer():
    class Pads(nn.Module):
        def read(self, state, query, target):
            return torch.tensor([9.0, 1.0, 2.0]).expand(*target.shape, 3).clone()

    answer = decode(Pads(), State({}), torch.ones(1, 2, 3, dtype=torch.long), 4)
    assert (answer.ids == 2).all() and answer.probability[0, 0, 0].item() == pytest.approx(1 / (1 + torch.e**-1))


@pytest.mark.parametrize(
    "model", [Titans(preset("tiny", "swa", pad=7)), build(LayeredConfig("prmt4", vocab=9, separator=8, pad=7), 0)]
)
def test_the_padding_that_is_barred_is_the_models_own_and_id_0_may_answer(model, monkeypatch):
    scores = torch.zeros(model.config.vocab).index_fill(0, torch.tensor([7]), 2).index_fill(0, torch.tensor([0]), 1)
    monkeypatch.setattr(model, "read", lambda state, query, target: scores.expand(*target.shape, -1).clone())
    query = torch.ones(1, 2, 3, dtype=torch.long)
    assert (decode(model, model.start(1), query, 2).ids == 0).all()
    assert (decode(model, model.start(1), query, 2, pad=0).ids == 7).all()


def test_an_answer_needs_a_length():
    with pytest.raises(ValueError, match="length must be >= 1, got 0"):
        decode(small("tokens"), State({}), torch.ones(1, 1, 3, dtype=torch.long), 0)
