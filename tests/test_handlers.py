"""Handlers: objects with on_* methods, where they can be given, and what their methods get."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tracebus import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    Usage,
    aemit,
    attach,
    current_run,
    custom_event,
    detach,
    emit,
    handlers,
    retry,
    scope,
    stats,
    text,
    trace,
    traced,
)
from tracebus.errors import MissingExtraError, SubscriberError
from tracebus.signals import HOOKS

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


class Recorder(BaseCallbackHandler):
    """Notes which of its methods were called with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        self.calls.append(("llm_start", serialized["name"], prompts, kwargs))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.calls.append(("llm_new_token", token))

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.calls.append(("llm_end", response, kwargs["usage"]))

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.calls.append(("chain_start", inputs))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.calls.append(("chain_end", outputs))


@traced(kind="llm")
def generate(prompt: str) -> Iterator[str]:
    yield "a"
    yield "b"
    run = current_run()
    if run is not None:
        run.usage = Usage(3, 2)


@traced
def answer(question: str) -> str:
    return "".join(generate(question))


HEARD_OF_ANSWER = ["chain_start", "llm_start", "llm_new_token", "llm_new_token", "llm_end", "chain_end"]


def test_an_attached_handler_hears_every_run() -> None:
    handler = Recorder()
    attach(handler)
    answer("q")
    assert handler.names == HEARD_OF_ANSWER


def test_methods_get_plain_values() -> None:
    handler = Recorder()
    attach(handler)
    answer("q")
    assert handler.calls[0] == ("chain_start", {"question": "q"})
    assert handler.calls[1][:3] == ("llm_start", "generate", ["q"])
    assert handler.calls[4] == ("llm_end", "ab", Usage(3, 2))
    assert handler.calls[5] == ("chain_end", "ab")


def test_a_start_comes_with_the_ids_tags_and_metadata_of_its_run() -> None:
    handler = Recorder()
    with scope(tags=["web"], metadata={"tenant": 7}), trace("outer") as outer:
        attach(handler)
        list(generate("q"))
    keywords = handler.calls[0][3]
    assert (keywords["parent_run_id"], keywords["tags"], keywords["metadata"]) == (outer.id, ["web"], {"tenant": 7})
    assert keywords["run_id"].version == 7


def test_attaching_twice_changes_nothing() -> None:
    handler = Recorder()
    assert attach(handler) is attach(handler)
    answer("q")
    assert handler.names == HEARD_OF_ANSWER


