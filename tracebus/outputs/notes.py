"""What an output notes of an event in the thread that emits: values that no later change reaches, in a few microseconds.

Masking, encoding and everything else that can wait is done by the writer; see ``batches``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, cast

import msgspec

from ..events import (
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
from ..payload import INT64, snapshot
from ..runs import RemoteParent, Run, id_at
from ..subscriptions import UNCOUNTED, name_of

__all__ = [
    "FACTS_SIZE",
    "Beside",
    "Facts",
    "Listener",
    "Named",
    "Noted",
    "OpenRuns",
    "Said",
    "as_said",
    "metadata_of",
    "note_error",
    "note_fields",
    "receiver_for",
]

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
    """The parent in another system, which is nearer than ``above`` where there are both; for a run that is put into a store
    again, in whatever process.
    """
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

    @property
    def sampled(self) -> bool:
        """Whether the trace is kept by whoever began it in another system; one that began here is."""
        remote = self.remote_above
        return remote is None or remote.sampled

    @property
    def remote_above(self) -> RemoteParent | None:
        """The nearest parent in another system, of the run or of those around it."""
        facts = self
        while facts.remote is None and facts.above is not None:
            facts = facts.above
        return facts.remote

    @property
    def between(self) -> int | None:
        """The id of a span of another tracer between the run and its parent run."""
        return None if self.above is None or self.remote is None else self.remote.span_id


class Beside(msgspec.Struct, gc=False):
    """What may be set on a run while it is open."""

    tags: tuple[str, ...]
    model: str | None
    metadata: Said


class Named(Protocol):
    """What all runs of one callable share: a ``Source``."""

    @property
    def name(self) -> str:
        """The run's name."""
        ...

    @property
    def kind(self) -> str:
        """The run's kind."""
        ...


class Noted(msgspec.Struct, gc=False):
    """An error without its frames, which would keep alive what the app holds in them."""

    said: bytes
    frames: list[tuple[str, str, int]]
    """Of each frame its file, its function and its line, the innermost last."""
    causes: list[bytes]


PLAIN_CHARACTERS: Final = 8192
PLAIN_ITEMS: Final = 64
PLAIN_DEPTH: Final = 5


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


def metadata_of(run: Run) -> str | bytes | None:
    """Return what a run's metadata are now, None when there are none."""
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
    elif (cls is int and value in INT64) or (cls is float and items - items == 0):
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
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


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


class OpenRuns:
    """Who the open runs are that were heard to start, by the number of that event."""

    def __init__(self) -> None:
        self.known: dict[int, Facts] = {}

    def note(self, run: Run) -> Facts:
        """Remember a run, which others may be started in, and return who it is."""
        facts = self.facts_of(run)
        if len(self.known) >= OPEN_RUNS_KNOWN:  # of those whose end nobody hears
            self.known.clear()
        self.known[facts.seq] = facts
        return facts

    def facts_of(self, run: Run) -> Facts:
        """Return who a run is."""
        # In one piece and with private names, because it runs in the app's own time.
        seq = run._seq
        known = self.known.get(seq)
        if known is not None:
            return known
        parent, scope = run.parent, run._scope
        if parent is None:
            return Facts(
                seq, run.start_ns, None, run._source, scope.session_id, scope.user_id, scope.remote, run._id, run._trace
            )
        above = self.known.get(parent._seq) or self._facts_of_unheard(parent)
        remote = None if scope.remote is parent._scope.remote else scope.remote  # as in Run.remote_parent
        return Facts(seq, run.start_ns, above, run._source, scope.session_id, scope.user_id, remote, run._id)

    def _facts_of_unheard(self, parent: Run) -> Facts:
        """Return who a parent is whose start was not heard, or that has ended: as much as its children need."""
        scope = parent._scope
        number, trace = parent._number(), parent._trace_number()
        return Facts(parent._seq, parent.start_ns, None, parent._source, scope.session_id, scope.user_id, None, number, trace)


class Listener:
    """A subscriber that notes what it hears. Which of its methods hears what is said by ``receiver_for``."""

    def hear_start(self, sender: object, event: Any) -> object:
        """Note that a run starts."""
        raise NotImplementedError

    def hear_token(self, sender: object, event: LLMNewToken) -> object:
        """Note a token."""
        raise NotImplementedError

    def hear_other(self, sender: object, event: Event) -> object:
        """Note anything else."""
        raise NotImplementedError

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
        raise NotImplementedError


def receiver_for(listener: Listener, event_class: type[Event]) -> Callable[..., object]:
    """Return the method of a listener that hears events of this class."""
    if event_class is LLMNewToken:
        return listener.hear_token
    if event_class in _FIELDS:
        return listener.hear_other
    if issubclass(event_class, Failed):
        return listener.hear_error
    return listener.hear_start if event_class.is_start else listener.hear_end


def note_fields(event: Event, *, with_content: bool) -> bytes:
    """Return what an event says that neither starts nor ends a run, as JSON."""
    fields = _FIELDS[type(event)](event)
    return _encode(snapshot(fields if with_content else _without_content(fields)))


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
