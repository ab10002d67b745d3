"""`trace()`, `emit()` and `aemit()`: a block is a run, and an app says its own things on it."""

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import blinker
import pytest

from tracebus import (
    HOOKS,
    Run,
    Usage,
    aemit,
    current_run,
    custom_event,
    emit,
    llm_new_token,
    retry,
    scope,
    subscribe,
    text,
    trace,
    traced,
)
from tracebus.errors import ArgumentError, SubscriberError, UnknownHookError
from tracebus.events import (
    AgentAction,
    AgentFinish,
    ChainEnd,
    ChainError,
    ChatModelStart,
    CustomEvent,
    Event,
    LLMEnd,
    LLMError,
    LLMNewToken,
    LLMStart,
    RetrieverEnd,
    RetrieverStart,
    Retry,
    Text,
    ToolEnd,
    ToolStart,
)
from tracebus.runs import KINDS, get_current

pytestmark = pytest.mark.usefixtures("nothing_is_current")
Events = list[Event]


def names(events: Events) -> list[str]:
    return [event.signal_name for event in events]


def only(events: Events, event_class: type[Any]) -> Any:
    (found,) = [event for event in events if isinstance(event, event_class)]
    return found


class Boom(Exception):
    pass


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_a_block_starts_and_ends_a_run(heard: Events) -> None:
    with trace("a") as run:
        assert names(heard) == ["chain_start"]
    assert names(heard) == ["chain_start", "chain_end"]
    assert {event.run for event in heard} == {run}


async def test_an_async_block_starts_and_ends_a_run(heard: Events) -> None:
    async with trace("a") as run:
        assert names(heard) == ["chain_start"]
    assert names(heard) == ["chain_start", "chain_end"]
    assert {event.run for event in heard} == {run}


