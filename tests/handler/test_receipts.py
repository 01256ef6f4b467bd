"""Typed keys: the receipt, the order of the calls, and the outcome of each failure. Retry keys: test_register.py."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count as numbers
from typing import Any

import pytest

from tests.support.function_url import SETTINGS, event, problem
from ticketctl.errors import OutcomeUnknownError
from ticketctl.handler import handler

NOW = 1_700_000_000_999
EXPIRES = 1_700_086_400  # a day after NOW, in whole seconds
Call = tuple[str, dict[str, Any]]


def block(first: int, *, count: int = 1, partition: str = "orders") -> dict[str, Any]:
    last = first + count - 1
    return {
        "partition": partition,
        "hand_crafted_int": last,
        "first": first,
        "last": last,
        "count": count,
        "increment": 1,
    }


def receipt(first: int, *, count: int = 1, partition: str = "orders", expires: int = EXPIRES) -> dict[str, Any]:
    """The item of a receipt."""
    return {
        "partition": {"S": "receipt#k"},
        "counter": {"S": partition},
        "first": {"N": str(first)},
        "last": {"N": str(first + count - 1)},
        "count": {"N": str(count)},
        "increment": {"N": "1"},
        "expires_at": {"N": str(expires)},
    }


def minted(last: int) -> dict[str, Any]:
    return {"Attributes": {"hand_crafted_int": {"N": str(last)}}}


class Calls(list[Call]):
    """A ``send`` that returns prepared answers in order and keeps the calls."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__()
        self.answers = list(answers)

    def __call__(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        self.append((operation, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _ in self]


def mint_with_key(
    send: Calls, *, count: int = 1, lane: handler.Fence | None = None
) -> tuple[dict[str, Any], handler.Fence]:
    lane = lane or handler.Fence()
    return handler.mint_with_key(send, "Tickets", "orders", count, key="k", fence=lane, offset=None, now_ms=NOW)


def problem_of(send: Calls, *, count: int = 1) -> tuple[str, int, str]:
    with pytest.raises(handler.ProblemError) as raised:
        mint_with_key(send, count=count)
    return raised.value.code, raised.value.status, raised.value.detail


def written(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item that the write of a receipt creates."""
    values = request["ExpressionAttributeValues"]
    item: dict[str, Any] = request["Key"] | {
        name.lstrip("#"): values[":" + name[1:]] for name in re.findall(r"#\w+", request["UpdateExpression"])
    }
    return item


def refused(item: Mapping[str, Any] | None) -> Exception:
    return handler.ConditionFailedError(item)


LOST = OutcomeUnknownError("no answer")
READ_MINT = ["GetItem", "UpdateItem"]
READ_MINT_WRITE = [*READ_MINT, "UpdateItem"]
READ_MINT_WRITE_TWICE = [*READ_MINT_WRITE, "UpdateItem"]
FRESH = {"replayed": False, "receipt": True}
REPLAYED = {"replayed": True, "receipt": True}


# --- the receipt -----------------------------------------------------------------------------------


def test_a_receipt_never_replaces_a_valid_one() -> None:
    """A receipt has the block, expires after a day, and never replaces a valid receipt."""
    request = handler.receipt_request("Tickets", "k", block(40, count=3), NOW)
    assert request["Key"] == {"partition": {"S": "receipt#k"}}
    assert written(request) == receipt(40, count=3)
    assert request["ConditionExpression"] == "attribute_not_exists(#partition) OR #expires_at <= :now"
    assert request["ExpressionAttributeValues"][":now"] == {"N": "1700000000"}
    assert request["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"


def test_a_receipt_gives_the_same_block_again() -> None:
    """A receipt replays the block that was minted, with ``replayed`` set."""
    assert handler.replay(receipt(40, count=3), "orders", 3, NOW) == block(40, count=3) | {"replayed": True}


def test_what_is_written_is_what_is_read() -> None:
    """A receipt that is written and read back gives the same block, also in a lane."""
    taken = block(41) | {"first": 15, "last": 42, "hand_crafted_int": 42, "count": 10, "increment": 3}
    item = written(handler.receipt_request("Tickets", "k", taken, NOW))
    assert handler.replay(item, "orders", 10, NOW) == taken | {"replayed": True}


def test_without_a_receipt_there_is_nothing_to_replay() -> None:
    """If there is no receipt, there is no replay."""
    assert handler.replay(None, "orders", 1, NOW) is None


@pytest.mark.parametrize(
    ("now_ms", "good"),
    [
        (EXPIRES * 1000 - 1, True),
        (EXPIRES * 1000, False),
        (EXPIRES * 1000 + 1, False),
    ],
)
def test_a_receipt_ends_with_its_second(now_ms: int, *, good: bool) -> None:
    """DynamoDB deletes late, so the reader and the condition of the write check ``expires_at``, and they agree."""
    item = receipt(40)
    assert (handler.replay(item, "orders", 1, now_ms) is not None) == good
    written = handler.receipt_request("Tickets", "k", block(41), now_ms)["ExpressionAttributeValues"][":now"]["N"]
    assert (int(item["expires_at"]["N"]) <= int(written)) == (not good)


def test_an_expired_receipt_conflicts_with_nothing() -> None:
    """An expired receipt does not conflict with a new use of its key."""
    assert handler.replay(receipt(40, partition="users", expires=EXPIRES - 86_400), "orders", 2, NOW) is None


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        (receipt(40, partition="users"), "This Idempotency-Key already minted 1 from 'users'."),
        (receipt(40, count=2), "This Idempotency-Key already minted 2 from 'orders'."),
        (receipt(40, partition="Orders"), "This Idempotency-Key already minted 1 from 'Orders'."),
    ],
    ids=["other counter", "other count", "other case"],
)
def test_a_key_is_for_one_counter_and_one_count(item: dict[str, Any], detail: str) -> None:
    """A key that is used again with another counter or count is a conflict; nothing is minted."""
    send = Calls({"Item": item})
    assert problem_of(send) == ("idempotency_conflict", 409, detail)
    assert send.operations == ["GetItem"]


@pytest.mark.parametrize("name", ["first", "last", "count", "increment", "expires_at"])
@pytest.mark.parametrize("damage", [{"S": "40"}, {"N": "4.5"}, {}], ids=["string", "fraction", "no type"])
def test_a_damaged_receipt_is_not_replayed(name: str, damage: dict[str, str]) -> None:
    """A damaged receipt is an error: it is not replayed, and nothing is minted."""
    send = Calls({"Item": receipt(40) | {name: damage}})
    code, status, _ = problem_of(send)
    assert (code, status, send.operations) == ("counter_invalid", 409, ["GetItem"])


@pytest.mark.parametrize(
    "damage",
    [
        {"increment": {"N": "0"}},
        {"increment": {"N": "-1"}},
        {"first": {"N": "39"}},
        {"last": {"N": "1000000000000"}},
        {"first": {"N": str(2**53)}, "last": {"N": str(2**53)}},
    ],
    ids=["increment 0", "increment -1", "first", "last", "no ticket"],
)
def test_a_receipt_of_no_block_is_not_replayed(damage: dict[str, Any]) -> None:
    """A receipt whose numbers are no block of tickets is an error, and its numbers are never counted through."""
    send = Calls({"Item": receipt(40) | damage})
    assert problem_of(send) == ("counter_invalid", 409, "The receipt of this Idempotency-Key is damaged.")
    assert send.operations == ["GetItem"]


@pytest.mark.parametrize("damage", [{"N": "40"}, {}], ids=["number", "no type"])
def test_a_receipt_without_its_counter_is_not_replayed(damage: dict[str, str]) -> None:
    """A receipt without a valid counter name is an error: it is not replayed."""
    send = Calls({"Item": receipt(40) | {"counter": damage}})
    code, status, _ = problem_of(send)
    assert (code, status, send.operations) == ("counter_invalid", 409, ["GetItem"])


# --- minting once ----------------------------------------------------------------------------------


def test_the_first_request_with_a_typed_key_reads_mints_and_writes() -> None:
    """The handler reads the receipt, mints and writes the receipt, in this order, before it returns the block."""
    send = Calls({}, minted(42), {})
    assert mint_with_key(send, count=3) == (block(40, count=3) | FRESH, handler.Fence())
    fence, digest = handler.Fence(), handler.key_digest("k", NOW)
    assert send == [
        ("GetItem", handler.read_request("Tickets", "receipt#k")),
        ("UpdateItem", handler.mint_request("Tickets", "orders", 3, fence, offset=None, now_ms=NOW, digest=digest)),
        ("UpdateItem", handler.receipt_request("Tickets", "k", block(40, count=3), NOW)),
    ]


def test_a_replay_spends_nothing() -> None:
    """If there is a receipt, the request is one consistent read, and the caller's fence is unchanged."""
    send = Calls({"Item": receipt(40)})
    assert mint_with_key(send, lane=handler.Fence(7)) == (block(40) | REPLAYED, handler.Fence(7))
    assert send == [("GetItem", handler.read_request("Tickets", "receipt#k"))]


def test_an_expired_receipt_is_replaced() -> None:
    """After a day the same key mints again and gets a new receipt."""
    send = Calls({"Item": receipt(1, expires=EXPIRES - 86_400)}, minted(42), {})
    assert mint_with_key(send)[0] == block(42) | FRESH
    assert send.operations == READ_MINT_WRITE


def test_a_lane_is_learned_on_the_way() -> None:
    """A rejected mint is retried in the lane of the returned item, and the receipt has the block of that lane."""
    item = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": "40"}, "increment": {"N": "5"}}
    send = Calls({}, refused(item), minted(45), {})
    taken = block(45) | {"increment": 5}
    assert mint_with_key(send) == (taken | FRESH, handler.Fence(5))
    assert send.operations == ["GetItem", "UpdateItem", "UpdateItem", "UpdateItem"]
    assert send[-1][1] == handler.receipt_request("Tickets", "k", taken, NOW)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (refused(None), "unknown_counter"),
        (handler.ProblemError("throttled", "Slow down."), "throttled"),
    ],
    ids=["unknown counter", "throttled"],
)
def test_a_failed_mint_writes_no_receipt(failure: Exception, code: str) -> None:
    """A mint that certainly failed is reported as it is, is not retried, and writes no receipt."""
    send = Calls({}, failure)
    assert problem_of(send)[0] == code
    assert send.operations == READ_MINT


def test_an_unreadable_receipt_mints_nothing() -> None:
    """If the receipt cannot be read, nothing is minted."""
    send = Calls(handler.ProblemError("unavailable", "Down."))
    assert problem_of(send) == ("unavailable", 503, "Down.")
    assert send.operations == ["GetItem"]


# --- the write of the receipt ----------------------------------------------------------------------


def test_our_own_receipt_behind_a_lost_reply_is_a_success() -> None:
    """If the answer to the first write is lost and the second finds the request's own block, that is success."""
    send = Calls({}, minted(42), LOST, refused(receipt(42)))
    assert mint_with_key(send)[0] == block(42) | FRESH
    assert send.operations == READ_MINT_WRITE_TWICE
    assert send[2] == send[3]


def test_the_second_attempt_may_write_the_receipt() -> None:
    """A failed write of a receipt is retried once."""
    send = Calls({}, minted(42), handler.ProblemError("throttled", "Slow down."), {})
    assert mint_with_key(send)[0] == block(42) | FRESH
    assert send.operations == READ_MINT_WRITE_TWICE


def test_the_slower_of_two_requests_gets_the_block_of_the_faster() -> None:
    """If two requests use one key, both return the block of the first receipt; the other block is a possible gap."""
    send = Calls({}, minted(42), refused(receipt(41)))
    assert mint_with_key(send)[0] == block(41) | REPLAYED | {"possible_gap": True}
    assert send.operations == READ_MINT_WRITE


def test_a_faster_request_after_a_lost_reply() -> None:
    """If the first write is lost and another request's receipt is found, its block is returned and ours is a gap."""
    send = Calls({}, minted(42), LOST, refused(receipt(41)))
    assert mint_with_key(send)[0] == block(41) | REPLAYED | {"possible_gap": True}


@pytest.mark.parametrize("item", [receipt(41, partition="users"), receipt(41, count=2)], ids=["counter", "count"])
def test_a_race_for_something_else_names_what_was_spent(item: dict[str, Any]) -> None:
    """If the key minted something else at the same time, the conflict names the tickets that this request spent."""
    send = Calls({}, minted(42), refused(item))
    code, status, detail = problem_of(send)
    assert (code, status) == ("idempotency_conflict", 409)
    assert detail.endswith("This request minted 42 to 42 from 'orders'; nobody holds them.")
    assert send.operations == READ_MINT_WRITE


@pytest.mark.parametrize(
    "failure",
    [
        LOST,
        handler.ProblemError("throttled", "Slow down."),
        handler.ProblemError("unavailable", "Denied."),
        ValueError("not an answer"),
    ],
    ids=["unknown", "throttled", "unavailable", "unreadable"],
)
def test_a_block_without_a_receipt_says_so(failure: Exception) -> None:
    """If the receipt cannot be written, the block is still returned, with ``receipt`` false."""
    send = Calls({}, minted(42), failure, failure)
    assert mint_with_key(send)[0] == block(42) | {"replayed": False, "receipt": False}
    assert send.operations == READ_MINT_WRITE_TWICE


@pytest.mark.parametrize(
    "item",
    [None, receipt(41, expires=EXPIRES - 86_400), receipt(41) | {"first": {}}, receipt(41) | {"counter": {}}],
    ids=["no item", "expired", "damaged", "no counter"],
)
def test_a_receipt_that_cannot_be_read_after_the_mint(item: dict[str, Any] | None) -> None:
    """If another receipt is found after the mint but cannot be read, the minted block is returned without a receipt."""
    send = Calls({}, minted(42), refused(item))
    assert mint_with_key(send)[0] == block(42) | {"replayed": False, "receipt": False}


def test_a_block_that_the_register_replays_gets_its_receipt() -> None:
    """If an earlier request minted but could not write the receipt, the next request with the key writes it."""
    entry = handler.pack_entry(handler.key_digest("k", NOW), 1, 1)
    item = {"partition": {"S": "orders"}, "hand_crafted_int": {"N": "99"}, "k3": {"B": entry}, "l3": {"N": "42"}}
    send = Calls({}, refused(item), {})
    assert mint_with_key(send)[0] == block(42) | REPLAYED
    assert written(send[2][1]) == receipt(42)


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("a", "a"),
        ('"a"', "a"),
        ('"a b"', "a b"),
        ('" "', " "),
        ('"a,b;c=d"', "a,b;c=d"),
        ("a;b=c", "a;b=c"),
        ("a'b", "a'b"),
        (r'"a\"b"', 'a"b'),
        (r'"a\\b"', r"a\b"),
        (r'"\\\""', r"\""),
        (r"a\b", r"a\b"),
        ("!~", "!~"),
        ("receipt#a", "receipt#a"),
        pytest.param("a" * 255, "a" * 255, id="255 bare"),
        pytest.param(f'"{"a" * 255}"', "a" * 255, id="255 quoted"),
        pytest.param('"' + r"\"" * 255 + '"', '"' * 255, id="255 escaped"),
    ],
)
def test_a_key_is_a_string_of_the_draft_or_bare(header: str, key: str) -> None:
    """A key may be a quoted string of the IETF draft or bare text; both forms are the same key."""
    assert handler.check_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        *("", '""', '"', '"a', 'a"', '"a"b', 'a"b', '"a" "b"', '"a","b"', "a,b", "a b", " ", "a ", "\t"),
        *(r'"a\"', r'"\a"', r'"a\nb"', '"a\\', '"a"b"'),
        *("é", '"é"', "\u0661", "\uff41", "a\x00", '"a\x00"', "a\n", '"a"\n', '"a\n"', "a\x7f", '"\x7f"', "\ud800"),
        pytest.param("a" * 256, id="256 bare"),
        pytest.param(f'"{"a" * 256}"', id="256 quoted"),
        pytest.param('"' + r"\\" * 256 + '"', id="256 escaped"),
        pytest.param('"' + "\\" * 100_001 + '"', id="100,001 backslashes"),
    ],
)
def test_any_other_key_is_refused(header: str) -> None:
    """A key that is not one string of 1 to 255 visible ASCII characters is rejected."""
    with pytest.raises(handler.ProblemError) as raised:
        handler.check_key(header)
    told = (raised.value.code, raised.value.status, raised.value.detail)
    assert told == ("bad_request", 400, "Idempotency-Key must be 1 to 255 visible ASCII characters.")


