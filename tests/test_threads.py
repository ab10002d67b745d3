"""The current run goes into threads and executors, is gone from them when its work is done, and changes nothing else."""

import asyncio
import contextvars
import gc
import inspect
import logging.handlers
import multiprocessing.pool
import queue
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from threading import Thread, Timer
from typing import Any

import anyio
import pytest

from tracebus import Run, current_run, subscribe, trace, traced
from tracebus.errors import ArgumentError
from tracebus.integrations import threads
from tracebus.integrations.threads import carrying
from tracebus.runs import set_current
from tracebus.sources import Reporter

pytestmark = pytest.mark.usefixtures("nothing_is_current")

ORIGINALS = (Thread.start, ThreadPoolExecutor.submit)


@pytest.fixture
def installed() -> Iterator[None]:
    threads.install()
    yield
    threads.uninstall()
    assert (Thread.start, ThreadPoolExecutor.submit) == ORIGINALS


@pytest.fixture
def heard() -> Iterator[list[Run]]:
    runs: list[Run] = []
    with subscribe(lambda sender, event: runs.append(event.run), "chain_start"):
        yield runs


@traced(name="child")
def child() -> None:
    with trace("grandchild"):
        pass


def links(runs: list[Run]) -> dict[str, str | None]:
    return {run.name: run.parent and run.parent.name for run in runs}


NESTED = {"parent": None, "child": "parent", "grandchild": "child"}


def run_in(thread: Thread) -> None:
    thread.start()
    thread.join()


def current_in(pool: Executor) -> Run | None:
    return pool.submit(current_run).result()


# -- threads -----------------------------------------------------------------------------------------------------------


class Overriding(Thread):
    def run(self) -> None:
        child()


@pytest.mark.parametrize(
    "make", [partial(Thread, target=child), Overriding, partial(Timer, 0, child)], ids=["target", "overriding", "timer"]
)
def test_a_thread_belongs_to_the_run_that_started_it(make: Callable[[], Thread], installed: None, heard: list[Run]) -> None:
    thread = make()
    with trace("parent"):
        run_in(thread)
    assert links(heard) == NESTED


def test_a_thread_that_outlives_its_run_keeps_it(installed: None, heard: list[Run]) -> None:
    go_on = threading.Event()
    thread = Thread(target=lambda: go_on.wait() and child())
    with trace("parent"):
        thread.start()
    go_on.set()
    thread.join()
    assert links(heard) == NESTED


def test_a_thread_that_is_started_outside_of_runs_has_none(installed: None, heard: list[Run]) -> None:
    with trace("parent"):
        thread = Thread(target=child)
    run_in(thread)
    assert links(heard)["child"] is None


def test_a_thread_gets_nothing_but_the_run(installed: None) -> None:
    own = contextvars.ContextVar("own", default="nothing")
    found: list[object] = []
    own.set("something")
    with trace("parent"):
        run_in(Thread(target=lambda: found.extend((own.get(), len(contextvars.copy_context())))))
    assert found == ["nothing", 1]


def test_no_frame_of_tracebus_is_in_the_traceback_of_a_thread(installed: None) -> None:
    frames: list[str] = []
    with trace("parent"):
        run_in(Thread(target=lambda: frames.extend(frame.filename for frame in traceback.extract_stack())))
    assert [frame for frame in frames if "tracebus/" in frame.replace("\\", "/")] == []


def test_a_started_thread_looks_like_any_other(installed: None) -> None:
    thread = Overriding()
    before = dict(vars(thread))
    with trace("parent"):
        run_in(thread)
    assert vars(thread).keys() == before.keys()
    assert thread.run.__func__ is Overriding.run


def test_a_run_that_was_set_on_the_thread_is_called_and_stays(installed: None) -> None:
    thread = Thread()
    called: list[Run | None] = []
    thread.run = own = lambda: called.append(current_run())
    with trace("parent") as run:
        run_in(thread)
    assert (called, thread.run) == ([run], own)


def test_a_thread_cannot_be_started_twice_and_says_so_as_ever(installed: None) -> None:
    thread = Thread(target=child)
    with trace("parent"):
        run_in(thread)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
    assert "run" not in vars(thread)


