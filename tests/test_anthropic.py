"""The clients of anthropic, over HTTP: the run of each message, and that the app gets what it would get without."""

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import anyio
import pydantic
import pytest
from any_client import AnyClient, closed, entered, first, read, the

from tracebus import Usage, trace
from tracebus.integrations import anthropic as integration
from tracebus.testing import Recording

pytest_plugins = ["providers"]
# The clients leave generators to the collector, traced or not, and trio warns of each.
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")]

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
MESSAGE = {
    "role": "assistant",
    "content": "Hello world",
    "tool_calls": [{"id": "call-1", "name": "look", "arguments": {"up": True}}],
    "reasoning": "I say hello.",
}


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    integration.install()
    yield
    integration.uninstall()


class Client(AnyClient):
    def __init__(self, kind: str, address: str) -> None:
        make: Any = anthropic.Anthropic if kind == "sync" else anthropic.AsyncAnthropic
        super().__init__(make(base_url=address, api_key="sk-ant-canary-0123456789abcdef"))

    async def create(self, messages: Any = HELLO, model: str = "any", **body: Any) -> Any:
        return await self.call("messages.create", model=model, messages=messages, max_tokens=64, **body)

    def stream(self, messages: Any = HELLO, model: str = "any", **body: Any) -> Any:
        return entered(self.client.messages.stream(model=model, messages=messages, max_tokens=64, **body))


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


async def test_a_message_is_a_run(faulty: Client, recorded: Recording) -> None:
    result = await faulty.create(system="Be kind.", stop_sequences=["."])
    assert type(result) is anthropic.types.Message
    run = recorded.run("anthropic.messages")
    assert (run.kind, run.sender, run.status, run.model) == ("chat_model", "anthropic.messages", "ok", "model-2026")
    assert run.output == MESSAGE
    assert recorded.events[0].messages == [{"role": "system", "content": "Be kind."}, *HELLO]
    assert recorded.events[0].params == {"model": "any", "max_tokens": 64, "stop_sequences": ["."]}


async def test_cached_tokens_are_a_part_of_the_input(faulty: Client, recorded: Recording) -> None:
    await faulty.create()
    run = recorded.run("anthropic.messages")
    assert run.usage == Usage(3 + 5 + 2, 9, cached_tokens=5, reasoning_tokens=4, cache_write_tokens=2)
    assert (run.metadata["response_id"], run.metadata["finish_reasons"]) == ("msg-1", ["tool_use"])
    address, port = faulty.client.base_url.host, faulty.client.base_url.port
    assert (run.metadata["server_address"], run.metadata["server_port"]) == (address, port)


class Point(pydantic.BaseModel):
    x: int
    y: int


async def test_an_answer_that_cannot_be_parsed_is_known(faulty: Client, recorded: Recording) -> None:
    ask: Any = {"model": "any", "messages": HELLO, "max_tokens": 64, "output_format": Point}
    with pytest.raises(pydantic.ValidationError) as caught:
        await faulty.call("messages.parse", **ask)
    run = recorded.run("anthropic.messages")
    assert (run.status, run.error, run.output, run.model) == ("error", caught.value, MESSAGE, "model-2026")
    assert run.usage.output_tokens == 9


async def test_plain_text_is_the_output(mock: Client, recorded: Recording) -> None:
    result = await mock.create()
    assert recorded.run("anthropic.messages").output == result.content[0].text


async def test_a_beta_message_is_a_run(mock: Client, recorded: Recording) -> None:
    await mock.call("beta.messages.create", model="any", messages=HELLO, max_tokens=64, betas=["some-beta"])
    assert recorded.run("anthropic.messages").status == "ok"


async def test_a_tool_is_used_and_answered(mock: Client, recorded: Recording) -> None:
    messages: list[Any] = [{"role": "user", "content": "the weather in Oslo"}]
    asked = await mock.create(messages, tools=[TOOL])
    (call,) = asked.content
    messages.append({"role": "assistant", "content": asked.content})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "4 °C"}]})
    await mock.create(messages, tools=[TOOL])
    first_run, second_run = recorded.runs
    calls = [{"id": call.id, "name": "get_weather", "arguments": {"city": "Oslo"}}]
    assert first_run.output == {"role": "assistant", "content": None, "tool_calls": calls}
    assert (second_run.status, len(second_run.inputs["messages"])) == ("ok", 3)


