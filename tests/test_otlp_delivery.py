"""Runs over OTLP to a receiver that does not take them: refused, silent, slow, too busy, in part. And forks, and exits."""

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from opentelemetry import context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceResponse
from otlp_faults import closed_port, faulty
from otlp_sink import TAKEN, Answer, Sink, attributes_of

from tracebus import current_run, flush, shutdown, stats, trace, traced
from tracebus.integrations import threads
from tracebus.outputs.otlp import export
from tracebus.outputs.otlp.over_http import seconds_to_wait
from tracebus.signals import isolated
from tracebus.testing import deterministic

pytestmark = pytest.mark.usefixtures("nobody_else_listens")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def say(*names: str) -> None:
    for name in names:
        with trace(name):
            pass


def many(count: int) -> list[str]:
    return [f"run {number}" for number in range(count)]


def first_then(*answers: Answer) -> Callable[[SimpleNamespace], Answer]:
    """These answers, one after the other, then yes."""
    left = iter(answers)
    return lambda request: next(left, TAKEN)


# -- what becomes of runs ----------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_delivered(sink):
    with export(sink.url, metrics=False) as exporting:
        say(*many(1300))
        assert exporting.flush()
        assert exporting.sent == 1300
        counts = exporting.stats
        assert (counts.matched, counts.delivered, counts.failed, counts.dropped, counts.pending) == (2600, 2600, 0, {}, 0)
    assert sink.names == many(1300)
    assert max(len(request.spans) for request in sink.requests) == 512


def test_a_flush_of_everything_waits_for_the_receiver(sink):
    with export(sink.url):
        say("work")
        assert flush()
        assert sink.names == ["work"]


def test_a_refused_connection_is_tried_again_until_somebody_listens():
    port = closed_port()
    with isolated(), export(f"http://127.0.0.1:{port}", metrics=False) as exporting:
        say("before")
        assert not exporting.flush(0.2)
        assert exporting.stats.pending == 1
        with Sink(port) as sink:
            say("after")
            assert exporting.flush(10)
            assert sink.names == ["before", "after"]
        assert exporting.stats.dropped == {}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_come_later_does(status, sink):
    sink.answer = first_then(Answer(status), Answer(status))
    with export(sink.url, metrics=False) as exporting:
        say("work")
        while not exporting.flush(5):  # each time that somebody waits, it is tried
            pass
        assert exporting.sent == 1
    assert (len(sink.refused), sink.names) == (2, ["work"])


@pytest.mark.parametrize(
    "retry_after",
    [lambda: "1", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)],
    ids=["seconds", "date"],
)
def test_retry_after_is_kept_to_also_when_somebody_waits(retry_after, sink):
    asked: list[float] = []

    def answer(request: SimpleNamespace) -> Answer:
        asked.append(time.monotonic())
        return Answer(429, {"Retry-After": retry_after()}) if len(asked) == 1 else TAKEN

    sink.answer = answer
    with export(sink.url, metrics=False) as exporting:
        say("work")
        assert not exporting.flush(0.3)
        assert len(asked) == 1
        assert exporting.flush(10)
    assert asked[1] - asked[0] >= 0.9


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("7", 7), (" 7 ", 7), ("0", 0), ("99999999999", 3600), (None, None), ("soon", None), ("-1", None), ("1.5", None)],
)
def test_retry_after_is_read_as_the_standard_has_it(given, seconds):
    assert seconds_to_wait(given) == seconds


def test_retry_after_can_be_a_date():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert seconds_to_wait(in_a_minute) == pytest.approx(60, abs=3)
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("status", [301, 401, 403, 404, 415, 501])
def test_what_is_refused_is_counted_and_not_tried_again(status, sink, caplog):
    sink.answer = lambda request: Answer(status)
    with caplog.at_level(logging.WARNING), export(sink.url, metrics=False) as exporting:
        say(*many(20))
        assert not exporting.flush()
        assert exporting.stats.dropped == {"rejected": 20}
    assert len(sink.refused) == 1
    (record,) = caplog.records
    assert f"20 runs were refused by {sink.url}/v1/traces, and are lost: {status}" in record.getMessage()


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_one_run_that_is_not_taken_costs_no_other(status, sink):
    def answer(request: SimpleNamespace) -> Answer:
        names = [attributes_of(span)["tracebus.run.name"] for span in request.spans]
        return Answer(status) if "run 300" in names else TAKEN

    sink.answer = answer
    with export(sink.url, metrics=False) as exporting:
        say(*many(512))
        assert not exporting.flush(30)
        assert exporting.stats.dropped == {"too_large" if status == 413 else "rejected": 1}
        assert exporting.sent == 511
    assert Counter(sink.names) == Counter(many(512)) - Counter(["run 300"])


