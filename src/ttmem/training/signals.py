"""Ctrl-C and SIGTERM end a step, not a run: the loop looks here after each step."""

import signal
import threading
from types import FrameType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """True once somebody asked the process to stop; a second time stops it at once.

    Only the main thread can catch signals; elsewhere it stays false.
    """

    def __init__(self):
        self.asked, self.before = False, {}

    def __bool__(self) -> bool:
        return self.asked

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in CAUGHT}
        return self

    def __exit__(self, *error: Any) -> None:
        self._give_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
