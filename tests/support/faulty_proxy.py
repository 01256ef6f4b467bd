"""A small HTTP proxy in front of the embedded AWS that loses, truncates and delays requests and answers."""

import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal[
    "",
    "lost request",
    "reset before",
    "lost reply",
    "reset",
    "delay",
    "half",
    "throttled",
    "failed",
    "302",
    "403",
    "408",
    "499",
    "502",
]
SEED = int(os.environ.get("TICKETCTL_FAULT_SEED") or random.SystemRandom().randrange(2**32))
"""The seed of all random choices in these tests; with the variable, a printed seed is used again."""


class FaultyProxy:
    """Forwards requests to a port on loopback; ``choose`` returns the fault of each, ``""`` for none.

    *lost request*, *reset before*: the connection is closed, or reset, before the request is forwarded. *lost reply*,
    *reset*, *half*, *delay*: the request is forwarded, and the answer is dropped, replaced by a TCP reset, cut in the
    middle, or dropped after ``delay`` seconds. *throttled*: DynamoDB's own 400, without forwarding; *failed*: its 500,
    after forwarding. A number: the request is forwarded, and the answer is replaced by a web page with that status, as
    from a company's proxy.
    """

    def __init__(self, target: int, choose: Callable[[], Fault], *, delay: float = 0.0) -> None:
        self._target = target
        self._choose = choose
        self._delay = delay
        self._lock = threading.Lock()
        self.injected: Counter[str] = Counter()
        self.exchanges: list[tuple[bytes, bytes]] = []  # bodies of the forwarded requests and of their answers
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.serve(self)

            def do_GET(self) -> None:
                proxy.serve(self)

            log_message = staticmethod(lambda *_: None)  # type: ignore[assignment]

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close the port, so that later connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            fault = self._choose()
            self.injected[fault] += 1
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if fault in ("lost request", "reset before"):
            request.close_connection = True
            if fault == "reset before":
                _reset(request.connection)
            return
        if fault == "throttled":
            self._answer(request, 400, _aws_error("ThrottlingException"))
            return
        status, headers, answer = self._pass_on(request, body)
        self.exchanges.append((body, answer))
        if fault == "":
            self._answer(request, status, answer, headers)
        elif fault == "failed":
            self._answer(request, 500, _aws_error("InternalServerError"))
        elif fault.isdecimal():
            headers = {"content-type": "text/html", "location": "http://127.0.0.1:1/login"}
            self._answer(request, int(fault), b"<p>The proxy says no.</p>", headers)
        else:
            self._spoil(request, fault, status, answer)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            dropped = ("connection", "transfer-encoding", "content-length", "date", "server")
            headers = {name: value for name, value in response.getheaders() if name.lower() not in dropped}
            return response.status, headers, response.read()
        finally:
            connection.close()

    def _answer(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in (headers or {"content-type": "application/x-amz-json-1.0"}).items():
            request.send_header(name, value)
        request.send_header("content-length", str(len(body)))
        with suppress(ConnectionError):  # the client may have given up
            request.end_headers()
            request.wfile.write(body)

    def _spoil(self, request: BaseHTTPRequestHandler, fault: Fault, status: int, answer: bytes) -> None:
        request.close_connection = True
        if fault == "delay":
            time.sleep(self._delay)
        elif fault == "half":
            request.send_response(status)
            request.send_header("content-type", "application/json")
            request.send_header("content-length", str(len(answer)))
            with suppress(ConnectionError):
                request.end_headers()
                request.wfile.write(answer[: len(answer) // 2])
        elif fault == "reset":
            _reset(request.connection)


@contextmanager
def proxy_to(target: int, choose: Callable[[], Fault], *, delay: float = 0.0) -> Iterator[FaultyProxy]:
    """Run a proxy during a ``with`` block."""
    proxy = FaultyProxy(target, choose, delay=delay)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def sometimes(rate: float, *faults: Fault) -> Callable[[], Fault]:
    """Return one of the faults for this share of requests, depending on the seed."""
    source = random.Random(SEED)  # noqa: S311 - faults, not secrets
    return lambda: source.choice(faults) if source.random() < rate else ""


def first(fault: Fault, times: int = 1) -> Callable[[], Fault]:
    """Return the fault for the first requests, then none."""
    left = [fault] * times
    return lambda: left.pop() if left else ""


def _reset(connection: socket.socket) -> None:
    """Close a connection with a TCP reset; the handler's files share the descriptor, so the last one closes it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _aws_error(code: str) -> bytes:
    return json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "from the proxy"}).encode()
