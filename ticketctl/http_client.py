"""An HTTP client that sends each request at most once, over reused connections; an error says if a byte was sent.

It uses ``http.client`` because a command that mints takes a fifth of a second: loading a larger HTTP library would
double that.
"""

import io
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ticketctl.deadline import Deadline, call_within

IDLE_SECONDS = 20.0  # an idle connection that is older is closed: the server may have dropped it
MAX_IDLE = 64


class TransportError(Exception):
    """There is no complete answer. ``sent``: the server may have received the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UnsendableError(TransportError):
    """The request cannot be sent: its URL is invalid, or a header has an invalid value."""


class Response(NamedTuple):
    """A complete answer; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests and reuses connections. ``direct`` ignores the proxies of the environment.

    Thread-safe. The environment sets proxies (``HTTPS_PROXY``, ``NO_PROXY``, …) and trusted certificates
    (``SSL_CERT_FILE``, ``SSL_CERT_DIR``). ``clock`` returns epoch seconds: a monotonic clock can stop while the
    machine sleeps, and the server's clock does not.
    """

    def __init__(self, *, direct: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._direct = direct
        self._clock = clock
        self._idle: list[tuple[tuple[str, str], HTTPConnection, float]] = []
        self._lock = threading.Lock()
        self._tls_context: Any = None
        self._closed = False

    def close(self) -> None:
        """Close the idle connections. Requests that end later close theirs."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection, _ in idle:
            connection.close()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, deadline: Deadline, connect: float
    ) -> Response:
        """Send a request and return its complete answer; redirects are not followed.

        ``deadline`` bounds all of it. ``connect`` is the most seconds for a new connection: name resolution, every
        address of the name, a proxy's tunnel and the TLS handshake together.
        Raises ``TransportError``, and ``UnsendableError`` if the URL or a header is invalid.
        """
        connection, parts, sent = None, split_url(url), False
        try:
            proxy = None if self._direct else proxy_of(parts)
            forwarding_proxy = proxy if parts.scheme == "http" else None  # it gets the absolute URL, and no tunnel
            connection = self._connection(parts, proxy, deadline.within(connect))
            if connection.sock is None:
                connection.connect()
            target = _target(parts, absolute=forwarding_proxy is not None)
            connection.putrequest(method, target, skip_host="host" in {name.lower() for name in headers})
            for name, value in {**headers, **login_at(forwarding_proxy), "content-length": str(len(body))}.items():
                _put_header(connection, name, value)
            connection.sock.settimeout(_time_left(deadline))
            connection.response_class = partial(_TimedResponse, deadline=deadline)  # type: ignore[assignment]
            sent = True
            connection.endheaders(body or None)
            with connection.getresponse() as answer:
                response = Response(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TransportError) or not isinstance(error, Exception):
                raise
            # The kind of error does not matter: the outcome depends only on whether a byte was sent.
            raise TransportError(str(error) or type(error).__name__, sent=sent) from error
        self._put_back(parts, connection)
        return response

    def _put_back(self, parts: SplitResult, connection: HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < MAX_IDLE and not self._closed:
                self._idle.append(((parts.scheme, parts.netloc), connection, self._clock()))
                return
        connection.close()

    def _connection(self, parts: SplitResult, proxy: SplitResult | None, deadline: Deadline) -> HTTPConnection:
        """An idle connection that still works, else a new one that is not open yet.

        If anything can be read before a request was sent, the server has closed the connection. This is checked
        before sending: afterwards it looks like a server that received the request and then failed.
        """
        server = (parts.scheme, parts.netloc)
        while (idle := self._take_idle(server)) is not None:
            connection, since = idle
            if 0.0 <= self._clock() - since <= IDLE_SECONDS and _is_silent(connection.sock):
                return connection
            connection.close()
        return self._new_connection(parts, proxy, deadline)

    def _take_idle(self, server: tuple[str, str]) -> tuple[HTTPConnection, float] | None:
        with self._lock:
            for number in reversed(range(len(self._idle))):
                if self._idle[number][0] == server:
                    _, connection, since = self._idle.pop(number)
                    return connection, since
        return None

    def _new_connection(self, parts: SplitResult, proxy: SplitResult | None, deadline: Deadline) -> HTTPConnection:
        encrypted = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if encrypted else 80)
        peer, peer_port = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        connection = _Connection(peer, peer_port, deadline, self._tls() if encrypted else None)
        if proxy is not None and encrypted:
            connection.set_tunnel(host, port, headers=login_at(proxy))
        return connection

    def _tls(self) -> Any:
        """The TLS settings, loaded once and only for https: loading takes longer than a handshake."""
        with self._lock:
            if self._tls_context is None:
                self._tls_context = new_tls_context()
            return self._tls_context


