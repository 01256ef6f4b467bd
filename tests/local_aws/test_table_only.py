"""``deploy --table-only``: a stack without function and URL; tickets are minted from its table."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION
from tests.support.regional_stacks import own_home
from ticketctl import AsyncTicketClient, TicketClient

EU = "eu-west-1"


def test_a_table_then_a_function(ticketctl: Ticketctl, new_stack: str) -> None:
    """A table-only stack mints immediately; a deployment without the flag adds the function; the counter continues."""
    options = ("--local", "--stack", new_stack)
    deployed = ticketctl("deploy", "--table-only", *options)
    assert (deployed.returncode, deployed.stdout) == (0, "")
    assert deployed.stderr.splitlines()[-2:] == [
        f"the ticket server in {REGION} is table-only: tickets are minted from the table {new_stack}",
        f"mint a ticket: ticketctl next --stack {new_stack} --local",
    ]
    first = ticketctl("next", *options)
    assert (first.returncode, first.stdout, first.stderr) == (0, "1\n", "")
    full = ticketctl("deploy", *options)
    assert (full.returncode, full.stderr.count("Lambda::Url CreateTicketUrl")) == (0, 3), full.stderr
    assert full.stdout == ticketctl("url", *options).stdout != ""
    assert ticketctl("next", "--via", "url", *options).stdout == "2\n"


def test_what_a_table_only_stack_does(ticketctl: Ticketctl, new_stack: str) -> None:
    """Every command works on a table-only stack, except those that need the URL; deploying it again changes nothing."""
    options = ("--local", "--stack", new_stack)
    deployed = ticketctl("deploy", "--table-only", "--offset", "3", "--increment", "5", "--json", *options)
    assert json.loads(deployed.stdout) == {
        "url": None, "auth": "AWS_IAM", "changed": True, "stack": new_stack, "region": REGION
    }  # fmt: skip
    assert ticketctl("fetch", "3", *options).stdout == "3\n8\n13\n"
    assert ticketctl("status", *options).stdout.startswith(f"{REGION}\t13\t5\t")
    assert ticketctl("status", "--partition", REGION, *options).stdout.startswith(f"{REGION}\t13\t5\t")
    again = ticketctl("deploy", "--table-only", *options)
    assert (again.returncode, again.stderr.splitlines()[1]) == (0, "no changes")
    same = ticketctl("diff", "--table-only", "--exit-code", *options)
    assert (same.returncode, same.stdout) == (0, "")
    more = ticketctl("diff", "--exit-code", *options)
    assert (more.returncode, "add AWS::Lambda::Url CreateTicketUrl" in more.stdout) == (9, True)
    moved = ticketctl("deploy", "--table-only", "--offset", "4", *options)
    assert (moved.returncode, "modify AWS::DynamoDB::Table" in moved.stderr) == (0, True)
    for command in (("url",), ("next", "--via", "url"), ("verify", "--via", "url", "--mints", "1")):
        refused = ticketctl(*command, *options)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert "is table-only: it has no Function URL" in refused.stderr
        assert f"hint: ticketctl deploy --region {REGION} --stack {new_stack} --local" in refused.stderr
    assert ticketctl("verify", "--workers", "2", "--mints", "2", *options).returncode == 0


def test_a_function_is_removed_only_with_consent(ticketctl: Ticketctl, new_stack: str) -> None:
    """``--table-only`` on a stack with a function shows what is removed and asks; the counters are kept."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("next", *options).stdout == "1\n"
    asked = ticketctl("deploy", "--table-only", *options)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "  remove AWS::Lambda::Url CreateTicketUrl" in asked.stderr
    assert f"The function and its URL in {REGION} will be removed" in asked.stderr
    assert ticketctl("next", "--via", "url", *options).stdout == "2\n"
    assert ticketctl("deploy", "--table-only", "--yes", *options).returncode == 0
    assert ticketctl("next", *options).stdout == "3\n"


def test_a_machine_with_a_stale_cache(
    ticketctl: Ticketctl, environ: dict[str, str], new_stack: str, tmp_path: Path
) -> None:
    """A machine with a stale cache of the other kind of stack still mints, and --via url finds the new URL."""
    options = ("--local", "--stack", new_stack)
    other = own_home(environ, tmp_path / "other")
    assert ticketctl("next", *options, env=other).stdout == "1\n"
    assert ticketctl("deploy", "--table-only", "--yes", *options).returncode == 0
    assert ticketctl("next", *options, env=other).stdout == "2\n"  # the cached URL no longer exists
    assert ticketctl("deploy", *options).returncode == 0
    assert ticketctl("next", *options, env=other).stdout == "3\n"  # the cache has no URL
    assert ticketctl("next", "--via", "url", *options, env=other).stdout == "4\n"


def test_both_kinds_share_a_sequence(ticketctl: Ticketctl, new_stack: str) -> None:
    """A region with a function joins the sequence of a table-only region, and tickets come from both."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "--table-only", "--region", REGION, *options).returncode == 0
    assert ticketctl("deploy", "--region", EU, *options).returncode == 0
    found = ticketctl("fetch", "6", "--block", "1", "--spread", *options)
    assert (found.returncode, len(set(found.stdout.split()))) == (0, 6), found.stderr
    lanes = json.loads(ticketctl("regions", "--json", *options).stdout)["lanes"]
    assert {(lane["region"], lane["increment"]) for lane in lanes} == {(REGION, 2), (EU, 2)}
    shown = ticketctl("url", *options)
    assert (shown.returncode, shown.stdout.count("\n")) == (8, 1)


def test_the_library(
    ticketctl: Ticketctl, environ: dict[str, str], new_stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clients and their leases mint from the table without further settings."""
    monkeypatch.setenv("TICKETCTL_HOME", environ["TICKETCTL_HOME"])
    assert ticketctl("deploy", "--table-only", "--local", "--stack", new_stack).returncode == 0
    with TicketClient.connect(local=True, stack=new_stack) as client:
        assert (client.next(), next(client.lease(10))) == (1, 2)

    async def mint() -> list[int]:
        async with AsyncTicketClient.connect(local=True, stack=new_stack) as client:
            return [await client.next(), await anext(client.lease(10))]

    assert asyncio.run(mint()) == [12, 13]
