"""Requests say which run they are made in, to those whom it concerns; what serves them continues the trace."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests

from tracebus import extract, flush, scope, trace
from tracebus.errors import ArgumentError
from tracebus.integrations.http import trace_headers, trace_middleware
from tracebus.outputs.store import Reader, save

pytestmark = pytest.mark.once

Seen = list[tuple[str, dict[str, str]]]

OWN = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "a=1"}


class Handler(BaseHTTPRequestHandler):
    """Remembers what it was asked, and redirects from /to/HOST to there."""

    def do_GET(self) -> None:
        names = ("traceparent", "tracestate", "baggage")
        host = self.headers["host"].partition(":")[0]
        self.server.seen.append((host, {name: self.headers[name] for name in names if name in self.headers}))  # type: ignore[attr-defined]
        match = re.fullmatch(r"/to/(.+)", self.path)
        self.send_response(302 if match else 200)
        if match:
            self.send_header("Location", f"http://{match[1]}:{self.server.server_address[1]}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Service:
    """A server that is reached by two names."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.seen = self.seen  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,))  # how often it looks whether to stop, in seconds
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


Get = Callable[..., Any]


async def get_with_httpx(url: str, headers: dict[str, str], **options: Any) -> None:
    with trace_headers(httpx.Client(trust_env=False, follow_redirects=True), **options) as client:
        client.get(url, headers=headers)


async def get_with_httpx2(url: str, headers: dict[str, str], **options: Any) -> None:
    with trace_headers(httpx2.Client(trust_env=False, follow_redirects=True), **options) as client:
        client.get(url, headers=headers)


async def get_with_async_httpx(url: str, headers: dict[str, str], **options: Any) -> None:
    async with trace_headers(httpx.AsyncClient(trust_env=False, follow_redirects=True), **options) as client:
        await client.get(url, headers=headers)


async def get_with_async_httpx2(url: str, headers: dict[str, str], **options: Any) -> None:
    async with trace_headers(httpx2.AsyncClient(trust_env=False, follow_redirects=True), **options) as client:
        await client.get(url, headers=headers)


async def get_with_requests(url: str, headers: dict[str, str], **options: Any) -> None:
    with trace_headers(requests.Session(), **options) as session:
        session.trust_env = False
        session.get(url, headers=headers)


async def get_with_aiohttp(url: str, headers: dict[str, str], **options: Any) -> None:
    async with aiohttp.ClientSession(middlewares=[trace_middleware(**options)]) as session:
        await (await session.get(url, headers=headers)).read()


@pytest.fixture(
    params=[
        get_with_httpx,
        get_with_httpx2,
        get_with_async_httpx,
        get_with_async_httpx2,
        get_with_requests,
        get_with_aiohttp,
    ]
)
def get(request: pytest.FixtureRequest, anyio_backend_name: str) -> Get:
    if request.param is get_with_aiohttp and anyio_backend_name == "trio":
        return get_with_httpx  # aiohttp is for asyncio alone
    return request.param


async def test_a_request_says_which_run_it_is_made_in_and_nothing_of_its_user(service: Service, get: Get) -> None:
    with scope(session_id="s-1", user_id="u-1", tags=["t"]), trace("client") as run:
        await get(service.url, {})
    assert service.seen == [("127.0.0.1", {"traceparent": f"00-{run.trace_id.hex}-{run.span_id:016x}-01"})]


async def test_hosts_that_are_named_hear_of_session_and_user(service: Service, get: Get) -> None:
    with scope(session_id="s-1", user_id="u-1"), trace("client"):
        await get(service.url, {"baggage": "a=1"}, to=[], baggage_to=["127.*"])
    ((_, headers),) = service.seen
    assert headers["baggage"] == "tracebus.session_id=s-1,tracebus.user_id=u-1,a=1"
    assert "traceparent" in headers


