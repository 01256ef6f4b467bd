"""The command line as a separate process."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """The exit code and output of a process."""

    returncode: int
    stdout: str
    stderr: str


Ticketctl = Callable[..., Result]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ticketctl", *arguments]


def start(environ: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start the command line as a separate process."""
    return subprocess.Popen(
        command(*arguments),
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environ: dict[str, str], *arguments: str) -> Result:
    """Run the command line to its end."""
    process = start(environ, *arguments)
    stdout, stderr = process.communicate(timeout=120)
    return Result(process.returncode, stdout, stderr)
