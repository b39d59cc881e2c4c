"""`ttmem` on the command line: which command, how many threads, and what its exit code says."""

import os
import sys
from collections.abc import Sequence

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
MOST_THREADS = 1024
EXTRAS = {
    "tyro": "cli",
    "rich": "cli",
    "accelerate": "train",
    "tensorboard": "train",
    "matplotlib": "plot",
    "transformers": "hf",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 for done, 2 for bad input (one line on stderr), 1 for anything else.

    With TTMEM_TRACEBACK set, errors that are not the user's come with their traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if words == ["--version"]:
            from . import __version__

            return told(f"ttmem {__version__}")
        from .commands import parse

        command = parse(words)
        set_threads(command.threads)
        command.run()
    except KeyboardInterrupt as stop:
        return failed(str(stop) or "stopped", 1)
    except BrokenPipeError:
        return unread()
    except (ValueError, OSError) as error:
        return failed(str(error), 2)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        return failed(f"{error}: pip install 'ttmem[{extra}]'" if extra else str(error), 1)
    except Exception as error:
        if os.environ.get("TTMEM_TRACEBACK"):
            raise
        return failed(str(error) or type(error).__name__, 1)
    return 0


def set_threads(threads: int) -> None:
    """Limit the CPU threads; it must come before torch is imported, as two busy processes with all threads crawl."""
    if threads < 1:
        raise ValueError(f"--threads must be >= 1, got {threads}")
    if threads > MOST_THREADS:
        raise ValueError(f"--threads must be <= {MOST_THREADS}, got {threads}")
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def told(line: str) -> int:
    """Say a line; the exit code of success."""
    if sys.stdout:  # None where it was closed
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def unread() -> int:
    """Who read our output is gone, as in `ttmem models | head -1`: no line for it, and none when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def failed(why: str, code: int) -> int:
    """Say in one line on stderr what went wrong; gives the code back."""
    if sys.stderr:
        line = " ".join(why.split())  # names in files may hold control characters, which a terminal would obey
        sys.stderr.write(f"ttmem: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
