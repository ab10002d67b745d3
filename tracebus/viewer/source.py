"""The store behind the page, which may not be there yet, and may be replaced by another one under its name."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from ..outputs.store import NoStoreYetError, Reader, StoreError
from ..outputs.store.files import store_path

__all__ = ["Source"]

T = TypeVar("T")

AT_ONCE: Final = 8
"""How many questions are answered at the same time, each in a thread with a connection of its own."""
LOOK_FOR_THE_DEAD_EVERY_S: Final = 5.0


class Source:
    """Asks a store, from an event loop. It is opened with the first question, and forgotten when its file is gone."""

    def __init__(self, store: Reader | str | os.PathLike[str] | None) -> None:
        self.path: Path = store.path if isinstance(store, Reader) else store_path(store)
        self._reader: Reader | None = None
        self._identity: tuple[int, int] | None = None
        self._looked_s = 0.0
        self._opening = threading.Lock()
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Return what ``question(reader)`` returns, called in a thread; raise StoreError for what is wrong with the store."""
        return await anyio.to_thread.run_sync(self._ask, question, limiter=self._limiter)

    def _ask(self, question: Callable[[Reader], T]) -> T:
        try:
            return question(self._opened())
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} cannot be read: {error}") from error
        except OSError as error:
            raise StoreError(f"the store {self.path} cannot be used: {error.strerror or error}") from error

    def _opened(self) -> Reader:
        identity = self._identity_now()
        with self._opening:
            if self._reader is None or identity != self._identity:
                # What is being answered from the one before keeps that open until it is answered.
                self._reader = None
                self._reader, self._identity, self._looked_s = Reader(self.path), identity, time.monotonic()
            reader = self._reader
            is_due = time.monotonic() > self._looked_s + LOOK_FOR_THE_DEAD_EVERY_S
            if is_due:
                self._looked_s = time.monotonic()
        if is_due:
            reader.look_for_the_dead()
        return reader

    def _identity_now(self) -> tuple[int, int] | None:
        """Return what tells the file from another one of its name."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._reader = None
            raise NoStoreYetError(f"there is no store at {self.path} yet: save() makes one") from None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close the store; the next question opens it again."""
        with self._opening:
            if self._reader is not None:
                self._reader.close()
            self._reader = None
