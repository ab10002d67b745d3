"""``export``: a subscriber that sends every run over OTLP. What it notes is in ``records``, what is sent in ``spans``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, cast

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ...dispatch import connect_receiver
from ...errors import ArgumentError
from ...payload import default_capture
from ...redaction import Redactor
from ...signals import HOOKS, close_subscription, llm_new_token
from ...subscriptions import Overflow, QueueLimits, Subscription
from ..batches import BatchLane
from ..notes import receiver_for
from ..writing import Writing
from . import over_http
from .delivery import Delivery
from .metrics import Metrics
from .records import Recorder, RunRecord
from .semconv import VOCABULARIES, Semconv
from .settings import (
    Destination,
    checked_semconv,
    checked_senders,
    content_wanted,
    count_setting,
    is_disabled,
    millisecond_setting,
    resource_of,
    takes_metrics,
)
from .spans import SpanMaker
from .transport import Transport

__all__ = ["Exporting", "delivery_to", "export"]

QUEUE_SIZE: Final = 10_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
BATCH: Final = 512
INTERVAL_S: Final = 1.0
METRICS_EVERY_S: Final = 60.0


class Exporting(Writing):
    """Runs that are being sent: ``close()`` ends it, as does leaving the block.

    In ``stats``, a start or a token is delivered when it was noted, and the end of a run when the receiver has acknowledged
    the run; so what is dropped or pending are runs. ``flush()`` is True only when all are acknowledged, and the metrics.
    """

    def __init__(self, subscription: Subscription, delivery: Delivery, destination: Destination) -> None:
        super().__init__(subscription)
        self._delivery = delivery
        self._destination = destination

    @property
    def sent(self) -> int:
        """How many runs the receiver has acknowledged."""
        return self._delivery.sent

    def close(self) -> None:
        """Stop hearing, and send what was heard, for at most 5 seconds; what is left then is dropped, and counted."""
        if self.closed:
            return
        super().close()
        if isinstance(lane := self._subscription.lane, BatchLane):
            lane.give_up("closed")

    def __repr__(self) -> str:
        """Show where to, and how many runs have arrived."""
        to = self._destination.address("traces") or "where OTEL_EXPORTER_OTLP_ENDPOINT says"
        return f"<Exporting to {to}{' (closed)' if self.closed else ''}: {self.sent} runs sent>"


def export(
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    semconv: Sequence[Semconv] | Semconv = ("gen_ai",),
    content: bool = True,
    metrics: bool = True,
    protocol: str | None = None,
    service_name: str | None = None,
    project: str | None = None,
    resource: Mapping[str, str] | None = None,
    exclude_senders: Sequence[str] | str = (),
    redactor: Redactor | None = None,
    timeout_s: float | None = None,
    queue_size: int | None = None,
    overflow: Overflow = "drop_oldest",
    interval_s: float | None = None,
) -> Exporting:
    """Send every run of this process over OTLP, as a span, until the returned handle is closed.

    ``endpoint`` is the receiver's address, ``http://localhost:4318``, to which ``/v1/traces`` and ``/v1/metrics`` are added;
    ``headers`` go with every request. ``semconv`` names the vocabularies: ``"gen_ai"``, OpenTelemetry's conventions v1.41.1;
    ``"openinference"``; ``"gen_ai_next"``, what is to replace the first. Several are written beside each other. ``content``
    False leaves out what goes into runs and what comes out of them, as TRACEBUS_CAPTURE and
    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT can, too. ``metrics`` sends token usage, durations and times to the
    first chunk. ``protocol`` is ``"http/protobuf"`` or ``"grpc"``. ``service_name``, ``project`` (OpenInference's name of it,
    which Phoenix sorts by) and ``resource`` say who sends. Runs whose sender is one of ``exclude_senders`` are not sent:
    ``"opentelemetry"``, where the app's own SDK sends the spans that a RunSpanProcessor makes runs of, whose ids they have;
    what is nested in them stays in its place. ``redactor`` masks secrets; not given, it is the one that masks everywhere.

    What is not given is as OpenTelemetry's variables say: OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, _TIMEOUT, _COMPRESSION,
    _PROTOCOL, _CERTIFICATE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_METRIC_EXPORT_INTERVAL, OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY. OTEL_SDK_DISABLED=true makes this do nothing. OpenTelemetry's
    globals are neither used nor changed.

    ``queue_size`` runs (10 000) and 32 MiB may wait; ``overflow`` says what gives way then. They are sent in batches of 512,
    after ``interval_s`` seconds (1) or when as many are there, and again while the receiver does not answer, or says 429, 502,
    503 or 504, after longer and longer, or when Retry-After says. A receiver that does not take them is warned about once a
    minute through ``logging``; the app hears nothing of it, and what is lost is counted in ``stats``.

    Raises ArgumentError for what is none of the choices, MissingExtraError when gRPC is asked for and not installed.
    """
    vocabularies = checked_semconv(semconv)
    destination = Destination.of(endpoint, headers, protocol, timeout_s)
    capture = default_capture() if content and content_wanted() else "none"
    size = count_setting("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SIZE) if queue_size is None else queue_size
    limits = QueueLimits(size, QUEUE_BYTES, overflow).checked()
    linger_s = _checked_interval(interval_s)
    excluded = checked_senders(exclude_senders)
    metrics = metrics and takes_metrics()
    delivery = delivery_to(
        destination,
        vocabularies,
        metrics=metrics,
        service_name=service_name,
        project=project,
        resource=resource,
        exclude_senders=excluded,
        redactor=redactor,
    )
    subscription = Subscription(export, limits=limits, disconnect=close_subscription, key=object())
    batch = count_setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)
    lane: BatchLane[RunRecord] = BatchLane(subscription, delivery, linger_s, batch)
    subscription.lane = lane
    if not is_disabled():
        _connect(subscription, Recorder(lane, capture), with_tokens=metrics)
    return Exporting(subscription, delivery, destination)


def _connect(subscription: Subscription, recorder: Recorder, *, with_tokens: bool) -> None:
    for hook in HOOKS.values():
        if hook is not llm_new_token or with_tokens:  # else nobody needs to hear of each
            hook.add(connect_receiver(subscription, receiver_for(recorder, hook.event_class)))


def delivery_to(
    destination: Destination,
    semconv: Sequence[Semconv],
    *,
    metrics: bool = False,
    service_name: str | None = None,
    project: str | None = None,
    resource: Mapping[str, str] | None = None,
    exclude_senders: frozenset[str] = frozenset(),
    redactor: Redactor | None = None,
) -> Delivery:
    """Return what sends runs to a destination."""
    if redactor is not None and not isinstance(redactor, Redactor):
        raise ArgumentError(f"redactor={redactor!r} is no Redactor: give tracebus.redaction.Redactor(rule)")
    sender = resource_of(service_name, project, resource)
    schema = next((VOCABULARIES[name].schema_url for name in semconv if VOCABULARIES[name].schema_url), None)
    scope = InstrumentationScope("tracebus", _version(), schema)
    successor = "gen_ai_next" in semconv

    def metrics_for(transport: Transport) -> Metrics | None:
        return Metrics(transport.metric_exporter, sender, scope, successor=successor) if metrics else None

    every_s = millisecond_setting("OTEL_METRIC_EXPORT_INTERVAL", METRICS_EVERY_S)
    maker = SpanMaker(semconv, sender, scope, redactor)
    return Delivery(_connecting(destination), maker, metrics_for, every_s, exclude_senders)


def _connecting(destination: Destination) -> Callable[[], Transport]:
    """Return what opens the way to send: in the writer's thread, and in a forked child once more."""
    if destination.protocol == "http/protobuf":
        return over_http.configured(destination)
    over_grpc = importlib.import_module(f"{__package__}.over_grpc")  # needs an extra of its own
    return lambda: cast("Transport", over_grpc.GrpcTransport(destination))


def _version() -> str | None:
    try:
        return version("tracebus")
    except PackageNotFoundError:  # a checkout that is on the path and not installed
        return None


def _checked_interval(given: float | None) -> float:
    if given is None:
        return millisecond_setting("OTEL_BSP_SCHEDULE_DELAY", INTERVAL_S)
    if not isinstance(given, int | float) or not 0 < given <= 60:
        raise ArgumentError(f"interval_s={given!r} must be a number of seconds, more than 0 and at most 60")
    return given