async def test_async_subscribers_have_heard_the_start_when_an_async_block_begins() -> None:
    events: Events = []

    async def hear(sender: object, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        events.append(event)

    with subscribe(hear):
        async with trace("a"):
            assert names(events) == ["chain_start"]
        assert names(events) == ["chain_start", "chain_end"]


def test_a_block_gives_a_run_although_nobody_listens() -> None:
    with trace("a") as run:
        assert isinstance(run, Run)
        assert current_run() is run


def test_the_sender_is_the_name() -> None:
    senders: list[object] = []
    with subscribe(lambda sender, event: senders.append(sender)), trace("search"):
        pass
    assert senders == ["search", "search"]


def test_a_receiver_may_hear_one_name_only() -> None:
    events: Events = []
    with subscribe(lambda sender, event: events.append(event), sender="b"), trace("a"), trace("b"):
        pass
    assert [event.run.name for event in events] == ["b", "b"]


def test_what_is_set_in_the_block_is_said_at_its_end(heard: Events) -> None:
    with trace("a", kind="llm") as run:
        run.output, run.model, run.usage = "out", "m", Usage(1, 2)
    end = only(heard, LLMEnd)
    assert (end.output, end.usage, end.run.model) == ("out", Usage(1, 2), "m")


def test_the_model_may_be_given(heard: Events) -> None:
    with trace("a", kind="llm", model="m-1"):
        pass
    assert heard[0].run is not None
    assert heard[0].run.model == "m-1"


def test_tokens_emitted_in_a_models_block_are_its_output(heard: Events) -> None:
    with trace("a", kind="llm"):
        emit(llm_new_token, token="a")
        emit(llm_new_token, token="b")
    assert only(heard, LLMEnd).output == "ab"
    assert [event.index for event in heard if isinstance(event, LLMNewToken)] == [0, 1]


def test_tokens_emitted_in_a_failing_block_are_its_partial_output(heard: Events) -> None:
    def fail() -> None:
        with trace("a", kind="llm"):
            emit(llm_new_token, token="a")
            raise Boom

    with pytest.raises(Boom):
        fail()
    assert only(heard, LLMError).output == "a"


def test_an_output_that_was_set_wins_over_tokens(heard: Events) -> None:
    with trace("a", kind="llm") as run:
        emit(llm_new_token, token="a")
        run.output = "set"
    assert only(heard, LLMEnd).output == "set"


@pytest.mark.parametrize("error", [Boom(), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_a_block_raises_the_very_exception(error: BaseException, heard: Events) -> None:
    with pytest.raises(type(error)) as caught, trace("a"):
        raise error
    assert caught.value is error
    assert (only(heard, ChainError).error, only(heard, ChainError).run.status) == (error, "error")


async def test_an_async_block_raises_the_very_exception(heard: Events) -> None:
    error = Boom()

    async def fail() -> None:
        async with trace("a"):
            raise error

    with pytest.raises(Boom) as caught:
        await fail()
    assert caught.value is error
    assert only(heard, ChainError).run.status == "error"


async def test_a_cancelled_block_is_cancelled(heard: Events) -> None:
    with anyio.CancelScope() as limit:
        async with trace("a"):
            limit.cancel()
            await anyio.lowlevel.checkpoint()
    assert only(heard, ChainError).run.status == "cancelled"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_block_that_is_cancelled_again_while_it_ends_is_left(anyio_backend: str) -> None:
    """trio cancels no task twice."""
    starting, ending = asyncio.Event(), asyncio.Event()

    async def subscriber(sender: object, event: Any) -> None:
        (starting if event.signal_name == "chain_start" else ending).set()
        await anyio.sleep_forever()

    async def cancelled() -> object:
        with contextlib.suppress(asyncio.CancelledError):
            async with trace("block"):
                raise AssertionError
        return current_run()

    with subscribe(subscriber, "chain_*"):
        task = asyncio.create_task(cancelled())
        for moment in (starting, ending):
            await moment.wait()
            task.cancel()
        assert await task is None


async def test_a_sync_block_in_cancelled_async_code_is_cancelled(heard: Events) -> None:
    with anyio.CancelScope() as limit, trace("a"):
        limit.cancel()
        await anyio.lowlevel.checkpoint()
    assert only(heard, ChainError).run.status == "cancelled"


def test_nothing_is_current_behind_a_block_that_raised(heard: Events) -> None:
    with pytest.raises(Boom), trace("a"), trace("b"):
        raise Boom
    assert get_current() is None


def test_a_block_is_entered_once(heard: Events) -> None:
    block = trace("a")
    with block:
        pass
    with pytest.raises(ArgumentError, match=r"entered before.*new one"), block:
        pass
    assert names(heard) == ["chain_start", "chain_end"]


def test_a_block_closed_with_its_generator_ends_early(heard: Events) -> None:
    def fn() -> Iterator[int]:
        with trace("a"):
            yield 1

    steps = fn()
    next(steps)
    steps.close()
    assert only(heard, ChainEnd).run.status == "closed_early"
    assert get_current() is None


async def test_an_async_block_closed_with_its_generator_ends_early(heard: Events) -> None:
    async def fn() -> AsyncIterator[int]:
        async with trace("a"):
            yield 1

    steps = fn()
    await anext(steps)
    await steps.aclose()
    assert only(heard, ChainEnd).run.status == "closed_early"
    assert get_current() is None


def test_callbacks_of_a_block_hear_it_and_nothing_nested() -> None:
    events: Events = []
    with trace("a", callbacks=[lambda sender, event: events.append(event)]), trace("b"):
        pass
    assert [event.run.name for event in events] == ["a", "a"]


def failing(sender: object, event: Event) -> None:
    raise Boom


def test_an_error_wanted_at_the_start_ends_the_run_and_the_block_does_not_begin(heard: Events) -> None:
    began = []
    with subscribe(failing, "chain_start", raise_error=True), pytest.raises(Boom), trace("a"):
        began.append(True)
    assert (names(heard)[-1], began, get_current()) == ("chain_error", [], None)


async def test_an_error_wanted_at_the_start_of_an_async_block_ends_the_run(heard: Events) -> None:
    began = []
    with subscribe(failing, "chain_start", raise_error=True), pytest.raises(Boom):
        async with trace("a"):
            began.append(True)
    assert (names(heard)[-1], began, get_current()) == ("chain_error", [], None)


def test_an_error_wanted_at_the_end_reaches_the_block(heard: Events) -> None:
    with subscribe(failing, "chain_end", raise_error=True), pytest.raises(Boom), trace("a"):
        pass
    assert get_current() is None


def test_the_apps_own_error_wins_over_one_wanted_at_the_error(heard: Events) -> None:
    with subscribe(failing, "chain_error", raise_error=True), pytest.raises(KeyError), trace("a"):
        raise KeyError("own")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["a"], {"kind": "chian"}, r"'chian'.*chain, llm"),
        ([5], {}, r"name.*5"),
        ([print], {}, "name"),
        (["a"], {"tags": "one"}, r"tags=\['one'\]"),
        (["a"], {"tags": 5}, "tags=5"),
        (["a"], {"metadata": "text"}, "metadata='text'"),
    ],
    ids=str,
)
def test_a_wrong_argument_raises_at_once(arguments: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        trace(*arguments, **options)


def test_callbacks_that_cannot_hear_raise_at_once() -> None:
    with pytest.raises(SubscriberError):
        trace("a", callbacks=[object()])


# -- kinds and their hooks ---------------------------------------------------------------------------------------------

HOOKS_OF_KINDS = {
    "chain": "chain",
    "llm": "llm",
    "chat_model": "llm",
    "tool": "tool",
    "retriever": "retriever",
    "agent": "chain",
    "workflow": "chain",
    "embedding": "chain",
    "reranker": "chain",
    "guardrail": "chain",
    "evaluator": "chain",
}


def test_every_kind_is_tested_here() -> None:
    assert tuple(HOOKS_OF_KINDS) == KINDS


@pytest.mark.parametrize(("kind", "hooks"), HOOKS_OF_KINDS.items())
def test_a_kind_speaks_through_its_hooks(kind: str, hooks: str, heard: Events) -> None:
    with trace("a", kind=kind):
        pass
    start = "chat_model_start" if kind == "chat_model" else f"{hooks}_start"
    assert names(heard) == [start, f"{hooks}_end"]


@pytest.mark.parametrize(("kind", "hooks"), HOOKS_OF_KINDS.items())
def test_a_kind_that_fails_says_so_through_its_hooks(kind: str, hooks: str, heard: Events) -> None:
    with pytest.raises(Boom), trace("a", kind=kind):
        raise Boom
    assert names(heard)[-1] == f"{hooks}_error"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_knows_its_kind(kind: str) -> None:
    with trace("a", kind=kind) as run:
        assert run.kind == kind


def test_a_models_inputs_are_prompts_and_parameters(heard: Events) -> None:
    with trace("a", kind="llm", inputs={"temperature": 0, "prompt": "hi"}):
        pass
    start = only(heard, LLMStart)
    assert (start.prompts, start.params) == (["hi"], {"temperature": 0})


def test_a_models_input_may_be_a_plain_text(heard: Events) -> None:
    with trace("a", kind="llm", inputs="hi"):
        pass
    assert only(heard, LLMStart).prompts == ["hi"]


def test_a_chat_models_inputs_are_messages_and_parameters(heard: Events) -> None:
    message = {"role": "user", "content": "hi"}
    with trace("a", kind="chat_model", inputs={"messages": [message], "n": 1}):
        pass
    start = only(heard, ChatModelStart)
    assert (start.messages, start.params) == ([message], {"n": 1})


def test_a_tools_inputs_are_as_given_and_as_text(heard: Events) -> None:
    with trace("a", kind="tool", inputs={"x": 1, "y": 2}) as run:
        run.output = 3
    start = only(heard, ToolStart)
    assert (start.inputs, start.input_str, only(heard, ToolEnd).output) == ({"x": 1, "y": 2}, '{"x":1,"y":2}', 3)


def test_a_retriever_is_asked_a_query_and_answers_documents(heard: Events) -> None:
    with trace("a", kind="retriever", inputs={"query": "q", "k": 3}) as run:
        run.output = ["d"]
    assert (only(heard, RetrieverStart).query, only(heard, RetrieverEnd).documents) == ("q", ["d"])


# -- emit --------------------------------------------------------------------------------------------------------------

EMITTED: dict[str, tuple[type[Event], dict[str, Any]]] = {
    "llm_new_token": (LLMNewToken, {"token": "t"}),
    "agent_action": (AgentAction, {"tool": "search", "tool_input": {"q": 1}, "log": "thinking"}),
    "agent_finish": (AgentFinish, {"return_values": {"a": 1}, "log": "done"}),
    "text": (Text, {"text": "hello"}),
    "retry": (Retry, {"attempt": 1, "wait_s": 0.5, "error": Boom()}),
    "custom_event": (CustomEvent, {"name": "n", "data": {"d": 1}}),
}
each_emitted = pytest.mark.parametrize("hook", EMITTED)


def fields_of(event: Event, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(event, name) for name in fields}


@each_emitted
def test_an_event_is_said_on_the_current_run(hook: str, heard: Events) -> None:
    event_class, fields = EMITTED[hook]
    with trace("a") as run:
        emit(HOOKS[hook], **fields)
    event = only(heard, event_class)
    assert event.run is run
    assert fields_of(event, fields) == fields


@each_emitted
async def test_an_event_is_said_from_async_code(hook: str, heard: Events) -> None:
    event_class, fields = EMITTED[hook]
    async with trace("a") as run:
        await aemit(HOOKS[hook], **fields)
    event = only(heard, event_class)
    assert event.run is run
    assert fields_of(event, fields) == fields


@each_emitted
def test_outside_a_run_an_event_has_none(hook: str, heard: Events) -> None:
    event_class, fields = EMITTED[hook]
    emit(HOOKS[hook], **fields)
    assert only(heard, event_class).run is None


@each_emitted
def test_a_hook_may_be_named(hook: str, heard: Events) -> None:
    emit(hook, **EMITTED[hook][1])
    assert names(heard) == [hook]


async def test_async_subscribers_have_heard_when_aemit_returns() -> None:
    events: Events = []

    async def hear(sender: object, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        events.append(event)

    with subscribe(hear):
        await aemit(text, text="x")
        assert names(events) == ["text"]


def test_the_sender_of_what_is_emitted_is_the_runs() -> None:
    senders: list[object] = []

    @traced
    def fn() -> None:
        emit(text, text="x")

    with subscribe(lambda sender, event: senders.append(sender), "text"):
        fn()
    assert senders == [fn]


def test_a_scopes_callback_hears_what_is_emitted_outside_a_run() -> None:
    events: Events = []
    with scope(callbacks=[lambda sender, event: events.append(event)]):
        emit(text, text="x")
    assert names(events) == ["text"]


def test_a_callables_own_callback_hears_what_is_emitted_on_its_run() -> None:
    events: Events = []
    traced(callbacks=[lambda sender, event: events.append(event)])(lambda: emit(text, text="x"))()
    assert names(events) == ["chain_start", "text", "chain_end"]


def test_emitting_when_nobody_listens_does_nothing() -> None:
    emit(text, text="x")


def test_a_token_with_an_index_keeps_it(heard: Events) -> None:
    with trace("a", kind="llm"):
        emit(llm_new_token, token="t", index=7)
    assert only(heard, LLMNewToken).index == 7


def test_a_token_may_carry_its_chunk(heard: Events) -> None:
    chunk = {"delta": "t"}
    with trace("a", kind="llm"):
        emit(llm_new_token, token="t", chunk=chunk)
    assert only(heard, LLMNewToken).chunk is chunk


def test_no_token_is_said_on_a_run_that_has_ended(heard: Events) -> None:
    with trace("a", kind="llm"):
        late = contextvars.copy_context()
    late.run(emit, llm_new_token, token="too late")
    said = [event.signal_name for event in heard if event.run is not None]
    assert said[-1] == "llm_end"


SAID_BY_RUNS = [name for name in HOOKS if name not in EMITTED]


@pytest.mark.parametrize("hook", SAID_BY_RUNS)
def test_starts_and_ends_cannot_be_emitted(hook: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{hook} is said by .*emit one of .*custom_event"):
        emit(HOOKS[hook])


@pytest.mark.parametrize("hook", ["txt", "", blinker.Signal(), 5, None], ids=["txt", "empty", "signal", "5", "None"])
def test_an_unknown_hook_names_the_choices(hook: Any) -> None:
    with pytest.raises(UnknownHookError, match="custom_event"):
        emit(hook, text="x")


WRONG_FIELDS: list[tuple[Any, dict[str, Any]]] = [
    (text, {}),
    (text, {"txt": "x"}),
    (text, {"text": "x", "more": 1}),
    (retry, {"wait_s": 1}),
    (custom_event, {"data": 1}),
    (custom_event, {"name": "n", "run": None}),
    (llm_new_token, {}),
    (llm_new_token, {"token": "t", "more": 1}),
]


@pytest.mark.parametrize("inside", [False, True], ids=["outside a run", "inside a run"])
@pytest.mark.parametrize(("hook", "fields"), WRONG_FIELDS, ids=lambda value: getattr(value, "name", str(value)))
def test_wrong_fields_name_the_right_ones(hook: Any, fields: dict[str, Any], inside: bool) -> None:
    with trace("a", kind="llm") if inside else scope(), pytest.raises(ArgumentError, match=hook.event_class.fields[0]):
        emit(hook, **fields)


@pytest.mark.parametrize("token", [5, None, b"t"], ids=repr)
def test_a_token_that_is_no_text_raises_at_once_and_the_run_ends(token: Any, heard: Events) -> None:
    with trace("a", kind="llm") as run, pytest.raises(ArgumentError, match="token"):
        emit(llm_new_token, token=token)
    assert run.status == "ok"


async def test_wrong_fields_raise_from_aemit_too() -> None:
    with pytest.raises(ArgumentError, match="text"):
        await aemit(text, txt="x")


def test_aemit_is_a_coroutine_function() -> None:
    assert inspect.iscoroutinefunction(aemit)
