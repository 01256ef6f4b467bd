"""``doctor`` and ``logs`` on the embedded AWS: each set-up has one fault, and nothing is minted."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl, run
from tests.support.embedded_aws import REGION, physical_id, table_resource
from tests.support.iam_users import make_user
from tests.support.interruptible import interruptible
from ticketctl.aws.account import Aws
from ticketctl.embedded.engine import Engine

LACKING = {
    "cloudformation:DescribeStacks": {"stack"},
    "cloudformation:DescribeStackResources": {"permission logs:FilterLogEvents"},
    "dynamodb:DescribeTable": {"table", "global table"},
    "dynamodb:DescribeTimeToLive": {"table expiry"},
    "dynamodb:DescribeContinuousBackups": {"table recovery"},
    "dynamodb:GetItem": {"permission dynamodb:GetItem"},
    "dynamodb:Scan": {"permission dynamodb:Scan"},
    "dynamodb:UpdateItem": {"permission dynamodb:UpdateItem"},
    "logs:FilterLogEvents": {"permission logs:FilterLogEvents"},
    "lambda:InvokeFunctionUrl": {"url"},
}
"""The checks that report each missing permission."""


def checks(result: Result) -> dict[str, Any]:
    """Return the checks of ``doctor --json``, by name."""
    document = json.loads(result.stdout)
    assert document.keys() == {"checks", "ok"}
    assert document["ok"] == (result.returncode == 0) == (not any(c["state"] == "failure" for c in document["checks"]))
    assert all(check.keys() == {"name", "state", "detail", "fix"} for check in document["checks"])
    return {check["name"]: check for check in document["checks"]}


def denied(found: dict[str, Any]) -> set[str]:
    """Return the names of the checks that report a missing permission."""
    return {name for name, check in found.items() if "not authorized" in check["detail"] or "403" in check["detail"]}


def allow_all_but(action: str) -> list[dict[str, str]]:
    return [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": action, "Resource": "*"},
    ]


def items(aws: Aws, table: str) -> list[Any]:
    found: list[Any] = aws.client("dynamodb").scan(TableName=table, ConsistentRead=True)["Items"]
    return found


def test_a_sound_stack(ticketctl: Ticketctl, aws: Aws, deployed: str) -> None:
    """Every check passes, each line in a pipe has four columns, and the table is unchanged."""
    options = ("--local", "--stack", deployed)
    assert "has not minted yet" in checks(ticketctl("doctor", "--json", *options))["url"]["detail"]
    assert items(aws, deployed) == []
    ticketctl("next", *options)
    before = items(aws, deployed)
    result = ticketctl("doctor", *options)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert (result.returncode, result.stderr) == (0, "")
    assert {(row[0], len(row)) for row in rows} == {("ok", 4)}
    assert items(aws, deployed) == before
    assert ticketctl("next", *options).stdout == "2\n"


def test_each_missing_permission(ticketctl: Ticketctl, aws: Aws, deployed: str) -> None:
    """Each missing permission is reported by its own check only, and nothing is written."""
    user = make_user(aws, f"patient-{deployed}", {"Effect": "Allow", "Action": "*", "Resource": "*"})
    command = ("doctor", "--json", "--stack", deployed)
    assert denied(checks(ticketctl(*command, env=user))) == set()
    for action, expected in LACKING.items():
        document = json.dumps({"Version": "2012-10-17", "Statement": allow_all_but(action)})
        aws.client("iam").put_user_policy(UserName=f"patient-{deployed}", PolicyName="policy", PolicyDocument=document)
        found = checks(ticketctl(*command, env=user))
        assert (action, denied(found)) == (action, expected)
        assert all(found[name]["fix"] for name in expected)
    assert items(aws, deployed) == []


def test_a_mint_from_the_table_needs_its_permission(ticketctl: Ticketctl, aws: Aws, deployed: str) -> None:
    """With --via dynamodb, a missing UpdateItem permission is a failure, and a missing invoke permission a warning."""
    actions = ["cloudformation:*", "dynamodb:GetItem"]
    user = make_user(aws, f"reader-{deployed}", {"Effect": "Allow", "Action": actions, "Resource": "*"})
    result = ticketctl("doctor", "--via", "dynamodb", "--json", "--stack", deployed, env=user)
    found = checks(result)
    assert result.returncode == 6
    assert [found["permission dynamodb:UpdateItem"]["state"], found["url"]["state"]] == ["failure", "warning"]


def test_a_stack_without_a_function(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """It needs no URL and has no log lines. It mints from its table: a missing permission for that is a failure."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "--table-only", *options).returncode == 0
    sound = checks(ticketctl("doctor", "--json", *options))
    assert {check["state"] for check in sound.values()} == {"ok"}
    user = make_user(aws, f"reader-{new_stack}", *allow_all_but("dynamodb:UpdateItem"))
    result = ticketctl("doctor", "--json", "--stack", new_stack, env=user)
    assert (result.returncode, checks(result)["permission dynamodb:UpdateItem"]["state"]) == (6, "failure")
    by_url = ticketctl("doctor", "--via", "url", "--json", "--stack", new_stack, env=user)
    assert (by_url.returncode, checks(by_url)["permission dynamodb:UpdateItem"]["state"]) == (0, "warning")


