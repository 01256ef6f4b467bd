"""``doctor``: the checks that need no AWS, and how checks depend on each other."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_server import Answer, Server
from tests.support.memory_aws import EU, US, Account, regions_of
from ticketctl.aws.probes import Drift
from ticketctl.deployments.doctor import (
    FAILURE,
    OK,
    WARNING,
    Checks,
    Finding,
    _cache,
    _clock,
    _credentials,
    _drift,
    _in_region,
    _stack,
    examine,
)
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError
from ticketctl.settings import resolve

pytestmark = pytest.mark.usefixtures("no_aws")


def states(checks: Checks) -> dict[str, str]:
    return {check.name: check.state for check in checks.found}


def connected(home: Path, **flags: Any) -> RegionalStack:
    environ = {"TICKETCTL_HOME": str(home)}
    return RegionalStack(Session(resolve(flags, environ), environ=environ))


def test_a_check_that_raises_stops_no_other() -> None:
    """An error, a bug or a check that hangs is a finding, and the next check still runs."""

    def refuse() -> Finding:
        raise AccessError("no", hint="ask")

    checks = Checks(0.2, suffix=" (us-east-1)")
    checks.run("refused", refuse, otherwise=WARNING)
    checks.run("bug", lambda: Finding(*[][0]))
    begin = time.monotonic()
    checks.run("slow", lambda: time.sleep(5) or Finding(OK, ""))  # type: ignore[func-returns-value]
    assert time.monotonic() - begin < 3
    checks.run("last", lambda: Finding(OK, "fine"))
    assert [(check.name, check.state) for check in checks.found] == [
        ("refused (us-east-1)", WARNING),
        ("bug (us-east-1)", FAILURE),
        ("slow (us-east-1)", FAILURE),
        ("last (us-east-1)", OK),
    ]
    refused, bug, slow, _ = checks.found
    assert (refused.detail, refused.fix) == ("no", "ask")
    assert bug.detail == "this check has a bug: IndexError: list index out of range"
    assert (slow.detail, slow.fix) == ("no answer within 0.2 s", "try again with a longer --timeout")


def test_a_check_that_needs_another() -> None:
    """A check that cannot run names the check that blocks it, also indirectly; one that only warns blocks nothing."""
    checks = Checks(5)
    checks.run("first", lambda: Finding(FAILURE, "", blocks=True))
    checks.run("second", lambda: Finding(OK, ""), needs=["other", "first"])
    checks.run("third", lambda: Finding(OK, ""), needs=["second"])
    checks.run("weak", lambda: Finding(FAILURE, ""))
    checks.run("fourth", lambda: Finding(OK, ""), needs=["weak"])
    assert states(checks) == {"first": FAILURE, "second": WARNING, "third": WARNING, "weak": FAILURE, "fourth": OK}
    assert checks.found[1].detail == "not checked, because of: first"


@pytest.mark.parametrize(
    ("ahead", "state", "detail"),
    [(0, OK, " AWS"), (100, WARNING, "100 s ahead of AWS"), (900, FAILURE, "ahead of AWS"), (-900, FAILURE, "behind")],
)
def test_clock(server: Server, no_aws: Path, ahead: int, state: str, detail: str) -> None:
    """A clock that is wrong by minutes is detected from the Date header, without credentials."""
    server.answers = [Answer(403, "text/plain", b"")]
    stack = connected(no_aws, region="us-east-1", endpoint_url=server.url)
    with stack:
        finding = _clock(stack, lambda: time.time() + ahead)
    assert finding.state == state
    assert detail in finding.detail or ahead == 100
    assert bool(finding.fix) == (state != OK)


def test_no_credentials(no_aws: Path, server: Server) -> None:
    """Without credentials, the checks that need no account still run."""
    server.answers = [Answer(403, "text/plain", b"")]
    stack = connected(no_aws, region="us-east-1", endpoint_url=server.url)
    environ = {"TICKETCTL_HOME": str(no_aws)}
    with stack:
        found = {check.name: check for check in examine(Regions(stack, environ=environ), environ)}
    assert {name: check.state for name, check in found.items()} == {
        "versions": OK,
        "settings": OK,
        "cache": OK,
        "embedded AWS": OK,
        "credentials": FAILURE,
        "clock": OK,
        "stack": WARNING,
    }
    assert found["credentials"].detail.startswith("no AWS credentials")
    assert found["credentials"].fix
    assert found["stack"].detail == "not checked, because of: credentials"


def test_a_table_without_credentials(no_aws: Path, server: Server) -> None:
    """If a table is set, the table is what could not be checked."""
    server.answers = [Answer(403, "text/plain", b"")]
    environ = {"TICKETCTL_HOME": str(no_aws)}
    with connected(no_aws, region="us-east-1", endpoint_url=server.url, table="Old") as stack:
        found = examine(Regions(stack, environ=environ), environ)
    assert (found[-1].name, found[-1].detail) == ("table", "not checked, because of: credentials")


def test_slow_credentials(no_aws: Path) -> None:
    """A credential source that hangs is named, within the timeout."""
    (no_aws / "aws_config").write_text("[default]\ncredential_process = sleep 20\n")
    with connected(no_aws, region="us-east-1", timeout=4.0) as stack:
        checks = Checks(4.0)
        checks.run("credentials", lambda: _credentials(stack.session))
    assert checks.found[0].state == FAILURE
    assert "took too long (source: custom-process)" in checks.found[0].detail


def test_unreachable_sts(monkeypatch: pytest.MonkeyPatch, no_aws: Path) -> None:
    """If STS is unreachable, the account is unknown, and the stack is still checked."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    environ = {"TICKETCTL_HOME": str(no_aws)}
    with connected(no_aws, region="us-east-1", timeout=2, endpoint_url="http://127.0.0.1:9") as stack:
        found = {check.name: check for check in examine(Regions(stack, environ=environ), environ)}
    assert found["credentials"].state == WARNING
    assert found["credentials"].detail.startswith("from env; the account is unknown: sts in us-east-1")
    assert found["stack"].detail.startswith("CloudFormation in us-east-1 cannot be reached")


