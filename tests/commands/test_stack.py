"""``deploy``, ``diff`` and ``destroy``: their questions and results, with an account in memory."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.memory_aws import EU, US, Account, regions_of, url_in
from tests.support.minting import requested
from ticketctl.aws.stacks import StackOptions
from ticketctl.commands.options import Run
from ticketctl.commands.stack import CHANGES_FOUND, deploy, destroy, diff
from ticketctl.commands.stack_options import PARAMETERS
from ticketctl.deadline import Deadline
from ticketctl.errors import ConfirmationNeededError, PartialError, StackFailedError, UsageError
from ticketctl.output import Output


class Shell:
    """Runs commands for one account; ``stdout`` and ``stderr`` are the output of the last run."""

    def __init__(self, account: Account, home: Path) -> None:
        self.account = account
        self.stdout = ""
        self.stderr = ""
        self._home = home

    def run(self, command: Any, *names: str, as_json: bool = False, flags: Any = None, **arguments: Any) -> None:
        """Run a command for regions; ``flags`` are the shared options and ``arguments`` those of the command."""
        stdout, stderr = io.BytesIO(), io.StringIO()
        output = Output(stdout=stdout, stderr=stderr, environ={}, as_json=as_json)
        regions = regions_of(self.account, self._home, *names)
        given = {**dict.fromkeys(PARAMETERS), "region": list(names), **(flags or {})}
        try:
            command(Run(given, regions.home.settings, regions.home, regions, output), **arguments)
        finally:
            self.stdout, self.stderr = stdout.getvalue().decode(), stderr.getvalue()


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def shell(account: Account, tmp_path: Path) -> Shell:
    return Shell(account, tmp_path)


# --- deploy ------------------------------------------------------------------------------------------


def test_deploy_prints_the_url(shell: Shell) -> None:
    """Stdout is only the URL; account, changes and the next command are on stderr."""
    shell.run(deploy, US)
    assert shell.stdout == f"{url_in(US)}\n"
    assert shell.stderr.splitlines() == [
        f"deploying Tickets in {US}, account 123456789012, profile default",
        "  add AWS::DynamoDB::Table Table",
        f"the ticket server is at {url_in(US)}",
        f"mint a ticket: ticketctl next --region {US}",
    ]


def test_deploy_as_json(shell: Shell, account: Account) -> None:
    """With --json, one region is an object, and several regions are a list."""
    account.deploy(US)
    one = {"url": url_in(US), "auth": "AWS_IAM", "changed": False, "stack": "Tickets", "region": US}
    shell.run(deploy, US, as_json=True)
    assert json.loads(shell.stdout) == one
    shell.run(deploy, US, EU, as_json=True)
    other = {**one, "url": url_in(EU), "changed": True, "region": EU}
    assert json.loads(shell.stdout) == {"regions": [one, other]}


def test_deploy_sends_the_parameters_that_are_named(shell: Shell, account: Account) -> None:
    """Each option sets a parameter of the template; other parameters keep their values."""
    account.deploy(US, MaxCount="70")
    shell.run(deploy, US, flags={"offset": 3, "increment": 5, "log_retention": 7, "public": False})
    assert account.stacks[US].parameters == {
        "AuthType": "AWS_IAM",
        "Offset": "3",
        "Increment": "5",
        "MaxCount": "70",
        "LogRetentionDays": "7",
    }


@pytest.mark.parametrize("command", [deploy, diff])
@pytest.mark.parametrize(
    ("flags", "option"),
    [
        ({"public": True}, "--public"),
        ({"public": False}, "--no-public"),
        ({"max_count": 7}, "--max-count"),
        ({"reserved_concurrency": 2}, "--reserved-concurrency"),
        ({"log_retention": 30}, "--log-retention"),
    ],
)
def test_table_only_has_no_function(shell: Shell, account: Account, command: Any, flags: Any, option: str) -> None:
    """Options of the function cannot be combined with --table-only; nothing is planned."""
    with pytest.raises(UsageError) as caught:
        shell.run(command, US, flags=flags, table_only=True)
    assert caught.value.message == f"--table-only and {option} cannot be combined"
    assert account.calls[f"plan {US}"] == 0


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ({"offset": 0}, "from 1 up to 1000000"),
        ({"increment": 1_000_001}, "from 1 up to 1000000"),
        ({"max_count": 10_001}, "from 1 up to 10000"),
        ({"reserved_concurrency": -2}, "from -1 up to any number"),
        ({"log_retention": 2}, "one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365, 731, 1827, 3653"),
    ],
)
@pytest.mark.parametrize("command", [deploy, diff])
def test_a_parameter_that_the_template_refuses(
    shell: Shell, account: Account, command: Any, flags: dict[str, int], hint: str
) -> None:
    """A value that the template does not allow is an error before any request to AWS."""
    with pytest.raises(UsageError) as caught:
        shell.run(command, US, flags=flags)
    assert caught.value.hint == hint
    assert account.calls == {}


@pytest.mark.parametrize("flags", [{"tag": ["foo"]}, {"role_arn": "me"}, {"alarm_email": "me"}])
@pytest.mark.parametrize("command", [deploy, diff])
def test_an_option_that_aws_refuses(shell: Shell, account: Account, command: Any, flags: dict[str, Any]) -> None:
    """An invalid tag, role or address is an error before any request to AWS and before any output."""
    with pytest.raises(UsageError):
        shell.run(command, US, flags=flags)
    assert (account.calls, shell.stdout, shell.stderr) == ({}, "", "")


def test_deploy_sends_tags_and_role(shell: Shell, account: Account) -> None:
    """Tags, role and protection are options of the stack; alarms are parameters of the template."""
    role = "arn:aws:iam::123456789012:role/deployer"
    flags = {"tag": ["team=ids"], "role_arn": role, "termination_protection": True, "alarm_email": "a@example.org"}
    shell.run(deploy, US, EU, flags=flags)
    assert account.options == dict.fromkeys((US, EU), StackOptions({"team": "ids"}, role, protects=True))
    assert [(s.parameters["AlarmEmail"], s.is_protected) for s in account.stacks.values()] == [
        ("a@example.org", True)
    ] * 2


def test_protection_is_a_change(shell: Shell, account: Account) -> None:
    """Changing only termination protection is a change for diff and deploy, and is done once."""
    account.deploy(US)
    on = {"termination_protection": True}
    with pytest.raises(typer.Exit) as caught:
        shell.run(diff, US, flags=on, exit_code=True)
    changed = "modify AWS::CloudFormation::Stack termination protection on"
    assert (caught.value.exit_code, shell.stdout) == (CHANGES_FOUND, f"{changed}\n")
    assert not account.stacks[US].is_protected
    shell.run(deploy, US, flags=on, as_json=True)
    assert json.loads(shell.stdout)["changed"]
    assert account.stacks[US].is_protected
    shell.run(diff, US, flags=on, exit_code=True)
    assert (shell.stdout, shell.stderr) == ("", "no changes\n")


def test_deploy_asks_before_it_opens_to_anyone(shell: Shell, account: Account) -> None:
    """If there is no terminal, making the URL public needs --yes."""
    with pytest.raises(ConfirmationNeededError) as caught:
        shell.run(deploy, US, flags={"public": True})
    assert caught.value.hint == "pass --yes"
    assert account.stacks == {}
    shell.run(deploy, US, flags={"public": True}, yes=True)
    assert f"the ticket server is at {url_in(US)}, open to anyone" in shell.stderr


def test_deploy_shows_what_succeeded_and_fails(shell: Shell, account: Account) -> None:
    """If a region fails, the URLs of the others are printed, and the error names both groups."""
    account.failing = {EU}
    with pytest.raises(PartialError, match=f"deployed in {US}, but not in {EU}: the deployment failed"):
        shell.run(deploy, US, EU)
    assert shell.stdout == f"{url_in(US)}\n"


def test_deploy_without_success_prints_nothing(shell: Shell, account: Account) -> None:
    """If every region fails, stdout is empty and the first region's error is printed."""
    account.failing = {US}
    with pytest.raises(StackFailedError):
        shell.run(deploy, US)
    assert shell.stdout == ""


