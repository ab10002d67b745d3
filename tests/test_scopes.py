"""`scope()`: what everything started inside inherits, as a block and as a wrapper of callables of any kind."""

import gc
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
import pytest

from tracebus import BaseCallbackHandler, current_run, scope, subscribe, trace, traced
from tracebus.errors import ArgumentError, SubscriberError
from tracebus.events import Event
from tracebus.runs import ROOT_SCOPE, current_scope, get_current

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]


def recorder() -> tuple[Events, Callable[..., None]]:
    events: Events = []

    def hear(sender: object, event: Event) -> None:
        events.append(event)

    return events, hear


def run_names(events: Events) -> list[str]:
    return [event.run.name for event in events if event.run and event.signal_name.endswith("_start")]


class Boom(Exception):
    pass


# -- the block ---------------------------------------------------------------------------------------------------------


def test_a_scope_is_over_behind_its_block() -> None:
    with scope(user_id="u"):
        assert current_scope().user_id == "u"
    assert get_current() is None


def test_a_scope_is_over_when_its_block_raises() -> None:
    with pytest.raises(Boom), scope(user_id="u"):
        raise Boom
    assert get_current() is None


async def test_a_scope_may_be_entered_with_async_with() -> None:
    async with scope(user_id="u"):
        assert current_scope().user_id == "u"
    assert get_current() is None


def test_a_callback_hears_every_run_nested_in_the_scope() -> None:
    events, hear = recorder()
    with scope(callbacks=[hear]), trace("a"), trace("b"):
        pass
    assert run_names(events) == ["a", "b"]


def test_a_callback_hears_nothing_behind_the_scope() -> None:
    events, hear = recorder()
    with scope(callbacks=[hear]):
        pass
    with trace("a"):
        pass
    assert events == []


def test_a_callback_hears_only_what_started_inside() -> None:
    events, hear = recorder()
    with trace("outside"), scope(callbacks=[hear]), trace("inside"):
        pass
    assert [(event.signal_name, event.run.name) for event in events] == [
        ("chain_start", "inside"),
        ("chain_end", "inside"),
    ]


def test_a_run_that_outlives_the_scope_is_still_heard() -> None:
    events, hear = recorder()
    with scope(callbacks=[hear]):
        steps = traced(kind="llm")(lambda: (yield "a"))()
    list(steps)
    assert [event.signal_name for event in events] == ["llm_start", "llm_new_token", "llm_end"]


def test_a_handler_object_may_be_a_callback() -> None:
    starts: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> None:
            starts.append(kwargs["name"])

    with scope(callbacks=[Handler()]), trace("a"):
        pass
    assert starts == ["a"]


def test_a_nested_scope_adds() -> None:
    outer, hear_outer = recorder()
    inner, hear_inner = recorder()
    with (
        scope(callbacks=[hear_outer], tags=["o"], metadata={"k": 1, "o": 1}, session_id="s", user_id="u"),
        scope(callbacks=[hear_inner], tags=["i"], metadata={"k": 2}, user_id="v"),
        trace("a") as run,
    ):
        pass
    assert run_names(outer) == run_names(inner) == ["a"]
    assert (run.tags, run.metadata, run.session_id, run.user_id) == (("o", "i"), {"k": 2, "o": 1}, "s", "v")


def test_leaving_a_nested_scope_gives_the_outer_one_back() -> None:
    with scope(user_id="outer"):
        with scope(user_id="inner"):
            pass
        assert current_scope().user_id == "outer"


def test_a_callback_of_two_scopes_hears_once() -> None:
    events, hear = recorder()
    with scope(callbacks=[hear]), scope(callbacks=[hear]), trace("a"):
        pass
    assert [event.signal_name for event in events] == ["chain_start", "chain_end"]


def test_a_callback_that_is_subscribed_too_hears_once() -> None:
    events, hear = recorder()
    with subscribe(hear), scope(callbacks=[hear]), trace("a"):
        pass
    assert [event.signal_name for event in events] == ["chain_start", "chain_end"]


def test_one_scope_may_be_used_again() -> None:
    events, hear = recorder()
    again = scope(callbacks=[hear])
    for name in ("a", "b"):
        with again, trace(name):
            pass
    assert run_names(events) == ["a", "b"]


def test_one_scope_may_be_nested_in_itself() -> None:
    same = scope(user_id="u")
    with same:
        with same, trace("a"):
            pass
        assert current_scope().user_id == "u"
    assert get_current() is None


def test_a_scope_inside_a_run_keeps_the_run_current() -> None:
    with trace("a") as a:
        with scope(user_id="u"), trace("b") as b:
            assert b.parent is a
        assert current_run() is a


def test_a_scope_ends_although_something_was_left_open_inside() -> None:
    with scope(user_id="u"):
        trace("left open").__enter__()
    assert current_scope().user_id is None


def test_a_scope_that_was_never_entered_may_be_left() -> None:
    scope(user_id="u").__exit__(None, None, None)
    assert get_current() is None


