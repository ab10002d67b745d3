"""The bridge to OpenTelemetry: runs in spans and spans in runs are each other's children, wherever they are stepped."""

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from opentelemetry import baggage, propagate
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tracebus import Run, current_run, emit, extract, inject, scope, subscribe, trace, traced
from tracebus.integrations import opentelemetry as bridge
from tracebus.integrations import threads
from tracebus.integrations.opentelemetry import current
from tracebus.runs import get_current, innermost, set_current
from tracebus.sources import Reporter
from tracebus.testing import Recording, record

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


@pytest.fixture(autouse=True)
def installed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The bridge; whatever a test does, OpenTelemetry complains of nothing and nothing stays current."""
    caplog.set_level(logging.WARNING)
    bridge.install()
    yield
    assert innermost() is None
    assert otel_context.get_current() == {}
    set_current(None)
    bridge.uninstall()
    gc.collect()
    assert [entry.getMessage() for entry in caplog.records] == []


class Spans:
    """What OpenTelemetry's own exporter was given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")
        self.start = self.tracer.start_as_current_span

    def named(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.exporter.get_finished_spans() if span.name == name)
        return span

    def parents(self, rec: Recording) -> dict[str, str | None]:
        """Return the name of each span's and each run's parent, checking that it is in its trace."""
        named: dict[int, tuple[str, int]] = {}
        above: dict[str, tuple[int | None, int]] = {}
        for span in self.exporter.get_finished_spans():
            named[span.context.span_id] = span.name, span.context.trace_id
            above[span.name] = (None if span.parent is None else span.parent.span_id), span.context.trace_id
        for run in rec.runs:
            named[run.span_id] = run.name, run.trace_id.int
            above[run.name] = span_above(run), run.trace_id.int
        for parent, trace_id in above.values():
            assert parent not in named or named[parent][1] == trace_id
        return {name: None if parent is None else named.get(parent, ("?", 0))[0] for name, (parent, _) in above.items()}


def span_above(run: Run) -> int | None:
    """Return the span id of what a run would hang on in OpenTelemetry's world."""
    if run.remote_parent is not None:
        return run.remote_parent.span_id
    return None if run.parent is None else run.parent.span_id


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def rec() -> Iterator[Recording]:
    with record() as recording:
        yield recording


# -- nested ------------------------------------------------------------------------------------------------------------


