"""Questions about many runs at once, answered from the sums that are kept in ``rollups``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from ...errors import ArgumentError
from . import histograms
from .answers import Point, Statistic
from .filters import By
from .histograms import Buckets
from .rollups import GRAINS

__all__ = ["Grain", "points", "statistics"]

Grain: TypeAlias = Literal["hour", "day"]
_COLUMNS: Final[tuple[str, ...]] = get_args(By)
_HOUR: Final = GRAINS["hour"]
_DAY: Final = GRAINS["day"]
_SECOND_NS: Final = 10**9


class _Span(NamedTuple):
    """The buckets of one grain from a time on, to another, in seconds since the epoch."""

    grain: str
    begin: int
    end: int


class _Sum:
    """Rows added up."""

    def __init__(self) -> None:
        self.sums = [0.0] * 10
        self.latency: Buckets = {}
        self.first_token: Buckets = {}

    def add(self, row: Sequence[Any]) -> None:
        *sums, latency, first_token = row
        self.sums = [have + more for have, more in zip(self.sums, sums, strict=True)]
        histograms.add(self.latency, histograms.unpack(latency))
        histograms.add(self.first_token, histograms.unpack(first_token))

    def statistic(self, key: dict[str, str | None]) -> Statistic:
        runs, errors, duration_ns, _, given, told, total, cost, priced, unpriced = self.sums
        timed = sum(self.latency.values())
        p50, p95, p99 = histograms.percentile(self.latency, (0.5, 0.95, 0.99))
        first_p50, first_p95 = histograms.percentile(self.first_token, (0.5, 0.95))
        return Statistic(
            key.get("project"),
            key.get("model"),
            key.get("name"),
            key.get("kind"),
            int(runs),
            int(errors),
            duration_ns / timed if timed else None,
            p50,
            p95,
            p99,
            first_p50,
            first_p95,
            int(given),
            int(told),
            int(total),
            cost if priced else None,
            unpriced > 0,
        )


def statistics(
    connection: sqlite3.Connection, by: Sequence[str], since_ns: int | None, until_ns: int | None, only: dict[str, str]
) -> list[Statistic]:
    """Return a row for each combination of ``by``; most runs first."""
    groups: dict[tuple[str, ...], _Sum] = {}
    _check(by, only)
    for span in _spans(since_ns, until_ns):
        for key, _, row in _rows(connection, span, by, only):
            groups.setdefault(key, _Sum()).add(row)
    ordered = sorted(groups.items(), key=lambda group: (-group[1].sums[0], group[0]))
    return [one.statistic(_named(by, key)) for key, one in ordered]


def points(
    connection: sqlite3.Connection,
    by: Sequence[str],
    grain: Grain,
    since_ns: int | None,
    until_ns: int | None,
    only: dict[str, str],
) -> list[Point]:
    """Return a row for each hour or day and each combination of ``by``; the earliest first."""
    if grain not in get_args(Grain):
        raise ArgumentError(f"unknown grain {grain!r}: choose one of {', '.join(get_args(Grain))}")
    _check(by, only)
    groups: dict[tuple[int, tuple[str, ...]], _Sum] = {}
    span = _Span(grain, _floor(since_ns, GRAINS[grain], 0), _ceiling(until_ns))
    for key, bucket, row in _rows(connection, span, by, only):
        groups.setdefault((bucket, key), _Sum()).add(row)
    return [Point(bucket * _SECOND_NS, groups[bucket, key].statistic(_named(by, key))) for bucket, key in sorted(groups)]


def _check(by: Iterable[str], only: Iterable[str]) -> None:
    for name in (*by, *only):
        if name not in _COLUMNS:
            raise ArgumentError(f"there are no statistics by {name!r}: choose from {', '.join(_COLUMNS)}")


def _named(by: Sequence[str], key: tuple[str, ...]) -> dict[str, str | None]:
    return {name: value or None for name, value in zip(by, key, strict=True)}


def _spans(since_ns: int | None, until_ns: int | None) -> Iterator[_Span]:
    """Yield what to add up: all time in one, else whole days with the hours at both ends."""
    if since_ns is None and until_ns is None:
        yield _Span("all", 0, 1)
        return
    begin, end = _floor(since_ns, _HOUR, 0), _ceiling(until_ns)
    first_day, last_day = -(-begin // _DAY) * _DAY, end - end % _DAY
    if first_day >= last_day:
        yield _Span("hour", begin, end)
        return
    yield _Span("hour", begin, first_day)
    yield _Span("day", first_day, last_day)
    yield _Span("hour", last_day, end)


def _floor(time_ns: int | None, seconds: int, without: int) -> int:
    return without if time_ns is None else time_ns // _SECOND_NS // seconds * seconds


def _ceiling(time_ns: int | None) -> int:
    return 2**40 if time_ns is None else -(-time_ns // (_SECOND_NS * _HOUR)) * _HOUR


def _rows(
    connection: sqlite3.Connection, span: _Span, by: Sequence[str], only: dict[str, str]
) -> Iterator[tuple[tuple[str, ...], int, Sequence[Any]]]:
    wanted = "".join(f" AND {name} = ?" for name in only)
    sql = f"""
    SELECT {"".join(f"{name}, " for name in by)} bucket, runs, errors, duration_ns, streams, input_tokens, output_tokens,
        total_tokens, cost, priced, unpriced, latency, first_token
    FROM rollups JOIN series ON series.id = series WHERE grain = ? AND bucket >= ? AND bucket < ? {wanted}
    """
    for row in connection.execute(sql, (span.grain, span.begin, span.end, *only.values())).fetchall():
        yield tuple(row[: len(by)]), row[len(by)], row[len(by) + 1 :]
