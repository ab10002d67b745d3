"""The clients of openai, over HTTP: the run of each call, and that the app gets what it would get without."""

import gc
import inspect
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import openai
import pydantic
import pytest
from any_client import AnyClient, closed, entered, first, items, read, the

from tracebus import Usage, current_run, scope, trace, traced
from tracebus.integrations import openai as integration
from tracebus.integrations.model_calls import Record
from tracebus.integrations.openai.responses import ResponsesAnswer
from tracebus.redaction import MASK
from tracebus.testing import Recording

pytest_plugins = ["providers"]
# The clients leave generators to the collector, traced or not, and trio warns of each.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

HELLO = [{"role": "user", "content": "hello"}]
FULL_USAGE = Usage(10, 4, 14, cached_tokens=6, reasoning_tokens=3)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    integration.install()
    yield
    integration.uninstall()


class Client(AnyClient):
    def __init__(self, kind: str, address: str) -> None:
        make: Any = openai.OpenAI if kind == "sync" else openai.AsyncOpenAI
        super().__init__(make(base_url=f"{address}/v1", api_key="sk-canary-0123456789abcdef"))

    async def chat(self, messages: Any = HELLO, model: str = "any", **body: Any) -> Any:
        return await self.call("chat.completions.create", model=model, messages=messages, **body)


@pytest.fixture(params=["sync", "async"])
async def mock(request: pytest.FixtureRequest, mock_service: str) -> AsyncIterator[Client]:
    client = Client(request.param, mock_service)
    yield client
    await closed(client.client)


@pytest.fixture(params=["sync", "async"])
async def faulty(request: pytest.FixtureRequest, faulty_service: str) -> AsyncIterator[Client]:
    client = Client(request.param, faulty_service)
    yield client
    await closed(client.client)


# -- whole answers -----------------------------------------------------------------------------------------------------


async def test_a_chat_completion_is_a_run(faulty: Client, recorded: Recording) -> None:
    result = await faulty.chat(temperature=0.5)
    assert type(result) is openai.types.chat.ChatCompletion
    run = recorded.run("openai.chat")
    assert (run.kind, run.sender, run.status, run.model) == ("chat_model", "openai.chat", "ok", "model-2026")
    assert (run.output, run.usage) == (result.choices[0].message.content, FULL_USAGE)
    assert run.inputs == {"messages": HELLO, "model": "any", "temperature": 0.5}
    assert (run.metadata["response_id"], run.metadata["finish_reasons"]) == ("c-1", ["stop"])
    assert [event.signal_name for event in recorded.events] == ["chat_model_start", "llm_end"]


async def test_several_choices_are_a_list(faulty: Client, recorded: Recording) -> None:
    await faulty.chat(n=2)
    assert recorded.run("openai.chat").output == ["Hello world", "Hello world"]


async def test_a_call_is_nested_in_the_run_around_it(mock: Client, recorded: Recording) -> None:
    with scope(user_id="u-1"), trace("app"):
        await mock.chat()
        assert current_run().name == "app"
    assert str(recorded.tree()) == "app chain ok\n  openai.chat chat_model ok"
    assert recorded.run("openai.chat").user_id == "u-1"


async def test_tool_calls_are_in_the_message(mock: Client, recorded: Recording) -> None:
    result = await mock.chat([{"role": "user", "content": "the weather in Oslo"}])
    (call,) = result.choices[0].message.tool_calls
    expected = {"id": call.id, "name": "get_weather", "arguments": {"city": "Oslo"}}
    assert recorded.run("openai.chat").output == {"role": "assistant", "content": None, "tool_calls": [expected]}


class Point(pydantic.BaseModel):
    x: int
    y: int


