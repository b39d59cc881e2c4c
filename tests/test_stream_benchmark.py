"""The benchmark of an endless text: what is carried does not grow, and what is told is what was seen."""

import json
import subprocess
import sys

import pytest


def test_a_stream_is_read_with_a_state_of_one_size(benchmarks, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--tokens", "40000", "--piece", "500", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(benchmarks / "stream.py"), *words], capture_output=True, text=True, check=True
    )
    rows = json.loads((tmp_path / "stream.json").read_text())["rows"]
    assert [row["tokens"] for row in rows] == [10000, 20000, 30000, 40000]
    assert len({row["state_bytes"] for row in rows}) == 1
    assert max(row["rss_mb"] for row in rows) < 1.1 * rows[0]["rss_mb"]
    assert f"state {rows[0]['state_bytes']:,} B" in done.stdout and "40,000 tokens" in done.stdout
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")
