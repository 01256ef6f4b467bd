"""What several test modules share: an environment without AWS, a scripted HTTP server, one fresh synthesis."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from ticketctl.aws import template

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; the tests' children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes
    after: float = 0.0  # seconds


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


class Server:
    """An HTTP server on loopback: it keeps the ``requests`` and gives ``answers`` in turn; on ``None`` it hangs up."""

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
                self.send_header("content-type", answer.content_type)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials, no region, no proxy; the folder where the AWS configuration would be."""
    for name in os.environ:
        if name.startswith(("AWS_", "TICKETCTL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws_credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


class Assembly(NamedTuple):
    """A fresh synthesis: the template, and the folder with the whole cloud assembly."""

    template: dict[str, object]
    folder: Path


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    folder = tmp_path_factory.mktemp("assembly")
    return Assembly(template.fresh("Tickets", folder), folder)
