"""`@traced` changes nothing that can be seen of a function, and says what the function does."""

from __future__ import annotations

import abc
import asyncio
import builtins
import copy
import dis
import functools
import inspect
import pickle
import sys
import types
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tracebus import Usage, chain_end, current_run, emit, llm_end, llm_new_token, scope, subscribe, traced
from tracebus.errors import ArgumentError, SubscriberError
from tracebus.events import (
    ChainEnd,
    ChainError,
    ChainStart,
    ChatModelStart,
    Event,
    LLMEnd,
    LLMError,
    LLMNewToken,
    LLMStart,
    RetrieverStart,
    ToolStart,
)
from tracebus.runs import open_runs

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]


def names(events: Events) -> list[str]:
    return [event.signal_name for event in events]


def only(events: Events, event_class: type[Any]) -> Any:
    (found,) = [event for event in events if isinstance(event, event_class)]
    return found


class Boom(Exception):
    pass


# -- the functions that are traced in these tests, each beside its plain self ------------------------------------------


def plain(a: int, /, b: str = "b", *rest: int, c: float = 1.0, **more: int) -> list[Any]:
    """Say what was given."""
    return [a, b, rest, c, more]


async def plain_async(a: int, b: str = "b") -> list[Any]:
    """Say what was given, later."""
    return [a, b]


def plain_generator(a: int, b: str = "b") -> Iterator[Any]:
    """Yield what was given."""
    yield a
    yield b


async def plain_async_generator(a: int, b: str = "b") -> AsyncIterator[Any]:
    """Yield what was given, later."""
    yield a
    yield b


KINDS_OF_FUNCTION = [plain, plain_async, plain_generator, plain_async_generator]
every_kind = pytest.mark.parametrize("fn", KINDS_OF_FUNCTION, ids=lambda fn: fn.__name__)


@traced
def importable(x: int) -> int:
    return x + 1


@traced
async def importable_async(x: int) -> int:
    return x + 1


@traced
def importable_generator(x: int) -> Iterator[int]:
    yield x


@traced
async def importable_async_generator(x: int) -> AsyncIterator[int]:
    yield x


IMPORTABLE = [importable, importable_async, importable_generator, importable_async_generator]


class Agent:
    """What has a traced method of each kind."""

    def __init__(self, name: str = "a") -> None:
        self.name = name

    @traced
    def step(self, x: int) -> tuple[str, int]:
        return self.name, x

    @traced
    async def astep(self, x: int) -> tuple[str, int]:
        return self.name, x

    @traced
    def steps(self, x: int) -> Iterator[Any]:
        yield self.name
        yield x

    @traced
    async def asteps(self, x: int) -> AsyncIterator[Any]:
        yield self.name
        yield x

    @classmethod
    @traced
    def made(cls, x: int) -> tuple[type, int]:
        return cls, x

    @traced
    @classmethod
    def made_outside(cls, x: int) -> tuple[type, int]:
        return cls, x

    @staticmethod
    @traced
    def helper(x: int) -> int:
        return x

    @traced
    @staticmethod
    def helper_outside(x: int) -> int:
        return x

    @property
    @traced
    def title(self) -> str:
        return self.name


# -- what can be seen of the function ----------------------------------------------------------------------------------


@every_kind
def test_the_signature_stays(fn: Callable[..., Any]) -> None:
    assert inspect.signature(traced(fn)) == inspect.signature(fn)


@every_kind
def test_the_annotations_stay(fn: Callable[..., Any]) -> None:
    assert inspect.get_annotations(traced(fn)) == inspect.get_annotations(fn)


@every_kind
@pytest.mark.parametrize("attribute", ["__name__", "__qualname__", "__doc__", "__module__"])
def test_the_names_and_the_docstring_stay(fn: Callable[..., Any], attribute: str) -> None:
    assert getattr(traced(fn), attribute) == getattr(fn, attribute)


@every_kind
def test_wrapped_is_the_function(fn: Callable[..., Any]) -> None:
    assert traced(fn).__wrapped__ is fn


@every_kind
@pytest.mark.parametrize(
    "question",
    [
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isroutine,
        callable,
    ],
    ids=lambda question: question.__name__,
)
def test_inspect_answers_the_same(fn: Callable[..., Any], question: Callable[[Any], bool]) -> None:
    assert question(traced(fn)) == question(fn)


@every_kind
def test_annotations_resolve_where_the_function_was_defined(fn: Callable[..., Any]) -> None:
    assert traced(fn).__globals__ is fn.__globals__


def load_global_names(code: types.CodeType) -> set[str]:
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= load_global_names(constant)
    return found


@every_kind
@pytest.mark.parametrize("stream", [False, True])
def test_the_wrapper_looks_up_nothing_but_builtins(fn: Callable[..., Any], stream: bool) -> None:
    assert load_global_names(traced(stream=stream)(fn).__code__) <= set(dir(builtins))


def test_attributes_of_the_function_stay() -> None:
    def fn() -> None: ...

    fn.route = "/ask"
    assert traced(fn).route == "/ask"


@pytest.mark.parametrize("fn", IMPORTABLE, ids=lambda fn: fn.__name__)
def test_a_traced_function_is_pickled_by_its_name(fn: Callable[..., Any]) -> None:
    assert pickle.loads(pickle.dumps(fn)) is fn


@pytest.mark.parametrize("fn", IMPORTABLE, ids=lambda fn: fn.__name__)
def test_a_deep_copy_of_a_traced_function_is_itself(fn: Callable[..., Any]) -> None:
    assert copy.deepcopy(fn) is fn


def test_an_object_with_traced_methods_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(Agent("x"))).step(1) == ("x", 1)


def test_a_traced_bound_method_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(Agent("x").step))(1) == ("x", 1)


def test_an_abstract_method_stays_abstract() -> None:
    class Base(abc.ABC):
        @traced
        @abc.abstractmethod
        def step(self) -> None: ...

    with pytest.raises(TypeError, match="step"):
        Base()


def test_decorating_twice_makes_two_runs(heard: Events) -> None:
    traced(name="outer")(traced(name="inner")(plain))(1)
    assert [event.run.name for event in heard if isinstance(event, ChainStart)] == ["outer", "inner"]


# -- what a call gives -------------------------------------------------------------------------------------------------