def test_leaving_a_scope_in_another_thread_changes_nothing_there() -> None:
    entered, seen = scope(user_id="u"), []
    with entered:

        def leave() -> None:
            with scope(user_id="theirs"):
                entered.__exit__(None, None, None)
                seen.append(current_scope().user_id)

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        assert current_scope().user_id == "u"
    assert seen == ["theirs"]


def test_an_empty_scope_changes_nothing() -> None:
    with scope(), trace("a") as run:
        assert (run.tags, run.metadata, run.session_id, run.user_id, run.parent) == ((), {}, None, None, None)


# -- many at once ------------------------------------------------------------------------------------------------------


async def test_a_callback_hears_nothing_of_a_concurrent_request() -> None:
    heard: dict[str, Events] = {}
    both_inside = [anyio.Event(), anyio.Event()]

    async def request(user: str, mine: anyio.Event, other: anyio.Event) -> None:
        heard[user], hear = recorder()
        with scope(callbacks=[hear], user_id=user):
            mine.set()
            await other.wait()
            with trace(f"of {user}") as run:
                await anyio.lowlevel.checkpoint()
                assert run.user_id == user

    async with anyio.create_task_group() as group:
        group.start_soon(request, "a", both_inside[0], both_inside[1])
        group.start_soon(request, "b", both_inside[1], both_inside[0])
    assert {user: run_names(events) for user, events in heard.items()} == {"a": ["of a"], "b": ["of b"]}


async def test_one_scope_may_be_used_by_many_tasks_at_once() -> None:
    same, seen = scope(user_id="u"), []
    all_inside, count = anyio.Event(), 20

    async def request(n: int) -> None:
        with same, trace(str(n)) as run:
            seen.append(run.user_id)
            if len(seen) == count:
                all_inside.set()
            await all_inside.wait()
        assert current_scope() is ROOT_SCOPE

    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(request, n)
    assert seen == ["u"] * count


async def test_tasks_started_inside_inherit_the_scope() -> None:
    seen: list[str | None] = []

    async def task() -> None:
        seen.append(current_scope().user_id)

    async with anyio.create_task_group() as group:
        with scope(user_id="u"):
            group.start_soon(task)
        group.start_soon(task)
    assert sorted(seen, key=str) == [None, "u"]


# -- the wrapper -------------------------------------------------------------------------------------------------------


def where() -> str | None:
    return current_scope().user_id


async def awhere() -> str | None:
    await anyio.lowlevel.checkpoint()
    return current_scope().user_id


def each_where() -> Iterator[str | None]:
    yield current_scope().user_id
    yield current_scope().user_id


async def aeach_where() -> AsyncIterator[str | None]:
    yield current_scope().user_id
    await anyio.lowlevel.checkpoint()
    yield current_scope().user_id


class Where:
    def __call__(self) -> str | None:
        return where()

    async def method(self) -> str | None:
        return await awhere()


class AsyncWhere:
    async def __call__(self) -> str | None:
        return await awhere()


async def result_of(called: Any) -> Any:
    if inspect.isawaitable(called):
        called = await called
    if inspect.isasyncgen(called):
        return [item async for item in called]
    return list(called) if inspect.isgenerator(called) else called


WRAPPED: dict[str, tuple[Callable[..., Any], Any]] = {
    "function": (where, "u"),
    "coroutine function": (awhere, "u"),
    "generator function": (each_where, ["u", "u"]),
    "async generator function": (aeach_where, ["u", "u"]),
    "lambda": (lambda: where(), "u"),
    "lambda that returns a coroutine": (lambda: awhere(), "u"),
    "lambda that returns a generator": (lambda: each_where(), ["u", "u"]),
    "partial": (partial(where), "u"),
    "partial of a coroutine function": (partial(awhere), "u"),
    "partial of an async generator function": (partial(aeach_where), ["u", "u"]),
    "callable object": (Where(), "u"),
    "object with an async call": (AsyncWhere(), "u"),
    "bound method": (Where().method, "u"),
    "traced function": (traced(where), "u"),
    "traced coroutine function": (traced(awhere), "u"),
    "traced generator function": (traced(each_where), ["u", "u"]),
    "traced async generator function": (traced(aeach_where), ["u", "u"]),
    "traced function that returns a stream": (traced(stream=True)(lambda: each_where()), ["u", "u"]),
}


async def returns_a_stream() -> AsyncIterator[str | None]:
    return aeach_where()


WRAPPED["coroutine function that returns a stream"] = (returns_a_stream, ["u", "u"])


@pytest.mark.parametrize(("fn", "expected"), WRAPPED.values(), ids=WRAPPED)
async def test_a_wrapped_callable_runs_inside_the_scope(fn: Callable[..., Any], expected: Any) -> None:
    assert await result_of(scope(user_id="u")(fn)()) == expected
    assert get_current() is None


@pytest.mark.parametrize(("fn", "expected"), WRAPPED.values(), ids=WRAPPED)
async def test_a_wrapped_callable_is_heard_by_the_scopes_callbacks(fn: Callable[..., Any], expected: Any) -> None:
    events, hear = recorder()
    with subscribe(lambda sender, event: None):
        await result_of(scope(callbacks=[hear], user_id="u")(traced(name="it")(fn))())
    assert run_names(events)[0] == "it"


