"""Writing one batch into the tables, in one transaction. Who retries when that fails is in ``writer``."""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ...runs import COUNTS
from .index import Index
from .rollups import Rollups, Series
from .rows import Prepared, Preparer, Row
from .steps import Steps, fit, pack
from .totals import TraceDelta, take_off_ancestors, write_traces

__all__ = ["Memory", "Transaction"]

CHANGES_KEPT: Final = 20_000
"""How many transactions back a live view may have looked away."""
TRACES_KNOWN: Final = 2_000
PARTIAL_S: Final = 0.05
"""How long one transaction spends on masking what open streams have said so far, in seconds."""

_pack: Final = msgspec.msgpack.Encoder().encode


class Memory:
    """What a writer knows of the rows in its store without asking, until somebody deletes something."""

    def __init__(self) -> None:
        self.process = 0
        self.removals = -1
        self.deleted: set[bytes] = set()
        """Traces that somebody deleted, as long as runs of theirs are open here: what is still said in them is not written."""
        self._index: Index | None = None
        self.series: dict[Series, int] = {}
        self._traces: OrderedDict[bytes, tuple[int, str]] = OrderedDict()

    def find_trace(self, connection: sqlite3.Connection, trace: bytes) -> tuple[int, str] | None:
        """Return the row and the project of a trace that is in the store."""
        known = self._traces.get(trace)
        if known is not None:
            self._traces.move_to_end(trace)
            return known
        found = connection.execute("SELECT id, project FROM traces WHERE trace = ?", (trace,)).fetchone()
        return None if found is None else (int(found[0]), found[1])

    def know(self, traces: Iterable[tuple[bytes, int, str]]) -> None:
        """Remember traces that are in the store now, the latest of them."""
        for trace, number, project in traces:
            self._traces[trace] = number, project
        while len(self._traces) > TRACES_KNOWN:
            self._traces.popitem(last=False)

    def index_for(self, connection: sqlite3.Connection, next_run: int) -> Index:
        """Return the index of words, with room for runs from ``next_run`` on."""
        if self._index is None or not self._index.has_room(next_run):
            self._index = Index(connection)
        if not self._index.has_room(next_run):
            self._index.begin_part(connection, next_run)
        return self._index

    def forget_new(self) -> None:
        """Forget what was added in a transaction that failed: it is not in the store after all."""
        self._index = None
        self.series.clear()

    def forget(self, removals: int) -> None:
        """Trust no row number from before something was deleted, by whomever."""
        self.removals = removals
        self._index = None
        self.series.clear()
        self._traces.clear()


