"""Minting from whichever region answers: the policy, apart from how a region is reached."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    TicketctlError,
    UnknownCounterError,
)
from ticketctl.minting.retry import call_with_retries
from ticketctl.models import Block

CONNECT_SECONDS = 1.0  # how long a region may take to accept a connection where there is another to go to
LEAST_SECONDS = 0.5  # what an answer may take at least: less would make an unknown outcome of a slow refusal
ASIDE_SECONDS = 10.0  # how long a region that did not answer is asked last


PASSED_OVER = (
    NotMintedError,
    OutcomeUnknownError,
    NotDeployedError,
    UnknownCounterError,  # its lane may be on its way to the region
    CounterExhaustedError,
    CounterFrozenError,
)
"""What one region may answer while another mints; what any other error says holds for all of them."""


class Region(Protocol):
    """One region: ``attempt`` takes ``count`` tickets in one try of at most ``within`` seconds.

    ``looks_up``: where it cannot be reached, its address may be looked up again.
    """

    @property
    def region(self) -> str:
        """Its name."""
        ...

    def attempt(self, count: int, *, key: str | None, within: float, looks_up: bool) -> Block:
        """Take ``count`` tickets."""
        ...


class Failover:
    """Several regions as one source of tickets. They are asked in their order, with ``spread`` each first in turn.

    ``note`` is told where a region was passed over, and why.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        *,
        timeout: float,
        spread: bool = False,
        note: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._regions = list(regions)
        self._timeout = timeout
        # A process that spreads begins anywhere: what another one did before it does not know.
        self._turns = itertools.count(time.time_ns() // 1000 if spread else 0, 1 if spread else 0)
        self._note = note
        self._clock = clock
        self._sleep = sleep
        self._aside: dict[str, float] = {}

    def mint(self, count: int, *, key: str) -> Block:
        """Take ``count`` tickets from the first region that gives them, within the timeout in all.

        A region whose outcome is *unknown* may have spent them: then the block that another one gives names it in
        ``possible_gaps``. Its receipt for ``key`` stays in that region, so asking it again settles the matter.
        """
        order = self._order()
        unsettled: dict[str, OutcomeUnknownError] = {}
        failures: list[TicketctlError] = []

        def attempt(within: float) -> Block:
            looks_up, deadline = bool(failures), self._clock() + within
            if failures and within < LEAST_SECONDS * len(order):
                raise _what_counts(failures)
            failures.clear()
            for number, region in enumerate(order):
                share = max(deadline - self._clock(), 0.05) / (len(order) - number)
                try:
                    block = region.attempt(count, key=key, within=share, looks_up=looks_up)
                except PASSED_OVER as failure:
                    if isinstance(failure, OutcomeUnknownError):
                        unsettled.setdefault(region.region, failure)
                    self._pass_over(region.region, failure)
                    failures.append(failure)
                except TicketctlError as error:
                    for unknown in unsettled.values():  # whatever this one says, that one may have minted
                        raise unknown from error
                    raise
                else:
                    gaps = tuple(name for name in unsettled if name != region.region)
                    return replace(block, possible_gaps=gaps)
            raise _what_counts(failures)

        return call_with_retries(attempt, timeout=self._timeout, keyed=True, clock=self._clock, sleep=self._sleep)

    def _order(self) -> Sequence[Region]:
        """The regions, those that did not answer lately behind the others."""
        turn, now = next(self._turns) % len(self._regions), self._clock()
        turned = self._regions[turn:] + self._regions[:turn]
        return sorted(turned, key=lambda region: self._aside.get(region.region, now) > now)

    def _pass_over(self, region: str, failure: TicketctlError) -> None:
        self._aside[region] = self._clock() + ASIDE_SECONDS
        may = "; it may have spent tickets" if isinstance(failure, OutcomeUnknownError) else ""
        self._note(f"{region} is passed over{may}: {failure.message}")


def _what_counts(failures: Sequence[TicketctlError]) -> TicketctlError:
    """Of several failures the one that says most: *unknown*, else *not minted*, else the first."""
    for kind in (OutcomeUnknownError, NotMintedError):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return failures[0]
