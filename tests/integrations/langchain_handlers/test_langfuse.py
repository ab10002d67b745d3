"""Langfuse's LangChain handler on the bus: the observations that it exports."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langfuse", reason="langfuse is not installed: make test-handlers")

from langfuse import Langfuse
from langfuse._client.resource_manager import LangfuseResourceManager
from langfuse.langchain import CallbackHandler
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracebus import scope, trace

KEY = "pk-lf-test"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    monkeypatch.setattr(LangfuseResourceManager, "_instances", {})  # it keeps a client for each key, with its exporter
    client = Langfuse(
        public_key=KEY,
        secret_key="sk-lf-test",
        base_url="http://127.0.0.1:9",
        span_exporter=exporter,
        tracer_provider=TracerProvider(),
    )
    yield client
    client.shutdown()


@pytest.fixture
def handler(client: Langfuse) -> CallbackHandler:
    return CallbackHandler(public_key=KEY)


@pytest.fixture
def spans(client: Langfuse, exporter: InMemorySpanExporter, tree_of: Any) -> Any:
    def finished() -> Any:
        client.flush()
        return tree_of(exporter.get_finished_spans())

    return finished


async def test_langfuse_shows_the_tree(app: Any, handler: CallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    assert spans().shape() == [("answer", ("search",), ("weather",), ("chat",))]


async def test_langfuse_shows_the_types(app: Any, handler: CallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    types = {span.name: span.attributes["langfuse.observation.type"] for span in spans().spans}
    assert types == {"answer": "chain", "search": "retriever", "weather": "tool", "chat": "generation"}


def test_langfuse_shows_an_agent(handler: CallbackHandler, spans: Any) -> None:
    with scope(callbacks=[handler]), trace("book a table", kind="agent"):
        pass
    assert spans()["book a table"].attributes["langfuse.observation.type"] == "agent"


async def test_langfuse_shows_messages_usage_and_model(app: Any, handler: CallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    said = {name.removeprefix("langfuse.observation."): value for name, value in spans()["chat"].attributes.items()}
    assert said["model.name"] == "m-1"
    assert json.loads(said["model.parameters"])["temperature"] == 0.5
    assert [message["role"] for message in json.loads(said["input"])] == ["system", "user"]
    assert json.loads(said["output"])["content"] == "Sunny."
    assert json.loads(said["usage_details"]).items() >= {"output": 2, "total": 14}.items()
    assert said["completion_start_time"]


async def test_langfuse_shows_inputs_outputs_and_tags(app: Any, handler: CallbackHandler, spans: Any) -> None:
    await app.answer(handler)
    answer = spans()["answer"].attributes
    assert json.loads(answer["langfuse.observation.input"]) == {"question": "How is it in Bern?"}
    assert answer["langfuse.observation.output"] == "Sunny."
    assert answer["langfuse.trace.tags"] == ("web",)


async def test_langfuse_shows_what_failed(app: Any, handler: CallbackHandler, spans: Any) -> None:
    await app.fail(handler)
    assert spans().shape() == [("answer", ("search",), ("weather",))]
    levels = {span.name: span.attributes.get("langfuse.observation.level") for span in spans().spans}
    assert levels == {"answer": "ERROR", "search": None, "weather": "ERROR"}
    assert spans()["weather"].attributes["langfuse.observation.status_message"] == "no such city"


async def test_langfuse_keeps_nothing(app: Any, handler: CallbackHandler) -> None:
    await app.answer(handler)
    await app.fail(handler)
    kept = (handler._runs, handler._context_tokens, handler._run_states, handler._root_run_states)
    assert kept == ({}, {}, {}, {})
