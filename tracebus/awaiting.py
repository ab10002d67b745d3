"""How an async subscriber hears an event that is awaited: in a task of its own, or behind what it still has to hear.

Who is awaited is decided in ``dispatch``; queues are in ``lanes``.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, Self

from . import lanes, loops, ownloop
from .calls import Call, abandon, calls_around, next_deferred, set_call
from .events import Event
from .hearing import hear
from .loops import Loop, Wakeup
from .runs import set_current
from .snapshots import rough_size_of
from .subscriptions import UNCOUNTED, Connection, Subscription

__all__ = ["Hearing", "get_ready", "in_flight", "in_own_task"]


def get_ready() -> None:
    """Import now what async subscribers need."""
    ownloop.get_ready()


class Hearing:
    """One delivery in a task of its own, and what the subscriber says to itself meanwhile."""

    __slots__ = ("__weakref__", "_awaitable", "_call", "_connection", "_errors", "_event", "_loop", "_uncounted", "_waiting")

    def __init__(
        self,
        connection: Connection,
        event: Event,
        awaitable: Any,
        errors: list[BaseException],
        outer: Call | None,
        loop: Loop,
    ) -> None:
        self._connection = connection
        self._event = event
        self._awaitable = awaitable
        self._errors = errors
        self._call: Call = [connection.subscription, outer]
        self._loop = loop
        self._uncounted = [None]  # whoever takes it out, in one atomic step, counts what is being heard
        self._waiting: list[Callable[[], object]] = []

    @property
    def subscription(self) -> Subscription:
        """Whose delivery it is."""
        return self._connection.subscription

    @property
    def pending(self) -> int:
        """How many events are being delivered."""
        return 0 if self._call[0] is None else 1

    async def run(self) -> None:
        """Hear the event, and then what was said meanwhile."""
        call = self._call
        set_call(call)
        try:
            error = await self._hear(self._connection, self._event, self._awaitable)
            if error is not None:
                self._errors.append(error)
            while deferred := next_deferred(call):
                connection, sender, event = deferred
                self._uncounted.append(None)
                set_current(event.run)
                await self._hear(connection, event, partial(_call_in_turn, connection, sender, event))
        finally:
            self._end()

    async def _hear(self, connection: Connection, event: Event, work: Any) -> BaseException | None:
        try:
            error = await hear(connection, event, work, self._loop.is_leaving)
        except KeyboardInterrupt:
            self._takes_count()
            raise
        self._takes_count()
        return error

    def _takes_count(self) -> bool:
        try:
            self._uncounted.pop()
        except IndexError:
            return False
        return True

    def _end(self) -> None:
        """Count what nobody will hear any more, and tell whoever waits."""
        left = abandon(self._call)
        self.subscription.drop("loop_closed", left + self._takes_count())
        _in_flight.pop(id(self), None)
        while self._waiting:
            self._waiting.pop()()

    def lose(self) -> None:
        """End it where its task will not: asyncio cancelled that before its first step, or the loop is gone."""
        if self.pending:
            self._end()

    def close(self) -> None:
        """End it before its first step."""
        close = getattr(self._awaitable, "close", None)
        if self.pending and close is not None:
            close()
        self.lose()

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` at its end."""
        self._waiting.append(on_done)
        if not self.pending:
            on_done()

    def goes_on(self) -> Self:
        """Have ``flush`` know of it."""
        key = id(self)
        _in_flight[key] = weakref.ref(self, lambda _: _in_flight.pop(key, None))
        return self


_in_flight: dict[int, weakref.ref[Hearing]] = {}
"""Those that did not end at once. Weakly, because they know the loop."""


def in_flight() -> list[Hearing]:
    """Return the deliveries that go on in tasks, except those that this code is inside of."""
    calls = list(calls_around())
    known = [hearing for reference in list(_in_flight.values()) if (hearing := reference()) is not None]
    for hearing in known:
        if hearing._loop.is_dead:
            hearing.lose()
    return [hearing for hearing in known if hearing.pending and not any(hearing._call is call for call in calls)]


def _call_in_turn(connection: Connection, sender: object, event: Event) -> Any:
    """Call the subscriber, or queue what is to be awaited behind what it still has to hear."""
    result = connection.call(sender, event)
    if not connection.subscription.is_behind or not isawaitable(result):
        return result
    lanes.lane_of(connection.subscription).put(connection, event, result, rough_size_of(event))
    return UNCOUNTED


def in_own_task(
    connection: Connection, event: Event, awaitable: Any, errors: list[BaseException], outer: Call | None
) -> Wakeup | None:
    """Have an awaitable awaited in a task of its own, or behind what came before.

    Returns what will be set when it was; None when it has been, or is not waited for. What it raises for the emitter is put
    into ``errors``.
    """
    loop = loops.current_loop()
    if loop is None or not loop.takes_tasks or connection.subscription.is_behind:
        return _put_behind(connection, event, awaitable)
    hearing = Hearing(connection, event, awaitable, errors, outer, loop)
    try:
        loop.begin(hearing.run, copy_context(), on_end=hearing.close)
    except loops.LoopClosed:
        return _put_behind(connection, event, awaitable)
    if not hearing.pending:
        return None
    finished = loops.Wakeup()
    hearing.goes_on().mark(finished.set)
    return finished


def _put_behind(connection: Connection, event: Event, awaitable: Any) -> Wakeup | None:
    lane = lanes.lane_of(connection.subscription)
    lane.put(connection, event, awaitable, rough_size_of(event))
    if lane.missed_deadline:  # nobody waits for it again until it is empty
        return None
    if lanes.heard_from() is not None:
        return None
    finished = loops.Wakeup()
    lane.mark(finished.set)
    return finished


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_in_flight.clear)  # the tasks are the parent's
