"""The store's index of words, which is in parts: searched as one, written by several, merged, and dropped when empty."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tracebus import scope, trace
from tracebus.outputs.store import Reader, Saving, delete, prune, save
from tracebus.signals import isolated
from tracebus.testing import deterministic

PART = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracebus.outputs.store.index.PART_RUNS", PART)


@pytest.fixture
def store(path: Path) -> Iterator[Saving]:
    with isolated(), save(path, keep_days=None) as saving:
        yield saving


def say(store: Saving, *numbers: int) -> None:
    """Say one run for each number, and write each by itself."""
    for number in numbers:
        with trace(f"run {number}", inputs=f"common word{number} {'even' if number % 2 == 0 else 'odd'}"):
            pass
        assert store.flush()


def found(path: Path, text: str, limit: int = 100) -> list[str]:
    with Reader(path) as reader:
        names, after = [], None
        while True:
            page = reader.search(text, limit=limit, after=after)
            names += [run.name for run in page]
            after = page.after
            if after is None:
                return names


def parts(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [part for (part,) in connection.execute("SELECT first FROM search_parts ORDER BY first")]


def words(path: Path, part: int) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search_{part}', 'row')")
        return {word for (word,) in connection.execute("SELECT term FROM temp.words")}


def pieces(path: Path, part: int) -> int:
    """Return the segments of a part, from the structure record that https://sqlite.org/fts5.html describes."""
    with closing(sqlite3.connect(path)) as connection:
        block = connection.execute(f"SELECT block FROM search_{part}_data WHERE id = 10").fetchone()[0]
    return int(block[5])  # after a cookie of four bytes and the number of levels


def names(numbers: range) -> list[str]:
    return [f"run {number}" for number in numbers]


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_search_goes_through_all_parts_from_the_newest_run_on(limit, store, path):
    say(store, *range(35))
    assert len(parts(path)) == 4
    assert found(path, "common", limit) == names(range(34, -1, -1))
    assert found(path, "common even", limit) == names(range(34, -1, -2))
    assert found(path, "word3", limit) == ["run 3"]
    assert found(path, "nothing", limit) == []


def test_a_run_that_was_open_when_its_part_was_full_is_found(store, path):
    with trace("long", inputs="common patience"):
        assert store.flush()
        say(store, *range(25))
        assert found(path, "patience") == []
    assert store.flush()
    assert found(path, "patience") == ["long"]
    assert "patience" in words(path, 0)
    assert found(path, "common")[-1] == "long"


def test_a_run_that_was_lost_is_found_in_its_part(path):
    with isolated():
        with save(path) as store:
            lost = trace("lost", inputs="common patience")
            lost.__enter__()
            say(store, *range(25))
        lost.__exit__(None, None, None)
    assert found(path, "patience") == ["lost"]
    assert "patience" in words(path, 0)


WRITER = """
import sys
import tracebus.outputs.store.index as index
from tracebus import trace
from tracebus.outputs.store import save

index.PART_RUNS = int(sys.argv[2])
with save(sys.argv[1]) as store:
    for line in sys.stdin:
        with trace(f"run {line.strip()}", inputs=f"common word{line.strip()}"):
            pass
        assert store.flush()
        print("written", flush=True)
"""


def test_processes_that_take_turns_fill_the_same_parts(path, clean_env):
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, path, str(PART)],
                    env=clean_env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        for number in range(45):
            writer = writers[number % 3 % 2]  # two turns, one turn
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "written\n"
        for writer in writers:
            writer.communicate()
            assert writer.returncode == 0
    assert len(parts(path)) == 5
    assert found(path, "common") == names(range(44, -1, -1))
    for number in range(45):
        assert found(path, f"word{number}") == [f"run {number}"]


def test_a_full_part_becomes_one_piece(store, path):
    say(store, *range(PART - 5))
    assert pieces(path, 0) == PART - 5
    say(store, *range(PART - 5, PART + 5))
    assert pieces(path, 0) == 1
    assert pieces(path, parts(path)[1]) > 1
    assert found(path, "common") == names(range(PART + 4, -1, -1))


def test_what_is_deleted_goes_from_the_part_that_has_it(store, path):
    for number in range(30):
        with scope(session_id=f"session {number % 7}"):
            say(store, number)
    assert delete(path, session_id="session 3").runs == 4
    gone = {3, 10, 17, 24}
    assert found(path, "common") == [f"run {number}" for number in range(29, -1, -1) if number not in gone]
    left = set().union(*(words(path, part) for part in parts(path)))
    assert {word for word in left if word.startswith("word")} == {
        f"word{number}" for number in range(30) if number not in gone
    }
    say(store, 30)  # whoever knew the parts before goes on
    assert found(path, "common", 3)[0] == "run 30"


def test_a_part_goes_with_its_last_run(path):
    begin = datetime.now(UTC) - timedelta(days=30)
    with deterministic(begin) as clock, isolated(), save(path, keep_days=None) as store:
        for number in range(30):
            say(store, number)
            clock.advance(86_400)
        before = parts(path)
        prune(path, keep_days=10)
        assert parts(path) == before[-len(parts(path)) :]
        assert len(parts(path)) < len(before)
        kept = found(path, "common")
        assert kept == names(range(29, 29 - len(kept), -1))
        assert 8 <= len(kept) <= 11
        say(store, 30)
        assert found(path, "common") == ["run 30", *kept]


def test_a_store_from_before_there_were_parts_is_its_first_part(path):
    with isolated(), save(path) as store:
        say(store, *range(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE search_0 RENAME TO search")
        connection.execute("DROP TABLE search_parts")
        connection.execute("PRAGMA user_version = 3")
        connection.execute("UPDATE counters SET next_run = 1000000")
        connection.commit()
    assert found(path, "common") == names(range(2, -1, -1))
    with isolated(), save(path) as store:
        say(store, 3)
    assert parts(path) == [0, 1_000_000]
    assert found(path, "common") == names(range(3, -1, -1))
