"""The table as a whole: whether it is there, and deleting it with every counter."""

from typing import Any

from ticketctl.aws import errors_in_our_words
from ticketctl.errors import NotDeployedError, StackFailedError


class Tables:
    """The tables of one account and region."""

    def __init__(self, client: Any, *, profile: str | None = None) -> None:
        self._client = client
        self._profile = profile
        self._target = f"DynamoDB in {client.meta.region_name}"

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name."""
        try:
            with errors_in_our_words(self._target, profile=self._profile):
                self._client.describe_table(TableName=name)
        except NotDeployedError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Take the deletion protection off and delete the table; returns when it is gone."""
        from botocore.exceptions import WaiterError

        with errors_in_our_words(self._target, profile=self._profile):
            try:
                self._client.update_table(TableName=name, DeletionProtectionEnabled=False)
                self._client.get_waiter("table_exists").wait(TableName=name)
                self._client.delete_table(TableName=name)
                self._client.get_waiter("table_not_exists").wait(TableName=name)
            except WaiterError as error:
                raise StackFailedError(f"the table {name} is not deleted yet: {error}", hint="run it again") from error
