"""``tracebus export``: traces as JSON lines, for another store or another program, or to a receiver of OTLP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from ..errors import ArgumentError, TracebusError
from ..figures import count
from ..outputs.store import Filter, Reader, export_lines
from .options import Db, Json, Traces, filtered
from .progress import progress
from .screen import as_json
from .stores import explained, opened, trace_id

__all__ = ["command"]


@filtered
def command(
    wanted: Filter,
    traces: Traces = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; not given, standard output.")
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option("--otlp", metavar="ENDPOINT", help="Send them to a receiver of OTLP, as http://localhost:4318."),
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Goes with what is sent.")
    ] = None,
    semconv: Annotated[
        list[str] | None,
        typer.Option(
            "--semconv", metavar="NAME", help="Under which names: gen_ai (if not given), openinference, gen_ai_next."
        ),
    ] = None,
    content: Annotated[bool, typer.Option("--content/--no-content", help="Whether inputs and outputs are sent.")] = True,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Write the traces that are named, else those that are wanted, else all."""
    if traces and wanted != Filter():
        raise ArgumentError("give traces, or what they are chosen by, but not both")
    if otlp is None and (headers or semconv or not content):
        raise ArgumentError("--header, --semconv and --no-content are for what is sent: give --otlp, too")
    if otlp is not None and output is not None:
        raise ArgumentError("give --otlp or --output, but not both")
    with opened(db) as reader:
        chosen = [trace_id(reader, one) for one in traces] if traces else None
        total = _total(reader, chosen, wanted)
    if otlp is not None:
        about: dict[str, Any] = {"headers": headers or (), "semconv": semconv or (), "content": content, "as_lines": as_lines}
        _sending().send_traces(otlp, wanted, chosen, total, db, **about)
    else:
        _write(wanted, chosen, total, output, db, as_lines=as_lines)


def _sending() -> Any:
    """Load what sends, which needs an extra of its own."""
    return import_module(f"{__package__}.sending")


def _write(
    wanted: Filter, chosen: list[str] | None, total: int | None, output: Path | None, db: Path | None, *, as_lines: bool
) -> None:
    runs = 0
    with (
        explained(db),
        progress("exporting", shares_screen=output is None) as tell,
        _written(output) as file,
    ):
        for line in export_lines(db, wanted, traces=chosen):
            with _told(output):
                file.write(line)
            runs += 1
            tell(runs, total)
    if output is not None:
        as_json({"file": str(output), "runs": runs}) if as_lines else print(f"{count(runs, 'run')} in {output}")


def _total(reader: Reader, chosen: list[str] | None, wanted: Filter) -> int | None:
    """Return how many runs there will be, None where only the end will tell."""
    if chosen is not None:
        return sum(reader.trace(one).runs for one in chosen)
    return reader.info().runs if wanted == Filter() else None


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Open where the lines go. A file gets its name when it is whole, so that one of that name is kept until then."""
    if output is None:
        yield sys.stdout.buffer
        with _told(output):
            sys.stdout.buffer.flush()
        return
    is_device = output.exists() and not output.is_file()
    part = output if is_device else output.with_name(f"{output.name}.part")
    with _told(output):
        file = part.open("wb")
    try:
        yield file
        with _told(output):
            file.close()
            if not is_device:
                os.replace(part, output)
    except BaseException:
        _give_up(file, None if is_device else part)
        raise


def _give_up(file: BinaryIO, part: Path | None) -> None:
    try:
        file.close()
    except OSError:  # what it still had to write does not fit, either
        pass
    if part is not None:
        part.unlink(missing_ok=True)


@contextmanager
def _told(output: Path | None) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        what = "standard output" if output is None else output
        raise TracebusError(f"{what} cannot be written: {error.strerror}: nothing is lost in the store, try again") from error
