"""``status`` and ``url``: where the counters stand, where the server is."""

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from ticketctl.commands.options import SOURCE, Run, command
from ticketctl.models import Counter
from ticketctl.outcomes import Outcomes, answers, raise_failures


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "status", shared=SOURCE)(status)
    command(app, "url")(url)


def status(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing them until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
) -> None:
    """Show the counters, or one with --partition. Never mints."""
    if watch:
        run.output.watch(lambda: by_name(_look(run)), title=run.place, every=interval, sleep=time.sleep)
        return
    outcomes = _look(run)
    counters = by_name(outcomes)
    warn_where_little_is_left(run, counters)
    if run.settings.partition is not None and run.output.as_json and len(outcomes) == 1:
        run.output.document(counters[0].as_dict())
    else:
        run.output.counters(counters, title=run.place)
    raise_failures(outcomes, "shown")
    if not counters:
        run.output.note("no counter yet; the first ticketctl next starts one")


def url(run: Run) -> None:
    """Print the Function URL, one a region."""
    outcomes = run.regions.each(lambda connection: (connection.look_up(), connection.url()))
    for outputs, address in answers(outcomes).values():
        if run.output.as_json:
            where = {"stack": outputs.stack, "region": outputs.region}
            run.output.document({"url": address, "auth": outputs.auth, **where})
        else:
            run.output.line(address)
    raise_failures(outcomes, "shown")


def warn_where_little_is_left(run: Run, counters: Iterable[Counter]) -> None:
    """Say which counters have issued more than nine tenths of what their ceiling allows."""
    for counter in counters:
        if counter.remaining * 10 < counter.ceiling // counter.increment:
            run.output.warn(f"the counter {counter.partition} has {counter.remaining} tickets left")


def _look(run: Run) -> Outcomes[list[Counter]]:
    """The counter that was named, or all of the table, of each region; at an address given by --url the default one."""
    partition = run.settings.partition
    regions = [partition] if partition in run.regions.names else run.regions.names
    if run.settings.url:
        return {"": [run.connection.counter()]}
    if partition is not None:
        return run.regions.each(lambda connection: [connection.counter()], regions)
    return run.regions.each(lambda connection: list(connection.counters().all(run.output.warn)))


def by_name(outcomes: Outcomes[list[Counter]]) -> list[Counter]:
    """The counters of the regions that answered, by name and region; the first error where none did."""
    if not answers(outcomes):
        raise_failures(outcomes, "shown")
    counters = [counter for found in answers(outcomes).values() for counter in found]
    return sorted(counters, key=lambda counter: (counter.partition, counter.region or ""))
