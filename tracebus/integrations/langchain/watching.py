"""What LangChain does not say: in which task a run is, which model calls a client, that a call was cancelled or a stream left.

LangChain says nothing when an awaited model, tool or retriever is cancelled, and calls finished what a consumer left of a sync
chain's stream. Both can be seen from outside. Where a version of LangChain is built otherwise, nothing is seen, nothing fails.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import types
import weakref
from asyncio.events import _get_running_loop
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeAlias
from uuid import UUID

__all__ = [
    "Unit",
    "Watch",
    "asked_together",
    "is_over",
    "note_asker",
    "run_ids_here",
    "served_here",
    "stream_was_left",
    "unit_here",
]

Unit: TypeAlias = "weakref.ref[asyncio.Task[Any]] | int"
"""What executes a run: a task, or a thread by its number. In one of these, calls are strictly nested."""

_asker: ContextVar[weakref.ref[asyncio.Task[Any]] | None] = ContextVar("tracebus.langchain", default=None)


def note_asker() -> None:
    """Remember which task asks here; those that LangChain's managers start for it know it by their copy of its context."""
    task = asyncio.current_task() if _get_running_loop() is not None else None
    known = _asker.get()
    if task is None or (known is not None and known() is task) or _is_of_manager(task.get_coro()):
        return
    _asker.set(weakref.ref(task))


def unit_here(is_async: bool) -> Unit:
    """Return what executes the run that LangChain starts here. Its async managers do that from tasks of their own."""
    if _get_running_loop() is None:
        return threading.get_ident()
    task = _asker.get() if is_async else None
    if task is not None:
        return task
    current = asyncio.current_task()
    return threading.get_ident() if current is None else weakref.ref(current)


def served_here() -> Unit | None:
    """Return the task whose call of LangChain's is made in this thread, because it cannot be awaited; None in a loop."""
    task = _asker.get() if _get_running_loop() is None else None
    return None if task is None or task() is None else task


def run_ids_here() -> Iterator[int | None]:
    """Yield the runs that the methods here were given a manager of, the innermost first; None for one that was given none.

    What a callback does is not a part of the run that it is told of.
    """
    frame: types.FrameType | None = sys._getframe(1)
    for _ in range(FRAMES):
        if frame is None or frame.f_globals.get("__name__") == _MANAGERS:
            return
        names = frame.f_code.co_varnames
        if "run_manager" in names or "run_managers" in names:  # what LangChain calls them wherever it has one
            yield _run_id_in(frame.f_locals)
        frame = frame.f_back


def _run_id_in(names: Mapping[str, Any]) -> int | None:
    manager, managers = names.get("run_manager"), names.get("run_managers")
    if manager is None and isinstance(managers, list) and managers:
        manager = managers[0]
    run_id = getattr(manager, "run_id", None)
    return run_id.int if isinstance(run_id, UUID) else None


def is_over(unit: Unit) -> bool:
    """Tell whether nothing more can happen there. Of a thread that is not known."""
    if isinstance(unit, int):
        return False
    task = unit()
    return task is None or task.done()


class Watch:
    """Call ``forgotten`` when the coroutine that made a call is gone, however it went; ``stop()`` when the call has ended.

    That is the moment in which an exception leaves it, before anybody outside can see that. If the coroutine cannot be found,
    because the call streams, the end of its task has to do, when that was cancelled.
    """

    __slots__ = ("_coroutine", "_forgotten", "_later", "_task")

    def __init__(self, unit: Unit, forgotten: Callable[[], None]) -> None:
        self._forgotten = forgotten
        self._coroutine: weakref.ref[types.CoroutineType[Any, Any, Any]] | None = None
        self._later: asyncio.Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        task = None if isinstance(unit, int) else unit()
        if task is None:
            return
        coroutine: Any = task.get_coro()
        if getattr(coroutine, "cr_running", False) and (frame := _frame_of_call()) is not None:
            self._later = task.get_loop().call_soon(self._look_again, task, frame)  # when what it awaits can be seen
        else:
            self._follow(task, _caller_of_manager(coroutine))

    def _follow(self, task: asyncio.Task[Any], coroutine: Any) -> None:
        if isinstance(coroutine, types.CoroutineType) and coroutine.cr_code.co_name in CALLS:
            self._coroutine = weakref.ref(coroutine, self._gone)
        else:
            self._task = task
            task.add_done_callback(self._done)

    def _look_again(self, task: asyncio.Task[Any], frame: types.FrameType) -> None:
        self._later = None
        self._follow(task, _coroutine_with(frame, task.get_coro()))

    def stop(self) -> None:
        """Watch no longer."""
        self._coroutine = None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._task is not None:
            self._task.remove_done_callback(self._done)
            self._task = None

    def _gone(self, _: object) -> None:
        self._forgotten()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._forgotten()


