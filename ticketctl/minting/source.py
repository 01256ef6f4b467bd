"""The two ways to mint: through the Function URL (``url``) and straight from the table (``dynamodb``)."""

import os
import re
import shlex
from typing import Protocol
from urllib.parse import urlsplit

from ticketctl.deadline import Deadline
from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    CounterGaplessError,
    CounterInvalidError,
    IdempotencyConflictError,
    NotMintedError,
    OutcomeUnknownError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UsageError,
)
from ticketctl.models import Block, Counter, MintRequest

CONNECT_SECONDS = 3.0
"""The limit for opening a connection."""

PROBLEMS: dict[str, type[TicketctlError]] = {
    "unknown_counter": UnknownCounterError,
    "bad_request": UsageError,
    "counter_exhausted": CounterExhaustedError,
    "counter_invalid": CounterInvalidError,
    "counter_frozen": CounterFrozenError,
    "counter_gapless": CounterGaplessError,
    "idempotency_conflict": IdempotencyConflictError,
    "throttled": ThrottledError,
    "unavailable": NotMintedError,
    "outcome_unknown": OutcomeUnknownError,
}


RETRY_KEY = "once:"
"""The prefix of a random key: the counter remembers it for its next 16 mints, and it has no receipt."""

BLOCK_KEY = "fetch:"
"""How the keys of the blocks of one ``fetch`` begin if the user typed its key."""


class Source(Protocol):
    """What mints: a Function URL, or a table.

    Each call makes one attempt and ends by its deadline. The error says what is known about the outcome:
    ``NotMintedError`` (no ticket was spent), ``OutcomeUnknownError`` (tickets may have been spent), or another error
    that says why the request was refused.
    """

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets. The same key gives the same block again, marked ``replayed``."""
        ...

    def counter(self, partition: str | None, deadline: Deadline) -> Counter:
        """Read a counter (``None``: the default counter); nothing is minted."""
        ...


def new_retry_key() -> str:
    """Make a random key for one mint and its retries."""
    return RETRY_KEY + os.urandom(16).hex()


def check_typed_key(key: str, name: str) -> str:
    """Return a key that the user typed; ``UsageError`` if it is invalid. ``name`` is the option or parameter."""
    if not re.fullmatch(r"[ -~]{1,200}", key):
        raise UsageError(f"{name} must be 1 to 200 visible ASCII characters")
    for reserved in (RETRY_KEY, BLOCK_KEY):
        if key.startswith(reserved):
            raise UsageError(f"{name} must not begin with {reserved}", hint="use another key")
    return key


def key_of_block(key: str, begin: int) -> str:
    """The key of one block of a run with ``key``; no other run can have it, whatever its user types."""
    return f"{key}/{begin}" if key.startswith(RETRY_KEY) else f"{BLOCK_KEY}{begin}:{key}"


def quoted_key(key: str) -> str:
    """An idempotency key as a header value: a string of RFC 8941 (IETF draft "Idempotency-Key")."""
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def host_of(url: str) -> str:
    """The host of a URL, with its port and without the user's name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def problem_error(code: str, detail: str, partition: str | None) -> TicketctlError:
    """The error for one of the handler's ``PROBLEMS``; ``KeyError`` if the code is not one of them."""
    if code == "unknown_counter":
        return unknown_counter(partition)
    kind = PROBLEMS[code]
    if kind is OutcomeUnknownError:  # the handler sent the write twice, and a replay tells only of one of them
        return OutcomeUnknownError(detail, may_write_again=True)
    hint = "try again" if issubclass(kind, NotMintedError) else ""
    if kind is CounterFrozenError and partition is not None:
        hint = f"ticketctl counter thaw {shlex.quote(partition)}"
    if kind is CounterGaplessError:
        hint = "take the number together with its record, from Python: TicketClient.claim"
    return kind(detail, hint=hint)


def unknown_counter(partition: str | None) -> UnknownCounterError:
    """The error for a counter that does not exist; ``None`` is the default counter."""
    if partition is None:
        return UnknownCounterError("the default counter has not minted yet", hint="ticketctl next")
    return UnknownCounterError(
        f"there is no counter {partition!r}", hint=f"ticketctl counter create {shlex.quote(partition)}"
    )
