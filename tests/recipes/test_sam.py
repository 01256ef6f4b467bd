"""``docs/recipes/sam.md``: the template is checked, compared with ours, and deployed into the embedded AWS."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.command_line import Ticketctl
from tests.support.recipes import copied, page, parsed_yaml, programs
from tests.support.synthesis import Assembly
from ticketctl.aws.account import Aws
from ticketctl.handler import bundle_root


@pytest.fixture
def template() -> dict[str, Any]:
    return parsed_yaml(programs("sam")["template.yaml"])


def test_cfn_lint(template: dict[str, Any], tmp_path: Path) -> None:
    """cfn-lint, which knows the SAM transform, finds nothing."""
    assert template["Transform"] == "AWS::Serverless-2016-10-31"
    (copied("sam", tmp_path) / "tickets").mkdir()
    lint = [str(Path(sys.executable).parent / "cfn-lint"), "template.yaml"]
    done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_resources_are_ours(template: dict[str, Any], assembly: Assembly) -> None:
    """Table, function and outputs are those of ``ticketctl deploy``, except for names, parameters and logs."""
    our_template = cast(dict[str, Any], assembly.template)
    ours = {resource["Type"]: resource for resource in our_template["Resources"].values()}
    table, our_table = template["Resources"]["TicketsTable"], ours["AWS::DynamoDB::Table"]
    assert table["Properties"] == our_table["Properties"] | {"TableName": {"Ref": "AWS::StackName"}}
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    function, our_function = template["Resources"]["CreateTicket"]["Properties"], ours["AWS::Lambda::Function"]
    for name in ("Runtime", "Architectures", "MemorySize", "Timeout"):
        assert function[name] == our_function["Properties"][name], name
    variables, our_variables = (f["Environment"]["Variables"] for f in (function, our_function["Properties"]))
    assert variables.keys() == our_variables.keys()
    for name in ("OFFSET", "INCREMENT", "MAX_COUNT", "DYNAMODB_ENDPOINT"):
        assert variables[name] == our_variables[name], name
    for name, parameter in template["Parameters"].items():
        assert parameter["Default"] == our_template["Parameters"][name]["Default"], name
    (statement,) = function["Policies"][0]["Statement"]
    assert statement["Action"] == ["dynamodb:UpdateItem", "dynamodb:GetItem"]
    assert template["Outputs"].keys() == our_template["Outputs"].keys()


def test_the_handler_is_ours(tmp_path: Path) -> None:
    """The command of the page copies the repository's handler."""
    (command,) = re.findall(r"^    (python -c .*)$", page("sam"), re.MULTILINE)
    (tmp_path / "tickets").mkdir()
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=path, check=True)
    ours = bundle_root() / "lambda" / "create_ticket.py"
    assert (tmp_path / "tickets" / "create_ticket.py").read_bytes() == ours.read_bytes()


def deploy(aws: Aws, template: dict[str, Any], stack: str) -> None:
    """Deploy the template as SAM does: SAM's own translator expands it."""
    function = template["Resources"]["CreateTicket"]["Properties"]
    del function["CodeUri"]  # the embedded AWS has no S3, to which ``sam`` uploads the folder
    code = (bundle_root() / "lambda" / "create_ticket.py").read_text(encoding="utf-8")
    function |= {"InlineCode": code, "Handler": "index.handler"}
    stacks = aws.client("cloudformation")
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    stacks.create_stack(StackName=stack, TemplateBody=json.dumps(template), Capabilities=capabilities)
    stacks.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})


def test_ticketctl_mints_from_the_stack(
    template: dict[str, Any], aws: Aws, ticketctl: Ticketctl, new_stack: str
) -> None:
    """Its function mints, and ticketctl finds its URL and its table."""
    deploy(aws, template, new_stack)
    options = ("--local", "--stack", new_stack)
    assert [ticketctl("next", *options).stdout for _ in range(2)] == ["1\n", "2\n"]
    assert ticketctl("next", "--via", "dynamodb", *options).stdout == "3\n"
    assert ticketctl("counter", "create", "orders", *options).returncode == 0
    assert ticketctl("next", "--partition", "orders", "--idempotency-key", "a", *options).stdout == "1\n"
    assert ticketctl("status", *options).stdout.split("\n")[0].startswith("orders\t1\t")


def test_a_table_that_the_stack_would_delete(
    template: dict[str, Any], aws: Aws, ticketctl: Ticketctl, new_stack: str
) -> None:
    """``destroy`` says that it keeps the table, so it refuses a table without deletion protection."""
    table = template["Resources"]["TicketsTable"]
    table["DeletionPolicy"] = "Delete"
    del table["Properties"]["DeletionProtectionEnabled"]
    deploy(aws, template, new_stack)
    options = ("--local", "--stack", new_stack)
    assert ticketctl("next", *options).stdout == "1\n"
    refused = ticketctl("destroy", "--yes", *options)
    assert refused.returncode == 6
    assert f"the table {new_stack} in us-east-1 has no deletion protection" in refused.stderr
    assert ticketctl("next", *options).stdout == "2\n"


def test_a_table_with_a_name_of_its_own(
    template: dict[str, Any], aws: Aws, ticketctl: Ticketctl, new_stack: str
) -> None:
    """The stack's output names the table of its counters. Only its own tool deletes or changes such a stack."""
    template["Resources"]["TicketsTable"]["Properties"]["TableName"] = {"Fn::Sub": "${AWS::StackName}-numbers"}
    deploy(aws, template, new_stack)

    def run(*words: str, code: int = 0) -> str:
        done = ticketctl(*words, "--local", "--stack", new_stack)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    assert run("next") == "1\n"
    assert run("counter", "create", "orders").startswith("orders\t0\t")
    assert run("counter", "create", "invoices", "--gapless").startswith("invoices\t0\t")
    assert run("next", "--partition", "orders") == "1\n"
    assert run("counter", "freeze", "orders").split("\t")[5] == "frozen"
    assert run("counter", "thaw", "orders").split("\t")[5] == "mints"
    assert run("counter", "advance", "orders", "--to", "50").startswith("orders\t50\t")
    assert run("regions").count("orders") == 1
    assert run("counter", "list").count("\n") == 3
    assert "would replace or delete the table" in run("diff", code=6)
    assert "would replace or delete the table" in run("deploy", "--yes", code=6)
    for words in (("destroy", "--yes"), ("destroy", "--yes", "--delete-tickets", new_stack)):
        assert f"has the table {new_stack}-numbers: ticketctl did not deploy it" in run(*words, code=6)
    assert run("next", "--partition", "orders") == "51\n"
    assert run("logs")  # of the log group that Lambda makes
