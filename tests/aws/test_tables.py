"""``tables``: whether a table exists, how it is deleted, and in which regions there is one."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.stub import Stubber

from tests.support.memory_aws import AP, EU, US, Account, MemoryAws
from ticketctl.aws.account import Aws
from ticketctl.aws.tables import Tables, tables_elsewhere
from ticketctl.errors import AccessError, StackFailedError

TICKETS = {"TableName": "Tickets"}


@pytest.fixture
def client() -> Iterator[Any]:
    with closing(Aws("us-east-1", endpoint_url="http://127.0.0.1:9", embedded=("test", "test"))) as aws:
        yield aws.client("dynamodb", retries=0)


@pytest.fixture
def script(client: Any) -> Iterator[Stubber]:
    with Stubber(client) as script:
        yield script
        script.assert_no_pending_responses()


def missing(script: Stubber, operation: str) -> None:
    script.add_client_error(operation, "ResourceNotFoundException", "no", 400, expected_params=TICKETS)


def test_a_table_exists(client: Any, script: Stubber) -> None:
    """A table that DynamoDB describes exists; one that it does not find does not."""
    script.add_response("describe_table", {"Table": {"TableStatus": "ACTIVE"}}, TICKETS)
    missing(script, "describe_table")
    tables = Tables(client)
    assert [tables.exists("Tickets"), tables.exists("Tickets")] == [True, False]


def test_a_refusal_is_not_a_missing_table(client: Any, script: Stubber) -> None:
    """A caller who may not describe the table gets an error, not the answer that there is no table."""
    script.add_client_error("describe_table", "AccessDeniedException", "not authorized", 400)
    with pytest.raises(AccessError, match="DynamoDB in us-east-1: not authorized"):
        Tables(client).exists("Tickets")


def test_delete(client: Any, script: Stubber) -> None:
    """Deletion protection is turned off, then the table is deleted, and the call returns when it is gone."""
    script.add_response("update_table", {}, {**TICKETS, "DeletionProtectionEnabled": False})
    script.add_response("describe_table", {"Table": {"TableStatus": "ACTIVE"}}, TICKETS)
    script.add_response("delete_table", {}, TICKETS)
    missing(script, "describe_table")
    Tables(client).delete("Tickets")


def test_a_deletion_that_cannot_be_followed(client: Any, script: Stubber) -> None:
    """If DynamoDB does not say that the table is ready, the table is not deleted, and the error says so."""
    script.add_response("update_table", {}, {**TICKETS, "DeletionProtectionEnabled": False})
    script.add_client_error("describe_table", "AccessDeniedException", "not authorized", 400)
    with pytest.raises(StackFailedError, match="the table Tickets is not deleted yet") as caught:
        Tables(client).delete("Tickets")
    assert caught.value.hint == "run the command again"


def test_other_regions_with_the_table() -> None:
    """Every other region is asked: it has the table, has none, or is not known if it cannot be asked."""
    account = Account(US, EU, AP, "sa-east-1", "af-south-1")
    for region in (US, EU):
        account.deploy(region)
    account.down = {AP}
    account.codes = {"af-south-1": "UnrecognizedClientException"}
    assert tables_elsewhere(MemoryAws(account, US), "Tickets") == ([EU], [AP])


def test_a_region_that_is_not_enabled_has_no_table() -> None:
    """A region that the account has not enabled has no table; a refusal in one that it has leaves it unknown."""
    account = Account(US, EU, AP)
    account.codes = {EU: "UnrecognizedClientException", AP: "AccessDeniedException"}
    assert tables_elsewhere(MemoryAws(account, US), "Tickets") == ([], [AP])


def test_a_table_of_another_name_is_not_counted() -> None:
    """Only a table with the stack's name may have its tickets."""
    account = Account(US, EU)
    account.deploy(EU)
    assert tables_elsewhere(MemoryAws(account, US), "orders") == ([], [])
