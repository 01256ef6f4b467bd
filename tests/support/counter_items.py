"""Items of counters in the format of DynamoDB's low-level API, for the tests of hand-overs."""

from typing import Any

from ticketctl.counters.lanes import Lane


def number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def item(name: str, last: int, increment: int | None = None, **more: Any) -> dict[str, Any]:
    step = {} if increment is None else {"increment": number(increment)}
    return {"partition": {"S": name}, "hand_crafted_int": number(last), **step, **more}


def offered(region: str, lane: Lane) -> dict[str, Any]:
    return {f"first@{region}": number(lane.offset), f"increment@{region}": number(lane.increment)}


def regions(*names: str) -> dict[str, Any]:
    return {"regions": {"SS": sorted(names)}}
