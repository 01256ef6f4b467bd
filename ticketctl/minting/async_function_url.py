"""Mints through the Function URL with ``await``."""

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Protocol, TypeVar

import httpcore

from ticketctl.deadline import Deadline
from ticketctl.errors import SetupError
from ticketctl.http_client import (
    Response,
    TransportError,
    UnsendableError,
    login_at,
    new_tls_context,
    proxy_of,
    split_url,
)
from ticketctl.minting.function_url import FunctionUrl, HttpRequest
from ticketctl.minting.source import CONNECT_SECONDS
from ticketctl.models import Block, MintRequest

T = TypeVar("T")
MAX_CONNECTIONS, MAX_IDLE, IDLE_SECONDS = 100, 20, 5.0
_FAILURES = (
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
)


class Pool(Protocol):
    """What sends requests and reuses connections: ``httpcore.AsyncConnectionPool``."""

    async def request(
        self,
        method: str,
        url: httpcore.URL,
        *,
        headers: list[tuple[str, str]],
        content: bytes,
        extensions: dict[str, Any],
    ) -> httpcore.Response:
        """Send a request and return the complete answer; raises the errors of httpcore."""
        ...


class AsyncUrlSource:
    """``UrlSource`` with ``await``, for minting only.

    It signs in ``threads``, because credentials may have to come from the network.
    """

    def __init__(self, url: FunctionUrl, threads: Executor, pool: Pool, *, connect: float = CONNECT_SECONDS) -> None:
        self._url = url
        self._threads = threads
        self._pool = pool
        self._connect = connect

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets; one request, sent once."""
        asked = self._url.to_mint(request)
        signed = self._url.signs
        response = await self._send(asked, deadline, signed=signed)
        if self._url.wants_signature(asked, response, signed=signed):
            response = await self._send(asked, deadline, signed=True)
        return self._url.block(asked, response)

    async def _send(self, request: HttpRequest, deadline: Deadline, *, signed: bool) -> Response:
        headers = request.headers
        if signed:
            loop = asyncio.get_running_loop()
            headers = await loop.run_in_executor(self._threads, self._url.signed_headers, request, deadline)
        begun, left = _Begun(), deadline.left()
        if left <= 0:
            raise self._url.failure(request, TransportError("no time is left", sent=False))
        try:
            url, host = _address(request.url)
            async with asyncio.timeout(left):  # httpcore's own timeout starts again with each piece of the answer
                answer = await self._pool.request(
                    request.method,
                    url,
                    headers=list({"host": host, **headers}.items()),
                    content=request.body,
                    extensions={"timeout": self._timeouts(left), "trace": begun.trace},
                )
        except TimeoutError as error:
            raise self._url.failure(request, TransportError("the answer takes too long", sent=begun.sent)) from error
        except TransportError as error:
            raise self._url.failure(request, error) from error
        except (*_FAILURES, ValueError) as error:
            raise self._url.failure(request, failed(error, sent=begun.sent)) from error
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.status, named, answer.content)

    def _timeouts(self, left: float) -> dict[str, float]:
        return {"connect": min(left, self._connect), "read": left, "write": left, "pool": left}


def _address(url: str) -> tuple[httpcore.URL, str]:
    """A URL as httpcore takes it, and its Host header."""
    parts = split_url(url)
    name = parts.hostname or ""
    host = name if name.isascii() else name.encode("idna").decode()
    bracketed = f"[{host}]" if ":" in host else host
    is_default = parts.port in (None, {"http": 80, "https": 443}[parts.scheme])
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=target)
    return address, bracketed if is_default else f"{bracketed}:{parts.port}"


class _Begun:
    """Records if a byte of the request may have been sent. If not, nothing was minted."""

    def __init__(self) -> None:
        self.sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Receive an event of httpcore; the CONNECT to a proxy does not count as the request."""
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self.sent = True


def failed(error: Exception, *, sent: bool) -> TransportError:
    """Turn an error of httpcore into a ``TransportError``."""
    if isinstance(error, httpcore.LocalProtocolError):  # its message has the value, which may be a secret
        return UnsendableError("a header has an invalid value", sent=False)
    return TransportError(str(error) or type(error).__name__, sent=sent)


def open_pool(
    url: str, *, direct: bool = False, resolve: Callable[..., list[Any]] = socket.getaddrinfo
) -> httpcore.AsyncConnectionPool:
    """The connections to the server of a URL, with the proxies and certificates of the environment.

    ``direct`` ignores the proxies. ``resolve`` looks up names, as ``socket.getaddrinfo`` does.
    """
    try:
        parts = split_url(url)
        proxy = None if direct else proxy_of(parts)
        tls = new_tls_context() if parts.scheme == "https" else None
    except (OSError, ValueError, ImportError, TransportError) as error:
        raise SetupError(f"HTTPS cannot be used: {error}", hint="fix the proxy and SSL_CERT_* variables") from error
    through = None
    if proxy is not None:
        address = httpcore.URL(scheme="http", host=proxy.hostname or "", port=proxy.port or 80, target="/")
        through = httpcore.Proxy(address, headers=list(login_at(proxy).items()))
    return httpcore.AsyncConnectionPool(
        ssl_context=tls,
        proxy=through,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_IDLE,
        keepalive_expiry=IDLE_SECONDS,
        network_backend=_Network(resolve),
    )


class _Network(httpcore.AsyncNetworkBackend):
    """Opens connections as httpcore does, but looks up names in daemon threads.

    asyncio would use its own threads, and ``asyncio.run`` waits for them when it ends: for a name server that does not
    answer, longer than any timeout.
    """

    def __init__(self, resolve: Callable[..., list[Any]]) -> None:
        self._resolve = resolve
        self._connections = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a name that answers; each gets an equal share of the time that is left."""
        deadline = Deadline(CONNECT_SECONDS if timeout is None else timeout)
        look_up = partial(self._resolve, host, port, type=socket.SOCK_STREAM)
        try:
            addresses = await asyncio.wait_for(_in_daemon_thread(look_up), deadline.left())
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"the look-up of {host} takes too long") from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for number, (*_, address) in enumerate(addresses):
            share = deadline.left() / (len(addresses) - number)
            try:
                stream = await self._connections.connect_tcp(address[0], port, share, local_address, socket_options)
                return _Stream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait, between the retries of httpcore; there are none."""
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore has it, but not used again if there are bytes behind the end of an answer.

    httpcore would take them for the next answer. It closes an idle connection that is "readable".
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._answer = bytearray()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive a part of an answer."""
        part = await self._stream.read(max_bytes, timeout)
        self._answer += part
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send a part of a request."""
        self._answer.clear()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Continue over TLS."""
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            await self.aclose()  # httpcore leaves it open if the handshake takes too long
            raise

    def get_extra_info(self, info: str) -> Any:
        """A property of the connection, such as ``is_readable``."""
        return (info == "is_readable" and not self._is_at_the_end()) or self._stream.get_extra_info(info)

    def _is_at_the_end(self) -> bool:
        """Whether what was received ends with the body of an answer whose length is known."""
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length:[ \t]*([0-9]+)", head, re.IGNORECASE)
        if length is None or len(body) != int(length[1]):
            return False
        tls = self._stream.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            tls.read(1)
        except ssl.SSLError as error:
            return isinstance(error, ssl.SSLWantReadError)  # nothing is left to decrypt
        return False


async def _in_daemon_thread(call: Callable[[], T]) -> T:
    """Return the result of a call. If this wait is cancelled, the thread continues, and no exit waits for it."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # from now on, nobody can cancel it: the thread sets the result

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # raised again by the waiting task
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)
