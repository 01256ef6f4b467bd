"""Trying again where that is safe: with jitter, until a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
Answer = TypeVar("Answer")


def until_known(
    attempt: Callable[[float], Answer],
    *,
    timeout: float,
    keyed: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[float, float], float] | None = None,
) -> Answer:
    """Make attempts until one ends well or ``timeout`` seconds are over; ``attempt`` gets the seconds left.

    *Not minted* is always tried again, *unknown* only where an idempotency key makes that safe (``keyed``).
    Once an attempt ended unknown the whole is unknown, however the later ones end. The pauses are those of
    "full jitter": from 0 to a bound that doubles (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    if jitter is None:
        import random

        jitter = random.uniform
    deadline = clock() + timeout
    unknown: TicketctlError | None = None
    bound = FIRST_PAUSE
    while True:
        try:
            return attempt(max(deadline - clock(), FIRST_PAUSE))
        except NotMintedError as error:
            last: TicketctlError = error
        except OutcomeUnknownError as error:
            last = unknown = error
            if not keyed:
                raise
        except TicketctlError as error:
            if unknown is None:
                raise
            raise unknown from error
        pause = jitter(0.0, bound)
        if clock() + pause >= deadline:
            raise unknown or last
        sleep(pause)
        bound = min(bound * 2, LONGEST_PAUSE)
