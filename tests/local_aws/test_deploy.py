"""Deploying, changing and destroying a stack through CloudFormation."""

import json
import logging
import re
import subprocess
import sys
from contextlib import nullcontext

import httpx
import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION, Connect, table_resource
from tests.support.minting import take
from ticketctl.aws import template
from ticketctl.aws.account import Aws
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.deployments.deploy import deploy
from ticketctl.deployments.dialog import Dialog
from ticketctl.deployments.outcomes import succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import StackFailedError


def test_deploy_from_nothing_then_no_changes(ticketctl: Ticketctl, new_stack: str) -> None:
    """The first deployment prints only the URL on stdout and its progress on stderr; the second finds no changes."""
    first = ticketctl("deploy", "--local", "--stack", new_stack)
    assert first.returncode == 0
    assert first.stdout == ticketctl("url", "--local", "--stack", new_stack).stdout
    story = first.stderr.splitlines()
    assert story[0] == f"deploying {new_stack} in the embedded AWS, {REGION}, account 000000000000"
    assert any(line.startswith("  CREATE_COMPLETE AWS::DynamoDB::Table") for line in story)
    assert story[-2:] == [
        f"the ticket server is at {first.stdout.strip()}",
        f"mint a ticket: ticketctl next --stack {new_stack} --local",
    ]
    second = ticketctl("deploy", "--local", "--stack", new_stack)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert second.stderr.splitlines() == [story[0], "no changes", *story[-2:]]


def calls(caplog: pytest.LogCaptureFixture, operation: str) -> int:
    """Return how many requests botocore sent for one operation."""
    return sum(f"OperationModel(name={operation})" in record.getMessage() for record in caplog.records)


