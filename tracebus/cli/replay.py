"""``tracebus replay``: a stored trace on the bus of this process, as log lines, or for subscribers that are loaded for it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from operator import attrgetter
from typing import Annotated, Any

import typer

from ..delivery import shutdown
from ..errors import ArgumentError
from ..handlers import attach
from ..outputs.logs import log_to_stdout
from ..outputs.store import replay
from ..signals import subscribe
from .options import Db, Json, Trace
from .stores import explained, opened, trace_id

__all__ = ["command"]


def command(
    trace: Trace,
    speed: Annotated[float, typer.Option("--speed", metavar="FACTOR", help="2 is twice as fast; inf does not wait.")] = 1.0,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="MODULE[:NAME]",
            help="What hears it, in place of log lines: a module that connects what it has, or something in it.",
        ),
    ] = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Say a trace again."""
    with opened(db) as reader:
        which = trace_id(reader, trace)
    for one in to or ():
        _connect(one)
    if as_lines or not to:
        log_to_stdout("json" if as_lines else "console", tokens=as_lines or sys.stdout.isatty())
    with explained(db):
        replay(which, db, speed=speed)
    shutdown()


def _connect(given: str) -> None:
    name, _, attribute = given.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # one that the module needs
            raise
        raise ArgumentError(f"--to: there is no module {name!r} here, nor among what is installed") from None
    if not attribute:
        return
    try:
        found: Any = attrgetter(attribute)(module)
    except AttributeError:
        raise ArgumentError(f"--to: there is no {attribute!r} in {module.__file__ or name}") from None
    found = found() if isinstance(found, type) else found
    if any(name.startswith("on_") for name in dir(found)):
        attach(found)
    else:
        subscribe(found)
