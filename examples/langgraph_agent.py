"""A LangGraph agent that calls tools in a loop and asks a person before it buys: the run pauses there, and another goes on."""

from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from tracebus import subscribe, tool_end, tool_error, traced
from tracebus.integrations.langchain import install
from tracebus.testing import record

install()


@traced
def look_up(item: str) -> int:
    return {"tea": 4, "coffee": 9}[item]


@tool
def price(item: str) -> int:
    """Return what an item costs."""
    return look_up(item)


@tool
def buy(item: str) -> str:
    """Buy an item, if a person agrees."""
    return "bought" if interrupt(f"Buy {item}?") == "yes" else "left"


def call(name: str, item: str, number: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": {"item": item}, "id": f"call-{number}"}])


def agent() -> CompiledStateGraph[MessagesState]:
    replies = [call("price", "tea", 1), call("price", "milk", 2), call("buy", "tea", 3), AIMessage("You have tea now.")]
    model = GenericFakeChatModel(messages=iter(replies))  # stands for a model that was bound to the tools

    def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", reply)
    graph.add_node("tools", ToolNode([price, buy], handle_tool_errors=True))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=InMemorySaver())


def show(sender: Any, event: Any) -> None:
    run = event.run
    print(f"{run.name} of {run.session_id}: {run.status} {run.error or run.output['content']!r}")


subscribe(show, tool_error)
subscribe(lambda sender, event: show(sender, event) if event.run.status == "ok" else print("a person is asked"), tool_end)

shop = agent()
config: RunnableConfig = {"configurable": {"thread_id": "t-1"}}  # the thread is the runs' session
with record() as paused:
    shop.invoke({"messages": [HumanMessage("I would like some tea.")]}, config)
with record() as resumed:
    answer = shop.invoke(Command(resume="yes"), config)

print(f"\n{paused.tree('kind', 'status')}\n\n{resumed.tree('kind', 'status')}\n\n{answer['messages'][-1].content}")
