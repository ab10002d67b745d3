"""A stream's run is current in its steps only, and ends exactly once, however the stream ends."""

import asyncio
import gc
import inspect
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from tracebus import Run, chain_start, current_run, llm_end, llm_new_token, llm_start, scope, subscribe, trace, traced
from tracebus.events import ChainEnd, ChainStart, Event, LLMEnd, LLMError, LLMNewToken
from tracebus.runs import current_scope, open_runs
from tracebus.signals import isolated

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]
TERMINAL = {"llm_end", "llm_error", "chain_end", "chain_error"}

# trio tells whoever abandons an async generator, as some tests here do on purpose.
abandons = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


def names(events: Events) -> list[str]:
    return [event.signal_name for event in events]


def run_of(events: Events) -> Run:
    (run,) = {event.run for event in events}
    assert run is not None
    return run


def terminals(events: Events) -> list[str]:
    return [event.signal_name for event in events if event.signal_name in TERMINAL]


class Boom(Exception):
    pass


@traced(kind="llm")
def stream(*items: Any) -> Iterator[Any]:
    yield from items


@traced(kind="llm")
async def astream(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@traced
def current() -> Iterator[Run | None]:
    while True:
        yield current_run()


@traced
async def acurrent() -> AsyncIterator[Run | None]:
    while True:
        yield current_run()


# -- what is current, where --------------------------------------------------------------------------------------------


def test_the_run_is_current_in_each_step(heard: Events) -> None:
    inside = list(itertools.islice(current(), 3))
    assert inside == [heard[0].run] * 3


async def test_the_run_is_current_in_each_async_step(heard: Events) -> None:
    async with aclosing(acurrent()) as steps:
        inside = [await anext(steps) for _ in range(3)]
    assert inside == [heard[0].run] * 3


def test_nothing_leaks_into_the_consumer(heard: Events) -> None:
    assert [current_run() for _ in itertools.islice(current(), 3)] == [None] * 3


async def test_nothing_leaks_into_the_async_consumer(heard: Events) -> None:
    async with aclosing(astream(1, 2, 3)) as steps:
        assert [current_run() async for _ in steps] == [None] * 3


def test_the_consumers_own_run_stays_current(heard: Events) -> None:
    with trace("consumer") as run:
        assert [current_run() for _ in stream(1, 2)] == [run] * 2


def test_nothing_leaks_when_a_step_raises(heard: Events) -> None:
    @traced
    def fn() -> Iterator[int]:
        yield 1
        raise Boom

    with trace("consumer") as run:
        with pytest.raises(Boom):
            list(fn())
        assert current_run() is run


def test_a_scope_held_open_across_yields_stays_inside(heard: Events) -> None:
    @traced
    def fn() -> Iterator[Any]:
        with scope(user_id="eva"):
            yield current_scope().user_id
            yield current_scope().user_id
        yield current_scope().user_id

    assert [(inside, current_scope().user_id) for inside in fn()] == [("eva", None), ("eva", None), (None, None)]


async def test_a_scope_held_open_across_async_yields_stays_inside(heard: Events) -> None:
    @traced
    async def fn() -> AsyncIterator[Any]:
        async with scope(user_id="eva"):
            yield current_scope().user_id
            yield current_scope().user_id
        yield current_scope().user_id

    assert [(i, current_scope().user_id) async for i in fn()] == [("eva", None), ("eva", None), (None, None)]


def test_a_trace_block_held_open_across_yields_stays_inside(heard: Events) -> None:
    @traced
    def fn() -> Iterator[Any]:
        with trace("block") as block:
            yield current_run() is block
            yield current_run() is block

    assert [(inside, current_run()) for inside in fn()] == [(True, None), (True, None)]


async def test_a_trace_block_held_open_across_async_yields_stays_inside(heard: Events) -> None:
    @traced
    async def fn() -> AsyncIterator[Any]:
        async with trace("block") as block:
            yield current_run() is block
            yield current_run() is block

    assert [(inside, current_run()) async for inside in fn()] == [(True, None), (True, None)]


def test_a_block_held_open_by_a_closed_generator_ends_before_it(heard: Events) -> None:
    @traced
    def fn() -> Iterator[int]:
        with trace("block"):
            yield 1

    steps = fn()
    next(steps)
    steps.close()
    assert [(e.run.name, e.run.status) for e in heard[2:]] == [("block", "closed_early"), ("fn", "closed_early")]


def test_a_scope_entered_by_the_consumer_between_steps_stays_its_own(heard: Events) -> None:
    @traced
    def fn() -> Iterator[Any]:
        while True:
            yield current_scope().user_id

    steps = fn()
    seen = [next(steps)]
    with scope(user_id="consumer"):
        seen.append(next(steps))
        assert current_scope().user_id == "consumer"
    assert [*seen, next(steps)] == [None, None, None]
    assert current_scope().user_id is None


def test_interleaved_generators_each_have_their_own_run(heard: Events) -> None:
    one, other = current(), current()
    runs = [next(steps) for steps in (one, other, one, other)]
    assert runs[0] is runs[2] is not runs[1] is runs[3]
    assert current_run() is None


async def test_interleaved_async_generators_each_have_their_own_run(heard: Events) -> None:
    async with aclosing(acurrent()) as one, aclosing(acurrent()) as other:
        runs = [await anext(steps) for steps in (one, other, one, other)]
    assert runs[0] is runs[2] is not runs[1] is runs[3]
    assert current_run() is None


def test_parent_and_scope_are_those_of_the_call(heard: Events) -> None:
    with trace("caller") as caller, scope(user_id="eva", tags=["t"]):
        steps = stream("a")
    with trace("consumer"), scope(user_id="other"):
        list(steps)
    run = next(event.run for event in heard if event.signal_name == "llm_start")
    assert run is not None
    assert (run.parent, run.user_id, run.tags) == (caller, "eva", ("t",))


async def test_parent_and_scope_are_those_of_the_async_call(heard: Events) -> None:
    with trace("caller") as caller, scope(user_id="eva", tags=["t"]):
        steps = astream("a")
    with trace("consumer"), scope(user_id="other"):
        assert [item async for item in steps] == ["a"]
    run = next(event.run for event in heard if event.signal_name == "llm_start")
    assert run is not None
    assert (run.parent, run.user_id, run.tags) == (caller, "eva", ("t",))


def test_what_is_called_in_a_step_is_a_child(heard: Events) -> None:
    @traced
    def outer() -> Iterator[Any]:
        yield from stream("a", "b")

    list(outer())
    assert [event.run.parent.name for event in heard if event.run.name == "stream"] == ["outer"] * 4


async def test_steps_from_different_tasks_keep_the_tree(heard: Events) -> None:
    @traced
    async def outer() -> AsyncIterator[Run | None]:
        for name in ("one", "two", "three"):
            with trace(name):
                yield current_run()

    steps, seen = outer(), []

    async def step() -> None:
        with trace("task"):
            seen.append(await anext(steps))

    for _ in range(3):
        async with anyio.create_task_group() as group:
            group.start_soon(step)
    await steps.aclose()
    assert [(run.name, run.parent.name) for run in seen] == [("one", "outer"), ("two", "outer"), ("three", "outer")]
    assert len(open_runs) == 0


def test_a_coroutine_thrown_away_in_a_step_leaves_its_driver_as_it_was(heard: Events) -> None:
    @traced
    async def fn() -> AsyncIterator[int]:
        await Suspended()
        yield 1

    async def consume() -> None:
        async for _ in fn():
            pass

    coroutine = consume()
    coroutine.send(None)
    coroutine.close()
    assert current_run() is None
    assert run_of(heard).status == "cancelled"


class Suspended:
    def __await__(self) -> Any:
        yield


# -- how streams end ---------------------------------------------------------------------------------------------------


def test_a_break_ends_the_run_early_with_what_there_was(heard: Events) -> None:
    for item in stream("a", "b", "c"):
        if item == "b":
            break
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]
    assert (run_of(heard).status, heard[-1].output) == ("closed_early", "ab")


