"""Many hooks in one object: how handlers with ``on_*`` methods are connected, for everything, a scope or one callable.

Which methods there are and what they are called with is in ``callbacks``.
"""

from __future__ import annotations

import importlib
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .dispatch import connect_receiver, queue_behind
from .errors import MissingExtraError, SubscriberError
from .late import callbacks, loops
from .notebooks import site_of_caller
from .signals import HOOKS, Hook, Route, chat_model_start, close_subscription, standing
from .subscriptions import Connection, Subscription, identity_of, is_async_callable, is_brief

if TYPE_CHECKING:
    from .callbacks import Adapter, Arguments, Dialect, Method
    from .subscriptions import Receiver

__all__ = ["Callback", "attach", "detach", "route_of"]

Callback: TypeAlias = Any
"""A handler object with ``on_*`` methods, or a callable that hears every hook as ``fn(sender, event=event)``."""


# -- binding -----------------------------------------------------------------------------------------------------------


def _own_method(handler: object, name: str, bases: tuple[type, ...]) -> Callable[..., Any] | None:
    """Return the handler's method unless it is a base class's, which does nothing."""
    method = getattr(handler, name, None)
    if not callable(method):
        return None
    defined = getattr(type(handler), name, None)
    return None if any(defined is getattr(base, name, callbacks.hear_nothing_async) for base in bases) else method


def _receivers(handler: object, dialect: Dialect) -> list[tuple[Hook[Any], Receiver, Callable[..., Any]]]:
    """Return what hears each hook that the handler has a method for, and what says whether it is async: the method."""
    found = []
    for how in dialect.methods:
        method = _own_method(handler, how.name, dialect.bases)
        as_llm = dialect.chat_as_llm if how.hook is chat_model_start else None
        other = None if as_llm is None else _own_method(handler, as_llm.name, dialect.bases)
        if as_llm is not None and method is not None:
            found.append((how.hook, *_with_fallback(handler, method, how, other or callbacks.hear_nothing, as_llm)))
        elif as_llm is not None and other is not None:
            found.append((how.hook, _unless(handler, how.ignored_by, _receiver(handler, other, as_llm), other), other))
        elif method is not None:
            found.append((how.hook, _receiver(handler, method, how), method))
    return found


def _receiver(handler: object, method: Callable[..., Any], how: Method) -> Receiver:
    arguments_of, skip = _reader(handler, method, how), _skip_of(method)

    def hear(sender: Any, event: Any) -> Any:
        arguments = arguments_of(event)
        return skip() if arguments is None else method(*arguments[0], **arguments[1])

    return hear


def _reader(handler: object, method: Callable[..., Any], how: Method) -> Callable[[Any], Arguments | None]:
    """Return what makes a method's arguments of an event; None where the handler does not hear it."""
    accepted = _accepted_keywords(method)
    ignored_by = how.ignored_by if how.ignored_by is not None and hasattr(handler, how.ignored_by) else None

    def arguments_of(event: Any) -> Arguments | None:
        if ignored_by is not None and getattr(handler, ignored_by):
            return None
        arguments = how.arguments(event)
        if accepted is None or arguments is None:
            return arguments
        positional, keywords = arguments
        return positional, {name: value for name, value in keywords.items() if name in accepted}

    return arguments_of


