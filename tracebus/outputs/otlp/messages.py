"""What models are told and what they answer, in one form, whatever form the app or its provider gives it.

A message is a dict with ``role`` and ``parts``. Parts are those of OpenTelemetry's GenAI conventions v1.41.1, dicts with a
``type``: ``text``, ``reasoning``, ``tool_call``, ``tool_call_response``, ``blob``, ``uri`` and ``file``; what is none of these
keeps the type that it has. How the vocabularies write them is in ``forms``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Message", "Part", "answers_of", "as_list", "first_of", "messages_of", "parts_of", "text_parts"]

Part: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "model": "assistant", "function": "tool"}

_FINISHED: Final = {
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "failed": "error",
    "max_tokens": "length",
    "max_output_tokens": "length",
}
"""The convention's words for why a model stopped, by the providers' own."""


def messages_of(given: Any) -> list[Message]:
    """Return the messages that a model was given: a text, a message, or a list of them."""
    return [_plain_message(one) or _message(one, "user") for one in as_list(given)]


def _plain_message(given: Any) -> Message | None:
    """Return the message that is nothing but a text, as most are; None for any other."""
    if type(given) is not dict or len(given) != 2:
        return None
    role, content = given.get("role"), given.get("content")
    if type(role) is not str or type(content) is not str or not content:
        return None
    return {"role": _ROLES.get(role, role), "parts": [{"type": "text", "content": content}]}


def answers_of(output: Any, finish_reasons: Sequence[str], status: str) -> list[Message]:
    """Return what a model answered, each choice with the reason why it ended, which the convention asks for."""
    if type(output) is str and output and not finish_reasons and status == "ok":  # as most are
        return [{"role": "assistant", "parts": [{"type": "text", "content": output}], "finish_reason": "stop"}]
    reasons = iter(finish_reasons)
    answers = [_message(one, "assistant") for one in as_list(output)]
    for answer in answers:
        reason = next(reasons, None)
        answer["finish_reason"] = _FINISHED.get(reason, reason) if reason else _reason_by_status(answer, status)
    return answers


def _reason_by_status(answer: Message, status: str) -> str:
    if status != "ok":
        return "error" if status == "error" else status
    return "tool_call" if any(part["type"] == "tool_call" for part in answer["parts"]) else "stop"


def as_list(given: Any) -> list[Any]:
    """Return a list as it is, nothing as an empty one, all else in one."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def _message(given: Any, role: str) -> Message:
    if not isinstance(given, dict):
        if isinstance(given, list) and len(given) == 2 and isinstance(given[0], str):  # ("user", "Why?")
            return {"role": _ROLES.get(given[0], given[0]), "parts": parts_of(given[1])}
        return {"role": role, "parts": parts_of(given)}
    kind = given.get("type")
    if isinstance(kind, str) and kind in _ITEMS and "role" not in given:
        return {"role": _ITEMS[kind], "parts": list(_part(given))}
    said = given.get("role") or (kind if kind in _ROLES else None) or role
    message: Message = {"role": _ROLES.get(said, said) if isinstance(said, str) else role, "parts": _parts_of_message(given)}
    if isinstance(name := given.get("name"), str):
        message["name"] = name
    return message


_ITEMS: Final = {
    "function_call": "assistant",
    "custom_tool_call": "assistant",
    "reasoning": "assistant",
    "function_call_output": "tool",
    "custom_tool_call_output": "tool",
}
"""What stands between messages in what OpenAI's responses are given, and who says it."""