def test_a_handler_that_two_threads_attach_at_once_is_attached_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, both = Recorder(), threading.Barrier(2, timeout=10)
    connections_of = handlers.connections_of

    def when_both_have_looked(handler: Any) -> Any:
        both.wait()
        return connections_of(handler)

    monkeypatch.setattr(handlers, "connections_of", when_both_have_looked)
    threads = [threading.Thread(target=attach, args=(handler,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer("q")
    detach(handler)
    answer("q")
    assert handler.names == HEARD_OF_ANSWER


def test_a_detached_handler_hears_nothing_more() -> None:
    handler = Recorder()
    attach(handler)
    detach(handler)
    detach(handler)
    answer("q")
    assert handler.calls == []


def test_only_overridden_methods_are_connected() -> None:
    class Ends(BaseCallbackHandler):
        def on_chain_end(self, outputs: Any, **kwargs: Any) -> None: ...

    attach(Ends())
    assert [name for name, hook in HOOKS.items() if hook.plan] == ["chain_end"]


def test_any_object_with_on_methods_will_do() -> None:
    heard: list[Any] = []

    class Plain:
        def on_llm_end(self, response: Any) -> None:  # and takes only what it names
            heard.append(response)

    attach(Plain())
    answer("q")
    assert heard == ["ab"]


@pytest.mark.parametrize("useless", [object(), 5, "text", BaseCallbackHandler(), AsyncCallbackHandler()])
def test_an_object_that_hears_nothing_is_refused(useless: object) -> None:
    with pytest.raises(SubscriberError, match="define at least one of on_llm_start"):
        attach(useless)


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(SubscriberError, match=r"give an instance, Recorder\(\)"):
        attach(Recorder)


@pytest.mark.parametrize("callbacks", ["handler", 5, {"a": 1}])
def test_callbacks_that_are_no_list_are_refused(callbacks: Any) -> None:
    with pytest.raises(SubscriberError, match=r"give callbacks=\[handler\]"):
        scope(callbacks=callbacks)


def test_a_handler_given_at_construction_hears_that_callable_alone() -> None:
    handler = Recorder()

    @traced(callbacks=[handler])
    def chain(question: str) -> str:
        return answer(question)

    chain("q")
    assert handler.names == ["chain_start", "chain_end"]


def test_a_handler_given_at_request_hears_the_request_and_what_is_nested_in_it() -> None:
    handler = Recorder()
    with scope(callbacks=[handler]):
        answer("q")
    answer("another")
    assert handler.names == HEARD_OF_ANSWER


async def test_a_handler_given_at_request_hears_nothing_of_a_concurrent_request() -> None:
    first, second = Recorder(), Recorder()
    ready = anyio.Event()

    async def request(handler: Recorder, question: str) -> None:
        with scope(callbacks=[handler]):
            if question == "1":
                await ready.wait()
            answer(question)
            ready.set()

    async with anyio.create_task_group() as group:
        group.start_soon(request, first, "1")
        group.start_soon(request, second, "2")
    assert [call for call in first.calls if call[0] == "chain_start"] == [("chain_start", {"question": "1"})]
    assert [call for call in second.calls if call[0] == "chain_start"] == [("chain_start", {"question": "2"})]


def test_a_handler_given_everywhere_is_called_once_an_event() -> None:
    handler = Recorder()

    @traced(callbacks=[handler])
    def chain(question: str) -> str:
        return question

    attach(handler)
    with scope(callbacks=[handler]), scope(callbacks=[handler]):
        chain("q")
    assert handler.names == ["chain_start", "chain_end"]


def test_a_nested_scope_adds_and_never_hides_the_outer_one() -> None:
    outer, inner = Recorder(), Recorder()
    with scope(callbacks=[outer]), scope(callbacks=[inner]):
        answer("q")
    assert outer.names == inner.names == HEARD_OF_ANSWER


def test_a_function_can_be_given_as_callback() -> None:
    heard: list[str] = []
    with scope(callbacks=[lambda sender, event: heard.append(event.signal_name)]):
        answer("q")
    assert heard == HEARD_OF_ANSWER


@pytest.mark.parametrize(
    ("flag", "left"),
    [("ignore_llm", ["chain_start", "chain_end"]), ("ignore_chain", HEARD_OF_ANSWER[1:-1])],
)
def test_a_handler_can_ignore_a_group_of_hooks(flag: str, left: list[str]) -> None:
    handler = Recorder()
    attach(handler)
    setattr(handler, flag, True)  # looked at on every event
    answer("q")
    assert handler.names == left


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@traced(kind="chat_model")
def chat(messages: list[dict[str, str]]) -> str:
    return "Hello"


def test_a_handler_without_a_chat_method_hears_messages_as_text() -> None:
    handler = Recorder()
    attach(handler)
    chat(MESSAGES)
    assert handler.calls[0][:3] == ("llm_start", "chat", ["system: Be brief.\nuser: Hi"])


def test_a_chat_method_hears_messages_one_list_a_call() -> None:
    heard: list[Any] = []

    class Chat(Recorder):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            heard.append(messages)

    attach(Chat())
    chat(MESSAGES)
    assert heard == [[MESSAGES]]


def test_a_chat_method_that_is_not_implemented_falls_back() -> None:
    class Chat(Recorder):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise NotImplementedError

    handler = Chat()
    attach(handler)
    chat(MESSAGES)
    assert handler.names == ["llm_start", "llm_end"]
    assert not any(one.failed for one in stats())


async def test_an_async_chat_method_that_is_not_implemented_falls_back() -> None:
    heard: list[Any] = []

    class Chat(AsyncCallbackHandler):
        async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise NotImplementedError

        async def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
            heard.append(prompts)

    attach(Chat())
    async with trace("chat", kind="chat_model", inputs={"messages": MESSAGES}):
        assert heard == [["system: Be brief.\nuser: Hi"]]


async def test_a_fallback_may_take_its_time() -> None:
    heard: list[Any] = []

    class Chat(AsyncCallbackHandler):
        async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise NotImplementedError

        async def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
            await anyio.lowlevel.checkpoint()
            heard.append(prompts)

    attach(Chat())
    async with trace("chat", kind="chat_model", inputs={"messages": MESSAGES}):
        assert heard == [["system: Be brief.\nuser: Hi"]]


async def test_an_async_handler_can_ignore_a_group_of_hooks() -> None:
    heard: list[str] = []

    class Ends(AsyncCallbackHandler):
        ignore_llm = True

        async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            heard.append("llm_end")

        async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            heard.append("chain_end")

    attach(Ends())
    async with trace("chain"), trace("model", kind="llm"):
        pass
    assert heard == ["chain_end"]
    assert not any(one.failed for one in stats())


@pytest.mark.parametrize("flag", ["ignore_chat_model", "ignore_llm"])
def test_a_handler_without_a_chat_method_ignores_chat_models_by_either_flag(flag: str) -> None:
    handler = Recorder()
    setattr(handler, flag, True)
    attach(handler)
    chat(MESSAGES)
    assert "llm_start" not in handler.names


def test_ignoring_chat_models_leaves_no_fallback() -> None:
    handler = Recorder()
    handler.ignore_chat_model = True
    attach(handler)
    chat(MESSAGES)
    assert handler.names == ["llm_end"]


async def test_async_methods_have_heard_before_the_run_goes_on() -> None:
    heard: list[str] = []

    class Slow(AsyncCallbackHandler):
        async def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            await anyio.lowlevel.checkpoint()
            heard.append("start")

    @traced(callbacks=[Slow()])
    async def chain() -> None:
        heard.append("body")

    await chain()
    assert heard == ["start", "body"]


async def test_methods_that_are_not_overridden_can_be_awaited() -> None:
    class Polite(AsyncCallbackHandler):
        async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            await super().on_llm_end(response, **kwargs)

    attach(Polite())
    async with trace("model", kind="llm"):
        pass
    assert not any(one.failed for one in stats())


async def test_a_sync_handler_that_is_not_inline_is_called_in_a_thread() -> None:
    threads: list[int] = []

    class Elsewhere(BaseCallbackHandler):
        run_inline = False

        def on_text(self, text: str, **kwargs: Any) -> None:
            threads.append(__import__("threading").get_ident())

    attach(Elsewhere())
    await aemit(text, text="a")
    assert threads != [__import__("threading").get_ident()]


def test_a_handler_may_want_its_errors_to_reach_the_app() -> None:
    class Strict(BaseCallbackHandler):
        raise_error = True

        def on_text(self, text: str, **kwargs: Any) -> None:
            raise ValueError(text)

    attach(Strict())
    with pytest.raises(ValueError, match="no"):
        emit(text, text="no")


def test_the_other_hooks_reach_their_methods() -> None:
    heard: list[Any] = []

    class Others(BaseCallbackHandler):
        def on_tool_start(self, serialized: Any, input_str: str, *, inputs: Any, **kwargs: Any) -> None:
            heard.append((input_str, inputs))

        def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
            heard.append(str(error))

        def on_retriever_start(self, serialized: Any, query: Any, **kwargs: Any) -> None:
            heard.append(query)

        def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
            heard.append(documents)

        def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
            heard.append(retry_state.attempt)

        def on_custom_event(self, name: str, data: Any, *, run_id: Any, **kwargs: Any) -> None:
            heard.append((name, data, run_id))

    attach(Others())
    with pytest.raises(ValueError, match="broken"), trace("tool", kind="tool", inputs={"city": "Bern"}):
        raise ValueError("broken")
    with trace("search", kind="retriever", inputs={"query": "q"}) as run:
        run.output = ["document"]
    emit(retry, attempt=2)
    emit(custom_event, name="n", data=1)
    assert heard == [("Bern", {"city": "Bern"}), "broken", "q", ["document"], 2, ("n", 1, None)]


# -- adapters for handlers of other frameworks -------------------------------------------------------------------------

FRAMEWORK = """
class TheirHandler:
    def __init__(self):
        self.heard = []
    def theirs(self, said):
        self.heard.append(said)
"""
ADAPTER = """
from tracebus import chain_end
from tracebus.callbacks import Dialect, Method
def in_their_types(event):
    return (("their type", event.output),), {}
def adapt(handler):
    return Dialect((Method("theirs", chain_end, None, in_their_types),))
"""


def installed(folder: Path, adapter: str) -> None:
    (folder / "their_framework.py").write_text(FRAMEWORK)
    (folder / "their_adapter.py").write_text(adapter)
    info = folder / "their_adapter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-adapter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tracebus.adapters]\ntheir_framework = their_adapter:adapt\n")


@pytest.fixture
def framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("their_framework", "their_adapter"):
        sys.modules.pop(name, None)


def test_a_handler_of_another_framework_hears_through_its_adapter(framework: Path) -> None:
    installed(framework, ADAPTER)
    handler = __import__("their_framework").TheirHandler()
    with scope(callbacks=[handler]):
        answer("q")
    assert handler.heard == [("their type", "ab")]


def test_an_adapter_that_does_not_load_says_what_to_install(framework: Path) -> None:
    installed(framework, "import something_that_is_missing")
    handler = __import__("their_framework").TheirHandler()
    with pytest.raises(MissingExtraError, match=r'pip install "tracebus\[their\]"'):
        attach(handler)
