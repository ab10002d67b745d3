"""The work that ``bench`` times: tracebus's own, and the same with opentelemetry-sdk, langchain-core and structlog.

Each is a context manager that connects its subscribers, yields the ``Work``, and disconnects them. Every subscriber
counts what it hears, on both sides, so that nobody is fast by not calling it.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

import msgspec
import structlog
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import FakeListLLM
from langchain_core.runnables import RunnableConfig, RunnableLambda
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

import tracebus
from tracebus import HOOKS, Event, LLMNewToken, aemit, emit, llm_new_token, subscribe, trace, traced
from tracebus.families import ASYNC, SYNC
from tracebus.integrations.langchain import install, uninstall
from tracebus.signals import bus
from tracebus.snapshots import snapshot_of
from tracebus.tracing import say_token

Awaits: TypeAlias = Callable[[], Awaitable[None]]
"""What an async subscriber does beside counting."""

QUESTION, ANSWER, TOKEN = "How do I subscribe to tokens?", "Connect a function to llm_new_token.", "token "
EVENTS = 4  # of a chain with a model in it: two starts, two ends


@dataclass(frozen=True)
class Work:
    """Something to time.

    ``timed`` does it so many times and returns the seconds that took, or a coroutine that does. ``heard`` says how many
    events have been heard so far, ``events`` how many each time must be; ``pieces`` by what the time is divided.
    """

    timed: Callable[[int], Any]
    heard: Callable[[], int] = lambda: 0
    events: int = 0
    pieces: int = 1


class Missing(Exception):
    """What would be timed is not written yet."""


def timing(step: Callable[[], object]) -> Callable[[int], float]:
    """Time a function called in a loop, as ``timeit`` does."""

    def timed(times: int) -> float:
        steps = repeat(None, times)
        start = time.perf_counter()
        for _ in steps:
            step()
        return time.perf_counter() - start

    return timed


def timing_async(step: Callable[[], Awaitable[object]]) -> Callable[[int], Awaitable[float]]:
    """Time a coroutine function awaited in a loop, in one task."""

    async def timed(times: int) -> float:
        steps = repeat(None, times)
        start = time.perf_counter()
        for _ in steps:
            await step()
        return time.perf_counter() - start

    return timed


def ear() -> tuple[Callable[..., None], Callable[[], int]]:
    """Return a subscriber that counts, and what reads its count."""
    heard = 0

    def hear(sender: object, event: Event) -> None:
        nonlocal heard
        heard += 1

    return hear, lambda: heard


async def nothing() -> None:
    """Stand in for what an async subscriber awaits: it never suspends."""


async def a_turn() -> None:
    """Stand in for what an async subscriber awaits: it suspends once."""
    await asyncio.sleep(0)


def async_ear(awaits: Awaits | None = None) -> tuple[Callable[..., Awaitable[None]], Callable[[], int]]:
    """Return an async subscriber that counts, after what it awaits if that is given, and what reads its count."""
    heard = 0

    async def hear(sender: object, event: Event) -> None:
        nonlocal heard
        heard += 1

    async def hear_later(sender: object, event: Event) -> None:
        nonlocal heard
        await (awaits or nothing)()
        heard += 1

    return (hear_later if awaits else hear), lambda: heard


# -- a chain that calls a model ----------------------------------------------------------------------------------------


@traced
def chain(question: str) -> str:
    return model(question)


@traced(kind="llm")
def model(prompt: str) -> str:
    return ANSWER


@traced
async def async_chain(question: str) -> str:
    return await async_model(question)


@traced(kind="llm")
async def async_model(prompt: str) -> str:
    return ANSWER


@contextmanager
def nested() -> Iterator[Work]:
    hear, heard = ear()
    with subscribe(hear):
        yield Work(timing(partial(chain, QUESTION)), heard, EVENTS)


@contextmanager
def nested_async(awaits: Awaits | None = None) -> Iterator[Work]:
    hear, heard = async_ear(awaits)
    with subscribe(hear):
        yield Work(timing_async(partial(async_chain, QUESTION)), heard, EVENTS)


@contextmanager
def nested_unheard() -> Iterator[Work]:
    assert not bus.live, "somebody listens"
    yield Work(timing(partial(chain, QUESTION)))


@contextmanager
def nested_for_ten() -> Iterator[Work]:
    ears = [ear() for _ in range(10)]
    with ExitStack() as subscriptions:
        for hear, _ in ears:
            subscriptions.enter_context(subscribe(hear))
        yield Work(timing(partial(chain, QUESTION)), lambda: sum(heard() for _, heard in ears), 10 * EVENTS)


class CountingProcessor(SpanProcessor):
    """A span processor that does nothing but count."""

    heard = 0

    def on_start(self, span: ReadableSpan, parent_context: object = None) -> None:
        self.heard += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.heard += 1


@contextmanager
def otel_nested() -> Iterator[Work]:
    processor, tracer = _tracer()

    def model(prompt: str) -> str:
        with tracer.start_as_current_span("model") as span:
            span.set_attribute("inputs.prompt", prompt)
            span.set_attribute("output", ANSWER)
            return ANSWER

    def chain(question: str) -> str:
        with tracer.start_as_current_span("chain") as span:
            span.set_attribute("inputs.question", question)
            answer = model(question)
            span.set_attribute("output", answer)
            return answer

    yield Work(timing(partial(chain, QUESTION)), lambda: processor.heard, EVENTS)


@contextmanager
def otel_nested_async() -> Iterator[Work]:
    processor, tracer = _tracer()

    async def model(prompt: str) -> str:
        with tracer.start_as_current_span("model") as span:
            span.set_attribute("inputs.prompt", prompt)
            span.set_attribute("output", ANSWER)
            return ANSWER

    async def chain(question: str) -> str:
        with tracer.start_as_current_span("chain") as span:
            span.set_attribute("inputs.question", question)
            answer = await model(question)
            span.set_attribute("output", answer)
            return answer

    yield Work(timing_async(partial(chain, QUESTION)), lambda: processor.heard, EVENTS)


def _tracer() -> tuple[CountingProcessor, Any]:
    processor, provider = CountingProcessor(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return processor, provider.get_tracer("bench")


class CountingHandler(BaseCallbackHandler):
    """A handler that does nothing but count."""

    heard = 0

    def _hear(self, *args: Any, **kwargs: Any) -> None:
        self.heard += 1

    on_chain_start = on_chain_end = on_llm_start = on_llm_new_token = on_llm_end = _hear


class AsyncCountingHandler(AsyncCallbackHandler):
    """A handler that does nothing but count, after what it awaits if it was given something."""

    heard = 0

    def __init__(self, awaits: Awaits | None = None) -> None:
        self.awaits = awaits

    async def _hear(self, *args: Any, **kwargs: Any) -> None:
        if self.awaits is not None:
            await self.awaits()
        self.heard += 1

    on_chain_start = on_chain_end = on_llm_start = on_llm_new_token = on_llm_end = _hear


@contextmanager
def langchain_nested() -> Iterator[Work]:
    handler, model = CountingHandler(), FakeListLLM(responses=[ANSWER])

    def call_model(question: str, config: RunnableConfig) -> str:
        return model.invoke(question, config)

    chain, config = RunnableLambda(call_model), RunnableConfig(callbacks=[handler])
    yield Work(timing(partial(chain.invoke, QUESTION, config)), lambda: handler.heard, EVENTS)


@contextmanager
def langchain_nested_async(awaits: Awaits | None = None) -> Iterator[Work]:
    handler, model = AsyncCountingHandler(awaits), FakeListLLM(responses=[ANSWER])

    async def call_model(question: str, config: RunnableConfig) -> str:
        return await model.ainvoke(question, config)

    chain, config = RunnableLambda(call_model), RunnableConfig(callbacks=[handler])
    yield Work(timing_async(partial(chain.ainvoke, QUESTION, config)), lambda: handler.heard, EVENTS)


@contextmanager
def langchain_traced() -> Iterator[Work]:
    """Invoke the same chain with tracebus in place of the handler."""
    hear, heard = ear()
    model = FakeListLLM(responses=[ANSWER])

    def call_model(question: str, config: RunnableConfig) -> str:
        return model.invoke(question, config)

    with _installed(), subscribe(hear):
        yield Work(timing(partial(RunnableLambda(call_model).invoke, QUESTION, RunnableConfig())), heard, EVENTS)


@contextmanager
def langchain_traced_async() -> Iterator[Work]:
    """Invoke the same chain with tracebus in place of the handler."""
    hear, heard = async_ear()
    model = FakeListLLM(responses=[ANSWER])

    async def call_model(question: str, config: RunnableConfig) -> str:
        return await model.ainvoke(question, config)

    with _installed(), subscribe(hear):
        yield Work(timing_async(partial(RunnableLambda(call_model).ainvoke, QUESTION, RunnableConfig())), heard, EVENTS)


@contextmanager
def _installed() -> Iterator[None]:
    install()
    try:
        yield
    finally:
        uninstall()


# -- tokens ------------------------------------------------------------------------------------------------------------


@contextmanager
def token_emitted() -> Iterator[Work]:
    hear, heard = ear()
    timed = timing(partial(emit, llm_new_token, token=TOKEN))
    with subscribe(hear, llm_new_token), trace("model", kind="llm"):
        yield Work(timed, heard, 1)


@contextmanager
def token_said() -> Iterator[Work]:
    hear, heard = ear()
    with subscribe(hear, llm_new_token), trace("model", kind="llm") as run:
        yield Work(timing(partial(say_token, run, TOKEN, None, SYNC)), heard, 1)


@contextmanager
def token_emitted_async(awaits: Awaits | None = None) -> Iterator[Work]:
    hear, heard = async_ear(awaits)

    async def timed(times: int) -> float:
        async with trace("model", kind="llm"):
            return await timing_async(partial(aemit, llm_new_token, token=TOKEN))(times)

    with subscribe(hear, llm_new_token):
        yield Work(timed, heard, 1)


@contextmanager
def token_said_async() -> Iterator[Work]:
    hear, heard = async_ear()

    async def timed(times: int) -> float:
        async with trace("model", kind="llm") as run:
            steps = repeat(None, times)
            start = time.perf_counter()
            for _ in steps:
                pending = say_token(run, TOKEN, None, ASYNC)
                if pending is not None:
                    await pending
            return time.perf_counter() - start

    with subscribe(hear, llm_new_token):
        yield Work(timed, heard, 1)


@contextmanager
def token_across(burst: int = 1) -> Iterator[Work]:
    """Emit from sync code in a running loop to an async subscriber; the time ends when it has heard."""
    hear, heard = async_ear()

    async def timed(times: int) -> float:
        async with trace("model", kind="llm"):
            expected = heard()
            start = time.perf_counter()
            for _ in range(times):
                for _ in range(burst):
                    emit(llm_new_token, token=TOKEN)
                expected += burst
                while heard() < expected:
                    await asyncio.sleep(0)
            return time.perf_counter() - start

    with subscribe(hear, llm_new_token):
        yield Work(timed, heard, burst, burst)


@contextmanager
def langchain_token() -> Iterator[Work]:
    handler = CountingHandler()
    run = CallbackManagerForLLMRun(run_id=uuid.uuid4(), handlers=[handler], inheritable_handlers=[])
    yield Work(timing(partial(run.on_llm_new_token, TOKEN)), lambda: handler.heard, 1)


@contextmanager
def langchain_token_async(awaits: Awaits | None = None) -> Iterator[Work]:
    handler = AsyncCountingHandler(awaits)
    run = AsyncCallbackManagerForLLMRun(run_id=uuid.uuid4(), handlers=[handler], inheritable_handlers=[])
    yield Work(timing_async(partial(run.on_llm_new_token, TOKEN)), lambda: handler.heard, 1)


@contextmanager
def langchain_token_across() -> Iterator[Work]:
    handler = AsyncCountingHandler()
    run = CallbackManagerForLLMRun(run_id=uuid.uuid4(), handlers=[handler], inheritable_handlers=[])
    timed = timing(partial(run.on_llm_new_token, TOKEN))

    async def timed_in_loop(times: int) -> float:
        return timed(times)

    yield Work(timed_in_loop, lambda: handler.heard, 1)


# -- streams -----------------------------------------------------------------------------------------------------------


def items(count: int) -> Iterator[str]:
    yield from repeat(TOKEN, count)


async def async_items(count: int) -> Any:
    for item in repeat(TOKEN, count):
        yield item


traced_items, traced_tokens = traced(items), traced(kind="llm")(items)
traced_async_items = traced(async_items)


@contextmanager
def stream_of_items(length: int = 1000) -> Iterator[Work]:
    yield from _consumed(traced_items, length, 2)


@contextmanager
def stream_of_tokens(length: int = 1000) -> Iterator[Work]:
    yield from _consumed(traced_tokens, length, 2 + length)


def _consumed(stream: Callable[[int], Iterator[str]], length: int, events: int) -> Iterator[Work]:
    hear, heard = ear()

    def consume() -> None:
        for _ in stream(length):
            pass

    with subscribe(hear):
        yield Work(timing(consume), heard, events, length)


@contextmanager
def stream_of_async_items(length: int = 1000) -> Iterator[Work]:
    hear, heard = async_ear()

    async def consume() -> None:
        async for _ in traced_async_items(length):
            pass

    with subscribe(hear):
        yield Work(timing_async(consume), heard, 2, length)


# -- background --------------------------------------------------------------------------------------------------------


@contextmanager
def token_in_background(burst: int = 1) -> Iterator[Work]:
    """Time the emitter alone. With a ``burst`` of one each token comes to an empty queue, and its thread is woken."""
    hear, heard = ear()

    def timed(times: int) -> float:
        seconds, expected = 0.0, heard()
        emissions = timing(partial(emit, llm_new_token, token=TOKEN))
        for _ in range(times):
            seconds += emissions(burst)
            expected += burst
            while heard() < expected:
                time.sleep(0)
        return seconds

    with subscribe(hear, llm_new_token, delivery="background"), trace("model", kind="llm"):
        yield Work(timed, heard, burst, burst)


@contextmanager
def token_snapshot() -> Iterator[Work]:
    with trace("model", kind="llm") as run:
        event = LLMNewToken(run, 0, 0, TOKEN)
        yield Work(timing(partial(snapshot_of, event)))


def emissions_past_a_stuck_subscriber(times: int) -> list[float]:
    """Return the seconds of each emission while a background subscriber hangs on the first and its queue overflows."""
    unstuck, seconds = threading.Event(), []

    def hang(sender: object, event: Event) -> None:
        unstuck.wait()

    with subscribe(hang, llm_new_token, delivery="background"), trace("model", kind="llm"):
        for _ in range(times):
            start = time.perf_counter()
            emit(llm_new_token, token=TOKEN)
            seconds.append(time.perf_counter() - start)
        unstuck.set()
        tracebus.flush(60)
    return seconds


# -- log lines ---------------------------------------------------------------------------------------------------------


@contextmanager
def log_lines() -> Iterator[Work]:
    """Hand the four events of a chain to ``log_to_stdout``; timed from the event to the written line."""
    said = [(HOOKS.signal(event.signal_name), sender, event) for sender, event in _events_of_a_chain()]

    def say() -> None:
        for hook, sender, event in said:
            hook.send(sender, event=event)

    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), _logging() as log:
        yield Work(timing(say), lambda: log.stats.delivered, EVENTS, EVENTS)


@contextmanager
def structlog_lines() -> Iterator[Work]:
    """Write lines with the same fields through structlog alone."""
    lines = [(line.pop("event"), line) for line in _lines_of_a_chain()]
    with open(os.devnull, "wb") as nowhere:
        log = structlog.wrap_logger(
            structlog.BytesLogger(nowhere),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=lambda fields, **_: msgspec.json.encode(fields)),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        ).bind()

        def say() -> None:
            for event, fields in lines:
                log.info(event, **fields)

        yield Work(timing(say), pieces=EVENTS)


@contextmanager
def _logging() -> Iterator[Any]:
    try:
        from tracebus.outputs.logs import log_to_stdout
    except ImportError:
        raise Missing from None
    log = log_to_stdout(format="json")
    try:
        yield log
    finally:
        log.close()


def _events_of_a_chain() -> list[tuple[object, Event]]:
    said: list[tuple[object, Event]] = []

    def keep(sender: object, event: Event) -> None:
        said.append((sender, event))

    with subscribe(keep):
        chain(QUESTION)
    return said


def _lines_of_a_chain() -> list[dict[str, Any]]:
    written = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(written, encoding="utf-8", write_through=True)), _logging():
        chain(QUESTION)
        sys.stdout.flush()
        lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert len(lines) == EVENTS, lines
    for line in lines:
        del line["timestamp"], line["level"]  # structlog adds its own
    return lines
