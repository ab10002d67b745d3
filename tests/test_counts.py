"""What became of every event, in numbers: that they are true, that they add up, and how they read."""

import asyncio
import functools
import itertools
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from tracebus import aemit, aflush, emit, flush, stats, subscribe, text, trace
from tracebus.counts import Tally, Throttle, Timing
from tracebus.subscriptions import Subscription

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def full(count: int, seconds: int = 300) -> Any:
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(seconds)])


class Faulty(Exception):
    """What subscribers raise here."""


def failing() -> Callable[..., None]:
    """Return a subscriber that raises on one event in seven."""
    calls = itertools.count()

    def hear(sender: Any, event: Any) -> None:
        if next(calls) % 7 == 0:
            raise Faulty

    return hear


def failing_async(suspends: bool = True) -> Callable[..., Awaitable[None]]:
    hear = failing()

    async def hear_async(sender: Any, event: Any) -> None:
        if suspends:
            await anyio.lowlevel.checkpoint()
        hear(sender, event)

    async def hear_briefly(sender: Any, event: Any) -> None:
        hear(sender, event)

    return hear_async if suspends else hear_briefly


def a_subscriber_of_each_kind() -> list[Any]:
    background: Any = functools.partial(subscribe, delivery="background")
    return [
        subscribe(failing(), "text"),
        subscribe(failing(), "text", delivery="thread"),
        subscribe(failing_async(), "text", queue_size=50),
        subscribe(failing_async(suspends=False), "text", queue_size=50),
        background(failing(), "text", queue_size=50),
        background(failing(), "text", queue_size=50, overflow="drop_newest"),
        background(failing(), "text", queue_bytes=50),
        background(failing(), "text", queue_size=50, overflow="block"),
        background(failing_async(), "text", queue_size=50),
    ]


def check(subscriptions: list[Any], emitted: int) -> None:
    """Hold the counts against what was really emitted, once nothing is pending."""
    for subscription in subscriptions:
        counts = subscription.stats
        assert counts.pending == 0, counts
        assert counts.matched == emitted, counts
        assert counts.delivered + counts.failed + sum(counts.dropped.values()) == emitted, counts
        assert counts.failed > 0, counts


# -- that they are true (demand 11) ------------------------------------------------------------------------------------


