"""How runs of each kind say that they start and end, from sync or from async code.

What opens a run, fails it and speaks on it in between is in ``tracing``. Start, end and, there, a token each spell out how an
event gets to its subscribers: every traced call goes this way, and a function to share would be called on all of them.
"""

from __future__ import annotations

import sys
import types
from _thread import get_ident
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast

from . import runs
from .dispatch import Plan, Rest, await_rest, call_plain, deliver, deliver_async, deliver_shielded, post_rest
from .events import Event
from .runs import Run, Status, claim_end, next_seq
from .signals import (
    Hook,
    chain_end,
    chain_error,
    chain_start,
    chat_model_start,
    llm_end,
    llm_error,
    llm_start,
    retriever_end,
    retriever_error,
    retriever_start,
    tool_end,
    tool_error,
    tool_start,
)

if sys.version_info < (3, 12):
    from .collector import kept
else:
    kept: Final[deque[Any]] = deque()  # there is no need to keep anything, and importing takes time

if TYPE_CHECKING:
    from .subscriptions import Connection

    class EndRun(Protocol):
        """What ends a run, unless it has ended, and says so."""

        def __call__(self, run: Run, colour: Colour, status: Status = "ok") -> Pending:
            """End ``run``."""


__all__ = ["ASYNC", "MODEL_KINDS", "SYNC", "Colour", "Family", "Pending", "family_of", "kept", "new"]

F = TypeVar("F", bound=Callable[..., Any])
Deliver: TypeAlias = Callable[[Plan, object, Event], Awaitable[None] | None]
Pending: TypeAlias = Awaitable[None] | None
FinishDelivery: TypeAlias = "Callable[[tuple[Connection, ...], object, Event, Rest | None], Pending]"


class Colour:
    """How events are delivered from sync or from async code, normally and from a task that is being cancelled."""

    __slots__ = ("last_words", "rest", "say")

    def __init__(self, rest: FinishDelivery, say: Deliver, last_words: Deliver) -> None:
        self.rest = rest
        self.say = say
        self.last_words = last_words


SYNC: Final = Colour(post_rest, deliver, deliver)
ASYNC: Final = Colour(await_rest, deliver_async, deliver_shielded)


MODEL_KINDS: Final = frozenset({"llm", "chat_model"})


new: Final = object.__new__
"""Makes an event, or a run, without calling its ``__init__``, which costs as much again as all the fields: for the
functions that every traced call goes through, and nobody else."""


def _starting(hook: Hook[Any]) -> Callable[[Run, Colour], Pending]:
    """Return what says through ``hook`` that a run starts."""
    event_class = hook.event_class

    def say_start(run: Run, colour: Colour) -> Pending:
        plan = hook.plan
        sender = run._source.sender
        if hook.is_filtered or run._route is not None:
            plan = hook.plan_for(sender, run)
        if plan is None:
            return None
        said: Any = new(event_class)
        said.run = run
        said.inputs = run.inputs
        rest = call_plain(plan.plain, sender, said, run._thread) if plan.has_plain else None
        if rest is not None or plan.has_guarded:
            return colour.rest(plan.guarded, sender, said, rest)
        return None

    return _with_own_code(say_start)


def _ending(hook: Hook[Any]) -> EndRun:
    """Return what ends a run, unless it has ended, and says so through ``hook``."""
    event_class = hook.event_class

    def end_run(run: Run, colour: Colour, status: Status = "ok") -> Pending:
        try:
            claim_end(run)
        except KeyError:
            return None
        run.status = status
        run._ended = runs.monotonic_ns()
        if kept and kept[-1] is None:  # on CPython 3.11 only; in place, see there
            kept.clear()
        sender = run._source.sender
        plan = hook.plan
        if hook.is_filtered or run._route is not None:
            plan = hook.plan_for(sender, run)
        if plan is None:
            return None
        said: Any = new(event_class)
        said.run = run
        said._seq = next_seq()
        if run.output is None and run._text is not None:
            run.output = "".join(run._text)
        said.output = run.output
        if status == "closed_early":
            return colour.last_words(plan, sender, said)
        rest = call_plain(plan.plain, sender, said, get_ident()) if plan.has_plain else None
        if rest is not None or plan.has_guarded:
            return colour.rest(plan.guarded, sender, said, rest)
        return None

    return _with_own_code(end_run)


def _with_own_code(function: F) -> F:
    """Return the same function with a code object of its own.

    CPython makes the instructions of a code object fast for the classes that it meets there (PEP 659): families that shared
    one, each with an event class of its own, would undo that for one another.
    """
    same = cast("types.FunctionType", function)
    code = same.__code__.replace()
    return cast("F", types.FunctionType(code, same.__globals__, same.__name__, same.__defaults__, same.__closure__))


class Family:
    """The hooks through which runs of some kinds speak, and the functions that speak there."""

    __slots__ = ("end", "end_run", "error", "say_start", "start")

    def __init__(self, start: Hook[Any], end: Hook[Any], error: Hook[Any]) -> None:
        self.start = start
        self.end = end
        self.error = error
        self.say_start = _starting(start)
        self.end_run = _ending(end)


_CHAIN: Final = Family(chain_start, chain_end, chain_error)
_FAMILIES: Final[dict[str, Family]] = {
    "llm": Family(llm_start, llm_end, llm_error),
    "chat_model": Family(chat_model_start, llm_end, llm_error),
    "tool": Family(tool_start, tool_end, tool_error),
    "retriever": Family(retriever_start, retriever_end, retriever_error),
}


def family_of(kind: str) -> Family:
    """Return the hooks through which runs of ``kind`` speak."""
    return _FAMILIES.get(kind, _CHAIN)
