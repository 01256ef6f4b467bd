"""Harmless calls that show what AWS has and what the caller may do. Nothing is written, nothing is minted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.account import Aws
from ticketctl.aws.sdk_errors import translated_errors
from ticketctl.aws.template import SHIPPED, table_properties
from ticketctl.deadline import Deadline
from ticketctl.errors import TicketctlError, UnreachableError
from ticketctl.http_client import HttpClient, TransportError

NEVER = "attribute_exists(#partition) AND attribute_not_exists(#partition)"
"""A condition that no item meets, and no missing item either."""
_UPDATE = "aws dynamodb update-table --table-name {table} --region {region}"
_REPAIRS = {
    "BillingMode": f"{_UPDATE} --billing-mode PAY_PER_REQUEST",
    "DeletionProtectionEnabled": f"{_UPDATE} --deletion-protection-enabled",
    "TimeToLiveSpecification": "aws dynamodb update-time-to-live --table-name {table} --region {region} "
    "--time-to-live-specification Enabled=true,AttributeName=expires_at",
    "PointInTimeRecoverySpecification": "aws dynamodb update-continuous-backups --table-name {table} "
    "--region {region} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
}


@dataclass(frozen=True)
class Drift:
    """A property of the table that differs from the template. ``fix`` is a command, empty if none can change it."""

    name: str
    found: Any
    fix: str

    def __str__(self) -> str:
        return f"{self.name} is {self.found if isinstance(self.found, str) else json.dumps(self.found)}"


class Probes:
    """The harmless calls to one region; each request is sent once and has ``timeout`` seconds."""

    def __init__(self, aws: Aws, *, timeout: float, connect: float) -> None:
        self._aws = aws
        self._timeout = timeout
        self._connect = connect

    def server_time(self) -> float:
        """AWS's clock in epoch seconds, from the ``Date`` header of an answer; needs no credentials."""
        url = f"{self._client('dynamodb').meta.endpoint_url}/"
        http = HttpClient(direct=self._aws.embedded is not None)
        try:
            response = http.request("GET", url, {}, b"", deadline=Deadline(self._timeout), connect=self._connect)
            return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except TransportError as error:
            raise UnreachableError(f"{url} cannot be reached: {error}", hint="check the network and proxies") from None
        except ValueError:
            raise UnreachableError(f"{url} did not tell the time", hint="check the proxies") from None
        finally:
            http.close()

    def table_drift(self, table: str) -> Sequence[Drift]:
        """The properties of a table that differ from the template's, without expiry and recovery."""
        found = self._table(table)
        key = found.get("KeySchema", [])
        of_key = {each["AttributeName"] for each in key}  # the others are those of indexes
        actual = {
            "AttributeDefinitions": [each for each in found["AttributeDefinitions"] if each["AttributeName"] in of_key],
            "KeySchema": key,
            "BillingMode": found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
            "DeletionProtectionEnabled": found.get("DeletionProtectionEnabled", False),
        }
        return self._differences(table, actual)

    def expiry_drift(self, table: str) -> Sequence[Drift]:
        """Whether receipts expire as in the template."""
        with self._errors(table):
            found = self._client("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        enabled = found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
        setting = {"AttributeName": found.get("AttributeName", ""), "Enabled": enabled}
        return self._differences(table, {"TimeToLiveSpecification": setting})

    def recovery_drift(self, table: str) -> Sequence[Drift]:
        """Whether the table can be restored to a point in time, as in the template."""
        with self._errors(table):
            answer = self._client("dynamodb").describe_continuous_backups(TableName=table)
        found = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        setting = {"PointInTimeRecoveryEnabled": found.get("PointInTimeRecoveryStatus") == "ENABLED"}
        return self._differences(table, {"PointInTimeRecoverySpecification": setting})

    def replicas(self, table: str) -> tuple[Sequence[str], bool]:
        """The regions of a global table's replicas, and whether their copies are strongly consistent."""
        found = self._table(table)
        regions = [str(replica["RegionName"]) for replica in found.get("Replicas", [])]
        return regions, found.get("MultiRegionConsistency") == "STRONG"

    def read(self, table: str) -> None:
        """Read an item that cannot exist; raises ``AccessError`` if the caller lacks ``dynamodb:GetItem``."""
        with self._errors(table):
            self._client("dynamodb").get_item(TableName=table, Key=_impossible(), ConsistentRead=True)

    def scan(self, table: str) -> None:
        """Read one item; raises ``AccessError`` if the caller lacks ``dynamodb:Scan``."""
        with self._errors(table):
            self._client("dynamodb").scan(TableName=table, Limit=1)

    def update(self, table: str) -> None:
        """Send a write whose condition never holds; raises ``AccessError`` if the caller lacks ``UpdateItem``."""
        client = self._client("dynamodb")
        with self._errors(table):
            try:
                client.update_item(
                    TableName=table,
                    Key=_impossible(),
                    UpdateExpression="REMOVE #never",
                    ConditionExpression=NEVER,
                    ExpressionAttributeNames={"#partition": "partition", "#never": "never"},
                )
            except client.exceptions.ConditionalCheckFailedException:
                return
        raise TicketctlError(f"the table {table} accepted a write whose condition cannot hold")

    def read_logs(self, group: str) -> None:
        """Read one log line; raises ``AccessError`` if the caller lacks ``logs:FilterLogEvents``."""
        with translated_errors(f"the log group {group} in {self._aws.region}", profile=self._aws.profile):
            self._client("logs").filter_log_events(logGroupName=group, limit=1)

    def _table(self, table: str) -> Mapping[str, Any]:
        with self._errors(table):
            found: Mapping[str, Any] = self._client("dynamodb").describe_table(TableName=table)["Table"]
            return found

    def _client(self, service: str) -> Any:
        return self._aws.client(service, timeout=self._timeout, connect=self._connect, retries=0)

    def _errors(self, table: str) -> Any:
        return translated_errors(f"the table {table} in {self._aws.region}", profile=self._aws.profile)

    def _differences(self, table: str, actual: Mapping[str, Any]) -> Sequence[Drift]:
        expected = table_properties(json.loads(SHIPPED.read_text(encoding="utf-8")))
        return [
            Drift(name, value, _REPAIRS.get(name, "").format(table=table, region=self._aws.region))
            for name, value in actual.items()
            if value != expected[name]
        ]


def _impossible() -> dict[str, Any]:
    """The key of an item that neither a counter nor a receipt can have."""
    return {"partition": {"S": bundle.handler.RECEIPT}}
