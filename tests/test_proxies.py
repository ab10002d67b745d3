"""What a traced function returned as a stream reads through its run, and is the original in everything else."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from tracebus import traced
from tracebus.events import Event, LLMEnd

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
