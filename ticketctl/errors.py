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
    │   └── IdempotencyConflictError 6   idempotency_conflict
    ├── NotMintedError               7   unavailable
    │   ├── UnreachableError         7   unreachable
    │   └── ThrottledError           7   throttled
    ├── OutcomeUnknownError          8   outcome_unknown
    ├── PartialError                 8   partial
    ├── InterruptedRunError        130   interrupted
    └── ClosedPipeError            141   closed_pipe

``diff --exit-code`` ends with 9 where it found changes; that is an answer, no error.
"""

from typing import Any


class TicketctlError(Exception):
    """What happened, in one line, and ``hint``: the command or the change that mends it."""

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
    """The command line, a variable or a request says something that cannot be meant."""

    code, exit_code = "usage", 2


class ConfirmationNeededError(UsageError):
    """A confirmation is needed where nobody can be asked."""

    code = "confirmation_needed"


class SetupError(TicketctlError):
    """Something on this machine is missing or cannot be used."""

    code, exit_code = "environment", 3


class NoRegionError(SetupError):
    """No region is set anywhere."""

    code = "no_region"


class ProfileNotFoundError(SetupError):
    """The AWS configuration has no such profile."""

    code = "profile_not_found"


class FileError(SetupError):
    """A file of ticketctl's cannot be read or written."""

    code = "file"


class MissingExtraError(SetupError):
    """An optional part of ticketctl is not installed."""

    code = "missing_extra"


class LocalEngineError(SetupError):
    """The embedded AWS does not start or does not answer."""

    code = "local_engine"


class AccessError(TicketctlError):
    """AWS refused the caller."""

    code, exit_code = "access_denied", 4


class NoCredentialsError(AccessError):
    """There are no AWS credentials."""

    code = "no_credentials"


class ExpiredCredentialsError(AccessError):
    """The AWS credentials were valid once."""

    code = "expired_credentials"


class NotDeployedError(TicketctlError):
    """There is no such stack, table or URL."""

    code, exit_code = "not_deployed", 5


class UnknownCounterError(TicketctlError):
    """There is no such counter; a name that was mistyped never starts one."""

    code, exit_code = "unknown_counter", 5


class RefusedError(TicketctlError):
    """ticketctl or AWS refused to do this."""

    code, exit_code = "refused", 6


class StackFailedError(RefusedError):
    """CloudFormation could not do what was asked."""

    code = "stack_failed"


class CounterExhaustedError(RefusedError):
    """The counter has no room below its ceiling."""

    code = "counter_exhausted"


class CounterInvalidError(RefusedError):
    """The counter's item is not one to mint from."""

    code = "counter_invalid"


class CounterFrozenError(RefusedError):
    """The counter is frozen; thaw it to mint again."""

    code = "counter_frozen"


class IdempotencyConflictError(RefusedError):
    """The idempotency key was used for another counter or another count."""

    code = "idempotency_conflict"


class NotMintedError(TicketctlError):
    """Nothing was minted; it is safe to try again."""

    code, exit_code = "unavailable", 7


class UnreachableError(NotMintedError):
    """No connection could be made."""

    code = "unreachable"


class ThrottledError(NotMintedError):
    """Too many requests at once."""

    code = "throttled"


class OutcomeUnknownError(TicketctlError):
    """A ticket may have been spent and lost."""

    code, exit_code = "outcome_unknown", 8


class PartialError(TicketctlError):
    """Fewer tickets were delivered than were asked for or minted."""

    code, exit_code = "partial", 8


class InterruptedRunError(TicketctlError):
    """Ctrl-C, with what is known of the work that it cut short."""

    code, exit_code = "interrupted", 130


class ClosedPipeError(TicketctlError):
    """The reader of stdout closed it; the message, if any, says what it did not get."""

    code, exit_code = "closed_pipe", 141
