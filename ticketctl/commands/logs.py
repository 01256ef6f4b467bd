"""``logs``: the log lines of the stack's function."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ticketctl.commands.options import Run, command
from ticketctl.deployments.outcomes import raise_failures
from ticketctl.results import Result

if TYPE_CHECKING:
    from ticketctl.deployments.logs import Line

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LEVEL_WIDTH, _TIME_WIDTH = 8, 24


def duration(text: str) -> int:
    """Parse a duration such as 90s, 10m, 2h or 1d into seconds."""
    if not (match := re.fullmatch(r"([0-9]{1,6})([smhd])", str(text))):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 10m, 2h or 1d.")
    return int(match[1]) * _SECONDS[match[2]]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "logs")(logs)


def logs(
    run: Run,
    since: Annotated[
        int, typer.Option(parser=duration, metavar="TIME", help="Show the lines since then: 90s, 10m, 2h, 1d.")
    ] = "10m",  # type: ignore[assignment] # Typer parses the default, too
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C. Default: off.")
    ] = False,
) -> None:
    """Print the log lines of the function in all regions, oldest first.

    Examples:
        ticketctl logs
        ticketctl logs --since 2h --json
        ticketctl logs --follow
    """
    from ticketctl.deployments.logs import Logs

    run.require_stack()
    found = Logs(run.regions, int((time.time() - since) * 1000))
    width = max(map(len, run.regions.names), default=0)
    if follow:
        for lines in found.follow(run.output.warn):
            _show(run, lines, width)
    else:
        lines, outcomes = found.read()
        _show(run, lines, width)
        raise_failures(outcomes, "read")


def _show(run: Run, lines: Sequence["Line"], width: int) -> None:
    for line in lines:
        document, row = _read(line)
        run.output.show(Result(document, [row], widths=(_TIME_WIDTH, width, _LEVEL_WIDTH)))


def _read(line: "Line") -> tuple[dict[str, Any], list[str]]:
    """A line as a document and as cells: time (UTC), region, level, message."""
    from ticketctl.aws.logs import read_line

    event, said = line.event, read_line(line.event.line)
    moment = utc(event.time)
    document = {
        "time": moment,
        "region": line.region,
        "level": said.level,
        "message": said.message,
        "request_id": said.request_id,
        "stream": event.stream,
        "line": event.line,
    }
    head, _, trace = said.message.replace("\t", "  ").partition("\n")
    if said.request_id and said.request_id not in head:
        head = f"{head} [{said.request_id}]"
    return document, [moment, line.region, said.level or "-", f"{head}\n{trace}" if trace else head]


def utc(epoch_ms: int) -> str:
    """A time with milliseconds, in UTC."""
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(epoch_ms)
