"""Transactions that AWS refuses and ministack alone would accept are refused by the embedded AWS."""

from typing import Any

import pytest

from tests.support.embedded_aws import Connect
from ticketctl.aws.account import Aws

GOOD_KEY, NO_KEY = {"partition": {"S": "strict"}}, {"other": {"S": "strict"}}
LONG_KEY = GOOD_KEY | NO_KEY
ALWAYS = {"ConditionExpression": "attribute_not_exists(nothing)"}
SET = {"UpdateExpression": "SET who = :who", "ExpressionAttributeValues": {":who": {"S": "me"}}}
MISMATCH = "The provided key element does not match the schema"
MISSING = "One or more parameter values were invalid: Missing the key partition in the item"
WRITES: dict[str, tuple[dict[str, Any], str]] = {
    "put": ({"Put": {"Item": NO_KEY}}, MISSING),
    "update": ({"Update": {"Key": NO_KEY, **SET}}, MISMATCH),
    "update with a longer key": ({"Update": {"Key": LONG_KEY, **SET}}, MISMATCH),
    "delete": ({"Delete": {"Key": NO_KEY}}, MISMATCH),
    "delete with a longer key": ({"Delete": {"Key": LONG_KEY}}, MISMATCH),
    "check": ({"ConditionCheck": {"Key": NO_KEY, **ALWAYS}}, MISMATCH),
    "check without key": ({"ConditionCheck": {"Key": {}, **ALWAYS}}, MISMATCH),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_transaction_with_a_wrong_key_is_canceled(aws: Aws, deployed: str, connect: Connect, name: str) -> None:
    """A key that does not match the table's schema cancels the transaction; the other writes do not happen."""
    table, client = connect(stack=deployed).locator.look_up().table, aws.client("dynamodb")
    ((kind, wrong),) = WRITES[name][0].items()
    put = {"Put": {"TableName": table, "Item": GOOD_KEY}}
    with pytest.raises(client.exceptions.TransactionCanceledException) as canceled:
        client.transact_write_items(TransactItems=[put, {kind: {"TableName": table, **wrong}}])
    reasons = canceled.value.response["CancellationReasons"]
    assert reasons == [{"Code": "None"}, {"Code": "ValidationError", "Message": WRITES[name][1]}]
    assert client.scan(TableName=table)["Items"] == []
    client.transact_write_items(TransactItems=[put])
    assert client.scan(TableName=table)["Items"] == [GOOD_KEY]
