"""Plain values into LangChain's own: messages, results with their usage, chunks, documents.

What is LangChain's already is passed on as it is. Nothing here raises for a value that it does not understand: that becomes
text, because a handler that misses a start or an end is worse off than one that reads an odd message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, GenerationChunk, LLMResult
from langchain_core.prompt_values import PromptValue

from ...payload import text_of
from ...runs import Run, Usage

__all__ = ["chunk_of", "documents_of", "message_of", "messages_of", "result_of", "tool_output_of", "usage_metadata_of"]


def _text(value: Any) -> str:
    if isinstance(value, BaseMessage):
        return str(value.text)
    return value if isinstance(value, str) else "" if value is None else text_of(value)


def _dumped(value: Any) -> Any:
    """Return what the objects of a provider's client say as plain data; anything else is what it is."""
    if isinstance(value, BaseMessage):
        return value
    try:
        return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
    except Exception:  # a property or a method of the app's own class
        return value


# -- messages ----------------------------------------------------------------------------------------------------------

_CLASSES: Final[dict[str, type[BaseMessage]]] = {
    "user": HumanMessage,
    "human": HumanMessage,
    "assistant": AIMessage,
    "ai": AIMessage,
    "model": AIMessage,  # Google's word
    "system": SystemMessage,
    "developer": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
}
_BY_CLASS_NAME: Final = {cls.__name__: role for role, cls in reversed(_CLASSES.items())} | {"AIMessageChunk": "assistant"}
"""How a message names its role in LangChain's own serialized form."""
_DEVELOPER: Final = {"__openai_role__": "developer"}
"""How LangChain itself remembers that a system message was OpenAI's developer message."""


def messages_of(value: Any) -> list[BaseMessage]:
    """Return what a chat model is asked: from a list of messages, one message, a text, or a prompt value of LangChain's."""
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        return messages_of(value[0])  # one list a call, as LangChain's own callbacks have it
    if isinstance(value, (list, tuple)) and not _is_pair(value):
        return [message_of(one) for one in value]
    return [] if value is None else [message_of(value)]


def message_of(value: Any, role: str = "user") -> BaseMessage:
    """Return one message: from a dict as OpenAI, Anthropic or LangChain write it, an object with ``role`` and ``content``, a
    pair of both, or a text. ``role`` is for what names none.
    """
    if isinstance(value, BaseMessage):
        return value
    fields: dict[str, Any] | None = None
    try:
        fields = _fields(value)
        if fields is not None:
            return _message(role, fields)
    except Exception:  # a field of a type that LangChain refuses, or a property of the app's own class
        named = fields.get("role") if fields else None
        role = named if isinstance(named, str) else role
    return _message(role, {"content": _text(value)})


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _fields(value: Any) -> dict[str, Any] | None:
    """Return a message's fields by name; None for what does not look like a message."""
    if _is_pair(value):
        return {"role": value[0], "content": value[1]}
    value = _dumped(value)
    if not isinstance(value, Mapping):
        content = getattr(value, "content", None)
        return None if content is None else {"role": getattr(value, "role", None), "content": content}
    fields = dict(value)
    if isinstance(fields.get("data"), Mapping):  # messages_to_dict
        return {"role": fields.get("type"), **fields["data"]}
    if isinstance(fields.get("kwargs"), Mapping) and isinstance(fields.get("id"), list):  # dumpd
        return {"role": _BY_CLASS_NAME.get(str(fields["id"][-1])), **fields["kwargs"]}
    return fields if fields.keys() & {"role", "content", "tool_calls", "function_call"} else None


