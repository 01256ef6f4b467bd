"""Failover and retries of a mint: which region is tried, when and for how long."""

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
from ticketctl.minting.retry import Tries, uniform
from ticketctl.models import Block, MintRequest

FAILOVER_CONNECT_SECONDS = 1.0  # the limit for opening a connection if another region can be tried
ASIDE_SECONDS = 10.0  # after a region did not answer, it is tried last for this long


SKIPPED = (
    NotMintedError,
    OutcomeUnknownError,
    NotDeployedError,
    UnknownCounterError,  # the region may not have taken its lane yet
    CounterExhaustedError,
    CounterFrozenError,
)
"""Errors of one region after which the next region is tried. Any other error would be the same in every region."""


class Region(Protocol):
    """A region that can mint."""

    @property
    def place(self) -> str:
        """The name of the region, or the host of a typed URL."""
        ...

    def attempt(self, request: MintRequest, deadline: Deadline, *, looks_up: bool) -> Block:
        """Take tickets in one attempt. ``looks_up``: if the region is unreachable, look up its address again."""
        ...


class Failover:
    """Mints from the first region that gives tickets. With ``spread``, each mint starts with the next region.

    ``able`` returns the regions that may serve a request, in their order. ``note`` gets one line for each skipped
    region, with the reason. One ``Failover`` serves many mints and remembers which regions did not answer.
    """

    def __init__(
        self,
        able: Callable[[MintRequest], Sequence[Region]],
        *,
        spread: bool = False,
        note: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = uniform,
    ) -> None:
        self._able = able
        # With ``spread``, the first region is arbitrary: a process does not know where another process started.
        self._turns = itertools.count(time.time_ns() // 1000 if spread else 0, 1 if spread else 0)
        self._note = note
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._aside: dict[str, float] = {}

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets, with retries; raises the errors of ``Source``. The regions of one pass share its time."""
        order = self._order(self._able(request))
        tries, looks_up = Tries(deadline, jitter=self._jitter), len(order) == 1
        while True:
            for number, region in enumerate(order):
                share = _share(deadline, len(order) - number)
                try:
                    return tries.succeeded(region.attempt(request, share, looks_up=looks_up), region.place)
                except SKIPPED as error:
                    tries.failed(error, region.place)
                    if len(order) > 1:
                        self._skip(region.place, error)
                except TicketctlError as error:
                    tries.failed(error, region.place, final=True)
                    break
            self._sleep(tries.pause(len(order)))
            looks_up = True

    def _order(self, regions: Sequence[Region]) -> Sequence[Region]:
        """The regions in the order to try; those that did not answer recently come last."""
        turn, now = next(self._turns) % len(regions), self._clock()
        turned = [*regions[turn:], *regions[:turn]]
        return sorted(turned, key=lambda region: self._aside.get(region.place, now) > now)

    def _skip(self, place: str, failure: TicketctlError) -> None:
        self._aside[place] = self._clock() + ASIDE_SECONDS
        may = "; it may have spent tickets" if isinstance(failure, OutcomeUnknownError) else ""
        self._note(f"{place} is skipped{may}: {failure.message}")


def _share(deadline: Deadline, waiting: int) -> Deadline:
    """The deadline of the next region, if ``waiting`` regions share the time that is left."""
    return deadline if waiting == 1 else deadline.within(deadline.left() / waiting)
