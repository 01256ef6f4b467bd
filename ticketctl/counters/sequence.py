"""One sequence in many regions: who holds which lane, that no two meet, and how a region comes to its own.

What is where is read from the tables each time. Every change is a conditional write to one item (see ``handover``),
so that whatever was cut short is finished by doing it again.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ticketctl.counters.handover import Holding, begin, clear_offer, offer, read_holding, release, take
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters, NotSoError, require_no_region
from ticketctl.errors import CounterInvalidError, RefusedError
from ticketctl.minting.source import unknown_counter
from ticketctl.models import Counter

ATTEMPTS = 20
LOOKS = 3
SCRATCH = re.compile(r"verify-[0-9a-f]{32}")  # the counters of ``ticketctl verify``, which go again
DEFAULT = None  # stands for the default counter, which has a different name in each region: the region's

Report = Callable[[str], None]


def _nothing(line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Member:
    """A region with a table of the sequence.

    ``start`` is the lane in which its function would begin the default counter by itself; ``None``: it does not.
    ``retired``: its stack is gone and only the table is left; what it holds is neither issued nor handed over.
    """

    table: Counters
    start: Lane | None = None
    retired: bool = False

    @property
    def region(self) -> str:
        """Its name."""
        return self.table.region

    def holding(self, counter: str | None) -> Holding | None:
        """What it has of a counter; another that is called like this region is not its default counter."""
        return None if counter == self.region else read_holding(self.table, self.name_of(counter))

    def name_of(self, counter: str | None) -> str:
        """What a counter is called in its table."""
        return counter or self.region


@dataclass(frozen=True)
class Entry:
    """A lane of a counter in one region; without a ``holding`` it is only handed over, or may still begin."""

    counter: str | None
    region: str
    lane: Lane
    holding: Holding | None = None

    @property
    def is_half_made(self) -> bool:
        """Whether it waits until it is there in every region."""
        return self.holding is not None and self.holding.is_half_made

    @property
    def state(self) -> str:
        """Whether it mints, is frozen, or is not begun."""
        if self.holding is None:
            return "not begun"
        return "frozen" if self.holding.counter.frozen else "mints"

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
        """Who has a counter, by region."""
        return {entry.region: entry.holding for entry in self.entries.get(counter, ()) if entry.holding}

    @property
    def pairs(self) -> Iterator[tuple[Entry, Entry]]:
        """All pairs of lanes of one counter."""
        return itertools.chain.from_iterable(itertools.combinations(lanes, 2) for lanes in self.entries.values())

    @property
    def conflicts(self) -> Sequence[tuple[Entry, Entry]]:
        """The pairs of lanes that have numbers in common; where there is none, nothing can come twice."""
        return [(one, other) for one, other in self.pairs if not one.lane.is_disjoint(other.lane)]

    def require_disjoint(self) -> None:
        """``RefusedError`` with both names where two lanes meet."""
        for one, other in self.conflicts:
            raise RefusedError(
                f"{called(one)} and {called(other)} meet: {one.lane} and {other.lane}",
                hint="destroy the one whose tickets nobody uses, or deploy it under another --stack",
            )


def called(entry: Entry) -> str:
    """A counter in a region, for a person."""
    return f"the counter {entry.counter or entry.region!r} in {entry.region}"


def survey(members: Sequence[Member], warn: Report = _nothing) -> Survey:
    """Read every counter of every member. ``warn`` is told of items that are damaged, and left out.

    The tables are read one after the other, so a hand-over in between can look like a conflict: one that is there
    when they are read again is real.
    """
    found = _read(members, warn)
    for _ in range(LOOKS - 1):
        if not found.conflicts:
            break
        found = _read(members, _nothing)
    return found


def _read(members: Sequence[Member], warn: Report) -> Survey:
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
    """The lanes that are held, those on offer that nobody has taken, and those that may still begin."""
    for holding in holdings.values():
        yield Entry(counter, holding.region, holding.lane, holding)
        for region, lane in holding.offers.items():
            if region not in holdings or not holdings[region].came_from(lane):
                yield Entry(counter, region, lane)
    for region, lane in starts.items():
        if region not in holdings:
            yield Entry(counter, region, lane)


def arrange(
    members: Sequence[Member], regions: Sequence[str], report: Report = _nothing, *, may_begin: bool = True
) -> None:
    """Give each of ``regions`` a lane of every counter, and finish what an earlier run has left open.

    A sequence that has not begun gets lanes ``1 … n`` of increment n in their order, also for those of ``regions``
    that are no members yet; later ones get a part of the widest lane of each counter. ``RefusedError`` where
    lanes meet, or where it has not begun and none ``may_begin`` it: who cannot be read may have all of it.
    """
    before = survey(members, report)
    before.require_disjoint()
    require_names_free(before, regions)
    _begin_default(members, regions, may_begin=may_begin)
    for target in members:
        found = survey(members)
        for counter in sorted(found.entries, key=lambda counter: counter or ""):
            holdings = found.holdings(counter)
            if any(target.region in holding.offers for holding in holdings.values()):
                _take_offers(members, counter, target, report)
            elif target.region in regions and target.region not in holdings and target.region != counter:
                _hand_over(members, counter, target, report, half_made_too=not counter)
    survey(members).require_disjoint()
    for member in members:
        release(member.table, member.region)  # it was held until everybody had a lane


def require_names_free(found: Survey, regions: Iterable[str]) -> None:
    """``RefusedError`` where a counter is called like one of ``regions``, whose default counter it is not."""
    for region in regions:
        for entry in found.entries.get(region, ()):
            raise RefusedError(
                f"{entry.region} has a counter {region!r}, which is the name of that region's default counter",
                hint="use another --stack: tickets of one name must not come from two counters",
            )


def withdraw_offers(members: Sequence[Member], region: str) -> None:
    """Drop the lanes that are on offer to a region whose table is about to be deleted: it may have minted in them."""
    for counter, entries in survey(members).entries.items():
        for holding in [entry.holding for entry in entries if entry.holding]:
            if region in holding.offers:
                table = next(member.table for member in members if member.region == holding.region)
                clear_offer(table, counter or holding.region, region, holding.offers[region])


def _begin_default(members: Sequence[Member], regions: Sequence[str], *, may_begin: bool) -> None:
    """Let the default counter begin where its function would do it, else in one region, with lanes for the others."""
    for member in members:
        if member.start is not None and not member.retired and member.holding(DEFAULT) is None:
            _begun(member, member.region, member.start, {})
    awaiting = [member for member in members if not member.retired]
    if not awaiting or any(member.holding(DEFAULT) for member in members):
        return
    if not may_begin:
        raise RefusedError(
            "no region that could be read has the sequence, and one that could not be may have it", hint="run it again"
        )
    names = list(dict.fromkeys([*regions, *(member.region for member in awaiting)]))
    lanes = dict(zip(names, Lane(1, 1).split(len(names)), strict=True))
    first = min(awaiting, key=lambda member: member.region)  # the same one for whoever does this at the same time
    _begun(first, first.region, lanes.pop(first.region), lanes)


def _begun(member: Member, name: str, lane: Lane, offers: Mapping[str, Lane]) -> None:
    try:
        begin(member.table, name, lane, offers=offers, half_made=bool(offers))
    except NotSoError:
        return  # somebody else was first, and what is there counts


def _hand_over(
    members: Sequence[Member], counter: str | None, target: Member, report: Report, *, half_made_too: bool = False
) -> None:
    """See to it that ``target`` has a lane of a counter that others have."""
    for _ in range(ATTEMPTS):
        holdings = {member.region: member.holding(counter) for member in members if member is not target}
        if any(holding and target.region in holding.offers for holding in holdings.values()):
            _take_offers(members, counter, target, report)
            return
        # Read last: whoever else gives the target a lane has narrowed the donor before, which the offer then meets.
        if target.holding(counter) is not None:
            return
        if not half_made_too and any(holding and holding.is_half_made for holding in holdings.values()):
            return  # whoever creates it will come to this region, too
        donors = [m for m in members if not m.retired and holdings.get(m.region) is not None]
        if not donors:
            raise RefusedError(
                f"{counter or 'the default counter'} is only in regions that were destroyed: "
                f"{', '.join(region for region, holding in holdings.items() if holding)}; their lanes stay unused",
                hint="deploy one of them again, with --region",
            )
        steps = {member.region: _step(holdings.get(member.region)) for member in donors}
        donor = min(donors, key=lambda member: (steps[member.region], member.region))
        try:
            offer(donor.table, donor.name_of(counter), steps[donor.region], [target.region])
        except NotSoError:
            continue  # another region has got a part of it meanwhile
    raise RefusedError(f"the lanes of {counter!r} change all the time", hint="run it again")


def _step(holding: Holding | None) -> int:
    return holding.counter.increment if holding else 0


def _take_offers(members: Sequence[Member], counter: str | None, target: Member, report: Report) -> bool:
    """Take what others have handed over to ``target``; whether there was anything."""
    taken = False
    for donor in members:
        holding = donor.holding(counter)
        if holding is None or target.region not in holding.offers:
            continue
        lane = holding.offers[target.region]
        take(target.table, target.name_of(counter), holding)
        clear_offer(donor.table, donor.name_of(counter), target.region, lane)
        report(f"{counter or 'the default counter'}: {donor.region} has handed {lane} over to {target.region}")
        taken = True
    return taken


def holders(members: Sequence[Member], name: str) -> Sequence[Member]:
    """The members whose counter of that name is meant: a region's name means the default counter of that region."""
    return [member for member in members if member.region == name] or members


