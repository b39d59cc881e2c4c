import pytest

from ttmem import zoo
from untrained import checkpoint


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder to work in with a checkpoint and pairs, and one shipped checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path / "shelf")
    checkpoint(tmp_path / "shelf" / "tokens-n2.safetensors", seed=1)
    checkpoint(tmp_path / "mine.safetensors")
    (tmp_path / "pairs.txt").write_text("ab12 x9Qz\ncd34: y8Rw\n")
    return tmp_path
