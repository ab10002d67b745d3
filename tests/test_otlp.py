"""Runs as spans, field by field, as a receiver gets them. What happens when it does not take them is in test_otlp_delivery."""

import gzip
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import UTC, datetime
from typing import Any

import anyio
import grpc
import openai
import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otlp_sink import Sink, attributes_of

from tracebus import Usage, agent_action, current_run, custom_event, emit, retry, scope, text, trace, traced
from tracebus.errors import ArgumentError
from tracebus.integrations import openai as client_integration
from tracebus.integrations import opentelemetry as opentelemetry_bridge
from tracebus.integrations.opentelemetry import RunSpanProcessor
from tracebus.outputs.otlp import Exporting, export
from tracebus.outputs.otlp.messages import answers_of, messages_of
from tracebus.outputs.otlp.semconv import GEN_AI, METRICS, OPENINFERENCE
from tracebus.propagation import extract
from tracebus.redaction import MASK, Redactor
from tracebus.runs import KINDS
from tracebus.signals import isolated
from tracebus.testing import deterministic

pytest_plugins = ["providers"]
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("nobody_else_listens")]

Exported = Callable[..., Sink]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def exported(sink: Sink) -> Iterator[Exported]:
    """Export what `say` says, with the arguments of `export()`, and return the sink that has got it."""

    def run(say: Callable[[], Any], **arguments: Any) -> Sink:
        with export(sink.url, **arguments) as exporting:
            say()
            assert exporting.flush()
        return sink

    with isolated():
        yield run


@traced(kind="chat_model")
def generate(messages, temperature=1.0, max_tokens=None):
    run = current_run()
    run.model = "gpt-4o-mini-2024"
    yield "Forty"
    yield "-two."
    run.usage = Usage(1000, 10, cached_tokens=600, reasoning_tokens=4, cache_write_tokens=7)
    run.metadata.update(response_id="r-1", finish_reasons=["stop"])


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is six times seven?"}]


def say_a_trace() -> None:
    with (
        scope(session_id="s-1", user_id="u-1", tags=["web", "beta"], metadata={"plan": "free"}),
        trace("answer", inputs={"question": "What is six times seven?"}) as run,
    ):
        with trace("search", kind="retriever", inputs={"query": "six times seven"}) as found:
            found.output = [{"id": "d-1", "content": "42", "score": 0.5, "metadata": {"page": 3}}, "forty-two"]
        with trace("multiply", kind="tool", inputs={"a": 6, "b": 7}, metadata={"tool_call_id": "c-1"}) as tool:
            tool.output = 42
        run.output = "".join(generate(MESSAGES, temperature=0.5, max_tokens=64))


# -- what a span is ----------------------------------------------------------------------------------------------------


def test_ids_parents_and_times_are_the_run_s(exported):
    with deterministic(datetime(2026, 11, 22, 12, tzinfo=UTC)) as clock:
        runs = []

        def say() -> None:
            with trace("outer") as outer:
                clock.advance(1)
                with trace("inner") as inner:
                    clock.advance(0.5)
            runs.extend((outer, inner))

        sink = exported(say)
    outer, inner = runs
    for run, name in ((outer, "outer"), (inner, "inner")):
        span = sink.span(name)
        assert span.trace_id == outer.id.bytes
        assert span.span_id == run.id.bytes[8:]
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (run.start_ns, run.end_ns)
    assert sink.span("outer").parent_span_id == b""
    assert sink.span("inner").parent_span_id == outer.id.bytes[8:]
    assert sink.span("inner").end_time_unix_nano - sink.span("inner").start_time_unix_nano == 500_000_000


def test_a_parent_elsewhere_is_the_parent_and_its_state_goes_on(exported):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def say() -> None:
        with extract({"traceparent": parent, "tracestate": "vendor=1"}), trace("here"), trace("inside"):
            pass

    sink = exported(say)
    here, inside = sink.span("here"), sink.span("inside")
    assert here.trace_id.hex() == inside.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert here.parent_span_id.hex() == "b7ad6b7169203331"
    assert inside.parent_span_id == here.span_id
    assert (here.trace_state, inside.trace_state) == ("vendor=1", "vendor=1")
    assert here.flags & 0x200  # its parent is remote
    assert not inside.flags & 0x200


def test_a_trace_that_its_beginner_does_not_keep_is_not_sent(exported):
    def say() -> None:
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
        with extract(headers), trace("unsampled"), trace("inside"):
            pass
        with trace("sampled"):
            pass

    assert exported(say).names == ["sampled"]


@pytest.mark.parametrize(
    ("kind", "name", "span_kind"),
    [
        ("chat_model", "chat gpt-4o", Span.SPAN_KIND_CLIENT),
        ("llm", "text_completion gpt-4o", Span.SPAN_KIND_CLIENT),
        ("embedding", "embeddings gpt-4o", Span.SPAN_KIND_CLIENT),
        ("retriever", "retrieval work", Span.SPAN_KIND_CLIENT),
        ("tool", "execute_tool work", Span.SPAN_KIND_INTERNAL),
        ("agent", "invoke_agent work", Span.SPAN_KIND_INTERNAL),
        ("workflow", "invoke_workflow work", Span.SPAN_KIND_INTERNAL),
        *((kind, "work", Span.SPAN_KIND_INTERNAL) for kind in ("chain", "reranker", "guardrail", "evaluator")),
    ],
)
def test_a_kind_has_its_name_and_its_kind_of_span(kind, name, span_kind, exported):
    def say() -> None:
        with trace("work", kind=kind, model="gpt-4o", inputs="x"):
            pass

    span = exported(say).span("work")
    assert (span.name, span.kind) == (name, span_kind)


