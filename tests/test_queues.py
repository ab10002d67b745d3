"""What may wait for one subscriber: the bounds of its queue, in events and in bytes, and what gives way."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from gates import Gate

from tracebus import aflush, custom_event, emit, flush, subscribe, text, trace
from tracebus.errors import ArgumentError

KIB = 1024


pytestmark = pytest.mark.usefixtures("nobody_else_listens")


def stuck(gate: Gate, *hooks: Any, **options: Any) -> Any:
    """Subscribe a gate in the background and let it hang on a first event."""
    subscription = subscribe(gate, *hooks, "custom_event", delivery="background", **options)
    emit(custom_event, name="first")
    assert gate.entered.wait(5)
    return subscription


def words_heard(gate: Gate) -> list[str]:
    gate.opened.set()
    flush()
    return [event.text[:1] for event in gate.heard[1:]]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many", None])
@pytest.mark.parametrize(("option", "unit"), [("queue_size", "events"), ("queue_bytes", "bytes")])
def test_a_bound_that_is_none_is_refused(option: str, unit: str, wrong: Any) -> None:
    options: Any = {option: wrong}
    with pytest.raises(ArgumentError, match=f"{option} must be a whole number of {unit}, at least 1, not {wrong!r}"):
        subscribe(lambda sender, event: None, delivery="background", **options)


def test_an_unknown_overflow_policy_names_the_choices() -> None:
    wrong: Any = "drop"
    with pytest.raises(ArgumentError, match="choose one of drop_oldest, drop_newest, block"):
        subscribe(lambda sender, event: None, overflow=wrong)


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", "6789"), ("drop_newest", "0123")])
def test_a_queue_that_is_full_in_bytes_drops_by_its_policy(gate: Gate, overflow: Any, kept: str) -> None:
    subscription = stuck(gate, "text", queue_bytes=4 * KIB, overflow=overflow)
    for number in range(10):
        emit(text, text=str(number) * KIB)
    assert subscription.stats.dropped == {"queue_full": 6}
    assert words_heard(gate) == list(kept)


def test_a_large_event_takes_the_place_of_several_small_ones(gate: Gate) -> None:
    stuck(gate, "text", queue_bytes=4 * KIB)
    for words in ("a" * KIB, "b" * KIB, "c" * KIB, "d" * 3 * KIB):
        emit(text, text=words)
    assert words_heard(gate) == ["c", "d"]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_an_event_larger_than_the_queue_may_wait_alone(gate: Gate, overflow: Any) -> None:
    stuck(gate, "text", queue_bytes=10, overflow=overflow)
    emit(text, text="a" * KIB)
    assert words_heard(gate) == ["a"]


def test_what_has_been_taken_out_makes_room(gate: Gate) -> None:
    subscription = stuck(gate, "text", queue_bytes=2 * KIB)
    gate.opened.set()
    for _ in range(20):
        emit(text, text="a" * 2 * KIB)
        assert flush()
    assert (subscription.stats.delivered, subscription.stats.dropped) == (21, {})


def test_block_waits_for_bytes_too(gate: Gate) -> None:
    subscription = stuck(gate, "text", queue_bytes=2 * KIB, overflow="block")
    emit(text, text="a" * 2 * KIB)
    emitter = threading.Thread(target=functools.partial(emit, text, text="b" * 2 * KIB))
    emitter.start()
    emitter.join(0.2)
    waited = emitter.is_alive()
    gate.opened.set()
    emitter.join(5)
    assert flush()
    assert (waited, words_heard(gate), subscription.stats.dropped) == (True, ["a", "b"], {})


def test_what_a_run_brings_is_counted_once_in_each_queue(gate: Gate) -> None:
    gates = [gate, Gate()]
    subscriptions = [stuck(one, "chain_start", "text", queue_bytes=20 * KIB) for one in gates]
    with trace("run", inputs="x" * 8 * KIB):
        for _ in range(100):
            emit(text, text="said")
    full = [one.stats.dropped for one in subscriptions]
    for _ in range(3):
        with trace("another", inputs="x" * 8 * KIB):
            pass
    for one in gates:
        one.opened.set()
    assert full == [{}, {}]
    assert all(one.stats.dropped for one in subscriptions)


def test_what_a_run_brings_is_counted_once_though_something_is_set_on_it_at_each_event(gate: Gate) -> None:
    subscription = stuck(gate, "chain_start", "text", queue_bytes=20 * KIB)
    with trace("run", inputs="x" * 8 * KIB) as run:
        for number in range(100):
            run.metadata["number"] = number
            emit(text, text="said")
    assert subscription.stats.dropped == {}
    gate.opened.set()
    flush()
    assert [event.run.metadata for event in gate.heard[2:]] == [{"number": number} for number in range(100)]


def test_nested_values_count(gate: Gate) -> None:
    subscription = stuck(gate, queue_bytes=8 * KIB)
    for _ in range(5):
        emit(custom_event, name="data", data={"messages": [{"content": "x" * 2 * KIB}] * 2})
    assert subscription.stats.dropped == {"queue_full": 4}


async def test_what_an_async_subscriber_still_has_to_hear_is_bounded_in_bytes_too() -> None:
    released = anyio.Event()
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        await released.wait()
        heard.append(event.text[:1])

    subscribe(subscriber, "text", queue_bytes=3 * KIB)
    for words in "abcdefgh":
        emit(text, text=words * KIB)
        await anyio.sleep(0)
    released.set()
    await aflush()
    assert heard[-3:] == list("fgh")
    assert len(heard) < 6


def test_flush_does_not_take_the_place_of_an_event(gate: Gate) -> None:
    subscription = stuck(gate, "text", queue_size=1, overflow="drop_newest")
    flush(0.01)  # leaves a mark behind what is being heard
    emit(text, text="a")
    assert subscription.stats.dropped == {}


def test_a_dropped_event_does_not_take_a_waiting_flush_with_it(gate: Gate) -> None:
    stuck(gate, "text", queue_size=1)
    emit(text, text="a")
    reached = threading.Event()
    lane = subscribe_lane(gate)
    lane.mark(reached.set)
    emit(text, text="b")
    assert not reached.is_set()
    assert words_heard(gate) == ["b"]
    assert reached.wait(5)


def subscribe_lane(gate: Gate) -> Any:
    (connection,) = [one for one in text._connections if one.receiver is gate]
    return connection.subscription.lane


def test_emitters_that_wait_for_room_in_many_threads_lose_nothing() -> None:
    heard: list[str] = []
    options: Any = {"delivery": "background", "queue_bytes": 64, "overflow": "block"}
    subscription = subscribe(lambda sender, event: heard.append(event.text), "text", **options)
    words = ["a" * size for size in (1, 60, 7, 33, 64)]
    threads = [threading.Thread(target=lambda: [emit(text, text=one) for one in words * 40]) for _ in range(4)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush()
    assert (sorted(heard), subscription.stats.dropped) == (sorted(words * 160), {})
    assert time.perf_counter() - started < 4.5  # a lost wake-up costs five seconds


# -- what is said about drops ------------------------------------------------------------------------------------------


def test_drops_are_warned_about_once_a_minute_with_the_name_and_the_reason(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = stuck(gate, "text", queue_size=1)
    for _ in range(100):
        emit(text, text="a")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tracebus", "WARNING")
    assert subscription.name in record.message
    assert "(queue_full)" in record.message


def test_a_log_handler_that_emits_does_not_recurse_on_a_full_queue(gate: Gate) -> None:
    class IntoTheBus(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit(custom_event, name=record.getMessage())

    handler = IntoTheBus()
    logging.getLogger("tracebus").addHandler(handler)
    try:
        subscription = stuck(gate, queue_size=1)
        for _ in range(10):
            emit(custom_event, name="more")
    finally:
        logging.getLogger("tracebus").removeHandler(handler)
    assert subscription.stats.matched == 12  # the one warning, too


# -- memory (demand 16) ------------------------------------------------------------------------------------------------

STUCK = """
import logging, os, pathlib, sys, threading
from tracebus import emit, stats, subscribe, text

class Counter(logging.Handler):
    warnings = 0
    def emit(self, record):
        Counter.warnings += 1
logging.getLogger("tracebus").addHandler(Counter())

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

subscription = subscribe(lambda sender, event: threading.Event().wait(), "text", delivery="background")
emit(text, text="first")
before = resident()
for number in range({count}):
    emit(text, text=f"{{number:010d}}" * 1024)
print(resident() - before, Counter.warnings, subscription.stats.matched, subscription.stats.pending)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this platform does not say how large a process is")
@pytest.mark.parametrize("count", [30_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_a_stuck_background_subscriber_costs_at_most_64_mib_and_one_warning(
    run_python: Callable[..., Any], count: int
) -> None:
    started = time.monotonic()
    grown, warnings, matched, pending = map(int, run_python("-c", STUCK.format(count=count), timeout_s=500).stdout.split())
    assert grown < 64 * 2**20
    assert 1 <= warnings <= 1 + (time.monotonic() - started) // 60
    assert matched == count + 1
    assert pending > 1000