def test_a_function_returns_the_very_object(heard: Events) -> None:
    value = object()
    assert traced(lambda: value)() is value


async def test_a_coroutine_function_returns_the_very_object(heard: Events) -> None:
    value = object()

    async def fn() -> object:
        return value

    assert await traced(fn)() is value


def test_a_generator_yields_the_very_objects(heard: Events) -> None:
    first, second = object(), object()
    assert [item is given for item, given in zip(traced(plain_generator)(first, second), (first, second), strict=True)]


async def test_an_async_generator_yields_the_very_objects(heard: Events) -> None:
    first, second = object(), object()
    assert [item async for item in traced(plain_async_generator)(first, second)] == [first, second]


def test_all_kinds_of_parameters_arrive(heard: Events) -> None:
    assert traced(plain)(1, "x", 2, 3, c=4.0, d=5) == plain(1, "x", 2, 3, c=4.0, d=5)


def test_a_parameter_may_be_called_as_an_option_is(heard: Events) -> None:
    def fn(self: int, fn: int, run: int, args: int, kwargs: int) -> list[int]:
        return [self, fn, run, args, kwargs]

    assert traced(fn)(self=1, fn=2, run=3, args=4, kwargs=5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [Boom(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_a_function_raises_the_very_exception(error: BaseException, heard: Events) -> None:
    def fn() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        traced(fn)()
    assert caught.value is error


@pytest.mark.parametrize("error", [Boom(), ExceptionGroup("two", [Boom(), Boom()]), StopAsyncIteration()], ids=repr)
async def test_a_coroutine_function_raises_the_very_exception(error: Exception, heard: Events) -> None:
    async def fn() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await traced(fn)()
    assert caught.value is error


def test_a_generator_raises_the_very_exception(heard: Events) -> None:
    error = Boom()

    def fn() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(Boom) as caught:
        list(traced(fn)())
    assert caught.value is error


async def test_an_async_generator_raises_the_very_exception(heard: Events) -> None:
    error = Boom()

    async def fn() -> AsyncIterator[int]:
        yield 1
        raise error

    with pytest.raises(Boom) as caught:
        [item async for item in traced(fn)()]
    assert caught.value is error


def test_an_exception_keeps_its_cause_and_context(heard: Events) -> None:
    cause = KeyError("k")

    def fn() -> None:
        raise Boom from cause

    with pytest.raises(Boom) as caught:
        traced(fn)()
    assert caught.value.__cause__ is cause


@every_kind
async def test_wrong_arguments_raise_the_functions_own_type_error(fn: Callable[..., Any], heard: Events) -> None:
    def complaint(call: Callable[..., Any]) -> str:
        with pytest.raises(TypeError) as caught:
            call(nonsense=1)
        return str(caught.value)

    if fn is plain_async:
        with pytest.raises(TypeError, match=r"plain_async\(\) got an unexpected keyword argument 'nonsense'"):
            await traced(fn)(nonsense=1)
    else:
        assert complaint(traced(fn)) == complaint(fn)


# -- generators that are awaited ---------------------------------------------------------------------------------------


@types.coroutine
def plain_awaited(x: int) -> Iterator[Any]:
    """Suspend once, as what lies under the coroutines of an event loop."""
    yield current_run()
    return x


def steps_of(awaited: Any) -> list[Any]:
    """Return what each step gives, and what the last one returns."""
    steps = []
    while True:
        try:
            steps.append(awaited.send(None))
        except StopIteration as end:
            return [*steps, end.value]


def test_a_generator_that_is_awaited_stays_one(heard: Events) -> None:
    async def fn() -> Any:
        return await traced(plain_awaited)(1)

    (run, result) = steps_of(fn())
    assert (run, result, only(heard, ChainEnd).output) == (heard[0].run, 1, 1)
    assert only(heard, ChainStart).inputs == {"x": 1}


def test_a_generator_that_is_awaited_is_still_yielded_from(heard: Events) -> None:
    def fn() -> Iterator[Any]:
        return (yield from traced(plain_awaited)(1))

    assert steps_of(fn()) == [heard[0].run, 1]


def test_a_generator_that_is_awaited_looks_as_it_did() -> None:
    fn = traced(plain_awaited)
    for is_one in (inspect.isgeneratorfunction, inspect.iscoroutinefunction):
        assert is_one(fn) == is_one(plain_awaited)
    called = fn(1)
    assert inspect.isawaitable(called)
    called.close()


# -- methods, partials, callable objects -------------------------------------------------------------------------------


def test_a_method_gets_its_object(heard: Events) -> None:
    assert Agent("x").step(1) == ("x", 1)


async def test_a_coroutine_method_gets_its_object(heard: Events) -> None:
    assert await Agent("x").astep(1) == ("x", 1)


def test_a_generator_method_gets_its_object(heard: Events) -> None:
    assert list(Agent("x").steps(1)) == ["x", 1]


async def test_an_async_generator_method_gets_its_object(heard: Events) -> None:
    assert [item async for item in Agent("x").asteps(1)] == ["x", 1]


@pytest.mark.parametrize("method", ["made", "made_outside"])
def test_a_classmethod_gets_its_class(method: str, heard: Events) -> None:
    assert getattr(Agent, method)(1) == (Agent, 1)


@pytest.mark.parametrize("method", ["helper", "helper_outside"])
def test_a_staticmethod_gets_what_was_given(method: str, heard: Events) -> None:
    assert getattr(Agent("x"), method)(1) == 1


def test_a_property_may_hold_a_traced_function(heard: Events) -> None:
    assert Agent("x").title == "x"


@pytest.mark.parametrize("method", ["step", "made", "made_outside", "helper", "helper_outside"])
def test_self_and_cls_are_not_among_the_inputs(method: str, heard: Events) -> None:
    getattr(Agent(), method)(1)
    assert only(heard, ChainStart).inputs == {"x": 1}


def test_self_given_by_name_is_not_among_the_inputs(heard: Events) -> None:
    Agent.step(self=Agent(), x=1)
    assert only(heard, ChainStart).inputs == {"x": 1}


def test_a_bound_method_may_be_traced(heard: Events) -> None:
    assert traced(Plain("x").step)(1) == ("x", 1)
    assert only(heard, ChainStart).inputs == {"x": 1}


def test_a_partial_of_a_traced_function_is_traced(heard: Events) -> None:
    functools.partial(importable, 1)()
    assert names(heard) == ["chain_start", "chain_end"]


def test_a_partial_may_be_traced(heard: Events) -> None:
    assert traced(functools.partial(plain, 1, c=2.0))("x") == [1, "x", (), 2.0, {}]


def test_a_traced_partial_is_named_after_its_function(heard: Events) -> None:
    traced(functools.partial(plain, 1))()
    assert only(heard, ChainStart).run.name == "plain"


def test_a_partial_of_a_coroutine_function_stays_one() -> None:
    assert inspect.iscoroutinefunction(traced(functools.partial(plain_async, 1)))


def test_a_partial_of_a_generator_function_stays_one() -> None:
    assert inspect.isgeneratorfunction(traced(functools.partial(plain_generator, 1)))


async def test_a_partial_of_an_async_generator_function_is_stepped(heard: Events) -> None:
    assert [item async for item in traced(functools.partial(plain_async_generator, 1))("x")] == [1, "x"]
    assert only(heard, ChainEnd).output == [1, "x"]


def test_a_traced_partial_resolves_annotations_where_its_function_was_defined() -> None:
    assert traced(functools.partial(plain, 1)).__globals__ is plain.__globals__


class Plain:
    """What has methods that are not traced."""

    def __init__(self, name: str) -> None:
        self.name = name

    def step(self, x: int) -> tuple[str, int]:
        return self.name, x

    async def astep(self, x: int) -> tuple[str, int]:
        return self.name, x


class Callable_:
    def __call__(self, x: int) -> int:
        return x


class AsyncCallable:
    async def __call__(self, x: int) -> int:
        return x


class GeneratorCallable:
    def __call__(self, x: int) -> Iterator[int]:
        yield x


def test_a_callable_object_may_be_traced(heard: Events) -> None:
    assert traced(Callable_())(1) == 1
    assert only(heard, ChainStart).inputs == {"x": 1}


def test_a_traced_callable_object_is_named_after_its_class(heard: Events) -> None:
    traced(Callable_())(1)
    assert only(heard, ChainStart).run.name == "Callable_"


class Held:
    """Has traced what no class makes a method of."""

    of_method = traced(Plain("x").step)
    of_async_method = traced(Plain("x").astep)
    of_builtin = traced(len)
    of_partial = traced(functools.partial(plain, 1))
    of_object = traced(Callable_())
    of_traced = traced(traced(len))


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("of_method", 1, ("x", 1)),
        ("of_builtin", "abc", 3),
        ("of_partial", "y", [1, "y", (), 1.0, {}]),
        ("of_object", 1, 1),
        ("of_traced", "abc", 3),
    ],
)
@pytest.mark.parametrize("holder", [Held, Held()], ids=["class", "instance"])
def test_what_is_no_function_gets_no_self_in_a_class(
    holder: Any, name: str, argument: Any, expected: Any, heard: Events
) -> None:
    assert getattr(holder, name)(argument) == expected
    assert names(heard)[-1] == "chain_end"


async def test_a_bound_coroutine_method_gets_no_other_self_in_a_class(heard: Events) -> None:
    assert inspect.iscoroutinefunction(Held().of_async_method)
    assert await Held().of_async_method(1) == ("x", 1)


def test_what_is_no_function_is_the_sender_as_it_was_returned() -> None:
    size, ends = traced(len), []
    chain_end.connect(lambda sender, event: ends.append(sender), sender=size)
    size("abc")
    traced(len)("abc")
    assert ends == [size]


@pytest.mark.parametrize("fn", [len, functools.partial(plain, 1), Callable_()], ids=["builtin", "partial", "object"])
def test_a_deep_copy_of_what_is_no_function_is_itself(fn: Any) -> None:
    made = traced(fn)
    assert copy.deepcopy(made) is made


def test_what_is_no_function_keeps_its_signature_and_what_it_wraps() -> None:
    made: Any = traced(len)
    assert (made.__name__, made.__wrapped__, inspect.signature(made)) == ("len", len, inspect.signature(len))


def test_what_is_made_of_a_callable_object_has_its_name_not_ours() -> None:
    made = traced(Callable_())
    assert "wrapper" not in made.__qualname__
    assert made.__module__ == __name__


async def test_an_object_with_an_async_call_is_awaited(heard: Events) -> None:
    assert await traced(AsyncCallable())(1) == 1
    assert only(heard, ChainEnd).output == 1


def test_an_object_whose_call_is_a_generator_is_stepped(heard: Events) -> None:
    assert list(traced(GeneratorCallable())(1)) == [1]
    assert only(heard, ChainEnd).output == [1]


@pytest.mark.parametrize("builtin", [len, sorted], ids=["len", "sorted"])
def test_a_builtin_may_be_traced(builtin: Callable[..., Any], heard: Events) -> None:
    assert traced(builtin)([1, 2]) == builtin([1, 2])


# -- generators: what PEP 380 says of a generator stays true -----------------------------------------------------------


def echoing() -> Any:
    got = yield "ready"
    while got != "stop":
        got = yield got
    return "done"


def test_the_result_is_a_generator(heard: Events) -> None:
    assert inspect.isgenerator(traced(plain_generator)(1))


def test_the_result_is_an_async_generator(heard: Events) -> None:
    assert inspect.isasyncgen(traced(plain_async_generator)(1))


def test_the_generators_names_are_the_functions(heard: Events) -> None:
    stream, native = traced(plain_generator)(1), plain_generator(1)
    assert (stream.__name__, stream.__qualname__) == (native.__name__, native.__qualname__)


def test_send_arrives_in_the_generator(heard: Events) -> None:
    stream = traced(echoing)()
    assert [next(stream), stream.send("a"), stream.send("b")] == ["ready", "a", "b"]


def test_a_generators_return_value_arrives(heard: Events) -> None:
    stream = traced(echoing)()
    next(stream)
    with pytest.raises(StopIteration) as end:
        stream.send("stop")
    assert end.value.value == "done"


def test_yield_from_gets_the_return_value(heard: Events) -> None:
    def outer() -> Any:
        return (yield from traced(echoing)())

    stream = outer()
    next(stream)
    with pytest.raises(StopIteration) as end:
        stream.send("stop")
    assert end.value.value == "done"


def test_sending_to_an_unstarted_generator_raises_as_ever(heard: Events) -> None:
    with pytest.raises(TypeError, match="just-started generator"):
        traced(echoing)().send("too early")


def test_an_exhausted_generator_stays_exhausted(heard: Events) -> None:
    stream = traced(plain_generator)(1)
    list(stream)
    assert list(stream) == []


def catching() -> Any:
    try:
        yield 1
    except Boom as error:
        yield error
    yield 2


def test_a_thrown_exception_is_caught_inside(heard: Events) -> None:
    stream, error = traced(catching)(), Boom()
    next(stream)
    assert stream.throw(error) is error
    assert next(stream) == 2


def test_a_thrown_exception_that_is_not_caught_comes_back(heard: Events) -> None:
    stream, error = traced(plain_generator)(1), Boom()
    next(stream)
    with pytest.raises(Boom) as caught:
        stream.throw(error)
    assert caught.value is error


def test_throwing_into_an_unstarted_generator_says_nothing(heard: Events) -> None:
    with pytest.raises(Boom):
        traced(plain_generator)(1).throw(Boom())
    assert heard == []


def test_a_thrown_generator_exit_comes_back(heard: Events) -> None:
    stream, error = traced(plain_generator)(1), GeneratorExit()
    next(stream)
    with pytest.raises(GeneratorExit) as caught:
        stream.throw(error)
    assert caught.value is error


async def test_an_asynchronously_thrown_generator_exit_comes_back(heard: Events) -> None:
    stream, error = traced(plain_async_generator)(1), GeneratorExit()
    await anext(stream)
    with pytest.raises(GeneratorExit) as caught:
        await stream.athrow(error)
    assert caught.value is error


def test_a_context_manager_made_of_a_traced_generator_lets_a_generator_be_closed(heard: Events) -> None:
    after: list[str] = []

    @contextmanager
    @traced
    def session() -> Iterator[int]:
        yield 1

    def consumer() -> Iterator[int]:
        with session() as number:
            yield number
        after.append("went on behind the block although it was closed")

    stream = consumer()
    next(stream)
    stream.close()
    assert after == []


async def test_an_async_context_manager_made_of_a_traced_generator_lets_a_generator_be_closed(heard: Events) -> None:
    after: list[str] = []

    @asynccontextmanager
    @traced
    async def session() -> AsyncIterator[int]:
        yield 1

    async def consumer() -> AsyncIterator[int]:
        async with session() as number:
            yield number
        after.append("went on behind the block although it was closed")

    stream = consumer()
    await anext(stream)
    await stream.aclose()
    assert after == []


def test_a_context_manager_made_of_a_traced_generator_passes_errors(heard: Events) -> None:
    @contextmanager
    @traced
    def session() -> Iterator[int]:
        yield 1

    with pytest.raises(Boom), session():
        raise Boom
    assert only(heard, ChainError).run.status == "error"


@pytest.mark.parametrize("error", [StopIteration("x"), RuntimeError("x")], ids=repr)
def test_a_context_manager_made_of_a_traced_generator_passes_odd_errors(error: Exception, heard: Events) -> None:
    @contextmanager
    @traced
    def session() -> Iterator[int]:
        yield 1

    with pytest.raises(type(error)) as caught, session():
        raise error
    assert caught.value is error


def test_close_runs_the_generators_cleanup_at_once(heard: Events) -> None:
    done: list[str] = []

    def fn() -> Iterator[int]:
        try:
            yield 1
        finally:
            done.append("cleaned up")

    stream = traced(fn)()
    next(stream)
    stream.close()
    assert done == ["cleaned up"]


def returning_on_close() -> Iterator[int]:
    try:
        yield 1
    except GeneratorExit:
        return "closed"


def test_close_returns_what_the_plain_generators_close_returns(heard: Events) -> None:
    values = []
    for stream in (returning_on_close(), traced(returning_on_close)()):
        next(stream)
        values.append(stream.close())
    assert values[0] == values[1] == ("closed" if sys.version_info >= (3, 13) else None)


def test_a_generator_that_ignores_close_raises_as_ever(heard: Events) -> None:
    def stubborn() -> Iterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2
                return

    stream = traced(stubborn)()
    next(stream)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        stream.close()


def test_a_stop_iteration_inside_a_generator_becomes_a_runtime_error_as_ever(heard: Events) -> None:
    def fn() -> Iterator[int]:
        yield 1
        raise StopIteration

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(traced(fn)())
    assert only(heard, ChainError).run.status == "error"


async def test_asend_and_athrow_arrive(heard: Events) -> None:
    async def fn() -> AsyncIterator[Any]:
        try:
            got = yield 1
            yield got
        except Boom as error:
            yield error

    stream, error = traced(fn)(), Boom()
    await anext(stream)
    assert await stream.asend("sent") == "sent"
    assert await stream.athrow(error) is error
    await stream.aclose()


async def test_a_second_consumer_of_a_running_async_generator_is_refused_as_ever(heard: Events) -> None:
    import anyio

    running, go_on = anyio.Event(), anyio.Event()

    async def fn() -> AsyncIterator[int]:
        running.set()
        await go_on.wait()
        yield 1

    stream = traced(fn)()
    async with anyio.create_task_group() as group:
        group.start_soon(anext, stream)
        await running.wait()
        with pytest.raises(RuntimeError, match="already running"):
            await anext(stream)
        go_on.set()
    await stream.aclose()


# -- what is said ------------------------------------------------------------------------------------------------------


def local_function() -> Callable[..., Any]:
    def answer() -> None: ...

    return answer


def local_class() -> type[Any]:
    class Local:
        def step(self) -> None: ...

    return Local


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (plain, "plain"),
        (local_function(), "answer"),
        (local_class().step, "Local.step"),
        (lambda: 1, "<lambda>"),
    ],
    ids=["function", "local function", "method of a local class", "lambda"],
)
def test_a_run_is_named_after_what_comes_last_in_the_qualified_name(fn: Any, name: str, heard: Events) -> None:
    try:
        traced(fn)(None) if name != "<lambda>" and name != "answer" else traced(fn)()
    finally:
        assert heard[0].run is not None
        assert heard[0].run.name == name


