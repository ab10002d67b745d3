"""LangChain's runs on the bus: trees, outcomes and what is known of each run, in every way to call a chain."""

import asyncio
import gc
import inspect
import logging
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from bridged import anyio_backend, installed  # noqa: F401
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    CallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.tools import ToolException, tool
from langchain_core.tracers._streaming import _StreamingCallbackHandler

import tracebus
from tracebus import Usage, current_run, emit, scope, subscribe, text, trace, traced
from tracebus.counts import Throttle
from tracebus.integrations import threads
from tracebus.integrations.langchain import TracebusHandler, install, lives, uninstall
from tracebus.testing import Recording, record

USAGE = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}


def model(answer: str = "one two") -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(answer)] * 200))


def sequence() -> Runnable[Any, str]:
    return ChatPromptTemplate.from_messages([("user", "{q}")]) | model() | StrOutputParser()


class Waiting(BaseChatModel):
    """A chat model that streams one token, says that it has begun, and waits."""

    begun: Any = None
    _llm_type = "waiting"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk("one "))
        self.begun.set()
        await asyncio.Event().wait()


class Notes(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if query == "fail":
            raise LookupError(query)
        return [Document("a note", metadata={"source": "book"}, id="n-1")]


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def ended(recorded: Recording) -> list[tuple[str, str]]:
    """The names and statuses of the runs in the order of their ends."""
    ends = recorded.of("*_end", "*_error")
    return [(event.run.name, event.run.status) for event in ends]


async def all_ended() -> None:
    """Let the loop close the generators that LangChain leaves to it."""
    while lives._lives:
        await asyncio.sleep(0)


class Judge(Runnable[Any, Any]):
    """A model that LangChain tells of as a chain, as its decision models are."""

    def answer(self, asked: Any) -> Any:
        if asked["state"] == "fail":
            raise LookupError
        return SimpleNamespace(answers={"urgent": 0.9}, model="small-1", usage=USAGE)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return self._call_with_config(self.answer, input, config, run_type="llm")

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        async def answer(asked: Any) -> Any:
            return self.answer(asked)

        return await self._acall_with_config(answer, input, config, run_type="llm")


# -- the same tree in every way to call --------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Runnable[Any, Any], Any], Any]] = {
    "invoke": lambda chain, value: chain.invoke(value),
    "stream": lambda chain, value: list(chain.stream(value)),
    "batch": lambda chain, value: chain.batch([value]),
    "transform": lambda chain, value: list(chain.transform(iter([value]))),
}


ASKED = {"state": "It burns.", "questions": {"urgent": "Is it urgent?"}}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_model_that_is_called_as_a_chain_is_a_model(is_async: bool, recorded: Recording) -> None:
    config = {"metadata": {"ls_model_name": "small"}}
    answer = await Judge().ainvoke(ASKED, config) if is_async else Judge().invoke(ASKED, config)
    (run,) = recorded.runs
    assert (run.name, run.kind, run.status, run.inputs) == ("Judge", "llm", "ok", ASKED)
    assert (run.model, run.usage) == ("small-1", Usage(5, 3, 8))
    assert recorded.of("llm_start")[0].prompts == ["It burns."]
    assert recorded.of("llm_end")[0].run.id == run.id
    assert answer.answers == {"urgent": 0.9}


def test_a_model_that_is_called_as_a_chain_and_raises_has_failed(recorded: Recording) -> None:
    with pytest.raises(LookupError):
        Judge().invoke({**ASKED, "state": "fail"})
    (event,) = recorded.of("llm_error")
    assert (event.run.kind, event.run.status, event.run.usage) == ("llm", "error", None)


def test_an_answer_without_text_is_an_empty_one(recorded: Recording) -> None:
    model("").invoke("hello")
    assert recorded.runs[0].output == ""


