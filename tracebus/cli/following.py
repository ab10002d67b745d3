"""What happens in a store, look by look: the traces that are in flight, and those that have ended since the look before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ..outputs.store import Changes, Filter, NoStoreYetError, Reader, RunSummary, TraceSummary
from .screen import MODELS
from .stores import pages
from .trees import Tree

__all__ = ["Follower", "wait_for_store"]

EVERY_S: Final = 0.1
"""How often the store is looked at. Who writes it does so after 0.2 s."""
LOOK_AROUND_EVERY_S: Final = 5.0
"""How often it is looked whether processes have died, and whether the store is still the same file."""
DRAWN: Final = 500
"""Runs of one trace that are told of."""
REMEMBERED: Final = 10_000
"""Of how many traces it is remembered that they were told of."""


def wait_for_store(path: Path) -> Reader:
    """Open a store, once there is one: whoever follows may be faster than what is followed."""
    while True:
        try:
            return Reader(path)
        except NoStoreYetError:
            time.sleep(EVERY_S)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of its name; None where there is none, or an empty one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None


class Follower:
    """Looks at a store again and again. ``growing`` are the trees of the traces in flight, the oldest first."""

    def __init__(self, reader: Reader, wanted: Filter, *, from_the_start: bool = False) -> None:
        self.growing: dict[str, Tree] = {}
        self.changes = Changes(0 if from_the_start else reader.cursor(), [], [], [], True)
        """What the last look found."""
        self._reader = reader
        self.wanted = wanted
        self._identity = _identity(reader.path)
        self._looked_around = time.monotonic()
        self._told: dict[str, None] = {}
        in_flight = reader.traces(msgspec.structs.replace(wanted, status="open"), limit=DRAWN)
        for trace in reversed(in_flight.items):
            self.growing[trace.trace_id] = self.tree(trace)

    def looks(self) -> Iterator[list[TraceSummary]]:
        """Yield what has ended, forever: an empty list when nothing has."""
        while True:
            time.sleep(EVERY_S)
            if time.monotonic() > self._looked_around + LOOK_AROUND_EVERY_S:
                self._look_around()
            self.changes = self._wanted_of(self._reader.changes(self.changes.cursor))
            yield self._sorted_out()

    def tree(self, trace: TraceSummary) -> Tree:
        """Return a trace as a tree, with the texts that are being written in it."""
        rows, _ = pages(lambda **page: self._reader.tree(trace.trace_id, **page), DRAWN)
        return Tree(trace, rows, {row.run.span_id: text for row in rows if (text := self.text_of(row.run)) is not None})

    def text_of(self, run: RunSummary) -> str | None:
        """Return what a model has written so far, None unless it is writing."""
        if run.status != "open" or run.kind not in MODELS or not run.streamed:
            return None
        return self._reader.bodies(run.trace_id, [run.span_id])[run.span_id].streamed

    def _look_around(self) -> None:
        self._looked_around = time.monotonic()
        identity = _identity(self._reader.path)
        if identity is None or identity == self._identity:
            self._reader.look_for_the_dead()
            return
        # A store that could not be used was set aside, or it was deleted: what is written now is in another file.
        self._reader.close()
        self._identity = identity
        self.growing.clear()
        self.changes = Changes(0, [], [], [], True)

    def _wanted_of(self, changes: Changes) -> Changes:
        """Leave out what the filter does not want."""
        if not changes.is_complete:
            changes = msgspec.structs.replace(changes, traces=self._reread())
        if self.wanted == Filter() or not changes.traces:
            return changes
        since_ns = min(trace.started_ns for trace in changes.traces)
        since_ns = max(since_ns, self.wanted.since_ns or 0)
        found, _ = pages(lambda **page: self._reader.traces(self.wanted, since_ns=since_ns, **page), 10 * DRAWN)
        ids = {trace.trace_id for trace in found}
        return msgspec.structs.replace(
            changes,
            traces=[trace for trace in changes.traces if trace.trace_id in ids],
            runs=[run for run in changes.runs if run.trace_id in ids],
        )

    def _reread(self) -> list[TraceSummary]:
        """Return what may have changed when more did than is told."""
        latest: list[Any] = self._reader.traces(limit=10 * DRAWN).items
        return [trace for trace in reversed(latest) if trace.trace_id not in self._told]

    def _sorted_out(self) -> list[TraceSummary]:
        for trace_id in self.changes.removed:
            self.growing.pop(trace_id, None)
        ended = []
        for trace in self.changes.traces:
            if trace.status == "open" or trace.open_runs:
                self._told.pop(trace.trace_id, None)
                self.growing[trace.trace_id] = self.tree(trace)
                continue
            self.growing.pop(trace.trace_id, None)
            if trace.trace_id not in self._told:
                self._told[trace.trace_id] = None
                ended.append(trace)
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return ended
