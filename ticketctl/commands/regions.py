"""``regions``: the lanes of each region, and the proof that no two overlap."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ticketctl.commands.options import Run, command
from ticketctl.errors import PartialError
from ticketctl.results import Column, Result

if TYPE_CHECKING:
    from ticketctl.counters.survey import Entry

_NUMBERS = [Column(name, is_number=True) for name in ("offset", "step", "share", "next ticket")]
_COLUMNS = [Column("counter"), Column("region"), *_NUMBERS, Column("state")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "regions")(regions)


def regions(run: Run) -> None:
    """Show the lane of each counter in each region, and prove that no two lanes overlap.

    Examples:
        ticketctl regions
        ticketctl regions --json
    """
    from ticketctl.counters.survey import survey

    run.require_stack()
    also = () if run.named_regions else run.regions.elsewhere()
    members = run.regions.members(also=also, tolerant=True)
    if not members:
        run.home.locator.look_up()  # raises an error that says what is missing
    found = survey(members, run.output.warn)
    entries = [entry for lanes in found.entries.values() for entry in lanes]
    entries.sort(key=lambda entry: (entry.counter or "", entry.lane.increment, entry.lane.residue))
    retired = {member.region for member in members if member.retired}
    shown = [(entry, "retired" if entry.region in retired else entry.state) for entry in entries]
    pairs = len(list(found.pairs))
    document = {
        "stack": run.settings.stack,
        "lanes": [{**entry.as_dict(), "state": state} for entry, state in shown],
        "pairs": pairs,
        "conflicts": [[one.as_dict(), other.as_dict()] for one, other in found.conflicts],
    }
    rows = [_row(entry, state) for entry, state in shown]
    run.output.show(Result(document, rows, _COLUMNS, run.settings.stack))
    found.require_disjoint()
    run.output.note(f"{pairs} pairs of lanes, all disjoint" if pairs != 1 else "1 pair of lanes, disjoint")
    active = [member.region for member in members if not member.retired]
    run.regions.remember([name for name in dict.fromkeys([*run.regions.before(), *active]) if name in active])
    if run.regions.unread:
        raise PartialError(f"not proven for {', '.join(run.regions.unread)}, which cannot be read")


def _row(entry: "Entry", state: str) -> Sequence[str]:
    lane = entry.lane
    return [
        entry.counter or entry.region,
        entry.region,
        str(lane.residue),
        str(lane.increment),
        str(lane.share),
        str(lane.offset),
        state,
    ]
