"""What becomes of everything that was said: queues and their bounds, order, flush, loops that end, forks, exits."""

import asyncio
import gc
import math
import os
import sys
import threading
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from gates import Gate

import tracebus
from tracebus import (
    aemit,
    aflush,
    attach,
    current_run,
    custom_event,
    emit,
    flush,
    scope,
    shutdown,
    stats,
    subscribe,
    text,
    trace,
    traced,
)
from tracebus.errors import ArgumentError, WrongThreadError
from tracebus.lanes import Lane
from tracebus.signals import isolated

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


pytestmark = pytest.mark.usefixtures("nobody_else_listens")


def full(count: int, seconds: int = 300) -> Any:
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(seconds)])


async def suspending() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


class Recorder:
    """Async and sync subscribers that note what they heard, and in which thread."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.threads: list[int] = []

    def note(self, sender: Any, event: Any) -> None:
        self.heard.append(getattr(event, "text", event.signal_name))
        self.threads.append(threading.get_ident())

    async def note_async(self, sender: Any, event: Any) -> None:
        await suspending()
        self.note(sender, event)


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


# -- async subscribers, sync emitters: no loop in this thread ----------------------------------------------------------


def test_the_outermost_sync_run_waits_for_what_its_trace_queued() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "chain_*", "text")

    @traced
    def app() -> None:
        with trace("inner"):
            emit(text, text="said")

    app()
    assert recorder.heard == ["chain_start", "chain_start", "said", "chain_end", "chain_end"]


def test_an_inner_sync_run_does_not_wait() -> None:
    opened = threading.Event()
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await anyio.to_thread.run_sync(opened.wait, 10)
        heard.append(event.signal_name)

    subscribe(subscriber, "chain_end")
    with trace("outer"):
        with trace("inner"):
            pass
        before = list(heard)
        opened.set()
    assert (before, heard) == ([], ["chain_end", "chain_end"])


def test_a_sync_stream_that_is_the_outermost_run_waits_at_its_end() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "llm_*")

    @traced(kind="llm")
    def answer() -> Iterator[str]:
        yield "a"
        yield "b"

    assert list(answer()) == ["a", "b"]
    assert recorder.heard == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


def test_a_failing_sync_run_waits_too() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "chain_*")

    @traced
    def app() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app()
    assert recorder.heard == ["chain_start", "chain_error"]


@pytest.mark.alone
def test_a_hung_async_subscriber_is_waited_for_five_seconds_once() -> None:
    release = threading.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        await anyio.to_thread.run_sync(release.wait, 20)

    subscription = subscribe(subscriber, "chain_end")
    took: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        with trace("a"):
            pass
        took.append(time.perf_counter() - started)
    release.set()
    assert flush()
    assert 4.5 < took[0] < 6
    assert took[1] < 0.5
    assert subscription.stats.delivered == 2


def test_queued_events_of_a_thread_without_a_loop_keep_their_order() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")
    for words in numbers(500):
        emit(text, text=words)
    assert flush()
    assert recorder.heard == numbers(500)


def test_threads_whose_first_events_come_at_the_same_time_put_them_into_one_queue(gate: Gate) -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        if event.text == "first":
            await anyio.to_thread.run_sync(gate, sender, event)
        heard.append(event.text)

    def say_first(frame: types.FrameType, what: str, _: object) -> None:
        if what == "return" and frame.f_code is Lane.__init__.__code__:
            sys.setprofile(None)
            thread = threading.Thread(target=emit, args=(text,), kwargs={"text": "first"})
            thread.start()
            thread.join()

    subscribe(subscriber, "text")
    sys.setprofile(say_first)
    emit(text, text="second")
    assert gate.entered.wait(5)
    assert not flush(0)
    gate.opened.set()
    assert flush()
    assert heard == ["first", "second"]


def test_queued_events_have_their_run_as_the_current_one() -> None:
    heard: list[bool] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        heard.append(current_run() is event.run)

    subscribe(subscriber, "text")
    for name in ("a", "b"):
        with trace(name):
            emit(text, text="x")
    assert heard == [True, True]


# -- inside a running loop ---------------------------------------------------------------------------------------------


async def test_sync_code_inside_a_loop_does_not_wait() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "chain_*")
    with trace("a"):
        pass
    before = list(recorder.heard)
    assert await aflush()
    assert (before, recorder.heard) == ([], ["chain_start", "chain_end"])


async def test_what_sync_code_inside_a_loop_queued_is_delivered_on_that_loop_in_order() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")
    for words in numbers(200):
        emit(text, text=words)
    assert await aflush()
    assert (recorder.heard, set(recorder.threads)) == (numbers(200), {threading.get_ident()})


async def test_a_subscriber_may_use_a_lock_of_the_apps_loop() -> None:
    lock = anyio.Lock()
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        async with lock:
            heard.append(event.text)

    subscribe(subscriber, "text")
    async with lock:
        emit(text, text="a")
        await suspending()
        before = list(heard)
    await anyio.to_thread.run_sync(lambda: emit(text, text="b"))
    assert await aflush()
    assert (before, heard) == ([], ["a", "b"])


def test_a_callback_of_the_loop_does_not_wait() -> None:
    recorder = Recorder()
    took: list[float] = []

    def callback(done: asyncio.Event) -> None:
        started = time.perf_counter()
        with trace("a"):
            pass
        took.append(time.perf_counter() - started)
        done.set()

    async def main() -> None:
        subscribe(recorder.note_async, "chain_*")
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(callback, done)
        await done.wait()
        assert await aflush()

    asyncio.run(main())
    assert recorder.heard == ["chain_start", "chain_end"]
    assert took[0] < 2
    assert set(recorder.threads) == {threading.get_ident()}


# -- other threads -----------------------------------------------------------------------------------------------------


async def test_an_anyio_worker_thread_delivers_on_the_loop_that_it_works_for() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")
    await anyio.to_thread.run_sync(lambda: emit(text, text="a"))
    assert await aflush()
    assert (recorder.heard, recorder.threads) == (["a"], [threading.get_ident()])


async def test_the_outermost_run_of_a_worker_thread_waits() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "chain_*")

    def work() -> list[str]:
        with trace("in the thread"):
            pass
        return list(recorder.heard)

    assert await anyio.to_thread.run_sync(work) == ["chain_start", "chain_end"]


async def test_the_outermost_run_of_a_worker_thread_waits_also_inside_an_async_run() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "chain_end")

    def work() -> list[str]:
        with trace("in the thread"):
            pass
        return list(recorder.heard)

    async with trace("outer"):
        assert await anyio.to_thread.run_sync(work) == ["chain_end"]


async def test_another_thread_delivers_on_the_loop_where_the_subscriber_was_connected() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")
    thread = threading.Thread(target=lambda: emit(text, text="a"))
    thread.start()
    while thread.is_alive():
        await anyio.sleep(0)
    assert await aflush()
    assert (recorder.heard, recorder.threads) == (["a"], [threading.get_ident()])


def test_another_thread_delivers_on_tracebus_own_loop_when_that_one_is_gone() -> None:
    recorder = Recorder()

    async def main() -> None:
        subscribe(recorder.note_async, "text")

    asyncio.run(main())
    emit(text, text="a")
    assert flush()
    assert recorder.heard == ["a"]
    assert recorder.threads != [threading.get_ident()]


async def test_async_code_on_a_second_loop_awaits_on_it() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")

    def second() -> int:
        asyncio.run(aemit(text, text="a"))
        return threading.get_ident()

    thread = await anyio.to_thread.run_sync(second)
    assert (recorder.heard, recorder.threads) == (["a"], [thread])


# -- background --------------------------------------------------------------------------------------------------------


def test_a_sync_background_subscriber_hears_in_a_thread_of_its_own_in_order() -> None:
    recorder = Recorder()
    with subscribe(recorder.note, "text", delivery="background"):
        for words in numbers(500):
            emit(text, text=words)
        assert flush()
    assert recorder.heard == numbers(500)
    assert len(set(recorder.threads)) == 1
    assert threading.get_ident() not in recorder.threads


async def test_an_async_background_subscriber_hears_on_the_loop_in_order() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text", delivery="background")
    for words in numbers(100):
        await aemit(text, text=words)
    assert await aflush()
    assert (recorder.heard, set(recorder.threads)) == (numbers(100), {threading.get_ident()})


async def test_an_async_background_subscriber_within_a_run_hears_on_the_loop() -> None:
    recorder = Recorder()
    async with trace("a") as run:
        subscribe(recorder.note_async, "text", delivery="background", within=run)
        async with trace("b"):
            await aemit(text, text="said")
    assert await aflush()
    assert (recorder.heard, recorder.threads) == (["said"], [threading.get_ident()])


async def test_a_background_subscriber_is_not_awaited() -> None:
    released = anyio.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        await released.wait()

    subscription = subscribe(subscriber, "text", delivery="background")
    with anyio.fail_after(5):
        for words in numbers(3):
            await aemit(text, text=words)
    assert subscription.stats.pending == 3
    released.set()
    assert await aflush()
    assert subscription.stats.delivered == 3


def test_what_a_background_subscriber_hears_is_what_was_so_when_it_was_said(gate: Gate) -> None:
    heard: list[Any] = []
    with (
        subscribe(gate, "text", delivery="background"),
        subscribe(lambda sender, event: heard.append(event.data), "custom_event", delivery="background"),
    ):
        messages = ["first"]
        emit(custom_event, name="messages", data=messages)
        messages.append("later")
        assert flush()
    assert heard == [["first"]]


def test_a_sync_background_subscriber_may_return_an_awaitable() -> None:
    recorder = Recorder()
    with subscribe(lambda sender, event: recorder.note_async(sender, event=event), "text", delivery="background") as heard:
        emit(text, text="a")
        assert flush()
    assert recorder.heard == ["a"]
    assert (heard.stats.delivered, heard.stats.failed) == (1, 0)


async def test_what_a_background_subscriber_returns_is_awaited_on_the_loop_that_it_was_connected_in() -> None:
    heard: list[Any] = []

    async def note(event: Any) -> None:
        await suspending()
        run = current_run()
        heard.append((event.text, threading.get_ident(), run and run.name))

    subscribe(lambda sender, event: note(event), "text", delivery="background")
    with trace("here"):
        emit(text, text="a")
    assert await aflush()
    assert heard == [("a", threading.get_ident(), "here")]


async def test_what_a_thread_subscriber_returns_is_awaited() -> None:
    recorder = Recorder()
    with subscribe(lambda sender, event: recorder.note_async(sender, event=event), "text", delivery="thread") as heard:
        await aemit(text, text="a")
    assert (recorder.heard, heard.stats.failed) == (["a"], 0)


class Suspends:
    """Suspends a coroutine function in which there is no ``await``."""

    async def __aenter__(self) -> None:
        await suspending()

    async def __aexit__(self, *error: object) -> None:
        await suspending()

    async def __aiter__(self) -> Any:
        await suspending()
        yield "one"
        await suspending()


def suspends_in(form: str, heard: list[str]) -> Any:
    async def block(sender: object, event: Any) -> None:
        async with Suspends():
            heard.append(event.text)

    async def loop(sender: object, event: Any) -> None:
        async for _ in Suspends():
            heard.append(event.text)

    async def comprehension(sender: object, event: Any) -> None:
        heard.extend([event.text async for _ in Suspends()])

    return {"async with": block, "async for": loop, "async comprehension": comprehension}[form]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_kept_of_a_queue_that_was_emptied_where_tasks_are_eager(anyio_backend: str) -> None:
    heard: list[str] = []

    async def subscriber(sender: object, event: Any) -> None:
        await note(event.text)

    async def note(words: str) -> None:
        heard.append(words)

    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))  # new in Python 3.12
    subscribe(subscriber, "text")
    for number in range(50):
        emit(text, text=str(number))
        assert await aflush()
    gc.collect()
    assert heard == numbers(50)
    assert len([one for one in gc.get_objects() if isinstance(one, asyncio.Task) and one.done()]) < 10


@pytest.mark.parametrize("is_async", [False, True], ids=["emit", "aemit"])
@pytest.mark.parametrize("form", ["async with", "async for", "async comprehension"])
async def test_a_subscriber_that_suspends_without_an_await_is_awaited(form: str, is_async: bool) -> None:
    heard: list[str] = []
    with subscribe(suspends_in(form, heard), "text") as subscription:
        for words in "abc":
            if is_async:
                await aemit(text, text=words)
            else:
                emit(text, text=words)
        assert await aflush()
    assert heard == ["a", "b", "c"]
    assert (subscription.stats.delivered, subscription.stats.failed) == (3, 0)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["background", "thread", "queued"])
async def test_a_subscriber_that_takes_its_time_does_not_stall_the_loop(how: str, gate: Gate) -> None:
    async def wait_for_gate(sender: object, event: object) -> None:
        while not gate.opened.is_set():
            await anyio.sleep(0.01)

    subscribe(gate, "text", delivery=how) if how != "queued" else subscribe(wait_for_gate, "text")
    late: list[float] = []
    with anyio.fail_after(50):
        async with anyio.create_task_group() as group:
            try:
                for _ in range(30):
                    started = time.perf_counter()
                    await anyio.sleep(0.01)
                    if how == "thread":
                        group.start_soon(lambda: aemit(text, text="a"))
                    else:
                        emit(text, text="a")
                    late.append(time.perf_counter() - started - 0.01)
            finally:
                gate.opened.set()
        assert await aflush()
    assert sorted(late)[-2] < 0.02


def test_what_is_queued_is_still_delivered_after_close() -> None:
    recorder = Recorder()
    subscription = subscribe(recorder.note, "text", delivery="background")
    for words in numbers(50):
        emit(text, text=words)
    subscription.close()
    assert flush()
    assert recorder.heard == numbers(50)


def test_the_thread_of_a_closed_background_subscription_ends() -> None:
    recorder = Recorder()
    with subscribe(recorder.note, "text", delivery="background") as subscription:
        emit(text, text="a")
        assert flush()
        (thread,) = [one for one in threading.enumerate() if subscription.name in one.name]
    thread.join(5)
    assert not thread.is_alive()


def test_emitting_while_a_background_subscription_is_closed_leaves_nothing_pending() -> None:
    for _ in range(50):
        recorder = Recorder()
        subscription = subscribe(recorder.note, "text", delivery="background")
        emit(text, text="first")
        thread = threading.Thread(target=lambda: [emit(text, text="x") for _ in range(20)])
        thread.start()
        subscription.close()
        thread.join()
        assert flush(2), subscription
        assert subscription.stats.pending == 0


# -- overflow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", ["0", "7", "8", "9"]), ("drop_newest", ["0", "1", "2", "3"])])
def test_a_full_queue_drops_by_its_policy_and_counts(gate: Gate, overflow: Any, kept: list[str]) -> None:
    subscription = subscribe(gate, "text", delivery="background", queue_size=3, overflow=overflow)
    emit(text, text="0")
    assert gate.entered.wait(5)
    for words in numbers(10)[1:]:
        emit(text, text=words)
    gate.opened.set()
    assert not flush()  # something was dropped
    assert gate.texts == kept
    assert subscription.stats.dropped == {"queue_full": 6}
    assert (subscription.stats.matched, subscription.stats.delivered) == (10, 4)


def test_a_full_queue_with_block_makes_the_emitter_wait(gate: Gate) -> None:
    subscription = subscribe(gate, "text", delivery="background", queue_size=1, overflow="block")
    emit(text, text="0")
    assert gate.entered.wait(5)
    emit(text, text="1")
    emitter = threading.Thread(target=lambda: emit(text, text="2"))
    emitter.start()
    emitter.join(0.2)
    waited = emitter.is_alive()
    gate.opened.set()
    emitter.join(5)
    assert flush()
    assert (waited, gate.texts, subscription.stats.dropped) == (True, ["0", "1", "2"], {})


def test_blocked_emitters_lose_nothing_and_need_no_time_out() -> None:
    recorder = Recorder()
    subscription = subscribe(recorder.note, "text", delivery="background", queue_size=1, overflow="block")
    threads = [threading.Thread(target=lambda: [emit(text, text="x") for _ in range(100)]) for _ in range(4)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush()
    assert (len(recorder.heard), subscription.stats.dropped) == (400, {})
    assert time.perf_counter() - started < 4.5  # a lost wake-up costs five seconds


def test_a_blocking_subscriber_that_emits_to_itself_does_not_wait_for_itself() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "go":
            for words in numbers(4):
                emit(text, text=words)

    subscribe(subscriber, "text", delivery="background", queue_size=2, overflow="block")
    emit(text, text="go")
    assert flush(4)
    assert heard == ["go", *numbers(4)]


async def test_block_never_blocks_a_loop(gate: Gate) -> None:
    subscription = subscribe(gate, "text", delivery="background", queue_size=1, overflow="block")
    emit(text, text="0")
    await anyio.to_thread.run_sync(gate.entered.wait, 5)
    with anyio.fail_after(2):
        for words in numbers(4)[1:]:
            emit(text, text=words)
    assert subscription.stats.dropped == {"queue_full": 2}


def test_flush_is_not_done_while_the_last_event_is_being_delivered(gate: Gate) -> None:
    subscribe(gate, "text", delivery="background", queue_size=1)
    emit(text, text="0")
    assert gate.entered.wait(5)
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(flush(10)))
    waiter.start()
    while not tracebus.lanes.busy_lanes()[0]._queue:  # flush has left its mark
        time.sleep(0.001)
    emit(text, text="1")  # overtakes nothing: the gate is closed
    waiter.join(0.3)
    still_waiting = waiter.is_alive()
    gate.opened.set()
    waiter.join(5)
    assert still_waiting


# -- flush, aflush, shutdown -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [-1, math.nan, "soon", None])
@pytest.mark.parametrize("call", [flush, shutdown])
def test_a_timeout_that_is_none_is_refused(call: Any, timeout_s: Any) -> None:
    with pytest.raises(ArgumentError, match="must be a number of seconds, 0 or more"):
        call(timeout_s)


async def test_aflush_refuses_a_timeout_that_is_none() -> None:
    with pytest.raises(ArgumentError, match="timeout_s=-1"):
        await aflush(-1)


def test_flush_is_true_when_there_is_nothing_to_do() -> None:
    flush()
    assert flush(0)


def test_flush_is_false_when_something_is_left(gate: Gate) -> None:
    subscribe(gate, "text", delivery="background")
    emit(text, text="a")
    assert not flush(0.05)


def test_flush_is_false_once_after_a_drop(gate: Gate) -> None:
    subscribe(gate, "text", delivery="background", queue_size=1)
    emit(text, text="0")
    assert gate.entered.wait(5)
    for words in "12":
        emit(text, text=words)
    gate.opened.set()
    assert (flush(), flush()) == (False, True)


def test_flush_forgets_the_drops_of_a_subscription_that_is_gone() -> None:
    gate = Gate()
    subscription = subscribe(gate, "text", delivery="background", queue_size=1)
    emit(text, text="0")
    assert gate.entered.wait(5)
    for words in "12":
        emit(text, text=words)
    gate.opened.set()
    flush()
    reference = weakref.ref(subscription)
    subscription.close()
    del subscription
    for thread in threading.enumerate():
        if thread.name.startswith("tracebus "):
            thread.join(1)
    gc.collect()
    assert reference() is None
    assert flush()


def test_flush_waits_for_the_others_in_a_subscriber_that_hears_from_its_queue() -> None:
    heard: list[Any] = []

    def flushing(sender: Any, event: Any) -> None:
        heard.append(flush(30))

    def other(sender: Any, event: Any) -> None:
        heard.append(event.text)

    subscribe(other, "text", delivery="background")  # first, so that its queue is not empty when the other one is called
    subscribe(flushing, "text", delivery="background")
    emit(text, text="a")
    assert flush()
    assert heard == ["a", True]


async def test_aflush_waits_for_the_others_in_a_subscriber_that_hears_from_its_queue() -> None:
    heard: list[Any] = []

    async def flushing(sender: Any, event: Any) -> None:
        heard.append(await aflush(30))

    async def other(sender: Any, event: Any) -> None:
        await suspending()
        heard.append(event.text)

    subscribe(other, "text", delivery="background")  # first, so that its queue is not empty when the other one is called
    subscribe(flushing, "text", delivery="background")
    emit(text, text="a")
    assert await aflush()
    assert heard == ["a", True]


async def test_flush_in_a_loops_own_thread_names_aflush() -> None:
    with pytest.raises(WrongThreadError, match=r"await tracebus\.aflush\(\)"):
        flush()


async def test_aflush_is_false_when_something_is_left() -> None:
    released = anyio.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        await released.wait()

    subscribe(subscriber, "text", delivery="background")
    emit(text, text="a")
    in_time = await aflush(0.05)
    released.set()
    assert (in_time, await aflush()) == (False, True)


async def test_aflush_waits_for_background_threads_without_blocking_the_loop(gate: Gate) -> None:
    subscribe(gate, "text", delivery="background")
    emit(text, text="a")
    results: list[bool] = []

    async def wait() -> None:
        results.append(await aflush(10))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await suspending()
        gate.opened.set()
    assert (results, gate.texts) == ([True], ["a"])


@pytest.mark.alone
def test_shutdown_keeps_its_deadline_with_a_hung_subscriber_and_says_what_was_left(gate: Gate) -> None:
    subscription = subscribe(gate, "text", delivery="background")
    for words in numbers(5):
        emit(text, text=words)
    assert gate.entered.wait(5)
    started = time.perf_counter()
    left = shutdown(2)
    assert time.perf_counter() - started < 2.2
    assert left == {subscription.name: 5}
    assert subscription.stats.dropped == {"shutdown": 4}


@pytest.mark.alone
def test_shutdown_keeps_its_deadline_with_several_hung_subscribers() -> None:
    gates = [Gate() for _ in range(4)]
    subscriptions = [subscribe(gate, "text", delivery="background") for gate in gates]
    emit(text, text="a")
    started = time.perf_counter()
    shutdown(0.5)
    took = time.perf_counter() - started
    for gate, subscription in zip(gates, subscriptions, strict=True):
        gate.opened.set()
        subscription.close()
    assert took < 0.8


def test_shutting_down_twice_is_fine() -> None:
    recorder = Recorder()
    subscribe(recorder.note, "text", delivery="background")
    emit(text, text="a")
    assert (shutdown(), shutdown(), recorder.heard) == ({}, {}, ["a"])


def test_what_is_said_after_a_shutdown_is_still_heard() -> None:
    recorder = Recorder()
    subscribe(recorder.note, "text", delivery="background")
    shutdown()
    emit(text, text="a")
    assert flush()
    assert recorder.heard == ["a"]


def test_a_failure_on_failures_does_not_stop_a_queue() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        raise ValueError

    def strict(sender: Any, event: Any) -> None:
        raise RuntimeError

    subscribe(strict, "subscriber_failed", raise_error=True)
    with subscribe(subscriber, "text", delivery="background"):
        for words in "abc":
            emit(text, text=words)
        assert flush(3)
    assert heard == ["a", "b", "c"]


async def test_a_failure_on_failures_does_not_stop_a_queue_on_a_loop() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        raise ValueError

    def strict(sender: Any, event: Any) -> None:
        raise RuntimeError

    subscribe(strict, "subscriber_failed", raise_error=True)
    subscribe(subscriber, "text", delivery="background")
    for words in "abc":
        emit(text, text=words)
    assert await aflush(3)
    assert heard == ["a", "b", "c"]


async def test_a_long_lived_loop_lets_the_handlers_of_its_requests_go() -> None:
    references = []
    for _ in range(3):

        class Handler:
            async def on_text(self, words: str, **_: Any) -> None:
                await suspending()

        handler = Handler()
        references.append(weakref.ref(handler))
        with scope(callbacks=[handler]), trace("request"):
            emit(text, text="a")
        assert await aflush()
        del handler
    await suspending()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


# -- loops that end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_delivers_what_is_queued(backend: str) -> None:
    recorder = Recorder()

    async def main() -> None:
        subscribe(recorder.note_async, "text")
        for words in numbers(100):
            emit(text, text=words)

    anyio.run(main, backend=backend)
    assert recorder.heard == numbers(100)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_with_an_error_delivers_what_is_queued(backend: str) -> None:
    recorder = Recorder()

    async def main() -> None:
        subscribe(recorder.note_async, "chain_*")
        with trace("a"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(main, backend=backend)
    assert recorder.heard == ["chain_start", "chain_error"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_a_subscriber_says_while_a_loop_ends_is_delivered_too(backend: str) -> None:
    recorder = Recorder()

    async def says_more(sender: Any, event: Any) -> None:
        emit(custom_event, name="more")

    async def main() -> None:
        subscribe(says_more, "text")
        subscribe(recorder.note_async, "custom_event")
        emit(text, text="a")
        emit(text, text="b")

    anyio.run(main, backend=backend)
    assert flush()
    assert recorder.heard == ["custom_event", "custom_event"]


@pytest.mark.alone
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_waits_for_a_hung_subscriber_for_a_second_and_counts_the_rest(backend: str) -> None:
    async def hangs(sender: Any, event: Any) -> None:
        await anyio.sleep_forever()

    subscriptions = []

    async def main() -> None:
        subscriptions.append(subscribe(hangs, "text"))
        for words in numbers(5):
            emit(text, text=words)

    started = time.perf_counter()
    anyio.run(main, backend=backend)
    assert time.perf_counter() - started < 3
    (subscription,) = subscriptions
    assert (subscription.stats.dropped, subscription.stats.pending) == ({"loop_closed": 5}, 0)


def test_a_loop_that_is_closed_without_a_word_loses_only_what_was_being_heard() -> None:
    recorder = Recorder()
    subscriptions = []

    async def main() -> None:
        subscriptions.append(subscribe(recorder.note_async, "text"))
        for words in "abc":
            emit(text, text=words)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    flush()
    (subscription,) = subscriptions
    assert recorder.heard[-2:] == ["b", "c"]
    assert (subscription.stats.matched, subscription.stats.pending) == (3, 0)


def test_a_loop_that_was_closed_without_a_word_is_let_go() -> None:
    async def main() -> None:
        subscribe(Recorder().note_async, "text")
        await aemit(text, text="a")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    with isolated():
        reference = weakref.ref(loop)
        for hook in tracebus.HOOKS.values():
            hook._clear_state()
    tracebus.text._clear_state()
    del loop
    gc.collect()
    assert reference() is None


def test_cancelling_all_tasks_of_a_loop_does_not_stop_later_deliveries() -> None:
    recorder = Recorder()

    async def main() -> bool:
        subscribe(recorder.note_async, "text")
        emit(text, text="a")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        emit(text, text="b")
        return await aflush(3)

    asyncio.run(main())
    assert recorder.heard[-1] == "b"


def test_a_second_loop_takes_over_after_the_first_has_ended() -> None:
    recorder = Recorder()
    subscribe(recorder.note_async, "text")

    async def main(words: str) -> None:
        emit(text, text=words)

    for words in "abc":
        asyncio.run(main(words))
    assert recorder.heard == ["a", "b", "c"]


# -- order in one run (demand 12) --------------------------------------------------------------------------------------


class MixedHandler:
    """Sync and async methods on one object."""

    def __init__(self) -> None:
        self.heard: dict[Any, list[str]] = {}

    def note(self, kind: str, run_id: Any) -> None:
        self.heard.setdefault(run_id, []).append(kind)

    async def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, **_: Any) -> None:
        await suspending()
        self.note("start", run_id)

    def on_llm_new_token(self, token: str, *, run_id: Any, **_: Any) -> None:
        self.note(token, run_id)

    async def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        await suspending()
        self.note("end", run_id)


@traced(kind="llm")
def stream(count: int) -> Iterator[str]:
    yield from numbers(count)


@pytest.mark.parametrize(("threads", "tokens"), [(4, 50), pytest.param(8, 100_000, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_in_one_run_a_handler_of_both_kinds_hears_start_tokens_and_end_in_order(threads: int, tokens: int) -> None:
    handler = MixedHandler()
    attach(handler)
    subscription = next(iter(text.receivers), None)
    assert subscription is None
    workers = [threading.Thread(target=lambda: list(stream(tokens))) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    while not flush(30):
        pass
    dropped = sum(sum(one.dropped.values()) for one in stats())
    assert len(handler.heard) == threads
    for heard in handler.heard.values():
        assert dropped or heard == ["start", *numbers(tokens), "end"]
        assert [int(kind) for kind in heard if kind.isdigit()] == sorted(int(kind) for kind in heard if kind.isdigit())


async def test_in_one_run_of_sync_code_inside_a_loop_a_mixed_handler_keeps_the_order() -> None:
    handler = MixedHandler()
    attach(handler)
    list(stream(50))
    assert await aflush()
    assert list(handler.heard.values()) == [["start", *numbers(50), "end"]]


async def test_in_one_async_run_two_mixed_handlers_keep_the_order() -> None:
    handlers = [MixedHandler(), MixedHandler()]
    for handler in handlers:
        attach(handler)

    @traced(kind="llm")
    async def answer() -> Any:
        for words in numbers(50):
            if int(words) % 2:
                emit(tracebus.llm_new_token, token=words)
            else:
                await aemit(tracebus.llm_new_token, token=words)
            yield None

    async for _ in answer():
        pass
    assert await aflush()
    for handler in handlers:
        assert list(handler.heard.values()) == [["start", *numbers(50), "end"]]


def test_an_async_subscriber_of_many_threads_hears_each_run_in_order() -> None:
    heard: dict[Any, list[str]] = {}

    async def subscriber(sender: Any, event: Any) -> None:
        heard.setdefault(event.run.id, []).append(getattr(event, "token", event.signal_name))

    subscribe(subscriber, "llm_*")
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        list(stream(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush()
    assert list(heard.values()) == [["llm_start", *numbers(20), "llm_end"]] * 8


# -- fork --------------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys, threading, warnings
import anyio
from tracebus import aemit, emit, flush, stats, subscribe, text, trace
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads

heard = []

def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


@needs_fork
def test_a_forked_child_delivers_its_own_events_and_none_of_its_parents(run_python: Any) -> None:
    code = """
