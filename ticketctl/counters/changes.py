"""Moving a counter forward, freezing and thawing it, in every region that has it."""

from collections.abc import Callable, Sequence

from ticketctl.counters.arrangement import LANE_ATTEMPTS, take_offers
from ticketctl.counters.creation import are_shared, create
from ticketctl.counters.handover import Holding, read_holding
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import Member, ignore
from ticketctl.counters.table import Counters, not_everywhere, require_can_advance
from ticketctl.errors import RefusedError
from ticketctl.minting.source import unknown_counter
from ticketctl.models import Counter


def adopt(members: Sequence[Member], regions: Sequence[str], name: str, largest: int) -> tuple[Sequence[Counter], bool]:
    """Start a counter above existing numbers in ``regions``; return its counters there and whether one is new or moved.

    If it exists in another region, it gets a part of that region's lane.
    """
    chosen = [member for member in members if member.region in regions]
    everywhere, here = _holders_after_taking(members, name), _holders(chosen, name)
    is_new = False
    if not here or any(holding.is_pending and holding.region != name for _, holding in here):
        start = max(1, largest + 1)
        first = start if are_shared(members) else (members[0].start or Lane(1, 1)).at_or_after(start)
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
        take_offers(members, name, target, ignore)
    return _holders(members, name)


def _holders(members: Sequence[Member], name: str) -> Sequence[tuple[Member, Holding]]:
    """The members that have a counter. A region's name means its default counter, which only that region has."""
    named = [member for member in members if member.region == name] or members
    return [(member, holding) for member in named if (holding := read_holding(member.table, name))]
