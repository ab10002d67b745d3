"""The bus: blinker's face, `subscribe`, and connections that many threads change at once."""

import functools
import gc
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import blinker
import pytest

from tracebus import (
    HOOKS,
    aemit,
    attach,
    chain_end,
    chain_start,
    custom_event,
    emit,
    flush,
    llm_end,
    llm_start,
    scope,
    stats,
    subscribe,
    subscriber_failed,
    text,
    trace,
    traced,
)
from tracebus.errors import ArgumentError, SubscriberError, UnknownHookError
from tracebus.events import EVENTS, Text
from tracebus.signals import Hook, isolated


@pytest.fixture(autouse=True)
def nobody_else_listens() -> Iterator[None]:
    with isolated():
        yield


def say(words: str = "hello") -> None:
    emit(text, text=words)


# -- blinker's face ----------------------------------------------------------------------------------------------------


def test_a_connected_receiver_is_called_with_the_sender_and_the_event() -> None:
    heard: list[Any] = []
    text.connect(lambda sender, event: heard.append((sender, event.text)))
    with trace("search"):
        say("hello")
    assert heard == [("search", "hello")]


def test_connect_returns_the_receiver_so_that_it_decorates() -> None:
    def receiver(sender: Any, event: Any) -> None: ...

    assert text.connect(receiver) is receiver


def test_an_event_said_outside_a_run_has_no_run() -> None:
    runs: list[Any] = []
    text.connect(lambda sender, event: runs.append(event.run))
    say()
    assert runs == [None]


def test_connect_via_hears_its_sender_alone() -> None:
    heard: list[Any] = []

    @text.connect_via("search")
    def receiver(sender: Any, event: Any) -> None:
        heard.append(sender)

    for name in ("search", "rank"):
        with trace(name):
            say()
    assert heard == ["search"]


def test_connect_via_keeps_a_receiver_that_nobody_holds() -> None:
    heard: list[Any] = []
    text.connect_via("search")(lambda sender, event: heard.append(sender))
    gc.collect()
    with trace("search"):
        say()
    assert heard == ["search"]


def test_connected_to_connects_for_a_block() -> None:
    heard: list[str] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(event.text)

    with text.connected_to(receiver):
        say("inside")
    say("outside")
    assert heard == ["inside"]


def test_connected_to_disconnects_when_its_block_raises() -> None:
    def receiver(sender: Any, event: Any) -> None: ...

    with pytest.raises(ZeroDivisionError), text.connected_to(receiver):
        raise ZeroDivisionError
    assert not text.has_receivers_for("anybody")


def test_connected_to_takes_a_sender() -> None:
    heard: list[Any] = []
    with text.connected_to(lambda sender, event: heard.append(sender), sender="a"):
        for name in ("a", "b"):
            with trace(name):
                say()
    assert heard == ["a"]


def test_muted_silences_for_a_block() -> None:
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append(event.text))
    with text.muted():
        say("inside")
    say("outside")
    assert heard == ["outside"]


def test_muted_blocks_nest() -> None:
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append(event.text))
    with text.muted():
        with text.muted():
            pass
        say("still muted")
    assert heard == []


def test_muted_silences_one_signal_only() -> None:
    heard: list[str] = []
    chain_end.connect(lambda sender, event: heard.append("end"))
    with chain_start.muted(), trace("a"):
        pass
    assert heard == ["end"]


def test_muted_silences_the_subscribers_of_a_scope() -> None:
    heard: list[str] = []
    with scope(callbacks=[lambda sender, event: heard.append(event.signal_name)]), text.muted(), trace("a"):
        say()
    assert heard == ["chain_start", "chain_end"]


def test_what_is_connected_while_muted_hears_afterwards() -> None:
    heard: list[str] = []
    with text.muted():
        text.connect(lambda sender, event: heard.append(event.text))
    say()
    assert heard == ["hello"]


def test_is_muted_says_so_and_may_be_set() -> None:
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append(event.text))
    text.is_muted = True
    say()
    was_muted, text.is_muted = text.is_muted, False
    assert (was_muted, text.is_muted, heard) == (True, False, [])


def test_receivers_run_in_the_order_they_were_connected() -> None:
    order: list[int] = []
    for number in range(50):
        text.connect(functools.partial(lambda number, sender, event: order.append(number), number))
    say()
    assert order == list(range(50))


