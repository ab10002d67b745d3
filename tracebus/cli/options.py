"""The options and arguments that commands share, and what the shell offers to complete them with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from ..errors import TracebusError
from ..outputs.store import Filter
from ..payload import printable
from .quantities import read_duration_s, read_time_ns
from .stores import opened

__all__ = ["After", "Db", "Json", "Limit", "Trace", "Traces", "filtered", "offered_traces", "time_option"]

OFFERED: Final = 20

Db: TypeAlias = Annotated[
    Path | None,
    typer.Option("--db", metavar="FILE", help="The store. Not given: TRACEBUS_DB, or the one in your data directory."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON, one value a line.")]
After: TypeAlias = Annotated[str | None, typer.Option("--after", metavar="KEY", help="Go on where an earlier list ended.")]
Limit: TypeAlias = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, at most.")]


def offered_traces(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the latest traces, each with what it is about."""
    try:
        with opened(_db_of(ctx)) as reader:
            found = [
                (trace.trace_id, f"{trace.name or '?'}  {trace.input or ''}"[:60]) for trace in reader.traces(limit=OFFERED)
            ]
    except TracebusError:
        return []
    offers = [("@last", "the latest"), *found]
    return [(value, printable(text)) for value, text in offers if value.startswith(incomplete)]


def _db_of(ctx: typer.Context) -> Path | None:
    given = ctx.params.get("db")
    return Path(given) if given else None


_TRACE_HELP: Final = "The first digits of its id, or @last. The end of the id as in log lines will do, too."
Trace: TypeAlias = Annotated[str, typer.Argument(metavar="TRACE", help=_TRACE_HELP, autocompletion=offered_traces)]
Traces: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="TRACE", help=_TRACE_HELP, autocompletion=offered_traces)
]


def _offers(choice: str) -> Callable[[typer.Context, str], list[str]]:
    """Return what completes an option with what the store has of it."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            with opened(_db_of(ctx)) as reader:
                return [value for value in getattr(reader.choices(), choice) if value.startswith(incomplete)]
        except TracebusError:
            return []

    return offer


def time_option(name: str, text: str) -> Any:
    """Return an option for a time."""
    return typer.Option(name, metavar="TIME", parser=read_time_ns, help=text)


def _chosen(field: str, choices: str, of: str) -> tuple[str, Any]:
    option = typer.Option(f"--{field}", metavar=field.upper(), help=f"Only {of}.", autocompletion=_offers(choices))
    return field, Annotated[str | None, option]


def _named(field: str, of: str) -> tuple[str, Any]:
    name = field.removesuffix("_id")
    return field, Annotated[str | None, typer.Option(f"--{name}", metavar=name.upper(), help=f"Only of this {of}.")]


def _bound(field: str, name: str, metavar: str, read: Callable[[str], Any], text: str) -> tuple[str, Any]:
    return field, Annotated[Any, typer.Option(f"--{name}", metavar=metavar, parser=read, help=text)]


FILTER: Final = dict(
    [
        _chosen("status", "statuses", "what ended so: ok, error, cancelled, …; open is in flight"),
        _chosen("name", "names", "runs of this name"),
        _chosen("kind", "kinds", "runs of this kind: llm, tool, …"),
        _chosen("model", "models", "runs of this model"),
        _chosen("tag", "tags", "what has this tag"),
        _named("session_id", "session"),
        _named("user_id", "user"),
        _chosen("project", "projects", "this project"),
        _bound("since_ns", "since", "TIME", read_time_ns, "Begun at this time or later: 2h (ago), 7d, 14:02, 2026-11-22."),
        _bound("until_ns", "until", "TIME", read_time_ns, "Begun before this time."),
        _bound("min_duration_s", "min-duration", "DURATION", read_duration_s, "As slow as this or slower: 300ms, 1.5s, 2min."),
        _bound("max_duration_s", "max-duration", "DURATION", read_duration_s, "As fast as this or faster."),
        _bound("min_tokens", "min-tokens", "N", int, "With so many tokens or more."),
        _bound("max_tokens", "max-tokens", "N", int, "With so many tokens or fewer."),
        _bound("min_cost", "min-cost", "DOLLARS", float, "As dear as this or dearer."),
        _bound("max_cost", "max-cost", "DOLLARS", float, "As cheap as this or cheaper."),
    ]
)
"""The fields of a filter, each with its option."""


def filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a filter in the place of its parameter ``wanted``."""
    signature = inspect.signature(function, eval_str=True)

    @wraps(function)
    def command(**given: Any) -> Any:
        wanted = Filter(**{field: given.pop(field) for field in FILTER})
        return function(wanted=wanted, **given)

    optioned: Any = command
    optioned.__signature__ = signature.replace(parameters=list(_parameters(signature)))
    return command


def _parameters(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    for parameter in signature.parameters.values():
        if parameter.name != "wanted":
            yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        for field, annotation in FILTER.items():
            yield inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