def _parts_of_message(given: dict[str, Any]) -> list[Part]:
    if "parts" in given and "content" not in given:  # is in this form already, or in Gemini's
        return parts_of(given["parts"])
    content = given.get("content")
    if (call := given.get("tool_call_id")) is not None:
        return [{"type": "tool_call_response", "id": call, "response": content}]
    parts = text_parts("reasoning", given.get("reasoning") or given.get("reasoning_content"))
    parts += parts_of(content)
    parts += text_parts("text", given.get("refusal"))
    parts = _with_calls(parts, [_tool_call(one) for one in as_list(given.get("tool_calls")) if isinstance(one, dict)])
    if isinstance(old := given.get("function_call"), dict):
        parts.append(_tool_call(old))
    known = {"role", "content", "type", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call"}
    if not parts and not known & given.keys():  # somebody's own object
        parts = text_parts("text", json.dumps(given, ensure_ascii=False))
    return parts


def _with_calls(parts: list[Part], calls: list[Part]) -> list[Part]:
    """Return the parts with the calls of tools, each once.

    LangChain's messages have a call in their content, too, as its provider gave it: of one that was streamed, the arguments
    are only in ``tool_calls``.
    """
    known = {name: call for call in calls if (name := _id_of_call(call))}
    placed = [known.get(_id_of_call(part), part) for part in parts]
    return placed + [call for call in calls if call not in placed]


def _id_of_call(part: Part) -> str:
    """Return the id by which a part is known as the call of a tool, an empty text for none."""
    name = part.get("id") if part["type"] == "tool_call" else None
    return name if isinstance(name, str) else ""


def text_parts(kind: str, text: Any) -> list[Part]:
    """Return the part of a text, none for nothing."""
    return [{"type": kind, "content": text}] if isinstance(text, str) and text else []


def parts_of(content: Any) -> list[Part]:
    """Return the parts of a message's content."""
    return [part for one in as_list(content) for part in _part(one)]


def _part(given: Any) -> Iterator[Part]:
    if isinstance(given, str):
        if given:
            yield {"type": "text", "content": given}
        return
    if not isinstance(given, dict):
        yield {"type": "text", "content": json.dumps(given, ensure_ascii=False)}
        return
    kind = given.get("type")
    if isinstance(kind, str) and kind in _BY_TYPE:
        yield _BY_TYPE[kind](given)
    elif isinstance(text := given.get("text"), str):
        yield {"type": "text", "content": text}
    else:
        yield {**given, "type": kind if isinstance(kind, str) else "object"}


def _text(given: dict[str, Any]) -> Part:
    return {"type": "text", "content": first_of(given, "text", "content") or ""}


def _reasoning(given: dict[str, Any]) -> Part:
    said = first_of(given, "thinking", "content", "text", "summary")
    texts = [one.get("text", "") if isinstance(one, dict) else str(one) for one in as_list(said)]
    return {"type": "reasoning", "content": "\n\n".join(text for text in texts if isinstance(text, str))}


def _tool_call(given: dict[str, Any]) -> Part:
    inner = given.get("function") or given.get("custom")
    called = inner if isinstance(inner, dict) else given
    arguments = first_of(called, "arguments", "args", "input")
    return {
        "type": "tool_call",
        "id": first_of(given, "call_id", "id"),
        "name": called.get("name") or "",
        "arguments": _parsed(arguments),
    }


def _tool_result(given: dict[str, Any]) -> Part:
    response = first_of(given, "response", "result", "output", "content")
    return {"type": "tool_call_response", "id": first_of(given, "tool_use_id", "call_id", "id"), "response": response}


def _image(given: dict[str, Any]) -> Part:
    return _media("image", first_of(given, "image_url", "source", "url"), given.get("file_id"))


def _audio(given: dict[str, Any]) -> Part:
    audio = given.get("input_audio")
    if not isinstance(audio, dict):
        return _media("audio", first_of(given, "source", "url"), given.get("file_id"))
    return {
        "type": "blob",
        "modality": "audio",
        "mime_type": f"audio/{audio.get('format')}",
        "content": audio.get("data") or "",
    }


def _file(given: dict[str, Any]) -> Part:
    file = given.get("file")
    held = file if isinstance(file, dict) else given
    source = first_of(held, "source", "file_url", "uri", "file_data")
    return _media(held.get("modality") or "document", source, first_of(held, "file_id", "id"))


def _media(modality: str, source: Any, file_id: Any = None) -> Part:
    """Return a picture or a sound: by its address, by an id that the provider has given it, or with its bytes in base64."""
    if isinstance(source, dict):
        data, address = first_of(source, "data"), first_of(source, "url", "uri")
        if data is not None:
            return {"type": "blob", "modality": modality, "mime_type": source.get("media_type"), "content": data}
        source, file_id = address, file_id or source.get("file_id")
    if isinstance(source, str) and source.startswith("data:"):
        header, _, data = source[5:].partition(",")
        return {"type": "blob", "modality": modality, "mime_type": header.partition(";")[0] or None, "content": data}
    if source is None and file_id is not None:
        return {"type": "file", "modality": modality, "file_id": file_id}
    return {"type": "uri", "modality": modality, "uri": source}


def _as_it_is(given: dict[str, Any]) -> Part:
    return given


_BY_TYPE: Final = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), _text),
    **dict.fromkeys(("reasoning", "thinking"), _reasoning),
    **dict.fromkeys(("tool_use", "tool_call", "function_call", "custom_tool_call", "server_tool_use"), _tool_call),
    **dict.fromkeys(
        ("tool_result", "tool_call_response", "function_call_output", "custom_tool_call_output"),
        _tool_result,
    ),
    **dict.fromkeys(("image", "image_url", "input_image"), _image),
    **dict.fromkeys(("audio", "input_audio"), _audio),
    **dict.fromkeys(("file", "input_file", "document"), _file),
    **dict.fromkeys(("blob", "uri"), _as_it_is),
}


def first_of(given: Mapping[str, Any], *names: str) -> Any:
    """Return what is there under the first of these names, None where there is nothing."""
    return next((given[name] for name in names if given.get(name) is not None), None)


def _parsed(arguments: Any) -> Any:
    """Return a tool call's arguments as the JSON that they are; a text that is none stays one."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
