"""What both forms of log lines say alike: names, and of an error its type, its message, and where it came up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, cast

from ...events import ChatModelStart, LLMStart, RetrieverStart, main_input, main_name
from ...payload import Limits, sanitize
from ...redaction import Redactor

__all__ = ["Failure", "clean", "clean_name", "failure_of", "main_alone"]

_OURS: Final = str(Path(__file__).parents[2]) + os.sep
_STANDARD_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

_SHOWN_OF_A_GROUP: Final = 3
"""How many of the errors in an exception group are named."""


_ROOM: Final = 4096
"""Up to how many characters of plain data are masked without being copied and bounded first."""
_DEPTH: Final = 5


def clean(value: Any, redactor: Redactor) -> Any:
    """Return what ``sanitize`` does, in half the time for the usual: a short text, or a few of them by name.

    Most of what is written is plain data already, and short: to copy it twice would cost as much as the whole line.
    """
    try:
        is_plain = len(value) <= _ROOM if type(value) is str else _room_left(value, _ROOM, _DEPTH) >= 0
    except RuntimeError:  # changed by another thread meanwhile
        is_plain = False
    return redactor.mask(value) if is_plain else sanitize(value, redactor)


def _room_left(value: Any, room: int, depth: int) -> int:
    """Return how much of ``room`` strict-JSON data leaves; less than 0 for too much of it, or anything else."""
    kind = cast(object, type(value))
    if kind is str:
        return room - len(value)
    if kind is dict and depth:
        for name, item in value.items():
            if type(name) is not str:
                return -1
            room = _room_left(item, room - len(name) - _PER_ITEM, depth - 1)
            if room < 0:
                return -1
        return room
    if kind is list and depth:
        for item in value:
            room = _room_left(item, room - _PER_ITEM, depth - 1)
            if room < 0:
                return -1
        return room
    return room if kind in _SMALL else -1


_PER_ITEM: Final = 24
_SMALL: Final[frozenset[object]] = frozenset((int, bool, NoneType))


def main_alone(event: LLMStart | ChatModelStart | RetrieverStart) -> Any:
    """Return the input that a run is about, under its name if it has one, without the others. Messages are dicts."""
    inputs = event.inputs
    main = event.messages if isinstance(event, ChatModelStart) else main_input(inputs, event.main_names)[0]
    return {main_name(inputs, event.main_names): main} if isinstance(inputs, dict) and inputs else main


_NAME_LIMITS: Final = Limits(characters=200, size=2000)


def clean_name(name: object) -> str:
    """Return the name of a run, a model or a tool without secrets. Names come again, so they are remembered."""
    is_usual = type(name) is str and len(name) <= _NAME_LIMITS.characters
    return _clean_text(name) if is_usual else str(sanitize(name, limits=_NAME_LIMITS))


@lru_cache(maxsize=1024)
def _clean_text(name: object) -> str:
    return str(sanitize(name, limits=_NAME_LIMITS))


class Failure(NamedTuple):
    """An error as text, without secrets. ``where`` is ``path:line``, None for an error that was never raised."""

    type: str
    message: str
    where: str | None


def failure_of(error: BaseException, redactor: Redactor | None = None) -> Failure:
    """Describe ``error``. A group is told by its leaves too, because its own message names none of them."""
    kind, message = _text_of(error, redactor)
    if not isinstance(error, BaseExceptionGroup):
        return Failure(kind, message, _where(error))
    leaves = list(_leaves(cast(BaseException, error)))
    told = [": ".join(filter(None, _text_of(leaf, redactor))) for leaf in leaves[:_SHOWN_OF_A_GROUP]]
    return Failure(kind, f"{message}: {'; '.join(told)}", _where(leaves[0]))


def _text_of(error: BaseException, redactor: Redactor | None) -> tuple[str, str]:
    said = sanitize(error, redactor)
    if isinstance(said, dict) and {"type", "message"} <= said.keys():
        return str(said["type"]), str(said["message"])
    return type(error).__qualname__, str(said)  # it could not be read, or a rule made something else of it


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        yield from _leaves(inner)


def _where(error: BaseException) -> str | None:
    """Return the innermost line of the user's own code, else of a library's, that the error passed through."""
    own = other = None
    for path, line in _lines(error):
        if path.startswith((_OURS, "<frozen ")):
            continue
        other = (path, line)
        if not path.startswith(_STANDARD_LIBRARY) and not any(part in path for part in _INSTALLED):
            own = other
    found = own or other
    return None if found is None else f"{_short(found[0])}:{found[1]}"


def _lines(error: BaseException) -> Iterator[tuple[str, int | None]]:
    step: Any = getattr(error, "__traceback__", None)  # an emitted error may be anything
    while step is not None:
        yield step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next


def _short(path: str) -> str:
    """Return a path below the working directory as seen from there, any other as it is."""
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the directory was deleted
        return path
    return path.removeprefix(here)
