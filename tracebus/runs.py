"""Who is speaking: runs, the scope that they inherit, and the one context variable that says which is current.

How a run starts and ends is in ``tracing``; what is said about it is in ``events``.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from .errors import ArgumentError
from .late import uuid
from .values import Value

if TYPE_CHECKING:
    from .lanes import Lane
    from .signals import Route
    from .snapshots import Copied
    from .tracing import Source

__all__ = ["KINDS", "Kind", "RemoteParent", "Run", "Scope", "Status", "Usage", "current_run"]

P = ParamSpec("P")
R = TypeVar("R")

Kind: TypeAlias = Literal[
    "chain",
    "llm",
    "chat_model",
    "tool",
    "retriever",
    "agent",
    "workflow",
    "embedding",
    "reranker",
    "guardrail",
    "evaluator",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Status: TypeAlias = Literal["open", "ok", "closed_early", "error", "cancelled", "paused", "aborted", "lost"]


class Usage:
    """Count the tokens of a model call; ``None`` is "the provider did not say".

    ``cached_tokens``, read from a provider's cache, and ``cache_write_tokens`` are parts of the input tokens,
    ``reasoning_tokens`` of the output tokens. The total is the sum of input and output unless it is given.
    """

    __slots__ = ("cache_write_tokens", "cached_tokens", "input_tokens", "output_tokens", "reasoning_tokens", "total_tokens")

    def __init__(
        self,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        total_tokens: int | None = None,
        *,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cache_write_tokens: int | None = None,
    ) -> None:
        if total_tokens is None and input_tokens is not None and output_tokens is not None:
            total_tokens = input_tokens + output_tokens
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.total_tokens = total_tokens
        self.cached_tokens = cached_tokens
        self.reasoning_tokens = reasoning_tokens
        self.cache_write_tokens = cache_write_tokens

    def as_dict(self) -> dict[str, int]:
        """Return what is known, by name."""
        return {name: value for name in COUNTS if (value := getattr(self, name)) is not None}

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return self.as_dict() == other.as_dict() if isinstance(other, Usage) else NotImplemented

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(tuple(self.as_dict().items()))

    def __repr__(self) -> str:
        """Show what is known."""
        return f"Usage({', '.join(f'{name}={value}' for name, value in self.as_dict().items())})"


COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cache_write_tokens",
)
"""The counts of a usage, in the order in which they are shown and stored."""


class RemoteParent(Value):
    """Name a parent in another system by its trace and its span.

    ``trace_id`` holds the 128 bits of the trace, ``span_id`` the 64 bits of the parent's span; ``sampled`` and
    ``tracestate`` travel on as they came (W3C Trace Context, level 1). ``is_local`` says that the span is one of this
    process, of another tracer.
    """

    __slots__ = ("is_local", "sampled", "span_id", "trace_id", "tracestate")

    def __init__(
        self, trace_id: uuid.UUID, span_id: int, sampled: bool = True, tracestate: str = "", *, is_local: bool = False
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.tracestate = tracestate
        self.is_local = is_local


Finder: TypeAlias = "Callable[[], Run | Scope | None]"

finders: tuple[Finder, ...] | None = None
"""Each returns what is current in a framework that keeps it in a place of its own; ``sources`` adds to them."""


def elsewhere() -> tuple[Run | Scope, ...]:
    """Return what is current in frameworks."""
    if finders is None:
        return ()
    if len(finders) == 1:
        found = finders[0]()
        return () if found is None else (found,)
    return tuple(found for find in finders if (found := find()) is not None)


class Scope:
    """Hold what every run started inside inherits. Immutable: a nested scope is a new one."""

    __slots__ = ("_seen", "metadata", "outside", "owner", "remote", "route", "run", "session_id", "tags", "user_id")

    def __init__(
        self,
        run: Run | None = None,
        *,
        route: Route | None = None,
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        remote: RemoteParent | None = None,
        owner: object = None,
        outside: Run | Scope | None = None,
    ) -> None:
        self.run = run
        self.route = route
        self.tags = tags
        self.metadata = metadata
        self.session_id = session_id
        self.user_id = user_id
        self.remote = remote
        self.owner = owner
        self.outside = outside
        self._seen = elsewhere()


ROOT_SCOPE: Final = Scope()


class _FromSource:
    """An attribute that a run shares with its source until it is set on the run itself."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, run: Run | None, owner: type) -> Any:
        return self if run is None else getattr(run._source, self._name)