async def consume(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


ASYNC_CALLS: dict[str, Callable[[Runnable[Any, Any], Any], Awaitable[Any]]] = {
    "ainvoke": lambda chain, value: chain.ainvoke(value),
    "astream": lambda chain, value: consume(chain.astream(value)),
    "abatch": lambda chain, value: chain.abatch([value]),
    "astream_log": lambda chain, value: consume(chain.astream_log(value)),
    "astream_events v1": lambda chain, value: consume(chain.astream_events(value, version="v1")),
    "astream_events v2": lambda chain, value: consume(chain.astream_events(value, version="v2")),
}

SEQUENCE = (
    "RunnableSequence chain ok\n"
    "  ChatPromptTemplate chain ok\n"
    "  GenericFakeChatModel chat_model ok\n"
    "  StrOutputParser chain ok"
)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_chain_has_the_same_tree_however_it_is_called(call: Callable, recorded: Recording) -> None:
    call(sequence(), {"q": "hi"})
    assert recorded.tree() == SEQUENCE
    assert recorded.run("RunnableSequence").output == "one two"


@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::langchain_core._api.LangChainDeprecationWarning")
async def test_a_chain_has_the_same_tree_however_it_is_awaited(call: Callable, recorded: Recording) -> None:
    await call(sequence(), {"q": "hi"})
    assert recorded.tree() == SEQUENCE
    assert recorded.run("RunnableSequence").output == "one two"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_children_are_no_roots_in_any_call(call: Callable, recorded: Recording) -> None:
    branches = RunnableParallel(a=RunnableLambda(str).with_config(run_name="a"), b=sequence())
    call(RunnableLambda(lambda value: branches.invoke(value)).with_config(run_name="outer"), {"q": "hi"})
    assert [run.name for run in recorded.runs if run.parent_id is None] == ["outer"]
    assert len(recorded.runs) == 7


@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::langchain_core._api.LangChainDeprecationWarning")
async def test_children_are_no_roots_in_any_async_call(call: Callable, recorded: Recording) -> None:
    branches = RunnableParallel(a=RunnableLambda(str).with_config(run_name="a"), b=sequence())

    async def outer(value: Any) -> Any:
        return await branches.ainvoke(value)

    await call(RunnableLambda(outer).with_config(run_name="outer"), {"q": "hi"})
    assert [run.name for run in recorded.runs if run.parent_id is None] == ["outer"]
    assert len(recorded.runs) == 7


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_protocol_events_are_tokens(recorded: Recording) -> None:
    class Streaming(Waiting):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
            for piece in ("one", " two"):
                yield ChatGenerationChunk(message=AIMessageChunk(piece))

    await consume(await Streaming().astream_events("hi", version="v3"))
    await all_ended()
    assert recorded.tokens == ["one", " two"]
    assert recorded.tree("kind", "status", "output") == "Streaming chat_model ok one two"


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_tokens_that_are_said_twice_are_said_once_here(recorded: Recording) -> None:
    await consume(await model().astream_events("hi", version="v3"))  # this model says both tokens and protocol events
    assert recorded.tokens == ["one", " ", "two"]


def test_a_batch_makes_a_tree_for_each_input(recorded: Recording) -> None:
    sequence().batch([{"q": "a"}, {"q": "b"}, {"q": "c"}])
    assert sum(run.parent_id is None for run in recorded.runs) == 3
    assert len(recorded.runs) == 12


# -- what is known of a run --------------------------------------------------------------------------------------------


def test_ids_names_tags_and_metadata_are_langchains(recorded: Recording) -> None:
    run_id = uuid.uuid4()
    chain = RunnableLambda(str).with_config(tags=["own"], metadata={"a": 1})
    chain.invoke(1, {"run_id": run_id, "run_name": "named", "tags": ["given"], "metadata": {"b": 2}})
    run = recorded.run("named")
    assert (run.id, run.trace_id, run.sender) == (run_id, run_id, "langchain")
    assert (sorted(run.tags), run.metadata) == (["given", "own"], {"a": 1, "b": 2})
    assert (run.inputs, run.output) == (1, "1")


def test_receivers_can_ask_for_langchains_runs_only(recorded: Recording) -> None:
    heard: list[str] = []
    with subscribe(lambda sender, event: heard.append(event.run.name), "chain_start", sender="langchain"), trace("app"):
        RunnableLambda(str).with_config(run_name="chain").invoke(1)
    assert heard == ["chain"]


def test_the_inputs_of_a_stream_come_with_its_end(recorded: Recording) -> None:
    list(sequence().stream({"q": "hi"}))
    start, end = recorded.of("chain_start")[0], recorded.of("chain_end")[-1]
    assert start.inputs is None
    assert end.run.inputs == {"q": "hi"}


def test_a_chat_models_messages_parameters_and_answer_are_plain(recorded: Recording) -> None:
    answer = AIMessage("four", usage_metadata=USAGE, response_metadata={"model_name": "m-1-2026"})
    GenericFakeChatModel(messages=iter([answer])).invoke([("system", "Add."), ("user", "2 + 2")], temperature=0.5)
    started, (said,) = recorded.of("chat_model_start")[0], recorded.of("llm_end")
    assert started.messages == [{"role": "system", "content": "Add."}, {"role": "user", "content": "2 + 2"}]
    assert started.params == {"temperature": 0.5}
    assert (said.output, said.usage, said.run.model) == ("four", Usage(5, 3, 8), "m-1-2026")


def test_a_text_model_has_prompts(recorded: Recording) -> None:
    FakeListLLM(responses=["four"]).invoke("2 + 2")
    assert recorded.of("llm_start")[0].prompts == ["2 + 2"]
    assert recorded.tree("kind", "status", "output") == "FakeListLLM llm ok four"


def test_an_answer_that_calls_tools_is_a_message(recorded: Recording) -> None:
    call = {"name": "double", "args": {"number": 2}, "id": "c-1"}
    GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[call])])).invoke("hi")
    told = {"id": "c-1", "name": "double", "arguments": {"number": 2}}
    assert recorded.of("llm_end")[0].output == {"role": "assistant", "content": "", "tool_calls": [told]}


