"""Giving the regions of a sequence their lanes, and taking back what was offered.

Every change is a conditional write to one item (see ``handover``). If a run is interrupted, the next run resumes it.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ticketctl import handler as bundle
from ticketctl.counters.handover import Holding, clear_offer, create_counter, offer, release, take
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import DEFAULT, Member, Reporter, Survey, ignore, member_of, shown_name, survey
from ticketctl.errors import RefusedError

LANE_ATTEMPTS = 20
CANNOT_BE_SPLIT = "in a state that several regions cannot share"


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
            release(member_of(members, entry.region).table, entry.region)


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
        take_offers(members, counter, target, report)
    elif not is_named or target.region in holdings or target.region == counter:
        return
    elif all(holding.can_be_split for holding in holdings.values()):
        hand_over(members, counter, target, report, pending_too=counter is DEFAULT)
    else:
        report(f"{shown_name(counter)}: not handed over to {target.region}: it is {CANNOT_BE_SPLIT}")


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
                table = member_of(members, holding.region).table
                clear_offer(table, counter or holding.region, region, holding.offers[region])


def _start_default(members: Sequence[Member], regions: Sequence[str], *, may_begin: bool) -> bool:
    """Start the default counter as the functions would; otherwise in one region, with lanes offered to the others.

    Returns whether that was necessary.
    """
    started = False
    for member in members:
        if member.start is not None and not member.retired and member.holding(DEFAULT) is None:
            create_unless_exists(member, member.region, member.start)
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
    create_unless_exists(first, first.region, lane, offers=lanes, pending=bool(lanes))
    return True


def create_unless_exists(member: Member, name: str, lane: Lane, **options: Any) -> bool:
    """Create a counter; return False if another run was faster, whose counter is then used."""
    try:
        create_counter(member.table, name, lane, **options)
    except bundle.handler.ConditionFailedError:
        return False
    return True


def hand_over(
    members: Sequence[Member], counter: str | None, target: Member, report: Reporter, *, pending_too: bool = False
) -> None:
    """Make sure that ``target`` has a lane of a counter that other regions have.

    ``pending_too``: also if the counter is pending; otherwise that is left to the run that creates it.
    """
    for _ in range(LANE_ATTEMPTS):
        holdings = {member.region: member.holding(counter) for member in members if member is not target}
        if any(holding and target.region in holding.offers for holding in holdings.values()):
            take_offers(members, counter, target, report)
            return
        # The target is read last: any run that gives it a lane has split the donor before, and the offer below fails.
        if target.holding(counter) is not None:
            return
        if not pending_too and any(holding and holding.is_pending for holding in holdings.values()):
            return
        donor, increment = _donor(members, counter, holdings)
        with suppress(bundle.handler.ConditionFailedError):  # the lane has changed since it was read
            offer(donor.table, donor.name_of(counter), increment, [target.region])
    raise RefusedError(f"the lanes of {shown_name(counter)} keep changing", hint="run the command again")


def _donor(
    members: Sequence[Member], counter: str | None, holdings: Mapping[str, Holding | None]
) -> tuple[Member, int]:
    """The active region with the widest lane of a counter, and its increment."""
    found = {region: holding for region, holding in holdings.items() if holding}
    if not all(holding.can_be_split for holding in found.values()):
        raise RefusedError(f"{shown_name(counter)} is {CANNOT_BE_SPLIT}; nothing was changed")
    donors = [member for member in members if not member.retired and member.region in found]
    if not donors:
        raise RefusedError(
            f"{shown_name(counter)} is only in regions that were destroyed: {', '.join(found)};"
            " their lanes stay unused",
            hint="deploy one of them again, with --region",
        )
    increments = {member.region: found[member.region].counter.increment for member in donors}
    donor = min(donors, key=lambda member: (increments[member.region], member.region))
    return donor, increments[donor.region]


def take_offers(members: Sequence[Member], counter: str | None, target: Member, report: Reporter) -> bool:
    """Take the lanes that are offered to ``target``; return whether there was one."""
    taken = False
    for donor in members:
        holding = donor.holding(counter)
        if holding is None or target.region not in holding.offers:
            continue
        lane = holding.offers[target.region]
        take(target.table, target.name_of(counter), holding)
        clear_offer(donor.table, donor.name_of(counter), target.region, lane)
        report(f"{shown_name(counter)}: {donor.region} has handed {lane} over to {target.region}")
        taken = True
    return taken
