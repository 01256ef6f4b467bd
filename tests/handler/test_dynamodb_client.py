"""The handler's own DynamoDB client: what it sends, to which address, and with which credentials."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pytest

from tests.support.dynamodb_server import CERTIFICATE, DynamoDB, dynamodb, hangs_up, mints, resets, says
from tests.support.sigv4 import check
from ticketctl.handler import handler

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
    """A client in an environment like Lambda's, connected to the server; its connection is closed at the end."""
    client = handler.DynamoDB({**LAMBDA, "AWS_ENDPOINT_URL": server.url, **more}, clock)
    try:
        yield client
    finally:
        if client.kept:
            client.kept.close()


def failure_of(client: handler.DynamoDB, operation: str = "UpdateItem") -> tuple[str, str]:
    """Return the code of the problem that a request raises, and its cause."""
    with pytest.raises(handler.ProblemError) as raised:
        client.send(operation, WRITE)
    return raised.value.code, raised.value.cause


@pytest.mark.parametrize("operation", ["UpdateItem", "GetItem", "PutItem"])
@pytest.mark.parametrize(("path", "arrives"), [("", "/"), ("/", "/"), ("/a/b%20c/", "/a/b%20c/")])
@pytest.mark.parametrize("token", ["token/+=", ""])
def test_what_arrives_is_what_was_signed(operation: str, path: str, arrives: str, token: str) -> None:
    """A request names its operation, is signed with the given keys, and keeps the path of the endpoint."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with dynamodb(repeat(says(200, b"{}"))) as server:
        with client_of(server, moment.timestamp, AWS_ENDPOINT_URL=server.url + path, AWS_SESSION_TOKEN=token) as client:
            assert client.send(operation, WRITE) == {}
        ((target, headers, body),) = server.received
    assert json.loads(body) == WRITE
    assert target == arrives
    signed = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{operation}"}
    sent = check(headers, ("POST", server.url + arrives, body), ("dynamodb", "eu-west-1"))
    assert sent == {
        **signed,
        "host": server.url.removeprefix("http://"),
        "x-amz-date": "20260102T030405Z",
        **({"x-amz-security-token": token} if token else {}),
        "accept-encoding": "identity",
        "content-length": str(len(body)),
        "authorization": sent["authorization"],
    }


def test_credentials_are_read_for_each_request() -> None:
    """If Lambda replaces the credentials, the next request on the connection uses them; without any, none is sent."""
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
        ({}, "https://t"),
        ({"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": "http://b"}, "http://b"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": ""}, "http://a"),
        ({"AWS_ENDPOINT_URL": ""}, "https://t"),
    ],
)
def test_the_nearest_setting_names_the_endpoint(environment: dict[str, str], url: str) -> None:
    """The endpoint comes from DynamoDB's own variable, the general variable, or the template, in this order."""
    assert handler.endpoint_url({"AWS_REGION": "r", "DYNAMODB_ENDPOINT": "https://t", **environment}) == url


@pytest.mark.parametrize("fault", [hangs_up, resets])
def test_a_read_over_a_kept_connection_that_fails(fault: Any) -> None:
    """A failed read spends nothing and is not retried; the next request opens a new connection."""
    with dynamodb(iter([mints(1), fault, mints(2)])) as server, client_of(server) as client:
        client.send("UpdateItem", WRITE)
        assert failure_of(client, "GetItem")[0] == "unavailable"
        assert (server.connections, len(server.requests)) == (1, 2)
        client.send("GetItem", WRITE)
    assert (server.connections, len(server.requests)) == (2, 3)
