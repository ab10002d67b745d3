"""Let what the collector runs set context variables, which CPython 3.11 does not survive by itself.

There the collector runs in the middle of whatever allocates, and that may be ``ContextVar.set`` or ``copy_context()``,
which look at the variables of the context without owning them: a finalizer that sets one frees them, and the process dies
(python/cpython#148891). A traced generator that its consumer dropped has such a finalizer. From 3.12 on the collector waits
for the next instruction.

So each collection keeps the variables as it found them. Whoever ends a run lets go of them: there, nothing is in the middle of
anything.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from operator import methodcaller
from typing import Final

__all__ = ["kept"]

kept: Final[deque[Context | None]] = deque(maxlen=20)
"""A copy of the context in which each of the last collections began, and None after each that has ended.

While the last one is None, no collection is going on in any thread, and ``clear`` is safe: 3.11 changes threads at calls and
in loops, not between a look at it and the call. That is done in place: where the stack ends, a function has no room.
"""


# gc.callbacks has partial(getattr, …) of these: it reads the attribute that is named as the phase, and to read it does what
# is to be done. No instruction of Python is needed for that. In one of those a signal handler could raise, and as the
# collector drops what its callbacks raise, Ctrl-C would be lost.


class _Variables:
    """Keep the variables of the context in which a collection begins."""

    start = property(partial(next, map(kept.append, iter(copy_context, None))))
    stop = property(partial(next, map(kept.append, repeat(None))))


class _Caches:
    """Have each variable look for its value again after a collection, as it does in another context.

    The value that a finalizer has set is gone when the function ends that the collection was in the middle of, but the
    variable would still return it.
    """

    run = Context().run
    stop = property(methodcaller("run", int))


if sys.implementation.name == "cpython" and sys.version_info < (3, 12):
    gc.callbacks += [partial(getattr, _Variables()), partial(getattr, _Caches())]
