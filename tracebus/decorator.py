"""``@traced``: one wrapper for each kind of function, transparent in all that can be seen of it.

A wrapper is made of cells only and given the globals of the function that it wraps, because frameworks resolve annotations
there; and a wrapper of a generator function is a plain function that says it is one, because a stream's parent and scope
are those of the call, and a generator's body starts later.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import Any, ParamSpec, Self, TypeVar, overload

from .errors import ArgumentError
from .families import ASYNC, SYNC, Colour, Pending
from .handlers import Callback
from .late import proxies
from .runs import Run, get_current, leave, set_current
from .signals import bus
from .streams import TracedLife, step_async_generator, step_generator
from .tracing import Source, end_run, fail_run, open_run, say_start, settle

__all__ = ["traced"]

P = ParamSpec("P")
R = TypeVar("R")

_GENERATOR_FLAGS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


@overload
def traced(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def traced(
    *,
    kind: str = ...,
    name: str | None = ...,
    tags: Iterable[str] = ...,
    metadata: Mapping[str, Any] | None = ...,
    callbacks: Iterable[Callback] = ...,
    capture_inputs: bool = ...,
    capture_output: bool = ...,
    stream: bool = ...,
    token: Callable[[Any], str | None] | None = ...,
    inputs: Callable[..., Any] | None = ...,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def traced(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    kind: str = "chain",
    name: str | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    capture_inputs: bool = True,
    capture_output: bool = True,
    stream: bool = False,
    token: Callable[[Any], str | None] | None = None,
    inputs: Callable[..., Any] | None = None,
) -> Any:
    """Make each call of a function a run: of functions, coroutine functions, generators, async generators and methods.

    ``callbacks``, ``tags`` and ``metadata`` are for the runs of this function alone, not for those nested in them. With
    ``stream=True`` the function returns a stream, and the run lasts until that ends, is closed or raises; what is no stream
    is the output. ``token`` makes text of an item of a model's stream (None is no token); without it each ``str`` is one.
    ``inputs`` is called with the function's arguments and returns what is recorded for them.

    Raises ArgumentError for an unknown kind or what is no function, SubscriberError for a callback that cannot hear.
    """
    if fn is None:
        return functools.partial(
            _decorate,
            kind=kind,
            name=name,
            tags=tags,
            metadata=metadata,
            callbacks=callbacks,
            capture_inputs=capture_inputs,
            capture_output=capture_output,
            stream=stream,
            token=token,
            inputs=inputs,
        )
    return _decorate(fn)


def _decorate(fn: Any, **options: Any) -> Any:
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(_decorate(fn.__func__, **options))
    _check_function(fn, options)
    source = _source_of(fn, options)
    if bus.disabled:
        return fn
    inputs = options.get("inputs")
    read = _guarded(inputs, source.name) if inputs is not None else _reader(fn)
    if not options.get("capture_inputs", True):
        read = _nothing
    wrapper = _kind_of_wrapper(fn, bool(options.get("stream")))(fn, source, read, _Options.of(options))
    dressed = _dressed(wrapper, fn)
    source.sender = traced_fn = dressed if _gets_self(fn) else _without_self(dressed)
    return traced_fn


class _Options:
    """What a wrapper needs to know beside its source."""

    __slots__ = ("keep_output", "token_of")

    def __init__(self, keep_output: bool, token_of: Callable[[Any], str | None] | None) -> None:
        self.keep_output = keep_output
        self.token_of = token_of

    @classmethod
    def of(cls, options: dict[str, Any]) -> _Options:
        """Pick them out."""
        return cls(bool(options.get("capture_output", True)), options.get("token"))


def _check_function(fn: Any, options: dict[str, Any]) -> None:
    if inspect.isclass(fn):
        raise ArgumentError(f"@traced is for functions, and {fn.__qualname__} is a class: decorate its methods")
    if isinstance(fn, property):
        raise ArgumentError("@traced goes under @property: decorate the function, then make it a property")
    if not callable(fn):
        raise ArgumentError(f"@traced is for functions, not {fn!r}: options are given by name, @traced(kind=...)")
    name, token = options.get("name"), options.get("token")
    if name is not None and not isinstance(name, str):
        raise ArgumentError(f"name={name!r} is no text")
    if options.get("inputs") is not None and not callable(options["inputs"]):
        raise ArgumentError(f"inputs={options['inputs']!r} is not callable: give a function of the call's arguments")
    if token is not None and not callable(token):
        raise ArgumentError(f"token={token!r} is not callable: give a function from an item to its text or None")


def _source_of(fn: Any, options: dict[str, Any]) -> Source:
    given = {name: options[name] for name in ("tags", "metadata", "callbacks") if name in options}
    name, kind = options.get("name") or _name_of(fn), options.get("kind", "chain")
    return Source(name, kind, fn, **given, keep_output=options.get("capture_output", True))


def _name_of(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    name: str = getattr(fn, "__qualname__", type(fn).__qualname__)
    return name.rpartition("<locals>.")[2]


# -- reading a call ----------------------------------------------------------------------------------------------------

Reader = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def _nothing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return None


def _guarded(inputs: Callable[..., Any], name: str) -> Reader:
    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return inputs(*args, **kwargs)
        except Exception as error:
            return {"inputs": f"[the inputs= function of {name} raised {type(error).__name__}]"}

    return read


def _reader(fn: Any) -> Reader:
    """Return what names a call's arguments, without ``self`` or ``cls``. It never fails: a wrong call fails in ``fn``."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    skipped = 1 if positional[:1] in (["self"], ["cls"]) and "." in _name_of(fn) else 0
    names = tuple(positional[skipped:])
    count = len(names)

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if skipped:
            if not args:  # Agent.step(self=agent)
                kwargs = {name: value for name, value in kwargs.items() if name != positional[0]}
            args = args[1:]
        inputs = dict(zip(names, args))  # noqa: B905  # strict= doubles the time, and a wrong call fails in fn
        if kwargs:
            inputs.update(kwargs)
        if len(args) > count:
            inputs[rest] = args[count:]
        return inputs

    if count == 1 and not skipped:
        (only,) = names
        return lambda args, kwargs: {only: args[0]} if len(args) == 1 and not kwargs else read(args, kwargs)
    return read


