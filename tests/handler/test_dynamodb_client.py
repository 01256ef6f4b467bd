"""The handler's own DynamoDB client: what it signs, where it sends, and when it trusts a connection."""

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count, repeat
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.dynamodb_server import (
    CERTIFICATE,
    DynamoDB,
    dynamodb,
    hangs_up,
    minted,
    mints,
    refuses,
    resets,
    says,
    then_closes,
)
from ticketctl.handler import handler

# --- the signature ---------------------------------------------------------------------------------


class Vector(NamedTuple):
    """One of the requests of AWS's Signature Version 4 test suite, and the signature that it must have."""

    name: str
    method: str
    signature: str
    path: str = "/"
    headers: Mapping[str, str] = {}
    body: bytes = b""


FORM = "application/x-www-form-urlencoded"
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwt"
    "hAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVX"
    "AkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
UNRESERVED = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VECTORS = [
    Vector("get-vanilla", "GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    Vector("post-vanilla", "POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    Vector(
        "get-unreserved", "GET", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f", path=UNRESERVED
    ),
    Vector("get-utf8", "GET", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85", path="/\u1234"),
    Vector(
        "get-header-key-duplicate",
        "GET",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        headers={"my-header1": "value2,value2,value1"},
    ),
    Vector(
        "get-header-value-order",
        "GET",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        headers={"my-header1": "value4,value1,value3,value2"},
    ),
    Vector(
        "post-header-key-sort",
        "POST",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        headers={"my-header1": "value1"},
    ),
    Vector(
        "post-header-value-case",
        "POST",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        headers={"my-header1": "VALUE1"},
    ),
    Vector(
        "post-sts-header-before",
        "POST",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        headers={"x-amz-security-token": TOKEN},
    ),
    Vector(
        "post-x-www-form-urlencoded",
        "POST",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        headers={"content-type": FORM},
        body=b"Param1=value1",
    ),
    Vector(
        "post-x-www-form-urlencoded-parameters",
        "POST",
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
        headers={"content-type": f"{FORM}; charset=utf8"},
        body=b"Param1=value1",
    ),
]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_a_published_request_has_its_published_signature(vector: Vector) -> None:
    """The suite's requests without a query have the signatures that AWS gives for them."""
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", **vector.headers}
    signed = handler.authorization(
        vector.method,
        vector.path,
        headers,
        vector.body,
        credentials=handler.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        service="service",
    )
    assert signed == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={';'.join(sorted(headers))}, Signature={vector.signature}"
    )


def botocore_signs(
    method: str, url: str, headers: Mapping[str, str], body: bytes, keys: Any, region: str, moment: datetime
) -> str:
    """The Authorization header that botocore gives a request at a moment."""
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    with patch("botocore.auth.get_current_datetime", lambda: moment):
        SigV4Auth(Credentials(keys.key_id, keys.secret, keys.token or None), "dynamodb", region).add_auth(request)
    return str(request.headers["Authorization"])


WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
SEGMENTS = st.lists(st.text("abcXYZ019-_~% é\u1234+=:@", min_size=1, max_size=8), max_size=3)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-amz-target", "accept", "x-amz-meta-a", "a-header"]),
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["POST", "GET", "PUT"]),
    path=SEGMENTS.map(lambda segments: "/" + "/".join(segments)),
    headers=HEADERS,
    body=st.binary(max_size=300) | st.text().map(str.encode),
    keys=st.builds(handler.Credentials, WORDS, st.text(min_size=1, max_size=50), st.just("") | WORDS),
    region=st.sampled_from(["us-east-1", "eu-central-2", "cn-north-1", "us-gov-west-1"]),
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_any_request_is_signed_as_botocore_signs_it(
    method: str, path: str, headers: dict[str, str], body: bytes, keys: Any, region: str, moment: datetime
) -> None:
    """Whatever is signed, with a session token and without, has botocore's Authorization header to the byte."""
    own = {**headers, "host": "dynamodb.example.com:8000", "x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ")}
    if keys.token:
        own["x-amz-security-token"] = keys.token
    signed = handler.authorization(method, path, own, body, credentials=keys, region=region)
    expected = botocore_signs(method, f"https://dynamodb.example.com:8000{path}", headers, body, keys, region, moment)
    assert signed == expected


