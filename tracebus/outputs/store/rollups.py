"""Statistics that are kept while runs are written, so that nobody has to read the runs for them.

For each hour, each day and all time there is a row by project, model, name and kind; what is in one can be added to
another, and taken away again when runs are deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from . import histograms
from .histograms import Buckets, bucket_of

__all__ = ["GRAINS", "Rollup", "Rollups", "Series"]

GRAINS: Final = {"hour": 3600, "day": 86_400, "all": 0}
"""How long a bucket is, in seconds; the one of all time is 0."""


class Series(NamedTuple):
    """What a row of statistics is about."""

    project: str
    model: str
    name: str
    kind: str


class Rollup:
    """The sums of some runs."""

    __slots__ = ("cost", "duration_ns", "errors", "first_token", "latency", "priced", "runs", "streams", "tokens", "unpriced")

    def __init__(self) -> None:
        self.runs = self.errors = self.duration_ns = self.streams = 0
        self.tokens = (0, 0, 0)
        self.cost = 0.0
        self.priced = self.unpriced = 0
        self.latency: Buckets = {}
        self.first_token: Buckets = {}

    def add_run(self, duration_ns: int | None, first_token_ns: int | None, *, is_error: bool, sign: int = 1) -> None:
        """Add a run, or with -1 take it away."""
        self.runs += sign
        self.errors += sign * is_error
        if duration_ns is not None:
            self.duration_ns += sign * duration_ns
            _count(self.latency, bucket_of(duration_ns), sign)
        if first_token_ns is not None:
            self.streams += sign
            _count(self.first_token, bucket_of(first_token_ns), sign)

    def add_usage(self, tokens: Iterable[int | None], cost: float | None, sign: int = 1) -> None:
        """Add what a run used: input, output and total tokens, and US dollars; or take it away."""
        self._add_tokens(tokens, sign)
        if cost is None:
            self.unpriced += sign
        else:
            self.cost += sign * cost
            self.priced += sign

    def add(self, more: Rollup) -> None:
        """Add the sums of other runs."""
        self.runs += more.runs
        self.errors += more.errors
        self.duration_ns += more.duration_ns
        self.streams += more.streams
        self._add_tokens(more.tokens, 1)
        self.cost += more.cost
        self.priced += more.priced
        self.unpriced += more.unpriced
        for total, buckets in ((self.latency, more.latency), (self.first_token, more.first_token)):
            for bucket, count in buckets.items():
                _count(total, bucket, count)

    def _add_tokens(self, tokens: Iterable[int | None], sign: int) -> None:
        self.tokens = tuple(have + sign * (more or 0) for have, more in zip(self.tokens, tokens, strict=True))  # type: ignore[assignment]


def _count(buckets: Buckets, bucket: int, more: int) -> None:
    # Not histograms.add: what is taken away here may be in the table, so it must not stop at nothing.
    buckets[bucket] = buckets.get(bucket, 0) + more


class Rollups:
    """What one transaction adds to the statistics."""

    def __init__(self) -> None:
        self._hours: dict[tuple[int, Series], Rollup] = {}

    def of(self, started_ns: int, series: Series) -> Rollup:
        """Return the sums of the hour in which a run started."""
        hour = started_ns // 3_600_000_000_000 * 3600
        found = self._hours.get((hour, series))
        if found is None:
            found = self._hours[hour, series] = Rollup()
        return found

    def write(self, connection: sqlite3.Connection, numbers: dict[Series, int]) -> None:
        """Add the sums to the tables; ``numbers`` remembers those of the series."""
        sums: dict[tuple[str, int, int], Rollup] = {}
        for (hour, series), rollup in self._hours.items():
            number = numbers.get(series)
            if number is None:
                number = numbers[series] = _number_of(connection, series)
            for grain, seconds in GRAINS.items():
                key = grain, hour - hour % seconds if seconds else 0, number
                sums.setdefault(key, Rollup()).add(rollup)
        for key, total in sums.items():
            _merge(connection, key, total)


def _number_of(connection: sqlite3.Connection, series: Series) -> int:
    connection.execute("INSERT OR IGNORE INTO series (project, model, name, kind) VALUES (?, ?, ?, ?)", series)
    query = "SELECT id FROM series WHERE project = ? AND model = ? AND name = ? AND kind = ?"
    return int(connection.execute(query, series).fetchone()[0])


_KEY: Final = "grain = ? AND bucket = ? AND series = ?"
_INSERT: Final = f"INSERT INTO rollups VALUES ({', '.join('?' * 15)})"
_UPDATE: Final = f"""
UPDATE rollups SET runs = runs + ?, errors = errors + ?, duration_ns = duration_ns + ?, streams = streams + ?,
    input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, total_tokens = total_tokens + ?,
    cost = cost + ?, priced = priced + ?, unpriced = unpriced + ?, latency = ?, first_token = ?
WHERE {_KEY}
"""


def _merge(connection: sqlite3.Connection, key: tuple[str, int, int], more: Rollup) -> None:
    found = connection.execute(f"SELECT runs, latency, first_token FROM rollups WHERE {_KEY}", key).fetchone()
    sums = (
        more.runs,
        more.errors,
        more.duration_ns,
        more.streams,
        *more.tokens,
        more.cost,
        more.priced,
        more.unpriced,
    )
    if found is None:
        connection.execute(_INSERT, (*key, *sums, histograms.pack(more.latency), histograms.pack(more.first_token)))
        return
    runs, *packed = found
    if runs + more.runs <= 0 and more.runs < 0:
        connection.execute(f"DELETE FROM rollups WHERE {_KEY}", key)
        return
    merged = []
    for before, added in zip(packed, (more.latency, more.first_token), strict=True):
        buckets = histograms.unpack(before)
        histograms.add(buckets, added)
        merged.append(histograms.pack(buckets))
    connection.execute(_UPDATE, (*sums, *merged, *key))
