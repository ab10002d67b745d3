"""The methods that a handler has, and what each is called with: the base classes, and dialects, of which ours is one.

The methods have the names and signatures of LangChain's callback protocol (langchain-core 1.8), so that a handler written
for it reads the same here; what arrives are tracebus's own plain types. How handlers are connected is in ``handlers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from .events import Event
from .runs import Run
from .signals import (
    Hook,
    agent_action,
    agent_finish,
    chain_end,
    chain_error,
    chain_start,
    chat_model_start,
    custom_event,
    llm_end,
    llm_error,
    llm_new_token,
    llm_start,
    retriever_end,
    retriever_error,
    retriever_start,
    retry,
    text,
    tool_end,
    tool_error,
    tool_start,
)
from .values import Value

__all__ = [
    "OWN",
    "Adapter",
    "Arguments",
    "AsyncCallbackHandler",
    "BaseCallbackHandler",
    "Dialect",
    "Method",
    "hear_nothing",
    "hear_nothing_async",
]

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


def hear_nothing(*_: Any, **__: Any) -> None:
    """Be called in place of a method that does not hear an event."""


async def hear_nothing_async(*_: Any, **__: Any) -> None:
    """Be awaited in place of a method that does not hear an event."""


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
    setattr(AsyncCallbackHandler, _method.name, hear_nothing_async)

OWN: Final = Dialect(_METHODS, (BaseCallbackHandler, AsyncCallbackHandler), _CHAT_AS_LLM)
