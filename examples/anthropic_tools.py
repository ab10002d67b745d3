"""A model that uses a tool, with Anthropic's client: the loop, the model's calls and the tool's are one tree.

With ANTHROPIC_API_KEY set, Anthropic's service answers; without, one on this machine.
"""

import os
import sys

try:
    from anthropic import Anthropic
    from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam
except ImportError:
    sys.exit('this needs anthropic: pip install "tracebus[examples]"')

from _offline import service

from tracebus import log_to_stdout, traced
from tracebus.integrations import anthropic

anthropic.install()
log_to_stdout(format="console")

QUESTION = "What is the weather in Oslo?"
ANSWERS = (
    {
        "match": {"userMessage": QUESTION, "hasToolResult": True},
        "response": {
            "content": "It is four degrees and clear in Oslo.",
            "usage": {"input_tokens": 61, "output_tokens": 11},
        },
    },
    {
        "match": {"userMessage": QUESTION},
        "response": {
            "toolCalls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}],
            "usage": {"input_tokens": 48, "output_tokens": 14},
        },
    },
)
TOOL: ToolParam = {
    "name": "get_weather",
    "description": "Tell the weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@traced(kind="tool")
def get_weather(city: str) -> str:
    return "4 °C, clear"


@traced(kind="agent", inputs=lambda client, question: {"question": question})
def answer(client: Anthropic, question: str) -> str:
    messages: list[MessageParam] = [{"role": "user", "content": question}]
    for _ in range(5):
        reply = client.messages.create(
            model=os.environ.get("ANTHROPIC_MODEL", "claude-haiku-4-5"), max_tokens=500, messages=messages, tools=[TOOL]
        )
        if reply.stop_reason != "tool_use":
            return "".join(block.text for block in reply.content if block.type == "text")
        results: list[ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": get_weather(str(block.input["city"]))}
            for block in reply.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "assistant", "content": reply.content})
        messages.append({"role": "user", "content": results})
    raise RuntimeError("the model went on using tools")


with (
    service("ANTHROPIC_API_KEY", *ANSWERS) as address,
    Anthropic(base_url=address, api_key="none needed") if address else Anthropic() as client,
):
    print(answer(client, QUESTION))
