"""What may run in the middle of an emission: the collector and signal handlers that emit, and forks (demands 19 and 20)."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no interval timers")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def full(count: int, seconds: int = 300) -> Any:
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(seconds)])


SUBSCRIBERS = """
import asyncio, gc, itertools, os, signal, sys, threading, time
import anyio
from tracebus import aemit, aflush, custom_event, emit, flush, stats, subscribe, text, trace, traced
from tracebus.runs import open_runs

def quick():
    return lambda sender, event: None

def brief():
    async def hear(sender, event): ...
    return hear

def suspending():
    async def hear(sender, event):
        await anyio.sleep(0)
    return hear

subscriptions = [
    subscribe(quick()),
    subscribe(quick(), delivery="background", queue_size=100),
    subscribe(quick(), delivery="background", queue_bytes=100, overflow="drop_newest"),
    subscribe(brief()),
    subscribe(suspending(), queue_size=100),
    subscribe(suspending(), delivery="background", queue_size=100),
]

def check(said):
    while not (flush(20) or all(one.stats.pending == 0 for one in subscriptions)):
        pass
    for subscription in subscriptions:
        assert subscription.stats.matched >= said, (subscription, said)
        assert subscription.stats.pending == 0, subscription
"""

COLLECTED = """
class Cycle: ...

@traced(kind="llm")
def stream():
    yield "a"
    yield "b"

def abandon():
    cycle = Cycle()
    cycle.me, cycle.stream = cycle, stream()
    next(cycle.stream)

