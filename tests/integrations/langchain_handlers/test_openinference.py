"""OpenInference's LangChain tracer (Arize, Phoenix) on the bus: the spans that it exports."""

import json
from typing import Any

import pytest

pytest.importorskip("openinference.instrumentation.langchain", reason="openinference is not installed: make test-handlers")

from openinference.instrumentation import OITracer, TraceConfig
from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracebus import scope, trace


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def handler(exporter: InMemorySpanExporter) -> OpenInferenceTracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OITracer(provider.get_tracer("test"), config=TraceConfig())
    return OpenInferenceTracer(tracer, separate_trace_from_runtime_context=False)


@pytest.fixture
def spans(exporter: InMemorySpanExporter, tree_of: Any) -> Any:
    return lambda: tree_of(exporter.get_finished_spans())


async def test_openinference_shows_the_tree(app: Any, handler: OpenInferenceTracer, spans: Any) -> None:
    await app.answer(handler)
    assert spans().shape() == [("answer", ("search",), ("weather",), ("chat",))]


async def test_openinference_shows_the_kinds(app: Any, handler: OpenInferenceTracer, spans: Any) -> None:
    await app.answer(handler)
    kinds = {span.name: span.attributes["openinference.span.kind"] for span in spans().spans}
    assert kinds == {"answer": "CHAIN", "search": "RETRIEVER", "weather": "TOOL", "chat": "LLM"}


@pytest.mark.parametrize("kind", ["agent", "embedding", "reranker", "guardrail", "evaluator"])
def test_openinference_shows_the_finer_kinds(kind: str, handler: OpenInferenceTracer, spans: Any) -> None:
    with scope(callbacks=[handler]), trace("step", kind=kind):
        pass
    assert spans()["step"].attributes["openinference.span.kind"] == kind.upper()


async def test_openinference_shows_messages_usage_and_model(app: Any, handler: OpenInferenceTracer, spans: Any) -> None:
    await app.answer(handler)
    said = spans()["chat"].attributes
    assert said["llm.model_name"] == "m-1"
    assert json.loads(said["llm.invocation_parameters"])["temperature"] == 0.5
    assert said["llm.input_messages.0.message.role"] == "system"
    assert said["llm.input_messages.1.message.content"] == "How is it in Bern?"
    assert said["llm.output_messages.0.message.content"] == "Sunny."
    assert [said[f"llm.token_count.{name}"] for name in ("prompt", "completion", "total")] == [12, 2, 14]


async def test_openinference_shows_documents_inputs_and_outputs(app: Any, handler: OpenInferenceTracer, spans: Any) -> None:
    await app.answer(handler)
    search, answer = spans()["search"].attributes, spans()["answer"].attributes
    assert search["input.value"] == "How is it in Bern?"
    assert search["retrieval.documents.0.document.content"] == "Bern lies on the Aare."
    assert "How is it in Bern?" in answer["input.value"]
    assert answer["output.value"] == "Sunny."
    assert json.loads(answer["metadata"])["tenant"] == 7
    assert answer["session.id"] == "s-1"


async def test_openinference_shows_what_failed(app: Any, handler: OpenInferenceTracer, spans: Any) -> None:
    await app.fail(handler)
    assert spans().shape() == [("answer", ("search",), ("weather",))]
    statuses = {span.name: span.status.is_ok for span in spans().spans}
    assert statuses == {"answer": False, "search": True, "weather": False}
    assert spans()["weather"].events[0].attributes["exception.message"] == "no such city"


async def test_openinference_keeps_nothing(app: Any, handler: OpenInferenceTracer) -> None:
    await app.answer(handler)
    await app.fail(handler)
    assert (dict(handler.run_map), dict(handler._spans_by_run)) == ({}, {})
