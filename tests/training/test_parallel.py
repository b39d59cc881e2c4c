from dataclasses import replace

import accelerate
import pytest
import torch

from training.short import MODEL_CONFIG, TARGET, run_script
from ttmem.models import build, preset
from ttmem.tasks import AssociativeRetrieval
from ttmem.training import TrainConfig
from ttmem.training.parallel import Workers, has_unused

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
def test_compiled_training_is_eager_training():
    done = run_script("compiled.py")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


@pytest.mark.parametrize("truncate", [False, True])
def test_truncation_has_batches_that_leave_weights_without_gradient_and_ddp_is_told(monkeypatch, truncate):
    asked = {}
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda model, **said: asked.update(said) or model)
    config = preset("tiny", "lmm", vocab=70, pad=0, truncate=truncate)
    worker(monkeypatch, 0, 2).prepare(build(config, seed=0), replace(EPISODE, context=EPISODE.context[:, :0]), 1)
    assert asked["find_unused_parameters"] == truncate
