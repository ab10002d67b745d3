"""What is said: one event class a hook. Who says it is in ``runs``, where it is said in ``signals``.

Events are plain classes with slots, because one is made for every token: treat them as read-only, they are shared by
all subscribers. A later version may add fields, never take one away.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .late import payload

if TYPE_CHECKING:
    from .runs import Run, Usage

__all__ = [
    "EVENTS",
    "AgentAction",
    "AgentFinish",
    "ChainEnd",
    "ChainError",
    "ChainStart",
    "ChatModelStart",
    "CustomEvent",
    "Event",
    "LLMEnd",
    "LLMError",
    "LLMNewToken",
    "LLMStart",
    "Retry",
    "RetrieverEnd",
    "RetrieverError",
    "RetrieverStart",
    "SubscriberFailed",
    "Text",
    "ToolEnd",
    "ToolError",
    "ToolStart",
    "main_input",
    "main_name",
    "prompts_of",
]


class Event:
    """What every event carries.

    ``run`` is the run it is about (``None`` for what is said outside one), ``time_ns`` the wall clock in nanoseconds
    since the epoch, ``seq`` a number that grows with every event of this process.
    """

    __slots__ = ("run",)

    signal_name: ClassVar[str] = ""
    """The name of the hook, which is the name of its signal."""
    fields: ClassVar[tuple[str, ...]] = ()
    """The names of the fields beside ``run``, ``time_ns`` and ``seq``."""
    is_start: ClassVar[bool] = False
    """Whether it is the first event of its run."""
    is_end: ClassVar[bool] = False
    """Whether it is the last event of its run."""

    def __init__(self, run: Run | None) -> None:
        self.run = run

    @property
    def time_ns(self) -> int:
        """When it was said, in nanoseconds since the epoch."""
        raise NotImplementedError

    @property
    def seq(self) -> int:
        """Its number among the events of this process."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Show the fields, each cut to a line's length."""
        shown = (f"{name}={payload.preview(getattr(self, name), 60)}" for name in self.fields)
        return f"{type(self).__name__}({', '.join((f'run={self.run!r}', *shown))})"


class _Said(Event):
    """What is said at any time, on a run or outside one."""

    __slots__ = ("_seq", "_time_ns")
    _seq: int
    _time_ns: int

    def __init__(self, run: Run | None, time_ns: int, seq: int) -> None:
        self.run = run
        self._time_ns = time_ns
        self._seq = seq

    @property
    def time_ns(self) -> int:
        """When it was said, in nanoseconds since the epoch."""
        return self._time_ns

    @property
    def seq(self) -> int:
        """Its number among the events of this process."""
        return self._seq


_NO_PARAMS: Final[Mapping[str, Any]] = MappingProxyType({})


def main_input(inputs: Any, names: tuple[str, ...]) -> tuple[Any, Mapping[str, Any]]:
    """Split a run's inputs into the one that it is about, found by these names, else the first, and the rest."""
    if not isinstance(inputs, dict):
        return inputs, _NO_PARAMS  # an array has no truth to ask for
    if not inputs:
        return None, _NO_PARAMS
    main = main_name(inputs, names)
    if len(inputs) == 1:
        return inputs[main], _NO_PARAMS
    return inputs[main], {key: value for key, value in inputs.items() if key != main}


def main_name(inputs: dict[Any, Any], names: tuple[str, ...]) -> Any:
    """Return the name of the input that a run is about: of these the first that there is, else that of the first input."""
    for name in names:
        if name in inputs:
            return name
    return next(iter(inputs))


def prompts_of(prompt: Any) -> list[str]:
    """Return the prompts in the input that a text model is about, as text."""
    if prompt is None:
        return []
    if isinstance(prompt, (list, tuple)):
        return [item if isinstance(item, str) else payload.text_of(item) for item in prompt]
    return [payload.text_of(prompt)]


def _messages(messages: Any) -> list[dict[str, Any]]:
    if messages is None:
        return []
    if isinstance(messages, (list, tuple)):
        return [_message(message) for message in messages]
    return [_message(messages)]


def _message(message: Any) -> dict[str, Any]:
    try:
        return _read_message(message)
    except Exception:  # a property of the app's own class
        return {"role": "user", "content": message}


def _read_message(message: Any) -> dict[str, Any]:
    if isinstance(message, dict):
        return message
    if isinstance(message, tuple) and len(message) == 2:
        return {"role": message[0], "content": message[1]}
    content = getattr(message, "content", None)
    if content is None:
        return {"role": "user", "content": message}
    return {"role": getattr(message, "role", None) or getattr(message, "type", "user"), "content": content}


