"""LangChain's handlers on the bus: what their methods are called with, and that they are told of whole runs only."""

import gc
import io
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    CallbackManager,
    FileCallbackHandler,
    StdOutCallbackHandler,
    StreamingStdOutCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.stdout import ConsoleCallbackHandler
from tenacity import RetryCallState

from tracebus import (
    Usage,
    agent_action,
    agent_finish,
    attach,
    current_run,
    custom_event,
    detach,
    emit,
    flush,
    llm_new_token,
    retry,
    scope,
    stats,
    text,
    trace,
    traced,
)
from tracebus.errors import SubscriberError
from tracebus.families import SYNC
from tracebus.tracing import end_run

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


def nothing_failed() -> bool:
    return not any(one.failed or one.dropped or one.pending for one in stats())


# -- an app ------------------------------------------------------------------------------------------------------------


@traced(kind="retriever")
def search(query: str) -> list[dict[str, Any]]:
    return [{"text": "Bern lies on the Aare.", "source": "atlas"}]


@traced(kind="tool")
def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Atlantis":
        raise LookupError("no such city")
    return "sun"


@traced(kind="chat_model", tags=["small"])
def chat(messages: list[dict[str, Any]], model: str = "m-1", temperature: float = 0.0) -> Iterator[str]:
    yield "Sun"
    yield "ny."
    run = current_run()
    assert run is not None
    run.model, run.usage = model, Usage(12, 2)


@traced
def answer(question: str, city: str = "Bern") -> str:
    search(question)
    sky = weather(city)
    messages = [{"role": "system", "content": f"It is {sky}."}, {"role": "user", "content": question}]
    return "".join(chat(messages, model="m-1"))


class Recorder(BaseCallbackHandler):
    """Notes every call: its method, and what it got by position and by keyword."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def call(self, wanted: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The first call of one method."""
        return next((args, kwargs) for name, args, kwargs in self.calls if name == wanted)


def recording(name: str) -> Callable[..., None]:
    def method(self: Recorder, *args: Any, **kwargs: Any) -> None:
        self.calls.append((name, args, kwargs))

    return method


METHODS = """on_llm_start on_chat_model_start on_llm_new_token on_llm_end on_llm_error on_chain_start on_chain_end
on_chain_error on_tool_start on_tool_end on_tool_error on_retriever_start on_retriever_end on_retriever_error on_agent_action
on_agent_finish on_text on_retry on_custom_event""".split()
for method_name in METHODS:
    setattr(Recorder, method_name, recording(method_name))

HEARD_OF_ANSWER = """on_chain_start on_retriever_start on_retriever_end on_tool_start on_tool_end on_chat_model_start
on_llm_new_token on_llm_new_token on_llm_end on_chain_end""".split()


@pytest.fixture
def heard() -> Recorder:
    """A handler that has heard one answer."""
    handler = Recorder()
    with scope(callbacks=[handler], tags=["web"], metadata={"tenant": 7}, session_id="s-1", user_id="u-1"):
        answer("How is it?")
    assert nothing_failed()
    return handler


def test_a_handler_of_langchain_hears_every_hook_of_a_run(heard: Recorder) -> None:
    assert heard.names == HEARD_OF_ANSWER


def test_calls_come_with_the_ids_and_tags_of_their_run(heard: Recorder) -> None:
    _, chain = heard.call("on_chain_start")
    _, model = heard.call("on_chat_model_start")
    _, token = heard.call("on_llm_new_token")
    assert (chain["parent_run_id"], chain["tags"]) == (None, ["web"])
    assert (model["parent_run_id"], model["tags"]) == (chain["run_id"], ["web", "small"])
    assert {name: token[name] for name in ("run_id", "parent_run_id", "tags")} == {
        name: model[name] for name in ("run_id", "parent_run_id", "tags")
    }