def create(
    members: Sequence[Member], regions: Sequence[str], name: str, *, start: int = 1, ceiling: int | None = None
) -> tuple[Sequence[Counter], bool]:
    """Make a counter in each of ``regions``, in the lanes that their default counters have; and whether it is new.

    It begins at ``start``. Until it is there in all of them it mints in none; a run that was cut short is finished
    by the next. ``RefusedError`` where it exists and is another, or would meet itself.
    """
    require_no_region(name, {member.region for member in members})
    targets = [member for member in members if member.region in regions and not member.retired]
    lanes = {member.region: _lane_of(member) for member in targets}
    before = [holding for member in members if (holding := member.holding(name))]
    is_new = any(holding.is_half_made for holding in before) or any(not member.holding(name) for member in targets)
    for holding in before:
        _require_as_asked(holding, start, ceiling)
    for member in targets:
        holding = member.holding(name)
        if holding is not None:
            continue
        lane = Lane(lanes[member.region].at_or_after(start), lanes[member.region].increment)
        others = _lanes_of(members, name)
        if all(entry.is_half_made and entry.lane.is_disjoint(lane) for entry in others):
            with suppress(NotSoError):  # somebody else makes it, too
                begin(member.table, name, lane, offers={}, ceiling=ceiling, half_made=True)
        else:
            _hand_over(members, name, member, _nothing, half_made_too=True)
    Survey({name: _lanes_of(members, name)}).require_disjoint()
    for member in members:
        release(member.table, name)
    return [holding.counter for member in targets if (holding := member.holding(name))], is_new


