"""Retries with jitter until a deadline: which failures are retried, and what is known about the outcome."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ticketctl.deadline import Deadline
from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError
from ticketctl.models import Block

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
LEAST_SECONDS = 0.5  # the least time for an answer: less would turn a slow refusal into an unknown outcome


def uniform(least: float, most: float) -> float:
    """A random number between two, for pauses."""
    import random  # here, because a command that succeeds at once does not need it

    return random.uniform(least, most)  # noqa: S311 - it spreads load and protects no secret


class Tries:
    """The attempts of one mint: which failures are retried, when, and what is known. It does no I/O.

    *Not minted* and *unknown* are retried: every mint has a key, which makes a retry safe. After an attempt with an
    unknown outcome, the mint is unknown unless a later attempt succeeds; then its block names the possible gap. The
    pauses are "full jitter": from 0 to a bound that doubles (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """

    def __init__(self, deadline: Deadline, *, jitter: Callable[[float, float], float] = uniform) -> None:
        self.deadline = deadline
        self._jitter = jitter
        self._bound = FIRST_PAUSE
        self._unknown: list[tuple[str, OutcomeUnknownError]] = []

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Wrap an attempt at ``place`` (a region or host); if its outcome is unknown, remember that."""
        try:
            yield
        except OutcomeUnknownError as error:
            self._unknown.append((place, error))
            raise

    def succeeded(self, block: Block, place: str) -> Block:
        """The block with its possible gaps: the places that may also have spent tickets.

        A replay proves that the attempts at its place took only this block, unless a function may still run: if 16
        other mints push the key out of the register before it writes once more, it takes another.
        """
        settled = place if block.replayed else None
        gaps = [name for name, error in self._unknown if name != settled or error.may_continue]
        return replace(block, possible_gaps=tuple(dict.fromkeys([*gaps, *block.possible_gaps])))

    def pause_after(self, error: TicketctlError) -> float:
        """Return the seconds to wait before the next attempt; if there is none, raise the error that says most."""
        pause = self._jitter(0.0, self._bound)
        left = self.deadline.left() - (0.0 if self._unknown else LEAST_SECONDS)
        if not isinstance(error, NotMintedError | OutcomeUnknownError) or pause >= left:
            for _, unknown in self._unknown:
                raise unknown from (None if unknown is error else error)
            raise error
        self._bound = min(self._bound * 2, LONGEST_PAUSE)
        return pause


def call_with_retries(
    attempt: Callable[[Deadline], Block], tries: Tries, *, sleep: Callable[[float], None] = time.sleep
) -> Block:
    """Make attempts until one succeeds, one fails in a way that is not retried, or the deadline is near."""
    while True:
        try:
            return attempt(tries.deadline)
        except TicketctlError as error:
            failure = error
        sleep(tries.pause_after(failure))


async def call_with_retries_async(
    attempt: Callable[[Deadline], Awaitable[Block]], tries: Tries, *, sleep: Callable[[float], Awaitable[None]]
) -> Block:
    """``call_with_retries`` with ``await``."""
    while True:
        try:
            return await attempt(tries.deadline)
        except TicketctlError as error:
            failure = error
        await sleep(tries.pause_after(failure))
