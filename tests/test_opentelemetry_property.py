"""Whatever spans and runs are put into each other, in tasks, threads and streams: each is the child of what it was written in.

A program is a tree of blocks. It is played with a name for each span and run, and what it was written in is noted; the parents
that OpenTelemetry's exporter and the bus were told of are then compared with that.
"""

import gc
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracebus import scope, trace, traced
from tracebus.integrations import opentelemetry as bridge
from tracebus.runs import innermost
from tracebus.testing import record

pytestmark = [
    pytest.mark.usefixtures("nobody_else_listens"),
    # What a program leaves to the collector, trio warns of.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

Block = tuple[str, list[Any]]

BLOCKS = ["span", "run", "traced", "scope", "baggage", "careless", "agent"]
"""What a block is, in sync and async code."""
STREAMS = ["stream", "stream that holds a span", "stream that is left", "stream that is dropped"]
ASYNC = ["tasks", "thread", "stream stepped by tasks"]


KINDS = st.sampled_from([*BLOCKS, *STREAMS, *ASYNC])
anything = st.recursive(
    st.tuples(KINDS, st.just([])), lambda below: st.tuples(KINDS, st.lists(below, max_size=4)), max_leaves=12
)


class Player:
    """Plays a program, and notes what each span and run was written in."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.processor = bridge.RunSpanProcessor()
        provider.add_span_processor(self.processor)  # type: ignore[arg-type]
        self.tracer = provider.get_tracer("tests")
        self.numbers = itertools.count()
        self.expected: dict[str, str | None] = {}

    def named(self, kind: str, above: str | None) -> str:
        name = f"{kind} {next(self.numbers)}"
        self.expected[name] = above
        return name

    @contextmanager
    def block(self, kind: str, above: str | None) -> Iterator[str | None]:
        """Open a block; yield what is written in it is the child of."""
        if kind == "span":
            with self.tracer.start_as_current_span(name := self.named(kind, above)):
                yield name
        elif kind == "agent":
            told = {"gen_ai.operation.name": "invoke_agent"}
            with self.tracer.start_as_current_span(name := self.named(kind, above), attributes=told):
                yield name
        elif kind == "run":
            with trace(name := self.named(kind, above)):
                yield name
        elif kind == "scope":
            with scope(tags=["t"]):
                yield above
        elif kind == "baggage":
            token = otel_context.attach(baggage.set_baggage("k", "v"))
            yield above
            otel_context.detach(token)
        else:
            otel_context.attach(baggage.set_baggage("never", "detached"))
            yield above

    # -- async ---------------------------------------------------------------------------------------------------------

    async def play_all(self, program: list[Block], above: str | None) -> None:
        for kind, below in program:
            await self.play(kind, below, above)
            await anyio.lowlevel.checkpoint()

    async def play(self, kind: str, below: list[Block], above: str | None) -> None:
        if kind == "traced":
            name = self.named(kind, above)
            await traced(name=name)(self.play_all)(below, name)
        elif kind == "tasks":
            async with anyio.create_task_group() as group:
                for block in below:
                    group.start_soon(self.play_all, [block], above)
        elif kind == "thread":
            await anyio.to_thread.run_sync(self.play_all_now, below, above)
        elif kind in (*STREAMS, "stream stepped by tasks"):
            await self.play_stream(kind, below, above)
        else:
            with self.block(kind, above) as inside:
                await self.play_all(below, inside)

    async def play_stream(self, kind: str, below: list[Block], above: str | None) -> None:
        stream = self.stream(kind, below[::2], self.named(kind, above))
        for block in below[1::2]:
            await self.step(kind, stream)
            await self.play_all([block], above)
        if kind == "stream that is left":
            await stream.aclose()
        elif kind != "stream that is dropped":
            async for _ in stream:
                pass

    async def step(self, kind: str, stream: AsyncIterator[None]) -> None:
        async def take() -> None:
            await anext(stream, None)

        if kind == "stream stepped by tasks":
            async with anyio.create_task_group() as group:
                group.start_soon(take)
        else:
            await take()

    def stream(self, kind: str, below: list[Block], name: str) -> Any:
        @traced(name=name)
        async def stream() -> AsyncIterator[None]:
            with self.held(kind, name) as inside:
                for block in below:
                    await self.play_all([block], inside)
                    yield

        return stream()

    def held(self, kind: str, name: str) -> AbstractContextManager[str | None]:
        return self.block("span", name) if kind != "stream" else nullcontext(name)

    # -- sync ----------------------------------------------------------------------------------------------------------

    def play_all_now(self, program: list[Block], above: str | None) -> None:
        for kind, below in program:
            self.play_now(kind, below, above)

    def play_now(self, kind: str, below: list[Block], above: str | None) -> None:
        if kind == "traced":
            name = self.named(kind, above)
            traced(name=name)(self.play_all_now)(below, name)
        elif kind in STREAMS:
            self.play_stream_now(kind, below, above)
        elif kind in ASYNC:
            self.play_all_now(below, above)
        else:
            with self.block(kind, above) as inside:
                self.play_all_now(below, inside)

    def play_stream_now(self, kind: str, below: list[Block], above: str | None) -> None:
        name = self.named(kind, above)

        @traced(name=name)
        def stream() -> Iterator[None]:
            with self.held(kind, name) as inside:
                for block in below[::2]:
                    self.play_all_now([block], inside)
                    yield

        steps = stream()
        for block in below[1::2]:
            next(steps, None)
            self.play_all_now([block], above)
        if kind in ("stream", "stream that holds a span"):
            list(steps)

    # -- what was told -------------------------------------------------------------------------------------------------

    def told(self, runs: list[Any]) -> dict[str, str | None]:
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans} | {run.span_id: run.name for run in runs}
        above = {span.name: None if span.parent is None else names[span.parent.span_id] for span in spans}
        for run in runs:
            parent = run.remote_parent or run.parent
            above[run.name] = None if parent is None else names[parent.span_id]
        return above


def roots(program: dict[str, str | None], name: str | None) -> str | None:
    above = name
    while above is not None:
        name, above = above, program[above]
    return name


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("count", [60, pytest.param(3_000, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_everything_is_the_child_of_what_it_was_written_in(backend: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(anything, max_size=4))
    def check(program: list[Block]) -> None:
        player = Player()
        with record() as rec:
            anyio.run(partial(player.play_all, program, None), backend=backend)
            gc.collect(0)
        player.processor.shutdown()
        assert innermost() is None
        # A stream that is never stepped, and what is in one that was left, was never there.
        told = player.told(rec.runs)
        assert told == {name: above for name, above in player.expected.items() if name in told}
        assert {name for name in player.expected if not name.startswith("stream")} <= set(told)
        traces = {span.name: span.context.trace_id for span in player.exporter.get_finished_spans()}
        traces |= {run.name: run.trace_id.int for run in rec.runs}
        assert all(traces[name] == traces[roots(told, name)] for name in told)  # type: ignore[index]

    check()
    bridge.uninstall()
    assert [entry.getMessage() for entry in caplog.records] == []
