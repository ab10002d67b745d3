"""`tracebus run` runs a program as `python` does, byte for byte, and traces it and the processes that it starts."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracebus.bootstrap.tracebus_bootstrap import LIBRARIES
from tracebus.cli.bootstrap_path import BOOTSTRAP
from tracebus.cli.run import OPTIONS, _as_child, environment, main, split

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]

PYTHON = (sys.executable,)
LOGGED = (sys.executable, "-m", "tracebus", "run")
TRACED = (*LOGGED, "--log", "off")


@pytest.fixture
def run(clean_env: dict[str, str], tmp_path: Path) -> Run:
    """`run(*command, stdin=b"", env={})` in an empty directory; captures bytes."""

    def run(*command: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Done:
        return subprocess.run(
            [*map(str, command)], input=stdin, env=clean_env | (env or {}), cwd=tmp_path, capture_output=True, timeout=50
        )

    return run


def lines_of(output: bytes) -> list[dict[str, Any]]:
    """The lines that tracebus wrote."""
    return [json.loads(line) for line in output.splitlines() if line.startswith(b'{"event":')]


def without_lines(output: bytes) -> bytes:
    return b"".join(line for line in output.splitlines(keepends=True) if not line.startswith(b'{"event":'))


# -- the program notices nothing ---------------------------------------------------------------------------------------

WHO_AM_I = """
import json, os, runpy, signal, sys, threading, warnings
main = sys.modules["__main__"]
spec = main.__spec__ and (main.__spec__.name, main.__spec__.origin, type(main.__spec__.loader).__name__)
print(__name__, main.__dict__ is globals(), __package__, globals().get("__file__"), globals().get("__cached__"), spec)
print(type(__loader__).__name__, sorted(globals()))
print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.warnoptions, sys.executable, sys.prefix)
print(os.getcwd(), sorted(set(os.environ) - {"PYTHONPATH"} - {v for v in os.environ if v.startswith("TRACEBUS_")}))
print([signal.getsignal(number) for number in sorted(signal.valid_signals())])
print(warnings.filters, [t.name for t in threading.enumerate()], sys.excepthook, sys.stdin.isatty(), sys.getswitchinterval())
print(sorted(sys.modules.keys() - {"tracebus_bootstrap", "__future__"}), repr(sys.stdin.read()))
"""

FAILS = """
def fail():
    raise ValueError("no such currency")
def main():
    try:
        fail()
    except ValueError as error:
        raise RuntimeError("cannot go on") from error