def test_a_receiver_that_wants_little_at_once_gets_little(sink):
    sink.answer = lambda request: Answer(413) if len(request.spans) > 100 else TAKEN
    with export(sink.url, metrics=False) as exporting:
        say(*many(512))
        assert exporting.flush()
    assert sorted(sink.names) == sorted(many(512))


def test_a_receiver_that_takes_nothing_is_not_asked_piece_by_piece_for_ever(sink):
    sink.answer = lambda request: Answer(500)
    with export(sink.url, metrics=False) as exporting:
        say(*many(512))
        assert not exporting.flush(30)
        at_first = len(sink.refused)
        say(*many(512))
        assert not exporting.flush(30)
        assert exporting.stats.dropped == {"rejected": 1024}
    assert at_first <= 130
    assert len(sink.refused) - at_first <= 21


def test_a_run_that_cannot_be_encoded_costs_no_other(sink, caplog):
    with export(sink.url, metrics=False) as exporting:
        say(*many(200))
        with deterministic(datetime(1900, 1, 1, tzinfo=UTC)):  # OTLP has no time before 1970
            say("too early")
        say(*many(311))
        assert not exporting.flush()
        assert exporting.stats.dropped == {"not_encodable": 1}
        assert exporting.sent == 511
    assert "too early" not in sink.names
    assert "1 run could not be made into a span" in caplog.text


