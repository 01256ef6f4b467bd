"""One sequence in one region or several: which region has which lane, proof that no two overlap, and every change.

The state is read from the tables each time. Every change is a conditional write to one item (see ``handover``). If a
run is interrupted, the next run resumes it.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ticketctl import handler as bundle
from ticketctl.counters.handover import (
    Holding,
    clear_offer,
    create_counter,
    offer,
    read_holding,
    release,
    sharing_regions,
    take,
)
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters, not_everywhere, require_can_advance, require_no_region
from ticketctl.errors import CounterInvalidError, RefusedError, UsageError
from ticketctl.minting.source import unknown_counter
from ticketctl.models import Counter

LANE_ATTEMPTS = 20
READS = 3
SCRATCH = re.compile(r"verify-[0-9a-f]{32}")  # the counters of ``ticketctl verify``, which are deleted again
CANNOT_BE_SPLIT = "in a state that several regions cannot share"
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


def _name(counter: str | None) -> str:
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


# --- giving regions their lanes ----------------------------------------------------------------------


def arrange(
    members: Sequence[Member],
    regions: Sequence[str],
    report: Reporter = ignore,
    *,
    may_begin: bool = True,
    known: Survey | None = None,
) -> None:
    """Give each of ``regions`` a lane of every counter, and resume an interrupted run.

    A new sequence gets the lanes ``1 … n`` of increment n in the order of ``regions``, also for those that are not
    members yet. Later each new region gets a part of the widest lane of each counter. A survey that is ``known`` saves
    reading every table again if it shows that nothing is left to do. Raises ``RefusedError`` if lanes overlap, or if
    no region has the sequence and it must not begin (``may_begin``): a region that cannot be read may have it.
    """
    if known is not None and _is_arranged(known, members, regions):
        return
    found = survey(members, report)
    found.require_disjoint()
    require_names_free(found, regions)
    if _is_arranged(found, members, regions):
        return
    if _start_default(members, regions, may_begin=may_begin):
        found = survey(members)
    for target, counter in itertools.product(members, sorted(found.entries, key=lambda counter: counter or "")):
        _give_lane(members, counter, target, report, found.holdings(counter), is_named=target.region in regions)
    found = survey(members)
    found.require_disjoint()
    for entry in found.entries[DEFAULT]:
        if entry.is_pending:
            release(_member(members, entry.region).table, entry.region)


def _is_arranged(found: Survey, members: Sequence[Member], regions: Sequence[str]) -> bool:
    """Whether every member among ``regions`` has its lane of every counter, and no run is unfinished."""
    default = found.holdings(DEFAULT)
    waiting = [member for member in members if not member.retired and member.start and member.region not in default]
    if waiting or not default or any(holding.is_pending for holding in default.values()):
        return False
    names = {member.region for member in members}
    for counter in found.entries:
        holdings = found.holdings(counter)
        offered = {region for holding in holdings.values() for region in holding.offers}
        missing = names & set(regions) - holdings.keys() - {counter}
        if all(holding.counter.gapless for holding in holdings.values()) and holdings:
            continue  # it stays in its region
        if offered & names or missing:
            return False
    return True


def _give_lane(
    members: Sequence[Member],
    counter: str | None,
    target: Member,
    report: Reporter,
    holdings: Mapping[str, Holding],
    *,
    is_named: bool,
) -> None:
    """Let ``target`` take the lanes offered to it; if it is named and has no lane, hand over a part of another lane."""
    if any(target.region in holding.offers for holding in holdings.values()):
        _take_offers(members, counter, target, report)
    elif not is_named or target.region in holdings or target.region == counter:
        return
    elif all(holding.can_be_split for holding in holdings.values()):
        _hand_over(members, counter, target, report, pending_too=counter is DEFAULT)
    else:
        report(f"{_name(counter)}: not handed over to {target.region}: it is {CANNOT_BE_SPLIT}")


def require_names_free(found: Survey, regions: Iterable[str]) -> None:
    """Raise ``RefusedError`` if a counter has the name of one of ``regions`` and is not its default counter."""
    for region in regions:
        for entry in found.entries.get(region, ()):
            raise RefusedError(
                f"{entry.region} has a counter {region!r}, which is the name of that region's default counter",
                hint="use another --stack: tickets of one name must not come from two counters",
            )


def withdraw_offers(members: Sequence[Member], region: str) -> None:
    """Remove the lanes offered to a region whose table is about to be deleted: it may have minted from them."""
    for counter, entries in survey(members).entries.items():
        for holding in [entry.holding for entry in entries if entry.holding]:
            if region in holding.offers:
                table = _member(members, holding.region).table
                clear_offer(table, counter or holding.region, region, holding.offers[region])


def _member(members: Iterable[Member], region: str) -> Member:
    return next(member for member in members if member.region == region)


def _start_default(members: Sequence[Member], regions: Sequence[str], *, may_begin: bool) -> bool:
    """Start the default counter as the functions would; otherwise in one region, with lanes offered to the others.

    Returns whether that was necessary.
    """
    started = False
    for member in members:
        if member.start is not None and not member.retired and member.holding(DEFAULT) is None:
            _create_unless_exists(member, member.region, member.start)
            started = True
    active = [member for member in members if not member.retired]
    if not active or any(member.holding(DEFAULT) for member in members):
        return started
    if not may_begin:
        raise RefusedError(
            "no region that could be read has the sequence; one that could not be read may have it",
            hint="run the command again",
        )
    names = list(dict.fromkeys([*regions, *(member.region for member in active)]))
    lanes = dict(zip(names, Lane(1, 1).split(len(names)), strict=True))
    first = min(active, key=lambda member: member.region)  # the same one in every run that does this at the same time
    lane = lanes.pop(first.region)
    _create_unless_exists(first, first.region, lane, offers=lanes, pending=bool(lanes))
    return True


def _create_unless_exists(member: Member, name: str, lane: Lane, **options: Any) -> bool:
    """Create a counter; return False if another run was faster, whose counter is then used."""
    try:
        create_counter(member.table, name, lane, **options)
    except bundle.handler.ConditionFailedError:
        return False
    return True


def _hand_over(
    members: Sequence[Member], counter: str | None, target: Member, report: Reporter, *, pending_too: bool = False
) -> None:
    """Make sure that ``target`` has a lane of a counter that other regions have.

    ``pending_too``: also if the counter is pending; otherwise that is left to the run that creates it.
    """
    for _ in range(LANE_ATTEMPTS):
        holdings = {member.region: member.holding(counter) for member in members if member is not target}
        if any(holding and target.region in holding.offers for holding in holdings.values()):
            _take_offers(members, counter, target, report)
            return
        # The target is read last: any run that gives it a lane has split the donor before, and the offer below fails.
        if target.holding(counter) is not None:
            return
        if not pending_too and any(holding and holding.is_pending for holding in holdings.values()):
            return
        donor, increment = _donor(members, counter, holdings)
        with suppress(bundle.handler.ConditionFailedError):  # the lane has changed since it was read
            offer(donor.table, donor.name_of(counter), increment, [target.region])
    raise RefusedError(f"the lanes of {_name(counter)} keep changing", hint="run the command again")


def _donor(
    members: Sequence[Member], counter: str | None, holdings: Mapping[str, Holding | None]
) -> tuple[Member, int]:
    """The active region with the widest lane of a counter, and its increment."""
    found = {region: holding for region, holding in holdings.items() if holding}
    if not all(holding.can_be_split for holding in found.values()):
        raise RefusedError(f"{_name(counter)} is {CANNOT_BE_SPLIT}; nothing was changed")
    donors = [member for member in members if not member.retired and member.region in found]
    if not donors:
        raise RefusedError(
            f"{_name(counter)} is only in regions that were destroyed: {', '.join(found)}; their lanes stay unused",
            hint="deploy one of them again, with --region",
        )
    increments = {member.region: found[member.region].counter.increment for member in donors}
    donor = min(donors, key=lambda member: (increments[member.region], member.region))
    return donor, increments[donor.region]


def _take_offers(members: Sequence[Member], counter: str | None, target: Member, report: Reporter) -> bool:
    """Take the lanes that are offered to ``target``; return whether there was one."""
    taken = False
    for donor in members:
        holding = donor.holding(counter)
        if holding is None or target.region not in holding.offers:
            continue
        lane = holding.offers[target.region]
        take(target.table, target.name_of(counter), holding)
        clear_offer(donor.table, donor.name_of(counter), target.region, lane)
        report(f"{_name(counter)}: {donor.region} has handed {lane} over to {target.region}")
        taken = True
    return taken


# --- creating a counter ------------------------------------------------------------------------------


class CounterOptions(NamedTuple):
    """The options of a counter to create; ``None`` is the default."""

    start: int | None
    offset: int | None
    increment: int | None
    ceiling: int | None
    gapless: bool = False


def create(
    members: Sequence[Member],
    regions: Sequence[str],
    name: str,
    *,
    start: int | None = None,
    offset: int | None = None,
    increment: int | None = None,
    ceiling: int | None = None,
    gapless: bool = False,
) -> tuple[Sequence[Counter], bool]:
    """Create a counter in each of ``regions``; return the counters and whether one of them is new.

    In regions that share the sequence it gets the lanes of their default counters and starts at or after ``start``.
    It mints nowhere until it exists in all of them. The next run resumes an interrupted one, and starts the counter in
    no region below those that have it. In a single region,
    ``start`` must be in the lane, which ``offset`` and ``increment`` can set; the default is the stack's.
    ``gapless``: only claims take its numbers; the stack must be in a single region and issue every number.
    Raises ``RefusedError`` if it exists with other options, and ``UsageError`` if a number is below 1.
    """
    wanted = CounterOptions(start, offset, increment, ceiling, gapless)
    for option in ("start", "offset", "increment", "ceiling"):
        if (value := getattr(wanted, option)) is not None and (type(value) is not int or value < 1):
            raise UsageError(f"{option} must be an integer of 1 or more, not {value!r}")
    if gapless:
        return _create_gapless(members, regions, name, wanted)
    if _are_shared(members):
        if offset or increment:
            raise UsageError("--increment and --offset cannot be set if several regions share the lanes")
        require_no_region(name, {member.region for member in members})
        return _create(members, regions, name, wanted, shared=True)
    if name == members[0].region:
        return _create(members, regions, DEFAULT, wanted, shared=False)
    require_no_region(name)
    return _create(members, regions, name, wanted, shared=False)


def _create_gapless(
    members: Sequence[Member], regions: Sequence[str], name: str, wanted: CounterOptions
) -> tuple[Sequence[Counter], bool]:
    """Create a gapless counter. One that exists is not changed, even if other regions have joined the sequence."""
    if wanted.increment or wanted.offset:
        raise UsageError("--gapless cannot be combined with --increment or --offset: a gapless counter moves by 1")
    require_no_region(name, {member.region for member in members})
    before = _holdings(members, name)
    if before:
        _require_as_wanted(before, wanted)
        return [holding.counter for holding in before.values()], False
    if _are_shared(members) or members[0].start != Lane(1, 1):
        raise RefusedError(
            f"{name!r} cannot be gapless: this stack shares its numbers with other regions or servers",
            hint="deploy a stack for it, in one region: ticketctl deploy --stack NAME",
        )
    return _create(members, regions, name, wanted, shared=False)


def _are_shared(members: Sequence[Member]) -> bool:
    """Whether several regions share, or will share, the counters: their lanes are then assigned, not chosen."""
    return len(members) != 1 or members[0].start is None or bool(sharing_regions(members[0].table))


def _create(
    members: Sequence[Member], regions: Sequence[str], counter: str | None, wanted: CounterOptions, *, shared: bool
) -> tuple[Sequence[Counter], bool]:
    targets = [member for member in members if member.region in regions and not member.retired]
    before = _holdings(members, counter)
    _require_as_wanted(before, wanted)
    begun, first = [holding for holding in before.values() if holding.is_pending], wanted
    if any(holding.counter.last >= (wanted.start or 1) for holding in begun):  # the interrupted run had a later start
        first = wanted._replace(start=max(holding.lane.offset for holding in begun))
    lanes = {member.region: _first_lane(member, first, shared=shared) for member in targets}
    created = [_create_in(members, member, counter, lanes[member.region], wanted, shared=shared) for member in targets]
    entries = _lanes_of(members, counter)
    Survey({counter: entries}).require_disjoint()
    for entry in entries:
        if entry.is_pending:
            release(_member(members, entry.region).table, entry.counter or entry.region)
    after = _holdings(targets, counter)
    _require_as_wanted(after, wanted)
    is_new = any(created) or any(holding.is_pending for holding in before.values())
    return [holding.counter for holding in after.values()], is_new


def _create_in(
    members: Sequence[Member], member: Member, counter: str | None, lane: Lane, wanted: CounterOptions, *, shared: bool
) -> bool:
    """Create the counter in one region, or hand over a part of it; return False if it exists there."""
    if member.holding(counter) is not None:
        return False
    if all(entry.is_pending and entry.lane.is_disjoint(lane) for entry in _lanes_of(members, counter)):
        name = member.name_of(counter)
        return _create_unless_exists(
            member, name, lane, ceiling=wanted.ceiling, pending=shared, shared=shared, gapless=wanted.gapless
        )
    _hand_over(members, counter, member, ignore, pending_too=True)
    return True


def _first_lane(member: Member, wanted: CounterOptions, *, shared: bool) -> Lane:
    """The lane of a new counter in one region, from its first ticket on."""
    if shared:
        lane = _lane_of(member)
        return Lane(lane.at_or_after(wanted.start or 1), lane.increment)
    start = member.start or Lane(1, 1)
    lane = Lane(wanted.offset or start.offset, wanted.increment or start.increment)
    first = lane.offset if wanted.start is None else wanted.start
    if (first - lane.offset) % lane.increment:
        nearest = lane.at_or_after(first)
        raise RefusedError(f"{first} is not in the lane {lane}", hint=f"the next number that is: --start {nearest}")
    return Lane(first, lane.increment)


def _lane_of(member: Member) -> Lane:
    """A region's residue class, from its default counter or from the lane in which that may start."""
    holding = member.holding(DEFAULT)
    lane = holding.lane if holding else member.start
    if lane is None:
        raise RefusedError(
            f"{member.region} has no lane yet", hint=f"ticketctl deploy --region {shlex.quote(member.region)}"
        )
    return Lane(lane.residue, lane.increment)


