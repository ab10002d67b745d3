"""The current run in threads: ``install()`` for all, ``carrying()`` for one executor.

Only tracebus's own variable travels. Copying the whole context, as ``asyncio.to_thread`` does, would change what the app finds
in its own variables.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from operator import call as _call
from threading import Lock, Thread
from typing import Any, Final, ParamSpec, TypeVar

from ..errors import ArgumentError
from ..runs import Scope, call_inside, get_current, innermost, set_current

__all__ = ["carrying", "install", "uninstall"]

P = ParamSpec("P")
R = TypeVar("R")


# -- one callable, one executor ----------------------------------------------------------------------------------------


_SUBMITTING: Final = Scope()
"""Current while a job is submitted: a thread that is started for it is nobody's, also where a framework has a run."""


def _submit_inside(submit: Callable[..., Future[R]], fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
    """Submit ``fn`` for the run that is current here or in a framework."""
    before = get_current()
    current = None if before is _SUBMITTING else innermost()
    if current is None:
        return submit(fn, *args, **kwargs)
    set_current(_SUBMITTING)
    try:
        return submit(call_inside, current, fn, *args, **kwargs)
    finally:
        set_current(before)


class _Carrying(Executor):
    """An executor that hands its jobs to another one, each with the run that it was submitted in."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit ``fn`` as the executor does."""
        return _submit_inside(self._executor.submit, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def carrying(executor: Executor) -> Executor:
    """Return ``executor`` with ``submit`` and ``map`` carrying the current run into its threads.

    Use it where ``install()`` would change too much: ``with carrying(ThreadPoolExecutor()) as pool:``, or as the first
    argument of ``run_in_executor``. The executor's threads have no run between jobs.

    Raises ArgumentError for what is no executor of threads: a run cannot move to another process.
    """
    if not isinstance(executor, Executor) or "ProcessPoolExecutor" in {base.__name__ for base in type(executor).__mro__}:
        raise ArgumentError(f"carrying({executor!r}) needs an executor of threads, such as ThreadPoolExecutor()")
    return _Carrying(executor)


# -- all of them -------------------------------------------------------------------------------------------------------


SERVING = {
    "anyio._backends._asyncio",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "logging.handlers",
    "multiprocessing.pool",
    "multiprocessing.queues",
    "tracebus.lanes",
    "tracebus.outputs.batches",
}
"""Modules whose threads go on to serve others than who started them, and whose jobs would get the wrong parent."""


def _start_inside(start: Callable[[Thread], None], thread: Thread) -> None:
    """Start ``thread`` with the current run as its own."""
    current = None if get_current() is _SUBMITTING else innermost()
    if current is None or (getattr(thread, "_target", None) or type(thread)).__module__ in SERVING:
        return start(thread)
    attributes, run = vars(thread), thread.run
    put_back = partial(attributes.update, run=run) if "run" in attributes else partial(attributes.pop, "run")
    # Called one after the other from C: a frame of ours around `run` would be in every traceback that the thread prints.
    steps: tuple[Callable[[], Any], ...] = (put_back, partial(set_current, current), run)
    attributes["run"] = partial(deque, map(_call, steps), 0)
    try:
        return start(thread)
    except BaseException:
        put_back()
        raise


class _Patch:
    """A method of a class, replaced by one that calls ``around(original, ...)``."""

    def __init__(self, owner: type, name: str, around: Callable[..., Any]) -> None:
        self._owner = owner
        self._name = name
        self._around = around
        self._original: Callable[..., Any] | None = None
        self._patched: Callable[..., Any] | None = None
        self._is_on = False

    def install(self) -> None:
        """Replace the method, unless that is done."""
        self._is_on = True
        if self._patched is None:
            self._original = original = getattr(self._owner, self._name)
            self._patched = self._patch_of(original)
            setattr(self._owner, self._name, self._patched)

    def _patch_of(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return self._around(original, *args, **kwargs) if self._is_on else original(*args, **kwargs)

        return patched

    def uninstall(self) -> None:
        """Put the method back. Where somebody has replaced it since, ours stays below theirs and does nothing."""
        self._is_on = False
        if self._patched is not None and getattr(self._owner, self._name) is self._patched:
            setattr(self._owner, self._name, self._original)
            self._patched = None


def _submit_method(submit: Callable[..., Future[Any]], executor: Executor, /, *args: Any, **kwargs: Any) -> Future[Any]:
    return _submit_inside(partial(submit, executor), *args, **kwargs)


_lock = Lock()
_patches = (_Patch(Thread, "start", _start_inside), _Patch(ThreadPoolExecutor, "submit", _submit_method))


def install() -> None:
    """Carry the current run into every ``Thread``, ``Timer``, ``ThreadPoolExecutor`` and ``run_in_executor`` from here on.

    A thread belongs to the run that it was started in, also when it outlives it; a job of an executor to the run that it was
    submitted in. Calling it twice is fine.
    """
    with _lock:
        for patch in _patches:
            patch.install()


def uninstall() -> None:
    """Undo ``install()``. What has been started or submitted keeps its run. Calling it twice is fine."""
    with _lock:
        for patch in _patches:
            patch.uninstall()
