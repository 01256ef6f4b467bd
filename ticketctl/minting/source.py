"""The two ways to mint: through the Function URL (``url``) and straight from the table (``dynamodb``)."""

import shlex
from typing import Protocol

from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    CounterInvalidError,
    IdempotencyConflictError,
    NotMintedError,
    OutcomeUnknownError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UsageError,
)
from ticketctl.models import Block, Counter

CONNECT_SECONDS = 3.0
"""How long a connection may take to be made."""

PROBLEMS: dict[str, type[TicketctlError]] = {
    "unknown_counter": UnknownCounterError,
    "bad_request": UsageError,
    "counter_exhausted": CounterExhaustedError,
    "counter_invalid": CounterInvalidError,
    "counter_frozen": CounterFrozenError,
    "idempotency_conflict": IdempotencyConflictError,
    "throttled": ThrottledError,
    "unavailable": NotMintedError,
    "outcome_unknown": OutcomeUnknownError,
}


class Source(Protocol):
    """Where tickets come from. ``partition`` ``None`` is the default counter.

    Errors say what is known of the outcome: ``NotMintedError`` (nothing was spent), ``OutcomeUnknownError``
    (a block may have been), or why the request was refused.
    """

    def mint(self, partition: str | None, count: int, *, key: str | None, within: float) -> Block:
        """Take ``count`` tickets; one attempt, of at most ``within`` seconds where the source can bound it.

        With an idempotency ``key`` the same tickets come again for a day, marked ``replayed``.
        """
        ...

    def counter(self, partition: str | None) -> Counter:
        """Where a counter stands; nothing is minted."""
        ...


def quoted_key(key: str) -> str:
    """An idempotency key as its header carries it: a string of RFC 8941 (IETF draft "Idempotency-Key")."""
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def problem_error(code: str, detail: str, partition: str | None) -> TicketctlError:
    """The error for one of the handler's ``PROBLEMS``; ``KeyError`` for a code that says nothing of a counter."""
    if code == "unknown_counter":
        return unknown_counter(partition)
    kind = PROBLEMS[code]
    hint = "try again" if issubclass(kind, NotMintedError) else ""
    if kind is CounterFrozenError and partition is not None:
        hint = f"ticketctl counter thaw {shlex.quote(partition)}"
    return kind(detail, hint=hint)


def unknown_counter(partition: str | None) -> UnknownCounterError:
    """The error for a counter that does not exist; ``None`` is the default counter."""
    if partition is None:
        return UnknownCounterError("the default counter has not minted yet", hint="ticketctl next")
    return UnknownCounterError(
        f"there is no counter {partition!r}", hint=f"ticketctl counter create {shlex.quote(partition)}"
    )