def _require_as_wanted(holdings: Mapping[str, Holding], wanted: CounterOptions) -> None:
    """Raise ``RefusedError`` if a counter exists with other options than are wanted."""
    for region, holding in holdings.items():
        counter = holding.counter
        same = (wanted.increment or counter.increment, wanted.ceiling or counter.ceiling, wanted.gapless)
        is_elsewhere = wanted.offset is not None and (counter.last - wanted.offset) % counter.increment != 0
        is_behind = wanted.start is not None and holding.lane.offset < wanted.start
        if same != (counter.increment, counter.ceiling, counter.gapless) or is_elsewhere or is_behind:
            raise RefusedError(
                f"the counter {counter.partition!r} exists in {region} with other options: last ticket "
                f"{counter.last}, increment {counter.increment}, ceiling {counter.ceiling}"
                + (", gapless" if counter.gapless else ""),
                hint="choose another name, or move it forward with: ticketctl counter advance",
            )


def _holdings(members: Sequence[Member], counter: str | None) -> Mapping[str, Holding]:
    return {member.region: holding for member in members if (holding := member.holding(counter))}


def _lanes_of(members: Sequence[Member], counter: str | None) -> Sequence[Entry]:
    return list(_entries(counter, _holdings(members, counter), {}))


# --- changing a counter ------------------------------------------------------------------------------


