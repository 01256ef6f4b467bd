"""What a caller is told when DynamoDB fails: the SDK's client against a server on loopback that misbehaves."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ChecksumError, SSLError

from tests.function_url import SETTINGS, event, problem
from ticketctl import bundle
from ticketctl.bundle import handler

MINT = event(method="POST")
STATUS = event("/status")
SECRET = "the host ip-10-1-2-3 of arn:aws:sts::123456789012:assumed-role/x said"

# The whole answers, so that nothing of an exception can be in them.
THROTTLED = problem("throttled", 429, "DynamoDB is throttling; nothing was minted.", Retry_After="1")
UNAVAILABLE = problem("unavailable", 503, "DynamoDB is not available; nothing was minted.")
UNKNOWN = problem("outcome_unknown", 504, "DynamoDB did not answer; a ticket may have been spent.")
UNREADABLE = problem("outcome_unknown", 504, "The request failed; if it was to mint, a ticket may be spent.")


# --- a DynamoDB that misbehaves --------------------------------------------------------------------


class Exchange(BaseHTTPRequestHandler):
    """One request, answered as the server's next answer says."""

    server: "DynamoDB"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        next(self.server.answers)(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Nothing on stderr."""


Answer = Callable[[Exchange], None]


class DynamoDB(ThreadingHTTPServer):
    """A server that keeps the requests it gets; ``stopped`` is set when it stops."""

    daemon_threads = False  # so that closing it waits for the last exchange

    def __init__(self, answers: Iterator[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers = answers
        self.requests: list[dict[str, Any]] = []
        self.stopped = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def dynamodb(answers: Iterator[Answer]) -> Iterator[DynamoDB]:
    server = DynamoDB(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: bytes, *, length: int | None = None) -> Answer:
    def answer(exchange: Exchange) -> None:
        exchange.send_response(status)
        exchange.send_header("Content-Type", "application/x-amz-json-1.0")
        exchange.send_header("Content-Length", str(len(body) if length is None else length))
        exchange.end_headers()
        exchange.wfile.write(body)

    return answer


def mints(last: int) -> Answer:
    return says(200, json.dumps({"Attributes": {"hand_crafted_int": {"N": str(last)}}}).encode())


def refuses(status: int, name: str, **more: Any) -> Answer:
    document = {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": SECRET, **more}
    return says(status, json.dumps(document).encode())


def hangs_up(_: Exchange) -> None:
    """Read the request and close the connection."""


def never_answers(exchange: Exchange) -> None:
    exchange.server.stopped.wait()


# --- the function in front of it -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """The function starts without what it has learned of counters, as in a new execution environment."""
    handler.LANES.clear()
    yield
    handler.LANES.clear()


@pytest.fixture(scope="module")
def session() -> Any:
    return boto3.session.Session(aws_access_key_id="id", aws_secret_access_key="key", region_name="us-east-1")


def ask(session: Any, url: str, event: dict[str, Any], *, read_timeout: float = 10) -> dict[str, Any]:
    """Answer an event with a client like the handler's own."""
    config = Config(connect_timeout=1, read_timeout=read_timeout, retries={"total_max_attempts": 1}, proxies={})
    with closing(session.client("dynamodb", endpoint_url=url, config=config)) as client:
        return handler.respond(event, SETTINGS, client, "r-1")


# --- outcomes --------------------------------------------------------------------------------------

OUTCOMES = [
    pytest.param(refuses(400, "ThrottlingException"), THROTTLED, id="ThrottlingException"),
    pytest.param(refuses(400, "ProvisionedThroughputExceededException"), THROTTLED, id="ProvisionedThroughputExceeded"),
    pytest.param(refuses(400, "RequestLimitExceeded"), THROTTLED, id="RequestLimitExceeded"),
    pytest.param(refuses(400, "AccessDeniedException"), UNAVAILABLE, id="AccessDenied"),
    pytest.param(refuses(400, "ResourceNotFoundException"), UNAVAILABLE, id="ResourceNotFound"),
    pytest.param(refuses(400, "ExpiredTokenException"), UNAVAILABLE, id="ExpiredToken"),
    pytest.param(refuses(400, "ValidationException"), UNAVAILABLE, id="Validation"),
    pytest.param(says(403, b"<html>"), UNAVAILABLE, id="403 of something else"),
    pytest.param(refuses(500, "InternalServerError"), UNKNOWN, id="InternalServerError"),
    pytest.param(says(502, b"<html>Bad gateway</html>"), UNKNOWN, id="502 of something else"),
    pytest.param(refuses(503, "ServiceUnavailable"), UNKNOWN, id="ServiceUnavailable"),
    pytest.param(hangs_up, UNKNOWN, id="connection closed"),
    pytest.param(says(200, b'{"Attr', length=500), UNKNOWN, id="half an answer"),
    pytest.param(says(200, b"<html>"), UNREADABLE, id="unreadable answer"),
    pytest.param(says(200, b"{}"), UNREADABLE, id="empty answer"),
]


@pytest.mark.parametrize(("answer", "expected"), OUTCOMES)
def test_a_failed_write_is_sent_once_and_told_as_what_it_is(
    session: Any, capsys: pytest.CaptureFixture[str], answer: Answer, expected: dict[str, Any]
) -> None:
    """A caller is told whether a ticket may be spent, nothing of the failure itself, and no write is sent twice."""
    with dynamodb(repeat(answer)) as server:
        told = ask(session, server.url, MINT)
    assert told == expected
    assert len(server.requests) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert SECRET not in line


def test_a_write_without_an_answer_is_sent_once_and_its_outcome_unknown(session: Any) -> None:
    """Where DynamoDB takes longer than the function waits, a ticket may be spent."""
    with dynamodb(repeat(never_answers)) as server:
        told = ask(session, server.url, MINT, read_timeout=0.3)
    assert told == UNKNOWN
    assert len(server.requests) == 1


def test_nothing_is_minted_where_nobody_listens(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection sent nothing, so it is safe to try again."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        told = ask(session, f"http://127.0.0.1:{closed.getsockname()[1]}", MINT)
    assert told == UNAVAILABLE
    assert json.loads(capsys.readouterr().out) == {
        "level": "ERROR",
        "code": "unavailable",
        "status": 503,
        "detail": "DynamoDB is not available; nothing was minted.",
        "cause": "EndpointConnectionError",
        "request_id": "r-1",
        "method": "POST",
        "path": "/",
    }


BROKEN_TLS = urllib3.exceptions.SSLError(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"))


@pytest.mark.parametrize(
    "error",
    [
        SSLError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com", error=BROKEN_TLS),
        ChecksumError(checksum_type="crc32", expected_checksum=1, actual_checksum=2),
    ],
    ids=["TLS record", "checksum"],
)
def test_an_answer_that_breaks_on_its_way_leaves_the_outcome_unknown(error: Exception) -> None:
    """What the SDK raises about a broken answer may come after the write, though it is no HTTP error to it."""

    class Broken:
        def update_item(self, **_: Any) -> None:
            raise error

        get_item = put_item = update_item

    assert handler.respond(MINT, SETTINGS, Broken()) == UNKNOWN


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(refuses(400, "ThrottlingException"), THROTTLED, id="throttled"),
        pytest.param(refuses(500, "InternalServerError"), UNAVAILABLE, id="InternalServerError"),
        pytest.param(hangs_up, UNAVAILABLE, id="connection closed"),
        pytest.param(says(200, b'{"It', length=500), UNAVAILABLE, id="half an answer"),
    ],
)
def test_a_failed_look_at_a_counter_never_says_that_a_ticket_may_be_spent(
    session: Any, answer: Answer, expected: dict[str, Any]
) -> None:
    """Reading a counter mints nothing, however it fails."""
    with dynamodb(repeat(answer)) as server:
        told = ask(session, server.url, STATUS)
    assert told == expected
    assert len(server.requests) == 1


# --- conditions that do not hold -------------------------------------------------------------------


def test_a_changed_lane_is_learned_from_the_refusal(session: Any) -> None:
    """The item in the refusal leads to one more write, in its lane and for a counter that must exist."""
    item = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "40"}, "increment": {"N": "5"}}
    refusal = refuses(400, "ConditionalCheckFailedException", Item=item)
    with dynamodb(iter([refusal, mints(45), mints(50)])) as server:
        told = [json.loads(ask(session, server.url, MINT)["body"])["first"] for _ in range(2)]
    assert told == [45, 50]
    starts = ["attribute_not_exists(#partition)" in sent["ConditionExpression"] for sent in server.requests]
    steps = [sent["ExpressionAttributeValues"][":step"]["N"] for sent in server.requests]
    assert (starts, steps) == ([True, False, False], ["1", "5", "5"])


