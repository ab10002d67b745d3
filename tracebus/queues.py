"""What waits for one subscriber: a queue with bounds. Who empties it, and where, is in ``lanes`` and ``loops``."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .events import Event
from .ownloop import Latch, may_wait
from .subscriptions import Connection, QueueLimits

__all__ = ["PATIENCE_S", "Entry", "Queue"]

PATIENCE_S = 5.0
"""How long anybody waits for a queue before going on without, in seconds."""


class Entry:
    """One delivery that waits: an awaitable to await, or a callable that may return one.

    With no connection it is a mark: ``on_done`` is called when the drain gets there.
    """

    __slots__ = ("connection", "event", "on_done", "size", "work")

    def __init__(
        self,
        connection: Connection | None = None,
        event: Event | None = None,
        work: Any = None,
        size: int = 0,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        self.connection = connection
        self.event = event
        self.work = work
        self.size = size
        self.on_done = on_done

    @property
    def is_brief(self) -> bool:
        """Whether delivering it never suspends."""
        return self.connection is None or self.connection.is_brief

    def discard(self) -> None:
        """Close a coroutine that will not run, which would warn otherwise."""
        if inspect.iscoroutine(self.work):
            self.work.close()


class Queue:
    """Entries in order, as many as the limits allow. Any thread may put and take.

    ``admit`` comes before ``append``: the caller counts what was admitted before anybody can take it. Marks need no room.
    ``is_from_within`` tells whether it is the subscriber itself that says what is to be put.
    """

    def __init__(self, limits: QueueLimits, on_dropped: Callable[[Entry], None], is_from_within: Callable[[], bool]) -> None:
        self._limits = limits
        self._on_dropped = on_dropped
        self._is_from_within = is_from_within
        self._entries: deque[Entry] = deque()
        self._events = 0
        self._size = 0
        # Held for an addition or two, in which nothing is called, so that nobody ever waits for it in vain. Re-entrant:
        # the collector or a signal may run a put in the middle of a put.
        self._counting = threading.RLock()
        self._wants_room: deque[Latch] = deque()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._entries)

    @property
    def is_brief(self) -> bool:
        """Whether delivering what comes next never suspends."""
        try:
            return self._entries[0].is_brief
        except IndexError:
            return True

    def admit(self, size: int) -> bool:
        """Take the room for one entry, making some by the overflow policy; False when the entry has to be dropped."""
        if self._reserve(size):
            return True
        overflow = self._limits.overflow
        if overflow == "drop_oldest":
            return self._displace(size)
        if overflow == "drop_newest":
            return False
        if self._is_from_within():  # a subscriber that speaks to itself would wait for its own return
            self._count(1, size)
            return True
        return may_wait() and self._wait_for_room(size)

    def append(self, entry: Entry) -> None:
        """Put an entry, for which there is room, behind the others."""
        self._entries.append(entry)

    def take(self) -> Entry | None:
        """Take out the first entry, None when nothing waits."""
        try:
            entry = self._entries.popleft()
        except IndexError:
            return None
        if entry.connection is not None:
            with self._counting:
                self._events -= 1
                self._size -= entry.size
            if self._wants_room:
                self._tell_of_room()
        return entry

    def put_back(self, entry: Entry) -> None:
        """Put an entry that was taken before the others again."""
        if entry.connection is not None:
            self._count(1, entry.size)
        self._entries.appendleft(entry)

    def forget(self) -> None:
        """Discard what waits, in a forked child, where another thread may have held the lock."""
        for entry in self._entries:
            entry.discard()
        self._entries.clear()

    def _count(self, events: int, size: int) -> None:
        with self._counting:
            self._events += events
            self._size += size

    def _reserve(self, size: int) -> bool:
        """Take the room for an entry if there is as much; what is larger than the whole queue may wait alone."""
        with self._counting:
            fits = self._events < self._limits.events and self._size + size <= self._limits.size
            if fits or not self._events:
                self._events += 1
                self._size += size
                return True
        return False

    def _displace(self, size: int) -> bool:
        while not self._reserve(size):
            if not self._drop_oldest():
                self._count(1, size)  # those who have the room are just about to append
                return True
        return True

    def _drop_oldest(self) -> bool:
        marks = []
        while (entry := self.take()) is not None and entry.connection is None:
            marks.append(entry)
        self._entries.extendleft(reversed(marks))
        if entry is None:
            return False
        self._on_dropped(entry)
        return True

    def _wait_for_room(self, size: int) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            room = Latch()
            self._wants_room.append(room)
            admitted = self._reserve(size)  # it may have become free before we said that we wait
            if not admitted and room.wait(max(0.0, deadline - time.monotonic())):
                continue
            try:
                self._wants_room.remove(room)
            except ValueError:
                self._tell_of_room()  # told in between, and not in need of it
            return admitted

    def _tell_of_room(self) -> None:
        try:
            self._wants_room.popleft().set()
        except IndexError:
            pass  # nobody waits for room