class Counting(Waiting):
    """A chat model that counts its tokens in the chunks of its stream."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for piece, count in (("one ", 1), ("two", 2)):
            usage = {"input_tokens": 4 if count == 1 else 0, "output_tokens": count, "total_tokens": 0}
            yield ChatGenerationChunk(message=AIMessageChunk(piece, usage_metadata=usage))


def test_the_usage_of_a_stream_is_that_of_its_chunks(recorded: Recording) -> None:
    list(Counting().stream("hi"))
    assert recorded.run("Counting").usage == Usage(4, 3, 0)


def test_the_usage_of_a_stream_that_was_left_is_that_of_the_chunks_before(recorded: Recording) -> None:
    for _ in Counting().stream("hi"):
        break
    run = recorded.run("Counting")
    assert (run.status, run.output, run.usage) == ("closed_early", "one ", Usage(4, 1, 0))


def test_tokens_are_those_of_the_stream_with_their_chunks(recorded: Recording) -> None:
    list(model().stream("hi"))
    tokens = recorded.of("llm_new_token")
    assert "".join(event.token for event in tokens) == "one two"
    assert [event.index for event in tokens] == list(range(len(tokens)))
    assert recorded.run("GenericFakeChatModel").first_token_s is not None


class Opening(Waiting):
    """A chat model whose stream begins with a chunk that has nothing in it, and calls a tool."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        call = {"name": "double", "args": "", "id": "c-1", "index": 0, "type": "tool_call_chunk"}
        for chunk in (AIMessageChunk(""), AIMessageChunk("one"), AIMessageChunk("", tool_call_chunks=[call])):
            yield ChatGenerationChunk(message=chunk)


def test_a_chunk_with_nothing_in_it_is_no_token(recorded: Recording) -> None:
    list(Opening().stream("hi"))
    assert recorded.tokens == ["one", ""]
    assert recorded.of("llm_new_token")[1].chunk is not None  # it calls a tool


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_protocol_events_of_sync_code_are_tokens(recorded: Recording) -> None:
    for _ in Counting().stream_events("hi", version="v3"):
        pass
    assert recorded.tokens == ["one ", "two"]
    assert recorded.tree("kind", "status", "output") == "Counting chat_model ok one two"


def test_a_tool_has_its_arguments_and_the_id_of_its_call(recorded: Recording) -> None:
    double.invoke({"type": "tool_call", "id": "c-1", "name": "double", "args": {"number": 4}})
    run = recorded.run("double")
    assert (run.kind, run.inputs, run.metadata["tool_call_id"]) == ("tool", {"number": 4}, "c-1")
    assert run.output == {"role": "tool", "name": "double", "content": "8", "tool_call_id": "c-1"}


def test_a_retriever_has_its_query_and_documents_as_dicts(recorded: Recording) -> None:
    Notes().invoke("what?")
    assert recorded.of("retriever_start")[0].query == "what?"
    assert recorded.of("retriever_end")[0].documents == [{"content": "a note", "metadata": {"source": "book"}, "id": "n-1"}]


def test_sessions_and_users_in_the_metadata_are_the_runs(recorded: Recording) -> None:
    sequence().invoke({"q": "hi"}, {"metadata": {"conversation_id": "s-1", "user_id": "u-1"}})
    assert {(run.session_id, run.user_id) for run in recorded.runs} == {("s-1", "u-1")}


def test_custom_events_are_said_on_the_run_around_them(recorded: Recording) -> None:
    def work(value: Any) -> None:
        dispatch_custom_event("progress", {"done": 0.5})

    RunnableLambda(work).invoke(1)
    (said,) = recorded.of("custom_event")
    assert (said.run.name, said.name, said.data) == ("work", "progress", {"done": 0.5})


async def test_custom_events_of_async_code_are_said_on_the_run_around_them(recorded: Recording) -> None:
    async def work(value: Any) -> None:
        await adispatch_custom_event("progress", 1)

    await RunnableLambda(work).ainvoke(1)
    assert [(said.run.name, said.data) for said in recorded.of("custom_event")] == [("work", 1)]


