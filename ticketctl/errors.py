"""Every error that ticketctl reports, each with its exit code, its JSON code and its hint.

::

    TicketctlError              exit 1   (never raised itself)
    ├── UsageError                   2   usage
    │   └── ConfirmationNeededError  2   confirmation_needed
    ├── SetupError                   3   environment
    │   ├── NoRegionError            3   no_region
    │   ├── ProfileNotFoundError     3   profile_not_found
    │   ├── FileError                3   file
    │   ├── MissingExtraError        3   missing_extra
    │   └── LocalEngineError         3   local_engine
    ├── AccessError                  4   access_denied
    │   ├── NoCredentialsError       4   no_credentials
    │   └── ExpiredCredentialsError  4   expired_credentials
    ├── NotDeployedError             5   not_deployed
    ├── UnknownCounterError          5   unknown_counter
    ├── RefusedError                 6   refused
    │   ├── StackFailedError         6   stack_failed
    │   ├── CounterExhaustedError    6   counter_exhausted
    │   ├── CounterInvalidError      6   counter_invalid
    │   ├── CounterFrozenError       6   counter_frozen
    │   ├── CounterGaplessError      6   counter_gapless
    │   ├── ClaimRefusedError        6   claim_refused
    │   └── IdempotencyConflictError 6   idempotency_conflict
    ├── NotMintedError               7   unavailable
    │   ├── UnreachableError         7   unreachable
    │   └── ThrottledError           7   throttled
    ├── OutcomeUnknownError          8   outcome_unknown
    ├── PartialError                 8   partial
    ├── InterruptedRunError        130   interrupted
    └── ClosedPipeError            141   closed_pipe

``diff --exit-code`` exits with 9 if it found changes; that is a result, not an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class TicketctlError(Exception):
    """What happened, in one line, and ``hint``: the command or the change that fixes it."""

    code = "bug"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, Any]:
        """The error as ``--json`` prints it."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}}


class UsageError(TicketctlError):
    """An invalid command line, variable or request."""

    code, exit_code = "usage", 2


class ConfirmationNeededError(UsageError):
    """Confirmation is required, but this is not a terminal."""

    code = "confirmation_needed"


class SetupError(TicketctlError):
    """Something on this machine is missing or unusable."""

    code, exit_code = "environment", 3


class NoRegionError(SetupError):
    """No region is set anywhere."""

    code = "no_region"


class ProfileNotFoundError(SetupError):
    """The AWS configuration has no such profile."""

    code = "profile_not_found"


class FileError(SetupError):
    """A file cannot be read or written."""

    code = "file"


class MissingExtraError(SetupError):
    """An optional dependency (extra) of ticketctl is not installed."""

    code = "missing_extra"


def install_hint(extra: str) -> str:
    """The hint about an extra that is not installed."""
    return f"install ticketctl with the extra '{extra}'; in a checkout: pip install '.[{extra}]'"


class LocalEngineError(SetupError):
    """The embedded AWS does not start or does not respond."""

    code = "local_engine"


class AccessError(TicketctlError):
    """AWS denied access."""

    code, exit_code = "access_denied", 4


class NoCredentialsError(AccessError):
    """No AWS credentials were found."""

    code = "no_credentials"


class ExpiredCredentialsError(AccessError):
    """The AWS credentials have expired."""

    code = "expired_credentials"


class NotDeployedError(TicketctlError):
    """The stack, table or URL does not exist."""

    code, exit_code = "not_deployed", 5


class UnknownCounterError(TicketctlError):
    """The counter does not exist. A mistyped name never creates one."""

    code, exit_code = "unknown_counter", 5


class RefusedError(TicketctlError):
    """ticketctl or AWS refused the operation."""

    code, exit_code = "refused", 6


class StackFailedError(RefusedError):
    """A CloudFormation operation failed."""

    code = "stack_failed"


class CounterExhaustedError(RefusedError):
    """The counter has too few tickets left below its ceiling."""

    code = "counter_exhausted"


class CounterInvalidError(RefusedError):
    """The counter's item in the table is invalid."""

    code = "counter_invalid"


class CounterFrozenError(RefusedError):
    """The counter is frozen."""

    code = "counter_frozen"


class CounterGaplessError(RefusedError):
    """The counter is gapless: only a claim takes its numbers."""

    code = "counter_gapless"


@dataclass(frozen=True)
class Refusal:
    """A write that made DynamoDB cancel a transaction.

    ``index`` is its place in the caller's list, from 0. ``reason`` is AWS's code, for example
    ``ConditionalCheckFailed``; ``message`` may be empty. ``item`` is the item as it is, if the write asked for it
    with ``ReturnValuesOnConditionCheckFailure``.
    """

    index: int
    reason: str
    message: str
    item: Mapping[str, Any] | None = None


class ClaimRefusedError(RefusedError):
    """A write of the caller's own refused the transaction of a claim: no number was taken, and nothing was written.

    ``refusals`` are the writes that refused, as DynamoDB named them.
    """

    code = "claim_refused"

    def __init__(self, message: str, *, hint: str = "", refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.refusals = refusals


class IdempotencyConflictError(RefusedError):
    """The idempotency key was used for another counter or another count."""

    code = "idempotency_conflict"


class NotMintedError(TicketctlError):
    """Nothing was minted; a retry is safe."""

    code, exit_code = "unavailable", 7


class UnreachableError(NotMintedError):
    """No connection could be made."""

    code = "unreachable"


class ThrottledError(NotMintedError):
    """Too many requests: AWS throttled this one."""

    code = "throttled"


class OutcomeUnknownError(TicketctlError):
    """It is unknown if a ticket was minted; it may be spent.

    ``may_write_again``: the function that got the request may have sent its write twice, or may still do it; so a
    replay does not prove that only one block was minted.
    ``number`` is the number of a claim that may have been taken, ``None`` if the error is not about a claim.
    """

    code, exit_code = "outcome_unknown", 8

    def __init__(
        self, message: str, *, hint: str = "", may_write_again: bool = False, number: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.may_write_again = may_write_again
        self.number = number


class PartialError(TicketctlError):
    """Fewer tickets were delivered than requested or minted, or only some regions succeeded."""

    code, exit_code = "partial", 8


class InterruptedRunError(TicketctlError):
    """Ctrl-C, SIGTERM or SIGHUP; the message says what is known about the interrupted work."""

    code, exit_code = "interrupted", 130


class ClosedPipeError(TicketctlError):
    """The reader closed stdout; the message, if any, says what it did not receive."""

    code, exit_code = "closed_pipe", 141
