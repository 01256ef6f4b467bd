"""Claims from the table of one stack; if the cached stack is stale, it is looked up again."""

import threading
from typing import TYPE_CHECKING

from ticketctl.deadline import Deadline
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError, NotDeployedError, UnknownCounterError, UsageError

if TYPE_CHECKING:
    from ticketctl.minting.claim import Claims, Writes


class StackClaims:
    """Takes numbers of gapless counters, from ``table`` or from the stack that ``locator`` finds. Thread-safe."""

    def __init__(self, session: Session, locator: Locator, table: str | None) -> None:
        self._session = session
        self._locator = locator
        self._table = table
        self._opened: tuple[Claims, int] | None = None
        self._opening = threading.Lock()

    def claim(self, partition: str, writes: "Writes", deadline: Deadline) -> int:
        """Take a number of a gapless counter, together with the caller's own writes; see ``Claims``."""
        if self._session.settings.url:
            raise UsageError("a claim needs the table: it cannot be made through a URL", hint="do not set url")
        claims, generation = self._open(deadline)
        try:
            number = claims.claim(partition, writes, deadline)
        except (AccessError, NotDeployedError, UnknownCounterError) as error:
            if self._table is not None or not self._locator.refresh_after(error, generation, deadline):
                raise
            claims, generation = self._open(deadline)
            number = claims.claim(partition, writes, deadline)
        self._locator.mark_working(generation)
        return number

    def _open(self, deadline: Deadline) -> "tuple[Claims, int]":
        """The claims, and the generation of the stack with which they were opened."""
        from ticketctl.minting.claim import Claims

        with self._session.holding(self._opening, deadline):
            if self._opened is None or self._opened[1] != self._locator.generation:
                with self._session.starting(deadline):
                    table = self._table or self._locator.locate(deadline).outputs.table
                    claims = Claims(self._session.sender(table, sdk=True), table)
                self._opened = claims, self._locator.generation
            return self._opened
