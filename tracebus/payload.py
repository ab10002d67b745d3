"""What may leave the process: bounded, strict-JSON copies of any value, and text and bytes made of them.

What is masked on the way out is in ``redaction``; who writes the bytes is under ``outputs``.

A copy says what it left out:

====================================  ================================================================
a text over the limit                 ``"its beginning…[104857600 characters]"``
a list over the limit                 a last item ``"…[10000000 items]"``
a dict over the limit                 a last key ``"…"`` with ``"[1000000 items]"``
a container deeper than the limit     ``"…[dict of 3 items]"``
a container inside itself             ``"[cycle]"``
bytes, and an int beyond 2048 bits    ``"[bytes of 3 bytes]"``, ``"[integer of 16610 bits]"``
an array                              ``"<numpy.ndarray shape=(3, 4) dtype=float32>"``
a function, a stream                  ``"<function module.name>"``, ``"<generator name>"``
an iterator, a file, a lock           ``"<list_iterator>"``, ``"<_io.TextIOWrapper>"``, ``"<_thread.lock>"``
an object whose ``repr`` raised       ``"<unprintable module.Class>"``
====================================  ================================================================

Of an object the public fields are copied as they lie in its ``__dict__`` and its slots. No property is
evaluated, no iterator is advanced, and ``repr`` is asked only where there are no fields.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from io import IOBase
from itertools import islice
from pathlib import PurePath
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    TracebackType,
)
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, get_args
from uuid import UUID

import msgspec

from .errors import ArgumentError
from .redaction import JSON, MASK, Redactor, default_redactor, free_name

__all__ = [
    "Capture",
    "JSON",
    "DEFAULT_LIMITS",
    "INT64",
    "Limits",
    "captures_inputs",
    "captures_outputs",
    "default_capture",
    "encode",
    "preview",
    "printable",
    "sanitize",
    "short_text",
    "sized_snapshot",
    "snapshot",
    "text_of",
    "without_secrets",
]

Capture: TypeAlias = Literal["none", "inputs", "outputs", "all"]
"""Which content may leave: none, what goes into a run, what comes out of it, or all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one value is copied. What is cut keeps its beginning and notes its original size."""

    depth: int = 12
    """Containers inside one another."""
    items: int = 200
    """Items of one container, the note included."""
    characters: int = 32 * 1024
    """Characters of one text, the note included."""
    size: int = 56 * 1024
    """Bytes of JSON altogether, give or take the notes; 64 KiB are never exceeded with the default."""


DEFAULT_LIMITS: Final = Limits()


def snapshot(value: object, limits: Limits = DEFAULT_LIMITS) -> JSON:
    """Return a bounded copy of ``value`` in strict-JSON types, which no later change to ``value`` reaches.

    For the thread that emits: a few microseconds for a few messages, at most 5 ms for anything that is not
    slow to say its own ``repr``, and it never raises. Secrets stay in it.
    """
    return sized_snapshot(value, limits)[0]


def sized_snapshot(value: object, limits: Limits = DEFAULT_LIMITS) -> tuple[JSON, int]:
    """Return a ``snapshot`` of ``value`` and how many bytes it is about."""
    if type(value) is str and value.isascii() and len(value) <= limits.characters and len(value) * 6 <= limits.size:
        return value, len(value)
    try:
        copier = _Copier(limits, limits.size)
        return copier.copy(value, 0), limits.size - copier.room
    except Exception:  # no stack or no memory left: the app's trouble, which a record of it must not add to
        return _UNREADABLE, len(_UNREADABLE)


def sanitize(value: object, redactor: Redactor | None = None, limits: Limits = DEFAULT_LIMITS) -> JSON:
    """Return a ``snapshot`` of ``value`` without its secrets, for the writer that lets it out; never raise.

    ``redactor`` is the default one if none is given.
    """
    return without_secrets(snapshot(value, limits), redactor, limits)


def without_secrets(copied: JSON, redactor: Redactor | None = None, limits: Limits = DEFAULT_LIMITS) -> JSON:
    """Return what ``snapshot`` returned without its secrets: itself when it has none; never raise."""
    try:
        masked = (redactor or default_redactor()).mask(copied)
        if masked == copied:
            return copied
        # Copied again, because masks are longer than short secrets and a rule may have returned anything.
        return _Copier(limits, limits.size + _GROWTH).copy(masked, 0)
    except Exception:
        return _UNREADABLE


def short_text(text: str, redactor: Redactor | None = None) -> str:
    """Return a short text, such as a name, a tag or the id of a session, bounded and without its secrets.

    The same few come with every run, so what was made of each is remembered.
    """
    return _short_text(text, redactor or default_redactor())


@lru_cache(maxsize=4096)
def _short_text(text: str, redactor: Redactor) -> str:
    return str(sanitize(text, redactor, _SHORT_TEXT))


_SHORT_TEXT: Final = Limits(characters=256, size=4096)


def encode(value: object) -> bytes:
    """Return ``value`` as compact strict JSON in UTF-8; never raise.

    It is for what ``sanitize`` returned. What msgspec cannot encode as it is, is sanitized first; what it can
    encode is neither bounded nor masked here.
    """
    try:
        return _encode(value)
    except Exception:
        return _encode(sanitize(value))


def text_of(value: object, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return a bounded text of ``value``: a text as it is, all else as compact JSON. Secrets stay in it."""
    return _as_text(snapshot(value, limits))


