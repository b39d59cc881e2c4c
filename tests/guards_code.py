"""What the house asks of code. Each guard takes files or modules and gives the violations as lines to read."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "ttmem"
ANYTHING = {
    "core",
    "nn",
    "tasks",
    "checkpoint",
    "memories",
    "models",
    "evals",
    "hf",
    "training",
    "serving",
    "memory_file",
    "zoo",
}
LAYERS: dict[str, set[str]] = {
    "checks": set(),
    "core": set(),
    "nn": set(),
    "tasks": set(),
    "checkpoint": {"core"},
    "memories": {"core", "nn"},
    "models": {"core", "nn", "memories"},
    "evals": {"core", "tasks"},
    "hf": {"core", "nn", "models", "checkpoint"},
    "training": {"core", "models", "tasks", "evals", "checkpoint"},
    "serving": {"core", "models", "hf", "checkpoint"},
    "memory_file": {"core", "checkpoint"},
    "zoo": {"models", "tasks", "checkpoint", "memory_file"},
    "commands": ANYTHING,
    "cli": ANYTHING | {"commands"},
    "__main__": {"cli"},
    "__init__": ANYTHING,
}
CORE_LIBRARIES = {"torch", "einops", "jaxtyping", "safetensors"}
WITH_EXTRAS = {"training", "serving", "hf", "cli", "commands", "__main__"}
FILE_LINES, FUNCTION_LINES, MEAN_LINES, TESTS_PER_SOURCE = 300, 60, 14, 0.8
# A path of one machine; the lookbehind lets relative paths and web addresses through.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/")
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python_files(root: Path, *folders: str) -> list[Path]:
    """The Python files under the folders of root that exist."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def repository_files(root: Path = ROOT) -> list[Path]:
    """What git tracks or would track; every file where there is no git."""
    git = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p) for p in root.rglob("*") if not any(part.startswith(".venv") for part in p.parts)]
    return sorted({root / name for name in listed if name and (root / name).is_file()})


def layer_of(module: str) -> str:
    """`core` for `ttmem.core.state`, `__init__` for `ttmem` itself."""
    return (module.split(".") + ["__init__"])[1]


def module_name(path: Path, source: Path) -> str:
    """The dotted name of a file below `source` (the folder that holds the package)."""
    parts = list(path.relative_to(source).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """The dotted names that an import statement reaches, relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    parents = module.split(".") if is_package else module.split(".")[:-1]
    base = parents[: len(parents) - node.level + 1] if node.level else []
    stem = ".".join([*base, *([node.module] if node.module else [])])
    return [f"{stem}.{alias.name}" for alias in node.names] if stem == PACKAGE else [stem]


def layer_violations(source: Path) -> list[str]:
    """Imports of ours that the layer table does not allow, wherever in the file they stand."""
    found = []
    for path in python_files(source, PACKAGE):
        module = module_name(path, source)
        layer = layer_of(module)
        if layer not in LAYERS:
            found.append(f"{module}: no layer has the name {layer}; give it a row in the table")
            continue
        for node in ast.walk(parse(path)):
            names = imported(node, module, path.stem == "__init__")
            found += [f"{module}:{node.lineno} imports {name}" for name in names if not allowed(layer, name)]
    return found


def allowed(layer: str, name: str) -> bool:
    """Whether a module of this layer may import the name."""
    top = name.split(".")[0]
    if top in {"experiments", "benchmarks", "tests"}:
        return False
    return top != PACKAGE or layer_of(name) in LAYERS[layer] | {layer, "checks", "__version__"}


def library_violations(source: Path) -> list[str]:
    """Libraries beyond the core ones that are needed just to import a layer which must work without extras."""
    found = []
    for path in python_files(source, PACKAGE):
        module = module_name(path, source)
        if layer_of(module) in WITH_EXTRAS:
            continue
        for node in parse(path).body:
            tops = {name.split(".")[0] for name in imported(node, module, path.stem == "__init__")}
            foreign = tops - CORE_LIBRARIES - {PACKAGE} - sys.stdlib_module_names
            found += [f"{module}:{node.lineno} needs {name} at import; import it where it is used" for name in foreign]
    return found


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def function_lines(node: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def size_violations(paths: list[Path]) -> list[str]:
    """Files and functions that do not fit in view, and functions that are too long on average."""
    lengths = [
        (function_lines(f), f"{path.name}:{f.lineno} {f.name}") for path in paths for f in functions(parse(path))
    ]
    files = [(count_lines([path]), str(path.name)) for path in paths]
    found = [f"{name} has {n} lines, more than {FILE_LINES}" for n, name in files if n > FILE_LINES]
    found += [f"{name} has {n} lines, more than {FUNCTION_LINES}" for n, name in lengths if n > FUNCTION_LINES]
    mean = sum(n for n, _ in lengths) / max(len(lengths), 1)
    return found + (
        [f"functions have {mean:.1f} lines on average, more than {MEAN_LINES}"] if mean > MEAN_LINES else []
    )


def count_lines(paths: list[Path]) -> int:
    """Lines of all the files together."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def export_violations(module: ModuleType) -> list[str]:
    """Names in `__all__` that are not there or come twice, and public names of a package that it does not list."""
    listed = list(getattr(module, "__all__", []))
    found = [
        f"{module.__name__}.{name} is in __all__ and does not exist" for name in listed if not hasattr(module, name)
    ]
    found += [
        f"{module.__name__}.{name} stands twice in __all__" for name in sorted(set(listed)) if listed.count(name) > 1
    ]
    hidden = sorted(bound_names(module) - set(listed))
    return found + [f"{module.__name__}.{name} is exported and not in __all__" for name in hidden]


def bound_names(module: ModuleType) -> set[str]:
    """Public names that the module takes from its own package, defines, or (`TYPE_CHECKING`) promises."""
    names: set[str] = set()
    for node in ast.walk(parse(Path(str(module.__file__)))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == PACKAGE):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and hasattr(module, node.name):
            names.add(node.name)
    return {name for name in names if not name.startswith("_") and not isinstance(getattr(module, name, 0), ModuleType)}


def docstring_violations(module: ModuleType) -> list[str]:
    """Exported functions and classes without a docstring of their own; a dataclass's generated one does not count."""
    found = []
    for name in getattr(module, "__all__", []):
        thing = getattr(module, name, None)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        doc = inspect.unwrap(thing).__doc__ or ""
        if not doc.strip() or doc.startswith(f"{thing.__name__}("):
            found.append(f"{module.__name__}.{name} has no docstring")
    return found


def path_violations(paths: list[Path]) -> list[str]:
    """Text files that name a path of somebody's machine."""
    found = []
    for path in paths:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        found += [
            f"{path.name}:{i} names a machine's path" for i, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    return found


def pickle_violations(paths: list[Path]) -> list[str]:
    """Imports and calls that can run code when a file is loaded."""
    return [
        f"{path.name}:{node.lineno} unpickles" for path in paths for node in ast.walk(parse(path)) if unpickles(node)
    ]


def unpickles(node: ast.AST) -> bool:
    """Whether the node imports a pickle library, or calls `load` without `weights_only=True` or with `allow_pickle`."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any(name.split(".")[0] in PICKLES for name in imported(node, PACKAGE, True))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "load":
        return False
    options = {k.arg: isinstance(k.value, ast.Constant) and k.value.value for k in node.keywords}
    is_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
    return "allow_pickle" in options or is_torch and options.get("weights_only") is not True
