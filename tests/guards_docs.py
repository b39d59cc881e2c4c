"""What the house asks of documents: links that lead somewhere, commands that exist, examples that run."""

import doctest
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from guards_code import ROOT

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
SHELLS = {"bash", "console", "sh", "shell"}
ENTRY = "import sys; sys.argv[0] = 'ttmem'; from ttmem.cli import main; sys.exit(main())"
TORCHLESS = "import sys\ntry:\n {entry}\nfinally:\n assert 'torch' not in sys.modules, 'torch was imported'"


class Block(NamedTuple):
    """A fenced block: where it starts, its language, its text, and the HTML comment right before it."""

    line: int
    language: str
    text: str
    mark: str


class Command(NamedTuple):
    """One command of a shell block, without prompt and environment."""

    line: int
    words: list[str]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a Markdown page."""
    found = []
    for fence in FENCE.finditer(page):
        before = page[: fence.start()]
        mark = re.search(r"<!-- *((?:(?!-->).)*?) *-->\s*\Z", before, re.DOTALL)
        text = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        found.append(Block(before.count("\n") + 1, fence["language"], text, mark[1] if mark else ""))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a shell block, pipes and chains taken apart.

    >>> [c.words for c in commands(Block(1, "bash", "$ A=1 make test && .venv/bin/ttmem ask x 'a b'  # hi", ""))]
    [['make', 'test'], ['ttmem', 'ask', 'x', 'a b']]
    """
    found = []
    lines = block.text.replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines, block.line + 1):
        lexer = shlex.shlex(re.sub(r"^\s*\$ ", "", line), posix=True, punctuation_chars="|&;")
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and not set(word) <= set("|&;"):
                words.append(word)
            elif words:
                found.append(Command(number, words))
                words = []
    return [c._replace(words=bare(c.words)) for c in found if bare(c.words)]


def bare(words: list[str]) -> list[str]:
    """A command without leading assignments, its program by name alone."""
    while words and re.match(r"^\w+=", words[0]):
        words = words[1:]
    return [Path(words[0]).name, *words[1:]] if words else []


def shell_commands(page: str, program: str) -> list[Command]:
    """Every call of a program in the page's shell blocks."""
    return [c for b in blocks(page) if b.language in SHELLS for c in commands(b) if c.words[0] == program]


def make_targets(makefile: str) -> set[str]:
    """The targets of a Makefile, patterns and special ones left out."""
    return {name for line in re.findall(r"^([\w ./-]+):(?!=)", makefile, re.MULTILINE) for name in line.split()} - {
        ".PHONY"
    }


def make_violations(page: str, targets: set[str]) -> list[str]:
    """`make` lines that name a target which is not there."""
    return [
        f"line {c.line}: make has no target {word}"
        for c in shell_commands(page, "make")
        for word in c.words[1:]
        if not word.startswith("-") and "=" not in word and word not in targets
    ]


def script_violations(page: str, root: Path) -> list[str]:
    """`python file.py` lines whose file is not there."""
    calls = [c for name in ("python", "python3", "torchrun") for c in shell_commands(page, name)]
    scripts = [(c.line, word) for c in calls for word in c.words[1:] if word.endswith(".py")]
    return [f"line {line}: there is no {word}" for line, word in scripts if not (root / word).is_file()]


def command_violations(page: str, helps: dict[str, str]) -> list[str]:
    """`ttmem` lines that name a command or a flag which its help does not know; `helps` is help by command."""
    found = []
    for line, words in shell_commands(page, "ttmem"):
        name = words[1] if len(words) > 1 else ""
        if name.startswith("-") or not name:
            continue
        if name not in helps:
            found.append(f"line {line}: ttmem has no command {name}")
            continue
        flags = [word.split("=")[0] for word in words[2:] if re.match(r"--?[a-zA-Z]", word)]
        known = set(re.findall(r"--?[a-zA-Z][\w-]*", helps[name]))
        found += [f"line {line}: ttmem {name} has no flag {flag}" for flag in flags if flag not in known | {"--help"}]
    return found


def slug(heading: str) -> str:
    """The anchor that a heading gets.

    >>> slug("What `ttmem` does, and why")
    'what-ttmem-does-and-why'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings and explicit ids."""
    text = FENCE.sub("", page)
    return {slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)) for h in HEADING.findall(text)} | set(
        re.findall(r'<a (?:id|name)="([^"]+)"', text)
    )


def link_violations(path: Path) -> list[str]:
    """Relative links of a page that lead to no file or to no heading."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
    found = []
    for link in LINK.findall(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if not target.exists():
            found.append(f"{path.name}: {link} leads nowhere")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            found.append(f"{path.name}: {link} names no heading")
    return found


def run_python(page: str, name: str) -> int:
    """Runs a page's Python blocks in one namespace; gives how many ran. Raises what they raise."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    chosen = [b for b in blocks(page) if b.language == "python" and not b.mark.startswith("not run")]
    for block in chosen:
        if ">>> " not in block.text:
            exec(compile("\n" * block.line + block.text, name, "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(block.text, namespace, name, name, block.line)
        flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        result = doctest.DocTestRunner(optionflags=flags).run(test, clear_globs=False)
        namespace.update(test.globs)
        assert not result.failed, f"{name}:{block.line}: an example says otherwise"
    return len(chosen)


def environment(folder: Path) -> dict[str, str]:
    """An environment where `ttmem` and `python` are this checkout's, with no terminal's width or colours."""
    entry = folder / "bin" / "ttmem"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{ENTRY}" "$@"\n')
    entry.chmod(0o755)
    path = os.pathsep.join([str(entry.parent), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return os.environ | own | {"NO_COLOR": "1", "TERM": "dumb"}


def run(words: list[str], folder: Path, timeout: float = 120) -> tuple[int, str]:
    """Runs a command in a folder; its exit code and everything it said."""
    done = subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=timeout, check=False
    )
    return done.returncode, done.stdout + done.stderr


def command_names(help_text: str) -> list[str]:
    """The commands that `ttmem --help` lists, as argparse and tyro write them.

    >>> command_names("usage: ttmem [-h] {demo,train}")
    ['demo', 'train']
    """
    braces = re.search(r"\{([\w,\s-]+)\}", help_text)
    return [name.strip() for name in braces[1].split(",")] if braces else []


def help_seconds(folder: Path) -> float:
    """CPU seconds of `ttmem --help`, the best of three; raises AssertionError if it fails or imports torch."""
    seconds = []
    script = TORCHLESS.format(entry=ENTRY)
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, said = run([sys.executable, "-c", script, "--help"], folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert code == 0, said
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)
