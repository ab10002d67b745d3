"""Spans made of runs: ids, times, parent, kind, status, attributes and events, in the SDK's own class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from ...redaction import Redactor
from ..notes import Facts
from .forms import Attribute, Form, plain, text
from .reading import Fields, Masker, error_of, read_run
from .records import Happened, RunRecord
from .semconv import COMMON, FIRST_TOKEN_EVENT, REMOTE, VOCABULARIES, Semconv, Table

__all__ = ["SpanMaker"]

_64_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF
_FAILED: Final = frozenset({"error", "cancelled", "aborted", "lost"})
_UNSET: Final = Status(StatusCode.UNSET)
_OK: Final = Status(StatusCode.OK)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NO_STATE: Final = TraceState()
_decode: Final = msgspec.json.Decoder().decode


class SpanMaker:
    """Makes spans with the names of some vocabularies."""

    def __init__(
        self, semconv: Sequence[Semconv], resource: Resource, scope: InstrumentationScope, redactor: Redactor | None
    ) -> None:
        self._names = _names_of([VOCABULARIES[name].names for name in semconv])
        self._resource = resource
        self._scope = scope
        self._masker = Masker(redactor)
        self._went_well = _OK if any(VOCABULARIES[name].says_ok for name in semconv) else _UNSET
        self._has_operations = any(name != "openinference" for name in semconv)

    def read(self, record: RunRecord) -> Fields:
        """Return what a run's record says, masked: what ``make`` makes a span of."""
        fields = read_run(record, self._masker)
        if record.error is not None:
            fields["error"] = error = error_of(record.error, self._masker)
            fields["error_type"] = error[0]
        elif record.status in _FAILED:
            fields["error_type"] = record.status
        return fields

    def make(self, record: RunRecord, fields: Fields) -> ReadableSpan:
        """Return the span of a run."""
        facts = record.facts
        remote = facts.remote_above
        state = TraceState.from_header([remote.tracestate]) if remote is not None and remote.tracestate else _NO_STATE
        start_ns = facts.started_ns
        end_ns = start_ns + (record.duration_ns or 0)
        return ReadableSpan(
            name=self._name(fields),
            context=SpanContext(facts.trace, facts.number & _64_BITS, False, _SAMPLED, state),
            parent=_parent(facts, state),
            resource=self._resource,
            attributes=self._attributes(fields),
            events=list(self._events(record, fields, end_ns)),
            kind=SpanKind.CLIENT if fields["operation"] in REMOTE else SpanKind.INTERNAL,
            status=self._status(record, fields),
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )

    def _name(self, fields: Fields) -> str:
        operation = fields["operation"]
        if operation is None or not self._has_operations:
            return str(fields["name"])
        if operation in ("chat", "text_completion", "embeddings"):
            model = fields["request_model"]
            return f"{operation} {self._masker.text(model)}" if model else operation
        return f"{operation} {fields.get('data_source') or fields['name']}"

    def _status(self, record: RunRecord, fields: Fields) -> Status:
        if record.status not in _FAILED:
            return self._went_well if record.status == "ok" else _UNSET
        error = fields.get("error")
        return Status(StatusCode.ERROR, record.status if error is None else f"{error[0]}: {error[1]}")

    def _attributes(self, fields: Fields) -> dict[str, Attribute]:
        attributes: dict[str, Attribute] = {}
        for field, value in fields.items():
            if value is None or value == []:
                continue
            for name, form in self._names.get(field, ()):
                if form is plain:  # as most are
                    attributes[name] = value
                else:
                    attributes.update(form(name, value))
        return attributes

    def _events(self, record: RunRecord, fields: Fields, end_ns: int) -> Iterator[Event]:
        if record.first_token_ns is not None:
            yield Event(FIRST_TOKEN_EVENT, timestamp=record.facts.started_ns + record.first_token_ns)
        for happened in record.happened:
            if happened.hook != "subscriber_failed":  # which is not the run's doing
                yield self._event(happened)
        if (error := fields.get("error")) is not None:
            kind, message, stack = error
            told = {"type": kind, "message": message, "stacktrace": stack, "escaped": "True"}
            yield Event("exception", {f"exception.{name}": value for name, value in told.items()}, end_ns)

    def _event(self, happened: Happened) -> Event:
        data = self._masker.plain(_decode(happened.data))
        name = happened.hook
        if name == "custom_event" and isinstance(data.get("name"), str):
            name = self._masker.text(data.pop("name"))
            inner = data.pop("data", None)
            data = inner if isinstance(inner, dict) else {"data": inner}
        return Event(name, dict(_flat(data)), happened.time_ns)


def _names_of(tables: Sequence[Table]) -> dict[str, list[tuple[str, Form]]]:
    """Return under which names a field is said: those of the vocabularies, and where they have none our own."""
    names: dict[str, list[tuple[str, Form]]] = {}
    for table in tables:
        for field, named in table.items():
            names.setdefault(field, []).append(named)
    for field, named in COMMON.items():
        if field not in names or not named[0].startswith("tracebus."):
            names.setdefault(field, []).append(named)
    return names


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Attribute]]:
    """Yield the texts and numbers of an event, ``error.message`` and the like; what is deeper is JSON."""
    for key, value in data.items():
        if isinstance(value, str | bool | int | float):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{key}.")
        elif value is not None:
            yield f"{prefix}{key}", text(value)


def _parent(facts: Facts, state: TraceState) -> SpanContext | None:
    if facts.remote is not None:  # nearer than the run around it
        return SpanContext(facts.trace, facts.remote.span_id, not facts.remote.is_local, _SAMPLED, state)
    parent = facts.parent
    return None if parent is None else SpanContext(facts.trace, parent, facts.above is None, _SAMPLED, state)
