"""OTLP over gRPC, with the SDK's exporters: their channel, credentials, headers, time-out and encoding.

What is called is the exporters' stub and not their ``export``, which tries again in a loop of its own, with pauses that
nothing can shorten, and says nothing of what the receiver answered. They have no seam for that, so four of their attributes
with an underscore are read, which have been there since their version 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from ...errors import MissingExtraError
from ...redaction import mask_text
from .settings import Destination
from .transport import EncodingError, Outcome, Reply, Spans

try:
    import grpc
    from google.rpc.error_details_pb2 import RetryInfo
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
except ImportError as error:
    raise MissingExtraError('OTLP over gRPC needs its exporter: pip install "tracebus[otlp-grpc]"') from error

__all__ = ["GrpcTransport"]

_OUTCOMES: Final[dict[Any, Outcome]] = {
    **dict.fromkeys(
        (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DATA_LOSS,
        ),
        "later",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too_large",  # unless it says when to try again
    **dict.fromkeys((grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), "bad"),
}
"""What OTLP's specification says of the answers; all others are refusals."""


class _Request(NamedTuple):
    exporter: Any
    message: Any


class _MetricExporter(OTLPMetricExporter):
    """Keeps what it is to send."""

    kept: Any = None

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> MetricExportResult:
        self.kept = encode_metrics(metrics_data)
        return MetricExportResult.SUCCESS


class GrpcTransport:
    """Sends requests to one receiver."""

    def __init__(self, destination: Destination) -> None:
        endpoint, timeout = destination.endpoint, destination.timeout_s
        # Names of metadata are in lower case there, and a channel refuses others.
        headers = {name.lower(): value for name, value in (destination.headers or {}).items()} or None
        self._exporter: Any = OTLPSpanExporter(endpoint, headers=headers, timeout=timeout)
        self.metric_exporter = _MetricExporter(endpoint, headers=headers, timeout=timeout)
        self.address = mask_text(str(self._exporter._endpoint))

    def spans_request(self, spans: Sequence[ReadableSpan]) -> _Request:
        """Return the request that holds these spans; raise EncodingError."""
        try:
            return _Request(self._exporter, encode_spans(Spans(spans)))
        except Exception as error:
            raise EncodingError(str(error)) from error

    def metrics_request(self) -> _Request | None:
        """Return the request that the exporter of metrics was about to send."""
        kept, self.metric_exporter.kept = self.metric_exporter.kept, None
        return None if kept is None else _Request(self.metric_exporter, kept)

    def send(self, request: _Request, most_s: float | None = None) -> Reply:
        """Send a request once."""
        exporter = request.exporter
        timeout_s = exporter._timeout if most_s is None else min(most_s, exporter._timeout)
        try:
            answer = exporter._client.Export(request=request.message, metadata=exporter._headers, timeout=timeout_s)
        except grpc.RpcError as error:
            return _reply(error)
        partial = getattr(answer, "partial_success", None)
        rejected = getattr(partial, "rejected_spans", 0)
        return Reply("taken", mask_text(getattr(partial, "error_message", "")), rejected=max(0, rejected))

    def close(self) -> None:
        """Hang up."""
        self._exporter.shutdown()
        self.metric_exporter.shutdown()


def _reply(error: Any) -> Reply:
    code = error.code()
    why = mask_text(f"{code.name} {error.details() or ''}".strip())
    wait_s = _seconds_to_wait(error)
    outcome = "later" if wait_s is not None else _OUTCOMES.get(code, "refused")
    return Reply(outcome, why, wait_s=wait_s)


def _seconds_to_wait(error: Any) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            info = RetryInfo.FromString(value)
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
