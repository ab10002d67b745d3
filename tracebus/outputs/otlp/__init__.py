"""Send every run over OTLP, ``export()``: to an OpenTelemetry collector, Phoenix, MLflow, Langfuse, Jaeger, Tempo.

What is noted of a run is in ``records``; what that says, field by field, in ``reading``; under which names that is sent in
``semconv``, the one place with names in it; when and how often in ``delivery``, over what in ``over_http`` and ``over_grpc``.
"""

from ...errors import MissingExtraError

try:
    import opentelemetry.exporter.otlp.proto.http  # noqa: F401
except ImportError as error:
    raise MissingExtraError('OTLP needs the exporter of OpenTelemetry\'s SDK: pip install "tracebus[otlp]"') from error

from .exporting import Exporting, export

__all__ = ["Exporting", "export"]
