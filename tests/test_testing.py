"""The test kit that users get: what was said, as a tree; and times and ids that do not change."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import pytest

import tracebus
from tracebus import aemit, chain_end, chain_start, emit, scope, text, trace, traced
from tracebus.errors import ArgumentError, UnknownHookError
from tracebus.testing import Clock, Recording, deterministic, record

pytest_plugins = ["pytester"]


@traced(kind="retriever")
def search(query: str) -> list[str]:
    return [query]


@traced(kind="llm")
def generate(prompt: str) -> Iterator[str]:
    yield from ("It ", "is ", "so.")


@traced
def answer(question: str) -> str:
    return "".join(generate(search(question)[0]))


# -- what was said -----------------------------------------------------------------------------------------------------


def test_a_tree_has_a_line_for_each_run() -> None:
    with record() as rec:
        answer("Is it?")
    assert rec.tree() == "answer chain ok\n  search retriever ok\n  generate llm ok"


def test_a_tree_shows_what_is_neither_true_nor_false() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = object.__hash__

        def __repr__(self) -> str:
            return "m"

    with record() as rec, trace("rate", model=Array()):  # type: ignore[arg-type]
        pass
    assert rec.tree("model") == "rate m"


def test_a_tree_shows_what_is_asked_for() -> None:
    with record() as rec, scope(tags=["t"], user_id="u"), trace("rate", kind="tool", inputs={"a": 1}, model="m") as run:
        run.usage = tracebus.Usage(input_tokens=2)
        run.output = "x" * 100
    assert rec.tree("kind", "model", "tags", "user_id", "session_id", "inputs", "usage", "error") == (
        'rate tool m ["t"] u {"a":1} {"input_tokens":2}'
    )
    assert rec.tree("output") == f"rate {'x' * 59}…"


def test_a_tree_shows_errors_by_type_and_message() -> None:
    with record() as rec, pytest.raises(ValueError, match="XX"), trace("rate"):
        raise ValueError('no such currency "XX"')
    assert rec.tree("status", "error") == 'rate error ValueError: no such currency "XX"'


def test_a_tree_cannot_show_what_no_run_has() -> None:
    with record() as rec, pytest.raises(ArgumentError, match="'colour' of a run: choose from kind, status"):
        rec.tree("colour")


def test_a_name_cannot_break_a_line_of_the_tree() -> None:
    with record() as rec, trace("a\nb"):
        pass
    assert rec.tree() == r"a\nb chain ok"


def test_nothing_heard_is_an_empty_tree() -> None:
    with record() as rec:
        pass
    assert (rec.tree(), rec.events, rec.runs, rec.tokens) == ("", [], [], [])


def test_a_run_that_has_not_ended_is_open() -> None:
    with record() as rec, trace("outer"):
        with trace("inner"):
            pass
        assert rec.tree() == "outer chain open\n  inner chain ok"


def test_what_is_said_after_the_block_is_not_recorded() -> None:
    with trace("outer"):
        with record() as rec:
            emit(text, text="in")
        emit(text, text="out")
    assert [event.text for event in rec.of(text)] == ["in"]
    assert rec.tree() == "outer chain open"


def test_a_run_whose_parent_was_not_heard_is_at_the_left() -> None:
    with trace("unheard"), record() as rec, trace("a"), trace("b"):
        pass
    assert rec.tree() == "a chain ok\n  b chain ok"


def test_a_parent_that_is_heard_after_its_child_still_has_it_below() -> None:
    with record() as rec, trace("parent"):
        rec.clear()
        with trace("child"):
            pass
    assert [run.name for run in rec.runs] == ["child", "parent"]
    assert rec.tree() == "parent chain ok\n  child chain ok"


def test_deep_trees_are_drawn() -> None:
    with record() as rec:
        blocks = [trace(str(depth)) for depth in range(2_000)]
        for block in blocks:
            block.__enter__()
        for block in reversed(blocks):
            block.__exit__(None, None, None)
    assert rec.tree().splitlines()[-1] == f"{'  ' * 1_999}1999 chain ok"


def test_runs_are_as_they_ended_in_the_order_of_their_starts() -> None:
    with record() as rec:
        answer("Is it?")
    assert [(run.name, run.output) for run in rec.runs] == [
        ("answer", "It is so."),
        ("search", ["Is it?"]),
        ("generate", "It is so."),
    ]


def test_a_run_is_found_by_its_name() -> None:
    with record() as rec:
        answer("Is it?")
    assert rec.run("generate").inputs == {"prompt": "Is it?"}


def test_a_name_that_no_run_or_several_have_shows_the_tree() -> None:
    with record() as rec:
        with pytest.raises(ArgumentError, match=r"(?s)no recorded runs are called 'x'.*no runs"):
            rec.run("x")
        search("a")
        search("b")
        with pytest.raises(ArgumentError, match=r"(?s)2 recorded runs are called 'search'.*search retriever ok"):
            rec.run("search")


def test_tokens_are_those_of_all_runs() -> None:
    with record() as rec:
        answer("Is it?")
        list(generate("And?"))
    assert rec.tokens == ["It ", "is ", "so."] * 2


def test_events_are_filtered_by_hook_name_or_pattern() -> None:
    with record() as rec:
        answer("Is it?")
        names = [event.signal_name for event in rec.of("llm_*", chain_end)]
    assert names == ["llm_start", "llm_new_token", "llm_new_token", "llm_new_token", "llm_end", "chain_end"]
    assert [event.output for event in rec.of(chain_end)] == ["It is so."]
    assert rec.of() == rec.events


def test_a_filter_that_no_hook_passes_says_so() -> None:
    with record() as rec, pytest.raises(UnknownHookError, match="'llm_begin'"):
        rec.of("llm_begin")


def test_clearing_forgets() -> None:
    with record() as rec:
        search("a")
        rec.clear()
        list(generate("b"))
    assert rec.tree() == "generate llm ok"


def test_events_without_a_run_are_recorded() -> None:
    with record() as rec:
        emit(text, text="alone")
    assert [(event.run, event.text) for event in rec.of(text)] == [(None, "alone")]


def test_what_the_app_changes_later_was_not_recorded() -> None:
    messages = [{"role": "user", "content": "a"}]
    with record() as rec, trace("chat", kind="chat_model", inputs={"messages": messages}) as run:
        messages[0]["content"] = "changed"
        messages.append({"role": "user", "content": "added"})
        run.output = found = ["b"]
    found.append("c")
    run.metadata["later"] = 1
    [start, end] = rec.events
    assert start.messages == [{"role": "user", "content": "a"}]
    assert end.output == ["b"]
    assert (rec.run("chat").output, rec.run("chat").metadata) == (["b"], {})


def test_events_are_in_the_order_in_which_they_were_said() -> None:
    def comment(sender: Any, /, *, event: Any) -> None:
        emit(text, text=f"heard {event.run.name}")

    with chain_start.connected_to(comment), record() as rec, trace("a"):
        pass
    assert [event.signal_name for event in rec.events] == ["chain_start", "text", "chain_end"]


def test_an_event_has_what_was_set_on_its_run_when_it_was_said() -> None:
    with record() as rec, trace("ask", kind="llm", tags=["a"], metadata={"phase": 1}) as run:
        emit(text, text="before")
        run.model, run.usage, run.output = "m", tracebus.Usage(1, 2), "so far"
        emit(text, text="set")
        run.metadata["phase"] = 2
        emit(text, text="another value")
        run.metadata["step"] = run.metadata.pop("phase")
        emit(text, text="another name")
        run.tags = (*run.tags, "b")
        emit(text, text="tagged")
    said = [(said.model, said.usage, said.output, said.metadata, said.tags) for said in (event.run for event in rec.of(text))]
    known = "m", tracebus.Usage(1, 2), "so far"
    assert said == [
        (None, None, None, {"phase": 1}, ("a",)),
        (*known, {"phase": 1}, ("a",)),
        (*known, {"phase": 2}, ("a",)),
        (*known, {"step": 2}, ("a",)),
        (*known, {"step": 2}, ("a", "b")),
    ]


def test_what_is_set_on_a_run_is_copied_once_and_only_that() -> None:
    copied: list[str] = []

    class Watched:
        def __init__(self, name: str) -> None:
            self._name = name

        def __repr__(self) -> str:
            copied.append(self._name)
            return self._name

        def __bool__(self) -> bool:
            raise AssertionError("asked")

        __eq__ = __bool__  # type: ignore[assignment]
        __hash__ = object.__hash__

    with record() as rec, trace("ask", kind="llm", inputs=[Watched("inputs")], metadata={"m": Watched("m")}) as run:
        copied.clear()
        for number in range(3):
            for _ in range(10):
                emit(text, text="token")
            run.metadata[f"n{number}"] = Watched(f"n{number}")
        emit(text, text="token")
        assert copied == ["n0", "n1", "n2"]
    assert len({id(event.run) for event in rec.of(text)}) == 4


def test_other_threads_are_recorded() -> None:
    with record() as rec:
        threads = [threading.Thread(target=search, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(run.inputs["query"] for run in rec.runs) == list("01234567")
    assert {run.status for run in rec.runs} == {"ok"}


async def test_tasks_are_recorded() -> None:
    @traced(kind="llm")
    async def stream() -> AsyncIterator[str]:
        yield "a"

    @traced
    async def work(name: str) -> None:
        await aemit(text, text=name)
        async for _ in stream():
            await anyio.lowlevel.checkpoint()

    with record() as rec:
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(work, name)
    assert rec.tree() == "\n".join(["work chain ok\n  stream llm ok"] * 3)
    assert sorted(event.text for event in rec.of(text)) == ["a", "b", "c"]


def test_a_recording_can_hold_another() -> None:
    with record() as outer:
        with record() as inner:
            search("a")
        search("b")
    assert (len(outer.runs), len(inner.runs)) == (2, 1)


def test_recording_leaves_nothing_connected() -> None:
    before = {hook.name: dict(hook.receivers) for hook in tracebus.HOOKS.values()}
    with record():
        assert {hook.name: dict(hook.receivers) for hook in tracebus.HOOKS.values()} != before
    assert {hook.name: dict(hook.receivers) for hook in tracebus.HOOKS.values()} == before


def test_a_failure_of_another_subscriber_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    def fail(sender: Any, /, *, event: Any) -> None:
        raise ValueError("no")

    with chain_end.connected_to(fail), record() as rec, trace("a"):
        pass
    [failure] = rec.of("subscriber_failed")
    assert (failure.hook, failure.subscriber) == ("chain_end", fail)


def test_a_recording_says_how_much_there_is() -> None:
    with record() as rec:
        answer("Is it?")
    assert repr(rec) == "<Recording: 9 events, 3 runs>"


# -- the same on every run ---------------------------------------------------------------------------------------------


def test_ids_are_numbered_and_times_stand_still() -> None:
    with deterministic(), trace("a") as a, trace("b") as b:
        pass
    assert str(a.id) == "019b76da-a800-7000-8000-000000000001"
    assert str(b.id) == "019b76da-a800-7000-8000-000000000002"
    assert (a.start_ns, a.duration_s) == (1_767_225_600_000_000_000, 0.0)


def test_time_passes_when_the_test_says_so() -> None:
    with deterministic() as clock, trace("a", kind="llm") as run:
        clock.advance(0.25)
        emit("llm_new_token", token="x")
        clock.advance(1)
    assert (run.first_token_s, run.duration_s) == (0.25, 1.25)
    assert run.end_ns is not None
    assert run.end_ns - run.start_ns == 1_250_000_000


def test_a_wall_clock_that_is_set_back_makes_no_negative_duration() -> None:
    with deterministic() as clock, record() as rec, trace("a"):
        clock.advance(2)
        clock.adjust(-3600)
        emit(text, text="b")
    assert rec.run("a").duration_s == 2.0
    assert [event.time_ns - rec.run("a").start_ns for event in rec.of(text)] == [-3_598_000_000_000]


def test_a_clock_can_start_at_any_time() -> None:
    with deterministic(datetime(2030, 5, 17, 12, 0, 0, 1, tzinfo=UTC)), trace("a") as run:
        pass
    assert run.start_ns == 1_905_249_600_000_001_000


def test_after_the_block_times_and_ids_are_real_again() -> None:
    with deterministic():
        with deterministic() as inner, trace("a") as first:
            inner.advance(1)
        with trace("b") as second:
            pass
    with trace("c") as third:
        pass
    assert (first.id.int & 0xFF, second.id.int & 0xFF) == (1, 5)  # its start is the fifth event, with both changes of clocks
    assert third.start_ns > second.start_ns
    assert third.id.int & 0xFFFF_FFFF_FFFF > 0xFF


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_time_does_not_pass_backwards(seconds: float) -> None:
    with pytest.raises(ArgumentError, match="backwards"):
        Clock().advance(seconds)


def test_a_start_without_a_time_zone_says_so() -> None:
    with pytest.raises(ArgumentError, match="time zone"), deterministic(datetime(2030, 1, 1)):
        pass


def test_a_golden_output_is_stable() -> None:
    def tell() -> tuple[str, list[int]]:
        with deterministic() as clock, record() as rec, trace("a"):
            clock.advance(1)
            search("b")
        return "\n".join(str(run) for run in rec.runs), [event.time_ns for event in rec.events]

    assert tell() == tell()


# -- the pytest plugin -------------------------------------------------------------------------------------------------


def test_the_fixture_records(recorded: Recording) -> None:
    search("a")
    assert recorded.tree() == "search retriever ok"


async def test_the_fixture_records_async_tests(recorded: Recording) -> None:
    async with trace("a"):
        pass
    assert recorded.tree() == "a chain ok"


def test_the_clock_is_a_fixture_too(tracebus_clock: Clock, recorded: Recording) -> None:
    with trace("a"):
        tracebus_clock.advance(0.5)
    assert [(run.id.int & 0xFF, run.duration_s) for run in recorded.runs] == [(1, 0.5)]


USERS_TESTS = """
import pytest
from tracebus import chain_end, trace

