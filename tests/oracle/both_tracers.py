"""A pytest plugin: the bridge and a tracer of langchain-core's hear every run of a test suite, and are compared at its end.

What each of them heard of a run is brought into one shape, ``Told``; ``differences`` names what is not the same, and
``explained`` says in one line why that is meant, for the differences that are. Run by ``run``.
"""

import inspect
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import BaseMessage, ToolMessage, convert_to_openai_messages
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.context import register_configure_hook

from tracebus import Run, subscribe
from tracebus.integrations.langchain import install


@dataclass
class Told:
    """What was heard of one run."""

    id: str
    parent: str | None
    name: str
    kind: str
    outcome: str
    error: str | None
    inputs: Any
    output: Any
    tokens: int
    usage: dict[str, int] | None
    tags: list[str]
    metadata: dict[str, Any]
    ends: int = 1
    empty_tokens: int = 0
    test: str = ""


# -- the reference -----------------------------------------------------------------------------------------------------


class _Done:
    def __await__(self) -> Iterator[None]:
        return iter(())


def _served_both_ways(method: Callable[..., Any]) -> Any:
    """Let async managers await a sync method in place of calling it in a thread, where it would come too late to compare."""

    def call(*args: Any, **kwargs: Any) -> Any:
        method(*args, **kwargs)
        return _Done() if sys._getframe(1).f_code.co_flags & inspect.CO_COROUTINE else None

    code = call.__code__.replace(co_flags=call.__code__.co_flags | inspect.CO_COROUTINE)
    return types.FunctionType(code, call.__globals__, method.__name__, None, call.__closure__)


class Reference(BaseTracer):
    """Keeps every run that langchain-core's tracer makes."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.runs: list[Any] = []
        self.messages: dict[int, list[BaseMessage]] = {}
        self.results: dict[int, Any] = {}
        self.tests: dict[int, str] = {}
        self.deltas: Counter[str] = Counter()
        self.clashes: set[tuple[str, str]] = set()

    def _persist_run(self, run: Any) -> None:
        """Keep it in memory only."""

    @staticmethod
    def _get_stacktrace(error: BaseException) -> str:
        return repr(error)

    def _start_trace(self, run: Any) -> None:
        if str(run.id) in self.run_map:
            self.clashes.add((current_test, str(run.id)))
        super()._start_trace(run)

    def _on_run_create(self, run: Any) -> None:
        self.runs.append(run)
        self.tests[id(run)] = current_test

    def on_stream_event(self, event: Any, *, run_id: UUID, **said: Any) -> None:
        delta = event.get("delta") or {}
        self.deltas[str(run_id)] += delta.get("type") == "text-delta" and bool(delta.get("text"))

    def on_chat_model_start(self, serialized: Any, messages: Any, **said: Any) -> Any:
        run = super().on_chat_model_start(serialized, messages, **said)
        self.messages[id(run)] = [one for batch in messages for one in batch]
        return run

    def on_llm_end(self, response: Any, **said: Any) -> Any:
        run = super().on_llm_end(response, **said)
        self.results[id(run)] = response
        return run

    def on_llm_error(self, error: BaseException, **said: Any) -> Any:
        run = super().on_llm_error(error, **said)
        self.results[id(run)] = said.get("response")
        return run

    def told(self) -> list[Told]:
        return [self._told(run) for run in self.runs]

    def _told(self, run: Any) -> Told:
        result = self.results.get(id(run))
        return Told(
            id=str(run.id),
            parent=str(run.parent_run_id) if run.parent_run_id else None,
            name=run.name,
            kind=run.run_type,
            outcome="open" if run.end_time is None else "error" if run.error else "ok",
            error=run.error,
            inputs=self._inputs(run),
            output=_answers(result, bool(run.error)) if id(run) in self.results else _unwrapped(run),
            tokens=sum(event["name"] == "new_token" for event in run.events) or self.deltas[str(run.id)],
            empty_tokens=sum(_is_empty(event) for event in run.events),
            usage=_usage(result),
            tags=sorted(set(run.tags or ())),
            metadata=dict(run.extra.get("metadata") or {}),
            test=self.tests[id(run)],
        )

    def _inputs(self, run: Any) -> Any:
        if run.run_type != "chat_model":
            return run.inputs
        return [[one["role"], _text(one.get("content"))] for one in convert_to_openai_messages(self.messages[id(run)])]


for _name in {*vars(BaseTracer), "on_stream_event"} & {name for name in dir(BaseTracer) if name.startswith("on_")}:
    setattr(Reference, _name, _served_both_ways(getattr(Reference, _name)))


def _is_empty(event: Any) -> bool:
    if event["name"] != "new_token" or event["kwargs"]["token"]:
        return False
    message = getattr(event["kwargs"].get("chunk"), "message", None)
    return message is None or not (message.content or message.tool_call_chunks or message.additional_kwargs)


def _unwrapped(run: Any) -> Any:
    outputs = run.outputs
    if run.error:
        return outputs or None
    if run.run_type == "retriever" and outputs is not None:
        return [[one.page_content, one.metadata] for one in outputs["documents"]]
    if run.run_type == "tool" and outputs is not None:
        output = outputs["output"]
        return ["tool", output.content] if isinstance(output, ToolMessage) else output
    return outputs


def _answers(result: Any, is_error: bool) -> Any:
    if result is None or not result.generations:
        return None
    answers = [str(getattr(one, "message", one).text) for one in result.generations[0]]
    return answers if any(answers) or not is_error else None


def _usage(result: Any) -> dict[str, int] | None:
    if result is None or not result.generations:
        return None
    counted = [getattr(getattr(one, "message", None), "usage_metadata", None) for one in result.generations[0]]
    counted = [one for one in counted if one and "input_tokens" in one]  # of a cached answer it is known what it cost only
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {name: sum(one[name] for one in counted) for name in names} if counted else None


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(one if isinstance(one, str) else one.get("text", "") for one in content)
    return content or ""


# -- the bridge --------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What the bus said of one run."""

    run: Run
    test: str
    inputs: Any = None
    output: Any = None
    tokens: int = 0
    ends: int = 0


