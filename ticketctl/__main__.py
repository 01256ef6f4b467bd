"""``python -m ticketctl``, and the console script."""

import os
import sys


def run() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it like Ctrl-C later."""
    if sys.argv[1:] == ["--version"] and _print_version():
        return
    try:
        from ticketctl.cli import main

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


def _print_version() -> bool:
    """Answer without loading anything; whether stdout took it, else the command line says what is wrong."""
    from ticketctl import __version__

    try:
        os.write(1, f"{__version__}\n".encode())
    except OSError:
        return False
    return True


if __name__ == "__main__":
    run()
