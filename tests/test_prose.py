"""First sentences name a thing and its purpose: riddles of a few kinds are refused by a word list.

The list is of phrases that hide a noun ("what is kept", "those that follow", "so many steps"). Say
the noun: "the saved tensors", "later steps", "`size` steps".
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for page in (ROOT / "docs").glob("*.md") if page.stem != "mutants"),
]

# Of every docstring's first paragraph.
RIDDLES = re.compile(
    r"\bwhat (is|was|are|has|had|it|they|a|an|the|comes|came|would|can|no|does|each)\b"
    r"|\bthose (that|of|which)\b|\bof which\b|\bso many\b|\b[Ss]ee that\b|\b(is|are) asked\b"
    r"|\b(with|by|to|for|from) which\b",
    re.IGNORECASE,
)

# Of pages, in whole.
FORBIDDEN = re.compile(
    r"\bcomes? not\b|\bcame not\b|\bthose which\b|\bof whom\b|\bwhereof\b|\bso many of\b"
    r"|\bin order that\b|\b(simply|obviously|of course|please note|needless to say)\b"
    r"|\b(seamless(ly)?|blazing(ly)?|cutting-edge|leverag(e|es|ing)|utili[sz]e[sd]?)\b",
    re.IGNORECASE,
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Find the first paragraph of each docstring, and its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, " ".join(text.partition("\n\n")[0].split())


def prose(page: str) -> str:
    """Take blocks of code and quoted words out of a page."""
    page = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "", page)


@pytest.mark.parametrize("package", ["linrec", "lmu"])
def test_first_sentences_name_their_subject(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r} in: {text}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if (match := RIDDLES.search(text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_plain_words(page: Path) -> None:
    found = [match[0] for match in FORBIDDEN.finditer(prose(page.read_text(encoding="utf-8")))]
    assert not found, f"{page.name}: {found}"


# Names of functions that end like participles: adjectives, nouns and properties of the kit.
NO_PARTICIPLES = {"badly_scaled", "between", "gated", "named", "untouched", "vectorized", "written"}
PARTICIPLE = re.compile(r"[a-z]+[^e]ed|known|made|taken|chosen|written|given|found|shown|held|kept")
# Of these, named in docs/api.md.
PUBLISHED = {"exported"}


def test_functions_are_verbs() -> None:
    """`combine`, not `combined`: of functions of one word that a module has at its top."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for package in ("linrec", "lmu")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and PARTICIPLE.fullmatch(node.name)
        and node.name not in NO_PARTICIPLES | PUBLISHED
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "riddle",
    [
        "Keep what is given.",
        "Run recurrences, and keep the plans of those that are frozen.",
        "Cut blocks of so many steps.",
        "See that samples fit.",
        "The axis along which copies lie, of which there are two.",
    ],
)
def test_riddles_are_seen(riddle: str) -> None:
    ((line, text),) = docstrings(f'def f():\n    """{riddle}\n\n    More of it."""')
    assert line == 2 and RIDDLES.search(text)


def test_code_on_a_page_is_not_prose() -> None:
    assert not FORBIDDEN.search(prose("```python\nutilize = 1\n```\nand `of course` too\n"))
    assert FORBIDDEN.search(prose("We utilize it."))
