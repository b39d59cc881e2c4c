"""The benchmark measures what it says, and prints no speed of a step that computes something else."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture(scope="module")
def bench(benchmarks):
    """The benchmark's modules."""
    return importlib.import_module("train_step")


@pytest.fixture(scope="module")
def one(bench):
    return importlib.import_module("one_row")


def steps_of(one, row, setting):
    model, episode = one.make(row, setting)
    return model, one.training_step(model, one.loss_of(row, model, episode, setting))


def test_the_quick_run_prints_and_writes_the_rows_asked_for(benchmarks, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(benchmarks / "train_step.py"), "--quick", "--no-compiled", "--json", str(out)]
    done = subprocess.run([*command, "--only", "K=2, one pair, no"], capture_output=True, text=True, check=True)
    rows = json.loads(out.read_text())["rows"]
    assert [r["label"] for r in rows] == ["second, K=2, one pair, no write loss"]
    for row in rows:
        assert row["label"] in done.stdout and row["units"] > 1 and row["unit_flops"] > 1
        assert 0 < row["seconds"]["wall_min"] <= row["seconds"]["wall_median"]


def test_a_label_that_no_row_has_is_an_error(benchmarks):
    done = subprocess.run([sys.executable, str(benchmarks / "train_step.py"), "--only", "third"], capture_output=True)
    assert done.returncode and b"no row's label holds 'third'" in done.stderr


def test_every_compiled_row_has_its_eager_row(bench):
    labels = [row.label for row in bench.eager_rows()]
    assert len(set(labels)) == len(labels) and bench.compiled_rows()
    for row in bench.compiled_rows():
        twin = replace(row, label=row.label.removeprefix("compiled: "), compiled=False)
        assert row.compiled and twin in bench.eager_rows()


def test_every_row_keeps_its_laws(bench, one):
    for row in bench.eager_rows():
        model, episode = one.make(row, bench.QUICK)
        step = one.training_step(model, one.loss_of(row, model, episode, bench.QUICK))
        one.check_laws(row, bench.QUICK, model, episode, step)


def test_a_wrong_gradient_is_refused_a_speed(bench, one, monkeypatch):
    row = bench.Row("first order, sold as second", {"steps": 2})
    build = one.build
    monkeypatch.setattr(one, "build", lambda config, seed: build(replace(config, meta_gradient="first"), seed))
    with pytest.raises(one.LawBroken, match="sold as second: slope .* difference quotient"):
        one.check_slope(row, bench.QUICK)


@pytest.mark.parametrize("exact, off", [(True, 1e-6), (False, 0.1)])
def test_another_step_is_refused_a_speed(bench, one, exact, off):
    row, numbers = bench.Row("other"), [torch.ones(3), torch.ones(2)]
    one.check_same(row, numbers, [x.clone() for x in numbers], exact)
    for other in ([torch.ones(3), torch.ones(2) + off], numbers[:1]):
        with pytest.raises(one.LawBroken, match="other"):
            one.check_same(row, numbers, other, exact)


def test_a_broken_law_ends_the_run_without_a_number(bench, capfd):
    setting = replace(bench.QUICK, task="N9-K1V1-V3")  # three letters make no nine keys
    with pytest.raises(SystemExit, match=r"no speed is printed: plain backbone failed"):
        bench.measured(bench.eager_rows()[0], setting)
    assert "keys" in capfd.readouterr().err


def test_the_operations_counted_are_those_of_the_matrix_products(one):
    x, w = torch.ones(5, 3), torch.ones(3, 7, requires_grad=True)
    assert one.flops(lambda: (x @ w).sum().backward()) == 2 * (2 * 5 * 3 * 7)


def test_one_write_step_of_second_order_costs_two_units_more(bench, one):
    setting = replace(bench.QUICK, task="N8-K2V2-V62", dim=32, layers=2)
    cost = {}
    for k in (1, 2, 3):
        model, step = steps_of(one, bench.Row("", {"steps": k}), setting)
        episode = one.make(bench.Row(""), setting)[1]
        cost[k] = one.flops(step) / one.flops(one.training_step(model, one.language_model(model, episode)))
    assert cost[2] - cost[1] == pytest.approx(cost[3] - cost[2]) == pytest.approx(2, abs=0.25)


def test_the_unit_reads_as_many_tokens_as_one_write(bench, one, monkeypatch):
    model, episode = one.make(bench.Row("", plain=True), bench.QUICK)
    seen = []
    embed = model.backbone.embed
    monkeypatch.setattr(model.backbone, "embed", lambda ids: seen.append(ids.shape) or embed(ids))
    one.language_model(model, episode)()
    assert seen == [(bench.QUICK.batch, model.memory.slots + episode.context.shape[1] - 1)]


def test_a_step_that_holds_a_block_of_memory_shows_it(one):
    size = 64 << 20

    def step():
        torch.zeros(size // 4).add_(1)

    step()
    assert 0.9 * size < one.peak_bytes(step, "cpu") < 2 * size
    assert one.peak_bytes(lambda: None, "cpu") < 0.2 * size


def test_the_profile_names_every_group_and_adds_up_to_the_whole(bench):
    where = importlib.import_module("where")
    shares = where.shares(bench.eager_rows()[2], bench.QUICK)
    assert shares.keys() >= {"matmul", "attention", "norm", "elementwise", "embedding & loss"}
    report = where.report(bench.eager_rows()[2], bench.QUICK)
    assert sum(float(line.split("%")[0].split()[-1]) for line in report.splitlines()[1:]) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize(
    "operator, group",
    [
        ("aten::addmm", "matmul"),
        ("aten::bmm", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::_log_softmax", "embedding & loss"),
        ("aten::_fused_rms_norm", "norm"),
        ("aten::mul_", "elementwise"),
        ("aten::copy_", "moving data"),
        ("cpp_fused_mul_3", "fused by the compiler"),
        ("autograd::engine::evaluate_function: MmBackward0", "overhead"),
    ],
)
def test_operators_are_grouped_by_name(bench, operator, group):
    assert importlib.import_module("where").group_of(operator) == group