# --- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """Clear the fences that the function remembers, as in a new execution environment."""
    handler.FENCES.clear()
    yield
    handler.FENCES.clear()


def keyed(key: str = "k", **more: Any) -> dict[str, Any]:
    return event(method="POST", headers={"idempotency-key": key}, **more)


def one() -> dict[str, Any]:
    return block(42, partition="us-east-1")


@pytest.mark.parametrize("header", ["k", '"k"', ' "k" ', " k\t"])
def test_a_block_with_a_key_says_whether_it_is_a_replay(header: str) -> None:
    """With a key, the answer has ``replayed``; the receipt's key has no quotes."""
    calls = Calls({}, minted(42), {})
    answer = handler.respond(keyed(header), SETTINGS, calls)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, one() | FRESH)
    assert calls.operations == READ_MINT_WRITE
    assert calls[2][1]["Key"] == {"partition": {"S": "receipt#k"}}


def test_a_replay_is_the_same_answer_with_its_mark() -> None:
    """A second request with the same key is answered from the receipt, with ``replayed`` true."""
    calls = Calls({}, minted(42), {})
    handler.respond(keyed(), SETTINGS, calls)
    again = Calls({"Item": written(calls[2][1])})
    answer = handler.respond(keyed(), SETTINGS, again)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, one() | REPLAYED)
    assert again.operations == ["GetItem"]


