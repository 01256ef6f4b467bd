"""Creates a counter in one table, as ``ticketctl counter create`` does for a stack in one region."""

from typing import Any

from ticketctl.counters.creation import create
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import Member
from ticketctl.counters.table import Counters
from ticketctl.models import Counter


def alone(table: Counters, lane: Lane = Lane(1, 1)) -> list[Member]:  # noqa: B008 - it is frozen
    """Return the members of a sequence in a single region, whose stack has this lane."""
    return [Member(table, lane)]


def make_counter(table: Counters, name: str, **options: Any) -> tuple[Counter, bool]:
    """Create a counter in one region; return it and whether it is new."""
    (counter,), is_new = create(alone(table), [table.region], name, **options)
    return counter, is_new
