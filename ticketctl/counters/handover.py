"""Handing a part of a counter's lane over to another region while it is being minted from: Hilbert's hotel.

A counter that stands at ``v`` and moves by ``m`` is split into k parts in three conditional writes:

1. ``offer``: its increment goes from ``m`` to ``k·m``, and in the same write its item records for the i-th other
   region the first number ``v + i·m`` and the increment ``k·m``, computed from the ``v`` of that moment. So it keeps
   ``v + k·m, v + 2k·m, …``; no number is left out, and no two regions can meet.
2. ``take``: the other region's counter is made, on condition that there is none.
3. ``clear_offer``: the record is cleared.

Whatever comes to an end after any of them, the record says what is left to do. A minter that still knows ``m`` is
refused by the condition of its own write and goes on with ``k·m``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketctl import handler as bundle
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import ABSENT, HALF_MADE, Counters, NotSoError, Value, same_increment
from ticketctl.errors import RefusedError
from ticketctl.models import Counter

FIRST, INCREMENT = "first@", "increment@"  # with the region's name behind it: the attributes of a record


@dataclass(frozen=True)
class Holding:
    """What one region has of a counter. ``offers`` are lanes handed over to a region that has not taken them yet."""

    counter: Counter
    offers: Mapping[str, Lane]
    regions: frozenset[str]
    is_half_made: bool

    @classmethod
    def read(cls, table: Counters, item: Mapping[str, Any]) -> "Holding":
        """Read it out of an item; ``CounterInvalidError`` where that is damaged."""
        counter = table.read(item)
        offers = {
            name.removeprefix(FIRST): Lane(int(item[name]["N"]), int(item[INCREMENT + name.removeprefix(FIRST)]["N"]))
            for name in item
            if name.startswith(FIRST)
        }
        regions = frozenset(item.get("regions", {}).get("SS", ()))
        return cls(counter, offers, regions, item.get("frozen", {}).get("S") == HALF_MADE)

    @property
    def region(self) -> str:
        """The region that has it."""
        return self.counter.region or ""

    @property
    def lane(self) -> Lane:
        """The numbers that it has still to give."""
        return Lane(self.counter.last + self.counter.increment, self.counter.increment)

    def came_from(self, lane: Lane) -> bool:
        """Whether it was made from a lane that was offered, and perhaps handed on in part since."""
        return self.lane.increment % lane.increment == 0 and self.lane.offset in lane


def read_holding(table: Counters, name: str) -> Holding | None:
    """What a region has of a counter, read consistently; ``None`` where it has none."""
    item = table.item(name)
    return None if item is None else Holding.read(table, item)


def begin(
    table: Counters,
    name: str,
    lane: Lane,
    *,
    offers: Mapping[str, Lane],
    ceiling: int | None = None,
    half_made: bool = False,
) -> None:
    """Make a counter whose first ticket is ``lane.offset``, with the other regions' lanes recorded in it.

    ``NotSoError`` where it is there already.
    """
    sets = ["#last = :last", "#increment = :increment"]
    values: dict[str, Value] = {":last": lane.offset - lane.increment, ":increment": lane.increment}
    names = {"#regions": "regions"}
    for number, (region, offered) in enumerate(offers.items()):
        names |= {f"#first{number}": FIRST + region, f"#step{number}": INCREMENT + region}
        values |= {f":first{number}": offered.offset, f":step{number}": offered.increment}
        sets += [f"#first{number} = :first{number}", f"#step{number} = :step{number}"]
    limit = bundle.handler.MAX_TICKET if ceiling is None else ceiling
    if not lane.offset <= limit <= bundle.handler.MAX_TICKET:
        raise RefusedError(f"no ticket fits: the first is {lane.offset}, the ceiling {limit}")
    if ceiling is not None:
        sets.append("#ceiling = :ceiling")
    if half_made:
        sets.append("#frozen = :frozen")
    values |= {":ceiling": limit, ":frozen": HALF_MADE}
    values[":regions"] = frozenset({table.region, *offers})
    table.change(name, f"SET {', '.join(sets)} ADD #regions :regions", ABSENT, values, names)


def offer(table: Counters, name: str, increment: int, regions: Sequence[str]) -> Holding:
    """Split the lane of a counter in use, one part for it and one for each of ``regions``; what is left to it.

    ``NotSoError`` where it does not move by ``increment`` any more, or offers one of them a lane already.
    """
    step = (1 + len(regions)) * increment
    if step > bundle.handler.MAX_TICKET:
        raise RefusedError(f"the lane of {name!r} in {table.region} is too thin to be split: its step is {increment}")
    sets, conditions = ["#increment = :step"], ["attribute_exists(#last)", same_increment(increment)]
    values: dict[str, Value] = {":increment": increment, ":step": step}
    names = {"#regions": "regions"}
    for number, region in enumerate(regions, start=1):
        names |= {f"#first{number}": FIRST + region, f"#step{number}": INCREMENT + region}
        values[f":ahead{number}"] = number * increment
        sets += [f"#first{number} = #last + :ahead{number}", f"#step{number} = :step"]
        conditions.append(f"attribute_not_exists(#first{number})")
    values[":regions"] = frozenset({table.region, *regions})
    update = f"SET {', '.join(sets)} ADD #regions :regions"
    return Holding.read(table, table.change(name, update, " AND ".join(conditions), values, names))


def take(table: Counters, name: str, donor: Holding) -> None:
    """Make the counter in the region that ``donor`` offers a lane to; nothing changes where it has taken it already.

    ``RefusedError`` where it has a counter of that name that came from elsewhere.
    """
    lane, counter = donor.offers[table.region], donor.counter
    sets = ["#last = :last", "#increment = :increment"]
    values: dict[str, Value] = {
        ":last": lane.offset - lane.increment,
        ":increment": lane.increment,
        ":ceiling": counter.ceiling,
        ":frozen": HALF_MADE if donor.is_half_made else True,
        ":regions": donor.regions | {table.region, donor.region},
    }
    if counter.ceiling != bundle.handler.MAX_TICKET:
        sets.append("#ceiling = :ceiling")
    if counter.frozen:
        sets.append("#frozen = :frozen")
    update = f"SET {', '.join(sets)} ADD #regions :regions"
    try:
        table.change(name, update, ABSENT, values, {"#regions": "regions"})
    except NotSoError as found:
        if found.item is None or not Holding.read(table, found.item).came_from(lane):
            raise RefusedError(
                f"the counter {name!r} is in {table.region} already, and not in the lane {lane} "
                f"that {donor.region} has handed over to it; nothing was changed",
                hint="ticketctl regions",
            ) from None


def clear_offer(table: Counters, name: str, region: str, lane: Lane) -> None:
    """Clear the record of a lane that ``region`` has taken."""
    names = {"#first": FIRST + region, "#step": INCREMENT + region}
    values: dict[str, Value] = {":first": lane.offset, ":step": lane.increment}
    try:
        table.change(name, "REMOVE #first, #step", "#first = :first AND #step = :step", values, names)
    except NotSoError:
        return  # somebody else has


def release(table: Counters, name: str) -> None:
    """Let a counter mint that was held until it was there in every region."""
    try:
        table.change(name, "REMOVE #frozen", "#frozen = :half_made", {":half_made": HALF_MADE})
    except NotSoError:
        return  # it mints, or somebody has frozen it
