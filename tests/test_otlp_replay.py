"""`tracebus export --otlp`: what a store holds, sent to a receiver after an outage."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from otlp_sink import TAKEN, Answer, Sink, attributes_of

from tracebus import Usage, current_run, emit, flush, retry, scope, trace, traced
from tracebus.cli import main
from tracebus.integrations import opentelemetry
from tracebus.outputs.otlp import export, sending
from tracebus.outputs.store import export_lines, import_lines, save
from tracebus.propagation import extract
from tracebus.signals import isolated

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("nobody_else_listens")]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


def call(path: Path, *arguments: str) -> int:
    """Call `tracebus export` and return its exit code."""
    try:
        return main(["export", "--db", str(path), *arguments])
    except SystemExit as end:
        return int(end.code or 0)


@traced(kind="chat_model")
def generate(messages):
    run = current_run()
    run.model = "gpt-4o-mini"
    yield from ("Forty", "-two.")
    run.usage = Usage(1000, 10, cached_tokens=600)


def say_a_trace() -> None:
    with (
        scope(session_id="s-1", user_id="u-1", tags=["web"], metadata={"plan": "free"}),
        trace("answer", inputs={"question": "Six times seven?"}) as run,
    ):
        with trace("search", kind="retriever", inputs={"query": "6 * 7"}) as found:
            emit(retry, attempt=1, wait_s=0.5, error=TimeoutError("slow"))
            found.output = [{"id": "d-1", "content": "42", "score": 0.5}]
        run.output = "".join(generate([{"role": "user", "content": "Six times seven?"}]))
    with pytest.raises(LookupError), trace("broken"):
        raise LookupError("no such book")


def told(sink: Sink) -> dict[str, tuple]:
    """Everything about each span but what only the process that ran it knows."""
    spans = {}
    for span in sink.spans:
        about = attributes_of(span)
        events = sorted((event.name, event.time_unix_nano, json.dumps(attributes_of(event))) for event in span.events)
        spans[about["tracebus.run.name"]] = (
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.name,
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code,
            span.status.message,
            about,
            events,
        )
    return spans


@pytest.mark.parametrize("semconv", ["gen_ai", "openinference"])
def test_what_is_replayed_is_what_would_have_been_sent(semconv, sink, path, capsys):
    with Sink() as live:
        with export(live.url, semconv=semconv, metrics=False), save(path):
            say_a_trace()
            assert flush()
        assert call(path, "--otlp", sink.url, "--semconv", semconv) == 0
        assert told(sink) == told(live)
    assert capsys.readouterr().out == f"4 runs to {sink.url}\n"


def test_a_span_of_another_tracer_between_two_runs_is_kept(sink, path, tmp_path):
    start = TracerProvider(shutdown_on_exit=False).get_tracer("app").start_as_current_span
    opentelemetry.install()
    try:
        with Sink() as live:
            with export(live.url, metrics=False), save(path):
                with start("request"), trace("answer"), start("call") as span, trace("tool"), trace("inside"):
                    pass
                assert flush()
            before = told(live)
    finally:
        opentelemetry.uninstall()
    lines, other = list(export_lines(path)), tmp_path / "other.db"
    between = f"{span.get_span_context().span_id:016x}"
    assert [json.loads(line)["run"]["outer_span_id"] for line in lines] == [None, between, None]
    assert import_lines(lines, other) == (3, 3)
    assert list(export_lines(other)) == lines
    for store in (path, other):
        assert call(store, "--otlp", sink.url) == 0
        assert told(sink) == before
        sink.requests.clear()


def test_traces_can_be_chosen_and_content_left_out(sink, path, capsys):
    with save(path):
        with trace("first", inputs={"a": "canary"}) as first:
            first.output = "canary"
        with trace("second"):
            pass
        assert flush()
    assert call(path, "--otlp", sink.url, "--no-content", "--json", first.trace_id.hex) == 0
    assert sink.names == ["first"]
    assert b"canary" not in sink.requests[0].body
    assert json.loads(capsys.readouterr().out) == {"endpoint": sink.url, "sent": 1, "lost": {}, "open": 0, "unsampled": 0}
    assert call(path, "--otlp", sink.url, "--name", "second", "--header", "x-team=search") == 0
    assert sink.names == ["first", "second"]
    assert sink.requests[1].headers["x-team"] == "search"


def test_projects_are_kept_apart(sink, path):
    for project in ("one", "two"):
        with isolated(), save(path, project=project), trace(project):
            pass
    assert call(path, "--otlp", sink.url) == 0
    by_project = {request.resource["openinference.project.name"]: request.spans for request in sink.requests}
    assert {project: [span.name for span in spans] for project, spans in by_project.items()} == {
        "one": ["one"],
        "two": ["two"],
    }


def test_a_run_that_is_open_is_left_out(sink, path, capsys):
    with save(path) as saving, trace("open"):
        with trace("done"):
            pass
        assert saving.flush()
        assert call(path, "--otlp", sink.url) == 0
    assert sink.names == ["done"]
    assert capsys.readouterr().out == f"1 run to {sink.url}, 1 run still open left out\n"


def test_a_trace_that_its_beginner_does_not_keep_is_left_out(sink, path, tmp_path, capsys):
    with save(path), extract({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00"}):
        with trace("unsampled"), trace("inside"):
            pass
        with extract({"traceparent": "00-" + "ac" * 16 + "-" + "cd" * 8 + "-01"}), trace("sampled"):
            pass
        assert flush()
    lines, other = list(export_lines(path)), tmp_path / "other.db"
    import_lines(lines, other)
    assert list(export_lines(other)) == lines
    for store in (path, other):
        assert call(store, "--otlp", sink.url) == 0
        assert capsys.readouterr().out == f"1 run to {sink.url}, 2 runs left out as not sampled\n"
    assert sink.names == ["sampled", "sampled"]


def test_a_busy_receiver_is_waited_for(sink, path, monkeypatch):
    with save(path), trace("work"):
        pass
    answers = iter([Answer(429, {"Retry-After": "1"}), Answer(503)])
    sink.answer = lambda request: next(answers, TAKEN)
    assert call(path, "--otlp", sink.url) == 0
    assert sink.names == ["work"]


def test_a_receiver_that_does_not_answer_is_a_failure_that_says_how_far_it_came(sink, path, capsys, monkeypatch):
    monkeypatch.setattr(sending, "BATCH", 2)
    with save(path):
        for number in range(4):
            with trace(f"run {number}"):
                pass
        assert flush()
    sink.answer = lambda request: TAKEN if len(sink.requests) < 1 else Answer(503, {"Retry-After": "120"})
    assert call(path, "--otlp", sink.url) == 1
    assert "does not take runs: 503" in (said := capsys.readouterr().err)
    assert "2 runs had arrived. Nothing is lost in the store: try again" in said


def test_a_refusal_is_a_failure_with_the_number_that_did_not_arrive(sink, path, capsys):
    with save(path), trace("work"), trace("inside"):
        pass

    def answer(request: SimpleNamespace) -> Answer:
        return Answer(401)

    sink.answer = answer
    assert call(path, "--otlp", sink.url) == 1
    assert "tracebus: 2 runs did not arrive: 2 rejected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--otlp", "localhost"],
        ["--otlp", "http://localhost", "--semconv", "genai"],
        ["--otlp", "http://localhost", "--header", "x"],
        ["--otlp", "http://localhost", "-o", "file"],
        ["--header", "a=b"],
        ["--no-content"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_with_2(arguments, path, capsys):
    with save(path), trace("work"):
        pass
    assert call(path, *arguments) == 2


def test_nobody_there_is_a_failure(path, capsys, monkeypatch):
    with save(path), trace("work"):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setattr(sending.send, "__kwdefaults__", {**sending.send.__kwdefaults__, "patience_s": 0.1})
        assert call(path, "--otlp", url) == 1
    assert f"{url}/v1/traces does not take runs: ConnectionError" in capsys.readouterr().err
