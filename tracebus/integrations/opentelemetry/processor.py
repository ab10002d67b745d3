"""``RunSpanProcessor``: runs on the bus for the GenAI spans that libraries make themselves.

What is read of their attributes is in ``attributes``. Many libraries set those right after the start of a span, so a span is
looked at again when something starts in it, and at its end.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from ... import runs
from ...families import MODEL_KINDS
from ...runs import Kind, Run, Scope, get_current, innermost, set_current
from ...signals import bus
from ...sources import Reporter
from ..model_calls import outer_call
from . import attributes as read
from .current import AttachedContext, install
from .spans import run_finders

__all__ = ["RunSpanProcessor", "SpanError"]

SENDER: Final = "opentelemetry"

Key: TypeAlias = tuple[int, int]
"""A span, by its trace and its own id."""

PENDING_KEPT: Final = 10_000
"""How many open spans that are nothing of ours, or not yet, are looked at again."""


class SpanError(Exception):
    """What a span tells of an error: ``type``, the name of the exception's class, and its message."""

    def __init__(self, type: str | None, message: str) -> None:
        super().__init__(message if type is None else f"{type}: {message}" if message else type)
        self.type = type

    @property
    def is_cancellation(self) -> bool:
        """Tell whether it is what asyncio or trio raises to cancel."""
        return (self.type or "").rpartition(".")[2] in ("CancelledError", "Cancelled")


class RunSpanProcessor:
    """Make a run of each GenAI span: of a model's call, an embedding, a retrieval, a tool, an agent, a workflow.

    ``provider.add_span_processor(RunSpanProcessor())``. It installs the bridge, which puts these runs in their place. Ids,
    times and parents are the spans'; the sender is ``"opentelemetry"``. A call that an integration of tracebus's traces, too,
    stays that one's run. Spans that are not sampled are no runs, as processors are not told of them.

    It needs nothing of the SDK: a span processor is what has these methods.
    """

    def __init__(self) -> None:
        install()
        self._reporter = Reporter(SENDER, takes_parts=True)
        self._pending: dict[Key, tuple[Any, Run | Scope | None]] = {}
        self._parts: dict[Key, Run] = {}
        self._runs: WeakValueDictionary[Key, Run] = WeakValueDictionary()
        self._is_silent = False
        run_finders.append(self._run_of)

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        """Start a run, if it is known already that the span is one."""
        try:
            self._started(span, parent_context)
        except Exception as error:
            self._failed("start", error)

    def on_end(self, span: Any) -> None:
        """End the run of the span; one that is known only now to be a run starts and ends here."""
        key = _key_of(span)
        try:
            self._look_again(key, span)
            if (part := self._parts.pop(key, None)) is not None:
                _complete(part, span.attributes or {})
            elif key in self._runs:
                self._ended(key, span)
        except Exception as error:
            self._failed("end", error)

    def _on_ending(self, span: Any) -> None:
        """Do nothing: the SDK calls this before the end."""

    def shutdown(self) -> None:
        """Start no runs any more."""
        self._is_silent = True
        self._pending.clear()
        if self._run_of in run_finders:
            run_finders.remove(self._run_of)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: everything is said when it happens; ``tracebus.flush()`` waits for who hears it."""
        return True

    # -- starting ------------------------------------------------------------------------------------------------------

    def _started(self, span: Any, parent_context: Context | None) -> None:
        here = innermost()
        if self._is_silent or not _is_heard(here):
            return
        if parent_context is not None:
            here = AttachedContext(parent_context, here)
        key, kind = _key_of(span), read.kind_of(span.attributes or {})
        if kind is not None:
            self._report(key, span, kind, here)
        elif len(self._pending) < PENDING_KEPT:
            self._pending[key] = span, here

    def _look_again(self, key: Key, span: Any) -> None:
        pending = self._pending.get(key)
        kind = None if pending is None else read.kind_of(span.attributes or {})
        if pending is not None and kind is not None:
            self._report(key, span, kind, pending[1])
        if span.end_time is not None:
            self._pending.pop(key, None)

    def _run_of(self, span: Span) -> Run | None:
        context = span.get_span_context()
        key = context.trace_id, context.span_id
        if (pending := self._pending.get(key)) is not None:
            try:
                self._look_again(key, pending[0])
            except Exception as error:
                self._failed("start", error)
        return self._runs.get(key)

    def _report(self, key: Key, span: Any, kind: Kind, here: Run | Scope | None) -> None:
        """Start the run of a span inside of what was current when that started."""
        self._pending.pop(key, None)
        before = get_current()
        set_current(here)
        try:
            outer = _same_call(kind, span)
            if outer is not None:
                self._parts[key] = self._runs[key] = outer
            else:
                self._start(key, span, kind)
        finally:
            set_current(before)

    def _start(self, key: Key, span: Any, kind: Kind) -> None:
        told: Mapping[str, Any] = span.attributes or {}
        run = self._reporter.start(
            key,
            name=read.name_of(told, kind, span.name),
            kind=kind,
            inputs=read.inputs_of(told, kind),
            model=read.model_of(told),
            metadata=read.metadata_of(told),
            run_id=_run_id(key, span.start_time),
            session_id=read.session_of(told),
            user_id=read.user_of(told),
            say=False,
        )
        if run is None:
            return
        run._started -= max(0, run.start_ns - span.start_time)
        run.start_ns = span.start_time
        if run.parent is None and run._scope.remote is None:
            run._trace = key[0]
        self._runs[key] = run
        self._reporter.say_start(key)

    # -- ending --------------------------------------------------------------------------------------------------------

    def _ended(self, key: Key, span: Any) -> None:
        run = self._reporter.find(key)
        if run is None or run.status != "open":
            return
        told: Mapping[str, Any] = span.attributes or {}
        _complete(run, told)
        late = runs.wall_now() - span.end_time
        if late > 0:  # it was ended with a time of its own
            run._started += late
            run._first_token = None if run._first_token is None else run._first_token + late
        first_token_s = _first_token_s(span)
        if span.status.status_code is StatusCode.ERROR:
            error = _error_of(span)
            self._reporter.fail(key, error, status="cancelled" if error.is_cancellation else None)
        else:
            self._reporter.end(key, first_token_s=first_token_s)

    def _failed(self, at: str, error: Exception) -> None:
        self._reporter.warn_once(at, "tracebus failed at the %s of a span, the app goes on: %r", at, error)


def _is_heard(here: Run | Scope | None) -> bool:
    if bus.live or here is None:
        return bus.live
    return (here.route if isinstance(here, Scope) else here._route) is not None


def _key_of(span: Any) -> Key:
    context = span.get_span_context()
    return context.trace_id, context.span_id


def _run_id(key: Key, start_ns: int) -> uuid.UUID:
    """Return an id whose low 64 bits are the span's."""
    return uuid.UUID(int=runs.id_at(start_ns, 0) >> 64 << 64 | key[1])


