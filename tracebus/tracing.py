"""A run's life: how it opens, what is said about it, and how it ends. ``trace()`` and ``emit()`` are here; functions are
traced in ``decorator``, streams stepped in ``streams``, and how each kind of run says its start and end is in ``families``.

Everything is said through a *colour*: the way to deliver from sync or from async code. The functions that take one are
shared by both; what they return is None, or in async code what is left to await.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, cast

from . import runs
from .dispatch import call_plain, wait_for_queued
from .errors import ArgumentError
from .events import LLMNewToken
from .families import ASYNC, MODEL_KINDS, SYNC, Colour, Pending, family_of, kept, new
from .handlers import Callback, route_of
from .runs import (
    ROOT_SCOPE,
    Kind,
    Run,
    Scope,
    Status,
    check_kind,
    claim_end,
    get_current,
    innermost,
    leave,
    next_seq,
    note_open,
    set_current,
    wall_now,
)
from .signals import HOOKS, Hook, agent_action, agent_finish, bus, custom_event, llm_new_token, retry, text

__all__ = ["aemit", "emit", "trace"]


class Source:
    """What is the same for every run of one traced callable, ``trace()`` block or integration."""

    __slots__ = ("_wants_output", "family", "is_marked", "kind", "metadata", "name", "route", "sender", "tags")

    def __init__(
        self,
        name: str,
        kind: str,
        sender: object,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callback] = (),
        keep_output: bool = True,
    ) -> None:
        self.name = name
        self._wants_output = keep_output
        self.kind: Kind = check_kind(kind)
        self.family = family_of(kind)
        self.sender = sender
        self.tags = check_tags(tags)
        self.metadata = check_metadata(metadata) or None
        self.route = route_of(callbacks)
        self.is_marked = self.route is not None or self.metadata is not None


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags as a tuple; raise ArgumentError when one is no text, or a text was given for a list."""
    if isinstance(tags, str):
        raise ArgumentError(f"tags={tags!r} is one text: give a list of tags, tags=[{tags!r}]")
    if not isinstance(tags, Iterable):
        raise ArgumentError(f"tags={tags!r} is no list: give a list of texts")
    checked = tuple(tags)
    for tag in checked:
        if not isinstance(tag, str):
            raise ArgumentError(f"the tag {tag!r} is not a text")
    return checked


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the metadata; raise ArgumentError when it is no mapping."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ArgumentError(f"metadata={metadata!r} is no mapping: give a dict")
    return dict(metadata)


# -- one run -----------------------------------------------------------------------------------------------------------


def open_run(
    source: Source, outside: Run | Scope | None, inputs: Any, *, outside_is_sure: bool = False, is_reported: bool = False
) -> Run:
    """Make a run of ``source``, a child of what is ``outside``, and make it current unless it ``is_reported``.

    Nothing is said yet. A framework's run that is further in than what is ``outside`` becomes the parent, unless
    ``outside_is_sure``.
    """
    run = Run()
    if runs.finders is not None:
        run._seen = runs.elsewhere()
        if not outside_is_sure:
            outside = innermost()
    run._source = source
    run.start_ns = runs.wall_ns()
    run._started = runs.monotonic_ns()
    run._seq = next_seq()
    run._thread = get_ident()
    run.inputs = inputs
    run.status = "open"
    run.output = run._ended = run._route = run._queued_on = None
    if outside is None:
        run.parent = None
        scope = ROOT_SCOPE
    elif type(outside) is Run:
        run.parent = outside
        scope = outside._scope
    else:
        scope = cast("Scope", outside)
        run.parent = scope.run
    run._scope = scope
    if scope is not ROOT_SCOPE or source.is_marked:
        _mark(run, source, scope)
    note_open(run)
    if not is_reported:
        set_current(run)
    return run


def _mark(run: Run, source: Source, scope: Scope) -> None:
    """Give the run what its scope and its callable say about all runs of theirs."""
    if scope.route is None:
        run._route = source.route
    else:
        run._route = scope.route if source.route is None else scope.route.with_callable(source.route)
    if scope.tags:
        run.tags = tuple(dict.fromkeys((*scope.tags, *source.tags)))
    if source.metadata is not None:
        run._metadata = {**(scope.metadata or {}), **source.metadata}


