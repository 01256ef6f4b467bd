"""``python -m ticketctl``."""

from ticketctl.cli import run

run()
