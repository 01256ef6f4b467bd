"""``local``: what of the embedded AWS can be known without starting it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Answer, Server
from ticketctl.embedded.engine import Engine, LocalAws, answers, free_port, is_alive, is_engine, reachable_url
from ticketctl.errors import FileError


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def local(tmp_path: Path, warnings: list[str]) -> LocalAws:
    return LocalAws(tmp_path / "local", environ={}, warn=warnings.append)


@contextmanager
def process(*arguments: str) -> Iterator[int]:
    """A process that has started and waits for its end, with these arguments on its command line."""
    command = [sys.executable, "-c", "print(flush=True); input()", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        running.stdout.readline()
        try:
            yield running.pid
        finally:
            running.communicate(b"\n")


@pytest.mark.parametrize(
    ("function_url", "endpoint_url", "reachable"),
    [
        (
            "https://abc123.lambda-url.us-east-1.on.aws/",
            "http://127.0.0.1:4566",
            "http://127.0.0.1:4566/_aws/lambda-url/abc123/",
        ),
        (
            "https://abc123.lambda-url.us-east-1.on.aws/",
            "http://127.0.0.1:4566/",
            "http://127.0.0.1:4566/_aws/lambda-url/abc123/",
        ),
        ("https://abc123.lambda-url.us-east-1.on.aws/", None, "https://abc123.lambda-url.us-east-1.on.aws/"),
        ("http://localhost:9000/tickets/", "http://127.0.0.1:4566", "http://localhost:9000/tickets/"),
    ],
)
def test_reachable_url(function_url: str, endpoint_url: str | None, reachable: str) -> None:
    """The URL of an emulated function is reached under the emulator's endpoint; any other is reached as it is."""
    assert reachable_url(function_url, endpoint_url) == reachable


def test_free_port() -> None:
    """A free port of loopback can be bound."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_preferred_port() -> None:
    """The preferred port is taken if it is free, so that addresses survive a restart."""
    port = free_port()
    assert free_port(preferred=port) == port


def test_taken_port() -> None:
    """Another port is taken where somebody listens on the preferred one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        assert free_port(preferred=taken) not in (taken, 0)


def test_endpoint() -> None:
    """An engine answers on loopback only."""
    assert Engine(pid=1, port=4566, started_at=0.0).endpoint_url == "http://127.0.0.1:4566"


def test_alive() -> None:
    """A process is alive until it has ended."""
    with process() as pid:
        assert is_alive(pid)
    assert not is_alive(pid)


def test_engine_by_its_command() -> None:
    """A process is an engine if its command says so, not because it has the number of one."""
    with process() as other, process("ministack") as engine:
        assert (is_engine(other), is_engine(engine)) == (False, True)
    assert (is_engine(other), is_engine(engine)) == (False, False)


@pytest.mark.parametrize(
    ("answer", "is_ours"),
    [
        (Answer(200, "application/json", b'{"services": {}}'), True),
        (Answer(200, "application/json", b'{"status": "fine"}'), False),
        (Answer(200, "application/json", b'["services"]'), False),
        (Answer(200, "text/html", b"<html>"), False),
        (None, False),
    ],
)
def test_answers(server: Server, answer: Answer | None, is_ours: bool) -> None:
    """Only an embedded AWS answers the health check as one."""
    server.answers = [answer]
    assert answers(int(server.url.rpartition(":")[2])) is is_ours
    assert server.requests[0].path == "/_ministack/health"


def test_nobody_answers() -> None:
    """Where nobody listens nobody answers."""
    assert not answers(free_port())


def test_nothing_recorded(local: LocalAws) -> None:
    """Without a record nothing runs, and there is nothing to stop."""
    assert (local.running(), local.stop(), local.log_tail()) == (None, False, "")


def test_log_tail(local: LocalAws) -> None:
    """The tail of the log is its last lines, in one."""
    local.log.parent.mkdir()
    local.log.write_bytes(b"one\ntwo\nthree\ncaf\xe9\n")
    assert local.log_tail(2) == "three / caf\N{REPLACEMENT CHARACTER}"


def saved(local: LocalAws, *, at: float) -> None:
    local.state_folder.mkdir(parents=True)
    file = local.state_folder / "dynamodb.json"
    file.touch()
    os.utime(file, (at, at))


@pytest.mark.parametrize("saved_at", [None, 999.0])
def test_killed_engine(local: LocalAws, warnings: list[str], saved_at: float | None) -> None:
    """An engine that saved nothing since its start was killed, and tickets will come again: the user must know."""
    if saved_at is not None:
        saved(local, at=saved_at)
    local._mourn(Engine(pid=1, port=4566, started_at=1000.0))
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1000.0))
    assert warnings == [
        f"the embedded AWS was killed; it forgot what it did since its start at {started}, "
        "and tickets minted since then will come again"
    ]


def test_engine_that_ended_by_itself(local: LocalAws, warnings: list[str]) -> None:
    """An engine that saved its state after its start took nothing with it."""
    saved(local, at=1001.0)
    local._mourn(Engine(pid=1, port=4566, started_at=1000.0))
    assert warnings == []


def record(local: LocalAws, text: str) -> Path:
    path = local.log.parent / "engine.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_record_of_another_process(local: LocalAws) -> None:
    """A process that got the number of an engine that is gone is left alone, and the record is forgotten."""
    with process() as other:
        port = free_port()
        path = record(local, json.dumps({"engine": {"pid": other, "port": port, "started_at": 0.0}, "port": port}))
        assert (local.running(), local.stop(), is_alive(other)) == (None, False, True)
        assert json.loads(path.read_text(encoding="utf-8")) == {"engine": None, "port": port}


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "{}",
        '"engine"',
        '{"engine": null}',
        '{"engine": null, "port": "one"}',
        '{"engine": {"pid": 1}, "port": 1}',
        '{"engine": {"pid": 1, "port": 2, "started_at": 0, "colour": "red"}, "port": 2}',
    ],
)
def test_broken_record(local: LocalAws, document: str) -> None:
    """A record that is none is an error that names the file and says how to mend it."""
    path = record(local, document)
    with pytest.raises(FileError, match=re.escape(str(path))) as caught:
        local.running()
    assert caught.value.hint == f"stop the process that it names, if it runs, and remove {path}"


def test_reset_forgets(local: LocalAws) -> None:
    """A reset forgets what the engine had saved."""
    saved(local, at=1000.0)
    local.reset()
    assert not local.state_folder.exists()


def test_one_at_a_time(local: LocalAws) -> None:
    """Who holds the lock keeps every other process of the user waiting."""
    script = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    attempt = [sys.executable, "-c", script, str(local.log.parent / "lock")]
    with local.exclusively():
        refused = subprocess.run(attempt, capture_output=True, text=True, check=False)
    granted = subprocess.run(attempt, capture_output=True, text=True, check=False)
    assert ("BlockingIOError" in refused.stderr, granted.returncode) == (True, 0)