def test_a_receiver_connected_again_goes_to_the_end() -> None:
    order: list[str] = []

    def first(sender: Any, event: Any) -> None:
        order.append("first")

    text.connect(first)
    text.connect(lambda sender, event: order.append("second"))
    text.disconnect(first)
    text.connect(first)
    say()
    assert order == ["second", "first"]


def test_connecting_twice_is_hearing_once() -> None:
    heard: list[str] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(event.text)

    text.connect(receiver)
    text.connect(receiver)
    say()
    assert heard == ["hello"]


def test_hearing_all_senders_and_one_of_them_is_hearing_once() -> None:
    heard: list[Any] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(sender)

    text.connect(receiver)
    text.connect(receiver, sender="a")
    with trace("a"):
        say()
    assert heard == ["a"]


def test_filtered_and_unfiltered_receivers_keep_their_order() -> None:
    order: list[int] = []
    for number, sender in enumerate(["a", blinker.ANY, "a", blinker.ANY]):
        text.connect(functools.partial(lambda number, sender, event: order.append(number), number), sender=sender)
    with trace("a"):
        say()
    assert order == [0, 1, 2, 3]


def test_disconnect_stops_it() -> None:
    heard: list[str] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(event.text)

    text.connect(receiver)
    text.disconnect(receiver)
    say()
    assert heard == []


def test_disconnecting_a_stranger_does_nothing() -> None:
    text.disconnect(lambda sender, event: None)


def test_a_bound_method_is_known_again_when_it_is_disconnected() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def hear(self, sender: Any, event: Any) -> None:
            self.heard.append(event)

    one, other = Recorder(), Recorder()
    text.connect(one.hear)
    text.connect(other.hear)
    text.disconnect(one.hear)
    say()
    assert (len(one.heard), len(other.heard)) == (0, 1)


def test_disconnect_with_a_sender_keeps_the_other_senders() -> None:
    heard: list[Any] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(sender)

    for name in ("a", "b"):
        text.connect(receiver, sender=name)
    text.disconnect(receiver, sender="a")
    for name in ("a", "b"):
        with trace(name):
            say()
    assert heard == ["b"]


def test_a_receiver_that_disconnects_itself_does_not_silence_the_next() -> None:
    heard: list[str] = []

    def once(sender: Any, event: Any) -> None:
        text.disconnect(once)
        heard.append("once")

    text.connect(once)
    text.connect(lambda sender, event: heard.append("next"))
    say()
    say()
    assert heard == ["once", "next", "next"]


def test_a_receiver_connected_during_an_event_hears_the_next_one() -> None:
    heard: list[str] = []

    def late(sender: Any, event: Any) -> None:
        heard.append(event.text)

    text.connect(lambda sender, event: text.connect(late))
    say("first")
    say("second")
    assert heard == ["second"]


def test_receivers_holds_who_is_connected() -> None:
    def receiver(sender: Any, event: Any) -> None: ...

    text.connect(receiver)
    assert list(text.receivers.values()) == [receiver]


def test_receivers_for_yields_them_in_order() -> None:
    def everybody(sender: Any, event: Any) -> None: ...

    def only_a(sender: Any, event: Any) -> None: ...

    text.connect(everybody)
    text.connect(only_a, sender="a")
    assert (list(text.receivers_for("a")), list(text.receivers_for("b"))) == ([everybody, only_a], [everybody])


def test_has_receivers_for_tells_senders_apart() -> None:
    text.connect(lambda sender, event: None, sender="a")
    assert (text.has_receivers_for("a"), text.has_receivers_for("b")) == (True, False)


def test_receiver_connected_is_sent_the_blinker_way() -> None:
    told: list[Any] = []

    def watcher(signal: Any, receiver: Any, sender: Any, weak: bool) -> None:
        told.append((signal, receiver, sender, weak))

    def receiver(sender: Any, event: Any) -> None: ...

    with text.receiver_connected.connected_to(watcher):
        text.connect(receiver, sender="a")
    assert told == [(text, receiver, "a", False)]


