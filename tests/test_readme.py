"""The README and the pages in examples/ tell the truth: their Python runs, their commands and links lead somewhere.

Each ```python block runs as written, in a process of its own, in an empty directory, with warnings as errors.
A block that goes on where the one before it stopped has this line above it, and runs together with that one:

    <!-- continues -->

In ```console blocks, what follows `$ python examples/…` and `$ make …` must exist.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]

FENCE = re.compile(
    r"(?P<continues><!-- continues -->\s*)?^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One fenced block, with its line on the page."""

    line: int
    language: str
    source: str


def read_blocks(text: str) -> list[Block]:
    """Return the fenced blocks; a Python block that continues starts with the source of what it continues.

    Empty lines are put before the source so that its line numbers in a traceback are those of the page.
    """
    blocks: list[Block] = []
    python = ""
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        source = match["body"]
        if match["language"] == "python":
            before = python if match["continues"] else ""
            source = python = before + "\n" * (line - 1 - before.count("\n")) + source
        blocks.append(Block(line, match["language"], source))
    return blocks


BLOCKS = [(page, block) for page in PAGES for block in read_blocks(page.read_text("utf-8"))]


@pytest.mark.parametrize(
    "source",
    [pytest.param(block.source, id=f"{page.stem}-{block.line}") for page, block in BLOCKS if block.language == "python"],
)
def test_python_on_a_page_runs(source: str, run_python: Callable, tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(source, "utf-8")
    run_python("page.py")


def missing(command: str) -> bool:
    if match := re.search(r"\bexamples/\S+", command):
        return not (ROOT / match[0]).is_file()
    if match := re.match(r"make ([a-z-]+)", command):
        return not re.search(rf"^{match[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    return False


def test_commands_on_a_page_name_what_exists() -> None:
    lines = [line for _, block in BLOCKS if block.language == "console" for line in block.source.splitlines()]
    assert [line for line in lines if line.startswith("$ ") and missing(line.removeprefix("$ "))] == []


def anchors(prose: str) -> set[str]:
    """Return the headings' anchors as the usual forges make them: lower case, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_on_a_page_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text("utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose)
    inside = [target.removeprefix("#") for target in targets if target.startswith("#")]
    files = [target.partition("#")[0] for target in targets if not re.match(r"#|https?:|mailto:", target)]
    assert [anchor for anchor in inside if anchor not in anchors(prose)] == []
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_a_block_that_continues_holds_what_it_continues() -> None:
    first_two = "# T\n```python\na = 1\n```\nand\n\n<!-- continues -->\n```python\nprint(a)\n```\n"
    text = first_two + "```console\n$ make\n```\n"
    first, second, third = read_blocks(text)
    assert first.source == "\n\na = 1\n"
    assert second.source == "\n\na = 1\n" + "\n" * 5 + "print(a)\n"
    assert third == (12, "console", "$ make\n")
