"""An event loop of tracebus's own for threads that have none, and how threads wait."""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Final

import anyio

from .loops import Loop, LoopClosed, current_loop, is_in_loop

__all__ = ["Latch", "get_ready", "may_wait", "run_elsewhere", "with_own_loop"]


LOOK_EVERY_S: Final = 0.5
"""How often a thread that waits for a loop looks whether that is still there, in seconds."""


class Latch:
    """What one thread waits for and any may set, also a signal handler in the thread that waits.

    ``threading.Event`` holds a lock for a moment in both, and such a handler would wait for it for ever.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Let the waiting thread go on."""
        self._items.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Wait, and tell whether it was set in so many seconds."""
        try:
            self._items.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True


class _OwnLoop:
    """A daemon thread with an event loop, for threads that have none. Started when first needed."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._waiting: deque[Callable[[Loop], object]] = deque()
        self.thread = threading.Thread(target=anyio.run, args=(self._serve,), name="tracebus-loop", daemon=True)
        self.thread.start()

    def call(self, use: Callable[[Loop], object]) -> None:
        """Call ``use`` with the loop, here or, when it does not run yet, there: a signal handler must not wait for it."""
        self._waiting.append(use)
        if self._loop is not None:
            self._call_waiting(self._loop)

    @property
    def is_over(self) -> bool:
        """Whether another one is needed."""
        return self._loop is not None and not self._loop.is_open

    def _call_waiting(self, loop: Loop) -> None:
        while True:
            try:
                use = self._waiting.popleft()
            except IndexError:
                return
            use(loop)

    async def _serve(self) -> None:
        self._loop = loop = current_loop()
        assert loop is not None
        self._call_waiting(loop)
        await anyio.sleep_forever()


_own: _OwnLoop | None = None
_own_lock = threading.RLock()


def with_own_loop(use: Callable[[Loop], object]) -> None:
    """Call ``use`` with tracebus's own loop, starting its thread when it does not run yet."""
    global _own
    with _own_lock:
        if _own is None or _own.is_over:
            _own = _OwnLoop()
        own = _own
    own.call(use)


def may_wait() -> bool:
    """Tell whether this thread may wait for a queue: it runs no loop, and is not just about to."""
    return not is_in_loop() and (_own is None or threading.current_thread() is not _own.thread)


def run_elsewhere(awaitable: Awaitable[object], home: Loop | None) -> None:
    """Run ``awaitable`` on the loop ``home``, or tracebus's own, and block this thread until it is done; raise what it raised.

    Raises LoopClosed when the loop ends before that.
    """
    done = threading.Event()
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await awaitable
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    begin = partial(Loop.begin, job=run, context=copy_context(), on_end=done.set)
    if home is None or not home.takes_tasks:
        home = None
        with_own_loop(begin)
    else:
        begin(home)
    while not done.wait(LOOK_EVERY_S):
        if home is not None and home.is_dead:
            raise LoopClosed
    if raised:
        raise raised[0]


def get_ready() -> None:
    """Import now what tracebus's own loop needs, unless there is a loop here."""
    if not is_in_loop():
        importlib.import_module("anyio._backends._asyncio")


def _finish_start() -> None:
    # asyncio chooses its kind of loops when the first one is made, under a lock: a child that is forked just then would
    # find it taken for ever. (Its name has had an underscore since 3.14, where the public one warns.)
    events = sys.modules.get("asyncio.events")
    choose = getattr(events, "_get_event_loop_policy", None) or getattr(events, "get_event_loop_policy", None)
    if choose is not None:
        choose()


def _forget_after_fork() -> None:
    # The thread does not survive a fork; a lock that another one held would never be released.
    global _own, _own_lock
    _own, _own_lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_finish_start, after_in_child=_forget_after_fork)
