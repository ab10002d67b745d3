"""What is in a store: its tables, and the migrations that brought them there in order.

``runs`` and ``traces`` are what lists read; what is large lies in ``bodies``, by run. Of a trace the row's number is the
microsecond of its start, so that the order of numbers is the order of time; runs are numbered as they arrive.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from .files import APPLICATION_ID, StoreError, UnusableFileError

__all__ = ["MIGRATIONS", "check", "migrate"]

_FIRST: Final = """
CREATE TABLE counters (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    tick INTEGER NOT NULL,           -- transactions so far, the cursor of live views
    next_run INTEGER NOT NULL,
    removals INTEGER NOT NULL        -- how often something was deleted, after which row numbers are not to be trusted
);
INSERT INTO counters VALUES (0, 0, 1, 0);

CREATE TABLE processes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,           -- what tells two processes of one number apart
    program TEXT NOT NULL,
    project TEXT NOT NULL,
    opened_ns INTEGER NOT NULL,
    closed_ns INTEGER,
    lost INTEGER NOT NULL DEFAULT 0, -- runs found open when the process was dead
    dropped TEXT NOT NULL DEFAULT '{}'
);

CREATE INDEX processes_open ON processes (id) WHERE closed_ns IS NULL;

CREATE TABLE traces (
    id INTEGER PRIMARY KEY,          -- microseconds since the epoch at its start, or the next that is free
    trace BLOB NOT NULL UNIQUE,
    project TEXT NOT NULL,
    root INTEGER,                    -- the run that it is called after
    rank INTEGER NOT NULL,           -- 2 if that run has no parent, 1 if its parent is elsewhere, 0 if there is none yet
    name TEXT, kind TEXT, status TEXT, model TEXT, input TEXT, output TEXT, tags TEXT,
    session TEXT, user TEXT,
    started_ns INTEGER NOT NULL, ended_ns INTEGER, duration_ns INTEGER, first_token_ns INTEGER,
    runs INTEGER NOT NULL, open INTEGER NOT NULL, errors INTEGER NOT NULL,
    streamed INTEGER NOT NULL,       -- tokens that were streamed
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    cost REAL NOT NULL, priced INTEGER NOT NULL, unpriced INTEGER NOT NULL,
    masked INTEGER NOT NULL, cut INTEGER NOT NULL
);
CREATE INDEX traces_session ON traces (session, id) WHERE session IS NOT NULL;
CREATE INDEX traces_user ON traces (user, id) WHERE user IS NOT NULL;
CREATE INDEX traces_failed ON traces (id) WHERE errors > 0;
CREATE INDEX traces_open ON traces (id) WHERE open > 0;

CREATE TABLE labels (
    label TEXT NOT NULL, value TEXT NOT NULL, trace_id INTEGER NOT NULL,
    PRIMARY KEY (label, value, trace_id)
) WITHOUT ROWID;
CREATE INDEX labels_trace ON labels (trace_id);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    trace_id INTEGER NOT NULL,
    span INTEGER NOT NULL,           -- the low 64 bits of the run's id, as a signed number
    high INTEGER NOT NULL,           -- the high 64 bits, 0 for a span from elsewhere
    parent INTEGER,
    top INTEGER NOT NULL,            -- whether its parent was not seen in its process
    process INTEGER NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL, model TEXT,
    started_ns INTEGER NOT NULL, duration_ns INTEGER, first_token_ns INTEGER,
    streamed INTEGER NOT NULL,
    input_tokens INTEGER, output_tokens INTEGER, total_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
    cost REAL,
    counts INTEGER NOT NULL,         -- whether its usage is in the totals: no run below it has one
    used_below INTEGER NOT NULL,
    session TEXT, user TEXT, tags TEXT,
    input TEXT, output TEXT, error TEXT,  -- a line of each
    masked INTEGER NOT NULL, cut INTEGER NOT NULL
);
CREATE UNIQUE INDEX runs_key ON runs (trace_id, span);
CREATE INDEX runs_tree ON runs (trace_id, parent, started_ns, id);
CREATE INDEX runs_top ON runs (trace_id, started_ns, id) WHERE top = 1;
CREATE INDEX runs_failed ON runs (trace_id, started_ns, id) WHERE status = 'error';
CREATE INDEX runs_open ON runs (process) WHERE status = 'open';

