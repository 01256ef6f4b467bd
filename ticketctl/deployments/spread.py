"""Waiting for a policy that was just deployed: AWS applies it within seconds, and refuses callers until then."""

from ticketctl.deadline import Deadline
from ticketctl.deployments.locator import Locator
from ticketctl.errors import TicketctlError
from ticketctl.minting.retry import LEAST_SECONDS

PAUSES = (0.5, 1.0, 2.0, 3.0, 3.0)
"""The seconds between attempts; together less than 10."""


class Spreading:
    """The retries of one mint that was refused. It neither sleeps nor sends, so that it serves sync and async."""

    def __init__(self, locator: Locator, deadline: Deadline) -> None:
        self._locator = locator
        self._deadline = deadline
        self._pauses = iter(PAUSES)

    def pause_after(self, error: TicketctlError) -> float | None:
        """The seconds to wait before the next attempt; ``None`` if another attempt cannot help, or comes too late."""
        if not self._locator.policy_may_spread(error):
            return None
        pause = next(self._pauses, None)
        return pause if pause is not None and pause <= self._deadline.left() - LEAST_SECONDS else None
