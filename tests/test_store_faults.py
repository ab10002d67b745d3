"""What the store survives: the demands of a process that dies, a disk that is full, a fork, a viewer that looks, a value that
is too large, and secrets."""

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tracebus import emit, flush, llm_new_token, scope, shutdown, trace, traced
from tracebus.outputs.store import Reader, StoreError, save
from tracebus.outputs.store.files import APPLICATION_ID
from tracebus.outputs.store.liveness import Lockfile
from tracebus.outputs.store.schema import MIGRATIONS
from tracebus.signals import isolated

pytestmark = pytest.mark.usefixtures("nobody_else_listens")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


def runs_in(path: Path) -> dict[str, str]:
    """The status of each run by its name."""
    with Reader(path) as reader:
        return {run.name: run.status for run in all_runs(reader)}


def all_runs(reader: Reader) -> list:
    found, after = [], None
    while True:
        page = reader.runs(limit=5000, after=after)
        found += page.items
        after = page.after
        if after is None:
            return found


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("INSERT INTO search_0 (search_0) VALUES ('integrity-check')")


WRITER = """
import os, sys, threading
import tracebus
from tracebus import trace, traced, flush
from tracebus.outputs.store import save
save(sys.argv[1])
"""


# -- 9 and 10: how a process ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("pass", "ok"),
        ("sys.exit(0)", "ok"),
        ("open_block = trace('open'); open_block.__enter__()", "aborted"),
        (
            "threading.Thread(target=lambda: (trace('open').__enter__(), started.set(), threading.Event().wait()),"
            " daemon=True).start(); started.wait()",
            "aborted",
        ),
    ],
    ids=["end", "sys.exit", "open run", "daemon thread with an open run"],
)
def test_every_event_is_stored_whatever_the_exit(ending, status, path, run_python):
    run_python("-c", WRITER + f"started = threading.Event()\nwith trace('done'): pass\n{ending}", path)
    assert runs_in(path) == {"done": "ok"} | ({"open": status} if "open" in ending else {})


def test_every_event_is_stored_when_the_app_raises(path, run_python):
    done = run_python("-c", WRITER + "with trace('failed'): raise ValueError('x')", path, check=False)
    assert done.returncode == 1
    assert runs_in(path) == {"failed": "error"}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_store_their_runs(method, path, tmp_path, run_python):
    script = tmp_path / "script.py"
    script.write_text(
        WRITER.replace("save(sys.argv[1])", "")
        + f"""
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
def work(number):
    if {method!r} != "fork":
        save({str(path)!r})
    with trace(f"child {{number}}"):
        pass
if __name__ == "__main__":
    save({str(path)!r})
    with trace("parent"):
        pass
    assert flush()
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
"""
    )
    run_python(script)
    assert runs_in(path) == {"parent": "ok", "child 0": "ok", "child 1": "ok", "child 2": "ok"}