def _same_call(kind: Kind, span: Any) -> Run | None:
    """Return the open run of a library that is this very call, seen from outside or told by a client's integration."""
    told = span.attributes or {}
    outer = outer_call(kind, read.inputs_of(told, kind) or {})
    if outer is None:
        return None
    run = outer.run
    is_named_alike = run.sender != SENDER and run.name == read.name_of(told, kind, span.name)
    return run if kind in MODEL_KINDS or kind == "embedding" or is_named_alike else None


def _complete(run: Run, told: Mapping[str, Any]) -> None:
    """Add to the run what was not known of it."""
    if run.inputs is None:
        run.inputs = read.inputs_of(told, run.kind)
    if run.output is None:
        run.output = read.output_of(told, run.kind)
    if run.usage is None:
        run.usage = read.usage_of(told)
    run.model = read.model_of(told) if run.sender == SENDER or run.model is None else run.model
    for name, value in read.metadata_of(told).items():
        run.metadata.setdefault(name, value)


def _first_token_s(span: Any) -> float | None:
    told = read.first_token_of(span.attributes or {})
    if told is not None:
        return told
    times = [event.timestamp for event in span.events if event.name == "First Token Stream Event"]
    return (times[0] - span.start_time) / 1e9 if times else None


def _error_of(span: Any) -> SpanError:
    told = next((event.attributes or {} for event in reversed(span.events) if event.name == "exception"), {})
    type = told.get("exception.type") or (span.attributes or {}).get("error.type")
    message = told.get("exception.message") or span.status.description or ""
    return SpanError(None if type is None else str(type), str(message))
