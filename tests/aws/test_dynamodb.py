"""``dynamodb``: the sender without an SDK, on a DynamoDB on loopback, compared with the SDK's sender."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from tests.support.dynamodb_server import (
    CERTIFICATE,
    Answer,
    DynamoDB,
    drips,
    dynamodb,
    hangs_up,
    minted,
    mints,
    never_answers,
    refuses,
    resets,
    says,
    sends,
    then_closes,
)
from tests.support.peer import Peer, Script, resets_at_the_end
from tests.support.sigv4 import check
from ticketctl.aws.account import Aws
from ticketctl.aws.dynamodb import needs_sdk, plain_sender, timed_sdk_sender
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    ExpiredCredentialsError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    RefusedError,
    SetupError,
    ThrottledError,
    TicketctlError,
    UnreachableError,
)
from ticketctl.handler import handler
from ticketctl.http_client import HttpClient, Response

pytestmark = pytest.mark.usefixtures("no_aws", "_keys")

Send = Callable[[str, dict[str, Any]], Mapping[str, Any]]
TARGET = "the table Tickets in eu-west-1"
KEY = {"TableName": "Tickets", "Key": {"partition": {"S": "é\u1234"}}}
REQUESTS: dict[str, dict[str, Any]] = {
    "GetItem": KEY,
    "UpdateItem": {**KEY, "UpdateExpression": "SET hand_crafted_int = hand_crafted_int + :by"},
}


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/+")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def sending(
    url: str | None, *, via: str = "plain", region: str = "eu-west-1", seconds: float = 5.0, deadline: float = 60.0
) -> Iterator[Send]:
    """Open a sender for an endpoint: ticketctl's own (``via="plain"``) or the SDK's (``via="sdk"``)."""
    transport = HttpClient()
    with closing(Aws(region, endpoint_url=url)) as aws, closing(transport):
        if via == "plain":
            yield plain_sender(aws, transport, TARGET, timeout=seconds, connect=seconds)(Deadline(deadline))
        else:
            yield timed_sdk_sender(aws, TARGET, timeout=seconds, connect=seconds)(Deadline(deadline))


def outcome(send: Send, operation: str) -> TicketctlError:
    """Return the error that a request raises."""
    with pytest.raises(TicketctlError) as raised:
        send(operation, REQUESTS[operation])
    return raised.value


# --- the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize(("path", "arrives"), [("", "/"), ("/", "/"), ("/a/b", "/a/b/"), ("/a/b%20c/", "/a/b%20c/")])
@pytest.mark.parametrize("token", ["", "token/+="])
def test_the_request(monkeypatch: pytest.MonkeyPatch, operation: str, path: str, arrives: str, token: str) -> None:
    """A request names its operation, has its fields as JSON, and is signed as botocore signs it."""
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    with dynamodb(repeat(says(200, b'{"Attributes": {}}'))) as server, sending(server.url + path) as send:
        assert send(operation, REQUESTS[operation]) == {"Attributes": {}}
        ((target, received, body),) = server.received
    headers = check(received, ("POST", server.url + target, body), ("dynamodb", "eu-west-1"))
    assert (target, json.loads(body)) == (arrives, REQUESTS[operation])
    assert headers.get("x-amz-security-token", "") == token
    assert {name: headers[name] for name in ("content-type", "x-amz-target", "host", "content-length")} == {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": f"DynamoDB_20120810.{operation}",
        "host": server.url.removeprefix("http://"),
        "content-length": str(len(body)),
    }


def test_the_same_fields_as_the_sdk() -> None:
    """Both senders send the same operation with the same fields to the same path."""
    with dynamodb(repeat(says(200, b'{"Attributes": {}}', Connection="close"))) as server:
        for via in ("plain", "sdk"):
            with sending(server.url, via=via) as send:
                for operation, request in REQUESTS.items():
                    send(operation, request)
        sent = [(path, headers["X-Amz-Target"], json.loads(body)) for path, headers, body in received(server)]
    assert len(sent) == 4
    assert sent[:2] == sent[2:]


def received(server: DynamoDB) -> list[tuple[str, dict[str, str], bytes]]:
    """Return what the server received, with header names written as in ``X-Amz-Target``."""
    return [
        (path, {name.title(): value for name, value in headers.items()}, body)
        for path, headers, body in server.received
    ]


def test_keys_are_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the credentials in the environment change, the next request uses the new ones."""
    with dynamodb(repeat(says(200, b"{}"))) as server, sending(server.url) as send:
        for key in ("first", "second"):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
            send("GetItem", KEY)
        keys = [headers["Authorization"].split("=")[1].split("/")[0] for _, headers, _ in received(server)]
    assert keys == ["first", "second"]
    assert server.connections == 1


