"""Writing batches into the store, in transactions. What is in a batch is prepared in ``rows``."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from .connections import Connection, keep_log_short, open_for_writing, writing
from .files import BUSY, CORRUPT, TRANSIENT, StoreError, UnusableFileError, primary_code, program, set_aside
from .lane import HopelessError, RetryError
from .liveness import Lockfile
from .lost import bury_the_dead, mark_lost
from .records import Ended, Record
from .removal import Retention, prune
from .rollups import Rollups, Series
from .rows import Prepared, Preparer, Row
from .steps import fit, pack
from .totals import TraceDelta, take_off_ancestors, write_traces

__all__ = ["Writer"]

CHANGES_KEPT: Final = 20_000
"""How many transactions back a live view may have looked away."""
TRACES_KNOWN: Final = 2_000
PARTIAL_S: Final = 0.05
"""How long one transaction spends on masking what open streams have said so far, in seconds."""
REOPEN_S: Final = 0.5
WARN_EVERY_S: Final = 60.0
PRUNE_EVERY_S: Final = 300.0
PRUNE_S: Final = 0.2
"""How long the removal of what is too old or too much holds up the writing of one batch, in seconds."""

_pack: Final = msgspec.msgpack.Encoder().encode


class Writer:
    """The work of a store's lane. Everything here runs in the writer's thread."""

    def __init__(
        self, path: Path, preparer: Preparer, retention: Retention, losses: Callable[[], dict[str, int]] = dict
    ) -> None:
        self.path = path
        self.preparer = preparer
        self._retention = retention
        self._warned = -WARN_EVERY_S
        self._was_open = False
        self._tried = -REOPEN_S
        self._losses = losses
        self._start_over()

    def _start_over(self) -> None:
        self._connection: Connection | None = None
        self._process = 0
        self._traces: OrderedDict[bytes, int] = OrderedDict()
        self._series: dict[Series, int] = {}
        self._removals = -1
        self._told_losses: dict[str, int] = {}
        self._pruned = time.monotonic()

    # -- what the lane asks --------------------------------------------------------------------------------------------

    def prepare(self, records: list[Any]) -> Prepared:
        """Make rows of records."""
        return self.preparer.prepare(records)

    def commit(self, batch: Prepared) -> None:
        """Write a batch; raise RetryError when it can be tried again, HopelessError when the store never was there."""
        try:
            try:
                self._attempt(batch)
            except UnusableFileError as error:
                self._begin_anew(error.why, batch)
                self._attempt(batch)
        except (sqlite3.Error, StoreError, OSError) as error:
            self._recover_from(error)

    def _attempt(self, batch: Prepared) -> None:
        try:
            connection = self._connection or self._open()
            try:
                self._write(connection, batch, careful=False)
            except sqlite3.IntegrityError:  # a run that is in the store already, from elsewhere
                self._write(connection, batch, careful=True)
            keep_log_short(connection, self.path)
            self._keep_house(connection)
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in CORRUPT:
                raise
            raise UnusableFileError(f"the store {self.path} is damaged: {error}", "corrupt") from error

    def failed(self, error: Exception) -> None:
        """Say that something could not be written, once a minute."""
        told = error.__cause__ or error
        now = time.monotonic()
        if now - self._warned < WARN_EVERY_S:
            return
        self._warned = now
        logging.getLogger("tracebus").warning(
            "the store %s cannot be written, and the app goes on without it: %s (losses are counted; said once a minute)",
            self.path,
            told,
        )

    def lose(self, record: Record) -> None:
        """Remember of what gave way what costs next to nothing: that a run has ended."""
        if isinstance(record, Ended):
            self.preparer.lost_ends.append(record.without_content())

    def close(self) -> None:
        """Close the store: what is still open here was not finished."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            with writing(connection):
                self._tell_losses(connection)
                mark_lost(connection, [self._process])  # how these end will not be heard here
                connection.execute("UPDATE processes SET closed_ns = ? WHERE id = ?", (time.time_ns(), self._process))
        except sqlite3.Error:
            pass  # the next opening finds the process dead
        Lockfile.of(self.path).release(self._process)
        connection.close()

    def forget_after_fork(self) -> None:
        """Forget the parent's connection, which the module that made it keeps from being closed, and its open runs."""
        self._start_over()
        self._was_open = False
        self._tried = -REOPEN_S
        self.preparer.forget()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self) -> Connection:
        now = time.monotonic()
        if not self._was_open and now - self._tried < REOPEN_S:
            raise HopelessError
        self._tried = now
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        alive = Lockfile.of(self.path)
        with alive.alone():
            connection = open_for_writing(self.path)
            try:
                self._enrol(connection, alive)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        self._was_open = True
        return connection

    def _enrol(self, connection: Connection, alive: Lockfile) -> None:
        with writing(connection):
            bury_the_dead(connection, alive)
            row = connection.execute(
                "INSERT INTO processes (pid, started, program, project, opened_ns) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (os.getpid(), str(time.time_ns()), program(), self.preparer.project, time.time_ns()),
            ).fetchone()
            number = int(row[0])
            alive.hold(number)  # before others can see the row
        if self._process:
            # Opened again after a failure: the runs that were open stay this process's.
            connection.execute("UPDATE runs SET process = ? WHERE process = ? AND status = 'open'", (number, self._process))
            connection.execute("UPDATE processes SET closed_ns = opened_ns WHERE id = ?", (self._process,))
        self._process = number

    def _recover_from(self, error: Exception) -> None:
        """Raise what the lane is to do about an error."""
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if code in BUSY:
            raise RetryError from error
        self._hang_up()
        if isinstance(error, sqlite3.Error) and code not in TRANSIENT:
            raise error
        if self._was_open:
            raise RetryError from error
        self.failed(error)
        raise HopelessError from error

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin_anew(self, why: str, batch: Prepared) -> None:
        """Set the file aside and go on in a new one, with everything that is not finished."""
        self._hang_up()
        with Lockfile.of(self.path).alone():
            target = set_aside(self.path, why)
        self._start_over()
        self._tried = -REOPEN_S
        batch.begin_again(self.preparer.open.values())
        logging.getLogger("tracebus").warning("the store %s is unusable (%s): it is kept as %s", self.path, why, target)

    # -- one transaction -----------------------------------------------------------------------------------------------

    def _write(self, connection: Connection, batch: Prepared, *, careful: bool) -> None:
        with writing(connection):
            transaction = _Transaction(self, connection, batch, careful=careful)
            transaction.write()
        transaction.settle()

    def _tell_losses(self, connection: sqlite3.Connection) -> None:
        losses = self._losses()
        if losses != self._told_losses:
            connection.execute("UPDATE processes SET dropped = ? WHERE id = ?", (json.dumps(losses), self._process))
            self._told_losses = losses

    def _keep_house(self, connection: Connection) -> None:
        now = time.monotonic()
        if now - self._pruned >= PRUNE_EVERY_S and prune(connection, self._retention, budget_s=PRUNE_S):
            self._pruned = now

    def trace_row(self, connection: sqlite3.Connection, trace: bytes) -> int | None:
        """Return the row of a trace that is in the store."""
        known = self._traces.get(trace)
        if known is None:
            found = connection.execute("SELECT id FROM traces WHERE trace = ?", (trace,)).fetchone()
            return None if found is None else int(found[0])
        self._traces.move_to_end(trace)
        return known