def test_receiver_disconnected_is_sent_the_blinker_way() -> None:
    told: list[Any] = []

    def watcher(signal: Any, receiver: Any, sender: Any) -> None:
        told.append((receiver, sender))

    def receiver(sender: Any, event: Any) -> None: ...

    text.connect(receiver)
    with text.receiver_disconnected.connected_to(watcher):
        text.disconnect(receiver)
    assert told == [(receiver, blinker.ANY)]


def test_send_delivers_an_event_of_ones_own_making() -> None:
    heard: list[Any] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append((sender, event.text))

    text.connect(receiver)
    assert text.send("me", event=Text(None, 0, 0, "hi")) == [(receiver, None)]
    assert heard == [("me", "hi")]


async def test_send_async_awaits_async_receivers() -> None:
    heard: list[Any] = []

    async def receiver(sender: Any, event: Any) -> None:
        heard.append(sender)

    text.connect(receiver)
    await text.send_async("me", event=Text(None, 0, 0, "hi"))
    assert heard == ["me"]


def test_what_is_not_callable_is_refused_with_the_remedy() -> None:
    with pytest.raises(SubscriberError, match=r"42 is not callable: subscribe a function called as fn\(sender, event"):
        text.connect(42)  # type: ignore[type-var]


# -- senders -----------------------------------------------------------------------------------------------------------


def test_a_traced_function_is_a_sender() -> None:
    @traced
    def answer() -> None: ...

    @traced
    def other() -> None: ...

    heard: list[Any] = []
    chain_end.connect(lambda sender, event: heard.append((sender, event.run.name)), sender=answer)
    answer()
    other()
    assert heard == [(answer, "answer")]


def test_a_method_taken_from_its_class_hears_every_instance() -> None:
    class Agent:
        @traced
        def step(self) -> None: ...

    heard: list[str] = []
    chain_end.connect(lambda sender, event: heard.append(event.run.name), sender=Agent.step)
    Agent().step()
    Agent().step()
    assert heard == ["Agent.step", "Agent.step"]


def test_a_traced_classmethod_is_a_sender() -> None:
    class Agent:
        @traced
        @classmethod
        def make(cls) -> None: ...

        @classmethod
        @traced
        def build(cls) -> None: ...

    heard: list[str] = []
    chain_end.connect(lambda sender, event: heard.append(event.run.name), sender=Agent.make)
    chain_end.connect(lambda sender, event: heard.append(event.run.name), sender=Agent.build)
    Agent.make()
    Agent().build()
    assert heard == ["Agent.make", "Agent.build"]


def test_a_classmethod_of_a_subclass_is_heard_too() -> None:
    class Agent:
        @traced
        @classmethod
        def make(cls) -> None: ...

    class Special(Agent): ...

    heard: list[str] = []
    chain_end.connect(lambda sender, event: heard.append(event.run.name), sender=Agent.make)
    Special.make()
    assert heard == ["Agent.make"]


def test_a_traced_staticmethod_is_a_sender() -> None:
    class Agent:
        @traced
        @staticmethod
        def helper() -> None: ...

    heard: list[str] = []
    chain_end.connect(lambda sender, event: heard.append(event.run.name), sender=Agent.helper)
    Agent().helper()
    assert heard == ["Agent.helper"]


def test_a_method_bound_to_an_instance_is_refused_with_the_remedy() -> None:
    class Agent:
        @traced
        def step(self) -> None: ...

    with pytest.raises(ArgumentError, match=r"bound to one instance: pass Agent\.step, which hears the runs of every"):
        chain_end.connect(lambda sender, event: None, sender=Agent().step)


def test_subscribe_refuses_a_bound_sender_before_it_connects_anything() -> None:
    class Agent:
        @traced
        def step(self) -> None: ...

    with pytest.raises(ArgumentError):
        subscribe(lambda sender, event: None, "chain_*", sender=Agent().step)
    assert not chain_end.receivers


def test_senders_are_told_apart_by_identity_not_by_equality() -> None:
    class Same:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    one, other = Same(), Same()
    text.connect(lambda sender, event: None, sender=one)
    assert (text.has_receivers_for(one), text.has_receivers_for(other)) == (True, False)


def test_a_sender_that_is_connected_stays_alive_so_that_its_id_stays_its_own() -> None:
    class Sender: ...

    sender = Sender()
    reference = weakref.ref(sender)
    text.connect(lambda sender, event: None, sender=sender)
    del sender
    gc.collect()
    assert reference() is not None


