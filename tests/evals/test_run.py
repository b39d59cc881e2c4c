from dataclasses import replace

import pytest
import torch
from torch import nn

from ttmem.core import State
from ttmem.core.state import Log
from ttmem.evals import BATCH, evaluate, run, steps_curve
from ttmem.evals.report import clustered
from ttmem.evals.run import AT_ONCE, FEWEST, episodes, evaluating, mean_loss, pieces
from ttmem.models import LayeredConfig, ModelConfig, Titans, build, preset
from ttmem.tasks import AssociativeRetrieval, Episode, Needle
from ttmem.tasks.characters import VOCAB

TASK = AssociativeRetrieval.from_name("N3-K2V2-S2_16-32")


class Oracle(nn.Module):
    """Keeps the contexts' ids and looks the answer up: right in all questions, or in those `knows` lets through."""

    def __init__(self, knows=lambda keys: torch.ones(len(keys), dtype=torch.bool)):
        super().__init__()
        self.knows, self.seen_training, self.seen_gradients = knows, [], []

    def start(self, batch: int) -> State:
        return State({"context": torch.zeros(batch, 0, dtype=torch.long)})

    def write(self, state, context, steps=None):
        self.seen_training.append(self.training)
        self.seen_gradients.append(torch.is_grad_enabled())
        steps = steps or 2
        loss = torch.arange(steps, 0, -1.0)[:, None].expand(steps, len(context))
        return State({"context": context}, (), state.step + 1), Log(loss, loss)

    def read(self, state, query, target):
        ids = torch.zeros_like(target)
        for row, context in enumerate(state.fast["context"].tolist()):
            for number, question in enumerate(query[row].tolist()):
                ids[row, number] = self.look_up(context, question[1:], target.shape[-1])
        ids[~self.knows(query[:, 0])] = 0
        return nn.functional.one_hot(ids, VOCAB).float()

    def look_up(self, context: list[int], key: list[int], length: int) -> torch.Tensor:
        text, found = TASK.decode(context), torch.zeros(length, dtype=torch.long)
        at = text.find(TASK.decode(key))
        answer = TASK.encode(text[at + len(key) :][: length - 1] + "|") if at >= 0 else [0] * length
        found[: len(answer)] = torch.tensor(answer)
        return found


def small(memory: str = "tokens", **fields) -> nn.Module:
    return build(ModelConfig(memory=memory, dim=16, layers=1, slots=4, **fields), seed=0)


def test_an_oracle_is_always_right_and_with_its_memory_reset_never():
    report = evaluate(Oracle(), TASK, samples=60)
    assert (report.exact_match, report.token_accuracy, report.exact_match_reset) == (1, 1, 0)
    assert report.interval[1] == 1 and 0.9 < report.interval[0] < 1


def test_exact_match_counts_whole_answers_and_slices_add_up_to_it():
    odd = Oracle(knows=lambda keys: keys[:, 2] % 2 == 1)
    report = evaluate(odd, TASK, samples=200)
    asked = TASK.sample(BATCH, "test", 1, 0, queries=1)[:200]
    assert report.exact_match == (asked.query[:, 0, 2] % 2 == 1).double().mean().item()
    assert set(report.slices) == {"position", "segment", "noise"} and set(report.slices["position"]) == {"0", "1", "2"}
    for rates in report.slices.values():
        assert sum(rate["samples"] for rate in rates.values()) == 200
        right = sum(rate["exact_match"] * rate["samples"] for rate in rates.values())
        assert right == pytest.approx(200 * report.exact_match)


def test_one_wrong_character_spoils_an_answer_and_costs_one_token():
    class OneOff(Oracle):
        def read(self, state, query, target):
            logits = super().read(state, query, target)
            logits[:, :, 1] = logits[:, :, 1].roll(1, -1)
            return logits

    report = evaluate(OneOff(), TASK, samples=20)
    assert (report.exact_match, report.token_accuracy) == (0, 0.5)


def test_what_closes_an_answer_does_not_count():
    class NoEnd(Oracle):
        def read(self, state, query, target):
            logits = super().read(state, query, target)
            logits[:, :, TASK.value :] = 0
            return logits

    report = evaluate(NoEnd(), TASK, samples=20)
    assert (report.exact_match, report.token_accuracy) == (1, 1)


def test_fewer_samples_ask_the_first_of_the_same_questions():
    many = torch.cat([e.context for e in episodes(TASK, BATCH + 30, 1, "test")])
    few = torch.cat([e.context for e in episodes(TASK, 40, 1, "test")])
    assert len(many) == BATCH + 30 and len(few) == 40
    assert torch.equal(many[:40], few) and len(many.unique(dim=0)) == len(many)


