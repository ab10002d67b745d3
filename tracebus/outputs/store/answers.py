"""What a reader answers: plain structs that ``msgspec.json.encode`` turns into JSON as they are.

Ids are texts of hexadecimal digits: 32 of a trace, 16 of a run's span; ``run_id`` of a run made by tracebus is its UUID.
Times are nanoseconds since the epoch, durations nanoseconds, costs US dollars, None where unknown.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from ...runs import Usage
from .passages import FoundIn

__all__ = [
    "Changes",
    "Choices",
    "Found",
    "Info",
    "Page",
    "PriceList",
    "Point",
    "Process",
    "RunBody",
    "RunDetail",
    "RunError",
    "RunEvent",
    "RunSummary",
    "Session",
    "Statistic",
    "Step",
    "Tokens",
    "TraceSummary",
    "TreeRow",
]

T = TypeVar("T")


class Tokens(msgspec.Struct, frozen=True):
    """How many tokens were used; None where the provider did not say."""

    input: int | None
    output: int | None
    total: int | None
    cached: int | None
    reasoning: int | None
    cache_write: int | None = None

    def usage(self) -> Usage | None:
        """Return them as they were said of the run, None if nothing was."""
        counts = self.input, self.output, self.total
        usage = Usage(*counts, cached_tokens=self.cached, reasoning_tokens=self.reasoning, cache_write_tokens=self.cache_write)
        return usage if usage.as_dict() else None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some answers, and ``after`` for asking for those behind them; None when there are no more."""

    items: list[T]
    after: str | None

    def __iter__(self) -> Any:
        """Go through the items of this page."""
        return iter(self.items)

    def __len__(self) -> int:
        """Count the items of this page."""
        return len(self.items)


class TraceSummary(msgspec.Struct, frozen=True):
    """A trace as lists show it: what its root says, and the totals of its runs, of leaves only."""

    trace_id: str
    project: str
    name: str | None
    kind: str | None
    status: str
    """The root's, ``open`` while it runs; for a trace without one ``open`` while any run is."""
    input: str | None
    output: str | None
    model: str | None
    tags: list[str]
    session_id: str | None
    user_id: str | None
    started_ns: int
    ended_ns: int | None
    duration_ns: int | None
    first_token_ns: int | None
    """From the start of the trace to the first token of any run."""
    runs: int
    open_runs: int
    errors: int
    streamed: int
    """Tokens that were streamed so far, also by runs that are open."""
    tokens: Tokens
    cost: float | None
    cost_is_partial: bool
    """Whether some of what was used has no known price."""
    masked: int
    """How many secrets were masked."""
    cut: int
    """How many of its runs have a value that was cut."""


class RunSummary(msgspec.Struct, frozen=True):
    """A run as lists and trees show it, without its bodies."""

    trace_id: str
    span_id: str
    run_id: str | None
    parent_id: str | None
    """The span of its parent."""
    name: str
    kind: str
    status: str
    model: str | None
    input: str | None
    output: str | None
    error: str | None
    tags: list[str]
    session_id: str | None
    user_id: str | None
    started_ns: int
    duration_ns: int | None
    first_token_ns: int | None
    streamed: int
    tokens: Tokens
    cost: float | None
    counted: bool
    """Whether its usage is in the totals; it is not where a run below it has its own."""
    masked: int
    cut: bool
    outer_span_id: str | None = None
    """The span of another tracer between the run and its parent."""
    sampled: bool = True
    """Whether its trace is kept by whoever began it in another system."""


class Found(RunSummary, frozen=True, kw_only=True):
    """A run that has what was searched for, with the piece of it that has most of that."""

    found_in: FoundIn
    passage: str


class TreeRow(msgspec.Struct, frozen=True):
    """A run in its tree: how deep it is, and whether runs are below it."""

    run: RunSummary
    depth: int
    has_children: bool


class Step(msgspec.Struct, frozen=True):
    """A token: how long after the start of its run it came, in nanoseconds, and its text."""

    at_ns: int
    text: str


class RunError(msgspec.Struct, frozen=True):
    """An error: the frames that it passed through, the innermost last, and the errors that caused it."""

    type: str
    message: str
    frames: list[dict[str, Any]]
    causes: list[dict[str, Any]]


class RunEvent(msgspec.Struct, frozen=True):
    """What was said on a run beside its start, its tokens and its end."""

    time_ns: int
    hook: str
    data: dict[str, Any]


class RunBody(msgspec.Struct, frozen=True):
    """What went into a run and what came out of it."""

    inputs: Any
    output: Any
    error: RunError | None
    metadata: dict[str, Any]
    streamed: str | None
    """The text of its tokens, also while it is open."""


class RunDetail(msgspec.Struct, frozen=True):
    """Everything that is known of a run."""

    run: RunSummary
    body: RunBody
    steps: list[Step]
    events: list[RunEvent]


class Session(msgspec.Struct, frozen=True):
    """A conversation, and the totals of its traces."""

    session_id: str
    user_id: str | None
    started_ns: int
    last_ns: int
    traces: int
    runs: int
    errors: int
    total_tokens: int
    cost: float | None
    cost_is_partial: bool


class Statistic(msgspec.Struct, frozen=True):
    """What some runs have in common: how many, how fast, how dear. A percentile is off by at most 1 %."""

    project: str | None
    model: str | None
    name: str | None
    kind: str | None
    """Of these four those that were asked for; the others are None."""
    runs: int
    errors: int
    mean_ns: float | None
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    first_token_p50_ns: float | None
    first_token_p95_ns: float | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost: float | None
    cost_is_partial: bool


class Point(msgspec.Struct, frozen=True):
    """The statistics of an hour or a day, which begins at ``time_ns``."""

    time_ns: int
    statistic: Statistic


class Changes(msgspec.Struct, frozen=True):
    """What has changed since a cursor; ask again with the new one."""

    cursor: int
    traces: list[TraceSummary]
    runs: list[RunSummary]
    removed: list[str]
    """The traces that were deleted."""
    is_complete: bool
    """False when the cursor is too old, or more has changed than is told: read again what is shown."""


class Process(msgspec.Struct, frozen=True):
    """A process that wrote the store."""

    pid: int
    program: str
    project: str
    opened_ns: int
    closed_ns: int | None
    """When it closed the store or was found dead; None while it lives."""
    lost_runs: int
    dropped: dict[str, int]
    """Events that it could not keep, by reason."""


class Choices(msgspec.Struct, frozen=True):
    """What there is to filter by."""

    projects: list[str]
    kinds: list[str]
    models: list[str]
    names: list[str]
    tags: list[str]
    statuses: list[str]


class PriceList(msgspec.Struct, frozen=True):
    """Where prices come from, and the newest day on which, by its own notes, some were checked, as ``2026-10-14``."""

    source: str
    checked: str | None


class Info(msgspec.Struct, frozen=True):
    """What a store holds."""

    path: str
    schema: int
    size_bytes: int
    traces: int
    runs: int
    open_runs: int
    oldest_ns: int | None
    newest_ns: int | None
    dropped: dict[str, int]
    """Events that were not kept, of all processes, by reason."""
    lost_runs: int
    cursor: int
