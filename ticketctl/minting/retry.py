"""Retries with jitter until a deadline: which failures are retried, and what is known about the outcome."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from ticketctl.deadline import Deadline
from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError
from ticketctl.models import Block

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
LEAST_SECONDS = 0.5  # the least time for an answer: less would turn a slow refusal into an unknown outcome
_RETRIED = (NotMintedError, OutcomeUnknownError)


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
        self._failures: list[TicketctlError] = []  # since the last pause
        self._unknown: list[tuple[str, OutcomeUnknownError]] = []

    def succeeded(self, block: Block, place: str) -> Block:
        """The block with its possible gaps: the places that may also have spent tickets.

        A replay proves that a single write at its place took only this block. It proves nothing about two: between
        them, 16 other mints may have pushed the key out of the register.
        """
        here = [error for name, error in self._unknown if name == place]
        settled = place if block.replayed and len(here) == 1 and not here[0].may_write_again else None
        gaps = [name for name, _ in self._unknown if name != settled]
        return replace(block, possible_gaps=tuple(dict.fromkeys([*gaps, *block.possible_gaps])))

    def failed(self, error: TicketctlError, place: str, *, final: bool = False) -> None:
        """Remember the failure of an attempt at ``place`` (a region or host). ``final``: no other place can help."""
        if final:
            self._failures.clear()
        self._failures.append(error)
        if isinstance(error, OutcomeUnknownError):
            self._unknown.append((place, error))

    def pause(self, attempts: int = 1) -> float:
        """Return the seconds to wait before the next attempts; if there must be none, raise ``failure``."""
        pause = self._jitter(0.0, self._bound)
        least = 0.0 if self._unknown and attempts == 1 else LEAST_SECONDS * attempts
        if pause >= self.deadline.left() - least or not any(isinstance(error, _RETRIED) for error in self._failures):
            raise self.failure()
        self._failures.clear()
        self._bound = min(self._bound * 2, LONGEST_PAUSE)
        return pause

    def failure(self) -> TicketctlError:
        """The failure that says most: an unknown outcome, else the final one, else *not minted*, else the first."""
        if self._unknown:
            (_, unknown), last = self._unknown[0], self._failures[-1]
            if unknown.__cause__ is None and last is not unknown:
                unknown.__cause__ = last
            return unknown
        return next((error for error in self._failures if isinstance(error, _RETRIED)), self._failures[0])


async def call_with_retries(
    attempt: Callable[[Deadline], Awaitable[Block]],
    place: str,
    tries: Tries,
    *,
    sleep: Callable[[float], Awaitable[None]],
) -> Block:
    """Make attempts at ``place`` until one succeeds or ``tries`` allows no other; ``Failover.mint`` with ``await``."""
    while True:
        try:
            return tries.succeeded(await attempt(tries.deadline), place)
        except TicketctlError as error:
            tries.failed(error, place)
        await sleep(tries.pause())