def test_a_name_may_be_given(heard: Events) -> None:
    traced(name="search")(plain)(1)
    assert heard[0].run.name == "search"


def test_tags_and_metadata_are_on_the_run(heard: Events) -> None:
    traced(tags=["a", "b"], metadata={"k": 1})(plain)(1)
    assert (heard[0].run.tags, heard[0].run.metadata) == (("a", "b"), {"k": 1})


def test_the_sender_is_the_traced_callable() -> None:
    senders: list[object] = []
    fn = traced(plain)
    with subscribe(lambda sender, event: senders.append(sender)):
        fn(1)
    assert senders == [fn, fn]


def test_a_receiver_may_hear_one_callable_only() -> None:
    events: Events = []
    one, other = traced(kind="llm")(plain), traced(kind="llm")(plain)
    llm_end.connect(lambda sender, event: events.append(event), sender=one)
    one(1)
    other(2)
    assert [event.output[0] for event in events] == [1]


@pytest.mark.parametrize("method", ["step", "made"])
def test_a_receiver_may_hear_one_method_only(method: str) -> None:
    events: Events = []
    with subscribe(lambda sender, event: events.append(event), "chain_end", sender=getattr(Agent, method)):
        Agent().step(1)
        Agent.made(1)
    assert [event.run.name for event in events] == [f"Agent.{method}"]