def test_all_questions_of_a_context_are_of_the_same_contexts_and_count_alike():
    some = Oracle(lambda keys: keys[:, 1] % 3 > 0)
    made = build(ModelConfig(dim=16, layers=1), seed=0)
    for model, asked in ((some, 2), (Oracle(), None), (made, 3)):
        report = evaluate(model, TASK, samples=60, queries=asked)
        drawn = [e for e in episodes(TASK, 60, 1, "test", asked)]
        assert torch.equal(drawn[0].context, next(episodes(TASK, 60, 1, "test")).context)
        exact = torch.cat([(run.correct(model, write_of(model, e), e) | ~e.answer).all(-1) for e in drawn])
        assert exact.shape == (60, asked or TASK.pairs)
        assert report.exact_match == pytest.approx(exact.double().mean().item()) and report.samples == 60
        counted = sum(part["samples"] for part in report.slices["position"].values())
        assert counted == exact.numel() and report.queries == exact.shape[1]
        assert report.interval == clustered(exact)
    with pytest.raises(ValueError, match="4"):
        evaluate(Oracle(), TASK, samples=5, queries=4)


def write_of(model, episode):
    return model.write(model.start(len(episode)), episode.context)[0]


def test_what_is_read_at_once_changes_no_answer(monkeypatch):
    model, reports = build(ModelConfig(dim=16, layers=1), seed=0), []
    for at_once, fewest in ((10**9, 1), (1, 7)):
        monkeypatch.setattr(run, "AT_ONCE", at_once)
        monkeypatch.setattr(run, "FEWEST", fewest)
        reports.append(evaluate(model, TASK, samples=40))
    whole, parts = (replace(report, write_seconds=0.0, answer_seconds=0.0, write_loss=()) for report in reports)
    assert whole == parts and reports[0].write_loss == pytest.approx(reports[1].write_loss, rel=1e-5)
    asked = next(episodes(TASK, 40, 1, "test"))
    assert [len(part) for part in run.pieces(asked, torch.device("cpu"))] == [7, 7, 7, 7, 7, 5]
    assert [len(part) for part in run.pieces(asked, torch.device("cuda"))] == [40]


def test_the_split_and_the_seed_choose_the_questions():
    first = next(episodes(TASK, 5, 1, "test")).context
    assert torch.equal(first, TASK.sample(BATCH, "test", 1, 0, queries=1).context[:5])
    for other in (episodes(TASK, 5, 2, "test"), episodes(TASK, 5, 1, "validation")):
        assert not torch.equal(first, next(other).context)


def test_the_model_is_in_evaluation_mode_without_gradients_and_left_as_it_was():
    model = Oracle().train()
    evaluate(model, TASK, samples=2)
    assert (model.seen_training, model.seen_gradients, model.training) == ([False], [False], True)
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        raise RuntimeError("stop")
    assert model.training and torch.is_grad_enabled()


def test_every_part_of_the_model_keeps_the_mode_it_was_in():
    model = small().train()
    model.backbone.eval()
    before = [module.training for module in model.modules()]
    evaluate(model, TASK, samples=2)
    assert [module.training for module in model.modules()] == before and not model.backbone.training


@pytest.mark.parametrize("memory", ["tokens", "neural", "mlp", "forward"])
def test_a_memory_costs_four_bytes_per_number_of_its_tokens(memory):
    report = evaluate(small(memory), TASK, samples=3)
    assert report.memory_bytes == 4 * 4 * 16
    assert report.write_seconds > 0 and report.answer_seconds > 0


def test_the_state_of_a_full_context_grows_and_that_of_no_memory_is_nothing():
    assert evaluate(small("full"), TASK, samples=3).memory_bytes == 4 * 2 * 16 * TASK.context_length  # keys and values
    assert evaluate(small("none"), TASK, samples=3).memory_bytes == 0


def test_rates_are_those_of_the_models_own_score():
    model = small().double()
    report = evaluate(model, TASK, samples=100)
    outcome = model.loss(TASK.sample(BATCH, "test", 1, 0, queries=1)[:100])
    assert report.exact_match == outcome.exact.double().mean().item()


def test_write_loss_is_the_mean_of_the_writes_own_log_and_falls():
    model = small(lr=1.0).double()
    report = evaluate(model, TASK, samples=30, steps=4)
    context = TASK.sample(BATCH, "test", 1, 0, queries=1).context[:30]
    _, log = model.write(model.start(30), context, 4)
    assert report.write_loss == pytest.approx(log.loss.mean(1).tolist(), rel=1e-6) and len(report.write_loss) == 4
    assert report.write_loss[0] > report.write_loss[-1]


