"""``next`` and ``fetch``: minting."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from ticketctl.commands.options import KEY, Run, command, integer_range
from ticketctl.errors import ClosedPipeError, InterruptedRunError, PartialError, TicketctlError, UsageError
from ticketctl.models import Block

MAX_TICKETS = 2**53 - 1


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "next", shared=KEY)(next_ticket)
    command(app, "fetch", shared=KEY)(fetch)


def next_ticket(run: Run) -> None:
    """Mint one ticket and print it.

    Examples:
        ticketctl next
        ticketctl next --local --partition orders
        ticketctl next --idempotency-key "order 17"
    """
    try:
        key, is_typed = _key(run)
        run.output.block(run.regions.mint(1, key=key, pinned=is_typed), ranges=False)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; a ticket may have been spent") from None


def fetch(
    run: Run,
    count: Annotated[
        int, typer.Argument(parser=integer_range(1, MAX_TICKETS), metavar="COUNT", help="Mint so many tickets.")
    ],
    block: Annotated[
        int | None,
        typer.Option(
            "--block",
            parser=integer_range(1, 10_000),
            metavar="N",
            help="Mint so many tickets per request. Default: as many as the server allows.",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            parser=integer_range(1, 64), metavar="N", help="Keep so many blocks in flight; print them as they arrive."
        ),
    ] = 1,
    ranges: Annotated[
        bool,
        typer.Option(
            "--ranges",
            help="Print one line per block: first, last and step, tab-separated. Default: one line per ticket.",
        ),
    ] = False,
) -> None:
    """Mint many tickets and print each block as soon as it is minted.

    Examples:
        ticketctl fetch 1000
        ticketctl fetch 1000000 --block 10000 --concurrency 4 --ranges
        ticketctl fetch 5 --json
    """
    size, (key, is_typed) = block or run.regions.max_block, _key(run)
    progress = _Progress(count, size * concurrency)
    try:
        with run.output.progress("minting", count) as advance:
            while True:
                try:
                    for minted in _blocks(run, count, size, key, at_once=concurrency, pinned=is_typed):
                        progress.written = minted.count
                        run.output.block(minted, ranges=ranges)
                        progress.printed += minted.count
                        progress.written = 0
                        advance(progress.printed)
                except UsageError:
                    run.regions.look_up()
                    if block or progress.printed or run.regions.max_block >= size:
                        raise
                    size = run.regions.max_block  # a deployment has reduced it
                else:
                    return
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; {progress.said}, up to {progress.may_be_spent} more may be spent"
        ) from None
    except (PartialError, ClosedPipeError, InterruptedRunError) as error:
        if concurrency > 1 and error.message:
            error.message += f"; up to {progress.may_be_spent - progress.written} more may be spent"
        raise
    except TicketctlError as error:
        if progress.printed == 0:
            raise
        raise PartialError(f"{progress.said}, then: {error.message}", hint=error.hint) from error


@dataclass
class _Progress:
    """The progress of a ``fetch``. ``in_flight``: tickets that may be minted now; ``written``: those being printed."""

    count: int
    in_flight: int
    printed: int = 0
    written: int = 0

    @property
    def may_be_spent(self) -> int:
        """How many tickets may have been minted but not printed."""
        return min(self.in_flight, self.count - self.printed)

    @property
    def said(self) -> str:
        """What was printed, in words."""
        return f"{self.printed} of {self.count} tickets were printed"


def _blocks(run: Run, count: int, size: int, key: str, *, at_once: int, pinned: bool) -> Iterator[Block]:
    """Yield the blocks in order of arrival; after a failure, those still in flight, then raise the error."""
    from ticketctl.minting.in_flight import as_they_arrive

    def mint(begin: int) -> Block:
        return run.regions.mint(min(size, count - begin), key=f"{key}/{begin}", pinned=pinned)

    failure = None
    for answer in as_they_arrive(mint, range(0, count, size), at_once=at_once):
        if isinstance(answer, Block):
            yield answer
        else:
            failure = failure or answer
    if failure is not None:
        raise failure


def _key(run: Run) -> tuple[str, bool]:
    """Return the key that makes this run's retries safe, and if the user gave it. Otherwise it is random."""
    typed: str | None = run.flags["idempotency_key"]
    if typed is None:
        return os.urandom(16).hex(), False
    if not re.fullmatch(r"[ -~]{1,200}", typed):
        raise UsageError("--idempotency-key must be 1 to 200 visible ASCII characters")
    return typed, True