# -- references --------------------------------------------------------------------------------------------------------


def test_lambdas_stay_connected_through_a_collection() -> None:
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append(event.text))
    gc.collect()
    say()
    assert heard == ["hello"]


def test_closures_stay_connected_through_a_collection() -> None:
    heard: list[str] = []

    def make() -> Callable[..., None]:
        def closure(sender: Any, event: Any) -> None:
            heard.append(event.text)

        return closure

    text.connect(make())
    gc.collect()
    say()
    assert heard == ["hello"]


def test_methods_keep_their_object_through_a_collection() -> None:
    heard: list[str] = []

    class Recorder:
        def hear(self, sender: Any, event: Any) -> None:
            heard.append(event.text)

    text.connect(Recorder().hear)
    gc.collect()
    say()
    assert heard == ["hello"]


def test_a_weak_receiver_goes_when_nobody_else_holds_it() -> None:
    heard: list[str] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(event.text)

    text.connect(receiver, weak=True)
    say("held")
    del receiver
    gc.collect()
    say("gone")
    assert (heard, len(text.receivers)) == (["held"], 0)


def test_a_weak_method_goes_with_its_object() -> None:
    class Recorder:
        def hear(self, sender: Any, event: Any) -> None: ...

    recorder = Recorder()
    text.connect(recorder.hear, weak=True)
    held = len(text.receivers)
    del recorder
    gc.collect()
    assert (held, len(text.receivers)) == (1, 0)


def test_a_weak_method_stays_as_long_as_its_object() -> None:
    heard: list[str] = []

    class Recorder:
        def hear(self, sender: Any, event: Any) -> None:
            heard.append(event.text)

    recorder = Recorder()
    text.connect(recorder.hear, weak=True)
    gc.collect()
    say()
    assert (heard, recorder is not None) == (["hello"], True)


async def test_a_weak_async_receiver_is_awaited() -> None:
    heard: list[str] = []

    async def receiver(sender: Any, event: Any) -> None:
        heard.append(event.text)

    text.connect(receiver, weak=True)
    await aemit(text, text="hello")
    assert heard == ["hello"]


def test_a_strong_connection_holds_a_receiver_that_was_connected_weakly_elsewhere() -> None:
    heard: list[str] = []

    def receiver(sender: Any, event: Any) -> None:
        heard.append(event.signal_name)

    custom_event.connect(receiver, weak=True)
    text.connect(receiver)
    del receiver
    gc.collect()
    say()
    assert heard == ["text"]


def test_a_disconnected_receiver_is_let_go() -> None:
    def receiver(sender: Any, event: Any) -> None: ...

    reference = weakref.ref(receiver)
    text.connect(receiver)
    say()
    text.disconnect(receiver)
    del receiver
    gc.collect()
    assert reference() is None


def test_a_closed_subscription_lets_its_subscriber_go() -> None:
    def subscriber(sender: Any, event: Any) -> None: ...

    reference = weakref.ref(subscriber)
    with subscribe(subscriber):
        say()
    del subscriber
    gc.collect()
    assert reference() is None


def test_a_scope_that_stays_open_lets_the_callbacks_of_its_inner_scopes_go() -> None:
    class Handler:
        def on_text(self, words: str, **_: Any) -> None: ...

    references = []
    with scope(callbacks=[Handler()]):
        for _ in range(3):
            handler = Handler()
            references.append(weakref.ref(handler))
            with scope(callbacks=[handler]), trace("request"):
                say()
    del handler
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


# -- subscribe ---------------------------------------------------------------------------------------------------------


def test_subscribe_without_hooks_hears_all_of_them() -> None:
    subscribe(lambda sender, event: None)
    assert all(hook.receivers for hook in HOOKS.values())


@pytest.mark.parametrize(
    ("wanted", "hooks"),
    [
        (("text",), ["text"]),
        ((text,), ["text"]),
        (("llm_*",), ["llm_start", "llm_new_token", "llm_end", "llm_error"]),
        (("*_start", text), ["llm_start", "chat_model_start", "chain_start", "tool_start", "retriever_start", "text"]),
        (("llm_*", "llm_end", llm_end), ["llm_start", "llm_new_token", "llm_end", "llm_error"]),
        (("tool_[se]*",), ["tool_start", "tool_end", "tool_error"]),
    ],
)
def test_hooks_are_meant_by_name_signal_and_pattern(wanted: tuple[Any, ...], hooks: list[str]) -> None:
    subscribe(lambda sender, event: None, *wanted)
    assert [name for name, hook in HOOKS.items() if hook.receivers] == hooks


