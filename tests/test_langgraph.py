"""LangGraph's runs on the bus: nodes, tools and subgraphs in one tree, and interrupts that pause it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from bridged import anyio_backend, installed  # noqa: F401
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from tracebus import traced
from tracebus.testing import Recording


@traced
def looked_up(item: str) -> int:
    return len(item)


@tool
def price(item: str) -> int:
    """Return what an item costs."""
    return looked_up(item)


@tool
def buy(item: str) -> str:
    """Buy an item, if a person agrees."""
    return f"bought {item}" if interrupt(f"Buy {item}?") == "yes" else "left it"


def tool_call(name: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": {"item": "tea"}, "id": f"call-{name}"}])


class Replies(BaseChatModel):
    """A chat model that gives the replies it was given, one a call."""

    replies: Any
    _llm_type = "replies"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=next(self.replies))])


def agent(*replies: AIMessage) -> Any:
    model = Replies(replies=iter(replies))

    async def ask_async(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def ask(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(ask, ask_async, name="model"))
    graph.add_node("tools", ToolNode([price, buy]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=InMemorySaver())


QUESTION = {"messages": [("user", "I would like some tea.")]}
THREAD = {"configurable": {"thread_id": "t-1"}}


async def consume(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def consume_v3(graph: Any, value: Any) -> None:
    await consume(await graph.astream_events(value, THREAD, version="v3"))


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda graph, value: graph.invoke(value, THREAD),
    "stream": lambda graph, value: list(graph.stream(value, THREAD)),
    "stream messages": lambda graph, value: list(graph.stream(value, THREAD, stream_mode="messages")),
}
ASYNC_CALLS: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
    "ainvoke": lambda graph, value: graph.ainvoke(value, THREAD),
    "astream": lambda graph, value: consume(graph.astream(value, THREAD)),
    "astream messages": lambda graph, value: consume(graph.astream(value, THREAD, stream_mode="messages")),
    "astream_events v2": lambda graph, value: consume(graph.astream_events(value, THREAD, version="v2")),
    "astream_events v3": consume_v3,
}

MODEL = """
  model chain ok
    model chain ok
      Replies chat_model ok
    tools_condition chain ok"""
LOOP = f"LangGraph chain ok{MODEL}\n  tools chain ok\n    price tool ok\n      looked_up chain ok{MODEL}"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_agents_loop_is_one_tree(call: Callable, recorded: Recording) -> None:
    call(agent(tool_call("price"), AIMessage("3")), QUESTION)
    assert recorded.tree() == LOOP


@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_an_agents_async_loop_is_one_tree(call: Callable, recorded: Recording) -> None:
    await call(agent(tool_call("price"), AIMessage("3")), QUESTION)
    assert recorded.tree() == LOOP


def test_the_thread_is_the_session_of_every_run(recorded: Recording) -> None:
    agent(tool_call("price"), AIMessage("3")).invoke(QUESTION, THREAD)
    assert {run.session_id for run in recorded.runs} == {"t-1"}


PAUSED = "LangGraph chain paused" + MODEL + "\n  tools chain paused\n    buy tool paused"
RESUMED = f"LangGraph chain ok\n  tools chain ok\n    buy tool ok{MODEL}"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupt_pauses_what_it_passes(call: Callable, recorded: Recording) -> None:
    graph = agent(tool_call("buy"), AIMessage("You have tea."))
    call(graph, QUESTION)
    assert recorded.tree() == PAUSED
    assert recorded.of("*_error") == []
    recorded.clear()
    call(graph, Command(resume="yes"))
    assert recorded.tree() == RESUMED


@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_an_interrupt_pauses_what_it_passes_in_async_code(call: Callable, recorded: Recording) -> None:
    graph = agent(tool_call("buy"), AIMessage("You have tea."))
    await call(graph, QUESTION)
    assert recorded.tree() == PAUSED
    recorded.clear()
    await call(graph, Command(resume="yes"))
    assert recorded.tree() == RESUMED


def test_a_subgraph_hangs_in_the_node_that_calls_it_and_pauses_with_it(recorded: Recording) -> None:
    inner = StateGraph(MessagesState)
    inner.add_node("ask", lambda state: {"messages": [AIMessage(interrupt("Sure?"))]})
    inner.add_edge(START, "ask")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    graph.invoke(QUESTION, THREAD)
    assert [run.status for run in recorded.runs] == ["paused"] * len(recorded.runs)
    assert [run.name for run in recorded.runs] == ["LangGraph", "inner", "LangGraph", "ask"]


def asking() -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [AIMessage(interrupt("Sure?"))]})
    graph.add_edge(START, "ask")
    return graph.compile(checkpointer=InMemorySaver())


ANSWERED = """
  LangGraph paused
    ask paused
  LangGraph ok
    ask ok"""


def test_who_answers_the_interrupt_of_a_graph_is_not_paused(recorded: Recording) -> None:
    graph = asking()

    def drive(question: Any) -> Any:
        assert "__interrupt__" in graph.invoke(question, THREAD)
        return graph.invoke(Command(resume="yes"), THREAD)["messages"][-1].content

    assert RunnableLambda(drive).invoke(QUESTION) == "yes"
    assert recorded.tree("status") == f"drive ok{ANSWERED}"


async def test_who_answers_the_interrupt_of_a_graph_in_async_code_is_not_paused(recorded: Recording) -> None:
    graph = asking()

    async def drive(question: Any) -> Any:
        assert "__interrupt__" in await graph.ainvoke(question, THREAD)
        return (await graph.ainvoke(Command(resume="yes"), THREAD))["messages"][-1].content

    assert await RunnableLambda(drive).ainvoke(QUESTION) == "yes"
    assert recorded.tree("status") == f"drive ok{ANSWERED}"


def test_a_command_to_the_graph_around_is_no_error(recorded: Recording) -> None:
    inner = StateGraph(MessagesState)
    inner.add_node("leave", lambda state: Command(graph=Command.PARENT, goto="after"))
    inner.add_edge(START, "leave")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile(), destinations=("after",))
    outer.add_node("after", lambda state: {})
    outer.add_edge(START, "inner")
    outer.add_edge("after", END)
    outer.compile().invoke(QUESTION)
    assert {run.status for run in recorded.runs} == {"ok"}


def test_a_node_that_fails_is_an_error_up_to_the_graph(recorded: Recording) -> None:
    def fail(state: MessagesState) -> None:
        raise ValueError("no tea")

    graph = StateGraph(MessagesState)
    graph.add_node("fail", fail)
    graph.add_edge(START, "fail")
    with pytest.raises(ValueError, match="no tea"):
        graph.compile().invoke(QUESTION)
    assert recorded.tree("status", "error") == "LangGraph error ValueError: no tea\n  fail error ValueError: no tea"


async def test_a_graph_that_is_cancelled_ends_the_innermost_first(recorded: Recording) -> None:
    begun = asyncio.Event()

    async def wait(state: MessagesState) -> None:
        begun.set()
        await asyncio.Event().wait()

    graph = StateGraph(MessagesState)
    graph.add_node("wait", wait)
    graph.add_edge(START, "wait")
    running = asyncio.ensure_future(graph.compile().ainvoke(QUESTION))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(event.run.name, event.run.status) for event in recorded.of("chain_error")] == [
        ("wait", "cancelled"),
        ("LangGraph", "cancelled"),
    ]


def test_a_graph_whose_stream_is_left_is_closed_early(recorded: Recording) -> None:
    for _ in agent(tool_call("price"), AIMessage("3")).stream(QUESTION, THREAD):
        break
    assert recorded.run("LangGraph").status == "closed_early"
    assert recorded.of("*_end")[-1].run.name == "LangGraph"


async def test_a_graph_whose_async_stream_is_left_is_closed_early(recorded: Recording) -> None:
    stream = agent(tool_call("price"), AIMessage("3")).astream(QUESTION, THREAD)
    async for _ in stream:
        break
    await stream.aclose()
    assert recorded.run("LangGraph").status == "closed_early"
    assert recorded.of("*_end", "*_error")[-1].run.name == "LangGraph"


async def test_a_text_model_is_told_though_the_stream_keeps_its_start_from_us(recorded: Recording) -> None:
    model = FakeListLLM(responses=["tea"])

    async def ask(state: MessagesState) -> Any:
        return {"messages": [AIMessage(await model.ainvoke("hi"))]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    await consume(graph.compile().astream(QUESTION, stream_mode="messages"))
    assert recorded.tree("kind", "status") == "LangGraph chain ok\n  ask chain ok\n    llm llm ok"


def test_the_functional_face_is_one_tree(recorded: Recording) -> None:
    @task
    def length(item: str) -> int:
        return looked_up(item)

    @entrypoint()
    def flow(items: list[str]) -> list[int]:
        return [future.result() for future in [length(item) for item in items]]

    flow.invoke(["tea"])
    assert recorded.tree("status") == "LangGraph ok\n  flow ok\n    length ok\n      looked_up ok"
