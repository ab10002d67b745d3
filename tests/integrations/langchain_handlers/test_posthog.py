"""PostHog's LangChain handler on the bus: the events that its client would send."""

from typing import Any

import pytest

pytest.importorskip("posthog", reason="posthog is not installed: make test-handlers")

from posthog import Posthog
from posthog.ai.langchain import CallbackHandler


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def handler(sent: list[dict[str, Any]]) -> CallbackHandler:
    client = Posthog(
        "phc_test", host="http://127.0.0.1:9", before_send=sent.append, sync_mode=True
    )  # append returns None: drop
    return CallbackHandler(client, distinct_id="u-1")


def said(sent: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (properties,) = [event["properties"] for event in sent if event["properties"]["$ai_span_name"] == name]
    return properties


async def test_posthog_shows_the_tree(app: Any, handler: CallbackHandler, sent: list[dict[str, Any]]) -> None:
    await app.answer(handler)
    names = {event["properties"]["$ai_span_id"]: event["properties"]["$ai_span_name"] for event in sent}
    assert [
        (event["event"], event["properties"]["$ai_span_name"], names.get(event["properties"].get("$ai_parent_id")))
        for event in sent
    ] == [
        ("$ai_span", "search", "answer"),
        ("$ai_span", "weather", "answer"),
        ("$ai_generation", "chat", "answer"),
        ("$ai_trace", "answer", None),
    ]


async def test_posthog_shows_messages_usage_and_model(app: Any, handler: CallbackHandler, sent: list[dict[str, Any]]) -> None:
    await app.answer(handler)
    chat = said(sent, "chat")
    assert chat["$ai_model"] == "m-1"
    assert chat["$ai_model_parameters"] == {"temperature": 0.5}
    assert [message["role"] for message in chat["$ai_input"]] == ["system", "user"]
    assert chat["$ai_output_choices"] == [{"role": "assistant", "content": "Sunny."}]
    assert [chat[f"$ai_{name}_tokens"] for name in ("input", "output", "cache_read_input")] == [12, 2, 8]


async def test_posthog_shows_inputs_and_outputs(app: Any, handler: CallbackHandler, sent: list[dict[str, Any]]) -> None:
    await app.answer(handler)
    assert said(sent, "answer")["$ai_input_state"] == {"question": "How is it in Bern?"}
    assert said(sent, "answer")["$ai_output_state"] == "Sunny."
    assert said(sent, "weather")["$ai_output_state"] == "sun"


async def test_posthog_shows_what_failed(app: Any, handler: CallbackHandler, sent: list[dict[str, Any]]) -> None:
    await app.fail(handler)
    assert "no such city" in said(sent, "weather")["$ai_error"]
    assert said(sent, "answer")["$ai_is_error"] is True


async def test_posthog_keeps_nothing(app: Any, handler: CallbackHandler) -> None:
    await app.answer(handler)
    await app.fail(handler)
    assert (handler._runs, handler._parent_tree) == ({}, {})
