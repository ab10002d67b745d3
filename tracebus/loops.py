"""Where deliveries run: event loops, this thread's or another's. The only module that tells asyncio from trio; tracebus's own
loop, for threads that have none, is in ``ownloop``.

Neither backend is imported here: whoever runs a loop has imported it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio._core._eventloop import threadlocals

__all__ = [
    "Loop",
    "LoopClosed",
    "Wakeup",
    "current_loop",
    "host_loop",
    "is_being_cancelled",
]

Job: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

LAST_WORDS_S = 1.0
"""How long a closing loop may go on with what is queued on it, in seconds."""

_TASKS_ARE_EAGER = sys.version_info >= (3, 12)


class LoopClosed(Exception):
    """The loop has ended; what was meant for it must go elsewhere."""


class _Guest:
    """What is ours in a loop and knows it. It belongs to the loop and is freed with it, also when nobody closes that."""

    def __init__(self) -> None:
        self.guard: AsyncGenerator[None, None] | None = None
        self.tasks: set[Any] = set()
        self.outliving: set[Any] = set()


class Loop:
    """One running event loop, asyncio's or trio's."""

    def __init__(self, native: Any) -> None:
        self._reference = weakref.ref(native)  # the loop keeps us alive; we must not keep the loop
        self.is_asyncio: bool = hasattr(native, "create_task")
        self._thread = threading.get_ident()
        self._farewells: dict[object, Job] = {}
        self._closed = False
        self.replaced: Loop | None = None
        guest = _Guest()
        self._guest = weakref.ref(guest)
        self._kept: _Guest | None = None
        try:
            native._tracebus = guest
        except AttributeError:  # trio's has no room, but never ends without finishing its async generators
            self._kept = guest

    @property
    def _native(self) -> Any:
        return self._reference()

    @property
    def is_here(self) -> bool:
        """Whether this thread runs the loop."""
        if self.is_asyncio:
            return _asyncio_loop() is self._native
        return threading.get_ident() == self._thread

    @property
    def is_dead(self) -> bool:
        """Whether nothing that was started in the loop will ever go on."""
        native = self._native
        return native is None or (native.is_closed() if self.is_asyncio else self._closed)

    @property
    def is_open(self) -> bool:
        """Whether the loop can still take work, now or when it runs again."""
        return not self._closed and not self.is_dead

    @property
    def is_running(self) -> bool:
        """Whether the loop takes work now."""
        native = self._native
        if native is None or self._closed:
            return False
        return not self.is_asyncio or native.is_running()

    @property
    def takes_tasks(self) -> bool:
        """Whether a task started now will run: asyncio takes some at its very end that it never begins."""
        return self.is_running and not getattr(self._native, "_asyncgens_shutdown_called", False)

    def is_leaving(self) -> bool:
        """Tell whether what runs here has to stop, in the middle of whatever it does: the loop is closing, or gone."""
        return not self.is_running or is_being_cancelled()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which must not raise, in the loop's thread and a clean context, from any thread.

        Raises LoopClosed when the loop has ended.
        """
        if not self.is_open:
            raise LoopClosed
        self.wake(callback)

    def wake(self, callback: Callable[[], object]) -> None:
        """Do as ``call_soon``, also while the loop closes and takes no more work: somebody in it may wait for this.

        Raises LoopClosed when the loop has ended.
        """
        native = self._native
        if native is None:
            raise LoopClosed
        try:
            if not self.is_asyncio:
                native.run_sync_soon(Context().run, callback)
            elif self.is_here:
                native.call_soon(callback, context=Context())
            else:
                native.call_soon_threadsafe(callback, context=Context())
        except RuntimeError:  # trio.RunFinishedError is one
            self._closed = True
            raise LoopClosed from None

    def begin(self, job: Job, context: Context | None = None, on_end: Callable[[], object] | None = None) -> None:
        """Run ``job``, which must not raise, in a task of its own: in a clean context unless one is given.

        In the loop's own thread, from Python 3.12 on, it has begun when this returns. ``on_end`` is called afterwards, also
        when asyncio cancels the task before its first step.
        """
        clean = context or Context()
        self._here(lambda: self._begin(job, clean, on_end))

    def spawn_to_the_end(self, job: Job) -> None:
        """Run ``job`` in a clean context, and let it go on for a second when the loop cancels its tasks to close."""
        self._here(lambda: self._start_to_the_end(job))

    def _here(self, start: Callable[[], object]) -> None:
        if self.is_here and self._can_start_tasks():
            start()
            return

        def start_if_open() -> None:
            try:
                start()
            except LoopClosed:
                pass  # whoever wanted it finds the loop closed, and takes over

        self.call_soon(start_if_open)

    def _can_start_tasks(self) -> bool:
        """Whether tasks can be started: not by a signal handler that came in what trio does between two tasks."""
        return self.is_asyncio or bool(sys.modules["trio.lowlevel"].in_trio_task())

    def _begin(self, job: Job, context: Context, on_end: Callable[[], object] | None) -> None:
        if not self.is_asyncio:
            self._start_in_trio(job, context)
            return
        native = self._native
        if _TASKS_ARE_EAGER and native.is_running():
            task = sys.modules["asyncio"].Task(job(), loop=native, context=context, eager_start=True)
            if task.done():
                return
        else:
            task = native.create_task(job(), context=context)
        self._keep(task)
        if on_end is not None:
            task.add_done_callback(lambda _: on_end())

    def _keep(self, task: Any) -> None:
        guest = self._guest()
        if guest is not None:
            guest.tasks.add(task)  # the loop itself keeps only a weak reference
            task.add_done_callback(guest.tasks.discard)

    def _start_in_trio(self, job: Job, context: Context) -> None:
        try:
            sys.modules["trio"].lowlevel.spawn_system_task(job, context=context)
        except (RuntimeError, AssertionError):
            # It finishes async generators when it takes no more tasks, and a signal may come before it takes the first one.
            raise LoopClosed from None

    def _start_to_the_end(self, job: Job) -> None:
        guest = self._guest()
        if guest is None:
            raise LoopClosed
        if self.is_asyncio:
            self._start_unknown(job, guest)
            return
        scope = anyio.CancelScope(shield=True)
        guest.outliving.add(scope)

        async def shielded() -> None:
            with scope:
                await job()
            guest.outliving.discard(scope)

        self._start_in_trio(shielded, Context())
        if len(guest.outliving) == 1:
            self._start_in_trio(partial(self._set_deadlines_at_close, guest), Context())

    def _start_unknown(self, job: Job, guest: _Guest) -> None:
        """Start a task that asyncio does not know (see "Task lifetime support" in its documentation) and does not cancel."""

        async def to_the_end() -> None:
            try:
                await job()
            finally:
                guest.outliving.discard(task)

        # Not by the loop's factory: it may begin in the middle of an emission, and be over before anybody knows it.
        task = sys.modules["asyncio"].Task(to_the_end(), loop=self._native, context=Context())
        sys.modules["asyncio.tasks"]._unregister_task(task)
        task._log_destroy_pending = False  # what it had not done is counted when the loop is gone
        guest.outliving.add(task)

    async def _set_deadlines_at_close(self, guest: _Guest) -> None:
        """Give the shielded jobs a second more once trio cancels its system tasks."""
        try:
            while guest.outliving:
                await anyio.sleep(LAST_WORDS_S)
        finally:
            for scope in guest.outliving:
                scope.deadline = anyio.current_time() + LAST_WORDS_S

    def cancel_count(self) -> int:
        """Return how often the task that runs here has been asked to end (asyncio; trio keeps asking, so 0 there)."""
        if not self.is_asyncio:
            return 0
        task = sys.modules["asyncio"].current_task(self._native)
        return 0 if task is None else int(task.cancelling())

    def on_close(self, key: object, job: Job | None) -> None:
        """Run ``job`` when the loop shuts down, for at most a second, whatever became of its tasks; None takes that back."""
        if job is None:
            self._farewells.pop(key, None)
        else:
            self._farewells[key] = job

    def close(self) -> None:
        """Take no more work: the loop has ended, or belongs to the parent process."""
        self._closed = True
        self._farewells.clear()

    def watch_closing(self) -> None:
        """Have the loop tell us when it ends.

        Both backends finish the async generators that were started in them when they shut down, after the tasks.
        """
        guest = self._guest()
        if guest is None or getattr(self._native, "_asyncgens_shutdown_called", False):
            return  # too late: asyncio is at the very end of the loop
        if not self._can_start_tasks():  # trio would take the generator for somebody else's
            try:
                self._native.run_sync_soon(self.watch_closing)
            except RuntimeError:  # trio.RunFinishedError: it came after the last one
                self.close()
            return
        guest.guard = self._until_closed()
        try:
            guest.guard.__anext__().send(None)
        except StopIteration:
            pass

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with anyio.move_on_after(LAST_WORDS_S, shield=True):
                for job in list(self._farewells.values()):
                    await job()
            guest = self._guest()
            if self.is_asyncio and guest is not None:
                for task in list(guest.outliving):
                    task.cancel()
            self.close()