def preview(value: object, width: int) -> str:
    """Return one line of at most ``width`` characters about ``value`` for people, without its secrets.

    What is cut ends with ``…``. A text has no quotes around it.
    """
    limits = Limits(characters=width + 64, size=8 * width + 256)
    text = printable(_as_text(sanitize(value, limits=limits)))
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"[: max(0, width)]


_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return ``text`` with what could break or turn a line escaped: ``\n``, ``\x1b``, ``\u202e``."""
    return text if text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def default_capture() -> Capture:
    """Return what ``TRACEBUS_CAPTURE`` says, ``"all"`` without it; raise ArgumentError if it is no choice."""
    given = os.environ.get("TRACEBUS_CAPTURE") or "all"
    for choice in get_args(Capture):
        if choice == given.strip().lower():
            return cast(Capture, choice)
    choices = ", ".join(get_args(Capture))
    raise ArgumentError(f"unknown TRACEBUS_CAPTURE {given!r}: set it to one of {choices}, or unset it for all")


def captures_inputs(capture: Capture) -> bool:
    """Tell whether prompts, messages, inputs and queries may leave."""
    return capture in ("inputs", "all")


def captures_outputs(capture: Capture) -> bool:
    """Tell whether tokens, outputs and documents may leave."""
    return capture in ("outputs", "all")


_Leaf: TypeAlias = str | int | float | bool | None
_Opened: TypeAlias = tuple[int, Sequence[Any], bool]
"""A container: how many items it has, the first of them, and whether those are pairs of a key and an item."""
_Found = TypeVar("_Found")
_Reader: TypeAlias = Callable[[Any, int], _Leaf | _Opened]
"""Reads one level of a value, at most so many items, and runs the app's code only where it must."""

# What a value costs beside its own text, in bytes: for commas and brackets, and for the time that it takes,
# so that 56 KiB are filled within 5 ms by whatever they are filled with.
_LEAF_SIZE: Final = 6
_CONTAINER_SIZE: Final = 32
_FOREIGN_SIZE: Final = 64
_GROWTH: Final = 4 * 1024
"""By how many bytes of JSON masks may lengthen a value: ``pwd=x`` has 5 characters, its mask alone 10."""
_KEY_CHARACTERS: Final = 256
_SHORT: Final = 4096
"""Characters of a text that costs nothing to look at, also if it turns out to be too long."""
_FEW: Final = 16
"""Items of a dict for which the same is true."""
INT64: Final = range(-(2**63), 2**63)
"""The whole numbers that every receiver of a payload can hold."""
_TEXT_BITS: Final = 2048
"""How long an int is spelt out; 2126 bits are what ``sys.set_int_max_str_digits`` always allows."""

_UNREADABLE: Final = "<unprintable>"

