"""Log lines: ``log_to_stdout`` and ``log_to`` for the events of the bus, and what puts run ids on the app's own log lines.

structlog renders them, with processors and a printer of our own. It is not configured here: how is the app's business.
What a line says is in ``fields`` (JSON) and ``rows`` (terminal), how it is written in ``printer``, where in ``destinations``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO, TypeAlias, cast, get_args

import structlog

from ...errors import ArgumentError
from ...events import (
    EVENTS,
    ChainError,
    Event,
    LLMError,
    LLMNewToken,
    RetrieverError,
    Retry,
    SubscriberFailed,
    ToolError,
)
from ...links import viewer_at
from ...payload import Capture, default_capture
from ...redaction import Redactor
from ...runs import current_run
from ...signals import HOOKS, llm_new_token, subscribe
from ...subscriptions import Subscription
from .destinations import Destination, Given, Place, Standard, place_of
from .fields import FieldsOf, as_json
from .layout import Layout
from .printer import Printer, Target
from .rows import RowOf

__all__ = ["Destination", "Format", "RunIdFilter", "add_run_ids", "log_to", "log_to_stdout"]

Format: TypeAlias = Literal["auto", "console", "json"]


def log_to_stdout(
    format: Format = "auto",
    *,
    tokens: bool = False,
    stream: TextIO | None = None,
    capture: Capture | None = None,
    redactor: Redactor | None = None,
    links: bool | str = False,
) -> Subscription:
    """Write a line about every event, until the returned subscription is closed.

    ``"auto"`` is ``"console"`` on a terminal and in a notebook, and ``"json"``, one object a line, everywhere else.
    Lines go to whatever ``sys.stdout`` is at that moment, or to ``stream``. With ``tokens`` the pieces of a streamed
    answer are written as they come; a secret that is spread over several of them is not recognized. ``capture`` says
    which content is in the lines, ``"none"``, ``"inputs"``, ``"outputs"`` or ``"all"``, and ``redactor`` masks secrets
    in it; not given, they are what TRACEBUS_CAPTURE says and the redactor that masks everywhere. With ``links`` lines
    lead to their run in the web viewer, at the address that `tracebus ui` printed, or with True at the usual one: the line
    of a trace's end, the id at a start where the terminal lets one click it, and ``link`` in JSON.

    Calling it again replaces what an earlier call for the same stream set up. A stream that is closed or full is
    warned about through ``logging``, at most once a minute; the app hears nothing of it.

    Raises ArgumentError for what is none of the choices.
    """
    if stream is not None and not callable(getattr(stream, "write", None)):
        raise ArgumentError(f"stream={stream!r} has no write(): give a text stream such as sys.stderr, None is stdout")
    capture = _checked(format, tokens, capture, redactor)
    place = Standard("stdout") if stream is None else Given(stream)
    return _log(place, format, tokens, capture, redactor, viewer_at(links))


def log_to(
    destination: Destination,
    format: Format = "auto",
    *,
    tokens: bool = False,
    capture: Capture | None = None,
    redactor: Redactor | None = None,
    links: bool | str = False,
) -> Subscription:
    """Write a line about every event as ``log_to_stdout`` does, somewhere else.

    ``"stdout"`` and ``"stderr"`` are whatever ``sys`` has under that name at that moment; another text or a path is a file,
    to which several processes may append; anything else is a text stream.

    Raises ArgumentError for what is none of the choices, OSError for a file that cannot be opened.
    """
    capture = _checked(format, tokens, capture, redactor)
    viewer = viewer_at(links)
    return _log(place_of(destination), format, tokens, capture, redactor, viewer)


def _log(
    place: Place, format: Format, tokens: bool, capture: Capture, redactor: Redactor | None, viewer: str | None
) -> Subscription:
    hooks = [hook for hook in HOOKS.values() if tokens or hook is not llm_new_token]
    _close_earlier(place)
    lines = LogLines(format, place, capture, redactor, viewer)
    lines.subscription = subscribe(lines, *hooks, delivery="inline")
    return lines.subscription


def _checked(format: object, tokens: object, capture: Capture | None, redactor: object) -> Capture:
    """Raise ArgumentError for a wrong argument; return what is captured."""
    if format not in get_args(Format):
        raise ArgumentError(f"unknown format {format!r}: choose one of {', '.join(get_args(Format))}")
    if not isinstance(tokens, bool):
        raise ArgumentError(f"tokens={tokens!r} is neither True, to write tokens as they come, nor False")
    if redactor is not None and not isinstance(redactor, Redactor):
        raise ArgumentError(f"redactor={redactor!r} is no Redactor: give tracebus.redaction.Redactor(rule)")
    if capture is None:
        return default_capture()
    if capture not in get_args(Capture):
        raise ArgumentError(f"unknown capture {capture!r}: choose one of {', '.join(get_args(Capture))}")
    return capture


def _close_earlier(place: Place) -> None:
    """Close what writes to the same place, or a re-run cell and a second call would write every line twice."""
    receivers = {id(receiver): receiver for hook in HOOKS.values() for receiver in hook.receivers.values()}
    for receiver in receivers.values():
        if isinstance(receiver, LogLines) and receiver.place.key == place.key and receiver.subscription is not None:
            receiver.subscription.close()


class _EventLogger(structlog.BoundLoggerBase):
    """A structlog logger of events of the bus, in the place of texts."""

    def say(self, level: str, event: Any) -> None:
        """Send ``event`` through the processors to the printer."""
        self._proxy_to_logger(level, event)


class LogLines:
    """The subscriber behind ``log_to``: hands each event to a structlog logger, whose processors do the rest."""

    subscription: Subscription | None = None

    def __init__(self, format: Format, place: Place, capture: Capture, redactor: Redactor | None, viewer: str | None) -> None:
        self.place = place
        self._format = format
        self._printer = Printer(place, Layout())
        self._json = self._logger_of(FieldsOf(capture, redactor, viewer), as_json)
        self._console = self._logger_of(RowOf(capture, redactor, viewer))
        self._choose_for(self._printer.target)

    def _logger_of(self, *processors: Callable[..., Any]) -> _EventLogger:
        # All is given, so that nothing is taken from what the app gave to structlog.configure().
        logger = structlog.wrap_logger(self._printer, processors=processors, wrapper_class=_EventLogger, context_class=dict)
        return cast(_EventLogger, logger.bind())

    def _choose_for(self, target: Target) -> None:
        is_for_people = target.is_terminal or _is_in_notebook() if self._format == "auto" else self._format == "console"
        self._logger = self._console if is_for_people else self._json

    def __call__(self, sender: Any, /, *, event: Event) -> None:
        """Write a line about ``event``."""
        if self.place() is not self._printer.target.stream:
            self._choose_for(self._printer.look())
        self._logger.say(_LEVELS.get(type(event)) or _level_of_error(event), event)


def _is_in_notebook() -> bool:
    """Tell whether a person reads what is no terminal: Jupyter's stdout says that it is none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


