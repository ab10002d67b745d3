"""The run of one call that a provider's client makes: a block that a stream may outlive, and the life of that stream.

What a client's requests and answers look like is in the modules about the clients; how they are wrapped in ``patching``.

Each call is one run, however many libraries it goes through: see ``outer_call``.

**What is recorded.** ``inputs`` are the fields of the request's body, never its headers: ``messages`` (or ``prompts``), as
dicts with ``role`` and ``content``, and the parameters. Of the headers that a provider is to send to a tool, the values are
masked. ``output`` is the answer's text; where there is more than text, the message as a dict: ``role``, ``content`` (the text,
or None) and, where there are any, ``tool_calls`` (dicts with ``id``, ``name`` and ``arguments``), ``reasoning`` and
``refusal``. Several choices are a list of those. ``metadata`` gets ``server_address`` and ``server_port``, then
``response_id`` and ``finish_reasons``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from ..counts import Throttle
from ..families import MODEL_KINDS, SYNC, Colour, Pending
from ..redaction import MASK
from ..runs import Run, Usage, current_run, is_inside
from ..sources import LibrarySource, calling_run
from ..streams import TracedLife
from ..tracing import Source, end_run, fail_run, say_token, status_of, trace

__all__ = [
    "BESIDE_BODY",
    "Answer",
    "AnswerLife",
    "ModelCall",
    "PartOfCall",
    "arguments_of",
    "expect_part",
    "message",
    "one_or_all",
    "outer_call",
    "server_of",
    "without_headers",
]

_warnings: Final = Throttle()


def warn_once(source: Source, doing: str, error: Exception) -> None:
    """Log that we failed at something, the first time that we do; the app's call is not touched by it."""
    about = (source.name, doing, type(error).__name__)
    _warnings.warn(about, "tracebus failed at %s of %s, the app goes on: %r", doing, source.name, error)


class OuterCall(NamedTuple):
    """The run of a library that is about to call a model through a client, and what it will ask for.

    ``ends_with_part`` is for a library that does not tell when its stream is closed early or cancelled.
    """

    run: Run
    asked: Any
    ends_with_part: bool = False


_expected: ContextVar[OuterCall | None] = ContextVar("tracebus_outer_call", default=None)


def expect_part(run: Run, asked: Any, *, ends_with_part: bool = False) -> None:
    """Take the next call in this context that asks for ``asked`` for a part of ``run``, which is not current.

    ``asked`` are the messages, the prompt or the input as they are in the request's body.
    """
    _expected.set(OuterCall(run, asked, ends_with_part))


def outer_call(kind: str, body: Mapping[str, Any]) -> OuterCall | None:
    """Return what has told about the call that is about to start here: a framework that uses a client which is traced, too.

    That is who expects it, the framework that is calling a model here, or the innermost open run, when it is a library's own
    and of the same kind. A ``@traced`` function or a ``trace()`` block in between makes it a call of its own.
    """
    asked = body.get("messages") or body.get("input") or body.get("prompt")
    expected = _expected.get()
    if expected is not None and expected.run.status == "open" and expected.asked == asked:
        _expected.set(None)
        return expected
    run = current_run()
    calling = calling_run()
    if calling is not None and (run is None or run is calling or is_inside(calling, run)):
        run = calling
    if run is None or run.status != "open" or not isinstance(run._source, LibrarySource):
        return None
    same = run.kind == kind or (run.kind in MODEL_KINDS and kind in MODEL_KINDS)
    return OuterCall(run, asked) if same else None


class Answer(Protocol):
    """Reads what a model answers, whole or in chunks. It may raise for what it has never seen: that is logged once."""

    @property
    def model(self) -> str | None:
        """The model that answers, as it calls itself."""

    @property
    def usage(self) -> Usage | None:
        """What was used, as far as the provider has said."""

    def add(self, chunk: Any, /) -> str | None:
        """Take in a chunk of a stream; return the text in it that is new."""

    def read(self, result: Any, /) -> None:
        """Take in a whole answer, again or not: the client's own object, or a ``Record`` of the JSON it would be made of."""

    def output(self) -> Any:
        """Return what was answered so far; None when that is nothing."""

    def metadata(self) -> dict[str, Any]:
        """Return what else is known: ``response_id``, ``finish_reasons`` and what one provider has alone."""
        ...


