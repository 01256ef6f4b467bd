"""Minting from the first region that answers: the policy, apart from how a region is reached."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ticketctl.deadline import Deadline
from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    TicketctlError,
    UnknownCounterError,
)
from ticketctl.minting.retry import Tries
from ticketctl.models import Block, MintRequest

CONNECT_SECONDS = 1.0  # the limit for a connection if there is another region to go to
LEAST_SECONDS = 0.5  # the least time for an answer: less would turn a slow refusal into an unknown outcome
ASIDE_SECONDS = 10.0  # how long a region that did not answer is asked last


SKIPPED = (
    NotMintedError,
    OutcomeUnknownError,
    NotDeployedError,
    UnknownCounterError,  # its lane may be on its way to the region
    CounterExhaustedError,
    CounterFrozenError,
)
"""Errors of one region that say nothing of the others; any other error holds for all regions."""


class Region(Protocol):
    """One region."""

    @property
    def place(self) -> str:
        """The name of the region, or the host of a typed URL."""
        ...

    def attempt(self, request: MintRequest, deadline: Deadline, *, looks_up: bool) -> Block:
        """Take the tickets in one attempt. ``looks_up``: if the region is unreachable, look up its address again."""
        ...


class Failover:
    """Which region is asked next, and for how long. With ``spread`` each of them comes first in turn.

    ``note`` is told which region is skipped, and why. One ``Failover`` serves many mints, and remembers which regions
    did not answer.
    """

    def __init__(
        self,
        *,
        spread: bool = False,
        note: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A process that spreads begins anywhere: it does not know what another process did before.
        self._turns = itertools.count(time.time_ns() // 1000 if spread else 0, 1 if spread else 0)
        self._note = note
        self._clock = clock
        self._aside: dict[str, float] = {}

    def attempts(self, regions: Sequence[Region], request: MintRequest, tries: Tries) -> Callable[[Deadline], Block]:
        """A function that asks each of the regions once, until one mints; for ``call_with_retries`` with ``tries``.

        One region alone gets all the time.
        """
        order = self._order(regions)
        failures: list[TicketctlError] = []

        def attempt(deadline: Deadline) -> Block:
            if failures and len(order) > 1 and deadline.left() < LEAST_SECONDS * len(order):
                raise most_telling(failures)
            looks_up = bool(failures) or len(order) == 1
            failures.clear()
            for number, region in enumerate(order):
                try:
                    with tries.at(region.place):
                        share = _share(deadline, len(order) - number)
                        return tries.succeeded(region.attempt(request, share, looks_up=looks_up), region.place)
                except SKIPPED as failure:
                    failures.append(failure)
                    if len(order) > 1:
                        self._skip(region.place, failure)
            raise most_telling(failures)

        return attempt

    def _order(self, regions: Sequence[Region]) -> Sequence[Region]:
        """The regions, those that did not answer lately behind the others."""
        turn, now = next(self._turns) % len(regions), self._clock()
        turned = [*regions[turn:], *regions[:turn]]
        return sorted(turned, key=lambda region: self._aside.get(region.place, now) > now)

    def _skip(self, place: str, failure: TicketctlError) -> None:
        self._aside[place] = self._clock() + ASIDE_SECONDS
        may = "; it may have spent tickets" if isinstance(failure, OutcomeUnknownError) else ""
        self._note(f"{place} is skipped{may}: {failure.message}")


def _share(deadline: Deadline, waiting: int) -> Deadline:
    """The part of the time that the next of the ``waiting`` regions has."""
    return deadline if waiting == 1 else deadline.within(deadline.left() / waiting)


def most_telling(failures: Sequence[TicketctlError]) -> TicketctlError:
    """Of several failures the one that says most: *unknown*, else *not minted*, else the first."""
    for kind in (OutcomeUnknownError, NotMintedError):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return failures[0]