class _Connection(HTTPConnection):
    """A connection that is made before a deadline, encrypted if it gets a ``tls`` context."""

    def __init__(self, host: str, port: int, deadline: Deadline, tls: Any) -> None:
        super().__init__(host, port)
        self._deadline = deadline
        self._tls = tls
        self.default_port = 80 if tls is None else 443  # the Host header leaves this port out

    def connect(self) -> None:
        """Connect to the server, or through the proxy's tunnel to the server behind it.

        The first address of a name that answers is taken; each gets an equal share of the time that is left.
        """
        # Only text is looked up in the tables of IDNA, which load slowly.
        name, port, deadline = self.host.encode() if self.host.isascii() else self.host, self.port, self._deadline
        addresses = call_within(deadline, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        failure = OSError(f"{self.host} has no address")
        for number, (*kind, _, address) in enumerate(addresses):
            share = _time_left(deadline) / (len(addresses) - number)
            try:
                self.sock = socket.socket(*kind)
                self.sock.settimeout(share)
                self.sock.connect(address)
                break
            except OSError as error:
                self.close()
                failure = error
        else:
            raise failure
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tunnel_host: str | None = self._tunnel_host  # type: ignore[attr-defined]
        if tunnel_host:
            with ExitStack() as opened:  # Python before 3.11.4 does not close the answer if it is a refusal

                def answer(*given: Any, **more: Any) -> _TimedResponse:
                    return opened.enter_context(_TimedResponse(*given, deadline=deadline, **more))

                self.response_class = answer  # type: ignore[assignment]
                self._tunnel()  # type: ignore[attr-defined]
        if self._tls is not None:
            self.sock.settimeout(_time_left(deadline))
            server = tunnel_host or self.host
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=server, do_handshake_on_connect=False)
            self.sock.do_handshake()  # here, so that ``close`` has the socket if Ctrl-C interrupts it


def _time_left(deadline: Deadline) -> float:
    """The seconds that are left for a socket; ``TimeoutError`` if none are (0 would mean "do not wait")."""
    if (left := deadline.left()) <= 0:
        raise TimeoutError("no time is left")
    return left


class _TimedResponse(HTTPResponse):
    """An answer that must be complete by the deadline, however many pieces it arrives in."""

    def __init__(self, sock: Any, *args: Any, deadline: Deadline, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), deadline))

    def begin(self) -> None:
        """Read the head. An interim one (1xx) is an error: the answer behind it would go to the next request."""
        super().begin()
        if self.status < 200:
            raise HTTPException(f"an interim answer ({self.status})")


class _TimedReader(io.RawIOBase):
    """A socket's bytes until a deadline; the socket's own timeout starts again with each piece."""

    def __init__(self, sock: Any, raw: Any, deadline: Deadline) -> None:
        self._sock = sock
        self._raw = raw
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_time_left(self._deadline))
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _is_silent(sock: Any) -> bool:
    """Whether nothing can be read; ``select`` takes no descriptor above 1023 and misses what TLS has buffered."""
    if getattr(sock, "pending", int)():
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


def _put_header(connection: HTTPConnection, name: str, value: str) -> None:
    try:
        connection.putheader(name, value)
    except ValueError:  # its message has the value, which may be a secret
        raise UnsendableError(f"the header {name} has an invalid value", sent=False) from None


def split_url(url: str) -> SplitResult:
    """The parts of an http or https URL; raises ``UnsendableError`` if it is not one."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in url:
            return parts
    except ValueError as error:
        raise UnsendableError(str(error), sent=False) from None
    raise UnsendableError("it is not an http or https URL", sent=False)


def proxy_of(parts: SplitResult) -> SplitResult | None:
    """The proxy that the environment sets for a URL; raises ``TransportError`` if it is not an http proxy."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return _split_proxy(proxy)


def new_tls_context() -> Any:
    """Load the TLS settings: which certificates are trusted."""
    import ssl

    return ssl.create_default_context(cafile=_certificates())


def _certificates() -> str | None:
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return None  # OpenSSL reads these variables itself
    import certifi

    return certifi.where()


def _split_proxy(proxy: str) -> SplitResult:
    """A proxy's URL; the error for an invalid one does not show it, because it may have a password."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0 and "@" not in parts.path + parts.query:
            return parts
    except ValueError:
        pass
    raise TransportError("the proxy's URL is not an http URL", sent=False)


def _target(parts: SplitResult, *, absolute: bool) -> str:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}" if absolute else path


def login_at(proxy: SplitResult | None) -> dict[str, str]:
    """The header with the user name and password of a proxy's URL."""
    if proxy is None or proxy.username is None:
        return {}
    from base64 import b64encode
    from urllib.parse import unquote

    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"}
