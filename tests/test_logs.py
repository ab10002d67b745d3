"""Log lines: what they say, in both forms, where they are written, and what never reaches the app."""

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tracebus import (
    Usage,
    agent_action,
    agent_finish,
    current_run,
    custom_event,
    emit,
    llm_end,
    llm_new_token,
    log_to_stdout,
    retry,
    scope,
    text,
    trace,
    traced,
)
from tracebus.errors import ArgumentError
from tracebus.outputs.logs import RunIdFilter, add_run_ids
from tracebus.redaction import Redactor
from tracebus.runs import Instruments, use_instruments

ESC = "\x1b"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user who has said nothing about colours and widths, in Greenwich."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TRACEBUS_CAPTURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


class Lines:
    """A text stream, and the lines that were written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self.bytes, encoding)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(self.stream.encoding)

    @property
    def all(self) -> list[str]:
        return self.text.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=pytest.fail) for line in self.text.splitlines()]

    @property
    def rows(self) -> list[str]:
        """The lines without their times and the ids of runs."""
        return [re.sub(r"\s+#[0-9a-f]{4}$", "", line[14:]) for line in self.all]


@contextlib.contextmanager
def console(encoding: str = "utf-8", **options: Any) -> Iterator[Lines]:
    lines = Lines(encoding)
    with log_to_stdout("console", stream=lines.stream, **options):
        yield lines


@contextlib.contextmanager
def json_lines(encoding: str = "utf-8", **options: Any) -> Iterator[Lines]:
    lines = Lines(encoding)
    with log_to_stdout("json", stream=lines.stream, **options):
        yield lines


@contextlib.contextmanager
def both_forms(**options: Any) -> Iterator[tuple[Lines, Lines]]:
    """Write everything, tokens too, in the console form and as JSON."""
    with console(tokens=True, **options) as rows, json_lines(tokens=True, **options) as lines:
        yield rows, lines


class Clock:
    """A clock that stands still until told, and ids that end as one likes."""

    def __init__(self, ids: list[int]) -> None:
        self.now_ns = int(datetime(2026, 11, 22, 14, 2, 7, 118_000, tzinfo=UTC).timestamp()) * 10**9 + 118 * 10**6
        self.ids = iter(ids)

    def pass_ms(self, milliseconds: float) -> None:
        self.now_ns += round(milliseconds * 10**6)

    def now(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock([0x7F3A, 0x91C0, 0xB22E, 0xC01D])
    before = use_instruments(Instruments(clock.now, clock.now, lambda seq: next(clock.ids)))
    yield clock
    use_instruments(before)


def ask(clock: Clock) -> str:
    """The example of the documentation, with its times."""

    @traced(kind="retriever")
    def search(query: str) -> list[str]:
        clock.pass_ms(12)
        return ["one", "two", "three", "four"]

    @traced(kind="chat_model")
    def generate(messages: list[dict[str, str]]) -> Iterator[str]:
        clock.pass_ms(240.1)
        yield "Connect a function "
        clock.pass_ms(1173.1)
        yield "to llm_new_token."
        current_run().usage = Usage(input_tokens=1012, output_tokens=86)

    @traced
    def answer(question: str) -> str:
        clock.pass_ms(1)
        search("subscribe tokens")
        with scope():
            messages = [{"role": "system", "content": "s" * 806}, {"role": "user", "content": "Tokens"}]
            return "".join(generate(messages))

    return answer("How do I subscribe to tokens?")


# -- the console form --------------------------------------------------------------------------------------------------


def test_the_console_form_reads_as_in_the_documentation(clock: Clock) -> None:
    with console() as lines:
        ask(clock)
    assert lines.text == (
        '14:02:07.118  ▶ answer            "How do I subscribe to tokens?"                              #7f3a\n'
        '14:02:07.119  │ ▶ search          "subscribe tokens"                                           #91c0\n'
        "14:02:07.131  │ ■ search    12 ms 4 documents\n"
        "14:02:07.131  │ ▶ generate        2 messages · 812 chars                                       #b22e\n"
        '14:02:08.544  │ ■ generate 1.41 s first token 240 ms · 1 012 → 86 tokens  "Connect a function to l…"\n'
        '14:02:08.544  ■ answer     1.43 s "Connect a function to llm_new_token."\n'
    )


def test_an_error_names_the_users_line() -> None:
    @traced(kind="tool")
    def rate(currency: str) -> None:
        json.loads("{")

    with console() as lines, pytest.raises(json.JSONDecodeError):
        rate("XX")
    line = rate.__wrapped__.__code__.co_firstlineno + 2
    assert "✗ rate" in lines.all[1]
    assert " ms json.decoder.JSONDecodeError: Expecting " in lines.all[1]
    assert lines.all[1].endswith(f"  tests/test_logs.py:{line}")


def test_an_error_that_was_never_raised_has_no_line() -> None:
    with console() as lines:
        emit(retry, attempt=2, wait_s=1.5, error=TimeoutError("slow"))
    assert lines.rows == ["· retry             attempt 2 in 1.50 s  TimeoutError: slow"]


def test_a_group_of_errors_is_told_by_its_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    with console() as lines, pytest.raises(ExceptionGroup), trace("both"):
        raise ExceptionGroup("two failed", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])
    assert "ExceptionGroup: two failed (2 sub-exceptions): ValueError: one; KeyError: 'two'" in lines.all[1]


async def test_a_cancelled_run_has_a_sign_of_its_own() -> None:
    with console() as lines:
        with anyio.move_on_after(0.01):
            async with trace("wait"):
                await anyio.sleep_forever()
    assert re.fullmatch(r"⊘ wait +\d+ ms cancelled", lines.rows[-1])


def test_a_stream_closed_early_has_a_sign_of_its_own(clock: Clock) -> None:
    @traced(kind="llm")
    def generate(prompt: str) -> Iterator[str]:
        clock.pass_ms(12)
        yield "one"
        yield "two"

    with console() as lines:
        stream = generate("count")
        next(stream)
        stream.close()
    assert lines.rows[-1] == '◧ generate    12 ms closed early · first token 12 ms        "one"'


def test_a_model_at_the_root_shows_what_it_is_asked() -> None:
    with console() as lines, trace("ask", kind="llm", inputs={"prompt": "joke?"}, model="m-1"):
        pass
    assert lines.rows[0] == '▶ ask               m-1 · 1 prompt · 5 chars  "joke?"'


def test_several_inputs_are_shown_by_name() -> None:
    with console() as lines, trace("search", inputs={"query": "a b", "k": 4}):
        pass
    assert lines.rows[0] == '▶ search            query="a b" k=4'


def test_what_is_said_on_the_way_stands_inside_its_run() -> None:
    with console() as lines, trace("agent", kind="agent"):
        emit(text, text="thinking")
        emit(agent_action, tool="search", tool_input={"query": "x", "k": 4})
        emit(custom_event, name="my.event", data=[1, 2])
        emit(agent_finish, return_values={"answer": "yes"})
    assert lines.rows[1:-1] == [
        '│ · text            "thinking"',
        '│ · action          search  query="x" k=4',
        "│ · my.event        [1,2]",
        '│ · finish          "yes"',
    ]


def test_a_failing_subscriber_has_a_line() -> None:
    def bill(sender: object, event: object) -> None:
        raise KeyError("price")

    with llm_end.connected_to(bill), console() as lines, trace("ask", kind="llm"):
        pass
    row = next(row for row in lines.rows if "subscriber" in row)
    assert row.startswith("│ ✗ subscriber      bill on llm_end: KeyError: 'price'  tests/test_logs.py:")


def test_an_event_outside_of_runs_stands_at_the_margin() -> None:
    with console() as lines:
        emit(text, text="hello")
    assert lines.rows == ['· text              "hello"']


def test_a_line_of_another_branch_names_its_run() -> None:
    with console() as lines:
        first, second = trace("first"), trace("second")
        one = first.__enter__()
        two = second.__enter__()
        second.__exit__(None, None, None)
        with trace("third") as three:
            pass
        first.__exit__(None, None, None)
    assert (one.parent, two.parent, three.parent) == (None, one, one)
    ids = [line.rpartition("#")[2] if "#" in line else None for line in lines.all]
    assert ids == [f"{run.span_id & 0xFFFF:04x}" if run else None for run in (one, two, None, three, None, None)]


async def test_interleaved_runs_name_themselves_on_every_line() -> None:
    first_started, second_ended = anyio.Event(), anyio.Event()

    async def first() -> None:
        async with trace("first"):
            first_started.set()
            await second_ended.wait()

    async def second() -> None:
        await first_started.wait()
        async with trace("second"):
            pass
        second_ended.set()

    with console() as lines:
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            group.start_soon(second)
    assert [line[14:22] for line in lines.all] == ["▶ first ", "▶ second", "■ second", "■ first "]
    named = ["#" in line for line in lines.all]
    assert named == [True, True, False, True]


def test_long_names_widen_the_column_once_and_for_all() -> None:
    with console() as lines:
        with trace("a_rather_long_name_for_a_step", inputs="x"):
            pass
        with trace("short", inputs="x"):
            pass
    assert len({line.index('"x"') for line in lines.all if '"x"' in line}) == 1


@pytest.mark.parametrize("width", [20, 37, 60, 80, 100, 159])
def test_no_line_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with console(tokens=True) as lines, trace("很长的名字" * 20, inputs={"问题": "你好 世界 " * 50}):
        emit(text, text="word " * 100)
        with contextlib.suppress(ValueError), trace("ask", kind="llm", model="m" * 50) as run:
            run.usage = Usage(10**9, 10**9)
            emit(llm_new_token, token="token" * 100)
            raise ValueError("wrong " * 100)
    wide = [sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in lines.all]
    assert max(wide) <= width
    assert len(lines.all) == 6


def test_a_line_is_never_wider_than_160_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with console() as lines:
        emit(text, text="word " * 400)
    assert len(lines.all[0]) == 160


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "<1 ms"),
        (0.0006, "1 ms"),
        (0.412, "412 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.8, "1.80 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min"),
        (180, "3 min"),
        (210, "3.5 min"),
        (7200, "2 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, said: str, clock: Clock) -> None:
    with console() as lines, trace("step"):
        clock.pass_ms(seconds * 1000)
    assert lines.rows[1] == f"■ step{said.rjust(13)}"


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (Usage(1012, 86), "1 012 → 86 tokens"),
        (Usage(output_tokens=86), "86 tokens"),
        (Usage(total_tokens=1_000_000), "1 000 000 tokens"),
        (Usage(), ""),
    ],
)
def test_tokens_are_grouped_in_thousands(usage: Usage, said: str, clock: Clock) -> None:
    with console() as lines, trace("ask", kind="llm") as run:
        run.usage = usage
    assert lines.rows[1] == f"■ ask         <1 ms {said}".rstrip()


def test_tokens_have_a_line_each_where_nobody_watches() -> None:
    with console(tokens=True) as lines, trace("ask", kind="llm"):
        emit(llm_new_token, token="Hel")
        emit(llm_new_token, token="lo\n")
    assert lines.rows[1:3] == ['│ · token           "Hel"', '│ · token           "lo\\n"']


def test_tokens_are_left_out_by_default() -> None:
    with console() as lines, json_lines() as objects, trace("ask", kind="llm"):
        emit(llm_new_token, token="Hel")
    assert (len(lines.all), len(objects.all)) == (2, 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_encoding_without_the_glyphs_gets_plain_ones(encoding: str, clock: Clock) -> None:
    with console(encoding) as lines, trace("ask", kind="llm", inputs={"prompt": "你好"}) as run:
        run.usage = Usage(1, 2)
        with trace("inner"):
            emit(text, text="x" * 200)
    assert lines.rows[0] == '> ask               1 prompt - 2 chars  "\\u4f60\\u597d"'
    assert lines.rows[1] == "| > inner"
    assert re.fullmatch(r'\| \| \. text          "x+\.\.\."', lines.rows[2])
    assert lines.rows[4].startswith("* ask         <1 ms 1 -> 2 tokens")


def test_utf_16_is_written_once_and_for_all_lines() -> None:
    with console("utf-16") as lines, trace("ask"):
        pass
    assert [row[:5] for row in lines.rows] == ["▶ ask", "■ ask"]


# -- colours and terminals ---------------------------------------------------------------------------------------------


def on_terminal(code: str, clean_env: dict[str, str], columns: int = 80, **env: str) -> str:
    """Return what a process of its own writes to a terminal that is `columns` wide."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=clean_env | {"TERM": "xterm"} | env,
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=subprocess.PIPE,
    )
    os.close(child)
    written = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other end was closed
        while piece := os.read(parent, 65536):
            written += piece
    os.close(parent)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.decode()) == (0, "")
    return written.decode().replace("\r\n", "\n")


