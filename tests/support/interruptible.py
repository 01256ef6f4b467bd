"""The command line as a process that a test interrupts with a signal."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interruptible(
    environ: Mapping[str, str], *arguments: str, stdout: Any = subprocess.PIPE, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start the command line so that it receives signals even if the tests' parent ignores them (``nohup``, ``&``)."""
    return subprocess.Popen(
        [sys.executable, "-m", "ticketctl", *arguments],
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_take_signals,
    )


def _take_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