class ModelCall(trace):
    """A block around one call of a client. Where the call returns a stream, the run goes on until that ends."""

    def __init__(self, source: LibrarySource, inputs: dict[str, Any], answer: Answer, server: Mapping[str, Any]) -> None:
        self._source = source
        self._server = server
        self._inputs = inputs
        self._model = inputs.get("model")
        self._run = None
        self._outside = None
        self._goes_on = False
        self.source: Source = source
        self.answer = answer

    def _open(self) -> Run:
        run = super()._open()
        run.metadata.update(self._server)
        return run

    def heard(self, result: Any) -> None:
        """Take in a whole answer: the client's own object, or the bytes of its JSON."""
        assert self._run is not None
        read_answer(self._run, self.answer, result)
        settle_answer(self._run, self.answer)

    def goes_on(self, colour: Colour) -> AnswerLife:
        """Leave the run open at the end of the block, and return what is to end it."""
        assert self._run is not None
        self._goes_on = True
        return AnswerLife(self._run, self.answer, colour)

    def ends_here(self) -> None:
        """End the run with the block after all."""
        self._goes_on = False

    def _end(self, colour: Colour, error: BaseException | None) -> Pending:
        assert self._run is not None
        if isinstance(error, GeneratorExit):  # the coroutine was thrown away while it waited for the answer
            return fail_run(self._run, SYNC, error)
        if error is None and self._goes_on:
            return None
        return super()._end(colour, error)


class AnswerLife(TracedLife):
    """Accompanies a stream of chunks to its end, and reads the answer out of them."""

    def __init__(self, run: Run, answer: Answer, colour: Colour) -> None:
        super().__init__(run._source, None, dict, colour, token_of=None, keep_output=False, run=run)
        self._answer = answer

    def item(self, item: Any) -> Pending:
        """Read a chunk, and say the text in it as a token."""
        run = self.run
        assert run is not None
        if run.status != "open":
            return None  # closed, and some chunks were still in a buffer
        try:
            token = self._answer.add(item)
        except Exception as error:
            warn_once(run._source, "reading a chunk", error)
            return None
        return say_token(run, token, item, self.colour) if token else None

    def finish(self, complete: bool) -> Pending:
        """End the run of a stream whose bytes the app reads itself, all of them or not."""
        return self.end() if complete else self.closed()

    def finish_now(self, complete: bool) -> None:
        """Do so where nothing can be awaited."""
        end_run(self._set_output(), SYNC, "ok" if complete else "closed_early")
        self.pause()

    def heard(self, result: Any) -> None:
        """Take in an answer that came as a whole in the end."""
        assert self.run is not None
        read_answer(self.run, self._answer, result)

    def _set_output(self) -> Run:
        run = self.run
        assert run is not None
        settle_answer(run, self._answer)
        return run