# --- diff --------------------------------------------------------------------------------------------


def test_diff_prints_the_changes(shell: Shell, account: Account) -> None:
    """Each change is a line; with several regions, the line begins with the region."""
    account.deploy(US, Offset="0")
    shell.run(diff, US, flags={"max_count": 7})
    assert (shell.stdout, shell.stderr) == ("modify AWS::Lambda::Function Function\n", "")
    account.deploy(EU, Offset="0", MaxCount="7")
    shell.run(diff, US, EU, flags={"max_count": 7})
    assert shell.stdout == f"{US}: modify AWS::Lambda::Function Function\n"


def test_diff_without_changes(shell: Shell, account: Account) -> None:
    """If there are no changes, stderr says so, stdout is empty, and the exit code is 0, even with --exit-code."""
    account.deploy(US)
    shell.run(diff, US, exit_code=True)
    assert (shell.stdout, shell.stderr) == ("", "no changes\n")


def test_diff_with_an_exit_code(shell: Shell, account: Account) -> None:
    """With --exit-code, changes are printed and the command exits 9."""
    account.deploy(US)
    with pytest.raises(typer.Exit) as caught:
        shell.run(diff, US, flags={"max_count": 7}, as_json=True, exit_code=True)
    assert caught.value.exit_code == CHANGES_FOUND
    change = {"action": "Modify", "id": "Function", "type": "AWS::Lambda::Function", "replacement": "False"}
    assert json.loads(shell.stdout) == {"changes": [change], "stack": "Tickets", "region": US}


