"""The trace that is sent to each receiver: a chain with a retriever, a tool, a model that streams, and a tool that fails."""

from collections.abc import Iterator

from tracebus import Run, Usage, current_run, emit, retry, scope, trace, traced

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is six times seven?"}]
DOCUMENT = {"id": "d-1", "content": "Six times seven is 42.", "score": 0.5, "metadata": {"page": 3}}


@traced(kind="chat_model")
def generate(messages: list[dict[str, str]], temperature: float) -> Iterator[str]:
    run = current_run()
    assert run is not None
    run.model = "gpt-4o-mini"
    yield "Forty"
    yield "-two."
    run.usage = Usage(1000, 10, cached_tokens=600, reasoning_tokens=4)


def say_a_trace() -> dict[str, Run]:
    """Say it, and return its runs by name."""
    runs: dict[str, Run] = {}
    with (
        scope(session_id="s-1", user_id="u-1", tags=["web", "beta"], metadata={"plan": "free"}),
        trace("answer", inputs={"question": "What is six times seven?"}) as answer,
    ):
        with trace("search", kind="retriever", inputs={"query": "six times seven"}) as search:
            search.output = [DOCUMENT]
        with trace("multiply", kind="tool", inputs={"a": 6, "b": 7}) as multiply:
            emit(retry, attempt=1, wait_s=0.5, error=TimeoutError("too slow"))
            multiply.output = 42
        try:
            with trace("look up", kind="tool", inputs={"word": "x"}) as look_up:
                raise LookupError("no such word")
        except LookupError:
            pass
        stream = generate(MESSAGES, temperature=0.5)
        pieces = []
        for piece in stream:
            run = current_run()
            assert run is answer
            pieces.append(piece)
        answer.output = "".join(pieces)
    runs.update({"answer": answer, "search": search, "multiply": multiply, "look up": look_up})
    return runs