def test_starts_come_with_metadata_and_a_name(heard: Recorder) -> None:
    said = {"tenant": 7, "session_id": "s-1", "user_id": "u-1"}
    for method, name in [("on_chain_start", "answer"), ("on_retriever_start", "search"), ("on_tool_start", "weather")]:
        (serialized, *_), keywords = heard.call(method)
        assert (keywords["name"], keywords["metadata"], serialized["name"]) == (name, said, name)


def test_a_chain_starts_with_its_inputs_and_ends_with_its_output(heard: Recorder) -> None:
    (_, inputs), keywords = heard.call("on_chain_start")
    assert (inputs, keywords["run_type"]) == ({"question": "How is it?"}, "chain")
    assert heard.call("on_chain_end")[0] == ("Sunny.",)


def test_a_chat_model_starts_with_one_list_of_messages(heard: Recorder) -> None:
    (_, messages), keywords = heard.call("on_chat_model_start")
    assert messages == [[SystemMessage("It is sun."), HumanMessage("How is it?")]]
    assert keywords["invocation_params"] == {"model": "m-1", "model_name": "m-1"}
    assert keywords["metadata"].items() >= {"ls_model_name": "m-1", "ls_model_type": "chat"}.items()


def test_a_token_comes_with_a_chunk(heard: Recorder) -> None:
    args, keywords = heard.call("on_llm_new_token")
    assert args == ("Sun",)
    assert isinstance(keywords["chunk"], ChatGenerationChunk)
    assert keywords["chunk"].text == "Sun"


def test_a_model_ends_with_a_result_that_carries_usage(heard: Recorder) -> None:
    (result,), _ = heard.call("on_llm_end")
    usage = {"input_tokens": 12, "output_tokens": 2, "total_tokens": 14}
    message = AIMessage("Sunny.", usage_metadata=usage, response_metadata={"model_name": "m-1"})
    assert result.generations == [[ChatGeneration(message=message)]]
    assert result.llm_output["token_usage"]["total_tokens"] == 14


def test_a_tool_is_called_with_a_text_as_in_langchain(heard: Recorder) -> None:
    (serialized, input_str), keywords = heard.call("on_tool_start")
    assert (serialized["description"], input_str, keywords["inputs"]) == ("Tell the weather.", "Bern", None)
    assert heard.call("on_tool_end")[0] == ("sun",)


def test_a_tool_of_several_arguments_has_its_inputs_by_name() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]), trace("add", kind="tool", inputs={"a": 1, "b": 2}, metadata={"tool_call_id": "c-1"}):
        pass
    (_, input_str), keywords = handler.call("on_tool_start")
    assert (input_str, keywords["inputs"], keywords["tool_call_id"]) == ('{"a":1,"b":2}', {"a": 1, "b": 2}, "c-1")


def test_a_retriever_ends_with_documents(heard: Recorder) -> None:
    assert heard.call("on_retriever_start")[0][1] == "How is it?"
    (documents,), _ = heard.call("on_retriever_end")
    assert documents == [Document("Bern lies on the Aare.", metadata={"source": "atlas"})]


def test_a_text_model_hears_prompts_and_answers_text() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]), trace("complete", kind="llm", inputs={"prompt": "Hi"}, model="m-1") as run:
        emit(llm_new_token, token="Hel")
        run.output = "Hello"
    (_, prompts), keywords = handler.call("on_llm_start")
    assert (prompts, keywords["invocation_params"]["model"]) == (["Hi"], "m-1")
    assert handler.call("on_llm_new_token")[1]["chunk"] == GenerationChunk(text="Hel")
    assert handler.call("on_llm_end")[0][0].generations == [[Generation(text="Hello")]]


def test_prompt_values_of_langchain_are_read() -> None:
    prompt = ChatPromptTemplate([("human", "{q}")]).invoke({"q": "Hi"})
    handler = Recorder()
    with scope(callbacks=[handler]):
        with trace("chat", kind="chat_model", inputs=prompt):
            pass
        with trace("complete", kind="llm", inputs={"prompt": prompt}):
            pass
    assert handler.call("on_chat_model_start")[0][1] == [[HumanMessage("Hi")]]
    assert handler.call("on_llm_start")[0][1] == ["Human: Hi"]


