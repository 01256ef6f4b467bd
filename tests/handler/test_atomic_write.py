"""The atomic write as pure functions: the requests they build and how they read the responses."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from ticketctl.handler import handler

MAX = handler.MAX_TICKET
ONE = handler.Fence()
ARTICLE = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "41"}}


class Table:
    """A ``send`` that returns prepared answers in order and keeps the requests."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []

    def __call__(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        assert operation == "UpdateItem"
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def minted(last: int) -> dict[str, Any]:
    return {"Attributes": {"hand_crafted_int": {"N": str(last)}}}


def refused(**attributes: str) -> Exception:
    numbers = {name: {"N": value} for name, value in attributes.items()}
    return handler.ConditionFailedError({"partition": {"S": "orders"}, **numbers})


def mint(
    table: Table, *, count: int = 1, lane: handler.Fence = ONE, offset: int | None = None
) -> tuple[dict[str, Any], handler.Fence]:
    return handler.mint(table, "Tickets", "orders", count, fence=lane, offset=offset, now_ms=7)


def problem_of(table: Table, *, count: int = 1, offset: int | None = None) -> handler.ProblemError:
    with pytest.raises(handler.ProblemError) as raised:
        mint(table, count=count, offset=offset)
    return raised.value


# --- requests --------------------------------------------------------------------------------------


def test_the_first_ticket_of_the_default_counter() -> None:
    """The write that takes the first ticket creates the default counter."""
    assert handler.mint_request("Tickets", "us-east-1", 1, handler.Fence(), offset=1, now_ms=1_700_000_000_000) == {
        "TableName": "Tickets",
        "Key": {"partition": {"S": "us-east-1"}},
        "UpdateExpression": "SET #last = if_not_exists(#last, :start) + :step, #minted_at = :now",
        "ConditionExpression": (
            "attribute_not_exists(#partition) OR (attribute_exists(#last) AND attribute_not_exists(#frozen)"
            " AND #last >= :least AND #last <= :room"
            " AND (attribute_not_exists(#increment) OR #increment = :increment)"
            " AND (attribute_not_exists(#ceiling) OR #ceiling >= :ceiling))"
        ),
        "ExpressionAttributeNames": {
            "#partition": "partition",
            "#last": "hand_crafted_int",
            "#increment": "increment",
            "#ceiling": "ceiling",
            "#minted_at": "minted_at",
            "#frozen": "frozen",
        },
        "ExpressionAttributeValues": {
            ":start": {"N": "0"},
            ":step": {"N": "1"},
            ":least": {"N": "0"},
            ":room": {"N": "9007199254740990"},
            ":increment": {"N": "1"},
            ":ceiling": {"N": "9007199254740991"},
            ":now": {"N": "1700000000000"},
        },
        "ReturnValues": "UPDATED_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def test_a_block_of_a_counter_in_a_lane_with_a_ceiling() -> None:
    """The write for an existing counter succeeds only if the counter has the lane and ceiling that the caller knows."""
    assert handler.mint_request("Tickets", "orders", 10, handler.Fence(3, 1000), offset=None, now_ms=7) == {
        "TableName": "Tickets",
        "Key": {"partition": {"S": "orders"}},
        "UpdateExpression": (
            "SET #last = if_not_exists(#last, :start) + :step, #minted_at = :now, #increment = :increment"
        ),
        "ConditionExpression": (
            "attribute_exists(#last) AND attribute_not_exists(#frozen) AND #last >= :least AND #last <= :room"
            " AND #increment = :increment AND #ceiling = :ceiling"
        ),
        "ExpressionAttributeNames": {
            "#last": "hand_crafted_int",
            "#increment": "increment",
            "#ceiling": "ceiling",
            "#minted_at": "minted_at",
            "#frozen": "frozen",
        },
        "ExpressionAttributeValues": {
            ":start": {"N": "0"},
            ":step": {"N": "30"},
            ":least": {"N": "-2"},
            ":room": {"N": "970"},
            ":increment": {"N": "3"},
            ":ceiling": {"N": "1000"},
            ":now": {"N": "7"},
        },
        "ReturnValues": "UPDATED_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@pytest.mark.parametrize(
    ("lane", "offset", "start", "step"),
    [
        (handler.Fence(), 1, "0", "5"),
        (handler.Fence(), 100, "99", "5"),
        (handler.Fence(2), 1, "-1", "10"),
        (handler.Fence(2), 2, "0", "10"),
        (handler.Fence(3), 2, "-1", "15"),
    ],
)
def test_a_counter_begins_one_step_before_its_offset(lane: handler.Fence, offset: int, start: str, step: str) -> None:
    """A new counter starts one increment below its offset, so that its first ticket is the offset."""
    values = handler.mint_request("T", "p", 5, lane, offset=offset, now_ms=7)["ExpressionAttributeValues"]
    assert (values[":start"], values[":step"]) == ({"N": start}, {"N": step})


def test_a_counter_is_read_consistently() -> None:
    """Reading a counter is a consistent GetItem, so it never shows an older number."""
    assert handler.read_request("Tickets", "orders") == {
        "TableName": "Tickets",
        "Key": {"partition": {"S": "orders"}},
        "ConsistentRead": True,
    }


@pytest.mark.parametrize("increment", [1, 3])
@pytest.mark.parametrize("ceiling", [MAX, 1000])
@pytest.mark.parametrize("offset", [None, 1, 2])
@pytest.mark.parametrize("count", [1, 10_000])
def test_placeholders_are_declared_exactly_where_they_are_used(
    increment: int, ceiling: int, offset: int | None, count: int
) -> None:
    """DynamoDB rejects an unused or undeclared placeholder, so each request declares exactly those that it uses."""
    lane = handler.Fence(increment, ceiling)
    request = handler.mint_request("T", "p", count, lane, offset=offset, now_ms=7)
    used = set(re.findall(r"[#:]\w+", request["UpdateExpression"] + " " + request["ConditionExpression"]))
    assert used == {*request["ExpressionAttributeNames"], *request["ExpressionAttributeValues"]}


@pytest.mark.parametrize("increment", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 10_000])
def test_the_last_ticket_may_be_the_ceiling_itself(increment: int, count: int) -> None:
    """A block fits if its last ticket is the largest possible ticket; a block that ends one number later does not."""
    values = handler.mint_request("T", "p", count, handler.Fence(increment), offset=None, now_ms=7)[
        "ExpressionAttributeValues"
    ]
    assert int(values[":room"]["N"]) + int(values[":step"]["N"]) == MAX


# --- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "count", "increment", "first"),
    [(42, 1, 1, 42), (42, 10, 1, 33), (42, 1, 3, 42), (42, 10, 3, 15), (MAX, 10_000, 1, MAX - 9_999)],
)
def test_a_block_ends_at_the_number_that_the_write_gave(last: int, count: int, increment: int, first: int) -> None:
    """The tickets of a block are the last ``count`` numbers of the lane up to the number in the answer."""
    assert handler.read_block(minted(last), "orders", count, handler.Fence(increment)) == {
        "partition": "orders",
        "hand_crafted_int": last,
        "first": first,
        "last": last,
        "count": count,
        "increment": increment,
    }


