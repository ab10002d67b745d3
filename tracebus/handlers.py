"""Many hooks in one object: handlers with ``on_*`` methods, how each method is called, and where they are attached.

The methods have the names and signatures of LangChain's callback protocol (langchain-core 1.8), so that a handler written
for it reads the same here; what arrives are tracebus's own plain types.
"""

from __future__ import annotations

import importlib
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .dispatch import connect_receiver, queue_behind
from .errors import MissingExtraError, SubscriberError
from .events import Event
from .late import loops
from .notebooks import site_of_caller
from .runs import Run
from .signals import (
    HOOKS,
    Hook,
    Route,
    agent_action,
    agent_finish,
    chain_end,
    chain_error,
    chain_start,
    chat_model_start,
    close_subscription,
    custom_event,
    llm_end,
    llm_error,
    llm_new_token,
    llm_start,
    retriever_end,
    retriever_error,
    retriever_start,
    retry,
    standing,
    text,
    tool_end,
    tool_error,
    tool_start,
)
from .subscriptions import Connection, Subscription, identity_of, is_async_callable, is_brief
from .values import Value

if TYPE_CHECKING:
    from .subscriptions import Receiver

__all__ = [
    "Arguments",
    "AsyncCallbackHandler",
    "BaseCallbackHandler",
    "Callback",
    "OWN",
    "Dialect",
    "Method",
    "attach",
    "detach",
    "route_of",
]

Callback: TypeAlias = Any
"""A handler object with ``on_*`` methods, or a callable that hears every hook as ``fn(sender, event=event)``."""