def test_broken_places(ticketctl: Ticketctl, engine: Engine, deployed: str) -> None:
    """A wrong region and an unreachable URL are failures that name the fix."""
    elsewhere = {**engine.variables("eu-west-1")}
    found = checks(ticketctl("doctor", "--json", "--stack", deployed, env=elsewhere))
    assert found["stack"]["detail"] == f"{deployed} is not deployed in eu-west-1"
    assert found["stack"]["fix"] == f"ticketctl deploy --stack {deployed}"
    assert found["url"]["detail"] == "not checked, because of: stack"
    nowhere = ("--url", "http://127.0.0.1:1/", "--stack", deployed, "--timeout", "2")
    result = ticketctl("doctor", *nowhere, env=engine.variables(REGION))
    assert result.returncode == 6
    assert "\nfailure\turl\t127.0.0.1:1 cannot be reached" in result.stdout
    assert result.stderr.startswith("error: 1 of ")


def test_a_table_without_a_stack(ticketctl: Ticketctl, engine: Engine, aws: Aws, new_stack: str) -> None:
    """With a table, doctor checks the table instead of a stack; nothing is written."""
    aws.client("dynamodb").create_table(**table_resource(new_stack)["Properties"])
    user = engine.variables(REGION)
    for options, variables in (("--table", new_stack), {}), ((), {"TICKETCTL_TABLE": new_stack}):
        result = ticketctl("doctor", "--json", *options, env=user | variables)
        found = checks(result)
        assert result.returncode == 0, result.stdout
        assert [*found][6:] == [
            "table",
            "table expiry",
            "table recovery",
            "global table",
            "permission dynamodb:UpdateItem",
            "permission dynamodb:GetItem",
            "permission dynamodb:Scan",
        ]
        assert "DeletionProtectionEnabled is false" in found["table"]["detail"]
        assert {name for name, check in found.items() if check["state"] != "ok"} == {
            "clock",  # the embedded AWS does not tell the time to a request without a signature
            "table",
            "table expiry",
            "table recovery",
        }
    assert items(aws, new_stack) == []


