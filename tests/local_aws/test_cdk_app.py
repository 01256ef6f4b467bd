"""The app of ``docs/cdk.md``, deployed: its ticket server serves exactly those who have a grant."""

import json
from collections.abc import Callable

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION
from tests.support.synthesis import example_app, synthesize
from ticketctl.aws.account import Aws
from ticketctl.embedded.engine import reachable_url

STACK = "Shop"


@pytest.fixture(scope="module")
def outputs(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outputs of the deployed stack, with its URL as it is reached here."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(example_app(), encoding="utf-8")
    synthesize(folder / "app.py", folder / "assembly")
    template = json.loads((folder / "assembly" / f"{STACK}.template.json").read_text(encoding="utf-8"))
    # They ask whether the account is bootstrapped for CDK.
    assert [*template.pop("Parameters"), *template.pop("Rules")] == ["BootstrapVersion", "CheckBootstrapVersion"]
    client = aws.client("cloudformation", timeout=60)
    client.create_stack(StackName=STACK, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"])
    client.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    (stack,) = client.describe_stacks(StackName=STACK)["Stacks"]
    found = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return {**found, "TicketsUrl": reachable_url(found["TicketsUrl"], aws.endpoint_url)}


@pytest.fixture(scope="module")
def credentials(aws: Aws, outputs: dict[str, str]) -> Callable[[str], dict[str, str]]:
    """The environment variables of somebody who has taken a role of the stack."""
    assert outputs
    resources = aws.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    names = {r["PhysicalResourceId"] for r in resources if r["ResourceType"] == "AWS::IAM::Role"}

    def assume(role: str) -> dict[str, str]:
        (name,) = [name for name in names if name.startswith(f"{STACK}-{role}")]
        arn = f"arn:aws:iam::000000000000:role/{name}"
        keys = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": str(aws.endpoint_url),
        }

    return assume


def test_grant_to_mint_through_the_url(
    outputs: dict[str, str], credentials: Callable[[str], dict[str, str]], ticketctl: Ticketctl
) -> None:
    """The role with ``grant_mint`` mints through the URL, at most what the server allows, and not from the table."""
    website, url = credentials("Website"), ("--url", outputs["TicketsUrl"])
    first = int(ticketctl("next", *url, env=website).stdout)
    again = [ticketctl("next", "--idempotency-key", "order-7", *url, env=website).stdout for _ in range(2)]
    assert again == [f"{first + 1}\n"] * 2
    fetched = ticketctl("fetch", "150", "--block", "100", "--ranges", *url, env=website)
    assert fetched.stdout == f"{first + 2}\t{first + 101}\t1\n{first + 102}\t{first + 151}\t1\n"
    too_many = ticketctl("fetch", "101", *url, env=website)
    assert (too_many.returncode, too_many.stdout, "from 1 to 100" in too_many.stderr) == (2, "", True)
    assert ticketctl("status", *url, env=website).stdout.startswith(f"{REGION}\t{first + 151}\t1\t")
    refused = ticketctl("next", "--table", outputs["TicketsTable"], env=website)
    assert (refused.returncode, refused.stdout, "dynamodb:UpdateItem" in refused.stderr) == (4, "", True)


def test_grant_to_mint_from_the_table(
    outputs: dict[str, str], credentials: Callable[[str], dict[str, str]], ticketctl: Ticketctl
) -> None:
    """The role with ``grant_mint_from_table`` mints from the table and creates a counter; it may not call the URL."""
    importer, table = credentials("Importer"), ("--table", outputs["TicketsTable"])
    first = int(ticketctl("next", *table, env=importer).stdout)
    again = [ticketctl("next", "--idempotency-key", "row-7", *table, env=importer).stdout for _ in range(2)]
    assert again == [f"{first + 1}\n"] * 2
    status = ticketctl("status", "--partition", REGION, *table, env=importer)
    assert status.stdout.startswith(f"{REGION}\t{first + 1}\t1\t")
    assert ticketctl("counter", "create", "invoices", *table, env=importer).returncode == 0
    every = ticketctl("status", *table, env=importer)
    assert (every.returncode, "dynamodb:Scan" in every.stderr) == (4, True)
    refused = ticketctl("next", "--url", outputs["TicketsUrl"], env=importer)
    assert (refused.returncode, refused.stdout, "lambda:InvokeFunctionUrl" in refused.stderr) == (4, "", True)


@pytest.mark.parametrize("command", [("deploy", "--yes"), ("destroy", "--yes", "--delete-tickets", STACK)])
def test_ticketctl_leaves_the_stack_alone(
    outputs: dict[str, str], ticketctl: Ticketctl, command: tuple[str, ...]
) -> None:
    """Neither ``deploy`` nor ``destroy`` changes a stack of another app."""
    assert outputs
    refused = ticketctl(*command, "--local", "--stack", STACK)
    assert (refused.returncode, refused.stdout, "is not a ticket server" in refused.stderr) == (6, "", True)
