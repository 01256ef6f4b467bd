"""``http_client``: the bytes on the wire, the answers, and whether a failed request had been sent."""

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.dynamodb_server import CERTIFICATE
from tests.support.http_requests import ask
from tests.support.peer import (
    PATIENCE,
    Peer,
    Script,
    Talk,
    drips,
    echoes,
    full_servers,
    keeps,
    never_answers,
    resets,
    resets_at_the_end,
    says,
    tunnels,
)
from ticketctl.http_client import MAX_IDLE, HttpClient, Response, TransportError, UnsendableError

pytestmark = pytest.mark.usefixtures("no_aws")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# --- a client ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of the tests."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


trusting = pytest.mark.usefixtures("_trusting")


@pytest.fixture
def http() -> Iterator[HttpClient]:
    with opened() as http:
        yield http


@contextmanager
def opened(*, direct: bool = False) -> Iterator[HttpClient]:
    http = HttpClient(direct=direct)
    try:
        yield http
    finally:
        http.close()


def failure(http: HttpClient, url: str, **more: Any) -> TransportError:
    with pytest.raises(TransportError) as raised:
        ask(http, url, **more)
    return raised.value


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses every connection: a port that is bound and never listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- what is sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("", "/"),
        ("/", "/"),
        ("?count=2", "/?count=2"),
        ("/status?partition=a%20b&x=%2F", "/status?partition=a%20b&x=%2F"),
        ("/a/../b//c%2f", "/a/../b//c%2f"),
        ("/status#top", "/status"),
    ],
)
def test_the_request_on_the_wire(http: HttpClient, path: str, arrives: str) -> None:
    """A request arrives once, with its path and headers unchanged, and its body."""
    headers = {"content-type": "application/json", "X-Mixed": "a, b", "x-latin": "é"}
    with Peer(keeps(OK)) as peer:
        assert ask(http, peer.url + path, headers=headers, body=b'{"count": 2}').body == b"ok"
        (received,) = peer.received
    assert (received.line, received.body) == (f"POST {arrives} HTTP/1.1", b'{"count": 2}')
    assert set(headers.items()) <= set(received.headers)
    assert received.all_of("host") == [f"127.0.0.1:{peer.port}"]
    assert received.all_of("content-length") == ["12"]
    assert received.all_of("content-type") == ["application/json"]


@pytest.mark.parametrize("name", ["host", "Host", "HOST"])
def test_a_host_header_of_the_callers(http: HttpClient, name: str) -> None:
    """The ``Host`` header that was signed is the only one that is sent."""
    with Peer(keeps(OK)) as peer:
        ask(http, peer.url, headers={name: "tickets.example"})
        assert peer.received[0].all_of("host") == ["tickets.example"]


def test_a_name_and_password_in_the_address(http: HttpClient) -> None:
    """User information before the @ of an address is not sent."""
    with Peer(keeps(OK)) as peer:
        ask(http, peer.url.replace("://", "://user:secret@"))
        (received,) = peer.received
    assert received.all_of("host") == [f"127.0.0.1:{peer.port}"]
    assert "secret" not in str(received)


def test_a_request_without_a_body(http: HttpClient) -> None:
    """A request without a body says so, and nothing follows it."""
    with Peer(keeps(OK)) as peer:
        for _ in range(2):
            ask(http, peer.url, method="GET", body=b"")
        assert [(got.line, got.all_of("content-length"), got.body) for got in peer.received] == [
            ("GET / HTTP/1.1", ["0"], b"")
        ] * 2


def test_a_long_body(http: HttpClient) -> None:
    """A body that is longer than any buffer is sent and received completely."""
    body = os.urandom(3_000_000)
    with Peer(echoes) as peer:
        assert ask(http, peer.url, body=body).body == body


