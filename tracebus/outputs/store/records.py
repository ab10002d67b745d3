"""What the emitting thread notes of an event: a tuple of values that no later change reaches, in a few microseconds.

Masking, encoding and everything else that can wait is done by the writer, in ``batches``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, cast

import msgspec

from ...events import (
    AgentAction,
    AgentFinish,
    CustomEvent,
    Event,
    Failed,
    LLMNewToken,
    Retry,
    SubscriberFailed,
    Text,
)
from ...payload import Capture, captures_inputs, captures_outputs, snapshot
from ...runs import Run, Usage
from ...subscriptions import UNCOUNTED, name_of
from .lane import BatchLane

__all__ = ["Said", "Ended", "Happened", "Noted", "Record", "Recorder", "Started", "Token"]

Said: TypeAlias = "str | bytes | None"
"""A value as it was: a text as itself, all else as JSON."""

_encode: Final = msgspec.json.Encoder().encode

FRAMES_KEPT: Final = 50
CAUSES_KEPT: Final = 5
FACTS_SIZE: Final = 400
"""What a record takes beside its content, in bytes, about."""


class Facts(msgspec.Struct, gc=False):
    """Who a run is; the same at its start and at its end, so that either can be lost."""

    number: int
    trace: int
    parent: int | None
    """The span id of the parent."""
    above: int | None
    """The number of the parent, if it is a run of this process."""
    named: Named
    tags: tuple[str, ...]
    session_id: str | None
    user_id: str | None
    started_ns: int
    model: str | None
    metadata: Said


class Named(Protocol):
    """What all runs of one callable share: a ``Source``."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Started(msgspec.Struct, gc=False):
    """A run has started."""

    size: int
    facts: Facts
    inputs: Said


class Token(msgspec.Struct, gc=False):
    """A run has streamed a token."""

    size: int
    number: int
    time_ns: int
    text: str


class Ended(msgspec.Struct, gc=False):
    """A run has ended."""

    size: int
    facts: Facts
    status: str
    duration_ns: int | None
    first_token_ns: int | None
    usage: Usage | None
    output: Said
    error: Noted | None

    def without_content(self) -> Ended:
        """Return what takes no room."""
        replace = msgspec.structs.replace
        return replace(self, size=0, facts=replace(self.facts, metadata=None), output=None, error=None)


class Happened(msgspec.Struct, gc=False):
    """Something else was said, on a run or outside one."""

    size: int
    number: int | None
    trace: int | None
    time_ns: int
    hook: str
    data: bytes


class Noted(msgspec.Struct, gc=False):
    """An error without its frames, which would keep alive what the app holds in them."""

    said: bytes
    frames: list[tuple[str, str, int]]
    """Of each frame its file, its function and its line, the innermost last."""
    causes: list[bytes]


Record: TypeAlias = "Started | Token | Ended | Happened"


PLAIN_CHARACTERS: Final = 8192
PLAIN_ITEMS: Final = 64
PLAIN_DEPTH: Final = 5
_INT64: Final = range(-(2**63), 2**63)


def as_said(value: object) -> str | bytes:
    """Return ``value`` as it is now, bounded.

    What is small and plain, as nearly everything is, is encoded at once: a snapshot of it would say the same.
    """
    if type(value) is str:
        return value if value.isascii() and len(value) <= PLAIN_CHARACTERS else cast("str", snapshot(value))
    try:
        if _plain_size(value, PLAIN_DEPTH) <= PLAIN_CHARACTERS:
            return _encode(value)
    except Exception:  # a lone surrogate, or a dict that another thread changes
        pass
    copied = snapshot(value)
    return copied if type(copied) is str else _encode(copied)


_TOO_MUCH: Final = PLAIN_CHARACTERS + 1


def _plain_size(value: object, depth: int) -> int:
    """Return about how many characters there are in a value that is JSON as it stands; too many for any other."""
    cls = type(value)
    items: Any = value
    if cls is dict:
        for key in items:
            if type(key) is not str or len(key) > 100:
                return _TOO_MUCH
        size, items = 16 * len(items), items.values()
    elif cls is list:
        size = 8
    elif value is None or cls is bool:
        return 4
    elif (cls is int and value in _INT64) or (cls is float and value - value == 0):  # type: ignore[operator]
        return 8
    else:
        return _TOO_MUCH
    if depth == 0 or len(items) > PLAIN_ITEMS:
        return _TOO_MUCH
    for item in items:
        size += len(item) if type(item) is str else _plain_size(item, depth - 1)
        if size > PLAIN_CHARACTERS:
            return _TOO_MUCH
    return size


def note_error(error: object) -> Noted:
    """Return what is to be told of an error; never raise."""
    causes: list[bytes] = []
    cause = _cause_of(error)
    while cause is not None and len(causes) < CAUSES_KEPT:
        causes.append(_encode(snapshot(cause)))
        cause = _cause_of(cause)
    return Noted(_encode(snapshot(error)), _frames_of(error), causes)