def say_start(run: Run, colour: Colour) -> Pending:
    """Say that the run starts."""
    return run._source.family.say_start(run, colour)


def say_token(run: Run, token: str, chunk: Any, colour: Colour) -> Pending:
    """Say that a model streamed a piece of its answer."""
    index = run._token_count
    run._token_count = index + 1
    if index == 0:
        run._first_token = runs.monotonic_ns()
    plan = llm_new_token.plan
    sender = run._source.sender
    if llm_new_token.is_filtered or run._route is not None:
        plan = llm_new_token.plan_for(sender, run)
    if plan is None:
        return None
    said = new(LLMNewToken)
    said.run = run
    said._time_ns = runs.wall_ns()
    said._seq = next_seq()
    said.token = token
    said.index = index
    said.chunk = chunk
    rest = call_plain(plan.plain, sender, said, get_ident()) if plan.has_plain else None
    if rest is not None or plan.has_guarded:
        return colour.rest(plan.guarded, sender, said, rest)
    return None


def end_run(run: Run, colour: Colour, status: Status = "ok") -> Pending:
    """End the run with what is in ``run.output``, unless it has ended, and say so."""
    return run._source.family.end_run(run, colour, status)


def fail_run(run: Run, colour: Colour, error: BaseException, status: Status | None = None) -> Pending:
    """End the run with an error, unless it has ended, and say so."""
    try:
        claim_end(run)
    except KeyError:
        return None
    run.status = status or status_of(error)
    run._ended = runs.monotonic_ns()
    run.error = error
    if run.output is None and run._text is not None:
        run.output = "".join(run._text)
    if kept and kept[-1] is None:  # on CPython 3.11 only; in place, see there
        kept.clear()
    source = run._source
    hook = source.family.error
    plan = hook.plan_for(source.sender, run)
    if plan is None:
        return None
    say = colour.last_words if run.status == "cancelled" else colour.say
    said = hook.event_class(run, next_seq(), error, run.output)
    return say(plan, source.sender, said)


def status_of(error: BaseException) -> Status:
    """Return ``cancelled`` for the cancellations of asyncio and trio and groups of nothing else, or ``error``."""
    if isinstance(error, BaseExceptionGroup):
        return "cancelled" if all(status_of(one) == "cancelled" for one in error.exceptions) else "error"
    if isinstance(error, Exception):
        return "error"
    # Whoever raises one of these has imported its module; importing it here would cost everybody.
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    # In a thread that has imported half of one, it was not raised.
    cancellations = tuple(getattr(m, name, ()) for m, name in ((asyncio, "CancelledError"), (trio, "Cancelled")))
    return "cancelled" if isinstance(error, (*cancellations, GeneratorExit)) else "error"


def settle(run: Run) -> None:
    """Wait, at the end of an outermost run in sync code, for what its trace left in queues."""
    if run._queued_on is not None:
        wait_for_queued(run)


# -- blocks ------------------------------------------------------------------------------------------------------------