def _skip_of(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called in place of a method that does not hear an event."""
    return callbacks.hear_nothing_async if is_async_callable(method) else callbacks.hear_nothing


def _unless(handler: object, ignored_by: str | None, receiver: Receiver, method: Callable[..., Any]) -> Receiver:
    skip = _skip_of(method)

    def hear(sender: Any, event: Any) -> Any:
        ignored = ignored_by is not None and getattr(handler, ignored_by, False)
        return skip() if ignored else receiver(sender, event=event)

    return hear


def _with_fallback(
    handler: object, method: Callable[..., Any], how: Method, other: Callable[..., Any], as_llm: Method
) -> tuple[Receiver, Callable[..., Any]]:
    """Hear through ``other`` when ``method`` says that it is not implemented, as LangChain's handlers do.

    A handler that ignores chat models hears neither, one that ignores text models not the other.
    """
    arguments_of, instead, skip = _reader(handler, method, how), _receiver(handler, other, as_llm), _skip_of(method)

    def call(arguments: Arguments, event: Any) -> Any:
        try:
            return method(*arguments[0], **arguments[1])
        except NotImplementedError:
            return instead(None, event=event)

    async def call_async(arguments: Arguments, event: Any) -> None:
        try:
            await method(*arguments[0], **arguments[1])
        except NotImplementedError:
            result = instead(None, event=event)
            if inspect.isawaitable(result):
                await result

    heard = call_async if is_async_callable(method) else call

    def hear(sender: Any, event: Any) -> Any:
        arguments = arguments_of(event)
        return skip() if arguments is None else heard(arguments, event)

    return hear, heard


def _accepted_keywords(method: Callable[..., Any]) -> frozenset[str] | None:
    """Return the keywords that a method without ``**kwargs`` takes; None when it takes any."""
    code = getattr(method, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_VARKEYWORDS and not hasattr(method, "__wrapped__"):
        return None  # what the signature would say, which takes longer than all the rest of a scope
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def connections_of(callback: Callback) -> dict[Hook[Any], Connection]:
    """Return how a handler or a callable hears each hook; raise SubscriberError when it hears none."""
    if inspect.isclass(callback):
        raise SubscriberError(f"{callback.__name__} is a class: give an instance, {callback.__name__}()")
    dialect = _dialect_of(callback)
    receivers = _receivers(callback, dialect)
    if not receivers and callable(callback):
        receivers = [(hook, callback, callback) for hook in HOOKS.values()]
    if not receivers:
        choices = ", ".join(how.name for how in dialect.methods)
        raise SubscriberError(
            f"{callback!r} has no on_* method of its own and is not callable: define at least one of {choices}"
        )
    subscription = Subscription(
        callback, raise_error=bool(getattr(callback, "raise_error", False)), disconnect=close_subscription
    )
    subscription.site = site_of_caller(callback)
    subscription.connected_loop = loops.current_loop()
    is_mixed = any(is_async_callable(method) for _, _, method in receivers)
    in_thread = getattr(callback, "run_inline", True) is False
    return {
        hook: _connection(subscription, receiver, method, is_mixed=is_mixed, in_thread=in_thread)
        for hook, receiver, method in receivers
    }


def _connection(
    subscription: Subscription, receiver: Receiver, method: Callable[..., Any], *, is_mixed: bool, in_thread: bool
) -> Connection:
    if is_async_callable(method):
        connection = connect_receiver(subscription, receiver)
        connection.is_plain = False
        connection.is_brief = is_brief(method) and receiver is not method
        return connection
    if is_mixed:
        receiver = queue_behind(subscription, receiver)
    connection = connect_receiver(subscription, receiver, delivery="thread" if in_thread else None)
    connection.is_plain = connection.is_plain and not is_mixed
    return connection


def route_of(callbacks: Iterable[Callback]) -> Route | None:
    """Return the route of some callbacks, each once; None for none."""
    if isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Iterable):
        raise SubscriberError(f"callbacks={callbacks!r} is no list of handlers: give callbacks=[handler]")
    by_hook: dict[Hook[Any], tuple[Connection, ...]] = {}
    for callback in callbacks:
        for hook, connection in connections_of(callback).items():
            by_hook[hook] = (*by_hook.get(hook, ()), connection)
    return Route(by_hook) if by_hook else None


def attach(handler: Callback) -> Subscription:
    """Let ``handler`` hear every run of the process; attaching it again changes nothing.

    Raises SubscriberError when it has no ``on_*`` method and is not callable.
    """
    key = "attach", identity_of(handler)
    known = standing.get(key)
    if known is not None and not known.closed:
        return known
    connections = connections_of(handler)
    subscription = next(iter(connections.values())).subscription
    if known is not None and standing.get(key) is known:
        standing.pop(key, None)
    first = standing.setdefault(key, subscription)  # of several threads that attach it
    if first is subscription:
        for hook, connection in connections.items():
            hook.add(connection)
    return first


def detach(handler: Callback) -> None:
    """Stop ``handler`` from hearing every run. Detaching what is not attached does nothing."""
    subscription = standing.pop(("attach", identity_of(handler)), None)
    if subscription is not None:
        subscription.close()


# -- handlers of other frameworks --------------------------------------------------------------------------------------

_no_adapter: set[str] = set()
"""Packages that are known to have none, so that the installed packages are searched once."""
_adapters: weakref.WeakKeyDictionary[type, Adapter] = weakref.WeakKeyDictionary()
"""What was found for a class of handlers: they may be given at every request."""


def _dialect_of(handler: object) -> Dialect:
    """Return how ``handler`` is called: as its framework's adapter says, else as handlers of tracebus are.

    Adapters are entry points of the group ``tracebus.adapters``, named after the framework's package.
    """
    adapter = _adapters.get(type(handler))
    if adapter is None:
        adapter = _find_adapter(type(handler))
    if adapter is None:
        return callbacks.OWN
    _adapters[type(handler)] = adapter
    return adapter(handler)


def _find_adapter(cls: type) -> Adapter | None:
    packages = {base.__module__.partition(".")[0] for base in cls.__mro__} - {"builtins", "tracebus"}
    if not packages - _no_adapter:
        return None
    for package in sorted(packages):
        entry_point = _entry_points().get(package)
        if entry_point is not None:
            return _load(entry_point)
    _no_adapter.update(packages)
    return None


def _entry_points() -> dict[str, Any]:
    metadata = importlib.import_module("importlib.metadata")  # 20 ms, for foreign handlers only
    return {point.name: point for point in metadata.entry_points(group="tracebus.adapters")}


def _load(entry_point: Any) -> Adapter:
    try:
        adapter: Adapter = entry_point.load()
    except ImportError as error:
        raise MissingExtraError(
            f"the adapter for handlers of {entry_point.name} does not load ({error}): "
            f'pip install "tracebus[{entry_point.name.partition("_")[0]}]"'
        ) from error
    return adapter
