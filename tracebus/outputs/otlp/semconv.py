"""The names that a run's fields have on a span and in metrics, by vocabulary and version: tables, and nothing else.

All of them are in development over there: a new version is a new table here. Sources: OpenTelemetry's semantic conventions
v1.41.1, the last release that holds those for GenAI (https://github.com/open-telemetry/semantic-conventions); what replaces
them, unreleased, as of September 2026 (https://github.com/open-telemetry/semantic-conventions-genai); OpenInference as of
August 2026 (https://github.com/Arize-ai/openinference). The fields on the left are those that ``reading`` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .forms import (
    Form,
    as_documents,
    as_json,
    as_messages,
    as_value,
    flat_choices,
    flat_documents,
    flat_embeddings,
    flat_messages,
    flat_prompts,
    flat_tools,
    nothing,
    plain,
)

__all__ = ["COMMON", "METRICS", "METRICS_NEXT", "VOCABULARIES", "Metric", "Semconv", "Table", "Vocabulary"]

Semconv: TypeAlias = Literal["gen_ai", "gen_ai_next", "openinference"]
Table: TypeAlias = "Mapping[str, tuple[str, Form]]"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One set of names."""

    version: str
    schema_url: str | None
    names: Table
    says_ok: bool = False
    """Whether the status of a run that went well is ``OK``; where not, it is left unset, as OpenTelemetry asks for."""


GEN_AI: Final[Table] = {
    "operation": ("gen_ai.operation.name", plain),
    "provider": ("gen_ai.provider.name", plain),
    "error_type": ("error.type", plain),
    "session": ("gen_ai.conversation.id", plain),
    "output_type": ("gen_ai.output.type", plain),
    "request_model": ("gen_ai.request.model", plain),
    "choice_count": ("gen_ai.request.choice.count", plain),
    "seed": ("gen_ai.request.seed", plain),
    "stream": ("gen_ai.request.stream", plain),
    "top_k": ("gen_ai.request.top_k", plain),
    "top_p": ("gen_ai.request.top_p", plain),
    "temperature": ("gen_ai.request.temperature", plain),
    "max_tokens": ("gen_ai.request.max_tokens", plain),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", plain),
    "presence_penalty": ("gen_ai.request.presence_penalty", plain),
    "stop_sequences": ("gen_ai.request.stop_sequences", plain),
    "encoding_formats": ("gen_ai.request.encoding_formats", plain),
    "dimensions": ("gen_ai.embeddings.dimension.count", plain),
    "response_id": ("gen_ai.response.id", plain),
    "response_model": ("gen_ai.response.model", plain),
    "finish_reasons": ("gen_ai.response.finish_reasons", plain),
    "time_to_first_chunk": ("gen_ai.response.time_to_first_chunk", plain),
    "input_tokens": ("gen_ai.usage.input_tokens", plain),
    "output_tokens": ("gen_ai.usage.output_tokens", plain),
    "cached_tokens": ("gen_ai.usage.cache_read.input_tokens", plain),
    "cache_write_tokens": ("gen_ai.usage.cache_creation.input_tokens", plain),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens", plain),
    "server_address": ("server.address", plain),
    "server_port": ("server.port", plain),
    "data_source": ("gen_ai.data_source.id", plain),
    "query": ("gen_ai.retrieval.query.text", as_json),
    "documents": ("gen_ai.retrieval.documents", as_documents),
    "tool_name": ("gen_ai.tool.name", plain),
    "tool_type": ("gen_ai.tool.type", plain),
    "tool_description": ("gen_ai.tool.description", plain),
    "tool_call_id": ("gen_ai.tool.call.id", plain),
    "tool_arguments": ("gen_ai.tool.call.arguments", as_json),
    "tool_result": ("gen_ai.tool.call.result", as_json),
    "agent_id": ("gen_ai.agent.id", plain),
    "agent_name": ("gen_ai.agent.name", plain),
    "agent_description": ("gen_ai.agent.description", plain),
    "agent_version": ("gen_ai.agent.version", plain),
    "workflow_name": ("gen_ai.workflow.name", plain),
    "system_instructions": ("gen_ai.system_instructions", as_messages),
    "input_messages": ("gen_ai.input.messages", as_messages),
    "output_messages": ("gen_ai.output.messages", as_messages),
    "tool_definitions": ("gen_ai.tool.definitions", as_json),
}

