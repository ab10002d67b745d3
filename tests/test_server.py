"""A real server whose clients come and go, sync and async endpoints, and a subscriber with a lock of the server's loop."""

import asyncio
import contextlib
import gc
import logging
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tracebus import current_run, flush, scope, subscribe, traced
from tracebus.runs import open_runs
from tracebus.signals import isolated

pytestmark = pytest.mark.alone

TOKENS = 60
START = {"llm_start"}
TERMINAL = {"llm_end", "llm_error"}


def words_of(client: int) -> list[str]:
    return [f"{client}:{number} " for number in range(TOKENS)]


@traced(kind="llm")
def answer(client: int) -> Iterator[str]:
    for words in words_of(client):
        threading.Event().wait(0.001)
        yield words


@traced(kind="llm")
async def answer_async(client: int) -> AsyncIterator[str]:
    for words in words_of(client):
        await anyio.sleep(0.001)
        yield words


async def endpoint_async(request: Request) -> StreamingResponse:
    client = int(request.path_params["client"])
    with scope(user_id=str(client)):
        return StreamingResponse(answer_async(client), media_type="text/plain")


def endpoint(request: Request) -> StreamingResponse:  # starlette calls it, and steps its stream, in worker threads
    client = int(request.path_params["client"])
    with scope(user_id=str(client)):
        return StreamingResponse(answer(client), media_type="text/plain")


class Server:
    """Uvicorn in a thread, with what its loop complained about."""

    def __init__(self) -> None:
        self.complaints: list[Any] = []
        self.heard: dict[str, list[tuple[str, str]]] = {}
        self.in_lock = 0
        self.subscription: Any = None
        app = Starlette(
            routes=[Route("/sync/{client}", endpoint), Route("/async/{client}", endpoint_async)], lifespan=self.lifespan
        )
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.uvicorn = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))

    async def serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.complaints.append(context))
        await self.uvicorn.serve(sockets=[self.socket])

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        lock = anyio.Lock()  # of the server's loop: useless, or worse, on any other

        async def record(sender: Any, event: Any) -> None:
            async with lock:
                self.in_lock += 1
                assert self.in_lock == 1
                await anyio.sleep(0)
                run = event.run
                assert current_run() is run
                self.heard.setdefault(f"{run.user_id}", []).append((event.signal_name, getattr(event, "token", run.status)))
                self.in_lock -= 1

        with subscribe(record, "llm_*", queue_size=100_000) as self.subscription:
            yield
            gc.collect()  # a stream that its client left may hang in a cycle with the exception that ended it

    def __enter__(self) -> "Server":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(30)
        self.socket.close()
        assert not self.thread.is_alive()


async def be_clients(address: str, count: int) -> dict[str, str]:
    """Stream from the server as many clients at once, a third of whom leave in the middle; return what each received."""
    received: dict[str, str] = {}
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=50, trust_env=False) as http:

        async def be_client(client: int) -> None:
            path = f"/{'sync' if client % 2 else 'async'}/{client}"
            got = received.setdefault(str(client), "")
            async with http.stream("GET", path) as response:
                async for chunk in response.aiter_text():
                    got += chunk
                    if client % 3 == 0 and len(got) > 3 * len(words_of(client)[0]):
                        break
            received[str(client)] = got

        async with anyio.create_task_group() as group:
            for client in range(count):
                group.start_soon(be_client, client)
    return received


@pytest.fixture(autouse=True)
def nobody_else_listens() -> Iterator[None]:
    with isolated():
        flush(5)
        yield
        flush(5)


def test_every_run_of_a_busy_server_is_recorded_and_nothing_complains(caplog: pytest.LogCaptureFixture) -> None:
    count = 300
    caplog.set_level(logging.WARNING)
    with Server() as server:
        received = asyncio.run(be_clients(server.address, count))
    flush(10)
    assert sorted(received) == sorted(map(str, range(count)))
    assert sorted(server.heard) == sorted(received)
    for client, got in received.items():
        said = server.heard[client]
        hooks = [hook for hook, _ in said]
        tokens = "".join(token for hook, token in said if hook == "llm_new_token")
        assert hooks[0] in START
        assert hooks[-1] in TERMINAL
        assert set(hooks[1:-1]) <= {"llm_new_token"}
        assert tokens.startswith(got)
        if int(client) % 3:
            assert got == "".join(words_of(int(client)))
            assert said[-1] == ("llm_end", "ok")
    statuses = Counter(server.heard[client][-1][1] for client in received if int(client) % 3 == 0)
    assert set(statuses) <= {"ok", "closed_early", "cancelled"}, statuses
    assert statuses["ok"] < 50, statuses  # of a hundred that were left, most noticed
    assert open_runs == set()
    assert server.complaints == []
    assert [record.getMessage() for record in caplog.records] == []
    counts = server.subscription.stats
    assert (counts.failed, counts.dropped, counts.pending) == (0, {}, 0)
    assert counts.delivered == counts.matched == sum(map(len, server.heard.values()))
