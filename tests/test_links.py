"""Log lines that lead to their run in the web viewer, on request."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracebus import current_run, log_to_stdout, traced
from tracebus.errors import ArgumentError
from tracebus.links import link_to, viewer_at
from tracebus.outputs.logs import log_to
from tracebus.propagation import extract

pytestmark = pytest.mark.once

VIEWER = "http://127.0.0.1:9999"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@traced(kind="tool")
def search(query: str) -> Any:
    return current_run()


@traced
def answer(question: str) -> tuple[Any, Any]:
    return current_run(), search(question)


def address_of(run: Any) -> str:
    return f"{VIEWER}/traces/{run.trace_id.hex}/runs/{run.id.hex[16:]}"


@pytest.mark.parametrize(
    ("given", "viewer"),
    [
        (False, None),
        (True, "http://127.0.0.1:8287"),
        (VIEWER, VIEWER),
        ("https://traces.example.com/debug/", "https://traces.example.com/debug"),
    ],
)
def test_links_are_off_or_of_the_usual_or_of_another_viewer(given: bool | str, viewer: str | None) -> None:
    assert viewer_at(given) == viewer


@pytest.mark.parametrize(
    "given",
    [
        "",
        "localhost:8287",
        "ftp://x",
        "http://",
        "http://a b",
        "http://a\x1b[0m",
        "http://ä",
        "http://a/?token=x",
        "http://a#b",
        8287,
        [],
        1,
    ],
)
def test_what_is_no_address_is_told(given: Any) -> None:
    with pytest.raises(ArgumentError, match="no address of the viewer"):
        log_to_stdout(stream=io.StringIO(), links=given)


def test_a_wrong_address_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        log_to(tmp_path / "lines.log", links="nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_link_has_the_whole_ids() -> None:
    assert link_to(VIEWER, 0xAB, 0xCD << 64 | 0xEF) == f"{VIEWER}/traces/{'ab':0>32}/runs/{'ef':0>16}"
    assert link_to(VIEWER, 0xAB) == f"{VIEWER}/traces/{'ab':0>32}"


def test_starts_and_ends_have_a_link_in_json() -> None:
    stream = io.StringIO()
    with log_to_stdout("json", stream=stream, links=VIEWER):
        root, below = answer("Why?")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["link"] for line in lines] == [address_of(run) for run in (root, below, below, root)]


def test_a_trace_that_came_from_outside_is_linked_under_its_id() -> None:
    stream = io.StringIO()
    with log_to_stdout("json", stream=stream, links=VIEWER), extract({"traceparent": PARENT}):
        answer("Why?")
    assert "/traces/0af7651916cd43dd8448eb211c80319c/runs/" in json.loads(stream.getvalue().splitlines()[0])["link"]


@pytest.mark.parametrize("width", [20, 60, 100, 160])
def test_a_trace_s_end_has_a_link_in_full_whatever_the_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    with log_to_stdout("console", stream=stream, links=VIEWER):
        root, _ = answer("Why? " * 50)
    *others, last = stream.getvalue().splitlines()
    link = f"{VIEWER}/traces/{root.trace_id.hex}"
    assert last.endswith(f"  {link}")
    assert len(last) <= max(width, 40 + len(link))
    assert not [line for line in others if "http" in line or len(line) > width]


def test_ids_at_starts_are_links_where_there_is_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with log_to_stdout("console", stream=stream, links=VIEWER):
        runs = answer("Why?")
    found = re.findall(r"\x1b\]8;;(http[^\x1b]*)\x1b\\(#[0-9a-f]{4})\x1b\]8;;\x1b\\", stream.getvalue())
    assert found == [(address_of(run), f"#{run.id.hex[-4:]}") for run in runs]
    assert stream.getvalue().count("\x1b]8;;") == 4


def test_without_links_there_are_none() -> None:
    stream = io.StringIO()
    with log_to_stdout("console", stream=stream), log_to_stdout("json", stream=stream):
        answer("Why?")
    assert "http" not in stream.getvalue()
    assert '"link"' not in stream.getvalue()


PROGRAM = "import tracebus\n@tracebus.traced\ndef answer(): pass\nanswer()"


@pytest.mark.parametrize(
    ("options", "env", "viewer"),
    [
        (["--links"], {}, "http://127.0.0.1:8287"),
        ([f"--links={VIEWER}"], {}, VIEWER),
        ([], {"TRACEBUS_LINKS": "yes"}, "http://127.0.0.1:8287"),
        ([], {"TRACEBUS_LINKS": VIEWER}, VIEWER),
        ([], {"TRACEBUS_LINKS": "off"}, None),
        ([], {}, None),
    ],
)
def test_tracebus_run_links_lines_when_asked(
    options: list[str], env: dict[str, str], viewer: str | None, run_python: Callable[..., Any]
) -> None:
    done = run_python("-m", "tracebus", "run", *options, "-c", PROGRAM, env=env)
    for line in map(json.loads, done.stderr.splitlines()):
        assert line.get("link", "").partition("/traces/")[0] == (viewer or "")


def test_tracebus_run_refuses_what_is_no_address(run_python: Callable[..., Any]) -> None:
    done = run_python("-m", "tracebus", "run", "--links=nowhere", "-c", PROGRAM, check=False)
    assert done.returncode == 2
    assert "--links" in done.stderr