def test_a_counter_that_is_not_there_is_unknown(session: Any) -> None:
    """A refusal without an item is a 404 that says how to create the counter."""
    with dynamodb(repeat(refuses(400, "ConditionalCheckFailedException"))) as server:
        told = ask(session, server.url, MINT | {"rawQueryString": "partition=orders"})
    detail = "There is no counter 'orders'. Create it with: ticketctl counter create orders"
    assert told == problem("unknown_counter", 404, detail)
    assert len(server.requests) == 1


# --- the entry point -------------------------------------------------------------------------------

ONCE = """
import json, sys, types, create_ticket
context = types.SimpleNamespace(aws_request_id="r-1", get_remaining_time_in_millis=lambda: int(sys.argv[2]))
print(json.dumps(create_ticket.handler(json.loads(sys.argv[1]), context)))
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
ENVIRONMENT = {
    "TABLE_NAME": "orders",
    "DEFAULT_PARTITION": "eu-west-1",
    "OFFSET": "2",
    "INCREMENT": "3",
    "MAX_COUNT": "10",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def run_entry_point(server: DynamoDB, remaining_ms: int = 10_000, /, **more: str) -> list[dict[str, Any]]:
    """The JSON lines of the handler on its own, in a process and an environment like Lambda's."""
    run = subprocess.run(
        [sys.executable, "-B", "-c", ONCE, json.dumps(MINT), str(remaining_ms)],
        cwd=bundle.sources() / "lambda",
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
    assert sent == handler.mint_request("orders", "eu-west-1", 1, handler.Lane(3), offset=2, now_ms=now)


def test_the_entry_point_sends_no_write_twice_whatever_the_environment_says() -> None:
    """The handler's own client sends once, even where the SDK is told to try again."""
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
    assert (log["code"], log["cause"]) == ("unavailable", "NoCredentialsError")
    assert server.requests == []


def test_the_entry_point_sends_nothing_that_might_not_end_in_its_time() -> None:
    """With less time left than a call may take nothing is sent, so nothing was minted."""
    with dynamodb(repeat(mints(2))) as server:
        log, told = run_entry_point(server, handler.CALL_MS - 1, **CREDENTIALS)
    assert told == problem("unavailable", 503, "DynamoDB is too slow; nothing was minted.")
    assert (log["code"], log["cause"], log["request_id"]) == ("unavailable", "UpdateItem", "r-1")
    assert server.requests == []
