"""The log lines of a stack's function in all its regions."""

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ticketctl.aws.logs import Follower, LogEvent, LogGroup
from ticketctl.deployments.outcomes import Outcomes, failures, raise_failures, succeeded
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.errors import NotDeployedError, NotMintedError, TicketctlError

POLL_SECONDS = 2.0


class NoFunctionError(NotDeployedError):
    """The stack has no function in this region."""


class Line(NamedTuple):
    """One event and the region that it is from."""

    region: str
    event: LogEvent


class Logs:
    """The log groups of a stack, read from ``start`` (epoch milliseconds)."""

    def __init__(self, regions: Regions, start: int) -> None:
        self._regions = regions
        self._start = start
        self._followers: dict[str, Follower] = {}

    def read(self) -> tuple[Sequence[Line], Outcomes[Sequence[LogEvent]]]:
        """Read the new events of all regions, oldest first, and the answer of each region.

        Regions without a function are skipped, unless no region has one.
        """
        outcomes = self._regions.each(self._poll)
        with_function = {name: it for name, it in outcomes.items() if not isinstance(it, NoFunctionError)}
        outcomes = with_function or outcomes
        found = succeeded(outcomes)
        lines = [[Line(region, event) for event in events] for region, events in found.items()]
        return list(heapq.merge(*lines, key=lambda line: line.event.time)), outcomes

    def follow(
        self, warn: Callable[[str], None], *, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Sequence[Line]]:
        """Poll for new events.

        A region that fails is named once and read again. Raises an error if no region could ever be read, or if all
        fail for another reason than a connection.
        """
        failed: Mapping[str, TicketctlError] = {}
        while True:
            lines, outcomes = self.read()
            before, failed = failed, failures(outcomes)
            is_passing = self._followers and all(isinstance(error, NotMintedError) for error in failed.values())
            if len(failed) == len(outcomes) and not is_passing:
                raise_failures(outcomes, "read")
            for region, error in failed.items():
                if region not in before:
                    warn(f"{region} cannot be read: {error.message}")
            yield lines
            sleep(POLL_SECONDS)

    def _poll(self, stack: RegionalStack) -> Sequence[LogEvent]:
        """The new events of one region; its log group is looked up once."""
        follower = self._followers.get(stack.region) or Follower(_log_group(stack), self._start)
        events = follower.poll()
        self._followers[stack.region] = follower
        return events


def _log_group(stack: RegionalStack) -> LogGroup:
    settings, session = stack.settings, stack.session
    if settings.local:
        stack.locator.confirm()  # deploys the stack, as other commands do
    name = session.cloudformation(timeout=settings.timeout).log_group(settings.stack)
    if name is None:
        raise NoFunctionError(
            f"the stack {settings.stack} in {stack.region} has no function, so it has no log lines",
            hint="ticketctl deploy",
        )
    client = session.aws.client("logs", timeout=settings.timeout, connect=session.connect)
    return LogGroup(client, name, profile=settings.profile)