def test_what_an_agent_does_is_said(recorded: Recording) -> None:
    from langchain_classic.agents import AgentExecutor, create_react_agent
    from langchain_core.prompts import PromptTemplate

    steps = ["Thought: 1\nAction: double\nAction Input: 4", "Thought: 2\nFinal Answer: eight"]
    prompt = PromptTemplate.from_template("{tools} {tool_names} {input} {agent_scratchpad}")
    agent = create_react_agent(FakeListLLM(responses=steps), [double], prompt)
    AgentExecutor(
        agent=agent,
        tools=[double],
    ).invoke({"input": "what is 4 + 4?"})
    (action,), (finish,) = recorded.of("agent_action"), recorded.of("agent_finish")
    assert (action.tool, action.tool_input, action.run.name) == ("double", "4", "AgentExecutor")
    assert finish.return_values == {"output": "eight"}


def test_text_is_said(recorded: Recording) -> None:
    manager = CallbackManager.configure().on_chain_start(None, {"a": 1}, name="chain")
    manager.on_text("a line")
    manager.on_chain_end({})
    assert [(event.text, event.run.name) for event in recorded.of("text")] == [("a line", "chain")]


def test_a_retry_says_which_attempt_failed_why_and_how_long_it_waits(recorded: Recording) -> None:
    from langchain_core.language_models.llms import create_base_retry_decorator

    class Unsteady(Waiting):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            attempts = iter([ValueError("busy"), None])

            @create_base_retry_decorator([ValueError], max_retries=2, run_manager=run_manager)
            def attempt() -> ChatResult:
                if (error := next(attempts)) is not None:
                    raise error
                return ChatResult(generations=[ChatGeneration(message=AIMessage("done"))])

            attempt.retry.sleep = lambda seconds: None  # type: ignore[attr-defined]
            return attempt()

    Unsteady().invoke("hi")
    (said,) = recorded.of("retry")
    assert (said.attempt, str(said.error), said.run.name) == (1, "busy", "Unsteady")
    assert said.wait_s > 0


# -- one tree with @traced ---------------------------------------------------------------------------------------------


def test_chains_and_traced_functions_hang_in_one_tree(recorded: Recording) -> None:
    @traced(kind="tool")
    def lookup(value: Any) -> Any:
        emit(text, text="looking")
        return RunnableLambda(lambda inner: inner).with_config(run_name="deepest").invoke(value)

    with trace("app"):
        RunnableLambda(lookup).with_config(run_name="node").invoke(1)
    assert str(recorded.tree()) == ("app chain ok\n  node chain ok\n    " + ("lookup tool ok\n      deepest chain ok"))
    assert recorded.of("text")[0].run.name == "lookup"


async def test_async_chains_and_traced_functions_hang_in_one_tree(recorded: Recording) -> None:
    @traced(kind="tool")
    async def lookup(value: Any) -> Any:
        run = current_run()
        assert run is not None
        assert run.name == "lookup"
        return await RunnableLambda(lambda inner: inner).with_config(run_name="deepest").ainvoke(value)

    async with trace("app"):
        node = RunnableLambda(lookup).with_config(run_name="node")
        await asyncio.gather(node.ainvoke(1), node.ainvoke(2))
    branch = "\n  node chain ok\n    lookup tool ok\n      deepest chain ok"
    assert recorded.tree() == f"app chain ok{branch}{branch}"


async def test_the_tree_stays_right_when_each_step_is_in_a_task_of_its_own(recorded: Recording) -> None:
    @traced
    async def step(value: str) -> str:
        return value.upper()

    stream = (sequence() | RunnableLambda(step).with_config(run_name="last")).astream({"q": "hi"})
    while await asyncio.create_task(anext(stream, None)):  # type: ignore[arg-type]
        pass
    assert recorded.tree() == f"{SEQUENCE}\n  last chain ok\n    {step.__name__} chain ok"


def test_work_in_a_chains_threads_is_the_chains(recorded: Recording) -> None:
    @traced
    def shout(text: str) -> str:
        return text.upper()

    def node(text: str) -> list[Any]:
        with threads.carrying(ThreadPoolExecutor(1)) as pool:
            return [pool.submit(call, text).result() for call in (shout, model().invoke)]

    with trace("app"):
        RunnableLambda(node).invoke("hi")
    assert recorded.tree("kind") == "app chain\n  node chain\n    shout chain\n    GenericFakeChatModel chat_model"


def test_a_scope_around_a_call_is_heard_and_inherited_with_no_other_subscriber() -> None:
    heard: list[Any] = []
    with tracebus.signals.isolated():
        with scope(callbacks=[lambda sender, event: heard.append(event.run)], user_id="u-1", tags=["web"]):
            sequence().invoke({"q": "hi"})
        sequence().invoke({"q": "nobody hears this"})
    assert len({run.id for run in heard}) == 4
    assert {(run.user_id, run.tags[0]) for run in heard} == {("u-1", "web")}


