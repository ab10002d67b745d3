"""Plain values become LangChain's own; LangChain's own converters are the witness that nothing was lost."""

from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_messages,
    messages_to_dict,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, GenerationChunk, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from openai.types.chat import ChatCompletion

from tracebus import Run, Usage, trace
from tracebus.integrations.langchain import incoming
from tracebus.integrations.langchain.outgoing import (
    chunk_of,
    documents_of,
    message_of,
    messages_of,
    result_of,
    tool_output_of,
    usage_metadata_of,
)


def model_run(kind: str = "chat_model", model: str | None = None, usage: Usage | None = None) -> Run:
    with trace("model", kind=kind, model=model) as run:
        run.usage = usage
    return run


# -- messages ----------------------------------------------------------------------------------------------------------

CALL = {"type": "function", "id": "c-1", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OPENAI_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": "Hi", "name": "ada"},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
    {"role": "assistant", "content": "Hello"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sun", "tool_call_id": "c-1", "name": "weather"},
    {"role": "function", "content": "sun", "name": "weather"},
]


@pytest.mark.parametrize("message", OPENAI_MESSAGES, ids=lambda message: str(OPENAI_MESSAGES.index(message)))
def test_a_message_as_openai_writes_it_survives_the_way_there_and_back(message: dict[str, Any]) -> None:
    assert convert_to_openai_messages(message_of(message)) == message


LANGCHAIN_MESSAGES: list[BaseMessage] = [
    SystemMessage("Be brief.", id="s-1"),
    HumanMessage("Hi", name="ada", id="h-1", additional_kwargs={"priority": 1}),
    HumanMessage([{"type": "text", "text": "Look"}, IMAGE, "and listen"]),
    AIMessage(
        "Sun.",
        id="a-1",
        tool_calls=[{"name": "weather", "args": {"city": "Bern"}, "id": "c-1", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "w", "args": "{", "id": "c-2", "error": "cut", "type": "invalid_tool_call"}],
        usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        response_metadata={"model_name": "m-1", "finish_reason": "stop"},
    ),
    ToolMessage("sun", tool_call_id="c-1", name="weather", status="error", artifact={"raw": 1}),
    FunctionMessage("sun", name="weather"),
    ChatMessage("Order!", role="moderator"),
]


def plain(message: BaseMessage) -> dict[str, Any]:
    """A message as a dict with every field that it has, and its role."""
    roles = {"human": "user", "ai": "assistant"}
    said = message.model_dump(exclude={"type"})
    return {"role": roles.get(message.type, message.type), **said}


@pytest.mark.parametrize("message", LANGCHAIN_MESSAGES, ids=lambda message: str(LANGCHAIN_MESSAGES.index(message)))
@pytest.mark.parametrize("written", [plain, dumpd, lambda m: messages_to_dict([m])[0]], ids=["plain", "dumpd", "to_dict"])
def test_a_message_survives_being_written_down(message: BaseMessage, written: Any) -> None:
    assert message_of(written(message)) == message


def test_the_tool_calls_of_a_message_survive_the_way_to_the_bus_and_back() -> None:
    message = next(one for one in LANGCHAIN_MESSAGES if isinstance(one, AIMessage))
    back = message_of(incoming.message(message))
    assert back.tool_calls == message.tool_calls
    assert back.invalid_tool_calls == message.invalid_tool_calls


def test_a_message_of_langchain_is_passed_on_as_it_is() -> None:
    messages = [*LANGCHAIN_MESSAGES, AIMessageChunk("a")]
    for given in (messages, tuple(messages), [messages]):
        assert all(one is other for one, other in zip(messages_of(given), messages, strict=True))


def test_a_prompt_value_gives_its_messages() -> None:
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{q}")]).invoke({"q": "Hi"})
    assert messages_of(prompt) == [SystemMessage("Be brief."), HumanMessage("Hi")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Hi", HumanMessage("Hi")),
        (("ai", "Hello"), AIMessage("Hello")),
        ({"role": "user", "content": None}, HumanMessage("")),
        ({"content": "Hi"}, HumanMessage("Hi")),
        ({"role": "user", "content": {"type": "text", "text": "a"}}, HumanMessage([{"type": "text", "text": "a"}])),
        ({"role": "user", "content": 5}, HumanMessage("5")),
        ({"role": "tool", "content": "sun"}, ToolMessage("sun", tool_call_id="")),
        ({"role": "critic", "content": "No.", "name": "c"}, ChatMessage("No.", role="critic", name="c")),
        ({"city": "Bern"}, HumanMessage('{"city":"Bern"}')),
        (5, HumanMessage("5")),
        ({"role": "assistant", "tool_calls": "?"}, AIMessage('{"role":"assistant","tool_calls":"?"}')),
        ({"role": ["user"], "content": "a"}, HumanMessage('{"role":["user"],"content":"a"}')),
    ],
)
def test_whatever_is_said_becomes_a_message(value: Any, message: BaseMessage) -> None:
    assert messages_of([value]) == [message]