def test_openinference_alone_keeps_the_run_s_name(exported):
    assert exported(say_a_trace, semconv="openinference").span("generate").name == "generate"


@pytest.mark.parametrize("kind", KINDS)
def test_openinference_knows_every_kind(kind, exported):
    def say() -> None:
        with trace("work", kind=kind):
            pass

    told = exported(say, semconv="openinference").attributes("work")["openinference.span.kind"]
    assert told == {"chat_model": "LLM", "workflow": "CHAIN"}.get(kind, kind.upper())


def test_what_the_app_s_own_sdk_sends_can_be_excluded(sink):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RunSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{sink.url}/v1/traces")))
    tracer = provider.get_tracer("library")
    about = {"gen_ai.operation.name": "chat"}
    try:
        with export(sink.url, exclude_senders="opentelemetry") as exporting:
            with trace("answer") as answer, tracer.start_as_current_span("chat", attributes=about), trace("inside"):
                pass
            assert exporting.flush()
    finally:
        provider.shutdown()
        opentelemetry_bridge.uninstall()
    assert exporting.stats.delivered == exporting.stats.matched == 6
    assert exporting.sent == 2
    by_name = {span.name: span for span in sink.spans}
    assert (sorted(by_name), len(sink.spans)) == (["answer", "chat", "inside"], 3)
    assert by_name["inside"].parent_span_id == by_name["chat"].span_id
    assert by_name["chat"].parent_span_id == by_name["answer"].span_id == answer.id.bytes[8:]
    assert sink.metrics == {}


def test_what_went_well_has_no_status_for_opentelemetry_and_ok_for_openinference(sink):
    for semconv, code in (("gen_ai", Status.STATUS_CODE_UNSET), ("openinference", Status.STATUS_CODE_OK)):
        with isolated(), export(sink.url, semconv=semconv) as exporting, trace(semconv):
            pass
        assert exporting.closed
        assert sink.span(semconv).status.code == code


def test_a_failure_has_its_type_its_message_and_its_stack(exported):
    @traced(name="broken")
    def look_up() -> None:
        try:
            raise ValueError("no such page")
        except ValueError as error:
            raise LookupError("no such book") from error

    def say() -> None:
        with pytest.raises(LookupError):
            look_up()

    sink = exported(say)
    span = sink.span("broken")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "LookupError: no such book")
    assert sink.attributes("broken")["error.type"] == "LookupError"
    told = sink.events("broken")["exception"]
    assert (told["exception.type"], told["exception.message"]) == ("LookupError", "no such book")
    assert told["exception.escaped"] == "True"
    assert "test_otlp.py" in told["exception.stacktrace"]
    assert told["exception.stacktrace"].endswith("caused by ValueError: no such page")
    assert span.events[0].time_unix_nano == span.end_time_unix_nano


async def test_a_cancelled_run_is_marked(sink):
    with isolated(), export(sink.url) as exporting:
        with anyio.move_on_after(0.01):
            async with trace("waits"):
                await anyio.sleep_forever()
        await anyio.to_thread.run_sync(exporting.flush)
    assert sink.span("waits").status.code == Status.STATUS_CODE_ERROR
    assert sink.attributes("waits")["tracebus.run.status"] == "cancelled"
    assert "Cancelled" in sink.attributes("waits")["error.type"]


def test_a_stream_that_is_left_is_no_failure(exported):
    def say() -> None:
        stream = generate(MESSAGES)
        next(stream)
        stream.close()

    sink = exported(say)
    assert sink.span("generate").status.code == Status.STATUS_CODE_UNSET
    assert sink.attributes("generate")["tracebus.run.status"] == "closed_early"
    (answer,) = json.loads(sink.attributes("generate")["gen_ai.output.messages"])
    assert (answer["parts"][0]["content"], answer["finish_reason"]) == ("Forty", "closed_early")


def test_what_is_said_on_a_run_is_an_event(exported):
    def say() -> None:
        with trace("work"):
            emit(retry, attempt=2, wait_s=0.5, error=TimeoutError("too slow"))
            emit(agent_action, tool="search", tool_input={"q": "x"}, log="I look.")
            emit(text, text="hm")
            emit(custom_event, name="cache", data={"hit": True, "keys": ["a"]})
            emit(custom_event, name="note", data="plain")

    events = exported(say).events("work")
    assert events["retry"] == {"attempt": 2, "wait_s": 0.5, "error.type": "TimeoutError", "error.message": "too slow"}
    assert events["agent_action"] == {"tool": "search", "tool_input.q": "x", "log": "I look."}
    assert events["text"] == {"text": "hm"}
    assert events["cache"] == {"hit": True, "keys": '["a"]'}
    assert events["note"] == {"data": "plain"}


