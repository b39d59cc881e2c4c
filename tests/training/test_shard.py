"""A run whose weights are cut over two processes is the run of one."""

import json
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.sharded import KILLED, OTHERS, SIGNALLED, send, titans
from training.short import assert_same_run, history, run_script, weights
from ttmem.core.state import tensors
from ttmem.models import ModelConfig, Titans, build
from ttmem.training import TrainConfig, train
from ttmem.training.loop import MODEL, STATE
from ttmem.training.shard import shard

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module", autouse=True)
def double() -> Iterator[None]:
    """float64, in which two processes and one differ by nothing but the order of sums."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_two_processes(out: Path, mode: str) -> None:
    """`sharded.py` in two processes; once more, from the same folder as before, where torch itself crashed.

    Once in several dozen runs a process died of glibc's "unaligned tcache chunk" between collectives on the CPU: memory
    that C code wrote over, which nothing in Python can. Two such deaths in a row fail, and so does any exception.
    """
    before = out.with_name(f"{out.name}-before")
    shutil.copytree(out, before)
    done = run_script("sharded.py", out, mode, launcher=LAUNCHER)
    if any(f"exitcode  : -{number:d} " in done.stderr for number in (signal.SIGABRT, signal.SIGSEGV)):
        with warnings.catch_warnings(action="always"):  # told in pytest's summary, though the next attempt may pass
            warnings.warn(f"torch crashed and is tried again: {done.stderr}", stacklevel=1)
        shutil.rmtree(out)
        shutil.copytree(before, out)
        done = run_script("sharded.py", out, mode, launcher=LAUNCHER)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of two processes, and one that a single process began."""
    out = tmp_path_factory.mktemp("runs")
    send(signal.SIGTERM, SIGNALLED)
    assert train(titans(), out / "single", progress=False).stopped == "interrupted"
    in_two_processes(out, "stop")
    return out


@pytest.fixture(scope="module")
def more(tmp_path_factory) -> Path:
    """A run of two processes, one of which was killed, and runs of the other architectures."""
    out = tmp_path_factory.mktemp("more")
    killed = run_script("sharded.py", out, "kill", launcher=LAUNCHER)
    assert killed.returncode != 0 and "SIGKILL" in killed.stderr, killed.stderr
    assert history(out / "killed")[-1]["step"] == KILLED
    in_two_processes(out, "rest")
    return out


def assert_close_run(a: Path, b: Path) -> None:
    """Weights, moments and what the history tells agree but for the order of sums; facts are kept in float32."""
    for name in (STATE, MODEL):
        ours, theirs = weights(a, name), weights(b, name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], atol=1e-9, rtol=1e-9)
    for one, two in zip(history(a), history(b), strict=True):
        for fact in {"step", "loss", "read", "write", "exact", "norm", "validation", "reset"} & one.keys():
            assert one[fact] == pytest.approx(two[fact], rel=1e-6, abs=1e-7), (fact, one["step"])


def test_two_processes_with_half_the_weights_each_learn_what_one_learns(runs, tmp_path):
    assert train(titans(), tmp_path, progress=False).stopped == "steps"
    assert_close_run(tmp_path, runs / "mac")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OTHERS)
def test_the_other_architectures_learn_in_two_processes_what_they_learn_in_one(more, tmp_path, architecture):
    train(titans(architecture), tmp_path, progress=False)
    assert_close_run(tmp_path, more / architecture)


def test_each_process_holds_its_part_of_weights_and_moments_and_no_more(runs):
    first, second = (json.loads((runs / f"share{rank}.json").read_text()) for rank in (0, 1))
    assert first["here"] + second["here"] == first["all"] == second["all"]
    assert 0.4 * first["all"] < second["here"] <= first["here"] < 0.6 * first["all"]


def test_a_signal_to_one_process_stops_all_and_the_run_goes_on_bit_for_bit(runs):
    assert_same_run(runs / "stopped", runs / "mac")


@pytest.mark.slow
def test_a_run_one_of_whose_processes_is_killed_resumes_bit_for_bit(runs, more):
    assert_same_run(more / "killed", runs / "mac")


def test_a_state_fits_any_number_of_processes(runs):
    assert train(titans(), runs / "moved", progress=False).stopped == "steps"
    assert_close_run(runs / "moved", runs / "mac")
    assert_close_run(runs / "single", runs / "mac")


def test_one_process_with_sharded_is_one_without_and_one_run_may_be_both(tmp_path):
    for sharded in (True, False):
        train(titans(steps=2, decay=1.0, sharded=sharded), tmp_path / str(sharded), progress=False)
    assert_same_run(tmp_path / "True", tmp_path / "False")
    assert train(titans(steps=2, decay=1.0), tmp_path / "False", progress=False).stopped == "steps"


def test_muon_is_refused():
    with pytest.raises(ValueError, match=r"muon_lr must be 0 with sharded: .*, got 0.02"):
        TrainConfig(sharded=True, muon_lr=0.02)


def test_a_model_that_is_no_stack_of_blocks_is_refused():
    with pytest.raises(ValueError, match="sharded must be false for MetaMemory, which has no blocks"):
        shard(build(ModelConfig(dim=16, layers=1, heads=2)), torch.device("cpu"), 2)


@pytest.mark.parametrize("architecture", ("mac", *OTHERS))
def test_a_state_outlives_the_weights_it_began_with(architecture):
    config = titans(architecture).model
    model = Titans(config)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    ids = torch.ones(1, 1, dtype=torch.long)
    for state in (model.start(1), model(ids)[1]):
        assert own.isdisjoint(leaf.untyped_storage().data_ptr() for leaf in tensors(state) if leaf.numel())
