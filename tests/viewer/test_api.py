"""What the viewer answers, route by route, over a real server and a real store."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from served import SECRET, answer, asking, fill, running

from tracebus import scope
from tracebus.outputs.store import Filter, Reader, delete, save
from tracebus.outputs.store.schema import MIGRATIONS
from tracebus.signals import isolated
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    store = tmp_path_factory.mktemp("store") / "traces.db"
    fill(store)
    with Reader(store) as reader:
        yield reader


@pytest.fixture(scope="module")
def client(reader: Reader) -> Iterator[httpx.Client]:
    """A client that reads only: the store is one for all tests."""
    with running(Server(reader, port=0)) as server, asking(server) as client:
        yield client


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(f"/api{path}", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


def as_told(value: Any) -> Any:
    """What JSON makes of an answer of the reader."""
    return json.loads(msgspec.json.encode(value))


# -- every route -------------------------------------------------------------------------------------------------------


def test_info_says_what_the_store_holds_and_who_shows_it(client: httpx.Client, reader: Reader) -> None:
    info = get(client, "/info")
    assert info.pop("version")
    assert info | {"size_bytes": 0} == as_told(reader.info()) | {"size_bytes": 0}
    assert info["traces"] == 5


def test_choices_say_what_there_is_to_filter_by(client: httpx.Client, reader: Reader) -> None:
    assert get(client, "/choices") == as_told(reader.choices())


def test_traces_come_in_pages_the_latest_first(client: httpx.Client, reader: Reader) -> None:
    first = get(client, "/traces", limit=3)
    second = get(client, "/traces", limit=3, after=first["after"])
    assert first["items"] + second["items"] == as_told(reader.traces().items)
    assert second["after"] is None


FILTERS = {
    "project": "default",
    "kind": "retriever",
    "model": "gpt-4o-mini",
    "name": "search",
    "status": "error",
    "tag": "prod",
    "session_id": "s/1",
    "user_id": "u-1",
    "min_duration_s": "0.0001",
    "max_duration_s": "10",
    "min_tokens": "1",
    "max_tokens": "1009",
    "min_cost": "0.0001",
    "max_cost": "0.01",
    "since_ns": "1000",
    "until_ns": "1000",
}


@pytest.mark.parametrize("field", Filter.__struct_fields__)
def test_traces_and_runs_are_filtered_by_every_field(field: str, client: httpx.Client, reader: Reader) -> None:
    wanted = msgspec.convert({field: FILTERS[field]}, Filter, strict=False)
    query = {field: FILTERS[field]}
    assert get(client, "/traces", **query)["items"] == as_told(reader.traces(wanted).items)
    assert get(client, "/search", q="seven", **query)["items"] == as_told(reader.search("seven", wanted).items)


def test_a_parameter_without_a_value_says_nothing(client: httpx.Client) -> None:
    assert get(client, "/traces", kind="", limit="", after="", min_cost="") == get(client, "/traces")


def test_search_finds_runs_by_their_words(client: httpx.Client) -> None:
    found = get(client, "/search", q='"six times" seven')["items"]
    assert [run["name"] for run in found] == ["generate", "search", "answer"]


def test_a_trace_is_found_by_its_id_by_its_beginning_and_as_the_last(client: httpx.Client, reader: Reader) -> None:
    (last,) = reader.traces(limit=1)
    for given in (last.trace_id, last.trace_id[:31], "@last"):
        assert get(client, f"/traces/{given}") == as_told(last)


def test_a_tree_comes_in_pages(client: httpx.Client, reader: Reader) -> None:
    first = get(client, "/traces/@last/tree", limit=2)
    second = get(client, "/traces/@last/tree", limit=2, after=first["after"])
    assert first["items"] + second["items"] == as_told(reader.tree("@last").items)
    assert [row["depth"] for row in first["items"] + second["items"]] == [0, 1, 1]


def test_failures_are_told(client: httpx.Client) -> None:
    (trace,) = get(client, "/traces", status="error")["items"]
    (run,) = get(client, f"/traces/{trace['trace_id']}/failures")
    assert (run["name"], run["error"]) == ("rate", "ValueError: no such currency")


def test_a_run_is_told_with_all_that_is_known_of_it(client: httpx.Client, reader: Reader) -> None:
    generate = next(row.run for row in reader.tree("@last") if row.run.name == "generate")
    told = get(client, f"/traces/@last/runs/{generate.span_id}")
    assert told == as_told(reader.run("@last", generate.span_id))
    assert [step["text"] for step in told["steps"]] == ["Forty", "-two", "."]
    assert get(client, f"/traces/@last/runs/{generate.run_id}") == told


def test_sessions_are_listed(client: httpx.Client, reader: Reader) -> None:
    assert get(client, "/sessions")["items"] == as_told(reader.sessions().items)
    assert get(client, "/sessions", user_id="somebody")["items"] == []


def test_a_session_is_a_conversation_the_oldest_turn_first(client: httpx.Client) -> None:
    first = get(client, "/sessions/s%2F1", limit=2)
    second = get(client, "/sessions/s/1", limit=2, after=first["traces"]["after"])
    turns = first["traces"]["items"] + second["traces"]["items"]
    assert [turn["root"]["body"]["inputs"] for turn in turns] == [
        {"question": "What is six times seven?"},
        {"question": "Why?"},
        {"question": "Who says so?"},
    ]
    assert [turn["trace"]["trace_id"] for turn in turns] == [turn["root"]["run"]["trace_id"] for turn in turns]
    assert (first["session"]["session_id"], first["session"]["traces"]) == ("s/1", 3)
    assert second["traces"]["after"] is None


@pytest.mark.parametrize("session", ["a/b", "a\nb", "a b?c#d%2F", "..a", "ö", "a\\b", "runs/tree"])
def test_a_session_may_be_called_anything(session: str, path: Path, serve: Callable[..., Server]) -> None:
    with isolated(), save(path) as saving, scope(session_id=session):
        answer("Why?")
        assert saving.flush()
    with asking(serve(path)) as client:
        assert get(client, f"/sessions/{quote(session, safe='')}")["session"]["session_id"] == session
        assert client.get(f"/sessions/{quote(session, safe='')}").status_code == 200
        assert client.delete(f"/api/sessions/{quote(session, safe='')}").json()["removed"]["traces"] == 1


def test_statistics_are_told_by_what_is_asked_for(client: httpx.Client, reader: Reader) -> None:
    told = client.get("/api/statistics?by=name&by=kind&kind=llm").json()
    assert told == as_told(reader.statistics("name", "kind", kind="llm"))
    assert [(row["name"], row["kind"], row["runs"]) for row in told] == [("generate", "llm", 4)]


def test_points_are_told_over_time(client: httpx.Client, reader: Reader) -> None:
    now = time.time_ns()
    query = {"by": "model", "grain": "day", "since_ns": now - 86400 * 10**9, "until_ns": now}
    told = get(client, "/points", **query)
    assert told == as_told(reader.points("model", grain="day", since_ns=query["since_ns"], until_ns=now))
    assert {point["statistic"]["model"] for point in told} == {None, "gpt-4o-mini"}


def test_processes_are_told(client: httpx.Client) -> None:
    (process,) = get(client, "/processes")
    assert (process["pid"], process["lost_runs"], process["dropped"]) == (os.getpid(), 0, {})


def test_two_traces_are_compared(client: httpx.Client, reader: Reader) -> None:
    traces = [trace.trace_id for trace in reader.traces(name="answer")]
    told = get(client, "/compare", left=traces[-1], right=traces[-2])
    assert [(row["left"]["name"], row["right"]["name"], row["depth"]) for row in told["rows"]] == [
        ("answer", "answer", 0),
        ("search", "search", 1),
        ("generate", "generate", 1),
    ]
    assert not any(row["same"] for row in told["rows"])
    assert all(row["same"] for row in get(client, "/compare", left=traces[-1], right=traces[-1])["rows"])


def test_two_runs_are_compared(client: httpx.Client, reader: Reader) -> None:
    left, right = ((trace.trace_id, trace.trace_id[16:]) for trace in list(reader.traces(name="answer"))[-2:])
    told = get(client, "/compare/runs", left="/".join(right), right="/".join(left))
    assert told["inputs"] == [["=", "question: "], ["-", "What is six times seven"], ["+", "Why"], ["=", "?"]]
    assert told["output"] == [["=", "Forty-two."]]
    assert told["error"] == []


def test_the_description_tells_every_route(client: httpx.Client) -> None:
    told = get(client, "/openapi.json")
    assert told["openapi"].startswith("3.1")
    assert {f"{method} {path}" for path, methods in told["paths"].items() for method in methods} == {
        "get /api/info",
        "get /api/choices",
        "get /api/traces",
        "get /api/search",
        "get /api/traces/{trace}",
        "delete /api/traces/{trace}",
        "get /api/traces/{trace}/tree",
        "get /api/traces/{trace}/failures",
        "get /api/traces/{trace}/runs/{run}",
        "get /api/sessions",
        "get /api/sessions/{session}",
        "delete /api/sessions/{session}",
        "get /api/statistics",
        "get /api/points",
        "get /api/compare",
        "get /api/compare/runs",
        "get /api/processes",
        "get /api/events",
    }


@pytest.mark.parametrize("path", ["/api/info", "/api/traces", "/", "/traces/@last", "/static/index.html"])
def test_head_has_the_headers_of_get(path: str, client: httpx.Client) -> None:
    head, whole = client.head(path, follow_redirects=True), client.get(path, follow_redirects=True)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]


# -- what is deleted ---------------------------------------------------------------------------------------------------


def test_a_trace_is_deleted_and_then_gone(ask: httpx.Client) -> None:
    trace = get(ask, "/traces/@last")["trace_id"]
    assert ask.delete(f"/api/traces/{trace}").json() == {"removed": {"traces": 1, "runs": 3}}
    assert ask.delete(f"/api/traces/{trace}").status_code == 404
    assert get(ask, "/info")["traces"] == 4
    for path in (f"/api/traces/{trace}", f"/api/traces/{trace}/tree", f"/traces/{trace}"):
        answer = ask.get(path)
        assert answer.status_code == 404
        assert trace in answer.text


@pytest.mark.parametrize("given", ["@last", "0", "01a2", "0" * 31, "0" * 33, "x" * 32])
def test_only_a_whole_id_is_deleted(given: str, ask: httpx.Client) -> None:
    assert ask.delete(f"/api/traces/{given}").status_code in (400, 404)
    assert get(ask, "/info")["traces"] == 5


def test_a_session_is_deleted(ask: httpx.Client) -> None:
    assert ask.delete("/api/sessions/s%2F1").json() == {"removed": {"traces": 3, "runs": 9}}
    assert ask.delete("/api/sessions/s%2F1").status_code == 404
    assert get(ask, "/sessions")["items"] == []


def test_looking_changes_nothing(store: Path, serve: Callable[..., Server]) -> None:
    with closing(sqlite3.connect(store)) as connection:
        before = connection.execute("PRAGMA data_version").fetchone(), list(connection.iterdump())
        with asking(serve(store)) as client:
            for path in client.get("/api/openapi.json").json()["paths"]:
                if path != "/api/events":
                    client.get(path.format(trace="@last", run="0", session="s/1"), params={"q": "seven"})
            for path in ("/", "/traces/@last", "/sessions/s/1", "/compare", "/nowhere"):
                client.get(path)
        assert (connection.execute("PRAGMA data_version").fetchone(), list(connection.iterdump())) == before


# -- bad questions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/traces?limit=x", "limit"),
        ("/traces?limit=0", "limit"),
        ("/traces?limit=-1", "limit"),
        ("/traces?limit=10001", "limit"),
        ("/traces?limit=1.5", "limit"),
        ("/traces?limit=1&limit=2", "limit"),
        ("/traces?after=x", "after"),
        ("/traces?after=99999999999999999999999", "larger"),
        ("/traces?after=" + "9" * 5000, "after"),
        ("/traces?kimd=llm", "kimd"),
        ("/traces?min_cost=nan", "min_cost"),
        ("/traces?min_cost=inf", "min_cost"),
        ("/traces?max_duration_s=-1e999", "max_duration_s"),
        ("/traces?min_tokens=99999999999999999999999", "larger"),
        ("/traces?since_ns=yesterday", "since_ns"),
        ("/traces?since_ns=" + "9" * 40, "larger"),
        ("/traces/@last/tree?limit=ten", "limit"),
        ("/traces/@last/tree?after=x", "after"),
        ("/traces/@last?x=1", "x"),
        ("/search", "q"),
        ("/search?q=", "q"),
        ("/search?q=...", "word"),
        ("/search?q=a%00b", "NUL"),
        ("/sessions?after=x", "after"),
        ("/sessions?kind=llm", "kind"),
        ("/statistics?by=colour", "by"),
        ("/statistics?since_ns=-1", "since_ns"),
        ("/points?grain=week", "grain"),
        ("/processes?limit=0", "limit"),
        ("/compare", "left"),
        ("/compare?left=@last", "right"),
        ("/compare/runs?left=@last&right=@last", "trace/run"),
        ("/events?since=x", "since"),
        ("/events?since=-1", "since"),
        ("/info?x=1", "x"),
        ("/traces/0", "several"),
    ],
)
def test_a_bad_question_is_told_what_is_wrong(path: str, told: str, client: httpx.Client) -> None:
    answer = client.get(f"/api{path}")
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/traces/ffffffffffffffffffffffffffffffff",
        "/traces/nonsense",
        "/traces/%00",
        "/traces/%ff%fe",
        "/traces/--",
        "/traces/" + "a" * 5000,
        "/traces/ffff/tree",
        "/traces/ffff/failures",
        "/traces/@last/runs/ffffffffffffffff",
        "/traces/@last/runs/nonsense",
        "/traces/@last/nothing",
        "/sessions/nobody",
        "/sessions/",
        "/compare?left=@last&right=ffff",
        "/compare/runs?left=@last/0000000000000000&right=@last/0",
        "/nothing",
        "/",
        "",
    ],
)
def test_what_is_not_there_is_404(path: str, client: httpx.Client) -> None:
    answer = client.get(f"/api{path}")
    assert answer.status_code == 404
    if path:
        assert answer.json()["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW"])
def test_another_method_is_405(method: str, client: httpx.Client) -> None:
    answer = client.request(method, "/api/traces")
    assert answer.status_code == 405
    assert "method" in answer.json()["error"]
    assert client.request(method, "/").status_code == 405


def test_a_page_about_what_is_gone_says_so_with_its_status(client: httpx.Client) -> None:
    gone = "/traces/ffff /traces/@last/runs/ffff /sessions/nobody /compare?left=@last&right=ffff /traces/%3Cscript%3E /nowhere"
    for path in gone.split():
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert '<p role="alert">' in answer.text
        assert "<script>" not in answer.text


def test_a_page_for_comparing_is_there_before_anything_is_chosen(client: httpx.Client) -> None:
    for query in ("", "?left=@last", "?left=@last&right=@last", "?left=&right="):
        assert client.get(f"/compare{query}").status_code == 200


def test_a_page_is_known_by_the_whole_id(client: httpx.Client, reader: Reader) -> None:
    trace = reader.resolve("@last")
    answer = client.get("/traces/@last", params={"tab": "json"})
    assert (answer.status_code, answer.headers["Location"]) == (307, f"/traces/{trace}?tab=json")
    answer = client.get(f"/traces/@last/runs/{trace[16:]}")
    assert answer.headers["Location"] == f"/traces/{trace}/runs/{trace[16:]}"
    assert client.get(answer.headers["Location"]).status_code == 200


# -- stores that are none ----------------------------------------------------------------------------------------------


def test_a_store_that_does_not_exist_is_an_empty_one(path: Path, serve: Callable[..., Server]) -> None:
    with asking(serve(path)) as client:
        assert client.get("/").status_code == 200
        info = get(client, "/info")
        assert (info["schema"], info["traces"], info["path"]) == (0, 0, str(path))
        for address in ("/traces", "/sessions"):
            assert get(client, address) == {"items": [], "after": None}
        assert get(client, "/search", q="x")["items"] == []
        assert get(client, "/statistics") == get(client, "/points") == get(client, "/processes") == []
        for address in ("/api/traces/@last", "/traces/@last", "/api/sessions/s", "/api/compare?left=a&right=b"):
            answer = client.get(address)
            assert answer.status_code == 404
            assert "no store" in answer.text
        assert client.delete("/api/sessions/s").status_code == 404
        assert list(path.parent.iterdir()) == []
        fill(path)
        assert get(client, "/info")["traces"] == 5


def test_an_empty_store_is_an_empty_one(path: Path, serve: Callable[..., Server]) -> None:
    with isolated(), save(path) as saving:
        answer("Anybody here?")
        assert saving.flush()
    delete(path, trace="@last")
    with asking(serve(path)) as client:
        assert client.get("/").status_code == 200
        assert get(client, "/traces")["items"] == []
        assert get(client, "/info")["schema"] == len(MIGRATIONS)
        assert client.get("/traces/@last").status_code == 404


def test_a_store_in_the_place_of_another_is_shown(store: Path, serve: Callable[..., Server]) -> None:
    with asking(serve(store)) as client:
        assert get(client, "/info")["traces"] == 5
        store.rename(store.with_name("old.db"))
        assert get(client, "/info")["traces"] == 0
        with isolated(), save(store) as saving:
            answer("Anybody here?")
            assert saving.flush()
            assert get(client, "/info")["traces"] == 1


def newer(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")


def corrupt(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def torn(path: Path) -> None:
    fill(path)
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 100_000)


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (newer, "newer tracebus"),
        (foreign, "no store of tracebus"),
        (corrupt, "no store"),
        (torn, "store"),
        (directory, "store"),
    ],
)
def test_a_file_that_is_no_store_is_told_on_every_page(
    make: Callable[[Path], None], told: str, path: Path, serve: Callable[..., Server]
) -> None:
    make(path)
    with asking(serve(path)) as client:
        for address in ("/", "/sessions", "/traces/@last", "/api/info", "/api/traces", "/api/search?q=x", "/api/traces/@last"):
            answer = client.get(address)
            assert answer.status_code == 409, address
            assert told in answer.text
            assert str(path) in answer.text
            assert "Traceback" not in answer.text
        assert client.delete("/api/sessions/s").status_code == 409
        assert client.get("/static/index.html").status_code == 200


ASK_AS_NOBODY = """
import os, sys
from starlette.testclient import TestClient
from tracebus.viewer import viewer

