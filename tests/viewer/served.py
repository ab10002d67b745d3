"""A store with something in it, and the viewer over it on a port of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    with isolated(), save(path) as saving:
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
