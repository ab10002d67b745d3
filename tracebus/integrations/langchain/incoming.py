"""LangChain's own objects into plain values: messages, results with their usage, documents, parameters.

Who calls it, and what is said with the values, is in ``bridge``; the way back is in ``outgoing``. What a chain gets and
returns is not touched: it may be any object, and subscribers in this process get the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.tools import ToolException

from ...runs import Status, Usage
from ..model_calls import BESIDE_BODY, without_headers

__all__ = [
    "added",
    "answer_of",
    "document",
    "failure_in",
    "interrupt_status",
    "is_empty",
    "kind_of",
    "message",
    "model_asked",
    "name_of",
    "params_of",
    "session_of",
    "text_in",
    "tool_output",
    "usage_in",
    "used_by",
]

# -- messages ----------------------------------------------------------------------------------------------------------

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_DEVELOPER: Final = "__openai_role__"
"""Where LangChain remembers that a system message was OpenAI's developer message."""


def message(given: Any) -> dict[str, Any]:
    """Return a message as a dict with ``role`` and ``content``, and what else it has of name, tool calls and status."""
    if not isinstance(given, BaseMessage):
        return {"role": "user", "content": given}
    said: dict[str, Any] = {"role": _role(given), "content": given.content}
    if given.name:
        said["name"] = given.name
    if calls := getattr(given, "tool_calls", None):
        said["tool_calls"] = [_tool_call(call) for call in calls]
    if invalid := getattr(given, "invalid_tool_calls", None):
        said["invalid_tool_calls"] = [{**_tool_call(call), "error": call.get("error")} for call in invalid]
    if isinstance(given, ToolMessage):
        said["tool_call_id"] = given.tool_call_id
        if given.status == "error":
            said["status"] = "error"
    return said


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": call.get("id"), "name": call.get("name"), "arguments": call.get("args")}


def _role(given: BaseMessage) -> str:
    if _DEVELOPER in given.additional_kwargs:
        return str(given.additional_kwargs[_DEVELOPER])
    return getattr(given, "role", None) or _ROLES.get(given.type, given.type.removesuffix("MessageChunk").lower())


def text_in(content: Any) -> str:
    """Return the text in a message's content, which may be a list of blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable):
        return ""
    return "".join(block if isinstance(block, str) else _block_text(block) for block in content)


def _block_text(block: Any) -> str:
    text = block.get("text") if isinstance(block, Mapping) and block.get("type") in ("text", "text-delta") else None
    return text if isinstance(text, str) else ""


def is_empty(chunk: Any) -> bool:
    """Tell whether there is nothing in a streamed chunk: a provider's first and last ones may only open and close."""
    said = getattr(chunk, "message", None)
    if said is None:
        return True
    return not said.content and not getattr(said, "tool_call_chunks", None) and not said.additional_kwargs


def _is_text(content: Any) -> bool:
    if isinstance(content, str):
        return True
    return all(isinstance(block, str) or (isinstance(block, Mapping) and block.get("type") == "text") for block in content)


# -- what a model is asked and answers ---------------------------------------------------------------------------------

_PLAIN: Final = frozenset({"role", "content", "name"})
_NO_PARAMS: Final = BESIDE_BODY | {"_type", "messages", "prompts", "headers", "default_headers", "default_query"}
"""What is told among a call's parameters and is none: keys travel in headers and addresses, under any name."""
_MODEL_NAMES: Final = ("model", "model_name", "model_id", "deployment_name")


