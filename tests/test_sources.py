"""Runs that a framework reports by ids of its own."""

import logging
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

import tracebus
from tracebus import Usage, current_run, emit, scope, text, trace, traced
from tracebus.propagation import extract
from tracebus.sources import Reporter
from tracebus.testing import Recording


@pytest.fixture
def reporter() -> Reporter:
    return Reporter("framework")


current_key: ContextVar[str | None] = ContextVar("framework's current run", default=None)


@pytest.fixture
def framework(reporter: Reporter) -> Iterator[Reporter]:
    """A framework that keeps its current run in a variable of its own."""
    forget = reporter.current_in(current_key.get)
    yield reporter
    forget()


def test_a_reported_run_starts_streams_and_ends(reporter: Reporter, recorded: Recording) -> None:
    reporter.start("1", name="model", kind="llm", inputs={"prompt": "hi"}, model="m-1", tags=["t"], metadata={"a": 1})
    reporter.token("1", "Hel")
    reporter.token("1", "lo")
    reporter.end("1", usage=Usage(1, 2))
    run = recorded.of("llm_end")[0].run
    assert (run.name, run.sender, run.status, run.output) == ("model", "framework", "ok", "Hello")
    assert (run.tags, run.metadata, run.model, run.usage) == (("t",), {"a": 1}, "m-1", Usage(1, 2))
    assert [event.signal_name for event in recorded.events] == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


def test_the_frameworks_id_is_kept(reporter: Reporter, recorded: Recording) -> None:
    run_id = uuid.uuid4()
    run = reporter.start(run_id, name="chain", run_id=run_id)
    assert run is not None
    assert run.id == run.trace_id == run_id


def test_reported_runs_nest_by_their_keys(reporter: Reporter, recorded: Recording) -> None:
    reporter.start("outer", name="outer")
    reporter.start("inner", "outer", name="inner", kind="tool")
    reporter.end("inner")
    reporter.end("outer")
    assert str(recorded.tree()) == "outer chain ok\n  inner tool ok"


def test_a_reported_root_is_nested_in_the_run_that_is_current(reporter: Reporter, recorded: Recording) -> None:
    with trace("app"):
        reporter.start("1", name="chain")
        reporter.end("1")
    assert str(recorded.tree()) == "app chain ok\n  chain chain ok"


def test_what_is_traced_inside_finds_the_frameworks_current_run(framework: Reporter, recorded: Recording) -> None:
    @traced(kind="tool")
    def lookup() -> None:
        run = current_run()
        assert run is not None
        assert run.name == "lookup"

    framework.start("node", name="node")
    current_key.set("node")
    lookup()
    emit(text, text="said in the node")
    current_key.set(None)
    framework.end("node")
    assert str(recorded.tree()) == "node chain ok\n  lookup tool ok"
    (said,) = recorded.of("text")
    assert said.run.name == "node"


def test_what_the_framework_starts_inside_a_traced_function_is_nested_there(framework: Reporter, recorded: Recording) -> None:
    framework.start("node", name="node")
    current_key.set("node")
    with trace("step"):
        framework.start("chain", "node", name="chain")  # the framework knows nothing of the step
        current_key.set("chain")
        with trace("inner step"):
            pass
        current_key.set("node")
        framework.end("chain")
        with trace("second step"):
            pass
    current_key.set(None)
    framework.end("node")
    assert str(recorded.tree()) == (
        "node chain ok\n  step chain ok\n    chain chain ok\n      inner step chain ok\n    second step chain ok"
    )


def test_a_scope_inside_the_framework_is_nested_there(framework: Reporter, recorded: Recording) -> None:
    framework.start("node", name="node")
    current_key.set("node")
    with scope(user_id="u-1"), trace("step"):
        pass
    current_key.set(None)
    framework.end("node")
    assert recorded.run("step").parent_id == recorded.run("node").id
    assert recorded.run("step").user_id == "u-1"


def test_an_extracted_trace_inside_the_framework_begins_at_a_root(framework: Reporter, recorded: Recording) -> None:
    framework.start("node", name="node")
    current_key.set("node")
    with extract({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}), trace("served"):
        pass
    current_key.set(None)
    assert recorded.run("served").parent is None


