"""What a line on a terminal says of an event, in words. Where they stand and in which colour is in ``layout``."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from ... import figures
from ...events import (
    AgentAction,
    AgentFinish,
    ChainEnd,
    ChainError,
    ChainStart,
    ChatModelStart,
    CustomEvent,
    Event,
    LLMEnd,
    LLMError,
    LLMNewToken,
    LLMStart,
    RetrieverEnd,
    RetrieverError,
    RetrieverStart,
    Retry,
    SubscriberFailed,
    Text,
    ToolEnd,
    ToolError,
    ToolStart,
)
from ...figures import ARROW, count, duration
from ...links import link_to
from ...payload import Capture, Limits, captures_inputs, captures_outputs, encode, printable, sanitize
from ...redaction import Redactor
from ...runs import Run, Usage
from ...subscriptions import name_of
from .wording import clean_name, failure_of, main_alone

__all__ = ["Row", "RowOf", "Sign"]

Sign: TypeAlias = Literal["start", "ok", "error", "cancelled", "closed_early", "paused", "note", "token"]

LONGEST_PATH: Final = 64
"""How many runs around one are looked at to find out what belongs together."""
_TEXT_LIMITS: Final = Limits(characters=320, size=2048)
"""No terminal shows more in one line."""


class Row(NamedTuple):
    """One event in words, all of them printable and without secrets. What is empty is not there."""

    time_ns: int
    path: tuple[int, ...]
    """The span ids of the run and of those around it, innermost first; empty outside of runs."""
    depth: int
    sign: Sign
    name: str
    duration: str = ""
    facts: tuple[str, ...] = ()
    text: str = ""
    """What is cut when it is too long."""
    is_quoted: bool = False
    tail: str = ""
    """What is kept when the text is cut."""
    is_model: bool = False
    link: str = ""
    """Where the viewer shows it: at a start the run, at the end of a root the trace."""


Words: TypeAlias = dict[str, Any]
"""Some fields of a row."""


class RowOf:
    """A processor that makes a row of ``event_dict["event"]``: the last one, it hands the row to the printer."""

    def __init__(self, capture: Capture, redactor: Redactor | None, viewer: str | None) -> None:
        self._takes_inputs = captures_inputs(capture)
        self._takes_outputs = captures_outputs(capture)
        self._redactor = redactor
        self._viewer = viewer

    def __call__(self, logger: object, level: str, event_dict: Any) -> tuple[tuple[Row], Words]:
        """Return the arguments of the printer: the row."""
        event: Event = event_dict["event"]
        run = event.run
        path = () if run is None else _path(run)
        words: Words = {"sign": "note", "depth": len(path)}
        if run is not None and (event.is_start or event.is_end):
            words = {
                "sign": _sign_of_end(run) if event.is_end else "start",
                "depth": len(path) - 1,
                "name": _name(run.name),
                "duration": duration(run.duration_s),
                "is_model": run.kind in _MODELS,
                "link": self._link(run, is_end=event.is_end),
            }
        words |= _WORDS[type(event)](self, event)
        return (Row(time_ns=event.time_ns, path=path, **words),), {}

    def _link(self, run: Run, *, is_end: bool) -> str:
        if self._viewer is None or (is_end and run.parent is not None):
            return ""
        return link_to(self._viewer, run._trace_number(), None if is_end else run._number())

    def input(self, value: Any) -> Words:
        """Return what a row shows of what went in."""
        return self._content(value) if self._takes_inputs else {}

    def output(self, value: Any) -> Words:
        """Return what a row shows of what came out."""
        return self._content(value) if self._takes_outputs else {}

    def _content(self, value: Any) -> Words:
        # Masked as a whole before anything is taken out of it: a secret is known by the name that it stands under.
        clean = sanitize(value, self._redactor, _TEXT_LIMITS)
        if isinstance(clean, dict) and len(clean) == 1:
            (clean,) = clean.values()
        if clean is None:
            return {}
        if isinstance(clean, str):
            return {"text": printable(clean), "is_quoted": True}
        if isinstance(clean, dict):
            text = " ".join(f"{name}={encode(item).decode()}" for name, item in clean.items())
        else:
            text = encode(clean).decode()
        return {"text": printable(text)}

    def error(self, error: BaseException | None, before: str = "") -> Words:
        """Return what a row shows of an error, behind what it says ``before``."""
        if error is None:
            return {"text": before}
        failure = failure_of(error, self._redactor)
        text = ": ".join(filter(None, (before, failure.type, failure.message)))
        return {"text": printable(text), "tail": printable(failure.where or "")}


def _path(run: Run) -> tuple[int, ...]:
    path: list[int] = []
    step: Run | None = run
    while step is not None and len(path) < LONGEST_PATH:
        path.append(step.span_id)
        step = step.parent
    return tuple(path)


_SIGNS_OF_ENDS: Final[dict[str, Sign]] = {
    "ok": "ok",
    "cancelled": "cancelled",
    "closed_early": "closed_early",
    "paused": "paused",
}


def _sign_of_end(run: Run) -> Sign:
    return _SIGNS_OF_ENDS.get(run.status, "error")


# -- figures -----------------------------------------------------------------------------------------------------------


def _name(name: object) -> str:
    return printable(clean_name(name))


def _number(number: object) -> str:
    """Write a whole number in groups of three digits; anything else, which somebody put in its place, as text."""
    return figures.number(number) if isinstance(number, int) else _name(number)


def _known(*facts: str) -> tuple[str, ...]:
    return tuple(filter(None, facts))


def _facts(run: Run | None) -> tuple[str, ...]:
    """Return what is known of how a run went."""
    if run is None:
        return ()
    ended = {"closed_early": "closed early", "cancelled": "cancelled", "paused": "paused"}.get(run.status, "")
    first_token = "" if run.first_token_s is None else f"first token {duration(run.first_token_s)}"
    return _known(ended, first_token, _tokens(run.usage))


def _tokens(usage: object) -> str:
    if not isinstance(usage, Usage):
        return ""
    if usage.input_tokens is not None and usage.output_tokens is not None:
        return f"{_number(usage.input_tokens)} {ARROW} {_number(usage.output_tokens)} tokens"
    known = (usage.total_tokens, usage.output_tokens, usage.input_tokens)
    return next((f"{_number(count)} tokens" for count in known if count is not None), "")


def _characters(asked: Any) -> int:
    """Return how many characters of text are in a prompt, or in a message and its parts."""
    content = _content_of(asked)
    parts: list[Any] = content if isinstance(content, list) else [content]
    return sum(str.__len__(text) for part in parts if isinstance(text := _field_of(part, "text"), str))


def _content_of(asked: Any) -> Any:
    return _field_of(asked, "content")


def _field_of(value: Any, name: str) -> Any:
    return cast(dict[str, Any], value).get(name) if isinstance(value, dict) else value


# -- what each event says ----------------------------------------------------------------------------------------------


def _words_of_model(row: RowOf, event: LLMStart | ChatModelStart) -> Words:
    asked: list[Any] = event.prompts if isinstance(event, LLMStart) else event.messages
    thing = "prompt" if isinstance(event, LLMStart) else "message"
    characters = sum(map(_characters, asked))
    model = None if event.run is None else event.run.model
    if model is None:
        model = event.params.get("model")
    counts = (count(number, of) for number, of in ((len(asked), thing), (characters, "char")) if number)
    facts = _known("" if model is None else _name(model), *counts)
    is_root = event.run is not None and event.run.parent is None  # else a row above says what it is about
    return {"facts": facts, **(row.input(_last_asked(event)) if is_root and asked else {})}


def _last_asked(event: LLMStart | ChatModelStart) -> Any:
    """Return the last message, or the last prompt as it was given: what is made text of before it is masked may be cut."""
    asked = main_alone(event)
    last_of = _last_content if isinstance(event, ChatModelStart) else _last
    if not isinstance(event.inputs, dict):
        return last_of(asked)
    return {name: last_of(all_asked) for name, all_asked in asked.items()}


def _last(asked: Any) -> Any:
    return cast("list[Any]", asked)[-1] if isinstance(asked, (list, tuple)) else asked


def _last_content(messages: list[dict[str, Any]]) -> Any:
    return _content_of(messages[-1])


def _words_of_inputs(row: RowOf, event: ChainStart | ToolStart) -> Words:
    return row.input(event.inputs)


def _words_of_query(row: RowOf, event: RetrieverStart) -> Words:
    return row.input(main_alone(event))


def _words_of_output(row: RowOf, event: LLMEnd | ChainEnd | ToolEnd) -> Words:
    return {"facts": _facts(event.run), **row.output(event.output)}


def _words_of_documents(row: RowOf, event: RetrieverEnd) -> Words:
    documents: Sized = event.documents
    if isinstance(documents, (list, tuple)):
        return {"facts": (*_facts(event.run), count(len(cast(Sized, documents)), "document"))}
    return {"facts": _facts(event.run), **row.output(documents)}


def _words_of_failure(row: RowOf, event: ChainError) -> Words:
    is_cancelled = event.run is not None and event.run.status == "cancelled"
    return {"facts": _facts(event.run), **(row.output(event.output) if is_cancelled else row.error(event.error))}


def _words_of_token(row: RowOf, event: LLMNewToken) -> Words:
    return {"sign": "token", "name": "token", **row.output(event.token)}


def _words_of_action(row: RowOf, event: AgentAction) -> Words:
    return {"name": "action", "facts": (_name(event.tool),), **row.output(event.tool_input)}


def _words_of_finish(row: RowOf, event: AgentFinish) -> Words:
    return {"name": "finish", **row.output(event.return_values)}


def _words_of_text(row: RowOf, event: Text) -> Words:
    return {"name": "text", **row.output(event.text)}


def _words_of_retry(row: RowOf, event: Retry) -> Words:
    wait_s = cast(object, event.wait_s)  # emitted by the app, so it may be anything
    wait = f" in {duration(wait_s)}" if isinstance(wait_s, (int, float)) and wait_s > 0 else ""
    return {"name": "retry", "facts": (f"attempt {_number(event.attempt)}{wait}",), **row.error(event.error)}


def _words_of_custom(row: RowOf, event: CustomEvent) -> Words:
    return {"name": _name(event.name), **row.output(event.data)}


def _words_of_subscriber(row: RowOf, event: SubscriberFailed) -> Words:
    name = name_of(event.subscriber).rpartition("<locals>.")[2]
    return {"sign": "error", "name": "subscriber", **row.error(event.error, f"{name} on {event.hook}")}


_MODELS: Final = frozenset({"llm", "chat_model"})
_WORDS: Final[dict[type[Event], Callable[[RowOf, Any], Words]]] = {
    **dict.fromkeys((LLMStart, ChatModelStart), _words_of_model),
    LLMNewToken: _words_of_token,
    **dict.fromkeys((LLMEnd, ChainEnd, ToolEnd), _words_of_output),
    **dict.fromkeys((ChainStart, ToolStart), _words_of_inputs),
    RetrieverStart: _words_of_query,
    RetrieverEnd: _words_of_documents,
    **dict.fromkeys((LLMError, ChainError, ToolError, RetrieverError), _words_of_failure),
    AgentAction: _words_of_action,
    AgentFinish: _words_of_finish,
    Text: _words_of_text,
    Retry: _words_of_retry,
    CustomEvent: _words_of_custom,
    SubscriberFailed: _words_of_subscriber,
}
