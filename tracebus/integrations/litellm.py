"""The calls of ``litellm``, whatever provider they go to, each one run, through litellm's own ``CustomLogger``.

    from tracebus.integrations import litellm
    litellm.install()

The sender is ``"litellm"``, the name of a run the function's, ``completion`` or ``embedding``, also for its async twin. What
is recorded is said in ``model_calls``.

litellm tells of a call's beginning where it happens, and of its end in a thread of its own or a moment later: the two are
brought together by ``litellm_call_id``. It does not tell of tokens in order, so that those are said where litellm calls
OpenAI's client and that is traced, too; elsewhere a stream has its whole text and the time of its first token. Of a stream
that is closed early or cancelled it tells nothing: such a run ends where OpenAI's client is traced, and is open otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import ModuleType
from typing import Any

from ..sources import Reporter
from .model_calls import Answer, expect_part, read_answer, server_of, without_headers
from .openai.chat import ChatAnswer
from .openai.responses import ResponsesAnswer
from .openai.texts import CompletionsAnswer, EmbeddingsAnswer
from .patching import import_library

__all__ = ["install", "uninstall"]

_reporter = Reporter("litellm", takes_parts=True)
_handler: Any = None

_KINDS = {"embedding": "embedding", "text_completion": "llm", "rerank": "reranker"}
_ANSWERS: Mapping[str, Callable[[], Answer]] = {
    "embedding": EmbeddingsAnswer,
    "responses": ResponsesAnswer,
    "text_completion": CompletionsAnswer,
}
_OTHER = ("image", "transcription", "speech", "moderation", "ocr", "video")
"""What litellm does beside talking to models of text: not recorded, as the call types are named."""
_LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)


class _Calls:
    """Hears of calls as litellm tells of them; the names of the arguments are litellm's."""

    def log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        """Start a run; another try of a call that is open belongs to its run."""
        key, call_type = kwargs.get("litellm_call_id"), _name_of(kwargs)
        if key is None or call_type.startswith(_OTHER):
            return
        run = _reporter.find(key)
        if run is None or run.status != "open":
            inputs = _inputs(kwargs, messages)
            run = _reporter.start(key, name=call_type, kind=_KINDS.get(call_type, "chat_model"), inputs=inputs, model=model)
        if run is None:
            return
        sent: Mapping[str, Any] = kwargs.get("additional_args") or {}
        run.metadata.update(server_of(sent.get("api_base")))
        request = sent.get("complete_input_dict")
        if isinstance(request, Mapping):
            asked = request.get("messages") or request.get("input") or request.get("prompt")
            expect_part(run, asked, ends_with_part=True)

    def log_success_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End the run."""
        answer = _ANSWERS.get(_name_of(kwargs), ChatAnswer)()
        key = kwargs.get("litellm_call_id")
        run = _reporter.find(key)
        if run is None:
            return
        read_answer(run, answer, response_obj)
        run.metadata.update((name, value) for name, value in answer.metadata().items() if value)
        first = _first_token_s(kwargs) if kwargs.get("stream") else None
        _reporter.end(key, output=answer.output(), usage=answer.usage, model=answer.model, first_token_s=first)

    def log_failure_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End the run with the error."""
        error = kwargs.get("exception")
        key = kwargs.get("litellm_call_id")
        if _reporter.find(key) is not None:
            _reporter.fail(key, error if isinstance(error, BaseException) else RuntimeError(str(error)))

    async def async_log_success_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Do as for sync calls; some calls are told of both ways, and the second is ignored."""
        self.log_success_event(kwargs, response_obj, start_time, end_time)

    async def async_log_failure_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Do as for sync calls."""
        self.log_failure_event(kwargs, response_obj, start_time, end_time)


def _name_of(kwargs: dict[str, Any]) -> str:
    """Return ``completion`` for both ``completion`` and ``acompletion``."""
    call_type = str(getattr(kwargs.get("call_type"), "value", kwargs.get("call_type")) or "completion")
    twin = call_type.removeprefix("a")
    return twin if twin in ("completion", "embedding", "text_completion", "responses", "rerank") else call_type


def _inputs(kwargs: dict[str, Any], messages: Any) -> dict[str, Any]:
    parameters = kwargs.get("optional_params") or {}
    name = {"embedding": "input", "text_completion": "prompt"}.get(_name_of(kwargs), "messages")
    given = {name: kwargs.get("input") if name == "input" else messages, "model": kwargs.get("model"), **parameters}
    return {key: value for key, value in without_headers(given).items() if key != "extra_body" or value}


def _first_token_s(kwargs: dict[str, Any]) -> float | None:
    first, start = kwargs.get("completion_start_time"), kwargs.get("api_call_start_time")
    if not isinstance(first, datetime) or not isinstance(start, datetime):
        return None
    return max(0.0, (first - start).total_seconds())


def install() -> None:
    """Make a run of each call of litellm from now on; twice is fine.

    Raises MissingExtraError when litellm is not installed.
    """
    global _handler
    litellm = import_library("litellm")
    if _handler is None:
        _handler = type("TracebusLogger", (_Calls, _custom_logger()), {})()
    if _handler not in litellm.callbacks:
        litellm.callbacks.append(_handler)


def uninstall() -> None:
    """Take the handler out of all the lists in which litellm keeps it."""
    if _handler is None:
        return
    litellm = import_library("litellm")
    for name in _LISTS:
        handlers = getattr(litellm, name, None) or []
        while _handler in handlers:
            handlers.remove(_handler)


def _custom_logger() -> type:
    module: ModuleType = import_library("litellm.integrations.custom_logger", "litellm")
    base: type = module.CustomLogger
    return base
