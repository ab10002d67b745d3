"""OpenTelemetry on both sides: runs inside of its spans, its spans inside of runs, and its GenAI spans as runs.

::

    from tracebus.integrations import opentelemetry

    opentelemetry.install()

What is current is in ``current``, how a run looks as a span and a span as a parent in ``spans``. ``RunSpanProcessor`` makes
runs of spans, by the attributes that ``attributes`` reads. Sending runs to OpenTelemetry's receivers is not done here.
"""

from ...errors import MissingExtraError

try:
    import opentelemetry.context as _  # noqa: F401  # asked for by name, so that nothing else that is missing is taken for it
except ImportError as error:
    raise MissingExtraError('OpenTelemetry is not installed: pip install "tracebus[opentelemetry]"') from error

from .current import install, uninstall
from .processor import RunSpanProcessor

__all__ = ["RunSpanProcessor", "install", "uninstall"]