def test_inputs_are_named_by_parameter(heard: Events) -> None:
    traced(plain)(1, "x", 2, 3, c=4.0, d=5)
    assert only(heard, ChainStart).inputs == {"a": 1, "b": "x", "rest": (2, 3), "c": 4.0, "d": 5}


def test_inputs_may_be_left_out(heard: Events) -> None:
    traced(capture_inputs=False)(plain)(1)
    assert only(heard, ChainStart).inputs is None


def test_output_may_be_left_out(heard: Events) -> None:
    assert traced(capture_output=False)(plain)(1) == plain(1)
    assert only(heard, ChainEnd).output is None


def test_what_a_function_emits_is_its_output_unless_that_may_be_left_out(heard: Events) -> None:
    @traced(kind="llm")
    def answer() -> None:
        emit(llm_new_token, token="one ")
        emit(llm_new_token, token="two")

    answer()
    traced(kind="llm", capture_output=False)(answer.__wrapped__)()
    assert [event.output for event in heard if isinstance(event, LLMEnd)] == ["one two", None]


async def test_what_a_cancelled_function_emitted_is_its_output_so_far(heard: Events) -> None:
    @traced(kind="llm")
    async def answer() -> None:
        emit(llm_new_token, token="one ")
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await answer()
    assert (only(heard, LLMError).output, only(heard, LLMError).run.status) == ("one ", "cancelled")


