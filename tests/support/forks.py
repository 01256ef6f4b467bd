"""Programs that fork while they mint, each run in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.support.pages import ROOT


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program; it can import ``ticketctl`` and ``tests``."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def fork_children(count: int, mint: Callable[[], object]) -> None:
    """Fork children that mint; ``AssertionError`` if one hangs or fails."""
    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            signal.alarm(20)
            try:
                mint()
            finally:
                os._exit(sys.exc_info()[0] is not None)
        children.append(child)
        time.sleep(0.001)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, "a child hangs or failed"