def test_a_failure_comes_as_it_is_with_what_there_was_before() -> None:
    handler = Recorder()

    @traced(kind="chat_model")
    def broken(messages: str) -> Iterator[str]:
        yield "Sun"
        raise ConnectionError("lost")

    with scope(callbacks=[handler]), pytest.raises(ConnectionError) as caught:
        list(broken("How is it?"))
    (error,), keywords = handler.call("on_llm_error")
    assert error is caught.value
    assert keywords["response"].generations[0][0].message == AIMessage("Sun")


def test_chains_tools_and_retrievers_fail_each_through_its_method() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]):
        for kind in ("chain", "tool", "retriever"):
            with pytest.raises(LookupError), trace("broken", kind=kind, inputs={"query": "q"}):
                raise LookupError
    assert [name for name in handler.names if "error" in name] == ["on_chain_error", "on_tool_error", "on_retriever_error"]


@pytest.mark.parametrize("kind", ["agent", "workflow", "embedding", "reranker", "guardrail", "evaluator"])
def test_the_finer_kinds_are_run_types_of_chains(kind: str) -> None:
    handler = Recorder()
    with scope(callbacks=[handler]), trace("step", kind=kind):
        pass
    assert handler.call("on_chain_start")[1]["run_type"] == kind


def test_what_is_said_on_the_way_comes_in_the_types_of_langchain() -> None:
    handler = Recorder()
    with scope(callbacks=[handler], tags=["web"]), trace("agent", kind="agent") as run:
        emit(agent_action, tool="weather", tool_input={"city": "Bern"}, log="Let me see.")
        emit(agent_finish, return_values={"output": "Sun"}, log="Done.")
        emit(text, text="Hm.")
        emit(retry, attempt=2, wait_s=0.5, error=ConnectionError("lost"))
        emit(custom_event, name="progress", data={"share": 0.5})
    assert handler.call("on_agent_action")[0] == (AgentAction("weather", {"city": "Bern"}, "Let me see."),)
    assert handler.call("on_agent_finish")[0] == (AgentFinish({"output": "Sun"}, "Done."),)
    assert handler.call("on_text") == (("Hm.",), {"run_id": run.id, "parent_run_id": None, "tags": ["web"]})
    assert handler.call("on_custom_event") == (
        ("progress", {"share": 0.5}),
        {"run_id": run.id, "tags": ["web"], "metadata": {}},
    )
    (state,), _ = handler.call("on_retry")
    assert isinstance(state, RetryCallState)
    assert (state.attempt_number, state.idle_for, state.upcoming_sleep) == (2, 0.5, 0.5)
    assert isinstance(state.outcome.exception(), ConnectionError)


def test_outside_of_runs_only_text_and_custom_events_are_said() -> None:
    handler = Recorder()
    attach(handler)
    emit(text, text="Hm.")
    emit(custom_event, name="progress")
    emit(retry, attempt=1)
    emit(agent_action, tool="weather")
    emit(llm_new_token, token="a")
    assert handler.names == ["on_text", "on_custom_event"]
    assert nothing_failed()


def test_values_that_are_no_use_to_langchain_become_text() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]), trace("agent"):
        emit(agent_action, tool="weather", tool_input=["Bern"])
        emit(agent_finish, return_values="Sun")
        with trace("search", kind="retriever", inputs={"query": {"city": "Bern"}}):
            pass
    assert handler.call("on_agent_action")[0][0].tool_input == '["Bern"]'
    assert handler.call("on_agent_finish")[0][0].return_values == {"output": "Sun"}
    assert handler.call("on_retriever_start")[0][1] == '{"city":"Bern"}'


class Unreadable:
    """Raises whatever is asked of it."""

    @property
    def content(self) -> str:
        raise RuntimeError

    page_content = text = model_dump = content


