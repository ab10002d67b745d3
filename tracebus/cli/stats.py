"""``tracebus stats``: how many runs there were, how fast, with how many tokens and at what cost; and what the store holds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, cast

import typer
from rich.text import Text

from ..figures import count, number, size
from ..outputs.store import Reader, Statistic
from .options import Db, Json, time_option
from .quantities import day, moment
from .screen import ACCENT, DIM, FAILURE, Screen, as_json, said
from .stores import opened
from .tables import Column, print_table
from .words import cost_of, seconds, tokens_of

__all__ = ["command"]


class By(StrEnum):
    """What runs may have in common."""

    MODEL = "model"
    NAME = "name"
    KIND = "kind"
    PROJECT = "project"


class Grain(StrEnum):
    """How long a row of ``--over`` is."""

    HOUR = "hour"
    DAY = "day"


FIGURES: Final = (
    Column("runs", 9, is_number=True),
    Column("errors", 8, is_number=True, rank=1),
    Column("p50", 8, is_number=True, rank=2),
    Column("p95", 8, is_number=True),
    Column("p99", 8, is_number=True, rank=6),
    Column("first token", 11, is_number=True, rank=5),
    Column("in", 13, is_number=True, rank=4),
    Column("out", 13, is_number=True, rank=4),
    Column("cost", 10, is_number=True, rank=3),
)


def command(
    by: Annotated[
        list[By] | None,
        typer.Option("--by", help="What the runs of a row have in common; may be said twice. Not given: model."),
    ] = None,
    over: Annotated[Grain | None, typer.Option("--over", help="A row for each hour, or for each day of UTC.")] = None,
    since: Annotated[Any, time_option("--since", "Runs of this time and later: 2h (ago), 7d, 14:02, 2026-11-22.")] = None,
    until: Annotated[Any, time_option("--until", "Runs before this time.")] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="PROJECT", help="Only this project.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only runs of this model.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only runs of this name.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only runs of this kind.")] = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Print a row for each that is asked for."""
    groups: Any = dict.fromkeys(one.value for one in by or (By.MODEL,))
    chosen = {"project": project, "model": model, "name": name, "kind": kind}
    only = {field: value for field, value in chosen.items() if value is not None}
    with opened(db) as reader:
        rows: list[tuple[int | None, Statistic]]
        if over is None:
            rows = [(None, one) for one in reader.statistics(*groups, since_ns=since, until_ns=until, **only)]
        else:
            points = reader.points(*groups, grain=cast(Any, over.value), since_ns=since, until_ns=until, **only)
            rows = [(point.time_ns, point.statistic) for point in points]
        if as_lines:
            _print_json(rows)
            return
        screen = Screen()
        times = [] if over is None else [Column("day, UTC" if over is Grain.DAY else "time", 16)]
        columns = times + [Column(group, 28) for group in groups] + list(FIGURES)
        print_table(screen, columns, [[*_time(over, time_ns), *_row(screen, one, groups)] for time_ns, one in rows])
        if screen.is_terminal:
            screen.print(_holdings(screen, reader))


def _print_json(rows: list[tuple[int | None, Statistic]]) -> None:
    for time_ns, one in rows:
        as_json(one if time_ns is None else {"time_ns": time_ns, "statistic": one})


def _time(grain: Grain | None, time_ns: int | None) -> list[Text]:
    if time_ns is None:
        return []
    return [Text(day(time_ns) if grain is Grain.DAY else moment(time_ns)[:-3])]


def _row(screen: Screen, one: Statistic, groups: Sequence[str]) -> list[Text]:
    cells = []
    for group in groups:
        value = getattr(one, group)
        cells.append(Text(f"no {group}", DIM) if value is None else said(value, ACCENT if group == "model" else ""))
    return [
        *cells,
        Text(number(one.runs)),
        Text(number(one.errors) if one.errors else "", FAILURE),
        Text(seconds(one.p50_ns)),
        Text(seconds(one.p95_ns)),
        Text(seconds(one.p99_ns)),
        Text(seconds(one.first_token_p50_ns)),
        Text(tokens_of(one.input_tokens)),
        Text(tokens_of(one.output_tokens)),
        Text(cost_of(screen, one)),
    ]


def _prices(reader: Reader) -> str:
    """Say which prices the costs are by, and how old those are."""
    prices = reader.price_list()
    if prices is None:
        return ""
    return f"prices of {prices.source}" + (f", checked until {prices.checked}" if prices.checked else "")


def _holdings(screen: Screen, reader: Reader) -> Text:
    """Return a line on the store as a whole."""
    info = reader.info()
    parts = [
        count(info.traces, "trace"),
        count(info.runs, "run"),
        f"{info.open_runs} in flight" if info.open_runs else "",
        f"{number(info.lost_runs)} lost" if info.lost_runs else "",
        *(f"{count(lost, 'event')} dropped ({reason})" for reason, lost in info.dropped.items()),
        size(info.size_bytes),
        info.path,
        _prices(reader),
    ]
    return screen.fitting([said(part, DIM) for part in parts], screen.width)