class Recorder(HttpClient):
    """Replaces the network and keeps the addresses."""

    def __init__(self) -> None:
        super().__init__(direct=True)
        self.urls: list[str] = []

    def request(self, method: str, url: str, *_: Any, **__: Any) -> Response:
        assert method == "POST"
        self.urls.append(url)
        return Response(200, {}, b"{}")


def asked_by(region: str, endpoint_url: str | None = None) -> str:
    """Return the address that is used for a region."""
    transport = Recorder()
    with closing(Aws(region, endpoint_url=endpoint_url)) as aws:
        plain_sender(aws, transport, TARGET, timeout=1.0, connect=1.0)(Deadline(1.0))("GetItem", KEY)
    (url,) = transport.urls
    return url


@pytest.mark.parametrize(
    ("region", "endpoint_url", "asked"),
    [
        ("eu-west-1", None, "https://dynamodb.eu-west-1.amazonaws.com/"),
        ("us-gov-west-1", None, "https://dynamodb.us-gov-west-1.amazonaws.com/"),
        ("cn-north-1", None, "https://dynamodb.cn-north-1.amazonaws.com.cn/"),
        ("cn-north-1", "http://127.0.0.1:1", "http://127.0.0.1:1/"),
        ("eu-west-1", "http://127.0.0.1:1/", "http://127.0.0.1:1/"),
        ("eu-west-1", "https://vpce.example/a/b", "https://vpce.example/a/b/"),
    ],
)
def test_the_address(region: str, endpoint_url: str | None, asked: str) -> None:
    """A region has AWS's address; if an endpoint is given, that is used with its path."""
    assert asked_by(region, endpoint_url) == asked


def test_the_address_of_every_region() -> None:
    """For every region of every partition, the address is the one that the SDK uses."""
    session = Session()
    partitions = session.get_available_partitions()
    regions = [name for each in partitions for name in session.get_available_regions("dynamodb", partition_name=each)]
    assert {"eu-west-1", "cn-north-1", "us-gov-west-1", "eusc-de-east-1", "us-iso-east-1"} <= set(regions)
    known = {}
    for region in regions:
        with closing(session.create_client("dynamodb", region_name=region)) as client:
            known[region] = f"{client.meta.endpoint_url}/"
    assert {region: asked_by(region) for region in regions} == known


def test_a_region_that_the_sdk_does_not_know() -> None:
    """A region of an unknown partition is left to the SDK; a new region of a known partition is not."""
    assert needs_sdk("nowhere", {"AWS_CONFIG_FILE": "/nonexistent"}) is True
    assert needs_sdk("eu-west-99", {"AWS_CONFIG_FILE": "/nonexistent"}) is False
    assert asked_by("eu-west-99") == "https://dynamodb.eu-west-99.amazonaws.com/"


# --- the outcome -------------------------------------------------------------------------------------

