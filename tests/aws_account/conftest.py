"""The AWS of these tests: a real account with ``--account``, otherwise the embedded AWS."""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.command_line import Result, run
from ticketctl.embedded.engine import LocalAws

POLICIES = Path(__file__).parents[2] / "docs" / "policies"
SPREAD_SECONDS = 15.0  # new users and policies take some seconds to spread through IAM
COST = """
This deploys a ticket server under a random name into the account {account}, region {region}, as an IAM user that it
makes, mints some hundred tickets, makes functions that fail, and removes everything at the end. It takes about 40
minutes and costs less than $0.10; a system backup of each deleted table stays for 35 days, without a charge."""


@dataclass
class Account:
    """An AWS account; ``environ`` has its owner's credentials. ``is_real`` is false for the embedded AWS."""

    environ: dict[str, str]
    region: str
    is_real: bool
    undo: list[Callable[[], object]] = field(default_factory=list)

    def client(self, service: str) -> Any:
        """Create a client of a service with the owner's credentials."""
        endpoint = self.environ.get("AWS_ENDPOINT_URL")
        session = boto3.Session() if self.is_real else boto3.Session(*_keys(self.environ))
        return session.client(service, region_name=self.region, endpoint_url=endpoint)

    @property
    def number(self) -> str:
        """The ID of the account."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def policy(self, name: str, stack: str) -> str:
        """Return a documented policy, for one stack of this account."""
        text = (POLICIES / f"{name}.json").read_text(encoding="utf-8")
        if not self.is_real:  # the embedded AWS does not know which change set a request is about
            text = text.replace("arn:aws:cloudformation:REGION:ACCOUNT:changeSet/ticketctl-*", "*")
        for placeholder, value in {"ACCOUNT": self.number, "REGION": self.region, "STACK": stack}.items():
            text = text.replace(placeholder, value)
        return text

    def user(self, name: str, policy: str | None) -> dict[str, str]:
        """Create an IAM user with a policy; return the environment for its commands."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        self.undo.append(lambda: iam.delete_user(UserName=name))
        if policy:
            compact = json.dumps(json.loads(policy), separators=(",", ":"))
            made = iam.create_policy(PolicyName=name, PolicyDocument=compact)["Policy"]["Arn"]
            self.undo.append(lambda: iam.delete_policy(PolicyArn=made))
            iam.attach_user_policy(UserName=name, PolicyArn=made)
            self.undo.append(lambda: iam.detach_user_policy(UserName=name, PolicyArn=made))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.undo.append(lambda: iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"]))
        if self.is_real:
            time.sleep(SPREAD_SECONDS)
        plain = {
            name: value for name, value in self.environ.items() if name not in ("AWS_PROFILE", "AWS_SESSION_TOKEN")
        }
        return plain | {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def close(self) -> None:
        """Remove what was created, newest first; print what cannot be removed, and continue."""
        for step in reversed(self.undo):
            try:
                step()
            except ClientError as error:
                print(f"not removed: {error}", file=sys.stderr)  # noqa: T201


@dataclass(frozen=True)
class Deployed:
    """A ticket server of these tests: its name, and the user who deployed it with the policy ``deploy``."""

    account: Account
    stack: str
    deployer: Mapping[str, str]

    def run(self, *arguments: str, user: Mapping[str, str] | None = None) -> Result:
        """Run a command on the stack, as the account's owner or as another ``user``."""
        return run(dict(user or self.account.environ), *arguments, "--stack", self.stack)

    def function(self) -> str:
        """Return the name of the stack's function."""
        resources = self.account.client("cloudformation").describe_stack_resources(StackName=self.stack)
        (name,) = (
            one["PhysicalResourceId"]
            for one in resources["StackResources"]
            if one["ResourceType"] == "AWS::Lambda::Function"
        )
        return str(name)


def _keys(environ: Mapping[str, str]) -> tuple[str, str]:
    return environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture(scope="session")
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    home = tmp_path_factory.mktemp("account")
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "TICKETCTL_HOME": str(home)}
    if request.config.getoption("--account"):
        account = _real_account(bare)
        _ask(request, account)
        yield account
        account.close()
        return
    local = LocalAws(home / "local", environ=bare)
    variables = {**bare, **local.ensure().variables("us-east-1"), "AWS_EC2_METADATA_DISABLED": "true"}
    yield Account(variables, "us-east-1", is_real=False)
    local.stop()


def _real_account(bare: Mapping[str, str]) -> Account:
    session = boto3.Session()
    if session.region_name is None:
        pytest.exit("no region: set AWS_REGION", returncode=4)
    own = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    files = {
        "AWS_CONFIG_FILE": os.environ.get("AWS_CONFIG_FILE", str(Path.home() / ".aws" / "config")),
        "AWS_SHARED_CREDENTIALS_FILE": os.environ.get(
            "AWS_SHARED_CREDENTIALS_FILE", str(Path.home() / ".aws" / "credentials")
        ),
    }
    return Account({**bare, **files, **own, "AWS_REGION": session.region_name}, session.region_name, is_real=True)


def _ask(request: pytest.FixtureRequest, account: Account) -> None:
    """Print the costs, and continue only if the user types the account's ID."""
    number = account.number
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(COST.format(account=number, region=account.region))  # noqa: T201
        try:
            typed = input("Type the number of the account to go on: ") if sys.stdin.isatty() else ""
        except EOFError:
            typed = ""
    if typed.strip() != number:
        pytest.exit("nothing was made: the number of the account was not typed", returncode=4)


@pytest.fixture(scope="session")
def deployed(account: Account) -> Iterator[Deployed]:
    """One ticket server for all tests, deployed with only the policy ``deploy`` and removed at the end."""
    stack = f"ticketctl-test-{secrets.token_hex(4)}"
    deployer = account.user(f"{stack}-deployer", account.policy("deploy", stack))
    made = Deployed(account, stack, deployer)
    first = made.run("deploy", "--yes", user=deployer)
    assert first.returncode == 0, first.stderr
    yield made
    removed = made.run("destroy", "--yes", "--delete-tickets", stack, user=deployer)
    assert removed.returncode == 0, removed.stderr