CREATE TABLE bodies (
    run INTEGER PRIMARY KEY,
    inputs TEXT, output TEXT, error TEXT, metadata TEXT,
    streamed TEXT                    -- the text of the tokens, NULL when it is the output
);
CREATE TABLE tokens (
    run INTEGER NOT NULL, chunk INTEGER NOT NULL,
    steps BLOB NOT NULL,             -- MessagePack: microseconds since the one before, and characters, in turn
    PRIMARY KEY (run, chunk)
) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    trace_id INTEGER, run INTEGER,
    time_ns INTEGER NOT NULL, hook TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_run ON events (trace_id, run);
CREATE INDEX events_outside ON events (time_ns) WHERE trace_id IS NULL;

CREATE TABLE sessions (
    session TEXT PRIMARY KEY,
    user TEXT,
    started_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    traces INTEGER NOT NULL, runs INTEGER NOT NULL, errors INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL, cost REAL NOT NULL, priced INTEGER NOT NULL, unpriced INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_last ON sessions (last_ns, session);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    UNIQUE (project, model, name, kind)
);
CREATE TABLE rollups (
    grain TEXT NOT NULL,             -- hour, day, all
    bucket INTEGER NOT NULL,         -- seconds since the epoch at its beginning
    series INTEGER NOT NULL,
    runs INTEGER NOT NULL, errors INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL, streams INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
    cost REAL NOT NULL, priced INTEGER NOT NULL, unpriced INTEGER NOT NULL,
    latency BLOB NOT NULL, first_token BLOB NOT NULL,
    PRIMARY KEY (grain, bucket, series)
) WITHOUT ROWID;

CREATE TABLE changes (
    tick INTEGER PRIMARY KEY,
    traces BLOB NOT NULL, runs BLOB NOT NULL, removed BLOB NOT NULL
);

CREATE VIRTUAL TABLE search USING fts5 (
    input, output, error, content = '', tokenize = "unicode61 remove_diacritics 2"
);
"""

_CACHE_WRITES: Final = """
ALTER TABLE traces ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN cache_write_tokens INTEGER;
"""

_OTHER_TRACERS: Final = """
ALTER TABLE runs ADD COLUMN outer_span INTEGER;  -- of another tracer, between the run and its parent
ALTER TABLE runs ADD COLUMN sampled INTEGER NOT NULL DEFAULT 1;  -- whether whoever began the trace elsewhere keeps it
"""

_SEARCH_IN_PARTS: Final = """
CREATE TABLE search_parts (
    first INTEGER PRIMARY KEY,       -- search_<first> has the runs from this number on, up to the next part's
    is_merged INTEGER NOT NULL DEFAULT 0  -- whether, once full, it was merged into one piece
);
INSERT INTO search_parts (first) VALUES (0);
ALTER TABLE search RENAME TO search_0;
INSERT INTO search_0 (search_0, rank) VALUES ('automerge', 16);
"""

MIGRATIONS: Final[list[str]] = [_FIRST, _CACHE_WRITES, _OTHER_TRACERS, _SEARCH_IN_PARTS]
"""What makes version 1 of nothing, version 2 of version 1, and so on."""


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the store, 0 for an empty file.

    Raises UnusableFileError for one of a newer tracebus, StoreError for a database that is something else.
    """
    application, version, is_empty = _state(connection)
    if application != APPLICATION_ID:
        if application == version == 0 and is_empty:
            return 0
        raise StoreError(f"{path} is an SQLite database, but no store of tracebus: give another path, or set TRACEBUS_DB")
    known = len(MIGRATIONS)
    if version > known:
        raise UnusableFileError(
            f"{path} was written by a newer tracebus (schema {version}, this one knows {known}): upgrade tracebus",
            f"newer-{version}",
        )
    return int(version)


def _state(connection: sqlite3.Connection) -> tuple[int, int, bool]:
    """Return whose the file is, its version, and whether nothing is in it, of one moment: somebody may be making it."""
    is_within = connection.in_transaction
    if not is_within:
        connection.execute("BEGIN")
    try:
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        is_empty = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
    finally:
        if not is_within and connection.in_transaction:
            connection.execute("ROLLBACK")
    return int(application), int(version), is_empty


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the store to the newest version, in one transaction."""
    if check(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = check(connection, path)  # again: another process may have been faster
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """Split a script: ``executescript`` would commit what it finds open."""
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
