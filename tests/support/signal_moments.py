"""Runs the command line again and again, and sends it a signal at a chosen moment of the run.

Python handles a signal when a function begins or a call of a C function has returned. These moments are counted with
``sys.setprofile``, so every run gets its signal at exactly the same one.

``python -m tests.support.signal_moments`` reads a run as a line of JSON and writes its outcome as another.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

LOADED = (
    "ticketctl.cli",
    "ticketctl.commands.fetch",
    "ticketctl.commands.next",
    "ticketctl.deployments.regions",
    "ticketctl.minting.function_url",
    "ticketctl.minting.in_flight",
    "http.client",
    "ssl",
    "urllib.request",
)


class Outcome(NamedTuple):
    """What a run printed, its moments, and the first of them at which it may have sent a request."""

    returncode: int
    stdout: str
    stderr: str
    moments: int
    sent: int


class Runs:
    """Starts runs in forks of one process that has loaded the command line."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.support.signal_moments"]
        self._process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        self._process.communicate()

    def run(self, *arguments: str, number: int = 0, moment: int = 0) -> Outcome:
        """Run the command line to its end, with a signal at this moment; 0 is none."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{json.dumps([arguments, number, moment])}\n")
        self._process.stdin.flush()
        return Outcome(*json.loads(self._process.stdout.readline()))


def fork(arguments: list[str], number: int, moment: int) -> Outcome:
    """Run the command line in a fork. It must not print more than fits into a pipe."""
    (out, stdout), (err, stderr), (counts, tell) = pipes = [os.pipe() for _ in range(3)]
    if (child := os.fork()) == 0:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        become(arguments, number, moment, tell)
    for _, end in pipes:
        os.close(end)
    _, status = os.waitpid(child, 0)
    with os.fdopen(out) as printed, os.fdopen(err) as said, os.fdopen(counts) as counted:
        moments, sent = json.loads(counted.read() or "[0, 0]")
        return Outcome(os.waitstatus_to_exitcode(status), printed.read(), said.read(), moments, sent)


def become(arguments: list[str], number: int, moment: int, tell: int) -> None:
    """Become the run."""
    from ticketctl.__main__ import run

    moments = sent = 0

    def count(frame: Any, event: str, called: Any) -> None:  # noqa: ARG001 - as a profiler
        nonlocal moments, sent
        if event == "c_call" and called is os._exit:
            os.write(tell, json.dumps([moments, sent]).encode())
        if event not in ("call", "c_return"):
            return
        moments += 1
        if not sent and getattr(called, "__name__", "") in ("sendall", "start_new_thread"):
            sent = moments
        if moments == moment:
            sys.setprofile(None)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_DFL)
    sys.argv = ["ticketctl", *arguments]
    sys.setprofile(count)
    run()


if __name__ == "__main__":
    for module in LOADED:
        import_module(module)
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(fork(*json.loads(line)))}\n")
        sys.stdout.flush()
