"""The commands over a store: what they print in a pipe and on terminals, as JSON, and when something is wrong."""

import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tracebus import Usage, current_run, emit, retry, scope, trace, traced
from tracebus.cli import main
from tracebus.outputs.store import Reader, save
from tracebus.signals import isolated
from tracebus.testing import deterministic

pytestmark = pytest.mark.once

POSIX = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are of POSIX")
ANSWER = "Connect a function to `llm_new_token`."
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def values(self) -> list:
        """What `--json` wrote, a value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def ask(clock) -> None:
    @traced(kind="chat_model")
    def generate(messages):
        run = current_run()
        run.model = "gpt-4o-mini"
        clock.advance(0.24)
        for piece in ANSWER.split(" "):
            yield piece if piece == "Connect" else f" {piece}"
            clock.advance(0.2)
        run.usage = Usage(1012, 86)

    @traced
    def answer(question):
        with trace("search", kind="retriever", inputs={"query": question}) as run:
            clock.advance(0.012)
            run.output = [{"content": f"Document {number}", "source": "README.md"} for number in range(4)]
        messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
        return "".join(generate(messages))

    with scope(session_id="s-1", user_id="u-1", tags=["docs"]):
        answer("How do I subscribe to tokens?")


def book(clock) -> None:
    @traced(kind="tool")
    def rate(code):
        clock.advance(0.003)
        raise ValueError(f"no such currency {code}")

    @traced(kind="agent")
    def agent(task):
        emit(retry, attempt=1, wait_s=0.5, error=RuntimeError("busy"))
        clock.advance(1)
        try:
            rate("XX")
        except ValueError as error:
            raise RuntimeError("cannot book") from error

    with pytest.raises(RuntimeError, match="cannot book"):
        agent("Book a table \x1b[31mfor\x07 two\u202e")


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that TRACEBUS_DB names, with an answer and, a minute later, an agent that failed."""
    path = tmp_path / "traces.db"
    monkeypatch.setenv("TRACEBUS_DB", str(path))
    monkeypatch.setenv("TZ", "UTC")
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    if hasattr(time, "tzset"):
        time.tzset()
    with isolated(), deterministic() as clock, save(path, keep_days=None):
        ask(clock)
        clock.advance(60)
        book(clock)
    return path


