"""Minting through the Function URL and straight from the table: the same counters, the same rules."""

import json

import httpx
import pytest

from tests.support.embedded_aws import REGION, Connect, physical_id, put
from tests.support.make_counter import make_counter
from tests.support.minting import look, take
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.errors import CounterExhaustedError, CounterInvalidError, UnknownCounterError, UsageError
from ticketctl.models import Block

BOTH = pytest.mark.parametrize("via", ["url", "dynamodb"])


@BOTH
def test_first_ticket_is_one(connect: Connect, deployed: str, via: str) -> None:
    """The default counter, named after the region, starts at 1."""
    connection = connect(stack=deployed, via=via)
    assert take(connection, 1) == Block(REGION, first=1, last=1, count=1, increment=1, region=REGION)
    assert take(connection, 1).last == 2


def test_both_sources_share_a_counter(connect: Connect, deployed: str) -> None:
    """Tickets from both sources follow each other in one counter."""
    url, table = connect(stack=deployed), connect(stack=deployed, via="dynamodb")
    assert [take(url, 1).last, take(table, 1).last, take(url, 1).last, take(table, 1).last] == [1, 2, 3, 4]


@BOTH
def test_block_is_one_write(connect: Connect, deployed: str, via: str) -> None:
    """A block has consecutive tickets, and its last ticket is the counter's last ticket."""
    connection = connect(stack=deployed, via=via)
    take(connection, 1)
    block = take(connection, 10_000)
    assert (block.first, block.last, len(block.tickets)) == (2, 10_001, 10_000)
    assert look(connection).last == 10_001


