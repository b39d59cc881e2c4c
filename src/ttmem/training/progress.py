"""What a run says while it goes: a live line or plain lines, a history file, TensorBoard."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import replace_file

HISTORY = "history.jsonl"
SCALARS = ("loss", "read", "write", "write_first", "exact", "running", "lr", "norm", "stage", "validation", "reset")


class Reporter:
    """Tells a person and two files how a run goes; does nothing in processes that are not the main one.

    Args:
        folder: where `history.jsonl` and TensorBoard's files go.
        step: steps done so far; the history's later lines, of a run that was cut off, are dropped. At 0 a history that
            is there stays until `release`: the run it is of is replaced when this one first saves.
        show: whether to speak at all: a live line on a terminal, plain lines elsewhere, all on stderr.
        board: whether to write scalars for TensorBoard.
        main: whether this is the main process.
    """

    def __init__(self, folder: Path, step: int = 0, show: bool = True, board: bool = False, main: bool = True):
        self.main, self.show, self.folder = main, show and main, folder
        self.live = LiveLine() if self.show and sys.stderr.isatty() else None
        self.board = None
        self.held: list[str] | None = [] if main and step == 0 and (folder / HISTORY).exists() else None
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            if self.held is None:
                keep_until(folder / HISTORY, step)
            self.board = self._open_board(step) if board else None

    def _open_board(self, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.note("no TensorBoard scalars: it is not installed; pip install 'ttmem[train]'")
            return None
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def step(self, record: Mapping[str, Any]) -> None:
        """Show a step; only the live line does."""
        if self.live:
            self.live.set(line(record))

    def log(self, record: Mapping[str, Any]) -> None:
        """Keep a record, and show it."""
        if not self.main:
            return
        text = json.dumps(record) + "\n"
        if self.held is None:
            with open(self.folder / HISTORY, "a", encoding="utf-8") as file:
                file.write(text)
        else:
            self.held.append(text)
        if self.board:
            for name in SCALARS:
                if name in record:
                    self.board.add_scalar(name, record[name], record["step"])
        if not self.live and "loss" in record:
            self.note(line(record))

    def release(self) -> None:
        """Put this run's history in the place of the one that was kept."""
        if self.held is not None:
            replace_file(self.folder / HISTORY, "".join(self.held).encode())
        self.held = None

    def note(self, text: str) -> None:
        """Say a line that stays."""
        if self.live:
            self.live.say(text)
        elif self.show:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """End the live line and TensorBoard's file."""
        if self.live:
            self.live.close()
        if self.board:
            self.board.close()


class LiveLine:
    """One line at the bottom of the terminal, by rich."""

    def __init__(self):
        try:
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text
        except ImportError as error:
            raise ImportError(
                "the live line needs rich: pip install 'ttmem[train]', or train without progress"
            ) from error
        self.text, self.live = Text, Live(console=Console(stderr=True), refresh_per_second=4)
        self.live.start()

    def set(self, text: str) -> None:
        """Change the line."""
        self.live.update(self.text(text))

    def say(self, text: str) -> None:
        """A line above it that stays."""
        self.live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the last line and go on below it."""
        self.live.stop()


class Clock:
    """Seconds of a run over all its resumptions, and steps per second of this one, but for its first step, which may
    compile for minutes."""

    def __init__(self, seconds: float, step: int):
        self.before, self.first, self.begun = seconds, step, time.perf_counter()
        self.since = self.begun

    def seconds(self) -> float:
        """Spent so far."""
        return self.before + time.perf_counter() - self.begun

    def rate(self, step: int) -> float:
        """Steps per second since the first step behind the start or the resumption; of that one until then."""
        now, done = time.perf_counter(), step - self.first
        if done == 1 and self.since == self.begun:
            self.since = now
        return (done if done < 2 else done - 1) / max(now - (self.begun if done < 2 else self.since), 1e-9)

    def late(self, step: int, settle: int, budget: float | None) -> bool:
        """Whether the time that is left of a budget is just enough to settle."""
        if budget is None:
            return False
        needed = settle / self.rate(step) if step - self.first >= 10 else 0.0
        return self.seconds() + needed >= budget

    def fits(self, step: int, settle: int, budget: float | None) -> int:
        """Of the steps that settle as many as the time allows; one at least where there are any."""
        if budget is None:
            return settle
        return min(settle, max(1, int((budget - self.seconds()) * self.rate(step))))


def keep_until(path: Path, step: int) -> None:
    """Drop a history's lines after a step: the resumed run writes them again, the same."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # a line that a killed run left half written
    replace_file(path, "".join(kept).encode(errors="surrogateescape"))


def line(record: Mapping[str, Any]) -> str:
    """A step in one line.

    >>> line({"step": 40, "end": 100, "rate": 2.0, "loss": 1.5, "write": 0.25, "running": 0.5, "task": "N1-K1V1-V62",
    ...       "stage": 0, "stages": 2})
    'step 40/100  2.0/s  loss 1.500  write 0.250  exact 0.500  N1-K1V1-V62 (1/2)  0:30 left'
    """
    write = f"  write {record['write']:.3f}" if "write" in record else ""
    told = f"step {record['step']}/{record['end']}  {record['rate']:.1f}/s  loss {record['loss']:.3f}{write}"
    where = f"{shortened(record['task'])} ({record['stage'] + 1}/{record['stages']})"
    left = (record["end"] - record["step"]) / max(record["rate"], 1e-9)
    return f"{told}  exact {record['running']:.3f}  {where}  {clock(left)} left"


def shortened(name: str, most: int = 40) -> str:
    """A name without its middle where it is long: a text task's names all its files.

    >>> shortened("text:256:gutenberg/10136.txt+gutenberg/10146.txt", most=24)
    'text:256:g...g/10146.txt'
    """
    head, tail = (most - 3) // 2, most - 3 - (most - 3) // 2
    return name if len(name) <= most else f"{name[:head]}...{name[-tail:]}"


def clock(seconds: float) -> str:
    """Seconds as hours, minutes, seconds.

    >>> clock(61.0), clock(3700.0)
    ('1:01', '1:01:40')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