def adopt(members: Sequence[Member], regions: Sequence[str], name: str, largest: int) -> tuple[Sequence[Counter], bool]:
    """Start a counter above existing numbers in ``regions``; return its counters there and whether one is new or moved.

    If it exists in another region, it gets a part of that region's lane.
    """
    chosen = [member for member in members if member.region in regions]
    everywhere, here = _holders_after_taking(members, name), _holders(chosen, name)
    is_new = False
    if not here or any(holding.is_pending and holding.region != name for _, holding in here):
        start = max(1, largest + 1)
        first = start if _are_shared(members) else (members[0].start or Lane(1, 1)).at_or_after(start)
        _, is_new = create(members, regions, name, start=None if everywhere else first)
    before = [holding.counter for _, holding in _holders(chosen, name)]
    if all(counter.last >= largest for counter in before):
        return before, is_new
    after = _move(chosen, name, largest)
    return after, is_new or after != before


def advance(members: Sequence[Member], name: str, to: int) -> Sequence[Counter]:
    """Move a counter forward in every region, so that no ticket up to ``to`` is issued from now on. Never back.

    Raises ``RefusedError`` if every region is already beyond ``to``, if the counter is in a single region and ``to`` is
    not in its lane, or if it does not exist in every region yet.
    """
    holders = _require_holders(members, name)
    if any(holding.is_pending and holding.region != name for _, holding in holders):
        raise not_everywhere(name)  # the run that creates it would start it below ``to`` elsewhere
    if len(holders) == 1 and not holders[0][1].regions:
        require_can_advance(holders[0][1].counter, to)
    least = min(holding.counter.last for _, holding in holders)
    if to < least:
        raise RefusedError(
            f"the counter {name!r} is at {least} or more in every region; going back to {to} would mint numbers again"
        )
    return _move(members, name, to)


