"""Deploying onto a table that exists: the article's, an unrelated one, a restored one; in the embedded AWS."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION
from tests.support.regional_stacks import own_home
from ticketctl import TicketClient
from ticketctl.aws.account import Aws
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.client.sync import open_regions, resolve_client_settings
from ticketctl.errors import RefusedError

RUNBOOK = Path(__file__).parents[2] / "docs" / "restore.md"

ITEMS: Mapping[str, dict[str, Any]] = {
    "another key": {"id": {"S": "a"}, "hand_crafted_int": {"N": "1"}},
    "a sort key": {"partition": {"S": REGION}, "at": {"S": "x"}, "hand_crafted_int": {"N": "4"}},
    "a number as key": {"partition": {"N": "7"}, "hand_crafted_int": {"N": "1"}},
    "other items": {"partition": {"S": "o-1"}, "total": {"N": "12"}},
}
KEYS = {
    "another key": ["id"],
    "a sort key": ["partition", "at"],
    "a number as key": ["partition"],
    "other items": ["partition"],
}


def create(aws: Aws, name: str, item: Mapping[str, Any], key: list[str]) -> None:
    """Create a table with one item, as another tool would."""
    dynamodb = aws.client("dynamodb")
    types = {attribute: next(iter(item[attribute])) for attribute in key}
    roles = dict(zip(key, ["HASH", "RANGE"], strict=False))
    dynamodb.create_table(
        TableName=name,
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": types[each]} for each in key],
        KeySchema=[{"AttributeName": each, "KeyType": role} for each, role in roles.items()],
    )
    dynamodb.put_item(TableName=name, Item=item)


def settings(aws: Aws, name: str) -> tuple[str, bool, str, str]:
    """Return a table's billing mode, deletion protection, time to live and point-in-time recovery."""
    dynamodb = aws.client("dynamodb")
    table = dynamodb.describe_table(TableName=name)["Table"]
    expiry = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    return (
        table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        table.get("DeletionProtectionEnabled", False),
        expiry.get("AttributeName", "") if expiry["TimeToLiveStatus"] == "ENABLED" else "off",
        backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"],
    )


def test_the_articles_table_gets_the_settings_of_the_template(aws: Aws, ticketctl: Ticketctl, new_stack: str) -> None:
    """A table with provisioned capacity and no protection is imported, gets the template's settings, and continues."""
    create(aws, new_stack, {"partition": {"S": REGION}, "hand_crafted_int": {"N": "99"}}, ["partition"])
    assert settings(aws, new_stack) == ("PROVISIONED", False, "off", "DISABLED")
    deployed = ticketctl("deploy", "--local", "--stack", new_stack)
    assert deployed.returncode == 0
    assert settings(aws, new_stack) == ("PAY_PER_REQUEST", True, "expires_at", "ENABLED")
    assert deployed.stderr.count("as in the template") == 4
    assert "warning" not in deployed.stderr
    assert ticketctl("next", "--local", "--stack", new_stack).stdout == "100\n"


@pytest.mark.parametrize("kind", ITEMS)
def test_a_foreign_table(aws: Aws, ticketctl: Ticketctl, new_stack: str, kind: str) -> None:
    """An unrelated table is not imported, written or deleted; the error says why and how to proceed."""
    create(aws, new_stack, ITEMS[kind], KEYS[kind])
    for command in ("deploy", "next", f"destroy --yes --delete-tickets {new_stack}"):
        refused = ticketctl(*command.split(), "--local", "--stack", new_stack)
        assert (refused.returncode, refused.stdout) == (6, ""), command
        assert f"the table {new_stack} in {REGION} is not a ticket server's" in refused.stderr
        assert refused.stderr.splitlines()[-1].startswith("hint: use another name: --stack NAME")
    assert aws.client("dynamodb").scan(TableName=new_stack)["Items"] == [ITEMS[kind]]


def test_a_stack_whose_table_was_replaced(
    aws: Aws, ticketctl: Ticketctl, deployed: str, stacks: CloudFormation
) -> None:
    """If a stack's table was replaced by another table, commands fail with a reason, not with a bug."""
    options, dynamodb = ("--local", "--stack", deployed), aws.client("dynamodb")
    dynamodb.update_table(TableName=deployed, DeletionProtectionEnabled=False)
    commands = ["status", "next --via dynamodb", "regions"]
    for kind, item in ITEMS.items():
        dynamodb.delete_table(TableName=deployed)
        create(aws, deployed, item, KEYS[kind])
        for command in commands:
            run = ticketctl(*command.split(), *options)
            assert run.returncode in (0, 6) or kind == "other items", (kind, command, run)
            assert "bug" not in run.stderr, (kind, command, run)
    assert stacks.describe(deployed) is not None


def test_a_global_table(aws: Aws, ticketctl: Ticketctl, deployed: str, environ: dict[str, str], tmp_path: Path) -> None:
    """If a stack's table became a global table, no command changes it, and a machine without a cache does not mint."""
    dynamodb, options = aws.client("dynamodb"), ("--local", "--stack", deployed)
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    dynamodb.update_table(TableName=deployed, StreamSpecification=stream)
    dynamodb.update_table(TableName=deployed, ReplicaUpdates=[{"Create": {"RegionName": "eu-west-1"}}])
    knows_nothing = own_home(environ, tmp_path / "home")
    for command in ("deploy", "counter create orders", f"counter freeze {REGION}", "next --via dynamodb"):
        refused = ticketctl(*command.split(), *options, env=knows_nothing)
        assert (refused.returncode, refused.stdout) == (6, ""), command
        assert f"the table {deployed} in {REGION} is a global table with copies in eu-west-1" in refused.stderr
        assert "hint: delete its replicas" in refused.stderr
    _, settings = resolve_client_settings({"local": True, "stack": deployed}, environ)
    with (
        TicketClient(lambda: open_regions(settings, environ)) as client,
        pytest.raises(RefusedError, match="is a global table with copies in eu-west-1"),
    ):
        client.create_counter("orders")
    assert dynamodb.scan(TableName=deployed)["Items"] == []


def test_the_runbook_of_a_restored_table(aws: Aws, ticketctl: Ticketctl, new_stack: str) -> None:
    """The steps of docs/restore.md (copy, deploy, advance, thaw) work; the counter mints only after the last one."""
    options, restored = ("--local", "--stack", new_stack), f"{new_stack}-restored"
    create(aws, restored, {"partition": {"S": REGION}, "hand_crafted_int": {"N": "40"}}, ["partition"])
    assert ticketctl("fetch", "60", *options).returncode == 0
    assert ticketctl("destroy", "--yes", "--delete-tickets", new_stack, *options).returncode == 0
    documented: dict[str, Any] = {}
    (code,) = re.findall("```python\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    exec(textwrap.dedent(f"   {code.lstrip()}"), documented)  # noqa: S102 - the runbook's own code
    documented["copy"](aws.client("dynamodb"), restored, new_stack)
    assert ticketctl("deploy", *options).returncode == 0
    frozen = ticketctl("next", *options)
    assert (frozen.returncode, frozen.stdout) == (6, "")
    assert ticketctl("counter", "advance", REGION, "--to", "60", *options).returncode == 0
    assert ticketctl("counter", "thaw", REGION, *options).returncode == 0
    assert ticketctl("next", *options).stdout == "61\n"
    assert settings(aws, new_stack) == ("PAY_PER_REQUEST", True, "expires_at", "ENABLED")
