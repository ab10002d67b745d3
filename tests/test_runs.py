"""A run: its ids, its times, what it inherits and what can be set on it."""

import gc
import itertools
import time
import uuid
import weakref
from collections.abc import Iterator

import pytest

from tracebus import Run, Usage, current_run, scope, subscribe, trace, traced
from tracebus.errors import ArgumentError
from tracebus.events import Event
from tracebus.runs import KINDS, Instruments, RemoteParent, Scope, check_kind, open_runs, set_current, use_instruments

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]
HOUR_NS = 3_600_000_000_000


class Boom(Exception):
    pass


class Clock:
    """A wall clock, a monotonic clock and a source of bits that a test moves by hand."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_000_000_000
        self.monotonic = 0
        self.bits = itertools.count(1)

    def instruments(self) -> Instruments:
        return Instruments(lambda: self.wall, lambda: self.monotonic, lambda seq: next(self.bits))

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    before = use_instruments(clock.instruments())
    try:
        yield clock
    finally:
        use_instruments(before)


def a_run(name: str = "a") -> Run:
    with trace(name) as run:
        return run


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_an_id_is_a_uuid_of_version_7() -> None:
    run = a_run()
    assert (type(run.id), run.id.version, run.id.variant) == (uuid.UUID, 7, uuid.RFC_4122)


def test_an_id_never_changes() -> None:
    run = a_run()
    assert run.id == run.id


def test_the_low_64_bits_are_the_span_id() -> None:
    run = a_run()
    assert run.span_id == run.id.int & (2**64 - 1)


def test_an_id_begins_with_the_milliseconds_of_the_start(clock: Clock) -> None:
    run = a_run()
    assert run.id.int >> 80 == run.start_ns // 1_000_000 == clock.wall // 1_000_000


def test_later_runs_have_greater_ids(clock: Clock) -> None:
    ids = []
    for _ in range(1_000):
        clock.advance(1e-6)
        ids.append(a_run().id)
    assert ids == sorted(ids)


def test_ids_of_one_instant_differ() -> None:
    assert len({a_run().id for _ in range(10_000)}) == 10_000


def test_span_ids_differ() -> None:
    assert len({a_run().span_id for _ in range(10_000)}) == 10_000


def test_ids_do_not_come_from_the_users_random_generator() -> None:
    import random

    random.seed(1)
    first, state = a_run().id, random.getstate()
    random.seed(1)
    assert a_run().id != first
    assert random.getstate() == state


def test_a_root_run_names_its_trace() -> None:
    run = a_run()
    assert run.trace_id == run.id


def test_nested_runs_are_of_one_trace() -> None:
    with trace("a") as a, trace("b") as b, trace("c") as c:
        assert b.trace_id == c.trace_id == a.id


def test_roots_are_of_traces_of_their_own() -> None:
    assert a_run().trace_id != a_run().trace_id


def test_a_nested_run_knows_its_parent() -> None:
    with trace("a") as a, trace("b") as b:
        assert (b.parent, b.parent_id) == (a, a.id)


def test_a_root_has_no_parent() -> None:
    run = a_run()
    assert (run.parent, run.parent_id, run.remote_parent) == (None, None, None)


def test_siblings_have_one_parent() -> None:
    with trace("a") as a:
        assert [a_run("b").parent, a_run("c").parent] == [a, a]


def test_a_root_continues_the_trace_that_came_from_outside() -> None:
    remote = RemoteParent(uuid.UUID(int=2**128 - 1), 7)
    set_current(Scope(remote=remote))
    try:
        with trace("a") as a, trace("b") as b:
            pass
    finally:
        set_current(None)
    assert (a.trace_id, b.trace_id, a.remote_parent, b.remote_parent) == (
        remote.trace_id,
        remote.trace_id,
        remote,
        None,
    )


# -- times -------------------------------------------------------------------------------------------------------------


def test_a_duration_is_in_seconds(clock: Clock) -> None:
    with trace("a") as run:
        clock.advance(1.5)
    assert (run.duration_s, (run.end_ns or 0) - run.start_ns) == (1.5, 1_500_000_000)


def test_a_run_that_is_open_has_no_end() -> None:
    with trace("a") as run:
        assert (run.end_ns, run.duration_s) == (None, None)


def test_a_clock_set_back_an_hour_makes_no_duration_negative(clock: Clock, heard: Events) -> None:
    with trace("a") as a:
        clock.advance(1)
        with trace("b") as b:
            clock.wall -= HOUR_NS
            clock.advance(1)
    assert (a.duration_s, b.duration_s) == (2.0, 1.0)


def test_a_clock_set_back_an_hour_makes_no_first_token_early(clock: Clock, heard: Events) -> None:
    @traced(kind="llm")
    def fn() -> Iterator[str]:
        clock.wall -= HOUR_NS
        clock.advance(0.25)
        yield "a"

    list(fn())
    assert heard[0].run is not None
    assert heard[0].run.first_token_s == 0.25


def test_a_clock_set_back_an_hour_keeps_the_order_of_events(clock: Clock, heard: Events) -> None:
    with trace("a"):
        clock.wall -= HOUR_NS
    assert [event.seq for event in heard] == sorted(event.seq for event in heard)


@pytest.mark.parametrize("wall", [-1, 0, 2**63, 2**70])
def test_a_clock_that_is_far_off_gives_an_id_all_the_same(clock: Clock, wall: int) -> None:
    clock.wall = wall
    assert a_run().id.version == 7


def test_events_carry_the_wall_clock(clock: Clock, heard: Events) -> None:
    start = clock.wall
    with trace("a"):
        clock.advance(1)
    assert [event.time_ns for event in heard] == [start, start + 1_000_000_000]


def test_without_a_test_the_clock_is_the_systems() -> None:
    before = time.time_ns()
    run = a_run()
    assert before <= run.start_ns <= (run.end_ns or 0) <= time.time_ns()


# -- status ------------------------------------------------------------------------------------------------------------


def test_a_run_is_open_until_it_ends() -> None:
    with trace("a") as run:
        assert run.status == "open"
        assert run in open_runs
    assert run.status == "ok"
    assert run not in open_runs


def test_a_run_that_raises_knows_its_error() -> None:
    error = Boom()
    with pytest.raises(Boom), trace("a") as run:
        raise error
    assert (run.status, run.error) == ("error", error)


def test_a_terminal_event_finds_the_run_ended() -> None:
    seen: list[object] = []
    with (
        subscribe(lambda sender, event: seen.append((event.run.status, event.run.end_ns == event.time_ns)), "chain_end"),
        trace("a"),
    ):
        pass
    assert seen == [("ok", True)]


# -- tags and metadata -------------------------------------------------------------------------------------------------


def test_tags_of_the_scope_come_first_and_each_once() -> None:
    with scope(tags=["a", "b"]), trace("t", tags=["b", "c"]) as run:
        assert run.tags == ("a", "b", "c")


def test_tags_of_a_block_are_not_inherited() -> None:
    with trace("a", tags=["own"]), trace("b") as run:
        assert run.tags == ()


def test_tags_of_a_scope_are_inherited_to_any_depth() -> None:
    with scope(tags=["request"]), trace("a"), trace("b"), trace("c") as run:
        assert run.tags == ("request",)


def test_metadata_of_the_scope_and_of_the_block_are_merged() -> None:
    with scope(metadata={"a": 1, "b": 1}), trace("t", metadata={"b": 2, "c": 3}) as run:
        assert run.metadata == {"a": 1, "b": 2, "c": 3}


def test_metadata_of_a_block_is_not_inherited() -> None:
    with trace("a", metadata={"own": 1}), trace("b") as run:
        assert run.metadata == {}


def test_changing_a_runs_metadata_changes_no_other_run() -> None:
    given = {"a": 1}
    with scope(metadata=given), trace("a", metadata=given) as a, trace("b") as b:
        a.metadata["x"] = 1
        b.metadata["y"] = 1
        with trace("c") as c:
            assert c.metadata == {"a": 1}
    assert given == {"a": 1}


def test_tags_and_metadata_may_be_set_on_an_open_run(heard: Events) -> None:
    with trace("a") as run:
        run.tags = ("late",)
        run.metadata["late"] = True
    assert heard[-1].run is run
    assert (run.tags, run.metadata) == (("late",), {"late": True})


def test_session_and_user_are_the_scopes() -> None:
    with scope(session_id="s", user_id="u"), trace("a"), trace("b") as run:
        assert (run.session_id, run.user_id) == ("s", "u")


# -- the current run ---------------------------------------------------------------------------------------------------


def test_there_is_no_current_run_outside() -> None:
    assert current_run() is None


def test_the_innermost_run_is_current() -> None:
    with trace("a") as a:
        with trace("b") as b:
            assert current_run() is b
        assert current_run() is a
    assert current_run() is None


def test_a_scope_does_not_hide_the_current_run() -> None:
    with trace("a") as a, scope(user_id="u"):
        assert current_run() is a


def test_a_scope_alone_is_no_run() -> None:
    with scope(user_id="u"):
        assert current_run() is None


# -- what a run shows --------------------------------------------------------------------------------------------------


def test_a_run_shows_what_identifies_it() -> None:
    with trace("search", kind="retriever") as run:
        assert repr(run) == f"<Run 'search' retriever open #{run.id.hex[-12:]}>"


def test_a_run_with_a_name_of_two_lines_shows_in_one() -> None:
    assert "\n" not in repr(a_run("two\nlines\x1b[31m"))


def test_a_run_that_nobody_keeps_is_freed() -> None:
    run = weakref.ref(a_run())
    gc.collect()
    assert run() is None


def test_a_run_does_not_keep_what_ended_inside_it() -> None:
    with trace("a"):
        child = weakref.ref(a_run("b"))
        gc.collect()
        assert child() is None


# -- kinds and usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_checked(kind: str) -> None:
    assert check_kind(kind) == kind


@pytest.mark.parametrize("kind", ["", "LLM", None, 5, ("llm",)])
def test_an_unknown_kind_names_the_choices(kind: object) -> None:
    with pytest.raises(ArgumentError, match=r"unknown kind .*choose one of chain, llm, chat_model"):
        check_kind(kind)


def test_the_total_is_the_sum() -> None:
    assert Usage(3, 4).total_tokens == 7


def test_a_given_total_stays() -> None:
    assert Usage(3, 4, 10).total_tokens == 10


@pytest.mark.parametrize("usage", [Usage(3), Usage(output_tokens=3), Usage()])
def test_there_is_no_total_of_a_part(usage: Usage) -> None:
    assert usage.total_tokens is None


def test_usage_gives_what_is_known() -> None:
    usage = Usage(3, 0, cached_tokens=1)
    assert usage.as_dict() == {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3, "cached_tokens": 1}


def test_usages_are_compared_by_value() -> None:
    assert Usage(1, 2) == Usage(1, 2) != Usage(2, 1)
    assert len({Usage(1, 2), Usage(1, 2)}) == 1


def test_usage_shows_what_is_known() -> None:
    assert repr(Usage(1, 2, reasoning_tokens=1)) == (
        "Usage(input_tokens=1, output_tokens=2, total_tokens=3, reasoning_tokens=1)"
    )


def test_usage_is_no_number() -> None:
    assert Usage(1, 2) != 3