def test_a_replay_as_text_is_the_tickets_again() -> None:
    """As text, a replay is the same as the first answer."""
    item = receipt(40, count=3, partition="us-east-1", expires=10**12)
    asked = event(query="count=3", headers={"idempotency-key": "k", "accept": "text/plain"})
    assert handler.respond(asked, SETTINGS, Calls({"Item": item}))["body"] == "40\n41\n42\n"


def test_a_replay_teaches_no_lane() -> None:
    """A replay does not tell whether the counter exists now, so the default counter may still be started."""
    item = receipt(40, partition="us-east-1", expires=10**12)
    handler.respond(keyed(), SETTINGS, Calls({"Item": item}))
    assert handler.FENCES == {}


def test_a_conflict_is_told_over_http() -> None:
    """A key that was used for another counter is a 409 with its own code."""
    calls = Calls({"Item": receipt(40, expires=10**12)})
    detail = "This Idempotency-Key already minted 1 from 'orders'."
    assert handler.respond(keyed(), SETTINGS, calls) == problem("idempotency_conflict", 409, detail)
    assert calls.operations == ["GetItem"]


@pytest.mark.parametrize("key", ["", " ", '""', "a,b", "é", "a" * 256])
def test_a_bad_key_is_refused_before_anything_is_sent(key: str) -> None:
    """An invalid key is rejected before anything is sent; the handler never mints as if there were no key."""
    calls = Calls()
    detail = "Idempotency-Key must be 1 to 255 visible ASCII characters."
    assert handler.respond(keyed(key), SETTINGS, calls) == problem("bad_request", 400, detail)
    assert calls == []


