"""Records that wait to be written in batches, and the thread that writes them.

To the core it is the lane of a subscription: ``flush``, ``shutdown``, ``stats`` and a fork treat it as any other. What is
delivered here is what was *committed*: on disk, or acknowledged by a receiver. A mark is reached when everything before it
is. What is noted of an event is in ``notes``, the handle that a user gets in ``writing``; what is done with a batch is
each output's own ``Work``.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from ..counts import Tally, drops
from ..lanes import PATIENCE_S, Lane
from ..ownloop import Latch, may_wait
from ..subscriptions import Subscription

__all__ = ["BATCH", "BatchLane", "HopelessError", "Losses", "RetryError", "Sized", "Work"]

BATCH: Final = 4000
"""Records of one batch, at most."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Content of one batch, in bytes, about."""
RETRY_S: Final = 0.25
"""How long a writer that failed waits before it tries again, in seconds."""


class Sized(Protocol):
    """A record that knows how many bytes it takes, about."""

    @property
    def size(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Sized)


class HopelessError(Exception):
    """Say that a batch cannot be written and that keeping it is of no use."""


class RetryError(Exception):
    """Say that a batch could not be written now, and may be later: no space, somebody else writes, nobody answers.

    ``wait_s`` says in how many seconds; ``is_firm`` that a flush does not shorten that, because the other side asked for it.
    ``quiet_s`` says how long, in seconds, a batch may be tried before that is told, unless it is given up.
    """

    def __init__(self, *args: object, wait_s: float = RETRY_S, is_firm: bool = False, quiet_s: float = 0.0) -> None:
        super().__init__(*args)
        self.wait_s = wait_s
        self.is_firm = is_firm
        self.quiet_s = quiet_s


Losses: TypeAlias = "Mapping[str, int]"
"""How many records of a batch were not written though the others were, by the reason that ``stats`` gives."""


class _Mark:
    """Where somebody waits for what came before."""

    __slots__ = ("on_done",)
    size = 0

    def __init__(self, on_done: Callable[[], object]) -> None:
        self.on_done = on_done


class Work:
    """What is done with a batch: ``prepare`` once, ``commit`` until it does not raise, in the writer's thread."""

    def prepare(self, records: list[Any], /) -> object:
        """Make of records what is to be written."""
        raise NotImplementedError

    def commit(self, batch: Any, /) -> Losses | None:
        """Write it, and return what could not be; raise RetryError or HopelessError where nothing more can be, now or ever."""
        raise NotImplementedError

    def give_up(self, batch: Any, /) -> Losses:
        """Return what of a batch is not written and will not be; raise HopelessError when that is all of it."""
        raise HopelessError

    def failed(self, error: Exception, /) -> None:
        """Say that a batch could not be written, now or at all."""

    def lose(self, record: Any, /) -> None:
        """Hear of a record that gave way to others, in the thread that emits."""

    @property
    def owes(self) -> bool:
        """Whether ``settle`` has something to do."""
        return False

    def settle(self) -> None:
        """Do what has to be done before somebody is told that everything is written; raise RetryError to be asked again."""

    def rest(self) -> float | None:
        """Do what is due while nothing waits; return in how many seconds something will be, None for nothing."""
        return None

    def hurry(self) -> None:
        """Hear that the interpreter shuts down, and that the main thread writes: nothing may take long any more."""

    def close(self) -> None:
        """Release what was opened."""

    def forget_after_fork(self) -> None:
        """Forget what is the parent process's."""


