"""Runs find their parents through tasks and threads, or are declared roots; ids survive forks (demands 13 to 15)."""

import asyncio
import contextvars
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from tracebus import Run, current_run, scope, trace, traced
from tracebus.events import Event
from tracebus.runs import current_scope, get_current, open_runs

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]


def parents(events: Events) -> dict[str, str | None]:
    runs = {event.run for event in events if event.run is not None}
    return {run.name: None if run.parent is None else run.parent.name for run in runs}


@traced(name="child")
def child() -> None:
    with trace("grandchild"):
        pass


@traced(name="child")
async def achild() -> None:
    await anyio.lowlevel.checkpoint()
    async with trace("grandchild"):
        await anyio.lowlevel.checkpoint()


NESTED = {"parent": None, "child": "parent", "grandchild": "child"}
ROOTS = {"parent": None, "child": None, "grandchild": "child"}


# -- tasks -------------------------------------------------------------------------------------------------------------


async def test_an_awaited_coroutine_has_its_caller_as_parent(heard: Events) -> None:
    async with trace("parent"):
        await achild()
    assert parents(heard) == NESTED


def test_a_created_task_has_its_creator_as_parent(heard: Events) -> None:
    async def main() -> None:
        async with trace("parent"):
            await asyncio.create_task(achild())

    asyncio.run(main())
    assert parents(heard) == NESTED


def test_gathered_coroutines_have_the_gatherer_as_parent(heard: Events) -> None:
    async def main() -> None:
        async with trace("parent"):
            await asyncio.gather(achild(), achild(), achild())

    asyncio.run(main())
    assert parents(heard) == NESTED
    assert len({event.run for event in heard}) == 7


def test_an_asyncio_task_group_has_its_owner_as_parent(heard: Events) -> None:
    async def main() -> None:
        async with trace("parent"), asyncio.TaskGroup() as group:
            group.create_task(achild())

    asyncio.run(main())
    assert parents(heard) == NESTED


async def test_a_task_group_has_its_starter_as_parent(heard: Events) -> None:
    async with trace("parent"), anyio.create_task_group() as group:
        group.start_soon(achild)
    assert parents(heard) == NESTED


async def test_a_nursery_that_is_older_than_the_run_still_links_to_the_starter(heard: Events) -> None:
    async with anyio.create_task_group() as group, trace("parent"):
        group.start_soon(achild)
    assert parents(heard) == NESTED


async def test_a_detached_task_keeps_its_parent_and_ends_when_it_ends(heard: Events) -> None:
    go_on = anyio.Event()

    async def detached() -> None:
        async with trace("child"):
            await go_on.wait()

    async with anyio.create_task_group() as group:
        async with trace("parent"):
            group.start_soon(detached)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        go_on.set()
    ended = [event.run.name for event in heard if event.signal_name == "chain_end"]
    assert (parents(heard)["child"], ended) == ("parent", ["parent", "child"])


async def test_tasks_side_by_side_do_not_see_each_other(heard: Events) -> None:
    inside = anyio.Event()

    async def first() -> None:
        async with trace("first"):
            inside.set()
            await leave.wait()

    async def second() -> None:
        await inside.wait()
        assert current_run() is None
        async with trace("second"):
            leave.set()

    leave = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(second)
    assert parents(heard) == {"first": None, "second": None}


# -- threads -----------------------------------------------------------------------------------------------------------


def test_asyncio_to_thread_takes_the_parent_along(heard: Events) -> None:
    async def main() -> None:
        async with trace("parent"):
            await asyncio.to_thread(child)

    asyncio.run(main())
    assert parents(heard) == NESTED


async def test_anyio_to_thread_takes_the_parent_along(heard: Events) -> None:
    async with trace("parent"):
        await anyio.to_thread.run_sync(child)
    assert parents(heard) == NESTED


async def test_coming_back_from_a_worker_thread_takes_the_parent_along(heard: Events) -> None:
    def work() -> None:
        with trace("in thread"):
            anyio.from_thread.run(achild)

    async with trace("parent"):
        await anyio.to_thread.run_sync(work)
    assert parents(heard) == {
        "parent": None,
        "in thread": "parent",
        "child": "in thread",
        "grandchild": "child",
    }


def test_run_in_executor_is_a_declared_root(heard: Events) -> None:
    async def main() -> None:
        async with trace("parent"):
            await asyncio.get_running_loop().run_in_executor(None, child)

    asyncio.run(main())
    assert parents(heard) == ROOTS


def in_thread(fn: Callable[[], Any]) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


def in_timer(fn: Callable[[], Any]) -> None:
    timer = threading.Timer(0, fn)
    timer.start()
    timer.join()


def in_pool(fn: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fn).result()


