"""The current run in and out of headers: W3C Trace Context and W3C Baggage, without OpenTelemetry.

``traceparent`` and ``tracestate`` name the parent, ``baggage`` carries session, user and tags; what others put there is
passed on. Headers come from strangers: what is malformed is left out, and nothing in them raises.

Sources: https://www.w3.org/TR/trace-context-1/ and https://www.w3.org/TR/baggage/.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar, overload

from .errors import ArgumentError
from .late import uuid
from .runs import RemoteParent, Run, Scope, current_scope, get_current, innermost, leave_scope, nearest, outward
from .scopes import InnerScope, scope

__all__ = ["TraceMiddleware", "extract", "inject"]

M = TypeVar("M", bound=MutableMapping[str, str])
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

SESSION_ID: Final = "tracebus.session_id"
USER_ID: Final = "tracebus.user_id"
TAGS: Final = "tracebus.tags"

LONGEST: Final = 8192
"""Characters of a baggage or tracestate header; the first is what every W3C Baggage implementation must pass on."""
MOST_MEMBERS: Final = 64
"""Members of a baggage header, likewise; also the tags that are taken from one."""
MOST_STATES: Final = 32
"""Members of a tracestate header."""


@overload
def inject(headers: None = None) -> dict[str, str]: ...
@overload
def inject(headers: M) -> M: ...
def inject(headers: Any = None) -> Any:
    """Write the current run, and the session, user and tags of its scope, into ``headers``; return them.

    What is started on the other side, inside ``extract(headers)``, becomes a child of the run. Outside a run the parent
    that came from outside is passed on; where there is neither, nothing is written. Other members of an existing
    ``baggage`` header stay.

    Raises ArgumentError when ``headers`` is no mapping.
    """
    if headers is None:
        headers = {}
    if not (hasattr(headers, "keys") and hasattr(headers, "__setitem__")):
        raise ArgumentError(f"inject() writes into a mapping of headers such as a dict, not a {type(headers).__name__}")
    parent = _parent_of_others()
    if parent is not None:
        sampled = "01" if parent.sampled else "00"
        _write(headers, TRACEPARENT, f"00-{parent.trace_id.hex}-{parent.span_id:016x}-{sampled}")
        _write(headers, TRACESTATE, parent.tracestate)  # another trace's state goes when there is none
    own, passed_on = _own_members(current_scope()), _members_from_outside()
    if own or passed_on:
        _write(headers, BAGGAGE, _joined(_values(headers)[BAGGAGE], own, passed_on))
    return headers


class extract(scope):
    """Let what starts inside continue a trace from elsewhere: ``with extract(request.headers):``, or ``async with``.

    Takes a mapping, or pairs of names and values as ASGI gives them, as text or bytes; names in any case. Runs started
    inside are roots here, whatever run is current outside, and belong to the trace that the headers name; they inherit
    the session, user and tags of the baggage. Where no valid parent is named, they start a trace of their own.

    Baggage says what its sender wants it to say: let a gateway remove that of strangers when users are billed by it.

    Raises ArgumentError when ``headers`` is neither; nothing in them raises.
    """

    def __init__(self, headers: Headers) -> None:
        values = _values(headers)
        members = _parsed_baggage(values[BAGGAGE])
        said = {key: _decoded(value) for key, value, _ in members if key in (SESSION_ID, USER_ID, TAGS)}
        tags = _split_tags(said.get(TAGS, ""))
        super().__init__(tags=tags, session_id=said.get(SESSION_ID), user_id=said.get(USER_ID))
        self._remote = _parsed_parent(values[TRACEPARENT], values[TRACESTATE])
        self._members = tuple((key, member) for key, _, member in members if key not in said)

    def _inner(self) -> Scope:
        inner = super()._inner()
        return _Incoming(inner, _nearer(inner, self._remote), self._members)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the trace, also when something inside was left open. In another context nothing changes."""
        leave_scope(self)


