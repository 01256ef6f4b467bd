"""``verify``: check the guarantees on the user's own stack."""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ticketctl.commands.options import TABLE, Run, command, integer_range
from ticketctl.deadline import Deadline
from ticketctl.deployments.outcomes import raise_first_failure
from ticketctl.errors import RefusedError, UsageError
from ticketctl.models import Counter, MintRequest
from ticketctl.results import Result

if TYPE_CHECKING:
    from ticketctl.counters.lanes import Lane

SOURCES = {"url": ["url"], "dynamodb": ["dynamodb"], "both": ["url", "dynamodb"]}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "verify", shared=TABLE)(verify)


def verify(
    run: Run,
    workers: Annotated[
        int, typer.Option(parser=integer_range(1, 256), metavar="N", help="Mint with this many workers in parallel.")
    ] = 8,
    mints: Annotated[
        int,
        typer.Option(parser=integer_range(1, 10_000_000), metavar="N", help="Mint this many times per worker."),
    ] = 100,
    via: Annotated[
        str | None,
        typer.Option(
            metavar="url|dynamodb|both",
            help="Mint through the Function URL ('url'), from the table ('dynamodb') or 'both'. "
            "Default: both; dynamodb with --table.",
        ),
    ] = None,
) -> None:
    """Check on your own stack that no ticket is issued twice.

    Mints from a temporary counter, which is removed at the end.

    Examples:
        ticketctl verify
        ticketctl verify --local --workers 4 --mints 25
        ticketctl verify --via dynamodb --json
    """
    from ticketctl.counters import verify as proof

    if via is None:
        via = "dynamodb" if run.settings.table else "both"
    if via not in SOURCES:
        raise UsageError(f"invalid value {via!r} for --via", hint=f"use one of: {', '.join(SOURCES)}")
    if run.settings.table and via != "dynamodb":
        raise UsageError(f"--table and --via {via} cannot be combined", hint="remove one of them")
    name = f"verify-{os.urandom(16).hex()}"
    tables = raise_first_failure(run.regions.each(lambda stack: stack.counters()))
    try:
        lanes = {counter.region: _lane(counter) for counter in _create(run, name)}
        with ExitStack() as opened, run.output.progress("minting", workers * mints) as advance:
            done = itertools.count(1)
            turns = itertools.cycle(itertools.product(SOURCES[via], tables))
            ways = [next(turns) for _ in range(workers)]
            report = proof.mint_and_check(
                [
                    (_worker(run, opened, name, region, source, requires_url=via == "url"), lanes[region])
                    for source, region in ways
                ],
                mints,
                on_attempt=lambda: advance(next(done)),
            )
    finally:
        for table in tables.values():
            table.remove(name)
    found = report.as_dict()
    document = {"workers": workers, "mints": mints, "via": via, **found}
    run.output.show(Result(document, [[name, json.dumps(value)] for name, value in found.items()]))
    if not report.passed:
        raise RefusedError("a guarantee does not hold on this stack; see the report")


def _create(run: Run, name: str) -> Sequence[Counter]:
    """Create the temporary counter in each region."""
    from ticketctl.counters.creation import create

    return create(run.regions.members(), run.regions.names, name)[0]


def _lane(counter: Counter) -> "Lane":
    from ticketctl.counters.lanes import Lane

    return Lane(counter.last + counter.increment, counter.increment)


def _worker(run: Run, opened: ExitStack, name: str, region: str, via: str, *, requires_url: bool) -> Callable[[], int]:
    """Return a function that mints once, with its own connections; from the table if a stack has no required URL."""
    from ticketctl.deployments.regional_stack import RegionalStack
    from ticketctl.deployments.regions import Regions
    from ticketctl.deployments.session import Session
    from ticketctl.minting.source import new_retry_key

    origins = {"via": "--via"} if requires_url else {}
    settings = dataclasses.replace(run.settings.in_region(region), via=via, url=None, origins=origins)
    stack = opened.enter_context(RegionalStack(Session(settings, environ=os.environ)))
    if settings.table is None:
        stack.locator.locate()
    regions = Regions(stack, environ=os.environ)

    def mint() -> int:
        request = MintRequest(name, 1, new_retry_key(), is_typed=False)
        return regions.mint(request, Deadline(settings.timeout)).last

    return mint