def test_a_run_in_a_span_is_its_child(spans: Spans, rec: Recording) -> None:
    with spans.start("request") as span, trace("answer") as run:
        remote = run.remote_parent
        assert remote is not None
        assert (run.trace_id.int, remote.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
        assert remote.is_local
    assert spans.parents(rec) == {"request": None, "answer": "request"}


def test_a_span_in_a_run_is_its_child(spans: Spans, rec: Recording) -> None:
    with trace("answer"), spans.start("query"):
        pass
    assert spans.parents(rec) == {"answer": None, "query": "answer"}
    assert spans.named("query").parent.is_remote is False


def test_they_nest_both_ways(spans: Spans, rec: Recording) -> None:
    with spans.start("request"), trace("answer"), spans.start("call"), trace("tool"), spans.start("query"), trace("row"):
        pass
    assert spans.parents(rec) == {
        "request": None,
        "answer": "request",
        "call": "answer",
        "tool": "call",
        "query": "tool",
        "row": "query",
    }
    assert rec.tree() == "answer chain ok\n  tool chain ok\n    row chain ok"


def test_siblings_hang_beside_each_other(spans: Spans, rec: Recording) -> None:
    with trace("answer"):
        with spans.start("first"):
            pass
        with trace("step"), spans.start("inner"):
            pass
        with spans.start("second"), trace("last"):
            pass
    assert spans.parents(rec) == {
        "answer": None,
        "first": "answer",
        "step": "answer",
        "inner": "step",
        "second": "answer",
        "last": "second",
    }


async def test_they_nest_in_async_code_and_its_tasks(spans: Spans, rec: Recording) -> None:
    @traced
    async def tool(name: str) -> None:
        with spans.start(f"query {name}"):
            await anyio.sleep(0)
            with trace(f"row {name}"):
                await anyio.sleep(0)

    with spans.start("request"):
        async with trace("answer"), anyio.create_task_group() as group:
            for name in "ab":
                group.start_soon(scope(tags=[name])(tool), name)
    assert {name: above for name, above in spans.parents(rec).items() if name != "tool"} == {
        "request": None,
        "answer": "request",
        "query a": "tool",
        "query b": "tool",
        "row a": "query a",
        "row b": "query b",
    }
    assert {run.parent.name for run in rec.runs if run.name == "tool"} == {"answer"}


def test_sampling_and_state_of_the_trace_are_kept(spans: Spans, rec: Recording) -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "tracestate": "a=1,b=2"}
    token = otel_context.attach(TraceContextTextMapPropagator().extract(headers))
    with trace("answer") as run:
        seen = otel.get_current_span().get_span_context()
        assert inject() == headers | {"traceparent": f"00-{run.trace_id.hex}-{run.span_id:016x}-00"}
        assert propagate_headers() == inject()
    otel_context.detach(token)
    assert (seen.trace_flags.sampled, seen.trace_state.to_header()) == (False, "a=1,b=2")
    assert run.remote_parent is not None
    assert (run.remote_parent.sampled, run.remote_parent.tracestate) == (False, "a=1,b=2")
    assert not run.remote_parent.is_local


def propagate_headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def the_parent_in(headers: dict[str, str]) -> list[str]:
    """Return trace and span; of the flags, OpenTelemetry knows one of level 2 of the specification, that ids are random."""
    return headers["traceparent"].split("-")[1:3]


def test_both_sides_write_the_same_parent_into_headers(spans: Spans, rec: Recording) -> None:
    with spans.start("request"):
        assert the_parent_in(inject()) == the_parent_in(propagate_headers())
        with trace("answer"):
            assert inject() == propagate_headers()
            with spans.start("call"), scope(user_id="u-1"):
                assert the_parent_in(inject()) == the_parent_in(propagate_headers())


def test_a_span_of_another_trace_takes_runs_along(spans: Spans, rec: Recording) -> None:
    with trace("worker"), spans.start("message", context=otel_context.Context()), trace("handled"), spans.start("query"):
        pass
    assert spans.parents(rec) == {"worker": None, "message": None, "handled": "message", "query": "handled"}
    assert rec.tree() == "worker chain ok\nhandled chain ok"


def test_an_empty_context_in_a_run_makes_roots(spans: Spans, rec: Recording) -> None:
    with trace("answer"):
        token = otel_context.attach(otel_context.Context())
        with spans.start("alone"):
            pass
        with trace("alone, too"):
            pass
        otel_context.detach(token)
        with spans.start("inside"):
            pass
    assert spans.parents(rec) == {"answer": None, "alone": None, "alone, too": None, "inside": "answer"}


def test_extracted_headers_are_a_parent_for_spans_too(spans: Spans, rec: Recording) -> None:
    with extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}), spans.start("query"):
        pass
    parent = spans.named("query").parent
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert parent.is_remote


def test_a_request_without_a_parent_makes_roots_of_spans_too(spans: Spans, rec: Recording) -> None:
    with trace("worker"):
        with extract({}), spans.start("handled"), trace("answer"):
            pass
        with spans.start("query"):
            pass
    assert spans.parents(rec) == {"worker": None, "handled": None, "answer": "handled", "query": "worker"}


