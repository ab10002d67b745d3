"""Which traces or runs are meant: a filter, and the SQL that it becomes. Its fields are what addresses and options say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ...errors import ArgumentError

__all__ = ["Filter", "Where"]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which traces, or which runs; what is None says nothing.

    Of traces, ``kind``, ``model``, ``name`` and ``tag`` ask whether any of their runs has it, and ``status`` whether the
    trace or any run of it ended so. Durations are seconds, times nanoseconds since the epoch, costs US dollars.
    """

    project: str | None = None
    kind: str | None = None
    model: str | None = None
    name: str | None = None
    status: str | None = None
    tag: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_cost: float | None = None
    max_cost: float | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def __post_init__(self) -> None:
        for field in ("min_duration_s", "max_duration_s", "min_cost", "max_cost"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ArgumentError(f"{field}={value!r} is no number to compare with")

    @classmethod
    def of(cls, wanted: Filter | None, **fields: Any) -> Filter:
        """Return a filter with these fields; raise ArgumentError naming those that there are."""
        unknown = sorted(fields.keys() - set(cls.__struct_fields__))
        if unknown:
            raise ArgumentError(f"cannot filter by {unknown[0]!r}: choose from {', '.join(cls.__struct_fields__)}")
        return msgspec.structs.replace(wanted or cls(), **fields)


class Where(NamedTuple):
    """A condition, with ``?`` for its values."""

    sql: str
    values: list[Any]
    by_label: bool = False
    """Whether the first two values are a label that ``traces`` are found by, instead of by looking at each."""


_LABELS: Final = ("tag", "name", "model", "status", "kind")
"""What ``labels`` knows of a trace, the most telling first."""


def where_traces(wanted: Filter) -> Where:
    """Return the condition on ``traces``."""
    parts: list[str] = []
    values: list[Any] = []

    def add(part: str, *more: Any) -> None:
        parts.append(part)
        values.extend(more)

    labels = [(label, value) for label in _LABELS if (value := _label_of(wanted, label)) is not None]
    if labels:
        add("label = ? AND value = ?", *labels[0])
    for label in labels[1:]:
        add("EXISTS (SELECT 1 FROM labels AS l WHERE l.label = ? AND l.value = ? AND l.trace_id = traces.id)", *label)
    for column, given in (("session", wanted.session_id), ("user", wanted.user_id), ("project", wanted.project)):
        if given is not None:
            add(f"{column} = ?", given)
    if wanted.status == "open":
        add("open > 0")
    elif wanted.status == "ok":
        add("traces.status = 'ok'")
    if wanted.since_ns is not None:
        add("traces.id >= ?", wanted.since_ns // 1000)
    if wanted.until_ns is not None:
        add("traces.id < ?", -(-wanted.until_ns // 1000))
    _ranges(wanted, add, "traces", priced="priced > 0")
    return Where(" AND ".join(parts) or "1", values, bool(labels))


def _label_of(wanted: Filter, label: str) -> str | None:
    if label == "status" and wanted.status in ("open", "ok"):
        return None
    value: str | None = getattr(wanted, label)
    return value


def where_runs(wanted: Filter) -> Where:
    """Return the condition on ``runs``."""
    parts: list[str] = []
    values: list[Any] = []

    def add(part: str, *more: Any) -> None:
        parts.append(part)
        values.extend(more)

    columns = {"session_id": "session", "user_id": "user"}
    for field in ("kind", "model", "name", "status", "session_id", "user_id"):
        value = getattr(wanted, field)
        if value is not None:
            add(f"runs.{columns.get(field, field)} = ?", value)
    if wanted.project is not None:
        add("EXISTS (SELECT 1 FROM traces WHERE traces.id = trace_id AND project = ?)", wanted.project)
    if wanted.tag is not None:
        add("EXISTS (SELECT 1 FROM json_each(runs.tags) WHERE value = ?)", wanted.tag)
    if wanted.since_ns is not None:
        add("runs.started_ns >= ?", wanted.since_ns)
    if wanted.until_ns is not None:
        add("runs.started_ns < ?", wanted.until_ns)
    _ranges(wanted, add, "runs", priced="runs.cost IS NOT NULL")
    return Where(" AND ".join(parts) or "1", values)


_LONGEST_NS: Final = 2.0**62


def _ranges(wanted: Filter, add: Any, table: str, *, priced: str) -> None:
    for value, sign in ((wanted.min_duration_s, ">="), (wanted.max_duration_s, "<=")):
        if value is not None:
            add(f"{table}.duration_ns {sign} ?", round(max(-_LONGEST_NS, min(value * 1e9, _LONGEST_NS))))
    for count, sign in ((wanted.min_tokens, ">="), (wanted.max_tokens, "<=")):
        if count is not None:
            add(f"{table}.total_tokens {sign} ?", count)
    for cost, sign in ((wanted.min_cost, ">="), (wanted.max_cost, "<=")):
        if cost is not None:
            add(f"{table}.cost {sign} ? AND {priced}", cost)


By = Literal["project", "model", "name", "kind"]


def search_words(phrases: Iterable[str]) -> str:
    """Return what the index is asked for: all of the phrases, with nothing in them that is an operator."""
    return " ".join(_quoted(phrase) for phrase in phrases)


def _quoted(phrase: str) -> str:
    is_open = phrase.endswith("*")
    return '"' + phrase.rstrip("*").replace('"', '""') + '"' + ("*" if is_open else "")
