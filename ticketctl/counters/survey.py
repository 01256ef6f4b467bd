"""One sequence in one region or several: which region has which lane, and the proof that no two overlap.

The state is read from the tables each time.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketctl.counters.handover import Holding, read_holding
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters
from ticketctl.errors import CounterInvalidError, RefusedError

READS = 3
SCRATCH = re.compile(r"verify-[0-9a-f]{32}")  # the counters of ``ticketctl verify``, which are deleted again
DEFAULT = None  # stands for the default counter, which has a different name in each region: the region's

Reporter = Callable[[str], None]


def ignore(line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Member:
    """A region with a table of the sequence.

    ``start`` is the lane in which the region's function starts the default counter at its first mint; ``None`` if it
    does not. ``retired``: the stack is deleted and the table is left; its numbers are not issued or handed over.
    """

    table: Counters
    start: Lane | None = None
    retired: bool = False

    @property
    def region(self) -> str:
        """The region's name."""
        return self.table.region

    def holding(self, counter: str | None) -> Holding | None:
        """Read the region's part of a counter.

        The region's own name gives ``None``: its item is the default counter, which must be requested as ``DEFAULT``.
        """
        return None if counter == self.region else read_holding(self.table, self.name_of(counter))

    def name_of(self, counter: str | None) -> str:
        """The name of a counter in the region's table."""
        return self.region if counter is DEFAULT else counter


@dataclass(frozen=True)
class Entry:
    """A lane of a counter in one region. Without a ``holding`` the lane is only offered, or not started yet."""

    counter: str | None
    region: str
    lane: Lane
    holding: Holding | None = None

    @property
    def is_pending(self) -> bool:
        """Whether the counter does not mint because it does not exist in every region yet."""
        return self.holding is not None and self.holding.is_pending

    @property
    def state(self) -> str:
        """``Counter.state``, or ``not begun``."""
        return "not begun" if self.holding is None else self.holding.counter.state

    def as_dict(self) -> dict[str, Any]:
        """The lane as ``--json`` prints it; ``counter`` is ``null`` for the region's default counter."""
        return {
            "counter": self.counter,
            "region": self.region,
            "offset": self.lane.residue,
            "increment": self.lane.increment,
            "share": str(self.lane.share),
            "next": self.lane.offset,
        }


@dataclass(frozen=True)
class Survey:
    """Every lane of a sequence, by counter."""

    entries: Mapping[str | None, Sequence[Entry]]

    def holdings(self, counter: str | None) -> Mapping[str, Holding]:
        """Each region's part of a counter, by region."""
        return {entry.region: entry.holding for entry in self.entries.get(counter, ()) if entry.holding}

    @property
    def pairs(self) -> Iterator[tuple[Entry, Entry]]:
        """All pairs of lanes of one counter."""
        return itertools.chain.from_iterable(itertools.combinations(lanes, 2) for lanes in self.entries.values())

    @property
    def conflicts(self) -> Sequence[tuple[Entry, Entry]]:
        """The pairs of lanes that have numbers in common. Without any, no number can be issued twice."""
        return [(one, other) for one, other in self.pairs if not one.lane.is_disjoint(other.lane)]

    def require_disjoint(self) -> None:
        """Raise ``RefusedError``, with both counters, if two lanes overlap."""
        for one, other in self.conflicts:
            raise RefusedError(
                f"{_label(one)} and {_label(other)} overlap: {one.lane} and {other.lane}",
                hint="destroy the one whose tickets nobody uses, or deploy it under another --stack",
            )


def _label(entry: Entry) -> str:
    return f"the counter {entry.counter or entry.region!r} in {entry.region}"


def shown_name(counter: str | None) -> str:
    """The name of a counter in messages."""
    return "the default counter" if counter is DEFAULT else counter


def survey(members: Sequence[Member], warn: Reporter = ignore) -> Survey:
    """Read every counter of every member. ``warn`` is called for each damaged item; the item is skipped.

    The tables are read one after the other, so a hand-over in between can look like a conflict. A conflict is real
    if it is still there when the tables are read again.
    """
    found = _read(members, warn)
    for _ in range(READS - 1):
        if not found.conflicts:
            break
        found = _read(members, ignore)
    return found


def _read(members: Sequence[Member], warn: Reporter) -> Survey:
    found: dict[str | None, dict[str, Holding]] = {DEFAULT: {}}
    for member in members:
        for item in member.table.items():
            name = str(item["partition"]["S"])
            if SCRATCH.fullmatch(name):
                continue
            try:
                holding = Holding.read(member.table, item)
            except CounterInvalidError as damage:
                warn(f"{member.region}: {damage.message}")
            else:
                found.setdefault(DEFAULT if name == member.region else name, {})[member.region] = holding
    starts = {member.region: member.start for member in members if member.start is not None}
    return Survey({name: list(_entries(name, holdings, {} if name else starts)) for name, holdings in found.items()})


def _entries(counter: str | None, holdings: Mapping[str, Holding], starts: Mapping[str, Lane]) -> Iterator[Entry]:
    """The lanes that regions have, those offered and not taken yet, and those that functions may still start."""
    for holding in holdings.values():
        yield Entry(counter, holding.region, holding.lane, holding)
        for region, lane in holding.offers.items():
            if region not in holdings or not holdings[region].came_from(lane):
                yield Entry(counter, region, lane)
    for region, lane in starts.items():
        if region not in holdings:
            yield Entry(counter, region, lane)


def member_of(members: Iterable[Member], region: str) -> Member:
    """The member of a region that has one."""
    return next(member for member in members if member.region == region)


def holdings_of(members: Sequence[Member], counter: str | None) -> Mapping[str, Holding]:
    """Read each region's part of one counter, by region."""
    return {member.region: holding for member in members if (holding := member.holding(counter))}


def lanes_of(members: Sequence[Member], counter: str | None) -> Sequence[Entry]:
    """Read the lanes of one counter, also those on offer."""
    return list(_entries(counter, holdings_of(members, counter), {}))
