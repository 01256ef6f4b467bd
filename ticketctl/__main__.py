"""``python -m ticketctl``, and the console script."""

import gc
import os
import sys

GARBAGE_THRESHOLD = 50_000
"""Python's default of 700 new objects makes it look for garbage hundreds of times while modules are loaded."""


def run() -> None:
    """Run the command line and end the process. Ctrl-C while it is being loaded ends it like Ctrl-C later."""
    if sys.argv[1:] == ["--version"] and _print_version():
        os._exit(0)
    try:
        gc.set_threshold(GARBAGE_THRESHOLD)
        code = _main()
        _flush()
    except KeyboardInterrupt:
        code = 130
    # Without this call Python would free its memory object by object: a fifth of the CPU time of a short command.
    os._exit(code)


def _main() -> int:
    _end_like_ctrl_c()
    from ticketctl.cli import main

    try:
        return main()
    except SystemExit as end:  # completion ends with it
        return end.code if isinstance(end.code, int) else 0


def _flush() -> None:
    """Write what is still buffered. Results are not: ``Output`` writes them, and says what failed."""
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


def _end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that tickets that were not delivered are named.

    A signal that the parent ignores stays ignored (``nohup``).
    """
    import signal  # here, because ``--version`` does not need it

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _print_version() -> bool:
    """Print the version without loading anything. If stdout fails, return False: the command line says why."""
    from ticketctl import __version__

    try:
        os.write(1, f"{__version__}\n".encode())
    except OSError:
        return False
    return True


if __name__ == "__main__":
    run()
