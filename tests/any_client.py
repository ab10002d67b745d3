"""Clients of a provider, sync and async ones, and what they return, used in the same way."""

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class AnyClient:
    """A provider's client of either kind."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, path: str, **body: Any) -> Any:
        """Call the method at `path`, "chat.completions.create", and wait for what it returns."""
        function = self.client
        for name in path.split("."):
            function = getattr(function, name)
        return await the(function(**body))


async def the(result: Any) -> Any:
    """Return what a sync or an async function returned."""
    return await result if inspect.isawaitable(result) else result


async def items(stream: Any) -> AsyncIterator[Any]:
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


async def read(stream: Any) -> list[Any]:
    return [item async for item in items(stream)]


async def first(stream: Any) -> Any:
    return await anext(stream) if hasattr(stream, "__anext__") else next(stream)


async def closed(stream: Any) -> None:
    await the(stream.close())


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager that is sync or async."""
    if hasattr(manager, "__aenter__"):
        async with manager as inner:
            yield inner
    else:
        with manager as inner:
            yield inner
