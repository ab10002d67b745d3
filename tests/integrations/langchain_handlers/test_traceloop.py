"""Traceloop's LangChain handler (OpenLLMetry) on the bus: the spans that it exports."""

import json
from typing import Any

import pytest

pytest.importorskip("opentelemetry.instrumentation.langchain", reason="traceloop's is not installed: make test-handlers")

from opentelemetry.instrumentation.langchain.callback_handler import TraceloopCallbackHandler
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def handler(exporter: InMemorySpanExporter) -> TraceloopCallbackHandler:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter = MeterProvider().get_meter("test")
    return TraceloopCallbackHandler(
        provider.get_tracer("test"), meter.create_histogram("duration"), meter.create_histogram("tokens")
    )


@pytest.fixture
def spans(exporter: InMemorySpanExporter, tree_of: Any) -> Any:
    return lambda: tree_of(exporter.get_finished_spans())


async def test_traceloop_shows_the_tree(app: Any, handler: TraceloopCallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    assert spans().shape() == [
        ("answer.workflow", ("vector_db_retrieve search",), ("execute_tool weather",), ("chat.chat",)),
    ]


async def test_traceloop_shows_messages_usage_and_model(app: Any, handler: TraceloopCallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    said = spans()["chat.chat"].attributes
    assert (said["gen_ai.request.model"], said["gen_ai.response.model"]) == ("m-1", "m-1")
    assert said["gen_ai.request.temperature"] == 0.5
    assert "It is sun." in said["gen_ai.system_instructions"]
    assert "How is it in Bern?" in said["gen_ai.input.messages"]
    assert "Sunny." in said["gen_ai.output.messages"]
    assert [said[f"gen_ai.usage.{name}_tokens"] for name in ("input", "output", "total")] == [12, 2, 14]


async def test_traceloop_shows_inputs_and_outputs(app: Any, handler: TraceloopCallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    said = spans()["answer.workflow"].attributes
    assert json.loads(said["traceloop.entity.input"])["inputs"] == {"question": "How is it in Bern?"}
    assert json.loads(said["traceloop.entity.output"])["outputs"] == "Sunny."
    assert json.loads(spans()["execute_tool weather"].attributes["traceloop.entity.output"])["output"] == "sun"


async def test_traceloop_shows_what_failed(app: Any, handler: TraceloopCallbackHandler, spans: Any) -> None:
    await app.fail(handler)
    statuses = {span.name: span.status.is_ok for span in spans().spans}
    assert statuses == {"answer.workflow": False, "vector_db_retrieve search": True, "execute_tool weather": False}
    assert "no such city" in spans()["execute_tool weather"].status.description


async def test_traceloop_keeps_nothing(app: Any, handler: TraceloopCallbackHandler) -> None:
    await app.answer(handler)
    await app.fail(handler)
    assert handler.spans == {}