_of_native: weakref.WeakKeyDictionary[Any, Loop] = weakref.WeakKeyDictionary()


def current_loop() -> Loop | None:
    """Return the loop that runs in this thread, if one does."""
    native = _native_loop()
    if native is None:
        return None
    loop = _of_native.get(native)
    if loop is None or not loop.is_open:
        loop = Loop(native)
        # A signal handler may have made another meanwhile: trio warns of a generator that is collected before its end.
        made = _of_native.get(native)
        loop.replaced = made if made is not None and made.is_open else None
        _of_native[native] = loop
        loop.watch_closing()
    return loop


def is_in_loop() -> bool:
    """Tell whether a loop runs in this thread."""
    return _native_loop() is not None


def _native_loop() -> Any:
    trio = sys.modules.get("trio.lowlevel")
    if trio is None or not hasattr(trio, "in_trio_task"):  # another thread may be just importing it
        return _asyncio_loop()
    if trio.in_trio_task():
        return trio.current_trio_token()
    native = _asyncio_loop()  # whose guest trio may be
    if native is None and trio.in_trio_run():  # a callback or a signal handler: in no task, and yet in the loop
        return trio.current_trio_token()
    return native


def _asyncio_loop() -> Any:
    events = sys.modules.get("asyncio.events")
    ask = getattr(events, "_get_running_loop", None)  # another thread may be just importing it
    return None if ask is None else ask()


def is_being_cancelled() -> bool:
    """Tell whether the task that runs here has been asked to end."""
    loop = current_loop()
    if loop is None:
        return False
    if loop.is_asyncio:
        return loop.cancel_count() > 0
    return anyio.current_effective_deadline() == -math.inf


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
            self._loop.wake(self._event.set)
        except LoopClosed:
            pass


def host_loop() -> Loop | None:
    """Return the loop for which this anyio worker thread works, if it is one.

    Asking through ``anyio.from_thread`` would wait for that loop, which may be waiting for us.
    """
    token = getattr(threadlocals, "current_token", None)
    return None if token is None else _of_native.get(token.native_token)


def _forget_after_fork() -> None:
    # Threads do not survive a fork, nor do their loops.
    for loop in list(_of_native.values()):
        loop.close()
    _of_native.clear()
    if hasattr(threadlocals, "current_token"):
        del threadlocals.current_token


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
