"""Idempotency keys: the same key returns the same tickets to every caller, every time."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import REGION, Connect
from tests.support.make_counter import make_counter
from tests.support.minting import look, take
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.errors import CounterFrozenError, IdempotencyConflictError, UsageError
from ticketctl.models import Block

BOTH = pytest.mark.parametrize("via", ["url", "dynamodb"])
DAY = 24 * 60 * 60


def options(stack: str) -> tuple[str, ...]:
    return ("--local", "--stack", stack)


def receipt_of(aws: Aws, stack: str, key: str) -> dict[str, Any]:
    answer = aws.client("dynamodb").get_item(TableName=stack, Key={"partition": {"S": f"receipt#{key}"}})
    item: dict[str, Any] = answer["Item"]
    return item


def test_next_twice(ticketctl: Ticketctl, deployed: str) -> None:
    """The same key prints the same number through either source; the next mint follows it."""
    once = ("next", "--idempotency-key", "a", *options(deployed))
    assert ticketctl(*once) == Result(0, "1\n", "")
    assert ticketctl(*once) == Result(0, "1\n", "")
    assert ticketctl(*once, "--via", "dynamodb") == Result(0, "1\n", "")
    assert ticketctl("next", *options(deployed)) == Result(0, "2\n", "")
    document = {"partition": REGION, "first": 1, "last": 1, "count": 1, "increment": 1}
    assert json.loads(ticketctl(*once, "--json").stdout) == document | {
        "replayed": True,
        "region": REGION,
        "possible_gaps": [],
        "receipt_missing": False,
    }


@BOTH
def test_replayed(connect: Connect, deployed: str, via: str) -> None:
    """The first answer has ``replayed`` false, later ones true; the counter moves once."""
    connection = connect(stack=deployed, via=via)
    new = Block(REGION, first=1, last=5, count=5, increment=1, replayed=False, region=REGION)
    again = Block(REGION, first=1, last=5, count=5, increment=1, replayed=True, region=REGION)
    assert [take(connection, 5, key="a") for _ in range(3)] == [new, again, again]
    assert take(connection, 5, key="b").tickets == range(6, 11)
    assert look(connection).last == 10


def test_both_sources_share_receipts(connect: Connect, deployed: str) -> None:
    """A key that was used through one source is replayed through the other, whatever characters it has."""
    sources = [connect(stack=deployed), connect(stack=deployed, via="dynamodb")]
    keys = ["a", "order 17", " a ", '"a"', 'say "a\\b", twice', "~!#$%&'()*+-./:;<=>?@[]^_`{|}", "k" * 255]
    for first, key in enumerate(keys, start=1):
        assert [take(source, 1, key=key).last for source in sources] == [first, first], key
        sources.reverse()


@BOTH
def test_invalid_key(connect: Connect, deployed: str, via: str) -> None:
    """A key that is empty, too long or has control characters is rejected and mints nothing."""
    connection = connect(stack=deployed, via=via)
    for key in ("", "k" * 256, "a\tb", "a\nb"):
        with pytest.raises(UsageError):
            take(connection, 1, key=key)
    assert list(connection.counters().all(pytest.fail)) == []


def test_receipt(connect: Connect, aws: Aws, deployed: str) -> None:
    """A receipt is a separate item with the block, its counter and its expiry one day later."""
    before = int(time.time())
    take(connect(stack=deployed), 3, key="a")
    item = receipt_of(aws, deployed, "a")
    expires = int(item.pop("expires_at")["N"])
    assert before + DAY <= expires <= time.time() + DAY
    assert item == {
        "partition": {"S": "receipt#a"},
        "counter": {"S": REGION},
        "first": {"N": "1"},
        "last": {"N": "3"},
        "count": {"N": "3"},
        "increment": {"N": "1"},
    }


@BOTH
def test_another_request_under_the_same_key(connect: Connect, deployed: str, via: str) -> None:
    """A key that is used again with another count or counter is a conflict, and no counter moves."""
    counters = connect(stack=deployed).counters()
    make_counter(counters, "orders")
    default, orders = connect(stack=deployed, via=via), connect(stack=deployed, via=via, partition="orders")
    take(default, 2, key="a")
    before = list(counters.all(pytest.fail))
    for connection, count in ((default, 3), (orders, 2)):
        with pytest.raises(IdempotencyConflictError):
            take(connection, count, key="a")
    assert list(counters.all(pytest.fail)) == before


def test_conflict_on_the_command_line(ticketctl: Ticketctl, deployed: str) -> None:
    """A conflict exits 6, and the error says what the key minted."""
    assert ticketctl("fetch", "2", "--idempotency-key", "a", *options(deployed)) == Result(0, "1\n2\n", "")
    refused = ticketctl("fetch", "3", "--idempotency-key", "a", "--json", *options(deployed))
    assert (refused.returncode, refused.stdout, json.loads(refused.stderr)) == (
        6,
        "",
        {
            "error": {
                "code": "idempotency_conflict",
                "message": f"This Idempotency-Key already minted 2 from '{REGION}'.",
                "hint": "",
                "exit_code": 6,
            }
        },
    )


def test_race(connect: Connect, deployed: str) -> None:
    """Eight callers with the same key, through both sources, all get one block, and nothing else is spent."""
    connections = [connect(stack=deployed, via="url" if n % 2 else "dynamodb") for n in range(8)]
    take(connections[0], 1)
    for turn in range(5):
        stood = look(connections[0]).last
        with ThreadPoolExecutor(8) as pool:
            blocks = list(pool.map(lambda connection: take(connection, 10, key=f"race {turn}"), connections))  # noqa: B023 - used at once
        (tickets,) = {block.tickets for block in blocks}
        moved = look(connections[0]).last - stood
        assert (tickets.start, moved) == (stood + 1, 10)
        assert [block.replayed for block in blocks].count(False) == 1


@BOTH
def test_expired(connect: Connect, aws: Aws, deployed: str, via: str) -> None:
    """An expired receipt that DynamoDB has not deleted yet is replaced if the counter no longer remembers the key."""
    connection = connect(stack=deployed, via=via)
    take(connection, 1, key="a")
    for number in range(16):
        take(connection, 1, key=f"once:{number}")
    aws.client("dynamodb").update_item(
        TableName=deployed,
        Key={"partition": {"S": "receipt#a"}},
        UpdateExpression="SET expires_at = :past",
        ExpressionAttributeValues={":past": {"N": str(int(time.time()) - 1)}},
    )
    assert [take(connection, 1, key="a") for _ in range(2)] == [
        Block(REGION, first=18, last=18, count=1, increment=1, replayed=False, region=REGION),
        Block(REGION, first=18, last=18, count=1, increment=1, replayed=True, region=REGION),
    ]
    assert int(receipt_of(aws, deployed, "a")["expires_at"]["N"]) > time.time() + DAY - 600


@BOTH
def test_what_was_refused_has_no_receipt(connect: Connect, deployed: str, via: str) -> None:
    """After a rejected request, its key can still be used; its tickets are replayed even if the counter is frozen."""
    connection, counters = connect(stack=deployed, via=via, partition="orders"), connect(stack=deployed).counters()
    make_counter(counters, "orders")
    counters.freeze("orders")
    with pytest.raises(CounterFrozenError):
        take(connection, 1, key="a")
    counters.thaw("orders")
    assert take(connection, 1, key="a") == Block("orders", first=1, last=1, count=1, increment=1, region=REGION)
    counters.freeze("orders")
    assert take(connection, 1, key="a").replayed is True


def test_lane_that_changed_in_between(connect: Connect, aws: Aws, deployed: str) -> None:
    """If the lane has changed, a replay returns the original block, and the client still learns the new lane."""
    connections = [connect(stack=deployed, via=via) for via in ("url", "dynamodb")]
    take(connections[0], 3, key="a")
    aws.client("dynamodb").update_item(
        TableName=deployed,
        Key={"partition": {"S": REGION}},
        UpdateExpression="SET #i = :i",
        ExpressionAttributeNames={"#i": "increment"},
        ExpressionAttributeValues={":i": {"N": "10"}},
    )
    again = Block(REGION, first=1, last=3, count=3, increment=1, replayed=True, region=REGION)
    assert [take(connection, 3, key="a") for connection in connections] == [again, again]
    assert [take(connection, 1).last for connection in connections] == [13, 23]


def test_header(connect: Connect, deployed: str) -> None:
    """Over HTTP the key is a header, quoted or bare; the answer has ``replayed``."""
    connection = connect(stack=deployed)
    block = {"partition": REGION, "hand_crafted_int": 2, "first": 1, "last": 2, "count": 2, "increment": 1}
    answers = [ask(connection, header) for header in ("a-b", "a-b", '"a-b"')]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, block | {"replayed": False, "receipt": True}),
        (200, block | {"replayed": True, "receipt": True}),
        (200, block | {"replayed": True, "receipt": True}),
    ]
    assert [ask(connection, header).json()["first"] for header in ['"a b"', '"a b"', '"\\"a-b\\""']] == [3, 3, 5]


def test_bad_header(connect: Connect, deployed: str) -> None:
    """An invalid header is 400 and mints nothing."""
    connection = connect(stack=deployed)
    for header in ("", '""', '"a', "a b", "a,b", "k" * 256):
        refused = ask(connection, header)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_request"), header
    assert list(connection.counters().all(pytest.fail)) == []


def ask(connection: RegionalStack, key: str) -> httpx.Response:
    """Mint two tickets over HTTP with the header unchanged."""
    url = connection.url() + "?count=2"
    signed = connection.session.aws.signed_headers("POST", url, {}, b"", Deadline(60))
    return httpx.post(url, headers={**signed, "idempotency-key": key}, trust_env=False, timeout=60)


def test_fetch_twice(ticketctl: Ticketctl, deployed: str) -> None:
    """A fetch that is repeated with its key prints the same tickets block by block, and the counter does not move."""
    fetch = ("fetch", "7", "--block", "3", "--idempotency-key", "a", *options(deployed))
    tickets = "".join(f"{ticket}\n" for ticket in range(1, 8))
    assert ticketctl(*fetch) == Result(0, tickets, "")
    assert ticketctl(*fetch, "--via", "dynamodb") == Result(0, tickets, "")
    assert ticketctl("next", *options(deployed)) == Result(0, "8\n", "")


def test_fetch_and_next_have_different_keys(ticketctl: Ticketctl, deployed: str) -> None:
    """A key of ``next`` never collides with a block of a ``fetch`` that has another key."""
    fetch = ("fetch", "2", "--block", "1", "--idempotency-key", "order", *options(deployed))
    assert ticketctl(*fetch) == Result(0, "1\n2\n", "")
    assert ticketctl("next", "--idempotency-key", "order/1", *options(deployed)) == Result(0, "3\n", "")


def test_each_run_has_a_key_of_its_own(ticketctl: Ticketctl, connect: Connect, aws: Aws, deployed: str) -> None:
    """Without a typed key, each run uses a random retry key, so that its own retries are safe."""
    assert [ticketctl("next", *options(deployed)).stdout for _ in range(2)] == ["1\n", "2\n"]
    items = aws.client("dynamodb").scan(TableName=deployed)["Items"]
    (counter,) = items  # a retry key has no receipt; the counter remembers it
    assert counter["k0"]["B"][:12] != counter["k1"]["B"][:12]
    assert [counter.partition for counter in connect(stack=deployed).counters().all(pytest.fail)] == [REGION]