Outcome = type[TicketctlError]
PAGE = b"<html><body>Sign in</body></html>"
CASES: dict[str, tuple[Answer, Outcome, Outcome]] = {
    # the answer, and its meaning for a write and for a read
    "throttled": (refuses(400, "ThrottlingException"), ThrottledError, ThrottledError),
    "too much": (refuses(400, "ProvisionedThroughputExceededException"), ThrottledError, ThrottledError),
    "too many": (refuses(400, "RequestLimitExceeded"), ThrottledError, ThrottledError),
    "denied": (refuses(400, "AccessDeniedException"), AccessError, AccessError),
    "denied with 403": (refuses(403, "AccessDeniedException"), AccessError, AccessError),
    "unknown key": (refuses(400, "UnrecognizedClientException"), AccessError, AccessError),
    "wrong signature": (refuses(400, "InvalidSignatureException"), AccessError, AccessError),
    "wrong clock": (
        refuses(400, "InvalidSignatureException", message="Signature expired: 1 is now earlier than 2"),
        SetupError,
        SetupError,
    ),
    "expired": (refuses(400, "ExpiredTokenException"), ExpiredCredentialsError, ExpiredCredentialsError),
    "no table": (refuses(400, "ResourceNotFoundException"), NotDeployedError, NotDeployedError),
    "invalid": (refuses(400, "ValidationException"), NotMintedError, RefusedError),
    "in conflict": (refuses(400, "TransactionConflictException"), NotMintedError, RefusedError),
    "bare name": (says(400, b'{"__type": "ThrottlingException"}'), ThrottledError, ThrottledError),
    "no name": (says(400, b"{}"), OutcomeUnknownError, NotMintedError),
    "broken": (refuses(500, "InternalServerError"), OutcomeUnknownError, NotMintedError),
    "unavailable": (refuses(503, "ServiceUnavailable"), OutcomeUnknownError, NotMintedError),
    "502 page": (says(502, PAGE), OutcomeUnknownError, NotMintedError),
    "503 empty": (says(503, b""), OutcomeUnknownError, NotMintedError),
    "403 page": (says(403, PAGE), OutcomeUnknownError, NotMintedError),
    "408 empty": (says(408, b""), OutcomeUnknownError, NotMintedError),
    "499 of another": (says(499, b'{"message": "no"}'), OutcomeUnknownError, NotMintedError),
    "413 empty": (says(413, b""), OutcomeUnknownError, NotMintedError),
    "moved": (says(307, b"{}", Location="http://127.0.0.1:1/"), OutcomeUnknownError, NotMintedError),
    "cut": (says(200, minted(1), length=1000), OutcomeUnknownError, UnreachableError),
    "garbage": (sends(b"\x00garbage\r\n\r\n"), OutcomeUnknownError, UnreachableError),
    "reset": (resets, OutcomeUnknownError, UnreachableError),
    "end": (hangs_up, OutcomeUnknownError, UnreachableError),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_what_a_failure_means(via: str, operation: str, case: str) -> None:
    """Both senders report every failure in the same way, and send each request once."""
    answer, of_a_write, of_a_look = CASES[case]
    with dynamodb(repeat(then_closes(answer))) as server, sending(server.url, via=via) as send:
        error = outcome(send, operation)
        assert len(server.requests) == 1
    kind = of_a_look if operation == "GetItem" else of_a_write
    assert (type(error), error.exit_code) == (kind, kind.exit_code)
    assert "<html>" not in error.message


@pytest.mark.parametrize(
    "answer",
    [
        says(200, PAGE),
        says(200, b'{"Attributes": {'),
        says(200, b"[]"),
        says(200, b""),
        says(204, b""),
        says(503, b"[]"),
    ],
    ids=["page", "half", "list", "empty", "204", "503-list"],
)
@pytest.mark.parametrize("operation", REQUESTS)
def test_an_answer_that_is_not_an_object(operation: str, answer: Answer) -> None:
    """A 200 whose body is not a JSON object is not an answer; a write may have happened."""
    with dynamodb(repeat(answer)) as server, sending(server.url) as send:
        error = outcome(send, operation)
        assert len(server.requests) == 1
    assert type(error) in ([UnreachableError, NotMintedError] if operation == "GetItem" else [OutcomeUnknownError])


@pytest.mark.parametrize("via", ["plain", "sdk"])
@pytest.mark.parametrize("item", [{}, {"Item": {}}, {"Item": {"partition": {"S": "é"}, "increment": {"N": "3"}}}])
def test_a_failed_condition(via: str, item: dict[str, Any]) -> None:
    """A failed condition raises an error with the current item, or ``None`` if there is no item."""
    refusal = then_closes(refuses(400, "ConditionalCheckFailedException", **item))
    with (
        dynamodb(repeat(refusal)) as server,
        sending(server.url, via=via) as send,
        pytest.raises(handler.ConditionFailedError) as raised,
    ):
        send("UpdateItem", REQUESTS["UpdateItem"])
    assert raised.value.item == (item.get("Item") or None)


@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_an_update_without_its_attributes(via: str) -> None:
    """An update that is answered without attributes is unknown; other operations may have an empty answer."""
    with dynamodb(repeat(says(200, b"{}", Connection="close"))) as server, sending(server.url, via=via) as send:
        assert type(outcome(send, "UpdateItem")) is OutcomeUnknownError
        assert set(send("GetItem", REQUESTS["GetItem"])) <= {"ResponseMetadata"}


@pytest.mark.parametrize(("operation", "kind"), [("UpdateItem", OutcomeUnknownError), ("GetItem", UnreachableError)])
@pytest.mark.parametrize("status", [200, 400])
def test_a_wrong_checksum(operation: str, kind: type[TicketctlError], status: int) -> None:
    """An answer with a wrong checksum is ignored, whatever it says."""
    answer = says(status, b'{"Attributes": {}, "__type": "ThrottlingException"}', x_amz_crc32="1")
    with dynamodb(repeat(answer)) as server, sending(server.url) as send:
        assert type(outcome(send, operation)) is kind


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_a_refused_connection(via: str, operation: str) -> None:
    """If no connection can be opened, nothing was spent."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with sending(f"http://127.0.0.1:{taken.getsockname()[1]}", via=via) as send:
            error = outcome(send, operation)
    assert type(error) is UnreachableError
    assert error.message.startswith(f"{TARGET} cannot be reached: ")


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("tls", [False, True], ids=["a full queue", "no handshake"])
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_the_deadline_passes_before_a_connection_is_open(via: str, operation: str, *, tls: bool) -> None:
    """If no connection could be opened until the deadline, nothing was spent."""
    with socket.create_server(("127.0.0.1", 0), backlog=4 * tls) as full, ExitStack() as opened:
        for _ in range(0 if tls else 4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http{'s' if tls else ''}://127.0.0.1:{full.getsockname()[1]}"
        with sending(url, via=via, deadline=1.0) as send:
            error = outcome(send, operation)
    assert type(error) is UnreachableError
    assert error.message.startswith(f"{TARGET} cannot be reached: ")


@pytest.mark.parametrize("script", [resets_at_the_end, lambda talk: talk.sends(b"HTTP/1.1 400 X\r\n\r\n")])
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_a_handshake_that_fails(via: str, script: Script) -> None:
    """If the TLS handshake fails, nothing was spent."""
    with (
        Peer(lambda talk: (talk.connection.recv(10), script(talk))) as peer,
        sending(f"https://127.0.0.1:{peer.port}", via=via) as send,
    ):
        error = outcome(send, "UpdateItem")
    assert type(error) is UnreachableError
    assert error.message.startswith(f"{TARGET} cannot be reached: ")


@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_the_deadline_passes_before_the_name_is_resolved(monkeypatch: pytest.MonkeyPatch, via: str) -> None:
    """If the name server did not answer until the deadline, nothing was spent."""
    released = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        released.wait(10.0)
        return []

    with sending("http://tickets.invalid", via=via, deadline=1.0) as send:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        error = outcome(send, "UpdateItem")
        released.set()
    assert type(error) is UnreachableError


@pytest.mark.parametrize(("operation", "kind"), [("UpdateItem", OutcomeUnknownError), ("GetItem", UnreachableError)])
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_an_answer_that_never_comes(via: str, operation: str, kind: type[TicketctlError]) -> None:
    """If no answer comes before the read timeout, a write may have happened."""
    with dynamodb(repeat(never_answers)) as server, sending(server.url, via=via, seconds=0.3) as send:
        assert type(outcome(send, operation)) is kind
        assert len(server.requests) == 1


@pytest.mark.parametrize(("operation", "kind"), [("UpdateItem", OutcomeUnknownError), ("GetItem", UnreachableError)])
@pytest.mark.parametrize("answer", [never_answers, drips], ids=["silent", "drips"])
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_a_slow_answer(via: str, answer: Answer, operation: str, kind: type[TicketctlError]) -> None:
    """The deadline ends a request even if its answer arrives in small pieces; a write may have happened."""
    with dynamodb(repeat(answer)) as server, sending(server.url, via=via, deadline=2.5) as send:
        begun = time.monotonic()
        assert type(outcome(send, operation)) is kind
        assert time.monotonic() - begun < 3.3
        assert len(server.requests) == 1


@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_no_time_is_left(via: str) -> None:
    """After the deadline nothing is sent, and nothing was minted."""
    with dynamodb(repeat(mints(1))) as server, sending(server.url, via=via, deadline=0.0) as send:
        assert isinstance(outcome(send, "UpdateItem"), NotMintedError)
        assert server.requests == []


def test_slow_credentials_of_the_sdk(monkeypatch: pytest.MonkeyPatch, no_aws: Path) -> None:
    """If the SDK's credentials arrive after the deadline, nothing is sent, then or later."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    keys = '{"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "x"}'
    program = no_aws / "program"
    program.write_text(f"#!/bin/sh\nsleep 1.5\necho '{keys}'\n")
    program.chmod(0o700)
    (no_aws / "aws_config").write_text(f"[default]\ncredential_process = {program}\n", encoding="utf-8")
    with dynamodb(repeat(then_closes(mints(1)))) as server, sending(server.url, via="sdk", deadline=1.0) as send:
        begun = time.monotonic()
        error = outcome(send, "UpdateItem")
        assert time.monotonic() - begun < 1.4
        time.sleep(1.5)
        assert server.requests == []
    assert (type(error), error.exit_code) == (NotMintedError, 7)
    assert "(source: custom-process)" in error.message


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_an_untrusted_certificate(via: str, operation: str) -> None:
    """If the server's certificate is not trusted, nothing was sent, so nothing was spent."""
    with dynamodb(repeat(mints(1)), tls=True) as server, sending(server.url, via=via) as send:
        assert type(outcome(send, operation)) is UnreachableError
        assert server.requests == []


def test_a_certificate_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server's certificate is trusted, the request is sent over TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with dynamodb(repeat(mints(7)), tls=True) as server, sending(server.url) as send:
        assert send("UpdateItem", KEY)["Attributes"] == {"hand_crafted_int": {"N": "7"}}


@pytest.mark.parametrize("via", ["plain", "sdk"])
def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, via: str) -> None:
    """If a proxy refuses the tunnel, nothing was sent, and the error names the proxy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@127.0.0.1:{port}")
        with sending(None, via=via) as send:
            error = outcome(send, "UpdateItem")
    assert type(error) is UnreachableError
    assert f"https=127.0.0.1:{port}" in error.message
    assert "s3cr3t" not in error.message


def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session token that ends with a carriage return is an error that spends nothing and does not show the token."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "s3cr3t-token\r")
    with dynamodb(repeat(mints(1))) as server, sending(server.url) as send:
        error = outcome(send, "UpdateItem")
        assert server.requests == []
    assert isinstance(error, NotMintedError)
    assert "s3cr3t-token" not in error.message


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a user has no home folder, there is no AWS configuration file, and the SDK is not needed."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert needs_sdk("us-east-1", {}) is False
