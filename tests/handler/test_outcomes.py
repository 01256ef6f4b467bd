"""What a caller is told when DynamoDB fails: the handler's client against a faulty server on loopback."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from tests.support.dynamodb_server import (
    CERTIFICATE,
    SECRET,
    Answer,
    DynamoDB,
    breaks_tls,
    drips,
    dynamodb,
    falls_silent,
    hangs_up,
    minted,
    mints,
    never_answers,
    refuses,
    resets,
    says,
    sends,
)
from tests.support.function_url import SETTINGS, event, problem
from ticketctl import handler as bundle
from ticketctl.handler import handler

MINT = event(method="POST")
STATUS = event("/status")

# Complete answers, so that no text of an exception can leak into them.
THROTTLED = problem("throttled", 429, "DynamoDB is throttling; nothing was minted.", Retry_After="1")
UNAVAILABLE = problem("unavailable", 503, "DynamoDB is not available; nothing was minted.")
UNKNOWN = problem("outcome_unknown", 504, "DynamoDB did not answer; a ticket may have been spent.")
UNREADABLE_ITEM = problem("unavailable", 503, "The request failed; nothing was minted.")
UNREADABLE = problem("outcome_unknown", 504, "The request failed; a ticket may have been spent.")


# --- setup -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """Clear the fences that the function remembers, as in a new execution environment."""
    handler.FENCES.clear()
    yield
    handler.FENCES.clear()


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}


def ask(url: str, event: dict[str, Any], **more: str) -> dict[str, Any]:
    """Answer an event as the handler does, with DynamoDB at this address."""
    environment = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_DYNAMODB": url, "AWS_CA_BUNDLE": str(CERTIFICATE)}
    table = handler.DynamoDB({**environment, **CREDENTIALS, **more})
    try:
        return handler.respond(event, SETTINGS, table.send, "r-1")
    finally:
        if table.kept:
            table.kept.close()


# --- outcomes --------------------------------------------------------------------------------------

OUTCOMES = [
    pytest.param(refuses(400, "ThrottlingException"), THROTTLED, id="ThrottlingException"),
    pytest.param(refuses(400, "ProvisionedThroughputExceededException"), THROTTLED, id="ProvisionedThroughputExceeded"),
    pytest.param(refuses(400, "RequestLimitExceeded"), THROTTLED, id="RequestLimitExceeded"),
    pytest.param(refuses(400, "AccessDeniedException"), UNAVAILABLE, id="AccessDenied"),
    pytest.param(refuses(400, "ResourceNotFoundException"), UNAVAILABLE, id="ResourceNotFound"),
    pytest.param(refuses(400, "ExpiredTokenException"), UNAVAILABLE, id="ExpiredToken"),
    pytest.param(refuses(400, "ValidationException"), UNAVAILABLE, id="Validation"),
    pytest.param(says(403, b"<html>"), UNKNOWN, id="403 of something else"),
    pytest.param(refuses(500, "InternalServerError"), UNKNOWN, id="InternalServerError"),
    pytest.param(says(502, b"<html>Bad gateway</html>"), UNKNOWN, id="502 of something else"),
    pytest.param(refuses(503, "ServiceUnavailable"), UNKNOWN, id="ServiceUnavailable"),
    pytest.param(hangs_up, UNKNOWN, id="connection closed"),
    pytest.param(resets, UNKNOWN, id="connection reset"),
    pytest.param(says(200, b'{"Attr', length=500), UNKNOWN, id="half an answer"),
    pytest.param(says(400, b'{"__type', length=500), UNKNOWN, id="half a refusal"),
    pytest.param(sends(b"HTTP/1.1 200 OK\r\nContent-Le"), UNKNOWN, id="half a head"),
    pytest.param(sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), UNKNOWN, id="no chunk"),
    pytest.param(sends(b"SSH-2.0-OpenSSH_9.9\r\n"), UNKNOWN, id="no HTTP"),
    pytest.param(sends(b"HTTP/1.1 103 Early Hints\r\n\r\n"), UNKNOWN, id="103"),
    pytest.param(says(200, minted(2), x_amz_crc32="1"), UNKNOWN, id="wrong checksum"),
    pytest.param(says(200, minted(2), x_amz_crc32="x"), UNKNOWN, id="no checksum"),
    pytest.param(says(200, b"<html>"), UNKNOWN, id="no JSON"),
    pytest.param(says(200, b"\xff" + minted(2)), UNKNOWN, id="no UTF-8"),
    pytest.param(says(200, b"[" * 100_000), UNKNOWN, id="deep JSON"),
    pytest.param(says(200, b"[]"), UNKNOWN, id="no JSON object"),
    pytest.param(says(204, b""), UNKNOWN, id="204"),
    pytest.param(says(302, b"", Location="/"), UNKNOWN, id="302"),
    *(pytest.param(says(status, b"<html>"), UNKNOWN, id=f"{status} of a proxy") for status in (407, 408, 429, 499)),
    pytest.param(says(400, b"[]"), UNKNOWN, id="400 without a name"),
    pytest.param(says(400, b'{"__type": 5}'), UNKNOWN, id="400 with a number for a name"),
    pytest.param(says(200, b"{}"), UNREADABLE, id="empty answer"),
]


@pytest.mark.parametrize(("answer", "expected"), OUTCOMES)
def test_a_failed_write_is_sent_once_and_told_as_what_it_is(
    capsys: pytest.CaptureFixture[str], answer: Answer, expected: dict[str, Any]
) -> None:
    """The answer says whether a ticket may be spent and hides the cause; the write is sent once."""
    with dynamodb(repeat(answer)) as server:
        told = ask(server.url, MINT)
    assert told == expected
    assert len(server.requests) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert SECRET not in line


@pytest.mark.parametrize("answer", [never_answers, falls_silent, drips])
def test_a_write_is_not_waited_for_longer_than_a_call_may_take(answer: Answer) -> None:
    """If DynamoDB takes too long, even if it sends byte by byte, the outcome is unknown."""
    with dynamodb(repeat(answer)) as server:
        began = time.monotonic()
        told = ask(server.url, MINT)
        took = time.monotonic() - began
    assert told == UNKNOWN
    assert len(server.requests) == 1
    assert handler.ANSWER_SECONDS <= took < handler.CALL_MS / 1000


def test_nothing_is_minted_if_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """If the connection is refused, nothing was sent, so a retry is safe."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        told = ask(f"http://127.0.0.1:{closed.getsockname()[1]}", MINT)
    assert told == UNAVAILABLE
    assert json.loads(capsys.readouterr().out) == {
        "level": "ERROR",
        "code": "unavailable",
        "status": 503,
        "detail": "DynamoDB is not available; nothing was minted.",
        "cause": "ConnectionRefusedError",
        "request_id": "r-1",
        "method": "POST",
        "path": "/",
    }