def test_the_first_token_is_an_event_and_a_time(exported):
    with deterministic() as clock:

        @traced(kind="llm")
        def count(prompt):
            clock.advance(0.25)
            yield "one"
            clock.advance(0.5)
            yield "two"

        sink = exported(lambda: list(count("x")))
    span = sink.span("count")
    (first,) = span.events
    assert (first.name, first.time_unix_nano - span.start_time_unix_nano) == ("First Token Stream Event", 250_000_000)
    about = sink.attributes("count")
    assert about["gen_ai.response.time_to_first_chunk"] == 0.25
    assert about["gen_ai.request.stream"] is True
    assert about["tracebus.run.chunks"] == 2


# -- the vocabularies --------------------------------------------------------------------------------------------------


def test_gen_ai_names_of_a_model(exported):
    about = exported(say_a_trace).attributes("generate")
    assert about.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert json.loads(about.pop("gen_ai.input.messages")) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What is six times seven?"}]},
    ]
    assert json.loads(about.pop("gen_ai.output.messages")) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Forty-two."}], "finish_reason": "stop"}
    ]
    assert json.loads(about.pop("tracebus.metadata"))["plan"] == "free"
    assert about == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": "s-1",
        "gen_ai.request.model": "gpt-4o-mini-2024",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "r-1",
        "gen_ai.response.model": "gpt-4o-mini-2024",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cache_creation.input_tokens": 7,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "session.id": "s-1",
        "user.id": "u-1",
        "tracebus.tags": ["web", "beta"],
        "tracebus.run.name": "generate",
        "tracebus.run.kind": "chat_model",
        "tracebus.run.status": "ok",
        "tracebus.run.chunks": 2,
    }


def test_gen_ai_names_of_the_other_kinds(exported):
    sink = exported(say_a_trace)
    search, multiply, answer = (sink.attributes(name) for name in ("search", "multiply", "answer"))
    assert search["gen_ai.operation.name"] == "retrieval"
    assert search["gen_ai.retrieval.query.text"] == "six times seven"
    assert json.loads(search["gen_ai.retrieval.documents"]) == [
        {"id": "d-1", "content": "42", "score": 0.5, "metadata": {"page": 3}},
        {"content": "forty-two"},
    ]
    assert multiply["gen_ai.tool.name"] == "multiply"
    assert multiply["gen_ai.tool.call.id"] == "c-1"
    assert json.loads(multiply["gen_ai.tool.call.arguments"]) == {"a": 6, "b": 7}
    assert multiply["gen_ai.tool.call.result"] == "42"
    assert (answer["tracebus.input"], answer["tracebus.output"]) == ("What is six times seven?", "Forty-two.")
    assert "gen_ai.operation.name" not in answer
    assert "tracebus.input" not in search  # it is there already, under its own name


def test_openinference_names_of_a_model(exported):
    about = exported(say_a_trace, semconv=("openinference",)).attributes("generate")
    assert json.loads(about.pop("metadata"))["plan"] == "free"
    assert json.loads(about.pop("input.value")) == {"messages": MESSAGES, "temperature": 0.5, "max_tokens": 64}
    assert json.loads(about.pop("llm.invocation_parameters")) == {"temperature": 0.5, "max_tokens": 64}
    assert about == {
        "openinference.span.kind": "LLM",
        "input.mime_type": "application/json",
        "output.value": "Forty-two.",
        "output.mime_type": "text/plain",
        "llm.provider": "openai",
        "llm.system": "openai",
        "llm.model_name": "gpt-4o-mini-2024",
        "llm.finish_reason": "stop",
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "Be brief.",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "What is six times seven?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "Forty-two.",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 10,
        "llm.token_count.total": 1010,
        "llm.token_count.prompt_details.cache_read": 600,
        "llm.token_count.prompt_details.cache_write": 7,
        "llm.token_count.completion_details.reasoning": 4,
        "session.id": "s-1",
        "user.id": "u-1",
        "tag.tags": ["web", "beta"],
        "tracebus.run.name": "generate",
        "tracebus.run.kind": "chat_model",
        "tracebus.run.status": "ok",
        "tracebus.run.chunks": 2,
    }


def test_openinference_names_of_the_other_kinds(exported):
    sink = exported(say_a_trace, semconv=("openinference",))
    search, multiply, answer = (sink.attributes(name) for name in ("search", "multiply", "answer"))
    assert search["retrieval.documents.0.document.id"] == "d-1"
    assert search["retrieval.documents.0.document.content"] == "42"
    assert search["retrieval.documents.0.document.score"] == 0.5
    assert json.loads(search["retrieval.documents.0.document.metadata"]) == {"page": 3}
    assert search["retrieval.documents.1.document.content"] == "forty-two"
    assert (search["input.value"], search["input.mime_type"]) == ("six times seven", "text/plain")
    assert (multiply["tool.name"], multiply["tool.id"]) == ("multiply", "c-1")
    assert json.loads(multiply["tool.parameters"]) == {"a": 6, "b": 7}
    assert (multiply["output.value"], multiply["output.mime_type"]) == ("42", "application/json")
    assert (answer["input.value"], answer["output.value"]) == ("What is six times seven?", "Forty-two.")
    assert "tracebus.input" not in answer


