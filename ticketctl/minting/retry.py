"""Trying again where that is safe: with jitter, until a deadline."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
Answer = TypeVar("Answer")


def _uniform(least: float, most: float) -> float:
    import random  # here, because a command that succeeds at once does without

    return random.uniform(least, most)  # noqa: S311 - it spreads load and hides nothing


class Tries:
    """What is tried again, when, and what is known in the end; without the attempts and the waiting.

    *Not minted* is always tried again, *unknown* only where an idempotency key makes that safe (``keyed``).
    Once an attempt ended unknown the whole is unknown, however the later ones end. The pauses are those of
    "full jitter": from 0 to a bound that doubles (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """

    def __init__(
        self,
        *,
        timeout: float,
        keyed: bool,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] | None = None,
    ) -> None:
        self._deadline = clock() + timeout
        self._keyed = keyed
        self._clock = clock
        self._jitter = jitter or _uniform
        self._bound = FIRST_PAUSE
        self._unknown: OutcomeUnknownError | None = None

    def left(self) -> float:
        """The seconds that an attempt has."""
        return max(self._deadline - self._clock(), FIRST_PAUSE)

    def pause_after(self, error: TicketctlError) -> float:
        """The seconds to wait after a failure; where no other attempt is to follow, raises what is known."""
        if isinstance(error, OutcomeUnknownError):
            self._unknown = error
            if not self._keyed:
                raise error
        elif not isinstance(error, NotMintedError):
            if self._unknown is None:
                raise error
            raise self._unknown from error
        pause = self._jitter(0.0, self._bound)
        if self._clock() + pause >= self._deadline:
            raise self._unknown or error
        self._bound = min(self._bound * 2, LONGEST_PAUSE)
        return pause


def call_with_retries(
    attempt: Callable[[float], Answer],
    *,
    timeout: float,
    keyed: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[float, float], float] | None = None,
) -> Answer:
    """Make attempts until one ends well or ``timeout`` seconds are over; ``attempt`` gets the seconds left."""
    tries = Tries(timeout=timeout, keyed=keyed, clock=clock, jitter=jitter)
    while True:
        try:
            return attempt(tries.left())
        except TicketctlError as error:
            failure = error
        sleep(tries.pause_after(failure))


async def call_with_retries_async(
    attempt: Callable[[float], Awaitable[Answer]], tries: Tries, sleep: Callable[[float], Awaitable[None]]
) -> Answer:
    """The same with ``await``."""
    while True:
        try:
            return await attempt(tries.left())
        except TicketctlError as error:
            failure = error
        await sleep(tries.pause_after(failure))
