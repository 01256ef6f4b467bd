"""``tables``: whether a table exists, how it is deleted, and which regions have one."""

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
    """``exists`` is true for a table that DynamoDB describes, and false if DynamoDB does not find it."""
    script.add_response("describe_table", {"Table": {"TableStatus": "ACTIVE"}}, TICKETS)
    missing(script, "describe_table")
    tables = Tables(client)
    assert [tables.exists("Tickets"), tables.exists("Tickets")] == [True, False]


def test_a_refusal_is_not_a_missing_table(client: Any, script: Stubber) -> None:
    """If the caller may not describe the table, that is an error, not a missing table."""
    script.add_client_error("describe_table", "AccessDeniedException", "not authorized", 400)
    with pytest.raises(AccessError, match="DynamoDB in us-east-1: not authorized"):
        Tables(client).exists("Tickets")


def test_delete(client: Any, script: Stubber) -> None:
    """Deletion protection is turned off, then the table is deleted, and the call returns once it is deleted."""
    script.add_response("update_table", {}, {**TICKETS, "DeletionProtectionEnabled": False})
    script.add_response("describe_table", {"Table": {"TableStatus": "ACTIVE"}}, TICKETS)
    script.add_response("delete_table", {}, TICKETS)
    missing(script, "describe_table")
    Tables(client).delete("Tickets")


def test_a_deletion_that_cannot_be_followed(client: Any, script: Stubber) -> None:
    """If the table does not become ready, it is not deleted, and the error says so."""
    script.add_response("update_table", {}, {**TICKETS, "DeletionProtectionEnabled": False})
    script.add_client_error("describe_table", "AccessDeniedException", "not authorized", 400)
    with pytest.raises(StackFailedError, match="the table Tickets is not deleted yet") as caught:
        Tables(client).delete("Tickets")
    assert caught.value.hint == "run the command again"


def elsewhere(account: Account, name: str = "Tickets") -> tuple[list[str], list[str]]:
    there, unread = tables_elsewhere(MemoryAws(account, US), name)
    return list(there), list(unread)


def test_other_regions_with_the_table() -> None:
    """Every other region is checked: it has the table, has none, or is unread if the check failed."""
    account = Account(US, EU, AP, "sa-east-1", "af-south-1")
    for region in (US, EU):
        account.deploy(region)
    account.down = {AP}
    account.codes = {"af-south-1": "OptInRequired"}
    assert elsewhere(account) == ([EU], [AP])


@pytest.mark.parametrize("code", ["UnrecognizedClientException", "InvalidClientTokenId", "AccessDeniedException"])
def test_a_region_that_does_not_know_the_credentials_is_unread(code: str) -> None:
    """A region that does not know the access key or denies the request is unread, because it may have the table."""
    account = Account(US, EU)
    account.codes = {EU: code}
    assert elsewhere(account) == ([], [EU])


def test_a_table_of_another_name_is_not_counted() -> None:
    """Only tables with the stack's name count."""
    account = Account(US, EU)
    account.deploy(EU)
    assert elsewhere(account, "orders") == ([], [])


NEW, OFF = "mx-south-9", "me-south-1"
"""A region that the SDK does not know, and one that is not enabled in the account."""
LISTED = {
    "account": (
        "list_regions",
        {"MaxResults": 50},
        {
            "Regions": [
                {"RegionName": US, "RegionOptStatus": "ENABLED_BY_DEFAULT"},
                {"RegionName": EU, "RegionOptStatus": "ENABLED"},
                {"RegionName": NEW, "RegionOptStatus": "ENABLING"},
                {"RegionName": OFF, "RegionOptStatus": "DISABLED"},
            ]
        },
    ),
    "ec2": (
        "describe_regions",
        {"AllRegions": True},
        {
            "Regions": [
                {"RegionName": US, "OptInStatus": "opt-in-not-required", "Endpoint": "ec2.us-east-1.amazonaws.com"},
                {"RegionName": EU, "OptInStatus": "opted-in", "Endpoint": "ec2.eu-west-1.amazonaws.com"},
                {"RegionName": NEW, "OptInStatus": "opted-in", "Endpoint": "ec2.mx-south-9.amazonaws.com"},
                {"RegionName": OFF, "OptInStatus": "not-opted-in", "Endpoint": "ec2.me-south-1.amazonaws.com"},
            ]
        },
    ),
}


class ListingAws(Aws):
    """AWS with real clients for the list of regions; ``allowed`` are the services that answer."""

    def __init__(self, account: Account, *allowed: str) -> None:
        super().__init__(US, profile=None)
        self._account = account
        self._allowed = allowed
        self._makes = Aws(US, embedded=("test", "test"))
        self.asked: list[str] = []

    def regions(self) -> list[str]:
        return [US, EU, OFF]

    def in_region(self, region: str) -> Aws:
        self.asked.append(region)
        return MemoryAws(self._account, region)

    def client(self, service: str, **limits: Any) -> Any:
        self.asked.append(service)
        client = self._makes.client(service, **limits)
        script = Stubber(client)
        operation, request, answer = LISTED[service]
        if service in self._allowed:
            script.add_response(operation, answer, request)
        else:
            script.add_client_error(operation, "AccessDeniedException", "not authorized", 403)
        script.activate()
        return client


