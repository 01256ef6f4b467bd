"""``next``: minting one ticket, and what it has in common with ``fetch``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ticketctl.commands.options import MINTING, Run, command
from ticketctl.deadline import Deadline
from ticketctl.errors import InterruptedRunError, UsageError
from ticketctl.models import Block, MintRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    Texts = Callable[[Block], Sequence[str] | None]

TicketFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Print each ticket in this format, such as 'INV-{date:%Y}-{ticket:06d}'. Default: the number.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "next", shared=MINTING)(next_ticket)


def next_ticket(run: Run, ticket_format: TicketFormat = None) -> None:
    """Mint one ticket and print it.

    Examples:
        ticketctl next
        ticketctl next --local --partition orders
        ticketctl next --format 'INV-{date:%Y}-{ticket:06d}' --idempotency-key "order 17"
    """
    try:
        texts, (key, is_typed) = texts_of(run, ticket_format), key_of_run(run)
        request = MintRequest(run.settings.partition, 1, key, is_typed)
        minted = run.regions.mint(request, Deadline(run.settings.timeout))
        run.output.block(minted, ranges=False, texts=texts(minted))
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; a ticket may have been spent") from None


def texts_of(run: Run, ticket_format: str | None) -> "Texts":
    """Check the format, and return what gives the texts of a block in it; ``None`` without a format."""
    if ticket_format is None:
        return lambda block: None
    from datetime import UTC, datetime

    from ticketctl.formats import Format

    form, now = Format(ticket_format, sqid_alphabet=run.settings.sqid_alphabet), datetime.now(UTC)
    if "region" in form.fields and run.settings.url:
        raise UsageError("the format contains {region}, but the region of --url is unknown", hint="remove {region}")

    def texts(block: Block) -> Sequence[str]:
        return [
            form.encode(ticket, partition=block.partition, region=block.region, date=now) for ticket in block.tickets
        ]

    return texts


def key_of_run(run: Run) -> tuple[str, bool]:
    """Return the key of this run, and whether the user typed it. If not, it is a random retry key."""
    from ticketctl.minting.source import check_typed_key, new_retry_key

    typed: str | None = run.flags["idempotency_key"]
    return (new_retry_key(), False) if typed is None else (check_typed_key(typed, "--idempotency-key"), True)
