"""``verify``: what the report says about the workers' results."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ticketctl.counters.lanes import Lane
from ticketctl.counters.verify import Record, Report, mint_and_check, percentile, report, work
from ticketctl.errors import AccessError, NotMintedError, OutcomeUnknownError

ALL = Lane(1, 1)
CLEAN = {
    "minted": 6,
    "not_minted": 0,
    "unknown": 0,
    "duplicates": 0,
    "duplicate_tickets": [],
    "outside_lane": 0,
    "outside_lane_tickets": [],
    "out_of_order": 0,
    "gaps": 0,
    "gap_tickets": [],
    "seconds": 2.0,
    "tickets_per_second": 3.0,
    "latency_ms": {"p50": None, "p95": None, "p99": None},
}


def of(*tickets: list[int], first: int = 1, increment: int = 1) -> Report:
    return report([Record(Lane(first, increment), tickets=each) for each in tickets], seconds=2.0)


def ticking() -> Callable[[], float]:
    """A clock that advances by one second each time it is read."""
    seconds = itertools.count(0)
    return lambda: float(next(seconds))


def mints(*outcomes: int | Exception) -> Callable[[], int]:
    left: Iterator[int | Exception] = iter(outcomes)

    def mint() -> int:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return mint


@pytest.mark.parametrize(
    ("tickets", "first", "increment"),
    [
        (([1, 2, 3], [4, 5, 6]), 1, 1),
        (([1, 3, 5], [2, 4, 6]), 1, 1),
        (([5, 15, 20], [10, 25, 30]), 5, 5),
        (([-2, 1, 4], [7, 10, 13]), -2, 3),
    ],
)
def test_clean(tickets: tuple[list[int], ...], first: int, increment: int) -> None:
    """If every number of the lane is there once and in order, the report has no findings."""
    found = of(*tickets, first=first, increment=increment)
    assert (found.as_dict(), found.passed) == (CLEAN, True)


def test_nothing_minted() -> None:
    """If nothing was minted, there are no findings and no times."""
    found = report([Record(ALL, not_minted=2), Record(ALL, unknown=3)], seconds=0.0)
    expected = {"minted": 0, "not_minted": 2, "unknown": 3, "seconds": 0.0, "tickets_per_second": None}
    assert (found.as_dict(), found.passed) == (CLEAN | expected, True)


@pytest.mark.parametrize(
    ("tickets", "differs"),
    [
        (([1, 2, 3], [3, 4, 5]), {"duplicates": 1, "duplicate_tickets": [3]}),
        (([1, 2, 3], [1, 2, 3]), {"duplicates": 3, "duplicate_tickets": [1, 2, 3]}),
        (([1, 2, 2], [3, 4, 5]), {"duplicates": 1, "duplicate_tickets": [2], "out_of_order": 1}),
        (([1, 3, 2], [4, 5, 6]), {"out_of_order": 1}),
        (([3, 2, 1], [6, 5, 4]), {"out_of_order": 4}),
        (([0, 1, 2], [3, 4, 5]), {"outside_lane": 1, "outside_lane_tickets": [0]}),
        (([-7, 1, 2], [3, 4, 5]), {"outside_lane": 1, "outside_lane_tickets": [-7]}),
    ],
)
def test_findings(tickets: tuple[list[int], ...], differs: dict[str, object]) -> None:
    """A duplicate, a number outside the lane and a wrong order are counted and listed, and the check fails."""
    found = of(*tickets)
    assert (found.as_dict(), found.passed) == (CLEAN | differs, False)


def test_outside_a_wide_lane() -> None:
    """A number between two numbers of the lane is outside it, and not a gap."""
    found = of([5, 15, 16], [10, 20, 25], first=5, increment=5)
    assert (found.outside_lane, found.gaps, found.passed) == ([16], 0, False)


def test_order_is_each_workers_own() -> None:
    """The order is checked for each worker separately."""
    assert of([4, 5, 6], [1, 2, 3]).as_dict() == CLEAN


def test_a_number_that_is_far_too_large() -> None:
    """A single number that is far too large leads to a count of gaps, not to a huge list."""
    found = of([1, 2, 2**53 - 1])
    assert (found.gaps, list(found.gap_tickets[:2]), len(found.gap_tickets)) == (2**53 - 4, [3, 4], 100)


def test_gaps_are_named_and_allowed() -> None:
    """A number below the largest that no worker has is a gap; gaps are allowed."""
    found = of([5, 20, 25], [10, 40, 45], first=5, increment=5)
    assert found.as_dict() == CLEAN | {"gaps": 3, "gap_tickets": [15, 30, 35]}
    assert found.passed


def test_a_gap_before_the_first() -> None:
    """Gaps are counted from the counter's first ticket."""
    assert of([4, 5, 6], [7, 8, 9]).gap_tickets == [1, 2, 3]