def test_a_streams_output_may_be_left_out(heard: Events) -> None:
    list(traced(capture_output=False)(plain_generator)(1))
    assert only(heard, ChainEnd).output is None


def test_a_function_may_say_what_its_inputs_are(heard: Events) -> None:
    traced(inputs=lambda a: {"doubled": a * 2})(plain)(1)
    assert only(heard, ChainStart).inputs == {"doubled": 2}


@every_kind
async def test_an_inputs_function_that_raises_does_not_reach_the_app(fn: Callable[..., Any], heard: Events) -> None:
    def wrong(*_: Any) -> None:
        raise Boom

    await consumed(traced(inputs=wrong)(fn)(1))
    assert "Boom" in only(heard, ChainStart).inputs["inputs"]


async def consumed(result: Any) -> Any:
    if inspect.isawaitable(result):
        return await result
    if hasattr(result, "__aiter__"):
        return [item async for item in result]
    return list(result)


@every_kind
async def test_each_kind_of_function_starts_and_ends_once(fn: Callable[..., Any], heard: Events) -> None:
    await consumed(traced(fn)(1))
    assert names(heard) == ["chain_start", "chain_end"]


@every_kind
async def test_each_kind_of_function_ends_with_its_output(fn: Callable[..., Any], heard: Events) -> None:
    result = await consumed(traced(fn)(1))
    assert only(heard, ChainEnd).output == result


@every_kind
async def test_what_is_never_run_says_nothing(fn: Callable[..., Any], heard: Events) -> None:
    if fn is plain:
        return
    result = traced(fn)(1)
    if inspect.iscoroutine(result):
        result.close()
    del result
    assert heard == []


@pytest.mark.parametrize(
    ("signature", "given", "prompts"),
    [
        ("prompt", ("hi",), ["hi"]),
        ("q, prompt", ("q", "hi"), ["hi"]),
        ("q, prompts", ("q", ["a", "b"]), ["a", "b"]),
        ("q, temperature=1", ("hi",), ["hi"]),
        ("", (), []),
        ("number", (7,), ["7"]),
    ],
)
def test_prompts_are_the_parameter_of_that_name_or_the_first(
    signature: str, given: tuple[Any, ...], prompts: list[str], heard: Events
) -> None:
    fn = eval(f"lambda {signature}: None")
    traced(kind="llm")(fn)(*given)
    assert only(heard, LLMStart).prompts == prompts


def test_what_is_no_prompt_is_a_parameter_of_the_model(heard: Events) -> None:
    traced(kind="llm")(lambda prompt, temperature: None)("hi", temperature=0.5)
    assert only(heard, LLMStart).params == {"temperature": 0.5}


class Message:
    def __init__(self, role: str, content: str) -> None:
        self.role = role
        self.content = content


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
        ([("system", "be kind")], [{"role": "system", "content": "be kind"}]),
        ([Message("assistant", "hello")], [{"role": "assistant", "content": "hello"}]),
        ("hi", [{"role": "user", "content": "hi"}]),
        ([], []),
    ],
    ids=["dicts", "pairs", "objects", "a text", "none"],
)
def test_messages_are_role_and_content(messages: Any, said: list[dict[str, Any]], heard: Events) -> None:
    traced(kind="chat_model")(lambda model, messages: None)("m", messages)
    assert only(heard, ChatModelStart).messages == said


def test_a_message_that_cannot_be_read_does_not_reach_the_app(heard: Events) -> None:
    class Hostile:
        @property
        def content(self) -> str:
            raise Boom

    assert traced(kind="chat_model")(lambda messages: "answer")([Hostile()]) == "answer"


def test_a_prompt_that_cannot_be_shown_does_not_reach_the_app(heard: Events) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise Boom

        __str__ = __repr__

    assert traced(kind="llm")(lambda prompt: "answer")(Hostile()) == "answer"