async def test_aclose_ends_the_run_early_with_what_there_was(heard: Events) -> None:
    async with aclosing(astream("a", "b", "c")) as steps:
        await anext(steps)
    assert (run_of(heard).status, heard[-1].output) == ("closed_early", "a")


def test_the_collector_ends_the_run_early(heard: Events) -> None:
    steps = stream("a", "b")
    cycle: list[Any] = [steps]
    cycle.append(cycle)
    next(steps)
    del steps, cycle
    gc.collect()
    assert terminals(heard) == ["llm_end"]
    assert run_of(heard).status == "closed_early"


def test_another_thread_may_close(heard: Events) -> None:
    steps = stream("a", "b")
    next(steps)
    thread = threading.Thread(target=steps.close)
    thread.start()
    thread.join()
    assert terminals(heard) == ["llm_end"]
    assert run_of(heard).status == "closed_early"


def test_another_thread_may_go_on(heard: Events) -> None:
    steps, rest = stream("a", "b"), []
    next(steps)
    thread = threading.Thread(target=lambda: rest.extend(steps))
    thread.start()
    thread.join()
    assert rest == ["b"]
    assert (run_of(heard).status, heard[-1].output) == ("ok", "ab")


async def test_another_task_may_close(heard: Events) -> None:
    steps = astream("a", "b")
    await anext(steps)
    async with anyio.create_task_group() as group:
        group.start_soon(steps.aclose)
    assert terminals(heard) == ["llm_end"]
    assert run_of(heard).status == "closed_early"


