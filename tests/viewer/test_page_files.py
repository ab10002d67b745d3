"""The files of the page: no code in the HTML, no HTML made of text, nothing from elsewhere, and what is not ours is named."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "tracebus/viewer/static"
OURS = sorted(path for path in STATIC.rglob("*.mjs") if path.parent.name != "vendor")
VENDORED = sorted(path for path in (STATIC / "vendor").iterdir() if path.suffix in (".mjs", ".css"))

pytestmark = pytest.mark.once


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed((STATIC / "index.html").read_text("utf-8"))
    return parser.found


def test_the_page_has_no_code_of_its_own_and_loads_only_from_here() -> None:
    loaded = [found.get("src") or found.get("href") for tag, found in elements() if tag in ("script", "link")]
    assert loaded
    assert all(place is not None and place.startswith("/static/") for place in loaded)
    assert not [
        tag for tag, found in elements() if tag == "style" or "style" in found or any(n.startswith("on") for n in found)
    ]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_module_makes_no_html_of_text_and_imports_what_is_there(path: Path) -> None:
    source = path.read_text("utf-8")
    code = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    assert source.startswith("// ")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|https?://", code)
    for place in re.findall(r'from "([^"]+)"', code):
        assert place.startswith(("./", "../"))
        assert (path.parent / place).resolve().is_file(), place


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.name)
def test_what_is_not_ours_is_named_with_its_version_and_its_licence(path: Path) -> None:
    (line,) = [line for line in (STATIC / "vendor/VENDORED.md").read_text("utf-8").splitlines() if f"| `{path.name}` " in line]
    assert re.search(r"\| \d+\.\d+\.\d+ \| (MIT|Apache-2.0) \|", line)
    package = line.split("|")[2].strip().partition(",")[0]
    assert re.search(rf"^== .*{re.escape(package)}.* ==$", (STATIC / "vendor/LICENSES.txt").read_text("utf-8"), re.MULTILINE)


def test_the_page_stays_small() -> None:
    loaded = [path for path in STATIC.rglob("*") if path.suffix in (".mjs", ".css", ".html", ".svg")]
    assert sum(path.stat().st_size for path in loaded) < 350_000