@pytest.mark.parametrize("headers", [{}, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}])
def test_the_span_of_a_server_stays_the_parent_where_headers_are_read_again(
    headers: dict[str, str], spans: Spans, rec: Recording
) -> None:
    context = TraceContextTextMapPropagator().extract(headers)
    incoming = extract(headers | {"baggage": "tracebus.user_id=u-1"})
    with spans.start("GET /", context=context), incoming, trace("answer") as run, spans.start("query"):
        assert run.user_id == "u-1"
    assert spans.parents(rec) == {"GET /": "?" if headers else None, "answer": "GET /", "query": "answer"}


def test_what_is_reported_by_a_framework_hangs_in_the_span(spans: Spans, rec: Recording) -> None:
    reporter = Reporter("framework")
    with spans.start("request"):
        reporter.start("1", name="node", session_id="s-1")
        reporter.start("2", "1", name="step")
    reporter.end("2")
    reporter.end("1")
    assert spans.parents(rec) == {"request": None, "node": "request", "step": "node"}


# -- who listens -------------------------------------------------------------------------------------------------------


def test_where_nobody_listens_opentelemetry_is_as_it_was(spans: Spans) -> None:
    @traced
    def answer() -> None:
        assert current_run() is None
        with spans.start("query"):
            pass

    with spans.start("request") as span:
        answer()
        with trace("unheard"):
            assert otel.get_current_span() is span
            with spans.start("unheard's query"):
                pass
    assert spans.named("query").parent == spans.named("request").context
    assert spans.named("unheard's query").parent == spans.named("request").context


def test_a_span_from_before_anybody_listened_is_a_parent(spans: Spans) -> None:
    with spans.start("request") as span, record() as rec:
        with trace("answer"), spans.start("query"):
            pass
        with scope(user_id="u-1"):
            assert otel.get_current_span() is span
            with trace("second"):
                pass
        assert otel.get_current_span() is span
    assert spans.parents(rec) == {"request": None, "answer": "request", "query": "answer", "second": "request"}


def test_a_callback_of_the_scope_is_enough_of_a_listener(spans: Spans) -> None:
    heard: list[Any] = []
    with scope(callbacks=[lambda sender, event: heard.append(event.run)]), trace("answer") as run, spans.start("query"):
        pass
    assert heard
    assert spans.named("query").parent.span_id == run.span_id


# -- the current span --------------------------------------------------------------------------------------------------


def test_what_is_set_on_the_current_span_of_a_run_is_its_metadata(rec: Recording) -> None:
    with trace("answer"):
        span = otel.get_current_span()
        assert span.is_recording()
        span.set_attribute("a", 1)
        span.set_attributes({"b": 2})
        span.add_event("cache miss", {"key": "k"})
        span.record_exception(ValueError("handled"))
    assert not span.is_recording()
    span.set_attribute("late", 1)
    assert rec.run("answer").metadata == {"a": 1, "b": 2}
    assert [(event.name, event.data) for event in rec.of("custom_event")] == [
        ("cache miss", {"key": "k"}),
        ("exception", {"exception.type": "ValueError", "exception.message": "handled"}),
    ]


def test_a_span_that_is_current_is_the_apps_own_object(spans: Spans, rec: Recording) -> None:
    with trace("answer"), spans.start("query") as span, scope(tags=["t"]):
        assert otel.get_current_span() is span


def test_the_current_context_is_the_same_object_until_something_changes(rec: Recording) -> None:
    with trace("answer"):
        assert otel_context.get_current() is otel_context.get_current()


def test_opentelemetrys_baggage_goes_through_runs(spans: Spans, rec: Recording) -> None:
    token = otel_context.attach(baggage.set_baggage("k", "v"))
    with trace("answer"):
        assert baggage.get_baggage("k") == "v"
        inner = otel_context.attach(baggage.set_baggage("inner", "w"))
        with trace("step"), spans.start("query"):
            assert baggage.get_all() == {"k": "v", "inner": "w"}
        otel_context.detach(inner)
        assert baggage.get_all() == {"k": "v"}
    otel_context.detach(token)
    assert baggage.get_all() == {}
    assert spans.parents(rec) == {"answer": None, "step": "answer", "query": "step"}


