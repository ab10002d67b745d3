"""Who may ask when others can reach the viewer: what is a token, and how it is shown, kept and never told."""

import hashlib
import logging
import re
import secrets
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvicorn
from served import asking, running
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tracebus.errors import ArgumentError
from tracebus.viewer import viewer
from tracebus.viewer.gate import checked_token, new_token
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once

TOKEN = "xJ3kQ9vT2mZ8pL5wR7yB4nH6"
WRONG = "xJ3kQ9vT2mZ8pL5wR7yB4nH7"


@pytest.fixture
def client(store: Path, serve: Callable[..., Server]) -> httpx.Client:
    with asking(serve(store, token=TOKEN)) as client:
        yield client


def test_a_token_of_128_bits_is_one() -> None:
    for token in (TOKEN, secrets.token_hex(16), secrets.token_urlsafe(16), "0123456789" * 4, new_token()):
        assert checked_token(token) == token


@pytest.mark.parametrize(
    "token",
    ["", "sesame", "hunter2hunter2", "a" * 40, "ab" * 30, "0123456789" * 3, "0123456789abcde" * 2, "xJ3kQ9vT2mZ8pL5wR7yB4"],
)
def test_a_token_that_is_easy_to_guess_is_none(token: str) -> None:
    with pytest.raises(ArgumentError, match="token") as raised:
        checked_token(token)
    assert not token or token not in str(raised.value)


@pytest.mark.parametrize("character", [" ", ";", "\n", '"', "ä", "\0", "&"])
def test_a_token_that_no_cookie_can_have_is_none(character: str) -> None:
    with pytest.raises(ArgumentError, match="letters, digits"):
        checked_token(TOKEN + character)


def test_a_new_token_has_128_bits_and_is_new() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert re.fullmatch(r"[\w-]{43}", new_token())


def test_the_token_in_the_address_becomes_a_cookie(client: httpx.Client) -> None:
    answer = client.get("/traces/@last", params={"a": "b c", "token": TOKEN})
    assert answer.status_code == 200
    assert 'content="0; url=/traces/%40last?a=b+c"' in answer.text
    assert TOKEN not in answer.text
    cookie = answer.headers["Set-Cookie"]
    assert TOKEN in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert client.get("/traces/@last", follow_redirects=True).status_code == 200
    assert client.get("/api/info").status_code == 200


def test_what_the_address_leads_to_is_no_other_host(client: httpx.Client) -> None:
    for path in ("//evil.example/", "/%2Fevil.example/", "/%5Cevil.example", "/\\evil.example"):
        page = client.get(f"{path}?token={TOKEN}").text
        (target,) = re.findall(r"url=([^\"]*)\"", page)
        assert re.fullmatch(r"/|/[^/\\].*", target), target


def test_a_token_that_goes_through_an_address_is_escaped_in_the_page(client: httpx.Client) -> None:
    page = client.get("/%22%3E%3Cscript%3Ealert(1)%3C/script%3E", params={"x": '"><script>', "token": TOKEN}).text
    assert "<script" not in page


ADDRESSES = "/ /api/info /api/traces /api/events /api/openapi.json /static/index.html /traces/@last /nowhere".split()


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"Authorization": f"Bearer {WRONG}"}, ""),
        ({"Authorization": f"Basic {TOKEN}"}, ""),
        ({"Authorization": TOKEN}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Cookie": f"token={TOKEN}; tracebus={TOKEN}"}, ""),
        ({}, f"?token={WRONG}"),
        ({}, "?token="),
        ({}, f"?token={TOKEN}&token={WRONG}"),
        ({}, f"?TOKEN={TOKEN}"),
        ({}, "?token=%ff%fe"),
        ({"Authorization": "Bearer \xff"}, ""),
    ],
)
def test_without_the_token_nothing_is_told(headers: dict[str, str], query: str, client: httpx.Client) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    for address in ADDRESSES:
        answer = client.get(address + query, headers=encoded)
        assert answer.status_code == 401
        assert "token" in answer.text
        assert TOKEN not in answer.text
        assert "Set-Cookie" not in answer.headers
    assert client.delete("/api/traces/" + "0" * 32, headers=encoded).status_code == 401


