"""``table_settings``: how an imported table differs from the template, and repairing it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.stub import Stubber

from ticketctl.aws.account import Aws
from ticketctl.aws.stacks import TABLE_TYPE
from ticketctl.aws.table_settings import TableSettings
from ticketctl.aws.template import load

NAME = {"TableName": "Tickets"}
ARTICLES = {"TableStatus": "ACTIVE", "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}}
TEMPLATES = {
    "TableStatus": "ACTIVE",
    "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
    "DeletionProtectionEnabled": True,
}
PROPERTIES: dict[str, Any] = next(
    resource["Properties"] for resource in load("Tickets")["Resources"].values() if resource["Type"] == TABLE_TYPE
)


class Script:
    """The settings of a table, with a client that expects these calls in order, and the messages."""

    def __init__(self, client: Any) -> None:
        self.stubber = Stubber(client)
        self.settings = TableSettings(client, "Tickets", PROPERTIES)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def repair(self) -> None:
        self.settings.repair(self.notes.append, self.warnings.append)

    def table(self, described: dict[str, Any]) -> None:
        self.stubber.add_response("describe_table", {"Table": described}, NAME)

    def active(self) -> None:
        self.table({"TableStatus": "ACTIVE"})

    def update(self, **change: Any) -> None:
        self.stubber.add_response("update_table", {}, {**NAME, **change})

    def time_to_live(self, **description: str) -> None:
        self.stubber.add_response("describe_time_to_live", {"TimeToLiveDescription": description}, NAME)

    def recovery(self, status: str) -> None:
        description = {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }
        self.stubber.add_response("describe_continuous_backups", {"ContinuousBackupsDescription": description}, NAME)

    def enable_time_to_live(self) -> None:
        wanted = {"TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True}}
        self.stubber.add_response("update_time_to_live", wanted, {**NAME, **wanted})

    def enable_recovery(self) -> None:
        wanted = {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
        self.stubber.add_response("update_continuous_backups", {}, {**NAME, **wanted})

    def deny(self, operation: str) -> None:
        self.stubber.add_client_error(operation, "AccessDeniedException", "not authorized", 400)


@pytest.fixture
def script() -> Iterator[Script]:
    with closing(Aws("us-east-1", endpoint_url="http://127.0.0.1:9", embedded=("test", "test"))) as aws:
        script = Script(aws.client("dynamodb", retries=0))
        with script.stubber:
            yield script
            script.stubber.assert_no_pending_responses()


def test_the_template_has_every_setting(script: Script) -> None:
    """The settings and their wanted values are those of the shipped template."""
    assert [(setting.name, setting.wanted) for setting in script.settings.all()] == [
        ("deletion protection", "on"),
        ("time to live", "expires_at"),
        ("point-in-time recovery", "on"),
        ("billing mode", "PAY_PER_REQUEST"),
    ]


def test_the_articles_table(script: Script) -> None:
    """All settings of a table like the article's are changed, one at a time, each once the table is active again."""
    script.table(ARTICLES)
    script.active()
    script.update(DeletionProtectionEnabled=True)
    script.time_to_live(TimeToLiveStatus="DISABLED")
    script.active()
    script.enable_time_to_live()
    script.recovery("DISABLED")
    script.active()
    script.enable_recovery()
    script.table(ARTICLES)
    script.active()
    script.update(BillingMode="PAY_PER_REQUEST")
    script.repair()
    assert script.warnings == []
    assert script.notes == [
        "changed the deletion protection of the table Tickets in us-east-1 from 'off' to 'on', as in the template",
        "changed the time to live of the table Tickets in us-east-1 from 'off' to 'expires_at', as in the template",
        "changed the point-in-time recovery of the table Tickets in us-east-1 from 'off' to 'on', as in the template",
        "changed the billing mode of the table Tickets in us-east-1 from 'PROVISIONED' to 'PAY_PER_REQUEST', "
        "as in the template",
    ]


def test_a_table_as_in_the_template(script: Script) -> None:
    """If a table has the template's settings, they are read and not changed."""
    script.table(TEMPLATES)
    script.time_to_live(TimeToLiveStatus="ENABLING", AttributeName="expires_at")
    script.recovery("ENABLED")
    script.table(TEMPLATES)
    script.repair()
    assert (script.notes, script.warnings) == ([], [])


def test_a_denied_change(script: Script) -> None:
    """If reading or changing a setting is denied, a warning names the permission; the other settings are changed."""
    script.table(ARTICLES)
    script.active()
    script.deny("update_table")
    script.deny("describe_time_to_live")
    script.recovery("DISABLED")
    script.active()
    script.enable_recovery()
    script.table(TEMPLATES)
    script.repair()
    assert script.warnings == [
        "the deletion protection of the table Tickets in us-east-1 may not be 'on', as in the template; "
        "check dynamodb:UpdateTable: the table Tickets in us-east-1: not authorized",
        "the time to live of the table Tickets in us-east-1 may not be 'expires_at', as in the template; "
        "check dynamodb:DescribeTimeToLive: the table Tickets in us-east-1: not authorized",
    ]
    assert len(script.notes) == 1


def test_a_table_that_does_not_become_active(script: Script) -> None:
    """If a table cannot be changed yet, that is a warning, not an error."""
    script.table(TEMPLATES | {"DeletionProtectionEnabled": False})
    script.deny("describe_table")
    script.time_to_live(TimeToLiveStatus="ENABLED", AttributeName="expires_at")
    script.recovery("ENABLED")
    script.table(TEMPLATES)
    script.repair()
    (warning,) = script.warnings
    assert "the table Tickets in us-east-1 is not active yet" in warning


def test_time_to_live_of_another_attribute(script: Script) -> None:
    """If time to live uses another attribute, it is changed, or a warning contains AWS's answer."""
    script.table(TEMPLATES)
    script.time_to_live(TimeToLiveStatus="ENABLED", AttributeName="ttl")
    script.active()
    script.stubber.add_client_error(
        "update_time_to_live", "ValidationException", "TimeToLive is active on a different AttributeName", 400
    )
    script.recovery("ENABLED")
    script.table(TEMPLATES)
    script.repair()
    (warning,) = script.warnings
    assert "TimeToLive is active on a different AttributeName" in warning