@pytest.mark.parametrize("kind", ["llm", "chat_model", "retriever"])
def test_what_is_neither_true_nor_false_is_an_input_as_any_other(kind: Any, heard: Events) -> None:
    class Array:
        def __bool__(self) -> bool:
            raise Boom

    array = Array()
    traced(kind=kind, inputs=lambda array: array)(lambda array: None)(array)
    start: Any = heard[0]
    assert start.inputs is array
    assert [getattr(start, name) for name in start.fields]


def test_a_retrievers_query_is_the_parameter_of_that_name_or_the_first(heard: Events) -> None:
    traced(kind="retriever")(lambda k, query: [])(3, "what?")
    assert only(heard, RetrieverStart).query == "what?"


def test_a_tools_only_text_is_its_input_string(heard: Events) -> None:
    traced(kind="tool")(lambda path: None)("/etc/hosts")
    assert only(heard, ToolStart).input_str == "/etc/hosts"


# -- tokens ------------------------------------------------------------------------------------------------------------


def tokens(events: Events) -> list[str]:
    return [event.token for event in events if isinstance(event, LLMNewToken)]


@traced(kind="llm")
def joke(topic: str) -> Iterator[str]:
    yield from ("why ", "did ", topic)


@traced(kind="chat_model")
async def ajoke(topic: str) -> AsyncIterator[str]:
    for piece in ("why ", "did ", topic):
        yield piece


def test_each_text_that_a_model_yields_is_a_token(heard: Events) -> None:
    list(joke("it"))
    assert tokens(heard) == ["why ", "did ", "it"]


async def test_each_text_that_an_async_model_yields_is_a_token(heard: Events) -> None:
    await consumed(ajoke("it"))
    assert tokens(heard) == ["why ", "did ", "it"]


def test_the_joined_text_is_the_output(heard: Events) -> None:
    list(joke("it"))
    assert only(heard, LLMEnd).output == "why did it"


def test_a_chain_has_no_tokens(heard: Events) -> None:
    list(traced(plain_generator)("a", "b"))
    assert tokens(heard) == []


def test_an_item_that_is_no_text_is_no_token(heard: Events) -> None:
    list(traced(kind="llm")(plain_generator)(1, "b"))
    assert tokens(heard) == ["b"]


def chunks() -> Iterator[dict[str, Any]]:
    yield {"text": "a"}
    yield {"text": "b"}
    yield {"usage": 2}


def test_a_function_may_say_what_the_token_of_an_item_is(heard: Events) -> None:
    list(traced(kind="llm", token=lambda chunk: chunk.get("text"))(chunks)())
    assert tokens(heard) == ["a", "b"]


def test_a_token_carries_the_item_that_it_was_made_of(heard: Events) -> None:
    list(traced(kind="llm", token=lambda chunk: chunk.get("text"))(chunks)())
    assert [event.chunk for event in heard if isinstance(event, LLMNewToken)] == [{"text": "a"}, {"text": "b"}]


def test_items_that_are_no_token_do_not_spoil_the_joined_text(heard: Events) -> None:
    list(traced(kind="llm", token=lambda chunk: chunk.get("text"))(chunks)())
    assert only(heard, LLMEnd).output == "ab"


@pytest.mark.parametrize("error", [Boom(), StopIteration()], ids=repr)
def test_a_token_function_that_raises_does_not_reach_the_app(error: Exception, heard: Events) -> None:
    def wrong(chunk: Any) -> str:
        raise error

    assert len(list(traced(kind="llm", token=wrong)(chunks)())) == 3


# -- setting things on the current run ---------------------------------------------------------------------------------


def test_output_model_and_usage_may_be_set_on_the_current_run(heard: Events) -> None:
    @traced(kind="llm")
    def ask(prompt: str) -> str:
        run = current_run()
        assert run is not None
        run.output, run.model, run.usage = "better", "m-1", Usage(1, 2)
        return "raw"

    assert ask("q") == "raw"
    end = only(heard, LLMEnd)
    assert (end.output, end.usage, end.run.model) == ("better", Usage(1, 2), "m-1")


def test_output_may_be_set_in_a_stream(heard: Events) -> None:
    @traced(kind="llm")
    def ask() -> Iterator[str]:
        yield "a"
        current_run().output = "better"

    list(ask())
    assert only(heard, LLMEnd).output == "better"


def test_there_is_no_current_run_inside_a_function_when_nothing_listens() -> None:
    assert traced(current_run)() is None


def test_a_plain_generator_is_returned_when_nothing_listens() -> None:
    assert traced(plain_generator)(1).gi_code is plain_generator.__code__


# -- callbacks given at construction -----------------------------------------------------------------------------------


def test_a_callback_hears_the_runs_of_its_callable_only() -> None:
    events: Events = []
    inner = traced(name="inner")(lambda: None)
    traced(name="outer", callbacks=[lambda sender, event: events.append(event)])(lambda: inner())()
    assert [event.run.name for event in events] == ["outer", "outer"]


def test_a_callback_given_twice_hears_once() -> None:
    events: Events = []

    def hear(sender: object, event: Event) -> None:
        events.append(event)

    with scope(callbacks=[hear]):
        traced(callbacks=[hear, hear])(plain)(1)
    assert names(events) == ["chain_start", "chain_end"]


# -- a function that returns a stream ----------------------------------------------------------------------------------


class Numbers:
    """An iterator object with a close, a context manager and something of its own."""

    def __init__(self, items: Any = ("a", "b")) -> None:
        self.items = iter(items)
        self.calls: list[str] = []
        self.headers = {"x-id": "1"}

    def __iter__(self) -> Numbers:
        return self

    def __next__(self) -> Any:
        return next(self.items)

    def __enter__(self) -> Numbers:
        self.calls.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append("exit")

    def close(self) -> None:
        self.calls.append("close")


class AsyncNumbers:
    def __init__(self, items: Any = ("a", "b")) -> None:
        self.items = iter(items)
        self.calls: list[str] = []

    def __aiter__(self) -> AsyncNumbers:
        return self

    async def __anext__(self) -> Any:
        for item in self.items:
            return item
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncNumbers:
        self.calls.append("enter")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.calls.append("exit")

    async def close(self) -> None:
        self.calls.append("close")