def _message(role: str, fields: dict[str, Any]) -> BaseMessage:
    said = {name: value for name, value in fields.items() if value is not None}
    kind = said.pop("type", None)
    role = said.pop("role", None) or (_BY_CLASS_NAME.get(kind, kind) if kind != "message" else None) or role
    cls = _CLASSES.get(role, ChatMessage)
    content = _content(said.pop("content", ""))
    known = {name: said.pop(name) for name in cls.model_fields.keys() & said.keys()}
    extra = {**said, **(_DEVELOPER if role == "developer" else {}), **known.pop("additional_kwargs", {})}
    if cls is AIMessage:
        known["tool_calls"], invalid = _tool_calls(known.get("tool_calls") or _tool_uses(content))
        known["invalid_tool_calls"] = [*map(_invalid_tool_call, known.get("invalid_tool_calls", ())), *invalid]
    elif cls in _REQUIRED:
        known.setdefault(_REQUIRED[cls], "")
    elif cls is ChatMessage:
        known["role"] = str(role)
    return cls(content=content, additional_kwargs=extra, **known)


_REQUIRED: Final[dict[type[BaseMessage], str]] = {ToolMessage: "tool_call_id", FunctionMessage: "name"}


def _content(content: Any) -> str | list[str | dict[Any, Any]]:
    if isinstance(content, Mapping):
        return [dict(content)]
    if not isinstance(content, (list, tuple)):
        return _text(content)
    parts = [_dumped(part) for part in content]
    return [dict(part) if isinstance(part, Mapping) else _text(part) for part in parts]


def _tool_uses(content: str | list[str | dict[Any, Any]]) -> list[Any]:
    """Return the tool calls among Anthropic's content blocks."""
    return [part for part in content if isinstance(part, dict) and part.get("type") == "tool_use"]


def _tool_calls(calls: Any) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Return the calls whose arguments are an object, and the others, which models do write."""
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in map(_dumped, calls):
        said = call.get("function", call)
        name, call_id = said.get("name", ""), call.get("id")
        given: Any = next((said[key] for key in ("args", "arguments", "input") if said.get(key) is not None), {})
        args = _parsed(given)
        if args is not None:
            valid.append(ToolCall(name=name, args=args, id=call_id, type="tool_call"))
        else:
            error = "the arguments are no JSON object"
            invalid.append(InvalidToolCall(name=name, args=_text(given), id=call_id, error=error, type="invalid_tool_call"))
    return valid, invalid


def _invalid_tool_call(call: Any) -> Any:
    said = _dumped(call)
    if not isinstance(said, Mapping) or "arguments" not in said:
        return call
    return {"type": "invalid_tool_call", "args": said["arguments"], **{key: said[key] for key in said if key != "arguments"}}


def _parsed(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", strict=False)
        except ValueError:
            return None
    return dict(arguments) if isinstance(arguments, Mapping) else None


# -- what a model answered ---------------------------------------------------------------------------------------------


def result_of(output: Any, run: Run) -> LLMResult:
    """Return what a model answered, with the usage and the model's name that its run knows."""
    if isinstance(output, LLMResult):
        return output
    if isinstance(output, ChatResult):
        return LLMResult(generations=[list(output.generations)], llm_output=output.llm_output)
    generation = _chat_generation if run.kind == "chat_model" else _generation
    generations = [generation(one, info, run, index) for index, (one, info) in enumerate(_candidates(output))]
    return LLMResult(generations=[generations] if generations else [], llm_output=_llm_output(run))


def _candidates(output: Any) -> list[tuple[Any, dict[str, Any] | None]]:
    """Return each answer that a model gave, and what is known about it beside."""
    if output is None:
        return []
    if isinstance(output, (list, tuple)) and output and not _is_pair(output):
        return [(one, None) for one in output]
    said = _dumped(output)
    if isinstance(said, Mapping) and isinstance(said.get("choices"), (list, tuple)):  # OpenAI's completions
        choices = [dict(_dumped(choice)) for choice in said["choices"]]
        return [(choice.pop("message", None) or choice.pop("text", None), choice) for choice in choices]
    return [(output, None)]


def _generation(answer: Any, info: dict[str, Any] | None, run: Run, index: int) -> Generation:
    return answer if isinstance(answer, Generation) else Generation(text=_text(answer), generation_info=info)


def _chat_generation(answer: Any, info: dict[str, Any] | None, run: Run, index: int) -> Generation:
    if isinstance(answer, Generation):
        return answer
    message = message_of(answer, "assistant")
    if isinstance(message, AIMessage) and index == 0:  # usage is that of the call: once is enough
        message = _completed(message, run)
    return ChatGeneration(message=message, generation_info=info)


