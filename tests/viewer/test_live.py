"""What is new, as it is told to the pages that listen: nothing missed, looked up once for all, and nothing left behind."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import msgspec
import pytest
from served import answer, asking, fill

from tracebus import flush, trace
from tracebus.outputs.store import Changes, Reader, Saving, save
from tracebus.outputs.store.connections import Connection, PerThread, open_for_reading
from tracebus.signals import isolated
from tracebus.viewer import live as live_module
from tracebus.viewer import source as source_module
from tracebus.viewer.live import Live
from tracebus.viewer.serving import Server
from tracebus.viewer.source import Source


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


def now(client: httpx.Client) -> int:
    return client.get("/api/info").json()["cursor"]


def until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    """Wait for what happens in another thread or process, where nothing tells of it."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def saving(path: Path) -> Iterator[Saving]:
    with isolated(), save(path) as saving:
        answer("Is anybody there?")
        assert flush()
        yield saving


def say(question: str) -> None:
    answer(question)
    assert flush()


# -- over a real server ------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_page_hears_what_is_written(saving: Saving, serve: Callable[..., Server]) -> None:
    with asking(serve(saving.path)) as client, listening(client, params={"since": now(client)}) as events:
        with trace("slow", inputs={"question": "Why?"}):
            assert saving.flush()
            event = next(events)
            assert event.name == "changes"
            assert [(trace["name"], trace["status"]) for trace in event.data["traces"]] == [("slow", "open")]
        assert flush()
        event = next(events)
        assert [(trace["name"], trace["status"]) for trace in event.data["traces"]] == [("slow", "ok")]
        assert [run["status"] for run in event.data["runs"]] == ["ok"]
        assert event.data["is_complete"]
        assert event.id == str(event.data["cursor"])


@pytest.mark.once
def test_a_page_that_comes_back_hears_what_it_missed(saving: Saving, serve: Callable[..., Server]) -> None:
    with asking(serve(saving.path)) as client:
        cursor = now(client)
        say("Why?")
        with listening(client, params={"since": cursor}) as events:
            first = next(events)
            assert [trace["input"] for trace in first.data["traces"]] == ["Why?"]
        say("And then?")
        # The browser says what it heard last in a header; the address still has where it began.
        with listening(client, params={"since": cursor}, headers={"Last-Event-ID": first.id}) as events:
            assert [trace["input"] for trace in next(events).data["traces"]] == ["And then?"]


@pytest.mark.once
def test_a_page_that_was_away_for_too_long_is_told_to_read_again(saving: Saving, serve: Callable[..., Server]) -> None:
    with asking(serve(saving.path)) as client, listening(client, headers={"Last-Event-ID": "99999"}) as events:
        assert not next(events).data["is_complete"]


@pytest.mark.once
def test_a_page_hears_of_what_is_deleted(saving: Saving, serve: Callable[..., Server]) -> None:
    with asking(serve(saving.path)) as client:
        cursor = now(client)
        trace_id = client.get("/api/traces/@last").json()["trace_id"]
        with listening(client, params={"since": cursor}) as events:
            client.delete(f"/api/traces/{trace_id}")
            assert next(events).data["removed"] == [trace_id]


@pytest.mark.once
def test_closing_the_page_frees_everything(saving: Saving, serve: Callable[..., Server]) -> None:
    server = serve(saving.path)
    live, state = server._app.state.live, server._server.server_state
    with asking(server) as client:
        for _ in range(3):
            with listening(client, params={"since": 0}) as events:
                next(events)
                assert live.listeners == 1
            until(lambda: live.listeners == 0)
        for number in range(10):
            with asking(server) as other, listening(other, params={"since": 0}) as events:
                next(events)
                assert live.listeners == 1, number
            until(lambda: live.listeners == 0)
    until(lambda: not state.tasks and not state.connections)
    assert not live._seen
    assert not live._turn.locked()