class Bus:
    """Keeps every run that comes from LangChain."""

    def __init__(self) -> None:
        self.runs: dict[int, Heard] = {}

    def hear(self, sender: object, event: Any) -> None:
        run = event.run
        if run is None or run.sender != "langchain":
            return
        heard = self.runs.setdefault(id(run), Heard(run, current_test))
        heard.tokens += event.signal_name == "llm_new_token"
        if event.signal_name.endswith("_start"):
            heard.inputs = _copied(run.inputs)
        if event.signal_name.endswith(("_end", "_error")):
            heard.ends += 1
            heard.output = _copied(run.output)
            heard.inputs = heard.inputs if heard.inputs is not None else _copied(run.inputs)

    def told(self) -> list[Told]:
        return [_told(heard) for heard in self.runs.values()]


def _copied(value: Any) -> Any:
    """Some apps add to what they gave and returned; langchain-core's tracer copies that much."""
    return dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value


def _told(heard: Heard) -> Told:
    run = heard.run
    usage = run.usage.as_dict() if run.usage is not None else None
    names = ("input_tokens", "output_tokens", "total_tokens")
    return Told(
        id=str(run.id),
        parent=None if run.parent_id is None else str(run.parent_id),
        name=run.name,
        kind=run.kind,
        outcome=run.status,
        error=None if run.error is None else repr(run.error),
        inputs=_given(run, heard.inputs),
        output=_returned(run, heard.output),
        tokens=heard.tokens,
        usage=usage and {name: usage[name] for name in names if name in usage},
        tags=sorted(set(run.tags)),
        metadata=dict(run.metadata),
        ends=heard.ends,
        test=heard.test,
    )


def _given(run: Run, inputs: Any) -> Any:
    if run.kind == "chat_model":
        return [[one["role"], _text(one.get("content"))] for one in inputs["messages"]]
    if run.kind == "llm" and not _is_called_as_chain(run):
        return None if inputs is None else {"prompts": inputs["prompts"]}
    return inputs if isinstance(inputs, dict) else {"input": "" if inputs is None else inputs}


def _is_called_as_chain(run: Run) -> bool:
    """Tell whether it is a model, as those of decisions, whose start LangChain tells of as a chain's."""
    return run.kind == "llm" and isinstance(run.inputs, dict) and "prompts" not in run.inputs


def _returned(run: Run, output: Any) -> Any:
    if run.kind in ("llm", "chat_model") and not _is_called_as_chain(run):
        if output is None:
            return None
        answers = output if isinstance(output, list) else [output]
        return [_text(one["content"]) if isinstance(one, dict) else one for one in answers]
    if run.kind == "retriever" and output is not None and run.status == "ok":
        return [[one["content"], one["metadata"]] for one in output]
    if run.kind == "tool":
        is_message = isinstance(output, dict) and output.get("role") == "tool"
        return ["tool", output["content"]] if is_message else output
    return output if isinstance(output, dict) or run.status != "ok" else {"output": output}


# -- compared ----------------------------------------------------------------------------------------------------------

