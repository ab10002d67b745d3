"""How an event reaches its subscribers: in place, in a thread, awaited; and that none of them changes the app."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import threading
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracebus import (
    aemit,
    aflush,
    chain_end,
    chain_error,
    chain_start,
    current_run,
    custom_event,
    emit,
    flush,
    subscribe,
    subscriber_failed,
    text,
    trace,
    traced,
)
from tracebus.signals import isolated

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


class Broken(Exception):
    """What subscribers raise here."""


def full(count: int, seconds: int = 300) -> Any:
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(seconds)])


# -- the delivery table: inline ----------------------------------------------------------------------------------------


def test_a_sync_subscriber_is_called_there_and_then_from_sync_code() -> None:
    heard: list[Any] = []
    text.connect(lambda sender, event: heard.append((event.text, threading.get_ident())))
    emit(text, text="a")
    assert heard == [("a", threading.get_ident())]


async def test_a_sync_subscriber_is_called_there_and_then_from_async_code() -> None:
    heard: list[Any] = []
    text.connect(lambda sender, event: heard.append((event.text, threading.get_ident())))
    await aemit(text, text="a")
    assert heard == [("a", threading.get_ident())]


async def test_an_inline_subscriber_sees_and_keeps_the_apps_context() -> None:
    var: ContextVar[str] = ContextVar("var", default="unset")
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append(var.get()))
    var.set("the app's")
    await aemit(text, text="a")
    assert heard == ["the app's"]


# -- thread ------------------------------------------------------------------------------------------------------------


async def test_a_thread_subscriber_runs_in_a_worker_thread_and_is_awaited() -> None:
    heard: list[int] = []
    subscribe(lambda sender, event: heard.append(threading.get_ident()), "text", delivery="thread")
    await aemit(text, text="a")
    assert len(heard) == 1
    assert heard[0] != threading.get_ident()


async def test_a_thread_subscriber_gets_a_copy_of_the_context() -> None:
    var: ContextVar[str] = ContextVar("var", default="unset")
    heard: list[Any] = []

    def subscriber(sender: Any, event: Any) -> None:
        run = current_run()
        heard.append((var.get(), run and run.name))
        var.set("the subscriber's")

    subscribe(subscriber, "text", delivery="thread")
    var.set("the app's")
    async with trace("a"):
        await aemit(text, text="a")
    assert (heard, var.get()) == ([("the app's", "a")], "the app's")


def test_a_thread_subscriber_is_called_there_and_then_from_sync_code() -> None:
    heard: list[int] = []
    subscribe(lambda sender, event: heard.append(threading.get_ident()), "text", delivery="thread")
    emit(text, text="a")
    assert heard == [threading.get_ident()]


async def test_a_thread_subscriber_lets_the_loop_go_on() -> None:
    release = threading.Event()
    subscribe(lambda sender, event: release.wait(10), "text", delivery="thread")
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(aemit, text, text="a"))
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        release.set()  # from the loop, which was never blocked


async def test_a_thread_subscriber_may_call_back_into_the_loop() -> None:
    heard: list[int] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(anyio.from_thread.run_sync(threading.get_ident))

    subscribe(subscriber, "text", delivery="thread")
    await aemit(text, text="a")
    assert heard == [threading.get_ident()]


async def test_a_stuck_thread_subscriber_does_not_hold_up_a_cancelled_app() -> None:
    release = threading.Event()
    safety = threading.Timer(3, release.set)
    safety.start()
    subscribe(lambda sender, event: release.wait(10), "text", delivery="thread")
    with anyio.move_on_after(0.05) as scope:
        await aemit(text, text="a")
    held_up = release.is_set()
    release.set()
    safety.cancel()
    safety.join()
    assert (scope.cancelled_caught, held_up) == (True, False)


# -- await -------------------------------------------------------------------------------------------------------------


async def suspending(_: Any = None) -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def test_an_async_subscriber_has_heard_before_the_emission_returns() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        heard.append(event.text)

    text.connect(subscriber)
    await aemit(text, text="a")
    assert heard == ["a"]


async def test_an_async_subscriber_has_heard_the_start_before_the_function_begins() -> None:
    order: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        order.append(event.signal_name)

    @traced
    async def app() -> None:
        order.append("body")

    subscribe(subscriber, "chain_*")
    await app()
    assert order == ["chain_start", "body", "chain_end"]


async def test_sync_subscribers_come_first_then_async_ones_in_their_order() -> None:
    order: list[str] = []

    def asynchronous(name: str) -> Callable[..., Awaitable[None]]:
        async def subscriber(sender: Any, event: Any) -> None:
            order.append(name)

        return subscriber

    text.connect(asynchronous("async 1"))
    text.connect(lambda sender, event: order.append("sync 1"))
    text.connect(asynchronous("async 2"))
    text.connect(lambda sender, event: order.append("sync 2"))
    await aemit(text, text="a")
    assert order == ["sync 1", "sync 2", "async 1", "async 2"]


async def test_several_async_subscribers_run_together() -> None:
    met = [anyio.Event() for _ in range(3)]

    def subscriber(number: int) -> Callable[..., Awaitable[None]]:
        async def meet(sender: Any, event: Any) -> None:
            met[number].set()
            for other in met:
                await other.wait()

        return meet

    for number in range(3):
        text.connect(subscriber(number))
    with anyio.fail_after(5):
        await aemit(text, text="a")
    assert all(event.is_set() for event in met)


async def test_the_emission_waits_for_the_slowest_of_several() -> None:
    heard: list[str] = []
    released = anyio.Event()

    async def slow(sender: Any, event: Any) -> None:
        await released.wait()
        await suspending()
        heard.append("slow")

    async def quick(sender: Any, event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        heard.append("quick")
        released.set()

    for subscriber in (quick, slow):
        text.connect(subscriber)
    with anyio.fail_after(5):
        await aemit(text, text="a")
    assert heard == ["quick", "slow"]


class AsyncCallable:
    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    async def __call__(self, sender: Any, event: Any) -> None:
        await suspending()
        self.heard.append(event.text)


class OwnAwaitable:
    def __init__(self, heard: list[str], words: str) -> None:
        self.heard, self.words = heard, words

    def __await__(self) -> Any:
        yield from suspending().__await__()
        self.heard.append(self.words)


async def hear_after_a_while(heard: list[str], sender: Any, event: Any) -> None:
    await suspending()
    heard.append(event.text)


@types.coroutine
def generator_coroutine(heard: list[str], sender: Any, event: Any) -> Any:
    yield from suspending().__await__()
    heard.append(event.text)


def async_subscribers(heard: list[str]) -> dict[str, Any]:
    partial = functools.partial(hear_after_a_while, heard)
    return {
        "partial": partial,
        "partial of a partial": functools.partial(functools.partial(hear_after_a_while), heard),
        "async __call__": AsyncCallable(heard),
        "bound async __call__": AsyncCallable(heard).__call__,
        "returns a coroutine": lambda sender, event: partial(sender, event=event),
        "returns an awaitable": lambda sender, event: OwnAwaitable(heard, event.text),
        "types.coroutine": functools.partial(generator_coroutine, heard),
    }


@pytest.mark.parametrize("kind", list(async_subscribers([])))
async def test_whatever_must_be_awaited_is_awaited_from_async_code(kind: str) -> None:
    heard: list[str] = []
    text.connect(async_subscribers(heard)[kind])
    await aemit(text, text="a")
    assert heard == ["a"]


@pytest.mark.parametrize("kind", list(async_subscribers([])))
def test_whatever_must_be_awaited_is_awaited_from_sync_code(kind: str) -> None:
    heard: list[str] = []
    text.connect(async_subscribers(heard)[kind])
    emit(text, text="a")
    assert flush()
    assert heard == ["a"]


def test_a_function_that_returns_a_future_is_awaited() -> None:
    heard: list[str] = []

    async def main() -> None:
        text.connect(lambda sender, event: asyncio.ensure_future(hear_after_a_while(heard, sender, event)))
        await aemit(text, text="a")

    asyncio.run(main())
    assert heard == ["a"]


def test_what_a_subscriber_returns_is_not_collected() -> None:
    text.connect(lambda sender, event: 42)
    text.connect(lambda sender, event: iter([1, 2]))
    emit(text, text="a")


# -- current_run and contexts ------------------------------------------------------------------------------------------


def test_current_run_is_the_events_run_in_an_inline_subscriber() -> None:
    heard: list[Any] = []
    text.connect(lambda sender, event: heard.append(current_run() is event.run))
    with trace("a"), trace("b"):
        emit(text, text="a")
    assert heard == [True]


async def test_current_run_is_the_events_run_after_an_async_subscriber_suspended() -> None:
    heard: list[Any] = []

    def subscriber() -> Callable[..., Awaitable[None]]:
        async def hear(sender: Any, event: Any) -> None:
            await suspending()
            heard.append(current_run() is event.run)

        return hear

    text.connect(subscriber())
    text.connect(subscriber())
    async with trace("a"):
        await aemit(text, text="a")
    assert heard == [True, True]


async def test_a_run_that_a_subscriber_starts_is_a_child_of_the_events_run() -> None:
    heard: list[Any] = []

    async def subscriber(sender: Any, event: Any) -> None:
        async with trace("of the subscriber") as run:
            await suspending()
            heard.append(run.parent is event.run)

    subscribe(subscriber, "text")
    async with trace("a") as run:
        await aemit(text, text="a")
        assert current_run() is run
    assert heard == [True]


# -- raise_error -------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., None]:
    def subscriber(sender: Any, event: Any) -> None:
        raise error

    return subscriber


def raising_async(error: BaseException) -> Callable[..., Awaitable[None]]:
    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        raise error

    return subscriber


def test_with_raise_error_the_emitter_sees_the_very_exception() -> None:
    error = Broken()
    subscribe(raising(error), "text", raise_error=True)
    with pytest.raises(Broken) as caught:
        emit(text, text="a")
    assert caught.value is error


@pytest.mark.parametrize("make", [raising, raising_async])
async def test_with_raise_error_the_async_emitter_sees_the_very_exception(make: Any) -> None:
    error = Broken()
    subscribe(make(error), "text", raise_error=True)
    with pytest.raises(Broken) as caught:
        await aemit(text, text="a")
    assert caught.value is error


async def test_with_raise_error_a_thread_subscriber_reaches_the_emitter() -> None:
    subscribe(raising(Broken()), "text", raise_error=True, delivery="thread")
    with pytest.raises(Broken):
        await aemit(text, text="a")


async def test_with_raise_error_the_second_of_two_async_subscribers_reaches_the_emitter() -> None:
    async def fine(sender: Any, event: Any) -> None:
        await suspending()

    text.connect(fine)
    subscribe(raising_async(Broken()), "text", raise_error=True)
    with pytest.raises(Broken):
        await aemit(text, text="a")


async def test_with_raise_error_the_others_have_heard() -> None:
    heard: list[str] = []
    subscribe(raising(Broken()), "text", raise_error=True)
    subscribe(raising_async(Broken()), "text", raise_error=True)
    text.connect(lambda sender, event: heard.append("sync"))
    text.connect(functools.partial(hear_after_a_while, heard))
    with pytest.raises(Broken):
        await aemit(text, text="async")
    assert heard == ["sync", "async"]


def test_with_raise_error_at_a_start_the_run_ends_as_an_error_and_the_function_is_not_called() -> None:
    ends: list[str] = []
    calls: list[str] = []
    subscribe(raising(Broken()), "chain_start", raise_error=True)
    subscribe(lambda sender, event: ends.append(event.run.status), "chain_error", "chain_end")

    @traced
    def app() -> None:
        calls.append("called")

    with pytest.raises(Broken):
        app()
    assert (ends, calls, current_run()) == (["error"], [], None)


async def test_with_raise_error_at_a_start_of_async_code_the_run_ends_as_an_error() -> None:
    ends: list[str] = []
    subscribe(raising_async(Broken()), "chain_start", raise_error=True)
    subscribe(lambda sender, event: ends.append(event.run.status), "chain_error", "chain_end")

    @traced
    async def app() -> None: ...

    with pytest.raises(Broken):
        await app()
    with pytest.raises(Broken):
        async with trace("block"):
            pass
    assert (ends, current_run()) == (["error", "error"], None)


@pytest.mark.parametrize("raised", [Broken(), SystemExit(3), asyncio.CancelledError()], ids=lambda e: type(e).__name__)
def test_with_raise_error_at_an_error_the_apps_own_exception_wins(raised: BaseException) -> None:
    subscribe(raising(raised), "chain_error", raise_error=True)
    error = ValueError("the app's")

    @traced
    def app() -> None:
        raise error

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        app()
    assert caught.value is error


@pytest.mark.parametrize("make", [raising, raising_async])
@pytest.mark.parametrize("raised", [Broken(), SystemExit(3)], ids=lambda e: type(e).__name__)
async def test_with_raise_error_at_an_error_of_async_code_the_apps_own_exception_wins(
    make: Any, raised: BaseException
) -> None:
    subscribe(make(raised), "chain_error", raise_error=True)
    error = ValueError("the app's")

    @traced
    async def app() -> None:
        raise error

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        await app()
    assert caught.value is error


def test_without_raise_error_nothing_reaches_the_emitter() -> None:
    for error in (Broken(), SystemExit(1), asyncio.CancelledError()):
        text.connect(raising(error))
    emit(text, text="a")


# -- failures (demand 1) -----------------------------------------------------------------------------------------------


def test_a_failure_is_counted_and_announced_with_subscriber_hook_and_error() -> None:
    announced: list[Any] = []
    error = Broken()
    fails = raising(error)
    subscription = subscribe(fails, "text")
    subscriber_failed.connect(lambda sender, event: announced.append((event.hook, event.subscriber, event.error)))
    emit(text, text="a")
    assert announced == [("text", fails, error)]
    assert (subscription.stats.failed, subscription.stats.delivered) == (1, 0)


def test_a_failure_is_logged_with_the_names_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    subscription = subscribe(raising(Broken("oops")), "text")
    for _ in range(5):
        emit(text, text="a")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tracebus", "ERROR")
    assert f"subscriber {subscription.name} failed on text" in record.message
    assert "Broken('oops')" in record.message


def test_a_subscriber_that_fails_on_failures_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fails_always(sender: Any, event: Any) -> None:
        heard.append(event.signal_name)
        raise Broken

    subscribe(fails_always, "text", "subscriber_failed")
    emit(text, text="a")
    assert heard == ["text", "subscriber_failed"]


def test_a_strict_subscriber_of_failures_does_not_stop_those_that_come_after_the_failing_one() -> None:
    heard: list[str] = []
    subscribe(raising(Broken()), "text")
    subscribe(raising(Broken()), "subscriber_failed", raise_error=True)
    subscribe(lambda sender, event: heard.append(event.text), "text")
    with contextlib.suppress(Broken):
        emit(text, text="a")
    assert heard == ["a"]


def test_a_logging_filter_that_raises_does_not_reach_the_app() -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise Broken

    logger = logging.getLogger("tracebus")
    logger.addFilter(refuse)
    heard: list[str] = []
    try:
        subscribe(raising(ValueError()), "text")
        subscribe(lambda sender, event: heard.append(event.text), "text")
        emit(text, text="a")
    finally:
        logger.removeFilter(refuse)
    assert heard == ["a"]


FAULTS: dict[str, Callable[[], BaseException] | None] = {
    "fine": None,
    "Exception": lambda: Broken("oops"),
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
}
SUBSCRIBERS = st.lists(
    st.tuples(st.sampled_from(list(FAULTS)), st.sampled_from(["sync", "async", "suspending", "thread"])),
    min_size=10,
    max_size=10,
)


def misbehaving(number: int, fault: str, kind: str, heard: list[Any]) -> Callable[..., Any]:
    make = FAULTS[fault]

    def hear(sender: Any, event: Any) -> None:
        heard.append((number, event.signal_name))
        if make is not None:
            raise make()

    async def hear_async(sender: Any, event: Any) -> None:
        if kind == "suspending":
            await suspending()
        hear(sender, event)

    return hear if kind in ("sync", "thread") else hear_async


@traced
def answer(question: str) -> list[str]:
    with trace("inner"):
        emit(text, text=question)
    return [question]


@traced
async def answer_async(question: str) -> list[str]:
    async with trace("inner"):
        await aemit(text, text=question)
    return [question]


HOOKS_HEARD = sorted(["chain_start", "chain_start", "text", "chain_end", "chain_end"])


@pytest.mark.parametrize("cases", [100, full(1000)])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_subset_of_failing_subscribers_changes_the_result_or_silences_another(cases: int, backend: str) -> None:
    @settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(SUBSCRIBERS)
    def check(wanted: list[tuple[str, str]]) -> None:
        heard: list[Any] = []
        with isolated():
            subscriptions = [
                subscribe(
                    misbehaving(number, fault, kind, heard),
                    "chain_*",
                    "text",
                    delivery="thread" if kind == "thread" else None,
                )
                for number, (fault, kind) in enumerate(wanted)
            ]
            assert anyio.run(answer_async, "q", backend=backend) == ["q"]
            by_number = [sorted(hook for who, hook in heard if who == number) for number in range(10)]
            counts = [one.stats for one in subscriptions]
        for (fault, _), hooks, count in zip(wanted, by_number, counts, strict=True):
            assert hooks == HOOKS_HEARD
            assert (count.delivered if fault == "fine" else count.failed) == count.matched == len(hooks)

    logging.disable()
    try:
        check()
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("cases", [50, full(1000)])
def test_no_subset_of_failing_subscribers_changes_the_result_of_sync_code(cases: int) -> None:
    @settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(SUBSCRIBERS)
    def check(wanted: list[tuple[str, str]]) -> None:
        heard: list[Any] = []
        with isolated():
            for number, (fault, kind) in enumerate(wanted):
                subscribe(misbehaving(number, fault, kind, heard), "chain_*", "text")
            assert answer("q") == ["q"]
            assert flush()
        for number in range(10):
            assert sorted(hook for who, hook in heard if who == number) == HOOKS_HEARD

    logging.disable()
    try:
        check()
    finally:
        logging.disable(logging.NOTSET)


# -- SystemExit and KeyboardInterrupt (demand 2) -----------------------------------------------------------------------


def test_after_a_system_exit_in_a_queued_subscriber_the_next_hundred_events_arrive() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "exit":
            raise SystemExit

    text.connect(subscriber)
    for words in ("exit", *map(str, range(100))):
        emit(text, text=words)
    assert flush()
    assert heard == ["exit", *map(str, range(100))]


@pytest.mark.parametrize("delivery", ["await", "background"])
async def test_after_a_system_exit_in_a_subscriber_on_a_loop_the_next_hundred_events_arrive(delivery: Any) -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "exit":
            raise SystemExit

    subscribe(subscriber, "text", delivery=delivery)
    for words in ("exit", *map(str, range(100))):
        emit(text, text=words)
    assert await aflush()
    assert heard == ["exit", *map(str, range(100))]


def test_after_a_system_exit_in_a_background_thread_the_next_hundred_events_arrive() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "exit":
            raise SystemExit

    with subscribe(subscriber, "text", delivery="background"):
        for words in ("exit", *map(str, range(100))):
            emit(text, text=words)
        assert flush()
    assert heard == ["exit", *map(str, range(100))]


def test_a_keyboard_interrupt_during_a_subscriber_reaches_the_app() -> None:
    statuses: list[str] = []
    subscribe(lambda sender, event: signal.raise_signal(signal.SIGINT), "text")
    subscribe(lambda sender, event: statuses.append(event.run.status), "chain_error")
    with pytest.raises(KeyboardInterrupt), trace("a"):
        emit(text, text="a")
    assert statuses == ["error"]


def test_a_keyboard_interrupt_during_an_async_subscriber_reaches_the_app() -> None:
    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        signal.raise_signal(signal.SIGINT)
        await suspending()

    async def main() -> None:
        text.connect(subscriber)
        await aemit(text, text="a")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_a_keyboard_interrupt_during_a_queued_subscriber_reaches_the_app() -> None:
    async def subscriber(sender: Any, event: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        text.connect(subscriber)
        emit(text, text="a")
        await anyio.sleep(5)

    loop = asyncio.new_event_loop()  # without asyncio.run, which turns SIGINT into a cancellation
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.alone
def test_sigint_during_an_inline_subscriber_reaches_the_app_within_100_ms() -> None:
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    def subscriber(sender: Any, event: Any) -> None:
        timer = threading.Timer(0.05, interrupt)
        timer.start()
        with contextlib.suppress(Exception):
            for _ in range(1000):
                time.sleep(0.005)

    subscribe(subscriber, "text")
    with pytest.raises(KeyboardInterrupt):
        emit(text, text="a")
    assert time.perf_counter() - sent[0] < 0.1


# -- cancellation (demand 4) -------------------------------------------------------------------------------------------


class Stage:
    """A subscriber that is asked to end while it waits, and what it does then."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.released = anyio.Event()
        self.ended: list[str] = []

    async def swallows(self, sender: Any, event: Any) -> None:
        self.entered.set()
        with contextlib.suppress(BaseException):
            await self.released.wait()
        self.ended.append("swallowed")

    async def raises(self, sender: Any, event: Any) -> None:
        self.entered.set()
        try:
            await self.released.wait()
        except BaseException:
            raise Broken from None

    async def raises_in_a_group(self, sender: Any, event: Any) -> None:
        self.entered.set()
        async with anyio.create_task_group() as group:
            group.start_soon(self.released.wait)

    async def passes_on(self, sender: Any, event: Any) -> None:
        self.entered.set()
        await self.released.wait()

    async def cleans_up_in_a_shield(self, sender: Any, event: Any) -> None:
        self.entered.set()
        try:
            await self.released.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await suspending()
            self.ended.append("cleaned up")

    async def times_out_around_it(self, sender: Any, event: Any) -> None:
        self.entered.set()
        with anyio.move_on_after(30):
            await self.released.wait()

    async def keeps_awaiting(self, sender: Any, event: Any) -> None:
        self.entered.set()
        with contextlib.suppress(BaseException):
            await self.released.wait()
        await self.released.wait()
        self.ended.append("finished")

    async def keeps_awaiting_in_a_shield(self, sender: Any, event: Any) -> None:
        self.entered.set()
        with anyio.CancelScope(shield=True):
            await self.released.wait()
        self.ended.append("finished")