@POSIX
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL, None], ids=["SIGTERM", "kill -9", "os._exit"])
def test_the_next_opening_marks_the_runs_of_the_dead_lost_and_leaves_the_living_alone(end, path, clean_env):
    code = WRITER + (
        "trace('open in ' + sys.argv[2]).__enter__()\nwith trace('done in ' + sys.argv[2]): pass\n"
        "assert flush()\nprint(flush(), flush=True)\nsys.stdin.readline()\nos._exit(3)"
    )
    living, dead = (
        subprocess.Popen(
            [sys.executable, "-c", code, path, name],
            env=clean_env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("living", "dead")
    )
    with living, dead:
        assert living.stdout.readline() == dead.stdout.readline() == b"True\n"
        if end is None:
            dead.stdin.write(b"\n")
            dead.stdin.flush()
        else:
            dead.send_signal(end)
        dead.wait(20)
        expected = {"done in living": "ok", "done in dead": "ok", "open in living": "open", "open in dead": "lost"}
        assert runs_in(path) == expected
        with Reader(path) as reader:
            assert reader.info().lost_runs == 1
            assert {process.closed_ns is None for process in reader.processes()} == {True, False}
            assert reader.traces(status="lost").items[0].name == "open in dead"
        living.stdin.write(b"\n")
        living.stdin.flush()
    assert runs_in(path)["open in living"] == "lost"


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(path):
    with isolated():
        save(path)
        with trace("done"):
            pass
        assert flush()
        with closing(sqlite3.connect(path)) as connection, connection:  # the dead had the number that we have now
            connection.execute(
                "INSERT INTO processes (id, pid, started, program, project, opened_ns) VALUES (50, ?, '', '', '', 1)",
                (os.getpid(),),
            )
            connection.execute("UPDATE runs SET status = 'open', process = 50")
        assert runs_in(path) == {"done": "lost"}


def remove(path):
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@POSIX
def test_the_living_are_left_alone_in_a_store_that_was_removed_and_made_again(path, clean_env):
    with isolated(), save(path), trace("before"):
        pass
    assert runs_in(path) == {"before": "ok"}
    remove(path)
    code = WRITER + "with trace('open'):\n    assert flush()\n    print(flush(), flush=True)\n    sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], env=clean_env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout.readline() == b"True\n"
        assert runs_in(path) == {"open": "open"}
        living.communicate(b"\n", timeout=20)
    assert runs_in(path) == {"open": "ok"}


@POSIX
def test_the_living_are_left_alone_whatever_way_leads_to_the_store(path, tmp_path):
    way = tmp_path / "way"
    way.symlink_to(path.parent, target_is_directory=True)
    with isolated(), save(way / path.name) as saving:
        with trace("open"):
            assert saving.flush()
            assert runs_in(path) == {"open": "open"}
        assert saving.flush()
        assert runs_in(path) == {"open": "ok"}


@POSIX
@pytest.mark.parametrize("removed", [remove, lambda path: shutil.rmtree(path.parent)], ids=["file", "directory"])
def test_a_store_that_is_removed_while_it_is_written_is_begun_anew_with_what_goes_on(removed, tmp_path, caplog):
    path = tmp_path / "data" / "traces.db"
    with isolated(), save(path) as saving:
        with trace("done"):
            pass
        with trace("open", inputs={"question": "What?"}):
            assert saving.flush()
            removed(path)
            with trace("inside"):
                pass
            assert saving.flush()
            assert runs_in(path) == {"open": "open", "inside": "ok"}
        assert saving.flush()
    assert runs_in(path) == {"open": "ok", "inside": "ok"}
    with Reader(path) as reader:
        assert reader.traces().items[0].input == "What?"
        assert reader.info().lost_runs == 0
    assert [record.getMessage() for record in caplog.records] == [f"the store {path} was removed: a new one is begun"]


# -- 17: large values, many runs ---------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_large_value_costs_the_caller_little_and_is_stored_short(path):
    value = "x" * 100_000_000
    taken = []
    with isolated(), save(path):
        for _ in range(3):
            start = time.perf_counter()
            with trace("large", inputs={"text": value}):
                pass
            taken.append(time.perf_counter() - start)
        assert flush()
        with Reader(path) as reader:
            stored = reader.run("@last").body.inputs["text"]
    assert len(json.dumps(stored)) <= 64 * 1024
    assert stored.endswith("…[100000000 characters]")
    assert min(taken) <= 0.005


MANY_RUNS = WRITER.replace("save(sys.argv[1])", "saving = save(sys.argv[1], overflow='block', keep_bytes=50_000_000)") + (
    "import gc, pathlib, tracemalloc\n"
    "def go(n):\n"
    "    for number in range(n):\n"
    "        with trace('step', inputs={'n': number}): pass\n"
    "    assert saving.flush(60)\n"
    "    gc.collect()\n"
    "def resident():\n"
    "    return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
    "go(5_000)\n"
)


@pytest.mark.once
def test_many_runs_leave_nothing_in_memory(path, run_python):
    code = MANY_RUNS + (
        "tracemalloc.start(1)\n"
        "go(5_000)\n"
        "before = tracemalloc.get_traced_memory()[0]\n"
        "go(20_000)\n"
        "print(tracemalloc.get_traced_memory()[0] - before)"
    )
    assert int(run_python("-c", code, path).stdout) <= 1024 * 1024


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this platform does not say how large a process is")
def test_a_million_runs_leave_nothing_in_memory(path, run_python):
    """Counts blocks, and pages for what is larger: tracemalloc would take three times as long, and not see what SQLite has."""
    code = MANY_RUNS + (
        "go(100_000)\n"  # until SQLite has all the pages that it keeps
        "before = sys.getallocatedblocks(), resident()\n"
        "go(1_000_000)\n"
        "print(sys.getallocatedblocks() - before[0], resident() - before[1])"
    )
    blocks, size = map(int, run_python("-c", code, path, timeout_s=580).stdout.split())
    assert blocks <= 2_000  # of at most 512 bytes
    assert size <= 8 * 1024 * 1024  # half of it comes and goes


# -- 21 to 23: kill, contention, no space ------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_kill_9(times, path, clean_env):
    code = WRITER + (
        "number = int(sys.argv[2])\n"
        "while True:\n"
        "    for _ in range(20):\n"
        "        with trace(f'outer {number}'):\n"
        "            with trace(f'inner {number}'): pass\n"
        "        number += 1\n"
        "    if flush(): print(number, flush=True)\n"
    )
    random_ = random.Random(7)
    acknowledged = 0
    for _ in range(times):
        begin = acknowledged + 1_000_000
        with subprocess.Popen(
            [sys.executable, "-c", code, path, str(begin)], env=clean_env, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout.readline()
            time.sleep(random_.random() * 0.3)
            writer.kill()
            last = int(("0\n" + writer.stdout.read()).split("\n")[-2]) or begin + 20
        with Reader(path) as reader:
            names = {run.name: run.status for run in reader.runs(limit=10_000) if int(run.name.split()[1]) >= begin}
        assert all(names.get(f"outer {number}") == "ok" for number in range(begin, last))
        # No partial batch: what began together is there together.
        assert {name.split()[1] for name in names if "inner" in name} == {name.split()[1] for name in names if "outer" in name}
        acknowledged = last
    check_integrity(path)


@pytest.mark.once
@pytest.mark.parametrize("runs", [300, pytest.param(5_000, marks=pytest.mark.long)])
def test_eight_processes_write_while_one_reads(runs, path, clean_env):
    code = WRITER + (
        f"for number in range({runs}):\n"
        "    with trace(f'{sys.argv[2]}-{number}', inputs={'n': number}): pass\n"
        "assert flush(50)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, path, str(number)], env=clean_env, stderr=subprocess.PIPE)
        for number in range(8)
    ]
    while any(writer.poll() is None for writer in writers):
        if path.exists() and path.stat().st_size > 100_000:  # not while it is made
            with Reader(path) as reader:
                reader.traces()
                reader.statistics("name")
        time.sleep(0.05)
    assert [writer.communicate()[1] for writer in writers] == [b""] * 8
    assert [writer.returncode for writer in writers] == [0] * 8
    assert runs_in(path) == {f"{process}-{number}": "ok" for process in range(8) for number in range(runs)}
    check_integrity(path)


@pytest.mark.parametrize(("for_s", "said"), [(30, []), (0, ["cannot be written, and the app goes on without it"])])
def test_what_waits_because_others_write_is_not_lost_and_said_after_a_while(for_s, said, path, monkeypatch, caplog):
    monkeypatch.setattr("tracebus.outputs.store.connections.BUSY_S", 0.05)
    monkeypatch.setattr("tracebus.outputs.store.writer.OTHERS_WRITE_S", for_s)
    with isolated(), save(path) as saving, closing(sqlite3.connect(path, isolation_level=None)) as other:
        with trace("before"):
            pass
        assert saving.flush(20)
        other.execute("BEGIN IMMEDIATE")
        with trace("meanwhile"):
            pass
        assert not saving.flush(0.5)
        other.execute("COMMIT")
        assert saving.flush(20)
        assert (saving.stats.dropped, saving.stats.pending) == ({}, 0)
    assert runs_in(path) == {"before": "ok", "meanwhile": "ok"}
    assert [words in record.getMessage() for record, words in zip(caplog.records, said, strict=True)] == [True] * len(said)


def test_what_waits_for_others_before_the_store_is_opened_is_not_lost(path, monkeypatch, caplog):
    monkeypatch.setattr("tracebus.outputs.store.connections.BUSY_S", 0.05)
    with isolated(), save(path), trace("makes the store"):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other, isolated(), save(path) as saving:
        other.execute("BEGIN IMMEDIATE")
        with trace("meanwhile"):
            pass
        assert not saving.flush(1)
        other.execute("COMMIT")
        assert saving.flush(20)
    assert runs_in(path) == {"makes the store": "ok", "meanwhile": "ok"}
    assert caplog.records == []


def test_what_is_given_up_because_others_write_is_said_at_once(path, monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("tracebus.outputs.store.connections.BUSY_S", 0.05)
    with isolated(), save(path), trace("makes the store"):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with isolated(), save(path) as saving:
            with trace("lost"):
                pass
            assert not saving.flush()
            assert saving.stats.dropped == {"not_writable": 2}
    assert ["cannot be written" in record.getMessage() for record in caplog.records] == [True]


@POSIX
def test_no_connection_crosses_a_fork(path):
    with isolated(), save(path) as saving:
        with trace("parent before"):
            pass
        assert flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with trace("child"):
                    pass
                code = 0 if saving.flush() else 2
            finally:
                os._exit(code)
        with trace("parent after"):
            pass
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert flush()
        with Reader(path) as reader:
            assert len(reader.processes()) == 2
    assert runs_in(path) == {"parent before": "ok", "child": "ok", "parent after": "ok"}
    check_integrity(path)


LIMITED = WRITER.replace("save(sys.argv[1])", "saving = save(sys.argv[1])") + (
    "import resource, signal, time, logging, random\n"
    "class Heard(logging.Handler):\n"
    "    def __init__(self): super().__init__(); self.lines = []\n"
    "    def emit(self, record): self.lines.append(record.getMessage())\n"
    "heard = Heard(); logging.getLogger('tracebus').addHandler(heard); logging.getLogger('tracebus').propagate = False\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
    "def allow(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))\n"
)


@POSIX
def test_a_full_disk_loses_nothing_that_was_acknowledged_and_is_resumed_within_a_second(path, run_python):
    code = LIMITED + (
        "with trace('before'): pass\n"
        "assert flush()\n"
        "allow(os.stat(sys.argv[1]).st_size // 2)\n"
        "with trace('during'): pass\n"
        "assert not flush(0.7)\n"
        "with trace('still'): pass\n"
        "allow(hard)\n"
        "start = time.monotonic()\n"
        "assert saving.flush(10)\n"
        "assert time.monotonic() - start < 1, time.monotonic() - start\n"
        "assert len(heard.lines) == 1, heard.lines\n"
        "print(heard.lines[0])"
    )
    done = run_python("-c", code, path)
    assert "cannot be written, and the app goes on" in done.stdout
    assert runs_in(path) == {"before": "ok", "during": "ok", "still": "ok"}
    check_integrity(path)


@POSIX
@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_write_faults_now_and_then_lose_nothing(rounds, path, run_python):
    """A thread takes the right to write away for 2 % of the time."""
    code = LIMITED + (
        "with trace('first'): pass\n"
        "assert flush()\n"
        "stop = threading.Event()\n"
        "def disturb():\n"
        "    while not stop.is_set():\n"
        "        allow(8192); time.sleep(0.002); allow(hard); time.sleep(0.098)\n"
        "thread = threading.Thread(target=disturb); thread.start()\n"
        f"for number in range({rounds}):\n"
        "    with trace(f'run {number}', inputs={'text': 'x' * 3000}): pass\n"
        "    saving.flush(10)\n"
        "stop.set(); thread.join()\n"
        "assert saving.flush(10)"
    )
    run_python("-c", code, path, timeout_s=300)
    assert runs_in(path) == {"first": "ok"} | {f"run {number}": "ok" for number in range(rounds)}
    check_integrity(path)


@POSIX
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="mounting needs root")
def test_a_full_file_system_is_survived(tmp_path, run_python):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", mount], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        code = WRITER.replace("save(sys.argv[1])", "saving = save(sys.argv[1])") + (
            "import time\n"
            "with trace('before'): pass\n"
            "assert flush()\n"
            "filler = os.path.join(os.path.dirname(sys.argv[1]), 'filler')\n"
            "with open(filler, 'wb', buffering=0) as file:\n"
            "    try:\n"
            "        while True: file.write(b'x' * 4096)\n"
            "    except OSError: pass\n"
            "for number in range(20):\n"
            "    with trace(f'run {number}', inputs={'text': 'x' * 20000}): pass\n"
            "saving.flush(1)\n"
            "os.remove(filler)\n"
            "start = time.monotonic()\n"
            "assert saving.flush(10)\n"
            "assert time.monotonic() - start < 1"
        )
        run_python("-c", code, mount / "traces.db", check=False)
        assert runs_in(mount / "traces.db") == {"before": "ok"} | {f"run {number}": "ok" for number in range(20)}
        check_integrity(mount / "traces.db")
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@POSIX
def test_a_home_that_cannot_be_written_costs_the_app_one_warning(tmp_path, run_python):
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    code = WRITER + (
        "import logging\nfor number in range(100):\n    with trace('x'): pass\nprint(flush(1))\nstats = tracebus.stats()\n"
    )
    done = run_python("-c", code, blocked / "data" / "traces.db", check=False)
    assert done.returncode == 0
    assert done.stdout == "False\n"
    assert done.stderr.count("cannot be written, and the app goes on without it") == 1


def test_what_is_lost_where_nothing_can_be_written_is_counted(tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    with isolated(), save(tmp_path / "file" / "traces.db") as saving:
        for _ in range(100):
            with trace("x"):
                pass
        saving.flush()
        assert saving.stats.dropped == {"not_writable": 200}
        assert saving.stats.pending == 0
    assert len(caplog.records) == 1


def test_the_oldest_give_way_when_the_queue_is_full_and_the_store_says_so(path, monkeypatch):
    monkeypatch.setattr("tracebus.outputs.store.rows.LOST_ENDS_KEPT", 200)  # twice the queue
    with isolated(), save(path, queue_size=100) as saving:
        for _ in range(20_000):
            with trace("x"):
                pass
        saving.flush()
        stats = saving.stats
        assert stats.matched == 40_000 == stats.delivered + sum(stats.dropped.values())
        assert stats.dropped["queue_full"] > 0
        with trace("later"):
            pass
        assert saving.flush()
        with Reader(path) as reader:
            assert reader.info().dropped == {"queue_full": stats.dropped["queue_full"]}
            assert reader.open_runs() == []


# -- 24: looking while it is written; files that cannot be used --------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_the_log_stays_short_while_somebody_looks(seconds, path):
    stop, sizes, failures = threading.Event(), [], []

    def look():
        try:
            with Reader(path) as reader:
                while not stop.is_set():
                    for summary in reader.traces():
                        reader.tree(summary.trace_id)
                    reader.changes(max(0, reader.cursor() - 5))
        except Exception as error:
            failures.append(error)

    with isolated(), save(path, overflow="block") as saving:
        with trace("first"):
            pass
        assert saving.flush()
        viewers = [threading.Thread(target=look) for _ in range(2)]
        for viewer in viewers:
            viewer.start()
        end = time.monotonic() + seconds
        text = "a text of some length " * 200
        while time.monotonic() < end:
            for number in range(200):
                with trace(f"step {number}", inputs={"text": text}):
                    pass
            sizes.append(os.path.getsize(f"{path}-wal"))
        stop.set()
        for viewer in viewers:
            viewer.join()
        saving.flush(30)
    assert failures == []
    assert max(sizes) <= 16 * 1024 * 1024


@pytest.mark.parametrize("damage", ["text", "page"])
def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(damage, path, caplog):
    if damage == "text":
        path.write_text("this is no database\n" * 100)
    else:
        with isolated(), save(path), trace("old"):
            pass
        content = bytearray(path.read_bytes())
        content[100:4096] = b"\xff" * 3996
        path.write_bytes(content)
    before = path.read_bytes()
    with isolated(), save(path), trace("new"):
        pass
    assert runs_in(path) == {"new": "ok"}
    (aside,) = path.parent.glob("traces.db.corrupt-*[0-9]")
    assert aside.read_bytes() == before
    assert [str(aside) in record.getMessage() for record in caplog.records] == [True]


def test_a_file_that_becomes_corrupt_is_set_aside_with_nothing_lost(path, caplog):
    with isolated(), save(path) as saving:
        tokens = traced(kind="llm", name="stream")(lambda: iter(()))
        with trace("open"):
            assert saving.flush()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with path.open("r+b") as file:
                file.write(b"\xff" * os.path.getsize(path))
            with trace("inside"):
                pass
            assert saving.flush(20)
        del tokens
    assert runs_in(path) == {"open": "ok", "inside": "ok"}
    assert len(list(path.parent.glob("traces.db.corrupt-*[0-9]"))) == 1


def test_a_file_of_a_newer_tracebus_is_set_aside_by_a_writer_and_named_by_a_reader(path, caplog):
    with isolated(), save(path), trace("old"):
        pass
    newer = len(MIGRATIONS) + 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    with pytest.raises(StoreError, match=r"newer tracebus.*upgrade"):
        Reader(path)
    with isolated(), save(path), trace("new"):
        pass
    assert runs_in(path) == {"new": "ok"}
    (aside,) = path.parent.glob(f"traces.db.newer-{newer}-*[0-9]")
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT name FROM runs").fetchall() == [("old",)]


def test_somebody_elses_database_is_left_alone(path, caplog):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="no store of tracebus"):
        Reader(path)
    with isolated(), save(path) as saving, trace("x"):
        pass
    assert saving.stats.dropped == {"not_writable": 2}
    assert path.read_bytes() == before
    assert len(caplog.records) == 1


def test_an_older_store_is_migrated_and_keeps_its_runs(path, monkeypatch):
    with isolated(), save(path), trace("old"):
        pass
    monkeypatch.setattr(
        "tracebus.outputs.store.schema.MIGRATIONS", [*MIGRATIONS, "CREATE TABLE added (a);\nDROP TABLE added;"]
    )
    with isolated(), save(path), trace("new"):
        pass
    assert runs_in(path) == {"old": "ok", "new": "ok"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)


def make_earlier(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(MIGRATIONS[:version]))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_store_of_each_earlier_version_goes_on_as_one_of_today(version, path):
    make_earlier(path, version)
    with isolated(), save(path), trace("new"):
        pass
    assert runs_in(path) == {"new": "ok"}


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_store_of_each_earlier_version_can_be_read_before_anybody_has_written_it(version, path):
    make_earlier(path, version)
    with Reader(path) as reader:
        assert (len(reader.traces()), len(reader.runs())) == (0, 0)
        assert reader.info().schema == len(MIGRATIONS)


def test_an_earlier_store_that_cannot_be_brought_up_to_date_is_named(path, monkeypatch):
    make_earlier(path, 1)
    monkeypatch.setattr("tracebus.outputs.store.connections.BUSY_S", 0.05)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"made by an earlier tracebus, and cannot be brought up to date.*locked"):
            Reader(path)