# -- left early, ended elsewhere ---------------------------------------------------------------------------------------


def test_a_generator_keeps_its_span_to_itself(spans: Spans, rec: Recording) -> None:
    @traced
    def stream() -> Iterator[int]:
        with spans.start("held"):
            for number in range(2):
                with trace(f"step {number}"):
                    pass
                yield number

    with spans.start("request"), trace("answer"):
        numbers = stream()
        next(numbers)
        with spans.start("consumer"), trace("consumed"):
            next(numbers)
    next(numbers, None)
    assert spans.parents(rec) == {
        "request": None,
        "answer": "request",
        "stream": "answer",
        "held": "stream",
        "step 0": "held",
        "step 1": "held",
        "consumer": "answer",
        "consumed": "consumer",
    }


@pytest.mark.parametrize("how", ["close", "drop", "thread"])
def test_a_generator_that_is_left_early_ends_its_span(how: str, spans: Spans, rec: Recording) -> None:
    @traced
    def stream() -> Iterator[int]:
        with spans.start("held"):
            yield 1

    with trace("answer"):
        numbers = stream()
        next(numbers)
        if how == "close":
            numbers.close()
        elif how == "thread":
            thread = threading.Thread(target=numbers.close)
            thread.start()
            thread.join()
        del numbers
        gc.collect()
        with spans.start("after"):
            pass
    assert spans.parents(rec) == {"answer": None, "stream": "answer", "held": "stream", "after": "answer"}
    assert rec.run("stream").status == "closed_early"


async def test_an_async_generator_stepped_by_several_tasks_keeps_its_span(spans: Spans, rec: Recording) -> None:
    @traced
    async def stream() -> AsyncIterator[int]:
        with spans.start("held"):
            for number in range(3):
                with trace(f"step {number}"):
                    await anyio.sleep(0)
                yield number

    async def step() -> None:
        with spans.start("consumer"):
            await anext(numbers, None)

    with trace("answer"):
        numbers = stream()
    for _ in range(4):
        async with anyio.create_task_group() as group:
            group.start_soon(step)
    parents = {run.name: span_above(run) for run in rec.runs}
    held = spans.named("held")
    assert held.parent.span_id == rec.run("stream").span_id
    assert {parents[f"step {number}"] for number in range(3)} == {held.context.span_id}


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_async_generator_left_early_ends_its_span_in_silence(spans: Spans, rec: Recording) -> None:
    @traced
    async def stream() -> AsyncIterator[int]:
        with spans.start("held"):
            yield 1
            yield 2

    async def leave() -> None:
        async for _ in stream():
            break
        assert otel.get_current_span() is otel.INVALID_SPAN

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
    gc.collect()
    for _ in range(5):
        await anyio.sleep(0)
    assert spans.named("held").parent.span_id == rec.run("stream").span_id


async def test_a_cancelled_task_leaves_nothing(spans: Spans, rec: Recording) -> None:
    started = anyio.Event()

    @traced
    async def answer() -> None:
        with spans.start("query"):
            started.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        await started.wait()
        group.cancel_scope.cancel()
    assert spans.parents(rec) == {"answer": None, "query": "answer"}
    assert rec.run("answer").status == "cancelled"


async def test_a_detached_task_keeps_the_span_that_it_was_started_in(spans: Spans, rec: Recording) -> None:
    left = anyio.Event()

    async def detached() -> None:
        await left.wait()
        with trace("late"):
            pass

    async with anyio.create_task_group() as group:
        with trace("answer"), spans.start("call"):
            group.start_soon(detached)
        left.set()
    assert spans.parents(rec) == {"answer": None, "call": "answer", "late": "call"}