_MANAGERS: Final = "langchain_core.callbacks.manager"
FRAMES: Final = 200
"""How many calls inside one another are looked through, for a client's request, which takes far longer than these 40 µs."""
CALLS: Final = frozenset({"ainvoke", "agenerate", "arun", "_acall_with_config"})
"""The methods of LangChain and LangGraph in which a run starts and ends; others return when it has started."""
LEVELS: Final = 2_000
"""How many coroutines inside one another are looked through."""


def _caller_of_manager(awaited: Any) -> Any:
    """Return the innermost of what a suspended task awaits that waits for a method of LangChain's callback manager."""
    outer = None
    for _ in range(LEVELS):
        if awaited is None:
            return None
        if _is_of_manager(awaited):
            return outer
        outer, awaited = awaited, getattr(awaited, "cr_await", None)
        if awaited is None:
            awaited = _stepped_by(outer)
    return None


def _coroutine_with(frame: types.FrameType, awaited: Any) -> Any:
    """Return the one of what a suspended task awaits that runs in ``frame``."""
    for _ in range(LEVELS):
        if awaited is None or getattr(awaited, "cr_frame", None) is frame:
            return awaited
        awaited = getattr(awaited, "cr_await", None) or _stepped_by(awaited)
    return None


_STEPS: Final = frozenset({"anext_awaitable", "async_generator_asend", "async_generator_athrow"})
"""What awaits an async generator, and has no attribute that names it."""


def _stepped_by(outer: Any) -> Any:
    """Return what an async generator awaits, or which one is stepped by what awaits it; None of all else."""
    if isinstance(outer, types.AsyncGeneratorType):
        return outer.ag_await
    if type(outer).__name__ not in _STEPS:
        return None
    inside = gc.get_referents(outer)
    return next((one for one in inside if isinstance(one, types.AsyncGeneratorType) or type(one).__name__ in _STEPS), None)


def _frame_of_call() -> types.FrameType | None:
    """Return where the run begins that LangChain tells of here, in a task that began at once, inside the one that made it."""
    frame: types.FrameType | None = sys._getframe(1)
    for _ in range(FRAMES):
        if frame is None or frame.f_code.co_name in CALLS:
            return frame
        frame = frame.f_back
    return None


def _is_of_manager(coroutine: Any) -> bool:
    frame = getattr(coroutine, "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__") == _MANAGERS


def asked_together() -> list[int]:
    """Return the runs of all conversations that a sync ``generate`` began at once, which says here that one of them failed.

    LangChain drops the others without a word.
    """
    frame: types.FrameType | None = sys._getframe(1)
    for _ in range(8):
        if frame is None:
            return []
        if frame.f_code.co_name == "generate":
            managers = frame.f_locals.get("run_managers")
            return [one.run_id.int for one in managers] if isinstance(managers, list) else []
        frame = frame.f_back
    return []


def stream_was_left() -> bool:
    """Tell whether the sync stream of a chain that says here that it ended was closed by its consumer.

    LangChain catches GeneratorExit there as if it were the end. But then what it was reading from is not at an end.
    """
    frame = sys._getframe(1)
    for _ in range(8):
        if frame is None or frame.f_back is None:
            return False
        frame = frame.f_back
        if frame.f_code.co_name == "_transform_stream_with_config":
            steps = frame.f_locals.get("iterator")
            return inspect.isgenerator(steps) and steps.gi_frame is not None
    return False
