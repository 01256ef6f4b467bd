"""Permissions, checked by the embedded AWS, which verifies signatures and IAM policies."""

import json
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION, Connect, physical_id
from tests.support.iam_users import make_user, policy
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


def test_unsigned_call_is_refused(connect: Connect, deployed: str) -> None:
    """Without a signature the URL answers 403 and nothing is minted."""
    connection = connect(stack=deployed)
    assert httpx.post(connection.url(), trust_env=False, timeout=60).status_code == 403
    assert list(connection.counters().all(pytest.fail)) == []


@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_caller_without_permission_is_refused(
    aws: Aws, connect: Connect, ticketctl: Ticketctl, deployed: str, via: str
) -> None:
    """A user who may only look up the stack gets exit 4 and the name of the missing action; nothing is minted."""
    look_up = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
    user = make_user(aws, f"nobody-{deployed}-{via}", look_up)
    result = ticketctl("next", "--stack", deployed, "--via", via, env=user)
    assert (result.returncode, result.stdout) == (4, "")
    assert ("lambda:InvokeFunction" if via == "url" else "dynamodb:UpdateItem") in result.stderr
    assert list(connect(stack=deployed).counters().all(pytest.fail)) == []


def test_policy_to_mint_through_the_url(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """With ``mint-url`` a user can look up the URL and mint through it, and do nothing else."""
    user = make_user(aws, f"minter-{deployed}", *policy("mint-url", deployed))
    assert ticketctl("next", "--stack", deployed, env=user).stdout == "1\n"
    assert (
        ticketctl("fetch", "20000", "--ranges", "--stack", deployed, env=user).stdout
        == "2\t10001\t1\n10002\t20001\t1\n"
    )
    for command in (["url"], ["status", "--partition", REGION]):
        assert ticketctl(*command, "--stack", deployed, env=user).returncode == 0
    for command in (["status"], ["next", "--via", "dynamodb"]):
        refused = ticketctl(*command, "--stack", deployed, env=user)
        assert (refused.returncode, "dynamodb:" in refused.stderr) == (4, True)


def test_policy_to_mint_from_the_table(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """With ``mint-table`` a user can mint from the table and read one counter, and do nothing else."""
    user = make_user(aws, f"table-minter-{deployed}", *policy("mint-table", deployed))
    options = ("--stack", deployed, "--via", "dynamodb")
    assert ticketctl("next", *options, env=user).stdout == "1\n"
    assert ticketctl("fetch", "20000", "--ranges", *options, env=user).stdout == "2\t10001\t1\n10002\t20001\t1\n"
    assert ticketctl("next", "--idempotency-key", "a", *options, env=user).stdout == "20002\n"
    assert ticketctl("status", "--partition", REGION, *options, env=user).returncode == 0
    refused = ticketctl("status", "--stack", deployed, env=user)
    assert (refused.returncode, "dynamodb:Scan" in refused.stderr) == (4, True)


def test_updating_items_suffices_to_mint_from_the_table(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """Without a typed key, ``dynamodb:UpdateItem`` is the only permission that a mint from the table needs."""
    update = {"Effect": "Allow", "Action": "dynamodb:UpdateItem", "Resource": f"arn:aws:dynamodb:*:*:table/{deployed}"}
    user = make_user(aws, f"updater-{deployed}", policy("mint-table", deployed)[0], update)
    options = ("--stack", deployed, "--via", "dynamodb")
    assert ticketctl("next", *options, env=user).stdout == "1\n"
    typed = ticketctl("next", "--idempotency-key", "a", *options, env=user)
    assert (typed.returncode, typed.stdout, "dynamodb:GetItem" in typed.stderr) == (4, "", True)
    assert ticketctl("next", *options, env=user).stdout == "2\n"


def test_policy_to_look(aws: Aws, connect: Connect, ticketctl: Ticketctl, deployed: str) -> None:
    """With ``look`` a user can read the stack and its counters, and cannot mint or change anything."""
    take(connect(stack=deployed), 7)
    user = make_user(aws, f"reader-{deployed}", *policy("look", deployed))
    one = ["status", "--partition", REGION, "--via", "dynamodb"]
    for command in (["status"], one, ["regions"], ["counter", "list"], ["url"], ["logs"]):
        run = ticketctl(*command, "--stack", deployed, env=user)
        assert run.returncode == 0, (command, run.stderr)
    for command in (["next"], ["next", "--via", "dynamodb"], ["counter", "advance", REGION, "--to", "100"], ["diff"]):
        assert ticketctl(*command, "--stack", deployed, env=user).returncode == 4
    assert look(connect(stack=deployed)).last == 7


def test_policy_to_deploy(aws: Aws, ticketctl: Ticketctl, new_stack: str, tmp_path: Path) -> None:
    """With ``deploy`` a user can deploy, change counters and destroy, but only this stack."""
    maxima = tmp_path / "maxima"
    maxima.write_text("200\n", encoding="utf-8")
    user = make_user(aws, f"deployer-{new_stack}", *policy("deploy", new_stack))
    options = ("--stack", new_stack)
    other = ticketctl("deploy", "--yes", "--stack", f"other-{new_stack}", env=user)
    assert (other.returncode, "not authorized" in other.stderr) == (4, True)
    for command in (
        ["deploy"],
        ["diff"],
        ["counter", "create", "orders"],
        ["counter", "advance", "orders", "--to", "100"],
        ["counter", "adopt", "orders", "--from-max", str(maxima)],
        ["counter", "freeze", "orders"],
        ["counter", "thaw", "orders"],
        ["counter", "list"],
        ["status"],
        ["destroy", "--yes", "--delete-tickets", new_stack],
    ):
        run = ticketctl(*command, *options, env=user)
        assert run.returncode == 0, (command, run.stderr)


@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_policies_to_verify(aws: Aws, ticketctl: Ticketctl, deployed: str, via: str) -> None:
    """``verify`` needs ``deploy``, for its temporary counter, and the policy of the way that it mints."""
    policies = {
        "deploy": policy("deploy", deployed),
        "mint": policy({"url": "mint-url"}.get(via, "mint-table"), deployed),
    }
    outcomes, few = [], ("--workers", "2", "--mints", "5")
    for number, names in enumerate((["mint"], ["deploy", "mint"])):
        user = make_user(aws, f"v{number}-{deployed}-{via}", *(each for name in names for each in policies[name]))
        outcomes.append(ticketctl("verify", *few, "--stack", deployed, "--via", via, env=user).returncode)
    assert outcomes == [4, 0]


def test_wrong_secret_is_refused(aws: Aws, ticketctl: Ticketctl, deployed: str) -> None:
    """If the signature was made with another secret, the command exits 4."""
    user = {**make_user(aws, f"forger-{deployed}"), "AWS_SECRET_ACCESS_KEY": "another"}
    result = ticketctl("next", "--stack", deployed, env=user)
    assert (result.returncode, result.stdout) == (4, "")


def test_function_can_only_read_and_mint(aws: Aws, connect: Connect, deployed: str) -> None:
    """The function's own role may not scan, delete or put items."""
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
    """While the table is protected, even the root user cannot delete it."""
    with pytest.raises(ClientError, match=r"[Dd]eletion"):
        aws.client("dynamodb").delete_table(TableName=deployed)
