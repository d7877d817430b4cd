"""The documentation is true: its code runs and prints what it says, and no name is left out."""

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import itertools
import pkgutil
import re
import shlex
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer.main

import linrec.commands
import lmu.commands
from linrec.kernels import cpu_loops
from lmu.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = re.compile(  # the README's links, which have to lead somewhere from PyPI too
    r"https://(?:github\.com/linrec/linrec/blob|raw\.githubusercontent\.com/linrec/linrec)/main/"
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
APPS = {"linrec": linrec.commands.app, "lmu": lmu.commands.app}
COMMANDS = [
    "pip install -e '.[experiments]' && lmu train mackey-glass",
    "pip install -e '.[test]' && pytest -n auto",
]

# The libraries, whose every name is documented in full, public or of use beside the public ones.
# What experiments are made of is neither.
LIBRARIES = (
    "linrec",
    "linrec.memories",
    "linrec.nn",
    "linrec.symbolic",
    "linrec.testing",
    "linrec.interop",
    "linrec.lengths",
    "linrec.export",
    "linrec.signal",
    "lmu",
)
# `linrec.lengths` has one entry for all its functions.
LISTED = (*(name for name in LIBRARIES if name != "linrec.lengths"), "lmu.experiments")

# Examples that need what linrec does not depend on, and that are skipped.
SKIPPED = [
    "linrec.interop.to_control",
    "linrec.export.onnx.to_onnx",
    "linrec.export.package.to_package",
    "lmu.keras.convert.from_keras",
    "lmu.layers.spiking.SpikingNeurons",
    "lmu.layers.spiking.SpikingLMUFormer",
]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it begins on."""

    language: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        yield Block(match[1], match[2], page.count("\n", 0, match.start()) + 2)


def executed(page: str, name: str) -> Iterator[tuple[Block, Block | None, str]]:
    """Run the Python blocks in order, in one namespace.

    Yields each block, the `text` block right after it, if there is one, and what was printed.
    """
    namespace: dict[str, object] = {"__name__": "page"}
    found = [*blocks(page), Block("", "", 0)]
    for block, following in itertools.pairwise(found):
        if block.language != "python":
            continue
        # Blank lines before, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        yield block, following if following.language == "text" else None, printed.getvalue()


def run_page(page: str, name: str) -> None:
    """Run a page; what a block prints stands after it, and is compared as a doctest's."""
    for block, following, printed in executed(page, name):
        expected = following.text if following else ""
        if not doctest.OutputChecker().check_output(expected, printed, FLAGS):
            raise AssertionError(
                f"{name}, line {block.line}: the block prints\n{printed}\nand the page says\n"
                f"{expected}\n`python -m tests.test_docs docs/{name}` writes what is printed."
            )


def rewritten(page: str, name: str) -> str:
    """Write what the blocks of a page print into the `text` blocks after them."""
    lines = page.splitlines(keepends=True)
    for _, following, printed in reversed(list(executed(page, name))):
        if following:
            start = following.line - 1
            lines[start : start + following.text.count("\n")] = printed.rstrip("\n") + "\n"
    return "".join(lines)


@pytest.fixture(autouse=True)
def reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, seeded, and leave torch's settings as they were."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_printoptions(profile="default")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_code_of_a_page_runs(path: Path) -> None:
    run_page(path.read_text(encoding="utf-8"), path.name)


@pytest.mark.parametrize(
    "page",
    [
        "```python\nassert 1 == 2\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nx = 1\n```\n\nand\n\n```python\ny\n```\n",
    ],
)
def test_a_page_that_is_wrong_fails(page: str) -> None:
    with pytest.raises((AssertionError, NameError)):
        run_page(page, "page")


def test_what_a_page_prints_can_be_written_into_it() -> None:
    page = "```python\nprint(1)\nprint(2)\n```\n\n```text\nold\n```\n\nthe end\n"
    assert rewritten(page, "page") == page.replace("old", "1\n2")


def module_names(*packages: str) -> list[str]:
    """List all modules of the packages."""
    names = []
    for package in packages:
        module = importlib.import_module(package)
        below = pkgutil.walk_packages(module.__path__, f"{package}.")
        names += [package, *(info.name for info in below)]
    return names


@pytest.mark.parametrize("name", module_names("linrec", "lmu"))
def test_the_examples_of_a_module_are_right(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report = io.StringIO()
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        tolerated = {doctest.SKIP} if test.name in SKIPPED else {doctest.ELLIPSIS}
        for example in test.examples:
            assert set(example.options) <= tolerated, f"{test.name} has an option it should not"
        runner.run(test, out=report.write)
    assert not runner.failures, report.getvalue()


def test_the_readme_has_two_commands_and_is_short() -> None:
    readme = (ROOT / "README.md").read_text()
    given = [block.text.strip() for block in blocks(readme) if block.language == "bash"]
    assert given == COMMANDS
    assert COMMANDS[1] in (ROOT / ".ci/run").read_text().replace("--quiet ", "")
    assert len(readme.splitlines()) <= 100


def test_the_readme_s_links_lead_somewhere_from_elsewhere() -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text()):
        assert link.startswith("https://"), f"README.md: `{link}` leads nowhere on PyPI"


def typed() -> list[str]:
    """List the lines that begin with a command of ours in what the pages tell to type."""
    told = [block.text for page in PAGES for block in blocks(page.read_text())]
    lines = [
        part.strip() for text in told for line in text.splitlines() for part in line.split("&&")
    ]
    lines = [line.removeprefix("$ ").partition("  # ")[0].strip() for line in lines]
    return sorted({line for line in lines if line.startswith(tuple(f"{each} " for each in APPS))})


@pytest.mark.parametrize("line", typed())
def test_what_the_pages_tell_to_type_can_be_typed(line: str) -> None:
    program, name, *words = shlex.split(line)
    group = typer.main.get_command(APPS[program])
    command = getattr(group, "commands")[name]  # noqa: B009  # of a group
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert program == "linrec" or name not in ("train", "evaluate") or words[0] in EXPERIMENTS


def anchors(page: str) -> set[str]:
    """List what `#...` can point to: headings, in lower case, spaces as hyphens."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def linked(page: Path, target: str) -> Path | None:
    """Find the file that a link of a page leads to; None if it leads out of the repository."""
    if published := PUBLISHED.match(target):
        return ROOT / target[published.end() :]
    return None if "://" in target else (page.parent / target).resolve()


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        target, _, anchor = link.partition("#")
        file = linked(path, target) if target else path
        if file is None:
            continue
        assert file.exists(), f"{path.name} links to `{link}`, which does not exist"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{path.name}: no heading for `{link}`"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        waiting += [file for link in links if (file := linked(page, link))]
    assert set(PAGES) <= reached


def names(module: types.ModuleType) -> list[str]:
    """List what a module gives: what its `__init__` re-exports, or else what it makes public."""
    path = inspect.getsourcefile(module)
    assert path is not None
    if Path(path).name != "__init__.py":
        return module.__all__
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    given = [alias.asname for node in imports for alias in node.names if alias.asname]
    return [name for name in given if not name.startswith("_")]


def whole(module: str, names: Iterable[str]) -> list[str]:
    """Write the names of a module whole."""
    return [f"{module}.{name}" for name in names]


def given(modules: Iterable[str]) -> list[str]:
    """List all names that some modules give, whole."""
    return [name for each in modules for name in whole(each, names(importlib.import_module(each)))]


def public() -> set[str]:
    """List all public names, whole."""
    return {name for each in LISTED for name in whole(each, importlib.import_module(each).__all__)}


def resolve(name: str) -> object:
    """Find the object of a whole name."""
    module, _, attribute = name.rpartition(".")
    if module:  # a function may have the name of its file: `linrec.run`
        with contextlib.suppress(AttributeError):
            return getattr(resolve(module), attribute)
    return importlib.import_module(name)


def listed() -> list[str]:
    """List the names that docs/api.md has an entry for."""
    text = (ROOT / "docs" / "api.md").read_text()
    return re.findall(r"^- `([\w.]+)[^`]*`: .+", text, re.MULTILINE)


def test_the_public_names_are_those_of_the_list() -> None:
    modules = {name for name in listed() if isinstance(resolve(name), types.ModuleType)}
    assert set(listed()) - modules == public()


@pytest.mark.parametrize("module", LISTED)
def test_a_star_gives_the_public_names_and_no_others(module: str) -> None:
    given: dict[str, object] = {}
    exec(f"from {module} import *", given)  # a name of our own table
    assert set(given) - {"__builtins__"} == set(importlib.import_module(module).__all__)


def test_the_list_of_names_has_no_name_twice_and_none_that_is_not_there() -> None:
    entries = listed()
    assert len(entries) == len(set(entries))
    for name in entries:
        resolve(name)


@pytest.mark.parametrize("name", given(LIBRARIES))
def test_a_public_name_is_documented(name: str) -> None:
    value = resolve(name)
    text = inspect.getdoc(value) or ""
    summary = text.partition("\n\n")[0]
    assert summary.endswith("."), f"`{name}` needs a summary sentence"
    if not inspect.isfunction(value):
        return
    for parameter in inspect.signature(value).parameters:
        entry = rf"Args:\n(?:.*\n)*?    {parameter}(?: \([^)]*\))?: "
        assert re.search(entry, text), f"`{name}`: `{parameter}` is not described in Args"
    assert "Returns:" in text, f"`{name}` does not say what it returns"
    assert "Example:" in text and ">>> " in text, f"`{name}` has no example"


if __name__ == "__main__":
    cpu_loops.HAS_NUMBA = False  # as in the tests (tests/conftest.py)
    for page in map(Path, sys.argv[1:]):
        text = rewritten(page.read_text(encoding="utf-8"), page.name)
        page.write_text(text, encoding="utf-8")
