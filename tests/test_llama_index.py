"""llama-index with models that need no network: its spans as runs, its events as tokens."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import ChatMessage, CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.tools import FunctionTool

from tracebus import current_run, trace, traced
from tracebus.integrations import llama_index as integration
from tracebus.testing import Recording

HELLO = [ChatMessage(role="user", content="one two three")]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """llama-index is for asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    integration.install()
    yield
    integration.uninstall()


@pytest.fixture
def llm() -> MockLLM:
    return MockLLM(max_tokens=3)


def test_a_chat_is_one_run_however_the_model_does_it(llm: MockLLM, recorded: Recording) -> None:
    result = llm.chat(HELLO)  # calls complete()
    run = recorded.run("MockLLM.chat")
    assert (len(recorded.runs), run.kind, run.sender, run.status) == (1, "chat_model", "llama_index", "ok")
    assert run.output == result.message.content
    assert recorded.events[0].messages == [{"role": "user", "content": "one two three"}]


def test_headers_of_a_request_are_not_recorded(llm: MockLLM, recorded: Recording) -> None:
    llm.chat(HELLO, extra_headers={"x-token": "canary"}, extra_query={"key": "canary"}, temperature=0.5)
    inputs = recorded.run("MockLLM.chat").inputs
    assert ("canary" in repr(inputs), inputs["temperature"]) == (False, 0.5)


def test_a_completion_is_a_run_of_a_text_model(llm: MockLLM, recorded: Recording) -> None:
    llm.complete("one two three")
    run = recorded.run("MockLLM.complete")
    assert (run.kind, run.output, recorded.events[0].prompts) == ("llm", "text text text", ["one two three"])


def test_a_stream_says_its_tokens(llm: MockLLM, recorded: Recording) -> None:
    assert len(list(llm.stream_chat(HELLO))) == 3
    run = recorded.run("MockLLM.stream_chat")
    assert (run.status, recorded.tokens, run.output) == ("ok", ["text ", "text ", "text"], "text text text")
    assert run.first_token_s is not None


def test_a_stream_closed_early_ends_with_what_there_was(llm: MockLLM, recorded: Recording) -> None:
    with contextlib.closing(llm.stream_chat(HELLO)) as stream:
        next(stream)
    run = recorded.run("MockLLM.stream_chat")
    assert (run.status, run.output) == ("closed_early", "text ")


async def test_async_calls_are_runs(llm: MockLLM, recorded: Recording) -> None:
    with trace("app"):
        await llm.achat(HELLO)
    assert recorded.tree() == "app chain ok\n  MockLLM.achat chat_model ok"


class Broken(CustomLLM):
    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="broken")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise ValueError("out of order")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise ValueError("out of order")


class Local(CustomLLM):
    """Knows no async, as models that run in the process: its base class makes that of what is sync."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="local")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return CompletionResponse(text="a b")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def stream() -> Iterator[CompletionResponse]:
            yield CompletionResponse(text="a ", delta="a ")
            yield CompletionResponse(text="a b", delta="b")

        return stream()


@pytest.mark.parametrize(("method", "asked"), [("astream_chat", HELLO), ("astream_complete", "one two three")])
async def test_an_async_stream_of_a_sync_model_is_one_run(method: str, asked: Any, recorded: Recording) -> None:
    llm = Local()
    stream = await getattr(llm, method)(asked)
    assert [item.delta async for item in stream] == ["a ", "b"]
    (run,) = recorded.runs
    assert (run.name, run.status, run.output, recorded.tokens) == (f"Local.{method}", "ok", "a b", ["a ", "b"])
    assert (integration._runs.skipped, integration._runs._unread) == ({}, {})


async def test_streams_beside_each_other_are_runs_of_their_own(recorded: Recording) -> None:
    llm = Local()
    one, other = await llm.astream_chat(HELLO), await llm.astream_chat(HELLO)
    own = llm.stream_chat([ChatMessage(role="user", content="four")])
    assert [item.delta async for item in one] == [item.delta async for item in other] == [item.delta for item in own]
    assert [run.name for run in recorded.runs] == ["Local.astream_chat", "Local.astream_chat", "Local.stream_chat"]
    assert {(run.status, run.output) for run in recorded.runs} == {("ok", "a b")}
    list(llm.stream_chat(HELLO))
    assert len(recorded.runs) == 4


def test_an_error_ends_the_run_and_reaches_the_app(recorded: Recording) -> None:
    with pytest.raises(ValueError, match="out of order") as caught:
        Broken().complete("a")
    run = recorded.run("Broken.complete")
    assert (run.status, run.error) == ("error", caught.value)


@pytest.fixture
def index(llm: MockLLM, monkeypatch: pytest.MonkeyPatch) -> VectorStoreIndex:
    monkeypatch.setattr(Settings, "_llm", llm)
    monkeypatch.setattr(Settings, "_embed_model", MockEmbedding(embed_dim=3))
    integration.uninstall()
    made = VectorStoreIndex.from_documents([Document(text="a b c"), Document(text="d e f")])
    integration.install()
    return made


def test_a_query_is_a_tree_of_its_public_steps(index: VectorStoreIndex, recorded: Recording) -> None:
    index.as_query_engine().query("what?")
    tree = recorded.tree()
    assert tree.startswith(
        "RetrieverQueryEngine.query chain ok\n"
        "  VectorIndexRetriever.retrieve retriever ok\n"
        "    MockEmbedding.get_query_embedding embedding ok\n"
    )
    assert tree.endswith("MockLLM.complete llm ok")
    assert recorded.run("MockEmbedding.get_query_embedding").output == {"count": 3}
    assert len(recorded.of("retriever_end")[0].documents) == 2


def test_what_is_traced_inside_a_tool_is_nested_there(recorded: Recording) -> None:
    @traced
    def look_up(city: str) -> str:
        assert current_run().parent.name == "FunctionTool.call"
        return "4 °C"

    def weather(city: str) -> str:
        """Tell the weather."""
        return look_up(city)

    FunctionTool.from_defaults(weather).call(city="Oslo")
    assert recorded.tree() == "FunctionTool.call tool ok\n  look_up chain ok"


def test_install_twice_counts_once_and_uninstall_ends_it(llm: MockLLM, recorded: Recording) -> None:
    root = get_dispatcher()
    integration.install()
    llm.chat(HELLO)
    integration.uninstall()
    integration.uninstall()
    llm.chat(HELLO)
    assert len(recorded.runs) == 1
    assert not [handler for handler in (*root.span_handlers, *root.event_handlers) if "Tracebus" in type(handler).__name__]


def test_nothing_is_kept_of_what_has_ended(llm: MockLLM, recorded: Recording) -> None:
    llm.chat(HELLO)
    list(llm.stream_chat(HELLO))
    assert (len(integration._runs.reporter), integration._runs.skipped) == (0, {})