def test_a_span_ended_in_another_thread_is_nobodys_trouble(spans: Spans, rec: Recording) -> None:
    with trace("answer"):
        span = spans.tracer.start_span("call")
        token = otel_context.attach(otel.set_span_in_context(span))

        def end() -> None:
            otel_context.detach(token)
            span.end()

        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        with trace("inside"):
            pass
        otel_context.detach(token)
        with trace("after"):
            pass
    assert spans.parents(rec) == {"answer": None, "call": "answer", "inside": "call", "after": "answer"}


def test_a_span_that_is_left_while_a_run_inside_is_open_does_not_come_back(spans: Spans, rec: Recording) -> None:
    token = otel_context.attach(otel.set_span_in_context(spans.tracer.start_span("call")))
    block = trace("answer")
    block.__enter__()
    otel_context.detach(token)
    with spans.start("query"):
        pass
    block.__exit__(None, None, None)
    with trace("after") as after, spans.start("after's"):
        pass
    assert (after.remote_parent, spans.named("after's").parent.span_id) == (None, after.span_id)
    assert spans.named("query").parent.span_id == rec.run("answer").span_id


def test_detaching_what_is_outside_takes_along_what_was_left_inside(spans: Spans, rec: Recording) -> None:
    with trace("answer"):
        with spans.start("call"):
            otel_context.attach(baggage.set_baggage("never", "detached"))
        assert baggage.get_all() == {}
        assert current_run() is not None
        assert otel.get_current_span().get_span_context().span_id == rec.run("answer").span_id


@pytest.mark.parametrize("context", [None, otel_context.Context()])
def test_what_is_attached_and_never_detached_ends_with_the_run(
    context: otel_context.Context | None, spans: Spans, rec: Recording
) -> None:
    @traced
    def careless() -> None:
        otel_context.attach(context if context is not None else otel.set_span_in_context(spans.tracer.start_span("never")))

    careless()
    assert get_current() is None


def test_attaching_again_and_again_keeps_no_chain(spans: Spans, rec: Recording) -> None:
    def serve() -> int:
        for number in range(100):
            otel_context.attach(otel.set_span_in_context(spans.tracer.start_span(f"{number}"), otel_context.Context()))
        return sum(1 for _ in current._outward(get_current()))

    assert contextvars.copy_context().run(serve) <= 3


def test_a_run_that_is_gone_is_nobodys_parent(spans: Spans) -> None:
    with subscribe(lambda sender, event: None), trace("worker"), spans.start("poll"), extract({}):
        with trace("handled") as run:
            otel.get_current_span()
        forgotten = weakref.ref(run)
        del run
        gc.collect()
        assert forgotten() is None
        with spans.start("alone"):
            pass
    assert spans.named("alone").parent is None


def test_nothing_is_kept_of_a_run_that_has_ended(spans: Spans) -> None:
    with subscribe(lambda sender, event: None):
        with trace("answer") as run, spans.start("query"), trace("row"):
            otel.get_current_span()
        otel.get_current_span()
        forgotten = weakref.ref(run)
        del run
    gc.collect()
    assert forgotten() is None


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_thread_that_is_given_the_context_knows_the_run(spans: Spans, rec: Recording) -> None:
    def work(context: otel_context.Context) -> None:
        token = otel_context.attach(context)
        with spans.start("query"), trace("tool") as run:
            assert run.session_id == "s-1"
        otel_context.detach(token)
        assert get_current() is None

    with scope(session_id="s-1"), trace("answer"):
        thread = threading.Thread(target=work, args=(otel_context.get_current(),))
        thread.start()
        thread.join()
    assert spans.parents(rec) == {"answer": None, "query": "answer", "tool": "query"}
    assert rec.tree() == "answer chain ok\n  tool chain ok"


def test_a_thread_pool_that_carries_runs_carries_spans(spans: Spans, rec: Recording) -> None:
    def work() -> None:
        with spans.start("query"):
            pass

    with trace("answer"), spans.start("call"), threads.carrying(ThreadPoolExecutor(1)) as pool:
        pool.submit(work).result()
    assert spans.parents(rec) == {"answer": None, "call": "answer", "query": "call"}


