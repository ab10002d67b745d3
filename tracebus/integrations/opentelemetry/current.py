"""What is current for OpenTelemetry and for tracebus at once: ``install()`` and ``uninstall()``.

While something listens to the bus, OpenTelemetry's current context is kept in tracebus's own variable, as a scope among the
runs and scopes that are current there. So there is one order of what is inside of what. It is carried and put back with them,
through generators, tasks and threads, and nothing attached in a run stays current after it. While nothing listens,
OpenTelemetry keeps its context itself, and no run is a parent of its spans.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from importlib.metadata import version
from threading import Lock
from typing import Any, Final

import opentelemetry.context
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span, set_span_in_context

from ... import runs
from ...runs import ROOT_SCOPE, RemoteParent, Run, Scope, find_with, get_current, innermost, nearest, set_current
from ...scopes import InnerScope
from ...signals import bus
from .spans import parent_of_span, run_of_span, span_of_parent

__all__ = ["AttachedContext", "install", "uninstall"]


class AttachedContext(InnerScope):
    """The scope of what happens while a context of OpenTelemetry's is attached: a run started inside is its span's child.

    Its span may be a run's; or a span in that run's trace, which is then nearer than the run; or of another trace, and what
    starts inside is then no part of the run.
    """

    __slots__ = ("_receipt", "context")

    def __init__(self, context: Context, here: Run | Scope | None) -> None:
        run, remote, around = _parents(context, here)
        super().__init__(around, run, remote=remote, outside=get_current())
        self.context = context
        self._receipt: weakref.ref[_Receipt] | None = None

    def receipt(self) -> _Receipt:
        """Return what this can be detached with."""
        receipt = _Receipt(self)
        self._receipt = weakref.ref(receipt)
        return receipt

    def is_abandoned(self) -> bool:
        """Tell whether nobody can detach it any more: then it lasts as long as what is around it."""
        return self._receipt is not None and self._receipt() is None

    def forget_abandoned(self) -> None:
        """Cut out what will never be current again, so that a thread which attaches and never detaches keeps no chain."""
        below = self.outside
        if not isinstance(below, AttachedContext) or not below.is_abandoned():
            return
        while isinstance(below.outside, AttachedContext) and below.outside.is_abandoned():
            below.outside = below.outside.outside


def _parents(context: Context, here: Run | Scope | None) -> tuple[Run | None, RemoteParent | None, Scope]:
    """Return the run and the span that are around what starts in ``context``, and the scope that it inherits from."""
    inner_run = here.run if isinstance(here, Scope) else here
    around = here if isinstance(here, Scope) else ROOT_SCOPE if here is None else here._scope
    span = get_current_span(context)
    run = run_of_span(span)
    if run is not None:
        return run, run._scope.remote, around if run is inner_run else run._scope
    span_context = span.get_span_context()
    if not span_context.is_valid:
        return None, None, around
    parent = nearest(here)
    if not _is_named(parent, span_context.trace_id, span_context.span_id):
        parent = parent_of_span(span_context)
    assert isinstance(parent, RemoteParent)
    is_in_trace = inner_run is not None and inner_run._trace_number() == span_context.trace_id
    return inner_run if is_in_trace else None, parent, around


def _is_named(parent: Run | RemoteParent | None, trace_id: int, span_id: int) -> bool:
    return isinstance(parent, RemoteParent) and parent.span_id == span_id and parent.trace_id.int == trace_id


class _Receipt:
    """What ``attach()`` returns instead of a token: it can be given back in any context, any number of times."""

    __slots__ = ("__weakref__", "attached")

    def __init__(self, attached: AttachedContext) -> None:
        self.attached = attached


class _Bridge:
    """Stands for the methods of the object in which OpenTelemetry keeps its current context."""

    def __init__(self, runtime: Any) -> None:
        self._attach: Callable[[Context], Token[Context]] = runtime.attach
        self._detach: Callable[[Token[Context]], None] = runtime.detach
        self._get_current: Callable[[], Context] = runtime.get_current
        self._kept: ContextVar[_KeptThere | None] = ContextVar("tracebus_kept_there", default=None)
        self._derived: ContextVar[_Derived | None] = ContextVar("tracebus_derived", default=None)

    def attach(self, context: Context) -> object:
        """Make ``context`` current; return what ends that."""
        here = self._here()
        if here is None and not bus.live:
            return self._attach(context)
        attached = AttachedContext(context, here)
        attached.forget_abandoned()
        set_current(attached)
        return attached.receipt()

    def detach(self, token: Any) -> None:
        """Make current again what was so before, unless that has happened, or this is not where it was attached."""
        if isinstance(token, _Receipt):
            _leave(token.attached)
            return
        try:
            self._detach(token)
        except ValueError:
            pass  # attached in another context: whoever finishes a generator there can do nothing about it

    def get_current(self) -> Context:
        """Return the context that what starts here belongs to."""
        here = self._here()
        if here is None:
            return self._get_current()
        if isinstance(here, AttachedContext):
            return here.context
        base = next(_attached_around(here), None) or self._kept_there()
        context = self._get_current() if base is None else base.context
        parent = _heard(nearest(here))
        return context if parent is nearest(base) else self._with_parent(parent, context)

    def _here(self) -> Run | Scope | None:
        """Return what is innermost here, without a detour when no framework keeps anything in a place of its own."""
        if runs.finders is None or len(runs.finders) > 1:
            return innermost()
        current = get_current()
        if isinstance(current, AttachedContext) and current in _left_behind.get():
            current = _step_over(current)
        return self._kept_there() if current is None else current

    def _with_parent(self, parent: Run | RemoteParent | None, context: Context) -> Context:
        known = self._derived.get()
        if known is not None and known.is_of(parent, context):
            return known.context
        derived = _Derived(parent, context)
        self._derived.set(derived)
        return derived.context

    def find(self) -> AttachedContext | None:
        """Return what OpenTelemetry keeps itself, when nothing else is current."""
        current = get_current()
        if current is None:
            return self._kept_there()
        if isinstance(current, AttachedContext) and current in _left_behind.get():
            return None if _step_over(current) is not None else self._kept_there()
        return None

    def _kept_there(self) -> _KeptThere | None:
        """Return the scope of a span that became current where nothing listened, or before there was a bridge."""
        context = self._get_current()
        kept = self._kept.get()
        if kept is None or kept.context is not context:
            is_parent = context and get_current_span(context).get_span_context().is_valid
            if kept is None and not is_parent:
                return None
            kept = _KeptThere(context) if is_parent else None
            self._kept.set(kept)
        return kept


class _Derived:
    """The last context that was made here of what is attached and what is nearer. Of neither anything is kept by it."""

    __slots__ = ("_attached", "_parent", "context")

    def __init__(self, parent: Run | RemoteParent | None, attached: Context) -> None:
        self._parent: Callable[[], object] | None = None
        if parent is not None:
            self._parent = weakref.ref(parent) if isinstance(parent, Run) else lambda: parent
        self._attached = weakref.ref(attached)
        self.context = set_span_in_context(span_of_parent(parent), attached)

    def is_of(self, parent: Run | RemoteParent | None, attached: Context) -> bool:
        """Tell whether it was made of these."""
        if self._attached() is not attached:
            return False
        return parent is None if self._parent is None else parent is not None and self._parent() is parent


class _KeptThere(AttachedContext):
    """The scope of a context that OpenTelemetry keeps itself."""

    __slots__ = ()

    def __init__(self, context: Context) -> None:
        # Not asking what is current elsewhere, where we would be asked: nothing was when it was attached.
        span_context = get_current_span(context).get_span_context()
        for name, value in _NOTHING_INHERITED.items():
            setattr(self, name, value)
        self.remote = parent_of_span(span_context)
        self.context = context


_NOTHING_INHERITED: Final[dict[str, Any]] = {
    **{name: getattr(ROOT_SCOPE, name) for name in Scope.__slots__},
    "_seen": (),
    "_receipt": None,
}


def _heard(parent: Run | RemoteParent | None) -> Run | RemoteParent | None:
    """Return the nearest parent that anybody hears of: a span whose parent is never told of would hang nowhere."""
    while isinstance(parent, Run) and not bus.live and parent._route is None:
        parent = parent.remote_parent or parent.parent
    return parent


# -- what is current in tracebus's variable ----------------------------------------------------------------------------

_left_behind: ContextVar[frozenset[AttachedContext]] = ContextVar("tracebus_left_behind", default=frozenset())
"""What was detached while a run that had started inside was open: that puts it back at its end, and it is stepped over."""


def _outward(current: Run | Scope | None) -> Iterator[Run | Scope]:
    while current is not None:
        yield current
        current = current.outside if isinstance(current, Scope) else current._scope


def _attached_around(current: Run | Scope | None) -> Iterator[AttachedContext]:
    left = _left_behind.get()
    return (one for one in _outward(current) if isinstance(one, AttachedContext) and one not in left)


def _step_over(current: Run | Scope | None) -> Run | Scope | None:
    left = _left_behind.get()
    while isinstance(current, AttachedContext) and current in left:
        current = current.outside
    set_current(current)
    return current


def _leave(attached: AttachedContext) -> None:
    """Make current what was so outside of ``attached``; nothing changes where it is not current.

    What was attached inside and not detached goes with it, as it does in OpenTelemetry; runs and scopes stay.
    """
    inside: list[AttachedContext] = []
    is_held = False
    for one in _outward(get_current()):
        if one is attached:
            break
        if isinstance(one, AttachedContext):
            inside.append(one)
        else:
            is_held = True
            inside.clear()
    else:
        return
    if not is_held:
        set_current(attached.outside)
        return
    left = _left_behind.get()
    still = [one for one in _outward(get_current()) if isinstance(one, AttachedContext) and one in left]
    _left_behind.set(frozenset((*still, attached, *inside)))


# -- on and off --------------------------------------------------------------------------------------------------------

_lock: Final = Lock()
_bridge: _Bridge | None = None
_forget: Callable[[], None] | None = None


def install() -> None:
    """Let runs be children of the spans that they start in, and spans children of their runs; twice is fine.

    With a version of OpenTelemetry that keeps its current context in another way, one warning says so, and nothing changes.
    """
    global _bridge, _forget
    with _lock:
        if _forget is not None:
            return
        runtime = getattr(opentelemetry.context, "_RUNTIME_CONTEXT", None)
        if not all(callable(getattr(runtime, name, None)) for name in _METHODS) or not hasattr(runtime, "__dict__"):
            _warn()
            return
        bridge = _bridge = _bridge or _Bridge(runtime)
        vars(runtime).update({name: getattr(bridge, name) for name in _METHODS})
        _forget = find_with(bridge.find)


def uninstall() -> None:
    """Leave OpenTelemetry's context to itself again; twice is fine. What is open keeps its parent."""
    global _forget
    with _lock:
        if _forget is None:
            return
        _forget()
        _forget = None
        kept = vars(opentelemetry.context._RUNTIME_CONTEXT)
        kept.pop("attach", None)
        kept.pop("get_current", None)  # detach stays: it knows what has been attached so far


_METHODS: Final = ("attach", "detach", "get_current")


def _warn() -> None:
    logging.getLogger("tracebus").warning(
        "opentelemetry-api %s keeps its current context in a way that tracebus does not know: spans and runs are not made "
        "each other's parents. Is there a newer tracebus?",
        version("opentelemetry-api"),
    )