def test_values_that_cannot_be_read_do_not_cost_a_call() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]):
        with trace("chat", kind="chat_model", inputs={"messages": [Unreadable()]}) as run:
            run.output = Unreadable()
        with trace("search", kind="retriever", inputs=Unreadable()) as run:
            run.output = [Unreadable()]
    assert handler.names == ["on_chat_model_start", "on_llm_end", "on_retriever_start", "on_retriever_end"]
    assert nothing_failed()


# -- how it is called --------------------------------------------------------------------------------------------------


class OnlyText(BaseCallbackHandler):
    """Knows no chat models, as many handlers do."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
        self.prompts.append(prompts)


def test_a_handler_that_knows_no_chat_models_hears_the_messages_as_text() -> None:
    handler = OnlyText()
    attach(handler)
    list(chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]))
    assert handler.prompts == [["System: Be brief.\nHuman: Hi"]]


def test_not_implemented_falls_back_for_handlers_that_say_so() -> None:
    class Declining(OnlyText):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError

    handler = Declining()
    attach(handler)
    list(chat([{"role": "user", "content": "Hi"}]))
    assert handler.prompts == [["Human: Hi"]]
    assert nothing_failed()


async def test_an_async_handler_that_knows_no_chat_models_hears_the_messages_as_text() -> None:
    heard: list[Any] = []

    class Text(AsyncCallbackHandler):
        async def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
            await anyio.lowlevel.checkpoint()
            heard.append(prompts)

    with scope(callbacks=[Text()]):
        async with trace("chat", kind="chat_model", inputs={"messages": "Hi"}):
            assert heard == [["Human: Hi"]]


@pytest.mark.parametrize(
    ("flag", "left"),
    [
        ("ignore_llm", "chain retriever tool chat_model"),
        ("ignore_chat_model", "chain retriever tool llm"),
        ("ignore_chain", "retriever tool chat_model llm"),
        ("ignore_agent", "chain retriever chat_model llm"),
        ("ignore_retriever", "chain tool chat_model llm"),
    ],
)
def test_a_handler_ignores_what_it_says(flag: str, left: str) -> None:
    class Ignoring(Recorder):
        pass

    setattr(Ignoring, flag, True)
    handler = Ignoring()
    attach(handler)
    answer("How is it?")
    groups = dict.fromkeys(name.removeprefix("on_").rpartition("_")[0].replace("llm_new", "llm") for name in handler.names)
    assert set(groups) == set(left.split())


def test_only_what_a_handler_overrides_is_called() -> None:
    handler = OnlyText()
    attach(handler)
    answer("How is it?")
    assert [(one.matched, one.delivered) for one in stats() if "OnlyText" in one.name] == [(1, 1)]


def test_a_handler_that_overrides_nothing_is_refused() -> None:
    with pytest.raises(SubscriberError, match="define at least one of on_llm_start"):
        attach(BaseCallbackHandler())


def test_a_manager_of_handlers_is_refused() -> None:
    with pytest.raises(SubscriberError, match=r"callbacks=manager.handlers"):
        attach(CallbackManager([Recorder()]))


def test_the_bridge_from_langchain_is_refused_because_it_would_hear_itself() -> None:
    bridge = type("Bridge", (BaseCallbackHandler,), {"__module__": "tracebus.integrations.langchain.bridge"})
    with pytest.raises(SubscriberError, match=r"give it to LangChain, callbacks=\[Bridge\(\)\]"):
        attach(bridge())


def test_a_failing_handler_never_reaches_the_app(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of order")

    attach(Failing())
    with caplog.at_level(logging.ERROR, "tracebus"):
        assert answer("How is it?") == "Sunny."
    assert ["Failing" in record.message for record in caplog.records] == [True]


def test_a_handler_that_wants_its_errors_raised_has_them_raised() -> None:
    class Strict(BaseCallbackHandler):
        raise_error = True

        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of order")

    attach(Strict())
    with pytest.raises(RuntimeError, match="out of order"):
        answer("How is it?")


@pytest.mark.parametrize("run_inline", [True, False])
async def test_sync_methods_run_in_a_thread_unless_the_handler_is_inline(run_inline: bool) -> None:
    threads: list[int] = []

    class Where(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            threads.append(__import__("threading").get_ident())

    handler = Where()
    handler.run_inline = run_inline
    with scope(callbacks=[handler]):
        async with trace("chain"):
            assert [thread == __import__("threading").get_ident() for thread in threads] == [run_inline]


async def test_async_methods_are_awaited_on_the_loop_of_the_app() -> None:
    heard: list[str] = []
    released = anyio.Event()

    class Waiting(AsyncCallbackHandler):
        async def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            heard.append("asked")
            await released.wait()  # an event of another loop would never be set here
            heard.append("heard")

    async def app() -> None:
        with scope(callbacks=[Waiting()]):
            async with trace("chain"):
                heard.append("body")

    async with anyio.create_task_group() as group:
        group.start_soon(app)
        while not heard:
            await anyio.lowlevel.checkpoint()
        released.set()
    assert heard == ["asked", "heard", "body"]


def test_async_methods_hear_of_sync_code() -> None:
    heard: list[str] = []

    class Ends(AsyncCallbackHandler):
        async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
            await anyio.sleep(0)
            heard.append(response.generations[0][0].text)

    with scope(callbacks=[Ends()]):
        answer("How is it?")
    assert heard == ["Sunny."]


# -- which runs --------------------------------------------------------------------------------------------------------


def test_a_handler_given_in_several_places_is_called_once() -> None:
    handler = Recorder()
    chain = traced(callbacks=[handler])(lambda question: answer(question))
    attach(handler)
    attach(handler)
    with scope(callbacks=[handler]), scope(callbacks=[handler]):
        chain("How is it?")
    assert handler.names == ["on_chain_start", *HEARD_OF_ANSWER, "on_chain_end"]


def test_a_run_around_the_scope_of_a_handler_is_no_parent_to_it() -> None:
    handler = Recorder()
    with trace("outer"), scope(callbacks=[handler]), trace("middle") as middle, trace("inner"):
        pass
    parents = [kwargs["parent_run_id"] for name, _, kwargs in handler.calls if name == "on_chain_start"]
    assert parents == [None, middle.id]


def test_a_run_between_two_runs_that_a_handler_hears_is_left_out() -> None:
    handler = Recorder()

    @traced(callbacks=[handler])
    def step(depth: int) -> None:
        if depth:
            with trace("unheard"):
                step(depth - 1)

    step(1)
    (_, outer), (_, inner) = [call[1:] for call in handler.calls if call[0] == "on_chain_start"]
    assert (outer["parent_run_id"], inner["parent_run_id"]) == (None, outer["run_id"])


def test_what_began_before_a_handler_was_attached_is_not_for_it() -> None:
    handler = Recorder()
    with trace("chat", kind="chat_model"):
        attach(handler)
        emit(llm_new_token, token="a")
        emit(retry, attempt=1)
        with trace("inner") as inner:
            pass
    assert handler.names == ["on_chain_start", "on_chain_end"]
    assert handler.call("on_chain_start")[1] == {
        "run_id": inner.id,
        "parent_run_id": None,
        "tags": [],
        "metadata": {},
        "name": "inner",
        "run_type": "chain",
    }


def test_a_handler_that_hears_no_starts_is_told_the_parents_as_they_are() -> None:
    heard: list[Any] = []

    class Ends(BaseCallbackHandler):
        def on_llm_end(self, response: Any, *, parent_run_id: Any = None, **kwargs: Any) -> None:
            heard.append(parent_run_id)

    with trace("outer") as outer, scope(callbacks=[Ends()]), trace("chat", kind="chat_model"):
        pass
    assert heard == [outer.id]


def test_a_handler_may_hear_the_start_in_one_place_and_the_end_in_another() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]):
        attach(handler)
        with trace("chain"):
            pass
        with trace("chain"):
            detach(handler)
    assert handler.names == ["on_chain_start", "on_chain_end"] * 2


async def test_handlers_of_nested_scopes_hear_each_its_own_scope() -> None:
    outer, inner = Recorder(), Recorder()
    with scope(callbacks=[outer]):
        async with trace("outer"):
            with scope(callbacks=[inner]):
                async with trace("inner"):
                    pass
    named = [[kwargs["name"] for name, _, kwargs in h.calls if name == "on_chain_start"] for h in (outer, inner)]
    assert named == [["outer", "inner"], ["inner"]]


async def test_one_handler_may_hear_many_requests_at_once() -> None:
    handler = Kept()

    async def request(number: int) -> None:
        async with trace(f"request {number}"), trace("step"):
            await anyio.lowlevel.checkpoint()

    with scope(callbacks=[handler]):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(request, number)
    assert sorted(map(tree, handler.roots)) == sorted((f"request {number}", ["step"]) for number in range(20))
    assert handler.run_map == {}


async def test_each_of_many_requests_has_its_own_handler() -> None:
    handlers = [Recorder() for _ in range(8)]

    async def request(number: int) -> None:
        with scope(callbacks=[handlers[number]]):
            async with trace(f"request {number}"):
                await anyio.lowlevel.checkpoint()
                answer(f"question {number}")

    async with anyio.create_task_group() as group:
        for number in range(len(handlers)):
            group.start_soon(request, number)
    for number, handler in enumerate(handlers):
        assert handler.names == ["on_chain_start", *HEARD_OF_ANSWER, "on_chain_end"]
        assert handler.calls[1][1][1] == {"question": f"question {number}"}


def test_a_handler_and_its_runs_are_forgotten_with_their_scope() -> None:
    handler = Recorder()
    gone = weakref.ref(handler)
    with scope(callbacks=[handler]):
        answer("How is it?")
    del handler
    gc.collect()
    assert gone() is None


# -- tracers -----------------------------------------------------------------------------------------------------------


class Kept(BaseTracer):
    """Keeps the roots that it was asked to persist."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


