"""Numbers, times and rates as a person reads them. Pipes and JSON get the exact values instead."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ticketctl.models import Counter

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_NOW_SECONDS = 2
_SKEW_SECONDS = 300  # how far the clocks of this machine and the function may differ
_LONG_AGO_SECONDS = 30 * 86_400
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_HISTORY = 10


def thousands(number: int) -> str:
    """A number with separators: 1,234,567."""
    return f"{number:,}"


def about(number: int) -> str:
    """A number with separators; from 10^15 on, such as what is left of a counter without a ceiling, in trillions."""
    return f"{number // 10**12:,} trillion" if number >= 10**15 else thousands(number)


def utc(epoch_ms: int | None) -> str:
    """A time in UTC, or "-"."""
    if epoch_ms is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_ms / 1000))
    except (OverflowError, ValueError, OSError):  # an item can hold any number
        return str(epoch_ms)


def ago(epoch_ms: int | None, now: float) -> str:
    """How long ago a time was, such as "3 minutes ago"; the time itself if it is far from ``now`` (epoch seconds)."""
    if epoch_ms is None:
        return "-"
    seconds = int(now) - epoch_ms // 1000
    if not -_SKEW_SECONDS <= seconds < _LONG_AGO_SECONDS:
        return utc(epoch_ms)
    if seconds < _NOW_SECONDS:
        return "just now"
    name, size = next((name, size) for name, size in _UNITS if seconds >= size)
    count = seconds // size
    return f"{count} {name}{'s' * (count != 1)} ago"


def fullness(counter: Counter) -> str:
    """How much of a counter's ceiling is used. 0% and 100% are exact."""
    if counter.remaining <= 0:
        return "100%"
    if counter.last <= 0 or counter.ceiling <= 0:
        return "0%"
    percent = min(99, counter.last * 100 // counter.ceiling)
    return f"{percent}%" if percent else "<1%"


def sparkline(values: Sequence[float], bars: str = _BARS) -> str:
    """Values as bars, the largest at full height; only 0 has the lowest bar."""
    most = max(values, default=0.0)
    steps = len(bars) - 1
    return "".join(bars[min(steps, 1 + int(value / most * (steps - 1)))] if value > 0 else bars[0] for value in values)


class Rates:
    """How fast counters move, from one look to the next. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], *, encoding: str = "utf-8") -> None:
        self._clock = clock
        self._bars = _BARS if encoding.lower().startswith("utf") else _ASCII_BARS
        self._last: dict[Any, tuple[float, int]] = {}
        self._rates: dict[Any, deque[float]] = {}

    def look(self, counters: Sequence[Counter]) -> None:
        """Compare counters with the look before."""
        now = self._clock()
        for counter in counters:
            place = (counter.region, counter.partition)
            if place in self._last:
                since, last = self._last[place]
                tickets = max(0, counter.last - last) / max(1, counter.increment)
                rate = tickets / max(now - since, 0.001)
                self._rates.setdefault(place, deque(maxlen=_HISTORY)).append(rate)
            self._last[place] = (now, counter.last)

    def cells(self, counter: Counter) -> tuple[str, str]:
        """The tickets per second of a counter, and their course as a sparkline."""
        rates = self._rates.get((counter.region, counter.partition))
        if not rates:
            return "-", ""
        return f"{rates[-1]:,.0f}" if rates[-1] >= 10 else f"{rates[-1]:.1f}", sparkline(rates, self._bars)
