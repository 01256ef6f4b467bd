"""``status`` and ``url``: where the counters stand, where the server is."""

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from ticketctl.commands.options import SOURCE, Run, command
from ticketctl.models import Counter


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
        run.output.watch(lambda: _counters(run), title=run.place, every=interval, sleep=time.sleep)
        return
    counters = _counters(run)
    warn_where_little_is_left(run, counters)
    if run.settings.partition is not None and run.output.as_json:
        run.output.document(counters[0].as_dict())
        return
    run.output.counters(counters, title=run.place)
    if not counters:
        run.output.note("no counter yet; the first ticketctl next starts one")


def url(run: Run) -> None:
    """Print the Function URL."""
    outputs, address = run.connection.look_up(), run.connection.url()
    if run.output.as_json:
        run.output.document({"url": address, "auth": outputs.auth, "stack": outputs.stack, "region": outputs.region})
    else:
        run.output.line(address)


def warn_where_little_is_left(run: Run, counters: Iterable[Counter]) -> None:
    """Say which counters have issued more than nine tenths of what their ceiling allows."""
    for counter in counters:
        if counter.remaining * 10 < counter.ceiling // counter.increment:
            run.output.warn(f"the counter {counter.partition} has {counter.remaining} tickets left")


def _counters(run: Run) -> list[Counter]:
    """The counter that was named, or all of the table; at an address given by --url only the default one."""
    if run.settings.partition is not None or run.settings.url:
        return [run.connection.counter()]
    return sorted(run.connection.counters().all(run.output.warn), key=lambda counter: counter.partition)