@pytest.mark.parametrize(
    ("event", "expected"), [pytest.param(MINT, UNKNOWN, id="mint"), pytest.param(STATUS, UNAVAILABLE, id="status")]
)
def test_an_answer_that_breaks_within_tls_leaves_the_outcome_unknown(
    event: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A TLS error after the request was sent leaves the outcome of a mint unknown."""
    with dynamodb(repeat(breaks_tls), tls=True) as server:
        told = ask(server.url, event)
    assert told == expected
    assert len(server.requests) == 1


def test_nothing_is_sent_to_a_server_that_cannot_prove_its_name() -> None:
    """If the server's certificate is not trusted, the connection ends before the request is sent."""
    with dynamodb(repeat(mints(2)), tls=True) as server:
        assert ask(server.url, MINT, AWS_CA_BUNDLE="") == UNAVAILABLE
        assert server.requests == []


def test_nothing_is_sent_without_tls() -> None:
    """If the server does not speak TLS, the connection ends within a second, before the request is sent."""
    with dynamodb(repeat(mints(2))) as server:
        assert ask(server.url.replace("http:", "https:"), MINT) == UNAVAILABLE
        assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(refuses(400, "ThrottlingException"), THROTTLED, id="throttled"),
        pytest.param(refuses(500, "InternalServerError"), UNAVAILABLE, id="InternalServerError"),
        pytest.param(hangs_up, UNAVAILABLE, id="connection closed"),
        pytest.param(resets, UNAVAILABLE, id="connection reset"),
        pytest.param(says(200, b'{"It', length=500), UNAVAILABLE, id="half an answer"),
        pytest.param(says(200, b"<html>"), UNAVAILABLE, id="no JSON"),
        pytest.param(says(200, b"{}", x_amz_crc32="1"), UNAVAILABLE, id="wrong checksum"),
        pytest.param(says(200, b'{"Item": 5}'), UNREADABLE_ITEM, id="no item"),
    ],
)
def test_a_failed_look_at_a_counter_never_says_that_a_ticket_may_be_spent(
    answer: Answer, expected: dict[str, Any]
) -> None:
    """If reading a counter fails, the answer never says that a ticket may be spent."""
    with dynamodb(repeat(answer)) as server:
        told = ask(server.url, STATUS)
    assert told == expected
    assert len(server.requests) == 1


# --- conditions that do not hold -------------------------------------------------------------------


def test_a_changed_lane_is_learned_from_the_refusal() -> None:
    """After a rejected write, the handler retries once, with the lane of the returned item and without an offset."""
    item = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "40"}, "increment": {"N": "5"}}
    refusal = refuses(400, "ConditionalCheckFailedException", Item=item)
    with dynamodb(iter([refusal, mints(45), mints(50)])) as server:
        told = [json.loads(ask(server.url, MINT)["body"])["first"] for _ in range(2)]
    assert told == [45, 50]
    starts = ["attribute_not_exists(#partition)" in sent["ConditionExpression"] for sent in server.requests]
    steps = [sent["ExpressionAttributeValues"][":step"]["N"] for sent in server.requests]
    assert (starts, steps) == ([True, False, False], ["1", "5", "5"])