def test_a_counter_of_the_article() -> None:
    """An item that has only its key and its last ticket is a counter with increment 1."""
    assert handler.read_fence(ARTICLE) == handler.Fence(1, 2**53 - 1)
    assert handler.read_counter(ARTICLE) == {
        "partition": "us-east-1",
        "hand_crafted_int": 41,
        "increment": 1,
        "ceiling": 2**53 - 1,
        "remaining": 2**53 - 42,
        "minted_at": None,
        "frozen": False,
        "gapless": False,
    }


def test_a_counter_in_a_lane_with_a_ceiling() -> None:
    """A counter reports how many numbers of its lane remain up to its ceiling."""
    attributes = {"increment": {"N": "3"}, "ceiling": {"N": "50"}, "minted_at": {"N": "1700000000000"}}
    assert handler.read_counter(ARTICLE | attributes) == {
        "partition": "us-east-1",
        "hand_crafted_int": 41,
        "increment": 3,
        "ceiling": 50,
        "remaining": 3,
        "minted_at": 1_700_000_000_000,
        "frozen": False,
        "gapless": False,
    }


@pytest.mark.parametrize("mark", [{"BOOL": True}, {"BOOL": False}, {"NULL": True}, {"S": ""}])
def test_a_counter_is_frozen_by_the_mark_whatever_its_value(mark: dict[str, Any]) -> None:
    """The write's condition checks only whether ``frozen`` exists, and so does the reader."""
    assert handler.read_counter(ARTICLE | {"frozen": mark})["frozen"] is True


