"""What a trace and a session say of their runs, kept up while runs are written: counts, tokens, cost, from leaves only."""

from __future__ import annotations

import sqlite3
from typing import Final

from ...runs import COUNTS
from .rollups import Rollups, Series
from .rows import Row

__all__ = ["TraceDelta", "take_off_ancestors", "write_traces"]


class TraceDelta:
    """What one transaction adds to a trace."""

    __slots__ = (
        "cost",
        "cut",
        "ended_ns",
        "errors",
        "first_token_ns",
        "id",
        "is_new",
        "labels",
        "masked",
        "model",
        "open",
        "priced",
        "project",
        "rank",
        "root",
        "runs",
        "session",
        "started_ns",
        "streamed",
        "tokens",
        "trace",
        "unpriced",
        "user",
    )

    def __init__(self, trace: bytes, number: int, project: str, started_ns: int, *, is_new: bool) -> None:
        self.trace = trace
        self.project = project
        self.id = number
        self.is_new = is_new
        self.rank = 0
        self.root: Row | None = None
        self.model: str | None = None
        self.session: str | None = None
        self.user: str | None = None
        self.started_ns = started_ns
        self.ended_ns: int | None = None
        self.first_token_ns: int | None = None
        self.runs = self.open = self.errors = self.streamed = 0
        self.tokens = [0] * len(COUNTS)
        self.cost = 0.0
        self.priced = self.unpriced = 0
        self.masked = self.cut = 0
        self.labels: set[tuple[str, str]] = set()

    def begin(self, row: Row) -> None:
        """Add a run that was not in the store."""
        self.runs += 1
        self.open += 1
        self.started_ns = min(self.started_ns, row.started_ns)
        self.session = self.session or row.session
        self.user = self.user or row.user
        self.labels.update((("name", row.name), ("kind", row.kind)))
        self.labels.update(("tag", tag) for tag in row.tags)

    def look_at(self, row: Row) -> None:
        """Take over what the trace shows of its root, and the model."""
        rank = (2 if row.parent is None else 1) if row.is_root else 0
        if row.top and (self.root is None or rank > self.rank or row is self.root):
            self.root, self.rank = row, rank
        if row.model is not None:
            self.model = self.model or row.model
            self.labels.add(("model", row.model))

    def end(self, row: Row) -> None:
        """Add what is known of a run that has ended."""
        self.open -= 1
        self.errors += row.is_failure
        ended_ns = row.started_ns + (row.duration_ns or 0)
        self.ended_ns = max(self.ended_ns or 0, ended_ns)
        if row.first_token_ns is not None:
            first = row.started_ns + row.first_token_ns
            self.first_token_ns = min(self.first_token_ns or first, first)
        self.masked += row.masked
        self.cut += row.cut
        self.labels.update(("tag", tag) for tag in row.tags)
        if row.status != "ok":
            self.labels.add(("status", row.status))
        if row.counts:
            self.add_usage(row.tokens, row.cost)

    def add_usage(self, tokens: tuple[int | None, ...], cost: float | None, sign: int = 1) -> None:
        """Add to the totals, or with -1 take away."""
        self.tokens = [have + sign * (more or 0) for have, more in zip(self.tokens, tokens, strict=True)]
        if cost is None:
            self.unpriced += sign
        else:
            self.cost += sign * cost
            self.priced += sign


_IS_OF_ROOT: Final = "excluded.root IS NOT NULL AND (root IS NULL OR root = excluded.root OR excluded.rank > rank)"
_OF_ROOT: Final = ("name", "kind", "status", "input", "output", "tags", "duration_ns")
"""What a trace has of its root run, or of the best that stands for it so far."""

_SUMS: Final = ("runs", "open", "errors", "streamed", *COUNTS, "cost", "priced", "unpriced", "masked", "cut")
_COLUMNS: Final = (
    *("id", "trace", "project", "root", "rank", "model", "session", "user", "started_ns", "ended_ns", "first_token_ns"),
    *_OF_ROOT,
    *_SUMS,
)

_UPSERT: Final = f"""
INSERT INTO traces ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT (id) DO UPDATE SET
    {", ".join(f"{name} = iif({_IS_OF_ROOT}, excluded.{name}, {name})" for name in _OF_ROOT)},
    root = iif(excluded.root IS NOT NULL AND (root IS NULL OR excluded.rank > rank), excluded.root, root),
    rank = max(rank, excluded.rank),
    model = coalesce(model, excluded.model),
    session = coalesce(session, excluded.session),
    user = coalesce(user, excluded.user),
    started_ns = min(started_ns, excluded.started_ns),
    ended_ns = nullif(max(coalesce(ended_ns, 0), coalesce(excluded.ended_ns, 0)), 0),
    first_token_ns = min(coalesce(first_token_ns, excluded.first_token_ns), coalesce(excluded.first_token_ns, first_token_ns)),
    {", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)}
"""


