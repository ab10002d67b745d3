"""Let what the collector runs set context variables, which CPython 3.11 does not survive by itself.

There the collector runs in the middle of whatever allocates, and that may be ``ContextVar.set`` or ``copy_context()``,
which look at the variables of the context without owning them: a finalizer that sets one frees them, and the process dies
(python/cpython#148891). A traced generator that its consumer dropped has such a finalizer. From 3.12 on the collector waits
for the next instruction.

So each collection keeps the variables as it found them, until somebody is at a point where nothing is in the middle of
anything.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from operator import methodcaller
from typing import Any, Final, TypeVar, cast

__all__ = ["releasing"]

F = TypeVar("F", bound=Callable[..., Any])

IN_THE_MIDDLE: Final = sys.implementation.name == "cpython" and sys.version_info < (3, 12)

_kept: Final[deque[Context | None]] = deque(maxlen=20)
"""A copy of the context in which each of the last collections began, and None after each that has ended."""


# gc.callbacks has partial(getattr, …) of these: it reads the attribute that is named as the phase, and to read it does what
# is to be done. No instruction of Python is needed for that. In one of those a signal handler could raise, and as the
# collector drops what its callbacks raise, Ctrl-C would be lost.


class _Variables:
    """Keep the variables of the context in which a collection begins."""

    start = property(partial(next, map(_kept.append, iter(copy_context, None))))
    stop = property(partial(next, map(_kept.append, repeat(None))))


class _Caches:
    """Have each variable look for its value again after a collection, as it does in another context.

    The value that a finalizer has set is gone when the function ends that the collection was in the middle of, but the
    variable would still return it.
    """

    run = Context().run
    stop = property(methodcaller("run", int))


def releasing(set_variable: F) -> F:
    """Return a function that does the same, and releases what earlier collections have kept."""
    if not IN_THE_MIDDLE:
        return set_variable

    def set_and_release(value: object) -> object:
        if _kept and _kept[-1] is None:  # no collection is going on, in any thread
            _kept.clear()
        return set_variable(value)

    return cast("F", set_and_release)


if IN_THE_MIDDLE:
    gc.callbacks += [partial(getattr, _Variables()), partial(getattr, _Caches())]
