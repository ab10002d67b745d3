"""GenAI spans that libraries make become runs on the bus, and no call becomes two."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from langchain_core.language_models import FakeListChatModel
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from tracebus import Usage, current_run, scope, subscribe, trace, traced
from tracebus.integrations import opentelemetry as bridge
from tracebus.integrations.langchain import TracebusHandler
from tracebus.integrations.opentelemetry import RunSpanProcessor, attributes
from tracebus.runs import innermost
from tracebus.sources import Reporter
from tracebus.testing import Recording, record

pytestmark = pytest.mark.usefixtures("nobody_else_listens")

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1"}


@pytest.fixture
def processor() -> Iterator[RunSpanProcessor]:
    processor = RunSpanProcessor()
    yield processor
    processor.shutdown()
    assert innermost() is None
    bridge.uninstall()


@pytest.fixture
def tracer(processor: RunSpanProcessor) -> otel.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(processor)  # type: ignore[arg-type]
    return provider.get_tracer("tests")


@pytest.fixture
def rec() -> Iterator[Recording]:
    with record() as recording:
        yield recording


# -- one span ----------------------------------------------------------------------------------------------------------


def test_a_model_call_is_a_run_with_all_that_the_span_tells(tracer: otel.Tracer, rec: Recording) -> None:
    with tracer.start_as_current_span("chat m-1", kind=SpanKind.CLIENT, attributes=CHAT) as span:
        span.set_attributes(
            {
                "gen_ai.provider.name": "acme",
                "gen_ai.request.temperature": 0.5,
                "gen_ai.response.model": "m-1-2026",
                "gen_ai.response.id": "r-1",
                "gen_ai.response.finish_reasons": ["stop"],
                "gen_ai.response.time_to_first_chunk": 0.25,
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 4,
                "gen_ai.usage.cache_read.input_tokens": 3,
                "gen_ai.usage.reasoning.output_tokens": 1,
                "gen_ai.conversation.id": "late",
                "server.address": "localhost",
                "server.port": 8000,
                "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}]),
                "gen_ai.input.messages": json.dumps(
                    [{"role": "user", "parts": [{"type": "text", "content": "Why "}, {"type": "text", "content": "blue?"}]}]
                ),
                "gen_ai.output.messages": json.dumps(
                    [{"role": "assistant", "parts": [{"type": "text", "content": "Air."}], "finish_reason": "stop"}]
                ),
            }
        )
    run = rec.run("chat m-1")
    assert (run.kind, run.status, run.sender, run.model) == ("chat_model", "ok", "opentelemetry", "m-1-2026")
    assert run.usage == Usage(10, 4, cached_tokens=3, reasoning_tokens=1)
    assert run.output == "Air."
    assert run.inputs["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why blue?"}]
    assert run.inputs["temperature"] == 0.5
    server = {"server_address": "localhost", "server_port": 8000}
    assert run.metadata == {"provider": "acme", "response_id": "r-1", "finish_reasons": ["stop"], **server}
    assert run.first_token_s == 0.25
    context = span.get_span_context()
    assert (run.span_id, run.trace_id.int) == (context.span_id, context.trace_id)


def test_a_runs_times_are_the_spans(tracer: otel.Tracer, rec: Recording) -> None:
    start = time.time_ns() - 5_000_000_000
    span = tracer.start_span("chat m-1", attributes=CHAT, start_time=start)
    span.end(start + 2_000_000_000)
    run = rec.run("chat m-1")
    assert run.start_ns == start
    assert run.duration_s == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("told", "kind", "name"),
    [
        ({"gen_ai.operation.name": "text_completion"}, "llm", "span"),
        ({"gen_ai.operation.name": "generate_content"}, "chat_model", "span"),
        ({"gen_ai.operation.name": "embeddings"}, "embedding", "span"),
        ({"gen_ai.operation.name": "retrieval"}, "retriever", "span"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}, "tool", "weather"),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "Meteo"}, "agent", "Meteo"),
        ({"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "flow"}, "workflow", "flow"),
        ({"gen_ai.operation.name": "plan"}, "chain", "span"),
        ({"openinference.span.kind": "LLM"}, "chat_model", "span"),
        ({"openinference.span.kind": "RERANKER"}, "reranker", "span"),
        ({"openinference.span.kind": "TOOL", "tool.name": "weather"}, "tool", "weather"),
        ({"openinference.span.kind": "PROMPT"}, "chain", "span"),
        ({"llm.request.type": "completion", "gen_ai.system": "openai"}, "llm", "span"),
        ({"traceloop.span.kind": "agent", "traceloop.entity.name": "Meteo"}, "agent", "Meteo"),
    ],
)
def test_the_kind_is_what_the_conventions_say(
    told: dict[str, Any], kind: str, name: str, tracer: otel.Tracer, rec: Recording
) -> None:
    with tracer.start_as_current_span("span", attributes=told):
        pass
    assert rec.run(name).kind == kind


def test_other_spans_are_no_runs(tracer: otel.Tracer, rec: Recording) -> None:
    with tracer.start_as_current_span("GET /", attributes={"http.request.method": "GET", "gen_ai.provider.name": "acme"}):
        pass
    assert rec.events == []


@pytest.mark.parametrize(
    ("told", "messages", "output", "usage"),
    [
        pytest.param(
            {
                "openinference.span.kind": "LLM",
                "llm.input_messages.0.message.role": "system",
                "llm.input_messages.0.message.content": "Be kind.",
                "llm.input_messages.1.message.role": "user",
                "llm.input_messages.1.message.contents.0.message_content.type": "text",
                "llm.input_messages.1.message.contents.0.message_content.text": "Why?",
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c-1",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "look_up",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"word": "sky"}',
                "llm.token_count.prompt": 7,
                "llm.token_count.completion": 2,
                "llm.token_count.total": 9,
                "llm.token_count.prompt_details.cache_read": 5,
            },
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c-1", "name": "look_up", "arguments": {"word": "sky"}}],
            },
            Usage(7, 2, 9, cached_tokens=5),
            id="openinference",
        ),
        pytest.param(
            {
                "llm.request.type": "chat",
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "Why?",
                "gen_ai.prompt.10.role": "user",
                "gen_ai.prompt.10.content": "Last.",
                "gen_ai.prompt.2.role": "assistant",
                "gen_ai.prompt.2.content": "Hm.",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "Air.",
                "gen_ai.usage.prompt_tokens": 7,
                "gen_ai.usage.completion_tokens": 2,
                "llm.usage.total_tokens": 9,
            },
            [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Hm."},
                {"role": "user", "content": "Last."},
            ],
            "Air.",
            Usage(7, 2, 9),
            id="openllmetry",
        ),
        pytest.param(
            CHAT
            | {
                "gen_ai.input.messages": json.dumps(
                    [
                        {"role": "user", "parts": [{"type": "text", "content": "Why?"}]},
                        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f", "arguments": {"a": 1}}]},
                        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "4"}]},
                    ]
                ),
                "gen_ai.output.messages": json.dumps(
                    [
                        {
                            "role": "assistant",
                            "parts": [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "Air."}],
                        }
                    ]
                ),
            },
            [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "name": "f", "arguments": {"a": 1}}]},
                {"role": "tool", "tool_call_id": "c", "content": "4"},
            ],
            {"role": "assistant", "content": "Air.", "reasoning": "Hm."},
            None,
            id="v1.41.1",
        ),
    ],
)
def test_messages_and_usage_are_read_in_each_convention(
    told: dict[str, Any], messages: Any, output: Any, usage: Usage | None, tracer: otel.Tracer, rec: Recording
) -> None:
    with tracer.start_as_current_span("call", attributes=told):
        pass
    run = rec.run("call")
    assert (run.inputs["messages"], run.output, run.usage) == (messages, output, usage)


def test_an_agent_tells_what_it_was_asked_and_what_came_of_it(tracer: otel.Tracer, rec: Recording) -> None:
    said = [
        {"role": role, "parts": [{"type": "text", "content": text}]}
        for role, text in (("system", "Be kind."), ("user", "Why?"), ("assistant", "Air."))
    ]
    told = {"gen_ai.operation.name": "invoke_agent", "pydantic_ai.all_messages": json.dumps(said), "final_result": "Air."}
    with tracer.start_as_current_span("meteo", attributes=told):
        pass
    run = rec.run("meteo")
    assert run.inputs == {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]}
    assert run.output == "Air."


def test_tools_and_retrievals_tell_what_they_were_given(tracer: otel.Tracer, rec: Recording) -> None:
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "gen_ai.tool.call.arguments": '{"a": 1}'}
    with tracer.start_as_current_span("execute_tool t", attributes=tool) as span:
        span.set_attribute("gen_ai.tool.call.result", "4 °C")
    found = {
        "openinference.span.kind": "RETRIEVER",
        "input.value": "sky",
        "retrieval.documents.0.document.content": "Air.",
        "retrieval.documents.0.document.score": 0.5,
    }
    with tracer.start_as_current_span("search", attributes=found):
        pass
    assert (rec.run("t").inputs, rec.run("t").output) == ({"a": 1}, "4 °C")
    assert rec.of("retriever_start")[0].query == "sky"
    assert rec.run("search").output == [{"content": "Air.", "score": 0.5}]


@pytest.mark.parametrize("value", ["[", '{"a"', "[[[", "null", "", "[1, null]", '{"role": 1}', '[{"parts": [1, {}]}]', "[]"])
def test_content_that_makes_no_sense_hurts_nobody(value: str, tracer: otel.Tracer, rec: Recording) -> None:
    told = CHAT | {"gen_ai.input.messages": value, "gen_ai.output.messages": value, "gen_ai.usage.input_tokens": "many"}
    with tracer.start_as_current_span("chat", attributes=told):
        pass
    assert rec.run("chat").status == "ok"
    assert rec.run("chat").usage is None


def test_session_and_user_of_the_span_are_the_runs_and_of_what_is_inside(tracer: otel.Tracer, rec: Recording) -> None:
    told = CHAT | {"gen_ai.conversation.id": "s-1", "user.id": "u-1"}
    with tracer.start_as_current_span("chat", attributes=told), trace("inside"):
        pass
    assert [(run.session_id, run.user_id) for run in rec.runs] == [("s-1", "u-1"), ("s-1", "u-1")]


def test_an_error_of_the_span_is_the_runs(tracer: otel.Tracer, rec: Recording) -> None:
    with pytest.raises(ValueError, match="no"), tracer.start_as_current_span("chat", attributes=CHAT):
        raise ValueError("no")
    run = rec.run("chat")
    assert (run.status, str(run.error)) == ("error", "ValueError: no")


def test_an_error_without_an_exception_is_one_too(tracer: otel.Tracer, rec: Recording) -> None:
    with tracer.start_as_current_span("chat", attributes=CHAT) as span:
        span.set_attribute("error.type", "rate_limit")
        span.set_status(Status(StatusCode.ERROR, "slow down"))
    assert str(rec.run("chat").error) == "rate_limit: slow down"


def test_a_cancelled_call_is_told_from_a_failed_one(tracer: otel.Tracer, rec: Recording) -> None:
    with tracer.start_as_current_span("chat", attributes=CHAT) as span:
        span.add_event("exception", {"exception.type": "asyncio.exceptions.CancelledError"})
        span.set_status(StatusCode.ERROR)
    assert rec.run("chat").status == "cancelled"


# -- many spans --------------------------------------------------------------------------------------------------------


def test_runs_of_spans_and_runs_nest_in_each_other(tracer: otel.Tracer, rec: Recording) -> None:
    @traced(kind="tool")
    def look_up() -> None:
        run = current_run()
        assert run is not None
        assert run.parent is not None

    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "Meteo"}
    with trace("app"), tracer.start_as_current_span("invoke_agent", attributes=agent):
        with tracer.start_as_current_span("chat m-1", attributes=CHAT), tracer.start_as_current_span("POST"):
            pass
        look_up()
    assert rec.tree() == "app chain ok\n  Meteo agent ok\n    chat m-1 chat_model ok\n    look_up tool ok"
    assert len({run.trace_id for run in rec.runs}) == 1


def test_a_root_span_makes_a_root_of_its_trace(tracer: otel.Tracer, rec: Recording) -> None:
    chat = tracer.start_as_current_span("chat", attributes=CHAT)
    with tracer.start_as_current_span("GET /") as request, chat, trace("inside"):
        pass
    with tracer.start_as_current_span("alone", attributes=CHAT) as alone, trace("inside alone"):
        pass
    trace_id = request.get_span_context().trace_id
    assert [rec.run(name).trace_id.int for name in ("chat", "inside")] == [trace_id, trace_id]
    assert rec.run("chat").remote_parent.span_id == request.get_span_context().span_id
    trace_id = alone.get_span_context().trace_id
    assert [rec.run(name).trace_id.int for name in ("alone", "inside alone")] == [trace_id, trace_id]


def test_a_span_that_becomes_known_after_its_start_is_a_run_all_the_same(tracer: otel.Tracer, rec: Recording) -> None:
    outer = tracer.start_span("outer")
    outer.set_attribute("openinference.span.kind", "CHAIN")
    with otel.use_span(outer, end_on_exit=True), tracer.start_as_current_span("inner", attributes=CHAT):
        pass
    with tracer.start_as_current_span("late") as late:
        late.set_attributes({"traceloop.span.kind": "task"})
    assert rec.tree() == "outer chain ok\n  inner chat_model ok\nlate chain ok"
    assert rec.run("late").start_ns == late.start_time  # type: ignore[attr-defined]


def test_a_span_that_is_ended_in_another_thread_ends_its_run(tracer: otel.Tracer, rec: Recording) -> None:
    span = tracer.start_span("chat", attributes=CHAT)
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()
    assert rec.run("chat").status == "ok"


async def test_spans_of_concurrent_tasks_do_not_mix(tracer: otel.Tracer, rec: Recording) -> None:
    async def call(name: str) -> None:
        with trace(f"run {name}"):
            await anyio.sleep(0)
            with tracer.start_as_current_span(f"chat {name}", attributes=CHAT):
                await anyio.sleep(0)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(call, f"{number}")
    assert all(rec.run(f"chat {number}").parent_id == rec.run(f"run {number}").id for number in range(10))


def test_an_explicit_parent_is_the_parent(tracer: otel.Tracer, rec: Recording) -> None:
    agent = tracer.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"})
    with trace("elsewhere"):
        call = tracer.start_span("chat", otel.set_span_in_context(agent, otel_context.Context()), attributes=CHAT)
        call.end()
    agent.end()
    assert rec.tree() == "agent agent ok\n  chat chat_model ok\nelsewhere chain ok"


# -- one call, told twice ----------------------------------------------------------------------------------------------


def test_a_call_that_a_client_integration_traces_is_its_run_alone(tracer: otel.Tracer, rec: Recording) -> None:
    client = Reporter("openai.chat")
    forget = client.current_in(lambda: "1")
    client.start("1", name="openai.chat", kind="chat_model", inputs={"messages": []})
    with tracer.start_as_current_span("chat m-1", attributes=CHAT | {"gen_ai.usage.input_tokens": 3}), trace("inside"):
        pass
    client.end("1", output="Air.")
    forget()
    assert rec.tree() == "openai.chat chat_model ok\n  inside chain ok"
    run = rec.run("openai.chat")
    assert (run.usage, run.model, run.output) == (Usage(3), "m-1", "Air.")


def test_a_call_that_langchain_makes_is_its_run_alone(tracer: otel.Tracer, rec: Recording) -> None:
    class Model(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            with tracer.start_as_current_span("chat m-1", attributes=CHAT | {"gen_ai.usage.input_tokens": 3}):
                return super()._call(*args, **kwargs)

    with tracer.start_as_current_span("GET /"):
        Model(responses=["Air."]).invoke("Why?", {"callbacks": [TracebusHandler()]})
    assert rec.tree() == "Model chat_model ok"
    assert rec.run("Model").model == "m-1"


def test_two_spans_of_one_call_are_one_run(tracer: otel.Tracer, rec: Recording) -> None:
    told = {"openinference.span.kind": "LLM", "llm.token_count.prompt": 3}
    with tracer.start_as_current_span("chat m-1", attributes=CHAT), tracer.start_as_current_span("LLM", attributes=told):
        pass
    assert rec.tree() == "chat m-1 chat_model ok"
    assert rec.run("chat m-1").usage == Usage(3)


def test_an_agent_in_an_agent_is_two(tracer: otel.Tracer, rec: Recording) -> None:
    told = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "A"}
    with tracer.start_as_current_span("a", attributes=told), tracer.start_as_current_span("a", attributes=told):
        pass
    assert rec.tree() == "A agent ok\n  A agent ok"


def test_a_tool_that_a_framework_reports_and_a_span_tells_of_is_one(tracer: otel.Tracer, rec: Recording) -> None:
    framework = Reporter("framework")
    forget = framework.current_in(lambda: "1")
    framework.start("1", name="weather", kind="tool")
    told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.call.arguments": "{}"}
    with tracer.start_as_current_span("tools/call weather", attributes=told):
        pass
    framework.end("1")
    forget()
    assert rec.tree() == "weather tool ok"


# -- nobody listens, somebody fails ------------------------------------------------------------------------------------


def test_where_nobody_listens_nothing_is_made(tracer: otel.Tracer, processor: RunSpanProcessor) -> None:
    with tracer.start_as_current_span("GET /"), tracer.start_as_current_span("chat", attributes=CHAT):
        assert current_run() is None
    assert len(processor._reporter) == len(processor._pending) == 0


def test_a_callback_of_the_scope_hears_of_spans_inside(tracer: otel.Tracer) -> None:
    heard: list[str] = []
    chat = tracer.start_as_current_span("chat", attributes=CHAT)
    with scope(callbacks=[lambda sender, event: heard.append(event.signal_name)]), tracer.start_as_current_span("GET /"), chat:
        pass
    assert heard == ["chat_model_start", "llm_end"]


def test_nothing_is_kept_of_spans_that_have_ended(tracer: otel.Tracer, processor: RunSpanProcessor, rec: Recording) -> None:
    for _ in range(10):
        chat, again = (tracer.start_as_current_span(name, attributes=CHAT) for name in ("chat", "again"))
        with tracer.start_as_current_span("GET /"), chat, again:
            pass
    assert len(processor._reporter) == len(processor._pending) == len(processor._parts) == 0


def test_a_subscriber_that_raises_does_not_reach_who_starts_a_span(
    tracer: otel.Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(sender: object, event: object) -> None:
        raise ValueError("no")

    with subscribe(refuse, raise_error=True), scope(tags=["t"]), tracer.start_as_current_span("chat", attributes=CHAT):
        pass
    assert "tracebus failed at the start of a span, the app goes on" in caplog.text


def test_after_its_shutdown_it_is_silent(tracer: otel.Tracer, processor: RunSpanProcessor, rec: Recording) -> None:
    span = tracer.start_span("open", attributes=CHAT)
    processor.shutdown()
    with tracer.start_as_current_span("chat", attributes=CHAT):
        pass
    span.end()
    assert rec.tree() == "open chat_model ok"
    assert processor.force_flush()


def test_lists_that_were_flattened_keep_their_order() -> None:
    told = {f"llm.prompts.{number}.prompt.text": str(number) for number in (10, 2, 0)} | {"llm.prompts.x": 1}
    assert attributes._unflattened(told, "llm.prompts.") == []
    del told["llm.prompts.x"]
    assert [one["prompt"]["text"] for one in attributes._unflattened(told, "llm.prompts.")] == ["0", "2", "10"]