def test_a_tool_call_whose_arguments_are_no_json_is_kept_as_invalid() -> None:
    call = {"id": "c-1", "function": {"name": "weather", "arguments": '{"city": '}}
    (invalid,) = message_of({"role": "assistant", "tool_calls": [call]}).invalid_tool_calls
    assert (invalid["name"], invalid["args"], invalid["id"]) == ("weather", '{"city": ', "c-1")


def test_tool_calls_are_found_among_the_content_blocks_of_anthropic() -> None:
    blocks = [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "t-1", "name": "weather", "input": {"c": 1}}]
    message = message_of({"role": "assistant", "content": blocks, "type": "message"})
    assert message.tool_calls == [{"name": "weather", "args": {"c": 1}, "id": "t-1", "type": "tool_call"}]
    assert message.content == blocks


@dataclass
class Said:
    role: str
    content: str


def test_an_object_with_role_and_content_is_a_message() -> None:
    assert message_of(Said("assistant", "Hello")) == AIMessage("Hello")


# -- what a model answered ---------------------------------------------------------------------------------------------

USAGE = Usage(12, 3, cached_tokens=8, reasoning_tokens=1, cache_write_tokens=2)


def test_an_answer_carries_the_usage_and_the_model_of_its_run() -> None:
    result = result_of("Hello", model_run(model="m-1", usage=USAGE))
    message = result.generations[0][0].message
    assert message == AIMessage(
        "Hello",
        usage_metadata={
            "input_tokens": 12,
            "output_tokens": 3,
            "total_tokens": 15,
            "input_token_details": {"cache_read": 8, "cache_creation": 2},
            "output_token_details": {"reasoning": 1},
        },
        response_metadata={"model_name": "m-1"},
    )
    assert result.llm_output == {
        "token_usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        "model_name": "m-1",
    }


def test_nothing_is_said_about_what_nobody_knows() -> None:
    result = result_of("Hello", model_run())
    assert result == LLMResult(generations=[[ChatGeneration(message=AIMessage("Hello"))]])


def test_a_text_model_answers_in_text() -> None:
    result = result_of("Hello", model_run("llm", "m-1"))
    assert result == LLMResult(generations=[[Generation(text="Hello")]], llm_output={"model_name": "m-1"})


def test_a_count_that_nobody_knows_is_zero() -> None:
    assert usage_metadata_of(Usage(output_tokens=3)) == {"input_tokens": 0, "output_tokens": 3, "total_tokens": 3}


def test_results_of_langchain_are_passed_on_as_they_are() -> None:
    run = model_run(usage=USAGE)
    generation = ChatGeneration(message=AIMessage("Hello"))
    result = LLMResult(generations=[[generation]])
    assert result_of(result, run) is result
    assert result_of(generation, run).generations[0][0] is generation
    assert result_of(ChatResult(generations=[generation]), run).generations == [[generation]]