def test_a_finished_thread_keeps_no_run_alive(installed: None) -> None:
    with trace("parent") as run:
        thread = Thread(target=child)
        run_in(thread)
    gone = weakref.ref(run)
    set_current(None)
    del run
    gc.collect()
    assert gone() is None
    assert not thread.is_alive()


# -- executors ---------------------------------------------------------------------------------------------------------


def with_install(pool: ThreadPoolExecutor) -> Executor:
    return pool


@pytest.fixture(params=[with_install, carrying])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """An executor with one thread, which was started inside of a run."""
    if request.param is with_install:
        request.getfixturevalue("installed")
    with request.param(ThreadPoolExecutor(1)) as pool:
        with trace("first"):
            pool.submit(int).result()
        yield pool


def test_a_job_belongs_to_the_run_that_submitted_it(pool: Executor, heard: list[Run]) -> None:
    with trace("parent"):
        pool.submit(child).result()
    assert links(heard) == NESTED


def test_mapped_jobs_belong_to_the_run_that_mapped_them(pool: Executor) -> None:
    with trace("parent") as run:
        assert list(pool.map(lambda _: current_run(), range(3))) == [run] * 3


async def test_a_job_of_the_loop_s_executor_belongs_to_its_task(pool: Executor, anyio_backend_name: str) -> None:
    if anyio_backend_name == "asyncio":
        async with trace("parent") as run:
            assert await asyncio.get_running_loop().run_in_executor(pool, current_run) is run
    else:  # trio's own way copies the context
        async with trace("parent") as run:
            assert await anyio.to_thread.run_sync(current_run) is run


def test_jobs_of_several_runs_do_not_meet(pool: Executor) -> None:
    jobs: list[tuple[Run, Future[Run | None]]] = []
    for name in "abc":
        with trace(name) as run:
            jobs += [(run, pool.submit(current_run)) for _ in range(20)]
    assert all(job.result() is run for run, job in jobs)


@pytest.mark.parametrize("job", [int, lambda: 1 / 0])
def test_a_job_leaves_no_run_to_the_next_one(job: Callable[[], object], pool: Executor) -> None:
    with trace("parent"):
        pool.submit(job).exception()
    assert current_in(pool) is None


def test_a_job_sees_what_earlier_jobs_set_in_its_thread(pool: Executor) -> None:
    own = contextvars.ContextVar("own", default=0)
    with trace("parent"):
        pool.submit(own.set, 7).result()
        assert pool.submit(own.get).result() == 7


def test_the_submitter_s_run_stays(pool: Executor) -> None:
    with trace("parent") as run:
        pool.submit(child).result()
        assert current_run() is run


def test_arguments_and_results_pass_as_they_are(pool: Executor) -> None:
    with trace("parent"):
        assert pool.submit(lambda *args, **kwargs: (args, kwargs), 1, fn=2, current=3).result() == (
            (1,),
            {"fn": 2, "current": 3},
        )


def test_a_pool_that_is_shut_down_refuses_as_ever(pool: Executor) -> None:
    pool.shutdown()
    with trace("parent") as run:
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(int)
        assert current_run() is run


@pytest.mark.parametrize("what", [None, "pool", 3])
def test_carrying_wants_an_executor(what: Any) -> None:
    with pytest.raises(ArgumentError, match="needs an executor of threads"):
        carrying(what)


def test_carrying_refuses_processes() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(ArgumentError, match="needs an executor of threads"):
        carrying(pool)


def test_asyncio_s_default_executor_carries_the_run(installed: None) -> None:
    async def main() -> Run | None:
        return await asyncio.get_running_loop().run_in_executor(None, current_run)

    with trace("parent") as run:
        assert asyncio.run(main()) is run


# -- in the runs of frameworks -----------------------------------------------------------------------------------------


@pytest.fixture
def framework_run() -> Iterator[Run]:
    """A run of a framework that keeps what is current in a variable of its own."""
    current_key = contextvars.ContextVar[str | None]("current_key", default=None)
    reporter = Reporter("framework")
    forget = reporter.current_in(current_key.get)
    with subscribe(lambda sender, event: None):
        run = reporter.start("1", name="parent")
        assert run is not None
        before = current_key.set("1")
        yield run
        current_key.reset(before)
        reporter.end("1")
    forget()