# --- what comes back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "response"),
    [
        (OK, Response(200, {"content-length": "2"}, b"ok")),
        (
            b"HTTP/1.1 429 Slow Down\r\nRetry-After: 1\r\nX-AMZ-Thing: A b\r\nContent-Length: 1\r\n\r\nx",
            Response(429, {"retry-after": "1", "x-amz-thing": "A b", "content-length": "1"}, b"x"),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Response(200, {"content-length": "0"}, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, {}, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
            Response(200, {"transfer-encoding": "chunked"}, b"abc"),
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", Response(200, {}, b"until the end")),
        (b"HTTP/1.1 200 OK\r\nX-Whole: 1\r\nContent-Le", Response(200, {"x-whole": "1"}, b"")),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", Response(599, {"content-length": "0"}, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Response(200, {"content-length": "2"}, b"ok")),
        (
            b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 2\r\n\r\n\xff\x00",
            Response(200, {"x-name": "caf\xe9", "content-length": "2"}, b"\xff\x00"),
        ),
    ],
    ids=["plain", "error", "empty", "204", "chunked", "until-the-end", "cut-headers", "599", "after-100", "bytes"],
)
def test_an_answer(http: HttpClient, raw: bytes, response: Response) -> None:
    """An answer consists of its status, its headers with lower-case names, and its body byte for byte."""
    with Peer(says(raw)) as peer:
        assert ask(http, peer.url) == response


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(http: HttpClient, status: int) -> None:
    """A redirect is returned like any other answer, because following it could send a mint twice."""
    with Peer(keeps(OK)) as elsewhere:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
        with Peer(keeps(moved.encode())) as peer:
            response = ask(http, peer.url)
    assert (response.status, response.headers["location"]) == (status, f"{elsewhere.url}/")
    assert (len(peer.received), elsewhere.connections) == (1, 0)


# --- kept connections --------------------------------------------------------------------------------


def in_threads(work: Callable[[int], object], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_share_no_connection(http: HttpClient) -> None:
    """If two requests are sent at the same time, one uses the kept connection and the other a new one."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def answers_two_at_once(talk: Talk) -> None:
        while (received := talk.receives()) is not None:
            if received.body == b"together":
                both.wait()
            talk.sends(OK)

    with Peer(answers_two_at_once) as peer:
        ask(http, peer.url)
        in_threads(lambda number: ask(http, peer.url, body=b"together"), 2)
        assert sorted(received.connection for received in peer.received) == [0, 0, 1]


def test_threads_get_their_own_answers(http: HttpClient) -> None:
    """If many threads send requests, each gets the answer to its own request."""
    answers: dict[str, bytes] = {}

    def asks(number: int) -> None:
        for turn in range(25):
            body = f"{number}-{turn}".encode()
            answers[body.decode()] = ask(http, peer.url, body=body).body

    with Peer(echoes) as peer:
        in_threads(asks, 6)
    assert len(answers) == 150
    assert all(answer.decode() == asked for asked, answer in answers.items())
    assert peer.connections <= 6


def test_only_so_many_are_kept(http: HttpClient) -> None:
    """After many requests at once ``MAX_IDLE`` connections stay open; the next time only the missing ones are added."""
    crowd = MAX_IDLE + 3
    all_here = threading.Barrier(crowd, timeout=PATIENCE)

    def answers_all_at_once(talk: Talk) -> None:
        while talk.receives() is not None:
            all_here.wait()
            talk.sends(OK)

    with Peer(answers_all_at_once) as peer:
        for rush in (1, 2):
            in_threads(lambda number: ask(http, peer.url), crowd)
            for _ in range(3):
                peer.await_end()
            assert peer.connections == MAX_IDLE + 3 * rush


def test_each_host_has_its_own(http: HttpClient) -> None:
    """A connection is used only for the host name and port for which it was opened."""
    with Peer(keeps(OK)) as one, Peer(keeps(OK)) as other:
        for _ in range(2):
            for url in (one.url, other.url, f"http://localhost:{one.port}"):
                ask(http, url)
        assert [received.connection for received in one.received] == [0, 1, 0, 1]
        assert [received.connection for received in other.received] == [0, 0]


@trusting
def test_a_plain_connection_is_not_used_for_tls(http: HttpClient) -> None:
    """A TLS request never uses a connection that was opened without TLS."""

    def serves_either(talk: Talk) -> None:
        if talk.connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake
            talk.encrypts()
        keeps(OK)(talk)

    with Peer(serves_either) as peer:
        for scheme in ("http", "https", "http", "https"):
            ask(http, f"{scheme}://127.0.0.1:{peer.port}")
        assert [received.connection for received in peer.received] == [0, 1, 0, 1]


def test_closing(http: HttpClient) -> None:
    """``close`` closes the kept connections; later requests open new ones, and close them."""
    with Peer(keeps(OK)) as peer:
        ask(http, peer.url)
        http.close()
        peer.await_end()
        for _ in range(2):
            assert ask(http, peer.url).body == b"ok"
            peer.await_end()
    assert peer.connections == 3


def test_closing_during_a_request(http: HttpClient) -> None:
    """A request that ends after ``close`` leaves no connection open."""

    def closes_the_client(talk: Talk) -> None:
        talk.receives()
        http.close()
        talk.sends(OK)
        assert talk.receives() is None

    with Peer(closes_the_client) as peer:
        assert ask(http, peer.url).body == b"ok"
        assert peer.ended.acquire(timeout=2.0)


def test_many_open_files() -> None:
    """A process with a thousand open files can use a kept connection."""
    script = """if True:
        import os, resource, sys
        from ticketctl.deadline import Deadline
        from ticketctl.http_client import HttpClient
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
        for _ in range(1100):
            os.open(os.devnull, os.O_RDONLY)
        http = HttpClient(direct=True)
        for _ in range(2):
            print(http.request("POST", sys.argv[1], {}, b"", deadline=Deadline(10), connect=10).status)
        http.close()
    """
    with Peer(keeps(OK)) as peer:
        run = subprocess.run([sys.executable, "-c", script, peer.url], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("200\n200\n", "")
    assert peer.connections == 1


# --- failures before anything is sent ----------------------------------------------------------------


def test_a_refused_connection(http: HttpClient, dead_url: str) -> None:
    """If nobody listens on the port, nothing is sent."""
    assert not failure(http, dead_url).sent


def test_an_unknown_host(http: HttpClient) -> None:
    """If a host name cannot be resolved, nothing is sent."""
    error = failure(http, "http://tickets.invalid/")
    assert (error.sent, type(error)) == (False, TransportError)


def test_a_connection_that_is_not_accepted(http: HttpClient) -> None:
    """If the server's queue is full, the connect timeout passes and nothing is sent."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        error = failure(http, f"http://127.0.0.1:{full.getsockname()[1]}", connect=0.3)
        for each in waiting:
            each.close()
    assert not error.sent
    assert isinstance(error.__cause__, TimeoutError)


def resolves_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    """Resolve every name to these addresses."""

    def getaddrinfo(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_six_dead_addresses(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout is for all addresses of a name together."""
    with full_servers(6) as (port, addresses):
        resolves_to(monkeypatch, addresses)
        begun = time.monotonic()
        error = failure(http, f"http://tickets.invalid:{port}", connect=0.6)
    assert not error.sent
    assert 0.5 < time.monotonic() - begun < 1.2


def test_an_address_behind_dead_ones(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreachable addresses leave enough time for a reachable one."""
    with full_servers(5) as (port, addresses), socket.create_server(("127.0.0.9", port)) as server:
        resolves_to(monkeypatch, [*addresses, "127.0.0.9"])

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(OK)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = ask(http, f"http://tickets.invalid:{port}", connect=1.2)
        thread.join()
    assert answer.body == b"ok"


def test_a_slow_name_server(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name resolution is limited by the connect timeout."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(PATIENCE))
    begun = time.monotonic()
    error = failure(http, "http://tickets.invalid", connect=0.3)
    released.set()
    assert not error.sent
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("bound", ["connect", "seconds"])
def test_a_tunnel_that_drips(http: HttpClient, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """A proxy that sends single bytes gets no more time than one that sends nothing."""

    def drips(talk: Talk) -> None:
        talk.receives()
        for byte in b"HTTP/1.1 200 OK\r\nX-Drip: " + bytes(60):
            talk.sends(bytes([byte or 46]))
            talk.peer.stopped.wait(0.05)

    with Peer(drips) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        begun = time.monotonic()
        error = failure(http, "https://tickets.invalid/", **{bound: 0.4})
    assert not error.sent
    assert time.monotonic() - begun < 1.0


@trusting
def test_a_slow_tunnel_leaves_less_for_the_handshake(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel and the TLS handshake in it share the connect timeout."""

    def script(talk: Talk) -> None:
        talk.receives()
        talk.peer.stopped.wait(0.4)
        talk.sends(b"HTTP/1.1 200 OK\r\n\r\n")
        talk.peer.stopped.wait(PATIENCE)

    with Peer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        begun = time.monotonic()
        error = failure(http, "https://tickets.invalid/", connect=0.6)
        assert not error.sent
        assert time.monotonic() - begun < 0.9


def test_no_time_is_left(http: HttpClient) -> None:
    """After the deadline nothing is sent, not even over an idle connection."""
    with Peer(keeps(OK)) as peer:
        ask(http, peer.url)
        error = failure(http, peer.url, seconds=0.0)
    assert not error.sent
    assert len(peer.received) == 1


def test_an_untrusted_certificate(http: HttpClient) -> None:
    """If the server's certificate is not trusted, nothing is sent."""
    with Peer(keeps(OK), tls=True) as peer:
        error = failure(http, peer.url)
    assert not error.sent
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert peer.received == []


@trusting
def test_a_certificate_of_another_host(http: HttpClient) -> None:
    """A trusted certificate for another host is rejected."""
    with Peer(keeps(OK), tls=True) as peer:
        error = failure(http, f"https://localhost:{peer.port}")
    assert not error.sent
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


@trusting
@pytest.mark.parametrize("ending", [lambda talk: talk.sends(OK), lambda talk: None, resets_at_the_end])
def test_a_server_that_speaks_no_tls(http: HttpClient, ending: Script) -> None:
    """If the server does not speak TLS, nothing is sent."""
    with Peer(lambda talk: (talk.connection.recv(10), ending(talk))) as peer:
        error = failure(http, f"https://127.0.0.1:{peer.port}")
    assert not error.sent


@trusting
def test_a_handshake_that_never_ends(http: HttpClient) -> None:
    """The connect timeout includes the TLS handshake."""
    with Peer(lambda talk: talk.peer.stopped.wait(PATIENCE)) as peer:
        assert not failure(http, f"https://127.0.0.1:{peer.port}", connect=0.3).sent


@pytest.mark.parametrize("value", ["s3cr3t\r", "s3cr3t\nmore"])
def test_a_header_that_cannot_be_sent_is_not_shown(http: HttpClient, value: str) -> None:
    """The error for an invalid header does not show its value, which may be a credential."""
    with Peer(keeps(OK)) as peer:
        error = failure(http, peer.url, headers={"x-amz-security-token": value})
    assert not error.sent
    assert "s3cr3t" not in str(error)


@pytest.mark.parametrize("path", ["/a b", "/\u1234", "/a\x7f"])
def test_a_path_that_cannot_be_sent(http: HttpClient, path: str) -> None:
    """If a path is not valid in HTTP, nothing is sent."""
    with Peer(keeps(OK)) as peer:
        assert not failure(http, peer.url + path).sent
        assert peer.received == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "///",
        "localhost:8000",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https:/127.0.0.1",
        "http://",
        "http://:80",
        "http://[",
        "http://127.0.0.1:70000",
        "http://127.0.0.1:0",
        "http://127.0.0.1:http",
        "http://a b/",
    ],
)
def test_an_invalid_address(http: HttpClient, url: str) -> None:
    """An address that is not http or https is an ``UnsendableError``, and nothing is sent."""
    error = failure(http, url)
    assert (type(error), error.sent) == (UnsendableError, False)


# --- failures afterwards -----------------------------------------------------------------------------


@trusting
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        resets,
        Talk.receives,
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nabcde\r\n0\r\n\r\n"),
        says(b"\x00\x01garbage\r\n\r\n"),
        says(b"HTTP/1.1 OK\r\n\r\n"),
        says(b"HTTP/1.1 99999 Odd\r\n\r\n"),
        says(b"HTTP/9.9 200 OK\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 200 + b"\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % 10**15),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % 10**30),
    ],
    ids=[
        "reset",
        "end",
        "cut-body",
        "cut-chunk",
        "bad-chunk",
        "garbage",
        "no-status",
        "odd-status",
        "odd-version",
        "long-header",
        "many-headers",
        "huge-length",
        "impossible-length",
    ],
)
def test_an_invalid_answer(http: HttpClient, script: Script, *, tls: bool) -> None:
    """After the request was sent, any failure is an unknown outcome, and the request is not sent again."""
    with Peer(script, tls=tls) as peer:
        assert failure(http, peer.url).sent
    assert (peer.connections, len(peer.received)) == (1, 1)


def test_a_huge_chunk(http: HttpClient) -> None:
    """A chunk with an impossible length is an invalid answer."""
    with Peer(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\nx")) as peer:
        assert failure(http, peer.url).sent


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"])
def test_an_answer_that_never_ends(http: HttpClient, begins: bytes) -> None:
    """If the server stops sending, the read timeout passes, and the outcome is unknown."""

    def falls_silent(talk: Talk) -> None:
        talk.receives()
        talk.sends(begins)
        talk.peer.stopped.wait(PATIENCE)

    with Peer(falls_silent) as peer:
        error = failure(http, peer.url, seconds=0.3)
    assert error.sent
    assert isinstance(error.__cause__, TimeoutError)


def test_the_seconds_of_each_request(http: HttpClient) -> None:
    """A kept connection uses the timeout of its current request."""

    def is_quick_once(talk: Talk) -> None:
        talk.receives()
        talk.sends(OK)
        never_answers(talk)

    with Peer(is_quick_once) as peer:
        ask(http, peer.url)
        assert failure(http, peer.url, seconds=0.3).sent


# --- nothing stays open ------------------------------------------------------------------------------


def test_a_failed_connection_is_closed_at_once(http: HttpClient) -> None:
    """Code that keeps the exception of a request does not keep its connection open."""

    def sees_the_end(talk: Talk) -> None:
        talk.receives()
        talk.sends(b"garbage\r\n\r\n")
        assert talk.receives() is None

    with Peer(sees_the_end) as peer:
        error = failure(http, peer.url)
        peer.await_end()
    assert error.sent


def test_a_failed_tunnel_is_closed_at_once(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that fails before the request was sent is also closed immediately."""
    ends: list[object] = []

    def sees_the_end(talk: Talk) -> None:
        talk.receives()
        talk.sends(b"garbage\r\n\r\n")
        talk.connection.settimeout(1.0)
        ends.append(talk.receives())

    with Peer(sees_the_end) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = failure(http, "https://tickets.invalid/")
        proxy.await_end()
    assert not error.sent
    assert ends == [None]


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:s3/cr3t@127.0.0.1:9",
        "http://user:s3?cr3t@127.0.0.1:9",
        "http://user:1/s3cr3t@127.0.0.1:9",
        "user:s3/cr3t@127.0.0.1:9",
        "http://user:s3[cr3t@127.0.0.1:9",
        "http://user:s3\u2100cr3t@127.0.0.1:9",
        "http://user:s3cr3t",
        "http://user:s3@cr3t@127.0.0.1:0",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_broken_proxy_is_not_shown(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str
) -> None:
    """The error about an unusable proxy URL contains no part of the URL, because it may contain a password."""
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    error = failure(http, f"{scheme}://tickets.invalid/")
    assert not error.sent
    assert "s3" not in str(error)
    assert "cr3t" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_ctrl_c(scheme: str) -> None:
    """Ctrl-C interrupts an answer and a TLS handshake, and the connection is closed even if its exception is kept."""
    script = """if True:
        import sys
        from ticketctl.deadline import Deadline
        from ticketctl.http_client import HttpClient
        try:
            HttpClient(direct=True).request("POST", sys.argv[1], {}, b"{}", deadline=Deadline(10), connect=10)
        except KeyboardInterrupt as error:
            kept = error
        print("interrupted", flush=True)
        sys.stdin.read()
    """
    seen: list[bytes] = []

    def interrupts(talk: Talk) -> None:
        talk.connection.recv(10)
        os.kill(process.pid, signal.SIGINT)
        while part := talk.connection.recv(65536):
            seen.append(part)
        seen.append(b"the end")

    with Peer(interrupts) as peer:
        process = subprocess.Popen(
            [sys.executable, "-c", script, f"{scheme}://127.0.0.1:{peer.port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "interrupted\n"
        ended = peer.ended.acquire(timeout=2.0)
        process.communicate()
    assert ended
    assert seen[-1] == b"the end"


# --- proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_for_http(http: HttpClient, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Each request to a proxy has the complete address, the host's header, and the proxy's user and password."""
    with Peer(keeps(OK)) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("://", "://us%40er:p%3Aw@"))
        for _ in range(2):
            assert ask(http, "http://user:secret@tickets.invalid:8000/status?partition=a").body == b"ok"
        login = f"Basic {base64.b64encode(b'us@er:p:w').decode()}"
        for received in proxy.received:
            assert received.line == "POST http://tickets.invalid:8000/status?partition=a HTTP/1.1"
            assert received.all_of("host") == ["tickets.invalid:8000"]
            assert received.all_of("proxy-authorization") == [login]
    assert [received.connection for received in proxy.received] == [0, 0]


@trusting
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_for_https(http: HttpClient, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """For https, a proxy gets one CONNECT request, and sees nothing of the encrypted data."""
    with Peer(tunnels(keeps(OK))) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("://", "://user:pw@"))
        for _ in range(2):
            assert ask(http, "https://127.0.0.1:4443/status", headers={"x-secret": "s"}).body == b"ok"
        tunnel, *inside = proxy.received
        assert tunnel.line.startswith("CONNECT 127.0.0.1:4443 HTTP/1.")
        assert tunnel.all_of("proxy-authorization") == [f"Basic {base64.b64encode(b'user:pw').decode()}"]
        assert tunnel.all_of("x-secret") == []
        assert [received.line for received in inside] == ["POST /status HTTP/1.1"] * 2
        assert [received.all_of("host") for received in inside] == [["127.0.0.1:4443"]] * 2
        assert [received.all_of("proxy-authorization") for received in inside] == [[], []]
    assert proxy.connections == 1


def test_a_proxy_without_a_scheme(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may be given as host and port only, without a scheme or password."""
    with Peer(keeps(OK)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        assert ask(http, "http://tickets.invalid/").body == b"ok"
        assert proxy.received[0].all_of("proxy-authorization") == []


@pytest.mark.parametrize("exempt", ["127.0.0.1", "a.example, 127.0.0.1", "*", "127.0.0.1:{port}"])
def test_no_proxy(http: HttpClient, monkeypatch: pytest.MonkeyPatch, dead_url: str, exempt: str) -> None:
    """Hosts in NO_PROXY are called without a proxy."""
    with Peer(keeps(OK)) as peer:
        monkeypatch.setenv("HTTP_PROXY", dead_url)
        monkeypatch.setenv("NO_PROXY", exempt.format(port=peer.port))
        assert ask(http, peer.url).body == b"ok"
        assert peer.received[0].line == "POST / HTTP/1.1"


def test_no_proxy_for_others(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that are not in NO_PROXY are called through the proxy, also if only the end of the name is the same."""
    with Peer(keeps(OK)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "tickets.invalid")
        assert ask(http, "http://mytickets.invalid/").body == b"ok"


def test_directly(monkeypatch: pytest.MonkeyPatch, dead_url: str) -> None:
    """With ``direct``, no proxy is used, whatever the environment contains."""
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, dead_url)
    with Peer(keeps(OK)) as peer, opened(direct=True) as http:
        assert ask(http, peer.url).body == b"ok"
        assert peer.received[0].line == "POST / HTTP/1.1"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
)
def test_a_proxy_that_refuses(http: HttpClient, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """If the tunnel is refused, nothing was sent."""
    with Peer(says(answer)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://user:s3cr3t@"))
        error = failure(http, "https://tickets.invalid/")
    assert not error.sent
    assert "s3cr3t" not in str(error)
    assert len(proxy.received) == 1


@pytest.mark.parametrize("proxy", ["http://", "http://a:port", "http://[::1", "http://[", "http://a:70000"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_invalid_proxy(http: HttpClient, monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str) -> None:
    """A mistyped proxy is an error before anything is sent."""
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
    error = failure(http, f"{scheme}://tickets.invalid/")
    assert (type(error), error.sent) == (TransportError, False)


@pytest.mark.parametrize("proxy", ["https", "socks5", "socks5h"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_of_another_kind(http: HttpClient, monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str) -> None:
    """A proxy that does not use plain HTTP gets neither an unencrypted password nor a request."""
    with Peer(never_answers) as peer:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"{proxy}://user:pw@127.0.0.1:{peer.port}")
        error = failure(http, f"{scheme}://tickets.invalid/", connect=0.3, seconds=0.3)
    assert not error.sent
    assert not any(received.all_of("proxy-authorization") for received in peer.received)


# --- certificates ------------------------------------------------------------------------------------


def test_a_folder_of_certificates(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the folder of trusted certificates has no matching certificate, no server is trusted."""
    monkeypatch.setenv("SSL_CERT_DIR", str(CERTIFICATE.parent))
    monkeypatch.setenv("SSL_CERT_FILE", "")
    with Peer(keeps(OK), tls=True) as peer:
        assert not failure(http, peer.url).sent


def test_a_missing_certificate_file(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file of trusted certificates does not exist, nothing is sent."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with Peer(keeps(OK), tls=True) as peer:
        assert not failure(http, peer.url).sent


def test_a_plain_request_loads_little() -> None:
    """In a new process, a request over plain HTTP loads no certificates and no larger HTTP library."""
    script = """if True:
        import sys
        from ticketctl.deadline import Deadline
        from ticketctl.http_client import HttpClient
        http = HttpClient()
        print(http.request("GET", sys.argv[1], {}, b"", deadline=Deadline(10), connect=10).status)
        http.close()
        print([name for name in ("certifi", "httpx", "urllib3", "botocore", "urllib.request") if name in sys.modules])
    """
    with Peer(keeps(OK)) as peer:
        run = subprocess.run([sys.executable, "-c", script, peer.url], capture_output=True, text=True, check=True)
    assert run.stdout == "200\n[]\n"


@pytest.mark.parametrize("head", [b"103 Early Hints\r\nLink: </x>", b"102 Processing"])
def test_an_interim_answer_is_not_the_answer(http: HttpClient, head: bytes) -> None:
    """An answer after an interim response is never taken for the answer to the next request."""
    with Peer(keeps(b"HTTP/1.1 " + head + b"\r\n\r\n" + OK.replace(b"ok", b"no")), keeps(OK)) as peer:
        assert failure(http, peer.url).sent is True
        assert ask(http, peer.url).body == b"ok"
    assert [received.connection for received in peer.received] == [0, 1]


def test_an_answer_that_drips(http: HttpClient) -> None:
    """The read timeout is for the whole answer, even if its bytes arrive steadily."""
    with Peer(drips) as peer:
        assert failure(http, peer.url, seconds=0.3).sent is True