@abandons
async def test_an_abandoned_async_generator_is_ended_by_the_loop(heard: Events) -> None:
    steps = astream("a", "b")
    await anext(steps)
    del steps
    gc.collect()
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    assert terminals(heard) == ["llm_end"]
    assert run_of(heard).status == "closed_early"


async def quiet_cleanup() -> None:
    pass


async def busy_cleanup() -> None:
    with anyio.CancelScope(shield=True):
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()


@abandons
@pytest.mark.parametrize("cleanup", [quiet_cleanup, busy_cleanup])
def test_what_is_left_when_the_loop_shuts_down_is_closed_once_in_its_own_run(
    cleanup: Callable[[], Any], heard: Events, anyio_backend: str
) -> None:
    @traced
    async def fn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with trace("cleanup"):
                await cleanup()

    problems: list[dict[str, Any]] = []

    async def main() -> list[Any]:
        if anyio_backend == "asyncio":
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        left = [fn() for _ in range(20)]
        for steps in left:
            await anext(steps)
        return left

    left = anyio.run(main, backend=anyio_backend)
    assert problems == []
    runs = [event.run for event in heard if event.signal_name == "chain_end"]
    assert sorted((r.name, r.status) for r in runs) == [("cleanup", "ok")] * 20 + [("fn", "closed_early")] * 20
    assert {r.parent.name if r.parent else None for r in runs if r.name == "cleanup"} == {"fn"}
    assert len(left) == 20
    assert len(open_runs) == 0


def test_what_is_left_when_the_loop_is_gone_is_ended_by_the_collector(heard: Events) -> None:
    loop = asyncio.new_event_loop()
    steps = astream("a", "b")
    loop.run_until_complete(anext(steps))
    loop.close()
    del steps
    gc.collect()
    assert terminals(heard) == ["llm_end"]
    assert run_of(heard).status == "closed_early"


def test_an_async_generator_stepped_by_hand_is_ended_by_the_collector(heard: Events) -> None:
    steps = astream("a", "b")
    with pytest.raises(StopIteration):
        steps.__anext__().send(None)
    del steps
    gc.collect()
    assert terminals(heard) == ["llm_end"]