def test_who_is_refused_is_shown_a_page_whose_policy_lets_nothing_but_its_own_style(client: httpx.Client) -> None:
    answer = client.get("/")
    (style,) = re.findall(r"<style>(.*)</style>", answer.text, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert not {"script-src", "img-src", "connect-src"} & set(policy)


def test_who_is_refused_is_told_what_and_then_what_to_do(client: httpx.Client) -> None:
    page = client.get("/").text
    assert "<h1>This viewer wants its token</h1><p>Open the address that <code>tracebus ui</code> printed.</p>" in page


def test_a_wrong_token_in_the_address_is_wrong_whatever_else_is_shown(client: httpx.Client) -> None:
    assert client.get("/", params={"token": WRONG}, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401


def test_a_program_shows_the_token_as_a_bearer(client: httpx.Client) -> None:
    assert client.get("/api/info", headers={"Authorization": f"bearer {TOKEN}"}).json()["traces"] == 5


def test_a_browser_that_was_sent_here_by_another_site_is_shown_how_to_go_on(client: httpx.Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = client.get("/traces/@last", headers=headers)
    assert answer.status_code == 401
    assert '<a href="">' in answer.text


def test_the_cookies_of_two_viewers_are_two(store: Path, serve: Callable[..., Server]) -> None:
    names = set()
    for token in (TOKEN, WRONG):
        with asking(serve(store, token=token)) as client:
            client.get("/", params={"token": token})
            names.update(client.cookies)
    assert len(names) == 2


def test_a_mounted_viewer_keeps_its_cookie_to_itself(store: Path) -> None:
    app = Starlette(routes=[Mount("/debug/runs", viewer(store, token=TOKEN))])
    client = TestClient(app, "https://localhost")
    answer = client.get("/debug/runs/sessions", params={"token": TOKEN})
    assert 'url=/debug/runs/sessions"' in answer.text
    assert {"Path=/debug/runs", "Secure"} <= set(answer.headers["Set-Cookie"].split("; "))
    assert client.get("/debug/runs/api/info").json()["traces"] == 5


@pytest.mark.parametrize("origin", [None, "http://localhost", "http://evil.example"])
def test_there_is_no_web_socket_where_a_server_knows_them(origin: str | None, store: Path) -> None:
    client = TestClient(viewer(store), "http://localhost")
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events", headers=headers):
        pass


def test_the_log_of_whoever_serves_the_app_has_no_token(
    store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    server = Server(store, port=0, token=TOKEN)
    server._server = uvicorn.Server(uvicorn.Config(server._app, log_config=None, lifespan="off"))
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    caplog.set_level(logging.INFO, "uvicorn.access")
    with running(server), asking(server) as client:
        for query in (f"?token={TOKEN}", f"?a=b&token={TOKEN}", f"?token={WRONG}"):
            client.get(f"/sessions{query}")
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len([line for line in lines if "/sessions" in line]) == 3
    assert not [line for line in lines if TOKEN in line or WRONG in line]


def test_neither_an_error_nor_a_request_writes_the_token_anywhere(store: Path, clean_env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tracebus", "ui", "--db", str(store), "--port", "0"]
    with subprocess.Popen(
        command, env=clean_env | {"TRACEBUS_UI_TOKEN": TOKEN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            with httpx.Client(base_url=address, trust_env=False) as client:
                assert client.get("/api/info").status_code == 401
                assert client.get("/", params={"token": TOKEN}).status_code == 200
                assert client.get("/api/traces", params={"limit": "x"}).status_code == 400
        finally:
            process.terminate()
        said, complained = process.communicate(timeout=30)
    assert TOKEN not in address + said + complained
    assert "Traceback" not in complained


def test_another_address_than_loopback_has_a_token_whether_or_not_one_is_given(store: Path) -> None:
    server = Server(store, host="0.0.0.0", port=0)
    assert server.token is not None
    with running(server), httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{server.port}") as client:
        assert client.get("/api/info").status_code == 401
        assert client.get("/api/info", headers={"Authorization": f"Bearer {server.token}"}).status_code == 200


def test_a_weak_token_is_refused_before_anything_is_served(store: Path) -> None:
    with pytest.raises(ArgumentError, match="128 bits"):
        Server(store, host="0.0.0.0", port=0, token="letmein")
