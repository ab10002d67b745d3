"""For tests: what was said, in ``record()``, and the same times and ids on every run, in ``deterministic()``.

Under pytest there are the fixtures ``recorded`` and ``tracebus_clock``, which need no import: tracebus is a plugin.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, overload
from uuid import UUID

import blinker

from . import payload
from .errors import ArgumentError
from .events import Event
from .runs import Instruments, Run, Usage, next_seq, use_instruments
from .signals import HOOKS, Hook, isolated, llm_new_token, subscribe
from .snapshots import snapshot_of

__all__ = ["Clock", "Recording", "deterministic", "record"]

E = TypeVar("E", bound=Event)

# -- what was said -----------------------------------------------------------------------------------------------------

SHOWABLE: Final = (
    "kind",
    "status",
    "model",
    "tags",
    "metadata",
    "session_id",
    "user_id",
    "inputs",
    "output",
    "error",
    "usage",
)
"""What ``tree()`` can show of a run beside its name."""

WIDTH: Final = 60
"""Characters of one value in a tree."""


@contextmanager
def record() -> Generator[Recording]:
    """Record every event of the process while the block runs, from all threads and tasks.

    ::

        with record() as rec:
            answer("How?")
        assert rec.tree() == "answer chain ok\\n  search retriever ok\\n  generate llm ok"
    """
    heard: list[Event] = []

    def hear(sender: object, /, *, event: Event) -> None:
        heard.append(snapshot_of(event))

    with subscribe(hear):
        yield Recording(heard)


class Recording:
    """What ``record()`` heard. It stays readable after the block.

    Events and runs are bounded copies, made when the event was said: what the app changes later changes nothing here.
    """

    def __init__(self, heard: list[Event]) -> None:
        self._heard = heard

    @property
    def events(self) -> list[Event]:
        """The events in the order in which they were said."""
        # Not the order of hearing: what another subscriber says about an event may be heard before the event.
        return sorted(self._heard, key=lambda event: event.seq)

    @property
    def runs(self) -> list[Run]:
        """The runs in the order of their starts, each as it was when last heard of: ``open`` if it had not ended."""
        found: dict[UUID, Run] = {}
        for event in self.events:
            run = event.run
            if run is not None and (run.id not in found or found[run.id].status == "open"):
                found[run.id] = run
        return list(found.values())

    @property
    def tokens(self) -> list[str]:
        """The tokens of all runs."""
        return [event.token for event in self.of(llm_new_token)]

    @overload
    def of(self, hook: Hook[E], /) -> list[E]: ...
    @overload
    def of(self, *hooks: str | blinker.Signal) -> list[Any]: ...
    def of(self, *hooks: str | blinker.Signal) -> list[Any]:
        """Return the events of some hooks, given as in ``subscribe``: ``rec.of(llm_end)``, ``rec.of("llm_*", "text")``.

        Raises UnknownHookError for what matches no hook.
        """
        names = {hook.name for hook in HOOKS.matching(*hooks)}
        return [event for event in self.events if event.signal_name in names]

    def run(self, name: str) -> Run:
        """Return the one run of this name; raise ArgumentError, showing the tree, when there is none or another."""
        named = [run for run in self.runs if run.name == name]
        if len(named) != 1:
            count, heard = len(named) or "no", self.tree() or "(no runs)"
            raise ArgumentError(f"{count} recorded runs are called {name!r}:\n{heard}")
        return named[0]

    def tree(self, *show: str) -> str:
        """Return a line for each run: two spaces a level, its name, and what to show of it, by default kind and status.

        Children are in the order of their starts; a run whose parent was not heard is at the left. What is None or
        empty is left out, as in ``rec.tree("status", "model", "output")``. Raises ArgumentError for what no run has.
        """
        unknown = [name for name in show if name not in SHOWABLE]
        if unknown:
            raise ArgumentError(f"tree() cannot show {unknown[0]!r} of a run: choose from {', '.join(SHOWABLE)}")
        runs = self.runs
        heard = {run.id for run in runs}
        children: dict[UUID | None, list[Run]] = {}
        for run in runs:
            children.setdefault(run.parent_id if run.parent_id in heard else None, []).append(run)
        lines: list[str] = []
        waiting = [(0, run) for run in reversed(children.get(None, []))]
        while waiting:
            depth, run = waiting.pop()
            lines.append("  " * depth + _line(run, show or ("kind", "status")))
            waiting += [(depth + 1, child) for child in reversed(children.get(run.id, []))]
        return "\n".join(lines)

    def clear(self) -> None:
        """Forget what was heard so far."""
        self._heard.clear()

    def __repr__(self) -> str:
        """Show how much there is."""
        return f"<Recording: {len(self._heard)} events, {len(self.runs)} runs>"


def _line(run: Run, show: tuple[str, ...]) -> str:
    values = (getattr(run, name) for name in show)
    return " ".join([payload.printable(run.name), *(_word(value) for value in values if not _is_nothing(value))])


def _is_nothing(value: Any) -> bool:
    return value is None or (type(value) in (tuple, dict) and not value)


def _word(value: Any) -> str:
    if isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}"
    if isinstance(value, Usage):
        value = value.as_dict()
    return payload.preview(value, WIDTH)


# -- the same on every run ---------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved. Raises ArgumentError for a start without a time zone."""

    def __init__(self, start: datetime = NEW_YEAR) -> None:
        if start.tzinfo is None:
            raise ArgumentError(f"the start {start!r} has no time zone: give datetime(..., tzinfo=UTC)")
        self._wall_ns = (start - _EPOCH) // timedelta(microseconds=1) * 1_000
        self._monotonic_ns = 0

    def wall_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return self._wall_ns

    def monotonic_ns(self) -> int:
        """Return nanoseconds since some moment, which no adjustment changes."""
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; raise ArgumentError for a negative number of them."""
        if not seconds >= 0:
            raise ArgumentError(f"time does not pass backwards, as in advance({seconds!r}): that is adjust()")
        self._monotonic_ns += round(seconds * 1e9)
        self.adjust(seconds)

    def adjust(self, seconds: float) -> None:
        """Set the wall clock forward, or back with a negative number, as a time server does: no time passes."""
        self._wall_ns += round(seconds * 1e9)


@contextmanager
def deterministic(start: datetime = NEW_YEAR) -> Generator[Clock]:
    """Take times from a clock that stands still and number the ids, in the whole process while the block runs.

    A run's number is that of its start event, counted from 1.

    ::

        with deterministic() as clock, record() as rec:
            with trace("search") as run:
                clock.advance(0.25)
        assert (str(run.id), run.duration_s) == ("019b76da-a800-7000-8000-000000000001", 0.25)

    Raises ArgumentError for a start without a time zone.
    """
    clock = Clock(start)
    before_first = next_seq() + 1  # changing the instruments takes a number, too
    before = use_instruments(Instruments(clock.wall_ns, clock.monotonic_ns, lambda seq: seq - before_first))
    try:
        yield clock
    finally:
        use_instruments(before)


# -- pytest ------------------------------------------------------------------------------------------------------------

try:
    import pytest
except ImportError:  # the blocks work under any test runner
    pass
else:

    @pytest.fixture
    def recorded() -> Iterator[Recording]:
        """Record what tracebus says in this test, which subscribers from outside of it do not hear."""
        with isolated(), record() as recording:
            yield recording

    @pytest.fixture
    def tracebus_clock() -> Iterator[Clock]:
        """Let tracebus's clock stand still in this test until ``advance(seconds)``, and number its ids."""
        with deterministic() as clock:
            yield clock
