"""Requests that nobody in their right mind sends: whatever comes is no error of the server, and the next one is answered."""

import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import asking, fill, running

from tracebus.outputs.store import Filter
from tracebus.viewer.serving import Server

pytestmark = [pytest.mark.once, pytest.mark.timeout(600)]

COUNTS = [100, pytest.param(1000, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store") / "traces.db"
    fill(store)
    with running(Server(store, port=0)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with asking(server) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_complained_about(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.WARNING)
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def run_many(count: int, test: Any) -> None:
    settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)(test)()


# -- questions ---------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBERS = st.integers().map(str) | st.floats().map(str) | st.sampled_from(["1e400", "-0", "0x10", "1_000", "٣", "9" * 5000])
VALUES = TEXT | NUMBERS | st.sampled_from(["@last", "", "s/1", "\0", '"', "%", "'; DROP TABLE runs; --", "NEAR(", "*", '"*"'])
NAMES = st.sampled_from([*Filter.__struct_fields__, "limit", "after", "q", "by", "grain", "left", "right", "since"]) | TEXT
QUERY = st.lists(st.tuples(NAMES, VALUES), max_size=5)
SEGMENTS = st.sampled_from(
    ["api", "traces", "runs", "sessions", "@last", "tree", "search", "statistics", "points", "compare", "static", "..", "."]
)
PATHS = st.lists(SEGMENTS | VALUES, max_size=6).map(lambda parts: "/" + "/".join(quote(part, safe="@") for part in parts))


@pytest.mark.parametrize("count", COUNTS)
def test_no_address_and_no_query_is_an_error_of_the_server(count: int, client: httpx.Client) -> None:
    @given(st.sampled_from(["GET", "HEAD", "POST", "DELETE"]), PATHS, QUERY)
    def test(method: str, path: str, query: list[tuple[str, str]]) -> None:
        if path.startswith("/api/events") or (method == "DELETE" and "session" in path):
            return
        answer = client.request(method, path, params=query)
        assert answer.status_code < 500
        assert "Traceback" not in answer.text

    run_many(count, test)


ROUTES = ["traces", "search", "sessions", "statistics", "points", "compare", "compare/runs", "processes", "traces/@last/tree"]


@pytest.mark.parametrize("count", COUNTS)
def test_a_route_answers_or_says_what_is_wrong(count: int, client: httpx.Client) -> None:
    @given(st.sampled_from(ROUTES), QUERY)
    def test(route: str, query: list[tuple[str, str]]) -> None:
        answer = client.get(f"/api/{route}", params=query)
        assert answer.status_code in (200, 400, 404)
        assert (answer.status_code == 200) == ("error" not in answer.json())

    run_many(count, test)


@pytest.mark.parametrize("count", COUNTS)
def test_no_search_is_an_error(count: int, client: httpx.Client) -> None:
    @given(st.text(max_size=60) | st.text('"*()^-+:{} NEARANDORT\0', max_size=30))
    def test(text: str) -> None:
        answer = client.get("/api/search", params={"q": text.encode("utf-8", "surrogatepass")})
        assert answer.status_code in (200, 400), answer.text

    run_many(count, test)


# -- bytes -------------------------------------------------------------------------------------------------------------


def answer_to(server: Server, request: bytes) -> bytes:
    """What comes back until the server has nothing to say for a while, or hangs up."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            raise
        except OSError:  # it hung up, perhaps while we were speaking
            pass
    return answer


HEADERS = st.lists(
    st.tuples(
        st.sampled_from("Host Origin Cookie Authorization Content-Length Transfer-Encoding Upgrade Connection Range".split())
        | st.sampled_from("Last-Event-ID If-None-Match Sec-Fetch-Site Accept-Encoding Content-Type Expect".split()),
        st.binary(max_size=30) | st.sampled_from([b"localhost", b"chunked", b"websocket", b"-1", b"null", b"\xff\xfe", b"*"]),
    ),
    max_size=6,
)
TARGETS = st.binary(max_size=40) | st.sampled_from(
    [b"/", b"*", b"//", b"http://evil.example/", b"/api/traces?%", b"/%ff", b"/\xff", b"/api/traces?limit=%zz", b"?", b"/a b"]
)
METHODS = st.sampled_from([b"GET", b"POST", b"DELETE", b"CONNECT", b"G\0T", b"get", b""])


@pytest.mark.parametrize("count", COUNTS)
def test_no_bytes_are_an_error_of_the_server(count: int, server: Server, client: httpx.Client) -> None:
    @given(METHODS, TARGETS, HEADERS, st.binary(max_size=50))
    def test(method: bytes, target: bytes, headers: list[tuple[str, bytes]], body: bytes) -> None:
        lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers)
        answer = answer_to(server, method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n" + body)
        assert not answer or answer.split(b" ")[1] < b"500", answer
        assert b"Traceback" not in answer

    run_many(count, test)
    assert client.get("/api/info").json()["traces"] == 5


NO_REQUESTS = {
    "nothing": b"",
    "zeros": b"\0" * 1000,
    "another version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "a long address": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body that never comes": b"POST /api/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx",
    "a chunk that never comes": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nx",
    "two lengths": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    "an origin of bytes": b"DELETE /api/traces/x HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\xfe\r\n\r\n",
    "a host of bytes": b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    "a cursor of bytes": b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \xff\r\n\r\n",
    "a token of bytes": b"GET /?token=%ff%00 HTTP/1.1\r\nHost: localhost\r\nCookie: \xff=\xfe; ;;=\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_REQUESTS)
def test_what_is_no_request_is_refused_or_left(what: str, server: Server, client: httpx.Client) -> None:
    answer = answer_to(server, NO_REQUESTS[what])
    assert not answer or answer.split(b" ")[1] < b"500"
    assert client.get("/api/info").json()["traces"] == 5


# -- by the description ------------------------------------------------------------------------------------------------


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.long)])
def test_every_answer_is_as_the_description_says(count: int, server: Server, client: httpx.Client) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/api/openapi.json").json())
    for operation in schema.get_all_operations():
        told = operation.ok()
        if told.method == "delete" or told.path == "/api/events":
            continue

        @given(case=told.as_strategy())
        def test(case: Any) -> None:
            answer = case.call(base_url=server.address)
            case.validate_response(answer, checks=CHECKS)

        run_many(count, test)
