"""From rows of the tables to answers: which columns are read, and what is made of them."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from .answers import RunError, RunSummary, Session, Tokens, TraceSummary
from .bodies import error_words, output_words, words

__all__ = [
    "CONTENTS",
    "EVENTS",
    "RUN",
    "RUN_FROM",
    "SESSION",
    "TRACE",
    "digits_of",
    "error_of",
    "run_of",
    "session_of",
    "trace_of",
    "value_of",
    "words_of",
]

TRACE: Final = """
traces.id, trace, project, name, kind, status, input, output, model, tags, session, user, started_ns, ended_ns, duration_ns,
first_token_ns, runs, open, errors, streamed, input_tokens, output_tokens, total_tokens, cached_tokens, reasoning_tokens,
cache_write_tokens, cost, priced, unpriced, masked, cut
"""
RUN: Final = """
runs.id, traces.trace, span, high, parent, runs.name, runs.kind, runs.status, runs.model, runs.input, runs.output, runs.error,
runs.tags, runs.session, runs.user, runs.started_ns, runs.duration_ns, runs.first_token_ns, runs.streamed, runs.input_tokens,
runs.output_tokens, runs.total_tokens, runs.cached_tokens, runs.reasoning_tokens, runs.cache_write_tokens, runs.cost, counts,
runs.masked, runs.cut, runs.outer_span, runs.sampled
"""
RUN_FROM: Final = "FROM runs CROSS JOIN traces ON traces.id = runs.trace_id"
EVENTS: Final = """
SELECT time_ns, hook, data FROM events
WHERE trace_id = (SELECT trace_id FROM runs WHERE id = ?) AND run = ? ORDER BY time_ns, id
"""
CONTENTS: Final = """
SELECT span, inputs, bodies.output, bodies.streamed FROM runs LEFT JOIN bodies ON bodies.run = runs.id WHERE runs.trace_id = ?
"""
SESSION: Final = "session, user, started_ns, last_ns, traces, runs, errors, total_tokens, cost, priced, unpriced"


def trace_of(row: tuple[Any, ...]) -> TraceSummary:
    """Return what a row of the columns TRACE says."""
    _, trace, project, name, kind, status, given, told, model, tags, session, user, started_ns, ended_ns, *rest = row
    duration_ns, first_ns, runs, is_open, errors, streamed, *used, cost, priced, unpriced, masked, cut = rest
    has_usage = priced + unpriced > 0
    return TraceSummary(
        bytes(trace).hex(),
        project,
        name,
        kind,
        status or ("open" if is_open else "ok"),
        given,
        told,
        model,
        json.loads(tags) if tags else [],
        session,
        user,
        started_ns,
        ended_ns if not is_open else None,
        duration_ns,
        None if first_ns is None else first_ns - started_ns,
        runs,
        is_open,
        errors,
        streamed,
        Tokens(*used) if has_usage else Tokens(None, None, None, None, None),
        cost if priced else None,
        unpriced > 0,
        masked,
        cut,
    )


def run_of(row: tuple[Any, ...]) -> RunSummary:
    """Return what a row of the columns RUN says."""
    _, trace, span, high, parent, name, kind, status, model, given, told, failure, tags, session, user, *rest = row
    started_ns, duration_ns, first_token_ns, streamed, *used, cost, counts, masked, cut, outer, sampled = rest
    return RunSummary(
        bytes(trace).hex(),
        digits_of(span),
        str(UUID(int=(high & _BITS) << 64 | span & _BITS)) if high else None,
        None if parent is None else digits_of(parent),
        name,
        kind,
        status,
        model,
        given,
        told,
        failure,
        json.loads(tags) if tags else [],
        session,
        user,
        started_ns,
        duration_ns,
        first_token_ns,
        streamed,
        Tokens(*used),
        cost,
        bool(counts),
        masked,
        bool(cut),
        None if outer is None else digits_of(outer),
        bool(sampled),
    )


def session_of(row: tuple[Any, ...]) -> Session:
    """Return what a row of the columns SESSION says."""
    session, user, started_ns, last_ns, traces, runs, errors, tokens, cost, priced, unpriced = row
    dear = cost if priced else None
    return Session(session, user, started_ns, last_ns, traces, runs, errors, tokens, dear, unpriced > 0)


def error_of(value: Any) -> RunError | None:
    """Return the error that is stored as ``value``."""
    if not isinstance(value, dict):
        return None
    frames, causes = value.get("frames"), value.get("causes")
    return RunError(
        str(value.get("type", "")),
        str(value.get("message", "")),
        [frame for frame in frames if isinstance(frame, dict)] if isinstance(frames, list) else [],
        [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else [],
    )


_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF


def digits_of(span: int) -> str:
    """Return a span's id as it is written."""
    return f"{span & _BITS:016x}"


def words_of(inputs: str | None, output: str | None, error: str | None, streamed: str | None) -> tuple[str, str, str]:
    """Return what the index was told of a run; it takes out only what it is told exactly."""
    return words(value_of(inputs)), output_words(value_of(output), streamed), error_words(value_of(error))


def value_of(stored: str | None) -> Any:
    """Return the value that is stored as JSON."""
    return None if stored is None else json.loads(stored)
