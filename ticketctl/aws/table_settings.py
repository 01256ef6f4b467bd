"""The settings of a table that an import does not change: compare them with the template, and change them.

CloudFormation assumes that an imported table matches its template; only DynamoDB knows the real settings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ticketctl.aws.sdk_errors import translated_errors
from ticketctl.errors import StackFailedError, TicketctlError

Report = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A setting of a table: ``wanted`` by the template, and how to ``read`` and to ``change`` it.

    ``permissions`` are for reading and for changing it.
    """

    name: str
    wanted: str
    read: Callable[[], str]
    change: Callable[[], object]
    permissions: tuple[str, str]


class TableSettings:
    """The settings of one table. ``properties`` are those of the table in the template."""

    def __init__(self, client: Any, table: str, properties: Mapping[str, Any], *, profile: str | None = None) -> None:
        self._client = client
        self._table = table
        self._properties = properties
        self._profile = profile
        self._target = f"the table {table} in {client.meta.region_name}"

    def repair(self, note: Report, warn: Report) -> None:
        """Change what differs from the template; ``note`` gets a line for each, ``warn`` one if that fails."""
        for setting in self.all():
            permission, change = setting.permissions
            what = f"{setting.name} of {self._target}"
            try:
                now = self._translated(setting.read)
                if now == setting.wanted:
                    continue
                permission = change
                self._wait_until_active()
                self._translated(setting.change)
            except TicketctlError as error:
                warn(
                    f"the {what} may not be {setting.wanted!r}, as in the template; check {permission}: {error.message}"
                )
            else:
                note(f"changed the {what} from {now!r} to {setting.wanted!r}, as in the template")

    def all(self) -> Iterator[Setting]:
        """Each setting that the template has.

        A change of the billing mode comes last: the table cannot be changed for minutes after it.
        """
        if "DeletionProtectionEnabled" in self._properties:
            yield self._protection(self._properties["DeletionProtectionEnabled"])
        if "TimeToLiveSpecification" in self._properties:
            yield self._time_to_live(self._properties["TimeToLiveSpecification"])
        if "PointInTimeRecoverySpecification" in self._properties:
            yield self._recovery(self._properties["PointInTimeRecoverySpecification"])
        if "BillingMode" in self._properties:
            yield self._billing(self._properties["BillingMode"])

    def _protection(self, wanted: bool) -> Setting:
        return Setting(
            "deletion protection",
            _switch(wanted),
            lambda: _switch(self._described().get("DeletionProtectionEnabled", False)),
            lambda: self._client.update_table(TableName=self._table, DeletionProtectionEnabled=wanted),
            ("dynamodb:DescribeTable", "dynamodb:UpdateTable"),
        )

    def _billing(self, wanted: str) -> Setting:
        return Setting(
            "billing mode",
            wanted,
            lambda: str(self._described().get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")),
            lambda: self._client.update_table(TableName=self._table, BillingMode=wanted),
            ("dynamodb:DescribeTable", "dynamodb:UpdateTable"),
        )

    def _time_to_live(self, wanted: Mapping[str, Any]) -> Setting:
        def read() -> str:
            now = self._client.describe_time_to_live(TableName=self._table)["TimeToLiveDescription"]
            is_on = now.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
            return str(now.get("AttributeName", "")) if is_on else "off"

        return Setting(
            "time to live",
            str(wanted["AttributeName"]) if wanted["Enabled"] else "off",
            read,
            lambda: self._client.update_time_to_live(TableName=self._table, TimeToLiveSpecification=dict(wanted)),
            ("dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive"),
        )

    def _recovery(self, wanted: Mapping[str, Any]) -> Setting:
        def read() -> str:
            now = self._client.describe_continuous_backups(TableName=self._table)["ContinuousBackupsDescription"]
            status = now.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
            return _switch(status == "ENABLED")

        return Setting(
            "point-in-time recovery",
            _switch(wanted["PointInTimeRecoveryEnabled"]),
            read,
            lambda: self._client.update_continuous_backups(
                TableName=self._table, PointInTimeRecoverySpecification=dict(wanted)
            ),
            ("dynamodb:DescribeContinuousBackups", "dynamodb:UpdateContinuousBackups"),
        )

    def _described(self) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self._client.describe_table(TableName=self._table)["Table"]
        return table

    def _wait_until_active(self) -> None:
        """Wait for the change before: DynamoDB changes a table only if it is active."""
        from botocore.exceptions import WaiterError

        with translated_errors(self._target, profile=self._profile):
            try:
                self._client.get_waiter("table_exists").wait(TableName=self._table)
            except WaiterError as error:
                raise StackFailedError(f"{self._target} is not active yet: {error}") from error

    def _translated(self, call: Callable[[], Any]) -> Any:
        with translated_errors(self._target, profile=self._profile):
            return call()


def _switch(value: bool) -> str:
    return "on" if value else "off"