def test_one_subscription_hears_an_event_once_however_its_hook_was_meant() -> None:
    heard: list[str] = []
    subscribe(lambda sender, event: heard.append(event.text), "text", text, "te*")
    say()
    assert heard == ["hello"]


def test_close_ends_all_hooks_of_a_subscription() -> None:
    subscription = subscribe(lambda sender, event: None)
    subscription.close()
    assert (subscription.closed, any(hook.receivers for hook in HOOKS.values())) == (True, False)


def test_closing_twice_is_fine() -> None:
    subscription = subscribe(lambda sender, event: None)
    subscription.close()
    subscription.close()
    assert subscription.closed


def test_a_subscription_is_a_context_manager() -> None:
    heard: list[str] = []
    with subscribe(lambda sender, event: heard.append(event.text), "text") as subscription:
        say("inside")
    say("outside")
    assert (heard, subscription.closed) == (["inside"], True)


def test_subscribe_takes_a_sender() -> None:
    heard: list[str] = []
    subscribe(lambda sender, event: heard.append(event.run.name), "chain_end", sender="a")
    for name in ("a", "b"):
        with trace(name):
            pass
    assert heard == ["a"]


def test_within_hears_a_run_and_what_is_nested_in_it() -> None:
    heard: list[str] = []
    with trace("ours") as run, subscribe(lambda sender, event: heard.append(event.run.name), "text", within=run):
        say()
        with trace("nested"):
            say()
    assert heard == ["ours", "nested"]


def test_within_hears_nothing_of_other_runs() -> None:
    heard: list[Any] = []
    with trace("ours") as run:
        pass
    subscribe(lambda sender, event: heard.append(event.run), "text", within=run)
    say()
    with trace("other"):
        say()
    assert heard == []


def test_one_function_can_be_subscribed_within_two_runs() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.run.name)

    with trace("first") as first:
        subscribe(subscriber, "text", within=first)
        say()
    with trace("second") as second:
        subscribe(subscriber, "text", within=second)
        say()
    assert heard == ["first", "second"]


def test_closing_one_of_two_subscriptions_of_a_function_leaves_the_other() -> None:
    heard: list[str] = []

    def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)

    first = subscribe(subscriber, "text")
    subscribe(subscriber, "text")
    first.close()
    say()
    assert heard == ["hello"]


def test_within_counts_only_what_matched() -> None:
    with trace("ours") as run:
        pass
    subscription = subscribe(lambda sender, event: None, "text", within=run)
    say()
    assert subscription.stats.matched == 0


def test_within_in_the_background_hears_the_run_itself() -> None:
    heard: list[str] = []
    with trace("ours") as run:
        subscription = subscribe(lambda sender, event: heard.append(event.run.name), "text", within=run, delivery="background")
        say()
        with trace("nested"):
            say()
    flush()
    subscription.close()
    assert heard == ["ours", "nested"]


async def test_an_async_subscriber_within_a_run_is_awaited() -> None:
    heard: list[str] = []

    async def subscriber(sender: Any, event: Any) -> None:
        heard.append(event.text)

    with trace("ours") as run:
        subscribe(subscriber, "text", within=run)
        await aemit(text, text="hello")
    assert heard == ["hello"]


def test_the_repr_of_a_subscription_says_who_hears_and_how_much() -> None:
    def bill(sender: Any, event: Any) -> None: ...

    subscription = subscribe(bill, "text")
    say()
    counts = f"{__name__}.{bill.__qualname__}: 1 matched, 1 delivered, 0 failed, 0 dropped, 0 pending"
    assert re.fullmatch(rf"<Subscription {re.escape(counts)}, \S+ [µm]?s on average, \S+ [µm]?s at most>", repr(subscription))