class _Incoming(InnerScope):
    """The scope of an ``extract()`` block: no run is outside of it, and it knows the others' baggage."""

    __slots__ = ("members",)

    def __init__(self, inner: Scope, remote: RemoteParent | None, members: tuple[tuple[str, str], ...]) -> None:
        super().__init__(inner, None, remote=remote, outside=inner.outside)
        self.owner = inner.owner
        self.members = members


def _nearer(inner: Scope, named: RemoteParent | None) -> RemoteParent | None:
    """Return the parent that headers have named, or the span in which another tracer of this process serves their request."""
    around = inner.remote
    if inner.run is not None or around is None or not around.is_local:
        return named
    return around if named is None or named.trace_id == around.trace_id else named


def _parent_of_others() -> RemoteParent | None:
    """Return what is the parent of a run that another process starts for this context."""
    parent = nearest(innermost())
    if not isinstance(parent, Run):
        return parent
    came = parent._scope.remote
    if came is None:
        return RemoteParent(parent.trace_id, parent.span_id)
    return RemoteParent(parent.trace_id, parent.span_id, came.sampled, came.tracestate)


# -- ASGI --------------------------------------------------------------------------------------------------------------

Message: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class TraceMiddleware:
    """Let every run of a request continue the trace that its headers name: an ASGI middleware for HTTP and WebSocket.

    ``app.add_middleware(TraceMiddleware)`` in Starlette and FastAPI, ``TraceMiddleware(app)`` elsewhere. It covers the
    streamed body and background tasks, too.

    Raises ArgumentError when ``app`` is not callable.
    """

    def __init__(self, app: ASGIApp) -> None:
        if not callable(app):
            raise ArgumentError(f"TraceMiddleware wraps an ASGI application, not {app!r}")
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Run the application inside ``extract(headers)``."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        with extract(scope.get("headers") or ()):
            await self.app(scope, receive, send)


# -- headers -----------------------------------------------------------------------------------------------------------


def _values(headers: Any) -> dict[str, list[str]]:
    """Return the values of the three headers, each as often as it came."""
    pairs: Any = headers.items() if hasattr(headers, "items") else headers
    if isinstance(pairs, (str, bytes)) or not hasattr(pairs, "__iter__"):
        raise ArgumentError(
            f"extract() reads a mapping of headers, or pairs of names and values, not a {type(headers).__name__}"
        )
    found: dict[str, list[str]] = {TRACEPARENT: [], TRACESTATE: [], BAGGAGE: []}
    for pair in pairs:
        name, value = _text_pair(pair)
        if name.lower() in found:
            found[name.lower()].append(value)
    return found


def _text_pair(pair: Any) -> tuple[str, str]:
    try:
        name, value = pair
        return _as_text(name), _as_text(value)
    except (TypeError, ValueError):  # neither a pair nor of text: no header of ours
        return "", ""


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError


def _write(headers: MutableMapping[Any, str], name: str, value: str) -> None:
    """Replace the header under all its spellings by one, the first; remove it when the value is empty."""
    spellings = [key for key in headers.keys() if isinstance(key, str) and key.lower() == name]  # noqa: SIM118
    for key in spellings:
        if key in headers:  # one that does not tell cases apart has removed them all
            del headers[key]
    if value:
        headers[spellings[0] if spellings else name] = value


_TRACEPARENT: Final = "([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
# One grammar for both levels of the specification: level 2 lets a key begin with a digit and hold any number of "@".
_STATE: Final = r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]"


def _parsed_parent(traceparents: list[str], tracestates: list[str]) -> RemoteParent | None:
    """Return the parent; None when it is not named, or not as versions 00 to fe have it."""
    if len(traceparents) != 1:
        return None
    match = re.fullmatch(_TRACEPARENT, traceparents[0].strip(" \t"), re.DOTALL)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    is_sampled = bool(int(flags, 16) & 1)
    return RemoteParent(uuid.UUID(hex=trace_id), int(span_id, 16), is_sampled, _parsed_states(tracestates))


