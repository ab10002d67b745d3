"""Records that wait to be written in batches, and the thread that writes them.

To the core it is the lane of a subscription: ``flush``, ``shutdown``, ``stats`` and a fork treat it as any other. What is
delivered here is what was *committed*: a mark is reached when everything before it is on disk.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from ...counts import Tally, drops
from ...lanes import PATIENCE_S, Lane
from ...ownloop import Latch, may_wait
from ...subscriptions import Subscription

__all__ = ["BATCH", "BatchLane", "HopelessError", "Sized"]

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


class _Mark:
    """Where somebody waits for what came before."""

    __slots__ = ("on_done",)
    size = 0

    def __init__(self, on_done: Callable[[], object]) -> None:
        self.on_done = on_done


class Work(Protocol):
    """What is done with a batch: ``prepare`` once, ``commit`` until it does not raise, in the writer's thread.

    ``lose`` is told of a record that gave way to others, in the thread that emits.
    """

    def prepare(self, records: list[Any], /) -> object: ...
    def commit(self, batch: Any, /) -> None: ...
    def failed(self, error: Exception, /) -> None: ...
    def lose(self, record: Any, /) -> None: ...
    def close(self) -> None: ...
    def forget_after_fork(self) -> None: ...


class BatchLane(Lane, Generic[R]):
    """The queue of an output that writes in batches.

    ``put_record`` is for the emitting thread: it takes no lock, so that the collector or a signal may run one in the
    middle of another.
    """

    def __init__(self, subscription: Subscription, work: Work, interval_s: float) -> None:
        self._work = work
        self._interval_s = interval_s
        self._most = subscription.limits.events
        self._most_bytes = subscription.limits.size
        super().__init__(subscription, in_thread=True)

    def _reset(self) -> None:
        super()._reset()
        self._records: deque[Any] = deque()
        self._wants_room: deque[Latch] = deque()
        self._bytes = 0
        self._asleep = True
        self._stopping = False
        self._hurry = False
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
        elif not self._hurry and (waiting >= BATCH or self._bytes > BATCH_BYTES):
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
            return
        thread = threading.Thread(target=self._serve, name=f"tracebus {self.subscription.name}", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down
            self._thread = None
            self._write_all(attempts=2)

    # -- what the core asks --------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether something waits to be written."""
        return self.pending > 0

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` when everything that is queued now is on disk."""
        self._records.append(_Mark(on_done))
        self._hurry = True
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
            self._hurry = True
            self._call()

    def join(self, timeout_s: float) -> None:
        """Wait until the writer that was told to stop has written everything and closed, at most ``timeout_s`` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def forget_after_fork(self) -> None:
        """Forget what the parent process will write, and with what."""
        super().forget_after_fork()
        self._work.forget_after_fork()

    # -- the writer's thread -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        calls = self._calls
        while not (self._stopping and not self._records):
            if not self._hurry and len(self._records) < BATCH:
                try:
                    calls.get(timeout=self._interval_s)
                except queue.Empty:
                    pass
            self._write_all()
            self._asleep = True
            if not self._records and not self._stopping:
                calls.get()
            self._asleep = False
        self._work.close()

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
                for mark in marks:
                    mark.on_done()
        finally:
            self._writing.release()

    def _take(self) -> tuple[list[R], list[_Mark]]:
        """Take a batch from the queue, up to the first mark that is followed by no other."""
        records: list[R] = []
        marks: list[_Mark] = []
        size = 0
        queued = self._records
        while len(records) < BATCH and size < BATCH_BYTES:
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
        try:
            prepared = self._work.prepare(records)
            while not self._committed(prepared):
                attempts = None if attempts is None else attempts - 1
                if attempts == 0:
                    raise HopelessError
                self._pause()
        except HopelessError:
            self._count_unwritten(len(records))
        except Exception as error:  # a batch that cannot be understood must not stop the next
            for _ in records:
                self.subscription.failed.add()
            self._work.failed(error)
        else:
            delivered = self.subscription.delivered.add
            for _ in records:
                delivered()
        for _ in records:
            self._done.add()
        while self._wants_room:
            self._wants_room.popleft().set()

    def _count_unwritten(self, records: int) -> None:
        """Count what cannot be written, without the warning of ``drop``: whoever failed to write it has said so."""
        tally = self.subscription.dropped.setdefault("not_writable", Tally())
        for _ in range(records):
            tally.add()
            drops.add()

    def _committed(self, prepared: object) -> bool:
        try:
            self._work.commit(prepared)
        except HopelessError:
            raise
        except _RETRIED as error:
            self._work.failed(error)
            return False
        return True

    def _pause(self) -> None:
        try:
            self._calls.get(timeout=RETRY_S)
        except queue.Empty:
            pass


class RetryError(Exception):
    """Say that a batch could not be written now, and may be later: no space, or somebody else writes."""


_RETRIED: Final = (RetryError,)
