"""An HTTP server on loopback that returns prepared answers."""

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import MappingProxyType
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes
    after: float = 0.0  # seconds
    headers: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


class Server:
    """An HTTP server on loopback that keeps the ``requests`` and returns ``answers`` in order; ``None`` hangs up."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.requests: list[Request] = []
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                server.requests.append(Request(self.command, self.path, body))
                if (answer := server.answers.pop(0)) is None:
                    return
                time.sleep(answer.after)
                self.send_response(answer.status)
                for name, value in {**answer.headers, "content-type": answer.content_type}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        return Handler