async def test_a_worker_thread_of_anyio_knows_both(spans: Spans, rec: Recording) -> None:
    def work() -> None:
        with spans.start("query"):
            pass

    with trace("answer"), spans.start("call"):
        await anyio.to_thread.run_sync(work)
    assert spans.parents(rec) == {"answer": None, "call": "answer", "query": "call"}


# -- on and off --------------------------------------------------------------------------------------------------------


def test_installing_twice_is_once(spans: Spans, rec: Recording) -> None:
    bridge.install()
    bridge.uninstall()
    with trace("answer"), spans.start("query"):
        pass
    assert spans.named("query").parent is None
    bridge.uninstall()


def test_what_was_attached_before_can_be_detached_after(spans: Spans, rec: Recording) -> None:
    bridge.uninstall()
    with spans.start("before"):
        bridge.install()
        with trace("answer"), spans.start("inside"):
            bridge.uninstall()
    bridge.install()
    assert spans.parents(rec) == {"before": None, "answer": "before", "inside": "answer"}


def test_a_version_that_is_not_known_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spans: Spans, rec: Recording
) -> None:
    bridge.uninstall()
    monkeypatch.setattr(otel_context, "_RUNTIME_CONTEXT", object())
    bridge.install()
    assert "in a way that tracebus does not know" in caplog.text
    caplog.clear()
    monkeypatch.undo()
    with trace("answer"), spans.start("query"):
        pass
    assert spans.named("query").parent is None


PROGRAM = """
from opentelemetry import trace as otel
from tracebus import trace
from tracebus.testing import record

with record(), trace("answer") as run:
    print(otel.get_current_span().get_span_context().span_id == run.span_id)
"""


@pytest.mark.parametrize(("only", "is_parent"), [((), "False"), (("--only", "opentelemetry"), "True")])
def test_tracebus_run_installs_it_where_it_is_named(
    only: tuple[str, ...], is_parent: str, run_python: Callable[..., Any]
) -> None:
    done = run_python("-m", "tracebus", "run", "--log", "off", *only, "-c", PROGRAM)
    assert done.stdout.strip() == is_parent


def test_without_opentelemetry_it_says_what_to_install(run_python: Callable[..., Any]) -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import tracebus.integrations.opentelemetry"
    done = run_python("-c", code, check=False)
    assert 'OpenTelemetry is not installed: pip install "tracebus[opentelemetry]"' in done.stderr


def test_the_sdk_is_not_needed(run_python: Callable[..., Any]) -> None:
    code = "import sys; import tracebus.integrations.opentelemetry; print([n for n in sys.modules if '.sdk' in n])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_propagators_of_the_app_work_inside_of_runs(spans: Spans, rec: Recording) -> None:
    headers: dict[str, str] = {}
    with trace("answer") as run:
        propagate.inject(headers)
    assert headers["traceparent"].split("-")[1:3] == [run.trace_id.hex, f"{run.span_id:016x}"]


def test_spans_that_are_not_sampled_are_parents_too(rec: Recording) -> None:
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("tests")
    with tracer.start_as_current_span("dropped") as span, trace("answer") as run:
        assert emit("text", text="x") is None
    assert run.remote_parent is not None
    assert (run.remote_parent.span_id, run.remote_parent.sampled) == (span.get_span_context().span_id, False)


def test_tasks_of_asyncio_that_are_gathered_do_not_mix(spans: Spans, rec: Recording) -> None:
    async def work(name: str) -> None:
        with trace(f"run {name}"):
            await asyncio.sleep(0)
            with spans.start(f"span {name}"):
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(work(f"{number}") for number in range(20)))

    asyncio.run(main())
    parents = spans.parents(rec)
    assert all(parents[f"span {number}"] == f"run {number}" for number in range(20))
