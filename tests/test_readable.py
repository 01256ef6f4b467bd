"""``readable``: numbers, times and rates in readable form."""

import pytest

from ticketctl.models import Counter
from ticketctl.readable import Rates, about, ago, fullness, sparkline, thousands

NOW = 1_700_000_000
DAY = 86_400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (1, "just now"),
        (2, "2 seconds ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (179, "2 minutes ago"),
        (3_600, "1 hour ago"),
        (2 * DAY - 1, "1 day ago"),
        (29 * DAY, "29 days ago"),
        (30 * DAY, "2023-10-15T22:13:20Z"),
        (-300, "just now"),
        (-301, "2023-11-14T22:18:21Z"),
    ],
)
def test_ago(seconds: int, text: str) -> None:
    """A recent time is shown as its age, any other as a date; clocks may differ by minutes."""
    assert ago((NOW - seconds) * 1000, NOW) == text


@pytest.mark.parametrize("epoch_ms", [10**30, -(10**30)])
def test_impossible_time(epoch_ms: int) -> None:
    """A time outside the calendar is shown as a number."""
    assert ago(epoch_ms, NOW) == str(epoch_ms)
    assert ago(None, NOW) == "-"


@pytest.mark.parametrize(
    ("last", "ceiling", "remaining", "text"),
    [
        (0, 100, 100, "0%"),
        (1, 2**53 - 1, 2**53 - 2, "<1%"),
        (50, 100, 50, "50%"),
        (99_999, 100_000, 1, "99%"),
        (100, 100, 0, "100%"),
        (98, 100, 0, "100%"),
        (100, 100, 1, "99%"),
        (5, 0, 1, "0%"),
    ],
)
def test_fullness(last: int, ceiling: int, remaining: int, text: str) -> None:
    """0% means that nothing was issued, and 100% that no ticket is left."""
    counter = Counter("a", last=last, increment=1, ceiling=ceiling, remaining=remaining, minted_at=None)
    assert fullness(counter) == text


def test_thousands() -> None:
    """Digits are grouped by three; a huge number is rounded down to trillions."""
    assert [thousands(number) for number in (7, 1_234, 2**53 - 1)] == ["7", "1,234", "9,007,199,254,740,991"]
    assert [about(number) for number in (10**15 - 1, 2**53 - 1)] == ["999,999,999,999,999", "9,007 trillion"]


def test_sparkline() -> None:
    """The largest value is the highest bar, and only 0 is the lowest bar."""
    assert sparkline([0, 1, 500, 1000]) == "▁▂▅█"
    assert (sparkline([]), sparkline([0.0, 0.0])) == ("", "▁▁")


def test_rates() -> None:
    """A rate is in tickets per second, not in steps of the lane; a counter that appears later has no rate yet."""
    times = iter([0.0, 2.0, 4.0])
    rates = Rates(lambda: next(times))

    def at(last: int) -> Counter:
        return Counter("a", last=last, increment=3, ceiling=10**6, remaining=1, minted_at=None)

    other = Counter("b", last=1, increment=1, ceiling=9, remaining=1, minted_at=None)
    rates.look([at(0)])
    assert rates.cells(at(0)) == ("-", "")
    rates.look([at(30), other])
    assert (rates.cells(at(30)), rates.cells(other)) == (("5.0", "█"), ("-", ""))
    rates.look([at(6_030)])
    assert rates.cells(at(6_030)) == ("1,000", "▂█")


def test_rates_without_unicode() -> None:
    """A terminal without Unicode gets an ASCII sparkline."""
    times = iter([0.0, 1.0])
    rates = Rates(lambda: next(times), encoding="ascii")
    counter = Counter("a", last=1, increment=1, ceiling=9, remaining=1, minted_at=None)
    rates.look([counter])
    rates.look([counter])
    assert rates.cells(counter) == ("0.0", "_")