TWO_LINES = """
from tracebus import log_to_stdout, trace
log_to_stdout()
with trace("ask", kind="llm", inputs={"prompt": "joke? " * 100}):
    pass
"""


def test_a_terminal_gets_the_console_form_in_colour_and_in_its_width(clean_env: dict[str, str]) -> None:
    lines = on_terminal(TWO_LINES, clean_env, columns=72).splitlines()
    assert f"{ESC}[36m▶ ask{ESC}[0m" in lines[0]
    assert max(len(re.sub(rf"{ESC}\[\d+m", "", line)) for line in lines) == 72


def test_a_terminal_of_unknown_width_gets_lines_of_100_cells(clean_env: dict[str, str]) -> None:
    lines = on_terminal(TWO_LINES, clean_env, columns=0, NO_COLOR="1").splitlines()
    assert len(lines[0]) == 100


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_a_terminal_whose_user_wants_no_colour_gets_none(env: dict[str, str], clean_env: dict[str, str]) -> None:
    written = on_terminal(TWO_LINES, clean_env, **env)
    assert ESC not in written
    assert "▶ ask" in written


def test_red_is_for_failures(clean_env: dict[str, str]) -> None:
    code = """
from tracebus import log_to_stdout, trace
log_to_stdout()
try:
    with trace("rate", kind="tool"):
        raise ValueError("no")
except ValueError:
    pass
"""
    first, second = on_terminal(code, clean_env).splitlines()
    assert f"{ESC}[31m" not in first
    assert f"{ESC}[31m✗ rate{ESC}[0m" in second
    assert f"{ESC}[31mValueError: no{ESC}[0m" in second