async def test_keys_are_not_recorded(faulty: Client, recorded: Recording) -> None:
    await faulty.create(extra_headers={"x-token": "canary-2"}, extra_query={"key": "canary-3"})
    run = recorded.run("anthropic.messages")
    assert "canary" not in repr((run.inputs, run.output, run.metadata))


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_says_its_tokens(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.create(stream=True)
    assert type(stream) in (anthropic.Stream, anthropic.AsyncStream)
    events = await read(stream)
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    run = recorded.run("anthropic.messages")
    assert recorded.tokens == ["Hel", "lo ", "world"]
    assert (run.status, run.output, run.model) == ("ok", MESSAGE, "model-2026")
    assert run.usage == Usage(10, 9, cached_tokens=5, reasoning_tokens=4, cache_write_tokens=2)
    assert 0 < run.first_token_s < run.duration_s


async def test_the_helper_gives_its_final_message(faulty: Client, recorded: Recording) -> None:
    async with faulty.stream() as stream:
        assert type(stream) in (anthropic.MessageStream, anthropic.AsyncMessageStream)
        result = await the(stream.get_final_message())
    run = recorded.run("anthropic.messages")
    assert (result.content[1].text, run.output, run.status) == ("Hello world", MESSAGE, "ok")


async def test_the_helpers_text_is_what_is_said(mock: Client, recorded: Recording) -> None:
    async with mock.stream() as stream:
        texts = await read(stream.text_stream)
    assert recorded.tokens == texts
    assert recorded.run("anthropic.messages").output == "".join(texts)


async def test_a_raw_response_is_read(faulty: Client, recorded: Recording) -> None:
    raw = await faulty.call("messages.with_raw_response.create", model="any", messages=HELLO, max_tokens=64)
    assert recorded.run("anthropic.messages").output == MESSAGE
    assert (await the(raw.parse())).id == "msg-1"


async def test_the_stream_of_a_raw_response_is_followed(faulty: Client, recorded: Recording) -> None:
    ask: Any = {"model": "any", "messages": HELLO, "max_tokens": 64, "stream": True}
    raw = await faulty.call("messages.with_raw_response.create", **ask)
    await read(await the(raw.parse()))
    run = recorded.run("anthropic.messages")
    assert (run.status, run.output, recorded.tokens) == ("ok", MESSAGE, ["Hel", "lo ", "world"])


async def test_a_streaming_response_is_followed(faulty: Client, recorded: Recording) -> None:
    ask: Any = {"model": "any", "messages": HELLO, "max_tokens": 64}
    async with entered(faulty.client.messages.with_streaming_response.create(**ask)) as raw:
        await the(raw.parse())
    assert recorded.run("anthropic.messages").output == MESSAGE


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_refused_key_fails_the_run_with_the_clients_error(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        await faulty.create(model="denied")
    run = recorded.run("anthropic.messages")
    assert (run.status, run.error, run.output) == ("error", caught.value, None)


async def test_tries_that_fail_are_retry_events_of_one_run(
    faulty: Client, recorded: Recording, request: pytest.FixtureRequest
) -> None:
    await faulty.create(model=f"busy 2 anthropic {request.node.name}")
    (run,) = recorded.runs
    assert (run.status, [event.attempt for event in recorded.of("retry")]) == ("ok", [1, 2])
    assert all("429" in str(event.error) and event.wait_s > 0 for event in recorded.of("retry"))


async def test_a_try_of_a_call_that_handles_an_error_has_its_own(
    faulty: Client, recorded: Recording, request: pytest.FixtureRequest
) -> None:
    try:
        raise ValueError("the first model is down")
    except ValueError:
        await faulty.create(model=f"busy 1 anthropic {request.node.name}")
    (retried,) = recorded.of("retry")
    assert isinstance(retried.error, anthropic.RateLimitError)


async def test_what_stays_broken_fails_after_the_last_try(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        await faulty.create(model="broken")
    assert (recorded.run("anthropic.messages").error, len(recorded.of("retry"))) == (caught.value, 2)


async def test_a_stream_that_is_cut_fails_with_what_there_was(faulty: Client, recorded: Recording) -> None:
    with pytest.raises(Exception, match="peer closed connection") as caught:
        await read(await faulty.create(model="cut", stream=True))
    run = recorded.run("anthropic.messages")
    assert (run.status, run.error) == ("error", caught.value)
    assert run.output == {"role": "assistant", "content": None, "reasoning": "I say hello."}
    assert run.usage == Usage(10, 1, cached_tokens=5, reasoning_tokens=4, cache_write_tokens=2)


async def test_the_helper_closed_early_ends_with_what_there_was(mock: Client, recorded: Recording) -> None:
    async with mock.stream() as stream:
        text = await first(stream.text_stream)
    run = recorded.run("anthropic.messages")
    assert (run.status, run.output) == ("closed_early", text)


async def test_a_stream_closed_early_ends_the_run(faulty: Client, recorded: Recording) -> None:
    stream = await faulty.create(model="hang", stream=True)
    await first(stream)
    await closed(stream)
    assert recorded.run("anthropic.messages").status == "closed_early"


async def test_a_cancelled_stream_is_cancelled(faulty_service: str, recorded: Recording) -> None:
    client = Client("async", faulty_service)
    with trace("app"):
        stream = await client.create(model="hang", stream=True)
        with anyio.CancelScope() as cancelling:
            async for event in stream:
                if event.type == "content_block_delta":
                    cancelling.cancel()
    await closed(client.client)
    run = recorded.run("anthropic.messages")
    assert (run.status, run.output["reasoning"]) == ("cancelled", "I say hello.")


# -- counted once, or not at all ---------------------------------------------------------------------------------------


async def test_nothing_is_recorded_after_uninstall(mock: Client, recorded: Recording) -> None:
    integration.install()
    integration.uninstall()
    integration.uninstall()
    await mock.create()
    assert recorded.runs == []


def test_the_client_is_what_it_was_after_uninstall() -> None:
    assert inspect.iscoroutinefunction(anthropic.AsyncAnthropic.request)
    integration.uninstall()
    assert not hasattr(anthropic.Anthropic.request, "__wrapped__")
    assert not hasattr(anthropic.AsyncAnthropic.request, "__wrapped__")