def _from_source() -> Any:
    return _FromSource()


class Run:
    """One call of a chain, model, tool or retriever.

    Set ``output``, ``usage``, ``model``, ``metadata`` and ``tags`` freely while it is open; the rest is the tracer's.

    A run is made on every traced call, and most of what it can tell is never asked: so what is the same for all runs of a
    callable stays there, and ids and durations are worked out when they are read. ``tracing.open_run`` makes it and sets what
    has no default here; a default is for what most runs never set, because setting an attribute that the class has, too, is
    slow.
    """

    name: str = _from_source()
    """The traced function's qualified name after its last ``<locals>.``, or the name given."""
    kind: Kind = _from_source()
    sender: Any = _from_source()
    """The traced callable, or the name of a ``trace()`` block or integration: what receivers get as sender."""
    tags: tuple[str, ...] = _from_source()
    """The tags of the scopes and of the callable."""
    parent: Run | None
    """The run in which this one was started, ``None`` at a root."""
    inputs: Any
    """What the call was given, by parameter name."""
    output: Any
    """What the call returned, or what its stream yielded so far."""
    error: BaseException | None = None
    usage: Usage | None = None
    model: str | None = None
    status: Status
    start_ns: int
    """When it started, in nanoseconds since the epoch (wall clock)."""

    _source: Source
    _scope: Scope
    _route: Route | None
    _started: int  # this and the next two: monotonic clock, nanoseconds
    _ended: int | None
    _first_token: int | None = None
    _seq: int  # the number of its start event, from which its id is worked out
    _id: int | None = None
    _trace: int | None = None
    _metadata: dict[str, Any] | None = None
    _token_count: int = 0
    _text: list[str] | None = None
    _wants_output: bool = _from_source()
    _said: Copied | None = None  # a copy of now, made when an event is queued; the next two are the copy's
    _size: int = 0
    _kept_by: set[int] | None = None
    _thread: int  # in which it started
    _queued_on: set[Lane] | None
    _seen: tuple[Run | Scope, ...] = ()  # what was current in frameworks when it started

    @property
    def end_ns(self) -> int | None:
        """When it ended, in nanoseconds since the epoch: its start and its duration, so never before its start."""
        return None if self._ended is None else self.start_ns + self._ended - self._started

    @property
    def duration_s(self) -> float | None:
        """How long it took, in seconds, by the monotonic clock."""
        return None if self._ended is None else (self._ended - self._started) / 1e9

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the start to the first token."""
        return None if self._first_token is None else (self._first_token - self._started) / 1e9

    @property
    def id(self) -> uuid.UUID:
        """The run's UUID, version 7 (RFC 9562); its low 64 bits are the OpenTelemetry span id."""
        return uuid.UUID(int=self._number())

    @property
    def span_id(self) -> int:
        """The low 64 bits of the id, as OpenTelemetry knows the run."""
        return self._number() & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def trace_id(self) -> uuid.UUID:
        """The root run's id, or the trace that came from outside (any 128 bits)."""
        return uuid.UUID(int=self._trace_number())

    @property
    def parent_id(self) -> uuid.UUID | None:
        """The parent run's id, ``None`` at a root."""
        return None if self.parent is None else self.parent.id

    @property
    def remote_parent(self) -> RemoteParent | None:
        """The parent in another system: of a root that continues a trace from there, or of a run that is in a span which is
        itself in ``parent``.
        """
        remote = self._scope.remote
        return None if self.parent is not None and self.parent._scope.remote is remote else remote

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known beside: the scopes' metadata and the run's own. Free to change."""
        if self._metadata is None:
            self._metadata = dict(self._scope.metadata or ())
        return self._metadata

    @property
    def session_id(self) -> str | None:
        """The conversation that the run belongs to."""
        return self._scope.session_id

    @property
    def user_id(self) -> str | None:
        """The user on whose behalf the run is made."""
        return self._scope.user_id

    def _number(self) -> int:
        if self._id is None:
            self._id = id_at(self.start_ns, self._seq)
        return self._id

    def _root(self) -> Run:
        run = self
        while run.parent is not None:
            run = run.parent
        return run

    def _trace_number(self) -> int:
        if self._trace is None:
            root, remote = self._root(), self._scope.remote
            if root is not self:
                self._trace = root._trace_number()
            else:
                self._trace = self._number() if remote is None else remote.trace_id.int
        return self._trace

    def __repr__(self) -> str:
        """Show what identifies the run."""
        return f"<Run {self.name!r} {self.kind} {self.status} #{self.id.hex[-12:]}>"


def _uuid7(time_ns: int, bits: int) -> int:
    """Lay out 48 bits of milliseconds, 12 bits of their fraction and 62 random bits (RFC 9562, section 6.2, method 3)."""
    milliseconds, rest = divmod(time_ns, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    return (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | bits


def id_at(start_ns: int, seq: int) -> int:
    """Return the 128 bits of the id of the run that started then, with the event of this number."""
    return _uuid7(start_ns, _bits_at(seq))


class Instruments(Value):
    """Where times and ids come from; tests replace it through ``tracebus.testing``.

    ``bits_of`` makes the 62 bits that tell a run's id from others of its instant, of the number of its start event.
    """

    __slots__ = ("bits_of", "monotonic_ns", "wall_ns")

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int], bits_of: Callable[[int], int]) -> None:
        self.wall_ns = wall_ns
        self.monotonic_ns = monotonic_ns
        self.bits_of = bits_of


_62_BITS: Final = (1 << 62) - 1


def _scattering() -> Callable[[int], int]:
    """Return what makes, of an event's number, 62 bits that look random and are different for each event.

    The mixing is that of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), of which every
    step can be undone. Random's module-level generator is the user's, who may have seeded it.
    """
    salt = int.from_bytes(os.urandom(8))

    def scatter(seq: int) -> int:
        bits = seq * 0x9E37_79B9_7F4A_7C15 + salt & _62_BITS
        bits = (bits ^ bits >> 30) * 0xBF58_476D_1CE4_E5B9 & _62_BITS
        bits = (bits ^ bits >> 27) * 0x94D0_49BB_1331_11EB & _62_BITS
        return bits ^ bits >> 31

    return scatter


wall_ns: Callable[[], int] = time.time_ns
monotonic_ns: Callable[[], int] = time.perf_counter_ns

_since: list[tuple[int, Callable[[int], int]]] = [(0, _scattering())]
"""What makes the bits of ids, since which event: an id is worked out when it is read, perhaps in a forked child."""


def _bits_at(seq: int) -> int:
    return next(bits_of for first, bits_of in reversed(_since) if seq >= first)(seq)


next_seq: Final = itertools.count(1).__next__
"""Numbers the events of this process; one atomic step, so that threads never draw the same."""


def wall_now() -> int:
    """Return the wall clock in nanoseconds since the epoch, from the instruments in use."""
    return wall_ns()


def use_instruments(instruments: Instruments) -> Instruments:
    """Take times and ids from ``instruments`` from now on; return what was used before."""
    global wall_ns, monotonic_ns
    before = Instruments(wall_ns, monotonic_ns, _since[-1][1])
    wall_ns, monotonic_ns = instruments.wall_ns, instruments.monotonic_ns
    _since.append((next_seq(), instruments.bits_of))
    return before


_current: ContextVar[Run | Scope | None] = ContextVar("tracebus", default=None)
get_current: Final = _current.get
set_current: Final = _current.set


def call_inside(current: Run | Scope, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``fn`` with ``current`` current, where something else is before and afterwards."""
    outside = get_current()
    set_current(current)
    try:
        return fn(*args, **kwargs)
    finally:
        set_current(outside)