def test_a_file_that_is_no_store_is_named(path):
    with pytest.raises(StoreError, match="no store at"):
        Reader(path)
    path.write_text("hello " * 100)
    with pytest.raises(StoreError, match="is no store of tracebus, or is damaged"):
        Reader(path)


@POSIX
def test_files_are_for_their_owner_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        with isolated(), save(path) as saving:
            with trace("x"):
                pass
            assert saving.flush()
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}


def test_locks_are_held_by_the_living_only(tmp_path, run_python):
    file = Lockfile.of(tmp_path / "store.db")
    file.hold(3)
    assert not file.is_dead(3)
    code = (
        "import sys; from pathlib import Path; from tracebus.outputs.store.liveness import Lockfile\n"
        "file = Lockfile.of(Path(sys.argv[1])); print(file.is_dead(3), file.is_dead(4))"
    )
    assert run_python("-c", code, tmp_path / "store.db").stdout == "False True\n"
    file.release(3)
    assert run_python("-c", code, tmp_path / "store.db").stdout == "True True\n"


# -- 28: secrets -------------------------------------------------------------------------------------------------------

CANARY = "hunter2canary7"


def deny():
    try:
        raise KeyError(f"api_key={CANARY}")
    except KeyError as error:
        raise ValueError(f"denied for password={CANARY}") from error


