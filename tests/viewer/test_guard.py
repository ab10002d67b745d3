"""From where the viewer may be asked: under which name, and by which page."""

import http.client
from collections.abc import Iterator
from contextlib import closing

import pytest
from served import fill, running

from tracebus.viewer.guard import Hosts
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    store = tmp_path_factory.mktemp("store") / "traces.db"
    fill(store)
    with running(Server(store, port=0)) as server:
        yield server.port


def answer_to(port: int, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, str]:
    """The status and the body of what is asked with exactly these headers; `{port}` in them is the server's."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.format(port=port))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


KNOWN = ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}", "127.8.9.1", "localhost", "localhost:1"]
FOREIGN = [
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:{port}",
    "evil-localhost",
    "192.168.0.1:{port}",
    "10.1",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "2130706433",
    "0x7f.0.0.1",
    "127.1",
    "localhost:{port}@evil.example",
    "evil.example#localhost:{port}",
    "localhost:{port}, evil.example",
    "localhost:x",
    "localhost:",
    ":{port}",
    "[::1",
    "localhost evil.example",
    "127.0.0.1%0d",
    "\u217cocalhost",
    "",
]


@pytest.mark.parametrize("path", ["/", "/api/info", "/static/index.html", "/nowhere"])
@pytest.mark.parametrize("host", KNOWN)
def test_the_names_of_this_machine_are_known(host: str, path: str, port: int) -> None:
    assert answer_to(port, "GET", path, [("Host", host)])[0] == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize("path", ["/", "/api/info", "/static/index.html", "/nowhere"])
@pytest.mark.parametrize("host", FOREIGN)
def test_any_other_name_is_refused(host: str, path: str, port: int) -> None:
    status, body = answer_to(port, "GET", path, [("Host", host.encode().decode("latin-1"))])
    assert status == 400
    assert "six times seven" not in body


@pytest.mark.parametrize("headers", [[], [("Host", "localhost"), ("Host", "localhost")]])
def test_a_name_must_be_said_once(headers: list[tuple[str, str]], port: int) -> None:
    assert answer_to(port, "GET", "/api/info", headers)[0] == 400


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host"])
def test_what_a_proxy_says_is_not_believed(name: str, port: int) -> None:
    value = "host=localhost" if name == "Forwarded" else "localhost"
    assert answer_to(port, "GET", "/api/info", [("Host", "evil.example"), (name, value)])[0] == 400


HOSTS = Hosts(["Traces.Example.com"], any_address=True)


@pytest.mark.parametrize("name", ["traces.example.com", "TRACES.example.com", "192.168.0.7", "[fe80::1]", "localhost"])
def test_names_can_be_added_and_addresses_be_allowed(name: str) -> None:
    assert name in HOSTS


@pytest.mark.parametrize("name", ["example.com", "a.traces.example.com", "traces.example.com.", "192.168.7", "1.2.3.4.evil"])
def test_what_resembles_an_added_name_is_none(name: str) -> None:
    assert name not in HOSTS


HERE = ("Host", "127.0.0.1:{port}")
FOREIGN_ORIGINS = [
    "http://evil.example",
    "https://evil.example:{port}",
    "http://127.0.0.1:1",
    "http://127.0.0.1",
    "http://localhost:{port}",  # another origin, of whom nobody knows whose it is
    "https://127.0.0.1",
    "http://127.0.0.1.evil.example:{port}",
    "http://evil.example/127.0.0.1:{port}",
    "http://127.0.0.1:{port}@evil.example",
    "file://",
    "null",
    "moz-extension://127.0.0.1:{port}",
    "chrome-extension://abc",
    "127.0.0.1:{port}",
    "http://[",
    "http://127.0.0.1:99999999",
    "",
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"])
@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_page_of_another_origin_is_refused(origin: str, method: str, port: int) -> None:
    status, body = answer_to(port, method, "/api/traces", [HERE, ("Origin", origin)])
    assert status == 403
    assert "another origin" in body


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_a_page_of_another_site_is_refused_also_without_an_origin(method: str, site: str, port: int) -> None:
    headers = [HERE, ("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "no-cors")]
    assert answer_to(port, method, "/api/traces", headers)[0] == 403


def test_nothing_is_deleted_by_another_page(port: int) -> None:
    before = answer_to(port, "GET", "/api/traces", [HERE])
    trace = before[1].partition('"trace_id":"')[2][:32]
    assert len(trace) == 32
    for header in (("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")):
        assert answer_to(port, "DELETE", f"/api/traces/{trace}", [HERE, header])[0] == 403
    assert answer_to(port, "GET", "/api/traces", [HERE]) == before


def link(dest: str = "document", mode: str = "navigate") -> list[tuple[str, str]]:
    return [HERE, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]


@pytest.mark.parametrize("path", ["/", "/traces/@last", "/sessions"])
def test_any_page_may_link_to_a_page(path: str, port: int) -> None:
    assert answer_to(port, "GET", path, link())[0] in (200, 307)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/api/info", link()),
        ("GET", "/", link("iframe")),
        ("GET", "/", link("embed")),
        ("GET", "/static/index.html", link("script", "no-cors")),
        ("POST", "/", link()),
    ],
)
def test_no_page_may_do_more_than_link(method: str, path: str, headers: list[tuple[str, str]], port: int) -> None:
    assert answer_to(port, method, path, headers)[0] == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_page_itself_may_ask(site: str, port: int) -> None:
    headers = [HERE, ("Origin", "http://127.0.0.1:{port}"), ("Sec-Fetch-Site", site)]
    assert answer_to(port, "GET", "/api/info", headers)[0] == 200
    assert answer_to(port, "DELETE", f"/api/traces/{'0' * 32}", headers)[0] == 404


def test_behind_a_proxy_the_origin_is_that_of_the_name(port: int) -> None:
    headers = [("Host", "localhost"), ("Origin", "https://localhost")]
    assert answer_to(port, "GET", "/api/info", headers)[0] == 200


UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@pytest.mark.parametrize("path", ["/", "/api/events", "/api/info"])
@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_web_socket_of_another_origin_is_refused(origin: str, path: str, port: int) -> None:
    assert answer_to(port, "GET", path, [HERE, ("Origin", origin), *UPGRADE])[0] == 403


def test_every_answer_keeps_the_browser_in_bounds(port: int) -> None:
    for path in ("/", "/api/info", "/nowhere", "/api/nowhere", "/static/index.html"):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", path)
            headers = connection.getresponse().headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")
        assert "Access-Control-Allow-Origin" not in headers