class _Started(Event):
    """``inputs`` is what the call was given: by parameter name, or the one thing that it is about.

    When it was said, and its number, are the run's own: what most subscribers never ask for is not copied for each.
    """

    __slots__ = ("inputs",)
    fields: ClassVar[tuple[str, ...]] = ("inputs",)
    is_start = True
    main_names: ClassVar[tuple[str, ...]] = ()
    """What the input is usually called that the run is about."""

    def __init__(self, run: Run, inputs: Any) -> None:
        self.run = run
        self.inputs = inputs

    @property
    def time_ns(self) -> int:
        """When the run started, in nanoseconds since the epoch."""
        return 0 if self.run is None else self.run.start_ns

    @property
    def seq(self) -> int:
        """Its number among the events of this process."""
        return 0 if self.run is None else self.run._seq


class LLMStart(_Started):
    """A text model is about to be called; the prompts are the input of that name, else the first."""

    __slots__ = ()
    signal_name = "llm_start"
    fields = ("prompts", "params")
    main_names = ("prompts", "prompt")

    @property
    def prompts(self) -> list[str]:
        """The prompts, as text."""
        return prompts_of(main_input(self.inputs, self.main_names)[0])

    @property
    def params(self) -> Mapping[str, Any]:
        """The other inputs."""
        return main_input(self.inputs, self.main_names)[1]


class ChatModelStart(_Started):
    """A chat model is about to be called; the messages are the input of that name, else the first."""

    __slots__ = ()
    signal_name = "chat_model_start"
    fields = ("messages", "params")
    main_names = ("messages",)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as provider-neutral dicts with ``role`` and ``content``."""
        return _messages(main_input(self.inputs, self.main_names)[0])

    @property
    def params(self) -> Mapping[str, Any]:
        """The other inputs."""
        return main_input(self.inputs, self.main_names)[1]


class LLMNewToken(_Said):
    """A model streamed a piece of its answer; ``index`` is 0-based in its run, ``chunk`` the raw item if it was not text."""

    __slots__ = ("chunk", "index", "token")
    signal_name = "llm_new_token"
    fields = ("token", "index", "chunk")

    def __init__(self, run: Run | None, time_ns: int, seq: int, token: str, index: int = 0, chunk: Any = None) -> None:
        self.run = run
        self._time_ns = time_ns
        self._seq = seq
        self.token = token
        self.index = index
        self.chunk = chunk


class _Terminal(Event):
    """The last event of a run, whose end is its time."""

    __slots__ = ("_seq", "output")
    is_end = True
    _seq: int

    @property
    def time_ns(self) -> int:
        """When the run ended, in nanoseconds since the epoch."""
        return 0 if self.run is None else self.run.end_ns or 0

    @property
    def seq(self) -> int:
        """Its number among the events of this process."""
        return self._seq


class _Ended(_Terminal):
    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ("output",)

    def __init__(self, run: Run, seq: int, output: Any) -> None:
        self.run = run
        self._seq = seq
        self.output = output


class Failed(_Terminal):
    """A run has failed or was cancelled; ``output`` is what there was before."""

    __slots__ = ("error",)
    fields = ("error", "output")

    def __init__(self, run: Run, seq: int, error: BaseException, output: Any = None) -> None:
        self.run = run
        self._seq = seq
        self.error = error
        self.output = output


class LLMEnd(_Ended):
    """A model call has ended; a stream's ``output`` is its joined text."""

    __slots__ = ()
    signal_name = "llm_end"
    fields = ("output", "usage")

    @property
    def usage(self) -> Usage | None:
        """What the call used, which the run knows."""
        return None if self.run is None else self.run.usage


class LLMError(Failed):
    """A model call has failed or was cancelled."""

    __slots__ = ()
    signal_name = "llm_error"


class ChainStart(_Started):
    """A chain, an agent, or another step that is no model, tool or retriever begins."""

    __slots__ = ()
    signal_name = "chain_start"


class ChainEnd(_Ended):
    """A chain has ended."""

    __slots__ = ()
    signal_name = "chain_end"


class ChainError(Failed):
    """A chain has failed or was cancelled."""

    __slots__ = ()
    signal_name = "chain_error"


