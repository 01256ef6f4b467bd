"""Tables as a whole: check if one exists, find its regions, delete it with every counter."""

from collections.abc import Mapping, Sequence
from typing import Any

from ticketctl.aws.account import Aws
from ticketctl.aws.sdk_errors import NOT_ENABLED, UNKNOWN_KEY, translated_errors
from ticketctl.errors import AccessError, NotDeployedError, StackFailedError, TicketctlError

PARALLEL_REGIONS = 16


class Tables:
    """The tables of one account and region."""

    def __init__(self, client: Any, *, profile: str | None = None) -> None:
        self._client = client
        self._profile = profile
        self._target = f"DynamoDB in {client.meta.region_name}"

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name."""
        try:
            with translated_errors(self._target, profile=self._profile):
                self._client.describe_table(TableName=name)
        except NotDeployedError:
            return False
        return True

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