def test_a_pipe_gets_json_and_no_colour(run_python: Callable[..., Any]) -> None:
    done = run_python("-c", TWO_LINES)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["llm_start", "llm_end"]
    assert ESC not in done.stdout


def test_a_pipe_gets_colour_only_by_force(run_python: Callable[..., Any]) -> None:
    code = TWO_LINES.replace("log_to_stdout()", "log_to_stdout('console')")
    assert ESC not in run_python("-c", code).stdout
    assert ESC in run_python("-c", code, env={"FORCE_COLOR": "1"}).stdout
    assert ESC not in run_python("-c", code, env={"FORCE_COLOR": "0"}).stdout


TOKENS = """
from tracebus import emit, llm_new_token, log_to_stdout, trace
log_to_stdout(tokens=True)
with trace("ask", kind="llm"):
    for word in ("Connect ", "a ", "function\\n", "中" * 30):
        emit(llm_new_token, token=word)
"""


def test_tokens_flow_on_a_terminal(clean_env: dict[str, str]) -> None:
    lines = on_terminal(TOKENS, clean_env, columns=60, NO_COLOR="1").splitlines()
    assert [line[14:] for line in lines[1:3]] == [
        "│ · Connect a function\\n中中中中中中中中中中中",
        "│   " + "中" * 19,
    ]
    assert lines[3][14:].startswith("■ ask")


NESTED_TOKENS = """
import contextlib, resource
from tracebus import emit, llm_new_token, log_to_stdout, trace
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
log_to_stdout(tokens=True)
with contextlib.ExitStack() as stack:
    for _ in range(12):
        stack.enter_context(trace("step", kind="llm"))
    for word in ("Hello ", "wörld\\r\\n", "中中中中中中"):
        emit(llm_new_token, token=word)
"""


@pytest.mark.parametrize("columns", [10, 20, 21, 24, 30, 38, 40])
def test_tokens_flow_on_a_terminal_that_is_narrower_than_their_indentation(columns: int, clean_env: dict[str, str]) -> None:
    lines = on_terminal(NESTED_TOKENS, clean_env, columns, NO_COLOR="1").splitlines()
    tokens = "".join(line[14:] for line in lines[12:-12])
    assert re.sub("[│ ]", "", tokens.partition("·")[2]) == "Hellowörld\\r\\n中中中中中中"
    assert max(len(line) for line in lines) <= max(columns, 20)


def test_tokens_of_concurrent_runs_never_share_a_line(clean_env: dict[str, str]) -> None:
    code = """
import asyncio
from tracebus import emit, llm_new_token, log_to_stdout, trace
log_to_stdout(tokens=True)
async def ask(name):
    async with trace(name, kind="llm"):
        for number in range(3):
            emit(llm_new_token, token=f"{name}{number} ")
            await asyncio.sleep(0)
async def both():
    await asyncio.gather(ask("a"), ask("b"))
asyncio.run(both())
"""
    lines = on_terminal(code, clean_env, NO_COLOR="1").splitlines()
    tokens = [re.sub(r"^.*· (#\w{4} )?", "", line) for line in lines if "·" in line]
    assert sorted(tokens) == sorted(f"{name}{number} " for name in "ab" for number in range(3))


