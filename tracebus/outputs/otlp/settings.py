"""Where to and as whom: the arguments of ``export()``, and the OTEL_* variables that stand for those not given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource

from ...errors import ArgumentError
from .semconv import VOCABULARIES, Semconv

__all__ = [
    "Destination",
    "Protocol",
    "checked_semconv",
    "checked_senders",
    "content_wanted",
    "count_setting",
    "is_disabled",
    "millisecond_setting",
    "resource_of",
    "takes_metrics",
]

Protocol: TypeAlias = Literal["http/protobuf", "grpc"]

_TRACES: Final = "v1/traces"
_METRICS: Final = "v1/metrics"
_NO_CONTENT: Final = frozenset({"no_content", "event_only", "false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Destination:
    """Where runs go. What is None is what OTEL_EXPORTER_OTLP_… say, read by the SDK's exporter."""

    protocol: Protocol
    endpoint: str | None
    headers: dict[str, str] | None
    timeout_s: float | None

    @classmethod
    def of(
        cls, endpoint: str | None, headers: Mapping[str, str] | None, protocol: str | None, timeout_s: float | None
    ) -> Destination:
        """Return where runs go; raise ArgumentError for what is no address, header, protocol or time."""
        return cls(_checked_protocol(protocol), _checked_endpoint(endpoint), _checked_headers(headers), _checked_s(timeout_s))

    def address(self, kind: Literal["traces", "metrics"]) -> str | None:
        """Return the whole address for one kind of data; None where the variables say it."""
        if self.endpoint is None or self.protocol == "grpc":
            return self.endpoint
        base = self.endpoint.rstrip("/").removesuffix(f"/{_TRACES}")
        return f"{base}/{_TRACES if kind == 'traces' else _METRICS}"


def _checked_protocol(given: str | None) -> Protocol:
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    told = given or next((os.environ[name] for name in names if os.environ.get(name)), "http/protobuf")
    wanted = told.strip().lower()
    if wanted not in get_args(Protocol):
        where = f"protocol={given!r}" if given else f"OTEL_EXPORTER_OTLP_PROTOCOL={told!r}"
        raise ArgumentError(f"{where} is none that runs can be sent over: choose one of {', '.join(get_args(Protocol))}")
    return cast("Protocol", wanted)


def _checked_endpoint(given: str | None) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or urlsplit(given).scheme not in ("http", "https"):
        raise ArgumentError(f"endpoint={given!r} is no address: give one as http://localhost:4318")
    return given


def _checked_headers(given: Mapping[str, str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(part, str) for pair in given.items() for part in pair):
        # Not shown: what is wrong may be next to a key.
        raise ArgumentError('headers must be a mapping of texts, as {"authorization": "Bearer …"}')
    return dict(given)


def _checked_s(given: float | None) -> float | None:
    if given is not None and not (isinstance(given, int | float) and given > 0):
        raise ArgumentError(f"timeout_s={given!r} must be a number of seconds above 0")
    return given


def checked_semconv(given: Sequence[str] | str) -> tuple[Semconv, ...]:
    """Return the vocabularies that are asked for; raise ArgumentError naming the choices."""
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or any(name not in VOCABULARIES for name in names):
        raise ArgumentError(f"semconv={given!r}: give one or more of {', '.join(VOCABULARIES)}")
    if {"gen_ai", "gen_ai_next"} <= set(names):
        raise ArgumentError("semconv: gen_ai_next replaces gen_ai, and has the same names for most: give one of them")
    return cast("tuple[Semconv, ...]", tuple(dict.fromkeys(names)))


def checked_senders(given: Sequence[str] | str) -> frozenset[str]:
    """Return the names of senders; raise ArgumentError for what is no name, as a traced function."""
    names = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise ArgumentError(f'exclude_senders={given!r} must be names, as in exclude_senders=["opentelemetry"]')
    return frozenset(names)


def content_wanted() -> bool:
    """Tell whether OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT lets content leave on spans, as it does when not set."""
    return os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().lower() not in _NO_CONTENT


def is_disabled() -> bool:
    """Tell whether OTEL_SDK_DISABLED is set."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def takes_metrics() -> bool:
    """Tell whether OTEL_METRICS_EXPORTER allows metrics."""
    return os.environ.get("OTEL_METRICS_EXPORTER", "").strip().lower() != "none"


def millisecond_setting(name: str, default_s: float) -> float:
    """Return seconds from a variable that holds milliseconds, the default where it holds no such number."""
    try:
        milliseconds = float(os.environ.get(name, ""))
    except ValueError:
        return default_s
    return milliseconds / 1000 if milliseconds > 0 else default_s


def count_setting(name: str, default: int) -> int:
    """Return a number from a variable, the default where it holds none above 0."""
    given = os.environ.get(name, "").strip()
    return int(given) if given.isdecimal() and int(given) > 0 else default


class _HashedOnce(Resource):
    """A resource whose hash is worked out once: the SDK's encoder asks each span's for it, and it is made of JSON."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


def resource_of(service_name: str | None, project: str | None, attributes: Mapping[str, str] | None) -> Resource:
    """Return as whom runs are sent: OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, and over them what is given."""
    given: dict[str, str] = dict(attributes or {})
    if service_name is not None:
        given["service.name"] = service_name
    if project is not None:
        given["openinference.project.name"] = project
    resource = Resource.create(dict(given))
    return _HashedOnce(dict(resource.attributes), resource.schema_url)
