"""litellm over OpenAI's and Anthropic's services: one run a call, whatever is traced below it.

It needs an older openai than the other tests, so that it has an environment of its own: make test-litellm.
"""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import anyio
import anyio.to_thread
import litellm
import pytest

from tracebus import Event, subscribe, trace
from tracebus.integrations import litellm as integration
from tracebus.integrations import openai as client_integration
from tracebus.testing import Recording

pytest_plugins = ["providers"]
# What litellm and the clients below it leave open is not what is tested here.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.once]

HELLO = [{"role": "user", "content": "hello"}]
TEXT = "Hi there, how are you doing today?"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """litellm is for asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True, params=[False, True], ids=["client untraced", "client traced"])
def client_traced(request: pytest.FixtureRequest) -> Iterator[bool]:
    integration.install()
    integration.install()
    if request.param:
        client_integration.install()
    yield request.param
    client_integration.uninstall()
    integration.uninstall()


@pytest.fixture
def ended(recorded: Recording) -> Callable[..., None]:
    """Wait until a run has ended, or so many: litellm says so from a thread, a moment after the call.

    A test that does not wait would leave its ends to the next one.
    """
    ends: SimpleQueue[Event] = SimpleQueue()
    subscribe(lambda sender, event: ends.put(event), "*_end", "*_error", sender="litellm")

    def wait(runs: int = 1) -> None:
        for _ in range(runs):
            ends.get(timeout=10)

    return wait


def openai_of(address: str, **more: Any) -> dict[str, Any]:
    given = {"model": "openai/gpt-4o-mini", "messages": HELLO, "api_base": f"{address}/v1", "api_key": "sk-canary"}
    return {**given, **more}


def anthropic_of(address: str) -> dict[str, Any]:
    return openai_of(address, model="anthropic/claude-3", api_base=address)


def test_a_completion_is_one_run(mock_service: str, recorded: Recording, ended: Callable) -> None:
    with trace("app"):
        litellm.completion(**openai_of(mock_service, temperature=0.5))
    ended()
    assert recorded.tree("kind") == "app chain\n  completion chat_model"
    run = recorded.run("completion")
    assert (run.sender, run.status, run.output, run.model) == ("litellm", "ok", TEXT, "gpt-4o-mini")
    assert (run.usage.input_tokens, run.usage.output_tokens) == (5, 9)
    assert run.inputs == {"messages": HELLO, "model": "gpt-4o-mini", "temperature": 0.5}
    assert f"http://{run.metadata['server_address']}:{run.metadata['server_port']}" == mock_service


def test_a_stream_has_its_whole_text(mock_service: str, client_traced: bool, recorded: Recording, ended: Callable) -> None:
    for _ in litellm.completion(**openai_of(mock_service), stream=True):
        pass
    ended()
    (run,) = recorded.runs
    assert (run.status, run.output) == ("ok", TEXT)
    assert "".join(recorded.tokens) == (TEXT if client_traced else "")
    assert 0 < run.first_token_s <= run.duration_s


async def test_async_calls_are_one_run(mock_service: str, recorded: Recording, ended: Callable) -> None:
    with trace("app"):
        await litellm.acompletion(**openai_of(mock_service))
        async for _ in await litellm.acompletion(**openai_of(mock_service), stream=True):
            pass
    await anyio.to_thread.run_sync(ended, 2)
    assert recorded.tree() == "app chain ok\n  completion chat_model ok\n  completion chat_model ok"
    assert {run.output for run in recorded.runs[1:]} == {TEXT}


def test_other_providers_are_traced_as_well(mock_service: str, recorded: Recording, ended: Callable) -> None:
    litellm.completion(**anthropic_of(mock_service))
    ended()
    (run,) = recorded.runs
    assert (run.name, run.status, run.output, run.model) == ("completion", "ok", TEXT, "claude-3")


def test_a_call_after_a_call_is_not_nested_in_it(mock_service: str, recorded: Recording, ended: Callable) -> None:
    with trace("app"):
        stream = litellm.completion(**openai_of(mock_service), stream=True)
        next(stream)
        litellm.completion(**anthropic_of(mock_service))
        list(stream)
    ended(2)
    runs = recorded.runs
    assert [run.parent and run.parent_id == runs[0].id for run in runs] == [None, True, True]


def test_embeddings_are_one_run(mock_service: str, recorded: Recording, ended: Callable) -> None:
    litellm.embedding(model="openai/small", input=["hello"], api_base=f"{mock_service}/v1", api_key="k")
    ended()
    (run,) = recorded.runs
    assert (run.name, run.kind, run.output) == ("embedding", "embedding", {"count": 1, "dimensions": 3})


def test_responses_are_one_run(mock_service: str, recorded: Recording, ended: Callable) -> None:
    litellm.responses(model="openai/gpt-4o-mini", input="hello", api_base=f"{mock_service}/v1", api_key="k")
    ended()
    (run,) = recorded.runs
    assert (run.name, run.status, run.output) == ("responses", "ok", TEXT)
    assert recorded.events[0].messages == HELLO


def test_an_error_ends_the_run(faulty_service: str, recorded: Recording, ended: Callable) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**openai_of(faulty_service, model="openai/denied"))
    ended()
    (run,) = recorded.runs
    assert (run.status, type(run.error).__name__) == ("error", "AuthenticationError")


async def test_a_cancelled_stream_is_cancelled_where_the_client_is_traced(
    faulty_service: str, client_traced: bool, recorded: Recording
) -> None:
    with anyio.CancelScope() as cancelling:
        async for chunk in await litellm.acompletion(**openai_of(faulty_service, model="openai/hang"), stream=True):
            if chunk.choices[0].delta.content == "world":
                cancelling.cancel()
    (run,) = recorded.runs
    assert run.status == ("cancelled" if client_traced else "open")
    if client_traced:
        assert run.output == "Hello world"


def test_keys_are_not_recorded(mock_service: str, recorded: Recording, ended: Callable) -> None:
    beside = {"extra_headers": {"x-token": "canary-2"}, "extra_query": {"key": "canary-3"}}
    litellm.completion(**openai_of(mock_service), **beside)
    tool = {"type": "mcp", "server_label": "docs", "server_url": "https://host/", "headers": {"X-Tenant": "canary-4"}}
    litellm.responses(model="openai/any", input="hello", tools=[tool], api_base=f"{mock_service}/v1", api_key="sk-canary")
    ended(2)
    for run in recorded.runs:
        assert "canary" not in repr((run.inputs, run.output, run.metadata))


def test_uninstall_leaves_nothing_behind(mock_service: str, recorded: Recording) -> None:
    integration.uninstall()
    client_integration.uninstall()
    litellm.completion(**openai_of(mock_service))
    assert recorded.runs == []
    assert not [name for name in integration._LISTS if integration._handler in (getattr(litellm, name, None) or [])]
