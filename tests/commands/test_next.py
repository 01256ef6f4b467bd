"""``next``: what runs between the command line and the server."""

import json
import os
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest

import ticketctl
from tests.support.http_server import Answer, Server
from ticketctl.cli import main

PACKAGE = str(Path(ticketctl.__file__).parent) + os.sep
MOST = 9


@pytest.mark.usefixtures("no_aws")
def test_the_walk_to_the_server_is_short(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """From ``main`` to the opening of the connection, at most 9 functions of ours call one another."""
    walks: list[list[str]] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        codes = [frame.f_code for frame, _ in traceback.walk_stack(None)]
        walks.append([code.co_qualname for code in reversed(codes) if code.co_filename.startswith(PACKAGE)])
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    block = {"partition": "eu-west-1", "first": 7, "last": 7, "count": 1, "increment": 1}
    server.answers.append(Answer(200, "application/json", json.dumps(block).encode()))
    assert main(["next", "--url", server.url, "--region", "eu-west-1"]) == 0
    assert capfdbinary.readouterr().out == b"7\n"
    assert [walk[0] for walk in walks] == ["main"]
    assert len(walks[0]) <= MOST, walks[0]
