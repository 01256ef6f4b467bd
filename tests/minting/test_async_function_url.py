"""The asynchronous source on the wire: names, addresses, proxies and certificates, and what ends with the program."""

import asyncio
import base64
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.dynamodb_server import CERTIFICATE
from tests.support.peer import Peer, Script, Talk, drips, full_servers, keeps, never_answers, tunnels
from ticketctl.deadline import Deadline
from ticketctl.errors import OutcomeUnknownError, SetupError, TicketctlError, UnreachableError, UsageError
from ticketctl.minting.async_function_url import AsyncUrlSource, open_pool
from ticketctl.minting.function_url import FunctionUrl
from ticketctl.models import Block, MintRequest


def answer(number: int) -> bytes:
    body = b'{"partition": "orders", "first": %d, "last": %d, "count": 1, "increment": 1}' % (number, number)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


TICKET = answer(8)
MINTED = Block("orders", 8, 8, 1, 1)
Resolve = Callable[..., list[Any]]

pytestmark = pytest.mark.usefixtures("no_aws")


def mint(
    url: str,
    *,
    resolve: Resolve = socket.getaddrinfo,
    times: int = 1,
    seconds: float = 5.0,
    connect: float = 2.5,
    pause: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> list[Block]:
    """Mint over the same connections, with pauses; signing adds ``headers``."""

    def sign(method: str, url: str, own: Mapping[str, str], body: bytes, _: Deadline) -> Mapping[str, str]:  # noqa: ARG001
        return {**own, **(headers or {})}

    async def main() -> list[Block]:
        function = FunctionUrl(url, sign=sign, signs_at_once=headers is not None)
        with ThreadPoolExecutor(1) as threads:
            async with open_pool(url, resolve=resolve) as pool:
                source = AsyncUrlSource(function, threads, pool, connect=connect)
                request = MintRequest("orders", 1, "once:k", is_typed=False)
                blocks = []
                for _ in range(times):
                    blocks.append(await source.mint(request, Deadline(seconds)))
                    await asyncio.sleep(pause)
                return blocks

    return asyncio.run(main())


def failure(url: str, **more: Any) -> TicketctlError:
    with pytest.raises(TicketctlError) as raised:
        mint(url, **more)
    return raised.value


def at(*addresses: str) -> Resolve:
    """Every name has these addresses."""
    return lambda _, port, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


HANGING = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from ticketctl.deadline import Deadline
from ticketctl.errors import UnreachableError
from ticketctl.minting.async_function_url import AsyncUrlSource, open_pool
from ticketctl.minting.function_url import FunctionUrl
from ticketctl.models import MintRequest

async def main():
    url = "http://tickets.invalid"
    pool = open_pool(url, resolve=lambda *_, **__: time.sleep(30))
    with ThreadPoolExecutor(1) as threads:
        source = AsyncUrlSource(FunctionUrl(url, sign=None, signs_at_once=False), threads, pool)
        print("begin", flush=True)
        try:
            await source.mint(MintRequest(None, 1, "once:k", False), Deadline(1.0))
        except UnreachableError as error:
            print(error.message, flush=True)
        await pool.aclose()

asyncio.run(main())
"""


def test_a_name_server_that_does_not_answer() -> None:
    """Nothing is minted, and the program ends: neither ``asyncio.run`` nor Python waits for the look-up."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HANGING],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "begin\n"
        begun = time.monotonic()
        stdout, stderr = program.communicate(timeout=20)
        assert time.monotonic() - begun < 3.0
    assert (program.returncode, stderr) == (0, "")
    assert stdout.startswith("tickets.invalid cannot be reached: ")
    assert stdout.endswith("; nothing was minted\n")


def test_a_kept_connection() -> None:
    """Two mints use one connection; the request has the Host of the URL and is sent as it is."""
    with Peer(keeps(TICKET)) as peer:
        port = peer.url.rpartition(":")[2]
        assert mint(f"http://tickets.invalid:{port}", resolve=at("127.0.0.1"), times=2) == [MINTED] * 2
        assert [received.line for received in peer.received] == ["POST / HTTP/1.1"] * 2
        assert [received.all_of("host") for received in peer.received] == [[f"tickets.invalid:{port}"]] * 2
        assert peer.received[0].body == b'{"count": 1, "partition": "orders"}'
        assert peer.received[0].all_of("idempotency-key") == ['"once:k"']
    assert peer.connections == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
@pytest.mark.parametrize(
    "surplus", [answer(666), answer(666)[:20], b"\r\n", b"{}"], ids=["answer", "part", "line", "body"]
)
def test_bytes_behind_an_answer(monkeypatch: pytest.MonkeyPatch, surplus: bytes, *, together: bool, tls: bool) -> None:
    """Bytes after the end of an answer are never taken for the next answer: their connection is not used again."""
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    def answers_too_much(talk: Talk) -> None:
        talk.receives()
        for part in [TICKET + surplus] if together else [TICKET, surplus]:
            talk.sends(part)
        if talk.receives() is not None:
            talk.sends(answer(666)[20:])

    with Peer(answers_too_much, keeps(answer(9)), tls=tls) as peer:
        assert [block.last for block in mint(peer.url, times=3, pause=0.05)] == [8, 9, 9]
    assert [received.connection for received in peer.received] == [0, 1, 1]


def test_the_second_address() -> None:
    """An address that refuses is skipped."""
    with Peer(keeps(TICKET)) as peer:
        port = peer.url.rpartition(":")[2]
        assert mint(f"http://tickets.invalid:{port}", resolve=at("127.0.0.9", "127.0.0.1")) == [MINTED]


def test_six_dead_addresses() -> None:
    """The connect timeout is for all addresses of a name together, and nothing was minted."""
    with full_servers(6) as (port, addresses):
        begun = time.monotonic()
        error = failure(f"http://tickets.invalid:{port}", resolve=at(*addresses), seconds=3.0)  # 1.5 s to connect
    assert type(error) is UnreachableError
    assert 1.4 < time.monotonic() - begun < 2.6


def test_an_address_behind_dead_ones() -> None:
    """Unreachable addresses leave enough time for a reachable one."""
    with full_servers(2) as (port, addresses), socket.create_server(("127.0.0.9", port)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(TICKET)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert mint(f"http://tickets.invalid:{port}", resolve=at(*addresses, "127.0.0.9"), seconds=3.0) == [MINTED]


def test_an_answer_that_drips() -> None:
    """The deadline is for the whole answer, even if its bytes arrive steadily."""
    with Peer(drips) as peer:
        begun = time.monotonic()
        assert isinstance(failure(peer.url, seconds=0.5), OutcomeUnknownError)
        assert time.monotonic() - begun < 3.0


def unknown_host(*_: object, **__: object) -> list[Any]:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("resolve", [unknown_host, at(), at("127.0.0.9")], ids=["unknown", "none", "refused"])
def test_nothing_is_sent(resolve: Resolve) -> None:
    """Without a connection nothing was minted."""
    assert type(failure("http://tickets.invalid:9", resolve=resolve)) is UnreachableError


def test_no_answer() -> None:
    """A request without an answer may have minted."""
    with Peer(never_answers) as peer:
        assert isinstance(failure(peer.url, seconds=0.3), OutcomeUnknownError)


def in_a_tunnel(talk: Talk) -> None:
    talk.receives()
    talk.sends(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize("cancelled", [False, True], ids=["connect timeout", "deadline"])
@pytest.mark.parametrize("through", [lambda talk: None, in_a_tunnel], ids=["directly", "in a tunnel"])
def test_a_handshake_that_never_ends(monkeypatch: pytest.MonkeyPatch, through: Script, *, cancelled: bool) -> None:
    """Nothing was minted, and the connection is closed immediately."""

    def never_shakes_hands(talk: Talk) -> None:
        through(talk)
        while talk.connection.recv(65536):
            pass

    with Peer(never_shakes_hands) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        if through is in_a_tunnel:
            monkeypatch.setenv("HTTPS_PROXY", peer.url)
            url = "https://tickets.invalid"
        gc.disable()
        try:
            assert type(failure(url, seconds=0.4, connect=5.0 if cancelled else 0.2)) is UnreachableError
            assert peer.ended.acquire(timeout=2.0)
        finally:
            gc.enable()


def test_an_invalid_header() -> None:
    """A header that cannot be sent is not shown: it may be a secret."""
    error = failure("http://127.0.0.1:9", headers={"x-amz-security-token": "s3cr3t\n"}, resolve=at("127.0.0.1"))
    assert isinstance(error, UsageError | UnreachableError)
    assert "s3cr3t" not in error.message
    with Peer(keeps(TICKET)) as peer:
        error = failure(peer.url, headers={"x-amz-security-token": "s3cr3t\n"})
        assert isinstance(error, UsageError)
        assert "s3cr3t" not in error.message
        assert peer.received == []


def test_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """With https, it trusts the environment's certificates; a proxy is asked for a tunnel and sees nothing else."""
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Peer(tunnels(keeps(TICKET))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://user:p%40w@"))
        assert mint("https://127.0.0.1:4443", times=2) == [MINTED] * 2
        tunnel, *inside = proxy.received
    assert tunnel.line.startswith("CONNECT 127.0.0.1:4443 HTTP/1.")
    assert tunnel.all_of("proxy-authorization") == [f"Basic {base64.b64encode(b'user:p@w').decode()}"]
    assert [(received.line, received.all_of("host")) for received in inside] == [
        ("POST / HTTP/1.1", ["127.0.0.1:4443"])
    ] * 2
    assert inside[0].all_of("proxy-authorization") == []


def test_a_proxy_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the absolute URL; ``NO_PROXY`` avoids it."""
    with Peer(keeps(TICKET)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert mint("http://tickets.invalid/x") == [MINTED]
        assert proxy.received[0].line == "POST http://tickets.invalid/x/ HTTP/1.1"
        assert proxy.received[0].all_of("host") == ["tickets.invalid"]
        monkeypatch.setenv("no_proxy", "tickets.invalid")
        assert isinstance(failure("http://tickets.invalid", resolve=unknown_host), UnreachableError)


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to fix, without the password."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:s3cr3t@127.0.0.1")
    error = failure("https://127.0.0.1:9")
    assert isinstance(error, SetupError)
    assert "s3cr3t" not in error.message
