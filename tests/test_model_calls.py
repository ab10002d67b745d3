"""One call is one run, however many libraries it goes through; and what cannot be read never reaches the app."""

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import openai
import pytest
from any_client import read
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from tracebus import scope, trace
from tracebus.integrations import http_clients
from tracebus.integrations import langchain as langchain_bridge
from tracebus.integrations import openai as integration
from tracebus.integrations.model_calls import expect_part, server_of
from tracebus.integrations.openai.chat import ChatAnswer
from tracebus.sources import Reporter
from tracebus.testing import Recording

pytest_plugins = ["providers"]

HELLO: Any = [{"role": "user", "content": "hello"}]
current_key: ContextVar[str | None] = ContextVar("framework's current run", default=None)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    integration.install()
    yield
    integration.uninstall()


@pytest.fixture
def framework() -> Iterator[Reporter]:
    """A framework that calls models through the clients, and reports them itself."""
    reporter = Reporter("framework")
    forget = reporter.current_in(current_key.get)
    yield reporter
    current_key.set(None)
    forget()


@pytest.fixture
def client(faulty_service: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        yield client


def report(framework: Reporter, kind: str) -> None:
    framework.start("1", name="outer", kind=kind)
    current_key.set("1")


@pytest.mark.parametrize("kind", ["llm", "chat_model"])
def test_a_call_that_a_framework_reports_is_counted_once(
    kind: str, framework: Reporter, client: openai.OpenAI, recorded: Recording
) -> None:
    report(framework, kind)
    client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1", output="Hello world")
    assert recorded.tree() == f"outer {kind} ok"


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # the client's own, on trio
async def test_so_is_an_async_stream(framework: Reporter, faulty_service: str, recorded: Recording) -> None:
    report(framework, "chat_model")
    async with openai.AsyncOpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        await read(await client.chat.completions.create(model="any", messages=HELLO, stream=True))
    framework.end("1", output="Hello world")
    assert recorded.tree() == "outer chat_model ok"


def test_which_server_was_asked_is_known_of_it(framework: Reporter, client: openai.OpenAI, recorded: Recording) -> None:
    report(framework, "chat_model")
    client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1", output="Hello world")
    assert recorded.run("outer").metadata == {"server_address": client.base_url.host, "server_port": client.base_url.port}


def test_which_server_was_asked_is_known_at_the_start_and_of_a_failure(client: openai.OpenAI, recorded: Recording) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="denied", messages=HELLO)
    started, failed = recorded.events
    assert started.run.metadata == failed.run.metadata == server_of(client.base_url)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://api.openai.com/v1/", ("api.openai.com", 443)),
        ("http://localhost:8000/v1", ("localhost", 8000)),
        ("http://user:canary@[::1]/v1", ("::1", 80)),
        ("unix:///tmp/sock", None),
        ("https://host:99999", None),
        ("https://[", None),
        ("", None),
        (None, None),
    ],
)
def test_a_server_is_what_a_url_says(url: object, server: tuple[str, int] | None) -> None:
    told = server_of(url)
    assert told == ({} if server is None else {"server_address": server[0], "server_port": server[1]})


@pytest.mark.parametrize("kind", ["chain", "embedding", "retriever", "agent"])
def test_inside_any_other_run_it_is_a_run(kind: str, framework: Reporter, client: openai.OpenAI, recorded: Recording) -> None:
    report(framework, kind)
    client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1")
    assert recorded.tree() == f"outer {kind} ok\n  openai.chat chat_model ok"


def test_with_something_of_the_apps_in_between_it_is_a_run(
    framework: Reporter, client: openai.OpenAI, recorded: Recording
) -> None:
    report(framework, "chat_model")
    with trace("own"):
        client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1")
    assert recorded.tree() == "outer chat_model ok\n  own chain ok\n    openai.chat chat_model ok"


def test_a_scope_in_between_changes_nothing(framework: Reporter, client: openai.OpenAI, recorded: Recording) -> None:
    report(framework, "chat_model")
    with scope(tags=["a"]):
        client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1")
    assert recorded.tree() == "outer chat_model ok"


def test_when_the_frameworks_run_has_ended_it_is_a_run(
    framework: Reporter, client: openai.OpenAI, recorded: Recording
) -> None:
    report(framework, "chat_model")
    framework.end("1")
    client.chat.completions.create(model="any", messages=HELLO)
    assert [run.name for run in recorded.runs] == ["outer", "openai.chat"]


def test_a_chunk_that_cannot_be_read_is_logged_once_and_reaches_the_app(
    client: openai.OpenAI, recorded: Recording, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatAnswer, "add", lambda self, chunk: chunk.no_such_field)
    for _ in range(2):
        assert len(list(client.chat.completions.create(model="any", messages=HELLO, stream=True))) == 5
    assert [run.status for run in recorded.runs] == ["ok", "ok"]
    assert len(caplog.records) == 1