async def test_hosts_that_are_not_named_get_what_the_app_has_written(service: Service, get: Get) -> None:
    with scope(user_id="u-1"), trace("client"):
        await get(service.url, OWN, to=["api.example.com"], baggage_to=["*.internal"])
    assert service.seen == [("127.0.0.1", OWN)]


@pytest.mark.parametrize("own", [{}, OWN])
async def test_a_redirect_takes_nothing_to_where_it_may_not_go(own: dict[str, str], service: Service, get: Get) -> None:
    with scope(user_id="u-1"), trace("client") as run:
        await get(f"{service.url}/to/localhost", own, to=["127.0.0.1"], baggage_to=["127.0.0.1"])
    (first, told), (second, elsewhere) = service.seen
    assert (first, second) == ("127.0.0.1", "localhost")
    assert told["traceparent"] == f"00-{run.trace_id.hex}-{run.span_id:016x}-01"
    assert "tracebus.user_id=u-1" in told["baggage"]
    assert elsewhere == own


async def test_outside_of_everything_nothing_is_written(service: Service, get: Get) -> None:
    await get(service.url, {}, baggage_to=["*"])
    assert service.seen == [("127.0.0.1", {})]


async def test_what_came_from_outside_is_passed_on(service: Service, get: Get) -> None:
    incoming = OWN | {"tracestate": "v=1"}
    with extract(incoming):
        await get(service.url, {}, baggage_to=["*"])
    assert service.seen == [("127.0.0.1", incoming)]


async def test_hooks_that_the_app_has_are_kept(service: Service) -> None:
    asked: list[str] = []
    with trace_headers(httpx.Client(trust_env=False, event_hooks={"request": [lambda r: asked.append(str(r.url))]})) as client:
        client.get(service.url)
    assert asked == [service.url]


def test_what_is_no_client_is_told_so() -> None:
    with pytest.raises(ArgumentError, match="clients of httpx and sessions of requests"):
        trace_headers(object())
    with httpx.Client() as client, pytest.raises(ArgumentError, match=r"give a list of hosts, to=\['a'\]"):
        trace_headers(client, to="a")


async def test_a_session_of_aiohttp_is_told_what_to_do(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        return
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ArgumentError, match=r"middlewares=\[trace_middleware\(\)\]"):
            trace_headers(session)


# -- two processes -----------------------------------------------------------------------------------------------------

SERVER = """
import socket, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tracebus import traced
from tracebus.outputs.store import save
from tracebus.propagation import TraceMiddleware

save(sys.argv[1])

@traced(kind="llm")
async def generate(question):
    yield "An answer "
    yield "to " + question

@traced
async def serve(request):
    return StreamingResponse(generate(request.query_params["q"]))

async def stop(request):
    server.should_exit = True
    return Response()

app = TraceMiddleware(Starlette(routes=[Route("/", serve), Route("/stop", stop)]))
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
server.run(sockets=[listening])
"""


def test_two_processes_make_one_trace_in_one_store(clean_env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    command = [sys.executable, "-c", SERVER, str(path)]
    server = subprocess.Popen(command, env=clean_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    saving = save(path)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        client = trace_headers(httpx.Client(trust_env=False), baggage_to=["127.0.0.1"])
        with client, scope(session_id="s-1", user_id="u-1", tags=["web"]), trace("ask") as run:
            assert client.get(url, params={"q": "q"}).text == "An answer to q"
        httpx.get(f"{url}stop", trust_env=False)
        _, complaints = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
        flush()
        saving.close()
    assert complaints == ""
    with Reader(path) as store:
        (latest,) = store.traces()
        rows = [(row.depth, row.run.name, row.run.status) for row in store.tree(latest.trace_id)]
        served = next(row.run for row in store.tree(latest.trace_id) if row.run.name == "serve")
    assert latest.trace_id == run.trace_id.hex
    assert rows == [(0, "ask", "ok"), (1, "serve", "ok"), (2, "generate", "ok")]
    assert (served.session_id, served.user_id, tuple(served.tags)) == ("s-1", "u-1", ("web",))
