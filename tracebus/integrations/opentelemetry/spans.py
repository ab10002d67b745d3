"""A run as OpenTelemetry sees it, and a span as tracebus sees it. Which of them is current is in ``current``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import ref

from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
)

from ...families import SYNC
from ...runs import RemoteParent, Run
from ...signals import custom_event
from ...tracing import say

__all__ = ["RunSpan", "parent_of_span", "run_finders", "run_of_span", "span_of_parent"]


class RunSpan(NonRecordingSpan):
    """A run that is current, for what asks OpenTelemetry for the current span.

    Attributes become the run's metadata, and events its custom events. How it is called and how it ends is the run's own to
    say.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(_context_of_run(run))
        self._run = ref(run)  # contexts are kept for longer than runs

    @property
    def run(self) -> Run | None:
        """The run, while anybody holds it."""
        return self._run()

    def _open_run(self) -> Run | None:
        run = self._run()
        return run if run is not None and run.status == "open" else None

    def is_recording(self) -> bool:
        """Tell whether the run is open."""
        return self._open_run() is not None

    def set_attribute(self, key: str, value: Any) -> None:
        """Note it in the run's metadata."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note them in the run's metadata."""
        run = self._open_run()
        if run is not None:
            run.metadata.update(attributes)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Say it as a custom event of the run."""
        run = self._open_run()
        if run is not None:
            say(custom_event, run, {"name": name, "data": dict(attributes or {})}, SYNC)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Say an exception that the app has handled as an event: one that ends the run is said by the run."""
        known = {"exception.type": type(exception).__qualname__, "exception.message": str(exception)}
        self.add_event("exception", {**known, **(attributes or {})})


def _context_of_run(run: Run) -> SpanContext:
    came = run._scope.remote
    return SpanContext(
        run._trace_number(),
        run.span_id,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if came is None or came.sampled else TraceFlags.DEFAULT),
        trace_state=_state_of(came),
    )


def _state_of(remote: RemoteParent | None) -> TraceState:
    return TraceState.from_header([remote.tracestate]) if remote is not None and remote.tracestate else TraceState()


def span_of_parent(parent: Run | RemoteParent | None) -> Span:
    """Return what is to be OpenTelemetry's current span where ``parent`` is the parent of what starts."""
    if parent is None:
        return INVALID_SPAN
    if isinstance(parent, Run):
        return RunSpan(parent)
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    is_remote = not parent.is_local
    return NonRecordingSpan(SpanContext(parent.trace_id.int, parent.span_id, is_remote, flags, _state_of(parent)))


def parent_of_span(context: SpanContext) -> RemoteParent:
    """Return a valid span's context as the parent of a run."""
    return RemoteParent(
        uuid.UUID(int=context.trace_id),
        context.span_id,
        context.trace_flags.sampled,
        context.trace_state.to_header(),
        is_local=not context.is_remote,
    )


run_finders: Final[list[Callable[[Span], Run | None]]] = []
"""Each knows runs that have been made of spans; a processor adds itself."""


def run_of_span(span: Span) -> Run | None:
    """Return the run that the span stands for, or that was made of it; None for any other span."""
    if isinstance(span, RunSpan):
        return span.run
    return next((run for find in run_finders if (run := find(span)) is not None), None)