def innermost() -> Run | Scope | None:
    """Return what is current here or in a framework, whichever is further in.

    What was opened while a framework's run was current knows that one: it is further in until the framework has another.
    """
    if finders is None:
        return get_current()
    found_there = elsewhere()  # first: who looks may put right what is current here
    current = get_current()
    for found in found_there:
        if current is None or found not in current._seen:
            current = found
    return current


def see_again(inside: Run | Scope | None) -> None:
    """Make ``inside``, which becomes current, the innermost: a stream is stepped wherever its consumer is."""
    if inside is not None:
        inside._seen = elsewhere()


def find_with(finder: Finder) -> Callable[[], None]:
    """Ask ``finder``, too, from now on; return what ends that."""
    global finders
    finders = (*(finders or ()), finder)

    def forget() -> None:
        global finders
        finders = tuple(known for known in finders or () if known is not finder) or None

    return forget


def current_run() -> Run | None:
    """Return the innermost open run of this context, or ``None`` outside one."""
    current = innermost()
    return current.run if isinstance(current, Scope) else current


def current_scope() -> Scope:
    """Return what a run started here would inherit."""
    current = innermost()
    if current is None:
        return ROOT_SCOPE
    return current if isinstance(current, Scope) else current._scope


def nearest(current: Run | Scope | None) -> Run | RemoteParent | None:
    """Return the parent of what is started in ``current``: a run, or what is further in than that in another system."""
    if not isinstance(current, Scope):
        return current
    run, remote = current.run, current.remote
    return remote if run is None or remote is not run._scope.remote else run