gate = threading.Event()
def sub(sender, event):
    gate.wait()
    heard.append(event.text)
async def asub(sender, event):
    heard.append("async " + event.text)
subscribe(sub, "text", delivery="background")
subscribe(asub, "text")
for _ in range(10):
    emit(text, text="parent")
flush(0.1)
heard.clear()
def work():
    gate.set()
    emit(text, text="child")
    assert flush(3)
    print(sorted(heard))
in_child(work)
gate.set()
assert flush()
print(len([words for words in heard if words == "parent"]))
"""
    assert run_python("-c", FORKED + code).stdout.split("\n")[:2] == ["['async child', 'child']", "10"]


@needs_fork
@pytest.mark.parametrize("where", ["a thread beside the loop", "a worker thread", "the loop"])
def test_a_child_forked_beside_a_running_loop_delivers(run_python: Any, where: str) -> None:
    code = f"""
where = {where!r}
async def asub(sender, event):
    heard.append(event.signal_name)
def work():
    with trace("in the child"):
        pass
    print(heard)
async def main():
    subscribe(asub, "chain_*")
    if where == "the loop":
        in_child(work)
    elif where == "a worker thread":
        await anyio.to_thread.run_sync(in_child, work)
    else:
        thread = threading.Thread(target=in_child, args=(work,))
        thread.start()
        while thread.is_alive():
            await anyio.sleep(0.01)