# --- a client and its server -----------------------------------------------------------------------

LAMBDA = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/+",
    "AWS_SESSION_TOKEN": "token/+=",
    "AWS_CA_BUNDLE": str(CERTIFICATE),
}
WRITE = {"TableName": "Tickets", "Key": {"partition": {"S": "é\u1234"}}}


@contextmanager
def client_of(server: DynamoDB, /, clock: Any = time.time, **more: str) -> Iterator[handler.DynamoDB]:
    """A client in an environment like Lambda's, whose DynamoDB is the server; its connection is closed at the end."""
    client = handler.DynamoDB({**LAMBDA, "AWS_ENDPOINT_URL": server.url, **more}, clock)
    try:
        yield client
    finally:
        if client.kept:
            client.kept.close()


def failure_of(client: handler.DynamoDB, operation: str = "UpdateItem") -> tuple[str, str]:
    """The code of the problem that a request ends in, and its cause."""
    with pytest.raises(handler.ProblemError) as raised:
        client.send(operation, WRITE)
    return raised.value.code, raised.value.cause


@pytest.mark.parametrize("operation", ["UpdateItem", "GetItem", "PutItem"])
@pytest.mark.parametrize(("path", "arrives"), [("", "/"), ("/", "/"), ("/a/b%20c/", "/a/b%20c/")])
@pytest.mark.parametrize("token", ["token/+=", ""])
def test_what_arrives_is_what_was_signed(operation: str, path: str, arrives: str, token: str) -> None:
    """On the wire a request names its operation, has its keys' signature, and an endpoint's path goes before."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with dynamodb(repeat(says(200, b"{}"))) as server:
        with client_of(server, moment.timestamp, AWS_ENDPOINT_URL=server.url + path, AWS_SESSION_TOKEN=token) as client:
            assert client.send(operation, WRITE) == {}
        ((target, headers, body),) = server.received
    assert json.loads(body) == WRITE
    assert target == arrives
    signed = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{operation}"}
    keys = handler.Credentials("AKID", "s3cr3t/+", token)
    authorization = botocore_signs("POST", server.url + path, signed, body, keys, "eu-west-1", moment)
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent == {
        **signed,
        "host": server.url.removeprefix("http://"),
        "x-amz-date": "20260102T030405Z",
        **({"x-amz-security-token": token} if token else {}),
        "accept-encoding": "identity",
        "content-length": str(len(body)),
        "authorization": authorization,
    }


def test_credentials_are_read_for_each_request() -> None:
    """Keys that Lambda replaces sign the next request on the same connection; without a key nothing is sent."""
    environment = dict(LAMBDA)
    with dynamodb(repeat(says(200, b"{}"))) as server:
        environment["AWS_ENDPOINT_URL"] = server.url
        client = handler.DynamoDB(environment)
        for key in ("first", "second"):
            environment["AWS_ACCESS_KEY_ID"] = key
            client.send("GetItem", WRITE)
        del environment["AWS_SECRET_ACCESS_KEY"]
        assert failure_of(client) == ("unavailable", "NoCredentials")
        environment["AWS_SECRET_ACCESS_KEY"] = "again"
        client.send("GetItem", WRITE)
        assert client.kept
        client.kept.close()
    assert server.connections == 1
    keys = [headers["authorization"].split("=")[1].split("/")[0] for _, headers, _ in server.received]
    assert keys == ["first", "second", "second"]


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"AWS_REGION": "eu-west-1"}, "https://dynamodb.eu-west-1.amazonaws.com"),
        ({"AWS_REGION": "cn-north-1"}, "https://dynamodb.cn-north-1.amazonaws.com.cn"),
        ({"AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
        ({"AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": "http://b"}, "http://b"),
        ({"AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": ""}, "http://a"),
        ({"AWS_REGION": "r", "AWS_ENDPOINT_URL": ""}, "https://dynamodb.r.amazonaws.com"),
    ],
)
def test_the_nearest_setting_names_the_endpoint(environment: dict[str, str], url: str) -> None:
    """The service's own variable comes before the general one, and that before AWS's own address."""
    assert handler.endpoint_url(environment) == url


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://", "http://a:70000", "http://[", "///"])
def test_nothing_is_sent_to_what_is_no_address(url: str) -> None:
    """A mistyped endpoint is an answer that says that nothing was minted, not a crash."""
    client = handler.DynamoDB({**LAMBDA, "AWS_ENDPOINT_URL": url})
    assert failure_of(client) == ("unavailable", "ValueError")


def test_a_plain_endpoint_loads_no_certificates() -> None:
    """Without TLS no certificate is read; with it they are read once, whatever becomes of the connections."""
    closing = repeat(says(200, b"{}", Connection="close"))
    with patch("ssl.create_default_context", wraps=ssl.create_default_context) as load:
        for tls, loaded in ((False, 0), (True, 1)):
            with dynamodb(closing, tls=tls) as server, client_of(server) as client:
                for _ in range(2):
                    client.send("UpdateItem", WRITE)
            assert (server.connections, load.call_count) == (2, loaded)


# --- the connection --------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_one_connection_serves_many_requests(*, tls: bool) -> None:
    """Answers and refusals alike leave the connection open for what comes next."""
    refusal = refuses(400, "ConditionalCheckFailedException", Item={"partition": {"S": "a"}})
    answers = iter(
        [mints(1), refusal, refuses(500, "InternalServerError"), refuses(400, "ThrottlingException"), mints(2)]
    )
    with dynamodb(answers, tls=tls) as server, client_of(server) as client:
        assert client.send("UpdateItem", WRITE) == json.loads(minted(1))
        with pytest.raises(handler.ConditionFailedError) as refused:
            client.send("UpdateItem", WRITE)
        assert refused.value.item == {"partition": {"S": "a"}}
        assert failure_of(client) == ("outcome_unknown", "InternalServerError")
        assert failure_of(client) == ("throttled", "ThrottlingException")
        assert client.send("UpdateItem", WRITE) == json.loads(minted(2))
    assert (server.connections, len(server.requests)) == (1, 5)


def await_end(client: handler.DynamoDB) -> None:
    """Wait until the peer's end of the kept connection has arrived."""
    assert client.kept is not None
    assert select.select([client.kept.sock], [], [], 5)[0]


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_was_closed_while_idle_is_not_used(*, tls: bool) -> None:
    """A request is sent once, on a new connection, where the peer has closed the old one without a word."""
    answers = (then_closes(mints(number)) for number in count(1))
    with dynamodb(answers, tls=tls) as server, client_of(server) as client:
        for number in range(1, 4):
            assert client.send("UpdateItem", WRITE) == json.loads(minted(number))
            await_end(client)
    assert (server.connections, len(server.requests)) == (3, 3)


