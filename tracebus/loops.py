"""Where queued deliveries run: the event loop of this thread, of another one, or tracebus's own. The only module that
tells asyncio from trio.

Neither backend is imported here: whoever runs a loop has imported it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, TypeAlias

import anyio
from anyio._core._eventloop import threadlocals
from anyio.lowlevel import EventLoopToken, current_token

__all__ = [
    "Loop",
    "LoopClosed",
    "Wakeup",
    "current_loop",
    "host_loop",
    "is_being_cancelled",
    "own_loop",
    "run_elsewhere",
]

Job: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

LAST_WORDS_S = 1.0
"""How long a closing loop may go on with what is queued on it, in seconds."""


class LoopClosed(Exception):
    """The loop has ended; what was meant for it must go elsewhere."""


class Loop:
    """One running event loop, asyncio's or trio's."""

    def __init__(self, token: EventLoopToken) -> None:
        self._native: Any = token.native_token
        self.is_asyncio: bool = hasattr(self._native, "create_task")
        self._thread = threading.get_ident()
        self._tasks: set[Any] = set()
        self._farewells: dict[object, Job] = {}
        self._closed = False
        self._guard: AsyncGenerator[None, None] | None = None

    @property
    def is_here(self) -> bool:
        """Whether this thread runs the loop."""
        return threading.get_ident() == self._thread

    @property
    def is_open(self) -> bool:
        """Whether the loop can still take work, now or when it runs again."""
        return not self._closed and not (self.is_asyncio and self._native.is_closed())

    @property
    def is_running(self) -> bool:
        """Whether the loop takes work now."""
        return self.is_open and (not self.is_asyncio or self._native.is_running())

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's thread, from any thread; raise LoopClosed when the loop has ended."""
        if not self.is_open:
            raise LoopClosed
        schedule = self._native.call_soon_threadsafe if self.is_asyncio else self._native.run_sync_soon
        try:
            schedule(callback)
        except RuntimeError:  # trio.RunFinishedError is one
            self._closed = True
            raise LoopClosed from None

    def spawn(self, job: Job, context: Context | None = None) -> None:
        """Run ``job``, which must not raise, in a task of its own: in a clean context unless one is given."""
        clean = context or Context()
        if self.is_here:
            self._start(job, clean)
        else:
            self.call_soon(lambda: self._start(job, clean))

    def _start(self, job: Job, context: Context) -> None:
        if self.is_asyncio:
            task = self._native.create_task(job(), context=context)
            self._tasks.add(task)  # the loop itself keeps only a weak reference
            task.add_done_callback(self._tasks.discard)
        else:
            sys.modules["trio"].lowlevel.spawn_system_task(job, context=context)

    def cancel_count(self) -> int:
        """Return how often the task that runs here has been asked to end (asyncio; trio keeps asking, so 0 there)."""
        if not self.is_asyncio:
            return 0
        task = sys.modules["asyncio"].current_task(self._native)
        return 0 if task is None else int(task.cancelling())

    def on_close(self, key: object, job: Job) -> None:
        """Run ``job`` when the loop shuts down, for at most a second, whatever became of the tasks of the loop."""
        self._farewells[key] = job

    def watch_closing(self) -> None:
        """Have the loop tell us when it ends.

        Both backends finish the async generators that were started in them when they shut down, after the tasks.
        """
        self._guard = self._until_closed()
        try:
            self._guard.__anext__().send(None)
        except StopIteration:
            pass

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with anyio.move_on_after(LAST_WORDS_S, shield=True):
                for job in list(self._farewells.values()):
                    await job()
            self._closed = True
            self._farewells.clear()
            self._native = None  # the loop keeps us alive; we must not keep the loop


_of_token: weakref.WeakKeyDictionary[Any, Loop] = weakref.WeakKeyDictionary()


def current_loop() -> Loop | None:
    """Return the loop that runs in this thread, if one does."""
    try:
        token = current_token()
    except RuntimeError:  # anyio.NoEventLoopError is one
        return None
    loop = _of_token.get(token.native_token)
    if loop is None or not loop.is_open:
        loop = _of_token[token.native_token] = Loop(token)
        loop.watch_closing()
    return loop


def is_being_cancelled() -> bool:
    """Tell whether the task that runs here has been asked to end, and not by something inside the caller."""
    loop = current_loop()
    if loop is None:
        return False
    return loop.cancel_count() > 0 or anyio.current_effective_deadline() == -math.inf


class Wakeup:
    """An event that any thread may set and one task awaits."""

    def __init__(self) -> None:
        self._loop = current_loop()
        self._event = anyio.Event()

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()

    def is_set(self) -> bool:
        """Tell whether it was set."""
        return self._event.is_set()

    def set(self) -> None:
        """Wake the task; in a loop that has ended there is none."""
        if self._loop is None or self._loop.is_here:
            self._event.set()
            return
        try:
            self._loop.call_soon(self._event.set)
        except LoopClosed:
            pass


def host_loop() -> Loop | None:
    """Return the loop for which this anyio worker thread works, if it is one.

    Asking through ``anyio.from_thread`` would wait for that loop, which may be waiting for us.
    """
    token = getattr(threadlocals, "current_token", None)
    return None if token is None else _of_token.get(token.native_token)


class _OwnLoop:
    """A daemon thread with an event loop, for threads that have none. Started when first needed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: Loop | None = None
        self._ready = threading.Event()

    def get(self) -> Loop:
        with self._lock:
            if self._loop is None or not self._loop.is_open:
                self._ready.clear()
                threading.Thread(target=anyio.run, args=(self._serve,), name="tracebus-loop", daemon=True).start()
                self._ready.wait()
            assert self._loop is not None
            return self._loop

    async def _serve(self) -> None:
        self._loop = current_loop()
        self._ready.set()
        await anyio.sleep_forever()


_own = _OwnLoop()


def own_loop() -> Loop:
    """Return tracebus's own loop, starting its thread when it does not run yet."""
    return _own.get()


async def run_elsewhere(awaitable: Awaitable[object]) -> None:
    """Run ``awaitable`` on tracebus's own loop and block this thread until it is done; raise what it raised."""
    done = threading.Event()
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await awaitable
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    own_loop().spawn(run)
    done.wait()
    if raised:
        raise raised[0]


def _forget_after_fork() -> None:
    # Threads do not survive a fork, and a lock that one of them held would never be released.
    global _own
    _own = _OwnLoop()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
