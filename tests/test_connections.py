"""The rules of kept connections, for the two clients that keep them: the handler's own and ``HttpClient``.

A request that arrives may spend a ticket. So a client sends each request once, never over a connection that may have
ended, and never takes the answer to one request for the answer to another.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Literal, Protocol
from unittest.mock import patch

import pytest

from tests.support.dynamodb_server import CERTIFICATE
from tests.support.http_requests import ask
from tests.support.peer import PATIENCE, Peer, Script, Talk, keeps, resets, resets_at_the_end, says
from ticketctl import http_client
from ticketctl.handler import handler
from ticketctl.http_client import HttpClient, TransportError

pytestmark = pytest.mark.usefixtures("no_aws")

Told = int | Literal["refused", "not sent", "unknown"]
TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
CLOSE = b"Connection: close\r\n"


class Client(Protocol):
    """A client; ``token`` is sent as a header, ``idle_seconds`` is the longest idle time, and ``now`` its clock."""

    now: float
    token: str
    idle_seconds: float

    def ask(self, url: str, name: str = "orders") -> Told:
        """Mint once; return the ticket, or what is known about the request."""

    def close(self) -> None: ...


class HandlersClient:
    """The Lambda handler's client for DynamoDB, with a fixed address."""

    idle_seconds = handler.IDLE_SECONDS

    def __init__(self) -> None:
        self.now, self.token = 1_700_000_000.0, "token"
        self._environ = {
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t/+",
            "AWS_CA_BUNDLE": str(CERTIFICATE),
        }
        self._clients: dict[str, handler.DynamoDB] = {}

    def ask(self, url: str, name: str = "orders") -> Told:
        self._environ |= {"AWS_ENDPOINT_URL": url, "AWS_SESSION_TOKEN": self.token}
        client = self._clients.setdefault(url, handler.DynamoDB(self._environ, lambda: self.now))
        try:
            answer = client.send("UpdateItem", {"TableName": name})
        except handler.ConditionFailedError:
            return "refused"
        except handler.ProblemError as problem:
            return "unknown" if problem.code == "outcome_unknown" else "not sent"
        return int(answer["Attributes"]["hand_crafted_int"]["N"])

    def close(self) -> None:
        for client in self._clients.values():
            if client.kept:
                client.kept.close()


class GeneralClient:
    """``HttpClient``, which the command line mints with."""

    idle_seconds = http_client.IDLE_SECONDS

    def __init__(self) -> None:
        self.now, self.token = 1_700_000_000.0, "token"
        self._http = HttpClient(clock=lambda: self.now)

    def ask(self, url: str, name: str = "orders") -> Told:
        try:
            answer = ask(self._http, url, headers={"x-amz-security-token": self.token}, body=name.encode(), seconds=2.0)
        except TransportError as error:
            return "unknown" if error.sent else "not sent"
        if answer.status >= 400:
            return "refused"
        return int(json.loads(answer.body)["Attributes"]["hand_crafted_int"]["N"])

    def close(self) -> None:
        self._http.close()