QUICK = ("swallows", "raises", "raises_in_a_group", "passes_on", "cleans_up_in_a_shield", "times_out_around_it")
SLOW = ("keeps_awaiting", "keeps_awaiting_in_a_shield")


async def by_asyncio_timeout(app: Any, stage: Stage) -> bool:
    try:
        async with asyncio.timeout(0.05):
            await app()
    except TimeoutError:
        return True
    return False


async def by_wait_for(app: Any, stage: Stage) -> bool:
    try:
        await asyncio.wait_for(app(), 0.05)
    except TimeoutError:
        return True
    return False


async def by_fail_after(app: Any, stage: Stage) -> bool:
    try:
        with anyio.fail_after(0.05):
            await app()
    except TimeoutError:
        return True
    return False


async def by_move_on_after(app: Any, stage: Stage) -> bool:
    with anyio.move_on_after(0.05) as scope:
        await app()
    return scope.cancelled_caught


async def by_asyncio_task_group(app: Any, stage: Stage) -> bool:
    async def fail() -> None:
        await stage.entered.wait()
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(app())
            group.create_task(fail())
    except* ZeroDivisionError:
        pass
    return task.cancelled()


async def by_anyio_task_group(app: Any, stage: Stage) -> bool:
    ends: list[BaseException] = []

    async def run() -> None:
        try:
            await app()
        except BaseException as error:
            ends.append(error)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await stage.entered.wait()
        group.cancel_scope.cancel()
    return [type(error) for error in ends] == [anyio.get_cancelled_exc_class()]


