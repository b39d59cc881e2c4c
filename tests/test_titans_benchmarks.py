"""The benchmarks of Titans, a memory or whole models, measure what they say, and no law is broken for a speed."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture(scope="module")
def titans(benchmarks):
    """The table of the Titans memory and its peer."""
    return importlib.import_module("titans")


@pytest.fixture(scope="module")
def one(titans):
    return importlib.import_module("one_row")


@pytest.fixture(scope="module")
def row(titans):
    return importlib.import_module("titans_row")


EAGER = ("token loop", "chunks", "chunks, stored", "layer", "layer, stored")


def test_the_quick_titans_run_prints_and_writes_the_rows_asked_for(benchmarks, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(benchmarks / "titans.py"), "--quick", "--only", "layer, stored", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = json.loads(out.read_text())["rows"]
    assert "layer, stored" in done.stdout and "depth 2, chunk 8, 1 x 16" in done.stdout
    assert found["error"] < 1e-5 and 0 < found["of_products"] < 1 and 0 < found["rate"] < found["forward_rate"]


def test_a_kind_of_row_that_is_not_there_is_an_error(benchmarks):
    done = subprocess.run([sys.executable, str(benchmarks / "titans.py"), "--only", "mac"], capture_output=True)
    assert done.returncode and b"no kind of row holds 'mac'" in done.stderr


def test_without_the_peer_its_rows_are_left_out_in_words(titans, monkeypatch, capsys):
    monkeypatch.setattr(titans, "installed", lambda: False)
    monkeypatch.setattr(sys, "argv", ["titans.py", "--quick", "--only", "peer"])
    titans.main()
    assert "titans-pytorch is not installed" in (said := capsys.readouterr().out) and "coarse" not in said


@pytest.mark.parametrize("kind", EAGER)
def test_every_titans_row_computes_the_recurrence(titans, row, kind):
    subject = row.ROWS[kind](titans.TINY, titans.QUICK)
    with torch.no_grad():
        assert row.error_of(subject, subject.forward()) < 1e-5
    assert all(grad.isfinite().all() for grad in row.step_of(subject.forward, subject.leaves)()[1])


@pytest.mark.parametrize("kind", ["chunks, compiled", "layer, compiled"])
def test_the_compiled_titans_rows_keep_their_laws(titans, kind):
    found = titans.measured(kind, replace(titans.TINY, depth=1), titans.QUICK)
    assert found["error"] < 1e-5 and found["of_products"] is None


def test_another_recurrence_is_refused_a_speed(titans, row, one, monkeypatch):
    row.check_recurrence(2)
    right = row.engine.chunkwise

    def wrong(*given, **options):
        y, state = right(*given, **options)
        return y * (1 + 1e-8), state

    monkeypatch.setattr(row.engine, "chunkwise", wrong)
    with pytest.raises(one.LawBroken, match="chunkwise is .* off tokenwise at depth 2"):
        row.measure("chunks", titans.TINY, titans.QUICK)


def test_wrong_outputs_are_refused_a_speed(titans, row, one, monkeypatch):
    def wrong(cell, setting):
        right = row.ROWS["chunks"](cell, setting)
        return replace(right, forward=lambda: right.forward() * 1.01)

    monkeypatch.setitem(row.ROWS, "wrong", wrong)
    with pytest.raises(one.LawBroken, match="off the recurrence"):
        row.measure("wrong", titans.TINY, titans.QUICK)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_products_counted_are_those_of_the_chunkwise_form(titans, row, depth):
    products = importlib.import_module("products")
    cell = replace(titans.TINY, depth=depth)
    t, widths = cell.chunk, [cell.width, *[4 * cell.width] * (depth - 1), cell.width]
    layers = list(enumerate(zip(widths, widths[1:], strict=False)))
    once = sum((5 + (i > 0)) * t * e * o + t * t * (e + o) + t * t * (t + 1) for i, (e, o) in layers)
    forward = cell.batch * cell.tokens // t * once
    for kind, passes in (("chunks, stored", 3), ("chunks", 4)):
        subject = row.ROWS[kind](cell, titans.QUICK)
        with torch.no_grad():
            assert products.multiply_adds(products.products_of(subject.forward)) == forward
        both = products.multiply_adds(products.products_of(row.step_of(subject.forward, subject.leaves)))
        assert (passes - 0.3) * forward < both <= passes * forward


def test_goals_are_told_as_met_or_missed(titans):
    cell = {"cell": "depth 2, chunk 64, 1 x 128", "width": 128, "chunk": 64}
    rates = {"peer, same function": 10.0, "peer, coarse": 400.0, "layer": 600.0, "chunks": 9000.0}
    rows = [cell | {"kind": kind, "rate": rate, "of_products": 0.55} for kind, rate in rates.items()]
    (said,) = titans.goals(rows)
    assert "60.0 x peer, same function (met: >= 50)" in said and "1.5 x peer, coarse (missed: >= 2)" in said
    assert "55% products (met: >= 50%)" in said
    (said,) = titans.goals([*rows[:2], cell | {"kind": "layer, compiled", "rate": 900.0, "of_products": None}])
    assert "90.0 x peer, same function (met: >= 50)" in said and "products" not in said


def test_the_peer_at_the_same_function_is_the_recurrence(titans, one, monkeypatch):
    peer = importlib.import_module("titans_peer")
    if not peer.installed():
        pytest.skip(f"needs titans-pytorch: {peer.INSTALL}")
    for depth in (1, 2, 4):
        peer.check_peer(replace(titans.TINY, depth=depth, heads=2))
    ours = peer.as_ours
    monkeypatch.setattr(peer, "as_ours", lambda memory, x, chunk: ours(memory, x, chunk + 1))
    with pytest.raises(one.LawBroken, match="the peer's outputs are"):
        peer.check_peer(titans.TINY)


@pytest.fixture
def whole(titans):
    """The rows of whole models."""
    return importlib.import_module("titans_model_row")


def test_the_quick_run_of_whole_models_shows_a_state_that_stays_and_a_cache_that_grows(benchmarks, tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "out.json"
    asked = ["--quick", "--architectures", "lmm", "--contexts", "16", "32", "--json", str(out)]
    subprocess.run([sys.executable, str(benchmarks / "titans_model.py"), *asked], capture_output=True, check=True)
    rows = json.loads(out.read_text())["rows"]
    assert [each["name"] for each in rows] == ["lmm", "llama", "lmm", "lmm", "llama", "llama"]
    assert all(each["rate"] > 0 for each in rows) and all(each["error"] < 1e-4 for each in rows[2:])
    assert rows[1]["parameters"] == pytest.approx(rows[0]["parameters"], rel=0.03) and rows[0]["peak_bytes"] > 0
    assert rows[2]["state_bytes"] == rows[3]["state_bytes"] and 2 * rows[4]["state_bytes"] == rows[5]["state_bytes"]


@pytest.mark.parametrize("kind, said", [("training", "difference quotient"), ("decoding", "off one pass")])
def test_a_model_that_breaks_a_law_is_refused_a_speed(titans, whole, one, monkeypatch, kind, said):
    cell = whole.Cell(name="mac", preset="tiny", tokens=16, contexts=(8,))
    next(whole.measure(kind, cell, titans.QUICK))
    cut = lambda self, ids, state=None: self.model.hidden(self.model.embedding(ids).detach(), None)  # noqa: E731
    monkeypatch.setattr(whole.Ours, "hidden", cut)
    with pytest.raises(one.LawBroken, match=said):
        next(whole.measure(kind, cell, titans.QUICK))


@pytest.mark.parametrize("most, said", [({"fill_seconds": 0.0}, "s to fill"), ({}, "GB, more than 1e-06")])
def test_a_cache_that_is_too_much_to_fill_is_left_out_in_words(whole, monkeypatch, most, said):
    pytest.importorskip("transformers")
    monkeypatch.setattr(whole.Llama, "largest_state", 1e9 if most else 1e3)
    cell = whole.Cell(name="llama", preset="tiny", contexts=(8, 32), **most)
    llama = whole.Llama(cell.config())
    llama.model.eval()
    reading = whole.Reading(llama, cell, piece=8)
    assert reading.upto(8) == "" and said in reading.upto(32) and reading.read == 8


def test_kept_numbers_are_drawn_without_measuring(benchmarks, tmp_path):
    pytest.importorskip("matplotlib")
    kept, picture = benchmarks / "titans_model_decoding.json", tmp_path / "kept.png"
    words = ["--read", str(kept), "--plot", str(picture)]
    done = subprocess.run(
        [sys.executable, str(benchmarks / "titans_model.py"), *words], capture_output=True, text=True, check=True
    )
    assert picture.read_bytes().startswith(b"\x89PNG") and done.stdout == ""
