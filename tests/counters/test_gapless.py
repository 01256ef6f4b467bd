"""Gapless counters: they are created in one region, stay there, and administration leaves no gap."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.counter_items import item, regions
from tests.support.minting import requested
from tests.support.model_table import ModelTable
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.arrangement import arrange
from ticketctl.counters.changes import adopt, advance, freeze, thaw
from ticketctl.counters.creation import create
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import Member
from ticketctl.counters.table import Counters
from ticketctl.deadline import Deadline
from ticketctl.errors import CounterGaplessError, RefusedError, UnknownCounterError, UsageError
from ticketctl.minting.dynamodb import DynamoDBSource

GAPLESS = {"S": "gapless"}
STOPPED = {"S": "gapless-frozen"}


def region(name: str, *items: dict[str, Any], start: Lane | None = None) -> tuple[ModelTable, Member]:
    """A region's table and its member of the sequence; ``start`` is the lane of its stack."""
    table = ModelTable("Tickets", rows={str(each["partition"]["S"]): each for each in items})
    return table, Member(Counters(table, "Tickets", region=name), start)


def items(table: ModelTable) -> list[Any]:
    return list(table.rows.values())


def test_created() -> None:
    """A gapless counter is created with its mark; creating it again does not change it."""
    table, east = region("east", start=Lane(1, 1))
    (counter,), is_new = create([east], ["east"], "invoices", gapless=True, start=5000, ceiling=9999)
    assert is_new
    assert (counter.last, counter.gapless, counter.frozen, counter.state) == (4999, True, False, "gapless")
    assert items(table) == [item("invoices", 4999, ceiling={"N": "9999"}, frozen=GAPLESS)]
    assert create([east], ["east"], "invoices", gapless=True) == ([counter], False)


@pytest.mark.parametrize("mark", [GAPLESS, STOPPED], ids=["gapless", "frozen"])
def test_a_counter_does_not_change_its_kind(mark: dict[str, str]) -> None:
    """``create`` does not turn a gapless counter into an ordinary one or the reverse; the error names its kind."""
    table, east = region("east", item("invoices", 7, frozen=mark), item("orders", 7), start=Lane(1, 1))
    before = items(table)
    with pytest.raises(RefusedError, match=r"with other options: .*, gapless$"):
        create([east], ["east"], "invoices")
    with pytest.raises(RefusedError, match=rf"with other options: .*ceiling {2**53 - 1}$"):
        create([east], ["east"], "orders", gapless=True)
    assert items(table) == before


@pytest.mark.parametrize("option", ["offset", "increment"])
def test_it_has_no_lane(option: str) -> None:
    """A gapless counter always has increment 1, so a lane is wrong usage."""
    table, east = region("east", start=Lane(1, 1))
    with pytest.raises(UsageError, match="cannot be combined"):
        create([east], ["east"], "invoices", gapless=True, **{option: 1})
    with pytest.raises(UsageError, match="reserved for its default counter"):
        create([east], ["east"], "east", gapless=True)
    assert items(table) == []


def test_it_is_not_created_in_a_shared_sequence() -> None:
    """A gapless counter cannot be created in several regions, or in a sequence that another region or server shares."""
    east, west = region("east", start=Lane(1, 1)), region("west")
    shared = region("east", item("east", 9, 2, **regions("east", "west")), start=Lane(1, 1))
    odd = region("east", start=Lane(1, 2))
    for worlds in ([east, west], [shared], [odd]):
        members = [member for _, member in worlds]
        before = [items(table) for table, _ in worlds]
        with pytest.raises(RefusedError, match="'invoices' cannot be gapless"):
            create(members, [member.region for member in members], "invoices", gapless=True)
        assert [items(table) for table, _ in worlds] == before


def joined() -> tuple[ModelTable, Sequence[Member], list[str]]:
    """A region with a gapless counter that another region has joined, and the messages."""
    east, donor = region("east", item("east", 9), item("invoices", 5, frozen=GAPLESS))
    _, west = region("west")
    told: list[str] = []
    arrange([donor, west], ["east", "west"], told.append)
    return east, [donor, west], told


def test_it_stays_in_its_region() -> None:
    """When a region joins, the gapless counter stays in its region; that is reported once."""
    east, members, told = joined()
    assert "invoices: not handed over to west: it is in a state that several regions cannot share" in told
    assert east.rows["invoices"] == item("invoices", 5, frozen=GAPLESS)
    assert members[1].table.item("invoices") is None
    again: list[str] = []
    arrange(members, ["east", "west"], again.append)
    assert again == []
    (counter,), is_new = create(members, ["east", "west"], "invoices", gapless=True)
    assert (counter.region, counter.last, is_new) == ("east", 5, False)


def test_advance_and_adopt_refuse_it() -> None:
    """Advance and adopt refuse a gapless counter, frozen or not, because they would leave a gap."""
    for mark in (GAPLESS, STOPPED):
        table, east = region("east", item("invoices", 5, frozen=mark), start=Lane(1, 1))
        with pytest.raises(CounterGaplessError, match="would leave a gap"):
            advance([east], "invoices", 9)
        with pytest.raises(CounterGaplessError, match="would leave a gap"):
            adopt([east], ["east"], "invoices", 9)
        with pytest.raises(CounterGaplessError, match="would leave a gap"):
            east.table.advance("invoices", 9)
        assert items(table) == [item("invoices", 5, frozen=mark)]


def test_frozen_and_thawed_it_stays_gapless() -> None:
    """Freeze writes another mark and thaw restores it; both can be repeated."""
    table, east = region("east", item("invoices", 5, frozen=GAPLESS), start=Lane(1, 1))
    for change, mark, state in [
        (thaw, GAPLESS, "gapless"),
        (freeze, STOPPED, "gapless, frozen"),
        (freeze, STOPPED, "gapless, frozen"),
        (thaw, GAPLESS, "gapless"),
    ]:
        assert [counter.state for counter in change([east], "invoices")] == [state]
        assert items(table) == [item("invoices", 5, frozen=mark)]
    with pytest.raises(UnknownCounterError):
        freeze([east], "users")


@pytest.mark.parametrize("mark", [GAPLESS, STOPPED], ids=["gapless", "frozen"])
def test_a_plain_mint_is_refused(mark: dict[str, str]) -> None:
    """A plain mint from a gapless counter is an error that says how to take a number."""
    table, _ = region("east", item("invoices", 5, frozen=mark))
    source = DynamoDBSource(lambda _: sdk_sender(table, "the table"), "Tickets", region="east")
    with pytest.raises(CounterGaplessError) as refused:
        source.mint(requested(1, partition="invoices"), Deadline(5))
    assert refused.value.as_dict() == {
        "error": {
            "code": "counter_gapless",
            "message": "The counter 'invoices' is gapless: only a claim takes its numbers.",
            "hint": "take the number together with its record, from Python: TicketClient.claim",
            "exit_code": 6,
        }
    }
    assert items(table) == [item("invoices", 5, frozen=mark)]
