"""Whatever happens to a stream: one start, one terminal, nothing left open, nothing left current (demand 8).

A history is a script, what the traced generator does, and moves, what its consumers do to it.
"""

import gc
import inspect
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracebus import current_run, subscribe, trace, traced
from tracebus.events import Event
from tracebus.runs import Run, open_runs

# Hypothesis takes a time-out for a failure of the history, and would begin to look for a shorter one.
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("nothing_is_current")]

# There are seven properties: 1 500 histories of each make more than 10 000.
HISTORIES = pytest.mark.parametrize("histories", [100, pytest.param(1_500, marks=pytest.mark.long)])
STARTS = {"llm_start", "chain_start"}
TERMINALS = {"llm_end", "llm_error", "chain_end", "chain_error"}


class Boom(Exception):
    pass


def check(property_: Callable[..., None], histories: int, **strategies: Any) -> None:
    holds = settings(max_examples=histories, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
        given(**strategies)(property_)
    )
    holds()


def assert_each_run_ended_once(events: list[Event]) -> None:
    by_run: dict[Run, list[str]] = defaultdict(list)
    for event in events:
        assert event.run is not None
        if event.signal_name != "subscriber_failed":
            by_run[event.run].append(event.signal_name)
    for run, said in by_run.items():
        assert said[0] in STARTS, (run, said)
        assert said[-1] in TERMINALS, (run, said)
        assert {*said[1:-1]} <= {"llm_new_token"}, (run, said)
        assert run.status != "open"
        assert run.duration_s is not None
        assert run.duration_s >= 0


def assert_children_ended_first(events: list[Event], names: set[str]) -> None:
    ended = {event.run: event.seq for event in events if event.signal_name in TERMINALS}
    for run, seq in ended.items():
        if run is not None and run.parent is not None and run.name in names:
            assert seq < ended[run.parent], f"{run} ended after {run.parent}"


def assert_nothing_is_left() -> None:
    gc.collect()
    assert open_runs == set()
    assert current_run() is None


# -- generators --------------------------------------------------------------------------------------------------------

SCRIPT = ["token", "token", "thing", "block", "nested", "call", "catch", "raise", "cleanup"]
MOVES = ["step", "step", "step", "send", "throw", "close", "step in thread", "close in thread", "drop", "collect"]


@traced(kind="tool", name="call")
def call() -> None:
    pass


@traced(kind="llm", name="nested")
def nested() -> Iterator[str]:
    yield "n1"
    yield "n2"


@traced(kind="llm", name="stream")
def stream(script: list[str]) -> Iterator[Any]:
    for action in script:
        if action == "token":
            yield "t"
        elif action == "thing":
            yield 1
        elif action == "block":
            with trace("block"):
                yield "b"
        elif action == "nested":
            yield from nested()
        elif action == "call":
            with trace("call"):
                pass
        elif action == "catch":
            with suppress(Boom):
                yield "c"
        elif action == "raise":
            raise Boom
        elif action == "cleanup":
            try:
                yield "d"
            finally:
                with trace("cleanup"):
                    pass


def in_thread(fn: Callable[[], Any]) -> None:
    thread = threading.Thread(target=lambda: quietly(fn))
    thread.start()
    thread.join()


def quietly(fn: Callable[[], Any]) -> None:
    with suppress(Boom, StopIteration):
        fn()


def move_stream(steps: list[Any], move: str) -> None:
    if not steps:
        return
    (it,) = steps
    if move == "step":
        quietly(lambda: next(it))
    elif move == "send":
        quietly(lambda: it.send("x") if started(it) else next(it))
    elif move == "throw":
        quietly(lambda: it.throw(Boom()))
    elif move == "close":
        it.close()
    elif move == "step in thread":
        in_thread(lambda: next(it))
    elif move == "close in thread":
        in_thread(it.close)
    elif move == "drop":
        steps.clear()
    elif move == "collect":
        steps.append(steps)
        steps.clear()
        gc.collect()


def started(it: Any) -> bool:
    return inspect.getgeneratorstate(it) == inspect.GEN_SUSPENDED


@HISTORIES
def test_a_generator_has_one_start_and_one_terminal_whatever_happens(histories: int) -> None:
    def history(script: list[str], moves: list[str]) -> None:
        events: list[Event] = []
        with subscribe(lambda sender, event: events.append(event)):
            steps = [stream(script)]
            for move in moves:
                move_stream(steps, move)
                assert current_run() is None
            steps.clear()
        assert_each_run_ended_once(events)
        assert_children_ended_first(events, {"block", "nested", "call", "cleanup"})
        if open_runs:
            assert_nothing_is_left()

    check(
        history,
        histories,
        script=st.lists(st.sampled_from(SCRIPT), max_size=6),
        moves=st.lists(st.sampled_from(MOVES), max_size=8),
    )
    assert_nothing_is_left()


# -- interleaved generators --------------------------------------------------------------------------------------------


@HISTORIES
def test_interleaved_generators_keep_to_themselves(histories: int) -> None:
    def history(scripts: list[list[str]], moves: list[tuple[int, str]]) -> None:
        events: list[Event] = []
        with subscribe(lambda sender, event: events.append(event)), trace("consumer") as consumer:
            streams = [[stream(script)] for script in scripts]
            for index, move in moves:
                move_stream(streams[index], move)
                assert current_run() is consumer
            streams.clear()
        assert_each_run_ended_once(events)
        assert_children_ended_first(events, {"block", "nested", "call", "cleanup", "stream"})
        assert {e.run.parent.name for e in events if e.run and e.run.name == "stream" and e.run.parent} <= {"consumer"}

    check(
        history,
        histories,
        scripts=st.lists(st.lists(st.sampled_from(SCRIPT), max_size=4), min_size=3, max_size=3),
        moves=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(MOVES)), max_size=10),
    )
    assert_nothing_is_left()


