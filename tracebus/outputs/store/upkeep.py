"""Changing a store from outside the process that writes it: ``delete`` and ``prune``.

What they do to the tables is in ``removal``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ...errors import ArgumentError
from .connections import Connection, keep_log_short, open_for_writing, writing
from .files import StoreError, store_path
from .reader import NotFoundError, Reader
from .removal import REMOVED_AT_ONCE, Retention, clean_up, remove_traces
from .removal import prune as prune_traces

__all__ = ["Removed", "delete", "prune"]

Progress = Callable[[int, int], object]


class Removed(NamedTuple):
    """How many traces and how many runs were removed."""

    traces: int
    runs: int


def delete(
    path: str | os.PathLike[str] | None = None,
    *,
    trace: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    progress: Progress | None = None,
) -> Removed:
    """Delete a trace, or all traces with runs of a session or of a user, so that nothing of them is left in the file.

    ``trace`` is its id, or the beginning of one, or ``"@last"``. ``progress(done, of)`` is called with numbers of traces.
    A process that is writing such a trace at this moment does not write the rest of it.

    Raises ArgumentError unless exactly one of the three is given, StoreError, and NotFoundError for a trace that is not
    there.
    """
    if sum(given is not None for given in (trace, session_id, user_id)) != 1:
        raise ArgumentError("say what to delete: one of trace=, session_id= and user_id=")
    file = store_path(path)
    with Reader(file) as reader:
        rows = [reader._trace_row(trace)] if trace is not None else []
    with _opened(file) as connection:
        if trace is None:
            column, value = ("session", session_id) if session_id is not None else ("user", user_id)
            rows = [row for (row,) in connection.execute(_WITH_RUNS_OF.format(column), (value, value))]
        if not rows:
            what = f"session {session_id!r}" if session_id is not None else f"user {user_id!r}"
            raise NotFoundError(f"no trace of the {what} is in {file}")
        runs, parts = 0, set[int]()
        for begin in range(0, len(rows), REMOVED_AT_ONCE):
            with writing(connection):
                removed, touched = remove_traces(connection, rows[begin : begin + REMOVED_AT_ONCE])
            runs += removed
            parts |= touched
            keep_log_short(connection, file)
            if progress is not None:
                progress(min(begin + REMOVED_AT_ONCE, len(rows)), len(rows))
        clean_up(connection, file, parts)
    return Removed(len(rows), runs)


def prune(
    path: str | os.PathLike[str] | None = None, *, keep_days: float | None = None, keep_bytes: int | None = None
) -> Removed:
    """Remove the traces that are older than ``keep_days`` days, and the oldest of what is beyond ``keep_bytes`` bytes.

    Raises ArgumentError when neither is given, and StoreError.
    """
    if keep_days is None and keep_bytes is None:
        raise ArgumentError("say what to keep: keep_days=, keep_bytes= or both")
    file = store_path(path)
    with Reader(file) as reader:
        before = reader.info()
    with _opened(file) as connection:
        clean_up(connection, file, prune_traces(connection, Retention(keep_days, keep_bytes)).parts)
    with Reader(file) as reader:
        after = reader.info()
    return Removed(max(0, before.traces - after.traces), max(0, before.runs - after.runs))


_WITH_RUNS_OF: Final = """
SELECT id FROM traces WHERE {0} = ? UNION SELECT trace_id FROM runs WHERE {0} = ? ORDER BY 1
"""


@contextmanager
def _opened(file: Path) -> Iterator[Connection]:
    connection = open_for_writing(file)
    try:
        yield connection
    except sqlite3.Error as error:
        raise StoreError(f"the store {file} cannot be changed: {error}") from error
    finally:
        connection.close()