class KeptAsync(AsyncBaseTracer):
    """The same, awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    async def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


def tree(run: Any) -> Any:
    return (run.name, [tree(child) for child in run.child_runs]) if run.child_runs else run.name


def ok() -> None:
    answer("How is it?")


def fail() -> None:
    with pytest.raises(LookupError):
        answer("How is it?", "Atlantis")


def close_early() -> None:
    stream = chat([{"role": "user", "content": "Hi"}])
    next(stream)
    stream.close()


def pause() -> None:
    with trace("graph"), trace("node") as node:
        end_run(node, SYNC, "paused")  # as the bridge does at an interrupt of LangGraph's


@pytest.mark.parametrize("tracer", [Kept, KeptAsync, RunCollectorCallbackHandler, ConsoleCallbackHandler])
@pytest.mark.parametrize("work", [ok, fail, close_early, pause])
def test_a_tracer_keeps_nothing_once_a_root_has_ended(tracer: Callable[[], Any], work: Callable[[], None]) -> None:
    handler = tracer()
    attach(handler)
    with redirect_stdout(io.StringIO()):
        work()
        work()
    assert flush(5)
    assert handler.run_map == {}
    assert len({trace_id for trace_id, _ in handler.order_map.values()}) == 1  # of the last, until the next begins
    assert nothing_failed()


@pytest.mark.parametrize("tracer", [Kept, KeptAsync])
async def test_a_tracer_keeps_nothing_of_a_run_that_was_cancelled(tracer: Callable[[], Any], anyio_backend: str) -> None:
    if tracer is KeptAsync and anyio_backend == "trio":
        return  # langchain-core's async tracers gather with asyncio
    handler = tracer()

    @traced(kind="chat_model")
    async def endless(messages: str) -> AsyncIterator[str]:
        while True:
            yield "a"
            await anyio.sleep(0.001)

    with scope(callbacks=[handler]), anyio.move_on_after(0.1):
        async with trace("chain"):
            async for _ in endless("Hi"):
                pass
    (root,) = handler.roots
    assert tree(root) == ("chain", ["endless"])
    assert handler.run_map == {}
    assert "Cancel" in root.error


def test_a_tracer_that_is_attached_for_long_does_not_grow() -> None:
    handler = Kept()
    attach(handler)
    for _ in range(50):
        answer("How is it?")
        handler.roots.clear()
    assert (len(handler.run_map), len(handler.order_map)) == (0, 4)


def test_a_tracer_hears_a_child_that_outlives_its_parent() -> None:
    handler = Kept()
    attach(handler)
    with trace("outer"):
        late = chat([{"role": "user", "content": "Hi"}])
        next(late)
    list(late)
    answer("How is it?")
    assert handler.run_map == {}
    assert len(handler.order_map) == 4
    assert nothing_failed()


def test_collected_runs_are_the_tree_that_was_run() -> None:
    handler = RunCollectorCallbackHandler()
    attach(handler)
    with pytest.raises(LookupError):
        answer("How is it?", "Atlantis")
    answer("How is it?")
    failed, done = handler.traced_runs
    assert tree(failed) == ("answer", ["search", "weather"])
    assert [run.error is not None for run in (failed, *failed.child_runs)] == [True, False, True]
    assert tree(done) == ("answer", ["search", "weather", "chat"])
    model = done.child_runs[2]
    assert (model.run_type, model.inputs) == ("llm", {"prompts": ["System: It is sun.\nHuman: How is it?"]})
    assert [event["name"] for event in model.events] == ["start", "new_token", "new_token", "end"]
    assert model.outputs["generations"][0][0]["text"] == "Sunny."
    assert done.child_runs[0].outputs["documents"] == [Document("Bern lies on the Aare.", metadata={"source": "atlas"})]
    assert done.outputs == {"output": "Sunny."}


def test_a_retry_is_noted_on_the_run_that_is_tried_again() -> None:
    handler = Kept()
    with scope(callbacks=[handler]), trace("chat", kind="chat_model"):
        emit(retry, attempt=1, wait_s=0.5, error=ConnectionError("lost"))
    said = next(event["kwargs"] for event in handler.roots[0].events if event["name"] == "retry")
    assert said == {"slept": 0.5, "attempt": 1, "outcome": "failed", "exception": "lost", "exception_type": "ConnectionError"}


# -- handlers that come with langchain-core ----------------------------------------------------------------------------


def test_usage_is_counted_by_model() -> None:
    handler = UsageMetadataCallbackHandler()
    attach(handler)
    answer("How is it?")
    answer("And now?")
    assert handler.usage_metadata == {"m-1": {"input_tokens": 24, "output_tokens": 4, "total_tokens": 28}}


def test_stdout_and_file_show_chains_tools_and_agents(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with FileCallbackHandler(str(path)) as to_file, scope(callbacks=[StdOutCallbackHandler(), to_file]), trace("agent"):
        emit(agent_action, tool="weather", tool_input="Bern", log="Let me see.")
        weather("Bern")
        emit(agent_finish, return_values={}, log="Done.")
    for shown in (capsys.readouterr().out, path.read_text()):
        assert "Entering new agent chain" in shown
        assert [word in shown for word in ("Let me see.", "sun", "Done.", "Finished chain")] == [True] * 4
    assert nothing_failed()


def test_tokens_are_streamed_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with scope(callbacks=[StreamingStdOutCallbackHandler()]):
        answer("How is it?")
    assert capsys.readouterr().out == "Sunny."


def test_the_console_shows_each_run_with_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with scope(callbacks=[ConsoleCallbackHandler()]):
        fail()
        answer("How is it?")
    shown = capsys.readouterr().out
    for line in (
        "[chain:answer] Entering Chain run",
        "[chain:answer > tool:weather] Entering Tool run",
        "Tool run errored with error",
        "no such city",
        "[chain:answer > llm:chat]",
        "Sunny.",
    ):
        assert line in shown
    assert nothing_failed()
