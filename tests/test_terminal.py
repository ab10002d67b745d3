"""The commands over a store: what they print in a pipe and on terminals, as JSON, and when something is wrong."""

import itertools
import json
import os
import re
import sqlite3
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
    assert line.split()[2:9] == ["search", "output", "…2", "README.md", "Document", "3", "README.md"]


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


@pytest.fixture
def in_new_york(db, monkeypatch):
    with monkeypatch.context() as there:
        there.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@POSIX
@pytest.mark.usefixtures("in_new_york")
def test_stats_of_days_are_of_the_days_of_utc_wherever_they_are_read(tracebus):
    header, row = tracebus("stats", "--over", "day", "--name", "rate").lines
    assert header.startswith("day, UTC ")
    assert row.startswith("2026-01-01 ")
    assert tracebus("stats", "--over", "hour", "--name", "rate").lines[1].startswith("2025-12-31 19:00 ")


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


# -- replay ------------------------------------------------------------------------------------------------------------


def test_replay_says_a_trace_again_as_log_lines(db, tracebus, ids):
    with isolated():
        done = tracebus("replay", "--json", "--speed", "inf", ids[1])
    said = [(line["event"], line.get("name")) for line in done.values if line["event"] != "llm_new_token"]
    assert said[0] == ("chain_start", "answer")
    assert said[-1] == ("chain_end", "answer")
    assert set(said[1:-1]) == {
        ("retriever_start", "search"),
        ("retriever_end", "search"),
        ("chat_model_start", "generate"),
        ("llm_end", "generate"),
    }
    assert "".join(line["token"] for line in done.values if line["event"] == "llm_new_token") == ANSWER


HEARERS = """
from tracebus import llm_new_token

heard = []

class Handler:
    def on_llm_end(self, response, **fields):
        heard.append("handler")

@llm_new_token.connect
def connected(sender, event):
    heard.append("connected")

def called(sender, event):
    heard.append(type(event).__name__)
"""


@pytest.mark.parametrize(
    ("to", "heard"), [("", {"connected"}), (":Handler", {"connected", "handler"}), (":called", {"connected", "LLMEnd"})]
)
def test_replay_is_heard_by_what_it_is_for(to, heard, db, tracebus, ids, tmp_path, monkeypatch):
    (tmp_path / "hearers.py").write_text(HEARERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("hearers", None)
    with isolated():
        assert tracebus("replay", "--speed", "inf", "--to", f"hearers{to}", ids[1]) == Done(0, "", "")
    assert set(sys.modules.pop("hearers").heard) >= heard


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--to", "no_such_module"), "--to: there is no module 'no_such_module' here, nor among what is installed"),
        (("--to", "json:nothing"), f"--to: there is no 'nothing' in {json.__file__}"),
        (("--speed", "0"), "speed=0.0 must be a number above 0: 1 is as it was, 2 twice as fast, math.inf at once"),
    ],
)
def test_replay_says_what_is_wrong_with_the_call(options, said, db, tracebus):
    with isolated():
        assert tracebus("replay", *options, "@last") == Done(2, "", f"tracebus: {said}\n")


# -- out of a store and into one ---------------------------------------------------------------------------------------


def test_what_was_exported_can_be_imported(db, tracebus, ids, tmp_path):
    file, other = tmp_path / "runs.jsonl", tmp_path / "other.db"
    assert tracebus("export", "-o", file) == Done(0, f"5 runs in {file}\n", "")
    assert tracebus("import", file, "--db", other) == Done(0, f"5 new runs in {other}\n", "")
    assert tracebus("import", file, "--db", other) == Done(0, f"no new runs in {other}, 5 runs were there already\n", "")
    assert [trace["trace_id"] for trace in tracebus("ls", "--json", "--db", other).values] == ids
    assert os.listdir(tmp_path).count("runs.jsonl.part") == 0


def test_export_writes_what_is_wanted_to_standard_output(db, tracebus, ids):
    assert {line["run"]["trace_id"] for line in tracebus("export").values} == set(ids)
    assert [line["run"]["name"] for line in tracebus("export", ids[0]).values] == ["agent", "rate"]
    assert {line["run"]["trace_id"] for line in tracebus("export", "--status", "ok").values} == {ids[1]}
    assert tracebus("export", ids[0], "--status", "ok").code == 2


def test_json_of_what_changes_something_says_how_much(db, tracebus, tmp_path):
    file = tmp_path / "runs.jsonl"
    assert tracebus("export", "--json", "-o", file).values == [{"file": str(file), "runs": 5}]
    assert tracebus("delete", "--json", "@last").values == [{"traces": 1, "runs": 2}]
    assert tracebus("import", "--json", file).values == [{"runs": 5, "new": 2}]
    assert tracebus("prune", "--json", "--keep-days", "1").values == [{"traces": 2, "runs": 5}]


