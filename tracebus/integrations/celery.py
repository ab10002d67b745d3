"""The runs of Celery's tasks continue the trace of who sent them, through the headers of the message.

::

    from tracebus.integrations import celery

    celery.install()  # where tasks are sent, and where they run

What goes along is what ``inject()`` writes: trace, session, user and tags. A task that is called in place, eagerly, is in the
run that calls it without all this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..propagation import extract, inject
from .patching import import_library

__all__ = ["install", "uninstall"]

_ID: Final = "tracebus"
_entered: Final[dict[str, extract]] = {}
"""The traces that are continued here, by the ids of their tasks."""


def install() -> None:
    """Send the current run along with tasks, and run tasks in the traces that came with them; twice is fine.

    Call it where the Celery app is defined, which those who send tasks and the workers import.

    Raises MissingExtraError when Celery is not installed.
    """
    for signal, receiver in _receivers():
        signal.connect(receiver, weak=False, dispatch_uid=_ID)


def uninstall() -> None:
    """Send nothing along any more; twice is fine. Tasks that are running stay in their traces to their ends."""
    for signal, receiver in _receivers()[:2]:
        signal.disconnect(receiver, dispatch_uid=_ID)


def _receivers() -> list[tuple[Any, Callable[..., None]]]:
    signals = import_library("celery.signals", "celery")
    return [
        (signals.before_task_publish, _write_headers),
        (signals.task_prerun, _enter_trace),
        (signals.task_postrun, _leave_trace),
    ]


def _write_headers(headers: Any = None, **_: Any) -> None:
    if isinstance(headers, dict):
        inject(headers)


def _enter_trace(task_id: str, task: Any, **_: Any) -> None:
    request = task.request
    if request.is_eager or request.called_directly:
        return
    trace = extract(request.headers or {})
    trace.__enter__()
    _entered[task_id] = trace


def _leave_trace(task_id: str, **_: Any) -> None:
    trace = _entered.pop(task_id, None)
    if trace is not None:
        trace.__exit__(None, None, None)