@pytest.mark.parametrize(
    ("allowed", "calls"), [(["account"], ["account"]), (["ec2"], ["account", "ec2"])], ids=["account", "ec2"]
)
def test_listed_regions(allowed: list[str], calls: list[str]) -> None:
    """New regions that the SDK does not know are included, disabled ones are not; the list is requested once."""
    account = Account(US, EU, NEW, OFF)
    account.deploy(NEW)
    aws = ListingAws(account, *allowed)
    for _ in range(2):
        assert tables_elsewhere(aws, "Tickets") == ([NEW], {})
    assert sorted(aws.asked) == sorted([*calls, EU, NEW, EU, NEW])


@pytest.mark.parametrize(("allowed", "why"), [("account", "version 2"), ("none", "account:ListRegions")])
def test_unknown_credentials(allowed: str, why: str) -> None:
    """If a region does not know the credentials, the reason depends on whether the account is known to use it."""
    account = Account(US, EU, OFF)
    account.codes = dict.fromkeys((EU, OFF), "UnrecognizedClientException")
    there, unread = tables_elsewhere(ListingAws(account, allowed), "Tickets")
    assert (there, list(unread)) == ([], [EU] if allowed == "account" else [EU, OFF])
    assert why in unread[EU].message


def test_another_endpoint_is_not_asked_for_regions() -> None:
    """The embedded AWS and other endpoints are not asked for the list of regions, which only AWS has."""
    for aws in (Aws(US, endpoint_url="http://127.0.0.1:9"), Aws(US, embedded=("test", "test"))):
        assert aws.account_regions() == dict.fromkeys(aws.regions())


# --- which tables can be used -----------------------------------------------------------------------

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
    """A table as the template creates it can be used."""
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
    """A table is refused unless its key is exactly ``partition``, a string."""
    table = describe(
        client,
        script,
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind, _ in key],
        KeySchema=[{"AttributeName": name, "KeyType": role} for name, _, role in key],
    )
    with pytest.raises(
        RefusedError, match=re.escape(f"its key is {said}, not partition (S) alone; nothing was written")
    ):
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
    """A global table that is not strongly consistent is refused, because each copy would issue every number."""
    with pytest.raises(RefusedError, match=f"copies in {where}: each copy would give every number again") as caught:
        describe(client, script, **differs).require_no_replicas()
    assert caught.value.hint == "delete its replicas, or use another table: --stack NAME"


@pytest.mark.parametrize(
    "differs", [REPLICAS | {"MultiRegionConsistency": "STRONG"}, {"GlobalTableVersion": "2019.11.21"}]
)
def test_a_strongly_consistent_table(client: Any, script: Stubber, differs: dict[str, Any]) -> None:
    """A strongly consistent global table is accepted, and so is a table whose replicas were deleted."""
    describe(client, script, **differs).require_no_replicas()


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException", "ResourceNotFoundException"])
def test_a_table_that_cannot_be_described_is_not_refused(client: Any, script: Stubber, code: str) -> None:
    """A table that cannot be described is accepted, because minting does not need that permission."""
    script.add_client_error("describe_table", code, "no", 400)
    Tables(client).require_no_replicas("Tickets")


def test_the_stack_of_a_table(client: Any, script: Stubber) -> None:
    """CloudFormation's tag names the stack of a table; the tag may be missing or on a later page."""
    tag = {"Key": "aws:cloudformation:stack-id", "Value": "arn:of:a/stack/1"}
    pages = [({"ResourceArn": ARN}, [{"Key": "team", "Value": "a"}]), ({"ResourceArn": ARN, "NextToken": "2"}, [tag])]
    script.add_response("list_tags_of_resource", {"Tags": pages[0][1], "NextToken": "2"}, pages[0][0])
    script.add_response("list_tags_of_resource", {"Tags": pages[1][1]}, pages[1][0])
    script.add_response("list_tags_of_resource", {}, {"ResourceArn": ARN})
    table = Table("Tickets", "us-east-1", ARN, (), "", True, ())
    assert [Tables(client).stack_of(table), Tables(client).stack_of(table)] == ["arn:of:a/stack/1", ""]


def test_a_sample_is_one_bounded_page(client: Any, script: Stubber) -> None:
    """Only one page with a limited number of items is read."""
    answer = {"Items": [{"partition": {"S": "a"}}], "LastEvaluatedKey": {"partition": {"S": "a"}}}
    script.add_response("scan", answer, {**TICKETS, "ConsistentRead": True, "Limit": 100})
    assert Tables(client).sample("Tickets") == [{"partition": {"S": "a"}}]
