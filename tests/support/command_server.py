"""Runs the command line in forks of one process that has loaded the libraries.

Each run is a separate process with its own environment, streams and exit code, forked from a process that has not run
any command. So the libraries, which take longer to load than most commands to run, are loaded once.

``python -m tests.support.command_server FD`` serves requests that come over a socket.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from tests.support import botocore_files
from tests.support.command_line import Result

LOADED = ("boto3", "botocore.auth", "botocore.session", "rich.table", "urllib3")
COMMANDS = ("counter", "doctor", "fetch", "local", "logs", "next", "regions", "stack", "status", "verify")
PATIENCE = 120.0  # seconds that a run may take


class CommandServer:
    """Starts runs; thread-safe."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, "-m", "tests.support.command_server", str(other.fileno())]
            self._process = subprocess.Popen(
                command, env=dict(environ), cwd=Path(__file__).parents[2], pass_fds=[other.fileno()]
            )

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def run(self, arguments: tuple[str, ...], environ: Mapping[str, str], cwd: Path | None) -> Result:
        """Run the command line to its end."""
        request = {"arguments": arguments, "environ": dict(environ), "cwd": str(cwd or Path.cwd())}
        ended, tell = os.pipe()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, os.fdopen(ended) as exit_code:
            with os.fdopen(tell, "w"):
                socket.send_fds(self._socket, [json.dumps(request).encode()], [out.fileno(), err.fileno(), tell])
            assert select.select([exit_code], [], [], PATIENCE)[0], f"{arguments} takes too long"
            told = exit_code.read()
            assert told, f"{arguments} was not run"
            out.seek(0)
            err.seek(0)
            return Result(int(told), out.read().decode(), err.read().decode())


def serve(requests: socket.socket) -> None:
    """Fork for each request until the other end of the socket is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the processes that wait for a run are not waited for
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1_000_000, 3)
        if not message:
            return None
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            out, err, tell = descriptors
            if (child := os.fork()) == 0:
                os.close(tell)
                return become(json.loads(message), out, err)
            _, status = os.waitpid(child, 0)
            os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def become(request: dict[str, object], out: int, err: int) -> None:
    """Become the process of the requested run."""
    from ticketctl.__main__ import run

    for descriptor, standard in ((out, 1), (err, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environ"])  # type: ignore[call-overload]
    sys.argv = ["ticketctl", *request["arguments"]]  # type: ignore[misc]
    run()


if __name__ == "__main__":
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for module in (*LOADED, "ticketctl.cli", *(f"ticketctl.commands.{name}" for name in COMMANDS)):
        import_module(module)
    botocore_files.read_once()
    botocore_files.preload()
    gc.collect()
    gc.freeze()  # a run's garbage collector leaves alone what all runs share, so its pages are not copied
    with socket.socket(fileno=int(sys.argv[1])) as listening, suppress(KeyboardInterrupt):
        serve(listening)
