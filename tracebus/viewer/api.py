"""What the viewer answers, as JSON: each route asks the store's reader one question.

What can be asked is in ``questions``, what is answered are the structs of the store; ``/api/events`` is in ``live``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

import msgspec

from ..errors import ArgumentError
from ..outputs.store import (
    Choices,
    Found,
    Info,
    NotFoundError,
    Page,
    Point,
    Process,
    Reader,
    Removed,
    RunDetail,
    RunSummary,
    Session,
    Statistic,
    TraceSummary,
    TreeRow,
    delete,
)
from .addresses import ANYTHING
from .comparing import Comparison, RunComparison, compare_runs, compare_traces
from .questions import Compared, Latest, Nothing, Paged, Points, Searched, Sessions, Statistics, Traces

__all__ = ["ANSWERS", "About", "Answer", "Conversation", "Deleted", "Turn"]


class About(Info, frozen=True):
    """What the store holds, and which tracebus shows it; ``schema`` is 0 while there is no store."""

    version: str = version("tracebus")


class Deleted(msgspec.Struct, frozen=True):
    """How many traces and how many runs were deleted."""

    traces: int
    runs: int


class Removal(msgspec.Struct, frozen=True):
    """What a deletion did."""

    removed: Deleted


class Turn(msgspec.Struct, frozen=True):
    """A trace of a conversation, with what its root was asked and has answered."""

    trace: TraceSummary
    root: RunDetail


class Conversation(msgspec.Struct, frozen=True):
    """A session as a conversation, the oldest turn first."""

    session: Session
    traces: Page[Turn]


class Answer(NamedTuple):
    """A route: the question that it reads, the function that answers it, and what that returns."""

    method: str
    path: str
    question: type[Any]
    function: Callable[..., Any]
    kind: Any
    without_store: Callable[[Path], Any] | None
    """Returns what is answered while there is no store; None where that is an error."""


ANSWERS: Final[list[Answer]] = []
F = TypeVar("F", bound=Callable[..., Any])


def _answers(path: str, *, method: str = "GET", without_store: Callable[[Path], Any] | None = None) -> Callable[[F], F]:
    """Add a function to the routes: ``function(reader, question, **path_parameters)``, called in a thread."""

    def add(function: F) -> F:
        hints = get_type_hints(function)
        ANSWERS.append(Answer(method, f"/api{path}", hints["asked"], function, hints["return"], without_store))
        return function

    return add


def _no_page(_: Path) -> Page[Any]:
    return Page([], None)


def _no_rows(_: Path) -> list[Any]:
    return []


def _no_choices(_: Path) -> Choices:
    return Choices([], [], [], [], [], [])


def _no_info(path: Path) -> About:
    return About(str(path), 0, 0, 0, 0, 0, None, None, {}, 0, 0)


@_answers("/info", without_store=_no_info)
def info(reader: Reader, asked: Nothing) -> About:
    """What the store holds, how much was lost or dropped, and the cursor from which ``/api/events`` goes on."""
    return About(**msgspec.structs.asdict(reader.info()))


@_answers("/choices", without_store=_no_choices)
def choices(reader: Reader, asked: Nothing) -> Choices:
    """What there is to filter by."""
    return reader.choices()


@_answers("/traces", without_store=_no_page)
def traces(reader: Reader, asked: Traces) -> Page[TraceSummary]:
    """Traces, the latest first."""
    return reader.traces(asked, limit=asked.limit, after=asked.after)


@_answers("/search", without_store=_no_page)
def search(reader: Reader, asked: Searched) -> Page[Found]:
    """Runs whose inputs, output or error have all words of ``q``, the latest first, and where they do."""
    return reader.search(asked.q, asked, limit=asked.limit, after=asked.after)


@_answers("/traces/{trace}")
def trace(reader: Reader, asked: Nothing, trace: str) -> TraceSummary:
    """One trace: ``trace`` is its id, the beginning of it, or ``@last``."""
    return reader.trace(trace)


@_answers("/traces/{trace}/tree")
def tree(reader: Reader, asked: Paged, trace: str) -> Page[TreeRow]:
    """The runs of a trace as its tree shows them, each before those below it."""
    return reader.tree(trace, limit=asked.limit, after=asked.after)


@_answers("/traces/{trace}/failures")
def failures(reader: Reader, asked: Nothing, trace: str) -> list[RunSummary]:
    """The runs of a trace that have failed, by their start."""
    return reader.failures(trace)


@_answers("/traces/{trace}/runs/{run}")
def run(reader: Reader, asked: Nothing, trace: str, run: str) -> RunDetail:
    """Everything that is known of a run."""
    return reader.run(trace, run)


@_answers("/traces/{trace}", method="DELETE")
def delete_trace(reader: Reader, asked: Nothing, trace: str) -> Removal:
    """Delete a trace, whose whole id must be given, so that nothing of it is left in the file."""
    if len(trace) != 32:
        raise ArgumentError(f"{trace!r} is no whole id of a trace: give all 32 digits of the one to delete")
    return _removal(delete(reader.path, trace=trace))


@_answers("/sessions", without_store=_no_page)
def sessions(reader: Reader, asked: Sessions) -> Page[Session]:
    """Conversations, the one that went on last first."""
    return reader.sessions(user_id=asked.user_id, limit=asked.limit, after=asked.after)


@_answers(f"/sessions/{{session:{ANYTHING}}}")
def session(reader: Reader, asked: Paged, session: str) -> Conversation:
    """A conversation, the oldest turn first."""
    page = reader.traces(session_id=session, limit=asked.limit, after=asked.after, oldest_first=True)
    return Conversation(reader.session(session), Page(list(_turns(reader, page)), page.after))


def _turns(reader: Reader, traces: Page[TraceSummary]) -> Iterator[Turn]:
    for trace in traces:
        try:
            yield Turn(trace, reader.run(trace.trace_id))
        except NotFoundError:  # deleted meanwhile
            continue


@_answers(f"/sessions/{{session:{ANYTHING}}}", method="DELETE")
def delete_session(reader: Reader, asked: Nothing, session: str) -> Removal:
    """Delete all traces of a session."""
    return _removal(delete(reader.path, session_id=session))


def _removal(removed: Removed) -> Removal:
    return Removal(Deleted(*removed))


@_answers("/statistics", without_store=_no_rows)
def statistics(reader: Reader, asked: Statistics) -> list[Statistic]:
    """How many runs there were, how fast, how dear, by what is asked for; most runs first."""
    return reader.statistics(*asked.by, since_ns=asked.since_ns, until_ns=asked.until_ns, **asked.only)


@_answers("/points", without_store=_no_rows)
def points(reader: Reader, asked: Points) -> list[Point]:
    """The same for each hour or day that has runs, the earliest first."""
    return reader.points(*asked.by, grain=asked.grain, since_ns=asked.since_ns, until_ns=asked.until_ns, **asked.only)


@_answers("/compare")
def compare(reader: Reader, asked: Compared) -> Comparison:
    """Two traces, with the runs of one beside those of the other that they correspond to."""
    return compare_traces(reader, asked.left, asked.right)


@_answers("/compare/runs")
def compare_two_runs(reader: Reader, asked: Compared) -> RunComparison:
    """What is different in the texts of two runs, each given as ``trace/run``."""
    return compare_runs(*(reader.run(*_trace_and_run(given)) for given in (asked.left, asked.right)))


def _trace_and_run(given: str) -> tuple[str, str]:
    trace, slash, run = given.partition("/")
    if not (trace and slash and run):
        raise ArgumentError(f"{given!r} does not say which run: give trace/run")
    return trace, run


@_answers("/processes", without_store=_no_rows)
def processes(reader: Reader, asked: Latest) -> list[Process]:
    """The processes that wrote the store, the latest first, with what each could not keep."""
    return reader.processes(asked.limit)
