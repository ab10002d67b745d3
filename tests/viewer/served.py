"""A store with something in it, and the viewer over it on a port of its own."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tracebus import Usage, current_run, scope, trace, traced
from tracebus.outputs.store import save
from tracebus.signals import isolated
from tracebus.viewer.serving import Server

SECRET = "sk-proj-cAnArY0123456789cAnArY0123456789"


@traced(kind="llm")
def generate(prompt: str) -> Iterator[str]:
    yield from ("Forty", "-two", ".")
    run = current_run()
    run.model, run.usage = "gpt-4o-mini", Usage(1000, 10)


@traced
def answer(question: str) -> str:
    with trace("search", kind="retriever", inputs={"query": question}) as run:
        run.output = [{"content": "a", "score": 0.5}]
    return "".join(generate(f"Q: {question}"))


def fail(message: str = "no such currency") -> None:
    with pytest.raises(ValueError, match=message), trace("rate", kind="tool", inputs={"code": "XX"}):
        raise ValueError(message)


def fill(path: Path) -> None:
    """Put into a store: a conversation of three, a failure, and a run that was given a secret."""
    with isolated(), save(path, keep_days=None) as saving:
        for question in ("What is six times seven?", "Why?", "Who says so?"):
            with scope(session_id="s/1", user_id="u-1", tags=["prod"]):
                answer(question)
        fail()
        answer(f"My key is {SECRET}")
        assert saving.flush()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def asking(server: Server, **options: Any) -> Iterator[httpx.Client]:
    # Nothing is kept open: a server hangs up on who is idle, at the moment, perhaps, at which it is asked again.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=server.address, trust_env=False, timeout=30, limits=limits, **options) as client:
        yield client


class Event(NamedTuple):
    """One event of a stream, as a browser gets it."""

    name: str
    id: str
    data: Any


def events_of(response: httpx.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


@contextmanager
def listening(client: httpx.Client, **options: Any) -> Iterator[Iterator[Event]]:
    with client.stream("GET", "/api/events", **options) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield events_of(response)


def until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    """Wait for what happens in another thread or process, where nothing tells of it."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def open_pages(server: Server, count: int) -> Iterator[list[int]]:
    """Pages that listen, and that at each change ask for what they show; yields how many changes each has heard of."""
    heard = [0] * count
    stop = threading.Event()

    def look(number: int) -> None:
        with asking(server) as client, listening(client) as events:
            for _ in events:
                if stop.is_set():
                    return
                heard[number] += 1
                for path in ("/api/traces", "/api/traces/@last/tree"):
                    client.get(path, params={"limit": 50})

    pages = [threading.Thread(target=look, args=(number,)) for number in range(count)]
    for page in pages:
        page.start()
    try:
        until(lambda: server._app.state.live.listeners == count)
        yield heard
    finally:
        stop.set()
        with asking(server) as client:  # what changes tells them to go
            client.delete(f"/api/traces/{client.get('/api/traces/@last').json()['trace_id']}")
        for page in pages:
            page.join(30)
        assert not any(page.is_alive() for page in pages)