def test_lists_are_cut_at_a_hundred() -> None:
    """The report lists at most a hundred numbers of each kind, with their full count."""
    twice = list(range(1000, 1150))
    outside = list(range(-300, -150))
    found = of([*outside, *twice], twice).as_dict()
    assert {name: found[name] for name in ("duplicates", "outside_lane", "gaps")} == {
        "duplicates": 150,
        "outside_lane": 150,
        "gaps": 999,
    }
    assert (found["duplicate_tickets"], found["outside_lane_tickets"], found["gap_tickets"]) == (
        list(range(1000, 1100)),
        list(range(-300, -200)),
        list(range(1, 101)),
    )


def test_interrupted() -> None:
    """Ctrl-C ends the check immediately, even if every worker is waiting for an answer."""
    answers, asked = threading.Event(), threading.Barrier(3)

    def mint() -> int:
        asked.wait()
        answers.wait(30)
        return 1

    def interrupt() -> None:
        asked.wait()
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            mint_and_check([(mint, ALL), (mint, ALL)], 1)
    finally:
        signal.signal(signal.SIGINT, before)
        answers.set()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("count", "percent", "milliseconds"),
    [
        (1, 50, 1000.0),
        (1, 99, 1000.0),
        (2, 50, 1000.0),
        (3, 50, 2000.0),
        (5, 95, 5000.0),
        (20, 95, 19000.0),
        (21, 95, 20000.0),
        (100, 50, 50000.0),
        (100, 95, 95000.0),
        (100, 99, 99000.0),
        (101, 99, 100000.0),
    ],
)
def test_percentiles_are_nearest_rank(count: int, percent: int, milliseconds: float) -> None:
    """A percentile is one of the measured times: the smallest that this percentage does not exceed."""
    assert percentile([float(second) for second in range(1, count + 1)], percent) == milliseconds


def test_percentile_of_nothing() -> None:
    """Without times there is no percentile."""
    assert percentile([], 50) is None


def test_regions_have_lanes_of_their_own() -> None:
    """Each worker's tickets are checked against its own lane; a number of another lane is outside."""
    odd, even = Lane(1, 2), Lane(2, 2)
    records = [Record(odd, tickets=[1, 5, 8]), Record(even, tickets=[2, 4]), Record(odd, tickets=[3])]
    found = report(records, seconds=2.0).as_dict()
    assert found == CLEAN | {"outside_lane": 1, "outside_lane_tickets": [8]}
    whole = report([Record(odd, tickets=[1, 7]), Record(even, tickets=[2, 6])], seconds=2.0)
    assert (whole.passed, whole.gap_tickets, whole.gaps) == (True, [3, 5, 4], 3)


def test_percentiles_of_a_report() -> None:
    """The percentiles are of the times of all workers together, rounded to a hundredth of a millisecond."""
    slow, quick = Record(ALL, seconds=[0.3, 0.1]), Record(ALL, seconds=[0.0123456])
    latency = report([slow, quick], seconds=1.0).as_dict()["latency_ms"]
    assert latency == {"p50": 100.0, "p95": 300.0, "p99": 300.0}


def test_one_worker() -> None:
    """A worker counts a failed attempt and continues; it measures only successful mints."""
    told: list[None] = []
    outcomes = (1, NotMintedError("busy"), 2, OutcomeUnknownError("lost"), 4)
    record = work(mints(*outcomes), ALL, 5, on_attempt=lambda: told.append(None), clock=ticking())
    assert record == Record(ALL, tickets=[1, 2, 4], seconds=[1.0, 1.0, 1.0], not_minted=1, unknown=1)
    assert len(told) == 5


def test_another_error_ends_the_run() -> None:
    """An error that does not concern a single mint ends the run."""
    with pytest.raises(AccessError):
        mint_and_check([(mints(1), ALL), (mints(AccessError("forbidden")), ALL)], 1)


def test_a_correct_server() -> None:
    """If the workers mint at the same time from one correct counter, there are no findings."""
    counter, lock = itertools.count(5, 5), threading.Lock()

    def mint() -> int:
        with lock:
            return next(counter)

    told: list[None] = []
    found = mint_and_check([(mint, Lane(5, 5))] * 8, 50, on_attempt=lambda: told.append(None))
    assert (found.minted, found.passed, found.gaps, len(found.latencies), len(told)) == (400, True, 0, 400, 400)


def test_a_server_with_duplicates() -> None:
    """Two counters that start at the same number are detected by their duplicates."""
    found = mint_and_check([(itertools.count(1).__next__, ALL) for _ in range(2)], 3)
    assert (found.duplicates, found.out_of_order, found.gaps, found.passed) == ([1, 2, 3], 0, 0, False)