@pytest.mark.parametrize("elsewhere", [in_thread, in_timer, in_pool])
def test_another_thread_is_a_declared_root(elsewhere: Callable[..., Any], heard: Events) -> None:
    with trace("parent"):
        elsewhere(child)
    assert parents(heard) == ROOTS


@pytest.mark.parametrize("elsewhere", [in_thread, in_timer, in_pool])
def test_a_copied_context_takes_the_parent_along(elsewhere: Callable[..., Any], heard: Events) -> None:
    with trace("parent"):
        elsewhere(partial(contextvars.copy_context().run, child))
    assert parents(heard) == NESTED


def test_a_pool_thread_remembers_nothing_of_its_last_work(heard: Events) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(child).result()
        assert pool.submit(get_current).result() is None


def test_threads_side_by_side_do_not_see_each_other(heard: Events) -> None:
    both = threading.Barrier(2, timeout=10)

    def work(name: str) -> None:
        with trace(name), scope(user_id=name):
            both.wait()
            with trace(f"in {name}") as run:
                assert run.user_id == name
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parents(heard) == {"a": None, "b": None, "in a": "a", "in b": "b"}


# -- many --------------------------------------------------------------------------------------------------------------

DEPTH = 5


async def descend(task: int, depth: int) -> None:
    async with trace(f"{task}.{depth}", metadata={"task": task}) as run:
        await anyio.lowlevel.checkpoint()
        assert current_run() is run
        if depth + 1 < DEPTH:
            await descend(task, depth + 1)
        await anyio.lowlevel.checkpoint()
        assert current_run() is run


@pytest.mark.parametrize("tasks", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_all_links_of_many_tasks_are_right(tasks: int, heard: Events) -> None:
    async with trace("root") as root, anyio.create_task_group() as group:
        for task in range(tasks):
            group.start_soon(descend, task, 0)
    runs = {event.run for event in heard if event.run is not None} - {root}
    assert len(runs) == tasks * DEPTH
    for run in runs:
        task, depth = map(int, run.name.split("."))
        assert run.parent is not None
        assert run.parent.name == (f"{task}.{depth - 1}" if depth else "root")
        assert run.trace_id == root.id
        assert run.metadata == {"task": task}
    assert len({run.id for run in runs}) == len(runs)
    assert open_runs == set()


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
async def test_many_suspended_async_generators_change_nothing_for_their_caller(count: int, heard: Events) -> None:
    @traced
    async def held() -> AsyncIterator[Any]:
        with scope(user_id="inside"):
            while True:
                yield current_run()

    async with trace("caller") as caller:
        suspended = [held() for _ in range(count)]
        first = [await anext(steps) for steps in suspended]
        assert current_run() is caller
        assert current_scope().user_id is None
        assert [await anext(steps) for steps in reversed(suspended)] == first[::-1]
        for steps in suspended:
            await steps.aclose()
        assert current_run() is caller
    assert {run.parent for run in first} == {caller}
    assert Counter(event.signal_name for event in heard) == {"chain_start": count + 1, "chain_end": count + 1}


# -- forks -------------------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def draw(count: int, pipe: Any) -> None:
    pipe.send_bytes(b"".join(new_id().bytes for _ in range(count)))
    pipe.close()


def new_id() -> Any:
    with trace("a") as run:
        pass
    return run.id


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_forked_processes_draw_no_id_twice(count: int) -> None:
    context = multiprocessing.get_context("fork")
    new_id()  # the generator is in use before the fork
    pipes = []
    processes = []
    for _ in range(8):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=draw, args=(count, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    drawn = b"".join(pipe.recv_bytes() for pipe in pipes)
    for process in processes:
        process.join()
    ids = {drawn[at : at + 16] for at in range(0, len(drawn), 16)}
    spans = {drawn[at + 8 : at + 16] for at in range(0, len(drawn), 16)}
    assert (len(ids), len(spans)) == (8 * count, 8 * count)


def in_child(fn: Callable[[], object]) -> object:
    """Return what ``fn`` returns in a forked process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(fn()))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_has_none_of_its_parents_runs_to_end(heard: Events) -> None:
    with trace("parent"):
        assert in_child(lambda: len(open_runs)) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_in_a_forked_child_has_the_run_that_forked_as_parent() -> None:
    def run_in_child() -> object:
        with trace("child") as run:
            return run.parent_id, run.trace_id

    with trace("parent") as parent:
        assert in_child(run_in_child) == (parent.id, parent.trace_id)


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_id_that_was_not_yet_asked_for_is_the_same_on_both_sides() -> None:
    with trace("parent") as parent:
        seen = in_child(lambda: parent.id)
        assert seen == parent.id


def test_a_run_is_what_it_says() -> None:
    with trace("a") as run:
        assert isinstance(run, Run)
