"""What Phoenix says that it has got, read back through its API, field by field."""

import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest
from traces import DOCUMENT, say_a_trace

from tracebus import Run
from tracebus.outputs.otlp import export
from tracebus.testing import record

pytestmark = pytest.mark.timeout(300)

COSTS = """
query Costs($name: String!) { getProjectByName(name: $name) { spans(first: 10) { edges { node {
  name costSummary { total { cost } prompt { cost } completion { cost } } } } }
  sessions(first: 5) { edges { node { sessionId numTraces } } } } }
"""


def spans_of(phoenix: str, project: str, count: int) -> dict[str, dict[str, Any]]:
    """The spans by the names of their runs, as soon as there are so many: Phoenix answers before it has stored them."""
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.get(f"{phoenix}/v1/projects/{project}/spans", params={"limit": 100}, timeout=30)
        found = answer.json()["data"] if answer.status_code == 200 else []
        if len(found) == count:
            return {span["attributes"]["tracebus.run.name"]: span for span in found}
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def nanoseconds(moment: str) -> int:
    """To the microsecond, as Phoenix keeps times."""
    seconds, _, rest = moment.partition(".")
    return int(datetime.fromisoformat(f"{seconds}+00:00").timestamp()) * 10**9 + int(rest.partition("+")[0] or 0) * 1000


@pytest.fixture(scope="module")
def said(phoenix: str) -> dict[str, Run]:
    """The runs of one trace, sent under each vocabulary to a project of its own."""
    runs = {}
    for semconv in ("openinference", "gen_ai"):
        with record() as rec, export(phoenix, semconv=semconv, project=semconv) as exporting:
            say_a_trace()
            assert exporting.flush(60)
            assert exporting.sent == 5
        runs[semconv] = {run.name: run for run in rec.runs}
    return runs


@pytest.mark.parametrize("semconv", ["openinference", "gen_ai"])
def test_ids_parents_times_and_status_arrive(semconv, said, phoenix):
    spans, runs = spans_of(phoenix, semconv, 5), said[semconv]
    assert spans.keys() == runs.keys()
    for name, run in runs.items():
        span = spans[name]
        assert span["context"] == {"trace_id": runs["answer"].id.hex, "span_id": f"{run.span_id:016x}"}
        assert span["parent_id"] == (None if name == "answer" else f"{runs['answer'].span_id:016x}")
        assert abs(nanoseconds(span["start_time"]) - run.start_ns) <= 1000
        assert abs(nanoseconds(span["end_time"]) - run.end_ns) <= 1000
        expected = "ERROR" if run.error else "OK" if semconv == "openinference" else "UNSET"
        assert span["status_code"] == expected
    assert spans["look up"]["status_message"] == "LookupError: no such word"


def test_openinference_arrives(said, phoenix):
    spans = spans_of(phoenix, "openinference", 5)
    kinds = {name: span["span_kind"] for name, span in spans.items()}
    assert kinds == {"answer": "CHAIN", "search": "RETRIEVER", "multiply": "TOOL", "look up": "TOOL", "generate": "LLM"}
    for span in spans.values():
        about = span["attributes"]
        assert (about["session.id"], about["user.id"], about["tag.tags"]) == ("s-1", "u-1", ["web", "beta"])
        assert about["metadata.plan"] == "free"
    model = spans["generate"]["attributes"]
    assert {name: model[name] for name in model if name.startswith("llm.")} == {
        "llm.provider": "openai",
        "llm.system": "openai",
        "llm.model_name": "gpt-4o-mini",
        "llm.invocation_parameters": '{"temperature":0.5}',
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
        "llm.token_count.completion_details.reasoning": 4,
    }
    assert (spans["answer"]["attributes"]["input.value"], spans["answer"]["attributes"]["output.value"]) == (
        "What is six times seven?",
        "Forty-two.",
    )
    found = spans["search"]["attributes"]
    assert found["retrieval.documents.0.document.content"] == DOCUMENT["content"]
    assert found["retrieval.documents.0.document.score"] == 0.5
    assert spans["multiply"]["attributes"]["output.value"] == "42"


def test_gen_ai_arrives_and_is_understood(said, phoenix):
    spans = spans_of(phoenix, "gen_ai", 5)
    kinds = {name: span["span_kind"] for name, span in spans.items()}
    assert kinds == {"answer": "UNKNOWN", "search": "RETRIEVER", "multiply": "TOOL", "look up": "TOOL", "generate": "LLM"}
    assert spans["generate"]["name"] == "chat gpt-4o-mini"
    model = spans["generate"]["attributes"]
    assert (model["gen_ai.usage.input_tokens"], model["llm.token_count.prompt"]) == (1000, 1000)
    assert (model["gen_ai.usage.output_tokens"], model["llm.token_count.completion"]) == (10, 10)
    assert model["llm.token_count.prompt_details.cache_read"] == 600
    assert model["llm.input_messages.1.message.content"] == "What is six times seven?"
    assert model["llm.output_messages.0.message.content"] == "Forty-two."
    assert json.loads(model["gen_ai.input.messages"])[1]["parts"][0]["content"] == "What is six times seven?"
    assert model["session.id"] == "s-1"
    assert spans["search"]["attributes"]["input.value"] == "six times seven"


@pytest.mark.parametrize("semconv", ["openinference", "gen_ai"])
def test_events_arrive(semconv, said, phoenix):
    spans = spans_of(phoenix, semconv, 5)
    (first,) = spans["generate"]["events"]
    assert first["name"] == "First Token Stream Event"
    (retry,) = spans["multiply"]["events"]
    assert (retry["name"], retry["attributes"]["attempt"]) == ("retry", 1)
    (failure,) = spans["look up"]["events"]
    assert failure["name"] == "exception"
    assert (failure["attributes"]["exception.type"], failure["attributes"]["exception.message"]) == (
        "LookupError",
        "no such word",
    )


@pytest.mark.parametrize("semconv", ["openinference", "gen_ai"])
def test_what_phoenix_computes_costs_from_arrives(semconv, said, phoenix):
    spans_of(phoenix, semconv, 5)
    deadline = time.monotonic() + 60
    while True:  # costs are computed some time after
        answer = httpx.post(f"{phoenix}/graphql", json={"query": COSTS, "variables": {"name": semconv}}, timeout=30)
        project = answer.json()["data"]["getProjectByName"]
        costs = {edge["node"]["name"]: edge["node"]["costSummary"] for edge in project["spans"]["edges"]}
        cost = costs["generate" if semconv == "openinference" else "chat gpt-4o-mini"]
        if cost is not None and cost["total"]["cost"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    # $0.15 a million tokens, half of that from the cache, and $0.60 a million answered
    assert cost["prompt"]["cost"] == pytest.approx((400 * 0.15 + 600 * 0.075) / 1e6)
    assert cost["completion"]["cost"] == pytest.approx(10 * 0.6 / 1e6)


def test_sessions_are_phoenix_s_sessions(said, phoenix):
    spans_of(phoenix, "openinference", 5)
    answer = httpx.post(f"{phoenix}/graphql", json={"query": COSTS, "variables": {"name": "openinference"}}, timeout=30)
    (session,) = [edge["node"] for edge in answer.json()["data"]["getProjectByName"]["sessions"]["edges"]]
    assert session["sessionId"] == "s-1"
