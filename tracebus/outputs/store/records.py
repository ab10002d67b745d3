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
from ...runs import RemoteParent, Run, Usage, id_at
from ...subscriptions import UNCOUNTED, name_of
from .lane import BatchLane

__all__ = ["Said", "Ended", "Happened", "Noted", "Record", "Recorder", "Started", "Token"]

Said: TypeAlias = "str | bytes | None"
"""A value as it was: a text as itself, all else as JSON."""

_encode: Final = msgspec.json.Encoder().encode

FRAMES_KEPT: Final = 50
CAUSES_KEPT: Final = 5
OPEN_RUNS_KNOWN: Final = 100_000
FACTS_SIZE: Final = 400
"""What a record takes beside its content, in bytes, about."""


class Facts(msgspec.Struct, gc=False):
    """Who a run is. Its id is worked out by the writer, from what the run's own would be."""

    seq: int
    """The number of its start event, by which records of one run find together."""
    started_ns: int
    above: Facts | None
    """The run of this process that it was started in."""
    named: Named
    session_id: str | None
    user_id: str | None
    remote: RemoteParent | None = None
    """The parent in another system; for a run that is put into a store again, in whatever process."""
    known_number: int | None = None
    known_trace: int | None = None

    @property
    def number(self) -> int:
        """The 128 bits of the run's id."""
        if self.known_number is None:
            self.known_number = id_at(self.started_ns, self.seq)
        return self.known_number

    @property
    def trace(self) -> int:
        """The 128 bits of the trace's id."""
        facts, below = self, []
        while facts.known_trace is None and facts.above is not None:
            below.append(facts)
            facts = facts.above
        if facts.known_trace is None:
            facts.known_trace = facts.number if facts.remote is None else facts.remote.trace_id.int
        for one in below:
            one.known_trace = facts.known_trace
        return facts.known_trace

    @property
    def parent(self) -> int | None:
        """The span id of the parent."""
        if self.above is not None:
            return self.above.number & 0xFFFF_FFFF_FFFF_FFFF
        return None if self.remote is None else self.remote.span_id


class Beside(msgspec.Struct, gc=False):
    """What may be set on a run while it is open."""

    tags: tuple[str, ...]
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
    beside: Beside
    inputs: Said


class Token(msgspec.Struct, gc=False):
    """A run has streamed a token."""

    size: int
    seq: int
    """Of its run's start."""
    time_ns: int
    text: str


class Ended(msgspec.Struct, gc=False):
    """A run has ended."""

    size: int
    facts: Facts
    beside: Beside
    status: str
    duration_ns: int | None
    first_token_ns: int | None
    usage: Usage | None
    output: Said
    error: Noted | None

    def without_content(self) -> Ended:
        """Return what takes no room."""
        replace = msgspec.structs.replace
        return replace(self, size=0, beside=replace(self.beside, metadata=None), output=None, error=None)


class Happened(msgspec.Struct, gc=False):
    """Something else was said, on a run or outside one."""

    size: int
    facts: Facts | None
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


def _metadata_of(run: Run) -> str | bytes | None:
    metadata = run._metadata or run._scope.metadata
    return as_said(dict(metadata)) if metadata else None


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
    elif (cls is int and value in _INT64) or (cls is float and items - items == 0):
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
        self._known: dict[int, Facts] = {}

    def hear_start(self, sender: object, event: Any) -> object:
        """Note that a run starts."""
        run: Run = event.run
        inputs = as_said(event.inputs) if self._takes_inputs and event.inputs is not None else None
        metadata = _metadata_of(run)
        size = FACTS_SIZE + len(inputs or b"") + len(metadata or b"")
        facts = self._facts(run)
        if len(self._known) >= OPEN_RUNS_KNOWN:  # of those whose end nobody hears
            self._known.clear()
        self._known[facts.seq] = facts
        self._put(Started(size, facts, Beside(run.tags, run.model, metadata), inputs))
        return UNCOUNTED

    def hear_token(self, sender: object, event: LLMNewToken) -> object:
        """Note a token."""
        run = event.run
        if run is None:
            return None
        text = event.token if self._takes_outputs else ""
        if type(text) is not str or len(text) > 4096:
            text = str(snapshot(text))
        self._put(Token(120 + len(text), run._seq, event.time_ns, text))
        return UNCOUNTED

    def hear_end(self, sender: object, event: Any) -> object:
        """Note that a run has ended."""
        self._end(event.run, event.output, None)
        return UNCOUNTED

    def hear_error(self, sender: object, event: Failed) -> object:
        """Note that a run has failed."""
        assert event.run is not None
        self._end(event.run, event.output, note_error(event.error))
        return UNCOUNTED

    def _end(self, run: Run, output: Any, error: Noted | None) -> None:
        facts = self._known.pop(run._seq, None) or self._facts(run)
        output = as_said(output) if self._takes_outputs and output is not None else None
        metadata = _metadata_of(run)
        size = FACTS_SIZE + len(output or b"") + len(metadata or b"")
        beside = Beside(run.tags, run.model, metadata)
        started, ended, first = run._started, run._ended, run._first_token
        duration_ns = None if ended is None else ended - started
        first_ns = None if first is None else first - started
        self._put(Ended(size, facts, beside, run.status, duration_ns, first_ns, run.usage, output, error))

    def hear_other(self, sender: object, event: Event) -> object:
        """Note anything else."""
        fields = _FIELDS[type(event)](event)
        data = _encode(snapshot(fields if self._takes_outputs else _without_content(fields)))
        facts = None if event.run is None else self._facts(event.run)
        self._put(Happened(160 + len(data), facts, event.time_ns, event.signal_name, data))
        return UNCOUNTED

    def _facts(self, run: Run) -> Facts:
        """Return who a run is."""
        # In one piece and with private names, because it runs in the app's own time.
        seq = run._seq
        known = self._known.get(seq)
        if known is not None:
            return known
        parent, scope = run.parent, run._scope
        if parent is None:
            return Facts(
                seq, run.start_ns, None, run._source, scope.session_id, scope.user_id, scope.remote, run._id, run._trace
            )
        above = self._known.get(parent._seq) or self._facts_of_unheard(parent)
        return Facts(seq, run.start_ns, above, run._source, scope.session_id, scope.user_id, None, run._id)

    def _facts_of_unheard(self, parent: Run) -> Facts:
        """Return who a parent is whose start was not heard, or that has ended: as much as its children need."""
        scope = parent._scope
        number, trace = parent._number(), parent._trace_number()
        return Facts(parent._seq, parent.start_ns, None, parent._source, scope.session_id, scope.user_id, None, number, trace)

    def receiver_for(self, event_class: type[Event]) -> Callable[..., object]:
        """Return the method that hears events of this class."""
        if event_class is LLMNewToken:
            return self.hear_token
        if event_class in _FIELDS:
            return self.hear_other
        if issubclass(event_class, Failed):
            return self.hear_error
        return self.hear_start if event_class.signal_name.endswith("_start") else self.hear_end


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
