"""What commands that read a store share: how it is opened, how a trace is named, and what can go wrong with either."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import ArgumentError
from ..outputs.store import AmbiguousError, NotFoundError, Reader, StoreError, TraceSummary, default_path

__all__ = ["explained", "opened", "pages", "short_ids", "trace_id"]

SHORTEST: Final = 12
"""Digits of an id that lists show. The first 12 of an id made here are its time; fewer would soon mean another one, too."""
LOOKED_AT: Final = 2000
"""Among how many traces, the latest, one is found by the end of its id."""
_END: Final = 4
"""With how many digits, at least; log lines show so many."""
_HEX: Final = frozenset("0123456789abcdef")


@contextmanager
def opened(path: Path | None) -> Iterator[Reader]:
    """Open a store for reading, and close it; raise StoreError for all that can go wrong with it."""
    with explained(path), Reader(path) as reader:
        yield reader


@contextmanager
def explained(path: Path | None) -> Iterator[None]:
    """Raise what the system or SQLite says of a store as a StoreError that names it."""
    file = default_path() if path is None else path
    try:
        yield
    except PermissionError as error:
        raise StoreError(f"the store {file} cannot be opened: {error.strerror}: ask its owner, or set TRACEBUS_DB") from error
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        raise StoreError(f"the store {file} cannot be used: {error.strerror}: {error.filename}") from error
    except sqlite3.Error as error:
        raise StoreError(f"the store {file} cannot be used: {error}") from error


def trace_id(reader: Reader, given: str) -> str:
    """Return the id of the trace that is meant by the beginning of its id, by ``@last``, or by the end as in log lines.

    Raises ArgumentError for what cannot be an id or means several, NotFoundError for a trace that is not there.
    """
    digits = given.removeprefix("#").replace("-", "").lower()
    if given != "@last" and (not digits or set(digits) - _HEX or len(digits) > 32):
        raise ArgumentError(f"{given!r} is no id of a trace: give its first digits as `tracebus ls` shows them, or @last")
    try:
        return reader.resolve(given if given == "@last" else digits)
    except AmbiguousError:
        raise
    except NotFoundError:
        ending = (
            [trace.trace_id for trace in _latest(reader) if trace.trace_id.endswith(digits)] if len(digits) >= _END else []
        )
        if len(ending) > 1:
            raise AmbiguousError(f"several traces end with {given!r}: {', '.join(ending[:5])}: give the beginning") from None
        if not ending:
            raise
        return ending[0]


def _latest(reader: Reader) -> Iterable[TraceSummary]:
    return reader.traces(limit=LOOKED_AT)


def short_ids(reader: Reader, ids: Iterable[str]) -> dict[str, str]:
    """Return the beginning of each id by which it can be asked for, all of one length."""
    whole = list(ids)
    length = SHORTEST
    while length < 32 and not all(_is_enough(reader, one[:length]) for one in whole):
        length += 1
    return {one: one[:length] for one in whole}


def _is_enough(reader: Reader, beginning: str) -> bool:
    try:
        reader.resolve(beginning)
    except AmbiguousError:
        return False
    except NotFoundError:  # deleted meanwhile
        return True
    return True


def pages(ask: Any, limit: int, after: str | None = None) -> tuple[list[Any], str | None]:
    """Return up to ``limit`` answers of a question that is answered in pages, and where the next ones begin."""
    found: list[Any] = []
    while len(found) < limit:
        page = ask(limit=min(500, limit - len(found)), after=after)
        found += page.items
        after = page.after
        if after is None:
            break
    return found, after