async def by_task_cancel(app: Any, stage: Stage) -> bool:
    task = asyncio.ensure_future(app())
    await stage.entered.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def by_cancelling_twice(app: Any, stage: Stage) -> bool:
    task = asyncio.ensure_future(app())
    await stage.entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


ON_BOTH = [by_fail_after, by_move_on_after, by_anyio_task_group]
ON_ASYNCIO = [by_asyncio_timeout, by_wait_for, by_asyncio_task_group, by_task_cancel, by_cancelling_twice]
WAYS = [("asyncio", way) for way in (*ON_BOTH, *ON_ASYNCIO)] + [("trio", way) for way in ON_BOTH]
every_way = pytest.mark.parametrize(("backend", "cancelled"), WAYS, ids=lambda value: getattr(value, "__name__", value))


def cancel_during(backend: str, cancelled: Any, manner: str, hook: str = "chain_start") -> dict[str, Any]:
    """Cancel a traced function while a subscriber waits in its manner; return what came of it."""
    said: dict[str, Any] = {"statuses": []}

    async def main() -> None:
        stage = Stage()
        subscription = subscribe(getattr(stage, manner), hook)
        subscribe(lambda sender, event: said["statuses"].append(event.run.status), "chain_error", "chain_end")

        @traced
        async def app() -> str:
            return "done"

        token = anyio.lowlevel.current_token()

        def release() -> None:
            said["held_up"] = True
            anyio.from_thread.run_sync(stage.released.set, token=token)

        safety = threading.Timer(3, release)
        safety.start()
        said["cancelled"] = await cancelled(app, stage)
        said["current"] = current_run()
        safety.cancel()
        if cancelled in (by_asyncio_timeout, by_fail_after, by_move_on_after):  # those that cancel this very task
            task = asyncio.current_task() if backend == "asyncio" else None
            said["cancelling"] = 0 if task is None else task.cancelling()
        await anyio.sleep(0)  # the app goes on
        stage.released.set()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        said["ended"], said["stats"] = stage.ended, subscription.stats

    anyio.run(main, backend=backend)
    return said