@pytest.fixture
def tracebus(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """`tracebus("ls", …)`: the command in this process, with a pipe for its output."""

    def call(*arguments: str | Path) -> Done:
        capfdbinary.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = exit.code
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return call


@pytest.fixture
def ids(db: Path) -> list[str]:
    """The ids of the traces, the latest first."""
    with Reader(db) as reader:
        return [one.trace_id for one in reader.traces()]


def on_terminal(columns: int, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What `tracebus` draws on a terminal of so many columns."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | (env or {})
    command = [sys.executable, "-W", "error", "-m", "tracebus", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    with closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
        while True:
            try:
                piece = terminal.read(65536)
            except OSError:  # the other side is closed: Linux says EIO
                break
            if not piece:
                break
            drawn += piece
    process.wait(30)
    return drawn.decode().replace("\r\n", "\n")


# -- in a pipe ---------------------------------------------------------------------------------------------------------


def test_ls_lists_the_latest_first(db, tracebus, ids):
    wild = r"Book a table \x1b[31mfor\x07 two\u202e"
    assert tracebus("ls").lines == [
        f"{'trace':48}{'name':22}{'input':60}  duration  first token      tokens       cost                 when",
        f"{ids[0]}  {'error':14}{'agent':22}{wild:60}    1.00 s{'2026-01-01 00:01:01':>57}",
        f"{ids[1]}  {'ok':14}{'answer':22}{'How do I subscribe to tokens?':60}    1.25 s       252 ms       1 098"
        "    $0.0002  2026-01-01 00:00:00",
    ]


def test_show_draws_the_tree_with_the_waterfall(db, tracebus, ids):
    assert tracebus("show", ids[1]).lines == [
        f"answer  {ids[1]}  ok  1.25 s  1 098 tokens  $0.0002  2026-01-01 00:00:00  session s-1  #docs",
        "├─ search    retriever    12 ms  ▏                               4 documents",
        "╰─ generate  chat_model  1.24 s  ──────━━━━━━━━━━━━━━━━━━━━━━━━  gpt-4o-mini  1 012 → 86  $0.0002  "
        "first token 240 ms",
        "   ├ user       How do I subscribe to tokens?",
        f"   ╰ assistant  {ANSWER}",
    ]


def test_show_says_how_it_failed(db, tracebus, ids):
    assert tracebus("show", ids[0]).lines == [
        f"agent  {ids[0]}  error  1.00 s  2026-01-01 00:01:01",
        "├ error      RuntimeError: cannot book ValueError: no such currency XX",
        "╰─ rate  tool    3 ms                               ▏  ✗ ValueError: no such currency XX",
    ]


def test_show_full_has_what_went_in_and_came_out(db, tracebus, ids):
    _, *parts = tracebus("show", ids[1], "--full").out.split("\n\n")
    assert [part.splitlines()[1:] for part in parts] == [
        ["  question   How do I subscribe to tokens?", f"  output     {ANSWER}"],
        [
            "  query      How do I subscribe to tokens?",
            *(line for number in range(4) for line in (f"  document   Document {number}", "             source README.md")),
        ],
        ["  system     Be short.", "  user       How do I subscribe to tokens?", f"  assistant  {ANSWER}"],
    ]


def test_show_full_has_the_stack_and_what_was_said_meanwhile(db, tracebus):
    _, agent, rate = tracebus("show", "@last", "--full").out.split("\n\n")
    assert re.sub(r":\d+  ", ":LINE  ", agent).splitlines()[1:] == [
        r"  task       Book a table \x1b[31mfor\x07 two\u202e",
        '  retry      {"attempt": 1, "wait_s": 0.5, "error": {"type": "RuntimeError", "message": "busy"}}  (after <1 ms)',
        "  error      RuntimeError: cannot book",
        f"             at {__file__}:LINE  book.<locals>.agent",
        "  because    ValueError: no such currency XX",
    ]
    assert rate.splitlines()[0].startswith("rate  tool  error  3 ms  ")


def test_show_shows_one_run(db, tracebus, ids):
    *_, rate = tracebus("show", ids[0], "--full").out.split("\n\n")
    span = rate.splitlines()[0].split()[-1]
    assert tracebus("show", ids[0], span).out == rate


def test_show_ends_where_it_is_told_to_and_says_so(db, tracebus, ids):
    assert tracebus("show", ids[1], "--limit", "2").lines[-1] == "1 more runs: --limit 3"


def test_search_finds_words_and_shows_where(db, tracebus, ids):
    rows = [line.split() for line in tracebus("search", "subscribe", "tok*").lines[1:]]
    assert [(row[0], row[2], row[3]) for row in rows] == [(ids[1], name, "input") for name in ("generate", "search", "answer")]
    (line,) = tracebus("search", "document 3").lines[1:]
    assert line.split()[2:6] == ["search", "output", "Document", "3"]


def test_search_that_finds_nothing_says_so(db, tracebus):
    assert tracebus("search", "elephant") == Done(0, f"nothing with elephant is in {db}\n", "")


def test_stats_has_a_row_for_each_model(db, tracebus):
    header, other, model = tracebus("stats").lines
    assert header.split() == ["model", "runs", "errors", "p50", "p95", "p99", "first", "token", "in", "out", "cost"]
    assert re.split(r"  +", other)[:3] == ["no model", "4", "2"]
    figures = f"{'1':>11}{'1.23 s':>20}    1.23 s    1.23 s       239 ms          1 012             86     $0.0002"
    assert model == f"{'gpt-4o-mini':28}{figures}"
    assert header.index("cost") + len("cost") == len(model)


def test_stats_of_names_over_time(db, tracebus):
    rows = [line.split()[:4] for line in tracebus("stats", "--by", "kind", "--over", "hour", "--name", "rate").lines[1:]]
    assert rows == [["2026-01-01", "00:00", "tool", "1"]]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--status", "error"), ["agent"]),
        (("--status", "ok"), ["answer"]),
        (("--model", "gpt-4o-mini"), ["answer"]),
        (("--kind", "tool"), ["agent"]),
        (("--name", "search"), ["answer"]),
        (("--tag", "docs"), ["answer"]),
        (("--session", "s-1"), ["answer"]),
        (("--user", "u-2"), []),
        (("--project", "default"), ["agent", "answer"]),
        (("--min-duration", "1100ms"), ["answer"]),
        (("--max-duration", "1.1s"), ["agent"]),
        (("--min-tokens", "1000"), ["answer"]),
        (("--max-cost", "0.01"), ["answer"]),
        (("--since", "2026-01-01T00:00:30"), ["agent"]),
        (("--until", "2026-01-01 00:00:30"), ["answer"]),
        (("--since", "1h"), []),
        (("--limit", "1"), ["agent"]),
    ],
)
def test_ls_lists_what_is_wanted(options, names, db, tracebus):
    assert [trace["name"] for trace in tracebus("ls", "--json", *options).values] == names


def test_ls_goes_on_where_it_ended(db, tracebus):
    with Reader(db) as reader:
        after = reader.traces(limit=1).after
    assert [trace["name"] for trace in tracebus("ls", "--json", "--after", after).values] == ["answer"]


# -- as JSON -----------------------------------------------------------------------------------------------------------


def test_json_of_the_lists_is_a_value_a_line(db, tracebus, ids):
    assert [trace["trace_id"] for trace in tracebus("ls", "--json").values] == ids
    assert [run["name"] for run in tracebus("search", "--json", "currency").values] == ["rate", "agent"]
    assert [row["model"] for row in tracebus("stats", "--json").values] == [None, "gpt-4o-mini"]
    assert [row["statistic"]["runs"] for row in tracebus("stats", "--json", "--over", "day").values] == [4, 1]


def test_json_of_show_is_the_tree_and_with_full_the_bodies(db, tracebus, ids):
    (shown,) = tracebus("show", "--json", ids[1]).values
    assert shown["trace"]["trace_id"] == ids[1]
    assert [(row["depth"], row["run"]["name"]) for row in shown["runs"]] == [(0, "answer"), (1, "search"), (1, "generate")]
    (full,) = tracebus("show", "--json", "--full", ids[1]).values
    assert full["runs"][2]["body"]["streamed"] == ANSWER
    (run,) = tracebus("show", "--json", ids[1], shown["runs"][1]["run"]["span_id"]).values
    assert run["body"]["inputs"] == {"query": "How do I subscribe to tokens?"}


def test_json_has_no_character_that_turns_a_terminal(db, tracebus):
    with isolated(), save(db, keep_days=None), trace("wild", inputs={"text": "\x9b31m \u202e \x7f é"}):
        pass
    out = tracebus("ls", "--json", "--name", "wild").out
    assert out.isascii() is False
    assert out.strip().isprintable()
    assert json.loads(out)["input"] == "\x9b31m \u202e \x7f é"


# -- on terminals ------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("columns", [120, 80, 40])
@pytest.mark.parametrize("command", ["ls", "show", "search", "stats"])
def test_no_line_is_wider_than_the_terminal(command, columns, db, ids):
    more = {"show": [ids[1], "--full"], "search": ["subscribe"]}.get(command, [])
    lines = ANSI.sub("", on_terminal(columns, command, *more)).splitlines()
    assert len(lines) > 2
    assert [line for line in lines if len(line) > columns] == []


@POSIX
def test_a_terminal_shows_signs_and_the_shortest_ids_that_will_do(db, ids):
    drawn = ANSI.sub("", on_terminal(80, "ls"))
    rows = [line.split() for line in drawn.splitlines()[1:]]
    assert [row[:3] for row in rows] == [[ids[0][:12], "✗", "agent"], [ids[1][:12], "■", "answer"]]


@POSIX
def test_failures_are_red_and_models_have_the_accent_unless_there_is_no_color(db, ids):
    drawn = on_terminal(120, "show", ids[0]) + on_terminal(120, "show", ids[1])
    assert "\x1b[31m✗ ValueError: no such currency XX" in drawn
    assert re.search(r"\x1b\[36mgenerate", drawn)
    assert "\x1b" not in on_terminal(120, "show", ids[1], env={"NO_COLOR": "1"})


@POSIX
def test_a_terminal_without_the_glyphs_gets_others(db, ids):
    drawn = on_terminal(100, "show", ids[1], env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    assert drawn.isascii()
    assert "`- generate  chat_model" in drawn


@POSIX
def test_nothing_from_outside_turns_the_terminal(db, ids):
    for arguments in (("ls",), ("show", ids[0], "--full"), ("search", "book"), ("ls", "--json")):
        drawn = ANSI.sub("", on_terminal(120, *arguments, env={"NO_COLOR": "1"}))
        assert [line for line in drawn.splitlines() if not line.isprintable()] == []


# -- which trace -------------------------------------------------------------------------------------------------------


def test_a_trace_goes_by_its_beginning_its_end_or_last(db, tracebus, ids):
    for given in ("@last", ids[0], ids[0][:9], ids[0].upper(), f"#{ids[0][-4:]}", f"{ids[0][:8]}-{ids[0][8:]}"):
        assert tracebus("show", "--json", given).values[0]["trace"]["trace_id"] == ids[0]


def test_a_beginning_of_several_is_a_wrong_call_and_names_them(db, tracebus, ids):
    done = tracebus("show", "019b")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"tracebus: several traces begin with '019b', such as {ids[1]}, {ids[0]}: give more of the id\n"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("abcdef", 1, "tracebus: no trace 'abcdef' is in {db}: `tracebus ls` lists those that are\n"),
        ("what", 2, "tracebus: 'what' is no id of a trace: give its first digits as `tracebus ls` shows them, or @last\n"),
        ("", 2, "tracebus: '' is no id of a trace: give its first digits as `tracebus ls` shows them, or @last\n"),
    ],
)
@pytest.mark.parametrize("command", ["show", "replay", "export", "delete"])
def test_a_trace_that_is_not_there_is_said_in_one_line(command, given, code, said, db, tracebus):
    assert tracebus(command, given) == Done(code, "", said.format(db=db))