def work():
    for _ in range({count} // 4):
        abandon()  # the collector ends it, in the middle of whatever this or another thread does then
        emit(text, text="x")

async def work_async():
    for number in range({count} // 4):
        abandon()
        emit(text, text="x") if number % 2 else await aemit(text, text="x")
    await aflush(20)

gc.set_threshold({threshold})
threads = [threading.Thread(target=work) for _ in range(2)]
threads += [threading.Thread(target=anyio.run, args=[work_async]), threading.Thread(target=work_in_trio)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
gc.set_threshold(700)
while open_runs:
    gc.collect()  # which does nothing while another thread collects
check({count} * 4)  # the run's start, a token, its end, a text
"""


@pytest.mark.parametrize("threshold", [7, 700])
@pytest.mark.parametrize("count", [1_000, full(40_000)])
def test_the_collector_may_emit_in_the_middle_of_an_emission(
    run_python: Callable[..., Any], count: int, threshold: int
) -> None:
    code = COLLECTED.format(count=count, threshold=threshold)
    code = code.replace(
        "gc.set_threshold(", 'work_in_trio = lambda: anyio.run(work_async, backend="trio")\ngc.set_threshold(', 1
    )
    run_python("-c", SUBSCRIBERS + code, timeout_s=250)


ALL_OVER_A_SET = """
import contextvars, gc
from tracebus import subscribe, traced

variables = [contextvars.ContextVar(str(number), default=[]) for number in range(60)]
subscribe(lambda sender, event: [variable.set(event) for variable in variables[:3]])

class Cycle: ...

@traced(kind="llm")
def stream():
    yield "a"

for allocations in [*range(1, 150)] * 3:
    gc.disable()
    gc.collect(0)
    cycle = Cycle()
    cycle.me, cycle.stream = cycle, stream()
    next(cycle.stream)
    del cycle
    gc.set_threshold(gc.get_count()[0] + allocations)
    gc.enable()
    tokens = [variable.set([]) for variable in variables]  # in one of these it is collected
    gc.set_threshold(700)
    assert all(variable.get() is not None for variable in variables)
"""


def test_the_collector_may_end_a_stream_in_the_middle_of_setting_a_context_variable(run_python: Callable[..., Any]) -> None:
    run_python("-c", ALL_OVER_A_SET)


INTERRUPTED = """
import gc, signal, threading
import tracebus

signal.signal(signal.SIGALRM, signal.default_int_handler)
ballast = [[] for _ in range(300_000)]  # for a collection to take a while
for _ in range(20):
    interrupted = False
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        gc.collect()
        threading.Event().wait(20)
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted
"""


@needs_signals
def test_ctrl_c_in_the_middle_of_a_collection_is_not_lost(run_python: Callable[..., Any]) -> None:
    run_python("-c", INTERRUPTED)


SIGNALLED = """
heard = itertools.count()

def on_signal(*_):
    next(heard)
    emit(text, text="signal")

signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

said = 0
end = time.monotonic() + {seconds}
async def main():
    global said
    while time.monotonic() < end:
        said += 2
        emit(text, text="x")
        await aemit(text, text="x")
    await aflush(20)
    if {backend!r} == "trio":  # which writes to a file that is closed when a signal comes at its very end
        signal.setitimer(signal.ITIMER_REAL, 0)

if {backend!r} == "none":
    while time.monotonic() < end:
        said += 1
        emit(text, text="x")
else:
    anyio.run(main, backend={backend!r})
signal.setitimer(signal.ITIMER_REAL, 0)
signals = next(heard)
assert signals > 50 * {seconds}, signals
check(said + signals)
"""


@needs_signals
@pytest.mark.parametrize("backend", ["none", "asyncio", "trio"])
@pytest.mark.parametrize("seconds", [1, full(20)])
def test_a_signal_handler_may_emit_a_thousand_times_a_second(
    run_python: Callable[..., Any], seconds: int, backend: str
) -> None:
    run_python("-c", SUBSCRIBERS + SIGNALLED.format(seconds=seconds, backend=backend), timeout_s=120)


FORKED = """
import logging, warnings
logging.disable()
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
sys.setswitchinterval(1e-6)
heard = []

async def hear_async(sender, event):
    heard.append(event.text)

async def hear_later(sender, event):
    await anyio.sleep(0)
    heard.append(event.text)

mine = [
    subscribe(lambda sender, event: heard.append(event.text), "text"),
    subscribe(lambda sender, event: heard.append(event.text), "text", delivery="background", queue_size=100),
    subscribe(hear_async, "text", queue_size=100),
    subscribe(hear_later, "text", queue_bytes=1000),
]

def flat_out():
    while True:
        with trace("parent"):
            emit(text, text="parent")

for work in (flat_out, flat_out, flat_out, flat_out):
    threading.Thread(target=work, daemon=True).start()

def in_child():
    signal.alarm(20)  # a child that hangs is ended, and noticed
    heard.clear()
    with trace("child"):
        emit(text, text="child")
    flush(10)
    assert heard == ["child"] * len(mine), heard
    for one in mine:
        assert (one.stats.matched, one.stats.delivered, one.stats.pending) == (1, 1, 0), one

for number in range({forks}):
    pid = os.fork()
    if pid == 0:
        try:
            in_child()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (number, status)
    heard.clear()
os._exit(0)
"""


@needs_fork
@pytest.mark.parametrize("forks", [10, full(300, 600)])
def test_a_child_of_a_process_whose_threads_emit_flat_out_delivers_its_own_events(
    run_python: Callable[..., Any], forks: int
) -> None:
    run_python("-c", SUBSCRIBERS + FORKED.format(forks=forks), timeout_s=500)


FORKED_AT_THE_START = """
import asyncio, os, signal, threading
from tracebus import emit, flush, subscribe, text

heard = []

async def hear(sender, event):
    heard.append(event.text)

subscribe(hear, "text")
is_starting = threading.Event()

def start():
    with asyncio.events._lock:  # as in the moment in which a process makes its first loop
        is_starting.set()
        signal.sigtimedwait([], 0.1)

starting = threading.Thread(target=start)
starting.start()
is_starting.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    emit(text, text="child")
    os._exit(0 if flush(5) and heard == ["child"] else 1)
status = os.waitpid(pid, 0)[1]
starting.join()
assert status == 0, status
"""


@needs_fork
def test_a_child_that_was_forked_while_asyncio_started_in_another_thread_delivers(run_python: Callable[..., Any]) -> None:
    run_python("-W", "ignore::DeprecationWarning", "-c", FORKED_AT_THE_START)
