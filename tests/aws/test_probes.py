"""``probes``: what the harmless calls report about a table, with the shapes of AWS's answers."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.stub import Stubber

from tests.support.http_server import Answer, Server
from ticketctl.aws.account import Aws
from ticketctl.aws.probes import NEVER, Probes
from ticketctl.aws.template import SHIPPED, table_properties
from ticketctl.errors import AccessError, TicketctlError, UnreachableError

TICKETS = {"TableName": "Tickets"}


@pytest.fixture
def aws() -> Iterator[Aws]:
    with closing(Aws("us-east-1", endpoint_url="http://127.0.0.1:9", embedded=("test", "test"))) as aws:
        yield aws


@pytest.fixture
def script(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    client = aws.client("dynamodb", retries=0)
    monkeypatch.setattr(aws, "client", lambda service, **options: client)
    with Stubber(client) as script:
        yield script
        script.assert_no_pending_responses()


@pytest.fixture
def probes(aws: Aws) -> Probes:
    return Probes(aws, timeout=5, connect=1)


def described(**more: Any) -> dict[str, Any]:
    """The description of a table as the template creates it, with changes."""
    made = table_properties(json.loads(SHIPPED.read_text(encoding="utf-8")))
    table = {name: made[name] for name in ("AttributeDefinitions", "KeySchema", "DeletionProtectionEnabled")}
    return {"Table": {**table, "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"}, **more}}


def test_a_table_as_in_the_template(script: Stubber, probes: Probes) -> None:
    """A table with the template's settings has no drift."""
    script.add_response("describe_table", described(), TICKETS)
    assert probes.table_drift("Tickets") == []


def test_a_table_of_the_article(script: Stubber, probes: Probes) -> None:
    """An imported table may have provisioned capacity and no protection; each difference has a repair command."""
    table = described(DeletionProtectionEnabled=False)
    del table["Table"]["BillingModeSummary"]
    script.add_response("describe_table", table, TICKETS)
    begin = "aws dynamodb update-table --table-name Tickets --region us-east-1"
    assert {str(drift): drift.fix for drift in probes.table_drift("Tickets")} == {
        "BillingMode is PROVISIONED": f"{begin} --billing-mode PAY_PER_REQUEST",
        "DeletionProtectionEnabled is false": f"{begin} --deletion-protection-enabled",
    }


def test_a_table_of_something_else(script: Stubber, probes: Probes) -> None:
    """A table with another key has no repair command."""
    key = [{"AttributeName": "id", "KeyType": "HASH"}]
    attributes = [{"AttributeName": "id", "AttributeType": "S"}]
    script.add_response("describe_table", described(KeySchema=key, AttributeDefinitions=attributes), TICKETS)
    drifts = [(drift.name, drift.fix) for drift in probes.table_drift("Tickets")]
    assert drifts == [("AttributeDefinitions", ""), ("KeySchema", "")]


def test_a_table_with_an_index(script: Stubber, probes: Probes) -> None:
    """The attributes of an index are no drift: a counter can be an item of the table."""
    more = {"AttributeName": "at", "AttributeType": "N"}
    table = described()
    table["Table"]["AttributeDefinitions"] = [more, *table["Table"]["AttributeDefinitions"]]
    script.add_response("describe_table", table, TICKETS)
    assert probes.table_drift("Tickets") == []


@pytest.mark.parametrize(
    ("status", "attribute", "drifts"),
    [("ENABLED", "expires_at", 0), ("ENABLING", "expires_at", 0), ("ENABLED", "ttl", 1), ("DISABLED", "", 1)],
)
def test_expiry(script: Stubber, probes: Probes, status: str, attribute: str, drifts: int) -> None:
    """If receipts do not expire by ``expires_at``, that is a drift."""
    named = {"AttributeName": attribute} if attribute else {}
    answer = {"TimeToLiveDescription": {"TimeToLiveStatus": status, **named}}
    script.add_response("describe_time_to_live", answer, TICKETS)
    assert len(probes.expiry_drift("Tickets")) == drifts


@pytest.mark.parametrize(("status", "drifts"), [("ENABLED", 0), ("DISABLED", 1)])
def test_recovery(script: Stubber, probes: Probes, status: str, drifts: int) -> None:
    """If point-in-time recovery is off, that is a drift."""
    recovery = {"PointInTimeRecoveryStatus": status}
    answer = {"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": recovery}
    script.add_response("describe_continuous_backups", {"ContinuousBackupsDescription": answer}, TICKETS)
    assert len(probes.recovery_drift("Tickets")) == drifts


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ([], False)),
        ({"Replicas": [{"RegionName": "eu-west-1"}]}, (["eu-west-1"], False)),
        ({"Replicas": [{"RegionName": "eu-west-1"}], "MultiRegionConsistency": "STRONG"}, (["eu-west-1"], True)),
    ],
)
def test_replicas(script: Stubber, probes: Probes, more: dict[str, Any], expected: tuple[list[str], bool]) -> None:
    """For a global table, the result names its copies and whether they are strongly consistent."""
    script.add_response("describe_table", described(**more), TICKETS)
    assert probes.replicas("Tickets") == expected


def test_the_write_that_never_happens(script: Stubber, probes: Probes) -> None:
    """A failed condition proves the permission; a denied request is an error, and an accepted write is a bug."""
    expected = {
        **TICKETS,
        "Key": {"partition": {"S": "receipt#"}},
        "UpdateExpression": "REMOVE #never",
        "ConditionExpression": NEVER,
        "ExpressionAttributeNames": {"#partition": "partition", "#never": "never"},
    }
    script.add_client_error("update_item", "ConditionalCheckFailedException", "no", 400, expected_params=expected)
    script.add_client_error("update_item", "AccessDeniedException", "not allowed", 400)
    script.add_response("update_item", {})
    probes.update("Tickets")
    with pytest.raises(AccessError, match="the table Tickets in us-east-1: not allowed"):
        probes.update("Tickets")
    with pytest.raises(TicketctlError, match="accepted a write"):
        probes.update("Tickets")


def test_server_time(server: Server) -> None:
    """The time comes from the answer's Date header, whatever its status is."""
    server.answers = [Answer(403, "text/plain", b"no")]
    with closing(Aws("us-east-1", endpoint_url=server.url, embedded=("test", "test"))) as aws:
        import time

        assert abs(Probes(aws, timeout=5, connect=1).server_time() - time.time()) < 60


def test_no_server_time(probes: Probes) -> None:
    """If nothing answers, the error names the address."""
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9/ cannot be reached"):
        probes.server_time()