def _completed(message: AIMessage, run: Run) -> AIMessage:
    """Return the message with what the run knows about it, unless it knows for itself."""
    if message.usage_metadata is not None:
        return message
    more: dict[str, Any] = {}
    if run.usage is not None:
        more["usage_metadata"] = usage_metadata_of(run.usage)
    if run.model is not None:
        more["response_metadata"] = {"model_name": run.model, **message.response_metadata}
    return message.model_copy(update=more) if more else message


def usage_metadata_of(usage: Usage) -> UsageMetadata:
    """Return the usage in LangChain's words; where it wants a number and nobody knows one, it gets 0."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    said = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=usage.total_tokens or read + written)
    if details := _input_details(usage):
        said["input_token_details"] = details
    if usage.reasoning_tokens is not None:
        said["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return said


def _input_details(usage: Usage) -> InputTokenDetails:
    details = InputTokenDetails()
    if usage.cached_tokens is not None:
        details["cache_read"] = usage.cached_tokens
    if usage.cache_write_tokens is not None:
        details["cache_creation"] = usage.cache_write_tokens
    return details


def _llm_output(run: Run) -> dict[str, Any] | None:
    said: dict[str, Any] = {}
    if run.usage is not None:
        counted = usage_metadata_of(run.usage)
        said["token_usage"] = {
            "prompt_tokens": counted["input_tokens"],
            "completion_tokens": counted["output_tokens"],
            "total_tokens": counted["total_tokens"],
        }
    if run.model is not None:
        said["model_name"] = run.model
    return said or None


def chunk_of(token: str, chunk: Any, run: Run) -> GenerationChunk | ChatGenerationChunk:
    """Return a piece of a streamed answer."""
    if isinstance(chunk, (GenerationChunk, ChatGenerationChunk)):
        return chunk
    if run.kind != "chat_model":
        return GenerationChunk(text=token)
    message = chunk if isinstance(chunk, BaseMessageChunk) else AIMessageChunk(content=token, id=f"lc_run--{run.id}")
    return ChatGenerationChunk(message=message)


def tool_output_of(output: Any) -> Any:
    """Return what a tool returned: a tool's message as one, anything else as it is."""
    if isinstance(output, Mapping) and output.get("role") == "tool":
        return message_of(output)
    return output


# -- documents ---------------------------------------------------------------------------------------------------------

_CONTENT: Final = ("page_content", "content", "text", "document", "body")
"""What retrievers call the text of a document."""


def documents_of(value: Any) -> list[Document]:
    """Return what a retriever found as documents: from texts, dicts, objects with their text in a usual attribute, or pairs of
    one of these with its score.
    """
    if isinstance(value, Mapping) and isinstance(value.get("documents"), (list, tuple)):
        value = value["documents"]
    if isinstance(value, (list, tuple)):
        return [_document_or_text(one) for one in value]
    return [] if value is None else [_document_or_text(value)]


def _document_or_text(value: Any) -> Document:
    try:
        return _document(value)
    except Exception:  # a property of the app's own class
        return Document(page_content=text_of(value))


def _document(value: Any) -> Document:
    if isinstance(value, Document):
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], (int, float)):
        found = _document_or_text(value[0])
        return found.model_copy(update={"metadata": {**found.metadata, "score": value[1]}})
    fields = _document_fields(value)
    name = next((name for name in _CONTENT if isinstance(fields.get(name), str)), None)
    if name is None:
        return Document(page_content=_text(value))
    content, given_id, metadata = fields.pop(name), fields.pop("id", None), fields.pop("metadata", None)
    metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
    return Document(page_content=content, id=None if given_id is None else str(given_id), metadata={**fields, **metadata})


def _document_fields(value: Any) -> dict[str, Any]:
    value = _dumped(value)
    if isinstance(value, Mapping):
        return {str(name): field for name, field in value.items()}
    read = {name: getattr(value, name, None) for name in (*_CONTENT, "id", "metadata", "score")}
    return {name: field for name, field in read.items() if field is not None}