def test_a_thread_belongs_to_the_framework_s_run_that_started_it(
    framework_run: Run, installed: None, heard: list[Run]
) -> None:
    run_in(Thread(target=child))
    assert links(heard) == {"child": "parent", "grandchild": "child"}


def test_a_job_belongs_to_the_framework_s_run_that_submitted_it(framework_run: Run, pool: Executor, heard: list[Run]) -> None:
    pool.submit(child).result()
    assert links(heard) == {"child": "parent", "grandchild": "child"}


@pytest.mark.parametrize("is_traced", [False, True])
def test_what_is_further_in_than_the_framework_s_run_goes_into_threads(
    is_traced: bool, framework_run: Run, pool: Executor
) -> None:
    found: list[Run | None] = []
    with trace("inner") if is_traced else nullcontext(framework_run) as inner:
        found.append(current_in(pool))
        assert current_run() is inner
    assert found == [inner]


class OneThread(Executor):
    """An executor that is nobody's: it starts its thread with the first job."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Any] = queue.Queue()
        self.thread: Thread | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self.jobs.put(lambda: done.set_result(fn(*args, **kwargs)))
        if self.thread is None:
            self.thread = Thread(target=lambda: [job() for job in iter(self.jobs.get, None)])
            self.thread.start()
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.jobs.put(None)
        if self.thread is not None:
            self.thread.join()


def test_a_thread_that_is_started_for_a_job_is_not_the_framework_s_run_s(framework_run: Run, installed: None) -> None:
    with OneThread() as own:
        assert current_in(carrying(own)) is framework_run
        assert own.submit(current_run).result() is None


# -- threads that serve others -----------------------------------------------------------------------------------------


def test_a_thread_pool_of_multiprocessing_is_nobody_s(installed: None) -> None:
    with trace("parent"):
        pool = multiprocessing.pool.ThreadPool(1)
    with pool:
        assert pool.apply(current_run) is None


def test_a_thread_that_logs_for_all_is_nobody_s(installed: None) -> None:
    found: list[Run | None] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(current_run())
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, handler)
    with trace("parent"):
        listener.start()
        records.put(logging.makeLogRecord({"msg": "from another request"}))
        listener.stop()
    assert found == [None]


# -- install and uninstall ---------------------------------------------------------------------------------------------


def test_installing_and_uninstalling_twice_is_as_good_as_once() -> None:
    threads.install()
    patched = (Thread.start, ThreadPoolExecutor.submit)
    threads.install()
    assert (Thread.start, ThreadPoolExecutor.submit) == patched != ORIGINALS
    for _ in range(2):
        threads.uninstall()
        assert (Thread.start, ThreadPoolExecutor.submit) == ORIGINALS


def test_what_is_replaced_looks_as_it_did(installed: None) -> None:
    for method, original in zip((Thread.start, ThreadPoolExecutor.submit), ORIGINALS, strict=True):
        assert inspect.signature(method) == inspect.signature(original)
        assert method.__qualname__ == original.__qualname__


def test_uninstalling_takes_nobody_else_s_patch_away(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.install()
    ours = Thread.start
    started: list[Thread] = []

    def theirs(thread: Thread) -> None:
        started.append(thread)
        ours(thread)

    monkeypatch.setattr(Thread, "start", theirs)
    threads.uninstall()
    found: list[Run | None] = []
    with trace("parent") as run:
        run_in(Thread(target=lambda: found.append(current_run())))
        threads.install()
        run_in(Thread(target=lambda: found.append(current_run())))
    assert Thread.start is theirs
    assert (found, len(started)) == ([None, run], 2)
    monkeypatch.undo()
    threads.uninstall()
    assert Thread.start is ORIGINALS[0]


def test_installing_from_many_threads_at_once_patches_once() -> None:
    starting = threading.Barrier(8)

    def install() -> None:
        starting.wait()
        threads.install()

    installers = [Thread(target=install) for _ in range(8)]
    for thread in installers:
        thread.start()
    for thread in installers:
        thread.join()
    threads.uninstall()
    assert (Thread.start, ThreadPoolExecutor.submit) == ORIGINALS
