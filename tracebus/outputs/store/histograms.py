"""Durations counted in logarithmic buckets, which can be added up, taken apart again, and asked for percentiles.

A bucket is 2 % wide, so that a percentile is off by at most 1 %, whatever was added to what (the mapping of DDSketch,
Masson, Rim and Lee, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

__all__ = ["ERROR", "Buckets", "add", "bucket_of", "pack", "percentile", "unpack"]

Buckets: TypeAlias = dict[int, int]
"""How many durations fell into each bucket."""

ERROR: Final = 0.01
"""How far off a percentile may be, as a part of it."""
_GAMMA: Final = (1 + ERROR) / (1 - ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[int, int]).decode


def bucket_of(duration_ns: int) -> int:
    """Return the bucket of a duration in nanoseconds; all below a microsecond share one."""
    return math.ceil(math.log(max(duration_ns, 1000)) / _LOG_GAMMA)


def _middle(bucket: int) -> float:
    return 2 * math.exp(bucket * _LOG_GAMMA) / (_GAMMA + 1)


def add(total: Buckets, more: Mapping[int, int], sign: int = 1) -> None:
    """Add the counts of ``more`` to ``total``, or take them away."""
    for bucket, count in more.items():
        total[bucket] = total.get(bucket, 0) + sign * count
        if total[bucket] <= 0:
            del total[bucket]


def percentile(buckets: Mapping[int, int], shares: Iterable[float]) -> list[float | None]:
    """Return, in nanoseconds, what each of the shares (above 0, up to 1, ascending) of the durations do not exceed.

    That is one of the durations, by the nearest rank, off by at most the width of its bucket; None where there are none.
    """
    count = sum(buckets.values())
    if not count:
        return [None for _ in shares]
    found: list[float | None] = []
    ordered = iter(sorted(buckets.items()))
    bucket, seen = next(ordered)
    for share in shares:
        while seen < share * count - 1e-9:  # what the multiplication may be off by
            bucket, more = next(ordered)
            seen += more
        found.append(_middle(bucket))
    return found


def pack(buckets: Buckets) -> bytes:
    """Return the counts as bytes."""
    return _encode(buckets)


def unpack(packed: bytes) -> Buckets:
    """Return the counts again."""
    return _decode(packed)