def test_openinference_names_of_text_models_embeddings_and_rerankers(exported):
    def say() -> None:
        with trace("complete", kind="llm", model="davinci", inputs={"prompt": "Once"}) as run:
            run.output = " upon"
        with trace("embed", kind="embedding", model="text-embedding-3", inputs={"input": ["a", "b"], "dimensions": 8}) as run:
            run.output, run.usage = [[0.1] * 8] * 2, Usage(2)
        with trace(
            "rank", kind="reranker", model="rerank-3", inputs={"query": "q", "documents": ["a", "b"], "top_n": 1}
        ) as run:
            run.output = [{"document": {"text": "b"}, "relevance_score": 0.9}]

    sink = exported(say, semconv=("openinference",))
    complete, embed, rank = (sink.attributes(name) for name in ("complete", "embed", "rank"))
    assert complete["llm.prompts.0.prompt.text"] == "Once"
    assert complete["llm.choices.0.completion.text"] == " upon"
    assert embed["embedding.model_name"] == "text-embedding-3"
    assert [embed[f"embedding.embeddings.{n}.embedding.text"] for n in (0, 1)] == ["a", "b"]
    assert json.loads(embed["embedding.invocation_parameters"]) == {"dimensions": 8}
    assert embed["llm.token_count.prompt"] == 2
    assert "output.value" not in embed
    assert (rank["reranker.query"], rank["reranker.model_name"], rank["reranker.top_k"]) == ("q", "rerank-3", 1)
    assert rank["reranker.input_documents.1.document.content"] == "b"
    assert rank["reranker.output_documents.0.document.content"] == "b"
    assert rank["reranker.output_documents.0.document.score"] == 0.9


def test_both_vocabularies_can_be_written_beside_each_other(exported):
    about = exported(say_a_trace, semconv=("gen_ai", "openinference")).attributes("generate")
    assert about["gen_ai.usage.input_tokens"] == about["llm.token_count.prompt"] == 1000
    assert {GEN_AI["input_messages"][0], "llm.input_messages.0.message.role"} <= about.keys()


def test_the_successor_is_opt_in_and_differs_where_it_has_renamed(exported):
    about = exported(say_a_trace, semconv="gen_ai_next").attributes("generate")
    assert about["gen_ai.usage.cache_write.input_tokens"] == 7
    assert "gen_ai.usage.cache_creation.input_tokens" not in about


@pytest.mark.parametrize("semconv", ["gen_ai", "openinference"])
def test_every_name_on_a_span_is_in_the_tables_or_our_own(semconv, exported):
    table = {name for name, _ in (GEN_AI if semconv == "gen_ai" else OPENINFERENCE).values()}
    sink = exported(say_a_trace, semconv=semconv)
    for span in sink.spans:
        for name in attributes_of(span):
            known = name in table or any(name.startswith(f"{one}.") for one in table)
            assert known or name.startswith("tracebus.") or name in ("session.id", "user.id", "error.type"), name


def test_the_names_are_opentelemetry_s_own():
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    theirs = {value for name, value in vars(gen_ai_attributes).items() if name.isupper() and isinstance(value, str)}
    assert {name for name, _ in GEN_AI.values() if name.startswith("gen_ai.")} <= theirs


@pytest.mark.parametrize(
    ("arguments", "provider"),
    [
        ({"model": "claude-3-5-sonnet"}, "anthropic"),
        ({"model": "azure/my-deployment"}, "azure.ai.openai"),
        ({"model": "my-own"}, "_OTHER"),
        ({"model": "my-own", "metadata": {"ls_provider": "google_genai"}}, "gcp.gemini"),
        ({"name": "anthropic.messages", "model": "my-own"}, "anthropic"),
    ],
)
def test_the_provider_is_what_is_told_or_what_the_model_s_name_says(arguments, provider, exported):
    def say() -> None:
        with trace(**{"name": "work", "kind": "chat_model", "inputs": "x", **arguments}):
            pass

    (span,) = exported(say).spans
    assert attributes_of(span)["gen_ai.provider.name"] == provider


# -- messages ----------------------------------------------------------------------------------------------------------

TOOL_CALL = {"type": "tool_call", "id": "c-1", "name": "look", "arguments": {"q": "x"}}
TOOL_RESULT = {"type": "tool_call_response", "id": "c-1", "response": "found"}
BLOB = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBO"}


