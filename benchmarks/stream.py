"""Ten million tokens through one LMM: memory that stays flat, and tokens per second.

    python benchmarks/stream.py                      # 10,000,000 tokens, about ten minutes on one core
    python benchmarks/stream.py --tokens 200000      # a quick look
    python benchmarks/stream.py --text FILE          # bytes of a file, again and again, instead of random ones

One line per million tokens; the resident memory of the process and the norms of the fast weights go to stream.json and
stream.png beside this file. The state is the only thing that is carried from piece to piece.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ttmem.core.state import row_norm, tensors
from ttmem.evals.plots import pyplot
from ttmem.models import Titans, preset

HERE = Path(__file__).parent
CONFIG = replace(preset("tiny", "lmm"), dim=64, chunk_size=64)


def resident() -> float:
    """Resident memory of this process in MB, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def pieces(tokens: int, piece: int, text: Path | None) -> Iterator[torch.Tensor]:
    """The stream, `(1, piece)` at a time."""
    draw = torch.Generator().manual_seed(0)
    book = None if text is None else torch.frombuffer(bytearray(text.read_bytes()), dtype=torch.uint8).long()
    for start in range(0, tokens, piece):
        if book is None:
            yield torch.randint(0, 256, (1, piece), generator=draw)
        else:
            yield book[(torch.arange(start, start + piece)) % len(book)][None]


def stream(tokens: int, piece: int, text: Path | None) -> list[dict]:
    """Read the stream; what was seen every 20 pieces, and in the end."""
    torch.manual_seed(0)
    model, state, rows, begun = Titans(CONFIG).eval(), None, [], time.perf_counter()
    with torch.inference_mode():
        for i, ids in enumerate(pieces(tokens, piece, text), 1):
            _, state = model(ids, state)
            if i % 20 == 0 or i * piece >= tokens:
                fast = state.fast["0"].memory.fast
                seconds = time.perf_counter() - begun
                held = 4 * sum(leaf.numel() for leaf in tensors(state.fast))
                rows.append({"tokens": i * piece, "seconds": seconds, "rss_mb": resident(), "state_bytes": held})
                rows[-1]["norm"] = float(row_norm(fast).mean())
                tell(rows, tokens)
    return rows


def tell(rows: list[dict], tokens: int) -> None:
    """A line per million tokens, with the time left."""
    now, before = rows[-1], rows[-2]["tokens"] if len(rows) > 1 else 0
    if now["tokens"] // 1_000_000 > before // 1_000_000 or now["tokens"] >= tokens:
        rate = now["tokens"] / now["seconds"]
        left = (tokens - now["tokens"]) / rate
        print(
            f"{now['tokens']:>11,} tokens  {rate:8,.0f}/s  rss {now['rss_mb']:7.1f} MB  "
            f"state {now['state_bytes']:,} B  |W| {now['norm']:.2f}  {left:5.0f} s left",
            flush=True,
        )


def picture(rows: list[dict], path: Path) -> None:
    """Resident memory and the norm of the memory against tokens read."""
    figure, axes = pyplot().subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    read = [row["tokens"] / 1e6 for row in rows]
    axes[0].plot(read, [row["rss_mb"] for row in rows])
    axes[0].set(ylabel="resident memory, MB", ylim=(0, None), title="One LMM reads without end: memory stays flat")
    axes[1].plot(read, [row["norm"] for row in rows], color="C1")
    axes[1].set(xlabel="tokens read, millions", ylabel="norm of the fast weights", ylim=(0, None))
    for each in axes:
        each.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Stream, tell, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--piece", type=int, default=4096)
    parser.add_argument("--text", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = stream(asked.tokens, asked.piece, asked.text)
    said = {"config": vars(CONFIG) | {"piece": asked.piece}, "torch": torch.__version__, "rows": rows}
    (asked.out / "stream.json").write_text(json.dumps(said) + "\n")
    picture(rows, asked.out / "stream.png")


if __name__ == "__main__":
    main()
