"""A receiver of OTLP on loopback that decodes what it gets, and answers as a test says."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [value_of(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def attributes_of(message: Any) -> dict[str, Any]:
    return {one.key: value_of(one.value) for one in message.attributes}


class Answer:
    """What the sink does with one request; `pieces` are written one after the other, `before` is called first."""

    def __init__(
        self, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"", before: Callable[[], Any] = dict
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.body = body
        self.before = before


TAKEN = Answer()


class Sink:
    """The receiver."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[SimpleNamespace] = []
        self.refused: list[SimpleNamespace] = []
        self.answer: Callable[[SimpleNamespace], Answer] = lambda request: TAKEN
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Any]:
        """The spans of all requests that were taken, in the order in which they came."""
        return [span for request in self.requests for span in request.spans]

    @property
    def names(self) -> list[str]:
        return [attributes_of(span)["tracebus.run.name"] for span in self.spans]

    def span(self, name: str) -> Any:
        """The span of the run of this name."""
        (found,) = [span for span in self.spans if attributes_of(span).get("tracebus.run.name") == name]
        return found

    def attributes(self, name: str) -> dict[str, Any]:
        return attributes_of(self.span(name))

    def events(self, name: str) -> dict[str, dict[str, Any]]:
        return {event.name: attributes_of(event) for event in self.span(name).events}

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics that came last, by name."""
        return {
            metric.name: metric
            for request in self.requests
            if request.path.endswith("/v1/metrics")
            for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = SimpleNamespace(path=self.path, headers=dict(self.headers.items()), body=body, spans=[], resource={})
                if self.path.endswith("/v1/traces") and "content-encoding" not in self.headers:
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                        request.resource = attributes_of(resource.resource)
                        request.scopes = list(resource.scope_spans)
                        request.spans += [span for scope in resource.scope_spans for span in scope.spans]
                answer = sink.answer(request)
                (sink.requests if 200 <= answer.status < 300 else sink.refused).append(request)
                answer.before()
                if sink.closing.is_set():
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