def test_stats_lists_a_subscription_until_it_is_closed() -> None:
    def bill(sender: Any, event: Any) -> None: ...

    names = []
    with subscribe(bill, "text") as subscription:
        names.append(subscription.name in [one.name for one in stats()])
    names.append(subscription.name in [one.name for one in stats()])
    assert names == [True, False]


def test_stats_forgets_a_receiver_that_was_disconnected() -> None:
    def receiver(sender: Any, event: Any) -> None: ...

    text.connect(receiver)
    text.disconnect(receiver)
    assert [one.name for one in stats() if "forgets_a_receiver" in one.name] == []


# -- what is wrong is said at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["llm_strat", "llm_?", "", 7, None, blinker.Signal("llm_start")])
def test_an_unknown_hook_is_refused_naming_it_the_choices_and_the_remedy(hook: Any) -> None:
    with pytest.raises(UnknownHookError) as caught:
        subscribe(lambda sender, event: None, hook)
    message = str(caught.value)
    assert repr(hook) in message
    assert "llm_start, chat_model_start" in message
    assert "a pattern such as 'llm_*'" in message


def test_an_unknown_hook_connects_nothing_of_the_known_ones() -> None:
    with pytest.raises(UnknownHookError):
        subscribe(lambda sender, event: None, "text", "no_such_hook")
    assert not text.receivers