def test_a_notebook_gets_the_console_form(run_python: Callable[..., Any]) -> None:
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from tracebus import log_to_stdout, trace", store_history=True)
for _ in range(3):
    shell.run_cell("log_to_stdout()", store_history=True, silent=False)
shell.run_cell("with trace('step'): pass", store_history=True)
"""
    pytest.importorskip("IPython", reason="IPython is not installed")
    done = run_python("-W", "default", "-c", code)
    lines = [line for line in done.stdout.splitlines() if "step" in line]
    assert [line[14:20] for line in lines] == ["▶ step", "■ step"]


# -- the JSON form -----------------------------------------------------------------------------------------------------


def test_the_json_form_reads_as_in_the_documentation(clock: Clock) -> None:
    with json_lines() as lines, trace("answer") as answer:
        clock.pass_ms(13.2)
        with trace("generate", kind="llm", model="gpt-4o-mini") as run:
            clock.pass_ms(240.1)
            emit(llm_new_token, token="Connect …")
            clock.pass_ms(1173.1)
            run.usage = Usage(input_tokens=1012, output_tokens=86)
    assert lines.all[2] == (
        '{"event":"llm_end","level":"info","timestamp":"2026-11-22T14:02:08.544Z",'
        f'"run_id":"{run.id}","parent_run_id":"{answer.id}","trace_id":"{answer.id}",'
        '"name":"generate","kind":"llm","status":"ok","duration_ms":1413.2,"first_token_ms":240.1,'
        '"model":"gpt-4o-mini","usage":{"input_tokens":1012,"output_tokens":86},"output":"Connect …"}'
    )


def test_each_start_says_what_went_in() -> None:
    with json_lines() as lines:
        with trace("a", inputs={"x": 1}), trace("b", kind="tool", inputs={"y": [2]}):
            pass
        with trace("c", kind="retriever", inputs={"query": "q"}):
            pass
        with trace("d", kind="llm", inputs={"prompt": "p", "temperature": 0}):
            pass
        with trace("e", kind="chat_model", inputs={"messages": [("user", "hi")]}):
            pass
    starts = [line for line in lines.objects if line["event"].endswith("_start")]
    said = [{name: line[name] for name in line if name in CONTENT} for line in starts]
    assert said == [
        {"inputs": {"x": 1}},
        {"inputs": {"y": [2]}},
        {"query": "q"},
        {"prompts": ["p"], "params": {"temperature": 0}},
        {"messages": [{"role": "user", "content": "hi"}]},
    ]


CONTENT = "inputs query prompts messages params output documents token tool_input return_values log text data".split()


def test_an_error_is_told_with_its_type_its_message_and_its_place() -> None:
    with json_lines() as lines, pytest.raises(ValueError, match="no"), trace("rate", kind="tool"):
        raise ValueError("no")
    end = lines.objects[-1]
    where = end["error"].pop("where")
    assert (end["event"], end["level"], end["status"]) == ("tool_error", "error", "error")
    assert end["error"] == {"type": "ValueError", "message": "no"}
    assert re.fullmatch(r"tests/test_logs\.py:\d+", where)


async def test_a_cancellation_is_a_warning() -> None:
    with json_lines() as lines:
        with anyio.move_on_after(0.01):
            async with trace("wait"):
                await anyio.sleep_forever()
    assert [(line["level"], line.get("status")) for line in lines.objects] == [("info", None), ("warning", "cancelled")]


def test_what_is_said_on_the_way_has_its_fields() -> None:
    with json_lines(tokens=True) as lines, trace("agent", kind="llm"):
        emit(llm_new_token, token="Hel")
        emit(text, text="thinking")
        emit(agent_action, tool="search", tool_input={"k": 4}, log="because")
        emit(custom_event, name="my.event", data=[1, 2])
        emit(agent_finish, return_values={"answer": "yes"})
        emit(retry, attempt=2, wait_s=1.5, error=TimeoutError("slow"))
    known = "event level timestamp run_id trace_id name kind".split()
    said = [{name: line[name] for name in line if name not in known} for line in lines.objects[1:-1]]
    assert said == [
        {"index": 0, "token": "Hel"},
        {"text": "thinking"},
        {"tool": "search", "log": "because", "tool_input": {"k": 4}},
        {"custom_name": "my.event", "data": [1, 2]},
        {"return_values": {"answer": "yes"}},
        {"attempt": 2, "wait_s": 1.5, "error": {"type": "TimeoutError", "message": "slow"}},
    ]
    assert [line["level"] for line in lines.objects[1:-1]] == ["debug", "info", "info", "info", "info", "warning"]


def test_scopes_are_told() -> None:
    inherited = scope(tags=["t"], metadata={"m": 1}, session_id="s-1", user_id="u-1")
    with json_lines() as lines, inherited, trace("a", tags=["own"]) as run:
        run.metadata["later"] = True
    start, end = lines.objects
    assert (start["tags"], start["session_id"], start["user_id"]) == (["t", "own"], "s-1", "u-1")
    assert (start["metadata"], end["metadata"]) == ({"m": 1}, {"m": 1, "later": True})


def test_an_event_outside_of_runs_has_no_run() -> None:
    with json_lines() as lines:
        emit(text, text="hello")
    assert lines.objects[0].keys() == {"event", "level", "timestamp", "text"}


def test_a_total_that_is_more_than_the_sum_stays() -> None:
    with json_lines() as lines, trace("ask", kind="llm") as run:
        run.usage = Usage(1, 2, 10, cached_tokens=1)
    assert lines.objects[-1]["usage"] == {"input_tokens": 1, "output_tokens": 2, "total_tokens": 10, "cached_tokens": 1}


def test_ids_are_right_for_runs_that_started_before_the_lines() -> None:
    with trace("root") as root, trace("middle") as middle, json_lines() as lines, trace("leaf") as leaf:
        pass
    for line in lines.objects:
        ids = line["run_id"], line["parent_run_id"], line["trace_id"]
        assert ids == (str(leaf.id), str(middle.id), str(root.id))


def test_nothing_is_kept_of_runs_that_have_ended() -> None:
    lines = Lines()
    with log_to_stdout("json", stream=lines.stream) as subscription:
        with trace("root"), trace("child"):
            pass
        for processor in subscription.target._json._processors[:1]:
            assert processor._known == {}


@pytest.mark.parametrize(
    ("capture", "left"),
    [
        ("none", set()),
        ("inputs", {"inputs", "query", "prompts", "params"}),
        ("outputs", {"output", "documents", "token", "text"}),
        ("all", {"inputs", "query", "prompts", "params", "output", "documents", "token", "text"}),
    ],
)
def test_capture_says_which_content_is_written(capture: str, left: set[str]) -> None:
    canary = "canary-in-a-coal-mine"
    with both_forms(capture=capture) as (rows, lines), trace("a", inputs={"x": canary}) as run:
        run.output = canary
        emit(text, text=canary)
        with trace("b", kind="retriever", inputs={"query": canary}) as found:
            found.output = [canary]
        with trace("c", kind="llm", inputs={"prompt": canary, "stop": canary}):
            emit(llm_new_token, token=canary)
    assert {name for line in lines.objects for name in line if name in CONTENT} == left
    assert (canary in rows.text) == bool(left)
    assert len(rows.all) == 8


def test_the_environment_says_what_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEBUS_CAPTURE", "none")
    with json_lines() as lines, trace("a", inputs={"x": 1}):
        pass
    assert "inputs" not in lines.objects[0]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_json_in_another_encoding_has_escapes(encoding: str) -> None:
    with json_lines(encoding) as lines, trace("ask", inputs={"q": "你好 🐈"}):
        pass
    assert "\\u4f60\\u597d \\ud83d\\udc08" in lines.text
    assert lines.objects[0]["inputs"] == {"q": "你好 🐈"}


def test_structlog_is_not_configured(run_python: Callable[..., Any]) -> None:
    code = TWO_LINES + "\nimport structlog; assert not structlog.is_configured()"
    run_python("-c", code)


def test_how_the_app_configures_structlog_changes_nothing() -> None:
    structlog.configure(processors=[lambda *_: pytest.fail("ours went through the app's")])
    try:
        with json_lines() as lines, trace("a"):
            pass
    finally:
        structlog.reset_defaults()
    assert len(lines.objects) == 2


# -- hostile content ---------------------------------------------------------------------------------------------------

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F))]
CONTROLS += [chr(code) for code in range(0x2066, 0x206A)]


def say_everywhere(said: str) -> int:
    """Say a text in every place that a line shows; return how many events that were."""
    with contextlib.suppress(RuntimeError), trace(said, inputs={said: said}, tags=[said], metadata={said: said}) as run:
        run.output = said
        emit(text, text=said)
        emit(custom_event, name=said, data={said: [said]})
        emit(agent_action, tool=said, tool_input=said, log=said)
        with trace("model", kind="chat_model", inputs={"messages": [{"role": said, "content": said}]}, model=said):
            emit(llm_new_token, token=said)
        with trace("retriever", kind="retriever", inputs={"query": said}) as found:
            found.output = said
        raise RuntimeError(said)
    return 10


@pytest.mark.parametrize("control", CONTROLS, ids=[f"U+{ord(control):04X}" for control in CONTROLS])
def test_a_control_character_reaches_no_line(control: str) -> None:
    said = f"a{control}[31mb{control}"
    with both_forms() as (rows, lines):
        count = say_everywhere(said)
    for written in (rows.text, lines.text):
        assert written.count("\n") == count
        assert not set(written) & set(CONTROLS) - {"\n"}
    assert [line["name"] for line in lines.objects if line["kind"] == "chain"] == [said] * 5


@given(st.text(st.characters(codec=None, categories=["L", "N", "P", "S", "Z", "C"])))
def test_any_text_is_one_line_an_event(said: str) -> None:
    with both_forms() as (rows, lines):
        count = say_everywhere(said)
    assert len(rows.all) == len(lines.objects) == count


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit("repr")

    __str__ = __repr__


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]
VALUES = {
    "raising repr": Hostile(),
    "cycle": CYCLE,
    "deep": DEEP,
    "big integer": 10**5000,
    "not a number": float("nan"),
    "odd keys": {("a", 1): {2: b"bytes"}, None: object()},
    "lone surrogate": "\ud800 lone",
    "long text": "x" * 10_000_000,
    "generator": (number for number in range(3)),
    "long list": ["x"] * 10_000,
    "nested": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
    "65 bits": 2**64,
    "negative 65 bits": -(2**63) - 1,
}


@pytest.mark.parametrize("name", VALUES)
def test_any_value_makes_strict_json_and_one_row(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value = VALUES[name]
    step = trace("a", inputs={"value": value}, metadata={"value": value})
    with both_forms() as (rows, lines), contextlib.suppress(RuntimeError), step as run:
        run.output = value
        emit(custom_event, name="n", data=value)
        with trace("b", kind="llm", inputs={"prompts": [value], "stop": value}):
            pass
        raise RuntimeError(value)
    assert len(rows.all) == len(lines.objects) == 5
    assert max(map(len, lines.all)) < 256 * 1024
    assert caplog.records == []


def test_what_a_user_puts_in_the_place_of_names_and_numbers_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    with both_forms() as (rows, lines), trace("a", kind="llm") as run:
        run.model = ["no", "name"]  # type: ignore[assignment]
        run.usage = {"input_tokens": 3}  # type: ignore[assignment]
        emit(retry, attempt="two", wait_s="soon", error="no exception")
        emit(custom_event, name=None, data=None)
        emit(llm_new_token, token=7, index="first")
        emit(agent_action, tool=3)
    assert len(rows.all) == len(lines.objects) == 6
    assert lines.objects[-1]["usage"] == {"input_tokens": 3}
    assert caplog.records == []


class Untold:
    """An array of more than one number is neither true nor false; nor is it equal to anything."""

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")

    __eq__ = __bool__  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "untold"


@pytest.mark.parametrize("kind", ["chain", "llm", "chat_model", "tool", "retriever"])
def test_no_value_is_asked_whether_it_is_true(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    value: Any = Untold()
    with both_forms() as (rows, lines), trace("a", kind=kind, inputs=value) as run:
        run.model = run.tags = run.output = run.metadata["m"] = value
        emit(agent_action, tool=value, tool_input=value, log=value)
        emit(llm_new_token, token=value, index=value)
        emit(retry, attempt=value, wait_s=value, error=value)
        with trace("b", kind=kind, inputs={"prompt": value, "model": value}):
            pass
    assert len(rows.all) == len(lines.objects) == 7
    assert "untold" in str([lines.objects[0].get(name) for name in CONTENT])
    assert lines.objects[1]["log"] == lines.objects[-1]["model"] == lines.objects[-1]["tags"] == "untold"
    assert caplog.records == []


def test_half_a_character_is_written_as_an_escape_and_not_as_a_secret() -> None:
    with both_forms() as (rows, lines), trace("ask", kind="llm"):
        emit(llm_new_token, token="\ud83d")
        emit(text, text="\ud83d")
    assert [(line.get("token"), line.get("text")) for line in lines.objects[1:3]] == [("\\ud83d", None), (None, "\\ud83d")]
    assert rows.rows[1] == '│ · token           "\\ud83d"'


CANARIES = ["sk-proj-c4n4rYc4n4rYc4n4rYc4n4rY", "ghp_c4n4rYc4n4rYc4n4rYc4n4rYc4n4rYc4n4"]


@pytest.mark.parametrize("canary", CANARIES)
def test_a_secret_reaches_no_line(canary: str) -> None:
    with both_forms() as (rows, lines):
        say_everywhere(f"my key is {canary} ok")
    assert "c4n4rY" not in rows.text + lines.text


def test_a_secret_known_by_its_name_reaches_no_line() -> None:
    with console() as rows, json_lines() as lines:
        with trace("a", inputs={"password": "hunter-2"}), trace("b", inputs={"headers": {"Authorization": "hunter-2"}}):
            pass
        with trace("c", kind="llm", inputs={"prompt": "hi", "api_key": "hunter-2"}):
            pass
        with contextlib.suppress(RuntimeError), trace("d"):
            raise RuntimeError("cannot open https://me:hunter-2@example.org/")
    assert "hunter-2" not in rows.text + lines.text


SECRETS = {
    "credentials": {"user": "hunter-2"},
    "headers": [{"name": "x-api-key", "value": "hunter-2"}, ["x-api-key", "hunter-2"]],
    "password": ["hunter-2"],
}


@pytest.mark.parametrize("said", [SECRETS, [SECRETS], ["x" * 500, SECRETS], {"q": [SECRETS] * 100}, json.dumps(SECRETS)])
@pytest.mark.parametrize("kind", ["chain", "llm", "chat_model", "tool", "retriever"])
def test_a_secret_inside_what_a_run_is_given_reaches_no_line(kind: Any, said: Any) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": json.dumps(said)}}]}
    with both_forms() as (rows, lines):
        for inputs in (
            said,
            {"prompt": said},
            {"query": said, "k": 1},
            {"messages": [call, {"role": "user", "content": said}]},
        ):
            with trace("a", kind=kind, inputs=inputs) as run:
                run.output = said
    assert "hunter-2" not in rows.text + lines.text
    assert len(rows.all) == len(lines.objects) == 8


@pytest.mark.parametrize("kind", ["llm", "retriever"])
def test_a_secret_known_by_the_name_of_the_only_input_reaches_no_line(kind: Any) -> None:
    with both_forms() as (rows, lines), trace("a", kind=kind, inputs={"api_key": "hunter-2"}):
        pass
    assert "hunter-2" not in rows.text + lines.text


def test_a_structured_prompt_is_shown_by_its_names() -> None:
    with console() as lines:
        for prompts in ([{"content": "hi", "pwd": ["a"]}], {"content": "hi", "pwd": ["a"]}):
            with trace("ask", kind="llm", inputs={"prompts": prompts, "stop": "x"}):
                pass
    assert {lines.rows[0], lines.rows[2]} == {'▶ ask               1 prompt · 28 chars  content="hi" pwd="**********"'}


def test_a_structured_prompt_is_text_of_what_was_masked() -> None:
    with json_lines() as lines, trace("a", kind="llm", inputs={"prompt": [{"pwd": ["a"], "n": 1}, "hi"], "stop": "x"}):
        pass
    said = {name: lines.objects[0][name] for name in ("prompts", "params")}
    assert said == {"prompts": ['{"pwd":"**********","n":1}', "hi"], "params": {"stop": "x"}}


def test_a_redactor_of_the_users_own_is_asked() -> None:
    redactor = Redactor(lambda path, value: "[name]" if value == "Ada" else value)
    with both_forms(redactor=redactor) as (rows, lines), trace("a", inputs={"who": "Ada"}) as run:
        run.output = "Ada"
    assert "Ada" not in rows.text + lines.text
    assert (lines.objects[0]["inputs"], lines.objects[1]["output"]) == ({"who": "[name]"}, "[name]")


# -- where lines go ----------------------------------------------------------------------------------------------------


def test_lines_go_to_the_stdout_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = io.StringIO()
    with log_to_stdout("json"):
        emit(text, text="one")
        with contextlib.redirect_stdout(elsewhere):
            emit(text, text="two")
        emit(text, text="three")
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["one", "three"]
    assert json.loads(elsewhere.getvalue())["text"] == "two"


def test_lines_keep_their_place_among_what_the_app_prints(run_python: Callable[..., Any]) -> None:
    code = """
