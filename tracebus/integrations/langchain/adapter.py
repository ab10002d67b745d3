"""LangChain's handlers on the bus: what each method of a ``BaseCallbackHandler`` is called with on an event.

The core finds ``adapt`` through the entry point ``langchain_core`` when such a handler is given to ``attach``, ``scope`` or a
callable. Which methods there are, what ignores them, and how they are called, in place, awaited or in a thread, is in the
core's ``handlers``; what becomes of values is in ``outgoing``, which runs a handler is told of in ``lineage``.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid4

import tenacity
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import get_buffer_string
from langchain_core.prompt_values import PromptValue

from ...callbacks import OWN, Arguments, Dialect
from ...errors import SubscriberError
from ...events import main_input
from ...families import MODEL_KINDS
from ...payload import text_of
from ...runs import Run
from .lineage import Lineage
from .outgoing import chunk_of, documents_of, messages_of, result_of, tool_output_of

__all__ = ["adapt"]

_BASES: Final = (BaseCallbackHandler, AsyncCallbackHandler)

_tellers: weakref.WeakValueDictionary[int, Teller] = weakref.WeakValueDictionary()
"""One for each handler, wherever it was given: it may hear the start of a run in one place and the end in another."""


def adapt(handler: object) -> Dialect:
    """Return how a handler of LangChain's is called on the events of the bus.

    Raises SubscriberError for what is no handler: a manager of handlers, and the bridge that carries LangChain's runs here,
    which would hear itself.
    """
    name = type(handler).__qualname__
    if isinstance(handler, BaseCallbackManager):
        raise SubscriberError(f"{name} calls handlers and is none: give its handlers, callbacks=manager.handlers")
    if any(f"{cls.__module__}.".startswith(f"{__package__}.") for cls in type(handler).__mro__):
        raise SubscriberError(f"{name} carries LangChain's runs to tracebus: give it to LangChain, callbacks=[{name}()]")
    teller = _tellers.get(id(handler)) or _tellers.setdefault(id(handler), Teller(handler))
    return teller.dialect()


def _overrides(handler: object, name: str) -> bool:
    defined = getattr(type(handler), name, None)
    return defined is not None and all(defined is not getattr(base, name, None) for base in _BASES)


def _starts_of(handler: object) -> dict[str, str]:
    """Return the hooks of starts that a handler has a method for, each with the attribute that ignores them.

    Empty for a handler with both sync and async methods: a sync one may have to wait for async ones before it is called, and
    would be noted too late.
    """
    methods = [how for how in OWN.methods if _overrides(handler, how.name)]
    if len({inspect.iscoroutinefunction(getattr(handler, how.name)) for how in methods}) > 1:
        return {}
    starts = {how.hook.name: how.ignored_by or "" for how in methods if how.name.endswith("_start")}
    if "llm_start" in starts:
        starts.setdefault("chat_model_start", "ignore_chat_model")
    return starts


class Teller:
    """Say in LangChain's words what one handler is called with: a method for each of the handler's own, of the same name.

    Each takes an event and returns the arguments, or None where LangChain would not call.
    """

    def __init__(self, handler: object) -> None:
        self._lineage = Lineage(handler, _starts_of(handler))

    def dialect(self) -> Dialect:
        """Return how the handler is called."""
        assert OWN.chat_as_llm is not None
        methods = (how.with_arguments(getattr(self, how.name)) for how in OWN.methods)
        return Dialect(methods, _BASES, OWN.chat_as_llm.with_arguments(self.chat_as_llm))

    # -- which run -----------------------------------------------------------------------------------------------------

    def _ids(self, run: Run) -> dict[str, Any]:
        parent = self._lineage.parent_of(run)
        return {"run_id": run.id, "parent_run_id": None if parent is None else parent.id, "tags": list(run.tags)}

    def _known(self, run: Run | None) -> dict[str, Any] | None:
        """Return the ids of a run that the handler has heard the start of."""
        return None if run is None or not self._lineage.knows(run) else self._ids(run)

    def _ended(self, run: Run) -> dict[str, Any] | None:
        ids = self._known(run)
        self._lineage.end(run)
        return ids

    def _started(self, run: Run) -> dict[str, Any]:
        self._lineage.begin(run)
        return {**self._ids(run), "metadata": _metadata(run), "name": run.name}

    # -- models --------------------------------------------------------------------------------------------------------

    def on_llm_start(self, event: Any) -> Arguments:
        """Say that a text model is called."""
        prompt, params = main_input(event.inputs, ("prompts", "prompt"))
        return self._model_started(
            event.run, [prompt.to_string()] if isinstance(prompt, PromptValue) else event.prompts, params
        )

    def on_chat_model_start(self, event: Any) -> Arguments:
        """Say that a chat model is called: one list of messages, as it is one call."""
        messages, params = main_input(event.inputs, ("messages",))
        return self._model_started(event.run, [messages_of(messages)], params)

    def chat_as_llm(self, event: Any) -> Arguments:
        """Say that a chat model is called to a handler that knows only text models."""
        messages, params = main_input(event.inputs, ("messages",))
        return self._model_started(event.run, [get_buffer_string(messages_of(messages))], params)

    def _model_started(self, run: Run, asked: list[Any], given: Mapping[str, Any]) -> Arguments:
        """Say the parameters where handlers look for them: of the call, of the object behind it, and in the metadata."""
        keywords, params = self._started(run), dict(given)
        model = run.model or params.get("model")
        if model is not None:
            params = {"model": model, "model_name": model, **params}
            keywords["metadata"].setdefault("ls_model_name", model)
        keywords["metadata"].setdefault("ls_model_type", "chat" if run.kind == "chat_model" else "llm")
        keywords |= {"invocation_params": params, "options": {"stop": params.get("stop")}, "batch_size": 1}
        return ({**_serialized(run), "kwargs": dict(params)}, asked), keywords

    def on_llm_new_token(self, event: Any) -> Arguments | None:
        """Say a piece of a model's answer; in LangChain only models stream tokens."""
        ids = self._known(event.run)
        if ids is None or event.run.kind not in MODEL_KINDS:
            return None
        return (event.token,), {**ids, "chunk": chunk_of(event.token, event.chunk, event.run)}

    def on_llm_end(self, event: Any) -> Arguments | None:
        """Say what a model answered."""
        ids = self._ended(event.run)
        output = "" if event.output is None else event.output
        return None if ids is None else ((result_of(output, event.run),), ids)

    def on_llm_error(self, event: Any) -> Arguments | None:
        """Say that a model failed, and what it had answered."""
        ids = self._ended(event.run)
        return None if ids is None else ((event.error,), {**ids, "response": result_of(event.output, event.run)})

    # -- chains, tools, retrievers -------------------------------------------------------------------------------------

    def on_chain_start(self, event: Any) -> Arguments:
        """Say that a chain begins; the finer kinds are its run type."""
        inputs = {} if event.inputs is None else event.inputs
        return (_serialized(event.run), inputs), {**self._started(event.run), "run_type": event.run.kind}

    def on_chain_end(self, event: Any) -> Arguments | None:
        """Say what a chain returned."""
        ids = self._ended(event.run)
        return None if ids is None else ((event.output,), ids)

    def on_tool_start(self, event: Any) -> Arguments:
        """Say that a tool is called. As in LangChain, a tool that is called with a text alone has no inputs beside it."""
        inputs = event.inputs if isinstance(event.inputs, dict) and event.inputs else None
        if inputs is not None and list(inputs.values()) == [event.input_str]:
            inputs = None
        keywords = {**self._started(event.run), "inputs": inputs}
        if (call_id := event.run.metadata.get("tool_call_id")) is not None:
            keywords["tool_call_id"] = call_id
        return (_serialized_tool(event.run), event.input_str), keywords

    def on_tool_end(self, event: Any) -> Arguments | None:
        """Say what a tool returned."""
        ids = self._ended(event.run)
        return None if ids is None else ((tool_output_of(event.output),), {**ids, "name": event.run.name})

    def on_retriever_start(self, event: Any) -> Arguments:
        """Say what a retriever is asked."""
        query = event.query if isinstance(event.query, str) else text_of(event.query)
        return (_serialized(event.run), query), self._started(event.run)

    def on_retriever_end(self, event: Any) -> Arguments | None:
        """Say what a retriever found."""
        ids = self._ended(event.run)
        return None if ids is None else ((documents_of(event.documents),), ids)

    def on_chain_error(self, event: Any) -> Arguments | None:
        """Say that a chain, a tool or a retriever failed."""
        ids = self._ended(event.run)
        return None if ids is None else ((event.error,), ids)

    on_tool_error = on_retriever_error = on_chain_error

    # -- on the way ----------------------------------------------------------------------------------------------------

    def on_agent_action(self, event: Any) -> Arguments | None:
        """Say that an agent uses a tool."""
        given = event.tool_input
        tool_input = dict(given) if isinstance(given, dict) else given if isinstance(given, str) else text_of(given)
        ids = self._known(event.run)
        return None if ids is None else ((AgentAction(event.tool, tool_input, event.log),), ids)

    def on_agent_finish(self, event: Any) -> Arguments | None:
        """Say that an agent is done."""
        given = event.return_values
        values = dict(given) if isinstance(given, dict) else {"output": given}
        ids = self._known(event.run)
        return None if ids is None else ((AgentFinish(values, event.log),), ids)

    def on_text(self, event: Any) -> Arguments:
        """Say a line of text, which may stand outside of all runs."""
        return (event.text,), {"run_id": uuid4(), "parent_run_id": None, "tags": []} | (self._known(event.run) or {})

    def on_retry(self, event: Any) -> Arguments | None:
        """Say that a call is tried again, with what tenacity says in LangChain's."""
        ids = self._known(event.run)
        return None if ids is None else ((_retry_state(event),), ids)

    def on_custom_event(self, event: Any) -> Arguments:
        """Say an event of the app's own: its run is the one that it was said in."""
        run: Run | None = event.run
        run_id: UUID = uuid4() if run is None else run.id
        said = {"tags": [], "metadata": {}} if run is None else {"tags": list(run.tags), "metadata": _metadata(run)}
        return (event.name, event.data), {"run_id": run_id, **said}


def _metadata(run: Run) -> dict[str, Any]:
    said = dict(run.metadata)
    for name, value in (("session_id", run.session_id), ("user_id", run.user_id)):
        if value is not None:
            said.setdefault(name, value)
    return said


def _serialized(run: Run) -> dict[str, Any]:
    """Return what stands for the object that is run; handlers look for ``name``, and for words in ``id``."""
    return {"lc": 1, "type": "not_implemented", "id": ["tracebus", run.kind, run.name], "name": run.name}


def _serialized_tool(run: Run) -> dict[str, Any]:
    description = inspect.getdoc(run.sender) if callable(run.sender) else None
    return {**_serialized(run), "description": description or ""}


def _retry_state(event: Any) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = event.attempt
    state.idle_for = event.wait_s
    state.next_action = tenacity.RetryAction(event.wait_s)
    state.upcoming_sleep = event.wait_s
    if event.error is not None:
        state.set_exception((type(event.error), event.error, event.error.__traceback__))
    return state
