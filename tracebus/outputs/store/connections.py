"""Connections to a store: how they are opened, and that none crosses a fork. Where the file lies is in ``files``."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .files import CORRUPT, NoStoreYetError, StoreError, UnusableFileError, make_private, primary_code, uri_of
from .schema import MIGRATIONS, check, migrate

__all__ = ["BUSY_S", "open_for_reading", "open_for_writing", "reading", "writing"]

BUSY_S: Final = 5.0
"""How long a transaction waits for those of other processes, in seconds."""
WAL_PAGES: Final = 1000
"""After how many pages in the log (4 KiB each) a commit moves them into the database."""
WAL_KEPT: Final = 4 * 1024 * 1024
"""What remains of the log's file afterwards, in bytes."""
WAL_ALLOWED: Final = 8 * 1024 * 1024
"""From which size on a writer waits for readers to leave, so that the log can start anew, in bytes."""
CACHE_KIB: Final = 16 * 1024
MAPPED: Final = 1024**3
"""How much of the file readers map instead of copying, in bytes. No store is ever made shorter, which a map would not bear."""


class Connection(sqlite3.Connection):
    """A connection that a forked child can forget, and that is closed when nobody holds it, as a thread's is at its end."""

    def __del__(self) -> None:
        """Close it: sqlite3's own finalizer warns of what it closes."""
        try:
            self.close()
        except sqlite3.ProgrammingError:
            pass  # it could not be opened


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def _connect(path: Path, mode: str) -> Connection:
    connection = sqlite3.connect(
        uri_of(path, mode), uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False, factory=Connection
    )
    _open.add(connection)
    return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise what SQLite raises while a file is opened as a StoreError that names it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if primary_code(error) in CORRUPT:
            raise UnusableFileError(f"{path} is no store of tracebus, or is damaged: {error}", "corrupt") from error
        raise StoreError(f"the store {path} cannot be opened: {error}") from error


def open_for_writing(path: Path) -> Connection:
    """Open a store, made and migrated if need be; raise StoreError, UnusableFileError, or OSError for the directory."""
    make_private(path)
    with _explained(path):
        connection = _connect(path, "rw")
        try:
            check(connection, path)
            # Zeros over what is deleted: `delete` promises that nothing of it is left in the file.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path) -> Connection:
    """Open a store that is there, brought up to date if an earlier tracebus made it; raise StoreError."""
    if not path.exists():
        raise NoStoreYetError(f"there is no store at {path}: save() makes one, or set TRACEBUS_DB to where it is")
    with _explained(path):
        connection = _connect(path, "ro")
        try:
            version = check(connection, path)
            if version == 0:
                raise NoStoreYetError(f"{path} is empty: save() makes a store of it")
            if version < len(MIGRATIONS):
                _bring_up_to_date(path)
            connection.execute("PRAGMA query_only = ON")
            # A search looks into some hundred pages all over the file, which copying takes several times as long to read.
            connection.execute(f"PRAGMA mmap_size = {MAPPED}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
    return connection


def _bring_up_to_date(path: Path) -> None:
    try:
        open_for_writing(path).close()
    except (OSError, StoreError) as error:
        raise StoreError(
            f"the store {path} was made by an earlier tracebus, and cannot be brought up to date: {error}"
        ) from error


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction, begun at once: one that reads first fails under contention, whatever its time-out."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Read one state of the store. Keep it short: meanwhile the log cannot start anew."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def keep_log_short(connection: sqlite3.Connection, path: Path) -> None:
    """Empty the log when it has grown although commits checkpoint it: some reader was always looking."""
    try:
        grown = os.stat(f"{path}-wal").st_size > WAL_ALLOWED
    except OSError:
        return
    if grown:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class PerThread:
    """A connection for each thread that asks, for a reader that several threads of a server share."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._forget()

    def _forget(self) -> None:
        self._local = threading.local()
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pid = os.getpid()

    def get(self) -> Connection:
        """Return this thread's connection, opened when it is first needed, and anew after a fork."""
        if self._pid != os.getpid():
            self._forget()
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            self._all.add(connection)
        return connection

    def close(self) -> None:
        """Close them all."""
        if self._pid == os.getpid():
            for connection in list(self._all):
                connection.close()
        self._forget()


def _forget_after_fork() -> None:
    # A child that closes its parent's connection, the collector included, breaks the parent's locks and may delete its
    # log (https://sqlite.org/howtocorrupt.html, section 2.6). One reference too many keeps it from ever being closed.
    for connection in list(_open):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)
