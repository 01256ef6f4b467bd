"""``destroy``: what is deleted, as the user is asked."""

import pytest

from ticketctl.aws.cloudformation import Stack
from ticketctl.deployments.destroy import Removal

STACK = Stack(id="1", name="Tickets", status="CREATE_COMPLETE", reason="", parameters={}, outputs={})


@pytest.mark.parametrize(
    ("removal", "what"),
    [
        (Removal(None, has_table=True, deletes_table=False), ""),
        (Removal(STACK, has_table=True, deletes_table=False), "the stack"),
        (Removal(None, has_table=True, deletes_table=True), "the table with every counter"),
        (Removal(STACK, has_table=True, deletes_table=True), "the stack and the table with every counter"),
    ],
)
def test_what_is_deleted(removal: Removal, what: str) -> None:
    """The question names the stack and the table if they are deleted; it is empty if nothing is."""
    assert removal.what == what