from tracebus import emit, log_to_stdout, text
log_to_stdout("json")
print("before")
emit(text, text="line")
print("after")
"""
    before, line, after = run_python("-c", code).stdout.splitlines()
    assert (before, json.loads(line)["text"], after) == ("before", "line", "after")


def test_without_a_stdout_nothing_is_written(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with log_to_stdout():
        emit(text, text="hello")
    assert caplog.records == []


def test_calling_again_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = log_to_stdout("console")
    with log_to_stdout("json"):
        emit(text, text="hello")
    assert earlier.closed
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_another_stream_replaces_nothing() -> None:
    with json_lines() as first, json_lines() as second:
        emit(text, text="hello")
    assert len(first.all) == len(second.all) == 1


def test_a_closed_subscription_writes_nothing() -> None:
    lines = Lines()
    subscription = log_to_stdout("json", stream=lines.stream)
    subscription.close()
    emit(text, text="hello")
    assert lines.text == ""


def test_a_plain_object_with_a_write_method_is_enough() -> None:
    class Sink:
        def __init__(self) -> None:
            self.written: list[str] = []

        def write(self, text: str) -> None:
            self.written.append(text)

    sink = Sink()
    with log_to_stdout("console", stream=sink):  # type: ignore[arg-type]
        emit(text, text="hello")
    assert [line[14:] for line in sink.written] == ['· text              "hello"\n']


# -- streams that refuse -----------------------------------------------------------------------------------------------

MANY = """
import sys
from tracebus import log_to_stdout, traced
log_to_stdout()
@traced
def double(number):
    return number * 2
