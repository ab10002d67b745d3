"""The names that tracebus promises: they are in `__all__`, and what is in `__all__` exists."""

import pytest

import tracebus

HOOKS = """
    llm_start chat_model_start llm_new_token llm_end llm_error
    chain_start chain_end chain_error
    tool_start tool_end tool_error
    retriever_start retriever_end retriever_error
    agent_action agent_finish text retry custom_event subscriber_failed
""".split()

EVENTS = """
    LLMStart ChatModelStart LLMNewToken LLMEnd LLMError
    ChainStart ChainEnd ChainError
    ToolStart ToolEnd ToolError
    RetrieverStart RetrieverEnd RetrieverError
    AgentAction AgentFinish Text Retry CustomEvent SubscriberFailed
""".split()

THE_REST = """
    HOOKS traced trace scope current_run Run emit aemit inject extract subscribe attach detach Usage
    BaseCallbackHandler AsyncCallbackHandler log_to_stdout flush aflush shutdown stats
""".split()


def test_every_name_in_all_exists() -> None:
    assert [name for name in tracebus.__all__ if not hasattr(tracebus, name)] == []


def test_all_names_nothing_twice() -> None:
    assert len(tracebus.__all__) == len(set(tracebus.__all__))


@pytest.mark.parametrize("name", HOOKS + EVENTS + THE_REST)
def test_a_promised_name_is_public(name: str) -> None:
    assert name in tracebus.__all__


def test_the_bus_has_the_hooks_in_lifecycle_order() -> None:
    assert list(tracebus.HOOKS) == HOOKS


def test_a_signal_has_the_name_that_it_is_imported_by() -> None:
    assert [getattr(tracebus, name).name for name in HOOKS] == HOOKS


@pytest.mark.parametrize("name", EVENTS + THE_REST[1:])
def test_help_says_something(name: str) -> None:
    assert getattr(tracebus, name).__doc__
