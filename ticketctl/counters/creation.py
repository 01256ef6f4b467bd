"""Creating a counter in every region of its sequence.

It mints nowhere until it exists everywhere. If a run is interrupted, the next run resumes it.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ticketctl.counters.arrangement import create_unless_exists, hand_over
from ticketctl.counters.handover import Holding, release, sharing_regions
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import DEFAULT, Member, Survey, holdings_of, ignore, lanes_of, member_of
from ticketctl.counters.table import require_no_region
from ticketctl.errors import RefusedError, UsageError
from ticketctl.models import Counter


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
    if are_shared(members):
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
    before = holdings_of(members, name)
    if before:
        _require_as_wanted(before, wanted)
        return [holding.counter for holding in before.values()], False
    if are_shared(members) or members[0].start != Lane(1, 1):
        raise RefusedError(
            f"{name!r} cannot be gapless: this stack shares its numbers with other regions or servers",
            hint="deploy a stack for it, in one region: ticketctl deploy --stack NAME",
        )
    return _create(members, regions, name, wanted, shared=False)


def are_shared(members: Sequence[Member]) -> bool:
    """Whether several regions share, or will share, the counters: their lanes are then assigned, not chosen."""
    return len(members) != 1 or members[0].start is None or bool(sharing_regions(members[0].table))


def _create(
    members: Sequence[Member], regions: Sequence[str], counter: str | None, wanted: CounterOptions, *, shared: bool
) -> tuple[Sequence[Counter], bool]:
    targets = [member for member in members if member.region in regions and not member.retired]
    before = holdings_of(members, counter)
    _require_as_wanted(before, wanted)
    begun, first = [holding for holding in before.values() if holding.is_pending], wanted
    if any(holding.counter.last >= (wanted.start or 1) for holding in begun):  # the interrupted run had a later start
        first = wanted._replace(start=max(holding.lane.offset for holding in begun))
    lanes = {member.region: _first_lane(member, first, shared=shared) for member in targets}
    created = [_create_in(members, member, counter, lanes[member.region], wanted, shared=shared) for member in targets]
    entries = lanes_of(members, counter)
    Survey({counter: entries}).require_disjoint()
    for entry in entries:
        if entry.is_pending:
            release(member_of(members, entry.region).table, entry.counter or entry.region)
    after = holdings_of(targets, counter)
    _require_as_wanted(after, wanted)
    is_new = any(created) or any(holding.is_pending for holding in before.values())
    return [holding.counter for holding in after.values()], is_new


def _create_in(
    members: Sequence[Member], member: Member, counter: str | None, lane: Lane, wanted: CounterOptions, *, shared: bool
) -> bool:
    """Create the counter in one region, or hand over a part of it; return False if it exists there."""
    if member.holding(counter) is not None:
        return False
    if all(entry.is_pending and entry.lane.is_disjoint(lane) for entry in lanes_of(members, counter)):
        name = member.name_of(counter)
        return create_unless_exists(
            member, name, lane, ceiling=wanted.ceiling, pending=shared, shared=shared, gapless=wanted.gapless
        )
    hand_over(members, counter, member, ignore, pending_too=True)
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