def _move(members: Sequence[Member], name: str, to: int) -> Sequence[Counter]:
    """Move a counter forward in every region that has it."""
    moved: Sequence[Counter] = []
    for _ in range(LANE_ATTEMPTS):  # a region may receive a lane at the same time, which starts further back
        holders = _require_holders(members, name)
        if moved and all(holding.lane.offset > to for _, holding in holders):
            break
        moved = [_moved(member, holding, to) for member, holding in holders]
    return moved


def _moved(member: Member, holding: Holding, to: int) -> Counter:
    """Move one region's counter to the last number of its lane that is not above ``to``."""
    counter = holding.counter
    for _ in range(LANE_ATTEMPTS):
        last = to - (to - counter.last) % counter.increment
        if last <= counter.last:
            return counter
        try:
            return member.table.advance(counter.partition, last)
        except RefusedError:
            found = member.table.get(counter.partition)
            if found is None or found in (counter, holding.counter):
                raise
            counter = found  # it has minted, or its lane was split
    raise RefusedError(f"the counter {counter.partition!r} keeps changing", hint="run the command again")


def freeze(members: Sequence[Member], name: str) -> Sequence[Counter]:
    """Stop a counter from minting in every region that has it."""
    return _switch(members, name, Counters.freeze)


def thaw(members: Sequence[Member], name: str) -> Sequence[Counter]:
    """Let a frozen counter mint again in every region that has it."""
    return _switch(members, name, Counters.thaw)