_LEVELS: Final[dict[type[Event], str]] = {
    **dict.fromkeys(EVENTS.values(), "info"),
    **dict.fromkeys((LLMError, ChainError, ToolError, RetrieverError), ""),  # it depends
    LLMNewToken: "debug",
    Retry: "warning",
    SubscriberFailed: "error",
}


def _level_of_error(event: Event) -> str:
    return "warning" if event.run is not None and event.run.status == "cancelled" else "error"


# -- the app's own log lines -------------------------------------------------------------------------------------------


def add_run_ids(logger: Any, method_name: str, event_dict: Any) -> Any:
    """Add ``run_id`` and ``trace_id`` to a log line inside a run: a structlog processor for ``structlog.configure``.

    Outside of runs nothing is added, and what the line says itself stays.
    """
    run = current_run()
    if run is not None:
        event_dict.setdefault("run_id", str(run.id))
        event_dict.setdefault("trace_id", str(run.trace_id))
    return event_dict


class RunIdFilter(logging.Filter):
    """Give every log record a ``run_id`` and a ``trace_id``, for a formatter such as ``"%(run_id)s %(message)s"``.

    Add it to a handler, not to a logger, whose filters do not see what its children log. Outside of runs both are
    ``outside``; what a record says itself stays.
    """

    def __init__(self, outside: str | None = "-") -> None:
        super().__init__()
        self._outside = outside

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids and let the record pass."""
        run = current_run()
        if not hasattr(record, "run_id"):
            record.run_id = self._outside if run is None else str(run.id)
        if not hasattr(record, "trace_id"):
            record.trace_id = self._outside if run is None else str(run.trace_id)
        return True