main()
"""

PROGRAMS = {
    "identity": WHO_AM_I,
    "traceback": FAILS,
    "exit code": "import sys; sys.exit(7)",
    "exit message": "import sys; sys.exit('stopped')",
    "exit from a thread": "import threading, sys; threading.Thread(target=sys.exit, args=(3,)).start()",
    "hard exit": "import os; print('gone', flush=True); os._exit(9)",
    "syntax error": "print('never')\nx = (1,\n",
    "exception group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "failing thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()",
    "interrupt": "import signal; signal.raise_signal(signal.SIGINT)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "own handler": (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('bye'))\nsignal.raise_signal(signal.SIGTERM)"
    ),
    "broken pipe": "import os, sys\nos.close(1)\nprint('to nobody')",
    "atexit": "import atexit; atexit.register(print, 'last'); print('first')",
    "warnings": (
        "import warnings\nwarnings.warn('old', DeprecationWarning)\nwarnings.simplefilter('error')\nwarnings.warn('now fatal')"
    ),
    "random": "import random; random.seed(7); print([random.random() for _ in range(9)], random.getstate()[1][:5])",
    "frames": (
        "import struct, sys\nfor body in (b'{}', b'\\xff' * 300):\n"
        " sys.stdout.buffer.write(struct.pack('!I', len(body)) + body); sys.stdout.flush()"
    ),
    "structlog": (
        "import structlog, sys\n"
        "structlog.configure(processors=[structlog.processors.KeyValueRenderer(sort_keys=True)],\n"
        "    logger_factory=structlog.PrintLoggerFactory(sys.stderr))\n"
        "structlog.get_logger().info('hello', b=1, a=2)\nprint(structlog.get_config()['processors'][0].__class__)"
    ),
    "logging": "import logging; logging.warning('w'); logging.getLogger('a').error('e'); print(logging.root.handlers)",
    "import error": "import nowhere.at.all",
    "failing import": "import helper",
    "warning importer": "import warner",
}
LIBRARY = {
    "helper.py": "import broken\n",
    "broken/__init__.py": "from . import inner\n",
    "broken/inner.py": "raise KeyError('a library that cannot be imported')\n",
    "warner.py": "import old\n",
    "old.py": "from warnings import *\nsimplefilter('always')\nwarn('use another', DeprecationWarning, stacklevel=2)\n",
    "quiet.py": "def install(): pass\n",
    "quiet-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: quiet\nVersion: 1.0\n",
    "quiet-1.0.dist-info/entry_points.txt": "[tracebus.integrations]\nold = quiet\nbroken = quiet\n",
}


@pytest.fixture
def library(tmp_path: Path) -> None:
    """Libraries that are watched for, and go wrong."""
    for name, source in LIBRARY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)


def same(traced: Done, plain: Done) -> bool:
    assert traced.stdout == plain.stdout
    assert without_lines(traced.stderr).decode() == plain.stderr.decode()
    return traced.returncode == plain.returncode


def ways_to_run(source: str, directory: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The arguments for `python` that run `source`, and what is on stdin."""
    (directory / "program.py").write_text(source)
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").touch()
    (directory / "package" / "__main__.py").write_text(source)
    with zipfile.ZipFile(directory / "app.zip", "w") as archive:
        archive.writestr("__main__.py", source)
    yield ("program.py", "a", "--log", "json", "-m", "--"), b"on stdin"
    yield (str(directory / "program.py"),), b""
    yield ("-m", "program", "-x"), b""
    yield ("-mpackage", "a b"), b""
    yield ("package", "c"), b""
    yield ("app.zip", "d"), b""
    yield ("-c", source, "--tokens"), b"x"
    yield ("-", "e"), source.encode()
    yield ("-u", "-X", "dev", "-W", "ignore", "program.py"), b""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_the_same_with_and_without(name: str, run: Run, tmp_path: Path, library: None) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS[name])
    assert same(run(*TRACED, "program.py"), run(*PYTHON, "program.py"))


@pytest.mark.parametrize("name", ["identity", "traceback"])
@pytest.mark.parametrize("way", range(9))
def test_every_way_to_name_a_program_is_python_s(name: str, way: int, run: Run, tmp_path: Path) -> None:
    arguments, stdin = list(ways_to_run(PROGRAMS[name], tmp_path))[way]
    assert same(run(*TRACED, *arguments, stdin=stdin), run(*PYTHON, *arguments, stdin=stdin))


# What changes in a process once there is something to trace in it.
ASKS = """
from tracebus import traced
@traced
def ask(question):
    return question
ask("how?")
"""


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "identity"])
def test_a_program_with_runs_does_the_same_and_its_lines_are_on_stderr(
    name: str, run: Run, tmp_path: Path, library: None
) -> None:
    (tmp_path / "asks.py").write_text(ASKS)
    (tmp_path / "program.py").write_text(f"import asks\n{PROGRAMS[name]}")
    traced = run(*LOGGED, "program.py")
    assert same(traced, run(*PYTHON, "program.py"))
    assert len(lines_of(traced.stderr)) == 2 * (name != "syntax error")


IN_A_RUN = """
import threading
from tracebus import traced
@traced
def ask(question):
    threads = [threading.Thread(target=int, args=(question,)), threading.Timer(0, lambda: 1 / 0)]
    for thread in threads:
        thread.start()
        thread.join()
ask("how?")
"""


def test_threads_that_are_started_in_a_run_fail_as_ever(run: Run) -> None:
    traced = run(*LOGGED, "-c", IN_A_RUN)
    assert same(traced, run(*PYTHON, "-c", IN_A_RUN))
    assert without_lines(traced.stderr).count(b"Traceback") == 2


def test_lines_are_on_stderr_so_that_stdout_stays_the_program_s(run: Run, tmp_path: Path) -> None:
    done = run(*LOGGED, "-c", f"{ASKS}\nprint('an answer')")
    assert [line["event"] for line in lines_of(done.stderr)] == ["chain_start", "chain_end"]
    assert (done.stdout, without_lines(done.stderr)) == (b"an answer" + os.linesep.encode(), b"")


