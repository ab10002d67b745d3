"""The clients of OpenAI and Anthropic, which one generator (Stainless) makes: how they make a request and what they return.

What is in requests and answers is in the modules about each client. A stream that the app gets stays the client's own
object: the iterator that is behind it is stepped through the run, and closing the response ends that.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from ..families import ASYNC, SYNC
from ..runs import current_run, get_current
from ..signals import bus, retry
from ..sources import LibrarySource
from ..streams import step_async_generator, step_generator
from ..tracing import say
from .model_calls import Answer, AnswerLife, ModelCall, PartOfCall, outer_call, server_of, warn_once, without_headers
from .patching import Point

__all__ = ["Endpoint", "Requests"]

_NOT_GIVEN: Final = ("NotGiven", "Omit")
"""The types that stand for a parameter that the app has not given; some clients take them out later than we look."""


class Endpoint(NamedTuple):
    """What is called at one path: what is recorded of the request's body, and what reads the answer."""

    source: LibrarySource
    inputs: Callable[[Mapping[str, Any]], dict[str, Any]]
    answer: Callable[[], Answer]


class Requests:
    """Makes runs of the requests to known endpoints, by path; others pass."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints
        self._sources = {endpoint.source for endpoint in endpoints.values()}

    def points(self, sync_client: str, async_client: str) -> list[Point]:
        """Return what has to be wrapped in the two classes of clients."""
        known = ("cast_to", "options", "stream")
        return [
            Point(f"{sync_client}.request", self._request, known),
            Point(f"{async_client}.request", self._request_async, known),
            # The clients say nowhere that they try again: without these there are no retry events, and all else works.
            *(
                Point(f"{client}.{name}", wrapper, parameters, needed=False)
                for client in (sync_client, async_client)
                for name, wrapper, parameters in (
                    ("_should_retry", self._note_refusal, ("response",)),
                    ("_calculate_retry_timeout", self._say_retry, ("remaining_retries", "options")),
                )
            ),
        ]

    def _request(self, request: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._call(client, args, kwargs)
        if call is None:
            return request(*args, **kwargs)
        args, kwargs = _parsing_heard(call, args, kwargs)
        with call:
            return _followed(request(*args, **kwargs), call, bool(kwargs.get("stream")))

    async def _request_async(
        self, request: Callable[..., Awaitable[Any]], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = self._call(client, args, kwargs)
        if call is None:
            return await request(*args, **kwargs)
        args, kwargs = _parsing_heard(call, args, kwargs)
        async with call:
            return _followed(await request(*args, **kwargs), call, bool(kwargs.get("stream")))

    def _call(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelCall | PartOfCall | None:
        if not bus.live and get_current() is None:
            return None
        options = _options_of(args, kwargs)
        endpoint = self._endpoints.get(options.url.partition("?")[0])
        if endpoint is None or options.method.lower() != "post":
            return None
        try:
            return _call_of(endpoint, options, server_of(getattr(client, "base_url", None)))
        except Exception as error:
            warn_once(endpoint.source, "reading a request", error)
            return None

    def _note_refusal(
        self, should_retry: Callable[..., bool], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        retries = should_retry(*args, **kwargs)
        _refused.set((args[0] if args else kwargs.get("response")) if retries else None)
        return retries

    def _say_retry(self, timeout: Callable[..., float], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        wait_s = timeout(*args, **kwargs)
        refused = _refused.get()
        _refused.set(None)
        run = current_run()
        if run is None or run.status != "open" or run._source not in self._sources:
            return wait_s
        try:
            attempt, headers = _attempt(client, *args, **kwargs)
            if refused is not None and refused.headers is headers:  # what is being handled here may be the app's own
                error = client._make_status_error_from_response(refused)
            else:
                error = sys.exception()
        except Exception as failure:
            warn_once(run._source, "reading a retry", failure)
        else:
            say(retry, run, {"attempt": attempt, "wait_s": wait_s, "error": error}, SYNC)
        return wait_s


_refused: ContextVar[Any] = ContextVar("tracebus_refused", default=None)
"""The response for which a client is about to ask again."""


def _call_of(endpoint: Endpoint, options: Any, server: Mapping[str, Any]) -> ModelCall | PartOfCall | None:
    given = {**options.json_data, **(options.extra_json or {})}
    body = without_headers({name: value for name, value in given.items() if type(value).__name__ not in _NOT_GIVEN})
    outer = outer_call(endpoint.source.kind, body)
    if outer is None:
        return ModelCall(endpoint.source, endpoint.inputs(body), endpoint.answer(), server)
    outer.run.metadata.update(server)
    takes_parts = isinstance(outer.run._source, LibrarySource) and outer.run._source.takes_parts
    return PartOfCall(outer, endpoint.inputs(body), endpoint.answer()) if takes_parts else None


def _options_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return kwargs["options"] if "options" in kwargs else args[1]


def _parsing_heard(
    call: ModelCall | PartOfCall, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a request, such that an answer is heard also when it is paid for and cannot be parsed."""
    options = _options_of(args, kwargs)
    parse = getattr(options, "post_parser", None)
    if not callable(parse):
        return args, kwargs

    def parse_or_hear(answer: Any) -> Any:
        try:
            return parse(answer)
        except Exception:
            call.heard(answer)
            raise

    options = copy.copy(options)  # the app's own, when it calls request() itself
    options.post_parser = parse_or_hear
    return (args, {**kwargs, "options": options}) if "options" in kwargs else ((args[0], options, *args[2:]), kwargs)