def test_a_mint_without_a_key_is_one_write() -> None:
    """Without a key, nothing is read, no receipt is written, and the answer has no ``replayed``."""
    calls = Calls(minted(42))
    answer = handler.respond(event(method="POST"), SETTINGS, calls)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, one())
    assert calls.operations == ["UpdateItem"]


# --- the time that is left -------------------------------------------------------------------------

TOO_SLOW = problem("unavailable", 503, "DynamoDB is too slow; nothing was minted.")


def answered_within(
    asked: dict[str, Any], *left: int, answers: tuple[Mapping[str, Any] | Exception, ...] = ({}, minted(42), {})
) -> tuple[dict[str, Any], list[str]]:
    """Return the answer and the calls if ``left`` milliseconds remain before each call, and 0 after those."""
    calls, steps = Calls(*answers), numbers()

    def remaining_ms() -> int:
        step = next(steps)
        return left[step] if step < len(left) else 0

    return handler.respond(asked, SETTINGS, calls, "r-1", remaining_ms), calls.operations


@pytest.mark.parametrize("asked", [keyed(), event(method="POST"), event("/status")], ids=["key", "no key", "status"])
@pytest.mark.parametrize("left", [handler.CALL_MS - 1, 0, -1])
def test_no_call_is_begun_that_might_not_end_in_time(asked: dict[str, Any], left: int) -> None:
    """If too little time is left for a call, nothing is sent and nothing was minted."""
    assert answered_within(asked, left) == (TOO_SLOW, [])