@pytest.mark.parametrize(
    ("signal_number", "code"),
    [pytest.param("SIGINT", -signal.SIGINT, id="SIGINT"), pytest.param("SIGTERM", -15, id="SIGTERM")],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_from_outside_reaches_the_program_itself(
    signal_number: str, code: int, clean_env: dict[str, str], tmp_path: Path
) -> None:
    program = subprocess.Popen(
        [*TRACED, "-c", "import time; print('ready', flush=True); time.sleep(50)"],
        env=clean_env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(signal.Signals[signal_number])
    _, errors = program.communicate(timeout=30)
    assert program.returncode == code
    assert (b"KeyboardInterrupt" in errors) is (signal_number == "SIGINT")
    assert b"tracebus" not in errors


# -- what python says of a wrong call, it says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("missing.py",), ("-m", "missing.module"), ("-m",), ("-c",), ("-m", "json.nothing"), (".",)]
)
def test_a_program_that_is_not_there_is_python_s_to_complain_about(arguments: tuple[str, ...], run: Run) -> None:
    plain = run(*PYTHON, *arguments)
    assert same(run(*TRACED, *arguments), plain)
    assert plain.returncode in (1, 2)


def test_a_missing_file_is_a_wrong_call(run: Run) -> None:
    assert run(*TRACED, "missing.py").returncode == 2


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), b"nothing to run"),
        (("--only", "openai,cohere", "x.py"), b"unknown 'cohere': there are anthropic, celery, langchain, litellm"),
        (("--only", "", "x.py"), b"unknown ''"),
        (("--log", "xml", "x.py"), b"invalid choice: 'xml'"),
        (("--log-to", "no/such/dir/x.log", "x.py"), b"'no/such/dir/x.log' cannot be written to: No such file"),
        (("--colour", "x.py"), b"unrecognized arguments: --colour"),
    ],
)
def test_a_wrong_option_exits_with_2_and_says_which_are_right(arguments: tuple[str, ...], says: bytes, run: Run) -> None:
    done = run(*LOGGED, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr


def test_help_names_every_option_its_variable_and_choices(run: Run) -> None:
    done = run(*LOGGED, "--help")
    words = {word for option in OPTIONS for word in (option.name, option.variable, *option.choices)}
    assert [word for word in words if word.encode() not in done.stdout] == []
    assert done.returncode == 0


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        (["app.py", "--log", "off"], 0),
        (["--log", "off", "app.py"], 2),
        (["--log=off", "--tokens", "-m", "app", "--only", "x"], 2),
        (["--log-to", "-m", "-c", "pass"], 2),
        (["-", "--tokens"], 0),
        (["-mapp", "--tokens"], 0),
        (["--only"], 2),
        ([], 0),
    ],
)
def test_options_end_where_the_program_begins(arguments: list[str], ours: int) -> None:
    assert split(arguments) == (arguments[:ours], arguments[ours:])


def test_two_dashes_end_the_options() -> None:
    assert split(["--tokens", "--", "--app.py"]) == (["--tokens"], ["--app.py"])


def test_what_is_not_chosen_is_as_the_environment_has_it() -> None:
    outside = {"TRACEBUS_LOG": "json", "TRACEBUS_TOKENS": "1"}
    inside = environment(outside, {"TRACEBUS_LOG": "off", "TRACEBUS_TOKENS": None})
    assert inside == {"TRACEBUS_LOG": "off", "TRACEBUS_TOKENS": "1", "PYTHONPATH": BOOTSTRAP}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, [BOOTSTRAP]),
        ("", [BOOTSTRAP]),
        (os.pathsep.join(["/a", "/b"]), [BOOTSTRAP, "/a", "/b"]),
        (os.pathsep.join(["/a", ""]), [BOOTSTRAP, "/a", ""]),  # an empty entry is the current directory
        (os.pathsep.join(["/a", BOOTSTRAP]), [BOOTSTRAP, "/a"]),
    ],
)
def test_the_path_keeps_what_is_on_it(path: str | None, expected: list[str]) -> None:
    outside = {} if path is None else {"PYTHONPATH": path}
    assert environment(outside, {})["PYTHONPATH"] == os.pathsep.join(expected)


