"""The counters of one table: read, list, move forward, freeze. Each change is one conditional write.

``advance`` never moves a counter back: DynamoDB rejects its write if the counter has passed the number, or if its lane
or ceiling has changed. ``change`` sends any update, so the condition of its callers must ensure this.
"""

import csv
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.aws.sdk_errors import not_a_ticket_table, translated_errors
from ticketctl.aws.tables import Tables
from ticketctl.counters.lanes import Lane
from ticketctl.errors import AccessError, CounterGaplessError, CounterInvalidError, RefusedError, UsageError
from ticketctl.minting.dynamodb import translated_problems
from ticketctl.minting.source import unknown_counter
from ticketctl.models import Counter
from ticketctl.settings import REGION

COUNTER_ATTEMPTS = 10
PENDING = "half-made"  # the value of the attribute ``frozen`` until the counter exists in every region
ABSENT = "attribute_not_exists(#partition)"
SHOWN = ("#partition", "#last", "#increment", "#ceiling", "#minted_at", "#frozen")  # what ``all`` reads of an item
Value = bool | int | str | frozenset[str] | Mapping[str, Any]
"""The value of an attribute; a mapping is one in DynamoDB's own form: ``{"N": "42"}``."""


class Counters:
    """The counters of a table in ``region``."""

    def __init__(self, client: Any, table: str, *, region: str, profile: str | None = None) -> None:
        self.region = region
        self._client = client
        self._profile = profile
        self._table = table
        self._target = f"the table {table} in {region}"
        self._send = sdk_sender(client, self._target, profile=profile)

    def all(self, warn: Callable[[str], None] = lambda line: None) -> Iterator[Counter]:
        """Read every counter, in DynamoDB's order, without receipts and without the attributes of hand-overs and keys.

        ``warn`` is called with one line for each damaged item; the item is skipped.
        """
        for item in self._scan(only=SHOWN):
            try:
                counter = self.read(item)
            except CounterInvalidError as damage:
                warn(damage.message)
            else:
                yield counter

    def items(self) -> Iterator[Mapping[str, Any]]:
        """Read the items of all counters with all their attributes, without receipts.

        A hand-over names attributes after regions that nobody knows before reading, so no projection can list them.
        """
        return self._scan()

    def _scan(self, only: Sequence[str] = ()) -> Iterator[Mapping[str, Any]]:
        """Scan the table page by page; ``only`` are the placeholders of the attributes to read."""
        projection = {"ProjectionExpression": ", ".join(only)} if only else {}
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="NOT begins_with(#partition, :receipt)",
            ExpressionAttributeNames={name: bundle.handler.NAMES[name] for name in {"#partition", *only}},
            ExpressionAttributeValues={":receipt": {"S": bundle.handler.RECEIPT}},
            **projection,
        )
        with translated_errors(self._target, profile=self._profile):
            for page in pages:
                for item in page["Items"]:
                    if "S" not in item.get("partition", {}):
                        raise not_a_ticket_table(self._target, "its key is not partition (S) alone")
                    yield item

    def require_key(self) -> None:
        """Raise ``RefusedError`` if the table has another key, such as one with a sort key, even if it is empty.

        If the caller may only scan, the table is not refused.
        """
        with suppress(AccessError):
            self.item(self.region)

    def require_no_replicas(self) -> None:
        """Raise ``RefusedError`` if the table is a global table: each copy would issue every number."""
        Tables(self._client, profile=self._profile).require_no_replicas(self._table)

    def item(self, name: str) -> Mapping[str, Any] | None:
        """Read the item of a counter, consistently; ``None`` if there is no counter of that name."""
        with translated_problems(name):
            request = bundle.handler.read_request(self._table, bundle.handler.check_name(name))
            item: Mapping[str, Any] | None = self._send("GetItem", request).get("Item")
            return item

    def read(self, item: Mapping[str, Any]) -> Counter:
        """Read a counter from its item; raises ``CounterInvalidError`` if the item is damaged."""
        with translated_problems(str(item["partition"]["S"])):
            return replace(Counter.from_answer(bundle.handler.read_counter(item)), region=self.region)

    def get(self, name: str) -> Counter | None:
        """Read a counter; ``None`` if there is no counter of that name."""
        item = self.item(name)
        return None if item is None else self.read(item)

    def advance(self, name: str, to: int) -> Counter:
        """Move a counter forward: ``to`` counts as its last ticket. Does nothing if that is its last ticket already.

        Raises ``RefusedError`` if the counter would move back, leave its lane or pass its ceiling.
        """
        counter = self.get(name)
        for _ in range(COUNTER_ATTEMPTS):
            if counter is None:
                raise unknown_counter(name)
            require_can_advance(counter, to)
            values = {":to": to, ":increment": counter.increment, ":ceiling": counter.ceiling}
            condition = f"#last <= :to AND {same_increment(counter.increment)} AND {_same_ceiling(counter)}"
            try:
                return self._changed(name, "SET #last = :to", condition, values)
            except bundle.handler.ConditionFailedError as rejected:
                counter = None if rejected.item is None else self.read(rejected.item)
        raise RefusedError(f"the counter {name!r} keeps changing; nothing was changed", hint="try again")

    def freeze(self, name: str) -> Counter:
        """Stop a counter from minting; one that is gapless stays so, and claims are refused as well."""
        return self._switch(name, "SET #frozen = :frozen", True, bundle.handler.GAPLESS_FROZEN)

    def thaw(self, name: str) -> Counter:
        """Let a frozen counter mint again, or if it is gapless, let claims take its numbers again."""
        return self._switch(name, "REMOVE #frozen", True, bundle.handler.GAPLESS)

    def remove(self, name: str) -> None:
        """Delete a temporary counter. Never any other: a new one of that name would issue its numbers again."""
        with translated_errors(self._target, profile=self._profile):
            self._client.delete_item(TableName=self._table, Key={"partition": {"S": name}})

    def _switch(self, name: str, update: str, frozen: Value, gapless: str) -> Counter:
        """Send ``update`` with ``frozen``; a gapless counter gets the mark ``gapless`` instead."""
        marks = {":pending": PENDING, ":claims": bundle.handler.GAPLESS, ":stopped": bundle.handler.GAPLESS_FROZEN}
        is_gapless = "(#frozen = :claims OR #frozen = :stopped)"
        condition = f"attribute_exists(#last) AND NOT #frozen = :pending AND NOT {is_gapless}"
        try:
            return self._changed(name, update, condition, {":frozen": frozen, **marks})
        except bundle.handler.ConditionFailedError as rejected:
            if rejected.item is not None and self.read(rejected.item).gapless:
                return self._changed(name, "SET #frozen = :frozen", is_gapless, {":frozen": gapless, **marks})
            if rejected.item is not None and "hand_crafted_int" in rejected.item:
                raise not_everywhere(name) from None
            raise unknown_counter(name) from None

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
        """Send one conditional write and return the item after it.

        ``names`` are placeholders in addition to the handler's ``NAMES``. Names and values that the expressions do
        not use are not sent. Raises ``ConditionFailedError`` with the current item if the condition does not hold.
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
            item: Mapping[str, Any] = self._send("UpdateItem", request)["Attributes"]
            return item


def not_everywhere(name: str) -> RefusedError:
    """The error for a counter whose creation was interrupted: it is pending."""
    return RefusedError(
        f"the counter {name!r} does not exist in every region yet",
        hint=f"ticketctl counter create {shlex.quote(name)}",
    )


def require_can_advance(counter: Counter, to: int) -> None:
    """Raise ``RefusedError`` if ``to`` is behind the counter, not in its lane or beyond its ceiling.

    A gapless counter cannot advance: that would be a gap.
    """
    last, step = counter.last, counter.increment
    if counter.gapless:
        raise CounterGaplessError(
            f"the counter {counter.partition!r} is gapless: to advance it would leave a gap",
            hint="choose where it starts when you create it: ticketctl counter create NAME --gapless --start N",
        )
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


def require_no_region(name: str, regions: Collection[str] = ()) -> None:
    """Raise ``UsageError`` if ``name`` is, or looks like, a region's name: that names the region's default counter."""
    if name in regions or re.fullmatch(REGION, name):
        raise UsageError(f"{name!r} is a region's name, reserved for its default counter", hint="choose another name")


def same_increment(increment: int) -> str:
    """The condition that a counter's increment is still ``:increment``; an absent increment means 1."""
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
        case frozenset():
            return {"SS": sorted(value)}
    return dict(value)


def largest_integer(lines: Iterator[str], column: str | None = None) -> int:
    """Find the largest integer of a stream that has one per line, or of the ``column`` with that heading if it is CSV.

    Raises ``CounterInvalidError`` if a line is not an integer, or if there is no integer.
    """
    try:
        return _largest(_cells(lines, column))
    except csv.Error as error:
        raise CounterInvalidError(f"the input is not CSV: {error}; nothing was changed") from None


def _cells(lines: Iterator[str], column: str | None) -> Iterator[str]:
    if column is None:
        yield from (line.strip() for line in lines)
        return
    rows = csv.DictReader(lines)
    names = list(rows.fieldnames or ())
    if names.count(column) != 1:
        found = "is no column" if column not in names else f"are {names.count(column)} columns"
        raise CounterInvalidError(f"there {found} {column!r}; the columns are: {', '.join(names)}")
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
        raise CounterInvalidError("the input has no number; nothing was changed")
    return largest
