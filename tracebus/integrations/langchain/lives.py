"""How a run of LangChain lives here: what is known of it while it is open, and that it ends once, after what is inside it.

What is read out of LangChain's calls is in ``bridge``, what it does not say in ``watching``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

from ...families import ASYNC, MODEL_KINDS, SYNC, Colour, Pending
from ...runs import Run, Status
from ...sources import Reporter
from ...tracing import status_of
from .watching import Unit, Watch, asked_together, is_over, run_ids_here, served_here, unit_here

__all__ = ["Life", "begin", "disconnect", "end", "fail", "life_of", "reporter"]

reporter: Final = Reporter("langchain", shown=lambda number: UUID(int=number))


def _current_run_id() -> int | None:
    """Return the run whose config LangChain has made current here."""
    config = var_child_runnable_config.get()
    run_id = None if config is None else getattr(config.get("callbacks"), "parent_run_id", None)
    return getattr(run_id, "int", None)


_models: Final[dict[Unit, int]] = {}
"""The run of a model that each task or thread is in."""


def _calling_run_id() -> int | None:
    """Return the run of the model whose code runs here, which LangChain does not make current.

    What LangChain calls was given the run's manager, or is stepped by what has it. Only the steps of an async stream that are
    made in threads, for a model without a method for that, have nothing around them but the task that they are made for.
    """
    if not _lives:
        return None
    found = None
    for run_id in run_ids_here():
        life = life_of(run_id)
        if life is not None and life.is_model:
            return run_id
        if run_id is None and (served := served_here()) is not None:
            found = _models.get(served)
    return found


_forget: tuple[Callable[[], None], ...] = ()


def _connect() -> None:
    """Let ``@traced`` functions and providers' clients inside LangChain's runs find those."""
    global _forget
    _forget = reporter.current_in(_current_run_id), reporter.calling_in(_calling_run_id)


def disconnect() -> None:
    """Let them look no longer, until there is another run."""
    global _forget
    forgotten, _forget = _forget, ()
    for forget in forgotten:
        forget()


class Life:
    """What is known of a run while it is open, beside the run.

    ``parent`` is that of the run around it, ``owner`` the handler that reported its start. ``is_stream`` says that it is one
    for sure: of models it is not known.
    """

    __slots__ = (
        "children",
        "has_own_tokens",
        "is_model",
        "is_paused",
        "is_stream",
        "owner",
        "parent",
        "run",
        "unit",
        "watch",
    )

    def __init__(self, run: Run, parent: Life | None, owner: object, is_stream: bool) -> None:
        self.run = run
        self.parent = parent
        self.owner = owner
        self.is_stream = is_stream
        self.is_model = run.kind in MODEL_KINDS
        self.children: dict[int, None] = {}
        self.has_own_tokens = False
        self.is_paused = False
        self.unit: Unit = 0
        self.watch: Watch | None = None


_lives: Final[dict[int | None, Life]] = {}
"""Those of the open runs, of all handlers: a run that is reported by two of them is one run."""


life_of: Final = _lives.get
"""Returns what is known of a run while it is open; None of all others, and of None."""


def begin(run_id: int, life: Life, colour: Colour) -> Pending:
    """Say that a run starts, and watch it where it may end without a word."""
    if not _forget:
        _connect()
    is_async = colour is ASYNC
    life.unit = unit_here(is_async)
    _lives[run_id] = life
    if life.is_model:
        _models[life.unit] = run_id
    if life.parent is not None:
        life.parent.children[run_id] = None
    if is_async:
        life.watch = Watch(life.unit, partial(_forgotten, run_id))
    try:
        pending = reporter.say_start(run_id, colour)
    except BaseException:
        _taken(run_id)
        raise
    return None if pending is None else _begun(run_id, pending)


async def _begun(run_id: int, pending: Awaitable[None]) -> None:
    try:
        await pending
    except BaseException:
        _taken(run_id)
        raise


def _forgotten(run_id: int) -> None:
    try:
        fail(run_id, asyncio.CancelledError(), {}, SYNC)
    except Exception:
        pass  # of a subscriber with raise_error: reported where it was raised; there is nobody here to see it


def end(run_id: int, status: Status, known: dict[str, Any], colour: Colour) -> Pending:
    """End a run, after what was left open inside it. ``known`` are the ``output``, ``usage`` and ``model`` of the call."""
    life = _taken(run_id)
    if life is not None:
        if status == "paused" and life.parent is not None:  # by an exception, which goes on to what is around it
            life.parent.is_paused = True
        if status == "ok" and life.is_paused:
            status = "paused"
    if life is None or not life.children:
        return reporter.end(run_id, status=status, colour=colour, **known)
    return _in_turn(_inside(life, status, None), partial(reporter.end, run_id, status=status, **known), colour, [])


def fail(run_id: int, error: BaseException, known: dict[str, Any], colour: Colour) -> Pending:
    """End a run with an error, after what was left open inside it, and with it what LangChain drops for the same error."""
    life = _taken(run_id)
    own = partial(reporter.fail, run_id, error, **known)
    if life is None:
        return own(colour=colour)
    inside = _inside(life, status_of(error), error) if life.children else []
    beside = _dropped_with(error) if life.is_model and colour is SYNC else []
    return _in_turn(inside, own, colour, beside) if inside or beside else own(colour=colour)


def _taken(run_id: int) -> Life | None:
    life = _lives.pop(run_id, None)
    if life is None:
        return None
    if life.watch is not None:
        life.watch.stop()
    if life.is_model and _models.get(life.unit) == run_id:
        _models.pop(life.unit, None)
    if life.parent is not None:
        life.parent.children.pop(run_id, None)
    return life


# -- what is left open inside a run that ends --------------------------------------------------------------------------

Ending: TypeAlias = "Callable[..., Pending]"


def _inside(life: Life, status: Status, error: BaseException | None) -> list[Ending]:
    return [_ending_inside(run_id, status, error) for run_id in list(_left_inside(life, life.unit))]


def _left_inside(life: Life, unit: Unit) -> Iterator[int]:
    """Yield the open runs inside of one, the innermost first, but for what goes on in tasks or threads of its own."""
    for run_id in reversed(list(life.children)):
        inner = life_of(run_id)
        if inner is not None and (inner.unit == unit or is_over(inner.unit)):
            yield from _left_inside(inner, unit)
            yield run_id


def _ending_inside(run_id: int, status: Status, error: BaseException | None) -> Ending:
    """Return how a run ends that the run around it has left behind: a stream as one, a call with what went through it."""
    life = _taken(run_id)
    is_stream = life is not None and (life.is_stream or life.run.first_token_s is not None)
    if status == "closed_early" or (is_stream and status != "cancelled"):
        return partial(reporter.end, run_id, status="closed_early")
    return partial(reporter.fail, run_id, error or asyncio.CancelledError())


def _dropped_with(error: BaseException) -> list[Ending]:
    dropped = [run_id for run_id in asked_together() if _taken(run_id) is not None]
    return [partial(reporter.fail, run_id, error) for run_id in dropped]


def _in_turn(inside: list[Ending], own: Ending, colour: Colour, beside: list[Ending]) -> Pending:
    raised: BaseException | None = None
    left: list[Awaitable[None]] = []
    for ending in (*inside, own, *beside):
        try:
            if (pending := ending(colour=colour)) is not None:
                left.append(pending)
        except BaseException as failure:  # of a subscriber with raise_error: the others are to be ended all the same
            raised = raised or failure
    if raised is not None:
        raise raised
    return _awaited(left) if left else None


async def _awaited(left: list[Awaitable[None]]) -> None:
    for pending in left:
        await pending