def test_no_region(no_aws: Path) -> None:
    """Without a region, only the settings fail."""
    environ = {"TICKETCTL_HOME": str(no_aws)}
    with connected(no_aws) as stack:
        found = {check.name: check for check in examine(Regions(stack, environ=environ), environ)}
    assert [name for name, check in found.items() if check.state == FAILURE] == ["settings"]
    assert found["settings"].detail.startswith("no region is set")
    assert found["stack"].detail == "not checked, because of: settings"


def test_settings_hide_passwords(no_aws: Path) -> None:
    """The settings are shown with their sources and without the passwords of URLs."""
    stack = connected(no_aws, region="us-east-1", endpoint_url="http://me:secret@127.0.0.1:9", timeout=0.3)
    environ = {"TICKETCTL_HOME": str(no_aws)}
    with stack:
        details = [check.detail for check in examine(Regions(stack, environ=environ), environ)]
    assert "region us-east-1 (from --region)" in details[1].replace("regions", "region")
    assert not any("secret" in detail for detail in details)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """If the cache folder is not writable, that is a warning, because everything still works, but slower."""
    (tmp_path / "file").touch()
    finding = _cache({"TICKETCTL_HOME": str(tmp_path / "file" / "folder")})
    assert (finding.state, finding.fix) == (WARNING, "set TICKETCTL_HOME to a folder that you can write")
    assert _cache({"TICKETCTL_HOME": str(tmp_path / "new")}).state == OK
    assert not (tmp_path / "new").exists()


def test_drift() -> None:
    """A drift that a command can repair is a warning with the command; a table with another key is a failure."""
    repairable = Drift("BillingMode", "PROVISIONED", "aws dynamodb …")
    assert _drift([]) == (OK, "as in the template", "", False)
    assert _drift([repairable]) == (WARNING, "BillingMode is PROVISIONED", "aws dynamodb …", False)
    assert _drift([repairable, Drift("KeySchema", [], "")]).state == FAILURE


def test_a_stack_without_a_function(tmp_path: Path) -> None:
    """A stack without a function is fine unless --via url needs the function."""
    account = Account(US)
    account.deploy(US)
    stack = account.stacks[US]
    account.stacks[US] = replace(stack, outputs={"TableName": "Tickets"})
    found = []
    choices: list[dict[str, Any]] = [{"via": "dynamodb"}, {}, {"via": "url"}]
    for flags in choices:
        regions = regions_of(account, tmp_path, US, **flags)
        found += [check for check in _in_region(regions.home, several=False) if check.name == "url"]
    assert [check.state for check in found] == [OK, OK, WARNING]
    assert found[-1].fix == "use --via dynamodb"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("UPDATE_COMPLETE", OK),
        ("UPDATE_IN_PROGRESS", WARNING),
        ("UPDATE_ROLLBACK_COMPLETE", WARNING),
        ("DELETE_FAILED", FAILURE),
        ("ROLLBACK_COMPLETE", FAILURE),
    ],
)
def test_stack_states(tmp_path: Path, status: str, state: str) -> None:
    """If the last deployment of the stack failed, the finding has CloudFormation's reason."""
    account = Account(US)
    account.deploy(US)
    account.stacks[US] = replace(account.stacks[US], status=status, reason="why")
    finding = _stack(regions_of(account, tmp_path, US).home, FAILURE, {})
    assert (finding.state, finding.detail) == (state, f"{status}: why, URL private")
    assert finding.fix == ("" if state == OK else "ticketctl deploy")


def test_several_regions(tmp_path: Path) -> None:
    """With several regions each check names its region, and a region without the stack does not hide the others."""
    account = Account(US, EU)
    account.deploy(US)
    environ = {"TICKETCTL_HOME": str(tmp_path)}
    found = {check.name: check for check in examine(regions_of(account, tmp_path, US, EU), environ)}
    assert found[f"stack ({US})"].state == OK
    assert found[f"stack ({EU})"].detail == f"Tickets is not deployed in {EU}"
    assert found[f"url ({EU})"].detail == "not checked, because of: stack"
