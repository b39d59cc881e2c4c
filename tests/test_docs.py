"""README and docs tell the truth: their links, commands, flags and examples; each rule is shown to fail as well."""

import functools
import sys
from pathlib import Path

import pytest

import guards_docs as guards
from guards_code import ROOT, repository_files

PAGES = [path.relative_to(ROOT).as_posix() for path in repository_files() if path.suffix == ".md"]
COMMANDS = Path(ROOT, "src/ttmem/cli.py").exists() or Path(ROOT, "src/ttmem/cli").exists()
needs_commands = pytest.mark.skipif(not COMMANDS, reason="there is no command line yet")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("room")


@functools.cache
def helps(folder: Path) -> dict[str, str]:
    """The help of every command."""
    code, text = guards.run(["ttmem", "--help"], folder)
    assert code == 0, text
    names = guards.command_names(text)
    assert names, f"ttmem --help lists no commands:\n{text}"
    said = {name: guards.run(["ttmem", name, "--help"], folder) for name in names}
    failed = {name: text for name, (code, text) in said.items() if code != 0}
    assert not failed, failed
    return {name: text for name, (_, text) in said.items()}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    assert guards.link_violations(ROOT / name) == []


def test_the_link_guard_sees_a_lost_file_and_a_lost_heading(tmp_path):
    (tmp_path / "other.md").write_text("# The first one\n```\n# no heading\n```\n")
    links = ["lost.md", "other.md#the-first-one", "other.md#no-heading", "#here", "https://example.org/x", "other.md"]
    (tmp_path / "a.md").write_text("# Here\n" + "\n".join(f"[x]({link})" for link in links) + "\n`[code](gone.md)`")
    assert guards.link_violations(tmp_path / "a.md") == [
        "a.md: lost.md leads nowhere",
        "a.md: other.md#no-heading names no heading",
    ]


@pytest.mark.parametrize("name", PAGES)
def test_make_lines_name_targets_and_python_lines_name_files(name):
    found = guards.make_violations(page(name), guards.make_targets(page("Makefile")))
    assert found + guards.script_violations(page(name), ROOT) == []


def test_the_make_guard_sees_a_target_that_is_not_there(tmp_path):
    text = "```bash\nmake test VENV=x\nmake -j2 dance\npython gone.py --flag\n```\n```python\nmake = fly\n```\n"
    assert guards.make_violations(text, {"test"}) == ["line 3: make has no target dance"]
    assert guards.script_violations(text, tmp_path) == ["line 4: there is no gone.py"]


@pytest.mark.parametrize("target", "demo test fix check bench docs setup".split())
def test_the_makefile_has_the_targets_people_are_told_of(target):
    assert target in guards.make_targets(page("Makefile"))
    assert f"\n{target}: $(STAMP)" in page("Makefile"), f"make {target} does not set up first"


@needs_commands
@pytest.mark.parametrize("name", PAGES)
def test_ttmem_lines_name_commands_and_flags(name, room):
    assert guards.command_violations(page(name), helps(room)) == []


def test_the_command_guard_sees_a_wrong_command_and_a_wrong_flag():
    text = "```bash\nttmem fly\nttmem ask m doc \\\n  --loud | cat\nttmem ask m -o doc --json=1\nttmem --help\n```\n"
    assert guards.command_violations(text, {"ask": "usage: --json -o PATH"}) == [
        "line 2: ttmem has no command fly",
        "line 3: ttmem ask has no flag --loud",
    ]


@needs_commands
def test_every_command_answers_help(room):
    assert all("usage" in text.lower() for text in helps(room).values())


@needs_commands
def test_help_is_quick_and_needs_no_torch(room):
    assert guards.help_seconds(room) < 0.5


def test_the_help_guard_sees_an_imported_torch(room):
    script = guards.TORCHLESS.format(entry="sys.modules['torch'] = sys")
    code, said = guards.run([sys.executable, "-c", script], room)
    assert code != 0 and "torch was imported" in said


@needs_commands
@pytest.mark.parametrize("name", PAGES)
def test_marked_shell_blocks_and_help_lines_run(name, tmp_path):
    for block in (b for b in guards.blocks(page(name)) if b.language in guards.SHELLS):
        lines = [["bash", "-euo", "pipefail", "-c", block.text.replace("\n$ ", "\n").removeprefix("$ ")]]
        if block.mark != "run":
            lines = [c.words for c in guards.commands(block) if c.words[0] == "ttmem" and c.words[-1] == "--help"]
        for words in lines:
            code, said = guards.run(words, tmp_path)
            assert code == 0, f"{name}:{block.line}: {said}"


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guards.run_python(page(name), name)


def test_python_blocks_share_a_namespace_and_a_wrong_example_fails():
    text = (
        "```python\nx = 1\n```\n<!-- not run: needs a GPU -->\n```python\n1 / 0\n```\n```python\n>>> x + 1\n{}\n```\n"
    )
    assert guards.run_python(text.format(2), "page") == 2
    with pytest.raises(AssertionError, match="page:8"):
        guards.run_python(text.format(3), "page")
    with pytest.raises(NameError):
        guards.run_python("```python\nunknown\n```\n", "page")


@pytest.mark.parametrize("mark, ran", [("run", True), ("looks nice", False)])
def test_a_mark_is_the_comment_right_before_its_block(mark, ran):
    first, second = guards.blocks(f"<!-- {mark} -->\n```bash\nls\n```\n\n```bash\nls\n```\n")
    assert (first.mark == "run", second.mark, first.line, second.line) == (ran, "", 2, 6)
