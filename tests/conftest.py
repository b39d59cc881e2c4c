"""What every test stands on: one thread, checked shapes, fixed seeds."""

import os

# Before torch: two test processes with torch's default threads run many times slower, and last digits move.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import random  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

assert not any(module.split(".")[0] == "ttmem" for module in sys.modules), (
    "ttmem is imported before its shapes are checked"
)
jaxtyping.install_import_hook("ttmem", "beartype.beartype")

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Each test draws the same numbers alone, in company, and in any order."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[torch.dtype]:
    """Makes float64 the default dtype for one test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users have it: nobody looks at types and shapes but the code itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Path]:
    """The folder of the benchmarks, whose modules can be imported; processes that a test starts find the package."""
    root = Path(__file__).resolve().parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        patch.setenv("PYTHONPATH", str(root / "src"))
        yield root / "benchmarks"


@pytest.fixture
def data() -> Path:
    """The folder in TTMEM_DATA, or a skip that says how to have one."""
    folder = os.environ.get("TTMEM_DATA")
    if not folder:
        pytest.skip("needs data: set TTMEM_DATA to the folder that holds it")
    if not Path(folder).is_dir():
        pytest.fail(f"TTMEM_DATA is {folder}, which is no folder")
    return Path(folder)
