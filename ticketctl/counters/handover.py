"""Handing part of a counter's lane over to another region while the counter is in use: Hilbert's hotel.

A counter whose last ticket is ``v`` and whose increment is ``m`` is split into k parts by three conditional writes:

1. ``offer`` changes its increment from ``m`` to ``k·m``. The same write records in its item, for the i-th other
   region, the first number ``v + i·m`` and the increment ``k·m``, computed from the ``v`` of that moment. The counter
   keeps ``v + k·m, v + 2k·m, …``; every number belongs to exactly one part.
2. ``take`` creates the counter in the other region, if it does not exist there.
3. ``clear_offer`` removes the record.

If a run stops after any of them, the record says what is left to do. A client that still knows ``m`` is rejected by
the condition of its own write and retries with ``k·m``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketctl import handler as bundle
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import ABSENT, PENDING, Counters, Value, same_increment
from ticketctl.errors import CounterInvalidError, RefusedError
from ticketctl.models import Counter

FIRST, INCREMENT = "first@", "increment@"  # followed by the region's name: the attributes that record an offer
NOT_INHERITED = {
    *("partition", "hand_crafted_int", "increment", "minted_at", "regions"),
    # A retry of a key goes to the region that it was first sent to, so the register of keys stays in that region.
    *bundle.handler.REGISTER_NAMES.values(),
}
"""The attributes of a counter's item that a part of its lane does not get, because they are about one region."""
CAN_BE_SPLIT = (None, {"BOOL": True}, {"S": PENDING})
"""The values of ``frozen`` that mean the same for each part of a split lane; ``None`` is an absent attribute."""


@dataclass(frozen=True)
class Holding:
    """A region's part of a counter.

    ``offers`` are the lanes that were handed over to another region, by region, and that it has not taken yet.
    ``regions`` are all regions that share the counter, as far as this region knows. ``inherited`` are the attributes
    that each part of a split lane gets, also those that this version does not know.
    """

    counter: Counter
    offers: Mapping[str, Lane]
    regions: frozenset[str]
    inherited: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, table: Counters, item: Mapping[str, Any]) -> "Holding":
        """Read it from an item; raises ``CounterInvalidError`` if the item is damaged."""
        counter = table.read(item)
        inherited = {
            name: value
            for name, value in item.items()
            if name not in NOT_INHERITED and not name.startswith((FIRST, INCREMENT))
        }
        return cls(counter, _offers(item), regions_of(item), inherited)

    @property
    def region(self) -> str:
        """The region's name."""
        return self.counter.region or ""

    @property
    def lane(self) -> Lane:
        """The numbers that this region has not issued yet."""
        return Lane(self.counter.last + self.counter.increment, self.counter.increment)

    @property
    def is_pending(self) -> bool:
        """Whether the counter does not mint because it does not exist in every region yet."""
        return self.inherited.get("frozen") == {"S": PENDING}

    @property
    def can_be_split(self) -> bool:
        """Whether a part of the lane may go to another region: not if ``frozen`` has a value unknown to this version.

        A gapless counter, for example, would not stay gapless in two regions.
        """
        return self.inherited.get("frozen") in CAN_BE_SPLIT

    def came_from(self, lane: Lane) -> bool:
        """Whether the counter was created in ``lane``; parts of it may have been handed over since."""
        return self.lane.increment % lane.increment == 0 and self.lane.offset in lane


def regions_of(item: Mapping[str, Any]) -> frozenset[str]:
    """All regions that share a counter, as its item says; none if it is in a single region.

    Whatever else is damaged, this can be read. Raises ``CounterInvalidError`` if it is damaged itself.
    """
    regions = item.get("regions", {"SS": ()})
    if "SS" not in regions:
        raise CounterInvalidError(f"the item of the counter {item['partition']['S']!r} has no string set in 'regions'")
    return frozenset(regions["SS"])


def _offers(item: Mapping[str, Any]) -> Mapping[str, Lane]:
    regions = [name.removeprefix(FIRST) for name in item if name.startswith(FIRST)]
    try:
        return {region: Lane(int(item[FIRST + region]["N"]), int(item[INCREMENT + region]["N"])) for region in regions}
    except (KeyError, ValueError):
        raise CounterInvalidError(
            f"the item of the counter {item['partition']['S']!r} has a damaged lane for another region"
        ) from None


def sharing_regions(table: Counters) -> frozenset[str]:
    """The regions that share the sequence of a table, as its default counter says; see ``regions_of``."""
    return regions_of(table.item(table.region) or {})


def read_holding(table: Counters, name: str) -> Holding | None:
    """Read a region's part of a counter, consistently; ``None`` if it has no counter of that name."""
    item = table.item(name)
    return None if item is None else Holding.read(table, item)