@every_way
@pytest.mark.parametrize("manner", QUICK)
def test_the_app_sees_its_cancellation_whatever_a_waiting_subscriber_does(backend: str, cancelled: Any, manner: str) -> None:
    said = cancel_during(backend, cancelled, manner)
    assert (said["cancelled"], said["statuses"]) == (True, ["cancelled"])
    assert (said["current"], said.get("cancelling", 0), said.get("held_up")) == (None, 0, None)


@every_way
@pytest.mark.parametrize("manner", SLOW)
def test_a_subscriber_that_keeps_awaiting_does_not_hold_up_a_cancelled_app(backend: str, cancelled: Any, manner: str) -> None:
    said = cancel_during(backend, cancelled, manner)
    assert (said["cancelled"], said["statuses"], said.get("held_up")) == (True, ["cancelled"], None)


def test_a_subscriber_that_keeps_awaiting_finishes_in_a_task_of_its_own() -> None:
    said = cancel_during("asyncio", by_task_cancel, "keeps_awaiting")
    assert said["ended"] == ["finished"]


@pytest.mark.parametrize(
    ("backend", "cancelled"), [("asyncio", by_fail_after), ("asyncio", by_task_cancel), ("trio", by_fail_after)]
)
def test_a_subscriber_that_was_cancelled_with_the_app_has_not_failed(backend: str, cancelled: Any) -> None:
    counts = cancel_during(backend, cancelled, "passes_on")["stats"]
    assert (counts.matched, counts.failed) == (1, 0)