def _switch(members: Sequence[Member], name: str, change: Callable[[Counters, str], Counter]) -> Sequence[Counter]:
    changed: Sequence[Counter] = []
    for _ in range(LANE_ATTEMPTS):  # a region may receive a lane at the same time, with the old state
        holders = _require_holders(members, name)
        if changed and all(holding.counter.frozen == changed[0].frozen for _, holding in holders):
            break
        changed = [change(member.table, name) for member, _ in holders]
    return changed


def _require_holders(members: Sequence[Member], name: str) -> Sequence[tuple[Member, Holding]]:
    """The members that have a counter, after every lane of it on offer was taken.

    Raises ``UnknownCounterError`` if none has it.
    """
    holders = _holders_after_taking(members, name)
    if not holders:
        raise unknown_counter(name)
    return holders


def _holders_after_taking(members: Sequence[Member], name: str) -> Sequence[tuple[Member, Holding]]:
    for target in members:
        _take_offers(members, name, target, ignore)
    return _holders(members, name)


def _holders(members: Sequence[Member], name: str) -> Sequence[tuple[Member, Holding]]:
    """The members that have a counter. A region's name means its default counter, which only that region has."""
    named = [member for member in members if member.region == name] or members
    return [(member, holding) for member in named if (holding := read_holding(member.table, name))]