RunId: TypeAlias = Any
"""A ``uuid.UUID``, of which there is none outside a run. Any, so that a method may say UUID, as those for LangChain do."""

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""What a method is called with: by position and by keyword."""


class BaseCallbackHandler:
    """Hear the hooks whose methods a subclass overrides; the others cost nothing.

    ``ignore_*`` leaves groups of hooks out and is looked at on every event. ``raise_error`` lets what a method raises reach
    the app. With ``run_inline = False`` sync methods run in a worker thread while async code waits for them.
    Every method may be sync or async.
    """

    raise_error: bool = False
    run_inline: bool = True

    ignore_llm: bool = False
    ignore_chat_model: bool = False
    ignore_chain: bool = False
    ignore_agent: bool = False
    ignore_retriever: bool = False
    ignore_retry: bool = False
    ignore_custom_event: bool = False

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: RunId,
        parent_run_id: RunId,
        tags: list[str],
        **kwargs: Any,
    ) -> Any:
        """Hear that a text model is called, or a chat model when ``on_chat_model_start`` is not there."""

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[dict[str, Any]]],
        *,
        run_id: RunId,
        parent_run_id: RunId,
        tags: list[str],
        **kwargs: Any,
    ) -> Any:
        """Hear that a chat model is called; raise NotImplementedError to hear ``on_llm_start`` instead."""

    def on_llm_new_token(self, token: str, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear a piece of a streamed answer."""

    def on_llm_end(self, response: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear a model's answer; ``usage`` is among the keywords."""

    def on_llm_error(
        self, error: BaseException, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear that a model call failed; ``response`` among the keywords is what it had answered."""

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear that a chain begins."""

    def on_chain_end(self, outputs: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear what a chain returned."""

    def on_chain_error(
        self, error: BaseException, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear that a chain failed."""

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: RunId,
        parent_run_id: RunId,
        tags: list[str],
        **kwargs: Any,
    ) -> Any:
        """Hear that a tool is called; ``inputs`` is among the keywords."""

    def on_tool_end(self, output: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear what a tool returned."""

    def on_tool_error(
        self, error: BaseException, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear that a tool failed."""

    def on_retriever_start(
        self, serialized: dict[str, Any], query: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear what a retriever is asked."""

    def on_retriever_end(self, documents: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear what a retriever found."""

    def on_retriever_error(
        self, error: BaseException, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any
    ) -> Any:
        """Hear that a retriever failed."""

    def on_agent_action(self, action: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear an agent's decision: ``action.tool``, ``action.tool_input``, ``action.log``."""

    def on_agent_finish(self, finish: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear an agent's result: ``finish.return_values``, ``finish.log``."""

    def on_text(self, text: str, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear a free line of text."""

    def on_retry(self, retry_state: Any, *, run_id: RunId, parent_run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear that a call is tried again: ``retry_state.attempt``, ``.wait_s``, ``.error``."""

    def on_custom_event(self, name: str, data: Any, *, run_id: RunId, tags: list[str], **kwargs: Any) -> Any:
        """Hear an event of the app's own."""


class AsyncCallbackHandler(BaseCallbackHandler):
    """A handler whose methods are async; those that are not overridden can still be awaited."""


async def _nothing(*_: Any, **__: Any) -> None:
    """Hear nothing."""


def _skip(*_: Any, **__: Any) -> None:
    """Hear nothing."""


# -- what each method is called with -----------------------------------------------------------------------------------


def _ids(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"run_id": None, "parent_run_id": None, "tags": []}
    return {"run_id": run.id, "parent_run_id": run.parent_id, "tags": list(run.tags)}


def _started(run: Run | None) -> dict[str, Any]:
    name, metadata = (None, {}) if run is None else (run.name, dict(run.metadata))
    return {**_ids(run), "metadata": metadata, "name": name}


def _serialized(event: Event) -> dict[str, Any]:
    return {"name": None if event.run is None else event.run.name}


def _llm_start(event: Any) -> Arguments:
    return (_serialized(event), event.prompts), {**_started(event.run), "invocation_params": dict(event.params)}


def _chat_model_start(event: Any) -> Arguments:
    return (_serialized(event), [event.messages]), {**_started(event.run), "invocation_params": dict(event.params)}


def _chat_as_llm_start(event: Any) -> Arguments:
    lines = (f"{message.get('role', 'user')}: {message.get('content')}" for message in event.messages)
    keywords = {**_started(event.run), "invocation_params": dict(event.params)}
    return (_serialized(event), ["\n".join(lines)]), keywords


def _new_token(event: Any) -> Arguments:
    return (event.token,), {**_ids(event.run), "chunk": event.chunk}


def _llm_end(event: Any) -> Arguments:
    return (event.output,), {**_ids(event.run), "usage": event.usage}


def _llm_error(event: Any) -> Arguments:
    return (event.error,), {**_ids(event.run), "response": event.output}


def _chain_start(event: Any) -> Arguments:
    kind = None if event.run is None else event.run.kind
    return (_serialized(event), event.inputs), {**_started(event.run), "run_type": kind}


def _output(event: Any) -> Arguments:
    return (event.output,), _ids(event.run)


def _error(event: Any) -> Arguments:
    return (event.error,), _ids(event.run)


def _tool_start(event: Any) -> Arguments:
    return (_serialized(event), event.input_str), {**_started(event.run), "inputs": event.inputs}


def _retriever_start(event: Any) -> Arguments:
    return (_serialized(event), event.query), _started(event.run)


def _documents(event: Any) -> Arguments:
    return (event.documents,), _ids(event.run)


def _event_itself(event: Any) -> Arguments:
    return (event,), _ids(event.run)


def _text(event: Any) -> Arguments:
    return (event.text,), _ids(event.run)


def _custom_event(event: Any) -> Arguments:
    keywords = _started(event.run)
    del keywords["parent_run_id"], keywords["name"]
    return (event.name, event.data), keywords


class Method(Value):
    """How one method of a handler hears one hook.

    ``ignored_by`` is the attribute of the handler that leaves the hook out while it is true. ``arguments`` makes of an event
    what the method is called with; None says that the event is not for this handler.
    """

    __slots__ = ("arguments", "hook", "ignored_by", "name")

    def __init__(
        self, name: str, hook: Hook[Any], ignored_by: str | None, arguments: Callable[[Any], Arguments | None]
    ) -> None:
        self.name = name
        self.hook = hook
        self.ignored_by = ignored_by
        self.arguments = arguments

    def with_arguments(self, arguments: Callable[[Any], Arguments | None]) -> Method:
        """Return the same method, called with what ``arguments`` makes of an event."""
        return Method(self.name, self.hook, self.ignored_by, arguments)


class Dialect(Value):
    """How the handlers of one framework are called.

    ``bases`` are the classes whose methods do nothing, so that only what a handler overrides is connected. ``chat_as_llm`` is
    called in place of the method for ``chat_model_start`` where that is missing or raises NotImplementedError.
    """

    __slots__ = ("bases", "chat_as_llm", "methods")

    def __init__(self, methods: Iterable[Method], bases: tuple[type, ...] = (), chat_as_llm: Method | None = None) -> None:
        self.methods = tuple(methods)
        self.bases = bases
        self.chat_as_llm = chat_as_llm


Adapter: TypeAlias = Callable[[object], Dialect]
"""What an entry point of the group ``tracebus.adapters`` names: it takes a handler and says how it is called."""


_METHODS: Final = (
    Method("on_llm_start", llm_start, "ignore_llm", _llm_start),
    Method("on_chat_model_start", chat_model_start, "ignore_chat_model", _chat_model_start),
    Method("on_llm_new_token", llm_new_token, "ignore_llm", _new_token),
    Method("on_llm_end", llm_end, "ignore_llm", _llm_end),
    Method("on_llm_error", llm_error, "ignore_llm", _llm_error),
    Method("on_chain_start", chain_start, "ignore_chain", _chain_start),
    Method("on_chain_end", chain_end, "ignore_chain", _output),
    Method("on_chain_error", chain_error, "ignore_chain", _error),
    Method("on_tool_start", tool_start, "ignore_agent", _tool_start),
    Method("on_tool_end", tool_end, "ignore_agent", _output),
    Method("on_tool_error", tool_error, "ignore_agent", _error),
    Method("on_retriever_start", retriever_start, "ignore_retriever", _retriever_start),
    Method("on_retriever_end", retriever_end, "ignore_retriever", _documents),
    Method("on_retriever_error", retriever_error, "ignore_retriever", _error),
    Method("on_agent_action", agent_action, "ignore_agent", _event_itself),
    Method("on_agent_finish", agent_finish, "ignore_agent", _event_itself),
    Method("on_text", text, None, _text),
    Method("on_retry", retry, "ignore_retry", _event_itself),
    Method("on_custom_event", custom_event, "ignore_custom_event", _custom_event),
)
_CHAT_AS_LLM: Final = Method("on_llm_start", chat_model_start, "ignore_llm", _chat_as_llm_start)

for _method in _METHODS:
    setattr(AsyncCallbackHandler, _method.name, _nothing)

OWN: Final = Dialect(_METHODS, (BaseCallbackHandler, AsyncCallbackHandler), _CHAT_AS_LLM)


# -- binding -----------------------------------------------------------------------------------------------------------


def _own_method(handler: object, name: str, bases: tuple[type, ...]) -> Callable[..., Any] | None:
    """Return the handler's method unless it is a base class's, which does nothing."""
    method = getattr(handler, name, None)
    if not callable(method):
        return None
    defined = getattr(type(handler), name, None)
    return None if any(defined is getattr(base, name, _nothing) for base in bases) else method


def _receivers(handler: object, dialect: Dialect) -> list[tuple[Hook[Any], Receiver, Callable[..., Any]]]:
    """Return what hears each hook that the handler has a method for, and what says whether it is async: the method."""
    found = []
    for how in dialect.methods:
        method = _own_method(handler, how.name, dialect.bases)
        as_llm = dialect.chat_as_llm if how.hook is chat_model_start else None
        other = None if as_llm is None else _own_method(handler, as_llm.name, dialect.bases)
        if as_llm is not None and method is not None:
            found.append((how.hook, *_with_fallback(handler, method, how, other or _skip, as_llm)))
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
    return _nothing if is_async_callable(method) else _skip


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
    for hook, connection in connections.items():
        hook.add(connection)
    subscription = next(iter(connections.values())).subscription
    standing[key] = subscription
    return subscription


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
        return OWN
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
