"""LangChain's callbacks onto the bus: ``TracebusHandler``.

Each method reads what LangChain says, and a mistake there is logged once and never reaches the app; then what it returns says
it, and what a subscriber with ``raise_error`` raises at that does. What becomes of LangChain's objects is in ``incoming``, how
runs begin and end in ``lives``, how the handler gets into every run in ``install``.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.callbacks import BaseCallbackHandler

from ...families import ASYNC, MODEL_KINDS, SYNC, Colour, Pending
from ...signals import Hook, agent_action, agent_finish, custom_event, retry, text
from . import incoming
from .lives import Life, begin, end, fail, life_of, reporter
from .watching import note_asker, stream_was_left

__all__ = ["TracebusHandler"]

Saying: TypeAlias = "Callable[[Colour], Pending]"
"""Says what a method has read, from sync or from async code."""

# -- one method for sync and async managers ----------------------------------------------------------------------------


class _Nothing:
    """Nothing is left to await."""

    def __await__(self) -> Generator[Any, Any, None]:
        """Await it: a generator that yields nothing."""
        return
        yield


_NOTHING: Final = _Nothing()

_COROUTINE: Final = inspect.CO_COROUTINE
_frame: Final = sys._getframe


def _hook(read: Callable[..., Saying | None]) -> Any:
    """Make a method that LangChain's sync managers call and its async managers await.

    The async managers would call a sync method in a thread, where it can come after what followed it; the sync managers start
    an event loop for each call of an async one. So this is a plain function which passes for a coroutine function, by the flag
    in its code, and it returns something to await to who can: a caller that is a coroutine.

    ``read`` gets ids as their numbers: a UUID computes its hash in Python, each time that it is looked up.
    """

    def call(handler: TracebusHandler, *args: Any, **kwargs: Any) -> Awaitable[None] | None:
        colour = ASYNC if _frame(1).f_code.co_flags & _COROUTINE else SYNC
        try:
            kwargs["run_id"] = kwargs["run_id"].int
            if (parent_run_id := kwargs.get("parent_run_id")) is not None:
                kwargs["parent_run_id"] = parent_run_id.int
            saying = read(handler, *args, **kwargs)
        except Exception as error:
            _log_own_failure(read.__name__, error)
            saying = None
        pending = None if saying is None else saying(colour)
        return pending if colour is SYNC else pending or _NOTHING

    code = call.__code__.replace(co_flags=call.__code__.co_flags | _COROUTINE)
    hook = types.FunctionType(code, call.__globals__, read.__name__, None, call.__closure__)
    return functools.update_wrapper(hook, read)


def _log_own_failure(hook: str, error: Exception) -> None:
    message = "tracebus could not read what LangChain said in %s and leaves it out (logged once): %s: %s"
    reporter.warn_once(hook, message, hook, type(error).__name__, error)


# -- the handler -------------------------------------------------------------------------------------------------------


class TracebusHandler(BaseCallbackHandler):
    """Make every run of LangChain and LangGraph a run on the bus: ``chain.invoke(x, {"callbacks": [TracebusHandler()]})``.

    Ids, parents, names, tags and metadata are kept; receivers get ``"langchain"`` as sender. A run that several of these are
    given to is told once, and with ``install()`` none has to be given. It is no streaming handler: no chain runs otherwise.
    """

    raise_error = True  # what comes out of a method is what a subscriber with raise_error raised

    @property
    def run_inline(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """False: a handler that is inline keeps the others from hearing ``on_llm_start`` (langchain#39633).

        LangChain's async managers ask for it in the task that the run is in, and call the methods in tasks of their own.
        """
        note_asker()
        return False

    # -- starts --------------------------------------------------------------------------------------------------------

    def _start(
        self,
        run_id: int,
        parent_run_id: int | None,
        said: Mapping[str, Any],
        *,
        kind: str,
        name: str,
        inputs: Any,
        model: str | None = None,
        is_stream: bool = False,
    ) -> Saying | None:
        if life_of(run_id) is not None:
            return None  # it is told by another handler
        session_id, user_id = incoming.session_of(said.get("metadata"))
        run = reporter.start(
            run_id,
            parent_run_id,
            name=name,
            kind=kind,
            inputs=inputs,
            model=model,
            tags=said.get("tags") or (),
            metadata=said.get("metadata"),
            run_id=run_id,
            session_id=session_id,
            user_id=user_id,
            say=False,
        )
        return None if run is None else partial(begin, run_id, Life(run, life_of(parent_run_id), self, is_stream))

    @_hook
    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: int, parent_run_id: int | None = None, **said: Any
    ) -> Saying | None:
        """Start the run of a chain, a prompt, a parser or a graph, or of a model that is called as one.

        The inputs of a stream come with its end.
        """
        is_stream = "defers_inputs" in said
        kind = incoming.kind_of(said.get("run_type"))
        return self._start(
            run_id,
            parent_run_id,
            said,
            kind=kind,
            name=incoming.name_of(said.get("name"), serialized, kind),
            inputs=None if is_stream else inputs,
            model=incoming.model_asked({}, said.get("metadata")) if kind in MODEL_KINDS else None,
            is_stream=is_stream,
        )

    @_hook
    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: int, parent_run_id: int | None = None, **said: Any
    ) -> Saying | None:
        """Start the run of a text model."""
        if not reporter.is_heard(parent_run_id):
            return None
        return self._start_model("llm", {"prompts": list(prompts)}, serialized, run_id, parent_run_id, said)

    @_hook
    def on_chat_model_start(
        self, serialized: Any, messages: list[list[Any]], *, run_id: int, parent_run_id: int | None = None, **said: Any
    ) -> Saying | None:
        """Start the run of a chat model."""
        if not reporter.is_heard(parent_run_id):
            return None
        asked = {"messages": [incoming.message(one) for batch in messages for one in batch]}
        return self._start_model("chat_model", asked, serialized, run_id, parent_run_id, said)

    def _start_model(
        self, kind: str, asked: dict[str, Any], serialized: Any, run_id: int, parent_run_id: int | None, said: dict[str, Any]
    ) -> Saying | None:
        params = incoming.params_of(said.get("invocation_params"))
        return self._start(
            run_id,
            parent_run_id,
            said,
            kind=kind,
            name=incoming.name_of(said.get("name"), serialized, kind),
            inputs={**asked, **params},
            model=incoming.model_asked(params, said.get("metadata")),
        )

    @_hook
    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: int, parent_run_id: int | None = None, **said: Any
    ) -> Saying | None:
        """Start the run of a tool."""
        given = said.get("inputs")
        if (call_id := said.get("tool_call_id")) is not None:
            said["metadata"] = {**(said.get("metadata") or {}), "tool_call_id": call_id}
        return self._start(
            run_id,
            parent_run_id,
            said,
            kind="tool",
            name=incoming.name_of(said.get("name"), serialized, "tool"),
            inputs=given if isinstance(given, dict) else {"input": input_str},
        )

    @_hook
    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: int, parent_run_id: int | None = None, **said: Any
    ) -> Saying | None:
        """Start the run of a retriever."""
        name = incoming.name_of(said.get("name"), serialized, "retriever")
        return self._start(run_id, parent_run_id, said, kind="retriever", name=name, inputs={"query": query})

    # -- on the way ----------------------------------------------------------------------------------------------------

    def _tells(self, run_id: int) -> bool:
        """Tell whether it is this handler that tells of a run; of one that nobody knows it is everyone."""
        life = life_of(run_id)
        return life is None or life.owner is self

    def _model(self, run_id: int, parent_run_id: int | None, said: Mapping[str, Any]) -> None:
        """Start the run of a text model whose start was kept from us (langchain#39633): its parent's was not."""
        if life_of(parent_run_id) is not None and not reporter.knows(run_id):
            saying = self._start(run_id, parent_run_id, said, kind="llm", name="llm", inputs=None)
            if saying is not None:
                saying(SYNC)

    @_hook
    def on_llm_new_token(
        self, token: Any, *, run_id: int, parent_run_id: int | None = None, chunk: Any = None, **said: Any
    ) -> Saying | None:
        """Say a piece of a model's answer, if there is something in it, and add the tokens that its chunk counts."""
        self._model(run_id, parent_run_id, said)
        if not self._tells(run_id):
            return None
        life = life_of(run_id)
        if life is not None:
            life.has_own_tokens = True
            life.run.usage = incoming.added(life.run.usage, incoming.usage_in(getattr(chunk, "message", None)))
        piece = incoming.text_in(token)
        return _token(run_id, piece, chunk) if piece or not incoming.is_empty(chunk) else None

    @_hook
    def on_stream_event(self, event: Any, *, run_id: int, **said: Any) -> Saying | None:
        """Say a piece of an answer that is streamed as protocol events (``version="v3"``), unless tokens are said, too."""
        life = life_of(run_id)
        if life is None or life.owner is not self or life.has_own_tokens or event.get("event") != "content-block-delta":
            return None
        piece = incoming.text_in([event.get("delta")])
        return _token(run_id, piece, event) if piece else None

    def _say(self, run_id: int, hook: Hook[Any], **fields: Any) -> Saying | None:
        return (lambda colour: reporter.say(run_id, hook, colour=colour, **fields)) if self._tells(run_id) else None

    @_hook
    def on_agent_action(self, action: Any, *, run_id: int, **said: Any) -> Saying | None:
        """Say that an agent uses a tool."""
        return self._say(run_id, agent_action, tool=action.tool, tool_input=action.tool_input, log=action.log)

    @_hook
    def on_agent_finish(self, finish: Any, *, run_id: int, **said: Any) -> Saying | None:
        """Say that an agent is done."""
        return self._say(run_id, agent_finish, return_values=finish.return_values, log=finish.log)

    @_hook
    def on_text(self, line: str, *, run_id: int, **said: Any) -> Saying | None:
        """Say a line of text."""
        return self._say(run_id, text, text=line)

    @_hook
    def on_retry(self, retry_state: Any, *, run_id: int, **said: Any) -> Saying | None:
        """Say that a call is tried again."""
        outcome, upcoming = retry_state.outcome, retry_state.next_action
        error = outcome.exception() if outcome is not None and outcome.failed else None
        wait_s = retry_state.idle_for if upcoming is None else upcoming.sleep
        return self._say(run_id, retry, attempt=retry_state.attempt_number, wait_s=wait_s, error=error)

    @_hook
    def on_custom_event(self, name: str, data: Any, *, run_id: int, **said: Any) -> Saying | None:
        """Say an event of the app's own, on the run that it was dispatched in."""
        return self._say(run_id, custom_event, name=name, data=data)

    # -- ends ----------------------------------------------------------------------------------------------------------

    @_hook
    def on_chain_end(self, outputs: Any, *, run_id: int, inputs: Any = None, **said: Any) -> Saying | None:
        """End the run of a chain with its output."""
        life = _with_inputs(run_id, inputs)
        is_left = life is not None and life.is_stream and stream_was_left()
        used = incoming.used_by(outputs) if life is not None and life.is_model else {}
        return _ending(run_id, "closed_early" if is_left else "ok", output=outputs, **used)

    @_hook
    def on_llm_end(self, response: Any, *, run_id: int, parent_run_id: int | None = None, **said: Any) -> Saying | None:
        """End the run of a model with its answer and what it used."""
        self._model(run_id, parent_run_id, said)
        return _ending(run_id, **incoming.answer_of(response))

    @_hook
    def on_tool_end(self, output: Any, *, run_id: int, **said: Any) -> Saying | None:
        """End the run of a tool; with an error if the tool made a message of that."""
        error = incoming.failure_in(output)
        output = incoming.tool_output(output)
        return _ending(run_id, output=output) if error is None else _failing(run_id, error, output=output)

    @_hook
    def on_retriever_end(self, documents: Any, *, run_id: int, **said: Any) -> Saying | None:
        """End the run of a retriever with the documents as dicts."""
        return _ending(run_id, output=[incoming.document(one) for one in documents or ()])

    @_hook
    def on_chain_error(self, error: BaseException, *, run_id: int, inputs: Any = None, **said: Any) -> Saying | None:
        """End the run of a chain that raised, or was cancelled, left or interrupted."""
        _with_inputs(run_id, inputs)
        return _failing(run_id, error)

    @_hook
    def on_llm_error(
        self, error: BaseException, *, run_id: int, parent_run_id: int | None = None, response: Any = None, **said: Any
    ) -> Saying | None:
        """End the run of a model that raised, or was cancelled or left, with what it had answered."""
        self._model(run_id, parent_run_id, said)
        answer = incoming.answer_of(response)
        answer["output"] = answer["output"] or None  # what was streamed before is more than nothing
        return _failing(run_id, error, **answer)

    @_hook
    def on_tool_error(self, error: BaseException, *, run_id: int, **said: Any) -> Saying | None:
        """End the run of a tool that raised or was interrupted."""
        return _failing(run_id, error)

    @_hook
    def on_retriever_error(self, error: BaseException, *, run_id: int, **said: Any) -> Saying | None:
        """End the run of a retriever that raised."""
        return _failing(run_id, error)


def _token(run_id: int, piece: str, chunk: Any) -> Saying:
    return partial(reporter.token, run_id, piece, chunk)


def _with_inputs(run_id: int, inputs: Any) -> Life | None:
    life = life_of(run_id)
    if life is not None and inputs is not None:
        life.run.inputs = inputs
    return life


def _ending(run_id: int, status: Any = "ok", **known: Any) -> Saying:
    return partial(end, run_id, status, known)


def _failing(run_id: int, error: BaseException, **known: Any) -> Saying:
    status = "closed_early" if isinstance(error, GeneratorExit) else incoming.interrupt_status(error)
    if status is not None:
        return _ending(run_id, status, **known)
    return partial(fail, run_id, error, known)