def test_a_connection_with_an_answer_to_nothing_is_not_used() -> None:
    """A second answer to one request is never taken for the answer to the next."""

    def answers_twice(exchange: Any) -> None:
        mints(1)(exchange)
        exchange.wfile.flush()
        time.sleep(0.05)
        mints(1)(exchange)

    with dynamodb(iter([answers_twice, mints(2)])) as server, client_of(server) as client:
        assert client.send("UpdateItem", WRITE) == json.loads(minted(1))
        await_end(client)
        assert client.send("UpdateItem", WRITE) == json.loads(minted(2))
    assert server.connections == 2


def test_a_connection_that_says_that_it_closes_is_not_kept() -> None:
    """Where the answer announces the end, the next request opens a new connection at once."""
    with dynamodb(repeat(says(200, b"{}", Connection="close"))) as server, client_of(server) as client:
        client.send("UpdateItem", WRITE)
        client.send("UpdateItem", WRITE)
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    ("later", "connections"),
    [(0.0, 1), (handler.IDLE_SECONDS, 1), (handler.IDLE_SECONDS + 0.1, 2), (3600.0, 2), (-0.1, 2)],
)
def test_a_connection_that_was_idle_for_long_is_not_used(later: float, connections: int) -> None:
    """After some seconds without a request, or where the clock went back, nobody knows what became of it."""
    now = [1_700_000_000.0]
    with dynamodb(repeat(mints(1))) as server, client_of(server, lambda: now[0]) as client:
        client.send("UpdateItem", WRITE)
        now[0] += later
        client.send("UpdateItem", WRITE)
    assert (server.connections, len(server.requests)) == (connections, 2)


