"""``fetch``: minting many tickets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from ticketctl.commands.next import TicketFormat, key_of_run, texts_of
from ticketctl.commands.options import MINTING, Run, command, integer_range
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    ClosedPipeError,
    InterruptedRunError,
    OutcomeUnknownError,
    PartialError,
    TicketctlError,
    UsageError,
)
from ticketctl.models import MAX_TICKET, Block, MintRequest


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "fetch", shared=MINTING)(fetch)


def fetch(
    run: Run,
    count: Annotated[
        int, typer.Argument(parser=integer_range(1, MAX_TICKET), metavar="COUNT", help="Mint this many tickets.")
    ],
    block: Annotated[
        int | None,
        typer.Option(
            "--block",
            parser=integer_range(1, 10_000),
            metavar="N",
            help="Mint this many tickets per request. Default: as many as the server allows.",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            parser=integer_range(1, 64),
            metavar="N",
            help="Mint this many blocks at the same time; print them as they arrive.",
        ),
    ] = 1,
    ranges: Annotated[
        bool,
        typer.Option(
            "--ranges",
            help="Print one line per block: first, last and step, tab-separated. Default: one line per ticket.",
        ),
    ] = False,
    ticket_format: TicketFormat = None,
) -> None:
    """Mint many tickets and print each block as soon as it is minted.

    Examples:
        ticketctl fetch 1000
        ticketctl fetch 1000000 --block 10000 --concurrency 4 --ranges
        ticketctl fetch 5 --json
    """
    if ranges and ticket_format is not None:
        raise UsageError("--ranges and --format cannot be combined", hint="remove one of them")
    texts, (key, is_typed) = texts_of(run, ticket_format), key_of_run(run)
    deadline = Deadline(run.settings.timeout)  # of the look-up and the first block together
    size = block or _max_block(run, deadline)
    progress = _Progress(count, size * concurrency)
    try:
        with run.output.progress("minting", count) as advance:
            while True:
                try:
                    blocks = _blocks(run, count, size, key, deadline, at_once=concurrency, is_typed=is_typed)
                    for minted in blocks:
                        progress.written = minted.count
                        run.output.block(minted, ranges=ranges, texts=texts(minted))
                        progress.printed += minted.count
                        progress.written = 0
                        advance(progress.printed)
                except UsageError:
                    run.regions.look_up()
                    deadline = Deadline(run.settings.timeout)
                    if block or progress.printed or (smaller := _max_block(run, deadline)) >= size:
                        raise
                    size = smaller  # a deployment has reduced it
                else:
                    return
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; {progress.summary}, up to {progress.may_be_spent} more may be spent"
        ) from None
    except (PartialError, ClosedPipeError, InterruptedRunError) as error:
        if concurrency > 1 and error.message:
            error.message += f"; up to {progress.may_be_spent - progress.written} more may be spent"
        raise
    except TicketctlError as error:
        if progress.printed == 0:
            raise
        raise PartialError(f"{progress.summary}, then: {error.message}", hint=error.hint) from error


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
    def summary(self) -> str:
        """What was printed, in words. The block that was being written is printed or not: half of it would be named."""
        printed = f"{self.printed} or {self.printed + self.written}" if self.written else f"{self.printed}"
        return f"{printed} of {self.count} tickets were printed"


def _blocks(
    run: Run, count: int, size: int, key: str, first: Deadline, *, at_once: int, is_typed: bool
) -> Iterator[Block]:
    """Yield the blocks in order of arrival; after a failure, those still in flight, then raise the error.

    ``first`` is the deadline of the first block; each other has the setting ``timeout``.
    """
    from ticketctl.minting.in_flight import as_they_arrive
    from ticketctl.minting.source import key_of_block

    def mint(begin: int) -> Block:
        request = MintRequest(run.settings.partition, min(size, count - begin), key_of_block(key, begin), is_typed)
        return run.regions.mint(request, Deadline(run.settings.timeout) if begin else first)

    failures = []
    for answer in as_they_arrive(mint, range(0, count, size), at_once=at_once):
        if isinstance(answer, Block):
            yield answer
        else:
            failures.append(answer)
    if failures:
        raise _failure_of_all(failures, size)


def _failure_of_all(failures: Sequence[TicketctlError], size: int) -> TicketctlError:
    """The error for blocks of up to ``size`` in flight together: the first that may have spent its tickets."""
    unknown = [failure for failure in failures if isinstance(failure, OutcomeUnknownError)]
    if unknown and len(failures) > 1:
        unknown[0].message += f"; in all, {len(unknown)} blocks of up to {size} tickets may be spent"
    return (unknown or failures)[0]


def _max_block(run: Run, deadline: Deadline) -> int:
    with run.regions.home.session.starting(deadline):
        return run.regions.max_block(deadline)