def test_a_run_ends_once_when_its_stream_is_closed_again_and_again(heard: Events) -> None:
    steps = stream("a", "b")
    next(steps)
    for _ in range(3):
        steps.close()
    assert terminals(heard) == ["llm_end"]


def test_a_finished_stream_leaves_nothing_behind(heard: Events) -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    list(traced(capture_inputs=False, capture_output=False)(lambda a: iter(()))(argument))
    steps = stream(argument)
    assert len(list(steps)) == 1
    heard.clear()
    del argument, steps
    gc.collect()
    assert gone() is None


def test_a_partial_output_is_there_when_a_stream_fails(heard: Events) -> None:
    @traced(kind="llm")
    def fn() -> Iterator[str]:
        yield "a"
        yield "b"
        raise Boom

    with pytest.raises(Boom):
        list(fn())
    error = heard[-1]
    assert isinstance(error, LLMError)
    assert (error.output, error.run.output, error.run.status) == ("ab", "ab", "error")


def test_tokens_are_numbered_from_zero(heard: Events) -> None:
    list(stream("a", 1, "b", "c"))
    assert [(e.index, e.token) for e in heard if isinstance(e, LLMNewToken)] == [(0, "a"), (1, "b"), (2, "c")]


def test_each_run_numbers_its_own_tokens(heard: Events) -> None:
    for _ in zip(stream("a", "b"), stream("a", "b"), strict=True):
        pass
    assert [event.index for event in heard if isinstance(event, LLMNewToken)] == [0, 0, 1, 1]


def test_the_time_to_the_first_token_is_measured(heard: Events) -> None:
    list(stream("a", "b"))
    run = run_of(heard)
    assert run.first_token_s is not None
    assert run.duration_s is not None
    assert 0 <= run.first_token_s <= run.duration_s


def test_a_stream_without_tokens_has_no_first_one(heard: Events) -> None:
    list(stream(1, 2))
    assert run_of(heard).first_token_s is None


def test_items_that_are_no_text_are_the_output_as_a_list(heard: Events) -> None:
    list(stream(1, 2))
    assert isinstance(heard[-1], LLMEnd)
    assert heard[-1].output == [1, 2]


def test_a_long_stream_of_things_is_kept_up_to_a_bound_and_counted(heard: Events) -> None:
    list(traced(lambda: (yield from range(2_500)))())
    end = heard[-1]
    assert isinstance(end, ChainEnd)
    assert (len(end.output), end.run.metadata) == (1_000, {"items_not_kept": 1_500})


def test_start_comes_before_tokens_before_the_end(heard: Events) -> None:
    list(stream("a", "b"))
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]
    assert [event.seq for event in heard] == sorted(event.seq for event in heard)


# -- the outcomes, row by row, for the four kinds ----------------------------------------------------------------------


async def in_function(body: Callable[[], None]) -> None:
    traced(name="it")(lambda: body())()


async def in_coroutine(body: Callable[[], None]) -> None:
    async def it() -> None:
        await anyio.lowlevel.checkpoint()
        body()

    await traced(it)()


async def in_generator(body: Callable[[], None]) -> None:
    def it() -> Iterator[int]:
        yield 1
        body()

    list(traced(it)())


async def in_async_generator(body: Callable[[], None]) -> None:
    async def it() -> AsyncIterator[int]:
        yield 1
        body()

    async for _ in traced(it)():
        pass


every_kind = pytest.mark.parametrize("call", [in_function, in_coroutine, in_generator, in_async_generator])


@every_kind
async def test_what_returns_is_ok(call: Callable[..., Any], heard: Events) -> None:
    await call(lambda: None)
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_end"], "ok")