def test_long_questions_are_read_in_pieces_as_well():
    task = AssociativeRetrieval.from_name("N8-K2V2-V62")
    episode = task.sample(BATCH)
    asked = episode.target.repeat_interleave(400, dim=2)
    wide = replace(episode, target=asked, answer=asked > 0)
    rows = [len(piece) for piece in pieces(wide, torch.device("cpu"))]
    assert max(rows) * asked.shape[1] * asked.shape[2] <= max(AT_ONCE, FEWEST * asked.shape[1] * asked.shape[2])
    assert sum(rows) == BATCH and max(rows) < len(next(pieces(episode, torch.device("cpu"))))


def test_batches_with_different_numbers_of_segments_make_one_report():
    armt = LayeredConfig("armt", dim=8, heads=2, layers=1, separator=None, segment_size=16)
    task = AssociativeRetrieval.from_name("N8-K2V2-S8_16-32")
    drawn = torch.cat([e.context for e in episodes(task, 1000, 0, "validation")])
    counts = [-(-int((rows != 0).sum(1).max()) // 16) for rows in drawn.split(BATCH)]
    assert counts[0] != counts[1]
    report = evaluate(build(armt, 0), task, samples=1000, seed=0, split="validation")
    assert report.samples == 1000 and len(report.write_loss) == max(counts)


@pytest.mark.parametrize("family", ["rmt4", "prmt4"])
def test_a_row_without_a_segment_does_not_count_in_its_write_loss(family):
    parts = {"separator": None, "segment_size": 8}
    config = ModelConfig(memory="rmt4", dim=16, layers=1, slots=4, steps=1, **parts)
    model = build(config if family == "rmt4" else LayeredConfig("prmt4", dim=16, heads=2, layers=1, **parts), 0)
    losses = evaluate(model, AssociativeRetrieval.from_name("N4-K2V2-S4_16-32"), samples=100).write_loss
    assert len(losses) > 9 and losses == pytest.approx([4.25] * len(losses), abs=0.15)


def test_a_loss_that_became_zero_counts_where_there_is_still_a_surprise():
    surprised = torch.tensor([[1.0, 1.0, 1.0], [1e-9, 1.1e-19, 0.0]])
    log = Log(torch.tensor([[4.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), surprised)
    more = Log(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    assert mean_loss([log, more]) == (3.0, 0.0)
    assert mean_loss([log._replace(loss=torch.tensor([[4.0, 2.0, 3.0], [0.0, 0.0, 6.0]]))]) == (3.0, 3.0)


def test_a_curve_has_a_report_per_number_of_steps_on_the_same_questions():
    reports = steps_curve(small().double(), TASK, steps=(1, 2, 4), samples=20)
    assert [r.steps for r in reports] == [1, 2, 4] == [len(r.write_loss) for r in reports]
    assert reports[2].write_loss[:2] == pytest.approx(reports[1].write_loss)
    assert reports[1].exact_match == evaluate(small().double(), TASK, samples=20).exact_match


@pytest.mark.parametrize(
    "arguments, words",
    [({"samples": 0}, "samples"), ({"samples": 1, "steps": 0}, "steps"), ({"samples": 1, "split": "tset"}, "split")],
)
def test_what_cannot_be_evaluated_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        evaluate(small(), TASK, **arguments)


@pytest.mark.parametrize(
    "model, task, line",
    [
        (small, Needle("passkey", 128), "model.vocab must be the 258 ids of needle:passkey:128, got 70"),
        (lambda: Titans(preset("tiny", "lmm")), TASK, f"model.vocab must be the 70 ids of {TASK.name}, got 258"),
        (
            lambda: Titans(preset("tiny", "lmm", vocab=70, pad=69)),
            TASK,
            f"model.pad must be 0, the padding of {TASK.name}, got 69",
        ),
    ],
)
def test_a_task_with_other_ids_or_another_padding_is_refused_before_it_is_asked(model, task, line):
    with pytest.raises(ValueError, match=line):
        evaluate(model(), task, samples=2)


class Ones:
    name, vocab = "ones", 2

    def sample(self, batch, split="train", seed=0, index=0, queries=None):
        ids = torch.ones(batch, 1, 1, dtype=torch.long)
        return Episode(ids[:, 0], ids, ids, ids == 1, {})

    def encode(self, text):
        return [1] * len(text)

    def decode(self, ids):
        return "1" * len(list(ids))


def test_any_task_and_model_with_the_agreed_methods_will_do():
    model = Oracle()
    model.read = lambda state, query, target: nn.functional.one_hot(target, 2).float()
    report = evaluate(model, Ones(), samples=3)
    assert (report.task, report.exact_match, report.slices) == ("ones", 1, {})