# -- wrappers ----------------------------------------------------------------------------------------------------------
# Each gets all that it uses as local names, which become cells: see the top of this file.


def _kind_of_wrapper(fn: Any, stream: bool) -> Callable[[Any, Source, Reader, _Options], Callable[..., Any]]:
    target = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    if inspect.isasyncgenfunction(target):
        return _wrap_async_generator
    if inspect.isgeneratorfunction(target):
        return _wrap_awaited_generator if _code_flags(fn) & inspect.CO_ITERABLE_COROUTINE else _wrap_generator
    if inspect.iscoroutinefunction(target):
        return _wrap_streaming_coroutine if stream else _wrap_coroutine
    return _wrap_streaming_function if stream else _wrap_function


def _dressed(wrapper: Any, fn: Any) -> Any:
    function = _function_of(fn)
    code = wrapper.__code__.replace(co_flags=wrapper.__code__.co_flags | (_code_flags(fn) & _GENERATOR_FLAGS))
    namespace = getattr(inspect.unwrap(function), "__globals__", wrapper.__globals__)
    dressed = types.FunctionType(code, namespace, _name_of(fn).rpartition(".")[2], None, wrapper.__closure__)
    dressed.__module__, dressed.__qualname__ = getattr(function, "__module__", None) or "", _name_of(fn)
    return functools.update_wrapper(dressed, fn)


def _gets_self(fn: Any) -> bool:
    """Tell whether ``fn`` becomes a method in a class, as functions do."""
    return hasattr(type(fn), "__get__") and not isinstance(fn, (types.MethodType, functools.partial))


class _WithoutSelf(functools.partial[Any]):
    """A traced bound method, builtin, partial or callable object. A class makes no method of it; else it is as a function."""

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        return self

    def __reduce__(self) -> Any:
        return self.func.__qualname__

    @property
    def __globals__(self) -> Any:
        return self.func.__globals__


def _without_self(dressed: Any) -> Any:
    same = functools.update_wrapper(_WithoutSelf(dressed), dressed)
    same.__wrapped__ = dressed.__wrapped__
    return same