def in_threads(work: Callable[[], None], count: int = 8) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("count", [4_000, full(1_000_000, 900)])
def test_the_counts_are_those_of_what_eight_threads_said(count: int) -> None:
    subscriptions = a_subscriber_of_each_kind()
    in_threads(lambda: [emit(text, text="x" * 10) for _ in range(count // 8)])
    while any(one.stats.pending for one in subscriptions):
        flush(30)
    check(subscriptions, count)
    for subscription in subscriptions:
        subscription.close()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("count", [800, full(40_000)])
def test_the_counts_are_those_of_what_many_tasks_said(count: int, backend: str) -> None:
    async def main() -> list[Any]:
        subscriptions = a_subscriber_of_each_kind()

        async def say(task: int) -> None:
            for number in range(count // 20):
                if (task + number) % 3:
                    await aemit(text, text="x" * 10)
                else:
                    emit(text, text="x" * 10)

        async with anyio.create_task_group() as group:
            for task in range(20):
                group.start_soon(say, task)
        while any(one.stats.pending for one in subscriptions):
            await aflush(30)
        return subscriptions

    subscriptions = anyio.run(main, backend=backend)
    check(subscriptions, count)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("rounds", [12, full(600)])
def test_the_counts_are_those_of_what_was_said_on_loops_that_ended_in_every_way(rounds: int) -> None:
    subscriptions = a_subscriber_of_each_kind()
    emitted = itertools.count()

    async def main() -> None:
        for _ in range(10):
            next(emitted)
            emit(text, text="x" * 10)
        tasks = [asyncio.ensure_future(say()) for _ in range(5)]
        await asyncio.wait(tasks[:2])

    async def say() -> None:
        next(emitted)
        await aemit(text, text="x" * 10)

    def closed_without_a_word() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it tells of tasks that were pending
        loop.run_until_complete(main())
        loop.close()

    ways = [lambda: asyncio.run(main()), lambda: anyio.run(main_of_trio, backend="trio"), closed_without_a_word]

    async def main_of_trio() -> None:
        for _ in range(10):
            next(emitted)
            emit(text, text="x" * 10)
        next(emitted)
        await aemit(text, text="x" * 10)

    for number in range(rounds):
        ways[number % 3]()
    flush(30)
    flush(30)
    check(subscriptions, next(emitted))


async def test_the_counts_add_up_when_awaited_events_are_cancelled() -> None:
    async def hangs(sender: Any, event: Any) -> None:
        await anyio.sleep_forever()

    subscriptions = [subscribe(hangs, "text"), subscribe(failing_async(), "text")]
    for _ in range(20):
        with anyio.move_on_after(0.001):
            await aemit(text, text="x")
    await anyio.wait_all_tasks_blocked()  # each hears it in a task of its own, which may begin later than the time is up
    assert [one.stats.matched for one in subscriptions] == [20, 20]
    assert [one.stats.pending for one in subscriptions] == [20, 0]


async def test_an_event_that_is_being_awaited_is_pending() -> None:
    entered, released = anyio.Event(), anyio.Event()

    async def subscriber(sender: Any, event: Any) -> None:
        entered.set()
        await released.wait()

    subscription = subscribe(subscriber, "text")

    async def say() -> None:
        await aemit(text, text="a")

    async with anyio.create_task_group() as group:
        group.start_soon(say)
        await entered.wait()
        during = subscription.stats
        released.set()
    assert (during.matched, during.pending) == (1, 1)


def test_an_event_that_an_inline_subscriber_is_hearing_is_pending() -> None:
    during: list[Any] = []
    subscription = subscribe(lambda sender, event: during.append(subscription.stats), "text")
    emit(text, text="a")
    assert [(one.matched, one.pending) for one in during] == [(1, 1)]
    assert subscription.stats.pending == 0


@pytest.mark.parametrize(
    ("is_awaited", "outcome"),
    [
        pytest.param(True, (4, 0, {"loop_closed": 4}, 0), id="awaited"),
        pytest.param(False, (4, 3, {"loop_closed": 1}, 0), id="queued: what waits goes on elsewhere"),
    ],
)
def test_what_a_subscriber_said_to_itself_on_a_loop_that_ended_is_counted(
    is_awaited: bool, outcome: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        hears = asyncio.Event()

        async def subscriber(sender: Any, event: Any) -> None:
            if event.text == "a":
                for _ in range(3):
                    emit(text, text="to myself")
                hears.set()
                await anyio.sleep_forever()

        subscriptions.append(subscribe(subscriber, "text"))
        if is_awaited:
            tasks.append(asyncio.create_task(aemit_a()))
        else:
            emit(text, text="a")
        await hears.wait()

    async def aemit_a() -> None:
        await aemit(text, text="a")

    subscriptions: list[Subscription] = []
    tasks: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of tasks that did not end
    loop.run_until_complete(main())
    loop.close()
    assert not flush()
    counts = subscriptions[0].stats
    assert (counts.matched, counts.delivered, counts.dropped, counts.pending) == outcome


def test_events_of_other_runs_do_not_match_a_subscription_within_one() -> None:
    with trace("a") as run:
        subscriptions: list[Any] = [
            subscribe(lambda sender, event: None, "text", within=run),
            subscribe(failing_async(suspends=False), "text", within=run),
            subscribe(failing_async(), "text", within=run),
            subscribe(lambda sender, event: None, "text", within=run, delivery="background"),
        ]
        emit(text, text="inside")
        with trace("nested"):
            emit(text, text="inside")
    with trace("b"):
        emit(text, text="outside")
    assert flush()
    assert [one.stats.matched for one in subscriptions] == [2, 2, 2, 2]


async def test_events_of_other_runs_do_not_match_a_subscription_within_one_from_async_code() -> None:
    async with trace("a") as run:
        subscriptions: list[Any] = [
            subscribe(lambda sender, event: None, "text", within=run),
            subscribe(failing_async(suspends=False), "text", within=run),
            subscribe(failing_async(), "text", within=run),
        ]
        await aemit(text, text="inside")
    await aemit(text, text="outside")
    assert [one.stats.matched for one in subscriptions] == [1, 1, 1]


def test_a_subscriber_within_a_run_that_says_something_outside_of_it_does_not_hear_that() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)
        if event.text == "inside":
            with trace("outside") as other:
                other.parent = None
                emit(text, text="outside")

    with trace("a") as run:
        subscribe(subscriber, "text", within=run)
        emit(text, text="inside")
    assert flush()
    assert heard == ["inside"]


def test_a_forked_childs_counts_begin_at_nothing(run_python: Any) -> None:
    code = """
import os, sys
from tracebus import emit, subscribe, text, trace
results = []
def sub(sender, event):
    if event.text != "fork":
        return
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
subscription = subscribe(sub, "text")
emit(text, text="in the parent")
emit(text, text="fork")
stats = subscription.stats
print((stats.matched, stats.delivered, stats.failed, stats.dropped, stats.pending), flush=True)
os._exit(0)
"""
    assert run_python("-c", code).stdout.splitlines() == ["(1, 1, 0, {}, 0)", "(2, 2, 0, {}, 0)"]


# -- times -------------------------------------------------------------------------------------------------------------


def pausing(seconds: float) -> Callable[..., None]:
    def hear(sender: Any, event: Any) -> None:
        time.sleep(seconds)

    return hear


def test_a_background_subscribers_time_is_measured() -> None:
    with subscribe(pausing(0.02), "text", delivery="background") as subscription:
        for _ in range(3):
            emit(text, text="x")
        assert flush()
    counts = subscription.stats
    assert counts.mean_s is not None
    assert counts.max_s is not None
    assert 0.02 <= counts.mean_s <= counts.max_s < 5


@pytest.mark.parametrize("how", ["await", "thread", "queued"])
async def test_the_time_of_a_subscriber_that_is_awaited_or_queued_is_measured(how: str) -> None:
    async def pauses(sender: Any, event: Any) -> None:
        await anyio.sleep(0.02)

    subscription = subscribe(pausing(0.02), "text", delivery="thread") if how == "thread" else subscribe(pauses, "text")
    if how == "queued":
        emit(text, text="x")
        assert await aflush()
    else:
        await aemit(text, text="x")
    assert subscription.stats.max_s is not None
    assert 0.019 <= subscription.stats.max_s < 5  # a loop's clock and that of the times may differ by a tick


async def test_some_calls_of_a_subscriber_that_never_suspends_are_timed() -> None:
    async def brief(sender: Any, event: Any) -> None:
        time.sleep(0.001)

    subscription = subscribe(brief, "text")
    for _ in range(40):
        await aemit(text, text="x")
    assert subscription.stats.mean_s is not None
    assert subscription.stats.mean_s >= 0.001


def test_times_are_none_before_the_first() -> None:
    subscription = subscribe(lambda sender, event: None, "text")
    assert (subscription.stats.mean_s, subscription.stats.max_s) == (None, None)


def test_a_timing_keeps_the_mean_and_the_largest() -> None:
    timing = Timing()
    for took_ns in (1_000, 5_000, 3_000):
        timing.add(took_ns)
    assert (timing.mean_s, timing.max_s) == (3e-6, 5e-6)


# -- how they read -----------------------------------------------------------------------------------------------------


def test_a_subscription_shows_its_counts_and_times() -> None:
    subscription = subscribe(failing(), "text", delivery="background")
    for _ in range(2):
        emit(text, text="x")
    flush()
    subscription.drop("queue_full", 3)
    subscription.timing = Timing()
    subscription.timing.add(1_500_000)
    assert repr(subscription) == (
        f"<Subscription {subscription.name}: 2 matched, 1 delivered, 1 failed, 3 dropped (queue_full), -3 pending, "
        "1.5 ms on average, 1.5 ms at most>"
    )


def test_stats_lists_the_open_subscriptions_with_their_delivery() -> None:
    def hear(sender: Any, event: Any) -> None: ...

    subscription = subscribe(hear, "text", delivery="background")
    closed = subscribe(hear, "chain_end")
    closed.close()
    assert [(one.name, one.delivery) for one in stats() if one.name == subscription.name] == [
        (subscription.name, "background")
    ]


# -- the counter itself ------------------------------------------------------------------------------------------------


def test_a_tally_counts_what_many_threads_add_while_others_read() -> None:
    tally = Tally()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(lambda: [tally.value if number % 3 == 0 else tally.add() for number in range(3_000)])  # type: ignore[func-returns-value]
    finally:
        sys.setswitchinterval(before)
    assert tally.value == 8 * 2_000


def test_a_tally_begins_again() -> None:
    tally = Tally()
    tally.add()
    tally.restart()
    before = tally.value
    tally.add()
    assert (before, tally.value) == (0, 1)


# -- how often it is logged --------------------------------------------------------------------------------------------


def test_a_throttle_lets_each_subject_once() -> None:
    throttle = Throttle()
    assert [throttle.lets(subject) for subject in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_throttle_lets_a_subject_again_when_its_time_is_over() -> None:
    throttle = Throttle(every_s=0)
    assert [throttle.lets("a"), throttle.lets("a")] == [True, True]


def test_a_throttled_warning_is_logged_once_and_as_said_by_who_gives_it(caplog: pytest.LogCaptureFixture) -> None:
    throttle = Throttle()
    for number in (1, 2):
        throttle.warn("numbers", "number %d", number)
    said = [(record.getMessage(), record.name, record.filename) for record in caplog.records]
    assert said == [("number 1", "tracebus", "test_counts.py")]