@BOTH
def test_table_of_the_article_carries_on(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """An item with only partition and hand_crafted_int continues with its next number."""
    put(aws, deployed, REGION, hand_crafted_int=41)
    assert take(connect(stack=deployed, via=via), 1).last == 42


@BOTH
def test_unknown_counter_is_not_started(connect: Connect, deployed: str, via: str) -> None:
    """A mistyped name mints nothing and creates no item."""
    with pytest.raises(UnknownCounterError) as caught:
        take(connect(stack=deployed, via=via, partition="typo"), 1)
    assert caught.value.hint == "ticketctl counter create typo"
    assert list(connect(stack=deployed).counters().all(pytest.fail)) == []


@BOTH
def test_named_counter_starts_at_one(connect: Connect, deployed: str, via: str) -> None:
    """A new counter starts at 1, wherever the default counter stands."""
    take(connect(stack=deployed), 5)
    make_counter(connect(stack=deployed).counters(), "orders")
    assert take(connect(stack=deployed, via=via, partition="orders"), 3).tickets == range(1, 4)


def test_creating_twice_changes_nothing(connect: Connect, deployed: str) -> None:
    """Creating an existing counter again does not change it."""
    counters = connect(stack=deployed).counters()
    assert make_counter(counters, "orders")[1] is True
    take(connect(stack=deployed, partition="orders"), 7)
    counter, created = make_counter(counters, "orders")
    assert (counter.last, created) == (7, False)


@BOTH
def test_lane_of_the_item_is_kept(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """A counter moves by its own increment, even if the caller does not know it yet."""
    put(aws, deployed, "odd", hand_crafted_int=7, increment=2)
    block = take(connect(stack=deployed, via=via, partition="odd"), 3)
    assert list(block.tickets) == [9, 11, 13]


@BOTH
def test_lane_changed_under_load_is_learned(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """A client with an old lane continues in the new one and mints no number outside it."""
    connection = connect(stack=deployed, via=via)
    assert take(connection, 1).last == 1
    aws.client("dynamodb").update_item(
        TableName=deployed,
        Key={"partition": {"S": REGION}},
        UpdateExpression="SET #i = :i",
        ExpressionAttributeNames={"#i": "increment"},
        ExpressionAttributeValues={":i": {"N": "10"}},
    )
    assert [take(connection, 1).last, take(connection, 2).first] == [11, 21]


@BOTH
def test_ceiling_is_never_passed(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """A block that does not fit below the ceiling is refused completely; a block that just fits is the last."""
    put(aws, deployed, "small", hand_crafted_int=8, ceiling=10)
    connection = connect(stack=deployed, via=via, partition="small")
    with pytest.raises(CounterExhaustedError, match="2 tickets left"):
        take(connection, 3)
    assert take(connection, 2).last == 10
    with pytest.raises(CounterExhaustedError):
        take(connection, 1)
    assert look(connection).remaining == 0


@BOTH
def test_largest_exact_integer_is_the_last(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """2**53 - 1 is the last ticket of a counter."""
    put(aws, deployed, "old", hand_crafted_int=2**53 - 2)
    connection = connect(stack=deployed, via=via, partition="old")
    assert take(connection, 1).last == 2**53 - 1
    with pytest.raises(CounterExhaustedError):
        take(connection, 1)


@BOTH
def test_damaged_item_is_refused(connect: Connect, deployed: str, aws: Aws, via: str) -> None:
    """An item without its last ticket is an error; the counter does not start again at 1."""
    put(aws, deployed, REGION, minted_at=5)
    with pytest.raises(CounterInvalidError):
        take(connect(stack=deployed, via=via), 1)


@BOTH
@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_count_out_of_range_spends_nothing(connect: Connect, deployed: str, via: str, count: int) -> None:
    """Both sources refuse a count outside 1 to 10,000, and nothing is spent."""
    connection = connect(stack=deployed, via=via)
    with pytest.raises(UsageError):
        take(connection, count)
    assert list(connection.counters().all(pytest.fail)) == []


def ask(connection: RegionalStack, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send one signed request over HTTP."""
    url = connection.url().rstrip("/") + path
    signed = connection.session.aws.signed_headers(method, url, headers or {}, b"", Deadline(60))
    return httpx.request(method, url, headers=signed, trust_env=False, timeout=60)


def test_contract_over_http(connect: Connect, deployed: str) -> None:
    """Over HTTP the function returns a block, plain text, the status, and problems that mint nothing."""
    connection = connect(stack=deployed)
    minted = ask(connection, "GET", "/?count=3")
    assert minted.json() == {
        "partition": REGION,
        "hand_crafted_int": 3,
        "first": 1,
        "last": 3,
        "count": 3,
        "increment": 1,
    }
    assert (minted.headers["content-type"], minted.headers["cache-control"]) == ("application/json", "no-store")
    assert ask(connection, "POST", "/?count=2", {"accept": "text/plain"}).text == "4\n5\n"
    status = ask(connection, "GET", f"/status?partition={REGION}").json()
    assert (status["hand_crafted_int"], status["remaining"]) == (5, 2**53 - 1 - 5)
    refusals = {
        ("GET", "/favicon.ico"): (404, "not_found"),
        ("DELETE", "/"): (405, "method_not_allowed"),
        ("GET", "/?count=1e3"): (400, "bad_request"),
        ("GET", "/?partition="): (400, "bad_request"),
        ("GET", "/status?partition=typo"): (404, "unknown_counter"),
    }
    for (method, path), (code, name) in refusals.items():
        refused = ask(connection, method, path)
        assert (refused.status_code, refused.json()["code"]) == (code, name), path
        assert refused.headers["content-type"] == "application/problem+json"
    assert ask(connection, "GET", "/").json()["last"] == 6


def test_errors_are_logged_as_json_without_secrets(connect: Connect, deployed: str, aws: Aws) -> None:
    """Each error is one line of JSON in the function's log group, without headers."""
    connection = connect(stack=deployed)
    ask(connection, "GET", "/favicon.ico", {"x-secret": "do-not-log-me"})
    logs = aws.client("logs")
    group = physical_id(aws, deployed, "AWS::Logs::LogGroup")
    messages = [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]
    (line,) = [json.loads(message) for message in messages if '"not_found"' in message]
    assert (line["level"], line["status"], line["path"]) == ("WARNING", 404, "/favicon.ico")
    assert not any("do-not-log-me" in message or "authorization" in message.lower() for message in messages)
