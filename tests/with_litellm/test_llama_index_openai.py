"""llama-index's own class for OpenAI, over a client that is traced, too: each call is one run.

That class needs an older openai than the other tests: make test-litellm.
"""

from collections.abc import Iterator

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from tracebus.integrations import llama_index as integration
from tracebus.integrations import openai as client_integration
from tracebus.testing import Recording

pytest_plugins = ["providers"]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.once]

HELLO = [ChatMessage(role="user", content="hello")]
TEXT = "Hi there, how are you doing today?"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """llama-index is for asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    integration.install()
    client_integration.install()
    yield
    client_integration.uninstall()
    integration.uninstall()


@pytest.fixture
def llm(mock_service: str) -> OpenAI:
    return OpenAI(model="gpt-4o-mini", api_base=f"{mock_service}/v1", api_key="sk-canary")


def test_a_chat_is_one_run(llm: OpenAI, recorded: Recording) -> None:
    llm.chat(HELLO)
    (run,) = recorded.runs
    assert (run.name, run.status, run.output, run.model) == ("OpenAI.chat", "ok", TEXT, "gpt-4o-mini")
    assert (run.usage.input_tokens, run.usage.output_tokens) == (5, 9)
    assert "canary" not in repr((run.inputs, run.metadata))


def test_a_stream_is_one_run(llm: OpenAI, recorded: Recording) -> None:
    list(llm.stream_chat(HELLO))
    (run,) = recorded.runs
    assert (run.name, run.status, run.output) == ("OpenAI.stream_chat", "ok", TEXT)
    assert "".join(recorded.tokens) == TEXT


async def test_an_async_stream_is_one_run(llm: OpenAI, recorded: Recording) -> None:
    async for _ in await llm.astream_chat(HELLO):
        pass
    (run,) = recorded.runs
    assert (run.name, run.status, run.output) == ("OpenAI.astream_chat", "ok", TEXT)


def test_a_completion_is_one_run(llm: OpenAI, recorded: Recording) -> None:
    llm.complete("hello")
    (run,) = recorded.runs
    assert (run.name, run.status, run.output) == ("OpenAI.complete", "ok", TEXT)