class AsyncNumbersClosedAtOnce(AsyncNumbers):
    def close(self) -> None:
        self.calls.append("close")


def streaming(result: Any) -> Callable[[], Any]:
    return traced(kind="llm", name="streaming", stream=True)(lambda: result)


def streaming_async(result: Any) -> Callable[[], Any]:
    async def fn() -> Any:
        return result

    return traced(kind="llm", name="streaming", stream=True)(fn)


SYNC_STREAMS = {"generator": lambda: iter_of("a", "b"), "iterator": Numbers, "builtin": lambda: iter(["a", "b"])}
ASYNC_STREAMS = {"generator": lambda: aiter_of("a", "b"), "iterator": AsyncNumbers}


def iter_of(*items: Any) -> Iterator[Any]:
    yield from items


async def aiter_of(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize("make", SYNC_STREAMS.values(), ids=SYNC_STREAMS)
def test_a_returned_stream_gives_its_items(make: Callable[[], Any], heard: Events) -> None:
    assert list(streaming(make())()) == ["a", "b"]


@pytest.mark.parametrize("make", SYNC_STREAMS.values(), ids=SYNC_STREAMS)
def test_the_run_lasts_as_long_as_the_returned_stream(make: Callable[[], Any], heard: Events) -> None:
    stream = streaming(make())()
    assert names(heard) == ["llm_start"]
    list(stream)
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]
    assert only(heard, LLMEnd).output == "ab"


@pytest.mark.parametrize("make", SYNC_STREAMS.values(), ids=SYNC_STREAMS)
async def test_a_coroutine_function_may_return_a_sync_stream(make: Callable[[], Any], heard: Events) -> None:
    assert list(await streaming_async(make())()) == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


@pytest.mark.parametrize("make", ASYNC_STREAMS.values(), ids=ASYNC_STREAMS)
async def test_a_coroutine_function_may_return_an_async_stream(make: Callable[[], Any], heard: Events) -> None:
    assert [item async for item in await streaming_async(make())()] == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


@pytest.mark.parametrize("make", ASYNC_STREAMS.values(), ids=ASYNC_STREAMS)
async def test_a_function_may_return_an_async_stream(make: Callable[[], Any], heard: Events) -> None:
    assert [item async for item in streaming(make())()] == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


@pytest.mark.parametrize("result", [["a"], None, "text", b"bytes", {"k": 1}, ("a",), {1}, 7], ids=repr)
def test_what_is_no_stream_is_returned_as_it_is(result: Any, heard: Events) -> None:
    assert streaming(result)() is result
    assert only(heard, LLMEnd).output is result


async def test_what_is_no_stream_is_awaited_as_it_is(heard: Events) -> None:
    result = ["a"]
    assert await streaming_async(result)() is result
    assert names(heard) == ["llm_start", "llm_end"]


@pytest.mark.parametrize("make", [lambda: iter_of("a"), Numbers], ids=["generator", "iterator"])
def test_a_stream_that_is_never_iterated_ends_early(make: Callable[[], Any], heard: Events) -> None:
    streaming(make())()
    assert only(heard, LLMEnd).run.status == "closed_early"


@pytest.mark.parametrize("make", [lambda: aiter_of("a"), AsyncNumbers], ids=["generator", "iterator"])
async def test_an_async_stream_that_is_never_iterated_ends_early(make: Callable[[], Any], heard: Events) -> None:
    await streaming_async(make())()
    assert only(heard, LLMEnd).run.status == "closed_early"


def test_a_stream_may_be_closed_by_its_own_close(heard: Events) -> None:
    numbers = Numbers()
    stream = streaming(numbers)()
    next(stream)
    stream.close()
    assert only(heard, LLMEnd).run.status == "closed_early"
    assert only(heard, LLMEnd).output == "a"


def test_close_closes_the_stream_once(heard: Events) -> None:
    numbers = Numbers()
    stream = streaming(numbers)()
    next(stream)
    stream.close()
    assert numbers.calls == ["close"]


def test_a_stream_may_be_closed_before_its_first_item(heard: Events) -> None:
    streaming(Numbers())().close()
    assert only(heard, LLMEnd).run.status == "closed_early"


