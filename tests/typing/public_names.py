"""What a type checker sees of the public names. Read by mypy and pyright in `make types`, never run."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, assert_type
from uuid import UUID

from tracebus import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    LLMNewToken,
    Run,
    current_run,
    llm_new_token,
    scope,
    trace,
    traced,
)


@traced
def add(a: int, b: int = 0) -> int:
    return a + b


@traced(kind="tool")
async def look_up(word: str) -> list[str]:
    return [word]


@traced(kind="llm")
def words(text: str) -> Generator[str, None, int]:
    yield text
    return 1


@traced(kind="llm")
async def tokens(text: str) -> AsyncGenerator[str, None]:
    yield text


def a_traced_function_keeps_its_types() -> None:
    assert_type(add(1, b=2), int)
    assert_type(words("a"), Generator[str, None, int])
    assert_type(tokens("a"), AsyncGenerator[str, None])
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_traced_coroutine_function_keeps_its_types() -> None:
    assert_type(await look_up("a"), list[str])


def a_block_gives_a_run() -> None:
    with trace("search", kind="retriever") as run:
        assert_type(run, Run)
    assert_type(current_run(), Run | None)


@llm_new_token.connect
def show(sender: Any, event: LLMNewToken) -> int:
    return len(event.token)


def a_connected_function_keeps_its_type() -> None:
    assert_type(show("a", event=LLMNewToken(None, 0, 0, "token", 0)), int)


def a_scoped_function_keeps_its_types() -> None:
    assert_type(scope(user_id="u-1")(add)(1, b=2), int)


class Terse(BaseCallbackHandler):
    def on_llm_new_token(self, token: str, **kwargs: Any) -> None: ...


class Naming(BaseCallbackHandler):
    """Names what it wants of the keywords, as methods for LangChain do."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, *, run_id: UUID, **kwargs: Any) -> None: ...

    def on_llm_new_token(
        self, token: str, *, run_id: UUID, parent_run_id: UUID | None = None, chunk: object = None, **kwargs: Any
    ) -> None: ...

    def on_chain_end(self, outputs: Any, *, parent_run_id: UUID | None, tags: list[str], **kwargs: Any) -> None: ...

    def on_text(self, text: str, *, run_id: UUID | None, **kwargs: Any) -> None: ...


class Awaited(AsyncCallbackHandler):
    async def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None: ...
