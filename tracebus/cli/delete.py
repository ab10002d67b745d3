"""``tracebus delete``: without these traces, and nothing of them left in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ArgumentError
from ..figures import count
from ..outputs.store import Removed, delete
from .options import Db, Json, Traces
from .progress import Tell, progress
from .screen import as_json
from .stores import explained, opened, trace_id

__all__ = ["command"]


def command(
    traces: Traces = None,
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION", help="All traces of this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="All traces of this user.")] = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Delete traces, or all of a session or a user, and say how many."""
    if sum(map(bool, (traces, session, user))) != 1:
        raise ArgumentError("say what to delete: traces, or one of --session and --user")
    with progress("deleting") as tell:
        if traces:
            removed = _delete_each(traces, db, tell)
        else:
            with explained(db):
                removed = delete(db, session_id=session, user_id=user, progress=tell)
    if as_lines:
        as_json(removed._asdict())
    else:
        print(f"{count(removed.traces, 'trace')} with {count(removed.runs, 'run')} deleted")


def _delete_each(traces: list[str], db: Path | None, tell: Tell) -> Removed:
    with opened(db) as reader:  # all of them, before the first is gone
        chosen = list(dict.fromkeys(trace_id(reader, trace) for trace in traces))
    removed = Removed(0, 0)
    for done, trace in enumerate(chosen, 1):
        with explained(db):
            one = delete(db, trace=trace)
        removed = Removed(removed.traces + one.traces, removed.runs + one.runs)
        tell(done, len(chosen))
    return removed
