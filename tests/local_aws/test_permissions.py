"""Who may do what: checked by the embedded AWS, which verifies signatures and IAM policies."""

import json
from collections.abc import Mapping

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION, Connect, physical_id
from tests.support.minting import look, take
from ticketctl.aws.account import Aws

PROBE = """
import boto3, os
def handler(event, context):
    client, table = boto3.client("dynamodb"), os.environ["TABLE_NAME"]
    key = {"partition": {"S": "us-east-1"}}
    calls = {
        "get": lambda: client.get_item(TableName=table, Key=key),
        "scan": lambda: client.scan(TableName=table),
        "delete": lambda: client.delete_item(TableName=table, Key=key),
        "put": lambda: client.put_item(TableName=table, Item={"partition": {"S": "receipt#x"}}),
        "delete_table": lambda: client.delete_table(TableName=table),
    }
    answers = {}
    for name, call in calls.items():
        try:
            call()
            answers[name] = "allowed"
        except client.exceptions.ClientError as error:
            answers[name] = error.response["Error"]["Code"]
    return answers
"""


def make_user(aws: Aws, name: str, *statements: Mapping[str, object]) -> dict[str, str]:
    """An IAM user with a policy; the environment variables of its credentials."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    if statements:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": str(aws.endpoint_url),
    }


def test_unsigned_call_is_refused(connect: Connect, deployed: str) -> None:
    """Without a signature the URL answers 403 and nothing is minted."""
    connection = connect(stack=deployed)
    assert httpx.post(connection.url(), trust_env=False, timeout=60).status_code == 403
    assert list(connection.counters().all(pytest.fail)) == []


@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_caller_without_permission_is_refused(
    aws: Aws, connect: Connect, ticketctl: Ticketctl, deployed: str, via: str
) -> None:
    """A user who may only look the stack up gets exit 4 and the action that is missing; nothing is minted."""
    look_up = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
    user = make_user(aws, f"nobody-{deployed}-{via}", look_up)
    result = ticketctl("next", "--stack", deployed, "--via", via, env=user)
    assert (result.returncode, result.stdout) == (4, "")
    assert ("lambda:InvokeFunction" if via == "url" else "dynamodb:UpdateItem") in result.stderr
    assert list(connect(stack=deployed).counters().all(pytest.fail)) == []


def test_readme_permissions_suffice_to_mint(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """Who may look the stack up and invoke the function through its URL can mint, and do nothing else."""
    user = make_user(
        aws,
        f"minter-{deployed}",
        {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"},
        {"Effect": "Allow", "Action": ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"], "Resource": "*"},
    )
    assert ticketctl("next", "--stack", deployed, env=user).stdout == "1\n"
    refused = ticketctl("status", "--stack", deployed, env=user)
    assert (refused.returncode, "dynamodb:Scan" in refused.stderr) == (4, True)


def test_readme_permissions_suffice_to_mint_from_the_table(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """A caller that may update items of the table, and nothing else of it, can mint from it."""
    user = make_user(
        aws,
        f"table-minter-{deployed}",
        {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "dynamodb:UpdateItem",
            "Resource": f"arn:aws:dynamodb:{REGION}:*:table/{deployed}",
        },
    )
    options = ("--stack", deployed, "--via", "dynamodb")
    assert ticketctl("next", *options, env=user).stdout == "1\n"
    assert ticketctl("fetch", "20000", "--ranges", *options, env=user).stdout == "2\t10001\t1\n10002\t20001\t1\n"
    typed = ticketctl("next", "--idempotency-key", "a", *options, env=user)
    assert (typed.returncode, typed.stdout, "dynamodb:GetItem" in typed.stderr) == (4, "", True)
    assert ticketctl("next", *options, env=user).stdout == "20002\n"


def test_wrong_secret_is_refused(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """A signature made with another secret is refused with exit 4."""
    user = {**make_user(aws, f"forger-{deployed}"), "AWS_SECRET_ACCESS_KEY": "another"}
    result = ticketctl("next", "--stack", deployed, env=user)
    assert (result.returncode, result.stdout) == (4, "")


def test_function_can_only_read_and_mint(aws: Aws, connect: Connect, deployed: str) -> None:
    """With the function's own role, scanning, deleting and putting items are refused."""
    take(connect(stack=deployed), 1)
    function = physical_id(aws, deployed, "AWS::Lambda::Function")
    lambda_ = aws.client("lambda", timeout=60)
    role = lambda_.get_function_configuration(FunctionName=function)["Role"]
    probe = f"probe-{deployed}"
    lambda_.create_function(
        FunctionName=probe,
        Role=role,
        Runtime="python3.14",
        Handler="index.handler",
        Code={"ZipFile": zipped(PROBE)},
        Environment={"Variables": {"TABLE_NAME": deployed}},
        Timeout=30,
    )
    answer = json.loads(lambda_.invoke(FunctionName=probe)["Payload"].read())
    refused = dict.fromkeys(["scan", "delete", "put", "delete_table"], "AccessDeniedException")
    assert answer == {"get": "allowed", **refused}
    assert look(connect(stack=deployed)).last == 1


def zipped(source: str) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", source)
    return buffer.getvalue()


def test_table_is_protected_from_deletion(aws: Aws, deployed: str) -> None:
    """Not even the root user deletes the table while its protection is on."""
    with pytest.raises(ClientError, match=r"[Dd]eletion"):
        aws.client("dynamodb").delete_table(TableName=deployed)
