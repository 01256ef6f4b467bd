"""``--table`` needs only a table: no stack, no CloudFormation, and only permissions on the table."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import REGION, put, table_resource
from tests.support.iam_users import make_user
from ticketctl.aws.account import Aws

TABLE_ACTIONS = ["GetItem", "UpdateItem", "Scan", "DeleteItem"]
ByTable = Callable[..., Result]


def create(aws: Aws, name: str, **properties: Any) -> None:
    """Create an empty table with the article's key, as another tool would."""
    wanted = {**table_resource(name)["Properties"], **properties}
    aws.client("dynamodb").create_table(**wanted)


def run_as(ticketctl: Ticketctl, aws: Aws, table: str, *actions: str) -> ByTable:
    """Return a function that runs commands as a user who may only perform these actions on the table."""
    resource = f"arn:aws:dynamodb:{REGION}:*:table/{table}"
    allowed = {"Effect": "Allow", "Action": [f"dynamodb:{action}" for action in actions], "Resource": resource}
    environ = make_user(aws, f"{'-'.join(actions)}-{table}", allowed)
    return lambda *arguments, **variables: ticketctl(*arguments, env={**environ, **variables})


def test_the_articles_table(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """The article's table works immediately; after ``deploy`` takes it over, its counters continue."""
    table, article = new_stack, f"article-{new_stack}"
    by_table = run_as(ticketctl, aws, table, *TABLE_ACTIONS)
    properties = {
        "TableName": table,
        "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        "AttributeDefinitions": [{"AttributeName": "partition", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "partition", "KeyType": "HASH"}],
    }
    resource = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "Properties": properties}
    template = {"Resources": {"Table": resource}}
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName=article, TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName=article, WaiterConfig={"Delay": 1})
    put(aws, table, REGION, hand_crafted_int=41)
    assert by_table("next", "--table", table) == Result(0, "42\n", "")
    assert by_table("fetch", "3", "--table", table).stdout == "43\n44\n45\n"
    assert by_table("counter", "create", "orders", "--start", "10", "--table", table, "--quiet").returncode == 0
    assert by_table("next", "-p", "orders", "--table", table).stdout == "10\n"

    stacks.delete_stack(StackName=article)
    stacks.get_waiter("stack_delete_complete").wait(StackName=article, WaiterConfig={"Delay": 1})
    deployed = ticketctl("deploy", "--local", "--stack", table, "--yes")
    assert deployed.returncode == 0, deployed.stderr
    described = aws.client("dynamodb").describe_table(TableName=table)["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert ticketctl("next", "--local", "--stack", table).stdout == "46\n"
    assert ticketctl("next", "--local", "--stack", table, "-p", "orders").stdout == "11\n"
    assert by_table("next", "--table", table).stdout == "47\n"


def test_an_empty_table_starts_at_one(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """UpdateItem is sufficient to mint. The default counter starts only if ``--table`` is typed."""
    create(aws, new_stack)
    by_table = run_as(ticketctl, aws, new_stack, "UpdateItem")
    unknown = by_table("next", TICKETCTL_TABLE=new_stack)
    assert (unknown.returncode, unknown.stdout) == (5, "")
    assert by_table("next", "--table", new_stack) == Result(0, "1\n", "")
    assert by_table("next", TICKETCTL_TABLE=new_stack) == Result(0, "2\n", "")
    typo = by_table("next", "--table", new_stack, "-p", "typo")
    assert (typo.returncode, typo.stdout) == (5, "")
    assert typo.stderr.endswith(f"hint: ticketctl counter create typo --table {new_stack}\n")


def test_commands_on_a_table(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """With permissions only on the table, counters are listed, created, advanced and frozen."""
    create(aws, new_stack)
    by_table = run_as(ticketctl, aws, new_stack, *TABLE_ACTIONS)

    def on_table(*arguments: str) -> Result:
        run = by_table(*arguments, "--table", new_stack)
        assert run.returncode == 0, run.stderr
        return run

    assert on_table("status").stderr == "no counter yet; the first `ticketctl next` creates one\n"
    created = on_table("counter", "create", "orders", "--increment", "2", "--offset", "2")
    assert created.stderr == f"orders created, in {new_stack} in {REGION}\n"
    assert on_table("next", "-p", "orders").stdout == "2\n"
    on_table("counter", "advance", "orders", "--to", "10")
    on_table("counter", "freeze", "orders")
    on_table("counter", "thaw", "orders")
    assert on_table("next", "-p", "orders", "--json").stdout.startswith('{"partition": "orders", "first": 12, ')
    on_table("next", "--idempotency-key", "order 17")
    assert on_table("next", "--idempotency-key", "order 17").stdout == "1\n"
    for command in (["status"], ["counter", "list"]):
        shown = [row.split("\t")[:2] for row in on_table(*command).stdout.splitlines()]
        assert shown == [["orders", "12"], [REGION, "1"]]
    assert json.loads(on_table("status", "-p", "orders", "--json").stdout)["last"] == 12


def test_least_permissions(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """Each command works with the permissions on the table that docs/coming-from-the-article.md lists."""
    create(aws, new_stack)
    for actions, commands in {
        ("UpdateItem",): [["next"]],
        ("UpdateItem", "GetItem"): [
            ["next", "--idempotency-key", "a"],
            ["counter", "create", "orders"],
            ["counter", "advance", "orders", "--to", "5"],
        ],
        ("GetItem",): [["status", "--partition", "orders"]],
        ("Scan",): [["status"]],
        ("GetItem", "UpdateItem", "DeleteItem"): [["verify", "--workers", "2", "--mints", "2"]],
    }.items():
        by_table = run_as(ticketctl, aws, new_stack, *actions)
        for command in commands:
            run = by_table(*command, "--table", new_stack)
            assert run.returncode == 0, (command, run.stderr)


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize("other", ["sorted", "id"])
def test_a_table_of_something_else(
    ticketctl: Ticketctl, aws: Aws, new_stack: str, other: str, *, is_empty: bool
) -> None:
    """A table with another key is not listed, even if each item has a partition and a number; nor is it minted from."""
    key = ["partition", "at"] if other == "sorted" else ["id"]
    create(
        aws,
        new_stack,
        KeySchema=[{"AttributeName": key[0], "KeyType": "HASH"}]
        + [{"AttributeName": name, "KeyType": "RANGE"} for name in key[1:]],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in key],
    )
    item = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": "7"}, "at": {"S": "noon"}, "id": {"S": "x"}}
    if not is_empty:
        aws.client("dynamodb").put_item(TableName=new_stack, Item=item)
    told = f"error: the table {new_stack} in {REGION} is not a ticket server's: its key is "
    by_table = run_as(ticketctl, aws, new_stack, *TABLE_ACTIONS)
    for command in (["status"], ["counter", "list"], ["status", "-p", "orders"], ["counter", "create", "a"], ["next"]):
        run = by_table(*command, "--table", new_stack)
        assert (run.returncode, run.stdout) == (6, ""), command
        assert run.stderr.startswith(told), run.stderr
        assert "partition (S) alone" in run.stderr


def test_a_missing_table(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """A mistyped table name is an error that names it; nothing is deployed."""
    by_table = run_as(ticketctl, aws, new_stack, *TABLE_ACTIONS)
    for command in (["next"], ["status"], ["counter", "create", "orders"]):
        run = by_table(*command, "--table", new_stack)
        assert (run.returncode, run.stdout) == (5, "")
        assert run.stderr.splitlines() == [
            f"error: the table {new_stack} in {REGION} does not exist",
            "hint: check the names of the table and of the region",
        ]


def test_a_part_of_a_sequence_is_not_changed(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """A table that shares its sequence with other regions mints, but its counters can only be changed with --stack."""
    create(aws, new_stack)
    regions = {"SS": [REGION, "eu-west-1"]}
    numbers = {"hand_crafted_int": {"N": "3"}, "increment": {"N": "2"}}
    aws.client("dynamodb").put_item(
        TableName=new_stack, Item={"partition": {"S": REGION}, "regions": regions, **numbers}
    )
    by_table = run_as(ticketctl, aws, new_stack, *TABLE_ACTIONS)
    assert by_table("next", "--table", new_stack).stdout == "5\n"
    run = by_table("counter", "create", "orders", "--table", new_stack)
    assert (run.returncode, run.stderr) == (
        6, f"error: the table {new_stack} shares its sequence with eu-west-1\nhint: use --stack instead of --table\n",
    )  # fmt: skip


@pytest.mark.parametrize("via", ["url", "both"])
def test_verify_by_table_only(ticketctl: Ticketctl, via: str) -> None:
    """``verify`` cannot check the URL if ``--table`` is given."""
    run = ticketctl("verify", "--via", via, "--table", "Old", "--region", REGION)
    assert (run.returncode, run.stderr) == (
        2, f"error: --table and --via {via} cannot be combined\nhint: remove one of them\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", [["next"], ["fetch", "3"]], ids=str)
def test_spread_needs_regions(ticketctl: Ticketctl, aws: Aws, new_stack: str, command: list[str]) -> None:
    """A table is in one region: ``--spread`` cannot apply, and nothing is minted."""
    create(aws, new_stack)
    by_table = run_as(ticketctl, aws, new_stack, *TABLE_ACTIONS)
    told = "error: --spread needs several regions, but a table is in one (table from {})\nhint: remove --spread\n"
    assert by_table(*command, "--spread", "--table", new_stack) == Result(2, "", told.format("--table"))
    by_variable = by_table(*command, "--spread", TICKETCTL_TABLE=new_stack)
    assert by_variable == Result(2, "", told.format("TICKETCTL_TABLE"))
    assert by_table("status", "--table", new_stack).stdout == ""
