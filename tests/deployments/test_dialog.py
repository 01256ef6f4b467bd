"""``dialog``: Ctrl-C while a deployment continues in AWS."""

import pytest

from ticketctl.deployments.dialog import interruptible
from ticketctl.errors import InterruptedRunError


def test_interrupted() -> None:
    """Ctrl-C becomes an error that says that AWS continues; the hint is the command that follows the deployment."""
    with pytest.raises(InterruptedRunError) as caught, interruptible("deployment", "ticketctl deploy"):
        raise KeyboardInterrupt
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "interrupted; the deployment continues in AWS",
        "ticketctl deploy",
        130,
    )


def test_other_errors_are_raised_as_they_are() -> None:
    """Only Ctrl-C is translated."""
    with pytest.raises(ZeroDivisionError), interruptible("deployment", "ticketctl deploy"):
        raise ZeroDivisionError
