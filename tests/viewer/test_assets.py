"""The files of the page: no path leads out of their folder, and what a browser has is not sent again."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from served import running
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tracebus.viewer import viewer
from tracebus.viewer.assets import FOLDER, MEDIA_TYPES, Assets
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(Server(tmp_path_factory.mktemp("store") / "traces.db", port=0)) as server:
        yield server.port


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(viewer(tmp_path / "traces.db"), "http://localhost")


def names() -> list[str]:
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())


def test_every_file_is_served_under_its_name_and_kind(client: TestClient) -> None:
    for name in names():
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200, name
        assert answer.content == (FOLDER / name).read_bytes()
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in {*MEDIA_TYPES.values(), "application/octet-stream"}
        assert kind != "application/octet-stream" or name.startswith("vendor/"), name


ESCAPES = [
    "../app.py",
    "../../cli/__init__.py",
    "..%2fapp.py",
    "..%2Fapp.py",
    "%2e%2e/app.py",
    "%2e%2e%2fapp.py",
    "..%5capp.py",
    "..\\app.py",
    "%252e%252e%252fapp.py",
    "....//app.py",
    "./../app.py",
    "index.html/../../app.py",
    "static/../../app.py",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "..;/app.py",
    "..%00/app.py",
    "index.html%00",
    "index.html%00.js",
    "%c0%ae%c0%ae/app.py",
    "%ef%bc%8e%ef%bc%8e/app.py",
    "C:/Windows/win.ini",
    "file:///etc/passwd",
    "INDEX.HTML ",
    "index.html/",
    ".",
    "..",
    "",
    "./index.html",
    "~/.ssh/id_rsa",
    "__init__.py",
    "../../../../../../../../../../../../etc/passwd",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_path_leaves_the_folder(name: str, port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.putrequest("GET", f"/static/{name}".replace(" ", "%20"))
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == 404
    assert b"import" not in body
    assert b"root:" not in body


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/static/index.html")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get("/static/index.html", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get("/static/index.html", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("one")
    assets = Assets(tmp_path)
    before = assets["a.js"]
    (tmp_path / "a.js").write_text("another")
    after = assets["a.js"]
    assert (before.body, after.body) == (b"one", b"another")
    assert before.etag != after.etag


def test_a_mounted_page_finds_its_files_and_says_where_it_is(tmp_path: Path) -> None:
    app = Starlette(routes=[Mount("/debug/runs", viewer(tmp_path / "traces.db"))])
    client = TestClient(app, "http://localhost")
    page = client.get("/debug/runs/").text
    assert '<meta name="root" content="/debug/runs">' in page
    assert '"/static/' not in page
    assert client.get("/debug/runs/static/index.html").status_code == 200
    assert client.get("/debug/runs/api/traces").json() == {"items": [], "after": None}
    assert client.get("/debug/runs/api/nothing").json()["error"]


def test_a_page_at_the_top_has_no_root(client: TestClient) -> None:
    assert '<meta name="root" content="">' in client.get("/").text