@pytest.mark.parametrize(
    ("given", "role", "parts"),
    [
        ("Why?", "user", [{"type": "text", "content": "Why?"}]),
        (["user", "Why?"], "user", [{"type": "text", "content": "Why?"}]),
        ({"type": "human", "content": "Why?"}, "user", [{"type": "text", "content": "Why?"}]),
        ({"role": "assistant", "content": None, "reasoning": "Hm"}, "assistant", [{"type": "reasoning", "content": "Hm"}]),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c-1", "name": "look", "arguments": {"q": "x"}}]},
            "assistant",
            [TOOL_CALL],
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c-1", "type": "function", "function": {"name": "look", "arguments": '{"q": "x"}'}}],
            },
            "assistant",
            [TOOL_CALL],
        ),
        (  # as LangChain has it: in the content as the provider gave it, and again
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c-1", "name": "look", "input": {}, "partial_json": '{"q": "x"}'},
                    {"type": "function_call", "id": "f-2", "call_id": "c-2", "name": "look", "arguments": "{}"},
                    {"type": "text", "text": "Then I think."},
                ],
                "tool_calls": [
                    {"id": "c-1", "name": "look", "args": {"q": "x"}},
                    {"id": "c-2", "name": "look", "arguments": {}},
                    {"id": "c-3", "name": "look", "arguments": {}},
                    {"id": None, "name": "look", "arguments": {}},
                ],
            },
            "assistant",
            [
                {"type": "text", "content": "I look."},
                TOOL_CALL,
                {**TOOL_CALL, "id": "c-2", "arguments": {}},
                {"type": "text", "content": "Then I think."},
                {**TOOL_CALL, "id": "c-3", "arguments": {}},
                {**TOOL_CALL, "id": None, "arguments": {}},
            ],
        ),
        ({"role": "tool", "tool_call_id": "c-1", "content": "found"}, "tool", [TOOL_RESULT]),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c-1", "name": "look", "input": {"q": "x"}}]},
            "assistant",
            [TOOL_CALL],
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c-1", "content": "found"}]},
            "user",
            [TOOL_RESULT],
        ),
        ({"type": "function_call", "call_id": "c-1", "name": "look", "arguments": '{"q": "x"}'}, "assistant", [TOOL_CALL]),
        ({"type": "function_call_output", "call_id": "c-1", "output": "found"}, "tool", [TOOL_RESULT]),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]},
            "user",
            [{"type": "uri", "modality": "image", "uri": "https://a.b/c.png"}],
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,iVBO"}]},
            "user",
            [BLOB],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}],
            },
            "user",
            [BLOB],
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAA", "format": "wav"}}]},
            "user",
            [{"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "AAA"}],
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f-1"}}]},
            "user",
            [{"type": "file", "modality": "document", "file_id": "f-1"}],
        ),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}]},
            "assistant",
            [{"type": "reasoning", "content": "Hm"}],
        ),
        ({"role": "user", "parts": [{"text": "Why?"}]}, "user", [{"type": "text", "content": "Why?"}]),
        ({"role": "user", "content": [{"type": "thing", "x": 1}]}, "user", [{"type": "thing", "x": 1}]),
        ({"question": "Why?"}, "user", [{"type": "text", "content": '{"question": "Why?"}'}]),
        (7, "user", [{"type": "text", "content": "7"}]),
    ],
)
def test_messages_of_every_form_become_the_same_parts(given, role, parts):
    wanted = {"role": role, "parts": parts}
    (message,) = messages_of([given])
    assert message == wanted


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("stop", "stop"),
        ("tool_calls", "tool_call"),
        ("end_turn", "stop"),
        ("max_output_tokens", "length"),
        ("content_filter", "content_filter"),
        ("failed", "error"),
        ("new", "new"),
    ],
)
def test_why_a_model_stopped_is_said_in_the_convention_s_words(told, reason):
    (answer,) = answers_of("Hel", [told], "ok")
    assert answer["finish_reason"] == reason


def test_tool_calls_and_results_are_flattened_for_openinference(exported):
    asked = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://a/b"}}],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c-1", "name": "look", "input": {"q": "x"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c-1", "content": "found"},
                {"type": "tool_result", "tool_use_id": "c-2", "content": {"n": 1}},
            ],
        },
    ]

    def say() -> None:
        with trace("chat", kind="chat_model", inputs={"messages": asked, "tools": [{"name": "look"}]}) as run:
            run.output = {"role": "assistant", "content": None, "tool_calls": [{"id": "c-3", "name": "look", "arguments": {}}]}

    about = exported(say, semconv="openinference").attributes("chat")
    flat = {name.removeprefix("llm.input_messages."): value for name, value in about.items() if "input_messages" in name}
    assert flat == {
        "0.message.role": "user",
        "0.message.contents.0.message_content.type": "text",
        "0.message.contents.0.message_content.text": "Look",
        "0.message.contents.1.message_content.type": "image",
        "0.message.contents.1.message_content.image.image.url": "https://a/b",
        "1.message.role": "assistant",
        "1.message.tool_calls.0.tool_call.id": "c-1",
        "1.message.tool_calls.0.tool_call.function.name": "look",
        "1.message.tool_calls.0.tool_call.function.arguments": '{"q":"x"}',
        "2.message.role": "tool",
        "2.message.content": "found",
        "2.message.tool_call_id": "c-1",
        "3.message.role": "tool",
        "3.message.content": '{"n":1}',
        "3.message.tool_call_id": "c-2",
    }
    assert about["llm.tools.0.tool.json_schema"] == '{"name":"look"}'
    assert about["llm.output_messages.0.message.tool_calls.0.tool_call.id"] == "c-3"