_encode = msgspec.json.Encoder().encode


class _Copier:
    """One copy of one value, with the bytes that it may still use and the containers that it is in."""

    __slots__ = ("inside", "limits", "room")

    def __init__(self, limits: Limits, size: int) -> None:
        self.limits = limits
        self.room = size
        self.inside: set[int] = set()

    def copy(self, value: Any, depth: int) -> JSON:
        cls = _type_of(value)
        if cls is str:
            return self.text(value, self.limits.characters)
        if cls is dict and (message := self.message(value, depth)) is not None:
            return message
        if cls is list:
            return self.container(value, (len(value), value[: self.limits.items], False), depth)
        if _is_atom(value):
            return self.atom(value)
        if cls is not dict and cls is not tuple:
            self.room -= _FOREIGN_SIZE
        found = _read(value, self.limits.items)
        if isinstance(found, tuple):
            return self.container(value, found, depth)
        return self.text(found, self.limits.characters) if isinstance(found, str) else self.atom(found)

    def atom(self, value: _Leaf) -> _Leaf:
        self.room -= len(_encode(value)) + _LEAF_SIZE
        return value

    def message(self, value: dict[Any, Any], depth: int) -> dict[str, JSON] | None:
        """Return a copy of a small dict of short texts and numbers, quickly; None of any other."""
        if len(value) > min(_FEW, self.limits.items) or depth >= self.limits.depth:
            return None
        copied = value.copy()
        short = min(_SHORT, self.limits.characters)
        for key, item in copied.items():
            if type(key) is not str or len(key) > _KEY_CHARACTERS:
                return None
            if not (len(item) <= short if type(item) is str else _is_atom(item)):
                return None
        return copied if self.has_room(copied, 2 * _LEAF_SIZE * len(copied) + _CONTAINER_SIZE) else None

    def has_room(self, copied: JSON, more: int) -> bool:
        """Take the room for ``copied`` and ``more`` bytes; False if it is too long or not UTF-8."""
        try:
            size = len(_encode(copied)) + more
        except UnicodeEncodeError:
            return False
        if size > self.room:
            return False
        self.room -= size
        return True

    def container(self, value: object, opened: _Opened, depth: int) -> JSON:
        count, items, is_named = opened
        if id(value) in self.inside:
            return self.text("[cycle]", self.limits.characters)
        if depth >= self.limits.depth:
            return self.text(f"…[{_class_name(_type_of(value))} of {count} items]", self.limits.characters)
        if count > self.limits.items:
            items = items[: self.limits.items - 1]
        self.room -= _CONTAINER_SIZE
        self.inside.add(id(value))
        copied = self.named(items, count, depth + 1) if is_named else self.listed(items, count, depth + 1)
        self.inside.discard(id(value))
        return copied

    def listed(self, items: Sequence[Any], count: int, depth: int) -> list[JSON]:
        copied: list[JSON] = []
        for item in items:
            if self.room <= 0:
                break
            copied.append(self.copy(item, depth))
        if len(copied) < count:
            copied.append(f"…[{count} items]")
        return copied

    def named(self, pairs: Sequence[tuple[Any, Any]], count: int, depth: int) -> dict[str, JSON]:
        copied: dict[str, JSON] = {}
        for key, item in pairs:
            if self.room <= 0:
                break
            name = self.text(key if type(key) is str else _as_text(self.copy(key, depth)), _KEY_CHARACTERS)
            copied[free_name(name, copied)] = self.copy(item, depth)
        if len(copied) < count:
            copied[free_name("…", copied)] = f"[{count} items]"
        return copied

    def text(self, text: str, most: int) -> str:
        if type(text) is str and len(text) <= most and self.has_room(text, _LEAF_SIZE):
            return text
        return self.cut(text, most)

    def cut(self, text: str, most: int) -> str:
        """Return what fits of a text that is too long, not UTF-8, or of a subclass, which may lie."""
        length = str.__len__(text)
        note = f"…[{length} characters]"
        head = _mend(str.__getitem__(text, slice(most)))
        if max(length, len(head)) > most or len(_encode(head)) > self.room:
            head = _fit(head[: max(0, most - len(note))], self.room - len(note)) + note
        self.room -= len(_encode(head)) + _LEAF_SIZE
        return head