GEN_AI_NEXT: Final[Table] = {
    **GEN_AI,
    "cache_write_tokens": ("gen_ai.usage.cache_write.input_tokens", plain),
}

OPENINFERENCE: Final[Table] = {
    "openinference_kind": ("openinference.span.kind", plain),
    "input": ("input", as_value),
    "output": ("output", as_value),
    "step_input": ("input", nothing),
    "step_output": ("output", nothing),
    "openinference_provider": ("llm.provider", plain),
    "openinference_system": ("llm.system", plain),
    "model": ("llm.model_name", plain),
    "settings": ("llm.invocation_parameters", as_json),
    "finish_reason": ("llm.finish_reason", plain),
    "input_messages": ("llm.input_messages", flat_messages),
    "output_messages": ("llm.output_messages", flat_messages),
    "tool_definitions": ("llm.tools", flat_tools),
    "prompts": ("llm.prompts", flat_prompts),
    "completions": ("llm.choices", flat_choices),
    "input_tokens": ("llm.token_count.prompt", plain),
    "output_tokens": ("llm.token_count.completion", plain),
    "total_tokens": ("llm.token_count.total", plain),
    "cached_tokens": ("llm.token_count.prompt_details.cache_read", plain),
    "cache_write_tokens": ("llm.token_count.prompt_details.cache_write", plain),
    "reasoning_tokens": ("llm.token_count.completion_details.reasoning", plain),
    "embedding_model": ("embedding.model_name", plain),
    "embedding_settings": ("embedding.invocation_parameters", as_json),
    "embedded": ("embedding.embeddings", flat_embeddings),
    "documents": ("retrieval.documents", flat_documents),
    "reranker_query": ("reranker.query", as_json),
    "reranker_model": ("reranker.model_name", plain),
    "reranker_top_k": ("reranker.top_k", plain),
    "reranker_input": ("reranker.input_documents", flat_documents),
    "reranker_output": ("reranker.output_documents", flat_documents),
    "tool_call_id": ("tool.id", plain),
    "tool_name": ("tool.name", plain),
    "tool_description": ("tool.description", plain),
    "tool_arguments": ("tool.parameters", as_json),
    "agent_name": ("agent.name", plain),
    "session": ("session.id", plain),
    "user": ("user.id", plain),
    "tags": ("tag.tags", plain),
    "metadata": ("metadata", as_json),
}

COMMON: Final[Table] = {
    "name": ("tracebus.run.name", plain),
    "kind": ("tracebus.run.kind", plain),
    "status": ("tracebus.run.status", plain),
    "chunks": ("tracebus.run.chunks", plain),
    "session": ("session.id", plain),
    "user": ("user.id", plain),
    "tags": ("tracebus.tags", plain),
    "metadata": ("tracebus.metadata", as_json),
    "step_input": ("tracebus.input", as_json),
    "step_output": ("tracebus.output", as_json),
    "error_type": ("error.type", plain),
    "server_address": ("server.address", plain),
    "server_port": ("server.port", plain),
}
"""What the chosen vocabularies have no name for: OpenTelemetry's general names, else our own."""

VOCABULARIES: Final[Mapping[Semconv, Vocabulary]] = {
    "gen_ai": Vocabulary("1.41.1", "https://opentelemetry.io/schemas/1.41.1", GEN_AI),
    "gen_ai_next": Vocabulary("2026-09", None, GEN_AI_NEXT),
    "openinference": Vocabulary("2026-08", None, OPENINFERENCE, says_ok=True),
}