def test_a_wrapped_callable_gets_its_arguments() -> None:
    assert scope(user_id="u")(lambda *args, **kwargs: (args, kwargs))(1, k=2) == ((1,), {"k": 2})


def test_a_wrapped_callable_raises_its_own_exception() -> None:
    error = Boom()

    def fn() -> None:
        raise error

    with pytest.raises(Boom) as caught:
        scope(user_id="u")(fn)()
    assert caught.value is error
    assert get_current() is None


def test_a_wrapped_function_keeps_its_name_and_signature() -> None:
    def fn(a: int, b: str = "b") -> None:
        """Say nothing."""

    wrapped = scope(user_id="u")(fn)
    assert (wrapped.__name__, wrapped.__doc__, inspect.signature(wrapped)) == ("fn", fn.__doc__, inspect.signature(fn))


def test_a_scope_may_decorate() -> None:
    @scope(user_id="u")
    def fn() -> str | None:
        return where()

    assert fn() == "u"


class Service:
    @scope(user_id="u")
    @staticmethod
    def static(x: int) -> Any:
        return x, where()

    @scope(user_id="u")
    @classmethod
    def of_class(cls, x: int) -> Any:
        return cls, x, where()


@pytest.mark.parametrize("holder", [Service, Service()], ids=["class", "instance"])
def test_a_scope_may_decorate_a_staticmethod_or_classmethod(holder: Any) -> None:
    assert holder.static(1) == (1, "u")
    assert holder.of_class(1) == (Service, 1, "u")


def test_a_wrapped_generator_leaks_nothing_into_its_consumer() -> None:
    assert [(inside, where()) for inside in scope(user_id="u")(each_where)()] == [("u", None), ("u", None)]


async def test_a_wrapped_async_generator_leaks_nothing_into_its_consumer() -> None:
    async with aclosing(scope(user_id="u")(aeach_where)()) as steps:
        assert [(inside, where()) async for inside in steps] == [("u", None), ("u", None)]


def test_a_wrapped_generator_takes_the_scope_of_its_call() -> None:
    with scope(session_id="of the call"):
        steps = scope(user_id="u")(lambda: (yield current_scope().session_id))()
    assert list(steps) == ["of the call"]


# -- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": "one"}, r"tags='one'.*tags=\['one'\]"),
        ({"tags": [5]}, "tag 5"),
        ({"tags": 5}, "tags=5"),
        ({"user_id": 5}, "user_id=5.*str"),
        ({"session_id": b"s"}, "session_id=b's'"),
        ({"metadata": "text"}, "metadata='text'"),
        ({"metadata": 5}, "metadata=5"),
    ],
    ids=str,
)
def test_a_wrong_option_raises_at_once_and_names_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        scope(**options)


NOT_CALLBACKS = {
    "a text": "handler",
    "an object": [object()],
    "a number in a list": [5],
    "a number": 5,
    "a dict": {"k": print},
    "a class": [BaseCallbackHandler],
}


@pytest.mark.parametrize("callbacks", NOT_CALLBACKS.values(), ids=NOT_CALLBACKS)
def test_callbacks_that_cannot_hear_raise_at_once(callbacks: Any) -> None:
    with pytest.raises(SubscriberError):
        scope(callbacks=callbacks)


@pytest.mark.parametrize("thing", [5, "text", None], ids=repr)
def test_what_cannot_be_called_cannot_be_wrapped(thing: Any) -> None:
    with pytest.raises(ArgumentError, match="callable"):
        scope(user_id="u")(thing)


# -- bounds ------------------------------------------------------------------------------------------------------------

MANY = pytest.mark.parametrize("uses", [2_000, pytest.param(100_000, marks=pytest.mark.long)])


def kept_after(use: Callable[[], None], uses: int) -> int:
    """Return how many memory blocks more are in use after ``uses`` uses; what is made once is made before."""
    for _ in range(200):
        use()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(uses):
        use()
    gc.collect()
    return sys.getallocatedblocks() - before


@MANY
def test_many_scopes_leave_nothing_behind(uses: int) -> None:
    def use() -> None:
        with scope(callbacks=[lambda sender, event: None], tags=["t"], metadata={"k": 1}, user_id="u"), trace("a"):
            pass

    assert kept_after(use, uses) < 200


@MANY
def test_many_scopes_inside_one_leave_nothing_behind(uses: int) -> None:
    def use() -> None:
        with scope(callbacks=[lambda sender, event: None]), trace("a"):
            pass

    with scope(callbacks=[lambda sender, event: None]):
        assert kept_after(use, uses) < 200


@MANY
def test_many_scopes_around_one_callable_with_callbacks_leave_nothing_behind(uses: int) -> None:
    fn = traced(callbacks=[lambda sender, event: None])(lambda: None)

    def use() -> None:
        with scope(callbacks=[lambda sender, event: None]):
            fn()

    assert kept_after(use, uses) < 200


@MANY
def test_one_scope_used_many_times_leaves_nothing_behind(uses: int) -> None:
    wrapped = scope(callbacks=[lambda sender, event: None])(traced(lambda: None))
    assert kept_after(wrapped, uses) < 200
