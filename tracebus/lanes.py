"""What waits to be delivered: one bounded queue a subscription, in order. Which loop empties it is in ``loops``.

A lane has at most one drain at a time. Whoever puts into an idle lane starts it, on the emitter's own loop when there
is one; until it is empty again, everything for that subscriber goes behind.
"""

from __future__ import annotations

import inspect
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from . import loops
from .calls import Call, next_deferred, set_call
from .events import Event
from .loops import Loop, LoopClosed
from .runs import set_current
from .subscriptions import UNCOUNTED, Connection, Subscription, Tally, known_subscriptions

__all__ = ["PATIENCE_S", "Lane", "busy_lanes", "lane_of", "wait_for", "wait_for_async"]

PATIENCE_S = 5.0
"""How long anybody waits for a queue before going on without, in seconds."""


class Entry:
    """One delivery that waits: an awaitable to await, or a callable that may return one.

    With no connection it is a mark: ``on_done`` is called when the drain gets there.
    """

    __slots__ = ("connection", "event", "on_done", "work")

    def __init__(
        self,
        connection: Connection | None = None,
        event: Event | None = None,
        work: Any = None,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        self.connection = connection
        self.event = event
        self.work = work
        self.on_done = on_done

    def discard(self) -> None:
        """Close a coroutine that will not run, which would warn otherwise."""
        if inspect.iscoroutine(self.work):
            self.work.close()


class Lane:
    """The queue of one subscription; ``in_thread`` says that its subscriber is sync and has a thread of its own."""

    def __init__(self, subscription: Subscription, in_thread: bool) -> None:
        self.subscription = subscription
        self._in_thread = in_thread
        self._put = Tally()
        self._done = Tally()
        self._reset()

    def _reset(self) -> None:
        self._entries: deque[Entry] = deque()
        # Only ever tried, never waited for: the collector or a signal may run a put in the middle of a put.
        self._draining = threading.Lock()
        self._home: Loop | None = None
        self._thread: threading.Thread | None = None
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._wants_room: deque[threading.Event] = deque()
        self.missed_deadline = False

    def forget_after_fork(self) -> None:
        """Drop what the parent process will deliver."""
        for tally in (self._put, self._done):
            tally.unlock()
        while self._done.value < self._put.value:
            self._done.add()
        for entry in self._entries:
            entry.discard()
        self._reset()

    @property
    def pending(self) -> int:
        """How many events wait or are being delivered."""
        done = self._done.value
        return self._put.value - done

    @property
    def is_busy(self) -> bool:
        """Whether an event put now would have to wait for others."""
        return bool(self._entries) or self._draining.locked()

    def put(self, connection: Connection, event: Event, work: Any) -> None:
        """Queue one delivery and see that the lane is emptied."""
        entry = Entry(connection, event, work)
        if len(self._entries) >= self.subscription.limits.size and not self._make_room():
            entry.discard()
            self.subscription.drop("queue_full")
            return
        self._put.add()
        self._entries.append(entry)
        self._start()

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` when everything that is queued now has been delivered."""
        self._entries.append(Entry(on_done=on_done))
        self._start()

    def _make_room(self) -> bool:
        overflow = self.subscription.limits.overflow
        if overflow == "block" and loops.current_loop() is None:
            room = threading.Event()
            self._wants_room.append(room)
            return room.wait(PATIENCE_S) or self._gave_up_waiting(room)
        if overflow != "drop_oldest":
            return False
        try:
            oldest = self._entries.popleft()
        except IndexError:
            return True  # it was delivered in between
        self._drop(oldest, "queue_full")
        return True

    def _gave_up_waiting(self, room: threading.Event) -> bool:
        try:
            self._wants_room.remove(room)
        except ValueError:
            return True  # woken just now
        return False

    def _drop(self, entry: Entry, reason: str) -> None:
        if entry.connection is not None:
            entry.discard()
            self.subscription.drop(reason)
        self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        if entry.connection is not None:
            self._done.add()
        if entry.on_done is not None:
            entry.on_done()
        try:
            self._wants_room.popleft().set()
        except IndexError:
            pass  # nobody waits for room

    def drop_all(self, reason: str) -> int:
        """Give up what is queued; return how many events that were."""
        dropped = 0
        while self._entries:
            entry = self._entries.popleft()
            dropped += entry.connection is not None
            self._drop(entry, reason)
        return dropped

    def _start(self) -> None:
        if not self._draining.acquire(blocking=False) and not self._take_over():
            return
        if self._in_thread:
            self._wake_thread()
        else:
            self._spawn()

    def _take_over(self) -> bool:
        """Take the lane from a loop that was closed without a chance to finish its tasks, and with it what was being heard."""
        if self._home is None or self._home.is_open:
            return False
        self._home = None
        waiting = sum(entry.connection is not None for entry in list(self._entries))
        for _ in range(self.pending - waiting):
            self.subscription.drop("loop_closed")
            self._done.add()
        return True

    def revive(self) -> None:
        """Go on with what a loop left behind that is gone."""
        if self._entries or self.pending:
            self._start()

    def _spawn(self) -> None:
        for home in (loops.current_loop(), loops.host_loop(), self.subscription.connected_loop):
            if home is not None and home.is_running and self._spawned_on(home):
                return
        try:
            loops.with_own_loop(self._spawned_on)
        except RuntimeError:  # no new threads once the interpreter shuts down
            anyio.run(self._drain)

    def _spawned_on(self, home: Loop) -> bool:
        try:
            self._home = home
            home.on_close(self, self._drain_at_close)
            home.spawn_to_the_end(self._drain)
        except LoopClosed:
            return False
        return True

    async def _drain(self) -> None:
        while True:
            try:
                while self._entries:
                    await self._deliver(self._entries.popleft())
                self.missed_deadline = False
                if self._home is not None:
                    self._home.on_close(self, None)
            finally:
                self._release()
            if not self._entries or not self._draining.acquire(blocking=False):
                return

    async def _drain_at_close(self) -> None:
        """Wait until the lane is empty on a loop that shuts down; what is not delivered in time is dropped."""
        if self._home is None or not self._home.is_here:
            return
        drains_here = self._draining.acquire(blocking=False)
        try:
            if drains_here:  # the drain was cancelled, and trio takes no new tasks here
                while self._entries:
                    await self._deliver(self._entries.popleft())
            else:
                empty = loops.Wakeup()
                self.mark(empty.set)
                await empty.wait()
        finally:
            self.drop_all("loop_closed")
            if drains_here:
                self._release()

    def _release(self) -> None:
        try:
            self._draining.release()
        except RuntimeError:
            pass  # the drain was cancelled before its first step, or its loop is gone

    async def _deliver(self, entry: Entry) -> None:
        if entry.connection is None or entry.event is None:
            self._finish(entry)
            return
        call: Call = [entry.connection.subscription, None]
        set_current(entry.event.run)
        set_call(call)
        try:
            await self._hear(entry.connection, entry.event, entry.work)
            while deferred := next_deferred(call):
                connection, sender, event = deferred
                await self._hear(connection, event, partial(connection.receiver, sender, event=event))
        finally:
            self._finish(entry)

    async def _hear(self, connection: Connection, event: Event, work: Any) -> None:
        try:
            result = work() if callable(work) else work
            if inspect.isawaitable(result):
                await (loops.run_elsewhere(result) if self._in_thread else result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if loops.is_being_cancelled():
                self.subscription.drop("loop_closed")
                raise
            connection.subscription.fail(event, error)
        else:
            if result is not UNCOUNTED:
                next(connection.delivered)

    def _wake_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve_in_thread, name=f"tracebus {self.subscription.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no new threads once the interpreter shuts down
                self._drain_here()
                return
            self._thread = thread
        self._wake.put(True)

    def _serve_in_thread(self) -> None:
        while self._wake.get():
            self._drain_here()

    def _drain_here(self) -> None:
        drain = self._drain()
        try:
            drain.send(None)  # nothing suspends in a thread
        except StopIteration:
            pass

    def stop(self) -> None:
        """End the lane's thread once it is empty."""
        if self._thread is not None:
            self._wake.put(False)


def _all_lanes() -> list[Lane]:
    return [subscription.lane for subscription in known_subscriptions() if subscription.lane is not None]


def lane_of(subscription: Subscription, *, in_thread: bool = False) -> Lane:
    """Return the subscription's queue, made when it is first needed."""
    if subscription.lane is None:
        subscription.lane = Lane(subscription, in_thread)
    return subscription.lane


def busy_lanes() -> list[Lane]:
    """Return the lanes on which something waits or is being delivered."""
    for lane in _all_lanes():
        lane.revive()
    return [lane for lane in _all_lanes() if lane.pending]


def wait_for(waiting: list[Lane], timeout_s: float) -> list[Lane]:
    """Block until what is queued now on these lanes was delivered, for ``timeout_s`` seconds; return those that failed."""
    deadline = time.monotonic() + timeout_s
    marks = [(lane, threading.Event()) for lane in waiting]
    for lane, reached in marks:
        lane.mark(reached.set)
    return [lane for lane, reached in marks if not reached.wait(max(0.0, deadline - time.monotonic()))]


async def wait_for_async(waiting: list[Lane], timeout_s: float) -> list[Lane]:
    """Await until what is queued now on these lanes was delivered, for ``timeout_s`` seconds; return those that failed."""
    marks = [(lane, loops.Wakeup()) for lane in waiting]
    for lane, reached in marks:
        lane.mark(reached.set)
    with anyio.move_on_after(timeout_s):
        for _, reached in marks:
            await reached.wait()
    return [lane for lane, reached in marks if not reached.is_set()]


def _forget_after_fork() -> None:
    for lane in _all_lanes():
        lane.forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
