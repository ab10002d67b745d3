"""Reading a store: the questions of the terminal and of the viewer, each answered in one short transaction.

What is answered is in ``answers``, what can be asked for in ``filters``; trees are walked in ``trees``, sums taken in
``statistics``. What changes a store is in ``upkeep``.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from ...errors import ArgumentError
from .answers import (
    Changes,
    Choices,
    Found,
    Info,
    Page,
    Point,
    PriceList,
    Process,
    RunBody,
    RunDetail,
    RunEvent,
    RunSummary,
    Session,
    Statistic,
    Step,
    TraceSummary,
    TreeRow,
)
from .connections import PerThread, open_for_reading, reading
from .files import StoreError, size_of, store_path
from .filters import By, Filter, search_words, where_runs, where_traces
from .index import PARTS_BELOW
from .lost import look_for_the_dead
from .passages import Search, phrases_of
from .rows import price_list, signed
from .shapes import (
    CONTENTS,
    EVENTS,
    RUN,
    RUN_FROM,
    SESSION,
    TRACE,
    digits_of,
    error_of,
    run_of,
    session_of,
    trace_of,
    value_of,
    words_of,
)
from .statistics import Grain, points, statistics
from .steps import unpack
from .trees import walk

__all__ = ["AmbiguousError", "NotFoundError", "Reader", "every", "every_run"]

T = TypeVar("T")

TOLD_AT_ONCE: Final = 500
"""How many traces and how many runs one answer of ``changes`` holds, at most."""
TOLD_APART: Final = 5
"""How many traces are named to someone whose prefix means several."""
_unpack: Final = msgspec.msgpack.Decoder().decode


class NotFoundError(StoreError, LookupError):
    """Say that a trace, a run or a session is not in the store, or that a prefix means several."""


class AmbiguousError(NotFoundError, ArgumentError):
    """Say which ones a prefix means."""


class Reader:
    """A store that is read, by any number of threads. Close it, or use it as a context manager.

    What is asked for is a trace's id, with or without dashes, or the beginning of one, or ``"@last"``; of a run the
    16 digits of its span, its UUID, or the beginning of the former. Lists come in pages: give ``after`` of one to get the
    next. Filters are given as a ``Filter``, by field name, or both.

    Raises StoreError when there is no store, or one that this tracebus cannot read; NotFoundError for what is not in it;
    ArgumentError for a question that makes no sense.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path: Path = store_path(path)
        self._connections = PerThread(partial(open_for_reading, self.path))
        self.look_for_the_dead()

    def look_for_the_dead(self) -> int:
        """Mark the runs of processes that have died meanwhile as ``lost``; return how many. Opening does so, too."""
        return look_for_the_dead(self.path, self._connections.get())

    def close(self) -> None:
        """Close the connections of all threads."""
        self._connections.close()

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connections.get().execute(sql, values).fetchall()
        except OverflowError:
            raise ArgumentError("a number in the question is larger than any that a store holds") from None
        except sqlite3.DatabaseError as error:
            raise StoreError(f"the store {self.path} cannot be read: {error}") from error

    # -- traces --------------------------------------------------------------------------------------------------------

    def traces(
        self,
        wanted: Filter | None = None,
        *,
        limit: int = 50,
        after: str | None = None,
        oldest_first: bool = False,
        **fields: Any,
    ) -> Page[TraceSummary]:
        """Return traces, the latest first."""
        condition = where_traces(Filter.of(wanted, **fields))
        source, order = "traces", "traces.id"
        if condition.by_label:
            source, order = "labels CROSS JOIN traces ON traces.id = labels.trace_id", "labels.trace_id"
        beyond, direction, first = (">", "ASC", 0) if oldest_first else ("<", "DESC", 2**63 - 1)
        rows = self._rows(
            f"SELECT {TRACE} FROM {source} WHERE {condition.sql} AND {order} {beyond} ? ORDER BY {order} {direction} LIMIT ?",
            (*condition.values, _key(after, first), _checked(limit) + 1),
        )
        return _page([(trace_of(row), row[0]) for row in rows], limit)

    def trace(self, trace: str) -> TraceSummary:
        """Return one trace with its totals."""
        return trace_of(self._rows(f"SELECT {TRACE} FROM traces WHERE id = ?", (self._trace_row(trace),))[0])

    def resolve(self, trace: str) -> str:
        """Return the whole id of the trace that is meant."""
        return self.trace(trace).trace_id

    def _trace_row(self, given: str) -> int:
        if given == "@last":
            rows = self._rows("SELECT id FROM traces ORDER BY id DESC LIMIT 1")
            if not rows:
                raise NotFoundError(f"the store {self.path} holds no trace yet")
            return int(rows[0][0])
        low, high = _range_of(given, 16)
        rows = self._rows(
            "SELECT id, trace FROM traces WHERE trace BETWEEN ? AND ? ORDER BY trace LIMIT ?", (low, high, TOLD_APART)
        )
        if not rows:
            raise NotFoundError(f"no trace {given!r} is in {self.path}: `tracebus ls` lists those that are")
        if len(rows) > 1:
            shown = ", ".join(bytes(row[1]).hex() for row in rows)
            raise AmbiguousError(f"several traces begin with {given!r}, such as {shown}: give more of the id")
        return int(rows[0][0])

    # -- runs ----------------------------------------------------------------------------------------------------------

    def tree(self, trace: str, *, limit: int = 500, after: str | None = None) -> Page[TreeRow]:
        """Return the runs of a trace as its tree shows them: each before those below it, siblings by their start."""
        number, key = self._trace_row(trace), _key(after, 0)
        connection = self._connections.get()
        with reading(connection):
            found = walk(connection, number, after=key, limit=_checked(limit) + 1)
            runs = self._runs_by_number([run for run, _, _ in found])
        rows = [(TreeRow(runs[run], depth, has_children), run) for run, depth, has_children in found if run in runs]
        return _page(rows, limit)

    def runs(
        self,
        wanted: Filter | None = None,
        *,
        trace: str | None = None,
        limit: int = 50,
        after: str | None = None,
        **fields: Any,
    ) -> Page[RunSummary]:
        """Return runs of all traces or of one, the latest first."""
        condition = where_runs(Filter.of(wanted, **fields))
        within, values = ("AND trace_id = ?", [self._trace_row(trace)]) if trace is not None else ("", [])
        rows = self._rows(
            f"SELECT {RUN} {RUN_FROM} WHERE {condition.sql} {within} AND runs.id < ? ORDER BY runs.id DESC LIMIT ?",
            (*condition.values, *values, _key(after, 2**63 - 1), _checked(limit) + 1),
        )
        return _page([(run_of(row), row[0]) for row in rows], limit)

    def failures(self, trace: str) -> list[RunSummary]:
        """Return the runs of a trace that have failed, by their start."""
        number = self._trace_row(trace)
        sql = f"SELECT {RUN} {RUN_FROM} WHERE runs.trace_id = ? AND runs.status = 'error' ORDER BY runs.started_ns, runs.id"
        return [run_of(row) for row in self._rows(sql, (number,))]

    def open_runs(self, limit: int = 500) -> list[RunSummary]:
        """Return the runs that are in flight, the latest first, with their tokens so far."""
        sql = f"SELECT {RUN} {RUN_FROM} WHERE runs.status = 'open' ORDER BY runs.id DESC LIMIT ?"
        return [run_of(row) for row in self._rows(sql, (_checked(limit),))]

    def run(self, trace: str, run: str | None = None) -> RunDetail:
        """Return everything that is known of a run; of a trace's root without ``run``."""
        connection = self._connections.get()
        number = self._run_row(trace, run)
        with reading(connection):
            found = self._rows(f"SELECT {RUN} {RUN_FROM} WHERE runs.id = ?", (number,))
            if not found:
                raise NotFoundError(f"the run {run} of the trace {trace} was deleted meanwhile")
            summary = run_of(found[0])
            body = self._body_of(number)
            steps = self._steps_of(number, body)
            events = self._rows(EVENTS, (number, number))
        return RunDetail(summary, body, steps, [RunEvent(time, hook, json.loads(data)) for time, hook, data in events])

    def run_summary(self, trace: str, run: str | None = None) -> RunSummary:
        """Return what lists show of a run; of a trace's root without ``run``."""
        number = self._run_row(trace, run)
        found = self._runs_by_number([number])
        if not found:
            raise NotFoundError(f"the run {run} of the trace {trace} was deleted meanwhile")
        return found[number]

    def bodies(self, trace: str, runs: Iterable[str]) -> dict[str, RunBody]:
        """Return the bodies of some runs of a trace, by span."""
        return {run: self._body_of(self._run_row(trace, run)) for run in runs}

    def fingerprints(self, trace: str) -> dict[str, int]:
        """Return a number for each run of a trace, by span: the same for two whose inputs and output are the same."""
        connection = self._connections.get()
        with reading(connection):
            rows = connection.execute(CONTENTS, (self._trace_row(trace),))
            return {digits_of(span): hash(tuple(content)) for span, *content in rows}

    def _run_row(self, trace: str, given: str | None) -> int:
        number = self._trace_row(trace)
        if given is None:
            rows = self._rows("SELECT root FROM traces WHERE id = ? AND root IS NOT NULL", (number,))
            rows = rows or self._rows("SELECT min(id) FROM runs WHERE trace_id = ?", (number,))
            return int(rows[0][0])
        text = given.replace("-", "")
        low, high = (int.from_bytes(key) for key in _range_of(text[-16:] if len(text) == 32 else text, 8))
        # Spans are held as signed numbers: a range that begins below 2**63 ends there, too.
        spans = (signed(low), signed(high)) if text else (-(2**63), 2**63 - 1)
        rows = self._rows("SELECT id FROM runs WHERE trace_id = ? AND span BETWEEN ? AND ? LIMIT 2", (number, *spans))
        if len(rows) != 1:
            what, kind = ("no run", NotFoundError) if not rows else ("more than one run", AmbiguousError)
            raise kind(f"{what} of the trace {trace} has an id that begins with {given!r}: `tracebus show` lists them")
        return int(rows[0][0])

    def _runs_by_number(self, numbers: list[int]) -> dict[int, RunSummary]:
        found: dict[int, RunSummary] = {}
        for begin in range(0, len(numbers), 500):
            some = numbers[begin : begin + 500]
            marks = ", ".join("?" * len(some))
            rows = self._rows(f"SELECT {RUN} {RUN_FROM} WHERE runs.id IN ({marks})", some)
            found.update((row[0], run_of(row)) for row in rows)
        return found

    def _body_of(self, number: int) -> RunBody:
        rows = self._rows("SELECT inputs, output, error, metadata, streamed FROM bodies WHERE run = ?", (number,))
        inputs, output, error, metadata, streamed = rows[0] if rows else (None,) * 5
        told = value_of(output)
        if streamed is None and isinstance(told, str):
            has_tokens = self._rows("SELECT 1 FROM tokens WHERE run = ? LIMIT 1", (number,))
            streamed = told if has_tokens else None
        known = value_of(metadata)
        return RunBody(value_of(inputs), told, error_of(value_of(error)), known if isinstance(known, dict) else {}, streamed)

    def _steps_of(self, number: int, body: RunBody) -> list[Step]:
        steps, at_ns, position = [], 0, 0
        text = body.streamed or ""
        for (packed,) in self._rows("SELECT steps FROM tokens WHERE run = ? ORDER BY chunk", (number,)):
            for microseconds, characters in unpack(packed):
                at_ns += microseconds * 1000
                steps.append(Step(at_ns, text[position : position + characters]))
                position += characters
        return steps

    # -- search --------------------------------------------------------------------------------------------------------

    def search(
        self, text: str, wanted: Filter | None = None, *, limit: int = 50, after: str | None = None, **fields: Any
    ) -> Page[Found]:
        """Return the runs whose inputs, output or error have all words of ``text``, the latest first, and where they do.

        Words in quotes must stand next to one another; a word that ends with ``*`` may go on. A run can be found once it
        has ended.
        """
        condition = where_runs(Filter.of(wanted, **fields))
        phrases = phrases_of(text)
        words, below, wanted_rows = search_words(phrases), _key(after, 2**63 - 1), _checked(limit) + 1
        rows: list[Any] = []
        with reading(self._connections.get()):
            for (part,) in self._rows(PARTS_BELOW, (below,)):
                rows += self._rows(
                    f"""SELECT {RUN} FROM search_{part} AS part CROSS JOIN runs ON runs.id = part.rowid
                    CROSS JOIN traces ON traces.id = runs.trace_id
                    WHERE search_{part} MATCH ? AND part.rowid < ? AND {condition.sql} ORDER BY part.rowid DESC LIMIT ?""",
                    (words, below, *condition.values, wanted_rows - len(rows)),
                )
                if len(rows) == wanted_rows:
                    break
            shown, search = _page([(row, row[0]) for row in rows], limit), Search(phrases)
            return Page([self._found_of(row, search) for row in shown], shown.after)

    def _found_of(self, row: tuple[Any, ...], search: Search) -> Found:
        found = self._rows("SELECT inputs, output, error, streamed FROM bodies WHERE run = ?", (row[0],))
        given, told, failure = words_of(*found[0]) if found else ("", "", "")
        passage = search.best_of([("error", failure), ("output", told), ("input", given)])
        return Found(**msgspec.structs.asdict(run_of(row)), found_in=passage.found_in, passage=passage.text)

    # -- sessions and statistics ---------------------------------------------------------------------------------------

    def sessions(self, *, user_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[Session]:
        """Return conversations, the one that went on last first."""
        last, _, session = (after or f"{2**63 - 1}:").partition(":")
        user, values = ("AND user = ?", [user_id]) if user_id is not None else ("", [])
        rows = self._rows(
            f"SELECT {SESSION} FROM sessions WHERE (last_ns, session) < (?, ?) {user} "
            "ORDER BY last_ns DESC, session DESC LIMIT ?",
            (_key(last, 0), session, *values, _checked(limit) + 1),
        )
        found = [session_of(row) for row in rows]
        more = f"{found[limit - 1].last_ns}:{found[limit - 1].session_id}" if len(found) > limit else None
        return Page(found[:limit], more)

    def session(self, session_id: str) -> Session:
        """Return one conversation with its totals; its traces are ``traces(session_id=…)``."""
        rows = self._rows(f"SELECT {SESSION} FROM sessions WHERE session = ?", (session_id,))
        if not rows:
            raise NotFoundError(f"no session {session_id!r} is in {self.path}")
        return session_of(rows[0])

    def statistics(self, *by: By, since_ns: int | None = None, until_ns: int | None = None, **only: str) -> list[Statistic]:
        """Return the statistics of runs by ``"model"``, ``"name"``, ``"kind"`` or ``"project"``, or several; most runs first.

        ``only`` chooses by the same four. Times are taken to the full hour around them.
        """
        connection = self._connections.get()
        with reading(connection):
            return statistics(connection, by, since_ns, until_ns, only)

    def points(
        self,
        *by: By,
        grain: Grain = "hour",
        since_ns: int | None = None,
        until_ns: int | None = None,
        **only: str,
    ) -> list[Point]:
        """Return the same over time: a point for each hour or day that has runs, the earliest first."""
        connection = self._connections.get()
        with reading(connection):
            return points(connection, by, grain, since_ns, until_ns, only)

    # -- what is new, and what there is --------------------------------------------------------------------------------

    def cursor(self) -> int:
        """Return where ``changes`` begins for what is written from now on."""
        return int(self._rows("SELECT tick FROM counters")[0][0])

    def changes(self, since: int) -> Changes:
        """Return what was written since a cursor. It costs next to nothing when that is nothing: ask often."""
        connection = self._connections.get()
        with reading(connection):
            cursor = self.cursor()
            if cursor == since:
                return Changes(cursor, [], [], [], True)
            ticks = self._rows("SELECT tick, traces, runs, removed FROM changes WHERE tick > ? ORDER BY tick", (since,))
            traces, runs, removed = set[int](), set[int](), list[bytes]()
            for _, changed_traces, changed_runs, gone in ticks:
                traces.update(_unpack(changed_traces))
                runs.update(_unpack(changed_runs))
                removed += _unpack(gone)
            is_complete = len(ticks) == cursor - since and max(len(traces), len(runs)) <= TOLD_AT_ONCE
            told_traces = self._traces_by_number(sorted(traces)[-TOLD_AT_ONCE:])
            told_runs = self._runs_by_number(sorted(runs)[-TOLD_AT_ONCE:])
        return Changes(
            cursor,
            told_traces,
            [told_runs[number] for number in sorted(told_runs)],
            [trace.hex() for trace in removed],
            is_complete,
        )

    def _traces_by_number(self, numbers: list[int]) -> list[TraceSummary]:
        marks = ", ".join("?" * len(numbers))
        rows = self._rows(f"SELECT {TRACE} FROM traces WHERE id IN ({marks}) ORDER BY id", numbers)
        return [trace_of(row) for row in rows]

    def processes(self, limit: int = 100) -> list[Process]:
        """Return the processes that wrote the store, the latest first, with what each could not keep."""
        sql = "SELECT pid, program, project, opened_ns, closed_ns, lost, dropped FROM processes ORDER BY id DESC LIMIT ?"
        rows = self._rows(sql, (_checked(limit),))
        return [
            Process(pid, program, project, opened_ns, closed_ns, lost, json.loads(dropped))
            for pid, program, project, opened_ns, closed_ns, lost, dropped in rows
        ]

    def price_list(self) -> PriceList | None:
        """Return which prices the costs of runs written here come from; None where no price list is installed."""
        return price_list()

    def choices(self) -> Choices:
        """Return what there is to filter by, each in alphabetical order."""
        columns = ("project", "kind", "model", "name")
        found = {
            name: [value for (value,) in self._rows(f"SELECT DISTINCT {name} FROM series WHERE {name} != '' ORDER BY 1")]
            for name in columns
        }
        labels = {label: self._label_values(label) for label in ("tag", "status")}
        statuses = sorted({"ok", "open", *labels["status"]})
        return Choices(found["project"], found["kind"], found["model"], found["name"], labels["tag"], statuses)

    def _label_values(self, label: str) -> list[str]:
        # From one value to the next by key: there are few values, and a row for each trace.
        values: list[str] = []
        query = "SELECT value FROM labels WHERE label = ? AND value > ? ORDER BY value LIMIT 1"
        while len(values) < TOLD_AT_ONCE and (rows := self._rows(query, (label, values[-1] if values else ""))):
            values.append(rows[0][0])
        return values

    def info(self) -> Info:
        """Return what the store holds."""
        connection = self._connections.get()
        with reading(connection):
            (cursor,) = self._rows("SELECT tick FROM counters")[0]
            oldest, newest = self._rows("SELECT min(id), max(id) FROM traces")[0]
            (open_runs,) = self._rows("SELECT count(*) FROM runs WHERE status = 'open'")[0]
            ended = self._rows("SELECT coalesce(sum(runs), 0) FROM rollups WHERE grain = 'all'")[0][0]
            (traces,) = self._rows("SELECT count(*) FROM traces")[0]
            schema = connection.execute("PRAGMA user_version").fetchone()[0]
            losses = self._rows("SELECT dropped, lost FROM processes WHERE dropped != '{}' OR lost > 0")
        dropped: dict[str, int] = {}
        for told, _ in losses:
            for reason, count in json.loads(told).items():
                dropped[reason] = dropped.get(reason, 0) + count
        return Info(
            str(self.path),
            schema,
            size_of(self.path),
            traces,
            ended + open_runs,
            open_runs,
            None if oldest is None else oldest * 1000,
            None if newest is None else newest * 1000,
            dropped,
            sum(lost for _, lost in losses),
            cursor,
        )

    def __repr__(self) -> str:
        """Show which file is read."""
        return f"<Reader of {self.path}>"


def every(ask: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Yield what is on all the pages of an answer; ``ask(after)`` returns one."""
    after: str | None = None
    while True:
        page = ask(after)
        yield from page.items
        after = page.after
        if after is None:
            return


def every_run(reader: Reader, trace: str) -> Iterator[tuple[int, RunDetail]]:
    """Yield the runs of a trace in the order of its tree, each with its depth."""
    for row in every(lambda after: reader.tree(trace, limit=500, after=after)):
        yield row.depth, reader.run(trace, row.run.span_id)


def _page(found: list[tuple[Any, int]], limit: int) -> Page[Any]:
    more = str(found[limit - 1][1]) if len(found) > limit else None
    return Page([item for item, _ in found[:limit]], more)


def _checked(limit: int) -> int:
    if not isinstance(limit, int) or not 1 <= limit <= 10_000:
        raise ArgumentError(f"limit={limit!r} must be a whole number from 1 to 10 000")
    return limit


def _key(after: str | None, without: int) -> int:
    if after is None:
        return without
    try:
        return int(after)
    except ValueError:
        raise ArgumentError(f"after={after!r} is not what a page said: give page.after, or nothing for the first") from None


def _range_of(given: str, length: int) -> tuple[bytes, bytes]:
    """Return the first and the last id of so many bytes that begin with the digits given."""
    digits = given.replace("-", "").lower()
    if not digits or len(digits) > 2 * length or set(digits) - set("0123456789abcdef"):
        raise NotFoundError(
            f"{given!r} is no id: give hexadecimal digits, at most {2 * length}, or @last for the latest trace"
        )
    return bytes.fromhex(digits.ljust(2 * length, "0")), bytes.fromhex(digits.ljust(2 * length, "f"))