def test_a_table_that_cannot_mint(ticketctl: Ticketctl, engine: Engine, aws: Aws, new_stack: str) -> None:
    """A table that does not exist, has another key or denies UpdateItem is a failure with the fix."""
    key = [{"AttributeName": "id", "KeyType": "HASH"}]
    aws.client("dynamodb").create_table(
        TableName=new_stack,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=key,
    )
    missing = ticketctl("doctor", "--table", "Nowhere", "--json", env=engine.variables(REGION))
    assert missing.returncode == 6
    assert checks(missing)["table"] == {
        "name": "table",
        "state": "failure",
        "detail": f"the table Nowhere in {REGION} does not exist",
        "fix": "check the names of the table and of the region",
    }
    assert checks(missing)["permission dynamodb:UpdateItem"]["detail"] == "not checked, because of: table"
    other = ticketctl("doctor", "--table", new_stack, "--json", env=engine.variables(REGION))
    assert (other.returncode, checks(other)["table"]["state"]) == (6, "failure")
    assert json.dumps(key) in checks(other)["table"]["detail"]
    assert checks(other)["permission dynamodb:UpdateItem"]["detail"] == "not checked, because of: table"
    user = make_user(aws, f"reader-{new_stack}", {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "*"})
    denied_user = ticketctl("doctor", "--table", new_stack, "--json", env=user)
    assert denied_user.returncode == 6
    assert checks(denied_user)["permission dynamodb:UpdateItem"]["state"] == "failure"


def test_a_table_whose_name_is_unknown(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """If the stack cannot be described, its table may have another name: a missing one is only a warning."""
    user = make_user(aws, f"blind-{new_stack}", *allow_all_but("cloudformation:*"))
    found = checks(ticketctl("doctor", "--stack", new_stack, "--json", env=user))
    assert (found["stack"]["state"], found["table"]["state"]) == ("failure", "warning")
    assert found["table"]["detail"] == f"the table {new_stack} in {REGION} does not exist"


def test_engine_that_is_not_running(bare: dict[str, str], tmp_path: Path) -> None:
    """``doctor --local`` does not start the embedded AWS; if it is not running, a warning names the command."""
    found = checks(run(bare, "doctor", "--local", "--json"))
    assert [found["embedded AWS"]["state"], found["embedded AWS"]["fix"]] == ["warning", "ticketctl local up"]
    assert found["credentials"]["detail"] == "not checked, because of: embedded AWS"
    assert not (tmp_path / "local").exists()


def test_logs(environ: dict[str, str], ticketctl: Ticketctl, aws: Aws, deployed: str) -> None:
    """An error is logged once, with its code; --follow prints new lines until Ctrl-C, exit 130."""
    options = ("--local", "--stack", deployed)
    ticketctl("next", "--partition", "typo-1", *options)
    group = physical_id(aws, deployed, "AWS::Logs::LogGroup")
    assert aws.client("logs").filter_log_events(logGroupName=group)["events"]
    lines = [json.loads(line) for line in ticketctl("logs", "--json", *options).stdout.splitlines()]
    (refusal,) = [line for line in lines if line["level"] == "WARNING"]
    assert refusal["message"].startswith("unknown_counter: There is no counter 'typo-1'")
    assert (refusal["region"], len(refusal["request_id"])) == (REGION, 36)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert ticketctl("logs", "--since", "0s", *options).stdout == ""
    process = interruptible(environ, "logs", "--follow", "--timeout", "60", *options)
    assert process.stdout is not None
    shown = [process.stdout.readline() for _ in lines]
    ticketctl("next", "--partition", "typo-2", *options)
    while "typo-2" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
        shown.append(line)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")
    assert sum("typo-1" in line for line in shown) == 1


@pytest.mark.parametrize("since", ["", "10", "5w", "-1m"])
def test_bad_since(ticketctl: Ticketctl, since: str) -> None:
    """An invalid duration is wrong usage."""
    assert ticketctl("logs", "--local", f"--since={since}").returncode == 2


def test_logs_without_a_function(ticketctl: Ticketctl, engine: Engine, aws: Aws, new_stack: str) -> None:
    """If a stack has no function, ``logs`` says so and exits 5."""
    template = json.dumps({"Resources": {"Other": table_resource(f"{new_stack}-other")}})
    aws.client("cloudformation").create_stack(StackName=new_stack, TemplateBody=template)
    result = ticketctl("logs", "--stack", new_stack, env=engine.variables(REGION))
    assert (result.returncode, result.stdout) == (5, "")
    assert "has no function, so it has no log lines" in result.stderr
