"""Who empties a queue: one drain at a time, so that a subscriber hears everything in order. The queue itself is in ``queues``,
which loops there are in ``loops``.

Whoever puts into an idle lane starts a drain, on the emitter's own loop when there is one; until the lane is empty again,
everything for that subscriber goes behind. A drain is a task, a callback of the loop where nothing can suspend, or a thread.
"""

from __future__ import annotations

import inspect
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from . import loops
from .calls import Call, calls_around, set_call
from .counts import Tally
from .events import Event
from .hearing import hear
from .loops import Loop, LoopClosed
from .ownloop import Latch, run_elsewhere, with_own_loop
from .queues import PATIENCE_S, Entry, Queue
from .runs import set_current
from .subscriptions import Connection, Subscription, known_subscriptions

__all__ = ["PATIENCE_S", "Lane", "Pending", "busy_lanes", "heard_from", "lane_of", "wait_for", "wait_for_async"]

AT_ONCE_NS: Final = 5_000_000
"""How long a drain keeps a loop to itself, in nanoseconds."""


class Turn:
    """The right to empty a lane, which one drain has at a time.

    It ends once, in one atomic step: the drain gives it back, or, when the drain's loop was closed without letting it finish,
    a successor takes it. Whoever ends it counts what was being heard then.
    """

    __slots__ = ("_open", "call", "home", "unheard")

    def __init__(self) -> None:
        self._open = [None]
        self.home: Loop | None = None
        self.call: Call | None = None
        """The delivery that goes on, until it is counted as done."""
        self.unheard = False
        """Whether the event that is being heard has not been counted yet."""

    @property
    def is_over(self) -> bool:
        """Whether somebody has ended it."""
        return not self._open

    def is_left(self) -> bool:
        """Tell whether the drain has to stop in the middle of a delivery."""
        return self.home is not None and self.home.is_leaving()

    def end(self) -> bool:
        """End the turn; False when somebody else has."""
        try:
            self._open.pop()
        except IndexError:
            return False
        return True


_numbers: Final = itertools.count()


