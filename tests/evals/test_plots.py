import sys

import pytest

from ttmem.evals import Report, plots, wilson

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def point(steps: int, right: int = 40) -> Report:
    losses = tuple(4.0 / (i + 1) for i in range(steps))
    interval = wilson(right, 50)
    return Report(
        "N1-K1V1-V62", "test", 50, 1, steps, right / 50, 0.02, 0.9, interval, 64, 1e-3, 1e-4, losses, {"segment": {}}
    )


@pytest.fixture
def axes():
    pytest.importorskip("matplotlib")
    figure, (panel,) = plots.panels(1)
    yield panel
    plots.pyplot().close(figure)


def overlaps(boxes: list) -> bool:
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_the_write_loss_starts_before_the_first_step_and_none_is_cut_off(axes):
    plots.write_loss(axes, [4.2, 1.0, 0.1])
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [0, 1, 2] and list(line.get_ydata()) == [4.2, 1.0, 0.1]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 4.2
    assert "nats" in axes.get_ylabel() and "steps" in axes.get_xlabel()


def test_exact_match_shows_the_rate_its_interval_the_control_and_the_trained_steps(axes):
    reports = [point(1, 20), point(2, 40), point(4, 50)]
    plots.exact_match(axes, reports, trained=2)
    memory, control, trained = axes.get_lines()
    assert list(memory.get_xdata()) == [1, 2, 4] and list(memory.get_ydata()) == [0.4, 0.8, 1.0]
    assert set(control.get_ydata()) == {0.02} and set(trained.get_xdata()) == {2}
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(wilson(20, 50)[0]) and band.max() == 1.0
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["memory (95 %)", "memory reset", "trained with 2"]


def test_bars_stand_in_pairs_and_say_their_numbers_cut_not_rounded(axes):
    plots.beside(axes, {"A": 0.9996}, {"A": 0.999, "B": 0.721}, source="deck", title="Ours")
    assert [bar.get_height() for bar in axes.patches] == [0.9996, 0.999, 0.0, 0.721]
    assert [text.get_text() for text in axes.texts] == ["0.999", "0.999", "none", "0.721"]


def test_nothing_written_on_the_bars_overlaps(axes):
    names = ("N1-K4V4-S1_16-32", "N2-K4V4-S2_16-32")
    plots.beside(axes, dict.fromkeys(names, 1.0), dict.fromkeys(names, 0.999), source="deck", title="Ours")
    axes.figure.canvas.draw()
    texts = [*axes.texts, *axes.get_xticklabels(), axes.get_legend(), axes.title]
    assert not overlaps([text.get_window_extent() for text in texts])


def test_the_legend_covers_no_point_wherever_the_curve_runs(axes):
    plots.exact_match(axes, [point(1, 50), point(2, 25), point(3, 50), point(4, 0)], trained=2)
    axes.figure.canvas.draw()
    legend = axes.get_legend().get_window_extent()
    for line in axes.get_lines()[:2]:
        assert not any(legend.contains(x, y) for x, y in axes.transData.transform(line.get_xydata()))


def test_a_curve_becomes_an_image_in_a_new_folder(tmp_path):
    pytest.importorskip("matplotlib")
    path = plots.curve_image(tmp_path / "new" / "curve.png", [point(1), point(2), point(3)], trained=2)
    assert path.read_bytes().startswith(SIGNATURE)


def test_thirty_steps_get_ticks_that_do_not_overlap(axes):
    plots.exact_match(axes, [point(steps) for steps in range(1, 31)])
    axes.figure.canvas.draw()
    assert not overlaps([label.get_window_extent() for label in axes.get_xticklabels()])


def test_without_matplotlib_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'ttmem\[plot\]'"):
        plots.pyplot()