def test_cut_content_is_valid_json(exported):
    def say() -> None:
        with trace("chat", kind="chat_model", inputs={"messages": [{"role": "user", "content": "x" * 200_000}] * 9}) as run:
            run.output = "y" * 200_000

    about = exported(say).attributes("chat")
    assert "characters]" in json.loads(about["gen_ai.input.messages"])[0]["parts"][0]["content"]
    assert "characters]" in json.loads(about["gen_ai.output.messages"])[0]["parts"][0]["content"]


# -- what must not leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ({"content": False}, {}),
        ({}, {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"}),
        ({}, {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "false"}),
        ({}, {"TRACEBUS_CAPTURE": "none"}),
    ],
)
@pytest.mark.parametrize("semconv", ["gen_ai", "openinference"])
def test_content_can_be_left_out(arguments, variables, semconv, exported, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def say() -> None:
        say_a_trace()
        with trace("work"):
            emit(text, text="six times seven")
            emit(agent_action, tool="search", tool_input="six times seven", log="six times seven")

    sink = exported(say, semconv=semconv, **arguments)
    told = [attributes_of(one) for span in sink.spans for one in (span, *span.events)]
    for said in ("six times", "Be brief", "Forty", '"42', "messages"):  # not 42: times may hold that
        assert said not in json.dumps(told)
    about = sink.attributes("generate")
    assert about[GEN_AI["input_tokens"][0] if semconv == "gen_ai" else "llm.token_count.prompt"] == 1000
    if semconv == "gen_ai":
        assert (about["gen_ai.request.temperature"], about["gen_ai.request.max_tokens"]) == (0.5, 64)


def test_content_is_on_spans_when_the_variable_says_so(exported, monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    assert "gen_ai.input.messages" in exported(say_a_trace).attributes("generate")


class SecretStr:
    def __repr__(self) -> str:
        return "canary-secretstr-0123456789"


def test_secrets_do_not_leave(exported):
    canaries = {
        "api_key": "canary-argument-0123456789",
        "headers": {"Authorization": "Bearer canary-header-0123456789"},
        "url": "https://user:canary-url-0123456789@host/",
        "password": SecretStr(),
        "token": SecretStr(),
        "deep": [{"name": "x-api-key", "value": "canary-pair-0123456789"}],
        "text": "use sk-canaryprovider0123456789 please",
    }

    @traced
    def work(**canaries: Any) -> None:
        with trace("chat", kind="chat_model", inputs={"messages": [{"role": "user", "content": canaries["text"]}]}) as run:
            run.output = "password=canary-output-0123456789"
        with trace("tool", kind="tool", inputs=canaries) as run:
            run.output = canaries
            emit(custom_event, name="note", data=canaries)
            emit(retry, attempt=1, error=ValueError("api_key=canary-retry-0123456789"))
        raise ValueError("secret=canary-exception-0123456789") from KeyError("password=canary-cause-0123456789")

    def say() -> None:
        with (
            scope(metadata={"secret": "canary-metadata-0123456789"}, session_id="token=canary-session-0123456789"),
            pytest.raises(ValueError, match="canary"),
        ):
            work(**canaries)

    for semconv in ("gen_ai", "openinference"):
        sink = exported(say, semconv=semconv)
    assert len(sink.spans) == 6
    for request in sink.requests:
        assert b"canary" not in request.body
        assert "canary" not in json.dumps(request.headers)
    assert any(MASK.encode() in request.body for request in sink.requests)


def test_a_redactor_of_one_s_own_sees_every_value(exported):
    rule = Redactor(lambda path, value: "[mail]" if isinstance(value, str) and "@" in value else value)

    def say() -> None:
        with trace("chat", kind="chat_model", inputs={"messages": [{"role": "user", "content": "a@b.c"}]}) as run:
            run.output = "d@e.f"

    about = exported(say, redactor=rule).attributes("chat")
    assert json.loads(about["gen_ai.input.messages"])[0]["parts"][0]["content"] == "[mail]"
    assert json.loads(about["gen_ai.output.messages"])[0]["parts"][0]["content"] == "[mail]"


# -- where to, and as whom ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/v1/traces/"])
def test_an_endpoint_is_a_base_or_the_whole_address(path, sink):
    with isolated(), export(sink.url + path):
        say_a_trace()
    assert {request.path for request in sink.requests} == {"/v1/traces", "/v1/metrics"}


def test_a_base_with_a_path_keeps_it(sink):
    with isolated(), export(f"{sink.url}/api/public/otel", metrics=False):
        say_a_trace()
    assert {request.path for request in sink.requests} == {"/api/public/otel/v1/traces"}


def test_opentelemetry_s_variables_hold(sink, monkeypatch):
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=search,x-other=1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "my-service",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }.items():
        monkeypatch.setenv(name, value)
    with isolated(), export(headers={"x-other": "2"}):
        say_a_trace()
    traces = [request for request in sink.requests if request.path == "/v1/traces"]
    headers = {name.lower(): value for name, value in traces[0].headers.items()}
    assert (headers["x-team"], headers["x-other"], headers["content-encoding"]) == ("search", "2", "gzip")
    (resource,) = trace_service_pb2.ExportTraceServiceRequest.FromString(gzip.decompress(traces[0].body)).resource_spans
    about = attributes_of(resource.resource)
    assert about["service.name"] == "my-service"
    assert about["deployment.environment.name"] == "test"


def test_who_sends_can_be_said(exported):
    sink = exported(say_a_trace, service_name="svc", project="proj", resource={"host.name": "h"}, metrics=False)
    (request,) = sink.requests
    assert {name: request.resource[name] for name in ("service.name", "openinference.project.name", "host.name")} == {
        "service.name": "svc",
        "openinference.project.name": "proj",
        "host.name": "h",
    }
    (scope_spans,) = request.scopes
    assert (scope_spans.scope.name, scope_spans.schema_url) == ("tracebus", "https://opentelemetry.io/schemas/1.41.1")


def test_disabled_means_disabled(sink, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with isolated(), export(sink.url) as exporting:
        say_a_trace()
        assert exporting.flush()
    assert sink.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"endpoint": "localhost:4318"},
        {"endpoint": 4318},
        {"semconv": "genai"},
        {"semconv": ()},
        {"semconv": ("gen_ai", "gen_ai_next")},
        {"protocol": "http/json"},
        {"headers": {"a": 1}},
        {"headers": "a=b"},
        {"timeout_s": 0},
        {"interval_s": -1},
        {"queue_size": 0},
        {"redactor": "x"},
        {"exclude_senders": [print]},
    ],
)
def test_a_wrong_argument_is_named(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        export(**arguments)


def test_a_wrong_header_is_not_repeated_in_the_message():
    with pytest.raises(ArgumentError) as raised:
        export(headers={"authorization": b"canary"})
    assert "canary" not in str(raised.value)


def test_without_the_sdk_it_says_how_to_get_it(run_python: Callable[..., subprocess.CompletedProcess[str]]):
    code = "import sys; sys.modules['opentelemetry'] = None\nimport tracebus.outputs.otlp"
    done = run_python("-c", code, check=False)
    assert 'pip install "tracebus[otlp]"' in done.stderr.splitlines()[-1]


def test_without_grpc_s_exporter_it_says_how_to_get_it(run_python: Callable[..., subprocess.CompletedProcess[str]]):
    code = "import sys; sys.modules['grpc'] = None\nfrom tracebus.outputs.otlp import export; export(protocol='grpc')"
    done = run_python("-c", code, check=False)
    assert 'pip install "tracebus[otlp-grpc]"' in done.stderr.splitlines()[-1]


def test_opentelemetry_s_globals_are_left_alone(run_python: Callable[..., subprocess.CompletedProcess[str]], sink):
    code = f"""
import opentelemetry.trace, opentelemetry.metrics, opentelemetry.context, random, threading
def globals_now():
    metrics = opentelemetry.metrics._internal._METER_PROVIDER
    return opentelemetry.trace._TRACER_PROVIDER, metrics, dict(opentelemetry.context.get_current())
random.seed(1); first = random.random(); random.seed(1)
from tracebus import trace
from tracebus.outputs.otlp import export
threads = threading.active_count()
before = globals_now()
exporting = export({sink.url!r})
assert threading.active_count() == threads, "a thread before the first run"
with trace("work", kind="llm", inputs="x"):
    pass
assert exporting.flush()
after = globals_now()
assert before == after == (None, None, {{}})
assert random.random() == first
exporting.close()
"""
    run_python("-c", code)
    assert sink.names == ["work"]


# -- metrics -----------------------------------------------------------------------------------------------------------


def points(metric: Any) -> list[Any]:
    return list(metric.histogram.data_points)


def test_model_calls_are_measured(exported):
    with deterministic() as clock:

        @traced(kind="chat_model")
        def answer(messages):
            run = current_run()
            run.model = "gpt-4o"
            clock.advance(0.25)
            for piece in ("a", "b", "c"):
                yield piece
                clock.advance(0.5)
            run.usage = Usage(300, 20)

        def say() -> None:
            list(answer("x"))
            with trace("not a model", kind="tool"):
                pass

        metrics = exported(say).metrics
    about = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o",
    }
    tokens = {attributes_of(point)["gen_ai.token.type"]: point for point in points(metrics["gen_ai.client.token.usage"])}
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 300, "output": 20}
    assert list(tokens["input"].explicit_bounds) == [4**power for power in range(14)]
    (duration,) = points(metrics["gen_ai.client.operation.duration"])
    assert (duration.count, duration.sum, attributes_of(duration)) == (1, 1.75, about)
    assert list(duration.explicit_bounds) == pytest.approx(
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    )
    (first,) = points(metrics["gen_ai.client.operation.time_to_first_chunk"])
    assert (first.count, first.sum) == (1, 0.25)
    (following,) = points(metrics["gen_ai.client.operation.time_per_output_chunk"])
    assert (following.count, following.sum) == (2, 1.0)
    assert {name: metric.unit for name, metric in metrics.items()} == {one.name: one.unit for one in METRICS.values()}


