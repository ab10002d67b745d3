"""What a traced function returned as a stream reads through its run, and is the original in everything else."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from tracebus import current_run, llm_new_token, subscribe, trace, traced
from tracebus.events import Event, LLMEnd, LLMError

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]


class Boom(Exception):
    pass


def names(events: Events) -> list[str]:
    return [event.signal_name for event in events]


def only(events: Events, *classes: type[Any]) -> Any:
    (found,) = [event for event in events if isinstance(event, classes)]
    return found


def streaming(result: Any) -> Any:
    return traced(kind="llm", name="streaming", stream=True)(lambda: result)()


class Lines:
    """An iterator that calls what it has among its lines, as a parser calls what may fail."""

    def __init__(self, *lines: Any) -> None:
        self.lines = list(lines)

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> Any:
        if not self.lines:
            raise StopIteration
        line = self.lines.pop(0)
        return line() if callable(line) else line


class AsyncLines(Lines):
    __iter__ = None  # type: ignore[assignment]
    __next__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncLines:
        return self

    async def __anext__(self) -> Any:
        if not self.lines:
            raise StopAsyncIteration
        line = self.lines.pop(0)
        if not callable(line):
            return line
        return await result if inspect.isawaitable(result := line()) else result


def boom() -> None:
    raise Boom


# -- a read that raised ------------------------------------------------------------------------------------------------


def test_a_read_that_raised_leaves_the_rest_of_the_stream_to_the_app(heard: Events) -> None:
    stream = streaming(Lines("a", boom, "b"))
    assert next(stream) == "a"
    with pytest.raises(Boom):
        next(stream)
    assert list(stream) == ["b"]


async def test_an_async_read_that_raised_leaves_the_rest_of_the_stream_to_the_app(heard: Events) -> None:
    stream = streaming(AsyncLines("a", boom, "b"))
    assert await anext(stream) == "a"
    with pytest.raises(Boom):
        await anext(stream)
    assert [line async for line in stream] == ["b"]


async def test_a_read_that_timed_out_leaves_the_rest_of_the_stream_to_the_app(heard: Events) -> None:
    stream = streaming(AsyncLines("a", anyio.sleep_forever, "b"))
    assert await anext(stream) == "a"
    with anyio.move_on_after(0):
        await anext(stream)
    assert [line async for line in stream] == ["b"]


def test_a_read_that_raised_ends_the_run_and_nothing_is_said_after_it(heard: Events) -> None:
    stream = streaming(Lines("a", boom, "b"))
    next(stream)
    with pytest.raises(Boom):
        next(stream)
    list(stream)
    del stream
    gc.collect()
    assert names(heard) == ["llm_start", "llm_new_token", "llm_error"]
    assert (heard[-1].run.status, only(heard, LLMError).output) == ("error", "a")


async def test_a_read_that_timed_out_ends_the_run_as_cancelled_and_nothing_is_said_after_it(heard: Events) -> None:
    stream = streaming(AsyncLines("a", anyio.sleep_forever, "b"))
    await anext(stream)
    with anyio.move_on_after(0):
        await anext(stream)
    assert [line async for line in stream] == ["b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_error"]
    assert (heard[-1].run.status, only(heard, LLMError).output) == ("cancelled", "a")


def test_a_token_whose_subscriber_raised_leaves_the_rest_of_the_stream_to_the_app(heard: Events) -> None:
    def fail(sender: object, event: Event) -> None:
        raise Boom

    stream = streaming(Lines("a", "b"))
    with subscribe(fail, llm_new_token, raise_error=True), pytest.raises(Boom):
        next(stream)
    assert list(stream) == ["b"]
    assert only(heard, LLMEnd, LLMError).run.status == "error"


async def test_a_read_that_is_thrown_away_ends_the_run_and_leaves_its_driver_as_it_was(heard: Events) -> None:
    class Suspended:
        def __await__(self) -> Any:
            yield

    read = streaming(AsyncLines(Suspended)).__anext__()
    with trace("driver") as driver:
        read.send(None)
        read.close()
        assert current_run() is driver
    assert only(heard, LLMError).run.status == "cancelled"


# -- what is current ---------------------------------------------------------------------------------------------------


def test_the_run_is_current_in_a_read_and_not_behind_it(heard: Events) -> None:
    stream = streaming(Lines(current_run, boom, current_run))
    with trace("consumer") as consumer:
        assert next(stream).name == "streaming"
        assert current_run() is consumer
        with pytest.raises(Boom):
            next(stream)
        assert current_run() is consumer
        assert next(stream) is consumer


async def test_the_run_is_current_in_an_async_read_and_not_behind_it(heard: Events) -> None:
    stream = streaming(AsyncLines(current_run, boom, current_run))
    async with trace("consumer") as consumer:
        assert (await anext(stream)).name == "streaming"
        assert current_run() is consumer
        with pytest.raises(Boom):
            await anext(stream)
        assert current_run() is consumer
        assert await anext(stream) is consumer


def test_a_block_held_open_across_reads_stays_inside(heard: Events) -> None:
    def lines() -> Iterator[Any]:
        with trace("block"):
            yield current_run()
            yield current_run()

    steps = lines()
    stream = streaming(Lines(*[lambda: next(steps)] * 2))
    assert [(run.name, current_run()) for run in stream] == [("block", None)] * 2


async def test_a_stream_may_be_read_by_two_tasks_at_once(heard: Events) -> None:
    send, receive = anyio.create_memory_object_stream[str](2)
    stream, got = streaming(receive), []

    async def read() -> None:
        got.append(await anext(stream))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await send.send("a")
        await send.send("b")
    send.close()
    assert [item async for item in stream] == []
    await stream.aclose()
    assert sorted(got) == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


# -- what is a stream --------------------------------------------------------------------------------------------------


class Completion(BaseModel):
    text: str


@dataclasses.dataclass
class Candle:
    """Iterable, and what it closes at is no way to close it."""

    close: float = 1.0

    def __iter__(self) -> Iterator[float]:
        yield self.close


class Dataset:
    def __iter__(self) -> Iterator[str]:
        return iter("ab")


class Table(Dataset):
    """What may be closed, as a file of tables, and is no stream: its length is known."""

    def __len__(self) -> int:
        return 2

    def close(self) -> None: ...


@pytest.mark.parametrize("result", [Completion(text="a"), Candle(), Dataset(), Table()], ids=lambda r: type(r).__name__)
def test_an_answer_that_can_be_iterated_is_no_stream(result: Any, heard: Events) -> None:
    assert streaming(result) is result
    assert only(heard, LLMEnd).output is result


class Response(Dataset):
    """As those of requests: false when the request failed, and no iterator."""

    encoding = "latin-1"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __bool__(self) -> bool:
        return False

    def close(self) -> None:
        self.calls.append("close")


class Cursor:
    """Awaited for all rows or read one by one, as those of database drivers."""

    def __await__(self) -> Any:
        return "rows"
        yield

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "a"
        yield "b"


def test_what_is_closed_and_no_iterator_is_a_stream(heard: Events) -> None:
    assert list(streaming(Response())) == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


async def test_what_can_only_be_iterated_asynchronously_is_a_stream(heard: Events) -> None:
    assert [item async for item in streaming(Cursor())] == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


# -- the original in everything else -----------------------------------------------------------------------------------


def test_a_stream_without_close_gets_none(heard: Events) -> None:
    stream = streaming(map(str, "ab"))
    assert not hasattr(stream, "close")
    assert not hasattr(stream, "__enter__")


def test_a_stream_is_as_true_as_it_was(heard: Events) -> None:
    assert not streaming(Response())


def test_a_stream_is_equal_to_what_it_was(heard: Events) -> None:
    lines = Lines()
    stream = streaming(lines)
    assert (stream == lines, lines == stream, stream != lines, hash(stream)) == (True, True, False, hash(lines))
    assert stream != Lines()


def test_a_stream_shows_as_it_did(heard: Events) -> None:
    lines = Lines()
    stream = streaming(lines)
    assert (repr(stream), str(stream), f"{stream}") == (repr(lines), str(lines), f"{lines}")
    assert (dir(stream), vars(stream), stream.__doc__) == (dir(lines), vars(lines), Lines.__doc__)


def test_what_is_set_is_set_on_the_stream(heard: Events) -> None:
    response = Response()
    stream = streaming(response)
    stream.encoding = "utf-8"
    assert response.encoding == "utf-8"
    del stream.encoding
    assert response.encoding == "latin-1"


async def test_a_stream_that_can_be_awaited_still_can(heard: Events) -> None:
    assert await streaming(Cursor()) == "rows"


def test_methods_that_python_looks_up_in_the_class_are_the_streams(heard: Events) -> None:
    class Rows(Lines):
        def __len__(self) -> int:
            return len(self.lines)

        def __contains__(self, line: object) -> bool:
            return line in self.lines

        def __getitem__(self, index: int) -> Any:
            return self.lines[index]

        def __call__(self) -> str:
            return "called"

        def __iadd__(self, line: object) -> Rows:
            self.lines.append(line)
            return self

    stream = same = streaming(Rows("a"))
    stream += "b"
    assert stream is same
    assert (len(stream), "b" in stream, stream[1], stream(), list(stream)) == (2, True, "b", "called", ["a", "b"])


def test_what_is_not_hashable_stays_so(heard: Events) -> None:
    class Rows(Lines):
        def __eq__(self, other: object) -> bool:
            return True

    with pytest.raises(TypeError, match="unhashable"):
        hash(streaming(Rows()))


def test_copies_are_those_of_the_stream(heard: Events) -> None:
    stream = streaming(iter([1, 2]))
    next(stream)
    for copied in (copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert list(copied) == [2]
    assert list(stream) == [2]


def test_what_was_read_once_may_be_read_again(heard: Events) -> None:
    stream = streaming(Response())
    assert [list(stream), list(stream)] == [["a", "b"]] * 2
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


async def test_what_was_read_once_asynchronously_may_be_read_again(heard: Events) -> None:
    stream = streaming(Cursor())
    assert [[item async for item in stream] for _ in range(2)] == [["a", "b"]] * 2
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


def test_a_stream_of_a_stream_is_read_through_both_runs(heard: Events) -> None:
    assert list(streaming(streaming(Lines("a")))) == ["a"]
    assert names(heard) == [*["llm_start"] * 2, *["llm_new_token"] * 2, *["llm_end"] * 2]


# -- how it is closed --------------------------------------------------------------------------------------------------


class Closable(Lines):
    """What is closed in every way there is, and read in two."""

    calls = ()

    def note(self, call: str) -> None:
        self.calls = (*self.calls, call)

    def close(self) -> None:
        self.note("close")

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.note("aclose")

    def __enter__(self) -> str:
        return "entered"

    def __exit__(self, *error: object) -> bool:
        return True

    async def __aenter__(self) -> str:
        return "entered"

    async def __aexit__(self, *error: object) -> bool:
        return True

    def __aiter__(self) -> Closable:
        return self

    async def __anext__(self) -> Any:
        return next(self)


async def test_what_was_read_synchronously_may_be_closed_asynchronously(heard: Events) -> None:
    lines = Closable("a", "b")
    stream = streaming(lines)
    next(stream)
    await stream.aclose()
    assert lines.calls == ("aclose",)
    assert (only(heard, LLMEnd).run.status, only(heard, LLMEnd).output) == ("closed_early", "a")


async def test_what_was_read_asynchronously_may_be_closed_synchronously(heard: Events) -> None:
    lines = Closable("a", "b")
    stream = streaming(lines)
    await anext(stream)
    stream.close()
    assert lines.calls == ("close",)
    assert (only(heard, LLMEnd).run.status, only(heard, LLMEnd).output) == ("closed_early", "a")


def test_what_is_read_after_close_is_not_heard(heard: Events) -> None:
    stream = streaming(Closable("a", "b"))
    next(stream)
    stream.close()
    assert list(stream) == ["b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_end"]


def test_an_item_whose_stream_was_closed_while_it_was_read_is_not_heard(heard: Events) -> None:
    stream = streaming(Closable("a", lambda: stream.close() or "b"))
    assert list(stream) == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_end"]


async def test_a_stream_that_is_left_ends_early(heard: Events) -> None:
    async for _ in streaming(AsyncLines("a", "b")):
        break
    gc.collect()
    assert (only(heard, LLMEnd).run.status, only(heard, LLMEnd).output) == ("closed_early", "a")


def test_a_close_that_raises_ends_the_run(heard: Events) -> None:
    class Stubborn(Lines):
        def close(self) -> None:
            raise Boom

    stream = streaming(Stubborn("a"))
    with pytest.raises(Boom):
        stream.close()
    assert only(heard, LLMEnd).run.status == "closed_early"


async def test_a_close_that_is_thrown_away_ends_the_run(heard: Events) -> None:
    class Slow(AsyncLines):
        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()

    closing = streaming(Slow()).aclose()
    closing.send(None)
    closing.close()
    assert only(heard, LLMEnd).run.status == "closed_early"


def test_a_close_that_is_a_coroutine_function_stays_one(heard: Events) -> None:
    stream = streaming(Closable())
    assert [inspect.iscoroutinefunction(close) for close in (stream.close, stream.aclose)] == [False, True]
    stream.close()


def test_a_context_manager_gives_what_it_gives_and_swallows_what_it_swallows(heard: Events) -> None:
    with streaming(Closable()) as entered:
        assert entered == "entered"
        raise Boom
    assert only(heard, LLMEnd).run.status == "closed_early"


async def test_an_async_context_manager_gives_what_it_gives_and_swallows_what_it_swallows(heard: Events) -> None:
    async with streaming(Closable()) as entered:
        assert entered == "entered"
        raise Boom
    assert only(heard, LLMEnd).run.status == "closed_early"


# -- an async subscriber has heard the end when sync code goes on ------------------------------------------------------


def returns() -> None:
    traced(kind="llm", stream=True)(lambda: 5)()


def raises() -> None:
    with pytest.raises(Boom):
        traced(kind="llm", stream=True)(boom)()


def closes() -> Any:
    stream = streaming(Closable("a", "b"))
    next(stream)
    stream.close()
    return stream


def leaves() -> None:
    with streaming(Closable("a")):
        pass


def breaks() -> None:
    for _ in streaming(Lines("a", "b")):
        break


def consumes() -> None:
    list(streaming(Lines("a")))


@pytest.mark.parametrize("use", [returns, raises, closes, leaves, breaks, consumes], ids=lambda use: use.__name__)
def test_the_end_of_a_stream_in_sync_code_waits_for_an_async_subscriber(use: Callable[[], Any]) -> None:
    slow: Events = []

    async def hear(sender: object, event: Event) -> None:
        await anyio.sleep(0.01)
        slow.append(event)

    with subscribe(hear):
        held = use()
        assert names(slow)[-1] in ("llm_end", "llm_error")
    del held