def test_a_call_is_begun_that_just_ends_in_time() -> None:
    """A call is sent if exactly the time that it may take is left."""
    enough = handler.CALL_MS
    answer, calls = answered_within(keyed(), enough, enough, enough)
    assert (answer["statusCode"], calls) == (200, READ_MINT_WRITE)


def test_no_time_for_the_mint_after_the_receipt_was_read() -> None:
    """If reading the receipt takes too long, nothing is spent."""
    assert answered_within(keyed(), handler.CALL_MS) == (TOO_SLOW, ["GetItem"])


def test_no_time_for_a_second_write_after_a_refusal() -> None:
    """If no time is left to retry a rejected mint, nothing is spent."""
    item = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "40"}, "increment": {"N": "5"}}
    told = answered_within(event(method="POST"), handler.CALL_MS, answers=(refused(item),))
    assert told == (TOO_SLOW, ["UpdateItem"])


def test_no_time_for_the_receipt() -> None:
    """If no time is left to write the receipt, the minted block is still returned."""
    answer, calls = answered_within(keyed(), handler.CALL_MS, handler.CALL_MS)
    assert (json.loads(answer["body"]), calls) == (one() | {"replayed": False, "receipt": False}, READ_MINT)


def test_no_time_to_send_an_unknown_write_again() -> None:
    """If no time is left to retry a write with an unknown outcome, the outcome stays unknown."""
    lost = handler.ProblemError("outcome_unknown", "No answer.")
    answer, calls = answered_within(keyed("once:1"), handler.CALL_MS, answers=(lost,))
    assert (answer["statusCode"], calls) == (504, ["UpdateItem"])
