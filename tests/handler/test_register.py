"""The register of keys: a mint with a key is one write, and mints only once while the counter remembers the key."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import DERANDOMIZED, times
from tests.support.model_table import Item, ModelTable, Request, item_size
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler

NOW = 1_700_000_000_000
LOST = handler.ProblemError("outcome_unknown", "No answer.")
ORDERS = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": "40"}}


class Table:
    """A table that keeps its calls. ``fates`` are what happens to them: "ok", "reply lost" or "request lost"."""

    def __init__(self, item: Item = ORDERS, *fates: str) -> None:
        self.model = ModelTable(rows={"orders": item})
        self.fates = list(fates)
        self.calls: list[tuple[str, Request]] = []
        self.between: Callable[[], None] = lambda: None
        self.made = 0
        self._send = sdk_sender(self.model, "the table")

    def send(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        self.calls.append((operation, request))
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "request lost":
            self.between()
            raise LOST
        try:
            answer = self._send(operation, request)
        except handler.ConditionFailedError:
            if fate == "reply lost":
                raise LOST from None
            raise
        self.made += 1
        if fate == "reply lost":
            self.between()
            raise LOST
        return answer

    def mint(self, key: str, count: int = 1, fence: handler.Fence | None = None) -> dict[str, Any]:
        digest = handler.key_digest(key, NOW)
        block, _ = handler.mint(
            self.send,
            "Tickets",
            "orders",
            count,
            fence=fence or handler.Fence(),
            offset=None,
            now_ms=NOW,
            digest=digest,
        )
        return block

    def update(self, **attributes: Any) -> None:
        self.model.rows["orders"] = {**self.model.rows["orders"], **attributes}

    @property
    def last(self) -> int:
        return int(self.model.rows["orders"]["hand_crafted_int"]["N"])


def tickets(block: Mapping[str, Any]) -> list[int]:
    return list(range(block["first"], block["last"] + 1, block["increment"]))


# --- one write -------------------------------------------------------------------------------------


def test_a_mint_with_a_retry_key_is_one_write() -> None:
    """A mint with a retry key is one UpdateItem and no other call, also for the first mint of a counter."""
    table = Table()
    send, calls = table.send, table.calls
    block, _ = handler.mint_with_key(
        send, "Tickets", "orders", 3, key="once:a", fence=handler.Fence(), offset=None, now_ms=NOW
    )
    assert tickets(block) == [41, 42, 43]
    assert [operation for operation, _ in calls] == ["UpdateItem"]
    assert list(table.model.rows) == ["orders"]


def test_a_counter_begins_with_a_key() -> None:
    """The first mint of the default counter, with a key, creates it with a register."""
    table = Table()
    table.model.rows.clear()
    digest = handler.key_digest("once:a", NOW)
    for expected in (False, True):
        block, _ = handler.mint(
            table.send, "Tickets", "orders", 2, fence=handler.Fence(3), offset=2, now_ms=NOW, digest=digest
        )
        assert (tickets(block), block["replayed"]) == ([2, 5], expected)


def test_the_same_key_gives_the_same_block() -> None:
    """A second mint with the same key is rejected by the condition and replayed from the item; nothing is spent."""
    table = Table()
    first = table.mint("once:a", 5)
    assert table.mint("once:a", 5) == first | {"replayed": True}
    assert (table.last, len(table.calls)) == (45, 2)


@pytest.mark.parametrize("others", range(17))
def test_the_last_sixteen_keys_are_remembered(others: int) -> None:
    """A key is replayed until 16 other keys have followed it; then it mints new tickets."""
    table = Table()
    first = table.mint("once:a", 2)
    for number in range(others):
        table.mint(f"once:{number}", 1 + number % 3)
    assert (table.mint("once:a", 2) == first | {"replayed": True}) == (others < 16)


def test_mints_without_a_key_push_nothing_out() -> None:
    """A mint without a key leaves the register unchanged."""
    table = Table()
    first = table.mint("once:a")
    for _ in range(20):
        handler.mint(table.send, "Tickets", "orders", 1, fence=handler.Fence(), offset=None, now_ms=NOW)
    assert table.mint("once:a") == first | {"replayed": True}


def test_the_same_key_for_another_count_is_a_conflict() -> None:
    """The same key with another count spends nothing; the error says what the key minted."""
    table = Table()
    table.mint("once:a", 5)
    with pytest.raises(handler.ProblemError, match="already minted 5 from 'orders'") as raised:
        table.mint("once:a", 4)
    assert (raised.value.code, table.last) == ("idempotency_conflict", 45)


@pytest.mark.parametrize(
    "change",
    [
        {"increment": {"N": "7"}},
        {"frozen": {"BOOL": True}},
        {"ceiling": {"N": "45"}},
        {"increment": {"N": "7"}, "ceiling": {"N": "45"}, "frozen": {"BOOL": True}},
    ],
    ids=["lane", "frozen", "full", "all"],
)
def test_a_replay_comes_before_the_fence(change: dict[str, Any]) -> None:
    """A key replays its block, with the increment of that time, even if the counter has changed since."""
    table = Table()
    first = table.mint("once:a", 5)
    table.update(**change)
    assert table.mint("once:a", 5) == first | {"replayed": True}


def test_a_replay_in_a_wide_lane() -> None:
    """A block with a large increment is replayed with the same tickets."""
    table = Table(ORDERS | {"increment": {"N": "16777259"}})
    first = table.mint("once:a", 3, handler.Fence(16777259))
    assert tickets(table.mint("once:a", 3)) == tickets(first)


def test_a_damaged_register_is_an_error() -> None:
    """A key whose last ticket is damaged is neither replayed nor minted again."""
    table = Table()
    table.mint("once:a")
    table.update(l0={"S": "x"})
    with pytest.raises(handler.ProblemError, match="has no integer in 'l0'"):
        table.mint("once:a")


@pytest.mark.parametrize(
    "damage",
    [{"l0": {"N": str(2**53)}}, {"k0": {"B": handler.key_digest("once:a", NOW) + b"\x00\x01"}}],
    ids=["no ticket", "no increment"],
)
def test_an_entry_of_no_block_is_an_error(damage: Item) -> None:
    """An entry whose numbers are no block of tickets is neither replayed nor minted again."""
    table = Table()
    table.mint("once:a")
    table.update(**damage)
    with pytest.raises(handler.ProblemError, match="The register of the counter 'orders' is damaged") as raised:
        table.mint("once:a")
    assert raised.value.code == "counter_invalid"


def test_digests() -> None:
    """Different keys have different digests. A typed key's digest changes each day; a retry key's does not."""
    day = 86_400_000
    assert handler.key_digest("a", NOW) != handler.key_digest("b", NOW)
    assert handler.key_digest("a", NOW) != handler.key_digest("a", NOW + day)
    assert handler.key_digest("once:a", NOW) == handler.key_digest("once:a", NOW + day)
    assert len(handler.key_digest("a", NOW)) == 12


# --- lost answers ----------------------------------------------------------------------------------


def test_a_lost_reply_is_replayed() -> None:
    """If the answer to the write is lost, the same write is sent again and replayed, without a gap."""
    table = Table(ORDERS, "reply lost")
    assert table.mint("once:a", 2)["first"] == 41
    assert (table.last, len(table.calls)) == (42, 2)
    assert table.calls[0] == table.calls[1]


def test_a_lost_request_is_made_again() -> None:
    """If the request was lost, the second write mints; it reports a possible gap, because the handler cannot tell."""
    table = Table(ORDERS, "request lost")
    block = table.mint("once:a", 2)
    assert (tickets(block), block["possible_gap"], table.last) == ([41, 42], True, 42)


def test_a_key_that_was_pushed_out_after_a_lost_reply_says_so() -> None:
    """If 16 other mints follow a lost reply, the second write mints again and reports a possible gap."""
    table, other = Table(ORDERS, "reply lost"), 0

    def in_between() -> None:
        nonlocal other
        for other in range(16):
            table.mint(f"once:other {other}")

    table.between = in_between
    block = table.mint("once:a")
    assert (tickets(block), block["possible_gap"], block["replayed"]) == ([58], True, False)


def test_a_replay_after_two_unknown_attempts_does_not_tell_of_the_first() -> None:
    """If 16 other mints come between two lost replies, both writes minted; a later replay has the block of the second.

    So a caller that gets a replay after ``outcome_unknown`` still has a possible gap.
    """
    table = Table(ORDERS, "reply lost", *["ok"] * 16, "reply lost")

    def in_between() -> None:
        table.between = lambda: None
        for other in range(16):
            table.mint(f"once:other {other}")

    table.between = in_between
    with pytest.raises(handler.ProblemError) as raised:
        table.mint("once:a")
    block = table.mint("once:a")
    assert raised.value.code == "outcome_unknown"
    assert (tickets(block), block["replayed"], table.made, table.last) == ([58], True, 18, 58)


@pytest.mark.parametrize("fates", [("reply lost", "reply lost"), ("request lost", "request lost")])
def test_two_unknown_attempts_are_unknown(fates: tuple[str, ...]) -> None:
    """The write is sent at most twice; if both attempts are unknown, the outcome is unknown."""
    table = Table(ORDERS, *fates)
    with pytest.raises(handler.ProblemError) as raised:
        table.mint("once:a")
    assert (raised.value.code, len(table.calls)) == ("outcome_unknown", 2)


@pytest.mark.parametrize(
    "change",
    [{"frozen": {"BOOL": True}}, {"ceiling": {"N": "40"}}, {"increment": {"S": "x"}}],
    ids=["frozen", "full", "bad"],
)
def test_no_refusal_after_an_unknown_attempt_means_not_minted(change: dict[str, Any]) -> None:
    """A rejected second attempt is still unknown: the first may have minted and been pushed out of the register."""
    table = Table(ORDERS, "request lost")
    table.between = lambda: table.update(**change)
    with pytest.raises(handler.ProblemError) as raised:
        table.mint("once:a")
    assert raised.value is LOST


def test_a_lane_that_keeps_changing_after_an_unknown_attempt_is_unknown() -> None:
    """If every later attempt is rejected because the lane has changed again, the outcome stays unknown."""
    table = Table(ORDERS, "request lost")
    send, increment = table.send, 1

    def change_and_send(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        nonlocal increment
        increment += 1
        table.update(increment={"N": str(increment)})
        return send(operation, request)

    table.send = change_and_send  # type: ignore[method-assign]
    with pytest.raises(handler.ProblemError) as raised:
        table.mint("once:a")
    assert (raised.value, len(table.calls)) == (LOST, handler.WRITE_ATTEMPTS)


def test_a_mint_without_a_key_is_never_sent_twice() -> None:
    """A mint without a key is sent once, because a second write could spend a second ticket."""
    table = Table(ORDERS, "reply lost")
    with pytest.raises(handler.ProblemError):
        handler.mint(table.send, "Tickets", "orders", 1, fence=handler.Fence(), offset=None, now_ms=NOW)
    assert len(table.calls) == 1


@settings(max_examples=times(100), deadline=None, derandomize=DERANDOMIZED, database=None)
@given(
    mints=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(1, 3),
            st.lists(st.sampled_from(["ok", "reply lost", "request lost"]), max_size=2),
            st.sampled_from([1, 1, 2, 3]),
        ),
        max_size=40,
    )
)
def test_any_history_of_keys_and_losses(mints: list[tuple[int, int, list[str], int]]) -> None:
    """No ticket is issued twice; a block that nobody holds is reported as an unknown outcome or a possible gap."""
    table, latest, issued = Table(), dict[str, list[int]](), set[int]()
    named = held = 0
    for key, count, fates, increment in mints:
        table.fates = list(fates)
        table.update(increment={"N": str(increment)})
        name = f"once:{key}/{count}"
        try:
            block = table.mint(name, count)
        except handler.ProblemError as problem:
            named += problem.code == "outcome_unknown"
            continue
        named += bool(block.get("possible_gap"))
        numbers = tickets(block)
        if not (block["replayed"] and latest.get(name) == numbers):
            assert issued.isdisjoint(numbers)
            issued.update(numbers)
            latest[name] = numbers
            held += 1
    assert held <= table.made <= held + named


# --- the size of an item ---------------------------------------------------------------------------


def test_a_mint_stays_one_write_unit() -> None:
    """An item with the longest name, a full register, a ceiling, the largest numbers and six regions is below 1 KB."""
    table, name = ModelTable(), "n" * 255
    regions = ["ap-southeast-2", "ap-northeast-1", "eu-central-1", "us-east-1", "us-west-2", "sa-east-1"]
    table.rows[name] = {
        "partition": {"S": name},
        "hand_crafted_int": {"N": str(2**53 - 1000)},
        "increment": {"N": "6"},
        "ceiling": {"N": str(2**53 - 1)},
        "regions": {"SS": regions},
    }
    fence = handler.Fence(6, 2**53 - 1)
    for number in range(20):
        handler.mint(
            sdk_sender(table, "the table"),
            "Tickets",
            name,
            1,
            fence=fence,
            offset=None,
            now_ms=NOW,
            digest=handler.key_digest(f"once:{number}", NOW),
        )
    assert 800 < item_size(table.rows[name]) < 1024