heard = []
chain_end.connect(lambda sender, event: heard.append(event.run.name))

def test_outside_subscribers_do_not_hear(recorded):
    heard.clear()
    with trace("quiet"):
        pass
    assert recorded.tree() == "quiet chain ok"
    assert heard == []

def test_what_is_connected_in_a_test(recorded):
    chain_end.connect(lambda sender, event: heard.append("left over"))

def test_is_gone_after_it_and_what_was_there_is_back():
    heard.clear()
    with trace("loud"):
        pass
    assert heard == ["loud"]

@pytest.mark.parametrize("number", range(20))
def test_every_test_hears_itself_alone(number, recorded):
    with trace(str(number)):
        pass
    assert recorded.tree() == f"{number} chain ok"

def test_a_failing_test_shows_the_tree(recorded):
    with trace("a"):
        pass
    assert recorded.tree() == "b chain ok"
"""


SLOW_TO_LOAD: Final = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "langsmith_plugin", "schemathesis")]


@pytest.mark.once
@pytest.mark.parametrize("options", [["-W", "error"], ["-n", "2"]], ids=["alone", "xdist"])
def test_the_fixture_works_for_users(options: list[str], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USERS_TESTS)
    result = pytester.runpytest_subprocess(*SLOW_TO_LOAD, *options)
    result.assert_outcomes(passed=23, failed=1)
    result.stdout.fnmatch_lines(["*- b chain ok*", "*+ a chain ok*"])


def test_a_test_that_does_not_use_the_plugin_sees_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys, threading, warnings
        from tracebus import HOOKS, current_run

        def test_it():
            assert current_run() is None
            assert not any(signal.receivers for signal in HOOKS.values())
            assert threading.active_count() == 1
            assert {"structlog", "trio", "IPython", "opentelemetry"}.isdisjoint(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(*SLOW_TO_LOAD, "-pno:anyio")  # these load some of it themselves
    result.assert_outcomes(passed=1)


@pytest.mark.once
def test_another_plugin_may_import_tracebus_first(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(early="import tracebus, tracebus.testing")
    pytester.makepyfile("def test_it(recorded): assert recorded.tree() == ''")
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess(*SLOW_TO_LOAD, "-p", "early", "-W", "error")
    result.assert_outcomes(passed=1)


@pytest.mark.once
def test_the_plugin_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(recorded): pass")
    result = pytester.runpytest_subprocess(*SLOW_TO_LOAD, "-p", "no:tracebus")
    result.stdout.fnmatch_lines(["*fixture 'recorded' not found*"])


def test_the_blocks_need_no_pytest(run_python: Callable[..., Any]) -> None:
    run_python(
        "-c",
        """
import sys
sys.modules["pytest"] = None
from tracebus import trace
from tracebus.testing import deterministic, record
with deterministic(), record() as rec, trace("a"):
    pass
assert rec.tree() == "a chain ok"
""",
    )