def leave(run: Run, outside: Run | Scope | None) -> None:
    """Make ``outside`` current again, unless this context was never ours.

    A coroutine or generator can be finished in a context that did not start it (the collector, another task): what
    is current there is none of our business.
    """
    current = get_current()
    if current is not run:
        while isinstance(current, Scope) and current.run is None:  # left open inside, or none of ours
            current = current.outside
        if not is_inside(current, run):
            return
    set_current(outside)


def is_inside(current: Run | Scope | None, run: Run) -> bool:
    """Tell whether ``current`` is ``run``, or nested in it."""
    while current is not None and current is not run:
        current = current.run if isinstance(current, Scope) else current.parent
    return current is run


def outward(current: Run | Scope | None) -> Iterator[Scope]:
    """Yield the scopes around ``current``, the innermost first."""
    while current is not None:
        around = current if isinstance(current, Scope) else current._scope
        yield around
        current = around.outside


def leave_scope(owner: object) -> None:
    """Make current what was so outside of ``owner``'s innermost scope; nothing changes where there is none."""
    ours = next((scope for scope in outward(get_current()) if scope.owner is owner), None)
    if ours is not None:
        set_current(ours.outside)


def check_kind(kind: str) -> Kind:
    """Return ``kind`` when it is one; raise ArgumentError naming the choices."""
    if kind not in KINDS:
        raise ArgumentError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
    return kind


open_runs: Final[set[Run]] = set()
"""Every run that has started and not ended. Whoever takes a run out, in one atomic step, is the one that says how it ended."""
note_open: Final = open_runs.add
claim_end: Final = open_runs.remove
"""Raises KeyError when the run has ended."""


def _forget_after_fork() -> None:
    # The parent's runs end in the parent; a child that ended them too would say it twice.
    open_runs.clear()
    _since.append((next_seq(), _scattering()))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