def test_a_message_that_knows_its_usage_is_passed_on_as_it_is() -> None:
    message = AIMessage("Hello", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})
    assert result_of(message, model_run(usage=USAGE)).generations[0][0].message is message


COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m-1",
    "choices": [
        {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}},
        {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": "Sun."}},
    ],
}


@pytest.mark.parametrize("output", [COMPLETION, ChatCompletion.model_validate(COMPLETION)], ids=["dict", "object"])
def test_a_completion_of_openai_gives_a_generation_a_choice(output: Any) -> None:
    first, second = result_of(output, model_run(usage=USAGE)).generations[0]
    assert first.message.tool_calls == [{"name": "weather", "args": {"city": "Bern"}, "id": "c-1", "type": "tool_call"}]
    assert (second.text, second.generation_info) == ("Sun.", {"index": 1, "finish_reason": "stop"})
    assert (first.message.usage_metadata is not None, second.message.usage_metadata) == (True, None)


def test_an_answer_that_is_no_message_becomes_text() -> None:
    assert result_of({"city": "Bern"}, model_run()).generations[0][0].text == '{"city":"Bern"}'


def test_an_answer_that_never_came_leaves_no_generation() -> None:
    assert result_of(None, model_run()).generations == []


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_a_token_of_a_chat_model_is_a_piece_of_a_message() -> None:
    chunk = chunk_of("He", None, model_run())
    assert isinstance(chunk, ChatGenerationChunk)
    assert (chunk.text, chunk.message.content) == ("He", "He")


def test_pieces_add_up_to_one_message() -> None:
    run = model_run()
    assert (chunk_of("He", None, run) + chunk_of("llo", None, run)).message.content == "Hello"


def test_a_token_of_a_text_model_is_a_piece_of_text() -> None:
    assert chunk_of("He", {"raw": 1}, model_run("llm")) == GenerationChunk(text="He")


def test_a_piece_of_langchain_is_passed_on_as_it_is() -> None:
    message = AIMessageChunk("He")
    for chunk in (GenerationChunk(text="He"), ChatGenerationChunk(message=message)):
        assert chunk_of("He", chunk, model_run()) is chunk
    assert chunk_of("He", message, model_run()).message is message


# -- documents, tools --------------------------------------------------------------------------------------------------


@dataclass
class Found:
    text: str
    score: float


@pytest.mark.parametrize(
    ("found", "document"),
    [
        ("a", Document("a")),
        ({"page_content": "a", "metadata": {"source": "s"}, "id": 7}, Document("a", metadata={"source": "s"}, id="7")),
        ({"text": "a", "score": 0.5}, Document("a", metadata={"score": 0.5})),
        ((Document("a", metadata={"source": "s"}), 0.5), Document("a", metadata={"source": "s", "score": 0.5})),
        (Found("a", 0.5), Document("a", metadata={"score": 0.5})),
        ({"city": "Bern"}, Document('{"city":"Bern"}')),
        (5, Document("5")),
    ],
)
def test_whatever_is_found_becomes_a_document(found: Any, document: Document) -> None:
    assert documents_of([found]) == documents_of({"documents": [found]}) == [document]


def test_documents_of_langchain_are_passed_on_as_they_are() -> None:
    document = Document("a")
    assert documents_of([document])[0] is document


def test_nothing_found_is_no_document() -> None:
    assert documents_of(None) == documents_of([]) == []


def test_the_message_of_a_tool_is_one_and_other_outputs_are_what_they_are() -> None:
    message = ToolMessage("sun", tool_call_id="c-1")
    output = object()
    assert tool_output_of({"role": "tool", "content": "sun", "tool_call_id": "c-1"}) == message
    assert tool_output_of(message) is message
    assert tool_output_of(output) is output
