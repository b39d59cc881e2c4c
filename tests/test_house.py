"""The house's rules about code, held for whatever is there; each rule is also shown to fail on a planted breach."""

import importlib
import pkgutil
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import guards_code as guards
from guards_code import PACKAGE, ROOT

SOURCE = ROOT / "src"
CODE = ("src", "tests", "benchmarks", "experiments")


def packages() -> list[str]:
    """`ttmem` and its subpackages, as far as they exist."""
    top = SOURCE / PACKAGE
    if not (top / "__init__.py").exists():
        return []
    return [PACKAGE, *(f"{PACKAGE}.{found.name}" for found in pkgutil.iter_modules([str(top)]) if found.ispkg)]


def plant(root: Path, **files: str) -> Path:
    """Writes files such as `ttmem__core__a="import os"` to `ttmem/core/a.py`."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def report(violations: list[str]) -> str:
    return "\n".join(["", *violations])


def test_a_layer_imports_only_what_the_table_allows():
    found = guards.layer_violations(SOURCE)
    assert not found, report(found)


@pytest.mark.parametrize(
    "file, line",
    [
        ("ttmem__core__a", "from ..nn import attend"),
        ("ttmem__core__a", "from .. import nn"),
        ("ttmem__core__deep__a", "from ...models.mac import mac"),
        ("ttmem__tasks__a", "import ttmem.core.state"),
        ("ttmem__models__a", "def late():\n    from ttmem.training import fit"),
        ("ttmem__evals__a", "from ttmem import fold"),
        ("ttmem__training__a", "from ttmem.cli import main"),
        ("ttmem__cli", "import experiments.first"),
        ("ttmem__attic__a", "import os"),
    ],
)
def test_the_layer_guard_sees_a_forbidden_import(tmp_path, file, line):
    assert len(guards.layer_violations(plant(tmp_path, **{file: line}))) == 1


@pytest.mark.parametrize(
    "file, line",
    [
        ("ttmem__core__a", "from .state import State"),
        ("ttmem__models__a", "from ..core.state import State\nfrom ttmem import nn, memories"),
        ("ttmem__cli", "from .training import fit\nimport torch"),
        ("ttmem__tasks__a", "import torch\nfrom .base import Episode"),
    ],
)
def test_the_layer_guard_lets_allowed_imports_pass(tmp_path, file, line):
    assert guards.layer_violations(plant(tmp_path, **{file: line})) == []


def test_the_layer_table_has_no_cycle():
    rank: dict[str, int] = {}
    while len(rank) < len(guards.LAYERS):
        ready = [name for name, below in guards.LAYERS.items() if name not in rank and below <= set(rank)]
        assert ready, f"a cycle among {set(guards.LAYERS) - set(rank)}"
        rank |= dict.fromkeys(ready, len(rank))


def test_core_layers_import_without_the_extras():
    found = guards.library_violations(SOURCE)
    assert not found, report(found)


def test_the_library_guard_sees_an_extra_at_import_and_allows_it_inside_a_function(tmp_path):
    plant(tmp_path, ttmem__evals__a="import matplotlib.pyplot", ttmem__core__b="def f():\n    import rich")
    assert guards.library_violations(tmp_path) == [
        "ttmem.evals.a:1 needs matplotlib at import; import it where it is used"
    ]


@pytest.mark.parametrize("name", packages())
def test_all_lists_exactly_what_a_package_exports(name):
    found = guards.export_violations(importlib.import_module(name))
    assert not found, report(found)


def test_the_export_guard_sees_a_ghost_a_double_and_a_hidden_name(tmp_path, monkeypatch):
    module = planted_module(
        tmp_path, monkeypatch, "def shown(): ...\ndef hidden(): ...\n__all__ = ['shown', 'shown', 'ghost']\n"
    )
    found = guards.export_violations(module)
    assert [line.split(" ")[0].split(".")[1] for line in found] == ["ghost", "shown", "hidden"]


def planted_module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> ModuleType:
    (folder / "planted_house.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "planted_house", raising=False)
    return importlib.import_module("planted_house")


@pytest.mark.parametrize("name", packages())
def test_every_exported_name_is_documented(name):
    found = guards.docstring_violations(importlib.import_module(name))
    assert not found, report(found)


def test_the_docstring_guard_sees_bare_functions_classes_and_generated_docstrings():
    @dataclass
    class Generated:
        size: int

    def told():
        """Says something."""

    module = ModuleType("planted")
    vars(module).update(
        Generated=Generated, told=told, bare=lambda: 0, number=3, __all__=["Generated", "told", "bare", "number"]
    )
    assert guards.docstring_violations(module) == [f"planted.{name} has no docstring" for name in ("Generated", "bare")]


@pytest.mark.parametrize("folder", CODE)
def test_files_and_functions_fit_in_view(folder):
    found = guards.size_violations(guards.python_files(ROOT, folder))
    assert not found, report(found)


def test_the_size_guard_sees_a_long_file_and_a_long_function_and_forgives_docstrings(tmp_path):
    body = "    x = 0\n"
    plant(
        tmp_path,
        file="#\n" * 301,
        function="def f():\n" + body * 60,
        told='def g():\n    """\n' + "a\n" * 80 + '    """\n' + body,
    )
    found = guards.size_violations(guards.python_files(tmp_path, "."))
    assert [line.split(",")[0] for line in found] == [
        "file.py has 301 lines",
        "function.py:1 f has 61 lines",
        "functions have 31.5 lines on average",
    ]


def test_tests_keep_pace_with_the_source():
    source, tests = (guards.count_lines(guards.python_files(ROOT, folder)) for folder in ("src", "tests"))
    needed = guards.TESTS_PER_SOURCE * source
    assert tests >= needed, f"{tests} lines of test for {source} of source; {needed:.0f} are needed"


def test_no_file_names_a_path_of_one_machine():
    found = guards.path_violations(guards.repository_files())
    assert not found, report(found)


def test_the_path_guard_sees_home_folders_and_leaves_web_addresses_alone(tmp_path):
    lines = ["/" + "root/.cache", "cd /" + "work/x", "https://example.org/home/page", "src/work/a.py"]
    (tmp_path / "a.md").write_text("\n".join(lines))
    assert guards.path_violations([tmp_path / "a.md"]) == [f"a.md:{i} names a machine's path" for i in (1, 2)]


def test_loading_a_file_never_runs_code():
    found = guards.pickle_violations(guards.python_files(ROOT, "src"))
    assert not found, report(found)


@pytest.mark.parametrize(
    "line, bad",
    [
        ("import pickle", True),
        ("from joblib import load", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("torch.load(path, weights_only=True)", False),
        ("json.load(file)", False),
    ],
)
def test_the_pickle_guard_knows_what_unpickles(tmp_path, line, bad):
    plant(tmp_path, a=line)
    assert bool(guards.pickle_violations([tmp_path / "a.py"])) == bad


def test_constraints_pin_every_library_we_name():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    wanted = {line.split(">")[0].split("[")[0] for line in named} - {PACKAGE}
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert wanted <= pinned, f"not in constraints.txt: {wanted - pinned}"


def test_ruff_finds_nothing():
    ruff = Path(sys.executable).with_name("ruff")
    command = str(ruff) if ruff.exists() else shutil.which("ruff")
    if command is None:
        pytest.skip("ruff is not installed")
    for task in (["check"], ["format", "--check"]):
        done = subprocess.run([command, *task, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
