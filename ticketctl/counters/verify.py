"""Checks a deployed stack: many workers mint at the same time, and every number is checked."""

import itertools
import math
import time
from collections import Counter as Multiset
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ticketctl.counters.lanes import Lane
from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError
from ticketctl.minting.in_flight import as_they_arrive

LISTED = 100  # numbers of each kind that the report lists


@dataclass
class Record:
    """The results of one worker: its tickets in order, the seconds that each took, and how many attempts failed.

    ``lane`` is the lane that its tickets must be in.
    """

    lane: Lane
    tickets: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    not_minted: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Report:
    """The sum of all workers' records. Gaps are numbers that were issued and that no worker has.

    ``gaps`` counts them; ``gap_tickets`` lists the first 100.
    """

    minted: int
    not_minted: int
    unknown: int
    duplicates: Sequence[int]
    outside_lane: Sequence[int]
    out_of_order: int
    gaps: int
    gap_tickets: Sequence[int]
    seconds: float
    latencies: Sequence[float]

    @property
    def passed(self) -> bool:
        """Whether there was no duplicate, no number outside its lane and no wrong order."""
        return not self.duplicates and not self.outside_lane and not self.out_of_order

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it: full counts, lists of at most 100 numbers, times in milliseconds."""
        return {
            "minted": self.minted,
            "not_minted": self.not_minted,
            "unknown": self.unknown,
            "duplicates": len(self.duplicates),
            "duplicate_tickets": list(self.duplicates[:LISTED]),
            "outside_lane": len(self.outside_lane),
            "outside_lane_tickets": list(self.outside_lane[:LISTED]),
            "out_of_order": self.out_of_order,
            "gaps": self.gaps,
            "gap_tickets": list(self.gap_tickets),
            "seconds": round(self.seconds, 3),
            "tickets_per_second": round(self.minted / self.seconds, 1) if self.seconds else None,
            "latency_ms": {f"p{p}": percentile(self.latencies, p) for p in (50, 95, 99)},
        }


def work(
    mint: Callable[[], int], lane: Lane, mints: int, *, on_attempt: Callable[[], None], clock: Callable[[], float]
) -> Record:
    """Mint ``mints`` times, one after the other, and record the results: the work of one worker."""
    record = Record(lane)
    for _ in range(mints):
        began = clock()
        try:
            record.tickets.append(mint())
        except NotMintedError:
            record.not_minted += 1
        except OutcomeUnknownError:
            record.unknown += 1
        else:
            record.seconds.append(clock() - began)
        on_attempt()
    return record


def mint_and_check(
    workers: Sequence[tuple[Callable[[], int], Lane]],
    mints: int,
    *,
    on_attempt: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Let each worker mint ``mints`` times; its lane begins with the first ticket of the counter it mints from.

    Ctrl-C ends it at once: the workers' threads are daemons, so Python does not wait for them.
    """
    began = clock()
    records = []
    for record in as_they_arrive(
        lambda worker: work(worker[0], worker[1], mints, on_attempt=on_attempt, clock=clock),
        workers,
        at_once=len(workers),
    ):
        if isinstance(record, TicketctlError):
            raise record
        records.append(record)
    return report(records, seconds=clock() - began)


def report(records: Sequence[Record], *, seconds: float) -> Report:
    """Combine the records. Each number of a lane, from its first to the largest seen, is expected exactly once."""
    times = Multiset(ticket for record in records for ticket in record.tickets)
    inside: dict[Lane, set[int]] = {record.lane: set() for record in records}
    outside: set[int] = set()
    for record in records:
        within = {ticket for ticket in record.tickets if ticket in record.lane}
        inside[record.lane] |= within
        outside |= set(record.tickets) - within
    gaps = itertools.chain.from_iterable(_between(lane, sorted(tickets)) for lane, tickets in inside.items())
    return Report(
        minted=times.total(),
        not_minted=sum(record.not_minted for record in records),
        unknown=sum(record.unknown for record in records),
        duplicates=sorted(ticket for ticket, count in times.items() if count > 1),
        outside_lane=sorted(outside),
        out_of_order=sum(
            later <= earlier for r in records for earlier, later in zip(r.tickets, r.tickets[1:], strict=False)
        ),
        gaps=sum(_reach(lane, tickets) - len(tickets) for lane, tickets in inside.items()),
        gap_tickets=list(itertools.islice(gaps, LISTED)),
        seconds=seconds,
        latencies=sorted(second for record in records for second in record.seconds),
    )


def _reach(lane: Lane, tickets: Collection[int]) -> int:
    """How many numbers a lane has from its first to the largest of ``tickets``."""
    return (max(tickets) - lane.offset) // lane.increment + 1 if tickets else 0


def _between(lane: Lane, tickets: Iterable[int]) -> Iterator[int]:
    """The numbers of a lane that are missing before and between its ``tickets``, which are ascending."""
    expected = lane.offset
    for ticket in tickets:
        yield from range(expected, ticket, lane.increment)
        expected = ticket + lane.increment


def percentile(ascending: Sequence[float], percent: int) -> float | None:
    """The nearest-rank percentile of seconds, in milliseconds; ``None`` without any."""
    if not ascending:
        return None
    return round(ascending[math.ceil(percent / 100 * len(ascending)) - 1] * 1000, 2)
