"""An app of plain functions, traced by tracebus alone: what each vendor's handler is shown."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tracebus import Usage, current_run, flush, scope, stats, traced
from tracebus.signals import isolated

QUESTION = "How is it in Bern?"


@traced(kind="retriever")
def search(query: str) -> list[dict[str, Any]]:
    return [{"text": "Bern lies on the Aare.", "source": "atlas"}]


@traced(kind="tool")
def weather(city: str) -> str:
    if city == "Atlantis":
        raise LookupError("no such city")
    return "sun"


@traced(kind="chat_model")
def chat(messages: list[dict[str, str]], model: str, temperature: float) -> Iterator[str]:
    yield "Sun"
    yield "ny."
    run = current_run()
    assert run is not None
    run.model, run.usage = model, Usage(12, 2, cached_tokens=8)


@traced
def answer(question: str, city: str = "Bern") -> str:
    search(question)
    messages = [{"role": "system", "content": f"It is {weather(city)}."}, {"role": "user", "content": question}]
    return "".join(chat(messages, model="m-1", temperature=0.5))


@traced(kind="chat_model", name="chat")
async def chat_async(messages: list[dict[str, str]], model: str, temperature: float) -> AsyncIterator[str]:
    for piece in chat.__wrapped__(messages, model, temperature):
        yield piece


@traced(name="answer")
async def answer_async(question: str, city: str = "Bern") -> str:
    search(question)
    messages = [{"role": "system", "content": f"It is {weather(city)}."}, {"role": "user", "content": question}]
    return "".join([token async for token in chat_async(messages, model="m-1", temperature=0.5)])


class App(NamedTuple):
    """One request, and one that fails in its tool."""

    answer: Callable[[object], Awaitable[None]]
    fail: Callable[[object], Awaitable[None]]


async def _answer(handler: object) -> None:
    with scope(callbacks=[handler], tags=["web"], metadata={"tenant": 7}, session_id="s-1"):
        assert answer(QUESTION) == "Sunny."


async def _answer_async(handler: object) -> None:
    with scope(callbacks=[handler], tags=["web"], metadata={"tenant": 7}, session_id="s-1"):
        assert await answer_async(QUESTION) == "Sunny."


async def _fail(handler: object) -> None:
    with scope(callbacks=[handler]), pytest.raises(LookupError):
        answer(QUESTION, "Atlantis")


async def _fail_async(handler: object) -> None:
    with scope(callbacks=[handler]), pytest.raises(LookupError):
        await answer_async(QUESTION, "Atlantis")


@pytest.fixture(params=[App(_answer, _fail), App(_answer_async, _fail_async)], ids=["sync", "async"])
def app(request: pytest.FixtureRequest) -> App:
    """The app in sync and in async code; each handler is shown both, on both backends."""
    return request.param


@pytest.fixture(autouse=True)
def nobody_else_listens() -> Iterator[None]:
    with isolated():
        yield
        flush(5)


@pytest.fixture(autouse=True)
def nothing_failed(nobody_else_listens: None) -> Iterator[None]:
    """A handler's own failure would be swallowed, and the test pass on what it had written before."""
    yield
    assert [one for one in stats() if one.failed or one.dropped] == []


class Tree:
    """Spans of OpenTelemetry, by name and with their children."""

    def __init__(self, spans: Any) -> None:
        self.spans = list(spans)

    def __getitem__(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def shape(self, parent: int | None = None) -> Any:
        """Names, each with those below it, in the order of their start."""
        below = [s for s in self.spans if (s.parent.span_id if s.parent else None) == parent]
        return [(s.name, *self.shape(s.context.span_id)) for s in sorted(below, key=lambda s: s.start_time)]


@pytest.fixture
def tree_of() -> type[Tree]:
    """Make a tree of exported spans."""
    return Tree
