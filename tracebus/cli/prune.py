"""``tracebus prune``: without the oldest traces."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ArgumentError
from ..figures import count
from ..outputs.store import prune
from .options import Db, Json
from .progress import progress
from .quantities import read_size_bytes
from .screen import as_json
from .stores import explained

__all__ = ["command"]


def command(
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", metavar="DAYS", min=0, help="Remove what is older.")
    ] = None,
    keep_size: Annotated[
        Any,
        typer.Option("--keep-size", metavar="SIZE", parser=read_size_bytes, help="Remove the oldest beyond this: 2GB."),
    ] = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Remove traces, and say how many."""
    if keep_days is None and keep_size is None:
        raise ArgumentError("say what to keep: --keep-days, --keep-size or both")
    with explained(db), progress("removing"):
        removed = prune(db, keep_days=keep_days, keep_bytes=keep_size)
    if as_lines:
        as_json(removed._asdict())
    else:
        print(f"{count(removed.traces, 'trace')} with {count(removed.runs, 'run')} removed")