assert [double(number) for number in range(1000)] == [number * 2 for number in range(1000)]
print("done", file=sys.stderr)
"""


def in_shell(command: str, env: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with this Python as $python and MANY as $code."""
    env = env | {"python": sys.executable, "code": MANY} | variables
    shell = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(shell, env=env, capture_output=True, text=True, timeout=50, check=False)


def test_a_broken_pipe_ends_in_silence(clean_env: dict[str, str]) -> None:
    done = in_shell('"$python" -W error -c "$code" | head -1', clean_env)
    assert (done.returncode, done.stderr) == (0, "done\n")
    assert json.loads(done.stdout)["event"] == "chain_start"


def test_a_full_disk_is_warned_about_once(clean_env: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = in_shell('"$python" -W error -c "$code" > /dev/full', clean_env)
    warning, end = done.stderr.splitlines()
    assert (done.returncode, end) == (0, "done")
    assert "a log line could not be written to <_io.TextIOWrapper name='<stdout>'" in warning
    assert "No space left on device" in warning


@pytest.mark.parametrize("how", ["sys.stdout.close()", "import os; os.close(1)", "sys.stdout.detach()"])
def test_a_closed_stdout_is_warned_about_once(how: str, clean_env: dict[str, str]) -> None:
    code = MANY.replace("assert", f"{how}\nassert")
    done = in_shell('"$python" -c "$code"', clean_env, code=code)
    warnings = [line for line in done.stderr.splitlines() if "a log line could not be written" in line]
    assert "done" in done.stderr.splitlines()
    assert len(warnings) == 1
    assert "Traceback" not in done.stderr


def test_a_stdout_that_is_closed_from_the_start_is_none(clean_env: dict[str, str]) -> None:
    done = in_shell('"$python" -W error -c "$code" >&-', clean_env)
    assert (done.returncode, done.stderr) == (0, "done\n")


def test_ascii_as_the_encoding_of_stdout_loses_nothing(run_python: Callable[..., Any]) -> None:
    code = """
from tracebus import log_to_stdout, trace
for form in ("json", "console"):
    with log_to_stdout(form), trace("你好"):
        pass
"""
    lines = run_python("-c", code, env={"PYTHONIOENCODING": "ascii"}).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines[:2]] == ["你好", "你好"]
    assert lines[2][14:].startswith("> \\u4f60\\u597d")