class ToolStart(_Started):
    """A tool is about to be called."""

    __slots__ = ()
    signal_name = "tool_start"
    fields = ("inputs", "input_str")

    @property
    def input_str(self) -> str:
        """The inputs as text: the only argument when it is a string, else compact JSON, bounded."""
        inputs = self.inputs
        if isinstance(inputs, Mapping) and len(inputs) == 1:
            (only,) = inputs.values()
            if isinstance(only, str):
                return only
        return payload.text_of(inputs)


class ToolEnd(_Ended):
    """A tool has returned."""

    __slots__ = ()
    signal_name = "tool_end"


class ToolError(Failed):
    """A tool has failed or was cancelled."""

    __slots__ = ()
    signal_name = "tool_error"


class RetrieverStart(_Started):
    """A retriever is about to be asked; the query is the input of that name, else the first."""

    __slots__ = ()
    signal_name = "retriever_start"
    fields = ("query",)
    main_names = ("query",)

    @property
    def query(self) -> Any:
        """What it is asked."""
        return main_input(self.inputs, self.main_names)[0]


class RetrieverEnd(_Ended):
    """A retriever has answered; ``documents`` is its output."""

    __slots__ = ()
    signal_name = "retriever_end"
    fields = ("documents",)

    @property
    def documents(self) -> Any:
        """What was found."""
        return self.output


class RetrieverError(Failed):
    """A retriever has failed or was cancelled."""

    __slots__ = ()
    signal_name = "retriever_error"


class AgentAction(_Said):
    """An agent has decided to use a tool; ``log`` is its reasoning as text."""

    __slots__ = ("log", "tool", "tool_input")
    signal_name = "agent_action"
    fields = ("tool", "tool_input", "log")

    def __init__(self, run: Run | None, time_ns: int, seq: int, tool: str, tool_input: Any = None, log: str = "") -> None:
        super().__init__(run, time_ns, seq)
        self.tool = tool
        self.tool_input = tool_input
        self.log = log


class AgentFinish(_Said):
    """An agent is done."""

    __slots__ = ("log", "return_values")
    signal_name = "agent_finish"
    fields = ("return_values", "log")

    def __init__(self, run: Run | None, time_ns: int, seq: int, return_values: Any = None, log: str = "") -> None:
        super().__init__(run, time_ns, seq)
        self.return_values = return_values
        self.log = log


class Text(_Said):
    """A free line of text."""

    __slots__ = ("text",)
    signal_name = "text"
    fields = ("text",)

    def __init__(self, run: Run | None, time_ns: int, seq: int, text: str) -> None:
        super().__init__(run, time_ns, seq)
        self.text = text


class Retry(_Said):
    """A call is about to be tried again: ``attempt`` is 1-based, ``wait_s`` in seconds, ``error`` why."""

    __slots__ = ("attempt", "error", "wait_s")
    signal_name = "retry"
    fields = ("attempt", "wait_s", "error")

    def __init__(
        self,
        run: Run | None,
        time_ns: int,
        seq: int,
        attempt: int,
        wait_s: float = 0.0,
        error: BaseException | None = None,
    ) -> None:
        super().__init__(run, time_ns, seq)
        self.attempt = attempt
        self.wait_s = wait_s
        self.error = error


class CustomEvent(_Said):
    """An event of the app's own."""

    __slots__ = ("data", "name")
    signal_name = "custom_event"
    fields = ("name", "data")

    def __init__(self, run: Run | None, time_ns: int, seq: int, name: str, data: Any = None) -> None:
        super().__init__(run, time_ns, seq)
        self.name = name
        self.data = data


class SubscriberFailed(_Said):
    """``subscriber`` raised ``error`` while it heard ``hook``. A subscriber that fails on this event is only logged."""

    __slots__ = ("error", "hook", "subscriber")
    signal_name = "subscriber_failed"
    fields = ("hook", "subscriber", "error")

    def __init__(self, run: Run | None, time_ns: int, seq: int, hook: str, subscriber: object, error: BaseException) -> None:
        super().__init__(run, time_ns, seq)
        self.hook = hook
        self.subscriber = subscriber
        self.error = error


EVENTS: dict[str, type[Event]] = {
    event.signal_name: event
    for event in (
        LLMStart,
        ChatModelStart,
        LLMNewToken,
        LLMEnd,
        LLMError,
        ChainStart,
        ChainEnd,
        ChainError,
        ToolStart,
        ToolEnd,
        ToolError,
        RetrieverStart,
        RetrieverEnd,
        RetrieverError,
        AgentAction,
        AgentFinish,
        Text,
        Retry,
        CustomEvent,
        SubscriberFailed,
    )
}
"""The event class of each hook, in lifecycle order."""