anyio.run(main)
"""
    assert run_python("-c", FORKED + code).stdout == "['chain_start', 'chain_end']\n"


@needs_fork
def test_threads_of_a_forked_child_are_heard_though_a_thread_of_the_parent_was_inside_a_subscriber(
    run_python: Any,
) -> None:
    code = """
inside, gate = threading.Event(), threading.Event()
def sub(sender, event):
    if event.text == "parent":
        inside.set()
        gate.wait()
    heard.append(event.text)
subscribe(sub, "text")
threading.Thread(target=lambda: emit(text, text="parent"), daemon=True).start()
inside.wait()
def work():
    for _ in range(3):
        thread = threading.Thread(target=lambda: emit(text, text="child"))
        thread.start()
        thread.join()
    print(heard)
in_child(work)
"""
    assert run_python("-c", FORKED + code).stdout == "['child', 'child', 'child']\n"


@needs_fork
@pytest.mark.parametrize("forks", [10, full(300, 600)])
def test_no_forked_child_hangs_while_threads_emit_and_ask_for_stats(run_python: Any, forks: int) -> None:
    code = f"""
sys.setswitchinterval(1e-6)
def sub(sender, event):
    if event.text == "child":
        heard.append(event.text)
async def asub(sender, event):
    sub(sender, event)
