"""``doctor``: what is wrong with the set-up, the stack and the permissions."""

import os
from dataclasses import asdict, replace

import typer

from ticketctl.commands.options import SOURCE, Run, command
from ticketctl.errors import RefusedError
from ticketctl.results import Result

_STATE_WIDTH = 7


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "doctor", shared=SOURCE, needs_settings=False)(doctor)


def doctor(run: Run) -> None:
    """Check the set-up, the stack or table and your permissions, and say how to fix what is wrong. Never mints.

    Examples:
        ticketctl doctor
        ticketctl doctor --via dynamodb --json
    """
    from ticketctl.deployments.doctor import FAILURE, examine

    found = examine(run.regions, os.environ, broken=run.broken)
    checks = [replace(check, fix=run.with_options(check.fix)) for check in found]
    failures = sum(check.state == FAILURE for check in checks)
    rows = [[check.state, check.name, check.detail, check.fix] for check in checks]
    shown = [[*row[:2], f"{row[2]}\nfix: {row[3]}" if row[3] else row[2]] for row in rows]
    width = max(len(check.name) for check in checks)
    document = {"checks": [asdict(check) for check in checks], "ok": not failures}
    run.output.show(Result(document, rows, widths=(_STATE_WIDTH, width), shown=shown))
    if failures:
        raise RefusedError(f"{failures} of {len(checks)} checks failed")
