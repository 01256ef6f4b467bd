"""``errors``: the code and the exit code of each kind of error never change."""

import re

import pytest

from ticketctl import errors
from ticketctl.errors import TicketctlError

KINDS = {
    "TicketctlError": ("bug", 1),
    "UsageError": ("usage", 2),
    "ConfirmationNeededError": ("confirmation_needed", 2),
    "SetupError": ("environment", 3),
    "NoRegionError": ("no_region", 3),
    "ProfileNotFoundError": ("profile_not_found", 3),
    "FileError": ("file", 3),
    "MissingExtraError": ("missing_extra", 3),
    "LocalEngineError": ("local_engine", 3),
    "AccessError": ("access_denied", 4),
    "NoCredentialsError": ("no_credentials", 4),
    "ExpiredCredentialsError": ("expired_credentials", 4),
    "NotDeployedError": ("not_deployed", 5),
    "UnknownCounterError": ("unknown_counter", 5),
    "RefusedError": ("refused", 6),
    "StackFailedError": ("stack_failed", 6),
    "CounterExhaustedError": ("counter_exhausted", 6),
    "CounterInvalidError": ("counter_invalid", 6),
    "CounterFrozenError": ("counter_frozen", 6),
    "CounterGaplessError": ("counter_gapless", 6),
    "ClaimRefusedError": ("claim_refused", 6),
    "IdempotencyConflictError": ("idempotency_conflict", 6),
    "NotMintedError": ("unavailable", 7),
    "UnreachableError": ("unreachable", 7),
    "ThrottledError": ("throttled", 7),
    "OutcomeUnknownError": ("outcome_unknown", 8),
    "PartialError": ("partial", 8),
    "InterruptedRunError": ("interrupted", 130),
    "ClosedPipeError": ("closed_pipe", 141),
}


def classes() -> dict[str, type[TicketctlError]]:
    everything = vars(errors).items()
    return {name: kind for name, kind in everything if isinstance(kind, type) and issubclass(kind, TicketctlError)}


@pytest.mark.parametrize(("name", "code", "exit_code"), [(name, *kind) for name, kind in KINDS.items()])
def test_kind(name: str, code: str, exit_code: int) -> None:
    """Each kind of error prints its own code and exit code."""
    error = classes()[name]("it broke", hint="fix it")
    assert error.as_dict() == {"error": {"code": code, "message": "it broke", "hint": "fix it", "exit_code": exit_code}}


def test_no_other_kinds() -> None:
    """There are no other kinds, and each has its own code."""
    assert {name: (kind.code, kind.exit_code) for name, kind in classes().items()} == KINDS
    assert len({code for code, _ in KINDS.values()}) == len(KINDS)


def test_drawn_tree() -> None:
    """The tree in the module's docstring matches the classes."""
    drawn = re.findall(r"(\w+Error) +(\d+) +(\w+)$", errors.__doc__ or "", re.MULTILINE)
    assert [(name, (code, int(exit_code))) for name, exit_code, code in drawn] == list(KINDS.items())[1:]


def test_without_hint() -> None:
    """The hint may be missing; ``str`` of an error is its message."""
    error = TicketctlError("it broke")
    assert (str(error), error.message, error.hint) == ("it broke", "it broke", "")
