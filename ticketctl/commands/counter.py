"""``counter``: make counters, move them forward, freeze them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ticketctl.commands.options import Run, command, help_when_bare, whole
from ticketctl.commands.status import warn_where_little_is_left
from ticketctl.errors import FileError
from ticketctl.models import Counter

Name = Annotated[str, typer.Argument(help="The counter's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    counter = typer.Typer(
        help="Make counters, move them forward, freeze them.", invoke_without_command=True, callback=help_when_bare
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
        command(counter, name)(function)
    app.add_typer(counter, name="counter")


def create(
    run: Run,
    name: Name,
    start: Annotated[int | None, typer.Option(parser=whole(1), metavar="N", help="Its first ticket.")] = None,
    increment: Annotated[
        int | None, typer.Option(parser=whole(1), metavar="N", help="Its step. Default: the stack's.")
    ] = None,
    offset: Annotated[
        int | None, typer.Option(parser=whole(1), metavar="N", help="A number of its lane. Default: the stack's.")
    ] = None,
    ceiling: Annotated[
        int | None, typer.Option(parser=whole(1), metavar="N", help="The last ticket that may be issued.")
    ] = None,
) -> None:
    """Create a counter. Where it exists as asked for, it stays as it is."""
    counter, created = run.connection.counters().create(
        name, start=start, increment=increment, offset=offset, ceiling=ceiling
    )
    _show(run, counter, "created" if created else "exists already", created=created)


def advance(
    run: Run,
    name: Name,
    to: Annotated[
        int, typer.Option("--to", parser=whole(1), metavar="N", help="The number that then counts as its last ticket.")
    ],
) -> None:
    """Move a counter forward, past numbers that were taken elsewhere. Never back."""
    _show(run, run.connection.counters().advance(name, to), "is now past that number")


def adopt(
    run: Run,
    name: Name,
    from_max: Annotated[str, typer.Option("--from-max", metavar="FILE|-", help="A number a line; - reads stdin.")],
    column: Annotated[str | None, typer.Option(help="The file is CSV with headings: take this column.")] = None,
) -> None:
    """Start a counter above numbers that exist already: create it there, or move it forward."""
    from ticketctl.counters import largest_integer

    try:
        if from_max == "-":
            largest = largest_integer(iter(sys.stdin), column)
        else:
            with Path(from_max).open(encoding="utf-8-sig", newline="") as file:
                largest = largest_integer(file, column)
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{from_max} cannot be read: {error}", hint="name a readable file, or - for stdin") from None
    counter, moved = run.connection.counters().adopt(name, largest)
    _show(run, counter, f"starts above {largest}" if moved else f"was beyond {largest} already", moved=moved)


def freeze(run: Run, name: Name) -> None:
    """Stop a counter from minting."""
    _show(run, run.connection.counters().freeze(name), "is frozen")


def thaw(run: Run, name: Name) -> None:
    """Let a frozen counter mint again."""
    _show(run, run.connection.counters().thaw(name), "mints again")


def list_all(run: Run) -> None:
    """List all counters."""
    counters = sorted(run.connection.counters().all(run.output.warn), key=lambda counter: counter.partition)
    warn_where_little_is_left(run, counters)
    run.output.counters(counters, title=run.place)


def _show(run: Run, counter: Counter, what: str, **facts: bool) -> None:
    if run.output.as_json:
        run.output.document({**counter.as_dict(), **facts})
        return
    run.output.note(f"{counter.partition} {what}, in {run.place}")
    run.output.counters([counter], title=run.place)
