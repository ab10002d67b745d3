"""openai-agents, with a model behind HTTP: its traces and spans as runs, and one run for each call of the model."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    custom_span,
    function_tool,
    generation_span,
    set_trace_processors,
    trace,
)
from agents.run import RunConfig
from agents.tracing import get_trace_provider

from tracebus import Usage, current_run, traced
from tracebus.integrations import openai as client_integration
from tracebus.integrations import openai_agents as integration
from tracebus.testing import Recording

pytest_plugins = ["providers"]

TREE = """Agent workflow workflow ok
  task chain ok
    Meteo agent ok
      turn chain ok
        {model} chat_model ok
        get_weather tool ok
          look_up retriever ok
      turn chain ok
        {model} chat_model ok"""
MODELS = {"generation": OpenAIChatCompletionsModel, "response": OpenAIResponsesModel}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """agents is for asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    set_trace_processors([])  # its own one sends to the network
    integration._processor.added = False
    integration.install()
    yield
    integration.uninstall()


@pytest.fixture(params=[False, True], ids=["client untraced", "client traced"])
def client_traced(request: pytest.FixtureRequest) -> Iterator[bool]:
    if request.param:
        client_integration.install()
    yield request.param
    client_integration.uninstall()


@pytest.fixture
async def client(mock_service: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{mock_service}/v1", api_key="k") as client:
        yield client


@traced(kind="retriever")
def look_up(city: str) -> str:
    return "4 °C"


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return look_up(city)


def agent(client: openai.AsyncOpenAI, model: str) -> Agent:
    return Agent(name="Meteo", instructions="Be kind.", tools=[get_weather], model=MODELS[model]("m-1", client))


@pytest.mark.parametrize("model", MODELS)
async def test_a_run_of_an_agent_is_a_tree(
    model: str, client: openai.AsyncOpenAI, client_traced: bool, recorded: Recording
) -> None:
    result = await Runner.run(agent(client, model), "the weather in Oslo")
    assert result.final_output == "It is four degrees and clear."
    assert recorded.tree() == TREE.format(model=model)
    asked, answered = (run for run in recorded.runs if run.name == model)
    assert asked.inputs["messages"][-1] == {"role": "user", "content": "the weather in Oslo"}
    (call,) = asked.output["tool_calls"]
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Oslo"})
    assert (answered.output, answered.model) == ("It is four degrees and clear.", "m-1")
    tool = recorded.run("get_weather")
    assert (tool.inputs, tool.output) == ({"city": "Oslo"}, "4 °C")


@pytest.mark.parametrize("model", MODELS)
async def test_tokens_are_those_of_the_client(
    model: str, client: openai.AsyncOpenAI, client_traced: bool, recorded: Recording
) -> None:
    async for _ in Runner.run_streamed(agent(client, model), "hello").stream_events():
        pass
    run = recorded.run(model)
    assert (run.status, run.output) == ("ok", "Hi there, how are you doing today?")
    assert "".join(recorded.tokens) == (run.output if client_traced else "")
    assert (run.first_token_s is not None) == client_traced


async def test_the_model_that_answered_and_what_it_used_are_what_the_client_was_told(
    client_traced: bool, faulty_service: str, recorded: Recording
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        await Runner.run(Agent(name="Meteo", model=OpenAIChatCompletionsModel("any", client)), "hello")
    run = recorded.run("generation")
    told = ("model-2026", Usage(10, 4, 14, cached_tokens=6, reasoning_tokens=3))
    assert (run.model, run.usage) == (told if client_traced else ("any", Usage(10, 4)))


def test_no_usage_is_not_a_usage_of_nothing(recorded: Recording) -> None:
    with trace("flow"), generation_span(model="m-1", usage={"requests": 1, "input_tokens": 0, "output_tokens": 0}):
        pass
    assert recorded.run("generation").usage is None


async def test_the_group_of_a_trace_is_the_session(client: openai.AsyncOpenAI, recorded: Recording) -> None:
    config = RunConfig(group_id="s-1", trace_metadata={"a": "b"})
    await Runner.run(agent(client, "response"), "hello", run_config=config)
    assert {run.session_id for run in recorded.runs} == {"s-1"}
    assert recorded.run("Agent workflow").metadata["a"] == "b"


async def test_an_error_ends_the_model_and_what_is_around_it(faulty_service: str, recorded: Recording) -> None:
    async with openai.AsyncOpenAI(base_url=f"{faulty_service}/v1", api_key="k") as client:
        denied = Agent(name="Meteo", model=OpenAIResponsesModel("denied", client))
        with pytest.raises(openai.AuthenticationError):
            await Runner.run(denied, "hello")
    assert recorded.run("response").status == "error"
    assert not [run for run in recorded.runs if run.status == "open"]


def test_spans_of_the_apps_own_are_steps_and_current(recorded: Recording) -> None:
    with trace("flow"), custom_span("step", {"a": 1}):
        assert current_run().name == "step"
    assert recorded.tree() == "flow workflow ok\n  step chain ok"
    assert recorded.run("step").inputs == {"a": 1}


def test_headers_of_a_request_are_not_recorded(recorded: Recording) -> None:
    asked = {"temperature": 0.5, "extra_headers": {"x-token": "canary"}, "extra_query": {"key": "canary"}}
    with trace("flow"), generation_span([{"role": "user", "content": "hello"}], model="m-1", model_config=asked):
        pass
    inputs = recorded.run("generation").inputs
    assert ("canary" in repr(inputs), inputs["temperature"]) == (False, 0.5)


@traced
def app() -> None:
    with trace("flow"):
        pass


def test_a_trace_is_nested_in_the_apps_run(recorded: Recording) -> None:
    app()
    assert recorded.tree() == "app chain ok\n  flow workflow ok"


def test_install_twice_counts_once_and_uninstall_ends_it(recorded: Recording) -> None:
    integration.install()
    with trace("counted"):
        pass
    integration.uninstall()
    integration.uninstall()
    with trace("not counted"):
        pass
    integration.install()
    with trace("counted again"):
        pass
    assert [run.name for run in recorded.runs] == ["counted", "counted again"]
    assert len(get_trace_provider()._multi_processor._processors) == 1
