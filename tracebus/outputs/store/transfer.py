"""A store as JSON lines and back: one line a run, traces one after the other, what is in it as ``Reader.run`` tells it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec

from ...errors import ArgumentError
from ...runs import KINDS, RemoteParent
from ..batches import HopelessError, RetryError
from ..notes import Beside, Facts, Noted, as_said
from .answers import RunDetail
from .bodies import Encoder
from .files import StoreError, store_path
from .filters import Filter
from .reader import Reader, every, every_run
from .records import Ended, Happened, Record, Started, Token
from .removal import Retention
from .rows import Preparer
from .writer import Writer

__all__ = ["Imported", "export_lines", "export_runs", "facts_of", "import_lines", "noted_error"]

RUNS_AT_ONCE: Final = 1000
PATIENCE_S: Final = 10.0
_encode: Final = msgspec.json.Encoder().encode


def export_lines(
    path: str | os.PathLike[str] | None = None,
    wanted: Filter | None = None,
    *,
    traces: Iterable[str] | None = None,
    **fields: Any,
) -> Iterator[bytes]:
    """Yield the runs of the traces that a filter means, or of those given, as lines of JSON; the oldest trace first.

    Raises StoreError and ArgumentError, as a Reader does, with the first line.
    """
    for project, run in export_runs(path, wanted, traces=traces, **fields):
        yield _encode({"project": project, **msgspec.to_builtins(run)}) + b"\n"


def export_runs(
    path: str | os.PathLike[str] | None = None,
    wanted: Filter | None = None,
    *,
    traces: Iterable[str] | None = None,
    **fields: Any,
) -> Iterator[tuple[str, RunDetail]]:
    """Yield those runs as they are, each with its project. Raises as ``export_lines`` does."""
    with Reader(path) as reader:
        for trace in _all_traces(reader, Filter.of(wanted, **fields)) if traces is None else traces:
            summary = reader.trace(trace)
            for _, run in every_run(reader, summary.trace_id):
                yield summary.project, run


def _all_traces(reader: Reader, wanted: Filter) -> Iterator[str]:
    # The oldest first, because a store numbers runs in the order in which they come, and finds the latest by that.
    for trace in every(lambda after: reader.traces(wanted, limit=500, after=after, oldest_first=True)):
        yield trace.trace_id


class Imported(NamedTuple):
    """How many runs were in the lines, and how many of them were not in the store before."""

    runs: int
    new: int


def import_lines(lines: Iterable[bytes | str], path: str | os.PathLike[str] | None = None) -> Imported:
    """Put runs that ``export_lines`` wrote into a store, made if there is none. Those that are in it already stay as they are.

    Secrets are masked again. A run that was open when it was exported becomes ``lost``.

    Raises ArgumentError naming the first line that is none of a run; the runs before it are in the store. Raises StoreError
    when that cannot be written.
    """
    file = store_path(path)
    preparer = Preparer(Encoder(None), "default", keeps_replays=True)
    writer = Writer(file, preparer, Retention(None, None))
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    total = new = 0
    try:
        read = (_read(number, line) for number, line in numbered)
        for project, group in itertools.groupby(read, key=_project_of):
            for some in _batched(group):
                preparer.project = project
                total += len(some)
                new += _write(writer, [record for run in some for record in _records_of(run)])
    finally:
        writer.close()
    return Imported(total, new)


def _batched(items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while some := tuple(itertools.islice(iterator, RUNS_AT_ONCE)):
        yield some


class _Line(msgspec.Struct, frozen=True):
    project: str
    detail: RunDetail


def _project_of(line: _Line) -> str:
    return line.project


def _read(number: int, line: bytes | str) -> _Line:
    try:
        value = json.loads(line)
        project = value.pop("project")
        detail = msgspec.convert(value, RunDetail)
        if not isinstance(project, str) or detail.run.kind not in KINDS:
            raise ValueError(f"project={project!r}, kind={detail.run.kind!r}")
        facts_of(detail)
    except (ValueError, KeyError, AttributeError, TypeError, msgspec.ValidationError) as error:
        raise ArgumentError(f"line {number} is no run that `tracebus export` wrote: {error}") from None
    return _Line(project, detail)


def _write(writer: Writer, records: list[Record]) -> int:
    batch = writer.prepare(records)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            writer.commit(batch)
        except HopelessError as error:
            raise StoreError(f"the store {writer.path} cannot be written: {error.__cause__ or error}") from error
        except RetryError as error:
            if time.monotonic() > deadline:
                raise StoreError(f"the store {writer.path} cannot be written: {error.__cause__ or error}") from error
            time.sleep(0.1)
        else:
            return sum(row.is_written for row in batch.fresh)


def _records_of(line: _Line) -> Iterator[Record]:
    run, body = line.detail.run, line.detail.body
    facts = facts_of(line.detail)
    beside = Beside(tuple(run.tags), run.model, as_said(body.metadata) if body.metadata else None)
    yield Started(0, facts, beside, None if body.inputs is None else as_said(body.inputs))
    for step in line.detail.steps:
        yield Token(0, facts.seq, run.started_ns + step.at_ns, step.text)
    for event in line.detail.events:
        yield Happened(0, facts, event.time_ns, event.hook, cast("bytes", as_said(event.data)))
    yield Ended(
        0,
        facts,
        beside,
        "lost" if run.status == "open" else run.status,
        run.duration_ns,
        run.first_token_ns,
        run.tokens.usage(),
        None if body.output is None else as_said(body.output),
        noted_error(line.detail),
    )


_numbers: Final = itertools.count(1)
"""By which the records of one run find together, as by the numbers of events."""


def facts_of(detail: RunDetail) -> Facts:
    """Return who a stored run is. Its parent is told as one from elsewhere, because it may not be at hand."""
    run, trace = detail.run, int(detail.run.trace_id, 16)
    number = int(run.run_id.replace("-", ""), 16) if run.run_id else int(run.span_id, 16)
    nearest, above = run.parent_id, None
    if run.parent_id is not None and run.outer_span_id is not None:
        nearest = run.outer_span_id
        above = Facts(next(_numbers), 0, None, run, None, None, None, int(run.parent_id, 16), trace)
    remote = None if nearest is None else RemoteParent(UUID(int=trace), int(nearest, 16), run.sampled, is_local=True)
    return Facts(next(_numbers), run.started_ns, above, run, run.session_id, run.user_id, remote, number, trace)


def noted_error(detail: RunDetail) -> Noted | None:
    """Return the error of a stored run as it was noted."""
    error = detail.body.error
    if error is None:
        return None
    said = _encode({"type": error.type, "message": error.message})
    frames = [(str(frame.get("file")), str(frame.get("function")), int(frame.get("line") or 0)) for frame in error.frames]
    return Noted(said, frames, [_encode(cause) for cause in error.causes])