def test_import_says_which_line_is_wrong_and_keeps_what_came_before(db, tracebus, tmp_path):
    file = tmp_path / "runs.jsonl"
    tracebus("export", "-o", file)
    file.write_bytes(file.read_bytes() + b'{"project": "p"}\n')
    done = tracebus("import", file, "--db", tmp_path / "other.db")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"tracebus: {file}: line 6 is no run that `tracebus export` wrote: ")
    assert done.err.endswith("; what came before it is in the store\n")
    assert done.err.count("\n") == 1


def test_import_names_the_file_that_cannot_be_read(db, tracebus, tmp_path):
    done = tracebus("import", tmp_path, "--db", tmp_path / "other.db")
    assert (done.code, done.err) == (1, f"tracebus: {tmp_path} cannot be read: Is a directory\n")


def test_import_reads_standard_input(db, run_python, tmp_path):
    lines = run_python("-m", "tracebus", "export", env={"TRACEBUS_DB": str(db)}).stdout
    command = [sys.executable, "-m", "tracebus", "import", "-", "--db", str(tmp_path / "other.db")]
    done = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == f"5 new runs in {tmp_path / 'other.db'}\n"


def test_delete_takes_traces_sessions_or_users(db, tracebus, ids):
    assert tracebus("delete", ids[0], "@last") == Done(0, "1 trace with 2 runs deleted\n", "")
    assert tracebus("delete", "--session", "s-1") == Done(0, "1 trace with 3 runs deleted\n", "")
    assert tracebus("ls") == Done(0, f"no traces in {db}\n", "")
    assert tracebus("delete", "--user", "u-1") == Done(1, "", f"tracebus: no trace of the user 'u-1' is in {db}\n")


def test_delete_deletes_nothing_when_one_of_the_traces_is_not_there(db, tracebus, ids):
    assert tracebus("delete", ids[0], "abcdef").code == 1
    assert len(tracebus("ls", "--json").lines) == 2


