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


def elsewhere(account: Account, name: str = "Tickets") -> tuple[list[str], list[str]]:
    there, unread = tables_elsewhere(MemoryAws(account, US), name)
    return list(there), list(unread)


def test_other_regions_with_the_table() -> None:
    """Every other region is asked: it has the table, has none, or is unread if it cannot be asked."""
    account = Account(US, EU, AP, "sa-east-1", "af-south-1")
    for region in (US, EU):
        account.deploy(region)
    account.down = {AP}
    account.codes = {"af-south-1": "OptInRequired"}
    assert elsewhere(account) == ([EU], [AP])


@pytest.mark.parametrize("code", ["UnrecognizedClientException", "InvalidClientTokenId", "AccessDeniedException"])
def test_a_region_that_does_not_know_the_credentials_is_unread(code: str) -> None:
    """An unknown access key or a missing permission does not prove that a region has no table."""
    account = Account(US, EU)
    account.codes = {EU: code}
    assert elsewhere(account) == ([], [EU])


def test_a_table_of_another_name_is_not_counted() -> None:
    """Only a table with the stack's name may have its tickets."""
    account = Account(US, EU)
    account.deploy(EU)
    assert elsewhere(account, "orders") == ([], [])


NEW, OFF = "mx-south-9", "me-south-1"
"""A region that is newer than the SDK, and one that the account has not enabled."""
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
    """AWS whose list of regions is asked for with real clients; ``allowed`` are the services that answer."""

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
    """Regions newer than the SDK are read, those that are not enabled are not; AWS is asked once for the list."""
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
    """The embedded AWS, and any endpoint that is not AWS's, does not know which regions an account has enabled."""
    for aws in (Aws(US, endpoint_url="http://127.0.0.1:9"), Aws(US, embedded=("test", "test"))):
        assert aws.account_regions() == dict.fromkeys(aws.regions())
