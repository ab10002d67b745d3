"""A trace's tree, walked from any of its runs onwards without reading what comes before."""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["walk"]

_CHILDREN: Final = """
SELECT id, span, started_ns FROM runs
WHERE trace_id = ? AND parent = ? AND (started_ns, id) > (?, ?) ORDER BY started_ns, id LIMIT ?
"""
# A run whose parent its own process did not see is at the top, unless the parent is in the store after all.
_TOPS: Final = """
SELECT id, span, started_ns FROM runs
WHERE trace_id = ? AND top = 1 AND (started_ns, id) > (?, ?)
    AND (parent IS NULL OR NOT EXISTS (
        SELECT 1 FROM runs AS above WHERE above.trace_id = runs.trace_id AND above.span = runs.parent AND above.id != runs.id
    ))
ORDER BY started_ns, id LIMIT ?
"""
_ABOVE: Final = "SELECT id, span, parent, started_ns FROM runs WHERE trace_id = ? AND {} = ?"
DEEPEST: Final = 100_000

_FIRST: Final = (-(2**63), 0)


class _Level:
    """The children of one run, read a few at a time; of None, the runs at the top."""

    def __init__(self, parent: int | None, after: tuple[int, int] = _FIRST) -> None:
        self.parent = parent
        self.after = after


def walk(connection: sqlite3.Connection, trace: int, *, after: int, limit: int) -> list[tuple[int, int, bool]]:
    """Return up to ``limit`` runs behind the run numbered ``after``, 0 for the first: each with its depth, 0-based, and
    whether runs are below it.
    """
    levels = [_Level(None)] if after == 0 else _levels_above(connection, trace, after)
    found: list[tuple[int, int, bool]] = []
    waiting: list[list[tuple[int, int, int]]] = [[] for _ in levels]
    while levels and len(found) < limit:
        if not waiting[-1]:
            waiting[-1] = _read(connection, trace, levels[-1], limit - len(found))
        if not waiting[-1]:
            levels.pop()
            waiting.pop()
            continue
        run, span, started_ns = waiting[-1].pop()
        levels[-1].after = started_ns, run
        below = _Level(span)
        children = _read(connection, trace, below, limit - len(found)) if len(levels) < DEEPEST else []
        found.append((run, len(levels) - 1, bool(children)))
        if children:
            levels.append(below)
            waiting.append(children)
    return found


def _read(connection: sqlite3.Connection, trace: int, level: _Level, most: int) -> list[tuple[int, int, int]]:
    """Return the next runs of a level, the first of them last."""
    if level.parent is None:
        rows = connection.execute(_TOPS, (trace, *level.after, most)).fetchall()
    else:
        rows = connection.execute(_CHILDREN, (trace, level.parent, *level.after, most)).fetchall()
    rows.reverse()
    return rows


def _levels_above(connection: sqlite3.Connection, trace: int, run: int) -> list[_Level]:
    """Return the levels that are still to be walked behind a run: its children, its later siblings, those of its parent, …"""
    row = connection.execute(_ABOVE.format("id"), (trace, run)).fetchone()
    if row is None:
        return []
    levels = [_Level(row[1])]
    seen: set[int] = set()
    while row is not None and row[0] not in seen:
        number, _, parent, started_ns = row
        seen.add(number)
        above = None if parent is None else connection.execute(_ABOVE.format("span"), (trace, parent)).fetchone()
        levels.append(_Level(None if above is None or above[0] in seen else parent, (started_ns, number)))
        row = above
    levels.reverse()
    return levels
