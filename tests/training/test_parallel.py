from dataclasses import replace

import accelerate
import pytest
import torch

from training.short import EASY, MODEL_CONFIG, TARGET
from ttmem.models import build
from ttmem.tasks import AssociativeRetrieval
from ttmem.training import TrainConfig
from ttmem.training.parallel import Workers, compile_loss, has_unused

EPISODE = AssociativeRetrieval.from_name(TARGET).sample(6)


class Several:
    """Stands in for accelerate in one of several processes."""

    device, is_main_process = torch.device("cpu"), False

    def __init__(self, index: int, count: int):
        self.process_index, self.num_processes = index, count

    def __call__(self, **options):
        return self


def worker(monkeypatch, index: int, count: int, batch: int = 6) -> Workers:
    monkeypatch.setattr(accelerate, "Accelerator", Several(index, count))
    return Workers(TrainConfig(batch=batch))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_batch(monkeypatch, count):
    shares = [worker(monkeypatch, index, count).share(EPISODE) for index in range(count)]
    assert torch.cat([share.context for share in shares]).equal(EPISODE.context)
    assert torch.cat([share.target for share in shares]).equal(EPISODE.target)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="batch must divide by the 4 processes, got 6"):
        worker(monkeypatch, 0, 4)


def test_accelerate_missing_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"pip install 'ttmem\[train\]'"):
        Workers(TrainConfig())


@pytest.mark.parametrize(
    "changes, unused",
    [({}, False), ({"meta_gradient": "first", "weight": 0.0}, True), ({"memory": "full"}, False)],
)
def test_a_probe_finds_weights_without_gradient_and_leaves_none_behind(changes, unused):
    model = build(replace(MODEL_CONFIG, **changes), seed=0)
    assert has_unused(model, EPISODE) == unused
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.slow
def test_the_compiled_loss_is_the_loss():
    episode = AssociativeRetrieval.from_name(EASY).sample(4)
    eager, compiled = (build(MODEL_CONFIG, seed=0).double() for _ in range(2))
    compile_loss(compiled, 1, backend="aot_eager")
    for model in (eager, compiled):
        model(episode).loss.backward()
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-10, atol=1e-12)