@pytest.mark.parametrize("manner", QUICK)
def test_what_a_subscriber_does_with_a_cancellation_is_counted_once(manner: str) -> None:
    counts = cancel_during("asyncio", by_task_cancel, manner)["stats"]
    assert counts.matched == 1


def test_a_failure_of_a_subscriber_that_was_left_alone_is_counted_and_announced() -> None:
    async def main() -> Any:
        entered, release = anyio.Event(), anyio.Event()
        announced: list[Any] = []

        async def subscriber(sender: Any, event: Any) -> None:
            entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
            await release.wait()
            raise Broken

        subscription = subscribe(subscriber, "text")
        subscriber_failed.connect(lambda sender, event: announced.append(type(event.error)))
        task = asyncio.ensure_future(aemit(text, text="a"))
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
        release.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return announced, subscription.stats.failed, subscription.stats.delivered

    assert asyncio.run(main()) == ([Broken], 1, 0)


@pytest.mark.alone
@pytest.mark.parametrize("cancelled", [by_asyncio_timeout, by_wait_for, by_fail_after, by_move_on_after])
@pytest.mark.parametrize("manner", ["swallows", "keeps_awaiting"])
def test_a_timeout_of_50_ms_fires_within_150_ms(cancelled: Any, manner: str) -> None:
    async def main() -> float:
        stage = Stage()
        subscribe(getattr(stage, manner), "chain_start")

        @traced
        async def app() -> None:
            await anyio.sleep(10)

        started = time.perf_counter()
        await cancelled(app, stage)
        took = time.perf_counter() - started
        stage.released.set()
        return took

    assert asyncio.run(main()) < 0.15


async def test_others_are_heard_out_when_the_app_is_cancelled() -> None:
    heard: list[str] = []
    first, second = anyio.Event(), anyio.Event()

    async def waits(sender: Any, event: Any) -> None:
        first.set()
        await anyio.sleep_forever()

    async def goes_on(sender: Any, event: Any) -> None:
        await second.wait()
        heard.append("heard")

    text.connect(waits)
    text.connect(goes_on)
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(aemit, text, text="a"))
        await first.wait()
        group.cancel_scope.cancel()
    second.set()
    await suspending()
    assert heard == ["heard"]


# A subscriber's own time-outs, while the app is fine.


async def asyncio_timeout_inside(stage: Stage, cleanup: Any) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            try:
                await stage.released.wait()
            finally:
                await cleanup()


async def wait_for_inside(stage: Stage, cleanup: Any) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stage.released.wait(), 0.01)
    await cleanup()


async def fail_after_inside(stage: Stage, cleanup: Any) -> None:
    with contextlib.suppress(TimeoutError), anyio.fail_after(0.01):
        try:
            await stage.released.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await cleanup()


