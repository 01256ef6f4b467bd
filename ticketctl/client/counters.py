"""The counters of a stack, for clients: read, listed, created."""

from typing import TypedDict

from ticketctl.deadline import Deadline
from ticketctl.deployments.outcomes import raise_failures, succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import UsageError
from ticketctl.models import Counter


class CreateOptions(TypedDict, total=False):
    """The options of ``ticketctl counter create``, with the same names and defaults."""

    start: int
    offset: int
    increment: int
    ceiling: int
    gapless: bool


def read_counter(regions: Regions, name: str | None, deadline: Deadline) -> Counter:
    """Read a counter in the first region; a region's name means the default counter of that region."""
    stack = regions.at(name) if name is not None and name in regions.names else regions.home
    return stack.counter(name, deadline)


def read_counters(regions: Regions) -> list[Counter]:
    """Read every counter of every region, sorted by name and region; damaged items are skipped with a warning."""
    _require_table(regions)
    outcomes = regions.each(lambda stack: list(stack.counters().all(regions.warn)))
    raise_failures(outcomes, "read")
    found = [counter for counters in succeeded(outcomes).values() for counter in counters]
    return sorted(found, key=lambda counter: (counter.partition, counter.region or ""))


def create_counter(regions: Regions, name: str, options: CreateOptions) -> Counter:
    """Create a counter in every region of the stack; return that of the first. One that exists is not changed."""
    from ticketctl.counters import creation

    _require_table(regions)
    members = regions.members()
    if all(member.retired for member in members):
        regions.home.locator.look_up()  # deploys into the embedded AWS, or says what is missing
        members = regions.members()
    for member in members:
        member.table.require_no_replicas()
    active = [member.region for member in members if not member.retired]
    counters, _ = creation.create(members, active, name, **options)
    home = [counter for counter in counters if counter.region == regions.home.region]
    return (home or list(counters))[0]


def _require_table(regions: Regions) -> None:
    if regions.home.settings.url:
        raise UsageError("counters cannot be listed or created through a URL", hint="do not set url")