def test_no_secret_reaches_the_file_or_its_log(path):
    class Client:
        def __init__(self):
            self.api_key = f"sk-{CANARY}"

    with isolated(), save(path) as saving:
        with scope(metadata={"authorization": f"Bearer {CANARY}"}, session_id=f"password={CANARY}"):
            with trace("call", inputs={"password": CANARY, "client": Client(), "headers": {"x-api-key": CANARY}}) as run:
                run.output = f"https://user:{CANARY}@example.com/?token=x"
                run.metadata["secret"] = CANARY
                emit("text", text=f"api_key={CANARY}")
                emit("custom_event", name="x", data={"db_password": CANARY})
            with trace("stream", kind="llm"):
                for piece in ("the password", "=", CANARY[:5], CANARY[5:], " is it"):
                    emit(llm_new_token, token=piece)
                    assert saving.flush()
            with pytest.raises(ValueError, match="denied"):
                traced(name=f"fails password={CANARY}", tags=[f"token={CANARY}"])(deny)()
        assert saving.flush()
        written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert CANARY.encode() not in written
    assert b"hunter2" not in written
    with Reader(path) as reader:
        assert {run.name.split()[0] for run in all_runs(reader)} == {"call", "stream", "fails"}


def test_hostile_values_are_stored_as_json(path):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: dict = {}
    cyclic["self"] = cyclic

    class Rude:
        def __repr__(self):
            raise SystemExit

    values = [deep, cyclic, 10**5000, Rude(), {(1, 2): 3}, float("nan"), "\ud800", "\x00", (number for number in ())]
    with isolated(), save(path) as saving:
        for value in values:
            with trace("hostile", inputs={"value": value}) as run:
                run.output = value
        assert saving.flush()
        assert saving.stats.failed == 0
        with Reader(path) as reader:
            assert len(reader.traces()) == len(values)
    while deep:  # without recursion
        deep = deep[0]
    shutil.copy(path, path.with_suffix(".copy"))
    check_integrity(path)


def test_shutdown_leaves_nothing_behind(path):
    with isolated(), save(path) as saving:
        for _ in range(100):
            with trace("x"):
                pass
        assert shutdown(10) == {}
        assert saving.stats.delivered == 200