def test_lines_go_to_a_file_of_all_processes_wherever_they_move(run: Run, tmp_path: Path) -> None:
    code = f"import os, subprocess, sys\nos.chdir('/')\n{ASKS}\nsubprocess.run([sys.executable, '-c', {ASKS!r}])"
    done = run(*LOGGED, "--log-to", "lines.log", "-c", code)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert len(lines_of((tmp_path / "lines.log").read_bytes())) == 4


def test_lines_go_to_stdout_when_asked(run: Run) -> None:
    done = run(*LOGGED, "--log-to", "stdout", "-c", ASKS)
    assert len(lines_of(done.stdout)) == 2
    assert done.stderr == b""


def test_lines_are_for_people_when_asked(run: Run) -> None:
    done = run(*LOGGED, "--log", "console", "-c", ASKS)
    assert "▶ ask" in done.stderr.decode()


@pytest.mark.parametrize(("options", "tokens"), [((), 0), (("--tokens",), 2)])
def test_tokens_are_written_when_asked(options: tuple[str, ...], tokens: int, run: Run) -> None:
    code = "from tracebus import traced\n@traced(kind='llm')\ndef say(): yield 'a'; yield 'b'\nlist(say())"
    done = run(*LOGGED, *options, "-c", code)
    assert [line["event"] for line in lines_of(done.stderr)].count("llm_new_token") == tokens


def test_a_disabled_tracebus_stays_so(run: Run) -> None:
    done = run(*LOGGED, "-c", ASKS, env={"TRACEBUS_DISABLED": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_start_up_loads_nothing_that_the_program_does_not_use(run: Run) -> None:
    code = "import sys; print(*{'tracebus', 'structlog', 'typing', 'functools', 'logging'} & set(sys.modules))"
    assert run(*TRACED, "-c", code).stdout.strip() == b""


def test_the_run_command_loads_neither_typer_nor_rich(run: Run) -> None:
    code = (
        "import os, sys; os.execve = lambda *_: print(*{'typer', 'rich', 'structlog'} & set(sys.modules))\n"
        "from tracebus.cli import main; main(['run', 'x.py'])"
    )
    assert run(*PYTHON, "-c", code).stdout.strip() == b""


# -- the processes that it starts --------------------------------------------------------------------------------------

SPAWNS = """
import multiprocessing, sys
from tracebus import traced
@traced
def ask(question):
    return question
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(sorted(pool.map(ask, ["a", "b", "c"])))
        pool.close()
        pool.join()
    child = context.Process(target=ask, args=("d",))
    child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn", "forkserver") if sys.platform != "win32" or m == "spawn"])
def test_processes_of_multiprocessing_are_traced(method: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SPAWNS)
    env = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # 3.12 warns of fork where there are threads
    done = run(*LOGGED, "--log", "json", "program.py", method, env=env)
    plain = run(*PYTHON, "program.py", method, env=env)
    assert same(done, plain)
    asked = [line["inputs"]["question"] for line in lines_of(done.stderr) if line["event"] == "chain_start"]
    assert sorted(asked) == ["a", "b", "c", "d"]


def test_a_process_that_is_started_otherwise_is_traced_by_its_environment(run: Run) -> None:
    path = run(sys.executable, "-m", "tracebus", "bootstrap-path").stdout.decode().strip()
    env = {"PYTHONPATH": os.pathsep.join([path, str(Path(BOOTSTRAP).parent.parent)]), "TRACEBUS_LOG": "json"}
    done = run(*PYTHON, "-c", ASKS, env=env)
    assert [line["event"] for line in lines_of(done.stderr)] == ["chain_start", "chain_end"]


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_a_child_that_looks_at_no_environment_runs_untraced(flag: str, run: Run) -> None:
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, {flag!r}, '-c', 'print(1)']).returncode)"
    done = run(*TRACED, "-c", code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"1", b"")


def test_where_a_process_cannot_be_replaced_a_child_s_exit_code_is_ours() -> None:
    assert _as_child([sys.executable, "-c", "import sys; sys.exit(5)"], os.environ) == 5


def test_the_names_that_are_there_are_those_of_the_integrations() -> None:
    assert [name for name, library in LIBRARIES.items() if library.integration != f"tracebus.integrations.{name}"] == []


def test_nothing_to_run_exits_at_once() -> None:
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 2