# -- async generators --------------------------------------------------------------------------------------------------

ASYNC_SCRIPT = [*SCRIPT, "wait", "timeout", "checkpoint", "async cleanup"]
ASYNC_MOVES = ["step", "step", "step", "throw", "close", "step in task", "close in task", "cancelled step", "drop"]


@traced(kind="llm", name="nested")
async def anested() -> AsyncIterator[str]:
    yield "n1"
    yield "n2"


class Consumer:
    """Steps a stream under a scope of its own, which the stream's script may ask to be cancelled."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()

    async def run(self, fn: Callable[[], Any]) -> None:
        with anyio.CancelScope() as self.scope:
            with suppress(Boom, StopAsyncIteration):
                await fn()


@traced(kind="llm", name="stream")
async def astream(script: list[str], consumer: Consumer) -> AsyncIterator[Any]:
    for action in script:
        if action == "token":
            yield "t"
        elif action == "thing":
            yield 1
        elif action == "block":
            async with trace("block"):
                yield "b"
        elif action == "nested":
            async for item in anested():
                yield item
        elif action == "call":
            async with trace("call"):
                await anyio.lowlevel.checkpoint()
        elif action == "catch":
            with suppress(Boom):
                yield "c"
        elif action == "raise":
            raise Boom
        elif action == "cleanup":
            try:
                yield "d"
            finally:
                with trace("cleanup"):
                    pass
        elif action == "async cleanup":
            try:
                yield "d"
            finally:
                async with trace("cleanup"):
                    await anyio.lowlevel.checkpoint()
        elif action == "wait":
            consumer.scope.cancel()
            await anyio.sleep_forever()
        elif action == "timeout":
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
        elif action == "checkpoint":
            await anyio.lowlevel.checkpoint()


async def move_astream(steps: list[Any], move: str, consumer: Consumer) -> None:
    if not steps:
        return
    (it,) = steps

    async def step() -> None:
        await anext(it)

    if move == "step":
        await consumer.run(step)
    elif move == "throw":
        await consumer.run(lambda: it.athrow(Boom()))
    elif move == "close":
        await consumer.run(it.aclose)
    elif move == "step in task":
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.run, step)
    elif move == "close in task":
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.run, it.aclose)
    elif move == "cancelled step":

        async def cancelled() -> None:
            consumer.scope.cancel()
            await step()

        await consumer.run(cancelled)
    elif move == "drop":
        steps.clear()


async def hear_slowly(sender: object, event: Event) -> None:
    await anyio.lowlevel.checkpoint()


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio tells whoever abandons one
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("slow", [False, True], ids=["heard at once", "heard slowly"])
@HISTORIES
def test_an_async_generator_has_one_start_and_one_terminal_whatever_happens(histories: int, slow: bool, backend: str) -> None:
    def history(script: list[str], moves: list[str], left_to_the_loop: bool) -> None:
        events: list[Event] = []
        kept: list[Any] = []

        async def main() -> None:
            consumer = Consumer()
            steps = [astream(script, consumer)]
            for move in moves:
                await move_astream(steps, move, consumer)
                assert current_run() is None
            if left_to_the_loop:
                kept.extend(steps)

        with subscribe(lambda sender, event: events.append(event)):
            if slow:
                with subscribe(hear_slowly):
                    anyio.run(main, backend=backend)
            else:
                anyio.run(main, backend=backend)
            kept.clear()
            if open_runs:
                gc.collect()
        assert_each_run_ended_once(events)
        assert_children_ended_first(events, {"block", "call", "cleanup"})
        assert open_runs == set()

    check(
        history,
        histories,
        script=st.lists(st.sampled_from(ASYNC_SCRIPT), max_size=6),
        moves=st.lists(st.sampled_from(ASYNC_MOVES), max_size=6),
        left_to_the_loop=st.booleans(),
    )
    assert_nothing_is_left()


# -- functions and blocks ----------------------------------------------------------------------------------------------


def nest(depth: int, breaks_at: int, kinds: list[str]) -> None:
    if depth == breaks_at:
        raise Boom
    if depth == len(kinds):
        return
    if kinds[depth] == "block":
        with trace("block"):
            nest(depth + 1, breaks_at, kinds)
    elif kinds[depth] == "caught":
        quietly(lambda: traced(nest)(depth + 1, breaks_at, kinds))
    else:
        traced(nest)(depth + 1, breaks_at, kinds)


@HISTORIES
def test_nested_calls_end_from_the_inside_out(histories: int) -> None:
    def history(kinds: list[str], breaks_at: int) -> None:
        events: list[Event] = []
        with subscribe(lambda sender, event: events.append(event)):
            quietly(lambda: nest(0, breaks_at, kinds))
        assert_each_run_ended_once(events)
        assert_children_ended_first(events, {"block", "nest"})
        assert current_run() is None

    check(
        history,
        histories,
        kinds=st.lists(st.sampled_from(["block", "call", "caught"]), max_size=6),
        breaks_at=st.integers(0, 8),
    )
    assert_nothing_is_left()