async def task_group_inside(stage: Stage, cleanup: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(stage.released.wait)
        try:
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
            await stage.released.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await cleanup()


async def no_cleanup() -> None: ...


async def short_cleanup() -> None:
    await suspending()


async def cleanup_of_200_ms() -> None:
    await anyio.sleep(0.2)


@pytest.mark.parametrize(
    ("backend", "inside"),
    [
        ("asyncio", asyncio_timeout_inside),
        ("asyncio", wait_for_inside),
        ("asyncio", fail_after_inside),
        ("asyncio", task_group_inside),
        ("trio", fail_after_inside),
        ("trio", task_group_inside),
    ],
)
@pytest.mark.parametrize("cleanup", [no_cleanup, short_cleanup, cleanup_of_200_ms])
def test_a_subscribers_own_timeout_does_not_cancel_the_app(backend: str, inside: Any, cleanup: Any) -> None:
    async def main() -> Any:
        stage = Stage()
        ended: list[str] = []

        async def subscriber(sender: Any, event: Any) -> None:
            await inside(stage, cleanup)
            ended.append(event.signal_name)

        subscription = subscribe(subscriber, "chain_start")

        @traced
        async def app() -> str:
            await suspending()
            return "done"

        with anyio.fail_after(10):
            result = await app()
            await anyio.sleep(0.01)
            await suspending()
        return result, ended, subscription.stats.delivered

    assert anyio.run(main, backend=backend) == ("done", ["chain_start"], 1)


async def test_an_apps_scope_still_works_after_a_subscriber_timed_out_inside_it() -> None:
    async def subscriber(sender: Any, event: Any) -> None:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()

    subscribe(subscriber, "chain_start")

    @traced
    async def app() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.1) as scope:
        await app()
    assert scope.cancelled_caught


# The last event of a cancelled run.


@every_way
def test_the_terminal_event_of_a_cancelled_run_is_heard_before_the_cancellation_goes_on(backend: str, cancelled: Any) -> None:
    async def main() -> Any:
        order: list[str] = []
        stage = Stage()

        async def subscriber(sender: Any, event: Any) -> None:
            await suspending()
            order.append(event.run.status)

        chain_error.connect(subscriber)

        @traced
        async def inner() -> None:
            stage.entered.set()
            await anyio.sleep_forever()

        async def app() -> None:
            try:
                await inner()
            except BaseException:
                order.append("the app sees it")
                raise

        return await cancelled(app, stage), order

    was_cancelled, order = anyio.run(main, backend=backend)
    assert was_cancelled
    if cancelled is not by_cancelling_twice:  # the second one is not waited out
        assert order == ["cancelled", "the app sees it"]


@every_way
def test_the_very_cancellation_is_raised_again(backend: str, cancelled: Any) -> None:
    async def main() -> Any:
        stage = Stage()
        seen: list[BaseException] = []

        async def subscriber(sender: Any, event: Any) -> None:
            await suspending()

        chain_error.connect(subscriber)

        @traced
        async def inner() -> None:
            stage.entered.set()
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                seen.append(error)
                raise

        async def app() -> None:
            try:
                await inner()
            except BaseException as error:
                seen.append(error)
                raise

        return await cancelled(app, stage), seen

    was_cancelled, (raised, arrived) = anyio.run(main, backend=backend)
    assert was_cancelled
    if cancelled is not by_cancelling_twice:  # the second one is another
        assert arrived is raised


@pytest.mark.alone
async def test_the_terminal_event_of_a_cancelled_run_waits_for_a_second_at_most() -> None:
    never = anyio.Event()
    entered = anyio.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        entered.set()
        await never.wait()

    subscription = subscribe(subscriber, "chain_error")

    @traced
    async def app() -> None:
        await anyio.sleep_forever()

    started = time.perf_counter()
    with anyio.move_on_after(0.05) as scope:
        await app()
    assert time.perf_counter() - started < 2
    assert scope.cancelled_caught
    assert entered.is_set()
    assert subscription.stats.pending == 1  # it goes on without the app
    never.set()


def test_what_a_subscriber_of_a_cancellation_says_and_fails_on_does_not_reach_the_app() -> None:
    async def main() -> Any:
        entered = anyio.Event()

        async def subscriber(sender: Any, event: Any) -> None:
            await suspending()
            if event.signal_name == "text":
                raise SystemExit(3)
            await aemit(text, text="to myself")
            await suspending()

        subscription = subscribe(subscriber, "chain_error", "text")

        @traced
        async def app() -> None:
            entered.set()
            await anyio.sleep_forever()

        task = asyncio.ensure_future(app())
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), subscription.stats.failed

    assert asyncio.run(main()) == (True, 1)


def test_a_task_that_swallowed_a_cancellation_once_is_still_isolated() -> None:
    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        if event.text == "to myself":
            raise Broken
        await aemit(text, text="to myself")

    async def main() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        subscribe(subscriber, "text")
        await aemit(text, text="a")
        return "done"

    assert asyncio.run(main()) == "done"


# -- subscribers that emit (demand 7) ----------------------------------------------------------------------------------


def test_an_event_that_a_subscriber_says_to_itself_waits_until_its_call_returns() -> None:
    order: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        order.append(f"begin {event.text}")
        if event.text == "a":
            emit(text, text="b")
        order.append(f"end {event.text}")

    subscribe(subscriber, "text")
    emit(text, text="a")
    assert order == ["begin a", "end a", "begin b", "end b"]


async def test_an_event_that_an_async_subscriber_says_to_itself_waits_until_its_call_returns() -> None:
    order: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        order.append(f"begin {event.text}")
        await suspending()
        if event.text == "a":
            await aemit(text, text="b")
            emit(text, text="c")
        order.append(f"end {event.text}")

    subscribe(subscriber, "text")
    await aemit(text, text="a")
    assert order == ["begin a", "end a", "begin b", "end b", "begin c", "end c"]


@traced(kind="llm")
def three_words() -> Iterator[str]:
    yield from ("a", "b", "c")


HEARD_OF_TWO_WORDS = ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


async def test_what_ends_while_its_queue_is_being_heard_is_heard_behind_what_came_before() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        if not heard:
            words.close()  # the collector may do that anywhere
        heard.append(event.signal_name)

    subscribe(subscriber, "llm_*")
    words = three_words()
    next(words), next(words)
    assert await aflush()
    assert heard == HEARD_OF_TWO_WORDS