def test_a_scope_inside_a_node_hears_what_is_nested_there(recorded: Recording) -> None:
    heard: list[str] = []

    def node(value: Any) -> Any:
        with scope(callbacks=[lambda sender, event: heard.append(event.run.name)]):
            return RunnableLambda(str).with_config(run_name="inner").invoke(value)

    RunnableLambda(node).invoke(1)
    assert set(heard) == {"inner"}
    assert recorded.run("inner").parent_id == recorded.run("node").id


# -- outcomes ----------------------------------------------------------------------------------------------------------


def test_an_error_is_that_of_every_run_that_it_passes(recorded: Recording) -> None:
    failure = ValueError("no")

    def fail(value: Any) -> None:
        raise failure

    heard: list[BaseException] = []
    hearing = subscribe(lambda sender, event: heard.append(event.error), "chain_error")
    with hearing, pytest.raises(ValueError, match="no") as raised:
        (RunnableLambda(str) | RunnableLambda(fail)).invoke(1)
    assert raised.value is failure
    assert recorded.tree("status") == "RunnableSequence error\n  str ok\n  fail error"
    assert heard == [failure, failure]


def test_a_tool_that_hands_its_error_to_the_model_has_failed(recorded: Recording) -> None:
    @tool
    def broken(number: int) -> int:
        """Fail."""
        raise ToolException("out of order")

    broken.handle_tool_error = True
    assert "out of order" in str(broken.invoke({"type": "tool_call", "id": "c-1", "name": "broken", "args": {"number": 4}}))
    (said,) = recorded.of("tool_error")
    assert (said.run.status, str(said.error), said.output["status"]) == ("error", "out of order", "error")


def test_a_retriever_that_fails_says_so(recorded: Recording) -> None:
    with pytest.raises(LookupError):
        Notes().invoke("fail")
    assert recorded.tree("kind", "status", "error") == "Notes retriever error LookupError: fail"


BROKEN_OFF = [
    ("StrOutputParser", "closed_early"),
    ("GenericFakeChatModel", "closed_early"),
    ("RunnableSequence", "closed_early"),
]


def test_a_stream_that_is_left_is_closed_early_the_innermost_first(recorded: Recording) -> None:
    for _ in sequence().stream({"q": "hi"}):
        break
    assert ended(recorded)[1:] == BROKEN_OFF
    assert recorded.run("GenericFakeChatModel").output == "one"
    assert recorded.tokens == ["one"]  # LangChain reads on, which nobody has asked for


async def test_an_async_stream_that_is_left_is_closed_early_the_innermost_first(recorded: Recording) -> None:
    stream = sequence().astream({"q": "hi"})
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    await all_ended()
    assert ended(recorded)[1:] == BROKEN_OFF
    assert recorded.run("GenericFakeChatModel").output == "one"


async def test_a_stream_that_is_abandoned_ends_when_the_loop_closes_it(recorded: Recording) -> None:
    async def read_one() -> None:
        async for _ in sequence().astream({"q": "hi"}):
            break

    await read_one()
    gc.collect()
    await all_ended()
    assert ended(recorded)[1:] == BROKEN_OFF


def test_a_single_step_that_is_left_is_closed_early(recorded: Recording) -> None:
    def steps(values: Iterator[str]) -> Iterator[str]:
        for _ in values:
            yield from "abc"

    for _ in RunnableGenerator(steps).stream("x"):
        break
    assert [(run.status, run.output) for run in recorded.runs] == [("closed_early", None)]


def test_a_stream_that_is_used_up_is_not_closed_early(recorded: Recording) -> None:
    def steps(values: Iterator[str]) -> Iterator[str]:
        yield from values

    assert list(RunnableGenerator(steps).stream("x")) == ["x"]
    assert [run.status for run in recorded.runs] == ["ok"]


async def test_closing_a_stream_in_another_task_moves_nobodys_current_run(recorded: Recording) -> None:
    stream = sequence().astream({"q": "hi"})
    async with trace("app") as app:
        await anext(stream)
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        assert current_run() is app
    await all_ended()
    assert recorded.run("RunnableSequence").status == "closed_early"


async def begun(call: Callable[[Waiting], Awaitable[Any]]) -> asyncio.Task[Any]:
    waiting = Waiting(begun=asyncio.Event())
    task = asyncio.ensure_future(call(waiting))
    await waiting.begun.wait()
    return task  # type: ignore[return-value]


CANCELLED: dict[str, Callable[[Waiting], Awaitable[Any]]] = {
    "ainvoke": lambda model: model.ainvoke("hi"),
    "abatch": lambda model: model.abatch(["hi"]),
    "astream": lambda model: consume(model.astream("hi")),
    "chain ainvoke": lambda model: (RunnableLambda(str) | model).ainvoke("hi"),
    "chain astream": lambda model: consume((RunnableLambda(str) | model).astream("hi")),
    "in parallel": lambda model: RunnableParallel(a=model, b=RunnableLambda(str)).ainvoke("hi"),
}


