"""Where it is said: one blinker signal a hook, and who is connected to it. How an event gets there is in ``dispatch``.

What differs from blinker is said in ``Hook``. Connections are kept as immutable snapshots, replaced under a lock, so that
an emission reads one attribute and never waits.
"""

from __future__ import annotations

import inspect
import os
import weakref
from _thread import RLock  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import blinker

from .dispatch import Plan, connect_receiver, deliver, deliver_async
from .errors import ArgumentError, UnknownHookError
from .events import (
    EVENTS,
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
from .late import fnmatch, loops
from .notebooks import site_of_caller
from .runs import Run, next_seq, wall_now
from .subscriptions import (
    QUEUE_BYTES,
    QUEUE_EVENTS,
    Connection,
    Delivery,
    Overflow,
    QueueLimits,
    Subscription,
    announce_failures_with,
    check_callable,
    identity_of,
    is_async_callable,
)

if TYPE_CHECKING:
    from .subscriptions import Receiver

__all__ = [
    "HOOKS",
    "Hook",
    "Hooks",
    "Route",
    "agent_action",
    "agent_finish",
    "chain_end",
    "chain_error",
    "chain_start",
    "chat_model_start",
    "custom_event",
    "llm_end",
    "llm_error",
    "llm_new_token",
    "llm_start",
    "retriever_end",
    "retriever_error",
    "retriever_start",
    "retry",
    "subscribe",
    "subscriber_failed",
    "text",
    "tool_end",
    "tool_error",
    "tool_start",
]

ANY: Final = blinker.ANY

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])


class _Bus:
    """Whether anybody is connected to anything: the one check of a traced call that nobody listens to."""

    __slots__ = ("disabled", "live")

    def __init__(self) -> None:
        self.disabled = os.environ.get("TRACEBUS_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"}
        self.live = False


bus: Final = _Bus()
_lock = RLock()