async def test_what_ends_while_an_awaited_event_is_being_heard_is_heard_behind_what_came_before() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        if event.signal_name == "text":
            next(words), next(words)
            words.close()
        else:
            heard.append(event.signal_name)

    subscribe(subscriber, "llm_*", "text")
    words = three_words()
    await aemit(text, text="a")
    assert await aflush()
    assert heard == HEARD_OF_TWO_WORDS


async def test_what_an_awaited_subscriber_says_to_itself_is_heard_behind_what_waits_for_it() -> None:
    heard: list[str] = []
    lock = anyio.Lock()

    def emit_twice() -> None:
        emit(text, text="from a thread, first")
        emit(text, text="from a thread, second")

    async def subscriber(sender: Any, event: Any) -> None:
        async with lock:
            if event.text == "a":
                thread = threading.Thread(target=emit_twice)
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
                emit(text, text="to itself")
            heard.append(event.text)

    subscribe(subscriber, "text")
    await aemit(text, text="a")
    assert await aflush()
    assert heard == ["a", "from a thread, first", "from a thread, second", "to itself"]


@pytest.mark.parametrize("delivery", ["inline", "thread", "background"])
def test_what_a_sync_subscriber_ends_is_heard_in_the_run_that_ended(delivery: Any) -> None:
    heard: list[tuple[str, bool]] = []

    def subscriber(sender: Any, event: Any) -> None:
        if event.signal_name == "chain_start":
            words.close()
        heard.append((event.signal_name, current_run() is event.run))

    subscribe(subscriber, "llm_end", "chain_*", delivery=delivery)
    words = three_words()
    next(words)
    with trace("another"):
        assert flush()
    assert flush()
    assert sorted(heard) == [("chain_end", True), ("chain_start", True), ("llm_end", True)]


async def test_what_an_async_subscriber_ends_is_heard_in_the_run_that_ended() -> None:
    heard: list[tuple[str, bool]] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await suspending()
        if event.signal_name == "chain_start":
            (queued if event.run.name == "queued" else awaited).close()
        heard.append((event.signal_name, current_run() is event.run))

    subscribe(subscriber, "llm_end", "chain_start")
    queued, awaited = three_words(), three_words()
    next(queued), next(awaited)
    with trace("queued"):
        assert await aflush()
    async with trace("awaited"):
        assert await aflush()
    assert heard == [("chain_start", True), ("llm_end", True)] * 2


async def test_async_subscribers_that_answer_each_other_out_of_their_queues_do_not_wait_for_each_other() -> None:
    heard: list[str] = []

    def answering(answer: str) -> Callable[..., Any]:
        async def subscriber(sender: Any, event: Any) -> None:
            await suspending()
            if event.text == "question":
                await aemit(text, text=answer)
            heard.append(event.text)

        return subscriber

    subscribe(answering("first"), "text")
    subscribe(answering("second"), "text")
    emit(text, text="question")
    assert await aflush()
    assert Counter(heard) == {"question": 2, "first": 2, "second": 2}


async def test_a_subscriber_that_traces_in_a_worker_thread_does_not_wait_there_for_itself() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        if event.signal_name == "text":
            await anyio.to_thread.run_sync(list, three_words())
        heard.append(event.signal_name)

    subscribe(subscriber, "text", "llm_start", "llm_end")
    emit(text, text="a")
    assert await aflush(4)  # to wait for a queue takes five seconds
    assert heard == ["text", "llm_start", "llm_end"]


def test_two_subscribers_that_answer_each_other_do_not_recurse() -> None:
    depth: list[int] = []
    inside = 0

    def answering(limit: int) -> Callable[..., None]:
        def subscriber(sender: Any, event: Any) -> None:
            nonlocal inside
            inside += 1
            depth.append(inside)
            if int(event.text) < limit:
                emit(text, text=str(int(event.text) + 1))
            inside -= 1

        return subscriber

    subscribe(answering(5), "text")
    subscribe(answering(5), "text")
    emit(text, text="1")
    assert max(depth) <= 2


TEN_THOUSAND = 10_000


def chain_of(count: int, heard: list[int]) -> Callable[..., None]:
    def subscriber(sender: Any, event: Any) -> None:
        heard.append(int(event.text))
        if event.text != str(count - 1):
            emit(text, text=str(int(event.text) + 1))

    return subscriber


def test_ten_thousand_events_that_each_say_the_next_do_not_recurse() -> None:
    heard: list[int] = []
    subscribe(chain_of(TEN_THOUSAND, heard), "text")
    emit(text, text="0")
    assert heard == list(range(TEN_THOUSAND))


def test_ten_thousand_events_said_in_one_call_are_all_heard_in_order() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "go":
            for number in range(TEN_THOUSAND):
                emit(text, text=str(number))

    subscribe(subscriber, "text")
    emit(text, text="go")
    assert heard == ["go", *map(str, range(TEN_THOUSAND))]


@pytest.mark.parametrize("suspends", [False, True])
async def test_ten_thousand_events_that_an_async_subscriber_says_do_not_recurse(suspends: bool) -> None:
    heard: list[int] = []

    async def subscriber(sender: Any, event: Any) -> None:
        number = int(event.text)
        heard.append(number)
        if suspends:
            await anyio.lowlevel.checkpoint()
        if number < TEN_THOUSAND - 1:
            await aemit(text, text=str(number + 1))

    subscribe(subscriber, "text")
    await aemit(text, text="0")
    while len(heard) < TEN_THOUSAND:
        assert await aflush(20)
    assert heard == list(range(TEN_THOUSAND))


@pytest.mark.parametrize("delivery", ["thread", "background"])
async def test_ten_thousand_events_that_a_subscriber_says_in_a_thread_do_not_recurse(delivery: Any) -> None:
    heard: list[int] = []
    with subscribe(chain_of(TEN_THOUSAND, heard), "text", delivery=delivery):
        await aemit(text, text="0")
        assert await aflush(20)
    assert heard == list(range(TEN_THOUSAND))


def test_ten_thousand_events_that_a_queued_subscriber_says_do_not_recurse() -> None:
    heard: list[int] = []

    async def subscriber(sender: Any, event: Any) -> None:
        chain_of(TEN_THOUSAND, heard)(sender, event)

    subscribe(subscriber, "text")
    emit(text, text="0")
    assert flush(20)
    assert heard == list(range(TEN_THOUSAND))


