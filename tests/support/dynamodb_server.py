"""A DynamoDB on loopback that answers or fails as a test requests, over HTTP or, with ``loopback.pem``, over TLS."""

import json
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).parent / "loopback.pem"
SECRET = "the host ip-10-1-2-3 of arn:aws:sts::123456789012:assumed-role/x said"


class Exchange(BaseHTTPRequestHandler):
    """One connection; each of its requests gets the server's next answer."""

    server: "DynamoDB"
    protocol_version = "HTTP/1.1"
    timeout = 5.0  # so that a client that never closes its connection does not block the tests

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        self.server.received.append((self.path, dict(self.headers), body))
        next(self.server.answers)(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Print nothing on stderr."""


Answer = Callable[[Exchange], None]


class DynamoDB(ThreadingHTTPServer):
    """A server that keeps its requests and counts connections; ``stopped`` is set when it stops."""

    daemon_threads = False  # so that closing the server waits for the last exchange

    def __init__(self, answers: Iterator[Answer], *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers = answers
        self.connections = 0
        self.requests: list[dict[str, Any]] = []
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.stopped = threading.Event()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing on stderr, because broken connections are part of the tests."""


@contextmanager
def dynamodb(answers: Iterator[Answer], *, tls: bool = False) -> Iterator[DynamoDB]:
    server = DynamoDB(answers, tls=tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: bytes, *, length: int | None = None, **headers: str) -> Answer:
    """An HTTP response; it is cut short if ``length`` is larger than the body."""

    def answer(exchange: Exchange) -> None:
        exchange.send_response(status)
        exchange.send_header("Content-Type", "application/x-amz-json-1.0")
        exchange.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.end_headers()
        exchange.wfile.write(body)
        exchange.close_connection |= length is not None

    return answer


def minted(last: int) -> bytes:
    return json.dumps({"Attributes": {"hand_crafted_int": {"N": str(last)}}}).encode()


def mints(last: int) -> Answer:
    return says(200, minted(last), x_amz_crc32=str(zlib.crc32(minted(last))))


def refuses(status: int, name: str, **more: Any) -> Answer:
    document = {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": SECRET, **more}
    return says(status, json.dumps(document).encode())


def sends(raw: bytes) -> Answer:
    """Bytes that need not be HTTP; then the connection is closed."""

    def answer(exchange: Exchange) -> None:
        exchange.wfile.write(raw)
        exchange.close_connection = True

    return answer


def then_closes(answer: Answer) -> Answer:
    """An answer without ``Connection: close``, after which the connection is closed anyway."""

    def answer_and_close(exchange: Exchange) -> None:
        answer(exchange)
        exchange.close_connection = True

    return answer_and_close


def hangs_up(exchange: Exchange) -> None:
    """Read the request and close the connection."""
    exchange.close_connection = True


def resets(exchange: Exchange) -> None:
    """Read the request and reset the connection."""
    exchange.close_connection = True
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.connection.close()


def breaks_tls(exchange: Exchange) -> None:
    """Read the request and answer with bytes that are not a TLS record."""
    exchange.close_connection = True
    socket.socket.sendall(exchange.connection, b"HTTP/1.1 200 OK\r\n")


def never_answers(exchange: Exchange) -> None:
    exchange.server.stopped.wait()
    exchange.close_connection = True


def drips(exchange: Exchange) -> None:
    """Begin an answer and never finish it, but send a byte every 50 ms."""
    exchange.close_connection = True
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not exchange.server.stopped.wait(0.05):
        exchange.wfile.write(b".")


def falls_silent(exchange: Exchange) -> None:
    """Begin an answer late, and send nothing more."""
    exchange.close_connection = True
    exchange.server.stopped.wait(1.7)
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    exchange.server.stopped.wait()
