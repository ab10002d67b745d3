"""What a part of an address can be where it is a text of the user's: the id of a session may have slashes and line breaks."""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

__all__ = ["ANYTHING"]

ANYTHING: Final = "tracebus_any"
"""Stands for any text in a route, as ``path`` does for one without line breaks; the names are of the whole process."""


class _Anything(Convertor[str]):
    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor(ANYTHING, _Anything())