# --- destroy -----------------------------------------------------------------------------------------


def test_nothing_to_destroy(shell: Shell) -> None:
    """If the stack does not exist, destroy succeeds without a question."""
    shell.run(destroy, US)
    assert shell.stderr == f"nothing to destroy in account 123456789012, profile default/{US}\n"


def test_a_remaining_table_is_named(shell: Shell, account: Account) -> None:
    """If only the table exists, the command says that it is kept."""
    account.deploy(US)
    del account.stacks[US]
    shell.run(destroy, US)
    assert shell.stderr.endswith(f"/{US}; the table Tickets is kept\n")
    assert US in account.tables


def test_destroy_shows_the_counters_and_asks(shell: Shell, account: Account, tmp_path: Path) -> None:
    """Destroy shows the counters before it asks; if there is no terminal, it needs --yes."""
    account.deploy(US)
    regions_of(account, tmp_path, US).mint(requested(3), Deadline(5))
    with pytest.raises(ConfirmationNeededError) as caught:
        shell.run(destroy, US)
    assert f"Delete the stack of Tickets in {US}, account 123456789012, profile default?" in caught.value.message
    first, second = shell.stderr.splitlines()
    assert first == f"the counters of Tickets in {US}:"
    assert second.split("\t")[:2] == [f"  {US}", "3"]
    assert US in account.stacks


def test_destroy_keeps_the_table(shell: Shell, account: Account) -> None:
    """Destroy deletes the stack and keeps the table; the result says both."""
    account.deploy(US)
    shell.run(destroy, US, as_json=True, yes=True)
    assert json.loads(shell.stdout) == {"destroyed": True, "table_deleted": False, "stack": "Tickets", "region": US}
    assert (account.stacks, list(account.tables)) == ({}, [US])


def test_destroy_deletes_the_tickets_of_the_named_stack(shell: Shell, account: Account) -> None:
    """With --delete-tickets and the name of the stack, the table is deleted too."""
    account.deploy(US)
    with pytest.raises(UsageError, match="--delete-tickets 'orders' does not name the stack Tickets"):
        shell.run(destroy, US, delete_tickets="orders", yes=True)
    assert US in account.stacks
    shell.run(destroy, US, delete_tickets="Tickets", yes=True)
    assert (account.stacks, account.tables) == ({}, {})
    assert shell.stderr.endswith(f"destroyed the stack and the table with every counter of Tickets in {US}\n")


def test_destroy_reports_the_regions_that_failed(shell: Shell, account: Account) -> None:
    """If a region cannot be destroyed, the others are, and the error names both groups."""
    account.deploy(US)
    account.deploy(EU, Offset="2")
    account.failing = {EU}
    with pytest.raises(PartialError, match=f"destroyed in {US}, but not in {EU}: the deletion failed"):
        shell.run(destroy, US, EU, as_json=True, yes=True)
    assert [each["region"] for each in json.loads(shell.stdout)["regions"]] == [US]
    assert list(account.stacks) == [EU]


def test_counters_that_cannot_be_read_do_not_stop_destroy(shell: Shell, account: Account) -> None:
    """A user who may delete the stack but may not read its table can destroy it."""
    account.deploy(US)
    account.tables[US].before_call = deny
    shell.run(destroy, US, yes=True)
    assert "  cannot be read: " in shell.stderr
    assert account.stacks == {}


def deny(operation: str, request: object) -> Any:  # noqa: ARG001
    """Deny a request to the table."""
    from botocore.exceptions import ClientError

    details = {"Code": "AccessDeniedException", "Message": "not authorized"}
    raise ClientError({"Error": details, "ResponseMetadata": {"HTTPStatusCode": 400}}, operation)
