"""Which processes that wrote a store still live.

Each holds a lock on one byte of a file beside the store, the byte of its row in ``processes``. The system lets go of it
when the process dies in whatever way, and a process that gets the same number later does not have it. A child does not
inherit it. Where there is no such lock (some network file systems), every process is taken for living.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import identity_of

__all__ = ["Lockfile"]

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, byte: int, *, wait: bool = False) -> None:
        os.lseek(fd, byte, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int, byte: int) -> None:
        os.lseek(fd, byte, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(fd: int, byte: int, *, wait: bool = False) -> None:
        fcntl.lockf(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)

    def _unlock(fd: int, byte: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, byte)


class Lockfile:
    """The file of locks of one store. One a store and process: closing any of its descriptors gives up all locks."""

    _files: dict[Path, Lockfile] = {}  # noqa: RUF012
    _guard = threading.RLock()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine: set[int] = set()
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        status = os.fstat(self._fd)
        self._identity = status.st_dev, status.st_ino

    def _open_again(self) -> None:
        """Hold in the file that is here now what was held in one that was removed."""
        removed = self._fd
        self._open()  # first: where that fails, nothing has changed
        os.close(removed)
        for row in self._mine:
            self.hold(row)

    @classmethod
    def of(cls, store: Path) -> Lockfile:
        """Return the file beside ``store``, whatever way leads there; raise OSError when it cannot be made."""
        store = store.resolve()
        path = store.with_name(store.name + "-alive")
        with cls._guard:
            if path not in cls._files:
                cls._files[path] = cls(path)
            elif identity_of(path) != cls._files[path]._identity:
                cls._files[path]._open_again()
            return cls._files[path]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes and threads from opening, migrating or setting aside the same store meanwhile."""
        with self._guard:
            locked = _tried(lambda: _lock(self._fd, 0, wait=True))
            try:
                yield
            finally:
                if locked:
                    _unlock(self._fd, 0)

    def hold(self, row: int) -> None:
        """Say that the process with this row (1-based) lives, until it dies."""
        self._mine.add(row)
        _tried(lambda: _lock(self._fd, row))

    def release(self, row: int) -> None:
        """Say that the process has closed the store."""
        self._mine.discard(row)
        _tried(lambda: _unlock(self._fd, row))

    def is_dead(self, row: int) -> bool:
        """Tell whether the process with this row has died without closing the store."""
        if row in self._mine:
            return False
        if not _tried(lambda: _lock(self._fd, row)):
            return False
        _unlock(self._fd, row)
        return True

    @classmethod
    def forget_after_fork(cls) -> None:
        """Make locks anew in a child, which has none of its parent's."""
        cls._guard = threading.RLock()
        for path, file in list(cls._files.items()):
            os.close(file._fd)
            del cls._files[path]


def _tried(action: Callable[[], None]) -> bool:
    """Tell whether a lock was got; one that is held elsewhere, or that the file system does not know, was not."""
    try:
        action()
    except OSError:
        return False
    return True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=Lockfile.forget_after_fork)
