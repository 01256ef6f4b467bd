"""Tables as a whole: describe one, find its regions, delete it with every counter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketctl.aws.account import Aws
from ticketctl.aws.sdk_errors import NOT_ENABLED, UNKNOWN_KEY, not_a_ticket_table, translated_errors
from ticketctl.errors import AccessError, NotDeployedError, RefusedError, StackFailedError, TicketctlError

PARALLEL_REGIONS = 16
SAMPLE = 100
KEY = ("partition (S)",)
_STACK_TAG = "aws:cloudformation:stack-id"


@dataclass(frozen=True)
class Table:
    """A table as DynamoDB describes it.

    ``key`` is each attribute of its key with its type: ``("partition (S)",)``. ``replicas``: the other regions of a
    global table whose copies accept writes on their own; none if its writes are strongly consistent in all regions.
    """

    name: str
    region: str
    arn: str
    key: tuple[str, ...]
    billing: str
    is_protected: bool
    replicas: tuple[str, ...]

    def __str__(self) -> str:
        return f"the table {self.name} in {self.region}"

    def require_key(self) -> None:
        """Raise ``RefusedError`` if a counter cannot be an item of the table."""
        if self.key != KEY:
            raise not_a_ticket_table(str(self), f"its key is {' and '.join(self.key)}, not partition (S) alone")

    def require_no_replicas(self) -> None:
        """Raise ``RefusedError`` if other regions can write to copies of the table."""
        if self.replicas:
            raise RefusedError(
                f"{self} is a global table with copies in {', '.join(self.replicas)}: "
                "each copy would give every number again; nothing was changed",
                hint="delete its replicas, or use another table: --stack NAME",
            )


class Tables:
    """The tables of one account and region."""

    def __init__(self, client: Any, *, profile: str | None = None) -> None:
        self._client = client
        self._profile = profile
        self._target = f"DynamoDB in {client.meta.region_name}"

    def describe(self, name: str) -> Table | None:
        """The table of that name, ``None`` if there is none."""
        try:
            with translated_errors(self._target, profile=self._profile):
                described = self._client.describe_table(TableName=name)["Table"]
        except NotDeployedError:
            return None
        return _table(name, self._client.meta.region_name, described)

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return self.describe(name) is not None

    def require_no_replicas(self, name: str) -> None:
        """Raise ``RefusedError`` if other regions can write to copies of a table.

        A table that cannot be described is not refused, because minting needs only ``dynamodb:UpdateItem``.
        """
        try:
            table = self.describe(name)
        except TicketctlError:
            return
        if table is not None:
            table.require_no_replicas()

    def stack_of(self, table: Table) -> str:
        """The id of the stack that made the table, from CloudFormation's tag; empty without it. It may be deleted."""
        with translated_errors(self._target, profile=self._profile):
            pages = self._client.get_paginator("list_tags_of_resource").paginate(ResourceArn=table.arn)
            tags = {tag["Key"]: tag["Value"] for page in pages for tag in page.get("Tags", [])}
        return str(tags.get(_STACK_TAG, ""))

    def sample(self, name: str) -> Sequence[Mapping[str, Any]]:
        """A few items of the table: the first of a scan."""
        with translated_errors(self._target, profile=self._profile):
            items: Sequence[Mapping[str, Any]] = self._client.scan(TableName=name, ConsistentRead=True, Limit=SAMPLE)[
                "Items"
            ]
        return items

    def delete(self, name: str) -> None:
        """Turn off deletion protection and delete the table; return when it is deleted."""
        from botocore.exceptions import WaiterError

        with translated_errors(self._target, profile=self._profile):
            try:
                self._client.update_table(TableName=name, DeletionProtectionEnabled=False)
                self._client.get_waiter("table_exists").wait(TableName=name)
                self._client.delete_table(TableName=name)
                self._client.get_waiter("table_not_exists").wait(TableName=name)
            except WaiterError as error:
                raise StackFailedError(
                    f"the table {name} is not deleted yet: {error}", hint="run the command again"
                ) from error


def _table(name: str, region: str, described: Mapping[str, Any]) -> Table:
    types = {each["AttributeName"]: each["AttributeType"] for each in described.get("AttributeDefinitions", [])}
    names = [each["AttributeName"] for each in described.get("KeySchema", [])]
    return Table(
        name=name,
        region=region,
        arn=described.get("TableArn", ""),
        key=tuple(f"{attribute} ({types.get(attribute, '?')})" for attribute in names),
        billing=described.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        is_protected=described.get("DeletionProtectionEnabled", False),
        replicas=_replicas(region, described),
    )


def _replicas(region: str, described: Mapping[str, Any]) -> tuple[str, ...]:
    if described.get("MultiRegionConsistency") == "STRONG":
        return ()
    if described.get("GlobalTableVersion") == "2017.11.29":  # DescribeTable does not list the replicas of this version
        return ("other regions",)
    return tuple(sorted({each["RegionName"] for each in described.get("Replicas", [])} - {region}))


def tables_elsewhere(aws: Aws, name: str) -> tuple[Sequence[str], Mapping[str, TicketctlError]]:
    """The other regions of the account that have a table of that name, and those that cannot be read, and why.

    A region that the account has not enabled has no table.
    """
    from concurrent.futures import ThreadPoolExecutor

    def look(region: str) -> bool | TicketctlError:
        client = aws.in_region(region).client("dynamodb", timeout=5.0, retries=0)
        try:
            return Tables(client, profile=aws.profile).exists(name)
        except TicketctlError as error:
            code = (getattr(error.__cause__, "response", None) or {}).get("Error", {}).get("Code")
            if code in UNKNOWN_KEY:
                return _unknown_key(is_enabled=enabled[region])
            return False if code == NOT_ENABLED else error

    enabled = aws.account_regions()
    others = [region for region, is_enabled in enabled.items() if region != aws.region and is_enabled is not False]
    with ThreadPoolExecutor(PARALLEL_REGIONS) as pool:
        found = dict(zip(others, pool.map(look, others), strict=True))
    unread = {region: outcome for region, outcome in found.items() if isinstance(outcome, TicketctlError)}
    return [region for region, there in found.items() if there is True], unread


def _unknown_key(*, is_enabled: bool | None) -> AccessError:
    """The error if a region does not know the access key, which is valid in other regions."""
    if is_enabled:
        return AccessError(
            "the account has enabled the region, but these credentials are not valid there; "
            "use STS tokens of version 2, such as with AWS_STS_REGIONAL_ENDPOINTS=regional"
        )
    return AccessError(
        "these credentials are not valid there, or the account has not enabled the region; "
        "the permission account:ListRegions or ec2:DescribeRegions shows which"
    )