class Hook(blinker.NamedSignal, Generic[E]):
    """The signal of one hook. Receivers are called as ``receiver(sender, event=event)``.

    As in blinker, but: references are strong by default, receivers run in the order they were connected, connecting and
    disconnecting is safe from any thread, one receiver's failure never stops the next, and async receivers are awaited
    or queued instead of refused. What a receiver returns is not collected.
    """

    def __init__(self, event_class: type[E]) -> None:
        self._connections: tuple[Connection, ...] = ()
        self._filtered: dict[object, Plan | None] = {}
        self.is_filtered = False
        self._muted = 0
        self.event_class = event_class
        self.plan: Plan | None = None
        self.version = 0
        super().__init__(event_class.signal_name, event_class.__doc__)

    # -- blinker's face ------------------------------------------------------------------------------------------------

    def connect(self, receiver: F, sender: Any = ANY, weak: bool = False) -> F:
        """Call ``receiver(sender, event=event)`` on every event, or on those of one sender; return the receiver.

        Raises SubscriberError when it is not callable.
        """
        check_callable(receiver)
        with _lock:
            subscription = _connected_as(receiver, weak)
            self.add(connect_receiver(subscription, cast("Receiver", subscription.target), sender, sender_key(sender)))
        self._tell("receiver_connected", receiver=receiver, sender=sender, weak=weak)
        return receiver

    def disconnect(self, receiver: Callable[..., Any], sender: Any = ANY) -> None:
        """Stop calling ``receiver``, or only for one sender. Disconnecting what is not connected does nothing."""
        key, only = identity_of(receiver), sender_key(sender)
        self.remove(lambda c: c.key == key and (only is None or c.sender_key == only))
        self._tell("receiver_disconnected", receiver=receiver, sender=sender)

    @contextmanager
    def connected_to(self, receiver: Callable[..., Any], sender: Any = ANY) -> Generator[None, None, None]:
        """Connect ``receiver`` for a block."""
        self.connect(receiver, sender=sender)
        try:
            yield
        finally:
            self.disconnect(receiver, sender)

    @contextmanager
    def muted(self) -> Generator[None, None, None]:
        """Silence the signal for a block, in all threads."""
        self._mute(1)
        try:
            yield
        finally:
            self._mute(-1)

    def _mute(self, by: int) -> None:
        if by == 0:
            return
        with _lock:
            self._muted += by
            self._rebuild()

    @property
    def is_muted(self) -> bool:
        """Whether the signal is silenced; may be set."""
        return self._muted > 0

    @is_muted.setter
    def is_muted(self, muted: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._mute(int(muted) - self._muted)

    def send(self, sender: Any = None, /, *, event: E, **_: Any) -> list[tuple[Callable[..., Any], Any]]:  # type: ignore[override]
        """Deliver ``event`` from sync code; return the receivers, each with None."""
        plan = self.plan_for(sender, event.run)
        if plan is None:
            return []
        deliver(plan, sender, event)
        return [(connection.receiver, None) for connection in plan.connections]

    async def send_async(  # type: ignore[override]
        self, sender: Any = None, /, *, event: E, **_: Any
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Deliver ``event`` from async code; return the receivers, each with None."""
        plan = self.plan_for(sender, event.run)
        if plan is None:
            return []
        remaining = deliver_async(plan, sender, event)
        if remaining is not None:
            await remaining
        return [(connection.receiver, None) for connection in plan.connections]

    def receivers_for(self, sender: Any) -> Generator[Callable[..., Any], None, None]:
        """Yield the receivers that hear ``sender``, in order."""
        plan = self.plan_for(sender, None)
        if plan is not None:
            yield from [connection.receiver for connection in plan.connections]

    def has_receivers_for(self, sender: Any) -> bool:
        """Tell whether anybody hears ``sender``."""
        return self.plan_for(sender, None) is not None

    def _clear_state(self) -> None:
        self.remove(lambda _: True)

    def _tell(self, name: str, **arguments: Any) -> None:
        if name in self.__dict__:  # blinker makes these signals when somebody first asks for them
            self.__dict__[name].send(self, **arguments)

    # -- what the tracer uses ------------------------------------------------------------------------------------------

    def plan_for(self, sender: object, run: Run | None) -> Plan | None:
        """Return whom an event of ``sender`` on ``run`` goes to; None for nobody."""
        plan = self.plan
        if self._filtered:
            plan = self._filtered.get(sender_key(sender), plan)
        if run is not None and run._route is not None:
            plan = run._route.merged(self, plan)
        return plan

    def add(self, connection: Connection) -> None:
        """Add a connection behind the others, in place of what the same notebook cell connected before."""
        site = connection.subscription.site
        with _lock:
            kept = [c for c in self._connections if site is None or not site.replaces(c.subscription.site)]
            known = {(c.subscription, c.sender_key) for c in kept}
            if (connection.subscription, connection.sender_key) not in known:
                kept.append(connection)
            self._replace(kept)

    def remove(self, gone: Callable[[Connection], bool]) -> None:
        """Remove the connections for which ``gone`` is true."""
        with _lock:
            self._replace([connection for connection in self._connections if not gone(connection)])
            still = {connection.subscription for hook in HOOKS.values() for connection in hook._connections}
            for known, subscription in list(standing.items()):
                if subscription not in still:
                    del standing[known]

    def _replace(self, connections: Iterable[Connection]) -> None:
        self._connections = tuple(connections)
        self.receivers = {connection.key: connection.receiver for connection in self._connections}
        self._rebuild()

    def _rebuild(self) -> None:
        heard = () if self._muted or bus.disabled else self._connections
        by_sender = {connection.sender_key for connection in heard} - {None}
        self._filtered = {
            key: Plan.of(unique(c for c in heard if c.sender_key is None or c.sender_key == key)) for key in by_sender
        }
        self.is_filtered = bool(self._filtered)
        self.plan = Plan.of(unique(c for c in heard if c.sender_key is None))
        self.version += 1
        bus.live = any(hook.plan is not None or hook._filtered for hook in HOOKS.values())


def unique(connections: Iterable[Connection]) -> list[Connection]:
    """Keep the first connection of each subscriber: nobody hears an event twice."""
    first: dict[object, Connection] = {}
    for connection in connections:
        first.setdefault(connection.key, connection)
    return list(first.values())


class Hooks(blinker.Namespace):
    """The hooks by name, in lifecycle order."""

    def signal(self, name: str, doc: str | None = None) -> Hook[Any]:
        """Return the hook's signal; raise UnknownHookError, because the hooks are fixed."""
        try:
            return cast("Hook[Any]", self[name])
        except KeyError:
            raise _unknown_hook(name) from None

    def values(self) -> Any:
        """Return the signals."""
        return super().values()

    def matching(self, *wanted: str | blinker.Signal) -> list[Hook[Any]]:
        """Return the hooks meant by names, signals and patterns such as ``"llm_*"``, each once; all when none is given.

        Raises UnknownHookError for what matches nothing.
        """
        found: dict[str, Hook[Any]] = {}
        for pattern in wanted or ("*",):
            found.update((hook.name, hook) for hook in self._meant_by(pattern))
        return [cast("Hook[Any]", hook) for name, hook in self.items() if name in found]

    def _meant_by(self, pattern: object) -> list[Hook[Any]]:
        if isinstance(pattern, Hook):
            return [pattern]
        names = fnmatch.filter(self, pattern) if isinstance(pattern, str) else []
        if not names:
            raise _unknown_hook(pattern)
        return [self.signal(name) for name in names]


def _unknown_hook(name: object) -> UnknownHookError:
    return UnknownHookError(f"no hook is called {name!r}: choose from {', '.join(EVENTS)}, or a pattern such as 'llm_*'")


llm_start: Final = Hook(LLMStart)
chat_model_start: Final = Hook(ChatModelStart)
llm_new_token: Final = Hook(LLMNewToken)
llm_end: Final = Hook(LLMEnd)
llm_error: Final = Hook(LLMError)
chain_start: Final = Hook(ChainStart)
chain_end: Final = Hook(ChainEnd)
chain_error: Final = Hook(ChainError)
tool_start: Final = Hook(ToolStart)
tool_end: Final = Hook(ToolEnd)
tool_error: Final = Hook(ToolError)
retriever_start: Final = Hook(RetrieverStart)
retriever_end: Final = Hook(RetrieverEnd)
retriever_error: Final = Hook(RetrieverError)
agent_action: Final = Hook(AgentAction)
agent_finish: Final = Hook(AgentFinish)
text: Final = Hook(Text)
retry: Final = Hook(Retry)
custom_event: Final = Hook(CustomEvent)
subscriber_failed: Final = Hook(SubscriberFailed)

HOOKS: Final = Hooks(
    {
        hook.name: hook
        for hook in (
            llm_start,
            chat_model_start,
            llm_new_token,
            llm_end,
            llm_error,
            chain_start,
            chain_end,
            chain_error,
            tool_start,
            tool_end,
            tool_error,
            retriever_start,
            retriever_end,
            retriever_error,
            agent_action,
            agent_finish,
            text,
            retry,
            custom_event,
            subscriber_failed,
        )
    }
)
"""Every hook's signal by name: a ``blinker.Namespace`` that cannot grow."""


JOINED_KEPT: Final = 64
"""How many combinations a route remembers; one that lives long may meet a new callable at every request."""


class Route:
    """Who hears the runs of a scope or of one callable, besides those who hear everything."""

    __slots__ = ("_joined", "_merged", "connections")

    def __init__(self, connections: dict[Hook[Any], tuple[Connection, ...]]) -> None:
        self.connections = connections
        self._merged: dict[Hook[Any], tuple[int, Plan | None, Plan | None]] = {}
        self._joined: dict[Route, Route] = {}

    def merged(self, hook: Hook[Any], base: Plan | None) -> Plan | None:
        """Return ``base`` and the route's own subscribers to ``hook``, each once."""
        known = self._merged.get(hook)
        if known is not None and known[0] == hook.version and known[1] is base:
            return known[2]
        version = hook.version
        own = () if hook.is_muted or bus.disabled else self.connections.get(hook, ())
        plan = Plan.of(unique((*(base.connections if base else ()), *own))) if own else base
        self._merged[hook] = version, base, plan
        return plan

    def with_inner(self, other: Route) -> Route:
        """Return the route of a scope inside this one's."""
        hooks = {**self.connections, **other.connections}
        return Route({hook: self.connections.get(hook, ()) + other.connections.get(hook, ()) for hook in hooks})

    def with_callable(self, other: Route) -> Route:
        """Return the route of a callable's runs in this scope, remembered for its next run."""
        route = self._joined.get(other)
        if route is None:
            if len(self._joined) >= JOINED_KEPT:
                self._joined.clear()
            route = self._joined[other] = self.with_inner(other)
        return route


def subscribe(
    fn: Receiver,
    *hooks: str | blinker.Signal,
    sender: Any = ANY,
    delivery: Delivery | None = None,
    raise_error: bool = False,
    queue_size: int = QUEUE_EVENTS,
    queue_bytes: int = QUEUE_BYTES,
    overflow: Overflow = "drop_oldest",
    within: Run | None = None,
) -> Subscription:
    """Connect one callable to several hooks and return the subscription, whose ``close()`` ends it.

    Hooks are names, signals or patterns such as ``"llm_*"``; all when none is given. ``sender`` is a traced callable or
    the name of a ``trace()`` block, ``within`` a run: only it and what is nested in it is heard. ``delivery`` is
    ``"inline"`` or ``"thread"`` for sync callables, ``"await"`` for async ones, ``"background"`` for both; by default
    sync ones are called in place and async ones awaited. A queue holds ``queue_size`` events and about
    ``queue_bytes`` of what they say; ``overflow`` is ``"drop_oldest"``, ``"drop_newest"``, or ``"block"``, with which sync
    code outside of a loop waits for room, at most five seconds.

    Raises SubscriberError when ``fn`` is not callable, UnknownHookError and ArgumentError for the rest.
    """
    check_callable(fn)
    _check_delivery(fn, delivery, raise_error)
    wanted = HOOKS.matching(*hooks)
    limits = QueueLimits(queue_size, queue_bytes, overflow)
    subscription = Subscription(fn, delivery=delivery, raise_error=raise_error, limits=limits, disconnect=close_subscription)
    subscription.site = site_of_caller(fn)
    subscription.connected_loop = loops.current_loop()
    connection = connect_receiver(subscription, fn, sender, sender_key(sender))
    if within is not None:
        connection.key = subscription  # the same function may be subscribed within another run, too
        connection.within = within
        connection.is_plain = connection.is_brief = False  # those are called without looking
    for hook in wanted:
        hook.add(connection)
    return subscription


def _check_delivery(fn: Receiver, delivery: Delivery | None, raise_error: bool) -> None:
    wrong = ("inline", "thread") if is_async_callable(fn) else ("await",)
    if delivery in wrong:
        kind, choices = ("async", "await, background") if len(wrong) == 2 else ("sync", "inline, thread, background")
        raise ArgumentError(f"delivery={delivery!r} is not for {kind} subscribers such as {fn!r}: choose one of {choices}")
    if raise_error and delivery == "background":
        raise ArgumentError("raise_error needs a subscriber that is called in place or awaited, not delivery='background'")


def close_subscription(subscription: Subscription) -> None:
    """Disconnect everything that belongs to one subscription."""
    for hook in HOOKS.values():
        hook.remove(lambda connection: connection.subscription is subscription)
    if subscription.lane is not None:
        subscription.lane.stop()


standing: dict[tuple[str, object], Subscription] = {}
"""The subscriptions that are found by their subscriber: those of ``connect``, one for all hooks so that its events share one
queue, and those of ``attach``."""


def _connected_as(receiver: Callable[..., Any], weak: bool) -> Subscription:
    key = identity_of(receiver)
    kind = "connect weakly" if weak else "connect"
    subscription = standing.get((kind, key))
    if subscription is None:
        target = _WeakReceiver(receiver) if weak else receiver
        subscription = standing[kind, key] = Subscription(target, key=key, disconnect=close_subscription)
        subscription.site = site_of_caller(receiver)
        subscription.connected_loop = loops.current_loop()
    return subscription


class _WeakReceiver:
    """Calls a receiver that somebody else keeps alive, and disconnects itself when nobody does."""

    def __init__(self, receiver: Callable[..., Any]) -> None:
        reference = weakref.WeakMethod if inspect.ismethod(receiver) else weakref.ref
        key = identity_of(receiver)
        self.__qualname__ = str(getattr(receiver, "__qualname__", type(receiver).__name__))
        self._receiver = reference(receiver, lambda _: _forget(key))

    def __call__(self, sender: Any, /, *, event: Event) -> Any:
        receiver = self._receiver()
        return None if receiver is None else receiver(sender, event=event)


def _forget(key: object) -> None:
    subscription = standing.pop(("connect weakly", key), None)
    if subscription is not None:
        subscription.close()


def sender_key(sender: Any) -> object:
    """Return what identifies a sender: its text, or the object itself; None for any sender.

    Raises ArgumentError for a method bound to an instance, whose runs cannot be told from those of other instances.
    """
    if sender is ANY:
        return None
    if isinstance(sender, str):
        return sender
    if inspect.ismethod(sender):
        if not inspect.isclass(sender.__self__):
            owner = type(sender.__self__).__name__
            remedy = f"pass {owner}.{sender.__name__}, which hears the runs of every {owner}"
            raise ArgumentError(f"sender={sender.__qualname__} is bound to one instance: {remedy}")
        return id(sender.__func__)
    return id(sender)


def _announce_failure(subscription: Subscription, event: Event, error: BaseException) -> None:
    if isinstance(event, SubscriberFailed) or not bus.live:
        return
    run = event.run
    sender = subscription.name if run is None else run.sender
    plan = subscriber_failed.plan_for(sender, run)
    if plan is not None:
        said = SubscriberFailed(run, wall_now(), next_seq(), event.signal_name, subscription.target, error)
        deliver(plan, sender, said)


announce_failures_with(_announce_failure)


@contextmanager
def isolated() -> Iterator[None]:
    """Set all connections aside for a block, and put them back after it: what a test wants."""
    with _lock:
        before = {hook: hook._connections for hook in HOOKS.values()}
        known = dict(standing)
        standing.clear()
        for hook in before:
            hook._replace(())
    try:
        yield
    finally:
        with _lock:
            inside = {connection.subscription for hook in before for connection in hook._connections}
            for subscription in inside:
                subscription.close()
            standing.clear()
            standing.update((key, one) for key, one in known.items() if not one.closed)
            for hook, connections in before.items():
                hook._replace(one for one in connections if not one.subscription.closed)


def _unlock_after_fork() -> None:
    # A thread of the parent may have held the lock; it does not exist here.
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_unlock_after_fork)