def test_a_run_that_holds_nonsense_is_a_span_without_it(sink):
    class Odd(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError

    with export(sink.url) as exporting:
        with trace("odd", kind="chat_model", inputs={"temperature": "hot", "n": 10**30, "messages": object()}) as run:
            run.model = 7
            run.usage = SimpleNamespace(
                input_tokens="many", output_tokens=10**30, total_tokens=None, cached_tokens=float("nan"), reasoning_tokens=True
            )
            run.output = {1: float("nan"), "\ud800": Odd("x")}
            run.metadata.update(finish_reasons=[7, "stop"], response_id=3)
        exporting.flush()
        assert exporting.stats.dropped in ({}, {"not_encodable": 1})
        say("next")
        exporting.flush()
    assert sink.names[-1] == "next"


def test_what_a_receiver_says_it_left_out_is_lost(sink):
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    sink.answer = lambda request: Answer(200, {"Content-Type": "application/x-protobuf"}, body)
    with export(sink.url, metrics=False) as exporting:
        say(*many(10))
        assert not exporting.flush()
        assert (exporting.sent, exporting.stats.dropped) == (7, {"rejected": 3})


def test_an_answer_of_a_few_words_is_an_answer(sink):
    sink.answer = lambda request: Answer(200, {}, b'{"partialSuccess":{}}')
    with export(sink.url) as exporting:
        say("work")
        assert exporting.flush()


def test_a_full_queue_gives_way_and_says_how_much(sink):
    sink.answer = lambda request: Answer(503)
    with export(sink.url, metrics=False, queue_size=100, interval_s=0.01) as exporting:
        say("first")
        exporting.flush(0.2)  # is being tried
        say(*many(150))
        counts = exporting.stats
        assert counts.dropped == {"queue_full": 50}
        assert counts.pending == 101
        sink.answer = first_then()
        while exporting.stats.pending:
            exporting.flush(5)
        assert exporting.sent == 101
    assert sink.names == ["first", *many(150)[50:]]


@pytest.mark.once
def test_closing_gives_up_what_nobody_takes_and_counts_it():
    with isolated():
        exporting = export(f"http://127.0.0.1:{closed_port()}", metrics=False)
        say(*many(3))
        lane = exporting._subscription.lane
        exporting.close()
        lane.join(10)
        counts = exporting.stats
    assert counts.pending == 0
    assert sum(counts.dropped.values()) == 3


@pytest.mark.once
def test_what_was_taken_of_a_batch_that_is_given_up_is_not_counted_as_lost(sink):
    def answer(request: SimpleNamespace) -> Answer:
        if len(request.spans) > 50:
            return Answer(413)
        return TAKEN if len(sink.spans) < 50 else Answer(503)

    sink.answer = answer
    exporting = export(sink.url, metrics=False)
    lane = exporting._subscription.lane
    say(*many(100))
    assert not exporting.flush(2)
    exporting._subscription.close()
    lane.give_up("test")
    lane.join(10)
    assert exporting.sent == 50
    assert exporting.stats.dropped == {"not_sent": 50}
    assert exporting.stats.pending == 0


def test_a_failure_is_said_once_and_without_secrets(caplog):
    with isolated(), caplog.at_level(logging.WARNING):
        url = f"http://user:canary-password@127.0.0.1:{closed_port()}"
        exporting = export(url, {"authorization": "canary"}, metrics=False, interval_s=0.01)
        for _ in range(3):
            say("work")
            exporting.flush(0.3)
        exporting._subscription.lane.give_up("test")
    assert caplog.text.count("does not take runs now, and they wait") == 1
    assert "canary" not in caplog.text


# -- what it costs the app ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["silent", "a byte a second"])
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    with faulty(request.param) as url:
        yield url


EXIT = """
import atexit, sys, time
atexit.register(lambda: print(time.monotonic() - ended))  # before tracebus's, so after it
import tracebus
from tracebus import trace
from tracebus.outputs.otlp import export
export(sys.argv[1], interval_s=0.01)
for number in range(int(sys.argv[2])):
    with trace(f"run {number}"): pass
time.sleep(0.2)
with trace('last'): pass
ended = time.monotonic()
"""


WITH_MODEL = EXIT.replace("trace('last')", "trace('last', kind='llm', inputs='x')")


@pytest.mark.alone
@pytest.mark.parametrize("fault", ["refused", "silent", "a byte a second", "429", "503"])
def test_exit_takes_two_seconds_at_most_and_tells_the_loss(fault, run_python):
    with faulty(fault) as url:
        done = run_python("-c", EXIT, url, "600")
    assert "tracebus: 601 events were not delivered to tracebus.outputs.otlp.exporting.export before exit" in done.stderr
    assert float(done.stdout) < 2.3


@pytest.mark.parametrize(("status", "reason"), [(500, "rejected"), (413, "too_large"), (404, "rejected")])
def test_exit_does_not_wait_for_what_is_lost(status, reason, sink, run_python):
    sink.answer = lambda request: Answer(status)
    code = "import atexit\natexit.register(lambda: print(tracebus.stats()[0].dropped))\n" + EXIT
    done = run_python("-c", code, sink.url, "60")
    assert done.stdout.splitlines()[-1] == str({reason: 61})
    assert done.stderr.count("tracebus") <= 1  # what was lost was said when it was


def test_exit_sends_what_waits(sink, run_python):
    run_python("-c", EXIT, sink.url, "600")
    assert len(sink.names) == 601


def test_open_runs_are_sent_as_aborted(sink, run_python):
    code = "import sys\nfrom tracebus import trace\nfrom tracebus.outputs.otlp import export\nexport(sys.argv[1])\n"
    run_python("-c", code + "block = trace('open'); block.__enter__()", sink.url)
    assert sink.attributes("open")["tracebus.run.status"] == "aborted"


def test_shutdown_keeps_its_deadline_with_a_hung_receiver(silent):
    with isolated():
        exporting = export(silent, metrics=False, interval_s=0.01)
        say(*many(10))
        start = time.monotonic()
        left = shutdown(2)
        assert time.monotonic() - start < 2.2
        assert left == {"tracebus.outputs.otlp.exporting.export": 10}
        assert shutdown(0.1) in ({}, left)
        assert not exporting.flush(0.1)
        exporting._subscription.lane.give_up("test")


def test_a_flush_is_not_true_before_the_answer(silent):
    with isolated():
        exporting = export(silent, metrics=False, interval_s=0.01)
        say("work")
        assert not exporting.flush(0.3)
        assert exporting.sent == 0
        exporting._subscription.lane.give_up("test")


async def test_async_code_never_waits(silent):
    with isolated():
        exporting = export(silent, metrics=False, interval_s=0.001)
        longest = 0.0
        for _ in range(200):
            before = time.perf_counter()
            async with trace("work", inputs={"a": "b" * 100}):
                pass
            longest = max(longest, time.perf_counter() - before)
            await anyio.sleep(0)
        assert longest < 1
        exporting._subscription.lane.give_up("test")


# -- itself ------------------------------------------------------------------------------------------------------------


def test_it_suppresses_opentelemetry_s_instrumentations(sink, monkeypatch):
    import requests

    seen = []
    original = requests.Session.send

    def instrumented(self, request, **arguments):
        """As opentelemetry-instrumentation-requests wraps it."""
        keys = ("suppress_instrumentation", "suppress_http_instrumentation", context._SUPPRESS_HTTP_INSTRUMENTATION_KEY)
        seen.append(all(context.get_value(key) for key in keys))
        return original(self, request, **arguments)

    monkeypatch.setattr(requests.Session, "send", instrumented)
    with export(sink.url) as exporting:
        with trace("call", kind="llm", inputs="x"):
            pass
        assert exporting.flush()
    assert len(seen) >= 2
    assert all(seen)


def test_its_thread_has_no_run_of_the_app(sink, monkeypatch):
    import requests

    inside = []
    original = requests.Session.send

    def send(self, request, **arguments):
        inside.append(current_run())
        return original(self, request, **arguments)

    monkeypatch.setattr(requests.Session, "send", send)
    threads.install()
    try:
        with export(sink.url) as exporting:
            with trace("outer"):
                say("inner")
                assert exporting.flush()
            assert exporting.flush()
    finally:
        threads.uninstall()
    assert set(inside) == {None}


def test_it_makes_no_runs_of_its_own(sink):
    from tracebus.integrations import anthropic, openai

    openai.install()
    anthropic.install()
    try:
        with export(sink.url):
            say("only")
            assert flush()
    finally:
        openai.uninstall()
        anthropic.uninstall()
    assert sink.names == ["only"]


@pytest.mark.parametrize("status", [404, 405, 415, 501])
def test_a_receiver_without_metrics_is_left_alone_with_them(status, sink, caplog):
    sink.answer = lambda request: Answer(status) if request.path.endswith("metrics") else TAKEN

    @traced(kind="llm")
    def generate(prompt):
        return "x"

    with caplog.at_level(logging.WARNING), export(sink.url) as exporting:
        for _ in range(3):
            generate("x")
            assert exporting.flush()
    assert len(sink.refused) == 1
    assert caplog.records == []


def test_metrics_that_are_not_taken_now_are_sent_with_the_next(sink):
    @traced(kind="llm")
    def generate(prompt):
        return "x"

    sink.answer = lambda request: Answer(503) if request.path.endswith("metrics") else TAKEN
    with export(sink.url) as exporting:
        generate("x")
        assert not exporting.flush(0.2)
        assert exporting.sent == 1
        sink.answer = first_then()
        generate("x")
        assert exporting.flush()
    assert sink.metrics["gen_ai.client.operation.duration"].histogram.data_points[0].count == 2


def call_a_model() -> None:
    with trace("call", kind="llm", inputs="x"):
        pass


def test_a_flush_is_true_only_when_the_metrics_are_acknowledged_too(sink):
    metrics_answers = first_then(Answer(503), Answer(503))
    sink.answer = lambda request: metrics_answers(request) if request.path.endswith("metrics") else TAKEN
    with export(sink.url) as exporting:
        call_a_model()
        assert exporting.flush(30)
        assert (len(sink.refused), len(sink.metrics)) == (2, 1)


def test_metrics_are_a_part_of_what_a_flush_of_everything_waits_for(sink):
    with export(sink.url, interval_s=0.01) as exporting:
        call_a_model()
        while exporting.stats.pending:
            time.sleep(0.01)
        assert sink.metrics == {}
        assert flush()
        assert len(sink.metrics) == 1


def test_retry_after_holds_for_metrics_too(sink):
    asked: list[float] = []

    def answer(request: SimpleNamespace) -> Answer:
        if not request.path.endswith("metrics"):
            return TAKEN
        asked.append(time.monotonic())
        return Answer(429, {"Retry-After": "1"}) if len(asked) == 1 else TAKEN

    sink.answer = answer
    with export(sink.url) as exporting:
        call_a_model()
        assert not exporting.flush(0.3)
        assert not exporting.flush(0.1)
        assert len(asked) == 1
        assert exporting.flush(10)
    assert asked[1] - asked[0] >= 0.9


def test_runs_go_on_while_metrics_are_not_taken(sink, caplog):
    sink.answer = lambda request: Answer(503) if request.path.endswith("metrics") else TAKEN
    with caplog.at_level(logging.WARNING), isolated():
        exporting = export(sink.url, interval_s=0.01)
        for number in range(3):
            call_a_model()
            assert not exporting.flush(0.2)
            assert exporting.sent == number + 1
        assert (exporting.stats.pending, exporting.stats.dropped) == (0, {})
        exporting.close()
    assert caplog.text.count("does not take metrics now, and they wait: 503") == 1
    assert flush()  # what is closed owes nothing


def test_metrics_are_sent_at_exit_also_when_all_runs_are(sink, run_python):
    code = WITH_MODEL.replace("ended =", "time.sleep(0.5); ended =")
    run_python("-c", code, sink.url, "1")
    assert "gen_ai.client.operation.duration" in sink.metrics


@pytest.mark.alone
def test_metrics_that_nobody_takes_hold_the_exit_up_no_longer_than_runs(sink, run_python):
    sink.answer = lambda request: Answer(503) if request.path.endswith("metrics") else TAKEN
    done = run_python("-c", WITH_MODEL, sink.url, "1")
    assert float(done.stdout) < 2.3
    assert "events were not delivered" not in done.stderr
    assert "does not take metrics now" in done.stderr


def test_metrics_are_sent_by_the_clock_until_they_are_taken(sink, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    came = threading.Event()
    once = first_then(Answer(503))

    def answer(request: SimpleNamespace) -> Answer:
        if not request.path.endswith("metrics"):
            return TAKEN
        told = once(request)
        if told is TAKEN:
            came.set()
        return told

    sink.answer = answer
    with export(sink.url, interval_s=0.01):
        with trace("call", kind="llm", inputs="x"):
            pass
        assert came.wait(20)


# -- forks -------------------------------------------------------------------------------------------------------------

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
from tracebus import trace, flush
from tracebus.outputs.otlp import export
exporting = export(sys.argv[1])
with trace("parent before"): pass
if sys.argv[2] == "flushed": assert flush()
with trace("around"):
    child = os.fork()
    with trace(f"{'parent' if child else 'child'} inside"): pass
if not child:
    assert flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with trace("parent after"): pass
assert flush()
"""


@POSIX
@pytest.mark.parametrize("flushed", ["flushed", "queued"])
def test_a_forked_child_sends_its_own_runs_and_none_of_its_parent_s(flushed, sink, run_python):
    run_python("-c", FORK, sink.url, flushed)
    assert Counter(sink.names) == Counter(["parent before", "parent inside", "parent after", "around", "child inside"])
    around = sink.span("around")
    assert sink.span("child inside").parent_span_id == sink.span("parent inside").parent_span_id == around.span_id


@POSIX
def test_children_of_multiprocessing_send_theirs(sink, tmp_path: Path, run_python):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from tracebus import trace, flush
from tracebus.outputs.otlp import export
def work(number):
    with trace(f"child {{number}}"):
        pass
if __name__ == "__main__":
    export({sink.url!r})
    with trace("parent"):
        pass
    assert flush()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
"""
    )
    run_python(script)
    assert sorted(sink.names) == ["child 0", "child 1", "child 2", "parent"]


def test_what_it_counts_is_among_everybody_s(sink):
    with export(sink.url):
        say("work")
        assert flush()
        (counts,) = [one for one in stats() if "otlp" in one.name]
        assert counts.delivered == 2
    assert os.getpid()