def test_a_subscriber_that_logs_into_the_bus_does_not_recurse() -> None:
    heard: list[str] = []

    class IntoTheBus(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit(custom_event, name=record.getMessage())

    logger = logging.getLogger("test of tracebus")
    handler = IntoTheBus()
    logger.addHandler(handler)
    logger.propagate = False

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.name)
        if len(heard) < TEN_THOUSAND:
            logger.warning("heard %s", len(heard))

    subscribe(subscriber, "custom_event")
    emit(custom_event, name="first")
    logger.removeHandler(handler)
    assert len(heard) == TEN_THOUSAND


def test_a_run_that_a_subscriber_starts_is_heard_by_it_in_order() -> None:
    heard: list[Any] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append((event.signal_name, event.run.name))
        if event.run.name == "app" and event.signal_name == "chain_start":
            with trace("of the subscriber"):
                pass

    subscribe(subscriber, "chain_*")
    with trace("app"):
        pass
    assert heard == [
        ("chain_start", "app"),
        ("chain_start", "of the subscriber"),
        ("chain_end", "of the subscriber"),
        ("chain_end", "app"),
    ]


def test_a_failure_on_what_a_subscriber_said_to_itself_stays_there() -> None:
    def subscriber(sender: Any, event: Any) -> None:
        if event.text == "b":
            raise Broken
        emit(text, text="b")

    subscription = subscribe(subscriber, "text")
    emit(text, text="a")
    assert (subscription.stats.delivered, subscription.stats.failed) == (1, 1)


async def test_a_task_spawned_by_a_subscriber_may_emit_after_its_call_returned() -> None:
    heard: list[str] = []
    returned = anyio.Event()

    async def later() -> None:
        await returned.wait()
        await aemit(text, text="later")

    async with anyio.create_task_group() as group:

        async def subscriber(sender: Any, event: Any) -> None:
            heard.append(event.text)
            if event.text == "a":
                group.start_soon(later)

        subscribe(subscriber, "text")
        await aemit(text, text="a")
        returned.set()
    assert heard == ["a", "later"]


async def test_a_task_spawned_by_a_subscriber_may_emit_while_it_still_waits() -> None:
    heard: list[str] = []
    said = anyio.Event()

    async def meanwhile() -> None:
        await aemit(text, text="meanwhile")
        said.set()

    async with anyio.create_task_group() as group:

        async def subscriber(sender: Any, event: Any) -> None:
            if event.text == "a":
                group.start_soon(meanwhile)
                await said.wait()
            heard.append(event.text)

        subscribe(subscriber, "text")
        with anyio.fail_after(5):
            await aemit(text, text="a")
    assert heard == ["a", "meanwhile"]


def test_a_thread_started_by_a_subscriber_may_emit_after_its_call_returned() -> None:
    heard: list[str] = []
    returned = threading.Event()
    threads: list[threading.Thread] = []

    def later() -> None:
        returned.wait()
        emit(text, text="later")

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "a":
            threads.append(threading.Thread(target=later))
            threads[0].start()

    subscribe(subscriber, "text")
    emit(text, text="a")
    returned.set()
    threads[0].join()
    assert heard == ["a", "later"]


async def test_an_async_subscriber_hears_another_tasks_event_while_it_waits_for_it() -> None:
    heard: list[str] = []
    other = anyio.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "a":
            await other.wait()
        else:
            other.set()

    subscribe(subscriber, "text")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(aemit, text, text="a"))
            await suspending()
            group.start_soon(functools.partial(aemit, text, text="b"))
    assert heard == ["a", "b"]


async def test_a_subscriber_that_was_run_beside_another_is_not_inside_its_call() -> None:
    heard: list[str] = []
    heard_b = anyio.Event()

    async def first(sender: Any, event: Any) -> None:
        if event.signal_name == "custom_event":
            heard_b.set()
            return
        await heard_b.wait()
        heard.append("first")

    async def second(sender: Any, event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        await aemit(custom_event, name="from the second")
        heard.append("second")

    subscribe(first, "text", "custom_event")
    subscribe(second, "text")
    with anyio.fail_after(5):
        await aemit(text, text="a")
    assert sorted(heard) == ["first", "second"]


# -- order -------------------------------------------------------------------------------------------------------------


async def test_an_awaited_event_goes_behind_what_its_subscriber_still_has_to_hear() -> None:
    heard: list[str] = []
    text.connect(functools.partial(hear_after_a_while, heard))
    for words in "abc":
        emit(text, text=words)
    await aemit(text, text="d")
    assert heard == list("abcd")


async def test_awaited_events_of_several_subscribers_go_behind_what_they_still_have_to_hear() -> None:
    first: list[str] = []
    second: list[str] = []
    for heard in (first, second):
        text.connect(functools.partial(hear_after_a_while, heard))
    for words in "abc":
        emit(text, text=words)
    await aemit(text, text="d")
    assert (first, second) == (list("abcd"), list("abcd"))


async def test_a_stream_said_from_sync_and_async_code_arrives_in_order() -> None:
    first: list[str] = []
    second: list[str] = []
    for heard in (first, second):
        text.connect(functools.partial(hear_after_a_while, heard))
    for number in range(100):
        if number % 3:
            emit(text, text=str(number))
        else:
            await aemit(text, text=str(number))
    await aflush()
    assert (first, second) == (list(map(str, range(100))), list(map(str, range(100))))


def test_an_abandoned_emission_leaves_nothing_unawaited() -> None:
    async def subscriber(sender: Any, event: Any) -> None:
        await asyncio.sleep(10)

    async def main() -> None:
        subscribe(subscriber, "text")
        pending = aemit(text, text="a")
        pending.send(None)  # type: ignore[attr-defined]
        pending.close()  # type: ignore[attr-defined]
        assert current_run() is None

    asyncio.run(main())
    gc.collect()


def test_starting_and_ending_are_heard_by_a_subscriber_of_both() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.signal_name)

    for hook in (chain_start, chain_end):
        hook.connect(subscriber)
    with trace("a"):
        pass
    assert heard == ["chain_start", "chain_end"]
