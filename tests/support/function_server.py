"""The handler behind an HTTP server on loopback, as a Function URL without the emulator."""

import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.function_url import event

Event = dict[str, Any]
Answer = Mapping[str, Any]


class Exchange(BaseHTTPRequestHandler):
    """Makes an event of each request, whatever its method, and an HTTP response of the answer."""

    server: "FunctionServer"
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Callable[[], None]:
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._answer

    def _answer(self) -> None:
        answer = self.server.respond(self._event())
        content = answer["body"].encode()
        self.send_response(answer["statusCode"])
        for name, value in {**answer["headers"], "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _event(self) -> Event:
        target, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("content-length", 0)))
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            headers[name.lower()] = ",".join(part for part in (headers.get(name.lower()), value) if part is not None)
        try:
            content = {"body": body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            content = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        return event(target.path, self.command, target.query, headers=headers, **content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class FunctionServer(ThreadingHTTPServer):
    """A server whose requests ``respond`` answers."""

    def __init__(self, respond: Callable[[Event], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.respond = respond

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client may go away."""


@contextmanager
def serving(respond: Callable[[Event], Answer]) -> Iterator[str]:
    """Answer requests with ``respond``; the address."""
    server = FunctionServer(respond)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