def test_a_stream_that_raises_anything_does_not_reach_the_app(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise ZeroDivisionError

    with log_to_stdout("json", stream=Broken()) as subscription, trace("a"):
        pass
    assert subscription.stats.failed == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_no_line_is_torn_by_a_pipe_that_is_full_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "w", encoding="utf-8") as stream, open(reader, "rb", buffering=0) as pipe:
        with log_to_stdout("json", stream=stream):
            long = "long " * 800
            for number in range(40):  # more than the pipe holds
                emit(text, text=f"{number} {long}")
            written = pipe.read(1 << 20)
            emit(text, text="after")
        stream.flush()
        written += pipe.read(1 << 20)
    texts = [json.loads(line)["text"].partition(" ")[0] for line in written.splitlines()]
    assert texts[-1] == "after"
    assert texts[:-1] == [str(number) for number in range(len(texts) - 1)]
    assert 10 < len(texts) < 40
    assert len(caplog.records) == 1


# -- threads and forks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_of_several_threads_do_not_mix(form: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    words = [f"word{number}" for number in range(8)]

    def work(word: str) -> None:
        for _ in range(200):
            emit(text, text=word * 10)

    with open(path, "w", encoding="utf-8") as stream, log_to_stdout(form, stream=stream):  # type: ignore[arg-type]
        threads = [threading.Thread(target=work, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = path.read_text("utf-8").splitlines()
    said = [re.search(r'"((word\d)\2{9})"', line)[2] for line in lines]
    assert sorted(said) == sorted(words * 200)


def test_a_line_is_one_write() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream = Counting()
    with log_to_stdout("console", stream=stream), trace("a", inputs={"x": "y"}):
        pass
    assert stream.writes == len(stream.getvalue().splitlines()) == 2


def test_a_thread_that_is_stuck_in_writing_holds_up_the_others_for_a_second_at_most() -> None:
    class Stuck(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.released = threading.Event(), threading.Event()

        def write(self, text: str) -> int:
            self.entered.set()
            self.released.wait(30)
            return super().write(text)

    stream = Stuck()
    with log_to_stdout("json", stream=stream):
        thread = threading.Thread(target=emit, args=(text,), kwargs={"text": "stuck"})
        thread.start()
        assert stream.entered.wait(10)
        before = time.monotonic()
        emit(text, text="behind")
        waited = time.monotonic() - before
        stream.released.set()
        thread.join()
    assert waited < 5
    assert [json.loads(line)["text"] for line in stream.getvalue().splitlines()] == ["stuck", "behind"]


def test_a_forked_child_writes_though_a_thread_was_writing(run_python: Callable[..., Any]) -> None:
    code = """
import os, sys, threading, warnings
from tracebus import emit, log_to_stdout, text
class Stuck:
    entered, released = threading.Event(), threading.Event()
    def write(self, line):
        if "stuck" in line:
            self.entered.set()
            self.released.wait(30)
        sys.__stdout__.write(line)
    def flush(self):
        sys.__stdout__.flush()
log_to_stdout("json", stream=Stuck())
threading.Thread(target=emit, args=(text,), kwargs={"text": "stuck"}).start()
Stuck.entered.wait(10)
warnings.simplefilter("ignore")  # about forking with threads
child = os.fork()
emit(text, text="parent" if child else "child") if not child else None
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
Stuck.released.set()
"""
    lines = run_python("-c", code).stdout.splitlines()
    assert sorted(json.loads(line)["text"] for line in lines) == ["child", "stuck"]


def test_an_event_that_a_stream_emits_while_it_writes_gets_a_line_of_its_own() -> None:
    class Talking(io.StringIO):
        def write(self, line: str) -> int:
            if "first" in line:
                emit(text, text="second")
            return super().write(line)

    stream = Talking()
    with log_to_stdout("json", stream=stream):
        emit(text, text="first")
    assert [json.loads(line)["text"] for line in stream.getvalue().splitlines()] == ["first", "second"]


# -- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "xml"}, "unknown format 'xml': choose one of auto, console, json"),
        ({"tokens": "yes"}, "tokens='yes' is neither True"),
        ({"stream": "stdout"}, r"stream='stdout' has no write\(\): give a text stream"),
        ({"capture": "some"}, "unknown capture 'some': choose one of none, inputs, outputs, all"),
        ({"redactor": print}, r"is no Redactor: give tracebus\.redaction\.Redactor\(rule\)"),
    ],
)
def test_a_wrong_argument_is_named_with_the_choices(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        log_to_stdout(**arguments)


def test_a_wrong_environment_is_named_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEBUS_CAPTURE", "some")
    with pytest.raises(ArgumentError, match="unknown TRACEBUS_CAPTURE 'some'"):
        log_to_stdout()


def test_a_wrong_argument_leaves_the_earlier_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stdout("json"):
        with pytest.raises(ArgumentError):
            log_to_stdout("xml")  # type: ignore[arg-type]
        emit(text, text="hello")
    assert len(capsys.readouterr().out.splitlines()) == 1


# -- the app's own log lines -------------------------------------------------------------------------------------------


def test_the_structlog_processor_adds_the_ids_of_the_run() -> None:
    with trace("root") as root, trace("inner") as inner:
        said = add_run_ids(None, "info", {"event": "hello"})
    assert said == {"event": "hello", "run_id": str(inner.id), "trace_id": str(root.id)}


def test_the_structlog_processor_adds_nothing_outside_and_overwrites_nothing() -> None:
    assert add_run_ids(None, "info", {"event": "hello"}) == {"event": "hello"}
    with trace("root") as root:
        said = add_run_ids(None, "info", {"run_id": "mine"})
    assert said == {"run_id": "mine", "trace_id": str(root.id)}


def test_the_structlog_processor_works_where_structlog_is_configured() -> None:
    with structlog.testing.capture_logs() as captured:
        pass
    lines = io.StringIO()
    logger = structlog.wrap_logger(structlog.PrintLogger(lines), processors=[add_run_ids, structlog.processors.JSONRenderer()])
    with trace("root") as root:
        logger.info("hello")
    assert captured == []
    assert json.loads(lines.getvalue()) == {"event": "hello", "run_id": str(root.id), "trace_id": str(root.id)}


@pytest.fixture
def app_log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(RunIdFilter())
    handler.setFormatter(logging.Formatter("%(run_id)s %(trace_id)s %(message)s"))
    logger = logging.getLogger("app.of.the.tests")
    logger.addHandler(handler)
    yield logger, written
    logger.removeHandler(handler)


def test_the_filter_gives_records_the_ids_of_the_run(app_log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = app_log
    with trace("root") as root, trace("inner") as inner:
        logger.warning("inside")
    logger.warning("outside")
    assert written.getvalue().splitlines() == [f"{inner.id} {root.id} inside", "- - outside"]


def test_the_filter_keeps_what_a_record_says_itself(app_log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = app_log
    logger.warning("hello", extra={"run_id": "mine"})
    assert written.getvalue() == "mine - hello\n"


def test_the_filter_says_none_outside_where_that_is_wanted() -> None:
    record = logging.makeLogRecord({})
    assert RunIdFilter(outside=None).filter(record)
    assert (record.run_id, record.trace_id) == (None, None)  # type: ignore[attr-defined]


def test_own_lines_and_log_lines_name_the_same_run(app_log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = app_log

    @traced
    def step() -> None:
        logger.warning("inside")

    with json_lines() as lines:
        step()
    assert written.getvalue().split()[0] == lines.objects[0]["run_id"]


async def test_concurrent_requests_log_their_own_ids(app_log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = app_log
    ids: list[str] = []

    async def request() -> None:
        async with trace("request") as run:
            await anyio.sleep(0)
            logger.warning(f"{run.id}")
            ids.append(str(run.id))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(request)
    assert all(line.split()[0] == line.split()[2] for line in written.getvalue().splitlines())
    assert len(set(ids)) == 5
