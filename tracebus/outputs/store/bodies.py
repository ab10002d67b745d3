"""Values as they are stored: masked, bounded JSON, with a line for lists and the words for the index.

How long and how deep a value may be, and what counts as a secret, is decided in ``payload`` and ``redaction``.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ...payload import JSON, encode, sanitize, short_text, without_secrets
from ...redaction import MASK, Redactor
from ..notes import Noted, Said

__all__ = ["NOTHING", "Body", "Encoder", "error_words", "headline", "output_words", "words"]

LINE: Final = 160
"""Characters of the line that lists show of a value."""

_decode: Final = msgspec.json.Decoder().decode


class Body(msgspec.Struct, frozen=True, gc=False):
    """One value: its JSON, how many secrets were masked in it, and whether something was cut.

    A batch has thousands, so that the collector would go through all of them, and what is in them, again and again: it does
    not look at these, and whoever has taken from ``value`` what is needed of it keeps the body ``without_containers``.
    """

    json: str | None
    value: JSON
    masked: int
    cut: bool

    def without_containers(self) -> Body:
        """Return it with the value if that is no container."""
        return Body(self.json, None, self.masked, self.cut) if isinstance(self.value, dict | list) else self


NOTHING: Final = Body(None, None, 0, False)


class Encoder:
    """Makes bodies with one redactor. A text that comes again at once, as an answer in the chain around it, is masked once."""

    def __init__(self, redactor: Redactor | None) -> None:
        self._redactor = redactor
        self._last: tuple[str | None, Body] = (None, NOTHING)

    def body(self, said: Said) -> Body:
        """Return the body of a value."""
        if said is None:
            return NOTHING
        if isinstance(said, bytes):
            return self._of_json(said)
        known, body = self._last
        if said is not known:
            body = self.of_value(said)
            if isinstance(body.value, str):  # and not what a rule has made of it
                self._last = said, body
        return body

    def of_value(self, value: Any) -> Body:
        """Return the body of JSON types."""
        clean = sanitize(value, self._redactor)
        return _body(encode(clean).decode(), clean)

    def _of_json(self, said: bytes) -> Body:
        value = _decode(said)
        clean = without_secrets(value, self._redactor)
        return _body((said if clean is value else encode(clean)).decode(), clean)

    def error(self, noted: Noted) -> Body:
        """Return the body of an error: its type, its message, the frames with the innermost last, and its causes."""
        frames = [{"file": file, "function": function, "line": line} for file, function, line in noted.frames]
        return self.of_value(
            {
                **_as_error(_decode(noted.said)),
                "frames": frames,
                "causes": [_as_error(_decode(cause)) for cause in noted.causes],
            }
        )

    def text(self, text: str) -> str:
        """Return a short text, such as the id of a session, without secrets."""
        return short_text(text, self._redactor)

    def texts(self, texts: tuple[str, ...]) -> list[str]:
        """Return short texts without secrets."""
        return [short_text(text, self._redactor) for text in texts]


def _body(json: str, value: JSON) -> Body:
    return Body(json, value, json.count(MASK), "…" in json and _CUT.search(json) is not None)


def _as_error(said: Any) -> dict[str, Any]:
    if isinstance(said, dict) and {"type", "message"} <= said.keys():
        return said
    return {"type": "", "message": said if isinstance(said, str) else encode(said).decode()}


_CUT: Final = re.compile(r"…\[\d+ (?:characters|items)\]|\"…\":\"\[\d+ items\]|…\[\w+ of \d+ items\]")


# -- a line of it ------------------------------------------------------------------------------------------------------

_MAIN: Final = ("messages", "prompt", "prompts", "query", "question", "input", "inputs", "content", "text", "output", "answer")


def headline(value: JSON) -> str | None:
    """Return one line of a value for a list: what it is about, not its form."""
    if value is None:
        return None
    found: Any = value
    for _ in range(8):
        if isinstance(found, dict) and found:
            found = next((found[name] for name in _MAIN if name in found), None) or next(iter(found.values()))
        elif isinstance(found, list) and found:
            found = _telling(found)
        else:
            break
    text = found if isinstance(found, str) else encode(found).decode()
    line = " ".join(text[: 2 * LINE].split())
    return line if len(line) <= LINE else f"{line[: LINE - 1]}…"


def _telling(items: list[Any]) -> Any:
    """Return what the user said last among messages, else the first item."""
    for item in reversed(items):
        if isinstance(item, dict) and item.get("role") in ("user", "human"):
            return item.get("content", "")
    return items[0]


# -- what it is found by -----------------------------------------------------------------------------------------------


def words(value: JSON) -> str:
    """Return every text in a value. Deleting a run from the index takes the same words again, so this must not change
    without a migration that builds the index anew."""
    if isinstance(value, str):
        return value
    found: list[str] = []
    _collect_texts(value, found)
    return "\n".join(found)


def _collect_texts(value: JSON, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect_texts(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect_texts(item, found)


def output_words(value: JSON, streamed: str | None) -> str:
    """Return what an output is found by: its texts, and what was streamed if that is not the output."""
    told = words(value)
    if streamed:
        told = f"{told}\n{streamed}" if told else streamed
    return told


def error_words(value: JSON) -> str:
    """Return what an error is found by: its type and its message, and those of its causes."""
    if not isinstance(value, dict):
        return ""
    causes = value.get("causes")
    told = [value, *(causes if isinstance(causes, list) else [])]
    return "\n".join(_said_by(one) for one in told if isinstance(one, dict))


def _said_by(error: dict[str, JSON]) -> str:
    return ": ".join(str(part) for part in (error.get("type"), error.get("message")) if part)