@pytest.mark.parametrize("semconv", ["gen_ai", "gen_ai_next", "openinference"])
def test_which_server_a_client_asked_is_on_its_span_and_in_its_metrics(semconv, exported, faulty_service):
    client_integration.install()
    try:
        with openai.OpenAI(base_url=f"{faulty_service}/v1", api_key="sk-canary") as client:
            hello = [{"role": "user", "content": "hello"}]
            sink = exported(lambda: client.chat.completions.create(model="any", messages=hello), semconv=semconv)
    finally:
        client_integration.uninstall()
    about = sink.attributes("openai.chat")
    assert f"http://{about['server.address']}:{about['server.port']}" == faulty_service
    (measured,) = sink.metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert attributes_of(measured).items() >= {name: about[name] for name in ("server.address", "server.port")}.items()


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"server_address": "localhost", "server_port": 8000}, {"server.address": "localhost", "server.port": 8000}),
        ({"server_address": "localhost"}, {"server.address": "localhost"}),
        ({"server_port": 8000}, {}),
        ({"server_address": 7, "server_port": "8000"}, {}),
    ],
)
def test_a_server_can_be_said_in_the_metadata(metadata, told, exported):
    def say() -> None:
        with trace("call", kind="chat_model", metadata=metadata):
            pass

    about = exported(say).attributes("call")
    assert {name: value for name, value in about.items() if name.startswith("server.")} == told