def _is_atom(value: object) -> bool:
    """Tell whether ``value`` is None or a number that JSON and a database can hold as it is."""
    cls = type(value)
    if cls is int:
        return value in INT64
    return math.isfinite(cast(float, value)) if cls is float else value is None or cls is bool


def _mend(text: str) -> str:
    r"""Return ``text`` with lone surrogates, which UTF-8 cannot say, escaped: ``\ud800``."""
    return text.encode("utf-8", "backslashreplace").decode()


def _fit(text: str, size: int) -> str:
    """Return as much of the beginning of ``text`` as makes at most ``size`` bytes of JSON."""
    while text and (used := len(_encode(text))) > size:
        text = text[: max(0, len(text) * size // used)]
    return text


def _as_text(copied: JSON) -> str:
    return copied if isinstance(copied, str) else _encode(copied).decode()


# What a value is, whatever its ``__class__`` says instead, and what a class is, whatever its metaclass says.
_type_of: Final = cast(Callable[[object], type[Any]], type)
_name_of, _qualname_of, _module_of, _mro_of, _dict_of = (
    cast(Callable[[type[Any]], Any], vars(type)[name].__get__)
    for name in ("__name__", "__qualname__", "__module__", "__mro__", "__dict__")
)


def _class_name(cls: type[Any]) -> str:
    return _qualname_of(cls) if _module_of(cls) == "builtins" else f"{_module_of(cls)}.{_qualname_of(cls)}"


def _root_of(cls: type[Any]) -> str:
    return str(_module_of(cls)).partition(".")[0]


def _in_class(cls: type[Any], name: str) -> Any:
    """Return what the class or a base of it has under ``name``, without evaluating it; None if nothing."""
    for base in _mro_of(cls):
        if name in _dict_of(base):
            return _dict_of(base)[name]
    return None


def _by_class(find: Callable[[type[Any]], _Found]) -> Callable[[type[Any]], _Found]:
    """Remember what ``find`` found of a class; this keeps classes alive, but not more than 1024."""
    return cast(Callable[[type[Any]], _Found], lru_cache(maxsize=1024)(find))


@_by_class
def _slots_of(cls: type[Any]) -> tuple[Any, list[tuple[str, Any]]]:
    """Return where instances keep their ``__dict__``, None if nowhere, and their public slots."""
    instance_dict = _in_class(cls, "__dict__")
    slots = [
        (name, slot)
        for base in reversed(_mro_of(cls))
        for name, slot in _dict_of(base).items()
        if type(slot) is MemberDescriptorType and (_is_public(name) or name == _EXTRA)
    ]
    return instance_dict if type(instance_dict) in (GetSetDescriptorType, MemberDescriptorType) else None, slots


def _instance_dict(value: Any) -> dict[str, Any]:
    getter, _ = _slots_of(_type_of(value))
    return cast(dict[str, Any], getter.__get__(value)) if getter else {}


def _slot_values(value: Any) -> Iterator[tuple[str, object]]:
    for name, slot in _slots_of(_type_of(value))[1]:
        try:
            yield name, slot.__get__(value)
        except AttributeError:  # not set
            continue


def _is_public(name: object) -> bool:
    return type(name) is str and not name.startswith("_")


def _first(iterate: Callable[[Any], Iterable[Any]], value: object, most: int, tries: int = 100) -> list[Any]:
    """Return the first items of ``value``, all of one moment, also when another thread changes it."""
    try:
        return list(islice(iterate(value), most))
    except RuntimeError:  # changed size during iteration
        return _first(iterate, value, most, tries - 1) if tries else []


def _read(value: Any, most: int) -> _Leaf | _Opened:
    return _guarded(lambda: _reader_of(_type_of(value))(value, most), value)


def _guarded(read: Callable[[], _Leaf | _Opened], value: Any) -> _Leaf | _Opened:
    """Call ``read``, which may run the app's code; whatever that raises, SystemExit too, is a placeholder."""
    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<unprintable {_class_name(_type_of(value))}>"


def _read_placeholder(value: object) -> str:
    return f"<{_class_name(_type_of(value))}>"


def _read_int(value: int) -> int | str:
    bits = int.bit_length(value)
    if bits > _TEXT_BITS:
        return f"[integer of {bits} bits]"
    number = int.__int__(value)
    return number if number in INT64 else int.__repr__(number)


def _read_float(value: float) -> float | str:
    number = float.__float__(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _read_fraction(value: Fraction) -> str:
    bits = value.numerator.bit_length() + value.denominator.bit_length()
    return Fraction.__str__(value) if bits <= _TEXT_BITS else f"[fraction of {bits} bits]"


def _read_decimal(value: Decimal) -> str:
    size = Decimal.__sizeof__(value)
    return Decimal.__str__(value) if size <= _TEXT_BITS else f"[decimal of {size} bytes]"


def _read_enum(value: Enum) -> _Leaf:
    """Return the value of a member if it is a text or a number, else its name."""
    fields = _instance_dict(value)
    inner = fields["_value_"]
    return cast(_Leaf, _read(inner, 0) if issubclass(type(inner), str | int | float) else fields["_name_"])


def _read_module(value: ModuleType) -> str:
    return f"<module {_instance_dict(value).get('__name__')}>"


def _leaf(read: Callable[[Any], _Leaf]) -> _Reader:
    return lambda value, most: read(value)


def _label(kind: str) -> _Reader:
    """Return a reader for what has a name of its own: ``<function module.name>``."""

    def read(value: Any, most: int) -> str:
        module = getattr(value, "__module__", None)
        return f"<{kind} {module}.{value.__qualname__}>" if module else f"<{kind} {value.__qualname__}>"

    return read


def _bytes(length: Callable[[Any], int]) -> _Reader:
    return lambda value, most: f"[bytes of {length(value)} bytes]"


def _sliced(base: Any) -> _Reader:
    """Return a reader for ``base`` and its subclasses that calls nothing which they may have overridden."""
    return lambda value, most: (base.__len__(value), base.__getitem__(value, slice(most)), False)


def _iterated(base: Any) -> _Reader:
    return lambda value, most: (base.__len__(value), _first(base.__iter__, value, most), False)


def _paired(base: Any) -> _Reader:
    return lambda value, most: (base.__len__(value), _first(base.items, value, most), True)


def _set(base: Any) -> _Reader:
    """Return a reader that puts texts in order, because theirs is another in each process."""

    def read(value: Any, most: int) -> _Opened:
        items = _first(base.__iter__, value, most)
        if all(type(item) is str for item in items):
            items.sort()
        return base.__len__(value), items, False

    return read


def _read_namedtuple(value: tuple[Any, ...], most: int) -> _Opened:
    names = _in_class(_type_of(value), "_fields")
    return len(names), list(zip(names[:most], cast(Any, tuple).__iter__(value), strict=False)), True


def _read_mapping(value: Mapping[Any, Any], most: int) -> _Opened:
    return len(value), _first(Mapping[Any, Any].items, value, most), True


def _read_exception(value: BaseException, most: int) -> _Opened:
    return 2, [("type", _class_name(_type_of(value))), ("message", _guarded(lambda: _message(value), value))], True


def _message(error: BaseException) -> str:
    """Return what ``error`` says, but spell out no large arguments, as its ``str`` would."""
    args = error.args
    if _in_class(_type_of(error), "__str__") not in (BaseException.__str__, KeyError.__str__) or all(map(_is_short, args)):
        return str(error)
    return text_of(args[0] if len(args) == 1 else args)


def _is_short(value: object) -> bool:
    return len(value) <= _SHORT if type(value) is str else _is_atom(value)


def _read_array(value: Any, most: int) -> _Leaf | _Opened:
    """Read the shape and the type of an array, never its content; a number of numpy's as the number."""
    cls = _type_of(value)
    if any(_class_name(base) == "numpy.generic" for base in _mro_of(cls)):
        number = value.item()
        return str(number) if type(number) is cls else _read(number, most)
    dtype = f" dtype={value.dtype}" if _in_class(cls, "dtype") is not None else ""
    return f"<{_root_of(cls)}.{_qualname_of(cls)} shape={tuple(value.shape)}{dtype}>"


def _read_object(value: Any, most: int) -> _Leaf | _Opened:
    """Read the public fields; what has none is read as the sequence or set that it is, or by its ``repr``."""
    instance = _instance_dict(value)
    fields = [(name, item) for name, item in _first(_items_of, instance, 4 * most) if _is_public(name)]
    for name, item in _slot_values(value):
        fields += [(name, item)] if name != _EXTRA else _first(_items_of, item or {}, most)
    if fields:
        return len(fields) + max(0, len(instance) - 4 * most), fields[:most], True
    if issubclass(type(value), Sequence | Set | MappingView):
        return len(value), _first(iter, value, most), False
    return _read_placeholder(value) if _in_class(_type_of(value), "__repr__") is object.__repr__ else repr(value)


_items_of: Final[Callable[[Any], Iterable[Any]]] = cast(Any, dict).items
_EXTRA: Final = "__pydantic_extra__"
_ARRAYS: Final = set("jax jaxlib numpy pandas polars tensorflow torch".split())
_MACHINERY: Final = set(
    "_asyncio _queue _socket _thread _weakref anyio asyncio concurrent contextvars logging multiprocessing"
    " queue select selectors socket sqlite3 ssl subprocess threading trio unittest weakref".split()
)
_READERS: Final[dict[type, _Reader]] = {
    **dict.fromkeys((NoneType, bool, str), _leaf(lambda value: value)),
    **{base: _leaf(base.isoformat) for base in (datetime, date, time)},
    **{base: _leaf(base.__str__) for base in (timedelta, PurePath, UUID)},
    complex: _leaf(complex.__repr__),
    range: _leaf(range.__repr__),
    re.Pattern: _leaf(repr),
    int: _leaf(_read_int),
    float: _leaf(_read_float),
    Fraction: _leaf(_read_fraction),
    Decimal: _leaf(_read_decimal),
    **{base: _bytes(base.__len__) for base in (bytes, bytearray)},
    memoryview: _bytes(lambda view: view.nbytes),
    **{base: _sliced(base) for base in (list, tuple)},
    deque: _iterated(deque),
    **{base: _set(base) for base in (set, frozenset)},
    dict: _paired(dict),
    BaseException: _read_exception,
    **dict.fromkeys((FunctionType, BuiltinFunctionType), _label("function")),
    MethodType: _label("method"),
    type: _leaf(lambda cls: f"<class {_class_name(cls)}>"),
    ModuleType: _leaf(_read_module),
    GeneratorType: _label("generator"),
    AsyncGeneratorType: _label("async_generator"),
    CoroutineType: _label("coroutine"),
    **dict.fromkeys((CodeType, FrameType, TracebackType, IOBase), _leaf(_read_placeholder)),
}


@_by_class
def _reader_of(cls: type[Any]) -> _Reader:
    """Return how values of ``cls`` are read."""
    bases = _mro_of(cls)
    if Enum in bases:
        return _leaf(_read_enum)
    if tuple in bases and type(_in_class(cls, "_fields")) is tuple:
        return _read_namedtuple
    if BaseException not in bases and any(_name_of(base).startswith("Secret") for base in bases):
        return _leaf(lambda value: MASK)
    return next((_READERS[base] for base in bases if base in _READERS), None) or _reader_by_nature(cls)


def _reader_by_nature(cls: type[Any]) -> _Reader:
    if _in_class(cls, "shape") is not None and any(_root_of(base) in _ARRAYS for base in _mro_of(cls)):
        return _read_array
    if _root_of(cls) in _MACHINERY or any(_in_class(cls, name) is not None for name in ("__next__", "__anext__")):
        return _leaf(_read_placeholder)
    if _root_of(cls) == "ipaddress":
        return _leaf(str)
    return _read_mapping if issubclass(cls, Mapping) else _read_object
