"""One run a folder: a second process that trains there would write between the lines of the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows has no such locks: nobody is kept out there
    flock = None  # type: ignore[assignment]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made where there is none, while this process trains in it; ValueError where another one does.

    The system lets go when the process ends, however it ends. Of the processes of one run the first holds it (RANK).
    """
    if flock is None or os.environ.get("RANK", "0") != "0" or (folder.exists() and not folder.is_dir()):
        yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems of other machines hold no locks
            _take(held, folder)
        yield
    finally:
        os.close(held)
        if made:
            with suppress(OSError):  # of a run that did not begin no empty folder stays
                folder.rmdir()


def _take(held: int, folder: Path) -> None:
    try:
        flock(held, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being trained in by another process: wait, or take another folder") from None