def test_failures_are_measured_by_their_type(exported):
    def say() -> None:
        with pytest.raises(TimeoutError), trace("call", kind="llm", model="gpt-4o"):
            raise TimeoutError

    (point,) = points(exported(say).metrics["gen_ai.client.operation.duration"])
    assert attributes_of(point)["error.type"] == "TimeoutError"


def test_the_successor_counts_tokens(exported):
    metrics = exported(say_a_trace, semconv="gen_ai_next").metrics
    used = {name.removeprefix("gen_ai.client.inference.usage."): metric for name, metric in metrics.items() if "usage" in name}
    assert {name: metric.sum.data_points[0].as_int for name, metric in used.items()} == {
        "input_tokens": 1000,
        "output_tokens": 10,
        "cache_read.input_tokens": 600,
        "cache_write.input_tokens": 7,
        "reasoning.output_tokens": 4,
    }


@pytest.mark.parametrize(("arguments", "variables"), [({"metrics": False}, {}), ({}, {"OTEL_METRICS_EXPORTER": "none"})])
def test_metrics_can_be_left_out(arguments, variables, exported, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert exported(say_a_trace, **arguments).metrics == {}


# -- over gRPC ---------------------------------------------------------------------------------------------------------


class GrpcSink(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.fail: list[grpc.StatusCode] = []

    def Export(self, request: Any, context: Any) -> Any:
        if self.fail:
            context.abort(self.fail.pop(), "not now")
        self.metadata.append(dict(context.invocation_metadata()))
        self.requests.append(request)
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            return trace_service_pb2.ExportTraceServiceResponse()
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def grpc_sink() -> Iterator[tuple[GrpcSink, str]]:
    sink = GrpcSink()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(sink, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(sink, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield sink, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_does_the_same(grpc_sink):
    sink, url = grpc_sink
    with isolated(), export(url, {"X-Team": "search"}, protocol="grpc") as exporting:
        say_a_trace()
        assert exporting.flush()
    held = [resource for one in sink.requests for resource in getattr(one, "resource_spans", ())]
    spans = [span for resource in held for span in resource.scope_spans[0].spans]
    assert sorted(attributes_of(span)["tracebus.run.name"] for span in spans) == ["answer", "generate", "multiply", "search"]
    assert sink.metadata[0]["x-team"] == "search"
    assert any(hasattr(one, "resource_metrics") for one in sink.requests)


def test_grpc_is_tried_again_and_refused_by_its_own_codes(grpc_sink):
    sink, url = grpc_sink
    sink.fail = [grpc.StatusCode.UNAVAILABLE]
    with isolated(), export(url, protocol="grpc", metrics=False) as exporting:
        with trace("later"):
            pass
        assert exporting.flush()
        assert exporting.sent == 1
        sink.fail = [grpc.StatusCode.UNAUTHENTICATED]
        with trace("refused"):
            pass
        assert not exporting.flush()
        assert exporting.stats.dropped == {"rejected": 1}


def test_the_protocol_s_variable_holds(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with isolated(), export("http://127.0.0.1:1") as exporting:
        assert repr(exporting) == "<Exporting to http://127.0.0.1:1: 0 runs sent>"
    assert isinstance(exporting, Exporting)


def test_a_handle_says_where_to(sink):
    with isolated(), export(sink.url) as exporting:
        say_a_trace()
    assert repr(exporting) == f"<Exporting to {sink.url}/v1/traces (closed): 4 runs sent>"


def test_globals_of_this_process_are_untouched():
    assert isinstance(opentelemetry.trace.get_tracer_provider(), opentelemetry.trace.ProxyTracerProvider)
    assert opentelemetry.metrics._internal._METER_PROVIDER is None