def params_of(invocation_params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of a model call that are set, without headers and the like, as of any client's request."""
    given = invocation_params or {}
    params = {name: value for name, value in given.items() if value is not None and name not in _NO_PARAMS}
    return without_headers(params) if "tools" in params else params


def model_asked(params: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> str | None:
    """Return the name of the model that is called, as far as it is known before the answer."""
    return _first_text((metadata or {}).get("ls_model_name"), *map(params.get, _MODEL_NAMES))


def answer_of(result: LLMResult | None) -> dict[str, Any]:
    """Return what a model answered, as ``output``, ``usage`` and ``model``.

    The output is a text, a message that is more than text, or a list of several answers; None when there is nothing.
    """
    generations = result.generations[0] if result is not None and result.generations else ()
    messages = [_message_of(generation) for generation in generations]
    answers = [
        generation.text if message is None else _answer(message)
        for generation, message in zip(generations, messages, strict=True)
    ]
    beside = None if result is None else result.llm_output
    return {
        "output": answers[0] if len(answers) == 1 else answers or None,
        "usage": _usage_of(messages, beside),
        "model": _model_answering(messages, beside),
    }


def _message_of(generation: Generation) -> BaseMessage | None:
    """Return the message of a chat model's answer, None of a text model's.

    Looked up where pydantic keeps the fields: to ask it for one that is not there takes as long as a run on the bus.
    """
    answer = vars(generation).get("message")
    return answer if answer is None or isinstance(answer, BaseMessage) else None


def _answer(given: BaseMessage) -> Any:
    said = message(given)
    return text_in(given.content) if said.keys() <= _PLAIN and _is_text(given.content) else said


def _model_answering(messages: Iterable[BaseMessage | None], beside: Mapping[str, Any] | None) -> str | None:
    for given in messages:
        if given is not None and given.response_metadata:
            return _model_in(given.response_metadata)
    return _model_in(beside) if beside else None


def _model_in(said: Mapping[str, Any]) -> str | None:
    return _first_text(said.get("model_name"), said.get("model"))


def _first_text(*values: Any) -> str | None:
    for value in values:
        if isinstance(value, str) and value:
            return value
    return None


# -- usage -------------------------------------------------------------------------------------------------------------

_COUNTS: Final = (
    ("input_tokens", ("input_tokens", "prompt_tokens")),
    ("output_tokens", ("output_tokens", "completion_tokens")),
    ("total_tokens", ("total_tokens",)),
)


def _usage_of(messages: Iterable[BaseMessage | None], beside: Mapping[str, Any] | None) -> Usage | None:
    """Return the tokens of a call: what its messages say, else what the provider's own words say."""
    usage: Usage | None = None
    for given in messages:
        if given is not None:
            usage = added(usage, usage_in(given))
    if usage is None and beside:
        return _usage(beside.get("token_usage") or beside.get("usage"))
    return usage


def usage_in(given: Any) -> Usage | None:
    """Return the tokens that a message counts."""
    return _usage(getattr(given, "usage_metadata", None))


def used_by(answer: Any) -> dict[str, Any]:
    """Return ``usage`` and ``model`` of what a model answered that is called as a chain, as decision models are."""
    return {"usage": _usage(getattr(answer, "usage", None)), "model": _first_text(getattr(answer, "model", None))}


def _usage(said: Any) -> Usage | None:
    if not isinstance(said, Mapping):
        return None
    counts = {name: _count(said, *words) for name, words in _COUNTS}
    counts["cached_tokens"] = _count(said.get("input_token_details"), "cache_read")
    counts["cache_write_tokens"] = _count(said.get("input_token_details"), "cache_creation")
    counts["reasoning_tokens"] = _count(said.get("output_token_details"), "reasoning")
    return None if all(count is None for count in counts.values()) else Usage(**counts)


def _count(said: Any, *words: str) -> int | None:
    if not isinstance(said, Mapping):
        return None
    return next((said[word] for word in words if isinstance(said.get(word), int)), None)


def added(one: Usage | None, other: Usage | None) -> Usage | None:
    """Return the tokens of both: the chunks of a stream, and the answers to one prompt, each count their own."""
    if one is None or other is None:
        return one or other
    counts = {name: (getattr(one, name), getattr(other, name)) for name in Usage.__slots__}
    return Usage(**{name: _sum(*pair) for name, pair in counts.items()})


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


# -- interrupts --------------------------------------------------------------------------------------------------------


def interrupt_status(error: BaseException) -> Status | None:
    """Return how a run ends that LangGraph left by an exception which is no error; None for all other exceptions.

    These are found by name, because LangGraph need not be installed.
    """
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "langgraph.errors"}
    if "GraphBubbleUp" not in names:
        return None
    return "ok" if "ParentCommand" in names else "paused"


# -- tools, retrievers, any run ----------------------------------------------------------------------------------------


def tool_output(output: Any) -> Any:
    """Return what a tool returned: a tool's message as a dict, anything else as it is."""
    if not isinstance(output, ToolMessage):
        return output
    said = message(output)
    return said if output.artifact is None else {**said, "artifact": output.artifact}


def failure_in(output: Any) -> ToolException | None:
    """Return the error of a tool that turned it into a message."""
    if not isinstance(output, ToolMessage) or output.status != "error":
        return None
    return ToolException(text_in(output.content))


def document(given: Any) -> Any:
    """Return a document as a dict with ``content``, ``metadata`` and, if it has one, ``id``."""
    if not isinstance(given, Document):
        return given
    said: dict[str, Any] = {"content": given.page_content, "metadata": given.metadata}
    if given.id is not None:
        said["id"] = given.id
    return said


_KINDS: Final = frozenset({"llm", "retriever", "tool", "embedding"})


def kind_of(run_type: Any) -> str:
    """Return the kind of a run that LangChain tells of as a chain's: prompts, parsers and what is unknown are chains."""
    return run_type if run_type in _KINDS else "chain"


def name_of(name: str | None, serialized: Any, default: str) -> str:
    """Return a run's name: the one that was given, else that of the object that runs."""
    if name:
        return name
    if isinstance(serialized, Mapping):
        path = serialized.get("id")
        found = serialized.get("name") or (path[-1] if isinstance(path, Sequence) and path else None)
        if isinstance(found, str) and found:
            return found
    return default


_IDS: Final = frozenset({"session_id", "thread_id", "conversation_id", "user_id"})


def session_of(metadata: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """Return the session and the user that LangChain's metadata name."""
    if not metadata or _IDS.isdisjoint(metadata):
        return None, None
    session = metadata.get("session_id") or metadata.get("thread_id") or metadata.get("conversation_id")
    user = metadata.get("user_id")
    return str(session) if session else None, str(user) if user else None
