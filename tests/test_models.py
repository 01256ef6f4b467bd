"""``models``: blocks and counters, and the answers from which they are read."""

from dataclasses import replace
from typing import Any

import pytest

from ticketctl.models import Block, Counter

BLOCK = {"partition": "orders", "hand_crafted_int": 17, "first": 8, "last": 17, "count": 4, "increment": 3}
REPLAYED = BLOCK | {"replayed": True}
PRINTED = {name: value for name, value in BLOCK.items() if name != "hand_crafted_int"}
COUNTER = {
    "partition": "orders",
    "hand_crafted_int": 17,
    "increment": 3,
    "ceiling": 100,
    "remaining": 27,
    "minted_at": 1_700_000_000_000,
}


def test_block() -> None:
    """A block is read from an answer and yields its tickets in ascending order."""
    block = Block.from_answer(BLOCK, "here")
    assert block == Block(partition="orders", first=8, last=17, count=4, increment=3)
    assert list(block.tickets) == [8, 11, 14, 17]


def test_block_as_dict() -> None:
    """As a dictionary, a block has the names of the answer, ``replayed`` and ``region``."""
    nowhere: dict[str, Any] = {"region": None, "possible_gaps": [], "receipt_missing": False}
    assert Block.from_answer(BLOCK, "here").as_dict() == PRINTED | {"replayed": False} | nowhere
    assert Block.from_answer(REPLAYED, "here").as_dict() == PRINTED | {"replayed": True} | nowhere
    there = replace(Block.from_answer(REPLAYED, "here"), region="eu-west-1", possible_gaps=("us-east-1",))
    assert there.as_dict() == PRINTED | nowhere | {
        "replayed": True,
        "region": "eu-west-1",
        "possible_gaps": ["us-east-1"],
    }


@pytest.mark.parametrize("word", [1, "true", None, [True]], ids=repr)
def test_block_of_an_odd_replay(word: object) -> None:
    """A block is a replay only if the answer says ``true``."""
    assert Block.from_answer(BLOCK | {"replayed": word}, "here").replayed is False


@pytest.mark.parametrize(
    "contradiction",
    [
        {"count": 3},
        {"count": 5},
        {"count": 0, "last": 7},
        {"count": 0, "first": 18, "last": 17},
        {"last": 16},
        {"first": 9},
        {"first": 18},
        {"increment": 0},
        {"increment": -3},
        {"increment": 2},
        {"first": "eight"},
        {"first": None},
        {"first": []},
        {"first": float("inf")},
        {"first": float("nan")},
        {"first": 8.5},
        {"last": 8 + 3 * 10**30},
        {"first": 0, "last": 9},
        {"first": -16, "last": -7},
    ],
    ids=str,
)
def test_contradicting_block(contradiction: dict[str, Any]) -> None:
    """An answer whose numbers contradict each other, or are no tickets, is invalid."""
    with pytest.raises(ValueError, match=r"."):
        Block.from_answer(BLOCK | contradiction, "here")


def test_numbers_that_are_no_tickets_are_named() -> None:
    """The error names the numbers, because they are spent."""
    with pytest.raises(ValueError, match="its numbers are -16 to -7; a ticket is from 1 to 2\\^53 - 1"):
        Block.from_answer(BLOCK | {"first": -16, "last": -7}, "here")


@pytest.mark.parametrize("missing", ["partition", "first", "last", "count", "increment"])
def test_incomplete_block(missing: str) -> None:
    """An answer with a missing field is invalid."""
    with pytest.raises(ValueError, match=f"{missing} is None"):
        Block.from_answer({name: value for name, value in BLOCK.items() if name != missing}, "here")


def test_counter() -> None:
    """A counter is read from an answer and has the same dictionary; if the answer does not say so, it is not frozen."""
    counter = Counter.from_answer(COUNTER)
    assert counter == Counter(
        partition="orders",
        last=17,
        increment=3,
        ceiling=100,
        remaining=27,
        minted_at=1_700_000_000_000,
    )
    numbers = {name: value for name, value in COUNTER.items() if name != "hand_crafted_int"}
    assert counter.as_dict() == numbers | {"last": 17, "frozen": False, "region": None, "gapless": False, "offset": 2}


@pytest.mark.parametrize(
    ("last", "increment", "offset"), [(0, 1, 1), (17, 1, 1), (0, 2, 2), (-1, 2, 1), (7, 2, 1), (9, 3, 3), (-2, 3, 1)]
)
def test_offset(last: int, increment: int, offset: int) -> None:
    """The offset is the residue of the lane, from 1 to the increment, whatever the last ticket is."""
    answer = COUNTER | {"hand_crafted_int": last, "increment": increment}
    assert Counter.from_answer(answer).offset == offset


def test_frozen_counter() -> None:
    """A counter is frozen only if the answer says ``true``."""
    assert Counter.from_answer(COUNTER | {"frozen": True}).frozen is True
    assert Counter.from_answer(COUNTER | {"frozen": "yes"}).frozen is False


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "mints"),
        ({"frozen": True}, "frozen"),
        ({"gapless": True}, "gapless"),
        ({"gapless": True, "frozen": True}, "gapless, frozen"),
        ({"gapless": "yes"}, "mints"),
    ],
)
def test_state(state: dict[str, object], told: str) -> None:
    """The state of a counter is one or two words."""
    assert Counter.from_answer(COUNTER | state).state == told


def test_counter_before_its_first_mint() -> None:
    """A counter that has not minted has no time of its last mint."""
    assert Counter.from_answer(COUNTER | {"minted_at": None}).minted_at is None


@pytest.mark.parametrize(
    "wrong", [{"ceiling": None}, {"remaining": "many"}, {"minted_at": {}}, {"increment": float("inf")}], ids=str
)
def test_wrong_counter(wrong: dict[str, Any]) -> None:
    """An answer with invalid numbers is not a counter."""
    with pytest.raises(ValueError, match=r"."):
        Counter.from_answer(COUNTER | wrong)


@pytest.mark.parametrize("missing", list(COUNTER))
def test_incomplete_counter(missing: str) -> None:
    """An answer with a missing field is not a counter."""
    with pytest.raises(ValueError, match=f"{missing} is None"):
        Counter.from_answer({name: value for name, value in COUNTER.items() if name != missing})


def test_a_missing_receipt() -> None:
    """A receipt is missing only if the answer says so; a retry key never has one."""
    told = [
        Block.from_answer(BLOCK | more, "here").receipt_missing for more in ({}, {"receipt": True}, {"receipt": False})
    ]
    assert told == [False, False, True]