@pytest.mark.parametrize("call", CANCELLED.values(), ids=CANCELLED)
async def test_what_is_cancelled_ends_as_cancelled_the_innermost_first(call: Callable, recorded: Recording) -> None:
    task = await begun(call)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lives._lives  # before anybody has heard of the cancellation
    statuses = {run.name: run.status for run in recorded.runs if run.status != "ok"}
    assert set(statuses.values()) == {"cancelled"}
    assert "Waiting" in statuses
    assert ended(recorded)[-1][0] == recorded.runs[0].name


async def ask_in_time(waiting: Waiting) -> None:
    """Ask a model within a time that is over when it has begun."""

    async def run_out(limit: asyncio.Timeout) -> None:
        await waiting.begun.wait()
        limit.reschedule(0)

    limit = asyncio.timeout(None)
    running_out = asyncio.ensure_future(run_out(limit))
    try:
        async with limit:
            await waiting.ainvoke("hi")
    finally:
        await running_out


async def test_a_model_that_a_timeout_stops_has_ended_when_that_is_known(recorded: Recording) -> None:
    with pytest.raises(TimeoutError):
        await ask_in_time(Waiting(begun=asyncio.Event()))
    assert recorded.tree("kind", "status") == "Waiting chat_model cancelled"


async def generated(answer: Awaitable[Any]) -> AsyncIterator[Any]:
    yield await answer


STEPPED: dict[str, Callable[[AsyncIterator[Any]], Awaitable[Any]]] = {
    "async for": consume,
    "anext": lambda stream: anext(stream),
    "anext with a default": lambda stream: anext(stream, None),
    "another one": lambda stream: consume(one async for one in stream),
    "a traced one": lambda stream: consume(traced(generated)(anext(stream))),
}


@pytest.mark.parametrize("step", STEPPED.values(), ids=STEPPED)
async def test_a_model_that_a_timeout_stops_inside_an_async_generator_has_ended(
    step: Callable[[AsyncIterator[Any]], Awaitable[Any]], recorded: Recording
) -> None:
    with pytest.raises(TimeoutError):
        await step(generated(ask_in_time(Waiting(begun=asyncio.Event()))))
    assert recorded.run("Waiting").status == "cancelled"


