"""What ``llama-index`` does, through the root of its own dispatchers: spans are runs, and events tell of tokens.

    from tracebus.integrations import llama_index
    llama_index.install()

The sender is ``"llama_index"``, the name of a run its class and method, ``RetrieverQueryEngine.query``. Methods whose name
begins with an underscore are none, nor is a model's method that another of its own calls. Inside, ``current_run()`` and what
is ``@traced`` find their run. What is recorded of a model's call is said in ``model_calls``.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from inspect import BoundArguments, isasyncgen, isgenerator
from typing import Any, Final, NamedTuple

from ..families import MODEL_KINDS
from ..runs import Run, Usage
from ..sources import Reporter
from .model_calls import arguments_of, expect_part, message, without_headers
from .openai.chat import chat_usage
from .patching import import_library

__all__ = ["install", "uninstall"]

_CHATS: Final = ("chat", "achat", "stream_chat", "astream_chat")
_TEXTS: Final = ("complete", "acomplete", "stream_complete", "astream_complete")
_KINDS: Final = (
    ("BaseLLM", "chat_model", _CHATS),
    ("BaseLLM", "llm", _TEXTS),
    ("BaseEmbedding", "embedding", ()),
    ("BaseRetriever", "retriever", ("retrieve", "aretrieve")),
    ("BaseTool", "tool", ("call", "acall", "__call__")),
    ("BaseNodePostprocessor", "reranker", ("postprocess_nodes", "apostprocess_nodes")),
    ("BaseWorkflowAgent", "agent", ("run",)),
    ("Workflow", "workflow", ("run",)),
)
"""The kinds of run by class and method, all methods where none is named; the rest are steps of a chain."""

SKIPPED_KEPT: Final = 10_000
"""How many spans that are no runs are remembered with their parents; they are forgotten when they end."""

UNREAD_KEPT: Final = 10_000
"""How many streams are remembered that nobody has read from; they are forgotten when somebody does."""


class _Unread(NamedTuple):
    """What is known of an async stream until it is read from."""

    instance: Any
    method: str
    asked: Any

    def is_made_of(self, instance: Any, method: str, asked: Any) -> bool:
        """Tell whether its items are those of this call: models that can stream only in sync code make one of the other."""
        return self.instance is instance and self.method == f"a{method}" and self.asked is asked


class _Runs:
    """What the handlers of spans and of events share."""

    def __init__(self) -> None:
        self.reporter = Reporter("llama_index")
        self.skipped: dict[str, str | None] = {}
        self._unread: dict[str, _Unread] = {}

    def start(self, id_: str, bound: BoundArguments, instance: Any, parent: str | None, tags: Any) -> None:
        """Start a run, unless the span is a detail of the one around it."""
        name = id_[:-37]  # "Class.method-" and a UUID
        method = name.rpartition(".")[2]
        kind = _kind_of(instance, method)
        if kind in MODEL_KINDS and method.startswith("stream_"):
            parent = self._made_of(instance, method, bound) or parent
        outer = self.reporter.find(self.key_of(parent))
        if _is_detail(method) or _is_same_call(kind, outer):
            if len(self.skipped) < SKIPPED_KEPT:
                self.skipped[id_] = parent
            return
        self.reporter.start(
            id_,
            self.key_of(parent),
            name=name,
            kind=kind,
            inputs=_inputs(kind, bound),
            model=_model_of(kind, instance),
            metadata=tags if isinstance(tags, dict) else None,
        )

    def _made_of(self, instance: Any, method: str, bound: BoundArguments) -> str | None:
        """Return the async stream that this call is made for, if any: when that is first read, and outside of its span."""
        asked = _first_of(bound)
        made = (key for key, unread in list(self._unread.items()) if unread.is_made_of(instance, method, asked))
        key = next(made, None)
        if key is not None:
            self._unread.pop(key, None)
        return key

    def end(self, id_: str, bound: BoundArguments, instance: Any, result: Any) -> None:
        """End a run; one of a model whose answer is streamed goes on."""
        if id_ in self.skipped:
            del self.skipped[id_]
            return
        run = self.reporter.find(id_)
        if run is None:
            return
        if run.kind in MODEL_KINDS and (isgenerator(result) or isasyncgen(result)):
            expect_part(run, _asked(run))  # the request is made when the stream is first read, outside of the span
            if isasyncgen(result) and len(self._unread) < UNREAD_KEPT:
                self._unread[id_] = _Unread(instance, id_[:-37].rpartition(".")[2], _first_of(bound))
        else:
            self.reporter.end(id_, **_answer(run.kind, result))

    def fail(self, id_: str, error: BaseException | None) -> None:
        """End a run with an error."""
        if self.skipped.pop(id_, None) is None and self.reporter.find(id_) is not None:
            self.reporter.fail(id_, error or RuntimeError("dropped"))

    def hear(self, event: Any) -> None:
        """Hear what a model streams, and when it has ended."""
        name, key = event.class_name(), event.span_id
        self._unread.pop(key, None)
        run = self.reporter.find(key)
        if run is None or run.status != "open":
            return
        if name in ("LLMChatInProgressEvent", "LLMCompletionInProgressEvent"):
            if event.response.delta:
                self.reporter.token(key, event.response.delta, event.response)
        elif name in ("LLMChatEndEvent", "LLMCompletionEndEvent"):
            told = _answer(run.kind, event.response)
            if run._token_count and isinstance(told["output"], str):
                told["output"] = None  # the tokens are the text, to the letter
            self.reporter.end(key, **told)
        elif name == "ExceptionEvent" and isinstance(event.exception, GeneratorExit):
            self.reporter.end(key, status="closed_early")
        elif name == "ExceptionEvent":
            self.reporter.fail(key, event.exception)

    def key_of(self, id_: str | None) -> str | None:
        """Return the innermost span around ``id_``, itself included, that is a run."""
        while id_ in self.skipped:
            id_ = self.skipped[id_]
        return id_


_runs: Final = _Runs()


class _SpanHandler:
    """Hears of spans; the names of the arguments are llama-index's."""

    def span_enter(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any = None,
        parent_id: str | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """Start a run."""
        _runs.start(id_, bound_args, instance, parent_id, tags)

    def span_exit(self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any) -> None:
        """End it."""
        _runs.end(id_, bound_args, instance, result)

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        """End it with an error."""
        _runs.fail(id_, err)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """Keep no spans beside the runs."""

    prepare_to_exit_span = prepare_to_drop_span = new_span


class _EventHandler:
    """Hears of events."""

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Hear one."""
        _runs.hear(event)


def _kind_of(instance: Any, method: str) -> str:
    bases = {base.__name__ for base in type(instance).__mro__}
    return next((kind for base, kind, methods in _KINDS if base in bases and (not methods or method in methods)), "chain")


def _first_of(bound: BoundArguments) -> Any:
    """Return the messages or the prompt that a model is asked with."""
    return bound.arguments.get("messages", bound.arguments.get("prompt"))


def _is_detail(method: str) -> bool:
    return method.startswith("_") and method != "__call__"


def _is_same_call(kind: str, outer: Run | None) -> bool:
    """Tell whether a model's method was called by another of its own, as ``complete`` by ``chat``."""
    if outer is None or outer.status != "open":
        return False
    return (kind in MODEL_KINDS and outer.kind in MODEL_KINDS) or kind == outer.kind == "embedding"


def _inputs(kind: str, bound: BoundArguments) -> dict[str, Any]:
    given = {name: value for name, value in bound.arguments.items() if name not in ("self", "kwargs")}
    given.update(bound.arguments.get("kwargs") or {})
    if kind in (*MODEL_KINDS, "embedding"):
        given = without_headers(given)
    if kind == "chat_model" and "messages" in given:
        given["messages"] = [_message(one) for one in given["messages"] or ()]
    return given


def _message(chat_message: Any) -> Any:
    role = getattr(chat_message, "role", None)
    if role is None:
        return chat_message
    return {"role": str(getattr(role, "value", role)), "content": chat_message.content}


def _asked(run: Run) -> Any:
    inputs = run.inputs if isinstance(run.inputs, Mapping) else {}
    if run.kind == "llm":  # chat models complete a text by answering it
        return [{"role": "user", "content": inputs.get("prompt")}]
    return inputs.get("messages")


def _model_of(kind: str, instance: Any) -> str | None:
    if kind not in (*MODEL_KINDS, "embedding"):
        return None
    name = vars(instance).get("model") or vars(instance).get("model_name")
    return name if isinstance(name, str) else None


def _answer(kind: str, result: Any) -> dict[str, Any]:
    if kind not in MODEL_KINDS or result is None:
        return {"output": {"count": len(result)} if kind == "embedding" and isinstance(result, list) else result}
    told = result.message if kind == "chat_model" else result
    calls = list(_tool_calls(told))
    text = told.content if kind == "chat_model" else told.text
    return {"output": message(text, tool_calls=calls), "usage": _usage(result)}


def _tool_calls(told: Any) -> Iterator[dict[str, Any]]:
    for block in getattr(told, "blocks", ()):
        if getattr(block, "block_type", None) == "tool_call":
            yield {"id": block.tool_call_id, "name": block.tool_name, "arguments": arguments_of(block.tool_kwargs)}


def _usage(result: Any) -> Usage | None:
    raw = getattr(result, "raw", None)
    usage = raw.get("usage") if isinstance(raw, Mapping) else getattr(raw, "usage", None)
    if hasattr(usage, "prompt_tokens"):
        return chat_usage(usage)
    known = getattr(result, "additional_kwargs", None) or {}
    if "prompt_tokens" not in known:
        return None
    return Usage(known["prompt_tokens"], known.get("completion_tokens"), known.get("total_tokens"))


_installed: list[Any] = []


def install() -> None:
    """Make runs of what llama-index does from now on; twice is fine.

    Raises MissingExtraError when llama-index-core is not installed.
    """
    instrumentation = import_library("llama_index.core.instrumentation", "llama-index-core")
    if _installed:
        return
    root = instrumentation.get_dispatcher()
    active_span_id = import_library("llama_index_instrumentation.span", "llama-index-core").active_span_id
    spans = _handler(_SpanHandler, "BaseSpanHandler", "span_handlers")
    events = _handler(_EventHandler, "BaseEventHandler", "event_handlers")
    root.add_span_handler(spans)
    root.add_event_handler(events)
    forget = _runs.reporter.current_in(lambda: _runs.key_of(active_span_id.get()))
    _installed.extend((root, spans, events, forget))


def uninstall() -> None:
    """Take the handlers out again. Runs that are open stay so."""
    if not _installed:
        return
    root, spans, events, forget = _installed
    _installed.clear()
    root.span_handlers = [one for one in root.span_handlers if one is not spans]
    root.event_handlers = [one for one in root.event_handlers if one is not events]
    forget()


def _handler(ours: type, base: str, module: str) -> Any:
    """Make a handler of a class of ours and llama-index's base, which is known no sooner than here."""
    theirs = getattr(import_library(f"llama_index.core.instrumentation.{module}", "llama-index-core"), base)
    return types.new_class(f"Tracebus{base}", (ours, theirs))()
