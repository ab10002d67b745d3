"""Libraries that make spans themselves: what they tell is on the bus, once and in its place."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import mcp.shared._otel
import pytest
from mcp.client import Client
from mcp.server import MCPServer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tracebus import Usage, inject, scope, trace, traced
from tracebus.integrations import anthropic as client_integration
from tracebus.integrations import opentelemetry as bridge
from tracebus.propagation import TraceMiddleware
from tracebus.testing import Recording, record

pytest_plugins = ["providers"]
pytestmark = [
    pytest.mark.usefixtures("nobody_else_listens"),
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture) -> Iterator[TracerProvider]:
    caplog.set_level(logging.WARNING)
    provider = TracerProvider()
    processor = bridge.RunSpanProcessor()
    provider.add_span_processor(processor)  # type: ignore[arg-type]
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()
    bridge.uninstall()
    assert [entry.getMessage() for entry in caplog.records if not entry.name.startswith("mcp")] == []


@pytest.fixture
def rec() -> Iterator[Recording]:
    with record() as recording:
        yield recording


@pytest.fixture(params=[False, True], ids=["client untraced", "client traced"])
def client_traced(request: pytest.FixtureRequest) -> Iterator[bool]:
    if request.param:
        client_integration.install()
    yield request.param
    client_integration.uninstall()


async def test_a_call_of_anthropics_client_is_one_run(
    provider: TracerProvider, exporter: InMemorySpanExporter, client_traced: bool, faulty_service: str, rec: Recording
) -> None:
    telemetry: Any = {"tracer_provider": provider, "traces": {"content_mode": "content"}}
    async with (
        anthropic.AsyncAnthropic(base_url=faulty_service, api_key="k", open_telemetry=telemetry) as client,
        trace("app"),
    ):
        await client.messages.create(model="any", max_tokens=9, messages=HELLO)
        async with client.messages.stream(model="any", max_tokens=9, messages=HELLO) as stream:
            async for _ in stream.text_stream:
                pass
    name = "anthropic.messages" if client_traced else "anthropic.messages.create"
    assert rec.tree() == f"app chain ok\n  {name} chat_model ok\n  {name} chat_model ok"
    app, *calls = rec.runs
    for run in calls:
        assert run.model == "model-2026"
        assert run.usage == Usage(10, 9, cached_tokens=5, reasoning_tokens=4, cache_write_tokens=2)
        assert run.inputs["messages"] == HELLO
        assert run.output["content"] == "Hello world"
        assert run.output["tool_calls"][0]["arguments"] == {"up": True}
    assert calls[1].first_token_s is not None
    above = {run.span_id for run in calls} if client_traced else {app.span_id}
    assert {span.parent.span_id for span in exporter.get_finished_spans()} == above


async def test_a_call_that_a_library_tells_of_and_a_client_makes_is_the_librarys(
    provider: TracerProvider, faulty_service: str, rec: Recording
) -> None:
    client_integration.install()
    told = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "asked for"}
    span = provider.get_tracer("library").start_as_current_span("chat", attributes=told)
    async with anthropic.AsyncAnthropic(base_url=faulty_service, api_key="k", open_telemetry=False) as client:
        with span:
            async with client.messages.stream(model="any", max_tokens=9, messages=HELLO) as stream:
                texts = [text async for text in stream.text_stream]
    client_integration.uninstall()
    assert rec.tree() == "chat chat_model ok"
    assert rec.tokens == texts
    assert rec.run("chat").usage.output_tokens == 9


async def test_a_tool_of_an_mcp_server_is_in_the_run_that_calls_it(
    provider: TracerProvider, monkeypatch: pytest.MonkeyPatch, rec: Recording
) -> None:
    monkeypatch.setattr(mcp.shared._otel, "_tracer", provider.get_tracer("mcp"))
    server = MCPServer("weather")

    @server.tool()
    @traced(name="read thermometer", kind="retriever")
    def weather(city: str) -> str:
        return "4 °C"

    async with Client(server) as client:
        with trace("app") as app:
            await client.call_tool("weather", {"city": "Oslo"})
    assert rec.tree() == "app chain ok\n  weather tool ok\n    read thermometer retriever ok"
    assert {run.trace_id for run in rec.runs} == {app.trace_id}


@traced(kind="llm")
async def generate() -> AsyncIterator[str]:
    yield "An "
    yield "answer."


@traced
async def serve(request: Any) -> StreamingResponse:
    return StreamingResponse(generate())


@pytest.mark.parametrize("has_parent", [False, True])
async def test_runs_of_a_request_hang_in_the_span_of_starlette(
    has_parent: bool, provider: TracerProvider, exporter: InMemorySpanExporter, rec: Recording
) -> None:
    middleware = [Middleware(OpenTelemetryMiddleware, tracer_provider=provider), Middleware(TraceMiddleware)]
    app = Starlette(routes=[Route("/", serve)], middleware=middleware)
    headers: dict[str, str] = {}
    if has_parent:
        with scope(user_id="u-1"), trace("client"):
            inject(headers)
    rec.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/", headers=headers)).text == "An answer."
    (request,) = exporter.get_finished_spans()
    assert rec.tree() == "serve chain ok\n  generate llm ok"
    served = rec.run("serve")
    assert (served.trace_id.int, served.remote_parent.span_id) == (request.context.trace_id, request.context.span_id)
    assert (request.parent is not None, served.user_id) == (has_parent, "u-1" if has_parent else None)