def _cause_of(error: object) -> BaseException | None:
    if not isinstance(error, BaseException):
        return None
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _frames_of(error: object) -> list[tuple[str, str, int]]:
    frames: list[tuple[str, str, int]] = []
    step: Any = getattr(error, "__traceback__", None)
    while step is not None:
        code = step.tb_frame.f_code
        frames.append((code.co_filename, getattr(code, "co_qualname", code.co_name), step.tb_lineno))
        step = step.tb_next
    if len(frames) > FRAMES_KEPT:
        half = FRAMES_KEPT // 2
        del frames[half:-half]
    return frames


class Recorder:
    """The subscriber: notes what is said and puts it into the lane."""

    def __init__(self, lane: BatchLane[Record], capture: Capture) -> None:
        self._put = lane.put_record
        self._takes_inputs = captures_inputs(capture)
        self._takes_outputs = captures_outputs(capture)

    def hear_start(self, sender: object, /, *, event: Any) -> object:
        """Note that a run starts."""
        inputs = event.inputs
        facts, size = _facts(event.run)
        if inputs is not None:
            if self._takes_inputs:
                inputs = as_said(inputs)
                size += len(inputs)
            else:
                inputs = None
        self._put(Started(size, facts, inputs))
        return UNCOUNTED

    def hear_token(self, sender: object, /, *, event: LLMNewToken) -> object:
        """Note a token."""
        run = event.run
        if run is None:
            return UNCOUNTED
        text = event.token if self._takes_outputs else ""
        if type(text) is not str or len(text) > 4096:
            text = str(snapshot(text))
        self._put(Token(120 + len(text), run._number(), event.time_ns, text))
        return UNCOUNTED

    def hear_end(self, sender: object, /, *, event: Any) -> object:
        """Note that a run has ended."""
        self._end(event.run, event.output, None)
        return UNCOUNTED

    def hear_error(self, sender: object, /, *, event: Failed) -> object:
        """Note that a run has failed."""
        assert event.run is not None
        self._end(event.run, event.output, note_error(event.error))
        return UNCOUNTED

    def _end(self, run: Run, output: Any, error: Noted | None) -> None:
        facts, size = _facts(run)
        if output is not None:
            if self._takes_outputs:
                output = as_said(output)
                size += len(output)
            else:
                output = None
        started, ended, first = run._started, run._ended, run._first_token
        duration_ns = None if ended is None else ended - started
        first_ns = None if first is None else first - started
        self._put(Ended(size, facts, run.status, duration_ns, first_ns, run.usage, output, error))

    def hear_other(self, sender: object, /, *, event: Event) -> object:
        """Note anything else."""
        fields = _FIELDS[type(event)](event)
        data = _encode(snapshot(fields if self._takes_outputs else _without_content(fields)))
        run = event.run
        number, trace = (None, None) if run is None else (run._number(), run._trace_number())
        self._put(Happened(160 + len(data), number, trace, event.time_ns, event.signal_name, data))
        return UNCOUNTED

    def receiver_for(self, event_class: type[Event]) -> Callable[..., object]:
        """Return the method that hears events of this class."""
        if event_class is LLMNewToken:
            return self.hear_token
        if event_class in _FIELDS:
            return self.hear_other
        if issubclass(event_class, Failed):
            return self.hear_error
        return self.hear_start if event_class.signal_name.endswith("_start") else self.hear_end


def _facts(run: Run) -> tuple[Facts, int]:
    """Return who a run is, and how many bytes a record with that takes, about."""
    # In one piece and with private names, because it runs twice a run in the app's own time.
    number = run._id
    if number is None:
        number = run._number()
    parent, scope = run.parent, run._scope
    span: int | None = None
    above: int | None = None
    if parent is not None:
        above = parent._number()
        span = above & 0xFFFF_FFFF_FFFF_FFFF
    elif scope.remote is not None:
        span = scope.remote.span_id
    trace = run._trace
    if trace is None:  # walking to the root for each run of a deep tree would be quadratic
        trace = run._trace = run._trace_number() if parent is None or parent._trace is None else parent._trace
    metadata: Any = run._metadata or scope.metadata or None
    size = FACTS_SIZE
    if metadata is not None:
        metadata = as_said(dict(metadata))
        size += len(metadata)
    session, user = scope.session_id, scope.user_id
    return Facts(number, trace, span, above, run._source, run.tags, session, user, run.start_ns, run.model, metadata), size


_FIELDS: Final[dict[type[Event], Callable[[Any], dict[str, Any]]]] = {
    AgentAction: lambda event: {"tool": event.tool, "tool_input": event.tool_input, "log": event.log},
    AgentFinish: lambda event: {"return_values": event.return_values, "log": event.log},
    Text: lambda event: {"text": event.text},
    Retry: lambda event: {"attempt": event.attempt, "wait_s": event.wait_s, "error": event.error},
    CustomEvent: lambda event: {"name": event.name, "data": event.data},
    SubscriberFailed: lambda event: {
        "hook": event.hook,
        "subscriber": name_of(event.subscriber),
        "error": event.error,
    },
}
"""What is kept of the events that neither start nor end a run."""

_CONTENT: Final = frozenset({"tool_input", "log", "return_values", "text", "data"})


def _without_content(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _CONTENT}
