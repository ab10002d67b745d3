"""`tracebus tail`: what other processes do, while they do it; looked at in a real terminal."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracebus import flush, trace
from tracebus.outputs.store import save
from tracebus.signals import isolated

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.name == "nt", reason="terminals and signals of POSIX"),
    pytest.mark.usefixtures("nobody_else_listens"),
]

PATIENCE_S = 30
# Streams a word whenever a line comes in, so that what is shown can be looked at between two words.
STREAMER = """
import sys
from tracebus import Usage, current_run, trace, traced
from tracebus.outputs.store import save

@traced(kind="chat_model")
def generate(messages):
    for line in sys.stdin:
        if line == "end\\n":
            break
        yield line.strip() + " "
    current_run().model, current_run().usage = "gpt-4o-mini", Usage(1012, 86)

@traced
def answer(question):
    with trace("search", kind="retriever", inputs={"query": question}) as run:
        run.output = [{"content": "a"}]
    return "".join(generate([{"role": "user", "content": question}]))

with save(sys.argv[1]):
    answer("How do I subscribe?")
"""


def until(told: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not told():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@pytest.fixture
def streamer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which streams each line that is written to it."""
    command = [sys.executable, "-c", STREAMER, str(tmp_path / "traces.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, encoding="utf-8", bufsize=1) as process:
        yield process
        process.kill()


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`tail(…)`: the command with a pipe for its output."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", "tracebus", "tail", "--db", str(tmp_path / "traces.db"), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, encoding="utf-8", **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


class Terminal:
    """A terminal of tmux in which a command runs."""

    def __init__(self, socket: Path, columns: int, lines: int, command: list[str]) -> None:
        self._tmux = ["tmux", "-S", str(socket)]
        size = ["-x", str(columns), "-y", str(lines)]
        shell = f"trap : INT; unset COLUMNS; {shlex.join(command)}; echo exit $?; sleep 60"
        subprocess.run([*self._tmux, "-f", os.devnull, "new-session", "-d", *size, "sh", "-c", shell], check=True)

    def screen(self) -> list[str]:
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, encoding="utf-8", check=True)
        return [line.rstrip() for line in done.stdout.rstrip().split("\n")]

    def shows(self, pattern: str) -> None:
        until(lambda: re.search(pattern, "\n".join(self.screen()), re.MULTILINE), f"{pattern} in {self.screen()}")

    def press(self, key: str) -> None:
        subprocess.run([*self._tmux, "send-keys", key], check=True)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("columns", [100, 40])
def test_the_tree_of_another_process_grows_as_tokens_arrive(columns, streamer, tmp_path):
    command = [sys.executable, "-m", "tracebus", "tail", "--db", str(tmp_path / "traces.db")]
    terminal = Terminal(tmp_path / "tmux", columns, 20, command)
    try:
        streamer.stdin.write("Connect\n")
        terminal.shows(r"^answer  .*  in flight")
        terminal.shows(r"^├─ search .* 1 document$")
        terminal.shows(r"^   ╰ assistant  Connect$")
        streamer.stdin.write("a\nfunction\n")
        terminal.shows(r"^   ╰ assistant  Connect a function$")
        assert all(len(line) <= columns for line in terminal.screen())
        streamer.stdin.write("end\n")
        terminal.shows(r"^answer  .*  ok  ")
        terminal.shows(r"^╰─ generate .*gpt-4o-mini")
        assert sum(line.startswith("answer") for line in terminal.screen()) == 1
        terminal.press("C-c")
        terminal.shows(r"^exit 130$")
        assert "Traceback" not in "\n".join(terminal.screen())
    finally:
        terminal.close()


def test_a_pipe_gets_each_trace_once_it_has_ended(streamer, tail):
    follower = tail("--last", "1")
    streamer.stdin.write("Hello\nend\n")
    lines = [follower.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("answer  ")
    assert "  ok  " in lines[0]
    assert "\x1b" not in "".join(lines)
    assert lines[4] == "   ╰ assistant  Hello\n"


def test_json_has_a_line_for_each_change_with_what_was_written_so_far(streamer, tail):
    follower = tail("--json")
    streamer.stdin.write("Connect\n")
    texts: list[str] = []

    def next_text() -> str:
        while True:
            value = json.loads(follower.stdout.readline())
            if value.get("text") and value["text"] not in texts:
                return value["text"]

    texts.append(next_text())
    streamer.stdin.write("it\n")
    texts.append(next_text())
    streamer.stdin.write("end\n")
    assert texts == ["Connect ", "Connect it "]
    for line in follower.stdout:
        value = json.loads(line)
        if value.get("trace", {}).get("status") == "ok":
            break
    assert value["trace"]["output"] == "Connect it"


def test_ctrl_c_ends_it_quietly(tmp_path, tail):
    with isolated(), save(tmp_path / "traces.db"), trace("earlier"):
        pass
    follower = tail("--last", "1")
    assert follower.stdout.readline().startswith("earlier  ")
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=PATIENCE_S) == ("", "") or follower.returncode == 130
    assert follower.returncode == 130


def test_it_waits_for_a_store_that_is_not_there_yet(tmp_path, tail):
    follower = tail()
    assert follower.stderr.readline().startswith(f"waiting for {tmp_path / 'traces.db'}")
    with isolated(), save(tmp_path / "traces.db"):
        with trace("first"):
            pass
        with trace("second"):
            pass
        assert flush()
        assert follower.stdout.readline().startswith(("first  ", "second  "))


def test_it_shows_only_what_is_wanted(tmp_path, tail):
    with isolated(), save(tmp_path / "traces.db"), trace("before"):
        pass
    follower = tail("--name", "wanted", "--last", "5")
    with isolated(), save(tmp_path / "traces.db"):
        until_started = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_started and follower.poll() is None:
            with trace("other"):
                pass
            with trace("wanted"):
                pass
            assert flush()
            if os.get_blocking(follower.stdout.fileno()) and _has_line(follower):
                break
    assert follower.stdout.readline().startswith("wanted  ")


def _has_line(process: subprocess.Popen[str]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.3)[0])
