"""``adoption``: which existing tables a deployment imports, and how it repairs them; with an account in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory_aws import EU, STACK, US, Account, Said, regions_of
from tests.support.minting import take
from tests.support.model_table import ModelTable
from ticketctl.deployments.deploy import Deployed, deploy, preview
from ticketctl.deployments.destroy import plan
from ticketctl.deployments.outcomes import Outcomes, failures, succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import NotDeployedError, RefusedError

Deploy = Callable[..., Outcomes[Deployed]]
COUNTER = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": "41"}}
RECEIPT = {"partition": {"S": "receipt#a"}, "expires_at": {"N": "1"}}
ORDER = {"partition": {"S": "o-1"}, "total": {"N": "12"}}
OTHER_STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/shop/1"
REPLICAS = {"Replicas": [{"RegionName": EU}]}


@pytest.fixture
def account() -> Account:
    return Account(US, EU)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def connect(account: Account, tmp_path: Path, said: Said) -> Callable[..., Regions]:
    return lambda *names, **flags: regions_of(account, tmp_path, *names, said=said, **flags)


@pytest.fixture
def deployed(connect: Callable[..., Regions], said: Said) -> Deploy:
    return lambda *names: deploy(connect(*names), {}, said.dialog, opens_to_anyone=False)


def table(*items: Any) -> ModelTable:
    return ModelTable(STACK, rows={item["partition"]["S"]: item for item in items})


def refusal(outcomes: Outcomes[Any]) -> RefusedError:
    (error,) = failures(outcomes).values()
    assert isinstance(error, RefusedError)
    assert error.hint
    return error


def test_a_retained_table_is_imported(deployed: Deploy, account: Account) -> None:
    """A table with counters and receipts that a deleted stack retained is imported."""
    account.tables[US] = table(COUNTER, RECEIPT)
    account.owners = [OTHER_STACK]
    assert succeeded(deployed(US))
    assert account.calls[f"execute {US}"] == 1


@pytest.mark.parametrize("run", ["deploy", "preview"])
def test_a_table_of_other_items_is_refused(
    connect: Callable[..., Regions], deployed: Deploy, account: Account, said: Said, run: str
) -> None:
    """A table that has an item which is neither a counter nor a receipt is refused before a change set is created."""
    account.tables[US] = table(COUNTER, ORDER)
    outcomes = deployed(US) if run == "deploy" else preview(connect(US), {}, said.lines.append)
    assert refusal(outcomes).message == (
        "the table Tickets in us-east-1 is not a ticket server's: its item 'o-1' is no counter, "
        "without 'hand_crafted_int'; nothing was written"
    )
    assert (account.calls[f"plan {US}"], account.stacks) == (0, {})


def test_a_table_of_another_key_is_refused(deployed: Deploy, account: Account) -> None:
    """A table with a sort key is refused before a change set is created."""
    account.tables[US] = table()
    account.described[US] = {"KeySchema": [{"AttributeName": "partition"}, {"AttributeName": "at"}]}
    assert "its key is partition (S) and at (?)" in refusal(deployed(US)).message
    assert account.calls[f"plan {US}"] == 0


def test_a_table_of_a_live_stack_is_refused(deployed: Deploy, account: Account) -> None:
    """A table that belongs to another stack is refused; the hint names both solutions."""
    account.tables[US] = table(COUNTER)
    account.owners, account.has_live_owner = [OTHER_STACK], True
    error = refusal(deployed(US))
    assert error.message == "the table Tickets in us-east-1 belongs to the stack shop; nothing was changed"
    assert error.hint == "use another name: --stack NAME; or delete the stack shop first: CDK retains its table"
    assert account.calls[f"plan {US}"] == 0


@pytest.mark.parametrize("exists", [True, False])
def test_a_global_table_is_refused(deployed: Deploy, account: Account, *, exists: bool) -> None:
    """A global table is refused, both if it would be imported and if the stack already has it."""
    if exists:
        account.deploy(US)
    account.tables[US] = table(COUNTER)
    account.described[US] = REPLICAS
    assert f"is a global table with copies in {EU}" in refusal(deployed(US)).message
    assert account.calls[f"plan {US}"] == 0


def test_one_foreign_table_does_not_stop_the_other_region(deployed: Deploy, account: Account) -> None:
    """Regions whose tables can be used are deployed; the others fail with their reason."""
    account.tables[EU] = table(ORDER)
    outcomes = deployed(US, EU)
    assert (list(succeeded(outcomes)), list(failures(outcomes))) == ([US], [EU])


def test_the_tickets_of_others_are_not_deleted(connect: Callable[..., Regions], account: Account) -> None:
    """``destroy --delete-tickets`` refuses an unrelated table; without the option, the table is not read."""
    account.tables[US] = table(ORDER)
    assert "is not a ticket server's" in refusal(plan(connect(US), delete_tickets=True)).message
    assert succeeded(plan(connect(US), delete_tickets=False))


# --- settings ----------------------------------------------------------------------------------------


def test_only_an_imported_table_is_compared(deployed: Deploy, account: Account) -> None:
    """The settings of a table are compared after an import; a later deployment does not compare them again."""
    account.tables[US] = table(COUNTER)
    deployed(US)
    assert account.reads[f"describe time to live {US}"] == 1
    deployed(US)
    assert account.reads[f"describe time to live {US}"] == 1


def test_an_unfinished_import_is_finished(deployed: Deploy, account: Account, said: Said) -> None:
    """If an import was interrupted or a repair denied, the next deployment repairs the table, even without changes."""
    account.deploy(US)
    account.described[US] = {"BillingModeSummary": {}, "DeletionProtectionEnabled": False}
    deployed(US)
    changed = "changed the {} of the table Tickets in us-east-1 from {} to {}, as in the template"
    assert said.lines[-2:] == [
        changed.format("deletion protection", "'off'", "'on'"),
        changed.format("billing mode", "'PROVISIONED'", "'PAY_PER_REQUEST'"),
    ]


# --- minting from the table --------------------------------------------------------------------------


def test_a_mint_from_a_global_table_is_refused(connect: Callable[..., Regions], account: Account) -> None:
    """A mint from a global table is refused when the stack is looked up, and every time again."""
    account.deploy(US)
    account.described[US] = REPLICAS
    for _ in range(2):
        with pytest.raises(RefusedError, match="is a global table"):
            take(connect(US), 1)
    assert account.numbers(US) == {}


def test_a_mint_by_url_does_not_describe_the_table(connect: Callable[..., Regions], account: Account) -> None:
    """A mint through the Function URL needs no permission on the table, so the table is not described."""
    account.deploy(US)
    connect(US, via="url").home.locator.look_up()
    assert account.reads[f"describe table {US}"] == 0


def test_a_mint_from_a_known_stack_is_one_call(connect: Callable[..., Regions], account: Account) -> None:
    """The table is described when the stack is looked up, and not again while the stack is cached."""
    account.deploy(US)
    assert take(connect(US), 1).last == 1
    assert take(connect(US), 1).last == 2
    assert account.reads[f"describe table {US}"] == 1


def test_a_caller_who_may_only_update_items_mints(connect: Callable[..., Regions], account: Account) -> None:
    """If DescribeTable is denied, a mint from the table still works."""
    account.deploy(US)
    account.denied = {"DescribeTable"}
    assert take(connect(US), 1).last == 1


def test_counters_of_a_global_table_are_not_changed(connect: Callable[..., Regions], account: Account) -> None:
    """A command that changes counters refuses a global table."""
    account.deploy(US)
    account.described[US] = REPLICAS
    (member,) = connect(US).members()
    with pytest.raises(RefusedError, match="is a global table"):
        member.table.require_no_replicas()


def test_no_table(connect: Callable[..., Regions], account: Account) -> None:
    """If there is a table but no stack, the stack is not deployed."""
    account.tables[US] = table(COUNTER)
    with pytest.raises(NotDeployedError):
        take(connect(US), 1)