def create_counter(
    table: Counters,
    name: str,
    lane: Lane,
    *,
    offers: Mapping[str, Lane] | None = None,
    ceiling: int | None = None,
    pending: bool = False,
    shared: bool = True,
    gapless: bool = False,
) -> None:
    """Create a counter whose first ticket is ``lane.offset``, and record the lanes offered to other regions.

    ``pending``: it does not mint until ``release``. ``shared``: other regions have, or may get, a part of it.
    ``gapless``: only claims take its numbers.
    Raises ``ConditionFailedError`` if it exists, and ``RefusedError`` if it could not mint.
    """
    limit, largest = bundle.handler.MAX_TICKET if ceiling is None else ceiling, bundle.handler.MAX_TICKET
    if not lane.offset <= limit <= largest or lane.increment > largest:
        raise RefusedError(f"no ticket fits: the first is {lane.offset}, the ceiling {limit}")
    attributes: dict[str, Value] = {"hand_crafted_int": lane.offset - lane.increment}
    if lane.increment != 1:
        attributes["increment"] = lane.increment
    if ceiling is not None:
        attributes["ceiling"] = ceiling
    if pending:
        attributes["frozen"] = PENDING
    if gapless:
        attributes["frozen"] = bundle.handler.GAPLESS
    if shared:
        attributes["regions"] = frozenset({table.region, *(offers or ())})
    for region, offered in (offers or {}).items():
        attributes |= {FIRST + region: offered.offset, INCREMENT + region: offered.increment}
    _create(table, name, attributes)


def _create(table: Counters, name: str, attributes: Mapping[str, Value]) -> None:
    numbered = list(enumerate(attributes.items()))
    update = ", ".join(f"#a{number} = :a{number}" for number, _ in numbered)
    names = {f"#a{number}": attribute for number, (attribute, _) in numbered}
    table.change(name, f"SET {update}", ABSENT, {f":a{number}": value for number, (_, value) in numbered}, names)


def offer(table: Counters, name: str, increment: int, regions: Sequence[str]) -> Holding:
    """Split the lane of a counter: one part stays, one is offered to each of ``regions``. Return what stays.

    Raises ``ConditionFailedError`` if its increment is no longer ``increment``, if it has already offered a lane to
    one of them, or if its ``frozen`` has a value that cannot be split.
    """
    step = (1 + len(regions)) * increment
    if step > bundle.handler.MAX_TICKET:
        raise RefusedError(
            f"the lane of {name!r} in {table.region} cannot be split again: its increment is already {increment}"
        )
    sets = ["#increment = :step"]
    conditions = [
        "attribute_exists(#last)",
        same_increment(increment),
        "(attribute_not_exists(#frozen) OR #frozen = :frozen OR #frozen = :pending)",
    ]
    values: dict[str, Value] = {":increment": increment, ":step": step, ":frozen": True, ":pending": PENDING}
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
    """Create the counter in the region that ``donor`` offers a lane to. Does nothing if it has taken the lane already.

    It inherits the donor's ceiling, ``frozen`` and every attribute that this version does not know; it does not
    inherit the register of keys. Raises ``RefusedError`` if the region has another counter of that name.
    """
    lane = donor.offers[table.region]
    attributes: dict[str, Value] = {
        **donor.inherited,
        "hand_crafted_int": lane.offset - lane.increment,
        "increment": lane.increment,
        "regions": donor.regions | {table.region, donor.region},
    }
    try:
        _create(table, name, attributes)
    except bundle.handler.ConditionFailedError as rejected:
        if rejected.item is None or not Holding.read(table, rejected.item).came_from(lane):
            raise RefusedError(
                f"{table.region} already has a counter {name!r}, and it is not in the lane {lane} "
                f"that {donor.region} has handed over to it; nothing was changed",
                hint="ticketctl regions",
            ) from None


def clear_offer(table: Counters, name: str, region: str, lane: Lane) -> None:
    """Remove the record of a lane that ``region`` has taken."""
    names = {"#first": FIRST + region, "#step": INCREMENT + region}
    values: dict[str, Value] = {":first": lane.offset, ":step": lane.increment}
    try:
        table.change(name, "REMOVE #first, #step", "#first = :first AND #step = :step", values, names)
    except bundle.handler.ConditionFailedError:
        return  # another run has removed it


def release(table: Counters, name: str) -> None:
    """Let a pending counter mint, because it now exists in every region."""
    try:
        table.change(name, "REMOVE #frozen", "#frozen = :pending", {":pending": PENDING})
    except bundle.handler.ConditionFailedError:
        return  # it mints already, or a user has frozen it