@every_kind
@pytest.mark.parametrize(
    "error", [Boom(), ExceptionGroup("g", [Boom()]), BaseExceptionGroup("g", [KeyboardInterrupt()])], ids=repr
)
async def test_what_raises_is_an_error(call: Callable[..., Any], error: BaseException, heard: Events) -> None:
    def body() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await call(body)
    assert caught.value is error
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_error"], "error")
    assert run_of(heard).error is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", [in_function, in_coroutine, in_generator, in_async_generator])
def test_an_interrupt_is_an_error(call: Callable[..., Any], error: type[BaseException], heard: Events) -> None:
    def body() -> None:
        raise error

    coroutine = call(body)
    with pytest.raises(error):
        drive(coroutine)
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_error"], "error")


def drive(coroutine: Any) -> None:
    asyncio.run(coroutine)


async def waiting_coroutine(ready: anyio.Event) -> None:
    @traced
    async def it() -> None:
        ready.set()
        await anyio.sleep_forever()

    await it()


async def waiting_async_generator(ready: anyio.Event) -> None:
    @traced
    async def it() -> AsyncIterator[int]:
        yield 1
        ready.set()
        await anyio.sleep_forever()

    async for _ in it():
        pass


@pytest.mark.parametrize("call", [waiting_coroutine, waiting_async_generator])
async def test_what_is_cancelled_is_cancelled(call: Callable[..., Any], heard: Events) -> None:
    ready = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(call, ready)
        await ready.wait()
        group.cancel_scope.cancel()
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_error"], "cancelled")


@pytest.mark.parametrize("call", [waiting_coroutine, waiting_async_generator])
def test_what_asyncio_cancels_is_cancelled(call: Callable[..., Any], heard: Events) -> None:
    async def main() -> None:
        ready = anyio.Event()
        task = asyncio.create_task(call(ready))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_error"], "cancelled")