@pytest.fixture(params=[HandlersClient, GeneralClient], ids=["handler", "HttpClient"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    client: Client = request.param()
    yield client
    client.close()


def minted(last: int, *, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A complete answer with a ticket."""
    body = json.dumps({"Attributes": {"hand_crafted_int": {"N": str(last)}}}).encode()
    return b"HTTP/%b 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (version, more, len(body), body)


def chunked(last: int) -> bytes:
    body = minted(last).partition(b"\r\n\r\n")[2]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


REFUSED = b'{"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}'
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED)
FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"


def used(peer: Peer) -> list[int]:
    """Return the connection number of each request that arrived."""
    return [received.connection for received in peer.received]


@TLS
def test_one_connection_serves_many_requests(client: Client, *, tls: bool) -> None:
    """The connection stays open for the next request after an answer and after an error."""
    answers = [minted(1), REFUSAL, chunked(2), FAILURE, minted(3)]
    with Peer(keeps(*answers), tls=tls) as peer:
        told = [client.ask(peer.url) for _ in answers]
    assert [*told[:3], told[4]] == [1, "refused", 2, 3]
    assert used(peer) == [0] * 5


@pytest.mark.parametrize("answer", [minted(1, more=CLOSE), minted(1, version=b"1.0")], ids=["header", "HTTP/1.0"])
def test_an_announced_end(client: Client, answer: bytes) -> None:
    """If an answer announces that the connection will be closed, the next request opens a new one."""
    with Peer(says(answer)) as peer:
        assert [client.ask(peer.url) for _ in range(2)] == [1, 1]
    assert used(peer) == [0, 1]


@TLS
@pytest.mark.parametrize("abrupt", [False, True], ids=["orderly", "abrupt"])
def test_closed_while_idle(client: Client, *, abrupt: bool, tls: bool) -> None:
    """If the server has closed an idle connection silently, the next request is sent once, over a new connection."""
    answered = threading.Semaphore(0)

    def answers_and_ends(talk: Talk) -> None:
        talk.receives()
        talk.sends(minted(talk.number))
        assert answered.acquire(timeout=PATIENCE)
        if abrupt:
            resets_at_the_end(talk)

    with Peer(answers_and_ends, tls=tls) as peer:
        for number in range(3):
            assert client.ask(peer.url) == number
            answered.release()
            peer.await_end()
    assert used(peer) == [0, 1, 2]


def test_unsolicited_bytes(client: Client) -> None:
    """A connection on which unexpected bytes have arrived is not used again."""
    asked, came = threading.Event(), threading.Event()

    def answers_twice(talk: Talk) -> None:
        talk.receives()
        talk.sends(minted(1))
        assert asked.wait(PATIENCE)
        talk.sends(minted(666))
        came.set()
        talk.receives()

    with Peer(answers_twice, keeps(minted(2))) as peer:
        assert client.ask(peer.url) == 1
        asked.set()
        assert came.wait(PATIENCE)
        assert client.ask(peer.url) == 2
    assert used(peer) == [0, 1]


@TLS
@pytest.mark.parametrize("size", [200, 8192, 9000])
def test_unsolicited_bytes_behind_an_answer(client: Client, size: int, *, tls: bool) -> None:
    """Bytes after the end of an answer, wherever a buffer ends, are never taken for the next answer."""
    padding = b"X-Padding: %b\r\n" % (b"x" * (size - len(minted(1, more=b"X-Padding: \r\n"))))
    answer = minted(1, more=padding)
    assert len(answer) == size
    with Peer(keeps(answer + minted(666), minted(2)), keeps(minted(2)), tls=tls) as peer:
        assert [client.ask(peer.url) for _ in range(2)] == [1, 2]
    assert len(peer.received) == 2


@pytest.mark.parametrize(
    ("later", "connections"),
    [
        (lambda idle: 0.0, 1),
        (lambda idle: idle, 1),
        (lambda idle: idle + 0.1, 2),
        (lambda idle: 3600.0, 2),
        (lambda idle: -0.1, 2),
    ],
    ids=["at once", "in time", "too late", "an hour later", "the clock went back"],
)
def test_idle_for_long(client: Client, later: Callable[[float], float], connections: int) -> None:
    """A connection that was idle for too long, or for an unknown time, is not used again."""
    with Peer(keeps(minted(1))) as peer:
        client.ask(peer.url)
        client.now += later(client.idle_seconds)
        assert client.ask(peer.url) == 1
    assert (peer.connections, len(peer.received)) == (connections, 2)


@pytest.mark.parametrize("script", [resets, Talk.receives], ids=["reset", "end"])
def test_a_kept_connection_that_fails(client: Client, script: Script) -> None:
    """A request that was sent over a kept connection is not sent again; the next one opens a new connection."""

    def answers_once(talk: Talk) -> None:
        talk.receives()
        talk.sends(minted(1))
        script(talk)

    with Peer(answers_once, keeps(minted(2))) as peer:
        assert [client.ask(peer.url) for _ in range(3)] == [1, "unknown", 2]
    assert used(peer) == [0, 0, 1]


def test_a_partly_sent_request(client: Client) -> None:
    """Once the first byte was sent, a request may have arrived, even if sending the rest fails."""

    def takes_a_little(talk: Talk) -> None:
        talk.connection.recv(100)  # the rest is not read, so that the sender gets a reset

    with Peer(takes_a_little) as peer:
        assert client.ask(peer.url, "x" * 50_000_000) == "unknown"  # more than any socket buffers


def test_a_late_answer(client: Client) -> None:
    """A late answer to an abandoned request is never taken for the answer to the next request."""
    given_up, came = threading.Event(), threading.Event()

    def answers_late(talk: Talk) -> None:
        talk.receives()
        assert given_up.wait(PATIENCE)
        talk.sends(minted(1))
        came.set()

    with Peer(answers_late, keeps(minted(2))) as peer:
        assert client.ask(peer.url) == "unknown"
        given_up.set()
        assert came.wait(PATIENCE)
        assert client.ask(peer.url) == 2
    assert used(peer) == [0, 1]


def test_a_stopped_server(client: Client) -> None:
    """If the old connection is closed and no new one can be opened, nothing was sent."""
    with Peer(says(minted(1))) as peer:
        assert client.ask(peer.url) == 1
        peer.await_end()
    assert client.ask(peer.url) == "not sent"
    assert len(peer.received) == 1


@pytest.mark.parametrize("token", ["a\r\nx-more: b", "a\n", "\u1234"])
def test_a_header_that_cannot_be_sent(client: Client, token: str) -> None:
    """If a header is not valid in HTTP, nothing is sent, and the next request contains none of it."""
    with Peer(keeps(minted(1))) as peer:
        client.ask(peer.url)
        good, client.token = client.token, token
        assert client.ask(peer.url) == "not sent"
        client.token = good
        assert client.ask(peer.url) == 1
    assert [received.all_of("x-amz-security-token") for received in peer.received] == [[good], [good]]
    assert not any(received.all_of("x-more") for received in peer.received)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://", "http://a:70000", "http://[", "///"])
def test_no_address(client: Client, url: str) -> None:
    """A mistyped address is an error which says that nothing was sent."""
    assert client.ask(url) == "not sent"


def test_certificates_are_read_once(client: Client) -> None:
    """Certificates are read only for TLS, and only once, however many connections are opened."""
    with patch("ssl.create_default_context", wraps=ssl.create_default_context) as load:
        for tls, loaded in ((False, 0), (True, 1)):
            with Peer(says(minted(1, more=CLOSE)), tls=tls) as peer:
                assert [client.ask(peer.url) for _ in range(2)] == [1, 1]
            assert (peer.connections, load.call_count) == (2, loaded)