@pytest.mark.parametrize("ceiling", [str(MAX), str(MAX + 1), "9" * 38])
def test_no_ceiling_is_above_the_largest_ticket(ceiling: str) -> None:
    """A stored ceiling above the largest exact integer is read as that integer."""
    assert handler.read_fence(ARTICLE | {"ceiling": {"N": ceiling}}) == handler.Fence(1, MAX)


@pytest.mark.parametrize("last", ["50", "51", str(MAX)])
def test_nothing_remains_at_or_above_the_ceiling(last: str) -> None:
    """A counter at or above its ceiling has 0 tickets left, not a negative number."""
    item = ARTICLE | {"hand_crafted_int": {"N": last}, "ceiling": {"N": "50"}}
    assert handler.read_counter(item)["remaining"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"hand_crafted_int": {"N": "41.5"}}, id="fraction"),
        pytest.param({"hand_crafted_int": {"S": "41"}}, id="string"),
        pytest.param({"hand_crafted_int": {"NULL": True}}, id="null"),
        pytest.param({"hand_crafted_int": {}}, id="no type"),
        pytest.param({"increment": {"N": "0"}}, id="increment 0"),
        pytest.param({"increment": {"N": "-1"}}, id="increment -1"),
        pytest.param({"increment": {"N": "1.5"}}, id="increment fraction"),
        pytest.param({"increment": {"S": "3"}}, id="increment string"),
        pytest.param({"ceiling": {"N": "99.5"}}, id="ceiling fraction"),
        pytest.param({"ceiling": {"S": "99"}}, id="ceiling string"),
        pytest.param({"minted_at": {"S": "today"}}, id="minted_at string"),
    ],
)
def test_a_damaged_item_is_named_and_not_minted_from(damage: dict[str, Any]) -> None:
    """A damaged item is reported as ``counter_invalid``, both on a read and after a rejected write."""
    item = ARTICLE | damage
    with pytest.raises(handler.ProblemError, match="'us-east-1'") as raised:
        handler.read_counter(item)
    assert (raised.value.code, raised.value.status) == ("counter_invalid", 409)
    assert problem_of(Table(handler.ConditionFailedError(item))).code == "counter_invalid"


def test_an_item_without_a_number_is_not_a_counter() -> None:
    """An item that has only a key is an error, not a counter at zero."""
    problem = problem_of(Table(refused()), offset=1)
    assert (problem.code, problem.detail) == (
        "counter_invalid",
        "The item of the counter 'orders' has no integer in 'hand_crafted_int'.",
    )


# --- minting ---------------------------------------------------------------------------------------


def test_minting_in_the_known_lane_is_one_write() -> None:
    """If the caller knows the counter's lane, minting sends one request and keeps the lane."""
    table, lane = Table(minted(42)), handler.Fence(3, 1000)
    block, found = mint(table, count=2, lane=lane)
    assert (block["first"], block["last"], found) == (39, 42, lane)
    assert table.requests == [handler.mint_request("Tickets", "orders", 2, lane, offset=None, now_ms=7)]


def test_a_refusal_teaches_the_new_lane_and_the_counter_is_not_begun_again() -> None:
    """After a rejected write, the retry uses the lane of the returned item and has no offset."""
    table = Table(refused(hand_crafted_int="40", increment="5", ceiling="900"), minted(45))
    block, found = mint(table, offset=1)
    assert (block["first"], block["increment"], found) == (45, 5, handler.Fence(5, 900))
    assert table.requests == [
        handler.mint_request("Tickets", "orders", 1, handler.Fence(), offset=1, now_ms=7),
        handler.mint_request("Tickets", "orders", 1, handler.Fence(5, 900), offset=None, now_ms=7),
    ]


def test_a_counter_that_vanishes_after_a_refusal_is_unknown() -> None:
    """A counter that was seen once is never started again, even if it is deleted between two attempts."""
    table = Table(refused(hand_crafted_int="40", increment="5"), handler.ConditionFailedError(None))
    assert problem_of(table, offset=1).code == "unknown_counter"


def test_an_unknown_counter_says_how_to_create_it() -> None:
    """A rejected write without an item means that the counter does not exist; nothing more is sent."""
    table = Table(handler.ConditionFailedError(None))
    problem = problem_of(table)
    assert (problem.code, problem.status, len(table.requests)) == ("unknown_counter", 404, 1)
    assert problem.detail == "There is no counter 'orders'. Create it with: ticketctl counter create orders"


def test_the_command_that_creates_a_counter_is_safe_to_paste() -> None:
    """The name in the hint is quoted for the shell."""
    detail = handler.unknown_counter("a; rm -rf ~").detail
    assert detail.endswith("ticketctl counter create 'a; rm -rf ~'")