@pytest.mark.once
def test_a_server_stops_though_a_page_is_open(saving: Saving) -> None:
    server = Server(saving.path, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    with asking(server) as client, listening(client, params={"since": 0}) as events:
        next(events)
        server.stop()
        thread.join(30)
    assert not thread.is_alive()


# -- asyncio and trio --------------------------------------------------------------------------------------------------


@pytest.fixture
async def live(saving: Saving) -> AsyncIterator[Live]:
    source = Source(saving.path)
    yield Live(source)
    source.close()


def changes_in(news: Any) -> Changes:
    return msgspec.json.decode(news.data, type=Changes)


async def test_all_who_listen_hear_the_same_from_one_look(live: Live) -> None:
    heard: list[list[Any]] = [[] for _ in range(10)]
    begun_s = time.monotonic()

    async def listen(number: int) -> None:
        async with aclosing(live.follow()) as events:
            async for news in events:
                heard[number].append(news)
                if len(heard[number]) == 3:
                    return

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(listen, number)
        while live.listeners < 10 or not live.looks:
            await anyio.sleep(0.01)
        while live.listeners:
            await anyio.to_thread.run_sync(say, "Why?")
            await anyio.sleep(live_module.EVERY_S)
    assert all(len({id(news) for news in same}) == 1 for same in zip(*heard, strict=True))
    assert live.looks <= (time.monotonic() - begun_s) / live_module.EVERY_S + 2


async def test_nobody_looks_when_nobody_listens(live: Live) -> None:
    async with aclosing(live.follow(0)) as events:
        await anext(events)
    looks = live.looks
    await anyio.to_thread.run_sync(say, "Why?")
    await anyio.sleep(2 * live_module.EVERY_S)
    assert (live.looks, live.listeners) == (looks, 0)


async def test_who_goes_away_while_looking_leaves_the_turn_to_the_others(saving: Saving, live: Live) -> None:
    with Reader(saving.path) as reader:
        now = reader.cursor()
    heard: list[Any] = []

    async def listen() -> None:
        async with aclosing(live.follow(now)) as events:
            heard.append(await anext(events))

    async def leave_after(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await listen()

    with anyio.fail_after(50):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(leave_after, 0.02 * number)
        assert live.listeners == 0
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.to_thread.run_sync(say, "Why?")
    assert [changes_in(news).traces[0].input for news in heard] == ["Why?"]
    assert live.listeners == 0


async def test_a_store_that_appears_is_told(path: Path) -> None:
    source = Source(path)
    async with aclosing(Live(source).follow()) as events:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, fill, path)
                changes = changes_in(await anext(events))
    assert not changes.is_complete
    source.close()


async def test_a_store_in_the_place_of_another_is_told(saving: Saving, live: Live) -> None:
    async with aclosing(live.follow(0)) as events:
        assert changes_in(await anext(events)).is_complete
        saving.close()
        for name in (saving.path, *saving.path.parent.glob("traces.db-*")):
            name.rename(name.with_name(f"old-{name.name}"))
        await anyio.to_thread.run_sync(fill, saving.path)
        with anyio.fail_after(30):
            changes = changes_in(await anext(events))
    assert not changes.is_complete


async def test_a_store_that_cannot_be_read_for_a_while_ends_no_stream(store: Path) -> None:
    source = Source(store)
    live = Live(source)
    good = store.with_name("good.db")
    async with aclosing(live.follow(0)) as events:
        await anext(events)
        store.rename(good)
        store.write_bytes(b"no database at all" * 100)
        looks = live.looks

        async def mend() -> None:
            while live.looks < looks + 3:
                await anyio.sleep(0.01)
            good.rename(store)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(mend)
                changes = changes_in(await anext(events))
    assert not changes.is_complete
    source.close()


# -- what it costs -----------------------------------------------------------------------------------------------------


DIES = """
import os, sys
from tracebus import flush, trace
from tracebus.outputs.store import save
save(sys.argv[1])
trace("unfinished").__enter__()
assert flush()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_runs_of_a_process_that_dies_are_told_as_lost(
    path: Path, serve: Callable[..., Server], clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "LOOK_FOR_THE_DEAD_EVERY_S", 0.1)
    command = [sys.executable, "-c", DIES, str(path)]
    with subprocess.Popen(command, env=clean_env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        with asking(serve(path)) as client, listening(client, params={"since": now(client)}) as events:
            assert client.get("/api/traces/@last").json()["status"] == "open"
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            assert [trace["status"] for trace in next(events).data["traces"]] == ["lost"]
            (told,) = client.get("/api/processes").json()
            assert (told["pid"], told["lost_runs"]) == (process.pid, 1)


def open_connections() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Connection) for thing in gc.get_objects())  # isinstance asks liars for __class__


def test_a_thread_that_ends_closes_its_connection(store: Path) -> None:
    before = open_connections()
    connections = PerThread(lambda: open_for_reading(store))
    for _ in range(10):
        thread = threading.Thread(target=connections.get)
        thread.start()
        thread.join()
    assert open_connections() == before
    connections.get()
    assert open_connections() == before + 1
    connections.close()
    del connections
    assert open_connections() == before


@pytest.mark.once
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_ten_pages_hold_up_no_writer_and_let_the_log_start_anew(path: Path, serve: Callable[..., Server]) -> None:
    largest = 0
    stop = threading.Event()
    heard = [0] * 10

    def look(number: int, server: Server) -> None:
        with asking(server) as client, listening(client) as events:
            for _ in events:
                heard[number] += 1
                client.get("/api/traces", params={"limit": 50})
                client.get("/api/traces/@last/tree")
                if stop.is_set():
                    return

    with isolated(), save(path) as saving:
        say("Is anybody there?")
        server = serve(path)
        pages = [threading.Thread(target=look, args=(number, server)) for number in range(10)]
        for page in pages:
            page.start()
        until(lambda: server._app.state.live.listeners == 10)
        for number in range(150):
            with trace(f"burst {number % 7}"):
                for _ in range(40):
                    with trace("work", inputs={"text": "x" * 2000}) as run:
                        run.output = "y" * 2000
            assert flush(30)
            largest = max(largest, path.with_name("traces.db-wal").stat().st_size)
        stop.set()
        say("That was it.")
        for page in pages:
            page.join(30)
        assert not any(page.is_alive() for page in pages)
        assert not saving.stats.dropped
    assert all(heard)
    assert largest <= 16 * 1024 * 1024
    with Reader(path) as reader:
        assert reader.info().runs == 150 * 41 + 2 * 3
