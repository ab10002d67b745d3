"""What has become of everything that was said: ``stats``, ``flush`` and ``shutdown``, and what happens at exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from .counts import SubscriberStats, drops
from .errors import ArgumentError, RunAbortedError, WrongThreadError
from .families import SYNC
from .late import awaiting, lanes, loops
from .runs import Run, open_runs
from .subscriptions import known_subscriptions
from .tracing import fail_run

if TYPE_CHECKING:
    from .lanes import Pending

__all__ = ["aflush", "flush", "shutdown", "stats"]

EXIT_DEADLINE_S: Final = 2.0
"""How long the interpreter's exit waits for what is queued, in seconds."""


def stats() -> list[SubscriberStats]:
    """Return, for each subscription, what became of the events that matched it.

    ``matched == delivered + failed + sum(dropped.values()) + pending`` for each.
    """
    return [subscription.stats for subscription in known_subscriptions() if not subscription.closed]


_dropped_before = 0


def _dropped_since_last_time() -> int:
    global _dropped_before
    dropped = drops.value
    since, _dropped_before = dropped - _dropped_before, dropped
    return since


def check_timeout(timeout_s: float) -> float:
    """Return the time-out; raise ArgumentError when it is negative or not a number."""
    if not isinstance(timeout_s, (int, float)) or not timeout_s >= 0:
        raise ArgumentError(f"timeout_s={timeout_s!r} must be a number of seconds, 0 or more")
    return timeout_s


def _pending() -> list[Pending]:
    """Return the queues that are not empty, and the deliveries that go on in tasks, except what this code is inside of."""
    if "tracebus.lanes" not in sys.modules:  # nothing was ever queued or awaited
        return []
    return [*lanes.busy_lanes(), *awaiting.in_flight()]


def flush(timeout_s: float = 5.0) -> bool:
    """Block until everything queued so far is delivered, at most ``timeout_s`` seconds.

    Returns True only when nothing is left and nothing was dropped since the last flush. A subscriber that calls it waits for
    the others, not for itself. Raises WrongThreadError in the thread of an event loop, which would wait for itself: await
    ``aflush`` there; ArgumentError for a time-out that is none.
    """
    check_timeout(timeout_s)
    if loops.is_in_loop():
        raise WrongThreadError("flush() would block the event loop that has to deliver: use `await tracebus.aflush()`")
    deadline = time.monotonic() + timeout_s
    while busy := _pending():  # what is delivered may say more
        if lanes.wait_for(busy, max(0.0, deadline - time.monotonic())) or time.monotonic() > deadline:
            break
    return not busy and _dropped_since_last_time() == 0


async def aflush(timeout_s: float = 5.0) -> bool:
    """Await until everything queued so far is delivered; returns and raises as ``flush``."""
    check_timeout(timeout_s)
    deadline = time.monotonic() + timeout_s
    while busy := _pending():  # what is delivered may say more
        if await lanes.wait_for_async(busy, max(0.0, deadline - time.monotonic())) or time.monotonic() > deadline:
            break
    return not busy and _dropped_since_last_time() == 0


def shutdown(timeout_s: float = EXIT_DEADLINE_S) -> dict[str, int]:
    """Deliver what is queued, at most ``timeout_s`` seconds; return how many events were left, by subscriber.

    Runs at exit by itself; calling it twice is fine. Raises ArgumentError for a time-out that is none.
    """
    check_timeout(timeout_s)
    left: dict[str, int] = {}
    pending = _pending()
    for one in lanes.wait_for(pending, timeout_s) if pending else ():
        if events := _give_up(one):
            left[one.subscription.name] = left.get(one.subscription.name, 0) + events
    return left


def _give_up(pending: Pending) -> int:
    events = pending.pending
    if isinstance(pending, lanes.Lane):
        pending.drop_all("shutdown")
    return events


def _at_exit() -> None:
    try:
        _abort_open_runs()
    finally:
        left = shutdown()
    for name, events in left.items():
        print(f"tracebus: {events} events were not delivered to {name} before exit", file=sys.stderr)


def _number_of_start(run: Run) -> int:
    return run._seq


def _abort_open_runs() -> None:
    still_open = list(open_runs)  # in one step, while other threads go on
    for run in sorted(still_open, key=_number_of_start, reverse=True):  # children first, which have started later
        error = RunAbortedError(f"the interpreter exited while {run.name} was open")
        fail_run(run, SYNC, error, "aborted")


def _at_end_of_child(_: object = None) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _at_exit, exitpriority=0)


def _in_future_child() -> None:
    # multiprocessing ends its children without atexit; its own finalizers do run, those that are registered once it has
    # cleared what came from the parent.
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None:
        multiprocessing_util.register_after_fork(_at_end_of_child, _at_end_of_child)


def _is_child_of_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None and "multiprocessing.util" in sys.modules


atexit.register(_at_exit)
if _is_child_of_multiprocessing():
    _at_end_of_child()
else:
    _in_future_child()  # of a forkserver, this may be one already: it learns that after it has imported the main module
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_in_future_child)
