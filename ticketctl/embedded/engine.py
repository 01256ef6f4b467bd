"""The embedded AWS (ministack, the extra ``local``): start it, stop it, find it.

One engine a user, in the folder ``local`` of ticketctl's state: ``engine.json`` says which process runs on
which port, ``state/`` has what the engine saved when it last stopped, ``engine.log`` what it printed.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ticketctl.errors import FileError, LocalEngineError, MissingExtraError
from ticketctl.files import read_json, write_json

HOST = "127.0.0.1"
SERVICES = "cloudformation,dynamodb,iam,lambda,logs,sts"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
_PRIVATE = ("AWS_", "TICKETCTL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "MINISTACK_", "LAMBDA_", "LOCALSTACK_")


@dataclass(frozen=True)
class Engine:
    """A running engine: its process and its port on loopback. ``started_at`` is in epoch seconds."""

    pid: int
    port: int
    started_at: float

    @property
    def endpoint_url(self) -> str:
        """Where its AWS APIs answer."""
        return f"http://{HOST}:{self.port}"


class LocalAws:
    """The embedded AWS of one user. ``warn`` is told what the user should know, a line each."""

    def __init__(
        self, folder: Path, *, environ: Mapping[str, str], warn: Callable[[str], None] = lambda line: None
    ) -> None:
        self._folder = folder
        self._environ = environ
        self._warn = warn
        self._record = folder / "engine.json"
        self.state_folder = folder / "state"
        self.log = folder / "engine.log"

    def running(self) -> Engine | None:
        """The engine, if there is one and it answers."""
        engine = self._recorded()
        return engine if engine is not None and is_alive(engine.pid) and answers(engine.port) else None

    def ensure(self) -> Engine:
        """The running engine, started if need be. Of two callers at once, one starts it and both get it."""
        if engine := self.running():
            return engine
        with self.exclusively():
            return self.running() or self._start()

    def stop(self) -> bool:
        """Stop the engine with its state kept; whether one was running."""
        with self.exclusively():
            return self._stop()

    def reset(self) -> None:
        """Stop the engine and forget all that it knew."""
        with self.exclusively():
            import shutil

            self._stop()
            shutil.rmtree(self.state_folder, ignore_errors=True)

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the user's lock on starting, stopping and deploying; it falls with the process."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self._folder / "lock").open("w")
        except OSError as error:
            hint = "set TICKETCTL_HOME to a folder of yours"
            raise FileError(f"{self._folder} cannot be written: {error.strerror}", hint=hint) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _recorded(self) -> Engine | None:
        return self._read_record()[0]

    def _read_record(self) -> tuple[Engine | None, int]:
        """The engine that was started last and not stopped since, and the last one's port."""
        hint = f"stop the process that it names, if it runs, and remove {self._record}"
        document = read_json(self._record, hint=hint)
        if document is None:
            return None, 0
        try:
            engine = document["engine"]
            return (Engine(**engine) if engine else None), int(document["port"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{self._record} is not a record of this version: {error!r}", hint=hint) from None

    def _remember(self, engine: Engine | None, port: int) -> None:
        write_json(self._record, {"engine": asdict(engine) if engine else None, "port": port})

    def _start(self) -> Engine:
        import importlib.util

        if importlib.util.find_spec("ministack") is None:
            raise MissingExtraError("the embedded AWS is not installed", hint="pip install 'ticketctl[local]'")
        last = self._recorded()
        if last is not None and is_engine(last.pid):
            return self._await(last)
        if last is not None:
            self._mourn(last)
        started_at = time.time()
        port = free_port(preferred=self._read_record()[1])
        engine = Engine(self._spawn(port), port, started_at)
        self._remember(engine, port)
        return self._await(engine)

    def _await(self, engine: Engine) -> Engine:
        deadline = time.monotonic() + START_SECONDS
        while not answers(engine.port):
            if not is_engine(engine.pid):
                self._remember(None, 0)
                raise LocalEngineError(
                    f"the embedded AWS did not start; its log ends with: {self.log_tail()}",
                    hint="ticketctl local logs",
                )
            if time.monotonic() > deadline:
                raise LocalEngineError(
                    f"the embedded AWS (process {engine.pid}) does not answer", hint="ticketctl local down"
                )
            time.sleep(0.05)
        return engine

    def _mourn(self, engine: Engine) -> None:
        """Say what an engine that did not stop by itself has taken with it."""
        saved = self.state_folder / "dynamodb.json"
        if not saved.exists() or saved.stat().st_mtime < engine.started_at:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(engine.started_at))
            self._warn(
                f"the embedded AWS was killed; it forgot what it did since its start at {when}, "
                "and tickets minted since then will come again"
            )

    def _spawn(self, port: int) -> int:
        import shutil
        import subprocess

        scratch = self._folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)  # what killed engines left behind
        scratch.mkdir(parents=True, exist_ok=True)
        environment = {
            **{k: v for k, v in self._environ.items() if not k.upper().startswith(_PRIVATE)},
            "AUTH": "true",
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            "PERSIST_STATE": "1",
            "SERVICES": SERVICES,
            "STATE_DIR": str(self.state_folder),
            "TMPDIR": str(scratch),
        }
        # A shell in between makes the engine nobody's child: it outlives us and is never left a zombie of ours.
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >>"$0" 2>&1 & echo $!', str(self.log), sys.executable, "-m", "ministack"],
            env=environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
        )
        return int(shell.stdout)

    def _stop(self) -> bool:
        engine = self._recorded()
        if engine is None:
            return False
        was_running = is_engine(engine.pid)
        if not was_running:
            self._mourn(engine)
        else:
            os.kill(engine.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while is_engine(engine.pid):
                if time.monotonic() > deadline:
                    raise LocalEngineError(
                        f"the embedded AWS (process {engine.pid}) does not stop", hint=f"kill -9 {engine.pid}"
                    )
                time.sleep(0.05)
        self._remember(None, engine.port)
        return was_running

    def log_tail(self, lines: int = 3) -> str:
        """The last lines of the engine's log."""
        try:
            return " / ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def answers(port: int) -> bool:
    """Whether an embedded AWS answers its health check on that port of loopback."""
    import http.client

    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        document: Any = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(document, dict) and "services" in document


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_engine(pid: int) -> bool:
    """Whether the process of that id is an embedded AWS, and not another that has got its number since."""
    try:
        return b"ministack" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        pass
    if not is_alive(pid) or Path("/proc/self").exists():
        return False
    import subprocess

    listing = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return "ministack" in listing.stdout


def free_port(preferred: int = 0) -> int:
    """A port of loopback that nobody listens on; the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LocalEngineError("no port of 127.0.0.1 is free")


def reachable_url(function_url: str, endpoint_url: str | None) -> str:
    """The address at which a Function URL answers: an emulated one answers under its endpoint."""
    if endpoint_url is None or ".lambda-url." not in function_url or ".on.aws" not in function_url:
        return function_url
    url_id = function_url.partition("://")[2].partition(".")[0]
    return f"{endpoint_url.rstrip('/')}/_aws/lambda-url/{url_id}/"