class trace:  # reads as a statement: with trace("search"):
    """Trace a block: ``with trace("search", kind="retriever", inputs={"query": q}) as run:``, or ``async with``.

    Set ``run.output``, ``run.model`` and ``run.usage`` inside. The sender of its events is the name. A token emitted in a
    block of kind ``llm`` or ``chat_model`` becomes part of its output unless that is set.

    Raises ArgumentError for an unknown kind, SubscriberError for a callback that cannot hear.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: str = "chain",
        inputs: Any = None,
        model: str | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        if not isinstance(name, str):
            raise ArgumentError(f'trace() needs a name, as in trace("search"), not {name!r}')
        self._source = Source(name, kind, name, tags=tags, metadata=metadata, callbacks=callbacks)
        self._inputs = inputs
        self._model = model
        self._run: Run | None = None
        self._outside: Run | Scope | None = None

    def _open(self) -> Run:
        if self._run is not None:
            raise ArgumentError(f"this trace({self._source.name!r}) block has been entered before: make a new one")
        self._outside = get_current()
        run = self._run = open_run(self._source, self._outside, self._inputs)
        run.model = self._model
        if bus.disabled:
            self._leave()
        return run

    def _end(self, colour: Colour, error: BaseException | None) -> Pending:
        run = self._run
        assert run is not None
        if error is None:
            return end_run(run, colour)
        if isinstance(error, GeneratorExit):
            return end_run(run, SYNC, "closed_early")
        return fail_run(run, colour, error)

    def _leave(self) -> None:
        assert self._run is not None
        leave(self._run, self._outside)

    def __enter__(self) -> Run:
        """Start the run and make it current."""
        run = self._open()
        try:
            say_start(run, SYNC)
        except BaseException as error:
            try:
                self._end(SYNC, error)
            finally:
                self._leave()
            raise
        return run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the run."""
        try:
            self._end(SYNC, error)
        finally:
            self._leave()
            assert self._run is not None
            settle(self._run)

    async def __aenter__(self) -> Run:
        """Start the run and make it current; async subscribers have heard it before the block begins."""
        run = self._open()
        try:
            pending = say_start(run, ASYNC)
            if pending is not None:
                await pending
        except BaseException as error:
            try:
                pending = self._end(ASYNC, error)
                if pending is not None:
                    await pending
            finally:
                self._leave()
            raise
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run; async subscribers have heard it before the block is left."""
        try:
            pending = self._end(ASYNC, error)
            if pending is not None:
                await pending
        finally:
            self._leave()


# -- events of the app's own -------------------------------------------------------------------------------------------

_OF_A_TOKEN: Final = frozenset({"token", "chunk"})
_EMITTABLE: Final = (llm_new_token, agent_action, agent_finish, text, retry, custom_event)


def emit(signal: Hook[Any] | str, **fields: Any) -> None:
    """Say something on the current run, as ``emit(text, text="…")``; outside a run the event has none.

    Runs start and end only through ``@traced`` and ``trace()``: raises ArgumentError for hooks that say so, and for fields
    that the event does not have; UnknownHookError for an unknown hook.
    """
    _emit(signal, fields, SYNC)


async def aemit(signal: Hook[Any] | str, **fields: Any) -> None:
    """Say something on the current run; async subscribers have heard it when this returns. Raises as ``emit`` does."""
    pending = _emit(signal, fields, ASYNC)
    if pending is not None:
        await pending


def _emit(signal: Hook[Any] | str, fields: dict[str, Any], colour: Colour) -> Pending:
    current = get_current() if runs.finders is None else innermost()
    if signal is llm_new_token and type(current) is Run and fields.keys() <= _OF_A_TOKEN:
        return say_own_token(current, colour, **fields)
    hook = signal if isinstance(signal, Hook) else HOOKS.signal(signal)
    if hook not in _EMITTABLE:
        choices = ", ".join(hook.name for hook in _EMITTABLE)
        raise ArgumentError(f"{hook.name} is said by @traced and trace() alone: emit one of {choices}")
    run = current.run if isinstance(current, Scope) else current
    if hook is llm_new_token and run is not None and fields.keys() <= _OF_A_TOKEN:
        return say_own_token(run, colour, **fields)
    return say(hook, run, fields, colour, current)


def say(
    hook: Hook[Any], run: Run | None, fields: dict[str, Any], colour: Colour, current: Run | Scope | None = None
) -> Pending:
    """Say something on a run, or on none; raise ArgumentError for fields that the hook's event does not have."""
    try:
        event = hook.event_class(run, wall_now(), next_seq(), **fields)
    except TypeError as error:
        raise ArgumentError(f"emit({hook.name}) takes {', '.join(hook.event_class.fields)}: {error}") from None
    sender = "tracebus.emit" if run is None else run.sender
    plan = hook.plan_for(sender, run)
    if run is None and isinstance(current, Scope) and current.route is not None:
        plan = current.route.merged(hook, plan)
    return None if plan is None else colour.say(plan, sender, event)


def say_own_token(run: Run, colour: Colour, token: str | None = None, chunk: Any = None) -> Pending:
    """Say a token, and make it a part of the run's output unless something keeps that."""
    if not isinstance(token, str):
        raise ArgumentError(f"emit(llm_new_token, token={token!r}): a token is a text")
    if run.status != "open":
        return None  # nothing is said after a run's end
    if run._wants_output and run._source.kind in MODEL_KINDS:
        if run._text is None:
            run._text = []
        run._text.append(token)
    return say_token(run, token, chunk, colour)