def test_an_answer_that_cannot_be_read_is_given_to_the_app(
    client: openai.OpenAI, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatAnswer, "read", lambda self, result: result.nothing)
    monkeypatch.setattr(ChatAnswer, "output", lambda self: 1 / 0)
    assert client.chat.completions.create(model="any", messages=HELLO).id == "c-1"
    assert recorded.run("openai.chat").status == "ok"


def test_a_stream_that_cannot_be_followed_is_given_to_the_app(
    client: openai.OpenAI, recorded: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_clients, "_iterator_of", lambda stream: stream.nothing)
    assert len(list(client.chat.completions.create(model="any", messages=HELLO, stream=True))) == 5
    run = recorded.run("openai.chat")
    assert (run.status, run.output) == ("ok", None)
    assert len(caplog.records) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # langchain keeps its clients open
def test_a_call_through_langchains_class_is_counted_once(
    framework: Reporter, faulty_service: str, recorded: Recording
) -> None:
    model = ChatOpenAI(model="any", base_url=f"{faulty_service}/v1", api_key="k")
    report(framework, "chat_model")
    assert model.invoke("hello").content == "Hello world"
    assert "".join(chunk.content for chunk in model.stream("hello")) == "Hello world"
    framework.end("1", output="Hello world")
    assert recorded.tree() == "outer chat_model ok"


@pytest.fixture
def langchain() -> Iterator[None]:
    langchain_bridge.install()
    yield
    langchain_bridge.uninstall()


@pytest.fixture
def chat(langchain: None, faulty_service: str) -> ChatOpenAI:
    return ChatOpenAI(model="any", base_url=f"{faulty_service}/v1", api_key="k", name="chat")


ONCE = "RunnableSequence chain ok\n  RunnableLambda chain ok\n  chat chat_model ok"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_call_of_langchain_is_counted_once_beside_its_bridge(chat: ChatOpenAI, recorded: Recording) -> None:
    chain = RunnableLambda(lambda text: text) | chat
    assert chat.invoke("hello").content == "Hello world"
    assert chain.invoke("hello").content == "Hello world"
    assert "".join(chunk.content for chunk in chain.stream("hello")) == "Hello world"
    assert [answer.content for answer in chat.batch(["hello", "hello"])] == ["Hello world"] * 2
    tree = recorded.tree()
    assert (tree.count("chat chat_model ok"), "openai.chat" in tree, tree.count(ONCE)) == (5, False, 2)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # LangChain's
async def test_an_async_call_of_langchain_is_counted_once_beside_its_bridge(
    chat: ChatOpenAI, recorded: Recording, anyio_backend: str
) -> None:
    chain = RunnableLambda(lambda text: text) | chat
    assert (await chat.ainvoke("hello")).content == "Hello world"
    assert (await chain.ainvoke("hello")).content == "Hello world"
    assert "".join([chunk.content async for chunk in chain.astream("hello")]) == "Hello world"
    assert [answer.content for answer in await chat.abatch(["hello", "hello"])] == ["Hello world"] * 2
    tree = recorded.tree()
    assert (tree.count("chat chat_model ok"), "openai.chat" in tree, tree.count(ONCE)) == (5, False, 2)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_call_of_the_app_beside_langchains_is_its_own(chat: ChatOpenAI, client: openai.OpenAI, recorded: Recording) -> None:
    for _ in chat.stream("hello"):
        client.chat.completions.create(model="any", messages=HELLO)
    with trace("step"):
        client.chat.completions.create(model="any", messages=HELLO)
    assert recorded.run("step").kind == "chain"
    assert {run.parent_id for run in recorded.runs if run.name == "openai.chat"} == {None, recorded.run("step").id}


def test_a_framework_that_tells_of_no_tokens_gets_those_of_the_client(client: openai.OpenAI, recorded: Recording) -> None:
    framework = Reporter("framework", takes_parts=True)
    forget = framework.current_in(current_key.get)
    report(framework, "chat_model")
    list(client.chat.completions.create(model="any", messages=HELLO, stream=True))
    framework.end("1")
    forget()
    (run,) = recorded.runs
    assert (run.status, run.output, run.model) == ("ok", "Hello world", "model-2026")
    assert recorded.tokens == ["Hel", "lo ", "world"]
    assert run.usage.input_tokens == 10


def test_a_call_that_is_expected_is_a_part_and_the_next_is_not(client: openai.OpenAI, recorded: Recording) -> None:
    framework = Reporter("framework", takes_parts=True)
    run = framework.start("1", name="outer", kind="chat_model")
    expect_part(run, HELLO)
    client.chat.completions.create(model="any", messages=[{"role": "user", "content": "something else"}])
    client.chat.completions.create(model="any", messages=HELLO)
    client.chat.completions.create(model="any", messages=HELLO)
    framework.end("1")
    assert [one.name for one in recorded.runs] == ["outer", "openai.chat", "openai.chat"]
    assert recorded.run("outer").output == "Hello world"