def _lane_of(member: Member) -> Lane:
    """A region's lane: its residue class, from its default counter or from where that may begin."""
    holding = member.holding(DEFAULT)
    lane = holding.lane if holding else member.start
    if lane is None:
        raise RefusedError(
            f"{member.region} has no lane yet", hint=f"ticketctl deploy --region {shlex.quote(member.region)}"
        )
    return Lane(lane.residue, lane.increment)


def _require_as_asked(holding: Holding, start: int, ceiling: int | None) -> None:
    counter = holding.counter
    if (ceiling or counter.ceiling) != counter.ceiling or holding.lane.offset < start:
        raise RefusedError(
            f"the counter {counter.partition!r} exists in {holding.region} and is another: last ticket "
            f"{counter.last}, step {counter.increment}, ceiling {counter.ceiling}",
            hint="choose another name, or move it forward with: ticketctl counter advance",
        )


def _lanes_of(members: Sequence[Member], name: str) -> Sequence[Entry]:
    holdings = {member.region: holding for member in members if (holding := member.holding(name))}
    return list(_entries(name, holdings, {}))


def adopt(members: Sequence[Member], regions: Sequence[str], name: str, largest: int) -> tuple[Sequence[Counter], bool]:
    """Start above numbers that exist already; the counters, and whether one was made or moved."""
    before = [holding.counter for member in holders(members, name) if (holding := read_holding(member.table, name))]
    if not before:
        return create(members, regions, name, start=largest + 1)
    if all(counter.last >= largest for counter in before):
        return before, False
    after = advance(members, name, largest)
    return after, after != before


def advance(members: Sequence[Member], name: str, to: int) -> Sequence[Counter]:
    """Move a counter forward in every region, so that no ticket up to ``to`` comes any more. Never back.

    ``RefusedError`` where every region is beyond it already.
    """
    there = _taken_up(members, name)
    if all(to < holding.counter.last for _, holding in there):
        least = min(holding.counter.last for _, holding in there)
        raise RefusedError(f"the counter {name!r} is at {least} or more in every region; it never goes back")
    moved = [_advanced(member, holding, to) for member, holding in there]
    for _ in range(ATTEMPTS):  # a region may have been given a lane meanwhile, which begins further back
        there = _taken_up(members, name)
        if all(holding.lane.offset > to for _, holding in there):
            break
        moved = [_advanced(member, holding, to) for member, holding in there]
    return moved


def _taken_up(members: Sequence[Member], name: str) -> Sequence[tuple[Member, Holding]]:
    """Who has a counter, once no lane of it is on offer any more; ``UnknownCounterError`` where nobody has."""
    for target in members:
        _take_offers(members, name, target, _nothing)
    there = [(member, holding) for member in holders(members, name) if (holding := read_holding(member.table, name))]
    if not there:
        raise unknown_counter(name)
    return there


def _advanced(member: Member, holding: Holding, to: int) -> Counter:
    """Move one region's counter to the last number of its lane that is not above ``to``."""
    counter = holding.counter
    for _ in range(ATTEMPTS):
        last = to - (to - counter.last) % counter.increment
        if last <= counter.last:
            return counter
        try:
            return member.table.advance(counter.partition, last)
        except RefusedError:
            found = member.table.get(counter.partition)
            if found is None or found in (counter, holding.counter):
                raise
            counter = found  # it was minted from, or its lane was split
    raise RefusedError(f"the counter {counter.partition!r} changes all the time", hint="run it again")


def switch(members: Sequence[Member], name: str, change: Callable[[Counters], Counter]) -> Sequence[Counter]:
    """Freeze or thaw a counter in every region that has it."""
    changed = [change(member.table) for member, _ in _taken_up(members, name)]
    for _ in range(ATTEMPTS):  # a region may have been given a lane meanwhile, with the state of before
        there = _taken_up(members, name)
        if all(holding.counter.frozen == changed[0].frozen for _, holding in there):
            break
        changed = [change(member.table) for member, _ in there]
    return changed
