"""The index of words: in parts, each a full-text table of its own for runs that were numbered one after another.

A search begins in the newest part, and mostly ends there; what it costs to write does not grow with the store, because what
is merged is one part at most; and a part goes as a whole when the last of its runs has gone. A part that is full is merged
into one piece little by little, since a word has to be looked for in every piece.
"""

from __future__ import annotations

import itertools
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

__all__ = ["PARTS_BELOW", "Index", "Words", "drop_parts", "has_part", "merge_full_part", "merge_part"]

PART_RUNS: Final = 131_072
MERGED_PAGES: Final = 500
PIECES: Final = 16
"""How many pieces of like size are merged into one while a part is written."""

Words = tuple[int, str, str, str]
"""The number of a run, and the words of its inputs, its output and its error."""

PARTS_BELOW: Final = "SELECT first FROM search_parts WHERE first < ? ORDER BY first DESC"
"""The parts that can have runs numbered below one, the newest first."""

_NEW_PART: Final = """
CREATE VIRTUAL TABLE search_{part} USING fts5 (
    input, output, error, content = '', tokenize = "unicode61 remove_diacritics 2"
)
"""


class Index:
    """Writes words into the parts of a store. Parts are only added, until something is deleted."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._parts: list[int] = [part for (part,) in connection.execute("SELECT first FROM search_parts ORDER BY first")]

    def has_room(self, run: int) -> bool:
        """Return whether a new run goes into the newest part that is known here."""
        return run < self._parts[-1] + PART_RUNS

    def begin_part(self, connection: sqlite3.Connection, run: int) -> None:
        """Begin a part with ``run``, which nothing in the store is numbered beyond."""
        connection.execute("INSERT INTO search_parts (first) VALUES (?)", (run,))
        connection.execute(_NEW_PART.format(part=run))
        connection.execute(f"INSERT INTO search_{run} (search_{run}, rank) VALUES ('automerge', ?)", (PIECES,))
        self._parts.append(run)

    def part_of(self, run: int) -> int:
        """Return the part in which a run is, or will be: the number that it begins with."""
        return self._parts[bisect_right(self._parts, run) - 1]

    def add(self, connection: sqlite3.Connection, runs: Iterable[Words]) -> None:
        """Put runs into the index."""
        by_part: dict[int, list[Words]] = {}
        for run in runs:
            by_part.setdefault(self.part_of(run[0]), []).append(run)
        for part, some in by_part.items():
            connection.executemany(f"INSERT INTO search_{part} (rowid, input, output, error) VALUES (?, ?, ?, ?)", some)

    def remove(self, connection: sqlite3.Connection, run: Words) -> int:
        """Take a run out, with just the words that it was put in with; return the part, which has them until it is merged."""
        part = self.part_of(run[0])
        columns = f"(search_{part}, rowid, input, output, error)"
        connection.execute(f"INSERT INTO search_{part} {columns} VALUES ('delete', ?, ?, ?, ?)", run)
        return part


def has_part(connection: sqlite3.Connection, part: int) -> bool:
    """Return whether a part is there: it may have been dropped, by whomever."""
    return connection.execute("SELECT 1 FROM search_parts WHERE first = ?", (part,)).fetchone() is not None


def merge_part(connection: sqlite3.Connection, part: int, *, begin: bool) -> bool:
    """Merge some pages of a part, in the open transaction; return False when there was nothing to merge.

    To ``begin`` is to take all pieces that there are now, and what was removed from them: the negative number of
    https://sqlite.org/fts5.html, "The 'merge' Command", as the two changes are by which to know that something was done.
    """
    before = connection.total_changes
    pages = -MERGED_PAGES if begin else MERGED_PAGES
    connection.execute(f"INSERT INTO search_{part} (search_{part}, rank) VALUES ('merge', ?)", (pages,))
    return connection.total_changes - before >= 2


def merge_full_part(connection: sqlite3.Connection) -> None:
    """Merge some pages of the oldest part that is full and not yet one piece, in the open transaction."""
    found = connection.execute(
        "SELECT first FROM search_parts WHERE NOT is_merged AND first < (SELECT max(first) FROM search_parts) LIMIT 1"
    ).fetchone()
    if found is not None and not merge_part(connection, found[0], begin=True):
        connection.execute("UPDATE search_parts SET is_merged = 1 WHERE first = ?", found)


def drop_parts(connection: sqlite3.Connection) -> None:
    """Drop the parts none of whose runs is in the store any more, in the open transaction."""
    oldest = connection.execute("SELECT coalesce((SELECT min(id) FROM runs), next_run) FROM counters").fetchone()[0]
    parts = [part for (part,) in connection.execute("SELECT first FROM search_parts ORDER BY first")]
    for part, following in itertools.pairwise(parts):
        if following <= oldest:
            connection.execute(f"DROP TABLE search_{part}")
            connection.execute("DELETE FROM search_parts WHERE first = ?", (part,))
            connection.execute("UPDATE counters SET removals = removals + 1")
