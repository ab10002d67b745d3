"""What all tests share: both event loops, clean subprocesses, and no silent skip where all must run."""

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gates import Gate
from hypothesis import settings

from tracebus import flush, subscribe
from tracebus.errors import WrongThreadError
from tracebus.events import Event
from tracebus.runs import open_runs, set_current
from tracebus.signals import isolated

ROOT = Path(__file__).parent.parent
WENT_WRONG = re.compile(r"^Traceback|^Exception ignored|never awaited|never retrieved", re.MULTILINE)

# make test-litellm and make test-receivers name them: what they need does not go together with what the other tests need.
collect_ignore = ["receivers", "with_litellm"]

# Time is measured where a test means to, not by hypothesis on a machine that has two cores to share.
settings.register_profile("tracebus", deadline=None)
settings.load_profile("tracebus")

# A script that runs the suite in the background has it, and all that it starts, ignore Ctrl-C: as a terminal has it instead.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every `async def` test and fixture on both; a module that is about one of them overrides this."""
    return request.param


@pytest.fixture(autouse=True)
def others_dropped_nothing() -> None:
    """Keep what tests before this one dropped out of its `flush()`."""
    try:
        flush(0)
    except WrongThreadError:
        pass  # Playwright has a loop in this thread: nothing there asks flush()


@pytest.fixture
def nobody_else_listens() -> Iterator[None]:
    """Keep what other tests subscribed, and left to be delivered, out of this one; a module says `pytest.mark.usefixtures`."""
    with isolated():
        flush(5)
        yield
        flush(5)


@pytest.fixture
def nothing_is_current() -> Iterator[None]:
    """Keep what other tests subscribed, and what one that failed left open or current, out of this one; as the one above."""
    open_runs.clear()
    set_current(None)
    with isolated():
        yield


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Give all that is said in the test."""
    events: list[Event] = []
    with subscribe(lambda sender, event: events.append(event)):
        yield events


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give a subscriber that stays in its first event until the test opens it, or ends."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def clean_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has set nothing: an empty home, no keys, no TRACEBUS_*, this checkout."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP") if name in os.environ}
    home = str(tmp_path_factory.mktemp("home"))
    return kept | {"HOME": home, "USERPROFILE": home, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def run_python(clean_env: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_python("file.py", …)` or `run_python("-c", code)`: a process of its own, with warnings as errors.

    It runs in an empty directory with `clean_env`, to which `env` adds; its output is captured as text. With
    `check` it must exit with 0, and nothing may have gone wrong where an exit code does not show it.
    """

    def run(
        *args: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path = tmp_path,
        timeout_s: float = 50,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", *map(str, args)],
            env=clean_env | (env or {}),
            cwd=cwd,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
            assert not WENT_WRONG.search(done.stderr), done.stderr
        return done

    return run


def pytest_collection_finish() -> None:
    """Take what the modules of all tests have loaded, millions of objects, out of what the collector looks at in each test."""
    gc.collect()
    gc.freeze()


# A skip says that this machine lacks something. Where everything is installed on purpose, that is a failure.
SKIPS_FAIL = os.environ.get("CI", "").lower() in ("true", "1")


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, but leave an expected failure, which pytest reports as skipped, too."""
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nWith CI=true a skip is a failure: install what is missing in .ci/run."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    fail_if_skipped(report)
    return report