def test_prune_keeps_what_it_is_told_to(db, tracebus):
    assert tracebus("prune", "--keep-size", "1GB") == Done(0, "no traces with no runs removed\n", "")
    assert tracebus("prune", "--keep-days", "3") == Done(0, "2 traces with 5 runs removed\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune",),
        ("prune", "--keep-size", "much"),
        ("prune", "--keep-days", "-1"),
        ("delete",),
        ("delete", "@last", "--user", "u-1"),
        ("ls", "--since", "someday"),
        ("ls", "--min-duration", "long"),
        ("ls", "--limit", "0"),
        ("ls", "--after", "page 2"),
        ("show",),
        ("search",),
        ("search", "--", "-"),
        ("stats", "--by", "weekday"),
        ("import", "no-such-file.jsonl"),
        ("tail", "--last", "some"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_what_is_right(arguments, db, tracebus):
    done = tracebus(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert len(done.err.strip()) > 20


# -- stores that are none ----------------------------------------------------------------------------------------------

READERS = [["ls"], ["show", "@last"], ["search", "word"], ["stats"], ["replay", "@last"], ["export"], ["delete", "@last"]]
WRITERS = [["prune", "--keep-days", "1"], ["import", "runs.jsonl"]]


def no_store(path: Path) -> str:
    return "there is no store at "


def text_file(path: Path) -> str:
    path.write_text("Dear diary,\n" * 1000)
    return "is no store of tracebus, or is damaged: file is not a database"


def other_database(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name)")
    return "is an SQLite database, but no store of tracebus: give another path, or set TRACEBUS_DB"


def newer_store(path: Path) -> str:
    with isolated(), save(path), trace("newer"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    return "was written by a newer tracebus (schema 999, this one knows"


def directory(path: Path) -> str:
    path.mkdir()
    return "cannot be opened"


def below_a_file(path: Path) -> str:
    path.parent.rmdir()
    path.parent.write_text("")
    return str(path)


NONE = [text_file, other_database, newer_store, directory, below_a_file]


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        *itertools.product([no_store], [*READERS, ["prune", "--keep-days", "1"]]),  # import makes one
        *itertools.product(NONE, [*READERS, *WRITERS]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value.__name__,
)
def test_what_is_no_store_is_said_in_one_line_and_left_as_it_is(make, arguments, tmp_path, tracebus, monkeypatch):
    path = tmp_path / "data" / "traces.db"
    path.parent.mkdir()
    said = make(path)
    before = path.read_bytes() if path.is_file() else None
    monkeypatch.chdir(tmp_path)
    with isolated(), save("other.db"), trace("exported"):
        pass
    assert tracebus("export", "-o", "runs.jsonl", "--db", "other.db").code == 0
    with isolated():
        done = tracebus(*arguments, "--db", path)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(path) in done.err
    assert said in done.err
    assert (path.read_bytes() if path.is_file() else None) == before


@POSIX
def test_no_permission_is_said_in_one_line(tmp_path, db, clean_env):
    home = tmp_path / "private"
    home.mkdir(mode=0o700)
    path = home / "traces.db"
    os.replace(db, path)
    home.chmod(0)
    code = (
        "import os, sys\n"
        "from tracebus.cli import main\n"
        "try: main(['ls', '--db', sys.argv[1]])  # loads what cannot be read any more then\n"
        "except SystemExit: pass\n"
        "sys.stderr.write('--\\n')\n"
        "os.geteuid() or os.setuid(65534)\n"
        "sys.exit(main(['ls', '--db', sys.argv[1]]))"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=clean_env, cwd="/", capture_output=True, encoding="utf-8", check=False
    )
    home.chmod(0o700)
    assert done.returncode == 1
    error = done.stderr.partition("--\n")[2]
    assert error == f"tracebus: the store {path} cannot be opened: Permission denied: ask its owner, or set TRACEBUS_DB\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["show", "@last"], ["export"], ["export", "-o", "/dev/full"]])
def test_a_full_disk_is_said_in_one_line(arguments, db):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "tracebus", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"tracebus: (standard output|/dev/full) cannot be written: No space left on device.*\n", done.stderr)


@POSIX
def test_a_full_disk_leaves_the_store_and_the_older_export_as_they_were(db, tmp_path):
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from tracebus.cli import main; sys.exit(main(['export', '-o', sys.argv[1]]))"
    )
    file = tmp_path / "runs.jsonl"
    file.write_text("older\n")
    with isolated(), save(db, keep_days=None):
        for number in range(30):
            with trace("long", inputs={"text": f"{number} " * 5000}):
                pass
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tracebus: {file} cannot be written: File too large: nothing is lost in the store, try again\n"
    assert file.read_text() == "older\n"
    assert not file.with_name("runs.jsonl.part").exists()


@POSIX
def test_who_reads_no_further_ends_it_quietly(db):
    command = f"{sys.executable} -m tracebus export | {sys.executable} -c pass"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""


# -- the shell's completion --------------------------------------------------------------------------------------------


def offered(words: str, db: Path) -> list[str]:
    env = os.environ | {"_TRACEBUS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "tracebus"]
    done = subprocess.run(command, env=env | {"TRACEBUS_DB": str(db)}, capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_is_offered_traces_and_what_the_store_has(db, ids):
    assert offered("tracebus show ", db) == ["@last", *ids]
    assert offered(f"tracebus delete {ids[0][:11]}", db) == [ids[0]]
    assert offered("tracebus ls --model ", db) == ["gpt-4o-mini"]
    assert offered("tracebus search --kind t", db) == ["tool"]
    assert offered("tracebus stats --by ", db) == ["model", "name", "kind", "project"]
    assert offered("tracebus sh", db) == ["show"]


def test_the_shell_is_offered_nothing_without_a_store(tmp_path):
    assert offered("tracebus show ", tmp_path / "none.db") == []
    assert offered("tracebus ls --model ", tmp_path / "none.db") == []


# -- tracebus run --save -----------------------------------------------------------------------------------------------

APP = "from tracebus import trace\nwith trace('kept'): pass\n"


@pytest.mark.parametrize(
    ("options", "env", "file"),
    [
        (["--save"], {}, "default.db"),
        (["--save=other.db"], {}, "other.db"),
        ([], {"TRACEBUS_SAVE": "1"}, "default.db"),
        ([], {"TRACEBUS_SAVE": "other.db"}, "other.db"),
        ([], {"TRACEBUS_SAVE": "0"}, None),
        ([], {}, None),
    ],
)
def test_run_keeps_runs_where_it_is_told_to(options, env, file, run_python, tmp_path):
    env = env | {"TRACEBUS_DB": str(tmp_path / "default.db")}
    run_python("-m", "tracebus", "run", "--log", "off", *options, "-c", APP, env=env)
    kept = []
    for name in ("default.db", "other.db"):
        if (tmp_path / name).exists():
            with Reader(tmp_path / name) as reader:
                kept += [(name, trace.name) for trace in reader.traces()]
    assert kept == ([(file, "kept")] if file else [])


def test_a_program_runs_on_where_nothing_can_be_kept(run_python, tmp_path):
    (tmp_path / "file").touch()
    done = run_python("-m", "tracebus", "run", "--log", "off", "--save=file/traces.db", "-c", f"{APP}print('done')")
    assert done.stdout == "done\n"
    assert done.stderr.count("\n") <= 2
    assert "the app goes on" in done.stderr
