"""LangChain's objects as plain values."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from tracebus import Usage
from tracebus.integrations.langchain import incoming
from tracebus.redaction import MASK

CALL = {"id": "c-1", "name": "double", "args": {"number": 4}}
TOLD = {"id": "c-1", "name": "double", "arguments": {"number": 4}}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (HumanMessage("hi"), {"role": "user", "content": "hi"}),
        (HumanMessage("hi", name="Ann"), {"role": "user", "content": "hi", "name": "Ann"}),
        (AIMessage("hi"), {"role": "assistant", "content": "hi"}),
        (AIMessageChunk("hi"), {"role": "assistant", "content": "hi"}),
        (AIMessage("", tool_calls=[CALL]), {"role": "assistant", "content": "", "tool_calls": [TOLD]}),
        (SystemMessage("be brief"), {"role": "system", "content": "be brief"}),
        (
            SystemMessage("be brief", additional_kwargs={"__openai_role__": "developer"}),
            {"role": "developer", "content": "be brief"},
        ),
        (ToolMessage("8", tool_call_id="c-1"), {"role": "tool", "content": "8", "tool_call_id": "c-1"}),
        (
            ToolMessage("no", tool_call_id="c-1", status="error"),
            {"role": "tool", "content": "no", "tool_call_id": "c-1", "status": "error"},
        ),
        (FunctionMessage("8", name="double"), {"role": "function", "content": "8", "name": "double"}),
        (ChatMessage("hi", role="critic"), {"role": "critic", "content": "hi"}),
        (HumanMessage([{"type": "text", "text": "hi"}]), {"role": "user", "content": [{"type": "text", "text": "hi"}]}),
    ],
)
def test_a_message_is_a_dict(message: BaseMessage, said: dict) -> None:
    assert incoming.message(message) == said


def test_arguments_that_the_model_wrote_wrongly_are_kept() -> None:
    invalid = {"name": "double", "args": "{", "id": "c-1", "error": "no JSON", "type": "invalid_tool_call"}
    assert incoming.message(AIMessage("", invalid_tool_calls=[invalid]))["invalid_tool_calls"] == [
        {"id": "c-1", "name": "double", "arguments": "{", "error": "no JSON"}
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        (["a", {"type": "text", "text": "b"}, {"type": "image", "url": "u"}], "ab"),
        ([{"type": "text-delta", "text": "a"}, {"type": "reasoning-delta", "text": "b"}], "a"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_text_of_a_content_is_that_of_its_text_blocks(content: object, text: str) -> None:
    assert incoming.text_in(content) == text


def result(*generations: Generation, **more: object) -> LLMResult:
    return LLMResult(generations=[list(generations)], **more)


def chat(message: AIMessage) -> ChatGeneration:
    return ChatGeneration(message=message)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        (result(Generation(text="four")), "four"),
        (result(chat(AIMessage("four"))), "four"),
        (result(chat(AIMessage([]))), ""),
        (result(chat(AIMessage([{"type": "text", "text": "fo"}, "ur"]))), "four"),
        (result(chat(AIMessage("", tool_calls=[CALL]))), {"role": "assistant", "content": "", "tool_calls": [TOLD]}),
        (result(Generation(text="four"), Generation(text="vier")), ["four", "vier"]),
        (result(), None),
        (LLMResult(generations=[]), None),
        (None, None),
    ],
)
def test_what_a_model_answered(given: LLMResult | None, output: object) -> None:
    assert incoming.answer_of(given)["output"] == output


USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
DETAILS = {"input_token_details": {"cache_read": 3, "cache_creation": 1}, "output_token_details": {"reasoning": 2}}


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        (result(chat(AIMessage("", usage_metadata=USAGE))), Usage(9, 4, 13)),
        (
            result(chat(AIMessage("", usage_metadata={**USAGE, **DETAILS}))),
            Usage(9, 4, 13, cached_tokens=3, reasoning_tokens=2, cache_write_tokens=1),
        ),
        (result(Generation(text=""), llm_output={"token_usage": {"prompt_tokens": 9, "completion_tokens": 4}}), Usage(9, 4)),
        (result(Generation(text=""), llm_output={"usage": {"input_tokens": 9}}), Usage(9)),
        (result(Generation(text=""), llm_output={"token_usage": {}}), None),
        (result(chat(AIMessage("", usage_metadata=USAGE)), chat(AIMessage("", usage_metadata=USAGE))), Usage(18, 8, 26)),
        (result(), None),
    ],
)
def test_what_a_call_used(given: LLMResult, usage: Usage | None) -> None:
    assert incoming.answer_of(given)["usage"] == usage


def test_the_tokens_of_two_chunks_are_added_where_one_counts_them() -> None:
    assert incoming.added(Usage(3, None), Usage(None, 2, cached_tokens=1)) == Usage(3, 2, cached_tokens=1)
    assert incoming.added(None, Usage(1)) == Usage(1)
    assert incoming.added(None, None) is None


def test_the_model_that_answered_is_said_by_the_message_or_beside_it() -> None:
    said_by_message = result(chat(AIMessage("", response_metadata={"model": "m-1"})))
    said_beside = result(Generation(text=""), llm_output={"model_name": "m-2"})
    models = [incoming.answer_of(given)["model"] for given in (said_by_message, said_beside, result())]
    assert models == ["m-1", "m-2", None]


def test_the_model_that_is_asked_is_said_by_the_metadata_or_the_parameters() -> None:
    assert incoming.model_asked({"model": "m-1"}, {"ls_model_name": "m-2"}) == "m-2"
    assert incoming.model_asked({"model_id": "m-1"}, None) == "m-1"
    assert incoming.model_asked({"model": 7}, {}) is None


def test_parameters_that_are_not_set_are_left_out() -> None:
    assert incoming.params_of({"_type": "fake", "stop": None, "temperature": 0}) == {"temperature": 0}


def test_headers_that_a_provider_is_to_send_to_a_tool_are_masked() -> None:
    tools = [{"type": "mcp", "headers": {"X-Tenant": "k"}}, {"type": "function"}]
    assert incoming.params_of({"tools": tools})["tools"] == [
        {"type": "mcp", "headers": {"X-Tenant": MASK}},
        {"type": "function"},
    ]


@pytest.mark.parametrize("name", ["extra_headers", "extra_query", "default_headers", "default_query", "headers"])
def test_headers_and_queries_are_no_parameters(name: str) -> None:
    assert incoming.params_of({"seed": 7, name: {"X-Tenant": "k"}, "extra_body": {"top_k": 2}}) == {
        "seed": 7,
        "extra_body": {"top_k": 2},
    }


@pytest.mark.parametrize(
    ("name", "serialized", "expected"),
    [
        ("given", {"name": "n"}, "given"),
        (None, {"name": "n", "id": ["a", "b"]}, "n"),
        (None, {"id": ["a", "b"]}, "b"),
        (None, {"id": []}, "chain"),
        (None, None, "chain"),
    ],
)
def test_a_runs_name(name: str | None, serialized: object, expected: str) -> None:
    assert incoming.name_of(name, serialized, "chain") == expected


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ({"session_id": "s", "thread_id": "t"}, ("s", None)),
        ({"thread_id": 7, "user_id": 8}, ("7", "8")),
        ({"conversation_id": "c", "user_id": ""}, ("c", None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_the_session_and_the_user_of_a_run(metadata: dict | None, ids: tuple) -> None:
    assert incoming.session_of(metadata) == ids


def test_what_is_no_message_or_document_stays_what_it_is() -> None:
    assert incoming.tool_output(7) == 7
    assert incoming.document("text") == "text"
    assert incoming.document(Document("text", metadata={"a": 1})) == {"content": "text", "metadata": {"a": 1}}


def test_what_a_tool_gives_beside_its_message_is_kept() -> None:
    said = incoming.tool_output(ToolMessage("8", tool_call_id="c-1", artifact={"raw": 8}))
    assert said == {"role": "tool", "content": "8", "tool_call_id": "c-1", "artifact": {"raw": 8}}


def test_only_what_bubbles_up_in_langgraph_is_no_error() -> None:
    from langgraph.errors import GraphInterrupt, ParentCommand

    assert incoming.interrupt_status(GraphInterrupt()) == "paused"
    assert incoming.interrupt_status(ParentCommand(None)) == "ok"  # type: ignore[arg-type]
    assert incoming.interrupt_status(ValueError()) is None