def test_a_stream_ends_with_its_context_manager(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        next(stream)
    assert only(heard, LLMEnd).run.status == "closed_early"


def test_leaving_the_context_manager_does_only_what_the_stream_does_there(heard: Events) -> None:
    numbers = Numbers()
    with streaming(numbers)() as stream:
        next(stream)
    assert numbers.calls == ["enter", "exit"]


def test_a_stream_that_was_consumed_in_its_context_manager_ends_ok(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        list(stream)
    assert only(heard, LLMEnd).run.status == "ok"


async def test_an_async_stream_ends_with_its_context_manager(heard: Events) -> None:
    async with await streaming_async(AsyncNumbers())() as stream:
        await anext(stream)
    assert only(heard, LLMEnd).run.status == "closed_early"


async def test_an_async_stream_may_be_closed_by_its_own_close(heard: Events) -> None:
    stream = await streaming_async(AsyncNumbers())()
    await anext(stream)
    await stream.close()
    assert only(heard, LLMEnd).run.status == "closed_early"


async def test_an_async_stream_whose_close_is_not_async_may_be_closed(heard: Events) -> None:
    stream = await streaming_async(AsyncNumbersClosedAtOnce())()
    await anext(stream)
    stream.close()
    assert only(heard, LLMEnd).run.status == "closed_early"


async def test_an_async_stream_whose_close_is_not_async_may_be_closed_unread(heard: Events) -> None:
    stream = await streaming_async(AsyncNumbersClosedAtOnce())()
    stream.close()
    assert only(heard, LLMEnd).run.status == "closed_early"


def test_a_stream_keeps_what_it_has_of_its_own(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        assert stream.headers == {"x-id": "1"}


def test_a_stream_is_still_of_its_class(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        assert isinstance(stream, Numbers)


def test_a_sync_stream_does_not_pretend_to_be_async(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        assert not isinstance(stream, AsyncIterable)


async def test_an_async_stream_does_not_pretend_to_be_sync(heard: Events) -> None:
    async with await streaming_async(AsyncNumbers())() as stream:
        assert not hasattr(stream, "__iter__")


def test_starlette_streams_a_sync_stream_object(heard: Events) -> None:
    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(streaming(Numbers())()))])
    assert TestClient(app).get("/").text == "ab"


class Both(Numbers):
    """A stream that is read either way, as httpx has them."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter_of(*self.items)


def test_a_stream_that_can_be_read_either_way_is_read_synchronously(heard: Events) -> None:
    slow: Events = []

    async def hear(sender: object, event: Event) -> None:
        await asyncio.sleep(0)
        slow.append(event)

    with subscribe(hear):
        list(streaming(Both())())
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


async def test_a_stream_that_can_be_read_either_way_is_read_asynchronously(heard: Events) -> None:
    assert [item async for item in streaming(Both())()] == ["a", "b"]
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]


def test_an_error_in_a_returned_stream_ends_its_run(heard: Events) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise Boom

    with pytest.raises(Boom):
        list(streaming(broken())())
    assert (heard[-1].signal_name, heard[-1].output) == ("llm_error", "a")


def test_an_error_before_there_is_a_stream_ends_the_run(heard: Events) -> None:
    def broken() -> Iterator[str]:
        raise Boom

    with pytest.raises(Boom):
        traced(stream=True)(broken)()
    assert names(heard) == ["chain_start", "chain_error"]


def test_the_run_of_a_returned_stream_is_not_current_behind_the_call(heard: Events) -> None:
    with streaming(Numbers())() as stream:
        assert current_run() is None
        next(stream)
        assert current_run() is None


def test_the_run_of_a_returned_stream_is_current_in_its_steps(heard: Events) -> None:
    def stream() -> Iterator[Any]:
        yield current_run()

    (run,) = traced(stream=True, name="s")(lambda: stream())()
    assert run is heard[0].run


# -- wrong options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "chian"}, r"'chian'.*chain, llm"),
        ({"kind": None}, r"None.*chain, llm"),
        ({"tags": "one"}, r"tags='one'.*tags=\['one'\]"),
        ({"tags": [1]}, r"tag 1"),
        ({"tags": 5}, r"tags=5"),
        ({"token": "text"}, r"token='text'.*callable"),
        ({"inputs": "question"}, r"inputs='question'.*callable"),
        ({"metadata": "abc"}, r"metadata='abc'"),
        ({"name": 5}, r"name=5"),
    ],
    ids=str,
)
def test_a_wrong_option_raises_at_once_and_names_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        traced(**options)(plain)


@pytest.mark.parametrize(
    "callbacks",
    ["handler", [object()], [print, 5], 5, [Agent]],
    ids=["text", "object", "one is none", "number", "class"],
)
def test_callbacks_that_cannot_hear_raise_at_once(callbacks: Any) -> None:
    with pytest.raises(SubscriberError):
        traced(callbacks=callbacks)(plain)


@pytest.mark.parametrize(
    "thing",
    ["llm", 5, property(plain), Agent, object()],
    ids=["text", "number", "property", "class", "object"],
)
def test_what_is_no_function_raises_at_once(thing: Any) -> None:
    with pytest.raises(ArgumentError, match="@traced"):
        traced(thing)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="flavour"):
        traced(flavour="vanilla")


# -- guests elsewhere --------------------------------------------------------------------------------------------------


def test_recursion_to_the_limit_leaves_no_run_open(heard: Events) -> None:
    @traced
    def down(n: int) -> int:
        return down(n + 1)

    with pytest.raises(RecursionError):
        down(0)
    assert len(open_runs) == 0


def test_disabled_means_that_the_function_itself_is_returned(run_python: Callable[..., Any]) -> None:
    code = """
import tracebus
events = []
tracebus.subscribe(lambda sender, event: events.append(event))
def f(x): return x
assert tracebus.traced(f) is f
assert tracebus.traced(kind="llm")(f)(1) == 1
with tracebus.trace("block") as run:
    assert isinstance(run, tracebus.Run)
    assert tracebus.current_run() is None
    tracebus.emit("text", text="x")
with tracebus.scope(callbacks=[lambda sender, event: events.append(event)]):
    f(1)
    with tracebus.trace("block"):
        pass
assert events == [], events
"""
    run_python("-c", code, env={"TRACEBUS_DISABLED": "1"})


def test_disabled_still_refuses_wrong_options(run_python: Callable[..., Any]) -> None:
    done = run_python("-c", "import tracebus; tracebus.traced(kind='no')(print)", env={"TRACEBUS_DISABLED": "1"}, check=False)
    assert "unknown kind 'no'" in done.stderr


# FastAPI resolves annotations, which are texts in this module, in the function's globals.


class Session:
    def __init__(self, user: str) -> None:
        self.user = user


@traced
def session_of(user: str = "nobody") -> Session:
    return Session(user)


@traced
async def asession_of(user: str = "nobody") -> Session:
    return Session(user)


@traced
def session_for_a_while(user: str = "nobody") -> Iterator[Session]:
    yield Session(user)


@traced
async def asession_for_a_while(user: str = "nobody") -> AsyncIterator[Session]:
    yield Session(user)


@pytest.mark.parametrize(
    "dependency",
    [session_of, asession_of, session_for_a_while, asession_for_a_while],
    ids=lambda fn: fn.__name__,
)
def test_fastapi_depends_on_traced_functions(dependency: Callable[..., Any], heard: Events) -> None:
    app = FastAPI()

    def hello(session, question: str):
        return f"{session.user}: {question}"

    hello.__annotations__["session"] = Annotated[Session, Depends(dependency)]
    app.get("/")(traced(hello))
    assert TestClient(app).get("/", params={"user": "eva", "question": "why"}).json() == "eva: why"
    assert {event.run.name for event in heard} == {dependency.__name__, "hello"}


@traced(kind="llm")
async def streamed_answer(question: str) -> AsyncIterator[str]:
    yield "because "
    yield "of that"


def test_a_streaming_response_keeps_the_scope_of_the_call(heard: Events) -> None:
    async def endpoint(request: Any) -> StreamingResponse:
        with scope(user_id="eva"):
            return StreamingResponse(streamed_answer("why"))

    app = Starlette(routes=[Route("/", endpoint)])
    assert TestClient(app).get("/").text == "because of that"
    assert {event.run.user_id for event in heard} == {"eva"}
    assert names(heard) == ["llm_start", "llm_new_token", "llm_new_token", "llm_end"]
