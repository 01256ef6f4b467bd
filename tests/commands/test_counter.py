"""``counter`` while a region joins the sequence: another machine deploys it in the middle of the command."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_stack import Shell
from tests.support.memory_aws import EU, STACK, US, Account
from tests.support.model_table import Fate
from ticketctl.commands.counter import adopt, advance, freeze, thaw
from ticketctl.counters.arrangement import arrange
from ticketctl.counters.creation import create
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import Member
from ticketctl.counters.table import Counters
from ticketctl.errors import RefusedError


@pytest.mark.parametrize(
    ("command", "arguments", "last", "state"),
    [
        (freeze, {}, -1, "frozen"),
        (thaw, {}, -1, "mints"),
        (advance, {"to": 1000}, 999, "mints"),
        (adopt, {"from_max": "numbers", "column": None}, 999, "mints"),
    ],
    ids=["freeze", "thaw", "advance", "adopt"],
)
def test_a_region_joins_in_the_meantime(
    tmp_path: Path, command: Callable[..., None], arguments: dict[str, Any], last: int, state: str
) -> None:
    """A command that may not have changed the counter of a region that has just joined says so; the next run does."""
    if "from_max" in arguments:
        (tmp_path / "numbers").write_text("1000\n", encoding="utf-8")
        arguments = {**arguments, "from_max": str(tmp_path / "numbers")}
    account = Account()
    account.deploy(US)
    shell, table = Shell(account, tmp_path), account.tables[US]
    us = Member(Counters(table, STACK, region=US), Lane(1, 1))
    create([us], [US], "orders")

    def join(operation: str, request: Mapping[str, Any]) -> Fate:
        if operation == "UpdateItem" and request["Key"] == {"partition": {"S": "orders"}}:
            table.before_call = lambda *_: Fate.ANSWERED
            account.deploy(EU, Offset="0")
            arrange([us, Member(Counters(account.tables[EU], STACK, region=EU))], [EU])
        return Fate.ANSWERED

    table.before_call = join
    with pytest.raises(RefusedError, match=f"{EU} has joined the sequence in the meantime"):
        shell.run(command, US, flags={"region": None}, name="orders", **arguments)
    shell.run(command, US, flags={"region": None}, name="orders", **arguments)
    rows = [line.split("\t") for line in shell.stdout.splitlines()]
    assert [(row[-1], row[5]) for row in rows] == [(US, state), (EU, state)]
    assert min(int(row[1]) for row in rows) >= last