class PartOfCall:
    """A call that an outer library has told about: what that does not know is added to its run, nothing is started."""

    def __init__(self, outer: OuterCall, inputs: dict[str, Any], answer: Answer) -> None:
        self._outer = outer
        self.source = outer.run._source
        self.answer = answer
        if outer.run.inputs is None:
            outer.run.inputs = inputs

    def heard(self, result: Any) -> None:
        """Take in a whole answer."""
        read_answer(self._outer.run, self.answer, result)
        settle_answer(self._outer.run, self.answer)

    def goes_on(self, colour: Colour) -> AnswerLife:
        """Return what follows a stream."""
        return PartLife(self._outer, self.answer, colour)

    def ends_here(self) -> None:
        """Do nothing, as all of these."""

    def __enter__(self) -> Self:
        """Do nothing, as all of these."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Do nothing."""

    async def __aenter__(self) -> Self:
        """Do nothing."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class PartLife(AnswerLife):
    """Says the tokens of a stream on an outer run, which ends when its library says so, or never would."""

    def __init__(self, outer: OuterCall, answer: Answer, colour: Colour) -> None:
        super().__init__(outer.run, answer, colour)
        self._ends = outer.ends_with_part

    def end(self) -> Pending:
        """Leave the end to the library, which may have more to say than the client."""
        self._set_output()
        return None

    def _is_dropped(self) -> bool:
        """Tell whether the library leaves the stream before its end; some do not read on when they have the last choice."""
        return self._ends and not self._answer.metadata().get("finish_reasons")

    def closed(self) -> Pending:
        """End the run early if nobody else will."""
        return super().closed() if self._is_dropped() else self.end()

    def failed(self, error: BaseException) -> Pending:
        """Leave errors to the library; cancellations are not among those that all know of."""
        cancelled = self._is_dropped() and status_of(error) == "cancelled"
        return super().failed(error) if cancelled else self.end()

    def thrown_away(self, error: BaseException) -> None:
        """Do as for what failed."""
        if self._is_dropped():
            super().thrown_away(error)

    def close_now(self) -> None:
        """Do as for what is closed."""
        if self._is_dropped():
            super().close_now()

    def finish_now(self, complete: bool) -> None:
        """Do as for what is closed, or has ended."""
        if complete:
            self.end()
        else:
            self.close_now()


def read_answer(run: Run, answer: Answer, result: Any) -> None:
    """Let ``answer`` read an object of the client's, or the bytes of the JSON that it would be made of."""
    try:
        answer.read(json.loads(result, object_hook=Record) if isinstance(result, bytes) else result)
    except Exception as error:
        warn_once(run._source, "reading an answer", error)


def settle_answer(run: Run, answer: Answer) -> None:
    """Put into the run what is known of the answer, unless it has ended."""
    if run.status != "open":
        return
    try:
        run.output, run.usage, run.model = answer.output(), answer.usage, answer.model or run.model
        run.metadata.update((name, value) for name, value in answer.metadata().items() if value)
    except Exception as error:
        warn_once(run._source, "putting together an answer", error)


BESIDE_BODY: Final = frozenset({"extra_headers", "extra_query"})
"""What a call may be given that is sent beside its body."""


def without_headers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be recorded of a request's parameters: keys are in headers of any name, so that none is recognised."""
    kept = {name: value for name, value in parameters.items() if name not in BESIDE_BODY}
    if isinstance(tools := kept.get("tools"), list):
        kept["tools"] = [_masked(tool) if isinstance(tool, Mapping) and tool.get("headers") else tool for tool in tools]
    if isinstance(body := kept.get("extra_body"), Mapping):
        kept["extra_body"] = without_headers(body)
    return kept


def _masked(tool: Mapping[str, Any]) -> dict[str, Any]:
    headers = tool["headers"]
    return {**tool, "headers": dict.fromkeys(headers, MASK) if isinstance(headers, Mapping) else MASK}


_PORTS: Final = {"https": 443, "http": 80}


def server_of(url: object) -> dict[str, Any]:
    """Return what a run's metadata say of the server that is asked: its name or address, and its port; nothing for no URL."""
    try:
        parts = urlsplit(str(url))
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return {}
    return {"server_address": parts.hostname, "server_port": port} if parts.hostname and port else {}


class Record(dict[str, Any]):
    """A JSON object whose fields are attributes, None where there is none: what stands for a client's own objects."""

    __getattr__ = dict.get


def message(text: str | None, **more: Any) -> Any:
    """Return a message: its text, or a dict when there is more; None when there is nothing."""
    known = {name: value for name, value in more.items() if value}
    return {"role": "assistant", "content": text or None, **known} if known else text or None


def one_or_all(choices: Sequence[Any]) -> Any:
    """Return the only choice, or the list of them; None for none."""
    return choices[0] if len(choices) == 1 else list(choices) or None


def arguments_of(text: Any) -> Any:
    """Return a tool call's arguments as the JSON object that they are; a text that was cut off stays one."""
    if not isinstance(text, str):
        return text
    try:
        arguments = json.loads(text)
    except ValueError:
        return text
    return arguments if isinstance(arguments, Mapping) else text