@pytest.mark.parametrize(
    ("attributes", "count", "left"),
    [
        ({"hand_crafted_int": str(MAX)}, 1, 0),
        ({"hand_crafted_int": str(MAX - 1)}, 2, 1),
        ({"hand_crafted_int": str(MAX - 2), "increment": "3"}, 1, 0),
        ({"hand_crafted_int": "41", "ceiling": "50"}, 10, 9),
        ({"hand_crafted_int": "60", "ceiling": "50"}, 1, 0),
    ],
)
def test_a_counter_without_room_is_exhausted(attributes: dict[str, str], count: int, left: int) -> None:
    """If fewer tickets are left than were requested, none is issued, and the error says how many are left."""
    table = Table(refused(**attributes))
    problem = problem_of(table, count=count)
    assert (problem.code, problem.status, len(table.requests)) == ("counter_exhausted", 409, 1)
    assert f"has {left} tickets left" in problem.detail
    assert f"the request was for {count}." in problem.detail


@pytest.mark.parametrize("last", ["41", "50"])
def test_a_frozen_counter_mints_nothing_and_is_not_tried_again(last: str) -> None:
    """A frozen counter is reported as frozen after one write, whether it is exhausted or not."""
    item = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": last}, "ceiling": {"N": "50"}}
    table = Table(handler.ConditionFailedError(item | {"frozen": {"BOOL": True}}))
    problem = problem_of(table)
    assert (problem.code, problem.status, problem.detail) == (
        "counter_frozen",
        409,
        "The counter 'orders' is frozen.",
    )
    assert len(table.requests) == 1


@pytest.mark.parametrize(("mark", "frozen"), [("gapless", False), ("gapless-frozen", True)])
@pytest.mark.parametrize("last", ["41", str(MAX)], ids=["room", "full"])
def test_a_gapless_counter_mints_nothing_and_is_not_tried_again(mark: str, frozen: bool, last: str) -> None:
    """A plain mint from a gapless counter is rejected after one write; the error says that only claims take numbers."""
    item = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": last}, "frozen": {"S": mark}}
    assert [handler.read_counter(item)[name] for name in ("frozen", "gapless")] == [frozen, True]
    table = Table(handler.ConditionFailedError(item))
    problem = problem_of(table)
    assert (problem.code, problem.status, problem.detail) == (
        "counter_gapless",
        409,
        "The counter 'orders' is gapless: only a claim takes its numbers.",
    )
    assert len(table.requests) == 1


def test_a_block_that_takes_exactly_what_is_left() -> None:
    """The last block may end at the largest ticket."""
    table = Table(refused(hand_crafted_int=str(MAX - 6), increment="3"), minted(MAX))
    block, _ = mint(table, count=2)
    assert (block["first"], block["last"]) == (MAX - 3, MAX)


@pytest.mark.parametrize(
    ("offset", "increment", "count"), [(MAX, 1, 2), (MAX - 9_998, 1, 10_000), (1, MAX, 2), (MAX + 1, 1, 1)]
)
def test_a_counter_does_not_begin_with_a_block_beyond_its_ceiling(offset: int, increment: int, count: int) -> None:
    """The write that starts a counter also respects the ceiling."""
    table = Table(handler.ConditionFailedError(None))
    with pytest.raises(handler.ProblemError) as raised:
        mint(table, count=count, lane=handler.Fence(increment), offset=offset)
    assert raised.value.code == "counter_exhausted"
    assert not any("attribute_not_exists(#partition)" in request["ConditionExpression"] for request in table.requests)


def test_a_lane_that_keeps_changing_is_given_up() -> None:
    """After the maximum number of attempts, the error is ``throttled`` with ``Retry-After``; nothing was minted."""
    attempts = handler.WRITE_ATTEMPTS
    table = Table(*(refused(hand_crafted_int="40", increment=str(n + 2)) for n in range(attempts)))
    problem = problem_of(table)
    assert (problem.code, problem.status, problem.headers) == ("throttled", 429, {"Retry-After": "1"})
    assert len(table.requests) == attempts


def test_a_failure_of_the_write_is_not_tried_again() -> None:
    """Only a failed condition is retried; after any other failure a ticket may have been spent."""
    table = Table(handler.ProblemError("outcome_unknown", "No answer."))
    assert problem_of(table).code == "outcome_unknown"
    assert len(table.requests) == 1