class _Transaction:
    """The writing of one batch."""

    def __init__(self, writer: Writer, connection: Connection, batch: Prepared, *, careful: bool) -> None:
        self.writer = writer
        self.connection = connection
        self.batch = batch
        self.careful = careful
        self.deltas: dict[bytes, TraceDelta] = {}
        self.new_traces: set[int] = set()
        self.rollups = Rollups()
        self.also_changed: set[int] = set()
        self.chunks: list[tuple[Row, int]] = []

    def write(self) -> None:
        writer, connection, batch = self.writer, self.connection, self.batch
        self.tick, self.next_run, removals = connection.execute("SELECT tick, next_run, removals FROM counters").fetchone()
        if removals != writer._removals:
            self._forget_removed(removals)
        fresh = batch.fresh
        changed = [row for row in batch.changed.values() if row.is_written]
        for row in fresh:
            delta = self._delta_of(row)
            row.trace_row = delta.id
            row.id = self.next_run
            self.next_run += 1
        if self.careful:
            fresh = self._without_known(fresh)
        self._insert(fresh)
        self._update([row for row in changed if row.is_ended])
        self._stream([row for row in (*fresh, *changed) if not row.is_ended])
        here = {id(row) for row in (*fresh, *changed)}
        for row in batch.late:
            if id(row) in here:
                self.also_changed.update(
                    take_off_ancestors(connection, row, self._delta_of(row), self.rollups, writer.preparer.project)
                )
        self._write_events()
        write_traces(connection, list(self.deltas.values()), writer.preparer.project)
        self.rollups.write(connection, writer._series)
        writer._tell_losses(connection)
        self._write_changes([*fresh, *changed])

    # A trace's row, and whose runs these are.

    def _delta_of(self, row: Row) -> TraceDelta:
        delta = self.deltas.get(row.trace)
        if delta is None:
            delta = self.deltas[row.trace] = self._new_delta(row.trace, row.started_ns)
        return delta

    def _new_delta(self, trace: bytes, started_ns: int) -> TraceDelta:
        number = self.writer.trace_row(self.connection, trace)
        if number is not None:
            return TraceDelta(trace, number, started_ns, is_new=False)
        number = started_ns // 1000
        while number in self.new_traces or self._is_taken(number):
            number += 1
        self.new_traces.add(number)
        return TraceDelta(trace, number, started_ns, is_new=True)

    def _is_taken(self, number: int) -> bool:
        return self.connection.execute("SELECT 1 FROM traces WHERE id = ?", (number,)).fetchone() is not None

    def _forget_removed(self, removals: int) -> None:
        """Trust no row number from before something was deleted, by whomever."""
        writer = self.writer
        writer._traces.clear()
        writer._series.clear()
        for row in writer.preparer.open.values():
            if row.is_written and not self.connection.execute("SELECT 1 FROM runs WHERE id = ?", (row.id,)).fetchone():
                row.is_written = False
        for number, row in list(self.batch.changed.items()):
            if not self.connection.execute("SELECT 1 FROM runs WHERE id = ?", (row.id,)).fetchone():
                del self.batch.changed[number]
        writer._removals = removals

    def _without_known(self, fresh: list[Row]) -> list[Row]:
        """Leave out the runs that are in the store already; the first to be written stays."""
        query = "SELECT 1 FROM runs WHERE trace_id = ? AND span = ?"
        seen: set[tuple[bytes, int]] = set()
        new = []
        for row in fresh:
            key = row.trace, row.span
            if key not in seen and not self.connection.execute(query, (row.trace_row, row.span)).fetchone():
                new.append(row)
            else:
                row.id = 0
            seen.add(key)
        return new

    # Runs.

    def _insert(self, rows: list[Row]) -> None:
        process = self.writer._process
        for row in rows:
            delta = self.deltas[row.trace]
            delta.begin(row)
            delta.look_at(row)
            if row.is_ended:
                self._end(row, delta)
        connection = self.connection
        connection.executemany(_INSERT_RUN, [_run_values(row, process) for row in rows])
        connection.executemany(
            "INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?)",
            [
                (row.id, row.inputs.json, row.output.json, row.error.json, row.metadata.json, row.text)
                for row in rows
                if row.is_ended or row.inputs.json is not None or row.metadata.json is not None
            ],
        )
        self._finish([row for row in rows if row.is_ended])

    def _update(self, rows: list[Row]) -> None:
        for row in rows:
            delta = self._delta_of(row)
            if row.counts:
                below = self.connection.execute("SELECT used_below FROM runs WHERE id = ?", (row.id,)).fetchone()
                if below is not None and below[0]:
                    row.counts, row.used_below = False, True
            delta.look_at(row)
            self._end(row, delta)
        connection = self.connection
        connection.executemany(_END_RUN, [_end_values(row) for row in rows])
        connection.executemany(
            "INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?, ?, ?)",
            [(row.id, row.inputs.json, row.output.json, row.error.json, row.metadata.json, row.text) for row in rows],
        )
        self._finish(rows)

    def _end(self, row: Row, delta: TraceDelta) -> None:
        delta.end(row)
        delta.streamed += 0 if row.steps is None else row.steps.count - row.steps.told
        rollup = self.rollups.of(row.started_ns, Series(self.writer.preparer.project, row.model or "", row.name, row.kind))
        rollup.add_run(row.duration_ns, row.first_token_ns, is_error=row.is_failure)
        if row.counts:
            rollup.add_usage(row.tokens()[:3], row.cost)

    def _finish(self, rows: list[Row]) -> None:
        """Write what is known of runs that have ended: their tokens, and what they are found by."""
        self.connection.executemany(
            "INSERT INTO search (rowid, input, output, error) VALUES (?, ?, ?, ?)",
            [(row.id, *row.search_words()) for row in rows],
        )
        for row in rows:
            if row.steps is not None:
                self._finish_steps(row, row.steps)

    def _finish_steps(self, row: Row, steps: Any) -> None:
        raw = steps.text()
        stored = row.text if row.text is not None else row.output.value
        if stored == raw:
            self._add_chunk(row, steps.flat[steps.packed :])
            return
        self.connection.execute("DELETE FROM tokens WHERE run = ?", (row.id,))
        self.connection.execute("INSERT INTO tokens VALUES (?, 0, ?)", (row.id, pack(fit(steps.flat, raw, str(stored)))))

    def _add_chunk(self, row: Row, flat: Any) -> None:
        if flat and row.steps is not None:
            self.connection.execute("INSERT INTO tokens VALUES (?, ?, ?)", (row.id, row.steps.packed, pack(flat)))

    def _stream(self, rows: list[Row]) -> None:
        """Write what open runs have streamed so far; the text only while there is time to mask it."""
        deadline = time.monotonic() + PARTIAL_S
        for row in rows:
            steps = row.steps
            if steps is None or steps.packed == len(steps.flat):
                continue
            self._add_chunk(row, steps.flat[steps.packed :])
            self.chunks.append((row, len(steps.flat)))
            delta = self._delta_of(row)
            delta.streamed += steps.count - steps.told
            self.connection.execute("UPDATE runs SET streamed = ? WHERE id = ?", (steps.count, row.id))
            if time.monotonic() < deadline:
                text = self.writer.preparer.encoder.body(steps.text()).value
                self.connection.execute(_SAID_SO_FAR, (row.id, text))

    # The rest.

    def _write_events(self) -> None:
        values = []
        for event in self.batch.events:
            if self.careful and event.row is not None and event.row.id == 0:
                continue  # its run was in the store, and so was this
            trace = run = None
            if event.trace is not None:
                trace = self.writer.trace_row(self.connection, event.trace)
                if trace is None and event.trace in self.deltas:
                    trace = self.deltas[event.trace].id
            if event.row is not None:
                run = event.row.id or None
            elif trace is not None:
                query = "SELECT id FROM runs WHERE trace_id = ? AND span = ?"
                found = self.connection.execute(query, (trace, event.span)).fetchone()
                run = None if found is None else found[0]
            values.append((trace, run, event.time_ns, event.hook, event.data))
        self.connection.executemany("INSERT INTO events (trace_id, run, time_ns, hook, data) VALUES (?, ?, ?, ?, ?)", values)

    def _write_changes(self, rows: list[Row]) -> None:
        tick = self.tick + 1
        runs = {row.id for row in rows} | self.also_changed
        runs.update(event.row.id for event in self.batch.events if event.row is not None)
        traces = [delta.id for delta in self.deltas.values()]
        execute = self.connection.execute
        execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (tick, _pack(traces), _pack(sorted(runs)), _pack([])))
        if tick % 256 == 0:
            execute("DELETE FROM changes WHERE tick < ?", (tick - CHANGES_KEPT,))
        execute("UPDATE counters SET tick = ?, next_run = ?", (tick, self.next_run))

    def settle(self) -> None:
        """Remember what is in the store now that it is."""
        traces = self.writer._traces
        for trace, delta in self.deltas.items():
            traces[trace] = delta.id
        while len(traces) > TRACES_KNOWN:
            traces.popitem(last=False)
        for row in self.batch.fresh:
            row.is_written = row.id != 0
        for row, packed in self.chunks:
            if row.steps is not None:
                row.steps.packed = packed
                row.steps.told = row.steps.count