def test_requests_of_a_deployment_without_changes(
    ticketctl: Ticketctl, connect: Connect, environ: dict[str, str], new_stack: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If nothing changes, each stack is described twice and each table scanned once."""
    names = ("us-east-1", "eu-west-1")
    options = ("--local", "--stack", new_stack, "--region", names[0], "--region", names[1])
    urls = ticketctl("deploy", *options).stdout.split()
    said: list[str] = []
    dialog = Dialog(
        said.append, pytest.fail, pytest.fail, lambda names: nullcontext(lambda name, line: said.append(line))
    )
    regions = Regions(connect(stack=new_stack, region=names), environ=environ)
    with caplog.at_level(logging.DEBUG, "botocore.endpoint"):
        deployed = succeeded(deploy(regions, {}, dialog, opens_to_anyone=False))
    assert said == ["no changes", "no changes"]
    assert [(region.url, region.changed) for region in deployed.values()] == [(url, False) for url in urls]
    assert (calls(caplog, "DescribeStacks"), calls(caplog, "Scan")) == (4, 2)
    assert calls(caplog, "ExecuteChangeSet") == 0


def test_destroy_keeps_the_counters(ticketctl: Ticketctl, new_stack: str) -> None:
    """Destroy keeps the table; the next deployment imports it and continues after the last ticket."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("fetch", "7", *options).returncode == 0
    destroyed = ticketctl("destroy", "--yes", *options)
    assert (destroyed.returncode, destroyed.stdout) == (0, "")
    assert f"{REGION}\t7\t1\t" in destroyed.stderr
    redeployed = ticketctl("deploy", *options)
    assert "  import AWS::DynamoDB::Table" in redeployed.stderr
    assert ticketctl("next", *options).stdout == "8\n"


def test_next_after_destroy_continues(ticketctl: Ticketctl, new_stack: str) -> None:
    """With --local, next deploys the stack again and continues after the last ticket."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("next", *options).stdout == "1\n"
    assert ticketctl("destroy", "--yes", *options).returncode == 0
    assert ticketctl("next", "--via", "dynamodb", *options).stdout == "2\n"


def test_destroy_without_an_answer_changes_nothing(ticketctl: Ticketctl, new_stack: str) -> None:
    """If there is no terminal for the confirmation, destroy exits 2 and names the flag."""
    options = ("--local", "--stack", new_stack)
    ticketctl("next", *options)
    refused = ticketctl("destroy", *options)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == "hint: pass --yes"
    assert ticketctl("next", *options).stdout == "2\n"


def test_destroy_of_nothing(ticketctl: Ticketctl, new_stack: str) -> None:
    """If there is nothing to destroy, there is nothing to confirm."""
    result = ticketctl("destroy", "--local", "--stack", new_stack)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"nothing to destroy in account 000000000000/{REGION}\n"


def test_delete_tickets_needs_the_stacks_name(ticketctl: Ticketctl, new_stack: str) -> None:
    """The table is deleted only if its name is repeated; then the counters start again from 1."""
    options = ("--local", "--stack", new_stack)
    ticketctl("next", *options)
    assert ticketctl("destroy", "--yes", "--delete-tickets", "Tickets", *options).returncode == 2
    gone = ticketctl("destroy", "--yes", "--delete-tickets", new_stack, "--json", *options)
    assert json.loads(gone.stdout) == {
        "destroyed": True,
        "table_deleted": True,
        "stack": new_stack,
        "region": REGION,
    }
    assert ticketctl("next", *options).stdout == "1\n"


def test_changing_a_parameter(ticketctl: Ticketctl, new_stack: str) -> None:
    """``deploy --max-count`` changes the parameter; a deployment that changes something else keeps it."""
    options = ("--local", "--stack", new_stack)
    ticketctl("deploy", *options)
    shown = ticketctl("diff", "--max-count", "5", "--exit-code", *options)
    assert shown.returncode == 9
    assert "modify AWS::Lambda::Function" in shown.stdout
    assert ticketctl("deploy", "--max-count", "5", *options).returncode == 0
    assert ticketctl("diff", "--exit-code", *options).returncode == 0
    refused = ticketctl("fetch", "6", "--block", "6", *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "1 to 5" in refused.stderr
    assert ticketctl("deploy", "--log-retention", "7", *options).returncode == 0
    assert ticketctl("fetch", "12", *options).stdout.split() == [str(n) for n in range(1, 13)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-count", "0"), ("--max-count", "10001"), ("--log-retention", "6"), ("--increment", "0")],
)
def test_parameter_out_of_range(ticketctl: Ticketctl, new_stack: str, option: str, value: str) -> None:
    """A value that the template does not allow is wrong usage, and nothing is deployed."""
    result = ticketctl("deploy", "--local", "--stack", new_stack, option, value)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"error: {option} {value} is not allowed" in result.stderr


def test_lane_of_new_counters(ticketctl: Ticketctl, new_stack: str) -> None:
    """With offset 2 and increment 3, the counters mint 2, 5, 8 through both sources."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "--offset", "2", "--increment", "3", *options).returncode == 0
    assert ticketctl("next", "--via", "dynamodb", *options).stdout == "2\n"
    assert ticketctl("fetch", "2", "--ranges", *options).stdout == "5\t8\t3\n"
    assert ticketctl("counter", "create", "orders", *options).returncode == 0
    assert ticketctl("next", "-p", "orders", *options).stdout == "2\n"


def test_public_url(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """``--public`` needs a confirmation; then unsigned requests mint, and so does the command without credentials."""
    options = ("--local", "--stack", new_stack)
    asked = ticketctl("deploy", "--public", *options)
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[-1] == "hint: pass --yes"
    opened = ticketctl("deploy", "--public", "--yes", *options)
    assert opened.returncode == 0
    assert httpx.get(opened.stdout.strip(), trust_env=False, timeout=60).json()["last"] == 1
    assert ticketctl("next", *options).stdout == "2\n"
    assert ticketctl("next", "--url", opened.stdout.strip(), "--region", REGION).stdout == "3\n"
    assert ticketctl("deploy", "--max-count", "9", *options).returncode == 0
    assert connect(stack=new_stack).locator.look_up().auth == "NONE"
    assert ticketctl("deploy", "--no-public", *options).returncode == 0
    assert httpx.get(connect(stack=new_stack).url(), trust_env=False, timeout=60).status_code == 403


def with_impossible_policy(stack: str) -> str:
    """Return the template with an additional resource that cannot be created."""
    document = template.load(stack)
    document["Resources"]["Impossible"] = {
        "Type": "AWS::IAM::Policy",
        "DependsOn": ["CreateTicketUrl"],
        "Properties": {
            "PolicyName": "impossible",
            "Roles": ["no-such-role"],
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
            },
        },
    }
    return template.as_body(document)


def test_failed_deployment_names_its_cause_and_is_replaced(
    stacks: CloudFormation, ticketctl: Ticketctl, new_stack: str
) -> None:
    """The error names the first resource that failed and why; the next deployment removes the failed stack first."""
    plan = stacks.plan(new_stack, with_impossible_policy(new_stack), {})
    with pytest.raises(StackFailedError, match=r"Impossible \(AWS::IAM::Policy\): .*no-such-role"):
        stacks.execute(plan)
    found = stacks.describe(new_stack)
    assert found is not None
    assert found.status == "ROLLBACK_COMPLETE"
    healed = ticketctl("deploy", "--local", "--stack", new_stack)
    assert healed.returncode == 0
    assert f"{new_stack} is ROLLBACK_COMPLETE (Impossible" in healed.stderr


def test_failed_update_leaves_the_server_minting(stacks: CloudFormation, connect: Connect, deployed: str) -> None:
    """A failed update is rolled back, and the counter continues."""
    connection = connect(stack=deployed)
    assert take(connection, 1).last == 1
    with pytest.raises(StackFailedError, match="Impossible"):
        stacks.execute(stacks.plan(deployed, with_impossible_policy(deployed), {}))
    assert take(connection, 1).last == 2


def test_table_of_another_stack_is_refused(stacks: CloudFormation, ticketctl: Ticketctl, new_stack: str) -> None:
    """A table that another stack owns is refused, and the error names that stack."""
    owner = {"Resources": {"Table": table_resource(new_stack)}}
    stacks.execute(stacks.plan(f"{new_stack}-owner", json.dumps(owner), {}))
    result = ticketctl("deploy", "--local", "--stack", new_stack)
    assert (result.returncode, result.stdout) == (6, "")
    assert f"the table {new_stack} in {REGION} belongs to the stack {new_stack}-owner" in result.stderr
    assert stacks.describe(new_stack) is None


def test_change_that_would_replace_the_table_is_refused(
    stacks: CloudFormation, connect: Connect, deployed: str
) -> None:
    """A plan that renames the table reports that it would replace the table."""
    other_name = template.as_body(template.for_stack(template.load(deployed), f"{deployed}-2"))
    plan = stacks.plan(deployed, other_name, {})
    assert [change.type for change in plan.endangers_table] == ["AWS::DynamoDB::Table"]
    stacks.discard(plan)
    assert take(connect(stack=deployed), 1).last == 1


def test_a_stack_in_review_is_deployed(stacks: CloudFormation, ticketctl: Ticketctl, new_stack: str) -> None:
    """A stack in review, whose change set was never executed, is not deleted; it is deployed."""
    stacks.plan(new_stack, template.as_body(template.load(new_stack)), {})
    before = stacks.describe(new_stack)
    result = ticketctl("deploy", "--local", "--stack", new_stack)
    assert (result.returncode, "deleting" in result.stderr) == (0, False)
    after = stacks.describe(new_stack)
    assert before is not None
    assert after is not None
    assert (before.status, after.status) == ("REVIEW_IN_PROGRESS", "CREATE_COMPLETE")
    assert ticketctl("next", "--local", "--stack", new_stack).stdout == "1\n"


def test_diff_of_a_new_stack_leaves_nothing(stacks: CloudFormation, ticketctl: Ticketctl, new_stack: str) -> None:
    """Diff shows what would be created and leaves no stack behind."""
    result = ticketctl("diff", "--local", "--stack", new_stack)
    assert result.returncode == 0
    assert "add AWS::DynamoDB::Table" in result.stdout
    assert stacks.describe(new_stack) is None


def test_diff_lists_what_the_options_need(ticketctl: Ticketctl, new_stack: str) -> None:
    """What a private stack without alarms does not have is not listed; ``--public`` adds what a public one needs."""
    options, permission = ("--local", "--stack", new_stack), "AWS::Lambda::Permission AnyoneMayCallUrl"
    created = ticketctl("diff", *options).stdout
    assert "add AWS::Lambda::Function" in created
    assert not re.search("AnyoneMay|AWS::SNS|Alarm", created)
    ticketctl("deploy", *options)
    assert f"add {permission}" in ticketctl("diff", "--public", *options).stdout
    ticketctl("deploy", "--public", "--yes", *options)
    assert f"remove {permission}" in ticketctl("diff", "--no-public", *options).stdout


def test_article_table_is_adopted(aws: Aws, ticketctl: Ticketctl, new_stack: str) -> None:
    """A table that no stack owns, with an item from the article's code, is imported and continues."""
    resource = table_resource(new_stack)["Properties"]
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(**resource)
    dynamodb.put_item(TableName=new_stack, Item={"partition": {"S": REGION}, "hand_crafted_int": {"N": "99"}})
    assert ticketctl("deploy", "--local", "--stack", new_stack).returncode == 0
    assert ticketctl("next", "--local", "--stack", new_stack).stdout == "100\n"


def test_another_stack_is_left_alone(aws: Aws, stacks: CloudFormation, ticketctl: Ticketctl, new_stack: str) -> None:
    """A stack of the same name that is not a ticket server is neither changed nor destroyed, even with --yes."""
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": new_stack}}
    aws.client("cloudformation").create_stack(StackName=new_stack, TemplateBody=json.dumps({"Resources": {"L": group}}))
    for command in (["deploy", "--yes"], ["destroy", "--yes"], ["next"], ["url"], ["diff"]):
        refused = ticketctl(*command, "--local", "--stack", new_stack)
        assert (refused.returncode, refused.stdout) == (6, ""), command
        assert "is not a ticket server; nothing was changed" in refused.stderr
    assert stacks.describe(new_stack) is not None
    assert aws.client("logs").describe_log_groups(logGroupNamePrefix=new_stack)["logGroups"]


def test_three_deployments_at_once(environ: dict[str, str], new_stack: str) -> None:
    """Of three deployments at once, one creates the stack and the others find it; all print the same URL."""
    command = [sys.executable, "-m", "ticketctl", "deploy", "--local", "--quiet", "--stack", new_stack]
    runs = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [run.communicate(timeout=120) for run in runs]
    assert [(run.returncode, stderr) for run, (_, stderr) in zip(runs, answers, strict=True)] == [(0, "")] * 3
    assert len({stdout for stdout, _ in answers}) == 1