def test_a_counter_that_is_not_there_is_unknown() -> None:
    """A rejected write without an item is a 404 that says how to create the counter."""
    with dynamodb(repeat(refuses(400, "ConditionalCheckFailedException"))) as server:
        told = ask(server.url, MINT | {"rawQueryString": "partition=orders"})
    detail = "There is no counter 'orders'. Create it with: ticketctl counter create orders"
    assert told == problem("unknown_counter", 404, detail)
    assert len(server.requests) == 1


# --- the entry point -------------------------------------------------------------------------------

ONCE = """
import json, sys, types, create_ticket
context = types.SimpleNamespace(aws_request_id="r-1", get_remaining_time_in_millis=lambda: int(sys.argv[2]))
print(json.dumps(create_ticket.handler(json.loads(sys.argv[1]), context)))
"""
ENVIRONMENT = {
    "TABLE_NAME": "orders",
    "DEFAULT_PARTITION": "eu-west-1",
    "OFFSET": "2",
    "INCREMENT": "3",
    "MAX_COUNT": "10",
    "AWS_REGION": "eu-west-1",
}


def run_entry_point(server: DynamoDB, remaining_ms: int = 10_000, /, **more: str) -> list[dict[str, Any]]:
    """Run the handler alone, in a process with an environment like Lambda's and no SDK; return its lines of JSON."""
    run = subprocess.run(
        [sys.executable, "-B", "-S", "-c", ONCE, json.dumps(MINT), str(remaining_ms)],
        cwd=bundle.bundle_root() / "lambda",
        env={**ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": server.url, **more},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stderr == ""
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_the_entry_point_mints_as_its_environment_says() -> None:
    """Table, default counter and lane come from the function's environment."""
    with dynamodb(repeat(mints(2))) as server:
        (told,) = run_entry_point(server, **CREDENTIALS)
    block = {"partition": "eu-west-1", "hand_crafted_int": 2, "first": 2, "last": 2, "count": 1, "increment": 3}
    assert json.loads(told["body"]) == block
    (sent,) = server.requests
    now = int(sent["ExpressionAttributeValues"][":now"]["N"])
    assert sent == handler.mint_request("orders", "eu-west-1", 1, handler.Fence(3), offset=2, now_ms=now)


def test_the_entry_point_sends_no_write_twice_whatever_the_environment_says() -> None:
    """The handler's client sends a write once, even if the environment configures SDK retries."""
    with dynamodb(repeat(refuses(500, "InternalServerError"))) as server:
        log, told = run_entry_point(server, AWS_MAX_ATTEMPTS="5", AWS_RETRY_MODE="standard", **CREDENTIALS)
    assert told == UNKNOWN
    assert (log["code"], log["cause"]) == ("outcome_unknown", "InternalServerError")
    assert len(server.requests) == 1


def test_the_entry_point_sends_nothing_without_credentials() -> None:
    """A request that cannot be signed is not sent, so nothing was minted."""
    with dynamodb(repeat(mints(2))) as server:
        log, told = run_entry_point(server)
    assert told == UNAVAILABLE
    assert (log["code"], log["cause"]) == ("unavailable", "NoCredentials")
    assert server.requests == []


def test_the_entry_point_sends_nothing_that_might_not_end_in_its_time() -> None:
    """If less time is left than a call may take, nothing is sent, so nothing was minted."""
    with dynamodb(repeat(mints(2))) as server:
        log, told = run_entry_point(server, handler.CALL_MS - 1, **CREDENTIALS)
    assert told == problem("unavailable", 503, "DynamoDB is too slow; nothing was minted.")
    assert (log["code"], log["cause"], log["request_id"]) == ("unavailable", "UpdateItem", "r-1")
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("INCREMENT", value) for value in ("0", "-1", "1.5", "")),
        *(("OFFSET", value) for value in ("-1", "x")),
        *(("MAX_COUNT", value) for value in ("0", "10001")),
    ],
)
def test_the_entry_point_mints_in_no_lane_that_goes_back(name: str, value: str) -> None:
    """With a lane or a largest count that only the function can check, as from a CDK token, nothing is minted."""
    with dynamodb(repeat(mints(2))) as server:
        log, told = run_entry_point(server, **CREDENTIALS, **{name: value})
    detail = "The environment of the function is invalid; nothing was minted."
    assert told == problem("unavailable", 503, detail)
    assert (log["code"], value in log["cause"], log["request_id"]) == ("unavailable", True, "r-1")
    assert server.requests == []
