"""Tracing middleware for LLM apps: every lifecycle hook is a named signal on a blinker bus.

Here are the names that most users need; the modules that they come from say what they hold.
"""

from typing import TYPE_CHECKING

from .decorator import traced
from .delivery import aflush, flush, shutdown, stats
from .errors import TracebusError
from .events import (
    AgentAction,
    AgentFinish,
    ChainEnd,
    ChainError,
    ChainStart,
    ChatModelStart,
    CustomEvent,
    Event,
    LLMEnd,
    LLMError,
    LLMNewToken,
    LLMStart,
    RetrieverEnd,
    RetrieverError,
    RetrieverStart,
    Retry,
    SubscriberFailed,
    Text,
    ToolEnd,
    ToolError,
    ToolStart,
)
from .handlers import attach, detach
from .runs import Run, Usage, current_run
from .scopes import scope
from .signals import (
    HOOKS,
    agent_action,
    agent_finish,
    chain_end,
    chain_error,
    chain_start,
    chat_model_start,
    custom_event,
    llm_end,
    llm_error,
    llm_new_token,
    llm_start,
    retriever_end,
    retriever_error,
    retriever_start,
    retry,
    subscribe,
    subscriber_failed,
    text,
    tool_end,
    tool_error,
    tool_start,
)
from .subscriptions import Subscription
from .tracing import aemit, emit, trace

if TYPE_CHECKING:
    from .callbacks import AsyncCallbackHandler, BaseCallbackHandler
    from .outputs.logs import log_to_stdout
    from .propagation import extract, inject
else:

    def __getattr__(name: str) -> object:
        """Import what not every process needs when it is first asked for; structlog takes longer to load than all the rest."""
        if name == "log_to_stdout":
            from .outputs.logs import log_to_stdout

            return log_to_stdout
        if name in ("AsyncCallbackHandler", "BaseCallbackHandler"):
            from . import callbacks

            return getattr(callbacks, name)
        if name in ("extract", "inject"):
            from . import propagation

            return getattr(propagation, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "aemit",
    "aflush",
    "agent_action",
    "agent_finish",
    "AgentAction",
    "AgentFinish",
    "AsyncCallbackHandler",
    "attach",
    "BaseCallbackHandler",
    "chain_end",
    "chain_error",
    "chain_start",
    "ChainEnd",
    "ChainError",
    "ChainStart",
    "chat_model_start",
    "ChatModelStart",
    "current_run",
    "custom_event",
    "CustomEvent",
    "detach",
    "emit",
    "Event",
    "extract",
    "flush",
    "HOOKS",
    "inject",
    "llm_end",
    "llm_error",
    "llm_new_token",
    "llm_start",
    "LLMEnd",
    "LLMError",
    "LLMNewToken",
    "LLMStart",
    "log_to_stdout",
    "retriever_end",
    "retriever_error",
    "retriever_start",
    "RetrieverEnd",
    "RetrieverError",
    "RetrieverStart",
    "Retry",
    "retry",
    "Run",
    "scope",
    "shutdown",
    "stats",
    "subscribe",
    "subscriber_failed",
    "SubscriberFailed",
    "Subscription",
    "Text",
    "text",
    "tool_end",
    "tool_error",
    "tool_start",
    "ToolEnd",
    "ToolError",
    "ToolStart",
    "trace",
    "TracebusError",
    "traced",
    "Usage",
]
