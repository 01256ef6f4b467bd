"""A line of shell in a terminal of its own, and what the screen shows in the end."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping
from typing import Self

COLUMNS, ROWS = 100, 60
PATIENCE = 120.0  # seconds without output after which a line hangs
_STEERING = re.compile(r"(\r\n|\r|\x1b\[2K|\x1b\[1A|\x1b\[\?25[hl])")


class Terminal:
    """A running line of shell whose streams are one terminal; it is killed on leaving, if it still runs."""

    def __init__(self, line: str, environ: Mapping[str, str]) -> None:
        self._line = line
        self._written = b""
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", line], env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until the line has written a text so many times."""
        while self._written.decode(errors="ignore").count(text) < times:
            if not self._read():
                raise EOFError(f"{self._line}: ended without {text!r}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)

    def finish(self) -> str:
        """Wait for the end and return the screen, with colors. A line that fails raises ``RuntimeError``."""
        while self._read():
            pass
        shown = screen(self._written.decode())
        if self._process.wait() not in (0, 130, -signal.SIGINT):
            raise RuntimeError(f"{self._line}: {shown}")
        return shown

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], PATIENCE)[0]:
            raise TimeoutError(f"{self._line}: no output for {PATIENCE:.0f} s")
        try:
            read = os.read(self._ours, 65_536)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            return False
        self._written += read
        return bool(read)


def screen(written: str) -> str:
    """What a terminal shows after a text that moves only as Rich does: line up, line down, erase the line."""
    lines, row = [""], 0
    for token in _STEERING.split(written):
        if token == "\r\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\x1b[1A":
            row -= 1
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not _STEERING.fullmatch(token):
            lines[row] += token
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")