class Transaction:
    """The writing of one batch: ``write`` in a transaction, ``settle`` once it is committed."""

    def __init__(
        self, connection: sqlite3.Connection, batch: Prepared, preparer: Preparer, memory: Memory, *, careful: bool
    ) -> None:
        self.preparer = preparer
        self.memory = memory
        self.connection = connection
        self.batch = batch
        self.careful = careful
        self.deltas: dict[bytes, TraceDelta] = {}
        self.new_traces: set[int] = set()
        self.rollups = Rollups()
        self.also_changed: set[int] = set()
        self.adopting: list[Row] = []
        self.chunks: list[tuple[Row, int]] = []
        self.steps: list[tuple[int, int, bytes]] = []

    def write(self) -> None:
        """Write everything that is in the batch."""
        connection, batch = self.connection, self.batch
        self.tick, self.next_run, removals = connection.execute("SELECT tick, next_run, removals FROM counters").fetchone()
        if removals != self.memory.removals:
            self._forget_removed(removals)
        self.index = self.memory.index_for(connection, self.next_run)
        fresh = self._without_deleted(batch.fresh)
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
        connection.executemany("INSERT INTO tokens VALUES (?, ?, ?)", self.steps)
        here = {id(row) for row in (*fresh, *changed)}
        for row in (*batch.late, *self.adopting):
            if id(row) in here:
                self.also_changed.update(take_off_ancestors(connection, row, self._delta_of(row), self.rollups))
        self._write_events()
        write_traces(connection, list(self.deltas.values()))
        self.rollups.write(connection, self.memory.series)
        self._write_changes([*fresh, *changed])

    # A trace's row, and whose runs these are.

    def _delta_of(self, row: Row) -> TraceDelta:
        delta = self.deltas.get(row.trace)
        if delta is None:
            delta = self.deltas[row.trace] = self._new_delta(row.trace, row.started_ns)
        return delta

    def _new_delta(self, trace: bytes, started_ns: int) -> TraceDelta:
        found = self.memory.find_trace(self.connection, trace)
        if found is not None:
            return TraceDelta(trace, *found, started_ns, is_new=False)
        number = started_ns // 1000
        while number in self.new_traces or self._is_taken(number):
            number += 1
        self.new_traces.add(number)
        return TraceDelta(trace, number, self.preparer.project, started_ns, is_new=True)

    def _is_taken(self, number: int) -> bool:
        return self.connection.execute("SELECT 1 FROM traces WHERE id = ?", (number,)).fetchone() is not None

    def _forget_removed(self, removals: int) -> None:
        """Trust no row number from before something was deleted, by whomever."""
        self.memory.forget(removals)
        for row in (*self.preparer.open.values(), *self.batch.changed.values()):
            if row.is_written and not self.connection.execute("SELECT 1 FROM runs WHERE id = ?", (row.id,)).fetchone():
                row.is_written = False
                self.memory.deleted.add(row.trace)

    def _without_deleted(self, fresh: list[Row]) -> list[Row]:
        deleted = self.memory.deleted
        for row in fresh if deleted else ():
            if row.trace in deleted:
                row.id = 0
        return [row for row in fresh if row.trace not in deleted]

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
        process = self.memory.process
        for row in rows:
            delta = self.deltas[row.trace]
            if not delta.is_new:
                self._adopt(row)
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

    def _adopt(self, row: Row) -> None:
        """Look for runs below this one that were written before it, as those of a faster process."""
        if self.connection.execute(_USED_BELOW, (row.trace_row, row.span)).fetchone() is None:
            return
        row.counts, row.used_below = False, True
        self.adopting.append(row)

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
        rollup = self.rollups.of(row.started_ns, Series(delta.project, row.model or "", row.name, row.kind))
        rollup.add_run(row.duration_ns, row.first_token_ns, is_error=row.is_failure)
        if row.counts:
            rollup.add_usage(row.tokens[:3], row.cost)

    def _finish(self, rows: list[Row]) -> None:
        """Write what is known of runs that have ended: their tokens, and what they are found by."""
        self.index.add(self.connection, [(row.id, *row.found_by) for row in rows])
        for row in rows:
            if row.steps is not None:
                self._finish_steps(row, row.steps)

    def _finish_steps(self, row: Row, steps: Steps) -> None:
        raw = steps.text()
        stored = row.text if row.text is not None else row.output.value or ""
        if stored == raw:
            self._add_chunk(row, steps.flat[steps.packed :])
            return
        self.connection.execute("DELETE FROM tokens WHERE run = ?", (row.id,))
        self.steps.append((row.id, 0, pack(fit(steps.flat, raw, str(stored)))))

    def _add_chunk(self, row: Row, flat: Any) -> None:
        if flat and row.steps is not None:
            self.steps.append((row.id, row.steps.packed, pack(flat)))

    def _stream(self, rows: list[Row]) -> None:
        """Write what open runs have streamed so far; the text only while there is time to mask it."""
        streaming = [(row, row.steps) for row in rows if row.steps is not None]
        for row, steps in streaming:
            self._add_chunk(row, steps.flat[steps.packed :])
            self.chunks.append((row, len(steps.flat)))
            self._delta_of(row).streamed += steps.count - steps.told
            self.connection.execute("UPDATE runs SET streamed = ? WHERE id = ?", (steps.count, row.id))
        deadline = time.monotonic() + PARTIAL_S
        for row, steps in sorted(streaming, key=lambda one: one[1].shown_s):  # those first that wait longest
            if time.monotonic() > deadline:
                self.preparer.unshown[row.seq] = row
                continue
            self.connection.execute(_SAID_SO_FAR, (row.id, self.preparer.encoder.body(steps.text()).value))
            steps.shown_s = time.monotonic()

    # The rest.

    def _write_events(self) -> None:
        values = []
        for event in self.batch.events:
            if self.careful and event.row is not None and event.row.id == 0:
                continue  # its run was in the store, and so was this
            if event.trace in self.memory.deleted:
                continue
            trace = run = None
            if event.trace is not None:
                known = self.deltas.get(event.trace)
                found = (known.id, "") if known is not None else self.memory.find_trace(self.connection, event.trace)
                trace = None if found is None else found[0]
            if event.row is not None:
                run = event.row.id or None
            elif trace is not None:
                query = "SELECT id FROM runs WHERE trace_id = ? AND span = ?"
                row = self.connection.execute(query, (trace, event.span)).fetchone()
                run = None if row is None else row[0]
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
        self.memory.know((trace, delta.id, delta.project) for trace, delta in self.deltas.items())
        self.batch.is_committed = True
        for row in self.batch.fresh:
            row.is_written = row.id != 0
        if self.memory.deleted:
            self.memory.deleted &= {row.trace for row in self.preparer.open.values()}
        for row, packed in self.chunks:
            if row.steps is not None:
                row.steps.packed = packed
                row.steps.told = row.steps.count


_RUN_COLUMNS: Final = (
    *("id", "trace_id", "span", "high", "parent", "top", "process", "name", "kind", "status", "model"),
    *("started_ns", "duration_ns", "first_token_ns", "streamed", *COUNTS, "cost", "counts", "used_below"),
    *("session", "user", "tags", "input", "output", "error", "masked", "cut", "outer_span", "sampled"),
)
_INSERT_RUN: Final = f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)}) VALUES ({', '.join('?' * len(_RUN_COLUMNS))})"
_END_RUN: Final = f"""
UPDATE runs SET name = ?, status = ?, model = ?, duration_ns = ?, first_token_ns = ?, streamed = ?,
    {", ".join(f"{name} = ?" for name in COUNTS)}, cost = ?, counts = ?,
    used_below = max(used_below, ?), tags = ?, output = ?, error = ?, masked = ?, cut = ?
WHERE id = ?
"""
_USED_BELOW: Final = "SELECT 1 FROM runs WHERE trace_id = ? AND parent = ? AND (counts OR used_below) LIMIT 1"
_SAID_SO_FAR: Final = """
INSERT INTO bodies (run, streamed) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET streamed = excluded.streamed
"""


def _run_values(row: Row, process: int) -> tuple[Any, ...]:
    return (
        row.id, row.trace_row, row.span, row.high, row.parent, row.top, process, row.name, row.kind, row.status, row.model,
        row.started_ns, row.duration_ns, row.first_token_ns, 0 if row.steps is None else row.steps.count,
        *row.tokens, row.cost, row.counts, row.used_below, row.session, row.user, row.tags_json(),
        row.given, row.told, row.failure, row.masked, row.cut, row.outer_span, row.sampled,
    )  # fmt: skip


def _end_values(row: Row) -> tuple[Any, ...]:
    return (
        row.name, row.status, row.model, row.duration_ns, row.first_token_ns, 0 if row.steps is None else row.steps.count,
        *row.tokens, row.cost, row.counts, row.used_below, row.tags_json(), row.told, row.failure, row.masked, row.cut,
        row.id,
    )  # fmt: skip
