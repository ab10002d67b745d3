"""A model of LangChain that asks through a traced client is one run, and what asks beside it is another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
from bridged import anyio_backend, installed  # noqa: F401
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI, OpenAI

from tracebus import trace
from tracebus.integrations import openai as integration
from tracebus.testing import Recording

pytest_plugins = ["providers"]


@pytest.fixture(autouse=True)
def client_traced() -> Iterator[None]:
    integration.install()
    yield
    integration.uninstall()


HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(faulty_service: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{faulty_service}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def asking(faulty_service: str) -> AsyncIterator[dict[str, Any]]:
    """How a model or a client of a test asks the service, through connections that are closed after it."""
    base = {"base_url": f"{faulty_service}/v1", "api_key": "k", "max_retries": 0}
    with openai.DefaultHttpxClient() as http_client:
        async with openai.DefaultAsyncHttpxClient() as http_async_client:
            yield {**base, "http_client": http_client, "http_async_client": http_async_client}


@pytest.fixture
async def chat(asking: dict[str, Any]) -> ChatOpenAI:
    return ChatOpenAI(model="any", **asking)


class Own(BaseChatModel):
    """An app's own model on a client, with sync methods alone; its stream begins with a chunk that is empty, as many do."""

    client: Any
    _llm_type = "own"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        answer = self.client.chat.completions.create(model="any", messages=HELLO).choices[0].message.content
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(""))
        for chunk in self.client.chat.completions.create(model="any", messages=HELLO, stream=True):
            text = chunk.choices[0].delta.content if chunk.choices else ""
            yield ChatGenerationChunk(message=AIMessageChunk(text or ""))


def ask(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="any", messages=HELLO)


async def consume(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


def names(recorded: Recording) -> list[str]:
    return [run.name for run in recorded.runs]


def tokens_used(recorded: Recording) -> int:
    return sum(run.usage.total_tokens for run in recorded.runs if run.usage)


# -- what the model asks -----------------------------------------------------------------------------------------------

CALL = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "call-1"}])
CONVERSATIONS: dict[str, list[BaseMessage]] = {
    "text": [HumanMessage("hello")],
    "blocks": [HumanMessage([{"type": "text", "text": "hello"}])],
    "tool's answer": [HumanMessage("hello"), CALL, ToolMessage("seen", tool_call_id="call-1")],
    "its own call": [HumanMessage("hello"), CALL],
}


@pytest.mark.parametrize("asked", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("is_response", [False, True], ids=["chat completion", "response"])
async def test_an_awaited_model_is_counted_once_whatever_it_is_asked(
    asked: list[BaseMessage], is_response: bool, chat: ChatOpenAI, recorded: Recording
) -> None:
    await chat.model_copy(update={"use_responses_api": is_response}).ainvoke(asked)
    assert (names(recorded), tokens_used(recorded)) == (["ChatOpenAI"], 14)


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")  # of langchain-openai's, adding up what it was told
async def test_each_of_several_conversations_is_counted_once(chat: ChatOpenAI, recorded: Recording) -> None:
    await chat.agenerate([[HumanMessage(text)] for text in "abc"])
    assert (names(recorded), tokens_used(recorded)) == (["ChatOpenAI"] * 3, 42)


async def test_an_awaited_text_model_is_counted_once(asking: dict[str, Any], recorded: Recording) -> None:
    model = OpenAI(model="any", **asking)
    async with trace("request"):
        await model.ainvoke("hello")
    assert (names(recorded), tokens_used(recorded)) == (["request", "OpenAI"], 14)


async def test_models_are_counted_once_in_tasks_that_begin_at_once(chat: ChatOpenAI, recorded: Recording) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(asyncio.eager_task_factory if hasattr(asyncio, "eager_task_factory") else None)
    try:
        await asyncio.gather(chat.ainvoke("a"), chat.ainvoke("b"))
    finally:
        loop.set_task_factory(before)
    assert names(recorded) == ["ChatOpenAI"] * 2


OWN: dict[str, Callable[[Own], Any]] = {
    "invoke": lambda model: asyncio.to_thread(model.invoke, "hello"),
    "ainvoke": lambda model: model.ainvoke("hello"),
    "stream": lambda model: asyncio.to_thread(lambda: list(model.stream("hello"))),
    "astream": lambda model: consume(model.astream("hello")),
}


@pytest.mark.parametrize("call", OWN.values(), ids=OWN)
async def test_a_model_of_sync_methods_is_counted_once(
    call: Callable[[Own], Any], client: openai.OpenAI, recorded: Recording
) -> None:
    await call(Own(client=client))
    assert names(recorded) == ["Own"]


# -- what others ask meanwhile -----------------------------------------------------------------------------------------


def test_each_call_between_the_chunks_of_a_stream_is_a_run(client: openai.OpenAI, recorded: Recording) -> None:
    chunks = 0
    for _ in Own(client=client).stream("hello"):
        ask(client)
        chunks += 1
    assert sorted(names(recorded)) == ["Own", *["openai.chat"] * chunks]


async def test_a_task_of_the_app_is_no_part_of_a_model_that_is_asked_the_same(
    asking: dict[str, Any], faulty_service: str, recorded: Recording
) -> None:
    class AfterOthers(ChatOpenAI):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            await beside
            return await super()._agenerate(*args, **kwargs)

    model = AfterOthers(model="any", **asking)
    async with openai.AsyncOpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        await RunnableLambda(str).ainvoke("hello")  # LangChain's callbacks know the task now, and what it starts inherits that
        beside = asyncio.ensure_future(client.chat.completions.create(model="any", messages=HELLO))
        await model.ainvoke("hello")
    assert sorted(names(recorded)) == ["AfterOthers", "openai.chat", "str"]


def test_what_a_callback_asks_is_no_part_of_the_model(client: openai.OpenAI, recorded: Recording) -> None:
    class Checking(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            ask(client)

    for _ in Own(client=client).stream("hello", {"callbacks": [Checking()]}):
        break
    assert sorted(names(recorded)) == ["Own", "openai.chat"]