class BatchLane(Lane, Generic[R]):
    """The queue of an output that writes in batches.

    ``put_record`` is for the emitting thread: it takes no lock, so that the collector or a signal may run one in the
    middle of another.
    """

    def __init__(self, subscription: Subscription, work: Work, interval_s: float, batch: int = BATCH) -> None:
        self._work = work
        self._interval_s = interval_s
        self._batch = batch
        self._most = subscription.limits.events
        self._most_bytes = subscription.limits.size
        super().__init__(subscription, in_thread=True)

    def _reset(self) -> None:
        super()._reset()
        self._records: deque[Any] = deque()
        self._wants_room: deque[Latch] = deque()
        self._unsettled: list[_Mark] = []
        """Before these everything is written, and the work has still something to do."""
        self._settle_at = 0.0
        self._settle_is_firm = False
        self._bytes = 0
        self._asleep = True
        self._stopping = False
        self._hurry = False
        self._is_awaited = False
        self._gave_up = False
        self._writing = threading.Lock()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    # -- the emitting thread -------------------------------------------------------------------------------------------

    def put_record(self, record: R) -> None:
        """Queue a record; when there is no room, the policy of the subscription says what gives way."""
        records = self._records
        waiting = len(records)
        if (waiting >= self._most or self._bytes > self._most_bytes) and not self._make_room():
            self._give_way(record)
            return
        self._put.add()
        self._bytes += record.size
        records.append(record)
        if self._asleep:
            self._call()
        elif not self._hurry and (waiting >= self._batch or self._bytes > BATCH_BYTES):
            self._hurry = True
            self._call()

    def _make_room(self) -> bool:
        overflow = self.subscription.limits.overflow
        if overflow == "block" and may_wait() and threading.current_thread() is not self._thread:
            room = Latch()
            self._wants_room.append(room)
            self._call()
            return room.wait(PATIENCE_S) or self._gave_up_waiting(room)
        if overflow != "drop_oldest":
            return False
        try:
            oldest = self._records.popleft()
        except IndexError:
            return True  # the writer took them all in between
        if isinstance(oldest, _Mark):
            self._records.appendleft(oldest)
            return False
        self._bytes -= oldest.size
        self._give_way(oldest)
        self._done.add()
        return True

    def _gave_up_waiting(self, room: Latch) -> bool:
        try:
            self._wants_room.remove(room)
        except ValueError:
            return True  # told just now
        return False

    def _give_way(self, record: R) -> None:
        self.subscription.drop("queue_full")
        self._work.lose(record)

    def _call(self) -> None:
        """Wake the writer, or start it, or write here where no thread can start any more."""
        self._asleep = False
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._calls.put(None)
        elif not self._start_writer():
            self._work.hurry()
            self._write_all(attempts=2)

    def _start_writer(self) -> bool:
        thread = threading.Thread(target=self._serve, name=f"tracebus {self.subscription.name}", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down
            self._thread = None
            return False
        return True

    def get_ready(self) -> None:
        """Have a writer, because records will come: once the interpreter shuts down, none can be started."""
        if self._thread is None:
            self._start_writer()

    # -- what the core asks --------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether something waits to be written."""
        return self.pending > 0

    @property
    def owes(self) -> bool:
        """Whether the work has something to do before everything counts as written."""
        return not self._gave_up and self._work.owes

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` when everything that is queued now is written."""
        self._records.append(_Mark(on_done))
        self._hurry = self._is_awaited = True
        self._call()

    def drop_all(self, reason: str) -> None:
        """Give up what is queued."""
        while self._records:
            try:
                record = self._records.popleft()
            except IndexError:
                break
            if isinstance(record, _Mark):
                record.on_done()
                continue
            self.subscription.drop(reason)
            self._done.add()
        self._bytes = 0

    def revive(self) -> None:
        """Go on with what is queued, should the thread have died."""
        if self._records:
            self._call()

    def stop(self) -> None:
        """End the writer once everything is written."""
        self._stopping = True
        if self._thread is not None:
            self._hurry = self._is_awaited = True
            self._call()

    def join(self, timeout_s: float) -> None:
        """Wait until the writer that was told to stop has written everything and closed, at most ``timeout_s`` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def give_up(self, reason: str) -> None:
        """Write nothing more: what is being tried is tried for the last time."""
        self._gave_up = True
        self.drop_all(reason)
        self._calls.put(None)

    def forget_after_fork(self) -> None:
        """Forget what the parent process will write, and with what."""
        super().forget_after_fork()
        self._work.forget_after_fork()

    # -- the writer's thread -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._has_records():
            self._asleep = False
            if not self._hurry and len(self._records) < self._batch:
                self._called(self._interval_s)
            self._write_all()
            self._asleep = True
        self._work.close()

    def _has_records(self) -> bool:
        """Wait until there are some; False when the writer was told to stop instead."""
        while not self._records and not self._stopping:
            self._called(self._idle_s())
            if self._unsettled and time.monotonic() >= self._settle_at:
                self._settle()
        return bool(self._records)

    def _idle_s(self) -> float | None:
        """Return in how many seconds something is due, None for nothing."""
        due_s = self._work.rest()
        if not self._unsettled:
            return due_s
        settle_s = max(0.0, self._settle_at - time.monotonic())
        return settle_s if due_s is None else min(settle_s, due_s)

    def _called(self, within_s: float | None) -> bool:
        try:
            self._calls.get(timeout=within_s)
        except queue.Empty:
            return False
        return True

    def _write_all(self, attempts: int | None = None) -> None:
        """Write what is queued; with ``attempts``, give up after as many failures."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            while True:
                self._hurry = False
                records, marks = self._take()
                if not records and not marks:
                    return
                if records:
                    self._write(records, attempts)
                self._unsettled += marks
                if marks:  # somebody who flushes does not want to wait, and may have to
                    self._settle(is_last=attempts is not None)
        finally:
            self._writing.release()

    def _settle(self, *, is_last: bool = False) -> None:
        """Tell those who wait that everything is written, once the work has nothing more to do."""
        if self._settle_is_firm and time.monotonic() < self._settle_at and not is_last:
            return
        self._settle_is_firm = False
        try:
            self._work.settle()
        except RetryError as error:
            if not is_last:
                self._settle_at, self._settle_is_firm = time.monotonic() + error.wait_s, error.is_firm
                return
        settled, self._unsettled = self._unsettled, []
        for mark in settled:
            mark.on_done()

    def _take(self) -> tuple[list[R], list[_Mark]]:
        """Take a batch from the queue, up to the first mark that is followed by no other."""
        records: list[R] = []
        marks: list[_Mark] = []
        size = 0
        queued = self._records
        while len(records) < self._batch and size < BATCH_BYTES:
            try:
                record = queued.popleft()
            except IndexError:
                self._bytes = 0  # added to without a lock, so put right whenever nothing is there
                break
            if isinstance(record, _Mark):
                marks.append(record)
            elif marks:
                queued.appendleft(record)
                break
            else:
                records.append(record)
                size += record.size
        self._bytes -= size
        return records, marks

    def _write(self, records: list[R], attempts: int | None) -> None:
        delivered = len(records)
        try:
            losses = self._committed(self._work.prepare(records), attempts)
        except HopelessError:
            delivered -= self._count_lost("not_writable", delivered)
        except Exception as error:  # a batch that cannot be understood must not stop the next
            delivered = 0
            for _ in records:
                self.subscription.failed.add()
            self._work.failed(error)
        else:
            delivered -= sum(self._count_lost(reason, count) for reason, count in (losses or {}).items())
        for _ in range(delivered):
            self.subscription.delivered.add()
        for _ in records:
            self._done.add()
        while self._wants_room:
            self._wants_room.popleft().set()

    def _count_lost(self, reason: str, records: int) -> int:
        """Count what cannot be written, without the warning of ``drop``: whoever failed to write it has said so."""
        tally = self.subscription.dropped.setdefault(reason, Tally())
        for _ in range(records):
            tally.add()
            drops.add()
        return records

    def _committed(self, prepared: object, attempts: int | None) -> Losses | None:
        began = time.monotonic()
        while True:
            try:
                return self._work.commit(prepared)
            except RetryError as error:
                attempts = None if attempts is None else attempts - 1
                if attempts == 0 or time.monotonic() - began >= error.quiet_s:
                    self._work.failed(error)
                self._pause(0 if attempts == 0 else error.wait_s, error.is_firm)
                if attempts == 0 or self._gave_up:
                    return self._work.give_up(prepared)

    def _pause(self, wait_s: float, is_firm: bool) -> None:
        """Wait; somebody who flushes does not want to, and may have to."""
        self._is_awaited = False
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0 and not self._gave_up and (is_firm or not self._is_awaited):
            self._called(left_s)