@pytest.fixture
async def eager_tasks() -> AsyncIterator[None]:
    """Tasks run at once, up to where they wait, inside what makes them: new in Python 3.12."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    yield
    loop.set_task_factory(before)


async def test_a_model_that_a_timeout_stops_has_ended_where_tasks_begin_at_once(
    eager_tasks: None, recorded: Recording
) -> None:
    with pytest.raises(TimeoutError):
        await ask_in_time(Waiting(begun=asyncio.Event()))
    assert recorded.tree("kind", "status") == "Waiting chat_model cancelled"


async def test_a_chain_has_the_same_tree_where_tasks_begin_at_once(eager_tasks: None, recorded: Recording) -> None:
    await sequence().ainvoke({"q": "hi"})
    await all_ended()
    assert {run.status for run in recorded.runs} == {"ok"}
    assert [run.name for run in recorded.runs if run.parent is None] == ["RunnableSequence"]


async def test_a_model_that_is_cancelled_inside_an_async_generator_has_ended(recorded: Recording) -> None:
    waiting = Waiting(begun=asyncio.Event())
    task = asyncio.ensure_future(consume(generated(waiting.ainvoke("hi"))))
    await waiting.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.tree("kind", "status") == "Waiting chat_model cancelled"


class Failing(BaseChatModel):
    """A chat model that answers until it is asked to fail."""

    _llm_type = "failing"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        if messages[0].content == "fail":
            raise LookupError("fail")
        return ChatResult(generations=[ChatGeneration(message=AIMessage("one"))])


@pytest.mark.parametrize("is_nested", [False, True])
def test_what_is_asked_together_fails_together(is_nested: bool, recorded: Recording) -> None:
    def ask(value: Any) -> str:
        with pytest.raises(LookupError):
            Failing().generate([[HumanMessage(text)] for text in ("one", "fail", "three")])
        return "none"

    assert (RunnableLambda(ask).invoke if is_nested else ask)("hi") == "none"
    models = [(run.status, repr(run.error)) for run in recorded.runs if run.name == "Failing"]
    assert models == [("error", "LookupError('fail')")] * 3
    assert len(recorded.of("llm_error")) == 3


async def test_a_tool_that_is_cancelled_has_ended(recorded: Recording) -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(wait.ainvoke({}))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.tree("kind", "status") == "wait tool cancelled"


async def test_siblings_of_what_fails_keep_their_ends(recorded: Recording) -> None:
    failed, done = asyncio.Event(), asyncio.Event()

    async def fail(value: Any) -> None:
        raise ValueError(value)

    async def go_on(value: Any) -> Any:
        await failed.wait()
        done.set()
        return value

    with pytest.raises(ValueError, match="1"):
        await RunnableParallel(a=RunnableLambda(fail), b=RunnableLambda(go_on)).ainvoke(1)
    assert recorded.tree("status").splitlines()[0] == "RunnableParallel<a,b> error"
    failed.set()
    await done.wait()
    await all_ended()
    assert recorded.run("go_on").status == "ok"
    assert recorded.run("go_on").parent_id == recorded.runs[0].id


# -- the handler and its hooks -----------------------------------------------------------------------------------------


def test_the_handler_does_not_make_chains_stream() -> None:
    assert not isinstance(TracebusHandler(), _StreamingCallbackHandler)


def test_a_handler_that_is_given_to_one_call_hears_that_one(recorded: Recording) -> None:
    uninstall()
    sequence().invoke({"q": "hi"})
    sequence().invoke({"q": "hi"}, {"callbacks": [TracebusHandler()]})
    assert recorded.tree() == SEQUENCE


def test_two_handlers_tell_of_a_run_once(recorded: Recording) -> None:
    chain = sequence().with_config(callbacks=[TracebusHandler()])
    list(chain.stream({"q": "hi"}, {"callbacks": [TracebusHandler(), TracebusHandler()]}))
    assert recorded.tree() == SEQUENCE
    assert recorded.tokens == ["one", " ", "two"]


def test_installing_twice_installs_once(recorded: Recording) -> None:
    install()
    sequence().invoke({"q": "hi"})
    assert recorded.tree() == SEQUENCE


def test_after_uninstall_nothing_is_traced(recorded: Recording) -> None:
    uninstall()
    sequence().invoke({"q": "hi"})
    assert recorded.events == []


def test_new_threads_are_traced_too(recorded: Recording) -> None:
    thread = threading.Thread(target=sequence().invoke, args=({"q": "hi"},))
    thread.start()
    thread.join()
    assert recorded.tree() == SEQUENCE


def test_no_handler_is_there_while_nobody_listens() -> None:
    managers: list[Any] = []

    def look(value: Any, config: Any) -> None:
        managers.extend(config["callbacks"].handlers)

    with tracebus.signals.isolated():
        RunnableLambda(look).invoke(1)
        assert managers == []
        with record():
            RunnableLambda(look).invoke(1)
    assert [type(handler) for handler in managers] == [TracebusHandler]


class Inline(AsyncCallbackHandler):
    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("start")

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("start")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("end")


class Late(Inline):
    run_inline = False


async def test_the_bridge_keeps_no_handler_from_a_start(recorded: Recording) -> None:
    handler = Late()
    await FakeListLLM(responses=["a"]).ainvoke("hi", {"callbacks": [handler]})
    assert handler.heard == ["start", "end"]
    assert recorded.tree("kind", "status", "output") == "FakeListLLM llm ok a"


async def test_a_run_whose_start_another_handler_keeps_from_us_is_told_from_its_end(recorded: Recording) -> None:
    model = FakeListLLM(responses=["a"])
    await RunnableLambda(model.ainvoke).ainvoke("hi", {"callbacks": [Inline()]})
    assert recorded.tree("kind", "status", "output") == "ainvoke chain ok a\n  llm llm ok a"


async def test_async_subscribers_have_heard_before_a_chain_goes_on(recorded: Recording) -> None:
    heard: list[str] = []

    async def slow(sender: object, event: Any) -> None:
        await asyncio.sleep(0)
        heard.append(event.signal_name)

    with subscribe(slow):
        await RunnableLambda(lambda value: heard.append("work")).ainvoke(1)
    assert heard == ["chain_start", "work", "chain_end"]


def test_async_subscribers_have_heard_when_a_sync_call_returns(recorded: Recording) -> None:
    heard: list[str] = []

    async def slow(sender: object, event: Any) -> None:
        await asyncio.sleep(0)
        heard.append(event.signal_name)

    with subscribe(slow):
        RunnableLambda(str).invoke(1)
    assert heard == ["chain_start", "chain_end"]


async def test_sync_code_in_a_loop_does_not_wait_for_async_subscribers(recorded: Recording) -> None:
    heard, may_hear = asyncio.Event(), asyncio.Event()

    async def slow(sender: object, event: Any) -> None:
        await may_hear.wait()
        heard.set()

    with subscribe(slow, "chain_end"):
        assert RunnableLambda(str).invoke(1) == "1"
        assert not heard.is_set()
        may_hear.set()
        await heard.wait()


async def test_a_cancelled_runs_end_has_been_heard_when_the_cancellation_is(recorded: Recording) -> None:
    heard: list[str] = []

    async def slow(sender: object, event: Any) -> None:
        await asyncio.sleep(0)
        heard.append(event.run.name)

    async def forever(value: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()
    with subscribe(slow, "*_error"):
        task = asyncio.ensure_future(RunnableLambda(forever).ainvoke(1))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == ["forever"]


def test_a_subscriber_that_may_raise_reaches_the_app(recorded: Recording) -> None:
    def refuse(sender: object, event: Any) -> None:
        raise PermissionError("not today")

    with subscribe(refuse, "chain_start", raise_error=True), pytest.raises(PermissionError, match="not today"):
        RunnableLambda(str).invoke(1)
    assert recorded.runs[0].status == "error"


async def test_a_subscriber_that_may_raise_reaches_the_async_app(recorded: Recording) -> None:
    async def refuse(sender: object, event: Any) -> None:
        await asyncio.sleep(0)
        raise PermissionError("not today")

    with subscribe(refuse, "chain_start", raise_error=True), pytest.raises(PermissionError, match="not today"):
        await RunnableLambda(str).ainvoke(1)
    assert recorded.runs[0].status == "error"


def test_a_subscriber_that_fails_does_not(recorded: Recording) -> None:
    def fail(sender: object, event: Any) -> None:
        raise PermissionError("not today")

    with subscribe(fail):
        assert RunnableLambda(str).invoke(1) == "1"
    assert recorded.of("subscriber_failed")


def test_what_the_bridge_cannot_read_is_logged_once_and_never_reaches_the_app(
    recorded: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    handler, run_id = TracebusHandler(), uuid.uuid4()
    handler.on_chain_start(None, 1, run_id=run_id)
    for _ in range(2):
        handler.on_llm_end("no result", run_id=run_id)
        handler.on_chat_model_start(None, 7, run_id=uuid.uuid4())
    handler.on_chain_end(2, run_id=run_id)
    assert recorded.tree() == "chain chain ok"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_unknown_runs_and_second_ends_are_ignored(
    recorded: Recording, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, run_id = TracebusHandler(), uuid.uuid4()
    monkeypatch.setattr(lives.reporter, "_warnings", Throttle())
    handler.on_chain_start(None, 1, run_id=run_id, parent_run_id=uuid.uuid4(), name="orphan")
    handler.on_chain_end(2, run_id=run_id)
    handler.on_chain_error(ValueError("late"), run_id=run_id)
    handler.on_llm_new_token("a", run_id=run_id)
    handler.on_tool_end(2, run_id=uuid.uuid4())
    handler.on_tool_end(2, run_id=uuid.uuid4())
    assert recorded.tree("status", "output") == "orphan ok 2"
    assert len(caplog.records) == 2  # the parent that was never seen, the run that was never seen


@pytest.mark.parametrize("name", [name for name in dir(BaseCallbackHandler) if name.startswith("on_")])
def test_every_hook_serves_both_kinds_of_manager(name: str) -> None:
    method = getattr(TracebusHandler(), name)
    assert method.__func__ is not getattr(BaseCallbackHandler, name)
    assert inspect.iscoroutinefunction(method)  # the async managers await it, in place of calling it in a thread
    assert method(None, None, run_id=uuid.uuid4()) is None or name != "on_text"


# -- how much it holds -------------------------------------------------------------------------------------------------


def nested(depth: int) -> Runnable[int, int]:
    chain: Runnable[int, int] = RunnableLambda(lambda value: value)
    for _ in range(depth):
        chain = RunnableLambda(chain.invoke, chain.ainvoke)
    return chain


def test_fifty_levels_end(recorded: Recording) -> None:
    heard: list[Any] = []

    async def hear(sender: object, event: Any) -> None:
        heard.append(event)

    with subscribe(hear, "chain_end"):
        assert nested(49).invoke(1) == 1
    assert len(heard) == 50
    assert len(recorded.runs) == 50


async def test_fifty_async_levels_end(recorded: Recording) -> None:
    async def hear(sender: object, event: Any) -> None:
        await asyncio.sleep(0)

    with subscribe(hear):
        assert await nested(49).ainvoke(1) == 1
    assert len(recorded.runs) == 50
    assert sum(run.parent_id is None for run in recorded.runs) == 1


@pytest.mark.parametrize("times", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_scoped_uses_leave_nothing_behind(times: int) -> None:
    chain, heard = RunnableLambda(lambda value: value), [0]

    def hear(sender: object, event: Any) -> None:
        heard[0] += 1

    def blocks_after(count: int) -> int:
        for _ in range(count):
            with scope(callbacks=[hear], user_id="u-1"):
                chain.invoke(1)
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks_after(1_100)  # what is remembered of ended runs is bounded, and full now
    assert blocks_after(times) - before < 500
    assert heard == [2 * (1_100 + times)]