OPERATIONS: Final = {
    "chat_model": "chat",
    "llm": "text_completion",
    "embedding": "embeddings",
    "retriever": "retrieval",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "workflow": "invoke_workflow",
}
"""The operation of each kind of run. The other kinds have none, and keep their name."""

REMOTE: Final = frozenset({"chat", "text_completion", "embeddings", "retrieval"})
"""The operations whose span is of the kind CLIENT: what does them is mostly not in this process."""

OPENINFERENCE_KINDS: Final = {
    "chain": "CHAIN",
    "workflow": "CHAIN",
    "llm": "LLM",
    "chat_model": "LLM",
    "tool": "TOOL",
    "retriever": "RETRIEVER",
    "agent": "AGENT",
    "embedding": "EMBEDDING",
    "reranker": "RERANKER",
    "guardrail": "GUARDRAIL",
    "evaluator": "EVALUATOR",
}

PROVIDERS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "google_genai": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "groq": "groq",
    "watsonx": "ibm.watsonx.ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "perplexity": "perplexity",
    "xai": "x_ai",
}
"""The convention's names of providers, by those that libraries use."""

MODELS: Final = {
    "gpt-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "chatgpt": "openai",
    "text-embedding-": "openai",
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "command": "cohere",
    "deepseek": "deepseek",
    "mistral": "mistral_ai",
    "codestral": "mistral_ai",
    "magistral": "mistral_ai",
    "grok": "x_ai",
    "sonar": "perplexity",
}
"""Whose a model is that is called as the beginning of its name says, where nothing else tells."""

OPENINFERENCE_PROVIDERS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "cohere": "cohere",
    "mistral_ai": "mistralai",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "x_ai": "xai",
    "deepseek": "deepseek",
    "groq": "groq",
    "perplexity": "perplexity",
}
"""OpenInference's names of providers, by the convention's."""

OPENINFERENCE_SYSTEMS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "cohere": "cohere",
    "mistral_ai": "mistralai",
    "gcp.vertex_ai": "vertexai",
    "azure.ai.openai": "openai",
}

NO_PROVIDER: Final = "_OTHER"
"""The provider where nothing tells: the convention requires one, and this is OpenTelemetry's word for what is on no list."""

FIRST_TOKEN_EVENT: Final = "First Token Stream Event"
"""OpenInference's name of the event, the only one that there is."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter where it has no buckets, else a histogram."""

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] | None


_TOKENS: Final = tuple(float(4**power) for power in range(14))
_SECONDS: Final = tuple(0.01 * 2**power for power in range(14))

METRICS: Final[Mapping[str, Metric]] = {
    "tokens": Metric("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _TOKENS),
    "duration": Metric("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS),
    "first_chunk": Metric(
        "gen_ai.client.operation.time_to_first_chunk", "s", "Time from the request to the first chunk of the answer.", _SECONDS
    ),
    "next_chunk": Metric(
        "gen_ai.client.operation.time_per_output_chunk", "s", "Time from each chunk of an answer to the next.", _SECONDS
    ),
}

METRICS_NEXT: Final[Mapping[str, Metric]] = {
    **{name: metric for name, metric in METRICS.items() if name != "tokens"},
    "input_tokens": Metric("gen_ai.client.inference.usage.input_tokens", "{token}", "Input tokens used.", None),
    "output_tokens": Metric("gen_ai.client.inference.usage.output_tokens", "{token}", "Output tokens used.", None),
    "cached_tokens": Metric(
        "gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", "Input tokens that came from a cache.", None
    ),
    "cache_write_tokens": Metric(
        "gen_ai.client.inference.usage.cache_write.input_tokens", "{token}", "Input tokens that went into a cache.", None
    ),
    "reasoning_tokens": Metric(
        "gen_ai.client.inference.usage.reasoning.output_tokens", "{token}", "Output tokens used for reasoning.", None
    ),
}

METRIC_ATTRIBUTES: Final = ("operation", "provider", "request_model", "response_model", "server_address", "server_port")
TOKEN_TYPE: Final = "gen_ai.token.type"
