"""``status`` and ``url``: the counters, and the URL of the server."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ticketctl.commands.options import SOURCE, Run, command
from ticketctl.deadline import Deadline
from ticketctl.deployments.outcomes import failures, raise_failures, succeeded
from ticketctl.errors import TicketctlError, UsageError
from ticketctl.models import Counter
from ticketctl.readable import counter_list, one_counter
from ticketctl.results import Result

if TYPE_CHECKING:
    from ticketctl.counters.table import Counters

_OPTIONS = {
    "partition": Annotated[
        str | None,
        typer.Option("--partition", "-p", metavar="NAME", help="Show only this counter. Default: all counters."),
    ],
    **SOURCE,
}
PAGE = 1_000  # counters are sorted within a page; the pages come in DynamoDB's order


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "status", shared=_OPTIONS)(status)
    command(app, "url")(url)


def status(
    run: Run,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing the counters until Ctrl-C. Default: off.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --watch, wait this many seconds between reads.")
    ] = 2.0,
) -> None:
    """Show all counters, or one with --partition. Never mints.

    Examples:
        ticketctl status
        ticketctl status --partition orders --json
        ticketctl status --watch --interval 5
    """
    if not 0.1 <= interval <= 3600:
        raise UsageError(f"invalid value {interval} for --interval", hint="use a number of seconds from 0.1 to 3600")
    if watch:
        run.output.watch(lambda: _found(run), title=run.place, every=interval, sleep=time.sleep)
        return
    if run.settings.partition is not None or run.settings.url:
        found = _found(run)
        warn_if_few_tickets_are_left(run, found)
        if len(found) == 1:
            run.output.show(one_counter(found[0], title=run.place))
        else:
            run.output.pages("counters", [counter_list(found, title=run.place)])
    elif not show_all(run):
        run.output.note("no counter yet; the first `ticketctl next` creates one")


def show_all(run: Run) -> bool:
    """Show every counter of every region while reading them. Return False if there is none."""
    tables = run.regions.each(lambda stack: stack.counters())
    failed, shown = failures(tables), False

    def pages() -> Iterator[Sequence[Counter]]:
        nonlocal shown
        found = _read(run, succeeded(tables), failed)
        while page := sorted(itertools.islice(found, PAGE), key=_order):
            shown = True
            warn_if_few_tickets_are_left(run, page)
            yield page
        if len(failed) == len(tables):
            raise_failures(failed, "shown")

    run.output.pages("counters", (counter_list(page, title=run.place) for page in pages()))
    raise_failures({**tables, **failed}, "shown")
    return shown


def _read(run: Run, tables: Mapping[str, "Counters"], failed: dict[str, TicketctlError]) -> Iterator[Counter]:
    """Yield the counters, one region after the other; a region that cannot be read goes into ``failed``."""
    for region, table in tables.items():
        try:
            yield from table.all(run.output.warn)
        except TicketctlError as error:
            failed[region] = error


def _order(counter: Counter) -> tuple[str, str]:
    return (counter.partition, counter.region or "")


def url(run: Run) -> None:
    """Print the Function URL, one line per region.

    Examples:
        ticketctl url
        ticketctl url --region eu-central-1 --json
    """
    run.require_stack()
    outcomes = run.regions.each(lambda stack: (stack.locator.look_up(), stack.url()))
    for outputs, address in succeeded(outcomes).values():
        document = {"url": address, "auth": outputs.auth, "stack": outputs.stack, "region": outputs.region}
        run.output.show(Result(document, [[address]]))
    raise_failures(outcomes, "shown")


def warn_if_few_tickets_are_left(run: Run, counters: Iterable[Counter]) -> None:
    """Warn about counters that have less than a tenth of their tickets left."""
    for counter in counters:
        if counter.remaining * 10 < counter.ceiling // counter.increment:
            run.output.warn(f"the counter {counter.partition} has {counter.remaining} tickets left")


def _found(run: Run) -> list[Counter]:
    """Read the counter of --partition in each region, or all counters; with --url, the counter at that URL."""
    partition, deadline = run.settings.partition, Deadline(run.settings.timeout)
    if run.settings.url:
        return [run.home.counter(partition, deadline)]
    if partition is None:
        outcomes = run.regions.each(lambda stack: list(stack.counters().all(run.output.warn)))
    else:
        regions = [partition] if partition in run.regions.names else run.regions.names
        outcomes = run.regions.each(lambda stack: [stack.counter(partition, deadline)], regions)
    raise_failures(outcomes, "shown")
    return sorted(itertools.chain.from_iterable(succeeded(outcomes).values()), key=_order)
