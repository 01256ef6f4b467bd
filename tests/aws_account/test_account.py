"""What only AWS itself can show: ``uv run pytest tests/aws_account --account``, with your own credentials.

Without ``--account`` the same tests run on the embedded AWS, except those that it cannot support.
"""

import io
import json
import secrets
import time
import zipfile
from collections.abc import Iterator

import httpx
import pytest

from tests.aws_account.conftest import Account, Deployed
from tests.support.command_line import Result
from ticketctl.embedded.engine import reachable_url

FAILING = "def handler(event, context): raise RuntimeError('on purpose')"
SLOW = "import time\ndef handler(event, context): time.sleep(30)"
REAL = pytest.mark.real_account


def number(result: Result) -> int:
    """Return the number that a command printed."""
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.fixture
def copy(deployed: Deployed, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a function with other code and the deployed function's role."""
    account, name = deployed.account, f"{deployed.stack}-{secrets.token_hex(4)}"
    lambda_ = account.client("lambda")
    role = lambda_.get_function_configuration(FunctionName=deployed.function())["Role"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("index.py", request.param)
    lambda_.create_function(
        FunctionName=name,
        Role=role,
        Runtime="python3.14",
        Handler="index.handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=3,
    )
    try:
        lambda_.get_waiter("function_active_v2").wait(FunctionName=name)
        address = lambda_.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")["FunctionUrl"]
        yield reachable_url(address, account.environ.get("AWS_ENDPOINT_URL"))
    finally:
        lambda_.delete_function(FunctionName=name)


@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_mints(deployed: Deployed, via: str) -> None:
    """Both sources mint, one after the other, and ``fetch`` mints whole blocks."""
    first = number(deployed.run("next", "--via", via))
    assert number(deployed.run("next", "--via", via)) == first + 1
    blocks = deployed.run("fetch", "20000", "--ranges", "--via", via).stdout
    assert blocks == f"{first + 2}\t{first + 10001}\t1\n{first + 10002}\t{first + 20001}\t1\n"


def test_each_policy_is_enough(deployed: Deployed) -> None:
    """With ``mint-url`` a user can mint only through the URL, with ``mint-table`` only from the table."""
    account, stack = deployed.account, deployed.stack
    by_url = account.user(f"{stack}-url", account.policy("mint-url", stack))
    by_table = account.user(f"{stack}-table", account.policy("mint-table", stack))
    looks = account.user(f"{stack}-look", account.policy("look", stack))
    assert number(deployed.run("next", user=by_url)) > 0
    assert number(deployed.run("next", "--via", "dynamodb", user=by_table)) > 0
    assert deployed.run("status", user=looks).returncode == 0
    for refused in (
        deployed.run("next", "--via", "dynamodb", user=by_url),
        deployed.run("next", user=looks),
        deployed.run("status", user=by_url),
    ):
        assert (refused.returncode, refused.stdout) == (4, "")


def test_nobody_mints_without_a_signature_or_a_permission(deployed: Deployed) -> None:
    """An unsigned request and a user without permissions are rejected; nothing is minted."""
    before = number(deployed.run("next"))
    address = deployed.run("url").stdout.strip()
    if deployed.account.is_real:
        assert httpx.post(address, timeout=30).status_code == 403
    nobody = deployed.account.user(f"{deployed.stack}-nobody", None)
    refused = deployed.run("next", "--url", address, user=nobody)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert number(deployed.run("next")) == before + 1


@REAL
@pytest.mark.parametrize("executions", [0, 1])
def test_reserved_concurrency(deployed: Deployed, executions: int) -> None:
    """With no reserved concurrency every mint is throttled and reported as not minted; with one, all succeed."""
    lambda_, function = deployed.account.client("lambda"), deployed.function()
    before = number(deployed.run("next"))
    lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=executions)
    try:
        time.sleep(5)
        found = deployed.run("next", "--timeout", "5")
        assert found.returncode == (0 if executions else 7), found.stderr
    finally:
        lambda_.delete_function_concurrency(FunctionName=function)
    assert number(deployed.run("next", "--timeout", "30")) == before + 1 + executions


@pytest.mark.parametrize("copy", [FAILING, SLOW], ids=["fails", "slow"], indirect=True)
def test_a_function_that_does_not_answer_is_unknown(deployed: Deployed, copy: str) -> None:
    """If a function fails (502) or times out (504), it may have minted: exit 8."""
    found = deployed.run("next", "--url", copy, "--timeout", "10")
    assert (found.returncode, found.stdout) == (8, ""), found.stderr


@REAL
@pytest.mark.parametrize("seconds", [5, 15, 30, 60])
def test_idle_connection(deployed: Deployed, seconds: int) -> None:
    """An idle connection never causes an unknown outcome."""
    from ticketctl import TicketClient

    with pytest.MonkeyPatch.context() as patch:
        for name, value in deployed.account.environ.items():
            patch.setenv(name, value)
        with TicketClient.connect(stack=deployed.stack) as tickets:
            first = tickets.next()
            time.sleep(seconds)
            assert tickets.next() == first + 1


def test_first_mint_right_after_deploy(account: Account) -> None:
    """A signed mint right after ``deploy`` succeeds every time, although the function's policy is still spreading."""
    for attempt in range(20 if account.is_real else 2):
        new = Deployed(account, f"ticketctl-test-{attempt}-{time.time_ns()}", account.environ)
        assert new.run("deploy", "--yes").returncode == 0
        try:
            assert number(new.run("next")) == 1
        finally:
            assert new.run("destroy", "--yes", "--delete-tickets", new.stack).returncode == 0


def test_destroy_and_deploy_again(deployed: Deployed) -> None:
    """After its stack was deleted and deployed again, a counter continues."""
    before = number(deployed.run("next"))
    assert deployed.run("destroy", "--yes", user=deployed.deployer).returncode == 0
    again = deployed.run("deploy", "--yes", user=deployed.deployer)
    assert again.returncode == 0, again.stderr
    assert number(deployed.run("next", "--timeout", "30")) == before + 1


def test_table_of_the_article(account: Account) -> None:
    """A provisioned table with the article's item is imported, its counter continues, and its settings are repaired."""
    new = Deployed(account, f"ticketctl-test-{time.time_ns()}", account.environ)
    dynamodb = account.client("dynamodb")
    dynamodb.create_table(
        TableName=new.stack,
        AttributeDefinitions=[{"AttributeName": "partition", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "partition", "KeyType": "HASH"}],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    )
    dynamodb.get_waiter("table_exists").wait(TableName=new.stack)
    item = {"partition": {"S": account.region}, "hand_crafted_int": {"N": "41"}}
    dynamodb.put_item(TableName=new.stack, Item=item)
    try:
        deploy = new.run("deploy", "--yes")
        assert deploy.returncode == 0, deploy.stderr
        assert number(new.run("next", "--timeout", "30")) == 42
        table = dynamodb.describe_table(TableName=new.stack)["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert table["DeletionProtectionEnabled"]
        ttl = dynamodb.describe_time_to_live(TableName=new.stack)["TimeToLiveDescription"]
        assert ttl["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
    finally:
        assert new.run("destroy", "--yes", "--delete-tickets", new.stack).returncode == 0


@REAL
def test_leading_keys(deployed: Deployed) -> None:
    """A policy can allow a single counter of a table."""
    account = deployed.account
    for name in ("orders", "invoices"):
        assert deployed.run("counter", "create", name).returncode == 0
    policy = json.loads(account.policy("mint-table", deployed.stack))
    for statement in policy["Statement"]:
        if any(str(action).startswith("dynamodb:") for action in statement["Action"]):
            statement["Condition"] = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["orders"]}}
    user = account.user(f"{deployed.stack}-orders", json.dumps(policy))
    options = ("next", "--via", "dynamodb", "--partition")
    assert number(deployed.run(*options, "orders", user=user)) == 1
    assert deployed.run(*options, "invoices", user=user).returncode == 4


def test_alarms(deployed: Deployed) -> None:
    """``--alarm-email`` creates alarms, ``deploy`` without options keeps them, and ``--no-alarms`` removes them."""
    cloudwatch = deployed.account.client("cloudwatch")

    def alarms() -> int:
        return sum(
            deployed.stack in alarm["AlarmName"]
            for page in cloudwatch.get_paginator("describe_alarms").paginate()
            for alarm in page["MetricAlarms"]
        )

    for options, expected in (["--alarm-email", "nobody@example.org"], 5), ([], 5), (["--no-alarms"], 0):
        run = deployed.run("deploy", "--yes", *options, user=deployed.deployer)
        assert run.returncode == 0, run.stderr
        assert alarms() == expected


def test_nobody_got_a_number_twice(deployed: Deployed) -> None:
    """After all of these tests, ``verify`` passes."""
    proof = deployed.run("verify", "--workers", "2", "--mints", "10")
    assert proof.returncode == 0, proof.stdout + proof.stderr
