"""``tracebus export --otlp``: traces out of a store to a receiver of OTLP, with the ids and times that they had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ..errors import ArgumentError, TracebusError
from ..figures import count
from ..outputs.notes import Beside, Said
from ..outputs.otlp.records import Happened, RunRecord
from ..outputs.otlp.semconv import Semconv
from ..outputs.otlp.sending import Sent, send
from ..outputs.store import Filter, RunDetail, export_runs
from ..outputs.store.transfer import facts_of, noted_error
from .progress import progress
from .screen import as_json
from .stores import explained

__all__ = ["send_traces"]

_encode: Final = msgspec.json.Encoder().encode


def send_traces(
    endpoint: str,
    wanted: Filter,
    chosen: list[str] | None,
    total: int | None,
    db: Path | None,
    *,
    headers: Sequence[str],
    semconv: Sequence[str],
    content: bool,
    as_lines: bool,
) -> None:
    """Send the traces, and say how many runs have arrived; raise TracebusError unless all that have ended did."""
    still_open = unsampled = 0

    def runs() -> Iterator[tuple[str, RunRecord]]:
        nonlocal still_open, unsampled
        for project, detail in export_runs(db, wanted, traces=chosen):
            if not detail.run.sampled:
                unsampled += 1
            elif detail.run.status == "open":
                still_open += 1
            else:
                yield project, _record(detail, content=content)

    sent = Sent(0, {})
    names = cast("Sequence[Semconv]", tuple(semconv) or ("gen_ai",))
    with explained(db), progress("sending") as tell:
        try:
            for sent in send(runs(), endpoint, _headers(headers), semconv=names):
                tell(sent.runs + sum(sent.lost.values()), total)
        except ArgumentError:
            raise
        except TracebusError as error:
            raise TracebusError(
                f"{error}; {count(sent.runs, 'run')} had arrived. Nothing is lost in the store: try again"
            ) from error
    told = {"endpoint": endpoint, "sent": sent.runs, "lost": dict(sent.lost), "open": still_open, "unsampled": unsampled}
    as_json(told) if as_lines else print(_summary(endpoint, sent, still_open, unsampled))
    if sent.lost:
        raise TracebusError(f"{count(sum(sent.lost.values()), 'run')} did not arrive: {_reasons(sent)}")


def _summary(endpoint: str, sent: Sent, still_open: int, unsampled: int) -> str:
    rest = f", {count(still_open, 'run')} still open left out" if still_open else ""
    rest += f", {count(unsampled, 'run')} left out as not sampled" if unsampled else ""
    return f"{count(sent.runs, 'run')} to {endpoint}{rest}"


def _reasons(sent: Sent) -> str:
    return ", ".join(f"{runs} {reason.replace('_', ' ')}" for reason, runs in sent.lost.items())


def _headers(given: Sequence[str]) -> dict[str, str] | None:
    headers = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not separator or not name.strip():
            raise ArgumentError("--header takes NAME=VALUE, as in --header authorization='Bearer …'")
        headers[name.strip()] = value
    return headers or None


# -- a stored run as it was noted --------------------------------------------------------------------------------------


def _record(detail: RunDetail, *, content: bool) -> RunRecord:
    run, body = detail.run, detail.body
    happened = [Happened(event.time_ns, event.hook, _encode(event.data)) for event in detail.events]
    return RunRecord(
        0,
        facts_of(detail),
        run.model,
        Beside(tuple(run.tags), run.model, _said(body.metadata or None)),
        _said(body.inputs) if content else None,
        run.status,
        run.duration_ns if run.duration_ns is not None else _known_duration_ns(detail),
        run.first_token_ns,
        run.streamed,
        [run.started_ns + step.at_ns for step in detail.steps],
        run.tokens.usage(),
        _said(body.output if body.output is not None else body.streamed) if content else None,
        noted_error(detail),
        happened if content else [],
    )


def _known_duration_ns(detail: RunDetail) -> int:
    """Return how long a run was heard of whose process died in it."""
    times = [step.at_ns for step in detail.steps] + [event.time_ns - detail.run.started_ns for event in detail.events]
    return max(0, *times, 0)


def _said(value: Any) -> Said:
    return value if value is None or isinstance(value, str) else _encode(value)