_INSERT_RUN: Final = f"INSERT INTO runs VALUES ({', '.join('?' * 31)})"
_END_RUN: Final = """
UPDATE runs SET name = ?, status = ?, model = ?, duration_ns = ?, first_token_ns = ?, streamed = ?,
    input_tokens = ?, output_tokens = ?, total_tokens = ?, cached_tokens = ?, reasoning_tokens = ?, cost = ?, counts = ?,
    used_below = max(used_below, ?), tags = ?, output = ?, error = ?, masked = ?, cut = ?
WHERE id = ?
"""
_SAID_SO_FAR: Final = """
INSERT INTO bodies (run, streamed) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET streamed = excluded.streamed
"""


def _run_values(row: Row, process: int) -> tuple[Any, ...]:
    return (
        row.id, row.trace_row, row.span, row.high, row.parent, row.top, process, row.name, row.kind, row.status, row.model,
        row.started_ns, row.duration_ns, row.first_token_ns, 0 if row.steps is None else row.steps.count,
        *row.tokens(), row.cost, row.counts, row.used_below, row.session, row.user, _tags(row),
        row.given, row.told, row.failure, row.masked, row.cut,
    )  # fmt: skip


def _end_values(row: Row) -> tuple[Any, ...]:
    return (
        row.name, row.status, row.model, row.duration_ns, row.first_token_ns, 0 if row.steps is None else row.steps.count,
        *row.tokens(), row.cost, row.counts, row.used_below, _tags(row), row.told, row.failure, row.masked, row.cut, row.id,
    )  # fmt: skip


def _tags(row: Row) -> str | None:
    return json.dumps(row.tags, ensure_ascii=False) if row.tags else None