class Lane:
    """The queue of one subscription; ``in_thread`` says that its subscriber is sync and has a thread of its own."""

    def __init__(self, subscription: Subscription, in_thread: bool) -> None:
        self.subscription = subscription
        self.number = next(_numbers)
        self._in_thread = in_thread
        self._put = Tally()
        self._done = Tally()
        self._reset()

    def _reset(self) -> None:
        self._queue = Queue(self.subscription.limits, partial(self._drop, reason="queue_full"), lambda: heard_from() is self)
        # Holds one item while nobody has the turn: taking it is one atomic step that never waits, because the collector or
        # a signal may run a put in the middle of a put.
        self._idle = [None]
        self._turn: Turn | None = None
        self._thread: threading.Thread | None = None
        self._turns: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._stopped = False
        self.missed_deadline = False

    def forget_after_fork(self) -> None:
        """Drop what the parent process will deliver."""
        self._put.restart()
        self._done.restart()
        self._queue.forget()
        self._reset()

    @property
    def pending(self) -> int:
        """How many events wait or are being delivered."""
        done = self._done.value
        return self._put.value - done

    @property
    def is_busy(self) -> bool:
        """Whether an event put now would have to wait for others."""
        return bool(self._queue) or not self._idle

    @property
    def owes(self) -> bool:
        """Whether something is due although no event waits: what an output makes of many."""
        return False

    # -- what comes in -------------------------------------------------------------------------------------------------

    def put(self, connection: Connection, event: Event, work: Any, size: int) -> None:
        """Queue one delivery and see that the lane is emptied."""
        entry = Entry(connection, event, work, size)
        if not self._queue.admit(size):
            entry.discard()
            self.subscription.drop("queue_full")
            return
        self._put.add()
        self._queue.append(entry)
        self._start()

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` when everything that is queued now has been delivered."""
        self._queue.append(Entry(on_done=on_done))
        self._start()

    def drop_all(self, reason: str) -> None:
        """Give up what is queued."""
        while (entry := self._queue.take()) is not None:
            self._drop(entry, reason)

    def _drop(self, entry: Entry, reason: str) -> None:
        if entry.on_done is not None:
            entry.on_done()
            return
        entry.discard()
        self.subscription.drop(reason)
        self._done.add()

    def revive(self) -> None:
        """Go on with what a loop left behind that is gone."""
        if self._queue or self.pending:
            self._start()

    # -- whose turn it is ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        turn = self._claim() or self._take_over()
        if turn is None:
            return
        try:
            if self._in_thread:
                self._drain_in_thread(turn)
            else:
                self._drain_on_a_loop(turn)
        except BaseException:  # an interrupt must not leave the turn taken for ever
            self._free(turn)
            raise

    def _claim(self) -> Turn | None:
        try:
            self._idle.pop()
        except IndexError:
            return None
        self._turn = turn = Turn()
        return turn

    def _take_over(self) -> Turn | None:
        """Take the turn from a drain whose loop was closed without a chance to finish its tasks."""
        turn = self._turn
        if turn is None or turn.home is None or not turn.home.is_dead or not turn.end():
            return None
        self._lose(turn)
        self._turn = successor = Turn()
        return successor

    def _end(self, turn: Turn) -> None:
        """End a turn with the queue empty."""
        self.missed_deadline = False
        if turn.home is not None:
            turn.home.on_close(self, None)
        self._free(turn)
        if self._queue:  # put by somebody who saw that the turn had not ended yet
            self._start()

    def _give_up(self, turn: Turn) -> None:
        """End a turn in the middle of a delivery."""
        if turn.end():
            self._lose(turn)
            self._idle.append(None)

    def _free(self, turn: Turn) -> None:
        if turn.end():
            self._idle.append(None)

    def _lose(self, turn: Turn) -> None:
        """Count what was being heard on a loop that is gone."""
        if turn.call is not None:
            turn.call[0] = None
            self.subscription.drop("loop_closed", int(turn.unheard))
            self._done.add()

    # -- where it is delivered -----------------------------------------------------------------------------------------

    def _drain_on_a_loop(self, turn: Turn) -> None:
        for home in self._homes():
            if home is not None and home.takes_tasks and self._drain_on(home, turn):
                return
        try:
            with_own_loop(lambda home: self._drain_on(home, turn))
        except RuntimeError:  # no new threads once the interpreter shuts down
            anyio.run(self._drain, turn)

    def _homes(self) -> Iterator[Loop | None]:
        """Yield the loops on which this may be heard, the best first; the first does for most."""
        yield loops.current_loop()
        yield loops.host_loop()
        yield self.subscription.connected_loop

    def _drain_on(self, home: Loop, turn: Turn) -> bool:
        turn.home = home
        try:
            home.on_close(self, partial(self._drain_at_close, home))
            if self._queue.is_brief:
                home.call_soon(partial(self._drain_in_callback, turn))
            else:
                home.spawn_to_the_end(partial(self._drain, turn))
        except LoopClosed:
            return False
        return True

    def _drain_in_callback(self, turn: Turn) -> None:
        """Deliver where nothing can be awaited, at a third of what a task costs; go on elsewhere when that does not do."""
        if _run_now(self._drain(turn, in_callback=True)) and turn.home is not None and not self._drain_on(turn.home, turn):
            self._give_up(turn)

    async def _drain(self, turn: Turn, *, in_callback: bool = False) -> bool:
        """Deliver what waits until nothing does; in a callback return True when there is more that cannot be done there."""
        until = time.perf_counter_ns() + AT_ONCE_NS
        try:
            while not turn.is_over and (entry := self._queue.take()) is not None:
                if in_callback and not entry.is_brief:
                    self._queue.put_back(entry)
                    return True
                await self._deliver(turn, entry)
                if turn.home is None or time.perf_counter_ns() < until:
                    continue
                if in_callback:
                    return True
                await cancel_shielded_checkpoint()  # emitters in other threads may never let the queue become empty
                until = time.perf_counter_ns() + AT_ONCE_NS
        except BaseException:
            self._give_up(turn)
            raise
        self._end(turn)
        return False

    async def _drain_at_close(self, home: Loop) -> None:
        """Empty the lane while its loop shuts down; what is not delivered in time is dropped."""
        turn = self._claim()
        if turn is None and (self._turn is None or self._turn.home is not home):
            return
        try:
            if turn is not None:  # the drain was cancelled, and trio takes no new tasks here
                turn.home = home
                await self._drain(turn)
            else:
                empty = loops.Wakeup()
                self.mark(empty.set)
                await empty.wait()
        except BaseException:
            self.drop_all("loop_closed")
            raise

    # -- one delivery --------------------------------------------------------------------------------------------------

    async def _deliver(self, turn: Turn, entry: Entry) -> None:
        if entry.on_done is not None:
            entry.on_done()
            return
        assert entry.connection is not None
        assert entry.event is not None
        turn.call = call = [self, None]
        set_current(entry.event.run)
        set_call(call)
        await self._hear(turn, entry.connection, entry.event, entry.work)
        turn.call = call[0] = None
        self._done.add()

    async def _hear(self, turn: Turn, connection: Connection, event: Event, work: Any) -> None:
        turn.unheard = True
        try:
            if self._in_thread:
                work = partial(_call_and_wait, work, self.subscription.connected_loop)
            await hear(connection, event, work, turn.is_left)
        except KeyboardInterrupt:  # counted
            turn.unheard = False
            raise
        turn.unheard = False

    # -- a thread of its own -------------------------------------------------------------------------------------------

    def _drain_in_thread(self, turn: Turn) -> None:
        self._turns.put(turn)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"tracebus {self.subscription.name}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no new threads once the interpreter shuts down
                self._thread = None
                self._serve_what_is_there()

    def _serve(self) -> None:
        while not self._stopped and (turn := self._turns.get()) is not None:
            _run_now(self._drain(turn))
        # Whoever puts a turn looks for a thread afterwards: either sees that there is none, or is served here.
        self._thread = None
        self._serve_what_is_there()

    def _serve_what_is_there(self) -> None:
        while True:
            try:
                turn = self._turns.get_nowait()
            except queue.Empty:
                return
            if turn is not None:
                _run_now(self._drain(turn))

    def stop(self) -> None:
        """End the lane's thread once it is empty."""
        self._stopped = True
        self._turns.put(None)


def _call_and_wait(work: Callable[[], Any], home: Loop | None) -> object:
    result = work()
    if not inspect.isawaitable(result):
        return result
    run_elsewhere(result, home)
    return None


def _run_now(coroutine: Coroutine[Any, Any, bool]) -> bool:
    """Run a coroutine that never suspends, and return what it returns."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return bool(end.value)
    raise AssertionError("it suspended")


def _all_lanes() -> list[Lane]:
    return [subscription.lane for subscription in known_subscriptions() if subscription.lane is not None]


def lane_of(subscription: Subscription, *, in_thread: bool = False) -> Lane:
    """Return the subscription's queue, made when it is first needed."""
    if subscription.lane is not None:
        return subscription.lane
    first: Lane = vars(subscription).setdefault("lane", Lane(subscription, in_thread))  # of several threads that make one
    return first


def busy_lanes() -> list[Lane]:
    """Return the lanes on which something waits, is being delivered, or is due, except the one this is heard from."""
    here = heard_from()
    for lane in _all_lanes():
        lane.revive()
    return [lane for lane in _all_lanes() if lane is not here and (lane.pending or lane.owes)]


def heard_from() -> Lane | None:
    """Return the lane whose subscriber is hearing an event in this context, None where there is none.

    Nobody waits for a queue there: it could be this lane's, or that of a subscriber who waits for this one.
    """
    return next((call[0] for call in calls_around() if isinstance(call[0], Lane)), None)


class Pending(Protocol):
    """What can be waited for: a lane, or one delivery in a task."""

    @property
    def subscription(self) -> Subscription:
        """Whose it is."""
        ...

    @property
    def pending(self) -> int:
        """How many events wait or are being delivered."""
        ...

    def mark(self, on_done: Callable[[], object]) -> None:
        """Call ``on_done`` when what is pending now has been delivered."""


P = TypeVar("P", bound=Pending)


def wait_for(waiting: Sequence[P], timeout_s: float) -> list[P]:
    """Block until what is pending now was delivered, for ``timeout_s`` seconds; return those that failed."""
    deadline = time.monotonic() + timeout_s
    marks = [(one, Latch()) for one in waiting]
    for one, reached in marks:
        one.mark(reached.set)
    return [one for one, reached in marks if not reached.wait(max(0.0, deadline - time.monotonic()))]


async def wait_for_async(waiting: Sequence[P], timeout_s: float) -> list[P]:
    """Await until what is pending now was delivered, for ``timeout_s`` seconds; return those that failed."""
    marks = [(one, loops.Wakeup()) for one in waiting]
    for one, reached in marks:
        one.mark(reached.set)
    with anyio.move_on_after(timeout_s):
        for _, reached in marks:
            await reached.wait()
    return [one for one, reached in marks if not reached.is_set()]


def _forget_after_fork() -> None:
    for lane in _all_lanes():
        lane.forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
