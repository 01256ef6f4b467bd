"""``destroy``: what is deleted, the question to the user, and what is kept; with an account in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.memory_aws import EU, US, Account, Said, regions_of
from tests.support.minting import requested
from ticketctl.aws.stacks import Stack
from ticketctl.counters.handover import offer
from ticketctl.deadline import Deadline
from ticketctl.deployments.deploy import deploy
from ticketctl.deployments.destroy import Removal, destroy, plan
from ticketctl.deployments.outcomes import Outcomes, failures, succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import NotDeployedError, RefusedError, StackFailedError

STACK = Stack(id="1", name="Tickets", status="CREATE_COMPLETE", reason="", parameters={}, outputs={})
Connect = Callable[..., Regions]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def connect(account: Account, tmp_path: Path, said: Said) -> Connect:
    return lambda *names: regions_of(account, tmp_path, *names, said=said)


@pytest.fixture
def shared(connect: Connect, said: Said) -> Regions:
    """Two deployed regions that share the sequence."""
    deploy(connect(US, EU), {}, said.dialog, opens_to_anyone=False)
    return connect(US, EU)


def destroyed(regions: Regions, said: Said, *, delete_tickets: bool = False) -> Outcomes[Removal]:
    """Destroy what the plan found, as the command does."""
    removals = succeeded(plan(regions, delete_tickets=delete_tickets))
    return destroy(regions, {name: removal for name, removal in removals.items() if removal.what}, said.dialog)


def test_one_protected_region_keeps_them_all(shared: Regions, account: Account) -> None:
    """If the stack is protected in one region, none is destroyed."""
    account.stacks[EU] = replace(account.stacks[EU], is_protected=True)
    account.calls.clear()
    with pytest.raises(RefusedError, match=f"termination protection in {EU}; nothing was deleted"):
        plan(shared, delete_tickets=True)
    assert account.calls == {f"describe {US}": 1, f"describe {EU}": 1}


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
    """``what`` names the stack and the table if they will be deleted; otherwise it is empty."""
    assert removal.what == what


def test_a_plan_changes_nothing(account: Account, connect: Connect) -> None:
    """A plan finds the stack and the table in each region, and deletes nothing."""
    account.deploy(US)
    found = succeeded(plan(connect(US, EU), delete_tickets=True))
    assert found == {
        US: Removal(account.stacks[US], has_table=True, deletes_table=True),
        EU: Removal(None, has_table=False, deletes_table=False),
    }
    assert account.calls[f"delete {US}"] == 0


def test_the_table_stays(account: Account, connect: Connect, said: Said) -> None:
    """Unless the stack's name is repeated, the table is kept with its counters."""
    account.deploy(US)
    connect(US).mint(requested(3), Deadline(5))
    destroyed(connect(US), said)
    assert (account.stacks, account.numbers(US)) == ({}, {US: 3})


def test_a_destroyed_stack_is_forgotten(account: Account, connect: Connect, said: Said) -> None:
    """The next process does not use the address of a destroyed stack."""
    account.deploy(US)
    connect(US).home.locator.locate()
    destroyed(connect(US), said)
    with pytest.raises(NotDeployedError):
        connect(US).home.locator.locate()


def test_the_table_is_deleted_if_that_was_planned(account: Account, connect: Connect, said: Said) -> None:
    """With the tickets, the stack is deleted and then the table; a table that was kept earlier is deleted alone."""
    account.deploy(US)
    destroyed(connect(US), said, delete_tickets=True)
    assert (account.stacks, account.tables) == ({}, {})
    account.deploy(EU)
    del account.stacks[EU]
    destroyed(connect(EU), said, delete_tickets=True)
    assert account.tables == {}
    assert account.calls[f"delete {EU}"] == 0


def test_lanes_offered_to_a_deleted_table_are_withdrawn(
    account: Account, shared: Regions, connect: Connect, said: Said
) -> None:
    """If a region's table is deleted, the other regions withdraw the lanes that they offered to it."""
    offer(shared.home.counters(), US, 2, [EU])
    assert f"first@{EU}" in account.tables[US].rows[US]
    destroyed(connect(EU), said, delete_tickets=True)
    assert f"first@{EU}" not in account.tables[US].rows[US]


def test_the_other_regions_stay_remembered(shared: Regions, connect: Connect, said: Said) -> None:
    """Only the destroyed regions are removed from the cached regions of the stack."""
    assert shared.before() == (US, EU)
    destroyed(connect(EU), said)
    assert connect(US).before() == (US,)


def test_a_region_that_fails_stays_remembered(account: Account, shared: Regions, connect: Connect, said: Said) -> None:
    """If one region fails, the other is destroyed; the failed one has an error as its outcome and stays cached."""
    account.failing = {US}
    outcomes = destroyed(shared, said)
    assert list(succeeded(outcomes)) == [EU]
    assert [type(error) for error in failures(outcomes).values()] == [StackFailedError]
    assert connect(US).before() == (US,)
