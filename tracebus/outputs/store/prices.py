"""What a call cost, offline, by the prices that genai-prices carries. What it does not know has no price here either.

The only file that imports it, and imported when the first cost is computed: it takes longer to load than the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final, NamedTuple

import genai_prices
from genai_prices import data_snapshot, types

from ...runs import Usage

__all__ = ["cost_of", "price_list"]


class _Rates(NamedTuple):
    """US dollars a token."""

    fresh: float
    cached: float
    written: float
    output: float


class _Counts(NamedTuple):
    """What a call is paid for: all tokens that went in, those of them that a cache gave or took, and those that came out."""

    given: int
    cached: int
    written: int
    output: int


class _Quote(NamedTuple):
    """By what reference a model is found, and its rates, None where they depend on the length or the time of a call."""

    model: str
    provider: str | None
    rates: _Rates | None


_MANY: Final = 1_000_000


def cost_of(model: str, usage: Usage, time_ns: int) -> float | None:
    """Return what a call cost in US dollars, None when the model or its tokens are unknown.

    What a cache gave and took is a part of the input tokens, as tracebus says them. More of it than of input tokens can only
    come from a provider that counts it beside (as Anthropic's API does), so then it is added.
    """
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    quote = _quote(model)
    if quote is None:
        return None
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    given = usage.input_tokens or 0
    if cached + written > given:
        given += cached + written
    counts = _Counts(given, cached, written, usage.output_tokens or 0)
    if quote.rates is None:
        return float(_calculate(quote, counts, time_ns).total_price)
    fresh = given - cached - written
    paid_for = (fresh, cached, written, counts.output)
    return sum(count * rate for count, rate in zip(paid_for, quote.rates, strict=True))


@lru_cache(maxsize=1024)
def _quote(model: str) -> _Quote | None:
    """Find a model by its name, or by the provider's name before a slash."""
    provider, slash, name = model.partition("/")
    references = [(model, None), (name, provider)] if slash else [(model, None)]
    for reference, of in references:
        quote = _Quote(reference, of, None)
        try:
            found = _calculate(quote, _Counts(1, 0, 0, 1), None)
        except (LookupError, ValueError):
            continue
        return quote._replace(rates=_rates(quote, found))
    return None


def _rates(quote: _Quote, found: types.PriceCalculation) -> _Rates | None:
    """Return the price of a token, which is 60 times as fast as asking for each call."""
    tiered = any(isinstance(price, types.TieredPrices) for price in vars(found.model_price).values())
    if tiered or not isinstance(found.model.prices, types.ModelPrice):
        return None
    rates = _Rates(
        *(
            float(_calculate(quote, _Counts(*counts), None).total_price) / _MANY
            for counts in ((_MANY, 0, 0, 0), (_MANY, _MANY, 0, 0), (_MANY, 0, _MANY, 0), (0, 0, 0, _MANY))
        )
    )
    constant = float(_calculate(quote, _Counts(0, 0, 0, 0), None).total_price)
    return None if constant else rates


def _calculate(quote: _Quote, counts: _Counts, time_ns: int | None) -> types.PriceCalculation:
    usage = genai_prices.Usage(
        input_tokens=counts.given,
        cache_read_tokens=counts.cached,
        cache_write_tokens=counts.written,
        output_tokens=counts.output,
    )
    moment = None if time_ns is None else datetime.fromtimestamp(time_ns / 1e9, UTC)
    return genai_prices.calc_price(usage, quote.model, provider_id=quote.provider, genai_request_timestamp=moment)


def price_list() -> tuple[str, date | None]:
    """Return which price list it is, and the newest day on which, by its own notes, prices in it were checked."""
    notes = [note for provider in data_snapshot.get_snapshot().providers for note in _notes(provider)]
    today = datetime.now(UTC).date()
    days = [day for note in notes for day in map(date.fromisoformat, _DAY.findall(note)) if day <= today]
    return f"genai-prices {genai_prices.__version__}", max(days, default=None)


_DAY: Final = re.compile(r"\b20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])\b")


def _notes(provider: types.Provider) -> Iterator[str]:
    yield provider.price_comments or ""
    for model in provider.models:
        yield model.price_comments or ""
