"""The forms in which values become attributes: as they are, as JSON, or flattened, ``llm.input_messages.0.message.role``.

Which value has which name and form is in the tables of ``semconv``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from ...payload import encode
from .messages import Message, Part

__all__ = [
    "Attribute",
    "Form",
    "as_documents",
    "as_json",
    "as_messages",
    "as_value",
    "flat_choices",
    "flat_documents",
    "flat_embeddings",
    "flat_messages",
    "flat_prompts",
    "flat_tools",
    "nothing",
    "plain",
    "text",
]

Attribute: TypeAlias = "str | bool | int | float | list[str]"
Form: TypeAlias = Callable[[str, Any], "Iterator[tuple[str, Attribute]]"]


def text(value: Any) -> str:
    """Return a text as it is, all else as JSON."""
    return value if isinstance(value, str) else encode(value).decode()


def plain(name: str, value: Any) -> Iterator[tuple[str, Attribute]]:
    """Write what an attribute can hold: a text, a number, a list of texts."""
    yield name, value


def nothing(name: str, value: Any) -> Iterator[tuple[str, Attribute]]:
    """Write nothing: the vocabulary says it under another field's name."""
    return iter(())


def as_json(name: str, value: Any) -> Iterator[tuple[str, Attribute]]:
    """Write JSON; a text stays one."""
    yield name, text(value)


def as_value(prefix: str, value: Any) -> Iterator[tuple[str, Attribute]]:
    """Write a value and what it is: ``input.value``, ``input.mime_type``."""
    yield f"{prefix}.value", text(value)
    yield f"{prefix}.mime_type", "text/plain" if isinstance(value, str) else "application/json"


# -- OpenTelemetry -----------------------------------------------------------------------------------------------------


def as_messages(name: str, messages: list[Message]) -> Iterator[tuple[str, Attribute]]:
    """Write messages as the JSON that the convention has a schema of."""
    yield name, encode(messages).decode()


def as_documents(name: str, documents: list[dict[str, Any]]) -> Iterator[tuple[str, Attribute]]:
    """Write what a retriever found."""
    yield name, encode([{key: value for key, value in one.items() if value is not None} for one in documents]).decode()


# -- OpenInference -----------------------------------------------------------------------------------------------------


def flat_messages(name: str, messages: list[Message]) -> Iterator[tuple[str, Attribute]]:
    """Write each field of each message as an attribute."""
    for index, message in enumerate(_one_result_each(messages)):
        yield from _flat_message(f"{name}.{index}.message", message)


def _one_result_each(messages: list[Message]) -> Iterator[Message]:
    """Yield the messages; one that brings several tools' results becomes as many, because there a message has one."""
    for message in messages:
        results = [part for part in message["parts"] if part["type"] == "tool_call_response"]
        for result in results:
            yield {**message, "role": "tool", "parts": [result]}
        rest = [part for part in message["parts"] if part["type"] != "tool_call_response"]
        if rest or not results:
            yield {**message, "parts": rest}


def _flat_message(prefix: str, message: Message) -> Iterator[tuple[str, Attribute]]:
    yield f"{prefix}.role", message["role"]
    if name := message.get("name"):
        yield f"{prefix}.name", name
    parts: list[Part] = message["parts"]
    said = [part for part in parts if part["type"] not in ("tool_call", "tool_call_response")]
    if len(said) == 1 and said[0]["type"] == "text":
        yield f"{prefix}.content", said[0]["content"]
    else:
        for index, part in enumerate(said):
            yield from _flat_content(f"{prefix}.contents.{index}.message_content", part)
    calls = [part for part in parts if part["type"] == "tool_call"]
    for index, call in enumerate(calls):
        yield from _flat_call(f"{prefix}.tool_calls.{index}.tool_call", call)
    for part in parts:
        if part["type"] == "tool_call_response":
            yield f"{prefix}.content", text(part["response"])
            if part["id"] is not None:
                yield f"{prefix}.tool_call_id", text(part["id"])


def _flat_content(prefix: str, part: Part) -> Iterator[tuple[str, Attribute]]:
    kind = part["type"]
    if kind in ("text", "reasoning"):
        yield f"{prefix}.type", kind
        yield f"{prefix}.text", text(part["content"])
    elif part.get("modality") == "image":
        yield f"{prefix}.type", "image"
        yield f"{prefix}.image.image.url", _address(part)
    else:
        yield f"{prefix}.type", part.get("modality") or kind
        yield f"{prefix}.text", text({key: value for key, value in part.items() if key != "type"})


def _address(part: Part) -> str:
    if part["type"] == "blob":
        return f"data:{part.get('mime_type') or 'application/octet-stream'};base64,{part['content']}"
    return text(part.get("uri") or part.get("file_id") or "")


def _flat_call(prefix: str, call: Part) -> Iterator[tuple[str, Attribute]]:
    if call["id"] is not None:
        yield f"{prefix}.id", text(call["id"])
    yield f"{prefix}.function.name", text(call["name"])
    yield f"{prefix}.function.arguments", text(call["arguments"] if call["arguments"] is not None else {})


def flat_documents(name: str, documents: list[dict[str, Any]]) -> Iterator[tuple[str, Attribute]]:
    """Write each field of each document as an attribute."""
    for index, document in enumerate(documents):
        for key, value in document.items():
            if value is not None:
                yield f"{name}.{index}.document.{key}", value if isinstance(value, float | int) else text(value)


def flat_prompts(name: str, prompts: list[str]) -> Iterator[tuple[str, Attribute]]:
    """Write the prompts of a text model."""
    for index, prompt in enumerate(prompts):
        yield f"{name}.{index}.prompt.text", prompt


def flat_choices(name: str, completions: list[str]) -> Iterator[tuple[str, Attribute]]:
    """Write the answers of a text model."""
    for index, completion in enumerate(completions):
        yield f"{name}.{index}.completion.text", completion


def flat_tools(name: str, tools: list[Any]) -> Iterator[tuple[str, Attribute]]:
    """Write the schemas of the tools that a model may call."""
    for index, tool in enumerate(tools):
        yield f"{name}.{index}.tool.json_schema", text(tool)


def flat_embeddings(name: str, texts: list[str]) -> Iterator[tuple[str, Attribute]]:
    """Write the texts that are embedded. The vectors stay here."""
    for index, embedded in enumerate(texts):
        yield f"{name}.{index}.embedding.text", embedded
