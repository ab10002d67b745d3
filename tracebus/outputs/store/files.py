"""Where a store lies, who may read it, and how one that cannot be used is set aside. What is in it is in ``schema``."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Final

from ...errors import MissingExtraError, TracebusError

try:
    import platformdirs
except ImportError as error:  # the one file that needs it
    raise MissingExtraError('the store needs platformdirs: pip install "tracebus[store]"') from error

__all__ = ["StoreError", "UnusableFileError", "default_path", "identity_of", "make_private", "set_aside", "store_path"]

APPLICATION_ID: Final = 0x74726273
"""What a store has in its header, ``trbs``, by which it is told from anybody else's SQLite file."""

_BESIDE: Final = ("", "-wal", "-shm")


class StoreError(TracebusError):
    """Say what is wrong with a store, which file it is, and what to do."""


class NoStoreYetError(StoreError):
    """Say that there is no store here, or that it is just being made."""


class UnusableFileError(StoreError):
    """Say that a file is corrupt or from a newer tracebus; ``why`` becomes a part of its name when it is set aside."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def default_path() -> Path:
    """Return where the store lies unless a path is given: what ``TRACEBUS_DB`` says, else in the user's data directory."""
    given = os.environ.get("TRACEBUS_DB")
    if given:
        return Path(given).expanduser()
    return Path(platformdirs.user_data_dir("tracebus", appauthor=False)) / "traces.db"


def store_path(given: str | os.PathLike[str] | None) -> Path:
    """Return the file that is meant by a path, or by none."""
    return (default_path() if given is None else Path(given).expanduser()).absolute()


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells the file that is here now from another one of its name, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_private(path: Path) -> None:
    """Make the file, for its owner alone, if there is none.

    SQLite gives its companions the same mode. The file is never opened again here: closing it would take away the locks
    that SQLite holds on it in this process (fcntl(2), "advisory record locking").
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


def set_aside(path: Path, why: str) -> Path:
    """Rename a file that cannot be used, with its companions, and return its new name. Nothing is deleted."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        tail = f".{why}-{stamp}" + (f"-{number}" if number else "")
        target = path.with_name(path.name + tail)
        if not target.exists():
            break
        number += 1
    for suffix in _BESIDE:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return target


def size_of(path: Path) -> int:
    """Return how many bytes a store takes, its companions included."""
    total = 0
    for suffix in _BESIDE:
        try:
            total += os.stat(path.with_name(path.name + suffix)).st_size
        except OSError:
            pass
    return total


def uri_of(path: Path, mode: str) -> str:
    """Return the address under which SQLite opens the file in a mode: ``ro`` or ``rw``."""
    return f"{path.absolute().as_uri()}?mode={mode}"


def program() -> str:
    """Return how this process would call itself: the script, or the module that was run."""
    return Path(sys.argv[0] or "python").name if sys.argv else "python"


CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TRANSIENT: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
)
"""What may be gone when it is tried again."""
BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's code for an error without its details (https://sqlite.org/rescode.html), 0 where it gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
