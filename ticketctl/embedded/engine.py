"""Find, start and stop the embedded AWS (ministack, the extra ``local``).

One engine per user, in the folder ``local`` of ticketctl's state. Its process is the module ``server``: it holds a lock
on ``engine.lock`` while it runs and writes ``engine.json`` when it is ready. ``state.db`` is its state, ``engine.log``
its output.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ticketctl.errors import FileError, LocalEngineError, MissingExtraError, install_hint
from ticketctl.files import read_json

HOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
PATIENCE_SECONDS = 1.0
"""How long a command waits for another one before it reports that it is waiting."""
_POLL_SECONDS = 0.01
_MODULE = "ticketctl.embedded.server"
_PRIVATE = ("AWS_", "TICKETCTL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "MINISTACK_", "LAMBDA_", "LOCALSTACK_")


@dataclass(frozen=True)
class Engine:
    """A running engine: its process ID, its loopback port, and its access key.

    ``started_at`` is in epoch seconds.
    """

    pid: int
    port: int
    key: str
    secret: str
    started_at: float

    @property
    def endpoint_url(self) -> str:
        """The URL of its AWS APIs."""
        return f"http://{HOST}:{self.port}"

    @property
    def credentials(self) -> tuple[str, str]:
        """Access key and secret, new each time an engine starts."""
        return self.key, self.secret

    def variables(self, region: str) -> dict[str, str]:
        """The environment variables that make any AWS tool use this engine."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }

    def __repr__(self) -> str:  # without the secret, which must not appear in a log
        return f"Engine(pid={self.pid}, port={self.port})"


