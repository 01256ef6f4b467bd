"""HTTP requests that are sent once, at most, over kept connections; a failure says whether a byte had left.

It stands on ``http.client`` because a command that mints is over in a fifth of a second: loading a larger HTTP
library would take as long again.
"""

import io
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

IDLE_SECONDS = 20.0  # a connection that was not used for longer is not trusted to be open still
MAX_KEPT = 64


class TransportError(Exception):
    """There is no whole answer. ``sent``: the request may have reached the server."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UnsendableError(TransportError):
    """The request cannot be sent to anybody: its address is none, or a header has what no header may have."""


@dataclass(frozen=True)
class Response:
    """An answer as it came; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpClient:
    """Connections that are kept for the next request. ``direct`` ignores the proxies of the environment.

    Safe for threads. The process's environment says which proxies there are (``HTTPS_PROXY``, ``NO_PROXY``, …) and
    which certificates to trust (``SSL_CERT_FILE``, ``SSL_CERT_DIR``). ``clock`` gives epoch seconds: a monotonic one
    may stand still while the process is frozen.
    """

    def __init__(self, *, direct: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._direct = direct
        self._clock = clock
        self._kept: list[tuple[tuple[str, str], HTTPConnection, float]] = []
        self._lock = threading.Lock()
        self._tls_context: Any = None

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection, _ in kept:
            connection.close()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, connect: float, answer: float
    ) -> Response:
        """Send a request and read its answer; no redirect is followed.

        ``connect`` and ``answer`` are the seconds for a connection and for the whole answer.
        Raises ``TransportError``, and ``UnsendableError`` where ``url`` is none to call.
        """
        connection, parts, sent = None, _parts(url), False
        try:
            proxy = self._proxy(parts)
            plainly = proxy if parts.scheme == "http" else None  # which is told the whole address, and nothing hidden
            connection = self._connection(parts, proxy, connect)
            target = _target(parts, absolute=plainly is not None)
            connection.putrequest(method, target, skip_host="host" in {name.lower() for name in headers})
            for name, value in {**headers, **_login(plainly), "content-length": str(len(body))}.items():
                _put(connection, name, value)
            connection.sock.settimeout(answer)
            connection.response_class = partial(_TimedResponse, ends=time.monotonic() + answer)  # type: ignore[assignment]
            sent = True
            connection.endheaders(body or None)
            with connection.getresponse() as got:
                response = Response(got.status, {k.lower(): v for k, v in got.headers.items()}, got.read())
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TransportError) or not isinstance(error, Exception):
                raise
            # Whatever it is, the outcome depends on nothing but whether a byte has left.
            raise TransportError(str(error) or type(error).__name__, sent=sent) from error
        self._keep(parts, connection)
        return response

    def _keep(self, parts: SplitResult, connection: HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._kept) < MAX_KEPT:
                self._kept.append(((parts.scheme, parts.netloc), connection, self._clock()))
                return
        connection.close()

    def _connection(self, parts: SplitResult, proxy: SplitResult | None, connect: float) -> HTTPConnection:
        """A kept connection that is good still, else a new one.

        What can be read while nothing was asked is a connection's end. It is looked for before a request is sent,
        because afterwards nobody could tell it from a server that has worked and then failed.
        """
        place = (parts.scheme, parts.netloc)
        while (kept := self._take(place)) is not None:
            connection, since = kept
            if 0.0 <= self._clock() - since <= IDLE_SECONDS and _is_silent(connection.sock):
                return connection
            connection.close()
        return self._connect(parts, proxy, connect)

    def _take(self, place: tuple[str, str]) -> tuple[HTTPConnection, float] | None:
        with self._lock:
            for number in reversed(range(len(self._kept))):
                if self._kept[number][0] == place:
                    _, connection, since = self._kept.pop(number)
                    return connection, since
        return None

    def _connect(self, parts: SplitResult, proxy: SplitResult | None, timeout: float) -> HTTPConnection:
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        at, at_port = (host, port) if proxy is None else (proxy.hostname, proxy.port or 80)
        if at is None or (proxy is not None and proxy.scheme != "http"):
            raise ValueError("the proxy has no http address")
        if parts.scheme == "http":
            connection = HTTPConnection(at, at_port, timeout=timeout)
        else:
            connection = HTTPSConnection(at, at_port, timeout=timeout, context=self._tls())
        if proxy is not None and parts.scheme == "https":
            connection.set_tunnel(host, port, headers=_login(proxy))
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        """The proxy that the environment names for an address."""
        if self._direct or not any(name.lower().endswith("_proxy") for name in os.environ):
            return None
        from urllib.request import getproxies, proxy_bypass

        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(parts.netloc):
            return None
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}")

    def _tls(self) -> Any:
        """What to trust, read once, and only where something is encrypted: it takes longer than a handshake."""
        with self._lock:
            if self._tls_context is None:
                import ssl

                self._tls_context = ssl.create_default_context(cafile=self._certificates())
            return self._tls_context

    def _certificates(self) -> str | None:
        if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
            return None  # OpenSSL reads them itself
        import certifi

        return certifi.where()


class _TimedResponse(HTTPResponse):
    """An answer that must have come whole when the monotonic clock says ``ends``, in however many pieces."""

    def __init__(self, sock: Any, *args: Any, ends: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), ends))

    def begin(self) -> None:
        """Read the head. An interim one (1xx) has the answer still behind it, which must not be the next request's."""
        super().begin()
        if self.status < 200:
            raise HTTPException(f"an interim answer ({self.status})")


class _TimedReader(io.RawIOBase):
    """A socket's bytes until a moment; the socket's own timeout would begin anew with each piece."""

    def __init__(self, sock: Any, raw: Any, ends: float) -> None:
        self._sock = sock
        self._raw = raw
        self._ends = ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _is_silent(sock: Any) -> bool:
    """Whether nothing can be read; ``select`` would take no file number from 1024 on, nor see what TLS holds back."""
    if getattr(sock, "pending", int)():
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


def _put(connection: HTTPConnection, name: str, value: str) -> None:
    try:
        connection.putheader(name, value)
    except ValueError:  # whose message has the value, which may be a secret
        raise UnsendableError(f"the header {name} has a value that cannot be sent", sent=False) from None


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in url:
            return parts
    except ValueError as error:
        raise UnsendableError(str(error), sent=False) from None
    raise UnsendableError("it is no http or https address", sent=False)


def _target(parts: SplitResult, *, absolute: bool) -> str:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}" if absolute else path


def _login(proxy: SplitResult | None) -> dict[str, str]:
    """The header with the name and password that a proxy's address has."""
    if proxy is None or proxy.username is None:
        return {}
    from base64 import b64encode
    from urllib.parse import unquote

    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"}
