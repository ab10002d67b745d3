"""Runs that will never say how they ended, because their process has died or has closed the store."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from .bodies import words
from .connections import open_for_writing, writing
from .files import StoreError
from .index import Index, Words
from .liveness import Lockfile
from .rollups import Rollups, Series

__all__ = ["bury_the_dead", "look_for_the_dead", "mark_lost", "tell"]


def look_for_the_dead(path: Path, connection: sqlite3.Connection) -> int:
    """Mark the open runs of processes that have died as ``lost``; return how many.

    ``connection`` only reads: where nobody has died, or where this process may not write, nothing is written.
    """
    try:
        alive = Lockfile.of(path)
        candidates = connection.execute("SELECT id FROM processes WHERE closed_ns IS NULL").fetchall()
        if not any(alive.is_dead(number) for (number,) in candidates):
            return 0
        writer = open_for_writing(path)
    except (OSError, StoreError):
        return 0
    try:
        with writing(writer):
            return bury_the_dead(writer, alive)
    except sqlite3.Error:
        return 0  # somebody else writes, and will find them, or the next reader
    finally:
        writer.close()


def bury_the_dead(connection: sqlite3.Connection, alive: Lockfile) -> int:
    """Mark the open runs of processes that have died as ``lost``, in the open transaction; return how many."""
    candidates = connection.execute("SELECT id FROM processes WHERE closed_ns IS NULL").fetchall()
    dead = [number for (number,) in candidates if alive.is_dead(number)]
    lost = mark_lost(connection, dead)
    connection.executemany("UPDATE processes SET closed_ns = ? WHERE id = ?", [(time.time_ns(), number) for number in dead])
    return lost


_OPEN: Final = """
SELECT runs.id, trace_id, span, traces.project, runs.model, runs.name, runs.kind, runs.started_ns, inputs, bodies.streamed
FROM runs JOIN traces ON traces.id = trace_id LEFT JOIN bodies ON bodies.run = runs.id
WHERE process = ? AND runs.status = 'open'
"""


def mark_lost(connection: sqlite3.Connection, processes: Iterable[int]) -> int:
    """Mark the open runs of these processes as ``lost``, in the open transaction; return how many."""
    lost, rollups = 0, Rollups()
    traces: set[int] = set()
    runs: list[int] = []
    found_by: list[Words] = []
    for process in processes:
        found = connection.execute(_OPEN, (process,)).fetchall()
        for run, trace, _, project, model, name, kind, started_ns, inputs, streamed in found:
            rollups.of(started_ns, Series(project, model or "", name, kind)).add_run(None, None, is_error=False)
            given = "" if inputs is None else words(json.loads(inputs))
            found_by.append((run, given, streamed or "", ""))
            connection.execute("UPDATE traces SET open = open - 1 WHERE id = ?", (trace,))
            connection.execute("UPDATE traces SET status = 'lost' WHERE id = ? AND root = ?", (trace, run))
            connection.execute("INSERT OR IGNORE INTO labels VALUES ('status', 'lost', ?)", (trace,))
            traces.add(trace)
            runs.append(run)
        connection.execute("UPDATE runs SET status = 'lost' WHERE process = ? AND status = 'open'", (process,))
        connection.execute("UPDATE processes SET lost = lost + ? WHERE id = ?", (len(found), process))
        lost += len(found)
    if lost:
        Index(connection).add(connection, found_by)
        rollups.write(connection, {})
        tell(connection, traces, runs)
    return lost


_pack: Final = msgspec.msgpack.Encoder().encode


def tell(
    connection: sqlite3.Connection, traces: Iterable[int] = (), runs: Iterable[int] = (), removed: Iterable[bytes] = ()
) -> None:
    """Tell live views what this transaction changes."""
    connection.execute("UPDATE counters SET tick = tick + 1")
    connection.execute(
        "INSERT INTO changes SELECT tick, ?, ?, ? FROM counters",
        (_pack(sorted(traces)), _pack(sorted(runs)), _pack(list(removed))),
    )
