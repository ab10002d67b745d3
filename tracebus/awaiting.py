"""How an async subscriber hears an event that is awaited: in a task of its own, or behind what it still has to hear.

Who is awaited is decided in ``dispatch``; queues are in ``lanes``.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Any

from . import lanes, loops
from .calls import Call, abandon, next_deferred, set_call
from .events import Event
from .hearing import hear
from .loops import Wakeup
from .snapshots import rough_size_of
from .subscriptions import Connection

__all__ = ["get_ready", "in_own_task"]


def get_ready() -> None:
    """Import now what async subscribers need."""
    loops.get_ready()


class _Hearing:
    """One delivery in a task of its own, and what the subscriber says to itself meanwhile."""

    __slots__ = ("_awaitable", "_call", "_connection", "_errors", "_event", "_finished", "_is_counted")

    def __init__(
        self, connection: Connection, event: Event, awaitable: Any, errors: list[BaseException], outer: Call | None
    ) -> None:
        self._connection = connection
        self._event = event
        self._awaitable = awaitable
        self._errors = errors
        self._call: Call = [connection.subscription, outer]
        self._is_counted = False
        self._finished: Wakeup | None = None

    async def run(self) -> None:
        call = self._call
        set_call(call)
        try:
            error = await self._hear(self._connection, self._event, self._awaitable)
            if error is not None:
                self._errors.append(error)
            while deferred := next_deferred(call):
                connection, sender, event = deferred
                await self._hear(connection, event, partial(connection.call, sender, event=event))
        finally:
            self._end()

    async def _hear(self, connection: Connection, event: Event, work: Any) -> BaseException | None:
        self._is_counted = False
        try:
            error = await hear(connection, event, work, loops.is_being_cancelled)
        except KeyboardInterrupt:
            self._is_counted = True
            raise
        self._is_counted = True
        return error

    def _end(self) -> None:
        """Count what nobody will hear any more, and wake whoever waits."""
        self._connection.subscription.drop("loop_closed", abandon(self._call) + (not self._is_counted))
        self._is_counted = True
        if self._finished is not None:
            self._finished.set()

    def lost(self) -> None:
        """End it when the loop cancelled the task before its first step."""
        if self._call[0] is not None:
            close = getattr(self._awaitable, "close", None)
            if close is not None:
                close()
            self._end()

    def wait(self) -> Wakeup | None:
        """Return what will be set at its end; None when that has come."""
        if self._call[0] is not None:
            self._finished = Wakeup()
        return self._finished


def in_own_task(
    connection: Connection, event: Event, awaitable: Any, errors: list[BaseException], outer: Call | None
) -> Wakeup | None:
    """Have an awaitable awaited in a task of its own, or behind what came before.

    Returns what will be set when it was; None when it has been, or is not waited for. What it raises for the emitter is put
    into ``errors``.
    """
    loop = loops.current_loop()
    lane = connection.subscription.lane
    if loop is None or (lane is not None and lane.is_busy):
        return _put_behind(connection, event, awaitable)
    hearing = _Hearing(connection, event, awaitable, errors, outer)
    try:
        loop.begin(hearing.run, copy_context(), on_end=hearing.lost)
    except loops.LoopClosed:
        return _put_behind(connection, event, awaitable)
    return hearing.wait()


def _put_behind(connection: Connection, event: Event, awaitable: Any) -> Wakeup | None:
    lane = lanes.lane_of(connection.subscription)
    lane.put(connection, event, awaitable, rough_size_of(event))
    if lane.missed_deadline:  # nobody waits for it again until it is empty
        return None
    finished = loops.Wakeup()
    lane.mark(finished.set)
    return finished
