"""How one queued or awaited delivery goes: what counts it, and times it. Where it runs is in ``lanes`` and ``awaiting``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from .events import Event
from .subscriptions import UNCOUNTED, Connection

__all__ = ["hear"]


async def hear(connection: Connection, event: Event, work: Any, is_leaving: Callable[[], bool]) -> BaseException | None:
    """Await ``work``, or what it returns; count what became of it, and return what the emitter is to see of a failure.

    Nothing is counted when it is left because the loop ends: that is raised, as an interrupt is.
    """
    began = time.perf_counter_ns()
    try:
        result = work() if callable(work) else work
        if isawaitable(result):
            await result
    except KeyboardInterrupt as error:
        connection.subscription.fail(event, error)
        if threading.current_thread() is threading.main_thread():
            raise
        return None
    except BaseException as error:
        if is_leaving():
            raise
        return connection.failed(event, error)
    if result is not UNCOUNTED:
        connection.delivered()
        connection.subscription.timing.add(time.perf_counter_ns() - began)
    return None