def ask():
    with TestClient(viewer(sys.argv[1]), base_url="http://localhost") as client:
        return client.get("/api/info")

ask()  # loads what cannot be read any more then
os.chmod(sys.argv[1], 0)
os.geteuid() or os.setuid(65534)  # root may read everything
answer = ask()
print(answer.status_code, answer.text)
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_file_that_may_not_be_read_is_told(store: Path, run_python: Callable[..., Any]) -> None:
    told = run_python("-c", ASK_AS_NOBODY, store, cwd="/").stdout
    assert told.startswith("409 ")
    assert f"{store} cannot be used: Permission denied" in told


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_answer_has_a_secret(client: httpx.Client, reader: Reader) -> None:
    runs = [row.run for trace in reader.traces() for row in reader.tree(trace.trace_id)]
    addresses = ["/", "/api/info", "/api/traces", "/api/search?q=key", "/api/choices", "/api/sessions", "/api/processes"]
    addresses += [f"/api/traces/{run.trace_id}/runs/{run.span_id}" for run in runs]
    addresses += [f"/traces/{run.trace_id}/runs/{run.span_id}" for run in runs]
    addresses += ["/api/compare?left=@last&right=@last", "/api/traces/@last/tree"]
    told = "".join(client.get(address).text for address in addresses)
    assert "My key is" in told
    assert SECRET[-20:] not in told
