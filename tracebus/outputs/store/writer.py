"""The writer of a store: opening, failing, trying again, keeping house. How a batch is written is in ``transactions``."""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ...counts import Throttle
from ..batches import HopelessError, RetryError, Work
from .connections import Connection, keep_log_short, open_for_writing, writing
from .files import BUSY, CORRUPT, TRANSIENT, StoreError, UnusableFileError, identity_of, primary_code, program, set_aside
from .index import merge_full_part
from .liveness import Lockfile
from .lost import bury_the_dead, mark_lost
from .records import Record
from .removal import Retention, prune
from .rows import Prepared, Preparer
from .transactions import Memory, Transaction

__all__ = ["Writer"]

REOPEN_S: Final = 0.5
WARN_EVERY_S: Final = 60.0
OTHERS_WRITE_S: Final = 30.0
"""How long others may keep a batch from being written before that is said, in seconds. It waits, and is not lost: SQLite lets
in who happens to ask at the right moment, and of many that write at once one may have to ask for long."""
PRUNE_EVERY_S: Final = 300.0
PRUNE_S: Final = 0.2
"""How long the removal of what is too old or too much holds up the writing of one batch, in seconds."""


class Writer(Work):
    """The work of a store's lane. Everything here runs in the writer's thread."""

    def __init__(
        self, path: Path, preparer: Preparer, retention: Retention, losses: Callable[[], dict[str, int]] = dict
    ) -> None:
        self.path = path
        self.preparer = preparer
        self._retention = retention
        self._warnings = Throttle(WARN_EVERY_S)
        self._was_open = False
        self._tried = -REOPEN_S
        self._losses = losses
        self._start_over()

    def _start_over(self) -> None:
        self._connection: Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._memory = Memory()
        self._told_losses: dict[str, int] = {}
        self._pruned = -math.inf

    # -- what the lane asks --------------------------------------------------------------------------------------------

    def prepare(self, records: list[Any]) -> Prepared:
        """Make rows of records."""
        return self.preparer.prepare(records)

    def commit(self, batch: Prepared) -> None:
        """Write a batch; raise RetryError when it can be tried again, HopelessError when the store never was there."""
        try:
            try:
                self._attempt(batch)
            except UnusableFileError as error:
                self._begin_anew(error.why, batch)
                self._attempt(batch)
        except (sqlite3.Error, StoreError, OSError) as error:
            self._recover_from(error)

    def _attempt(self, batch: Prepared) -> None:
        if self._connection is not None and identity_of(self.path) != self._identity:
            self._begin_where_removed(batch)
        try:
            connection = self._connection or self._open()
            if not batch.is_committed:  # or what follows has failed after it
                self._write(connection, batch)
            keep_log_short(connection, self.path)
            self._keep_house(connection)
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in CORRUPT:
                raise
            raise UnusableFileError(f"the store {self.path} is damaged: {error}", "corrupt") from error

    def failed(self, error: Exception) -> None:
        """Say that something could not be written, once a minute."""
        told = error.__cause__ or error
        self._warnings.warn(
            "write",
            "the store %s cannot be written, and the app goes on without it: %s (losses are counted; said once a minute)",
            self.path,
            told,
        )

    def lose(self, record: Record) -> None:
        """Remember of what gave way what costs next to nothing: that a run has ended."""
        self.preparer.lose(record)

    def close(self) -> None:
        """Close the store: what is still open here was not finished."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            with writing(connection):
                self._tell_losses(connection)
                mark_lost(connection, [self._memory.process])  # how these end will not be heard here
                connection.execute("UPDATE processes SET closed_ns = ? WHERE id = ?", (time.time_ns(), self._memory.process))
        except sqlite3.Error:
            pass  # the next opening finds the process dead
        Lockfile.of(self.path).release(self._memory.process)
        connection.close()

    def forget_after_fork(self) -> None:
        """Forget the parent's connection, which the module that made it keeps from being closed, and its open runs."""
        self._start_over()
        self._was_open = False
        self._tried = -REOPEN_S
        self.preparer.forget()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self) -> Connection:
        now = time.monotonic()
        if not self._was_open and now - self._tried < REOPEN_S:
            raise HopelessError
        self._tried = now
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        alive = Lockfile.of(self.path)
        with alive.alone():
            connection = open_for_writing(self.path)
            try:
                self._enrol(connection, alive)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        self._identity = identity_of(self.path)
        self._was_open = True
        return connection

    def _enrol(self, connection: Connection, alive: Lockfile) -> None:
        with writing(connection):
            bury_the_dead(connection, alive)
            row = connection.execute(
                "INSERT INTO processes (pid, started, program, project, opened_ns) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (os.getpid(), str(time.time_ns()), program(), self.preparer.project, time.time_ns()),
            ).fetchone()
            number = int(row[0])
            alive.hold(number)  # before others can see the row
        if self._memory.process:
            # Opened again after a failure: the runs that were open stay this process's.
            connection.execute(
                "UPDATE runs SET process = ? WHERE process = ? AND status = 'open'", (number, self._memory.process)
            )
            connection.execute("UPDATE processes SET closed_ns = opened_ns WHERE id = ?", (self._memory.process,))
        self._memory.process = number

    def _recover_from(self, error: Exception) -> None:
        """Raise what the lane is to do about an error."""
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if code in BUSY:
            self._tried = -REOPEN_S  # it is there, and can be opened at once when they have written
            raise RetryError(quiet_s=OTHERS_WRITE_S) from error
        self._hang_up()
        if isinstance(error, sqlite3.Error) and code not in TRANSIENT:
            raise error
        if self._was_open:
            raise RetryError from error
        self.failed(error)
        raise HopelessError from error

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin_where_removed(self, batch: Prepared) -> None:
        """Go on in a new file where somebody has removed the one that was written: nobody will ever read that."""
        number = self._memory.process
        self._hang_up()
        self._write_all_again(batch)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Lockfile.of(self.path).release(number)
        logging.getLogger("tracebus").warning("the store %s was removed: a new one is begun", self.path)

    def _begin_anew(self, why: str, batch: Prepared) -> None:
        """Set the file aside and go on in a new one, with everything that is not finished."""
        self._hang_up()
        with Lockfile.of(self.path).alone():
            target = set_aside(self.path, why)
        self._write_all_again(batch)
        logging.getLogger("tracebus").warning("the store %s is unusable (%s): it is kept as %s", self.path, why, target)

    def _write_all_again(self, batch: Prepared) -> None:
        self._start_over()
        self._tried = -REOPEN_S
        batch.begin_again(self.preparer.open.values())

    # -- one transaction -----------------------------------------------------------------------------------------------

    def _write(self, connection: Connection, batch: Prepared) -> None:
        try:
            self._write_once(connection, batch, careful=False)
        except sqlite3.IntegrityError:  # a run that is in the store already, from elsewhere
            self._write_once(connection, batch, careful=True)

    def _write_once(self, connection: Connection, batch: Prepared, *, careful: bool) -> None:
        transaction = Transaction(connection, batch, self.preparer, self._memory, careful=careful)
        try:
            with writing(connection):
                transaction.write()
                merge_full_part(connection)
                self._tell_losses(connection)
        except BaseException:
            self._memory.forget_new()
            self._told_losses = {}
            raise
        transaction.settle()

    def _tell_losses(self, connection: sqlite3.Connection) -> None:
        losses = self._losses()
        if losses != self._told_losses:
            connection.execute("UPDATE processes SET dropped = ? WHERE id = ?", (json.dumps(losses), self._memory.process))
            self._told_losses = losses

    def _keep_house(self, connection: Connection) -> None:
        now = time.monotonic()
        if now - self._pruned >= PRUNE_EVERY_S and prune(connection, self._retention, budget_s=PRUNE_S).is_done:
            self._pruned = now
