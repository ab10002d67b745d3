"""``tracebus import``: what ``tracebus export`` wrote, into the store. Has its name because ``import`` is a word of Python."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ..errors import ArgumentError, TracebusError
from ..figures import count
from ..outputs.store import default_path, import_lines
from .options import Db, Json
from .progress import Tell, progress
from .screen import as_json
from .stores import explained, opened

__all__ = ["command"]


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What was exported; - is standard input.")],
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Put runs into the store, and say how many were new."""
    missing = [file for file in files if file != Path("-") and not file.exists()]
    if missing:
        raise ArgumentError(
            f"there is no file {str(missing[0])!r}: name what `tracebus export -o` wrote, or - for standard input"
        )
    path = default_path() if db is None else db
    if path.exists() and path.stat().st_size:  # who saves sets aside a file that is no store; who imports has mistyped
        with opened(path):
            pass
    runs = new = 0
    with explained(db), progress("importing") as tell:
        for file, lines in _opened(files, tell):
            try:
                imported = import_lines(lines, db)
            except ArgumentError as error:  # the call is right, the file is not
                raise TracebusError(f"{file}: {error}; what came before it is in the store") from error
            runs, new = runs + imported.runs, new + imported.new
    if as_lines:
        as_json({"runs": runs, "new": new})
    else:
        known = f", {count(runs - new, 'run')} were there already" if new < runs else ""
        print(f"{count(new, 'new run')} in {path}{known}")


def _opened(files: list[Path], tell: Tell) -> Iterator[tuple[Path, Iterator[bytes]]]:
    """Yield the lines of each file, telling how much of all of them has been read."""
    read = 0
    total = None if Path("-") in files else sum(file.stat().st_size for file in files)

    def counted(lines: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal read
        for line in lines:
            yield line
            read += len(line)
            tell(read, total)

    for file in files:
        with nullcontext(sys.stdin.buffer) if file == Path("-") else _read(file) as lines:
            yield file, counted(lines)


def _read(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise TracebusError(f"{file} cannot be read: {error.strerror}") from error
