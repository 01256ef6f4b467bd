"""``engine``: what can be tested of the embedded AWS without starting it."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ticketctl.embedded.engine import Engine, LocalAws, is_alive, is_engine, reachable_url
from ticketctl.embedded.server import last_port, listen
from ticketctl.errors import FileError


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def local(tmp_path: Path, reports: list[str]) -> LocalAws:
    return LocalAws(tmp_path / "local", environ={}, report=reports.append)


@contextmanager
def process(*arguments: str) -> Iterator[int]:
    """Start a process with these arguments that waits until it is ended."""
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
    """The URL of an emulated function is called at the emulator's endpoint; any other URL is unchanged."""
    assert reachable_url(function_url, endpoint_url) == reachable


def test_listener_takes_the_preferred_port() -> None:
    """The preferred port is used if it is free, so that addresses survive a restart; otherwise another port is used."""
    with closing(listen(preferred=0)) as first:
        port = first.getsockname()[1]
        with closing(listen(preferred=port)) as other:
            assert other.getsockname()[0] == "127.0.0.1"
            assert other.getsockname()[1] not in (port, 0)
    with closing(listen(preferred=port)) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize(
    ("text", "port"), [('{"pid": 1, "port": 4566}', 4566), ("", 0), ("{", 0), ("[]", 0), ('{"port": 70000}', 0)]
)
def test_last_port(text: str, port: int) -> None:
    """The lock file contains the last port; if it does not, that is no error."""
    assert last_port(io.StringIO(text)) == port


def test_endpoint() -> None:
    """The engine listens on loopback only, and its representation does not contain the secret."""
    engine = Engine(pid=1, port=4566, key="AKID", secret="hidden", started_at=0.0)
    assert engine.endpoint_url == "http://127.0.0.1:4566"
    assert "hidden" not in f"{engine!r} {engine}"


def test_alive() -> None:
    """A process is alive until it has ended."""
    with process() as pid:
        assert is_alive(pid)
    assert not is_alive(pid)


def test_engine_by_its_command() -> None:
    """A process is an engine if its command line says so, not because of its process ID."""
    with process() as other, process("ticketctl.embedded.server") as engine:
        assert (is_engine(other), is_engine(engine)) == (False, True)
    assert (is_engine(other), is_engine(engine)) == (False, False)


def test_nothing_recorded(local: LocalAws) -> None:
    """If there is no record, no engine is running, and nothing is stopped."""
    assert (local.running(), local.stop(), local.last_line()) == (None, False, "")


def test_last_line(local: LocalAws) -> None:
    """The last line of the log says why an engine has ended; those before it may be of another engine."""
    local.log.parent.mkdir()
    local.log.write_bytes(b"one\ntwo\ncaf\xe9\n")
    assert local.last_line() == "caf\N{REPLACEMENT CHARACTER}"


@contextmanager
def held(local: LocalAws, *, pid: int) -> Iterator[None]:
    """Hold the lock of the folder, as an engine with this process ID does."""
    local.prepare()
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write(sys.argv[2]); file.flush(); print(flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(local.log.parent / "engine.lock"), json.dumps({"pid": pid})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        yield
        holder.communicate(b"\n")


RECORD = {"pid": 1, "port": 4566, "key": "AKID", "secret": "hidden", "started_at": 0.0}


def test_record_counts_while_its_engine_lives(local: LocalAws) -> None:
    """An engine is running if it holds the folder's lock and has written its record; a record alone is not enough."""
    local.prepare()
    (local.log.parent / "engine.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert local.running() is None
    with held(local, pid=1):
        assert local.running() == Engine(**RECORD)  # type: ignore[arg-type]
        (local.log.parent / "engine.json").unlink()
        assert local.running() is None


def test_another_process_is_not_stopped(local: LocalAws) -> None:
    """A process that is not an engine is not stopped, even if the lock file has its process ID."""
    with process() as other:
        local.prepare()
        (local.log.parent / "engine.lock").write_text(json.dumps({"pid": other}), encoding="utf-8")
        assert (local.stop(), is_alive(other)) == (False, True)


@pytest.mark.parametrize(
    "document", ["{", "[]", "{}", '"engine"', '{"pid": 1}', json.dumps({**RECORD, "colour": "red"})]
)
def test_broken_record(local: LocalAws, document: str) -> None:
    """An invalid record is an error that names the file and how to fix it."""
    local.prepare()
    path = local.log.parent / "engine.json"
    path.write_text(document, encoding="utf-8")
    with held(local, pid=1), pytest.raises(FileError, match=re.escape(str(path))) as caught:
        local.running()
    assert caught.value.hint == "ticketctl local down"


def test_folder_is_private(local: LocalAws) -> None:
    """The folder contains a secret, so it is accessible only to its owner, also if it existed before."""
    local.prepare()
    folder = local.log.parent
    folder.chmod(0o755)
    local.prepare()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user(local: LocalAws) -> None:
    """A folder of another user is an error, because their engine could issue any number."""
    local.prepare()
    os.chown(local.log.parent, 65534, 65534)
    with pytest.raises(FileError, match="belongs to another user"):
        local.prepare()


def test_reset_forgets(local: LocalAws) -> None:
    """A reset deletes the state that the engine has saved."""
    local.prepare()
    local.state.touch()
    local.reset()
    assert not local.state.exists()
    local.state.mkdir()
    with pytest.raises(FileError, match=r"state\.db cannot be removed: Is a directory"):
        local.reset()


def test_one_at_a_time(local: LocalAws) -> None:
    """A command that holds the lock makes all other processes of the user wait."""
    script = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    attempt = [sys.executable, "-c", script, str(local.log.parent / "lock")]
    with local.exclusively():
        refused = subprocess.run(attempt, capture_output=True, text=True, check=False)
    granted = subprocess.run(attempt, capture_output=True, text=True, check=False)
    assert ("BlockingIOError" in refused.stderr, granted.returncode) == (True, 0)


def test_waiting_is_reported(local: LocalAws, reports: list[str]) -> None:
    """A command that waits for another one longer than a moment says so."""
    local.prepare()
    script = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print(flush=True); time.sleep(1.5)"
    )
    command = [sys.executable, "-c", script, str(local.log.parent / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with local.exclusively():
            pass
    assert reports == ["waiting for another command to start, stop or deploy the embedded AWS"]