class LocalAws:
    """The embedded AWS of one user. ``report`` gets a line if a command has to wait."""

    def __init__(
        self, folder: Path, *, environ: Mapping[str, str], report: Callable[[str], None] = lambda line: None
    ) -> None:
        self._folder = folder
        self._environ = environ
        self._report = report
        self._record = folder / "engine.json"
        self._lock = folder / "engine.lock"
        self.state = folder / "state.db"
        self.log = folder / "engine.log"

    def running(self) -> Engine | None:
        """The engine if one is running and ready, else ``None``."""
        if not self._is_held():
            return None
        self._check_owner()
        hint = "ticketctl local down"
        document = read_json(self._record, hint=hint)
        if document is None:
            return None
        try:
            return Engine(**document)
        except TypeError as error:
            raise FileError(f"{self._record} was written by another version: {error}", hint=hint) from None

    def ensure(self) -> Engine:
        """The running engine; starts one if necessary. If two callers do this at once, both get the same engine."""
        if engine := self.running():
            return engine
        with self.exclusively():
            return self.running() or self._start()

    def stop(self) -> bool:
        """Stop the engine; return whether one was running. Everything that it answered is already on disk."""
        if not self._folder.exists():
            return False
        with self.exclusively():
            return self._stop()

    def reset(self) -> None:
        """Stop the engine and delete its state."""
        with self.exclusively():
            self._stop()
            for name in ("state.db", "state.db-wal", "state.db-shm", "state.db-journal"):
                try:
                    (self._folder / name).unlink(missing_ok=True)
                except OSError as error:
                    raise FileError(f"{self._folder / name} cannot be removed: {error.strerror}") from None

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock on starting, stopping and deploying; the system releases it if the process dies."""
        self.prepare()
        with (self._folder / "lock").open("w") as file:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    self._report("waiting for another command to start, stop or deploy the embedded AWS")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    break
                time.sleep(_POLL_SECONDS)
            yield

    def prepare(self) -> None:
        """Create the folder if it does not exist, readable only by the user: it contains the engine's secret."""
        hint = "set TICKETCTL_HOME to a folder that you own"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            if self._folder.stat().st_mode & 0o077:
                self._folder.chmod(0o700)
            (self._folder / "lock").open("w").close()
        except OSError as error:
            raise FileError(f"{self._folder} cannot be written: {error.strerror}", hint=hint) from None

    def _check_owner(self) -> None:
        """Raise ``FileError`` if the folder is another user's: that user's engine could return any number."""
        if self._folder.stat().st_uid != os.geteuid():
            raise FileError(
                f"{self._folder} belongs to another user", hint="set TICKETCTL_HOME to a folder that you own"
            )

    def _is_held(self) -> bool:
        """Whether an engine is running, ready or not."""
        try:
            with self._lock.open("rb") as file:
                if _try_lock(file.fileno(), fcntl.LOCK_SH):
                    return False
        except FileNotFoundError:
            return False
        except OSError as error:
            raise FileError(f"{self._lock} cannot be read: {error.strerror}") from None
        return True

    def _holder(self) -> int | None:
        """The process ID of the engine that holds the lock, ``None`` if it has not written it yet."""
        try:
            pid = json.loads(self._lock.read_text(encoding="utf-8"))["pid"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if isinstance(pid, int) and pid > 0 else None

    def _start(self) -> Engine:
        import importlib.util

        if importlib.util.find_spec("ministack") is None:
            raise MissingExtraError("the embedded AWS is not installed", hint=install_hint("local"))
        pid = None if self._is_held() else self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while (engine := self.running()) is None:
            if pid is None and not self._is_held():  # the engine that was starting has ended
                pid = self._spawn()
            if pid is not None and not is_alive(pid) and not self._is_held():
                raise LocalEngineError(
                    f"the embedded AWS did not start; its log ends with: {self.last_line()}",
                    hint="ticketctl local logs",
                )
            if time.monotonic() > deadline:
                raise LocalEngineError("the embedded AWS did not become ready", hint="ticketctl local down")
            time.sleep(_POLL_SECONDS)
        return engine

    def _spawn(self) -> int:
        import shutil
        import subprocess

        scratch = self._folder / "tmp"
        try:
            self._record.unlink(missing_ok=True)  # of a killed engine
            shutil.rmtree(scratch, ignore_errors=True)  # files that killed engines left behind
            scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self._folder} cannot be written: {error.strerror}") from None
        kept = {k: v for k, v in self._environ.items() if not k.upper().startswith(_PRIVATE)}
        command = [sys.executable, "-m", _MODULE, str(self._folder)]
        # The shell exits at once, so the engine is not our child: it outlives this process and never becomes a zombie.
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >>"$0" 2>&1 & echo $!', str(self.log), *command],
            env={**kept, "TMPDIR": str(scratch)},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
            check=True,
        )
        return int(shell.stdout)

    def _stop(self) -> bool:
        deadline = time.monotonic() + STOP_SECONDS
        asked: set[int] = set()
        was_running = self._is_held()
        while self._is_held() or any(is_engine(pid) for pid in asked):
            pid = self._holder()
            if pid is not None and pid not in asked and is_engine(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                asked.add(pid)
            if time.monotonic() > deadline:
                raise LocalEngineError(
                    f"the embedded AWS (process {pid}) did not stop",
                    hint=f"kill -9 {pid}",
                )
            time.sleep(_POLL_SECONDS)
        self._record.unlink(missing_ok=True)
        return was_running

    def last_line(self) -> str:
        """The last line of the engine's log."""
        try:
            return "".join(self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:])
        except FileNotFoundError:
            return ""


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Whether a process with this ID exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_engine(pid: int) -> bool:
    """Whether the process with this ID is an embedded AWS, and not another process that reuses the ID."""
    try:
        return _MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        pass
    if not is_alive(pid) or Path("/proc/self").exists():
        return False
    import subprocess

    listing = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return _MODULE in listing.stdout


def reachable_url(function_url: str, endpoint_url: str | None) -> str:
    """The URL at which a Function URL can be called: an emulated one is a path of the endpoint."""
    if endpoint_url is None or ".lambda-url." not in function_url or ".on.aws" not in function_url:
        return function_url
    url_id = function_url.partition("://")[2].partition(".")[0]
    return f"{endpoint_url.rstrip('/')}/_aws/lambda-url/{url_id}/"
