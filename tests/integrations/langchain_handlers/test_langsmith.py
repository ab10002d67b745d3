"""LangSmith's tracer, which comes with langchain-core, on the bus: the requests that its client sends."""

import json
from typing import Any

import pytest
import requests
from langchain_core.tracers import LangChainTracer
from langsmith import Client


class Outbox(requests.adapters.BaseAdapter):
    """Takes what the client sends, and says that it was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        said = json.loads(request.body or b"{}")
        run_id = said.get("id") or str(request.url).rpartition("/")[2]
        self.runs.setdefault(run_id, {}).update(said)
        response = requests.Response()
        response.status_code, response.request, response._content = 202, request, b"{}"
        return response

    def close(self) -> None: ...

    def named(self, name: str) -> dict[str, Any]:
        """The one run of a name."""
        (run,) = [run for run in self.runs.values() if run["name"] == name]
        return run


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def handler(outbox: Outbox) -> LangChainTracer:
    session = requests.Session()
    session.mount("http://langsmith.test", outbox)  # the client mounts its own on less of the address
    client = Client("http://langsmith.test", api_key="lsv2_test", session=session, auto_batch_tracing=False, info={})
    return LangChainTracer(client=client, project_name="test")


async def test_langsmith_shows_the_tree(app: Any, handler: LangChainTracer, outbox: Outbox) -> None:
    await app.answer(handler)
    handler.wait_for_futures()
    root = outbox.named("answer")
    assert (root["run_type"], root["parent_run_id"]) == ("chain", None)
    below = {run["name"]: run["run_type"] for run in outbox.runs.values() if run["parent_run_id"] == root["id"]}
    assert below == {"search": "retriever", "weather": "tool", "chat": "llm"}


async def test_langsmith_shows_messages_usage_and_model(app: Any, handler: LangChainTracer, outbox: Outbox) -> None:
    await app.answer(handler)
    handler.wait_for_futures()
    chat = outbox.named("chat")
    assert [message["kwargs"]["content"] for message in chat["inputs"]["messages"][0]] == ["It is sun.", "How is it in Bern?"]
    assert chat["extra"]["metadata"]["ls_model_name"] == "m-1"
    assert chat["outputs"]["generations"][0][0]["message"]["kwargs"]["usage_metadata"]["total_tokens"] == 14


async def test_langsmith_shows_what_failed(app: Any, handler: LangChainTracer, outbox: Outbox) -> None:
    await app.fail(handler)
    handler.wait_for_futures()
    assert "no such city" in outbox.named("weather")["error"]
    assert "no such city" in outbox.named("answer")["error"]


async def test_langsmith_keeps_nothing(app: Any, handler: LangChainTracer) -> None:
    await app.answer(handler)
    await app.fail(handler)
    handler.wait_for_futures()
    assert handler.run_map == {}
