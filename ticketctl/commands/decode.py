"""``decode``: the number in a formatted ticket."""

from typing import Annotated

import typer

from ticketctl.commands.options import Run, command
from ticketctl.results import Result


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "decode")(decode)


def decode(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The ticket, as it was printed with --format.")],
    ticket_format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="Read the ticket in this format.")],
) -> None:
    """Print the number in a ticket that was printed with --format.

    Examples:
        ticketctl decode --format 'INV-{date:%Y}-{ticket:06d}' INV-2026-000042
        ticketctl decode --format '{base32check}' 16J-D
    """
    from ticketctl.formats import Format

    ticket = Format(ticket_format, sqid_alphabet=run.settings.sqid_alphabet).decode(text)
    run.output.show(Result({"ticket": ticket}, [[str(ticket)]]))