def test_emit_refuses_an_unknown_hook() -> None:
    with pytest.raises(UnknownHookError, match=r"no hook is called 'txet': choose from llm_start"):
        emit("txet", text="hello")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delivery": "later"}, "unknown delivery 'later' for .*: choose one of inline, thread, await, background"),
        ({"delivery": "await"}, "delivery='await' is not for sync subscribers .* inline, thread, background"),
        ({"delivery": "background", "raise_error": True}, "raise_error needs a subscriber that is called in place"),
        ({"queue_size": 0}, "queue_size must be a whole number of events, at least 1, not 0"),
        ({"queue_size": 1.5}, "at least 1, not 1.5"),
        ({"overflow": "panic"}, "unknown overflow policy 'panic': choose one of drop_oldest, drop_newest, block"),
    ],
)
def test_a_wrong_argument_of_subscribe_is_named_with_its_choices(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        subscribe(lambda sender, event: None, "text", **arguments)
    assert not text.receivers


@pytest.mark.parametrize("delivery", ["inline", "thread"])
def test_a_sync_delivery_is_refused_for_an_async_subscriber(delivery: Any) -> None:
    async def subscriber(sender: Any, event: Any) -> None: ...

    with pytest.raises(ArgumentError, match=r"is not for async subscribers .* await, background"):
        subscribe(subscriber, "text", delivery=delivery)


def test_a_subscriber_that_is_not_callable_is_refused() -> None:
    with pytest.raises(SubscriberError, match=r"attach\(\) a handler with on_\* methods"):
        subscribe("print", "text")  # type: ignore[arg-type]


# -- the namespace -----------------------------------------------------------------------------------------------------


def test_hooks_is_a_blinker_namespace_with_one_signal_a_hook() -> None:
    assert isinstance(HOOKS, blinker.Namespace)
    assert list(HOOKS) == list(EVENTS)


def test_asking_for_a_signal_again_gives_the_same_one() -> None:
    assert HOOKS.signal("text") is HOOKS["text"] is text


def test_a_new_signal_cannot_be_made_by_a_typing_error() -> None:
    with pytest.raises(UnknownHookError):
        HOOKS.signal("txet")
    assert "txet" not in HOOKS


@pytest.mark.parametrize("name", list(EVENTS))
def test_a_hook_is_a_blinker_signal_with_its_event_class(name: str) -> None:
    hook = HOOKS[name]
    assert isinstance(hook, blinker.Signal)
    assert (hook.name, hook.event_class.signal_name) == (name, name)  # type: ignore[attr-defined]


def test_an_event_tells_whether_its_run_begins_or_ends_with_it() -> None:
    starts = [name for name, event in EVENTS.items() if event.is_start]
    ends = [name for name, event in EVENTS.items() if event.is_end]
    assert starts == [name for name in EVENTS if name.endswith("_start")]
    assert ends == [name for name in EVENTS if name.endswith(("_end", "_error"))]


def test_isolated_puts_everything_back() -> None:
    heard: list[str] = []
    text.connect(lambda sender, event: heard.append("outer"))
    with isolated():
        text.connect(lambda sender, event: heard.append("inner"))
        say()
    say()
    assert heard == ["inner", "outer"]


def test_a_handler_attached_in_isolation_can_be_attached_again_afterwards() -> None:
    heard: list[str] = []

    class Handler:
        def on_text(self, words: str, **_: Any) -> None:
            heard.append(words)

    handler = Handler()
    with isolated():
        attach(handler)
    attach(handler)
    say()
    assert heard == ["hello"]


def test_a_failing_receiver_is_announced_with_its_hook() -> None:
    announced: list[Any] = []

    def broken(sender: Any, event: Any) -> None:
        raise ValueError("broken")

    text.connect(broken)
    subscriber_failed.connect(lambda sender, event: announced.append((event.hook, event.subscriber, event.error.args)))
    say()
    assert announced == [("text", broken, ("broken",))]


# -- many threads at once (demand 6) -----------------------------------------------------------------------------------


@pytest.fixture
def a_harsh_scheduler() -> Iterator[None]:
    """Switch threads as often as possible, and collect all the time."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(7)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run `work(number)` in `count` threads at once; return what they raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize(
    "seconds", [0.5, pytest.param(10, marks=[pytest.mark.long, pytest.mark.timeout(120)])], ids=["short", "full"]
)
@pytest.mark.usefixtures("a_harsh_scheduler")
def test_connecting_disconnecting_and_sending_from_eight_threads_never_fails(seconds: float) -> None:
    until = time.monotonic() + seconds
    out_of_order: list[Any] = []
    lasting: list[int] = []
    order = threading.local()

    def lasting_receiver(number: int) -> Callable[..., None]:
        def hear(sender: Any, event: Any) -> None:
            if number == 0:
                order.heard = []
            order.heard.append(number)
            if number == 2 and order.heard != [0, 1, 2]:
                out_of_order.append(order.heard)

        return hear

    for number in range(3):
        text.connect(lasting_receiver(number))
        lasting.append(number)

    def work(number: int) -> None:
        while time.monotonic() < until:

            def passing(sender: Any, event: Any) -> None: ...

            text.connect(passing)
            chain_start.connect(passing, sender=f"thread {number}")
            with trace(f"thread {number}"):
                say()
            HOOKS.signal("text")
            text.disconnect(passing)
            chain_start.disconnect(passing)
            with subscribe(passing, "llm_*"), llm_start.connected_to(passing, sender="x"):
                say()

    assert in_threads(8, work) == []
    assert out_of_order == []
    assert (len(text.receivers), len(chain_start.receivers), len(llm_start.receivers)) == (3, 0, 0)


@pytest.mark.usefixtures("a_harsh_scheduler")
def test_passing_receivers_of_many_threads_leave_nothing_behind() -> None:
    references: list[weakref.ref[Any]] = []

    def work(number: int) -> None:
        for _ in range(50):

            def passing(sender: Any, event: Any) -> None: ...

            references.append(weakref.ref(passing))
            with text.connected_to(passing):
                say()

    assert in_threads(8, work) == []
    gc.collect()
    assert [reference for reference in references if reference() is not None] == []


@pytest.mark.usefixtures("a_harsh_scheduler")
def test_weak_receivers_of_many_threads_vanish_without_an_error() -> None:
    def work(number: int) -> None:
        for _ in range(50):

            def passing(sender: Any, event: Any) -> None: ...

            text.connect(passing, weak=True)
            say()

    assert in_threads(8, work) == []
    gc.collect()
    assert len(text.receivers) == 0


@pytest.mark.usefixtures("a_harsh_scheduler")
def test_stats_can_be_asked_for_while_others_subscribe() -> None:
    def work(number: int) -> None:
        for _ in range(100):
            if number % 2:
                stats()
            else:
                subscribe(lambda sender, event: None, "text").close()

    assert in_threads(8, work) == []


@pytest.mark.usefixtures("a_harsh_scheduler")
def test_all_threads_get_the_same_signal_for_a_name() -> None:
    got: list[Hook[Any]] = []
    assert in_threads(8, lambda number: got.extend(HOOKS.signal(name) for name in EVENTS)) == []
    assert len({id(hook) for hook in got}) == len(EVENTS)
