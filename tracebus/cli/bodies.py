"""All that went into a run and came out of it, in lines: messages as a conversation, documents, errors with their stack."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from ..outputs.store import RunDetail, RunError, RunEvent
from ..payload import printable
from .screen import ACCENT, DIM, FAILED, FAILURE, MODELS, Screen, said
from .words import facts_of, seconds, status_word

__all__ = ["body_lines"]

ROLE: Final = len("assistant  ")
INDENT: Final = "  "
_OURS: Final = str(Path(__file__).parents[1]) + os.sep
"""Every error in a traced function passes through here, which tells nobody anything."""


def body_lines(screen: Screen, detail: RunDetail) -> Iterator[Text]:
    """Yield a heading for a run, and everything below it."""
    run, body = detail.run, detail.body
    yield _heading(screen, detail)
    yield from _inputs(screen, body.inputs)
    for event in detail.events:
        yield from _event(screen, event, run.started_ns)
    output = body.streamed if body.output is None and run.status == "open" else body.output
    yield from _output(screen, output, "assistant" if run.kind in MODELS else "output")
    if body.error is not None:
        yield from _error(screen, body.error)
    for name, value in body.metadata.items():
        yield from _labelled(screen, name, value, style=DIM)


def _heading(screen: Screen, detail: RunDetail) -> Text:
    run = detail.run
    style = FAILURE if run.status in FAILED else ACCENT if run.kind in MODELS else "bold"
    facts = [fact for fact in facts_of(screen, run) if fact != status_word(run.status)]
    parts = [run.kind, status_word(run.status), seconds(run.duration_ns), *facts]
    return Text("  ").join([said(run.name, style), *(said(part) for part in parts if part), Text(run.span_id, DIM)])


# -- one value ---------------------------------------------------------------------------------------------------------


def _labelled(screen: Screen, label: str, value: Any, style: str = "") -> Iterator[Text]:
    """Yield the lines of a value, the first of them behind its label."""
    label = screen.cut(printable(label), ROLE * 2)
    margin = INDENT + " " * max(ROLE, len(label) + 2)
    first = INDENT + label.ljust(ROLE - 2) + "  "
    room = max(16, screen.width - len(margin))
    for line in _lines_of(value):
        for piece in _wrapped(screen, line, room):
            yield Text(no_wrap=True, overflow="crop").append(first, DIM).append(piece, style)
            first = margin


def _lines_of(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return [printable(line.replace("\t", "    ")) for line in text.split("\n")]


def _wrapped(screen: Screen, line: str, room: int) -> list[str]:
    if not screen.is_terminal or len(line) * 2 <= room:
        return [line]
    return [piece.plain.rstrip() for piece in Text(line).wrap(screen.console, room)] or [""]


# -- what goes in and comes out ----------------------------------------------------------------------------------------


def _inputs(screen: Screen, inputs: Any) -> Iterator[Text]:
    if not isinstance(inputs, dict):
        if inputs is not None:
            yield from _labelled(screen, "input", inputs)
        return
    for name, value in inputs.items():
        if name == "messages" and isinstance(value, list):
            for message in value:
                yield from _message(screen, message, "message")
        elif name == "prompts" and isinstance(value, list):
            for prompt in value:
                yield from _labelled(screen, "user", prompt)
        else:
            yield from _labelled(screen, str(name), value)


def _message(screen: Screen, message: Any, otherwise: str) -> Iterator[Text]:
    """Yield a message by its role: its text, and the tools that it calls as ``name(arguments)``."""
    if not isinstance(message, dict) or "role" not in message:
        yield from _labelled(screen, otherwise, message)
        return
    role = str(message["role"])
    content = message.get("content")
    if content not in (None, "", []):
        yield from _labelled(screen, role, _text_of(content))
        role = ""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        yield from _labelled(screen, role, _call(call), style=ACCENT)
        role = ""


def _text_of(content: Any) -> Any:
    """Return the text of a message's parts when they are nothing but text."""
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "\n".join(part["text"] for part in content)
    return content


def _call(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        return call
    arguments = function.get("arguments", function.get("args", ""))
    told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{function['name']}({told})"


def _output(screen: Screen, output: Any, label: str) -> Iterator[Text]:
    if output is None:
        return
    if isinstance(output, list) and output and all(isinstance(item, dict) and "content" in item for item in output):
        for item in output:
            yield from _message(screen, item, "") if "role" in item else _document(screen, item)
        return
    if isinstance(output, dict) and "role" in output:
        yield from _message(screen, output, label)
        return
    yield from _labelled(screen, label, output)


def _document(screen: Screen, document: dict[str, Any]) -> Iterator[Text]:
    yield from _labelled(screen, "document", document["content"])
    about = {name: value for name, value in document.items() if name != "content" and value not in (None, {}, [])}
    if about:
        told = "  ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in about.items())
        yield from _labelled(screen, "", told, style=DIM)


# -- what went wrong, and what else was said ---------------------------------------------------------------------------


def _error(screen: Screen, error: RunError) -> Iterator[Text]:
    yield from _labelled(screen, "error", f"{error.type}: {error.message}" if error.message else error.type, style=FAILURE)
    for frame in reversed(error.frames):
        if str(frame.get("file", "")).startswith(_OURS):
            continue
        where = f"{frame.get('file', '?')}:{frame.get('line', '?')}  {frame.get('function', '')}"
        yield from _labelled(screen, "", f"at {where}", style=DIM)
    for cause in error.causes:
        yield from _labelled(screen, "because", f"{cause.get('type', '')}: {cause.get('message', '')}", style=FAILURE)


def _event(screen: Screen, event: RunEvent, started_ns: int) -> Iterator[Text]:
    at = seconds(max(0, event.time_ns - started_ns))
    told = event.data.get("text") if event.hook == "text" else json.dumps(event.data, ensure_ascii=False)
    yield from _labelled(screen, event.hook, f"{told}  (after {at})")
