"""OTLP over HTTP, as the SDK's exporters are configured: address, headers, certificates, time-out, compression, encoder.

The exporters' own way to send is not used, because it tries again in a loop of its own, with pauses of up to a minute that
nothing can shorten, one attempt straight after another, a log line for each, nothing left of what the receiver answered, and
jitter from the generator of ``random`` that is the app's. What they are given is a ``requests`` session, which is their
public seam, that keeps the request they would send: what is sent here differs from that in its body alone.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from ...redaction import mask_text
from .settings import Destination
from .transport import EncodingError, Outcome, Reply, Spans

__all__ = ["HttpTransport"]

_LATER: Final = frozenset({408, 429, 502, 503, 504})
"""The answers after which OTLP's specification says to try again, and the time-out of a proxy."""
_OUTCOMES: Final[dict[int, Outcome]] = {413: "too_large", 400: "bad", 422: "bad", 500: "bad"}
"""Those after which a part of the request may be taken. By the specification the same request is not to be sent again."""
LONGEST_WAIT_S: Final = 3600.0
"""The longest that a receiver can ask to be left alone, in seconds."""


class _Request(NamedTuple):
    template: _Template
    body: bytes


class _Template(requests.Session):
    """Keeps the request that an exporter would send, and sends it with other bodies."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {}

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Keep a request, and tell the exporter that all is well."""
        self.arguments = {"method": method, "url": url, **kwargs}
        response = requests.Response()
        response.status_code = 200
        return response

    def filled(self, body: bytes) -> _Request:
        """Return the request with a body of one's own, compressed as the exporter would."""
        headers = {**self.headers, **(self.arguments.get("headers") or {})}
        encoding = next((value for name, value in headers.items() if name.lower() == "content-encoding"), None)
        compress = _COMPRESS.get(str(encoding))
        return _Request(self, body if compress is None else compress(body))

    def send_once(self, body: bytes, most_s: float | None) -> requests.Response:
        """Send the request with this body."""
        arguments = {**self.arguments, "data": body}
        if most_s is not None:
            arguments["timeout"] = min(most_s, arguments.get("timeout") or most_s)
        return super().request(**arguments)

    def anew(self) -> _Template:
        """Return a template without this one's connections, which a forked child shares with its parent."""
        template = _Template()
        template.arguments, template.headers = self.arguments, self.headers
        template.verify, template.cert = self.verify, self.cert
        return template


_COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}


class _MetricExporter(OTLPMetricExporter):
    """Keeps what it is to send."""

    kept: bytes | None = None

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> MetricExportResult:
        self.kept = encode_metrics(metrics_data).SerializeToString()
        return MetricExportResult.SUCCESS


def configured(destination: Destination) -> Callable[[], HttpTransport]:
    """Return what opens the way to a destination, configured now; raise what the exporters raise for a wrong setting."""
    spans, metrics = _Template(), _Template()
    arguments: dict[str, Any] = {"headers": destination.headers, "timeout": destination.timeout_s}
    exporter = OTLPSpanExporter(destination.address("traces"), session=spans, **arguments)
    metric_exporter = OTLPMetricExporter(destination.address("metrics"), session=metrics, **arguments)
    drawn = random.getstate()
    exporter.export(())
    metric_exporter.export(MetricsData([]))
    random.setstate(drawn)
    return lambda: HttpTransport(spans.anew(), metrics.anew(), _MetricExporter(session=requests.Session()))


class HttpTransport:
    """Sends requests to one receiver."""

    def __init__(self, spans: _Template, metrics: _Template, metric_exporter: _MetricExporter) -> None:
        self._spans = spans
        self._metrics = metrics
        self.metric_exporter = metric_exporter
        self.address = mask_text(str(spans.arguments["url"]))

    def spans_request(self, spans: Sequence[ReadableSpan]) -> _Request:
        """Return the request that holds these spans; raise EncodingError."""
        try:
            return self._spans.filled(encode_spans(Spans(spans)).SerializeToString())
        except Exception as error:
            raise EncodingError(str(error)) from error

    def metrics_request(self) -> _Request | None:
        """Return the request that the exporter of metrics was about to send."""
        kept, self.metric_exporter.kept = self.metric_exporter.kept, None
        return None if kept is None else self._metrics.filled(kept)

    def send(self, request: _Request, most_s: float | None = None) -> Reply:
        """Send a request once."""
        try:
            response = request.template.send_once(request.body, most_s)
        except (requests.ConnectionError, requests.Timeout) as error:
            return Reply("later", mask_text(_reason(error)))
        except requests.RequestException as error:  # an address or a header that is none
            return Reply("refused", mask_text(str(error)))
        return _reply(response)

    def close(self) -> None:
        """Hang up."""
        self._spans.close()
        self._metrics.close()


def _reason(error: Exception) -> str:
    """Return what went wrong, without the objects that requests puts around it."""
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return f"{type(error).__name__}: {inner}"


def _reply(response: requests.Response) -> Reply:
    status = response.status_code
    why = f"{status} {response.reason or ''}".strip()
    if 200 <= status < 300:
        return _taken(response.content)
    if status in _LATER:
        return Reply("later", why, wait_s=seconds_to_wait(response.headers.get("retry-after")))
    return Reply(_OUTCOMES.get(status, "refused"), why)


def _taken(body: bytes) -> Reply:
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:  # JSON, or a few words
        return Reply("taken")
    return Reply("taken", mask_text(partial.error_message), rejected=max(0, partial.rejected_spans))


def seconds_to_wait(given: str | None) -> float | None:
    """Return what a Retry-After header asks for, in seconds or as a date, None for anything else (RFC 9110, 10.2.3)."""
    if given is None:
        return None
    if (digits := given.strip()).isdecimal():
        return min(float(digits), LONGEST_WAIT_S)
    try:
        moment = parsedate_to_datetime(given)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), LONGEST_WAIT_S)