async def test_structured_output_is_parsed_as_ever(mock: Client, recorded: Recording) -> None:
    ask = {"model": "m", "messages": [{"role": "user", "content": "a point"}], "response_format": Point}
    result = await mock.call("chat.completions.parse", **ask)
    assert result.choices[0].message.parsed == Point(x=3, y=4)
    run = recorded.run("openai.chat")
    assert run.output == result.choices[0].message.content
    assert run.inputs["response_format"]["json_schema"]["name"] == "Point"


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("chat.completions.parse", {"messages": HELLO, "response_format": Point}),
        ("responses.parse", {"input": "hello", "text_format": Point}),
    ],
)
async def test_an_answer_that_cannot_be_parsed_is_known(
    path: str, ask: dict[str, Any], faulty: Client, recorded: Recording
) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        await faulty.call(path, model="any", **ask)
    (run,) = recorded.runs
    assert (run.status, run.error, run.usage, run.model) == ("error", caught.value, FULL_USAGE, "model-2026")
    assert (run.output if isinstance(run.output, str) else run.output["content"]) == "Hello world"


async def test_a_raw_answer_that_cannot_be_parsed_is_read_once(faulty: Client, recorded: Recording) -> None:
    ask: Any = {"model": "any", "messages": HELLO, "response_format": Point}
    async with entered(faulty.client.chat.completions.with_streaming_response.parse(**ask)) as raw:
        with pytest.raises(pydantic.ValidationError):
            await the(raw.parse())
    run = recorded.run("openai.chat")
    assert (run.status, run.output, run.usage) == ("ok", "Hello world", FULL_USAGE)


async def test_a_response_is_a_run(faulty: Client, recorded: Recording) -> None:
    history = [
        {"role": "user", "content": "look"},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "nothing"},
    ]
    result = await faulty.call("responses.create", model="any", instructions="Be kind.", input=history)
    run = recorded.run("openai.responses")
    assert run.metadata["finish_reasons"] == ["tool_calls"]
    assert (run.kind, run.status, run.model, run.usage) == ("chat_model", "ok", result.model, FULL_USAGE)
    call = {"id": "call-1", "name": "look", "arguments": {"up": True}}
    assert run.output == {
        "role": "assistant",
        "content": "Hello world",
        "tool_calls": [call],
        "reasoning": "I say hello.",
    }
    assert recorded.events[0].messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "name": "look", "arguments": {}}]},
        {"role": "tool", "content": "nothing", "tool_call_id": "1"},
    ]


SAID = {"type": "message", "content": [{"type": "output_text", "text": "Hel"}]}
CALLED = {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}
CUT_OFF = {"incomplete_details": {"reason": "max_output_tokens"}}


@pytest.mark.parametrize(
    ("told", "reasons"),
    [
        ({"status": "completed", "output": [SAID]}, ["stop"]),
        ({"status": "completed", "output": [SAID, CALLED]}, ["tool_calls"]),
        ({"status": "incomplete", "output": [SAID], **CUT_OFF}, ["max_output_tokens"]),
        ({"status": "incomplete", "output": [SAID], "incomplete_details": None}, ["incomplete"]),
        ({"status": "failed", "output": []}, ["failed"]),
        ({"status": "in_progress", "output": []}, []),
        ({"status": "queued", "output": []}, []),
    ],
)
def test_why_a_response_ended_is_known(told: dict[str, Any], reasons: list[str]) -> None:
    answer = ResponsesAnswer()
    answer.read(json.loads(json.dumps({"id": "r-1", "model": "m", **told}), object_hook=Record))
    assert answer.metadata() == {"response_id": "r-1", "finish_reasons": reasons}


async def test_what_tools_of_any_kind_return_is_the_tools(faulty: Client, recorded: Recording) -> None:
    history = [
        {"type": "custom_tool_call", "call_id": "1", "name": "code", "input": "1 + 1"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "2"},
        {"type": "local_shell_call_output", "id": "2", "output": "found"},
    ]
    await faulty.call("responses.create", model="any", input=history)
    assert recorded.events[0].messages == [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "name": "code", "arguments": "1 + 1"}]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "tool", "content": "found", "tool_call_id": "2"},
    ]


async def test_a_response_to_a_text_is_a_run(mock: Client, recorded: Recording) -> None:
    result = await mock.call("responses.create", model="any", input="hello")
    assert recorded.run("openai.responses").output == result.output_text
    assert recorded.events[0].messages == HELLO


async def test_a_completion_is_a_run_of_a_text_model(faulty: Client, recorded: Recording) -> None:
    await faulty.call("completions.create", model="any", prompt="hello")
    run = recorded.run("openai.completions")
    assert (run.kind, run.status, run.output, run.usage) == ("llm", "ok", "Hello world", FULL_USAGE)
    assert recorded.events[0].prompts == ["hello"]


