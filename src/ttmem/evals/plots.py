"""Pictures of a memory: what the write does, what more steps bring, and ours beside other people's numbers."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .capacity import Point
from .report import Report

OURS, THEIRS, GREY = "#1f5fa8", "#c9822b", "#8a8f98"


def pyplot() -> Any:
    """Matplotlib without a screen; ImportError with the mend where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'ttmem[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def ready(path: str | Path) -> None:
    """Raise before the work, not after it, where `save` could leave no picture at the path.

    ImportError without matplotlib; ValueError for an ending that is none of its formats, and for a folder.
    """
    path, formats = Path(path), pyplot().Figure().canvas.get_supported_filetypes()
    if path.is_dir() or path.suffix[1:].lower() not in formats:
        raise ValueError(f"plot must be a file with the ending .png, .svg or .pdf, got {str(path)!r}")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"plot must go to a folder that can be written, got {str(path)!r}, and {there} is none")


def write_loss(axes: Any, losses: Sequence[float]) -> None:
    """Nats per character of the context after 0, 1, 2, ... write steps."""
    axes.plot(range(len(losses)), losses, color=OURS, marker="o", markersize=4)
    axes.set(title="Writing: the context reconstructed", xlabel="write steps", ylabel="write loss (nats per character)")
    axes.set_ylim(0, 1.08 * max(losses, default=1.0))
    _whole_ticks(axes, range(len(losses)))


def exact_match(axes: Any, reports: Sequence[Report], trained: int | None = None) -> None:
    """Exact match against write steps with its 95 % interval, and the control with the memory reset."""
    steps = [report.steps or 1 for report in reports]
    low, high = zip(*(report.interval for report in reports), strict=True)
    axes.fill_between(steps, low, high, color=OURS, alpha=0.2, linewidth=0)
    axes.plot(steps, [r.exact_match for r in reports], color=OURS, marker="o", markersize=4, label="memory (95 %)")
    axes.plot(steps, [r.exact_match_reset for r in reports], color=GREY, linestyle="--", label="memory reset")
    if trained is not None:
        axes.axvline(trained, color=GREY, linewidth=0.8, linestyle=":", label=f"trained with {trained}")
    axes.set(title=f"Reading {reports[0].task}", xlabel="write steps", ylabel="exact match (share of questions)")
    _share_axis(axes, bottom=-0.03)
    _whole_ticks(axes, steps)


def beside(axes: Any, ours: Mapping[str, float], theirs: Mapping[str, float], source: str, title: str) -> None:
    """Bars of our exact match beside those of a source, a pair per task; a task we have no number for says so."""
    for i, task in enumerate(theirs):
        _bar(axes, i - 0.2, ours.get(task), OURS, "ttmem" if i == 0 else None)
        _bar(axes, i + 0.2, theirs[task], THEIRS, source if i == 0 else None)
    axes.set_xticks(range(len(theirs)), [name.replace("-S", "\n-S", 1) for name in theirs])
    axes.set(title=title, ylabel="exact match (share of questions)")
    axes.set_xlim(-0.6, len(theirs) - 0.4)
    _share_axis(axes, bottom=0.0)


def panels(count: int) -> tuple[Any, Sequence[Any]]:
    """A figure with `count` panels side by side, and the panels."""
    figure, axes = pyplot().subplots(1, count, figsize=(4.6 * count, 3.8), layout="constrained", squeeze=False)
    for panel in axes[0]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
        panel.set_axisbelow(True)
    return figure, list(axes[0])


def save(figure: Any, path: str | Path) -> Path:
    """Write the figure as an image of the kind its ending says, its folder made, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot().close(figure)
    return path


def curve_image(path: str | Path, reports: Sequence[Report], trained: int | None = None) -> Path:
    """Write loss and exact match against write steps, as one image."""
    figure, (left, right) = panels(2)
    write_loss(left, max(reports, key=lambda report: len(report.write_loss)).write_loss)
    exact_match(right, reports, trained)
    return save(figure, path)


def capacity_image(path: str | Path, points: Sequence[Point], task: str) -> Path:
    """Write exact match against bytes, write steps and seconds to write, a colour for each memory, with 95 %."""
    figure, axes = panels(3)
    labels = ("memory (bytes)", "write steps", "time to write a context (ms)")
    for i, name in enumerate(dict.fromkeys(point.name for point in points)):
        own = sorted((p for p in points if p.name == name), key=lambda p: p.steps or 1)
        score = [p.exact_match for p in own]
        low = [p.exact_match - p.interval[0] for p in own]
        high = [p.interval[1] - p.exact_match for p in own]
        places = [p.memory_bytes for p in own], [p.steps or 1 for p in own], [1e3 * p.write_seconds for p in own]
        for panel, place in zip(axes, places, strict=True):
            panel.errorbar(place, score, [low, high], marker="o", markersize=4, capsize=2, color=f"C{i}", label=name)
    for panel, label in zip(axes, labels, strict=True):
        panel.set(xlabel=label, ylabel="exact match, test", ylim=(-0.03, 1.03), title=task)
    kept, steps = sorted({p.memory_bytes for p in points}), sorted({p.steps or 1 for p in points})
    axes[0].set(xscale="log" if kept[0] else "symlog", xlim=(kept[0] / 2, kept[-1] * 2 or 1))  # none keeps no bytes
    told = _apart(kept)
    axes[0].set_xticks(told, [f"{number:,}" for number in told], rotation=30)
    axes[0].minorticks_off()
    axes[1].set_xticks(steps)
    axes[2].set_xlim(left=0)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return save(figure, path)


def _apart(numbers: Sequence[int]) -> list[int]:
    """Of ascending numbers those that a logarithmic axis has room to name.

    >>> _apart([0, 2_048, 58_368, 65_536, 99_840])
    [0, 2048, 58368, 99840]
    """
    told: list[int] = []
    for number in numbers:
        if not told or number >= 1.6 * told[-1]:
            told.append(number)
    return told


def _share_axis(axes: Any, bottom: float) -> None:
    """Shares from 0 to 1, and room above them for the legend, where it covers nothing."""
    axes.set(ylim=(bottom, 1.22), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.legend(loc="upper center", ncols=3, fontsize=8, framealpha=0.9, columnspacing=1.2)


def _bar(axes: Any, x: float, height: float | None, color: str, label: str | None) -> None:
    axes.bar(x, height or 0.0, 0.36, color=color, label=label)
    # Cut, not rounded: .9996 is not 1.
    text = "none" if height is None else f"{math.floor(round(1000 * height, 6)) / 1000:.3f}"
    axes.text(x, (height or 0.0) + 0.015, text, ha="center", va="bottom", fontsize=8)


def _whole_ticks(axes: Any, steps: Sequence[Any]) -> None:
    every = max(1, -(-len(steps) // 10))  # none where nothing was written by steps
    axes.set_xticks(list(steps)[::every])
