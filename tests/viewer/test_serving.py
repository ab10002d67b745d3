"""Serving: which address, which port, what `tracebus ui` prints, and what it does when the port is in use."""

import os
import re
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import asking, running

from tracebus.errors import ArgumentError
from tracebus.links import HOST, PORT
from tracebus.outputs.store import Reader
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once


@contextmanager
def started(store: Path, *options: str, env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tracebus ui`, and the address that it prints."""
    command = [sys.executable, "-W", "error", "-m", "tracebus", "ui", "--db", str(store), *options]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def taken(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((host, port)) as listener:
        yield listener.getsockname()[1]


def test_it_listens_on_loopback_unless_it_is_told_otherwise(store: Path, serve: Callable[..., Server]) -> None:
    server = serve(store)
    assert server._socket.getsockname()[0] == HOST == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.port}"
    assert server.token is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3"])
def test_loopback_has_several_names(host: str, store: Path, serve: Callable[..., Server]) -> None:
    server = serve(store, host=host)
    assert server.token is None
    with asking(server) as client:
        assert client.get("/api/info").status_code == 200


def test_loopback_has_an_address_of_version_6(store: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        server = Server(store, host="::1", port=0)
    except ArgumentError:
        pytest.skip("no IPv6 loopback")
    with running(server), asking(server) as client:
        assert server.address.startswith("http://[::1]:")
        assert client.get("/api/info").status_code == 200


def test_a_port_in_use_is_passed_over(store: Path, serve: Callable[..., Server]) -> None:
    with taken() as port:
        server = serve(store, port=port)
        assert port < server.port < port + 20
        with asking(server) as client:
            assert client.get("/api/info").status_code == 200


def test_a_port_is_free_again_at_once(store: Path) -> None:
    server = Server(store, port=0)
    with running(server), asking(server) as client:
        client.get("/")
    again = Server(store, port=server.port)
    assert again.port == server.port
    again.close()


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_is_none_is_told(port: int, store: Path) -> None:
    with pytest.raises(ArgumentError, match="port"):
        Server(store, port=port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.7", "a" * 100 + ".invalid", "bücher..invalid"])
def test_a_host_that_is_none_is_told(host: str, store: Path) -> None:
    with pytest.raises(ArgumentError, match=r"host=|listen"):
        Server(store, host=host, port=0)


def test_the_server_says_nothing_of_itself(ask: httpx.Client) -> None:
    assert "Server" not in ask.get("/").headers


# -- tracebus ui -------------------------------------------------------------------------------------------------------


def test_the_command_prints_where_it_is_and_says_when_the_port_is_another(store: Path, clean_env: dict[str, str]) -> None:
    with taken() as port, started(store, "--port", str(port), env=clean_env) as (process, address):
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)
        assert found
        assert int(found[1]) > port
        assert httpx.get(address, trust_env=False).status_code == 200
        assert f"port {port} is in use: taking {found[1]}" in process.stderr.readline()
        assert str(store) in process.stderr.readline()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_quietly(how: signal.Signals, store: Path, clean_env: dict[str, str]) -> None:
    with started(store, "--port", "0", env=clean_env) as (process, address):
        with httpx.Client(trust_env=False) as client, client.stream("GET", f"{address}api/events") as response:
            next(response.iter_lines())
            process.send_signal(how)
            _, complained = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM)
        assert complained.splitlines() == [f"shows {store}, Ctrl-C ends"]


def test_the_command_begins_with_a_trace(store: Path, clean_env: dict[str, str]) -> None:
    with Reader(store) as reader:
        trace = reader.resolve("@last")
    with started(store, "@last", "--port", "0", env=clean_env) as (_, address):
        assert address.endswith(f"/traces/{trace}")
        assert httpx.get(address, trust_env=False).status_code == 200


def test_the_command_serves_what_is_not_there_yet(path: Path, clean_env: dict[str, str]) -> None:
    with started(path, "--port", "0", env=clean_env) as (_, address):
        assert httpx.get(address, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["ffff"], 1, "no trace 'ffff'"),
        (["not hex"], 2, "is no id"),
        (["--host", "no.such.host.invalid"], 2, "no address"),
        (["--host", "0.0.0.0", "--token", "letmein"], 2, "128 bits"),
        (["--port", "x"], 2, "port"),
        (["--port", "70000"], 2, "port"),
    ],
)
def test_a_wrong_call_is_told(
    options: list[str], code: int, told: str, store: Path, run_python: Callable[..., Any], clean_env: dict[str, str]
) -> None:
    done = run_python("-m", "tracebus", "ui", "--db", store, *options, check=False)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "letmein" not in done.stderr


def test_another_address_comes_with_a_token_in_the_address_that_is_printed(store: Path, clean_env: dict[str, str]) -> None:
    with started(store, "--host", "0.0.0.0", "--port", "0", "--allow-host", "t.example", env=clean_env) as (_, address):
        found = re.fullmatch(r"http://[^/]+:(\d+)/\?token=([\w-]{43})", address)
        assert found, address
        here = f"http://127.0.0.1:{found[1]}"
        with httpx.Client(base_url=here, trust_env=False) as client:
            assert client.get("/").status_code == 401
            client.get("/", params={"token": found[2]})
            assert client.get("/api/info").status_code == 200
            for host, status in {"t.example": 200, socket.gethostname(): 200, "192.168.0.9": 200, "evil.example": 400}.items():
                headers = {"Host": f"{host}:{found[1]}", "Authorization": f"Bearer {found[2]}"}
                assert client.get("/api/info", headers=headers).status_code == status


def test_a_token_that_the_user_knows_is_not_printed(store: Path, clean_env: dict[str, str]) -> None:
    env = clean_env | {"TRACEBUS_UI_TOKEN": "xJ3kQ9vT2mZ8pL5wR7yB4nH6"}
    with started(store, "--port", "0", env=env) as (_, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert httpx.get(address, trust_env=False).status_code == 401


def test_the_browser_is_opened_without_a_token_in_its_command_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    plain, guarded = Server(store, port=0), Server(store, port=0, token="xJ3kQ9vT2mZ8pL5wR7yB4nH6")
    for server in (plain, guarded):
        with server.shown_in_browser("/sessions") as opening:
            opening.join(10)
            if server is guarded:
                file = Path(opened[-1].removeprefix("file://"))
                assert server.address_of("/sessions", with_token=True) in file.read_text()
                if os.name == "posix":
                    assert file.stat().st_mode & 0o077 == 0
        server.close()
    assert opened[0] == plain.address_of("/sessions")
    assert "token" not in opened[1]
    assert not file.exists()


@pytest.mark.parametrize("library", ["starlette", "sse_starlette", "uvicorn"])
def test_without_the_extra_the_command_says_what_to_install(library: str, run_python: Callable[..., Any]) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from tracebus.cli import main; sys.exit(main(['ui']))"
    done = run_python("-c", code, check=False)
    assert done.returncode == 1
    assert 'pip install "tracebus[viewer]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_usual_address_is_the_one_that_log_lines_lead_to() -> None:
    assert (HOST, PORT) == ("127.0.0.1", 8287)
