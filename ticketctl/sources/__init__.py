"""The two ways to mint: through the Function URL (``url``) and straight from the table (``dynamodb``)."""

import shlex
from typing import Protocol

from ticketctl.errors import (
    CounterExhaustedError,
    CounterInvalidError,
    NotMintedError,
    OutcomeUnknownError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UsageError,
)
from ticketctl.models import Block, Counter

_BY_CODE: dict[str, type[TicketctlError]] = {
    "bad_request": UsageError,
    "counter_exhausted": CounterExhaustedError,
    "counter_invalid": CounterInvalidError,
    "throttled": ThrottledError,
    "unavailable": NotMintedError,
    "outcome_unknown": OutcomeUnknownError,
}


class Source(Protocol):
    """Where tickets come from. ``partition`` ``None`` is the default counter.

    Errors say what is known of the outcome: ``NotMintedError`` (nothing was spent), ``OutcomeUnknownError``
    (a block may have been), or why the request was refused.
    """

    def mint(self, partition: str | None, count: int) -> Block:
        """Take ``count`` tickets in one write."""
        ...

    def counter(self, partition: str | None) -> Counter:
        """Where a counter stands; nothing is minted."""
        ...


def refusal(code: str, detail: str, partition: str | None) -> TicketctlError | None:
    """The error for a problem code of the handler's; ``None`` for a code that says nothing of a counter."""
    if code == "unknown_counter":
        if partition is None:
            return UnknownCounterError("the default counter has not minted yet", hint="ticketctl next")
        return UnknownCounterError(
            f"there is no counter {partition!r}", hint=f"ticketctl counter create {shlex.quote(partition)}"
        )
    kind = _BY_CODE.get(code)
    if kind is None:
        return None
    return kind(detail, hint="try again" if issubclass(kind, NotMintedError) else "")
