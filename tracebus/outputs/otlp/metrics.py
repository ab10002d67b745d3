"""The metrics of model calls, kept by OpenTelemetry's SDK: a provider of our own, which no global knows and no thread serves.

They are told of every run that is exported, in the writer's thread; ``collect`` makes the exporter write them down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .reading import Fields
from .records import RunRecord
from .semconv import GEN_AI, METRIC_ATTRIBUTES, METRICS, METRICS_NEXT, TOKEN_TYPE, Metric

__all__ = ["Metrics"]

_CALLS: Final = frozenset({"chat", "text_completion", "embeddings"})


class Metrics:
    """Counts tokens and times of model calls."""

    def __init__(self, exporter: MetricExporter, resource: Resource, scope: InstrumentationScope, *, successor: bool) -> None:
        # With an infinite interval the reader starts no thread.
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(scope.name, scope.version, scope.schema_url)
        self._provider = provider
        table = METRICS_NEXT if successor else METRICS
        self._add: dict[str, Callable[..., None]] = {field: _instrument(meter, metric) for field, metric in table.items()}
        self.is_dirty = False
        """Whether something was counted that no receiver has acknowledged."""

    def note(self, record: RunRecord, fields: Fields) -> None:
        """Count a run, if it is a call of a model."""
        if fields["operation"] not in _CALLS:
            return
        about = {GEN_AI[field][0]: value for field in METRIC_ATTRIBUTES if (value := fields.get(field)) is not None}
        self.is_dirty = True
        if record.duration_ns is not None:
            error = fields.get("error_type")
            self._add["duration"](record.duration_ns / 1e9, about if error is None else {**about, "error.type": error})
        self._note_tokens(fields, about)
        if record.first_token_ns is not None:
            self._add["first_chunk"](record.first_token_ns / 1e9, about)
        for before_ns, then_ns in pairwise(record.token_times):
            self._add["next_chunk"](max(0, then_ns - before_ns) / 1e9, about)

    def _note_tokens(self, fields: Fields, about: dict[str, Any]) -> None:
        for kind in ("input", "output"):
            count = fields.get(f"{kind}_tokens")
            if count is not None and (add := self._add.get("tokens")) is not None:
                add(count, {**about, TOKEN_TYPE: kind})
        for field in METRICS_NEXT.keys() - METRICS.keys():
            count = fields.get(field)
            if count is not None and (add := self._add.get(field)) is not None:
                add(count, about)

    def collect(self) -> None:
        """Let the exporter write down what there is."""
        self._reader.collect()


def _instrument(meter: Any, metric: Metric) -> Callable[..., None]:
    made: Any
    if metric.buckets is None:
        made = meter.create_counter(metric.name, metric.unit, metric.description)
        return made.add  # type: ignore[no-any-return]
    made = meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )
    return made.record  # type: ignore[no-any-return]
