"""What can go wrong with a request, as a status and a text: nothing that a store or a caller does is an error of the server."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException

from ..errors import ArgumentError, TracebusError
from ..outputs.store import AmbiguousError, NoStoreYetError, NotFoundError, StoreError

__all__ = ["status_of", "text_of"]

# In this order: an ambiguous id is both an argument and not to be found. A store that cannot be read, one of a newer
# tracebus or a damaged file, is a conflict with the state of what was asked for (RFC 9110, section 15.5.10).
_STATUSES: Final[tuple[tuple[type[TracebusError], int], ...]] = (
    (AmbiguousError, 400),
    (NotFoundError, 404),
    (NoStoreYetError, 404),
    (StoreError, 409),
    (ArgumentError, 400),
)
_TEXTS: Final = {
    404: "there is nothing at this address",
    405: "this address knows no such method",
}


def status_of(error: Exception) -> int:
    """Return the status that says what is wrong."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def text_of(error: Exception) -> str:
    """Return what is wrong in words."""
    if isinstance(error, HTTPException):
        return _TEXTS.get(error.status_code, error.detail)
    return str(error)
