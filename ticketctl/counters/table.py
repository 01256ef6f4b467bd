"""Looking after counters: make, move forward, freeze, list. Each change is one conditional write.

None of them can put a counter back: a change holds only while the counter stands no further than it should
and moves in the lane that was looked at.
"""

import csv
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.account import translated_errors
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.lanes import Lane
from ticketctl.errors import CounterInvalidError, RefusedError, UnknownCounterError, UsageError
from ticketctl.minting.dynamodb import translated_problems
from ticketctl.minting.source import unknown_counter
from ticketctl.models import Counter
from ticketctl.settings import REGION

ATTEMPTS = 10
HALF_MADE = "half-made"  # the value of the attribute ``frozen`` until a counter is there in every region
ABSENT = "attribute_not_exists(#partition)"
Value = bool | int | str | frozenset[str]


class Counters:
    """The counters of a table in ``region``. ``lane`` is that of counters that are made here."""

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        region: str,
        lane: Lane = Lane(1, 1),  # noqa: B008 - it is frozen
        profile: str | None = None,
    ) -> None:
        self.region = region
        self.lane = lane
        self._client = client
        self._profile = profile
        self._table = table
        self._target = f"the table {table} in {region}"
        self._send = sdk_sender(client, self._target, profile=profile)

    def all(self, warn: Callable[[str], None] = lambda line: None) -> Iterator[Counter]:
        """Every counter, a page at a time, in DynamoDB's order; receipts are none.

        ``warn`` is told of items that are no counter, a line each.
        """
        for item in self.items():
            try:
                counter = self.read(item)
            except CounterInvalidError as damage:
                warn(damage.message)
            else:
                yield counter

    def items(self) -> Iterator[Mapping[str, Any]]:
        """The items of all counters as DynamoDB has them, a page at a time."""
        scan = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="NOT begins_with(#partition, :receipt)",
            ExpressionAttributeNames={"#partition": "partition"},
            ExpressionAttributeValues={":receipt": {"S": bundle.handler.RECEIPT}},
        )
        with translated_errors(self._target, profile=self._profile):
            for page in scan:
                yield from page["Items"]

    def item(self, name: str) -> Mapping[str, Any] | None:
        """The item of a counter, read consistently; ``None`` where there is none of that name."""
        with translated_problems(name):
            request = bundle.handler.read_request(self._table, bundle.handler.check_name(name))
            item: Mapping[str, Any] | None = self._send("GetItem", request).get("Item")
            return item

    def read(self, item: Mapping[str, Any]) -> Counter:
        """The counter of an item; ``CounterInvalidError`` where that is damaged."""
        with translated_problems(str(item["partition"]["S"])):
            return replace(Counter.from_answer(bundle.handler.read_counter(item)), region=self.region)

    def get(self, name: str) -> Counter | None:
        """A counter, ``None`` where there is none of that name."""
        item = self.item(name)
        return None if item is None else self.read(item)

    def create(
        self,
        name: str,
        *,
        start: int | None = None,
        offset: int | None = None,
        increment: int | None = None,
        ceiling: int | None = None,
    ) -> tuple[Counter, bool]:
        """Make a counter whose first ticket is ``start``; the counter, and whether it was made now.

        What is not given is the stack's lane and no ceiling. One that is there already is left as it is;
        ``RefusedError`` where it is not what was asked for.
        """
        lane = Lane(offset or self.lane.offset, increment or self.lane.increment)
        step = lane.increment
        if name != self.region:
            require_no_region(name)
        first = lane.offset if start is None else start
        if (first - lane.offset) % step:
            raise RefusedError(
                f"{first} is not in the lane {lane}",
                hint=f"the next number that is: --start {lane.at_or_after(first)}",
            )
        limit = bundle.handler.MAX_TICKET if ceiling is None else ceiling
        if not first <= limit <= bundle.handler.MAX_TICKET or step > bundle.handler.MAX_TICKET:
            raise RefusedError(f"no ticket fits: the first is {first}, the ceiling {limit}")
        values = {":last": first - step, ":increment": step, ":ceiling": limit}
        sets = ["#last = :last"]
        if step != 1:
            sets.append("#increment = :increment")
        if ceiling is not None:
            sets.append("#ceiling = :ceiling")
        try:
            return self._changed(name, "SET " + ", ".join(sets), ABSENT, values), True
        except NotSoError as found:
            if found.item is None:
                raise UnknownCounterError(f"the counter {name!r} went away meanwhile") from None
            there = self.read(found.item)
            asked = (increment or there.increment, ceiling or there.ceiling)
            elsewhere = offset is not None and (there.last - offset) % there.increment != 0
            behind = start is not None and there.last + there.increment < start
            if asked != (there.increment, there.ceiling) or elsewhere or behind:
                raise RefusedError(
                    f"the counter {name!r} exists and is another: last ticket {there.last}, "
                    f"step {there.increment}, ceiling {there.ceiling}",
                    hint="choose another name, or move it forward with: ticketctl counter advance",
                ) from None
            return there, False

    def advance(self, name: str, to: int) -> Counter:
        """Move a counter forward: ``to`` counts as its last ticket. Where it stands there already, nothing changes.

        ``RefusedError`` where that would go back, leave the lane or pass the ceiling.
        """
        counter = self.get(name)
        for _ in range(ATTEMPTS):
            if counter is None:
                raise unknown_counter(name)
            self._check_advance(counter, to)
            values = {":to": to, ":increment": counter.increment, ":ceiling": counter.ceiling}
            condition = f"#last <= :to AND {same_increment(counter.increment)} AND {_same_ceiling(counter)}"
            try:
                return self._changed(name, "SET #last = :to", condition, values)
            except NotSoError as found:
                counter = None if found.item is None else self.read(found.item)
        raise RefusedError(f"the counter {name!r} changes all the time; nothing was changed", hint="try again")

    def adopt(self, name: str, largest: int) -> tuple[Counter, bool]:
        """Start above numbers that exist already: the next ticket is beyond ``largest``.

        The counter, and whether it moved or was made; one that is beyond already stays where it is.
        """
        counter = self.get(name)
        if counter is None:
            return self.create(name, start=self.lane.after(largest))
        if counter.last >= largest:
            return counter, False
        to = Lane(counter.last, counter.increment).at_or_after(largest)
        try:
            return self.advance(name, to), True
        except RefusedError:
            passed = self.get(name)
            if passed is None or passed.last < largest:
                raise
            return passed, False  # minters have brought it there meanwhile

    def freeze(self, name: str) -> Counter:
        """Stop a counter from minting."""
        return self._switch(name, "SET #frozen = :frozen", {":frozen": True})

    def thaw(self, name: str) -> Counter:
        """Let a frozen counter mint again."""
        return self._switch(name, "REMOVE #frozen", {})

    def remove(self, name: str) -> None:
        """Delete a counter; its numbers may then come again. For scratch counters only."""
        with translated_errors(self._target, profile=self._profile):
            self._client.delete_item(TableName=self._table, Key={"partition": {"S": name}})

    def _switch(self, name: str, update: str, values: Mapping[str, Value]) -> Counter:
        try:
            made = "attribute_exists(#last) AND NOT #frozen = :half_made"
            return self._changed(name, update, made, {**values, ":half_made": HALF_MADE})
        except NotSoError as found:
            if found.item is not None and "hand_crafted_int" in found.item:
                raise RefusedError(
                    f"the counter {name!r} is not there in every region yet",
                    hint=f"ticketctl counter create {shlex.quote(name)}",
                ) from None
            raise unknown_counter(name) from None

    def _check_advance(self, counter: Counter, to: int) -> None:
        last, step = counter.last, counter.increment
        if to < last:
            raise RefusedError(
                f"the counter {counter.partition!r} is at {last}; going back to {to} would mint numbers again"
            )
        if (to - last) % step:
            nearest = Lane(last, step).at_or_after(to)
            raise RefusedError(
                f"{to} is not in the lane of {counter.partition!r}: …, {last}, {last + step}, …",
                hint=f"ticketctl counter advance {shlex.quote(counter.partition)} --to {nearest}",
            )
        if to > counter.ceiling:
            raise RefusedError(f"{to} is beyond the ceiling {counter.ceiling} of {counter.partition!r}")

    def _changed(self, name: str, update: str, condition: str, values: Mapping[str, Value]) -> Counter:
        return self.read(self.change(name, update, condition, values))

    def change(
        self,
        name: str,
        update: str,
        condition: str,
        values: Mapping[str, Value],
        names: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """One conditional write; the item as it is then. ``NotSoError`` where the condition does not hold.

        ``names`` are attributes beside those that the handler names; of names and values those are sent that are used.
        """
        handler = bundle.handler
        used = set(re.findall(r"[#:]\w+", f"{update} {condition}"))
        with translated_problems(name):
            request = {
                "TableName": self._table,
                "Key": {"partition": {"S": handler.check_name(name)}},
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {k: v for k, v in {**handler.NAMES, **(names or {})}.items() if k in used},
                "ReturnValues": "ALL_NEW",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            if sent := {k: _typed(v) for k, v in values.items() if k in used}:
                request["ExpressionAttributeValues"] = sent
            try:
                item: Mapping[str, Any] = self._send("UpdateItem", request)["Attributes"]
            except handler.ConditionFailedError as refused:
                raise NotSoError(refused.item) from None
        return item


def require_no_region(name: str, regions: Collection[str] = ()) -> None:
    """``UsageError`` for a name that a region has, or may have: it means that region's default counter."""
    if name in regions or re.fullmatch(REGION, name):
        raise UsageError(f"{name!r} is the name of a region, for its default counter", hint="choose another name")


class NotSoError(Exception):
    """The condition of a change does not hold; ``item`` is what is there."""

    def __init__(self, item: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.item = item


def same_increment(increment: int) -> str:
    """The condition that a counter still moves by ``:increment``; an absent one means 1."""
    same = "#increment = :increment"
    return f"(attribute_not_exists(#increment) OR {same})" if increment == 1 else same


def _same_ceiling(counter: Counter) -> str:
    if counter.ceiling == bundle.handler.MAX_TICKET:
        return "(attribute_not_exists(#ceiling) OR #ceiling >= :ceiling)"
    return "#ceiling = :ceiling"


def _typed(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
    return {"SS": sorted(value)}


def largest_integer(lines: Iterator[str], column: str | None = None) -> int:
    """The largest integer of a stream: one a line, or of a CSV's ``column`` (its heading).

    ``CounterInvalidError`` where a line is none, or there is no line at all.
    """
    try:
        return _largest(_cells(lines, column))
    except csv.Error as error:
        raise CounterInvalidError(f"this is not CSV: {error}; nothing was changed") from None


def _cells(lines: Iterator[str], column: str | None) -> Iterator[str]:

    if column is None:
        yield from (line.strip() for line in lines)
        return
    rows = csv.DictReader(lines)
    if column not in (rows.fieldnames or ()):
        raise CounterInvalidError(f"there is no column {column!r}; there are: {', '.join(rows.fieldnames or ())}")
    yield from ((row[column] or "").strip() for row in rows)


def _largest(cells: Iterator[str]) -> int:
    largest: int | None = None
    for number, cell in enumerate(cells, start=1):
        if not cell:
            continue
        if not re.fullmatch(r"-?[0-9]{1,20}", cell):
            raise CounterInvalidError(f"line {number} is not a whole number: {cell[:50]!r}; nothing was changed")
        largest = int(cell) if largest is None else max(largest, int(cell))
    if largest is None:
        raise CounterInvalidError("there is no number to start above; nothing was changed")
    return largest