async def test_a_cancelled_run_is_heard_by_an_async_subscriber(anyio_backend: str) -> None:
    events: Events = []

    async def hear(sender: object, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        events.append(event)

    ready = anyio.Event()
    with subscribe(hear):
        async with anyio.create_task_group() as group:
            group.start_soon(waiting_async_generator, ready)
            await ready.wait()
            group.cancel_scope.cancel()
    assert names(events) == ["chain_start", "chain_error"]


async def test_a_subscriber_that_is_cancelled_with_the_app_has_not_failed(heard: Events) -> None:
    ready = anyio.Event()

    async def slow(sender: object, event: Event) -> None:
        ready.set()
        await anyio.sleep_forever()

    with subscribe(slow, "llm_new_token") as subscription:
        async with anyio.create_task_group() as group:
            group.start_soon(consume, astream("a"))
            await ready.wait()
            group.cancel_scope.cancel()
    assert (subscription.stats.failed, subscription.stats.pending) == (0, 1)  # it goes on without the app
    assert "subscriber_failed" not in names(heard)


async def consume(steps: AsyncIterator[Any]) -> None:
    async for _ in steps:
        pass


async def test_an_early_end_is_heard_by_an_async_subscriber() -> None:
    events: Events = []

    async def hear(sender: object, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        events.append(event)

    with subscribe(hear):
        async with aclosing(astream("a", "b")) as steps:
            await anext(steps)
    assert names(events) == ["llm_start", "llm_new_token", "llm_end"]


async def test_a_coroutine_that_is_closed_is_cancelled(heard: Events) -> None:
    @traced
    async def fn() -> None:
        await Suspended()

    coroutine = fn()
    coroutine.send(None)
    coroutine.close()
    assert (names(heard), run_of(heard).status) == (["chain_start", "chain_error"], "cancelled")
    assert current_run() is None


# -- time-outs ---------------------------------------------------------------------------------------------------------


def test_an_asyncio_timeout_inside_fires(heard: Events) -> None:
    @traced
    async def fn() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(0.01):
                yield "before"
                await asyncio.sleep(30)
        except TimeoutError:
            yield "timed out"

    async def main() -> list[str]:
        return [item async for item in fn()]

    assert asyncio.run(main()) == ["before", "timed out"]
    assert run_of(heard).status == "ok"


async def test_an_anyio_scope_inside_fires(heard: Events) -> None:
    @traced
    async def fn() -> AsyncIterator[str]:
        with anyio.move_on_after(0.01) as limit:
            await anyio.sleep_forever()
        yield f"timed out: {limit.cancelled_caught}"

    assert [item async for item in fn()] == ["timed out: True"]
    assert run_of(heard).status == "ok"


async def test_an_anyio_scope_around_a_stream_fires(heard: Events) -> None:
    with anyio.move_on_after(0.01) as limit:
        await waiting_async_generator(anyio.Event())
    assert limit.cancelled_caught
    assert run_of(heard).status == "cancelled"


async def test_a_timeout_while_a_token_is_heard_ends_the_run_as_cancelled(heard: Events) -> None:
    async def slow(sender: object, event: Event) -> None:
        await anyio.sleep_forever()

    @traced(kind="llm")
    async def fn() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            await anyio.lowlevel.checkpoint()

    with subscribe(slow, "llm_new_token"), anyio.move_on_after(0.01) as limit:
        async for _ in fn():
            pass
    assert limit.cancelled_caught
    assert (terminals(heard), run_of(heard).status) == (["llm_error"], "cancelled")


# -- subscribers whose errors are wanted -------------------------------------------------------------------------------


def failing(sender: object, event: Event) -> None:
    raise Boom


async def failing_later(sender: object, event: Event) -> None:
    await anyio.lowlevel.checkpoint()
    raise Boom


def test_an_error_wanted_at_the_start_of_a_stream_ends_it(heard: Events) -> None:
    with subscribe(failing, llm_start, raise_error=True), pytest.raises(Boom):
        list(stream("a"))
    assert terminals(heard) == ["llm_error"]


@pytest.mark.parametrize("hear", [failing, failing_later])
async def test_an_error_wanted_at_the_start_of_an_async_stream_ends_it(hear: Any, heard: Events) -> None:
    with subscribe(hear, llm_start, raise_error=True), pytest.raises(Boom):
        [item async for item in astream("a")]
    assert terminals(heard) == ["llm_error"]


def cleaning(done: list[str]) -> Iterator[str]:
    try:
        yield "a"
        yield "b"
    finally:
        done.append("cleaned up")


async def acleaning(done: list[str]) -> AsyncIterator[str]:
    try:
        yield "a"
        yield "b"
    finally:
        await anyio.lowlevel.checkpoint()
        done.append("cleaned up")


def test_an_error_wanted_at_a_token_closes_the_stream(heard: Events) -> None:
    done: list[str] = []
    with subscribe(failing, llm_new_token, raise_error=True), pytest.raises(Boom):
        list(traced(kind="llm")(cleaning)(done))
    assert (done, terminals(heard)) == (["cleaned up"], ["llm_error"])


@pytest.mark.parametrize("hear", [failing, failing_later])
async def test_an_error_wanted_at_a_token_closes_the_async_stream(hear: Any, heard: Events) -> None:
    done: list[str] = []
    with subscribe(hear, llm_new_token, raise_error=True), pytest.raises(Boom):
        [item async for item in traced(kind="llm")(acleaning)(done)]
    assert (done, terminals(heard)) == (["cleaned up"], ["llm_error"])


def test_a_stream_whose_cleanup_fails_then_still_ends_as_an_error(heard: Events) -> None:
    @traced(kind="llm")
    def fn() -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise KeyError("cleanup")

    with subscribe(failing, llm_new_token, raise_error=True), pytest.raises((Boom, KeyError)):
        list(fn())
    assert (terminals(heard), len(open_runs)) == (["llm_error"], 0)


async def test_an_async_stream_whose_cleanup_fails_then_still_ends_as_an_error(heard: Events) -> None:
    @traced(kind="llm")
    async def fn() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise KeyError("cleanup")

    with subscribe(failing, llm_new_token, raise_error=True), pytest.raises((Boom, KeyError)):
        [item async for item in fn()]
    assert (terminals(heard), len(open_runs)) == (["llm_error"], 0)


def test_an_error_wanted_at_the_end_of_a_stream_reaches_its_consumer(heard: Events) -> None:
    with subscribe(failing, llm_end, raise_error=True), pytest.raises(Boom):
        list(stream("a"))
    assert terminals(heard) == ["llm_end"]


@pytest.mark.parametrize("hear", [failing, failing_later])
async def test_an_error_wanted_at_the_end_of_an_async_stream_reaches_its_consumer(hear: Any, heard: Events) -> None:
    with subscribe(hear, llm_end, raise_error=True), pytest.raises(Boom):
        [item async for item in astream("a")]
    assert terminals(heard) == ["llm_end"]


@pytest.mark.parametrize("error", [Boom(), SystemExit(3)], ids=repr)
def test_the_apps_own_error_wins_over_one_wanted_at_the_error(error: BaseException, heard: Events) -> None:
    own = KeyError("own")

    def fail(sender: object, event: Event) -> None:
        raise error

    @traced
    def fn() -> Iterator[int]:
        yield 1
        raise own

    with subscribe(fail, "chain_error", raise_error=True), pytest.raises(KeyError) as caught:
        list(fn())
    assert caught.value is own


def test_a_subscriber_that_raises_stop_iteration_does_not_end_the_stream(heard: Events) -> None:
    def stop(sender: object, event: Event) -> None:
        raise StopIteration

    with subscribe(stop, llm_new_token, raise_error=True), pytest.raises((StopIteration, RuntimeError)):
        list(stream("a", "b"))
    assert terminals(heard) == ["llm_error"]


def test_a_subscriber_that_fails_quietly_changes_nothing(heard: Events) -> None:
    with subscribe(failing):
        assert list(stream("a", "b")) == ["a", "b"]
    assert terminals(heard) == ["llm_end"]


def test_an_error_wanted_when_the_collector_ends_a_stream_disturbs_nobody(heard: Events) -> None:
    with subscribe(failing, llm_end, raise_error=True):
        traced(kind="llm", stream=True)(lambda: Lines())()
        gc.collect()
    assert terminals(heard) == ["llm_end"]


class Lines:
    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def close(self) -> None: ...


# -- a subscriber sees the run -----------------------------------------------------------------------------------------


def test_subscribers_of_a_stream_find_its_run_current() -> None:
    seen: list[Run | None] = []
    with subscribe(lambda sender, event: seen.append(current_run() is event.run), "llm_start", "llm_new_token"):
        list(stream("a"))
    assert seen == [True, True]


def test_a_stream_says_its_start_at_its_first_step_and_not_at_the_call(heard: Events) -> None:
    steps = stream("a")
    assert heard == []
    next(steps)
    assert names(heard) == ["llm_start", "llm_new_token"]


def test_inputs_of_a_stream_are_those_of_the_call(heard: Events) -> None:
    with isolated():
        quiet = stream("a")
    assert inspect.isgenerator(quiet)
    events: Events = []
    chain_start.connect(lambda sender, event: events.append(event))
    list(traced(name="s")(lambda a: (yield a))(1))
    assert isinstance(events[0], ChainStart)
    assert events[0].inputs == {"a": 1}


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_suspended_generators_do_not_disturb_each_other(count: int, heard: Events) -> None:
    suspended = [current() for _ in range(count)]
    first = [next(steps) for steps in suspended]
    assert current_run() is None
    assert [next(steps) for steps in reversed(suspended)] == first[::-1]
    assert len(set(first)) == count
    for steps in suspended:
        steps.close()
    assert len(open_runs) == 0
