"""Claims in the embedded AWS, and the records that carry their numbers."""

from typing import Any

from tests.support.embedded_aws import REGION
from ticketctl.aws.account import Aws
from ticketctl.aws.dynamodb import timed_sdk_sender
from ticketctl.minting.claim import Claims, Writes

BILLS, STACK = "Bills", "claims"


def bill(name: str, who: str = "") -> Writes:
    """Return the function that builds the writes of a claim: put a record for the number, unless it exists."""

    def writes(number: int) -> list[dict[str, Any]]:
        record = {"partition": {"S": f"{name}/{number}"}, "number": {"N": str(number)}, "who": {"S": who}}
        put = {"TableName": BILLS, "Item": record, "ConditionExpression": "attribute_not_exists(who)"}
        return [{"Put": put}]

    return writes


def claims_at(url: str, credentials: tuple[str, str]) -> Claims:
    """Create the claims of one process, sent to a URL of the embedded AWS."""
    aws = Aws(REGION, endpoint_url=url, embedded=credentials)
    return Claims(timed_sdk_sender(aws, "the table", timeout=3.0, connect=3.0), STACK)