def test_a_stream_that_the_framework_steps_stays_where_it_was_made(framework: Reporter, recorded: Recording) -> None:
    @traced
    def stream() -> Iterator[str]:
        with trace("inside"):
            yield "a"

    steps = stream()
    framework.start("node", name="node")
    current_key.set("node")
    assert list(steps) == ["a"]
    current_key.set(None)
    framework.end("node")
    assert recorded.run("stream").parent is None
    assert recorded.run("inside").parent_id == recorded.run("stream").id


def test_of_two_frameworks_the_inner_one_counts(framework: Reporter, recorded: Recording) -> None:
    other, key = Reporter("other"), ContextVar[str | None]("other", default=None)
    forget = other.current_in(key.get)
    framework.start("a", name="a")
    current_key.set("a")
    other.start("b", name="b")
    key.set("b")
    framework.start("c", "a", name="c")  # knows nothing of b
    with trace("in b"):
        pass
    key.set(None)
    current_key.set(None)
    forget()
    assert recorded.run("in b").parent_id == recorded.run("b").id
    assert recorded.run("b").parent_id == recorded.run("a").id
    assert recorded.run("c").parent_id == recorded.run("b").id


async def test_tasks_inherit_the_frameworks_run_with_its_variable(framework: Reporter, recorded: Recording) -> None:
    @traced
    async def work() -> None:
        await anyio.sleep(0)

    framework.start("node", name="node")
    current_key.set("node")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        tasks.start_soon(work)
    current_key.set(None)
    framework.end("node")
    assert str(recorded.tree()) == "node chain ok\n  work chain ok\n  work chain ok"


def test_a_second_terminal_is_ignored(reporter: Reporter, recorded: Recording, caplog: pytest.LogCaptureFixture) -> None:
    reporter.start("1", name="chain")
    reporter.end("1", output="done")
    reporter.fail("1", ValueError("late"))
    assert recorded.run("chain").status == "ok"
    assert caplog.records == []


def test_a_second_start_is_ignored_and_logged_once(
    reporter: Reporter, recorded: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reporter.start("1", name="chain")
    reporter.end("1")
    assert recorded.tree() == "chain chain ok"
    assert [record.getMessage() for record in caplog.records] == ["framework reported the start of a run twice: 1"]


def test_an_unknown_run_is_ignored_and_logged_once(
    reporter: Reporter, recorded: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reporter.end("never seen")
        reporter.token("never seen", "a")
        reporter.say("never seen", text, text="a")
    assert recorded.events == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_unknown_parent_makes_a_root_and_one_warning(
    reporter: Reporter, recorded: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    for key in "ab":
        reporter.start(key, "never seen", name=key)
        reporter.end(key)
    assert str(recorded.tree()) == "a chain ok\nb chain ok"
    assert len(caplog.records) == 1


def test_nothing_is_made_while_nothing_listens(reporter: Reporter, caplog: pytest.LogCaptureFixture) -> None:
    with tracebus.signals.isolated():
        assert reporter.start("1", name="chain") is None
        reporter.token("1", "a")
        reporter.end("1")
    assert len(reporter) == 0
    assert caplog.records == []


def test_sessions_and_users_are_inherited_by_what_is_nested(reporter: Reporter, recorded: Recording) -> None:
    reporter.start("1", name="outer", session_id="s-1", user_id="u-1")
    reporter.start("2", "1", name="inner")
    inner: Any = reporter.find("2")
    assert (inner.session_id, inner.user_id, inner.parent) == ("s-1", "u-1", reporter.find("1"))
    reporter.end("2")
    reporter.end("1")


def test_ended_runs_are_let_go(reporter: Reporter) -> None:
    with tracebus.subscribe(lambda sender, event: None):
        for key in range(3_000):
            reporter.start(key, name=f"run {key}")
            reporter.end(key, output="x" * 1000)
    assert len(reporter) == 0
    assert reporter.find(2_999) is None
    assert len(reporter._ended) == 1_000
