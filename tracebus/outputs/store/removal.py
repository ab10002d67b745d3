"""Taking traces out of a store again, so that nothing of them is left: not in a table, not in the index, not in the log."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from .connections import keep_log_short, writing
from .index import Index, drop_parts, has_part, merge_part
from .lost import tell
from .rollups import Rollups, Series
from .shapes import words_of

__all__ = ["Retention", "clean_up", "prune", "remove_traces"]

DAY_NS: Final = 86_400 * 10**9
REMOVED_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Retention:
    """How long traces are kept, in days, and how many bytes they may take; None is without limit."""

    days: float | None = 30.0
    size_bytes: int | None = 4 * 1024**3


class Pruned(NamedTuple):
    """Whether everything that was to go has gone, and the parts of the index that have words of it until ``clean_up``."""

    is_done: bool
    parts: set[int]


_RUNS: Final = """
SELECT runs.id, project, runs.model, runs.name, runs.kind, runs.status, runs.started_ns, runs.duration_ns,
    runs.first_token_ns, runs.input_tokens, runs.output_tokens, runs.total_tokens, runs.cost, counts,
    inputs, bodies.output, bodies.error, bodies.streamed
FROM runs JOIN traces ON traces.id = trace_id LEFT JOIN bodies ON bodies.run = runs.id WHERE trace_id = ?
"""


def remove_traces(connection: sqlite3.Connection, traces: Iterable[int]) -> tuple[int, set[int]]:
    """Remove traces by their rows, in the open transaction.

    Return how many runs that were, and the parts of the index that have their words until ``clean_up``.
    """
    rollups, index = Rollups(), Index(connection)
    removed, runs, parts = [], 0, set[int]()
    sessions: set[str | None] = set()
    series: set[Series] = set()
    for trace in traces:
        found = connection.execute("SELECT trace, session FROM traces WHERE id = ?", (trace,)).fetchone()
        if found is None:
            continue
        removed.append(bytes(found[0]))
        sessions.add(found[1])
        rows = connection.execute(_RUNS, (trace,)).fetchall()
        for row in rows:
            run, status, texts = row[0], row[5], row[-4:]
            if status != "open":  # which is neither counted nor in the index yet
                series.add(_take_off(row, rollups))
                parts.add(index.remove(connection, (run, *words_of(*texts))))
        runs += len(rows)
        numbers = [(row[0],) for row in rows]
        for statement in ("DELETE FROM tokens WHERE run = ?", "DELETE FROM bodies WHERE run = ?"):
            connection.executemany(statement, numbers)
        for table, column in (("events", "trace_id"), ("runs", "trace_id"), ("labels", "trace_id"), ("traces", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (trace,))
    rollups.write(connection, {})
    connection.executemany(_FORGET_SERIES, series)
    for session in sessions - {None}:
        connection.execute("DELETE FROM sessions WHERE session = ?", (session,))
        connection.execute(_SESSION_ANEW, (session,))
    connection.execute("UPDATE counters SET removals = removals + 1")
    tell(connection, removed=removed)
    return runs, parts


_FORGET_SERIES: Final = """
DELETE FROM series WHERE project = ? AND model = ? AND name = ? AND kind = ?
AND NOT EXISTS (SELECT 1 FROM rollups WHERE grain = 'all' AND bucket = 0 AND series = series.id)
"""
_SESSION_ANEW: Final = """
INSERT INTO sessions
SELECT session,
    (SELECT user FROM traces AS first WHERE first.session = traces.session AND user IS NOT NULL ORDER BY id LIMIT 1),
    min(started_ns), max(coalesce(ended_ns, started_ns)), count(*), sum(runs), sum(errors), sum(total_tokens), sum(cost),
    sum(priced), sum(unpriced)
FROM traces WHERE session = ? GROUP BY session
"""
"""What a session says of the traces that it still has. Nothing of one that has gone may stay in it, its user included."""


def _take_off(row: tuple[Any, ...], rollups: Rollups) -> Series:
    _, project, model, name, kind, status, started_ns, duration_ns, first_token_ns, *rest = row
    given, told, total, cost, counts, *_ = rest
    series = Series(project, model or "", name, kind)
    rollup = rollups.of(started_ns, series)
    rollup.add_run(duration_ns, first_token_ns, is_error=status == "error", sign=-1)
    if counts:
        rollup.add_usage((given, told, total), cost, -1)
    return series


def clean_up(connection: sqlite3.Connection, path: Path, parts: Iterable[int]) -> None:
    """Make these parts of the index forget what was removed, and the log too.

    In small transactions, so that nobody waits long.
    """
    for part in sorted(parts):
        begin = is_more = True
        while is_more:
            with writing(connection):
                is_more = has_part(connection, part) and merge_part(connection, part, begin=begin)
            begin = False  # or what somebody writes meanwhile would have to be merged, too
            keep_log_short(connection, path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def prune(connection: sqlite3.Connection, retention: Retention, *, budget_s: float = 3600.0) -> Pruned:
    """Remove what is too old or too much, the oldest first, for about ``budget_s`` seconds."""
    deadline = time.monotonic() + budget_s
    parts: set[int] = set()
    if retention.days is not None:
        before_ns = _oldest_kept(retention.days)
        with writing(connection):
            connection.execute("DELETE FROM events WHERE trace_id IS NULL AND time_ns < ?", (before_ns,))
            connection.execute("DELETE FROM processes WHERE closed_ns < ?", (before_ns,))
    while traces := _too_many(connection, retention):
        with writing(connection):
            parts |= remove_traces(connection, traces)[1]
            drop_parts(connection)
        if time.monotonic() > deadline:
            return Pruned(False, parts)
    return Pruned(True, parts)


def _too_many(connection: sqlite3.Connection, retention: Retention) -> list[int]:
    oldest = "SELECT id FROM traces WHERE open = 0 {} ORDER BY id LIMIT ?"
    if retention.days is not None:
        before = _oldest_kept(retention.days) // 1000
        found = connection.execute(oldest.format("AND id < ?"), (before, REMOVED_AT_ONCE)).fetchall()
        if found:
            return [trace for (trace,) in found]
    if retention.size_bytes is not None and _used(connection) > retention.size_bytes:
        return [trace for (trace,) in connection.execute(oldest.format(""), (REMOVED_AT_ONCE,))]
    return []


def _oldest_kept(days: float) -> int:
    now_ns = time.time_ns()
    return now_ns - round(min(days * DAY_NS, now_ns))


def _used(connection: sqlite3.Connection) -> int:
    """Return the bytes that are in use; what is free in the file is used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
