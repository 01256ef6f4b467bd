"""``tables``: whether a table exists, how it is deleted, and in which regions there is one."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.stub import Stubber

from tests.support.memory_aws import AP, EU, US, Account, MemoryAws
from ticketctl.aws.account import Aws
from ticketctl.aws.tables import Table, Tables, tables_elsewhere
from ticketctl.errors import AccessError, RefusedError, StackFailedError

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


# --- what a table is ---------------------------------------------------------------------------------

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/Tickets"
OURS: dict[str, Any] = {
    "TableArn": ARN,
    "AttributeDefinitions": [{"AttributeName": "partition", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "partition", "KeyType": "HASH"}],
    "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
    "DeletionProtectionEnabled": True,
}
REPLICAS = {"Replicas": [{"RegionName": "us-east-1"}, {"RegionName": "eu-west-1"}], "GlobalTableVersion": "2019.11.21"}


def describe(client: Any, script: Stubber, **differs: Any) -> Table:
    script.add_response("describe_table", {"Table": {**OURS, **differs}}, TICKETS)
    table = Tables(client).describe("Tickets")
    assert table is not None
    return table


def test_a_table_of_a_ticket_server(client: Any, script: Stubber) -> None:
    """A table as the template makes it can be used."""
    table = describe(client, script)
    assert table == Table("Tickets", "us-east-1", ARN, ("partition (S)",), "PAY_PER_REQUEST", True, ())
    table.require_key()
    table.require_no_replicas()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ([("id", "S", "HASH")], "id (S)"),
        ([("partition", "N", "HASH")], "partition (N)"),
        ([("partition", "S", "HASH"), ("at", "N", "RANGE")], "partition (S) and at (N)"),
    ],
)
def test_another_key(client: Any, script: Stubber, key: list[tuple[str, str, str]], said: str) -> None:
    """A table whose key is not exactly ``partition``, a string, is refused."""
    table = describe(
        client,
        script,
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind, _ in key],
        KeySchema=[{"AttributeName": name, "KeyType": role} for name, _, role in key],
    )
    with pytest.raises(RefusedError, match=re.escape(f"its key is {said}; nothing was written")):
        table.require_key()


@pytest.mark.parametrize(
    ("differs", "where"),
    [
        (REPLICAS, "eu-west-1"),
        (REPLICAS | {"MultiRegionConsistency": "EVENTUAL"}, "eu-west-1"),
        ({"GlobalTableVersion": "2017.11.29"}, "other regions"),
    ],
)
def test_a_global_table(client: Any, script: Stubber, differs: dict[str, Any], where: str) -> None:
    """A global table that is not strongly consistent is refused: each copy would give every number again."""
    with pytest.raises(RefusedError, match=f"copies in {where}: each copy would give every number again") as caught:
        describe(client, script, **differs).require_no_replicas()
    assert caught.value.hint == "delete its replicas, or use another table: --stack NAME"


@pytest.mark.parametrize(
    "differs", [REPLICAS | {"MultiRegionConsistency": "STRONG"}, {"GlobalTableVersion": "2019.11.21"}]
)
def test_a_strongly_consistent_table(client: Any, script: Stubber, differs: dict[str, Any]) -> None:
    """A strongly consistent global table is one table, and so is one whose replicas are gone."""
    describe(client, script, **differs).require_no_replicas()


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException", "ResourceNotFoundException"])
def test_a_table_that_cannot_be_described_is_not_refused(client: Any, script: Stubber, code: str) -> None:
    """Minting needs no permission to describe the table."""
    script.add_client_error("describe_table", code, "no", 400)
    Tables(client).require_no_replicas("Tickets")


def test_the_stack_of_a_table(client: Any, script: Stubber) -> None:
    """CloudFormation's tag says which stack made a table; it may be on a later page, or missing."""
    tag = {"Key": "aws:cloudformation:stack-id", "Value": "arn:of:a/stack/1"}
    pages = [({"ResourceArn": ARN}, [{"Key": "team", "Value": "a"}]), ({"ResourceArn": ARN, "NextToken": "2"}, [tag])]
    script.add_response("list_tags_of_resource", {"Tags": pages[0][1], "NextToken": "2"}, pages[0][0])
    script.add_response("list_tags_of_resource", {"Tags": pages[1][1]}, pages[1][0])
    script.add_response("list_tags_of_resource", {}, {"ResourceArn": ARN})
    table = Table("Tickets", "us-east-1", ARN, (), "", True, ())
    assert [Tables(client).stack_of(table), Tables(client).stack_of(table)] == ["arn:of:a/stack/1", ""]


def test_a_sample_is_one_bounded_page(client: Any, script: Stubber) -> None:
    """A table with millions of items is not read."""
    answer = {"Items": [{"partition": {"S": "a"}}], "LastEvaluatedKey": {"partition": {"S": "a"}}}
    script.add_response("scan", answer, {**TICKETS, "ConsistentRead": True, "Limit": 100})
    assert Tables(client).sample("Tickets") == [{"partition": {"S": "a"}}]
