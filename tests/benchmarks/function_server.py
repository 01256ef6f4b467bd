"""The handler behind a plain HTTP server, as a Function URL without the emulator.

The embedded AWS waits 50 ms for a log line after each call of a function that writes none. A real Function URL does
not, so the time of a whole command would be measured wrongly.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.support.function_url import event
from ticketctl.handler import handler


@contextmanager
def serving(environ: Mapping[str, str], table: str) -> Iterator[str]:
    """Serve the real handler, on the DynamoDB that ``environ`` names; yield the address."""
    settings = handler.Configuration(table, environ["AWS_REGION"], offset=1, increment=1, max_count=10_000)
    dynamodb = handler.DynamoDB(environ)

    class Function(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(handler.respond(event(method="POST", body=body, headers=headers), settings, dynamodb.send))

        def _answer(self, answer: Mapping[str, Any]) -> None:
            self.send_response(answer["statusCode"])
            content = answer["body"].encode()
            for name, value in {**answer["headers"], "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Function)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        if dynamodb.kept is not None:
            dynamodb.kept.close()
