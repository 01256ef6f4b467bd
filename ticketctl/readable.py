"""Counters as a person reads them: numbers, times, rates, and their table. Pipes and JSON get the exact values."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ticketctl.models import Counter
from ticketctl.results import Column, Result, printable

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


def counter_list(
    counters: Sequence[Counter],
    *,
    title: str,
    document: Any = None,
    now: float | None = None,
    rates: Rates | None = None,
) -> Result:
    """Counters as a list. On a terminal their lanes and regions are shown only if there are several regions.

    ``now`` (epoch seconds) is what a terminal's "3 minutes ago" refers to; with ``rates`` it also shows how fast the
    counters move.
    """
    rows = [counter_row(counter) for counter in counters]
    listed = [counter.as_dict() for counter in counters]
    fields = _readable_fields(counters, rows, time.time() if now is None else now, rates)
    shown = list(zip(*(cells for _, cells in fields), strict=True))
    columns = [column for column, _ in fields]
    return Result(listed if document is None else document, rows, columns, title, shown=shown)


def _readable_fields(
    counters: Sequence[Counter], rows: Sequence[Sequence[str]], now: float, rates: Rates | None
) -> Sequence[tuple[Column, Sequence[str]]]:
    """The columns of a terminal's table with their cells; so that it fits, those that say nothing are left out."""
    fields = [
        (Column("counter"), [row[0] for row in rows]),
        (Column("last ticket", is_number=True), [thousands(counter.last) for counter in counters]),
    ]
    if any(counter.increment != 1 for counter in counters):
        fields.append((Column("step", is_number=True), [thousands(counter.increment) for counter in counters]))
    if rates is None:
        fields.append((Column("left", is_number=True), [about(counter.remaining) for counter in counters]))
    fields.append((Column("full", is_number=True), [fullness(counter) for counter in counters]))
    fields.append((Column("last minted", wraps=False), [ago(counter.minted_at, now) for counter in counters]))
    if rates is None or any(counter.frozen for counter in counters):
        fields.append((Column("state"), [row[5] for row in rows]))
    if rates is not None:
        moving = [rates.cells(counter) for counter in counters]
        fields.append((Column("tickets/s", is_number=True), [rate for rate, _ in moving]))
        fields.append((Column("trend", wraps=False), [trend for _, trend in moving]))
    if len({counter.region for counter in counters}) > 1:
        fields.append((Column("offset", is_number=True), [row[6] for row in rows]))
        fields.append((Column("region"), [row[7] for row in rows]))
    return fields


def one_counter(counter: Counter, *, title: str) -> Result:
    """A counter alone: as JSON it is the document itself."""
    return counter_list([counter], title=title, document=counter.as_dict())


def counter_row(counter: Counter) -> Sequence[str]:
    """A counter's cells: name, last ticket, step, how many are left, last mint (UTC), state, offset, region."""
    numbers = (counter.last, counter.increment, counter.remaining)
    return [
        printable(counter.partition),
        *map(str, numbers),
        utc(counter.minted_at),
        counter.state,
        str(counter.offset),
        counter.region or "-",
    ]