async def test_embeddings_are_a_run_that_holds_their_size(mock: Client, recorded: Recording) -> None:
    result = await mock.call("embeddings.create", model="small", input=["hello"])
    assert result.data[0].embedding == [0.25, -0.5, 0.75]
    run = recorded.run("openai.embeddings")
    assert (run.kind, run.status, run.output) == ("embedding", "ok", {"count": 1, "dimensions": 3})


async def test_what_is_no_model_call_makes_no_run(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(openai.NotFoundError):
        await faulty.call("models.retrieve", model="any")
    assert recorded.runs == []


async def test_keys_are_not_recorded(faulty: Client, recorded: Recording) -> None:
    await faulty.chat(extra_headers={"x-token": "canary-2"}, extra_query={"key": "canary-3"}, extra_body={"extra": 1})
    run = recorded.run("openai.chat")
    assert "canary" not in repr((run.inputs, run.output, run.metadata))
    assert run.inputs["extra"] == 1


async def test_the_headers_for_a_tool_are_masked(faulty: Client, recorded: Recording) -> None:
    tool = {"type": "mcp", "server_label": "docs", "server_url": "https://host/", "headers": {"X-Tenant": "canary"}}
    await faulty.call("responses.create", model="any", input="hello", tools=[tool, {"type": "web_search"}])
    masked = {**tool, "headers": {"X-Tenant": MASK}}
    assert recorded.run("openai.responses").inputs["tools"] == [masked, {"type": "web_search"}]
    assert tool["headers"] == {"X-Tenant": "canary"}  # which the app goes on with


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_says_its_tokens_and_the_usage_of_its_last_chunk(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.chat(stream=True, stream_options={"include_usage": True})
    assert type(stream) in (openai.Stream, openai.AsyncStream)
    chunks = await read(stream)
    assert len(chunks) == 5
    run = recorded.run("openai.chat")
    assert recorded.tokens == ["Hel", "lo ", "world"]
    assert (run.status, run.output, run.usage, run.model) == ("ok", "Hello world", FULL_USAGE, "model-2026")
    assert 0 < run.first_token_s < run.duration_s
    assert run.metadata["finish_reasons"] == ["stop"]


async def test_the_chunk_is_in_the_tokens_event(faulty: Client) -> None:
    said = []
    with scope(callbacks=[lambda sender, event: said.append(event)]):
        chunks = await read(await faulty.chat(stream=True))
    heard = [event.chunk for event in said if event.signal_name == "llm_new_token"]
    assert len(heard) == 3
    assert all(one is other for one, other in zip(heard, chunks, strict=False))


async def test_the_run_of_a_stream_is_not_current_between_its_chunks(faulty: Client, recorded: Recording) -> None:
    with trace("app"):
        async for _ in items(await faulty.chat(stream=True)):
            assert current_run().name == "app"
            with trace("step"):
                pass
    assert recorded.tree().startswith("app chain ok\n  openai.chat chat_model ok\n  step chain ok")


async def test_streamed_tool_calls_are_put_together(mock: Client, recorded: Recording) -> None:
    await read(await mock.chat([{"role": "user", "content": "the weather in Oslo"}], stream=True))
    run = recorded.run("openai.chat")
    assert [call["arguments"] for call in run.output["tool_calls"]] == [{"city": "Oslo"}]
    assert recorded.tokens == []


async def test_the_events_of_a_response_are_a_run(faulty: Client, recorded: Recording) -> None:
    await read(await faulty.call("responses.create", model="any", input="hello", stream=True))
    run = recorded.run("openai.responses")
    assert recorded.tokens == ["Hel", "lo ", "world"]
    assert (run.status, run.usage, run.output["content"]) == ("ok", FULL_USAGE, "Hello world")


async def test_a_completions_stream_is_a_run(faulty: Client, recorded: Recording) -> None:
    await read(await faulty.call("completions.create", model="any", prompt="hello", stream=True))
    run = recorded.run("openai.completions")
    assert (recorded.tokens, run.output, run.usage) == (["Hel", "lo ", "world"], "Hello world", FULL_USAGE)


async def test_the_clients_own_helper_works_on_the_stream(mock: Client, recorded: Recording) -> None:
    manager = mock.client.chat.completions.stream(model="m", messages=HELLO)
    async with entered(manager) as stream:
        result = await the(stream.get_final_completion())
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("ok", result.choices[0].message.content)
    assert "".join(recorded.tokens) == run.output


async def test_the_helper_closed_early_ends_the_run(mock: Client, recorded: Recording) -> None:
    manager = mock.client.chat.completions.stream(model="m", messages=HELLO)
    async with entered(manager) as stream:
        await first(stream)
    assert recorded.run("openai.chat").status == "closed_early"


# -- raw responses -----------------------------------------------------------------------------------------------------


async def test_a_raw_response_is_read(faulty: Client, recorded: Recording) -> None:
    raw = await faulty.call("chat.completions.with_raw_response.create", model="any", messages=HELLO)
    run = recorded.run("openai.chat")
    assert (run.status, run.output, run.usage) == ("ok", "Hello world", FULL_USAGE)
    assert (raw.retries_taken, raw.parse().choices[0].message.content) == (0, "Hello world")


async def test_the_stream_of_a_raw_response_is_followed(faulty: Client, recorded: Recording) -> None:
    ask: Any = {"model": "any", "messages": HELLO, "stream": True}
    raw = await faulty.call("chat.completions.with_raw_response.create", **ask)
    stream = raw.parse()
    assert stream is raw.parse()
    await read(stream)
    run = recorded.run("openai.chat")
    assert (run.status, run.output, recorded.tokens) == ("ok", "Hello world", ["Hel", "lo ", "world"])


def streaming_response(client: Client, **body: Any) -> Any:
    return entered(client.client.chat.completions.with_streaming_response.create(model="any", messages=HELLO, **body))


async def test_a_streaming_response_that_is_parsed_is_read(faulty: Client, recorded: Recording) -> None:
    async with streaming_response(faulty) as raw:
        result = await the(raw.parse())
    run = recorded.run("openai.chat")
    assert (run.status, run.output, result.id) == ("ok", "Hello world", "c-1")


async def test_a_streaming_response_that_is_left_alone_is_closed_early(faulty: Client, recorded: Recording) -> None:
    async with streaming_response(faulty) as raw:
        assert raw.status_code == 200
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("closed_early", None)


async def test_the_stream_of_a_streaming_response_is_followed(faulty: Client, recorded: Recording) -> None:
    async with streaming_response(faulty, stream=True) as raw:
        assert len(await read(await the(raw.parse()))) == 5
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("ok", "Hello world")


async def test_lines_that_the_app_reads_itself_are_a_whole_run(faulty: Client, recorded: Recording) -> None:
    async with streaming_response(faulty, stream=True) as raw:
        assert "data: [DONE]" in await read(raw.iter_lines())
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("ok", None)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_refused_key_fails_the_run_with_the_clients_error(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await faulty.chat(model="denied")
    run = recorded.run("openai.chat")
    assert (run.status, run.error, run.output) == ("error", caught.value, None)


async def test_tries_that_fail_are_retry_events_of_one_run(
    faulty: Client, recorded: Recording, request: pytest.FixtureRequest
) -> None:
    await faulty.chat(model=f"busy 2 {request.node.name}")
    (run,) = recorded.runs
    retries = recorded.of("retry")
    assert (run.status, [event.attempt for event in retries]) == ("ok", [1, 2])
    assert all("429" in str(event.error) and event.wait_s > 0 for event in retries)


async def test_a_try_of_a_call_that_handles_an_error_has_its_own(
    faulty: Client, recorded: Recording, request: pytest.FixtureRequest
) -> None:
    try:
        raise ValueError("the first model is down")
    except ValueError:
        await faulty.chat(model=f"busy 1 {request.node.name}")
    (retried,) = recorded.of("retry")
    assert isinstance(retried.error, openai.RateLimitError)


async def test_what_stays_broken_fails_after_the_last_try(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await faulty.chat(model="broken")
    assert (recorded.run("openai.chat").error, len(recorded.of("retry"))) == (caught.value, 2)


async def test_a_stream_that_is_cut_fails_with_what_there_was(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.chat(model="cut", stream=True)
    with pytest.raises(openai.APIConnectionError) as caught:
        await read(stream)
    run = recorded.run("openai.chat")
    assert (run.status, run.error, run.output, run.usage) == ("error", caught.value, "Hello world", None)
    assert recorded.tokens == ["Hel", "lo ", "world"]


@pytest.mark.parametrize("path", ["responses", "completions"])
async def test_other_streams_that_are_cut_keep_what_there_was(path: str, faulty: Client, recorded: Recording) -> None:
    ask = {"input": "hello"} if path == "responses" else {"prompt": "hello"}
    stream = await faulty.call(f"{path}.create", model="cut", stream=True, **ask)
    with pytest.raises(openai.APIConnectionError):
        await read(stream)
    run = recorded.run(f"openai.{path}")
    assert (run.status, run.output) == ("error", "Hel" if path == "responses" else "Hello world")


async def test_a_stream_closed_early_ends_with_what_there_was(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.chat(model="hang", stream=True)
    async for _ in items(stream):
        break
    await closed(stream)
    run = recorded.run("openai.chat")
    assert (run.status, run.output, run.error) == ("closed_early", "Hel", None)
    assert stream.response.is_closed


async def test_leaving_the_streams_block_ends_the_run(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.chat(model="hang", stream=True)
    async with entered(stream) as same:
        await first(stream)
    assert same is stream
    assert recorded.run("openai.chat").status == "closed_early"


def test_a_stream_that_is_dropped_is_closed_at_once(faulty_service: str, recorded: Recording) -> None:
    gc.disable()
    try:
        with openai.OpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
            for _ in client.chat.completions.create(model="hang", messages=HELLO, stream=True):
                break
            assert recorded.run("openai.chat").status == "closed_early"
    finally:
        gc.enable()


def test_a_stream_that_is_never_read_ends_when_it_is_collected(faulty_service: str, recorded: Recording) -> None:
    with openai.OpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        client.chat.completions.create(model="any", messages=HELLO, stream=True).response.read()
        gc.collect()
    assert recorded.run("openai.chat").status == "closed_early"


async def test_a_cancelled_stream_is_cancelled(faulty_service: str, recorded: Recording) -> None:
    client = Client("async", faulty_service)
    stream = await client.chat(model="hang", stream=True)
    with anyio.CancelScope() as cancelling:
        async for chunk in stream:
            if chunk.choices[0].delta.content == "world":
                cancelling.cancel()
    await closed(client.client)
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("cancelled", "Hello world")


async def test_a_call_cancelled_before_its_answer_is_cancelled(faulty_service: str, recorded: Recording) -> None:
    client = Client("async", faulty_service)
    with anyio.move_on_after(0.2):
        await client.chat(model="hang at once")
    await closed(client.client)
    assert recorded.run("openai.chat").status == "cancelled"


# -- counted once, or not at all ---------------------------------------------------------------------------------------


async def test_a_call_inside_the_apps_own_model_function_is_a_run_of_its_own(mock: Client, recorded: Recording) -> None:
    @traced(kind="llm")
    async def generate() -> None:
        await mock.chat()

    await generate()
    assert str(recorded.tree()) == "generate llm ok\n  openai.chat chat_model ok"


async def test_nothing_is_recorded_after_uninstall(mock: Client, recorded: Recording) -> None:
    integration.uninstall()
    integration.uninstall()
    await mock.chat()
    assert recorded.runs == []


async def test_install_twice_counts_once(mock: Client, recorded: Recording) -> None:
    integration.install()
    await mock.chat()
    assert len(recorded.runs) == 1


def test_the_client_is_what_it_was_after_uninstall() -> None:
    integration.uninstall()
    assert not hasattr(openai.OpenAI.request, "__wrapped__")
    assert not hasattr(openai.AsyncOpenAI.request, "__wrapped__")


def test_the_wrapped_client_looks_like_itself() -> None:
    assert inspect.iscoroutinefunction(openai.AsyncOpenAI.request)
    assert list(inspect.signature(openai.OpenAI.request).parameters) == ["self", "cast_to", "options", "stream", "stream_cls"]
