"""What MLflow says that it has got, read back through its API, field by field."""

import base64
import json
import time
from typing import Any

import httpx
import pytest
from traces import DOCUMENT, say_a_trace

from tracebus import Run
from tracebus.outputs.otlp import export
from tracebus.testing import record

pytestmark = pytest.mark.timeout(300)


def value_of(value: dict[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "array_value":
        return [value_of(one) for one in inner.get("values", [])]
    if kind == "kvlist_value":
        return {one["key"]: value_of(one["value"]) for one in inner.get("values", [])}
    return inner


def attributes_of(held: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: value_of(one["value"]) for one in held.get("attributes", [])}


def digits(encoded: str) -> str:
    return base64.b64decode(encoded).hex()


@pytest.fixture(scope="module", params=["openinference", "gen_ai"])
def stored(request: pytest.FixtureRequest, mlflow: str) -> tuple[str, dict[str, Run], dict[str, Any]]:
    """The vocabulary, the runs of a trace by name, and the trace as MLflow has it."""
    with record() as rec, export(mlflow, {"x-mlflow-experiment-id": "0"}, semconv=request.param) as exporting:
        say_a_trace()
        assert exporting.flush(120)
        assert exporting.sent == 5
    runs = {run.name: run for run in rec.runs}
    deadline = time.monotonic() + 60
    while True:
        where = {"trace_id": f"tr-{runs['answer'].id.hex}"}
        answer = httpx.get(f"{mlflow}/api/3.0/mlflow/traces/get", params=where, timeout=30)
        if answer.status_code == 200 and len(answer.json()["trace"]["spans"]) == 5:
            return request.param, runs, answer.json()["trace"]
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


def spans_of(trace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {attributes_of(span)["tracebus.run.name"]: span for span in trace["spans"]}


def test_ids_parents_times_and_status_arrive(stored):
    semconv, runs, trace = stored
    spans = spans_of(trace)
    assert spans.keys() == runs.keys()
    for name, run in runs.items():
        span = spans[name]
        assert digits(span["trace_id"]) == runs["answer"].id.hex
        assert digits(span["span_id"]) == f"{run.span_id:016x}"
        parent = span.get("parent_span_id")
        assert (parent and digits(parent)) == (None if name == "answer" else f"{runs['answer'].span_id:016x}")
        assert (int(span["start_time_unix_nano"]), int(span["end_time_unix_nano"])) == (run.start_ns, run.end_ns)
        expected = "ERROR" if run.error else "OK" if semconv == "openinference" else "UNSET"
        assert span.get("status", {}).get("code", "STATUS_CODE_UNSET") == f"STATUS_CODE_{expected}"
    assert spans["look up"]["status"]["message"] == "LookupError: no such word"


KINDS = {
    "openinference": {"answer": "CHAIN", "search": "RETRIEVER", "multiply": "TOOL", "look up": "TOOL", "generate": "LLM"},
    # It does not know the operation of a retriever.
    "gen_ai": {"answer": None, "search": None, "multiply": "TOOL", "look up": "TOOL", "generate": "CHAT_MODEL"},
}


def test_kinds_are_understood(stored):
    semconv, _, trace = stored
    assert {name: attributes_of(span).get("mlflow.spanType") for name, span in spans_of(trace).items()} == KINDS[semconv]


def test_session_user_tags_and_tokens_arrive(stored):
    semconv, _, trace = stored
    about = trace["trace_info"]["trace_metadata"]
    assert (about["mlflow.trace.session"], about["mlflow.trace.user"]) == ("s-1", "u-1")
    tokens = json.loads(about["mlflow.trace.tokenUsage"])
    assert (tokens["input_tokens"], tokens["output_tokens"], tokens["total_tokens"]) == (1000, 10, 1010)
    assert tokens["cache_read_input_tokens"] == 600
    tags = "tag.tags" if semconv == "openinference" else "tracebus.tags"
    assert all(attributes_of(span)[tags] == ["web", "beta"] for span in trace["spans"])


def test_messages_documents_and_cost_input_arrive(stored):
    semconv, _, trace = stored
    spans = {name: attributes_of(span) for name, span in spans_of(trace).items()}
    model, found = spans["generate"], spans["search"]
    if semconv == "openinference":
        assert model["llm.model_name"] == "gpt-4o-mini"
        assert model["llm.input_messages.1.message.content"] == "What is six times seven?"
        assert model["llm.output_messages.0.message.content"] == "Forty-two."
        assert found["retrieval.documents.0.document.content"] == DOCUMENT["content"]
        assert spans["answer"]["mlflow.spanInputs"] == "What is six times seven?"
        assert spans["answer"]["mlflow.spanOutputs"] == "Forty-two."
    else:
        assert (model["gen_ai.request.model"], model["gen_ai.provider.name"]) == ("gpt-4o-mini", "openai")
        assert model["gen_ai.input.messages"][1]["parts"][0]["content"] == "What is six times seven?"
        assert model["gen_ai.output.messages"][0]["parts"][0]["content"] == "Forty-two."
        assert found["gen_ai.retrieval.documents"][0]["content"] == DOCUMENT["content"]


def test_events_arrive(stored):
    _, _, trace = stored
    spans = spans_of(trace)
    assert [event["name"] for event in spans["generate"]["events"]] == ["First Token Stream Event"]
    (failure,) = spans["look up"]["events"]
    assert attributes_of(failure)["exception.message"] == "no such word"
