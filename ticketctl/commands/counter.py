"""``counter``: create counters, move them forward, freeze and thaw them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ticketctl.commands.options import TABLE, Group, Run, command, help_without_command, integer_range
from ticketctl.commands.status import show_all
from ticketctl.errors import FileError, RefusedError
from ticketctl.models import Counter
from ticketctl.readable import counter_list

if TYPE_CHECKING:
    from ticketctl.counters.survey import Member

Changed = TypeVar("Changed")
Name = Annotated[str, typer.Argument(help="The counter's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    counter = typer.Typer(
        cls=Group,
        help="Create counters, move them forward, freeze and thaw them.",
        invoke_without_command=True,
        callback=help_without_command,
    )
    commands: dict[str, Callable[..., None]] = {
        "create": create,
        "advance": advance,
        "adopt": adopt,
        "freeze": freeze,
        "thaw": thaw,
        "list": list_all,
    }
    for name, function in commands.items():
        command(counter, name, shared=TABLE)(function)
    app.add_typer(counter, name="counter")


def create(
    run: Run,
    name: Name,
    start: Annotated[
        int | None, typer.Option(parser=integer_range(1), metavar="N", help="Start at this ticket. Default: 1.")
    ] = None,
    increment: Annotated[
        int | None, typer.Option(parser=integer_range(1), metavar="N", help="Use this step. Default: the stack's.")
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(parser=integer_range(1), metavar="N", help="Use the lane of this number. Default: the stack's."),
    ] = None,
    ceiling: Annotated[
        int | None,
        typer.Option(parser=integer_range(1), metavar="N", help="Issue no ticket above this one. Default: 2^53 - 1."),
    ] = None,
    gapless: Annotated[
        bool,
        typer.Option("--gapless", help="Issue numbers only by claims, in one transaction each. Default: mint."),
    ] = False,
) -> None:
    """Create a counter in every region of the stack. One that exists with these options is not changed.

    A gapless counter needs a stack in one region. Programs take its numbers with TicketClient.claim.

    Examples:
        ticketctl counter create orders
        ticketctl counter create invoices --gapless
        ticketctl counter create parcels --start 5000 --ceiling 99999
    """
    from ticketctl.counters import creation

    members = _members_of_stack(run)
    counters, created = creation.create(
        members,
        _targets(run, members),
        name,
        start=start,
        offset=offset,
        increment=increment,
        ceiling=ceiling,
        gapless=gapless,
    )
    _show(run, counters, "created" if created else "exists already", created=created)


def advance(
    run: Run,
    name: Name,
    to: Annotated[
        int,
        typer.Option("--to", parser=integer_range(1), metavar="N", help="Set the last ticket to this number."),
    ],
) -> None:
    """Move a counter forward, past numbers that were issued elsewhere. Never back.

    Examples:
        ticketctl counter advance orders --to 6000
        ticketctl counter advance orders --to 6000 --json
    """
    from ticketctl.counters import changes

    counters = _change(run, lambda members: changes.advance(_named(run, members), name, to))
    _show(run, counters, "is now past that number")


def adopt(
    run: Run,
    name: Name,
    from_max: Annotated[
        str,
        typer.Option("--from-max", metavar="FILE|-", help="Read one number per line from this file; - reads stdin."),
    ],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Read this column of a CSV file with a header. Default: not CSV.")
    ] = None,
) -> None:
    """Start a counter above existing numbers: create it there, or move it forward.

    Examples:
        ticketctl counter adopt orders --from-max numbers.txt
        ticketctl counter adopt orders --from-max orders.csv --column id
    """
    from ticketctl.counters import changes
    from ticketctl.counters.table import largest_integer

    with _opened(from_max) as lines:
        largest = largest_integer(lines, column)

    def change(members: "Sequence[Member]") -> tuple[Sequence[Counter], bool]:
        return changes.adopt(members, [member.region for member in _named(run, members)], name, largest)

    counters, moved = _change(run, change)
    _show(run, counters, f"starts above {largest}" if moved else f"was beyond {largest} already", moved=moved)


@contextmanager
def _opened(path: str) -> Iterator[Iterator[str]]:
    """The lines of a file, or of stdin for ``-``; raises ``FileError`` if they cannot be read."""
    is_stdin = path == "-"
    what, hint = "stdin" if is_stdin else path, "name a readable file, or - for stdin"
    if is_stdin and sys.stdin is None:  # Python's value if the shell closed it
        raise FileError("stdin cannot be read: it is closed", hint=hint)
    try:
        source = sys.stdin.fileno() if is_stdin else path
        with open(source, encoding="utf-8-sig", newline="", closefd=not is_stdin) as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{what} cannot be read: {error}", hint=hint) from None


def freeze(run: Run, name: Name) -> None:
    """Stop a counter from minting.

    Examples:
        ticketctl counter freeze orders
        ticketctl counter freeze orders --json
    """
    from ticketctl.counters import changes

    _show(run, _change(run, lambda members: changes.freeze(_named(run, members), name)), "is frozen")


def thaw(run: Run, name: Name) -> None:
    """Let a frozen counter mint again.

    Examples:
        ticketctl counter thaw orders
        ticketctl counter thaw orders --json
    """
    from ticketctl.counters import changes

    counters = _change(run, lambda members: changes.thaw(_named(run, members), name))
    _show(run, counters, "can be claimed from again" if counters[0].gapless else "mints again")


def list_all(run: Run) -> None:
    """List all counters.

    Examples:
        ticketctl counter list
        ticketctl counter list --json
    """
    show_all(run)


def _members_of_stack(run: Run) -> "Sequence[Member]":
    """The regions that share the sequence; raises ``NotDeployedError`` if none of them has the stack."""
    members = run.regions.members()
    if all(member.retired for member in _named(run, members)):
        run.home.locator.look_up()  # deploys into the embedded AWS, or says what is missing
        members = run.regions.members()
    for member in members:
        member.table.require_no_replicas()
    return members


def _change(run: Run, change: "Callable[[Sequence[Member]], Changed]") -> Changed:
    """Change a counter in the regions that share the sequence.

    Raises ``RefusedError`` if one has joined in the meantime: its part of the counter may be as it was before.
    """
    members = _members_of_stack(run)
    changed = change(members)
    after = _named(run, run.regions.members())
    if joined := sorted({member.region for member in after} - {member.region for member in members}):
        raise RefusedError(
            f"{', '.join(joined)} has joined the sequence in the meantime; the counter may be unchanged there",
            hint="run the command again",
        )
    return changed


def _named(run: Run, members: "Sequence[Member]") -> "Sequence[Member]":
    """The regions to change: the named ones, or all that share the sequence."""
    return [member for member in members if member.region in run.named_regions] if run.named_regions else members


def _targets(run: Run, members: "Sequence[Member]") -> Sequence[str]:
    """The regions in which a counter is created."""
    return run.named_regions or [member.region for member in members if not member.retired]


def _show(run: Run, counters: Sequence[Counter], what: str, **facts: bool) -> None:
    place = run.describe_regions(counter.region or "" for counter in counters)
    listed = [counter.as_dict() for counter in counters]
    document = {**(listed[0] if len(listed) == 1 else {"counters": listed}), **facts}
    run.output.note(f"{counters[0].partition} {what}, in {place}")
    run.output.show(counter_list(counters, title=place, document=document))