def _attempt(client: Any, remaining_retries: int, options: Any, response_headers: Any = None, *_: Any) -> tuple[int, Any]:
    """Return which try of the same request this is, 1-based, and the headers of its answer, None where there was none."""
    most: int = options.get_max_retries(client.max_retries)
    return most - remaining_retries + 1, response_headers


def _followed(result: Any, call: ModelCall | PartOfCall, streams: bool) -> Any:
    """Return the client's result, having read it, or having made sure that it is followed to its end."""
    try:
        if _is_stream(result):
            _follow(result, call.goes_on(_colour_of(result)))
        elif hasattr(result, "http_response"):
            _follow_raw(result, call, streams)
        else:
            call.heard(result)
    except Exception as error:
        warn_once(call.source, "following an answer", error)
        call.ends_here()
    return result


def _is_stream(result: Any) -> bool:
    return hasattr(type(result), "__stream__")


def _colour_of(stream: Any) -> Any:
    return ASYNC if hasattr(type(stream), "__aiter__") else SYNC


# -- streams -----------------------------------------------------------------------------------------------------------


def _follow(stream: Any, life: AnswerLife) -> None:
    steps = _iterator_of(stream)
    step: Callable[[Any, Any], Any] = step_async_generator if life.colour is ASYNC else step_generator
    stream._iterator = step(steps, life)
    _end_with_response(stream.response, life, steps)


def _iterator_of(stream: Any) -> Any:
    """Return the generator behind a stream, made so that it does not refer to the stream.

    With such a cycle a stream that the app drops, by a ``break``, would stay open until the collector comes by.
    """
    if "_iterator" not in vars(stream):  # made late, and by the client itself in this way
        return stream._iterator
    twin = copy.copy(stream)
    twin._iterator = None
    return twin.__stream__()


def _end_with_response(response: Any, life: AnswerLife, steps: Any) -> None:
    """End the run when the response is closed from outside: some of the client's helpers close nothing else."""

    def close() -> None:
        vars(response).pop("close", None)
        try:
            response.close()
        finally:
            if not steps.gi_running:  # else it closes the response itself, and will say how it ended
                life.finish_now(complete=False)

    async def aclose() -> None:
        vars(response).pop("aclose", None)
        try:
            await response.aclose()
        finally:
            if not steps.ag_running:
                pending = life.closed()
                if pending is not None:
                    await pending

    if life.colour is ASYNC:
        response.aclose = aclose
    else:
        response.close = close


# -- raw responses -----------------------------------------------------------------------------------------------------


def _follow_raw(raw: Any, call: ModelCall | PartOfCall, streams: bool) -> None:
    """Follow what ``with_raw_response`` and ``with_streaming_response`` return."""
    if not streams and raw.http_response.is_closed:
        call.heard(raw.http_response.content)
        return
    is_async = inspect.iscoroutinefunction(getattr(type(raw), "close", None))
    life = call.goes_on(ASYNC if is_async else SYNC)
    if streams:
        _follow_when_parsed(raw, life)
    if hasattr(raw, "close"):
        _end_with_raw(raw, life)


def _follow_when_parsed(raw: Any, life: AnswerLife) -> None:
    def follow(parsed: Any) -> Any:
        if _is_stream(parsed) and vars(raw).pop("parse", None) is not None:
            life.colour = _colour_of(parsed)
            _follow(parsed, life)
        return parsed

    if inspect.iscoroutinefunction(raw.parse):
        parse_async = raw.parse

        async def aparse(**to: Any) -> Any:
            return follow(await parse_async(**to))

        raw.parse = aparse
    else:
        parse = raw.parse
        raw.parse = lambda **to: follow(parse(**to))


def _end_with_raw(raw: Any, life: AnswerLife) -> None:
    close = raw.close

    def read_what_there_is() -> bool:
        """Read the body, if the app has; tell whether it got to its end, which closes the response."""
        complete = bool(raw.http_response.is_closed)
        try:
            life.heard(raw.http_response.content)
        except RuntimeError:
            pass  # the app has read it piece by piece, or not at all
        return complete

    def close_now() -> None:
        complete = read_what_there_is()
        vars(raw).pop("close", None)
        try:
            close()
        finally:
            life.finish_now(complete)

    async def aclose() -> None:
        complete = read_what_there_is()
        vars(raw).pop("close", None)
        try:
            await close()
        finally:
            pending = life.finish(complete)
            if pending is not None:
                await pending

    raw.close = aclose if inspect.iscoroutinefunction(close) else close_now
