"""What is new in the store, as server-sent events. One look serves all who listen, and nobody looks when nobody listens."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import anyio
import msgspec

from ..errors import MissingExtraError

try:
    from sse_starlette import EventSourceResponse, ServerSentEvent
except ImportError as error:
    raise MissingExtraError('the viewer needs sse-starlette: pip install "tracebus[viewer]"') from error

from ..outputs.store import Changes, Reader, StoreError
from .source import Source

__all__ = ["Live", "News", "Place"]

EVERY_S: Final = 0.25
"""How often the store is looked at. Who writes it does so after 0.2 s."""
PING_EVERY_S: Final = 15
RETRY_MS: Final = 1000
"""After what time a page that lost its connection comes back."""
KEPT: Final = 16
"""How many looks are remembered for those who are slower."""


class Place(NamedTuple):
    """Where a listener is: the store as it was opened, None while there is none, and a cursor in it."""

    reader: Reader | None
    cursor: int


class News(NamedTuple):
    """What has changed, ready to be sent, and where that leads."""

    data: str
    place: Place


class Live:
    """Looks at a store for those who listen.

    The listeners take turns: whoever has the lock waits until the next look is due and looks, and the others find what it
    has seen. So there is no task that would have to be started or stopped, and one that goes away leaves nothing behind.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._turn = anyio.Lock()
        self._looked_s = 0.0
        self._seen: OrderedDict[Place, News] = OrderedDict()
        self.listeners = 0
        self.looks = 0

    def events(self, since: int | None) -> EventSourceResponse:
        """Return the answer that never ends: what changes, from a cursor on or from now on."""
        return EventSourceResponse(self._events(since), ping=PING_EVERY_S)

    async def _events(self, since: int | None) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(comment="tracebus", retry=RETRY_MS)
        async for news in self.follow(since):
            yield ServerSentEvent(news.data, event="changes", id=str(news.place.cursor))

    async def follow(self, since: int | None = None) -> AsyncIterator[News]:
        """Yield what has changed, forever."""
        self.listeners += 1
        try:
            place = await self._begin(since)
            while True:
                news = await self._after(place)
                place = news.place
                yield news
        finally:
            self.listeners -= 1
            if not self.listeners:
                self._seen.clear()

    async def _begin(self, since: int | None) -> Place:
        def begin(reader: Reader) -> Place:
            return Place(reader, reader.cursor() if since is None else since)

        try:
            return await self._source.ask(begin)
        except StoreError:
            return Place(None, 0)

    async def _after(self, place: Place) -> News:
        """Wait for what comes after a place."""
        while True:
            async with self._turn:
                news = self._seen.get(place)
                if news is None:
                    await anyio.sleep(max(0.0, self._looked_s + EVERY_S - time.monotonic()))
                    news = await self._look(place)
            if news is not None:
                return news

    async def _look(self, place: Place) -> News | None:
        self._looked_s, self.looks = time.monotonic(), self.looks + 1
        try:
            news = await self._source.ask(lambda reader: _news(reader, place))
        except StoreError:  # there is none, or none that can be read, yet
            return None
        if news is not None:
            self._seen[place] = news
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        return news


def _news(reader: Reader, place: Place) -> News | None:
    if reader is not place.reader:  # another file than the one that the cursor is of
        changes = Changes(reader.cursor(), [], [], [], False)
    else:
        changes = reader.changes(place.cursor)
        if changes.cursor == place.cursor:
            return None
    return News(msgspec.json.encode(changes).decode(), Place(reader, changes.cursor))