subscribe(sub, "text")
subscribe(lambda sender, event: sub(sender, event), "text", delivery="background", queue_size=100)
subscribe(asub, "text", queue_size=100)
stop = threading.Event()
def flat_out():
    while not stop.is_set():
        emit(text, text="parent")
def ask():
    while not stop.is_set():
        try:
            stats()
        except RuntimeError:
            pass
threads = [threading.Thread(target=work, daemon=True) for work in [flat_out] * 4 + [ask]]
for thread in threads:
    thread.start()
import signal
def work():
    signal.alarm(10)
    emit(text, text="child")
    flush(5)
    assert heard == ["child"] * 3, heard
for _ in range({forks}):
    in_child(work)
stop.set()
os._exit(0)
"""
    run_python("-c", FORKED + code, timeout_s=forks * 3)


MULTIPROCESSING = """
import multiprocessing, sys
EARLY = sys.argv[2] == "early"
if EARLY:
    import tracebus

def child(path):
    import time
    from tracebus import emit, subscribe, text, trace
    def write(words):
        with open(path, "a") as file:
            file.write(words + " ")
    def sub(sender, event):
        time.sleep(0.02)
        write(event.text)
    subscribe(sub, "text", delivery="background")
    subscribe(lambda sender, event: write(event.run.status), "chain_error")
    global block
    block = trace("left open")
    block.__enter__()
    for number in range(3):
        emit(text, text=str(number))

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=(sys.argv[3],))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("imported", ["early", "late"])
@pytest.mark.parametrize(
    "method", [pytest.param("fork", marks=needs_fork), "spawn", pytest.param("forkserver", marks=needs_fork)]
)
def test_a_child_of_multiprocessing_delivers_everything_and_closes_its_runs(
    run_python: Any, tmp_path: Any, method: str, imported: str
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(MULTIPROCESSING)
    run_python(script, method, imported, out)
    assert sorted(out.read_text().split()) == ["0", "1", "2", "aborted"]


# -- exit --------------------------------------------------------------------------------------------------------------

AT_EXIT = """
import atexit, sys, threading, time
from tracebus import emit, subscribe, text, trace, traced

def sub(sender, event):
    time.sleep(0.01)
    print(getattr(event, "text", event.run and event.run.status), flush=True)

async def asub(sender, event):
    print("async", getattr(event, "text", event.run and event.run.status), flush=True)
"""


@pytest.mark.parametrize("last_words", ["", "sys.exit(0)", "raise SystemExit"])
def test_every_orderly_exit_delivers_what_is_queued(run_python: Any, last_words: str) -> None:
    code = """
subscribe(sub, "text", delivery="background")
for number in range(20):
    emit(text, text=str(number))
"""
    assert run_python("-c", AT_EXIT + code + last_words).stdout.split() == numbers(20)


def test_an_exit_by_an_exception_delivers_what_is_queued(run_python: Any) -> None:
    code = """
subscribe(sub, "text", delivery="background")
subscribe(asub, "text")
for number in range(5):
    emit(text, text=str(number))
raise ZeroDivisionError
"""
    done = run_python("-c", AT_EXIT + code, check=False)
    assert (done.returncode, "ZeroDivisionError" in done.stderr) == (1, True)
    assert [line for line in done.stdout.splitlines() if not line.startswith("async")] == numbers(5)
    assert done.stdout.count("async") == 5


@pytest.mark.parametrize("warm", [True, False], ids=["threads run", "first event at exit"])
@pytest.mark.parametrize("subscriber", ["sub, delivery='background'", "asub", "asub, delivery='background'", "sub"])
def test_a_run_open_in_a_daemon_thread_is_closed_as_aborted_at_exit(run_python: Any, subscriber: str, warm: bool) -> None:
    fn, *options = subscriber.split(", ")
    code = f"""
subscribe({", ".join([fn, '"chain_error"', '"text"', *options])})
started = threading.Event()
def work():
    with trace("open"):
        started.set()
        threading.Event().wait()
if {warm}:
    emit(text, text="warm")
threading.Thread(target=work, daemon=True).start()
started.wait()
"""
    assert run_python("-c", AT_EXIT + code).stdout.split()[-1] == "aborted"


def test_nested_open_runs_are_closed_from_the_inside(run_python: Any) -> None:
    code = """
subscribe(lambda sender, event: print(event.run.name), "chain_error")
kept = [trace("outer"), trace("inner")]
for block in kept:
    block.__enter__()
"""
    assert run_python("-c", AT_EXIT + code).stdout.split() == ["inner", "outer"]


def test_nested_open_runs_are_closed_from_the_inside_also_when_the_clock_stands_still(run_python: Any) -> None:
    code = """
from tracebus import runs
runs.use_instruments(runs.Instruments(lambda: 1, lambda: 1, int))
subscribe(lambda sender, event: print(event.run.name), "chain_error")
kept = [trace(name) for name in "abcdef"]
for block in kept:
    block.__enter__()
"""
    assert run_python("-c", AT_EXIT + code).stdout.split() == list("fedcba")


def test_a_run_below_very_many_is_closed_and_the_rest_delivered(run_python: Any) -> None:
    code = """
import contextvars
subscribe(sub, "text", "chain_error", delivery="background")
context = contextvars.copy_context()
for number in range(3000):  # each starts in the course of the one before, which has ended, as detached tasks do
    block = trace(str(number))
    context.run(block.__enter__)
    inside = context.run(contextvars.copy_context)
    context.run(block.__exit__, None, None, None)
    context = inside
context.run(trace("open").__enter__)
emit(text, text="queued")
"""
    assert run_python("-c", AT_EXIT + code).stdout.split() == ["queued", "aborted"]


def test_emitting_in_an_atexit_handler_is_fine(run_python: Any) -> None:
    code = """
subscribe(sub, "text", delivery="background")
emit(text, text="before")
atexit.register(lambda: emit(text, text="at exit"))
"""
    assert run_python("-c", AT_EXIT + code).stdout == "before\nat exit\n"


def test_emitting_in_an_atexit_handler_that_runs_after_ours_raises_nothing(run_python: Any) -> None:
    code = """
import atexit
atexit.register(lambda: late())
from tracebus import emit, subscribe, text
subscribe(lambda sender, event: None, "text", delivery="background")
def late():
    emit(text, text="very late")
"""
    run_python("-c", code)


@pytest.mark.alone
def test_a_subscriber_that_blocks_for_ever_does_not_hold_up_the_exit(run_python: Any) -> None:
    code = """
def stuck(sender, event):
    threading.Event().wait()
subscribe(stuck, "text", delivery="background")
for _ in range(3):
    emit(text, text="a")
"""
    started = time.perf_counter()
    done = run_python("-c", AT_EXIT + code)
    assert time.perf_counter() - started < 5
    assert "3 events were not delivered to __main__.stuck" in done.stderr


def test_asyncio_run_and_exit_deliver_everything(run_python: Any) -> None:
    code = """
import asyncio
subscribe(asub, "text")
async def main():
    for number in range(20):
        emit(text, text=str(number))
    sys.exit(3)
asyncio.run(main())
"""
    done = run_python("-c", AT_EXIT + code, check=False)
    assert done.returncode == 3
    assert done.stdout.split() == [word for number in range(20) for word in ("async", str(number))]


def test_the_collector_may_end_a_stream_while_tracebus_starts_its_loop(run_python: Any) -> None:
    code = """
import asyncio, gc
gc.disable()
from tracebus import flush
subscribe(asub, "chain_end")
async def on_text(sender, event): ...
subscribe(on_text, "text")

@traced
def gen():
    yield 1

class Cycle: ...

async def abandon():  # in a loop, so that what is queued so far does not start tracebus's own
    cycle = Cycle()
    cycle.me, cycle.stream = cycle, gen()
    next(cycle.stream)

asyncio.run(abandon())

def collect_once(*_):
    sys.setprofile(None)
    gc.collect()

threading.setprofile(collect_once)
emit(text, text="starts the loop")
threading.setprofile(None)
print(flush(3), flush.__name__)
"""
    assert "True flush" in run_python("-c", AT_EXIT + code, timeout_s=15).stdout
