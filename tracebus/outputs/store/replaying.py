"""A stored trace said on the bus again, so that a subscriber can be written and tested against recorded traffic."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import anyio

from ...errors import ArgumentError
from ...signals import HOOKS, subscriber_failed
from ...sources import Reporter
from .answers import RunDetail, RunError
from .reader import Reader, every_run
from .rows import REPLAY_KEY

__all__ = ["ReplayedError", "areplay", "replay"]

_ENDS_WELL: Final = frozenset({"ok", "closed_early", "paused"})


class ReplayedError(Exception):
    """Stands for an error of a stored run; its class has the name of the one that was raised."""


def replay(trace: str, path: str | os.PathLike[str] | None = None, *, speed: float = 1.0) -> int:
    """Say a stored trace through the signals again, with the gaps that it had; return how many runs that were.

    Subscribers hear the starts, tokens, events and ends of runs with new ids, whose metadata say under
    ``"tracebus.replay_of"`` which trace they repeat. ``speed`` 2 takes half the time, ``math.inf`` none. A store that is
    being written leaves replays out, unless it was told otherwise. What is called inside a run or a scope is nested in it.

    Raises NotFoundError and StoreError as a ``Reader`` does, and ArgumentError for a speed that is none.
    """
    moments = _Moments(trace, path, speed)
    for wait_s, say in moments:
        if wait_s > 0:
            time.sleep(wait_s)
        say()
    return moments.runs


async def areplay(trace: str, path: str | os.PathLike[str] | None = None, *, speed: float = 1.0) -> int:
    """Say a stored trace through the signals again, as ``replay`` does, from async code."""
    moments = _Moments(trace, path, speed)
    for wait_s, say in moments:
        if wait_s > 0:
            await anyio.sleep(wait_s)
        say()
    return moments.runs


class _Moment(NamedTuple):
    """Something to say. Moments are sorted by time; at one time a start comes before what follows from it."""

    time_ns: int
    phase: int
    depth: int
    number: int
    say: Callable[[], object]


class _Moments:
    """What a trace said, in order, each with how long to wait before it, in seconds."""

    def __init__(self, trace: str, path: str | os.PathLike[str] | None, speed: float) -> None:
        if not isinstance(speed, (int, float)) or math.isnan(speed) or speed <= 0:
            raise ArgumentError(f"speed={speed!r} must be a number above 0: 1 is as it was, 2 twice as fast, math.inf at once")
        self._speed = speed
        self._reporter = Reporter("replay")
        self._moments: list[_Moment] = []
        self._starts: dict[str, int] = {}
        with Reader(path) as reader:
            self.trace = reader.resolve(trace)
            for depth, detail in every_run(reader, self.trace):
                self._add(detail, depth)
        self.runs = len(self._starts)
        self._moments.sort(key=lambda moment: moment[:4])

    def __iter__(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """Yield how long to wait, and what to do then."""
        if not self._moments:
            return
        begin_ns, began_s = self._moments[0].time_ns, time.monotonic()
        for moment in self._moments:
            due_s = began_s + (moment.time_ns - begin_ns) / 1e9 / self._speed
            yield due_s - time.monotonic(), moment.say

    def _add(self, detail: RunDetail, depth: int) -> None:
        run = detail.run
        # The clock of another process may say that a run started before its parent.
        start = max(run.started_ns, self._starts.get(run.parent_id or "", 0))
        self._starts[run.span_id] = start
        end = max(start, run.started_ns + (run.duration_ns or 0))
        for event in detail.events:
            end = max(end, event.time_ns) if run.duration_ns is None else end
        if detail.steps and run.duration_ns is None:
            end = max(end, run.started_ns + detail.steps[-1].at_ns)
        self._put(start, 0, depth, lambda: self._start(detail))
        for step in detail.steps:
            at = min(end, max(start, run.started_ns + step.at_ns))
            self._put(at, 1, 0, lambda text=step.text: self._reporter.token(run.span_id, text))
        for event in detail.events:
            at = min(end, max(start, event.time_ns))
            self._put(at, 1, 0, lambda hook=event.hook, data=event.data: self._say(run.span_id, hook, data))
        self._put(end, 2, -depth, lambda: self._end(detail))

    def _put(self, time_ns: int, phase: int, depth: int, say: Callable[..., object]) -> None:
        self._moments.append(_Moment(time_ns, phase, depth, len(self._moments), say))

    def _start(self, detail: RunDetail) -> None:
        run = detail.run
        self._reporter.start(
            run.span_id,
            run.parent_id if run.parent_id in self._starts else None,
            name=run.name,
            kind=run.kind,
            inputs=detail.body.inputs,
            model=run.model,
            tags=run.tags,
            metadata={**detail.body.metadata, REPLAY_KEY: self.trace},
            session_id=run.session_id,
            user_id=run.user_id,
        )

    def _say(self, key: str, hook: str, data: dict[str, Any]) -> None:
        signal = HOOKS.signal(hook)
        if signal is subscriber_failed:  # it did not fail now
            return
        fields = dict(data)
        if fields.get("error") is not None:
            fields["error"] = _error_of(fields["error"])
        self._reporter.say(key, signal, **fields)

    def _end(self, detail: RunDetail) -> None:
        run = detail.run
        told: dict[str, Any] = {"output": detail.body.output, "usage": run.tokens.usage(), "model": run.model}
        status: Any = "lost" if run.status == "open" else run.status
        if status in _ENDS_WELL:
            self._reporter.end(run.span_id, status=status, **told)
            return
        error = detail.body.error or RunError("ReplayedError", f"the run was {run.status} when it was stored", [], [])
        self._reporter.fail(run.span_id, _error_of({"type": error.type, "message": error.message}), status=status, **told)


def _error_of(told: Any) -> ReplayedError:
    if not isinstance(told, dict):
        return ReplayedError(told if isinstance(told, str) else json.dumps(told))
    module, _, name = str(told.get("type") or "ReplayedError").rpartition(".")
    error_class: type[ReplayedError] = type(name, (ReplayedError,), {"__module__": module or "builtins"})
    return error_class(told.get("message", ""))