EXPLAINED: dict[str, tuple[str, Callable[[str, Told, Told], bool]]] = {
    "prompt or parser": (
        "a prompt or a parser is a chain here: kinds are about hooks, and these speak through the chain's",
        lambda what, there, here: what == "kind" and there.kind in ("prompt", "parser") and here.kind == "chain",
    ),
    "left": (
        "a stream that its consumer left is closed early here; there it is ok in sync code, a GeneratorExit in async code",
        lambda what, there, here: (
            what in ("outcome", "error", "output", "inputs", "tokens", "usage") and here.outcome == "closed_early"
        ),
    ),
    "forgotten": (
        "a call that was cancelled is cancelled here; there it is left open",
        lambda what, there, here: what in ("outcome", "error") and there.outcome == "open" and here.outcome == "cancelled",
    ),
    "cancelled": (
        "a cancellation is an outcome of its own here; there it is an error",
        lambda what, there, here: what == "outcome" and here.outcome == "cancelled" and there.outcome == "error",
    ),
    "tool's error": (
        "a tool that made a message of its error has failed here; there it is ok",
        lambda what, there, here: what in ("outcome", "error") and here.kind == "tool" and there.outcome == "ok",
    ),
    "partial": (
        "a model that failed has answered what it streamed before; there it is what the error brings along",
        lambda what, there, here: what == "output" and there.outcome == "error" and there.output is None and here.tokens > 0,
    ),
    "unnamed": (
        "a run without a name is called by its kind here",
        lambda what, there, here: what == "name" and (there.name, here.name) == ("Unnamed", "chain"),
    ),
    "langsmith": (
        "what LangSmith's gateway and client add to the metadata of a run that has started stays there",
        lambda what, there, here: what == "metadata" and bool({"ls_gateway_info", "revision_id"} & there.metadata.keys()),
    ),
    "changed": (
        "inputs to which a chain with fallbacks added its exception later are kept here as they were at the start",
        lambda what, there, here: (
            what == "inputs" and {**here.inputs, "exception": there.inputs.get("exception")} == there.inputs
        ),
    ),
    "same id": (
        "a run that starts under the id of one that is open is that one here; there it is another",
        lambda what, there, here: (here.test, here.id) in reference.clashes,
    ),
    "decision": (
        "what a decision model used is read of its answer here; there LangSmith may have it, in the metadata of its own run",
        lambda what, there, here: what == "usage" and there.usage is None and "usage=" in repr(here.output),
    ),
    "empty chunk": (
        "a chunk with nothing in it is no token here: the first token's time is that of the first piece of an answer",
        lambda what, there, here: what == "tokens" and here.tokens == there.tokens - there.empty_tokens,
    ),
    "tool call": (
        "the id of a tool's call is in the metadata here; there it is not kept",
        lambda what, there, here: (
            what == "metadata"
            and {name: value for name, value in here.metadata.items() if name != "tool_call_id"} == there.metadata
        ),
    ),
}


def differences(there: Told, here: Told) -> Iterator[str]:
    for what in ("parent", "name", "kind", "outcome", "error", "inputs", "output", "tokens", "usage", "tags", "metadata"):
        if not _same(getattr(there, what), getattr(here, what)):
            yield what
    if here.ends != (here.outcome != "open"):
        yield "ends"


def _same(there: Any, here: Any) -> bool:
    try:
        return bool(there == here) or repr(there) == repr(here)
    except Exception:  # a value of the test's own, with an __eq__ or a __repr__ that raises
        return there is here


def explained(what: str, there: Told, here: Told) -> str | None:
    return next((name for name, (_, holds) in EXPLAINED.items() if holds(what, there, here)), None)


def by_id(told: list[Told]) -> dict[tuple[str, str, int], Told]:
    """Some tests give runs ids of their own, and the same again."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for one in told:
        key = (one.test, one.id)
        found[*key, seen[key]] = one
        seen[key] += 1
    return found


def compare(there: list[Told], here: list[Told]) -> dict[str, Any]:
    theirs, ours = by_id(there), by_id(here)
    agreed, known, unknown = 0, Counter[str](), []
    for key in theirs.keys() & ours.keys():
        found = [(what, explained(what, theirs[key], ours[key])) for what in differences(theirs[key], ours[key])]
        agreed += not found
        known.update({reason for _, reason in found if reason is not None})
        unknown += [_shown(what, theirs[key], ours[key]) for what, reason in found if reason is None]
    alone = [key for key in theirs.keys() - ours.keys() if key[:2] not in reference.clashes]
    unknown += [f"only langchain-core heard of {theirs[key]}" for key in alone]
    unknown += [f"only tracebus heard of {ours[key]}" for key in ours.keys() - theirs.keys()]
    return {"runs": len(theirs.keys() | ours.keys()), "agreed": agreed, "known": known, "unknown": unknown}


def _shown(what: str, there: Told, here: Told) -> str:
    values = [repr(getattr(one, what)) for one in (there, here)]
    return f"{what} of {there.kind} {there.name!r} in {there.test}\n    there {values[0][:400]}\n    here  {values[1][:400]}"


# -- the plugin --------------------------------------------------------------------------------------------------------

current_test = ""
reference, bus = Reference(), Bus()


def pytest_configure(config: pytest.Config) -> None:
    register_configure_hook(ContextVar("reference", default=reference), inheritable=True)
    subscribe(bus.hear)
    install()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global current_test
    current_test = item.nodeid


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = Path(os.environ["TRACEBUS_ORACLE"])
    found = compare(reference.told(), bus.told())
    (folder / f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.json").write_text(json.dumps(found), "utf-8")