def _parsed_states(tracestates: list[str]) -> str:
    """Return the combined header as it came, or nothing when a member is malformed: then all are to be dropped."""
    header = ",".join(tracestates).strip(" \t")
    if len(header) > LONGEST:
        return ""
    members = [member for part in header.split(",") if (member := part.strip(" \t"))]
    is_valid = 0 < len(members) <= MOST_STATES and all(re.fullmatch(_STATE, member) for member in members)
    return header if is_valid else ""


# -- baggage -----------------------------------------------------------------------------------------------------------

# Possessive, so that matching takes one pass whatever a stranger sends.
_SPACE: Final = r"[ \t]*+"
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_OCTETS: Final = r"[!#-+\--:<-\[\]-~]*+"
_MEMBER: Final = (
    f"({_TOKEN}){_SPACE}={_SPACE}({_OCTETS}){_SPACE}(?:;{_SPACE}{_TOKEN}{_SPACE}(?:={_SPACE}{_OCTETS}{_SPACE})?)*+"
)
_UNRESERVED: Final = frozenset(b"-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _parsed_baggage(headers: list[str]) -> list[tuple[str, str, str]]:
    """Return key, encoded value and whole text of each well-formed member, within the limits."""
    header = ",".join(headers)
    if len(header) > LONGEST:
        header = header[: LONGEST + 1].rpartition(",")[0]
    matches = (re.fullmatch(_MEMBER, member.strip(" \t")) for member in header.split(","))
    return [(match[1], match[2], match[0]) for match in matches if match][:MOST_MEMBERS]


def _members_from_outside() -> tuple[tuple[str, str], ...]:
    """Return key and text of the baggage that came in and is not tracebus's own."""
    return next((around.members for around in outward(get_current()) if isinstance(around, _Incoming)), ())


def _own_members(inherited: Scope) -> dict[str, str]:
    """Return what a run started here would inherit, as baggage."""
    said = {
        SESSION_ID: inherited.session_id,
        USER_ID: inherited.user_id,
        TAGS: _joined_tags(inherited.tags) or None,
    }
    # What is too long as it is would not become shorter, and need not be encoded to be dropped.
    return {key: f"{key}={_encoded(text)}" for key, text in said.items() if text is not None and len(text) <= LONGEST}


def _joined(existing: list[str], own: dict[str, str], passed_on: Iterable[tuple[str, str]]) -> str:
    """Return the header: all that the caller wrote, and of ours and of what came in as much as the limits allow."""
    parts = (part.strip(" \t") for part in ",".join(existing).split(","))
    keyed = [(part.partition("=")[0].strip(" \t"), part) for part in parts if part]
    written = [part for key, part in keyed if key not in own]
    taken = {key for key, _ in keyed} | own.keys()
    ours = _fitting(own.values(), written)
    theirs = _fitting((text for key, text in passed_on if key not in taken), [*ours, *written])
    return ",".join([*ours, *written, *theirs])


def _fitting(members: Iterable[str], others: list[str]) -> list[str]:
    """Return those members for which the limits leave room beside the others."""
    places = MOST_MEMBERS - len(others)
    room = LONGEST + 1 - sum(len(other) + 1 for other in others)
    found: list[str] = []
    for member in members:
        if len(found) < places and len(member) + 1 <= room:
            found.append(member)
            room -= len(member) + 1
    return found


def _joined_tags(tags: Iterable[str]) -> str:
    """Return the tags as one text. It is encoded once more as a whole: others may decode and encode it on the way."""
    return ",".join(tag.replace("%", "%25").replace(",", "%2C") for tag in tags if tag)


def _split_tags(text: str) -> list[str]:
    tags = [tag.replace("%2C", ",").replace("%25", "%") for tag in text.split(",") if tag]
    return tags[:MOST_MEMBERS]


def _encoded(text: str) -> str:
    octets = text.encode("utf-8", "replace")
    return "".join(chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in octets)


def _decoded(value: str) -> str:
    # A plus is a space in what OpenTelemetry for Python writes; nobody who encodes a plus is misread.
    octets = re.sub(rb"%([0-9A-Fa-f]{2})", _octet, value.replace("+", " ").encode("ascii"))
    return octets.decode("utf-8", "replace")


def _octet(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode("ascii"))