@pytest.mark.parametrize("operation", ["UpdateItem", "PutItem", "GetItem"])
@pytest.mark.parametrize("fault", [hangs_up, resets])
def test_a_kept_connection_that_fails_is_not_tried_again(operation: str, fault: Any) -> None:
    """A request that has left is sent no second time; only the next one gets a new connection."""
    with dynamodb(iter([mints(1), fault, mints(2)])) as server, client_of(server) as client:
        client.send("UpdateItem", WRITE)
        code, _ = failure_of(client, operation)
        assert code == ("unavailable" if operation == "GetItem" else "outcome_unknown")
        assert (server.connections, len(server.requests)) == (1, 2)
        assert client.send("UpdateItem", WRITE) == json.loads(minted(2))
    assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.parametrize(("operation", "code"), [("UpdateItem", "outcome_unknown"), ("GetItem", "unavailable")])
def test_a_request_that_left_in_part_may_have_arrived(operation: str, code: str) -> None:
    """From the first byte on a write may have been made, even where sending it breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = handler.DynamoDB({**LAMBDA, "AWS_ENDPOINT_URL": url})

        def take_a_little() -> None:
            accepted, _ = listener.accept()
            accepted.recv(100)
            accepted.close()  # with the rest unread, so that the sender gets a reset

        thread = threading.Thread(target=take_a_little)
        thread.start()
        with pytest.raises(handler.ProblemError) as raised:
            client.send(operation, {"TableName": "x" * 50_000_000})  # more than any socket takes at once
        thread.join()
    assert raised.value.code == code
    assert raised.value.cause in ("ConnectionResetError", "BrokenPipeError")


def test_a_late_answer_is_never_taken_for_the_next() -> None:
    """The answer to a write that was given up goes nowhere."""

    def answers_late(exchange: Any) -> None:
        time.sleep(handler.ANSWER_SECONDS + 0.2)
        mints(1)(exchange)

    with dynamodb(iter([answers_late, mints(2)])) as server, client_of(server) as client:
        assert failure_of(client) == ("outcome_unknown", "TimeoutError")
        time.sleep(0.4)
        assert client.send("UpdateItem", WRITE) == json.loads(minted(2))


def test_a_server_that_is_gone_spends_nothing() -> None:
    """Where the old connection is closed and no new one can be opened, nothing was sent."""
    with dynamodb(repeat(then_closes(mints(1)))) as server:
        client = handler.DynamoDB({**LAMBDA, "AWS_ENDPOINT_URL": server.url})
        client.send("UpdateItem", WRITE)
    assert failure_of(client) == ("unavailable", "ConnectionRefusedError")
    assert len(server.requests) == 1


def test_a_header_that_cannot_be_sent_spoils_nothing() -> None:
    """A credential with a line end sends nothing, and the next request does not carry what was left of it."""
    environment = dict(LAMBDA)
    with dynamodb(repeat(mints(1))) as server:
        environment["AWS_ENDPOINT_URL"] = server.url
        client = handler.DynamoDB(environment)
        client.send("UpdateItem", WRITE)
        environment["AWS_SESSION_TOKEN"] = "a\r\nx-amz-target: b"
        assert failure_of(client) == ("unavailable", "ValueError")
        environment["AWS_SESSION_TOKEN"] = "a"
        client.send("UpdateItem", WRITE)
        assert client.kept
        client.kept.close()
    assert len(server.requests) == 2