def _values(delta: TraceDelta) -> dict[str, object]:
    root = delta.root
    return {
        "id": delta.id,
        "trace": delta.trace,
        "project": delta.project,
        "root": None if root is None else root.id,
        "rank": delta.rank,
        "name": None if root is None else root.name,
        "kind": None if root is None else root.kind,
        "status": None if root is None else root.status,
        "model": delta.model,
        "input": None if root is None else root.given,
        "output": None if root is None else root.told,
        "tags": None if root is None else root.tags_json(),
        "session": delta.session,
        "user": delta.user,
        "started_ns": delta.started_ns,
        "ended_ns": delta.ended_ns,
        "duration_ns": None if root is None else root.duration_ns,
        "first_token_ns": delta.first_token_ns,
        "runs": delta.runs,
        "open": delta.open,
        "errors": delta.errors,
        "streamed": delta.streamed,
        **dict(zip(COUNTS, delta.tokens, strict=True)),
        "cost": delta.cost,
        "priced": delta.priced,
        "unpriced": delta.unpriced,
        "masked": delta.masked,
        "cut": delta.cut,
    }


def write_traces(connection: sqlite3.Connection, deltas: list[TraceDelta]) -> None:
    """Add what a transaction says of traces to them, to their labels and to their sessions."""
    joining = _joining(connection, deltas)
    connection.executemany(_UPSERT, [_values(delta) for delta in deltas])
    connection.executemany(
        "INSERT OR IGNORE INTO labels VALUES (?, ?, ?)",
        # In the order of the table: a batch has the same few labels for hundreds of traces.
        sorted((label, value, delta.id) for delta in deltas for label, value in delta.labels),
    )
    connection.executemany(_JOIN, [(delta.id,) for delta in joining])
    joined = {delta.id for delta in joining}
    connection.executemany(
        _ADD,
        [
            (delta.ended_ns or delta.started_ns, delta.runs, delta.errors, delta.tokens[2], delta.cost, delta.priced,
             delta.unpriced, delta.id)
            for delta in deltas
            if delta.id not in joined and not delta.is_new
        ],
    )  # fmt: skip


def _joining(connection: sqlite3.Connection, deltas: list[TraceDelta]) -> list[TraceDelta]:
    """Return the traces that become part of a session with this transaction."""
    found = []
    for delta in deltas:
        if delta.session is None:
            continue
        if not delta.is_new:
            before = connection.execute("SELECT session FROM traces WHERE id = ?", (delta.id,)).fetchone()
            if before is not None and before[0] is not None:
                continue
        found.append(delta)
    return found


_JOIN: Final = """
INSERT INTO sessions
SELECT session, user, started_ns, coalesce(ended_ns, started_ns), 1, runs, errors, total_tokens, cost, priced, unpriced
FROM traces WHERE id = ?
ON CONFLICT (session) DO UPDATE SET
    user = coalesce(user, excluded.user), started_ns = min(started_ns, excluded.started_ns),
    last_ns = max(last_ns, excluded.last_ns), traces = traces + 1, runs = runs + excluded.runs,
    errors = errors + excluded.errors, total_tokens = total_tokens + excluded.total_tokens, cost = cost + excluded.cost,
    priced = priced + excluded.priced, unpriced = unpriced + excluded.unpriced
"""
_ADD: Final = """
UPDATE sessions SET
    last_ns = max(last_ns, ?), runs = runs + ?, errors = errors + ?, total_tokens = total_tokens + ?, cost = cost + ?,
    priced = priced + ?, unpriced = unpriced + ?
WHERE session = (SELECT session FROM traces WHERE id = ?)
"""


_ANCESTOR: Final = f"""
SELECT id, parent, counts, model, name, kind, started_ns, {", ".join(COUNTS)}, cost
FROM runs WHERE trace_id = ? AND span = ?
"""


def take_off_ancestors(connection: sqlite3.Connection, row: Row, delta: TraceDelta, rollups: Rollups) -> list[int]:
    """Take the usage of the runs above one that has its own off the totals; return which runs that changed.

    A parent that reports what its children used would count twice. Most are still in memory when a child ends; this is for
    those that ended before it, or are another process's.
    """
    changed = []
    parent, steps = row.parent, 0
    while parent is not None and steps < 10_000:
        found = connection.execute(_ANCESTOR, (delta.id, parent)).fetchone()
        if found is None:
            break
        number, parent, counts, model, name, kind, started_ns, *tokens, cost = found
        steps += 1
        connection.execute("UPDATE runs SET used_below = 1, counts = 0 WHERE id = ?", (number,))
        if counts:
            delta.add_usage(tuple(tokens), cost, -1)
            rollups.of(started_ns, Series(delta.project, model or "", name, kind)).add_usage(tokens[:3], cost, -1)
            changed.append(number)
    return changed
