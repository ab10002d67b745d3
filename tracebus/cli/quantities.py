"""Times, durations and sizes as people type them, and times as they are told. How figures are told is in ``figures``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

__all__ = ["day", "moment", "read_duration_s", "read_size_bytes", "read_time_ns", "when"]

_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES: Final = {
    "": 1.0,
    **{f"{prefix}{unit}": 1000.0**power for power, prefix in enumerate(("", "k", "m", "g", "t")) for unit in ("b", "")},
    **{f"{prefix}ib": 1024.0**power for power, prefix in enumerate(("k", "m", "g", "t"), 1)},
}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def _amount(text: str, units: Mapping[str, float]) -> float | None:
    found = _AMOUNT.fullmatch(text.strip().lower())
    return None if found is None or found[2] not in units else float(found[1]) * units[found[2]]


def read_duration_s(text: str) -> float:
    """Return the seconds that an option says."""
    seconds = _amount(text, _SECONDS)
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is no duration: write such as 300ms, 1.5s, 2min or 1h")
    return seconds


def read_size_bytes(text: str) -> int:
    """Return the bytes that an option says."""
    size = _amount(text, _BYTES)
    if size is None:
        raise typer.BadParameter(f"{text!r} is no size: write such as 500MB or 2GB")
    return int(size)


def read_time_ns(text: str) -> int:
    """Return the time that an option says, in nanoseconds since the epoch: how long ago, or a time of this time zone."""
    ago = _amount(text, _SECONDS) if text.strip()[-1:].isalpha() else None
    if ago is not None:
        return time.time_ns() - round(ago * 1e9)
    try:
        return round(_time_of(text.strip()).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: write how long ago, such as 2h or 7d, or such as 2026-11-22, 2026-11-22T14:02 or 14:02"
        ) from None


def _time_of(text: str) -> datetime:
    if re.fullmatch(r"\d?\d:\d\d(:\d\d)?", text):
        today = datetime.now().date().isoformat()
        return datetime.fromisoformat(f"{today}T{text.zfill(5 if text.count(':') == 1 else 8)}")
    return datetime.fromisoformat(text)


def moment(time_ns: int) -> str:
    """Say a time in full, for those that read it by program or later: ``2026-11-22 14:02:07``."""
    return datetime.fromtimestamp(time_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def day(time_ns: int) -> str:
    """Say a day of UTC by when it begins, which west of Greenwich is on the day before: ``2026-11-22``."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d")


def when(time_ns: int, now_ns: int) -> str:
    """Say a time as people do: ``now``, ``12 s ago``, ``14:02``, ``yesterday 14:02``, ``Nov 20 14:02``, ``2025-11-20``."""
    ago_s = (now_ns - time_ns) / 1e9
    if 0 <= ago_s < 60:
        return f"{ago_s:.0f} s ago" if ago_s >= 1 else "now"
    if 0 <= ago_s < 3600:
        return f"{ago_s // 60:.0f} min ago"
    then, now = datetime.fromtimestamp(time_ns / 1e9), datetime.fromtimestamp(now_ns / 1e9)
    if then.date() == now.date():
        return f"{then:%H:%M}"
    if then.date() == now.date() - timedelta(days=1):
        return f"yesterday {then:%H:%M}"
    return f"{then:%b} {then.day} {then:%H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"