def _function_of(fn: Any) -> Any:
    """Return the function behind partials and callable objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _code_flags(fn: Any) -> int:
    code = getattr(_function_of(fn), "__code__", None)
    return 0 if code is None else code.co_flags


def _wrap_function(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    here, put, put_back, bus_ = get_current, set_current, leave, bus
    open_, start, end, fail, wait, colour = open_run, source.family.say_start, source.family.end_run, fail_run, settle, SYNC
    quiet, keep_output = source.route is None, options.keep_output

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outside = here()
        if outside is None and quiet and not bus_.live:
            return fn(*args, **kwargs)
        run = open_(source, outside, read(args, kwargs))
        try:
            start(run, colour)
            output = fn(*args, **kwargs)
            if keep_output and run.output is None:
                run.output = output
            end(run, colour)
            return output
        except BaseException as error:
            fail(run, colour, error)
            raise
        finally:
            if here() is run:
                put(outside)
            else:
                put_back(run, outside)
            if run._queued_on is not None:
                wait(run)

    return wrapper


def _wrap_coroutine(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    here, put, put_back, bus_ = get_current, set_current, leave, bus
    open_, start, end, fail, colour, sync = open_run, source.family.say_start, source.family.end_run, fail_run, ASYNC, SYNC
    quiet, keep_output = source.route is None, options.keep_output

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        outside = here()
        if outside is None and quiet and not bus_.live:
            return await fn(*args, **kwargs)
        run = open_(source, outside, read(args, kwargs))
        try:
            pending = start(run, colour)
            if pending is not None:
                await pending
            output = await fn(*args, **kwargs)
            if keep_output and run.output is None:
                run.output = output
            pending = end(run, colour)
            if pending is not None:
                await pending
            return output
        except GeneratorExit as error:  # thrown away while it waited: nothing can be awaited any more
            fail(run, sync, error)
            raise
        except BaseException as error:
            pending = fail(run, colour, error)
            if pending is not None:
                await pending
            raise
        finally:
            if here() is run:
                put(outside)
            else:
                put_back(run, outside)

    return wrapper


def _wrap_awaited_generator(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    awaited = _wrap_coroutine(fn, source, read, options)

    @types.coroutine
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from awaited(*args, **kwargs))

    return wrapper


def _wrap_generator(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    return _wrap_any_generator(fn, source, read, options, step_generator)


def _wrap_async_generator(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    return _wrap_any_generator(fn, source, read, options, step_async_generator)


def _wrap_any_generator(
    fn: Any, source: Source, read: Reader, options: _Options, step: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    here, bus_, life_of, quiet = get_current, bus, TracedLife, source.route is None
    colour = SYNC if step is step_generator else ASYNC
    token_of, keep_output = options.token_of, options.keep_output
    name, qualname = _name_of(fn).rpartition(".")[2], getattr(fn, "__qualname__", _name_of(fn))

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outside = here()
        steps = fn(*args, **kwargs)
        if outside is None and quiet and not bus_.live:
            return steps
        life = life_of(source, outside, lambda: read(args, kwargs), colour, token_of=token_of, keep_output=keep_output)
        stepped = step(steps, life)
        stepped.__name__, stepped.__qualname__ = name, qualname
        return stepped

    return wrapper


def _wrap_streaming_function(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    here, put_back, bus_, quiet = get_current, leave, bus, source.route is None
    open_, start, fail, wait, colour, accompany = open_run, say_start, fail_run, settle, SYNC, _accompany

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outside = here()
        if outside is None and quiet and not bus_.live:
            return fn(*args, **kwargs)
        run = open_(source, outside, read(args, kwargs))
        try:
            start(run, colour)
            stream, _ = accompany(fn(*args, **kwargs), run, source, options, colour)
            return stream
        except BaseException as error:
            fail(run, colour, error)
            raise
        finally:
            put_back(run, outside)
            if run.status != "open":
                wait(run)

    return wrapper


def _wrap_streaming_coroutine(fn: Any, source: Source, read: Reader, options: _Options) -> Callable[..., Any]:
    here, put_back, bus_, quiet = get_current, leave, bus, source.route is None
    open_, start, fail, colour, sync, accompany = open_run, say_start, fail_run, ASYNC, SYNC, _accompany

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        outside = here()
        if outside is None and quiet and not bus_.live:
            return await fn(*args, **kwargs)
        run = open_(source, outside, read(args, kwargs))
        try:
            pending = start(run, colour)
            if pending is not None:
                await pending
            stream, pending = accompany(await fn(*args, **kwargs), run, source, options, colour)
            if pending is not None:
                await pending
            return stream
        except BaseException as error:  # thrown away while it waited, nothing can be awaited any more
            pending = fail(run, sync if isinstance(error, GeneratorExit) else colour, error)
            if pending is not None:
                await pending
            raise
        finally:
            put_back(run, outside)

    return wrapper


def _accompany(result: Any, run: Run, source: Source, options: _Options, colour: Colour) -> tuple[Any, Pending]:
    """Return the stream with the run in its company; what is no stream is the run's output, and its end."""
    if not _is_stream(result):
        if options.keep_output and run.output is None:
            run.output = result
        return result, end_run(run, colour)
    life = TracedLife(
        source,
        None,
        _no_inputs,
        ASYNC if isinstance(result, AsyncGenerator) else SYNC,
        token_of=options.token_of,
        keep_output=options.keep_output,
        run=run,
    )
    if isinstance(result, Generator):
        return step_generator(result, life), None
    if isinstance(result, AsyncGenerator):
        return step_async_generator(result, life), None
    return proxies.proxy_of(result, life), None


def _no_inputs() -> None:
    """Stand in where the run is open already."""


def _is_stream(result: Any) -> bool:
    """Tell streams from answers that can be iterated too, such as the models of pydantic, mappings and data sets.

    Not every stream is an iterator: the responses of requests and the event streams of botocore are not. But they are closed.
    """
    kind = type(result)
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return True
    if hasattr(kind, "__len__"):
        return False
    return hasattr(kind, "__aiter__") or (hasattr(kind, "__iter__") and callable(getattr(kind, "close", None)))
