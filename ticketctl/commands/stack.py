"""``deploy``, ``diff``, ``destroy`` and ``synth``: the stack."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketctl.commands.options import Run, Yes, command
from ticketctl.commands.stack_options import PARAMETERS, stack_options, template_parameters
from ticketctl.deployments.outcomes import Outcomes, raise_failures, succeeded
from ticketctl.errors import FileError, TicketctlError, UsageError
from ticketctl.readable import counter_row
from ticketctl.results import Result

if TYPE_CHECKING:
    from ticketctl.aws.stacks import Plan
    from ticketctl.deployments.deploy import Deployed
    from ticketctl.deployments.destroy import Removal
    from ticketctl.deployments.dialog import Dialog
    from ticketctl.deployments.regional_stack import RegionalStack

CHANGES_FOUND = 9
TableOnly = Annotated[
    bool,
    typer.Option(
        "--table-only", help="Deploy without function and URL; tickets are minted from the table. Default: with them."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "deploy", shared=PARAMETERS)(deploy)
    command(app, "diff", shared=PARAMETERS)(diff)
    command(app, "destroy")(destroy)
    command(app, "synth")(synth)


def deploy(run: Run, table_only: TableOnly = False, yes: Yes = False) -> None:
    """Deploy the ticket server to its regions, or update it. Options that are not given keep their values.

    Examples:
        ticketctl deploy --region us-east-1 --region eu-west-1
        ticketctl deploy --tag team=ids --alarm-email ops@example.org --log-retention 7
        ticketctl deploy --table-only --region eu-central-2
    """
    from ticketctl.deployments import deploy as deploying

    run.require_stack()
    parameters, options = template_parameters(run, table_only=table_only), stack_options(run.flags)
    run.output.note(f"deploying {run.place}, {_who(run)}")
    deployed = deploying.deploy(
        run.regions,
        parameters,
        _dialog(run, yes=yes),
        opens_to_anyone=bool(run.flags["public"]),
        options=options,
        table_only=table_only,
    )
    _show_deployed(run, deployed)


def _show_deployed(run: Run, outcomes: Outcomes["Deployed"]) -> None:
    """Show the URL of every region that is up to date, then report the regions that failed."""
    deployed = succeeded(outcomes)
    for region in deployed.values():
        run.output.note(_address(region))
    if deployed:
        run.output.note(f"mint a ticket: {run.with_options('ticketctl next')}")
    documents = [
        {
            "url": region.url,
            "auth": region.outputs.auth,
            "changed": region.changed,
            "stack": run.settings.stack,
            "region": name,
        }
        for name, region in deployed.items()
    ]
    if documents:
        document = documents[0] if len(outcomes) == 1 else {"regions": documents}
        run.output.show(Result(document, [[region.url] for region in deployed.values() if region.url]))
    raise_failures(outcomes, "deployed")


def _address(region: "Deployed") -> str:
    outputs = region.outputs
    if region.url is None:
        return f"the ticket server in {outputs.region} is table-only: tickets are minted from the table {outputs.table}"
    opened = ", open to anyone" if outputs.auth == "NONE" else ""
    return f"the ticket server is at {region.url}{opened}"


def diff(
    run: Run,
    table_only: TableOnly = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 9 if there are changes. Default: exit with 0.")
    ] = False,
) -> None:
    """Show what deploy would change; nothing is changed.

    Examples:
        ticketctl diff
        ticketctl diff --max-count 1000 --exit-code
    """
    from ticketctl.deployments import deploy as deploying

    run.require_stack()
    parameters, options = template_parameters(run, table_only=table_only), stack_options(run.flags)
    outcomes = deploying.preview(run.regions, parameters, run.output.note, options, table_only=table_only)
    plans = succeeded(outcomes)
    if plans and not any(plan.differences for plan in plans.values()):
        run.output.note("no changes")
    if plans:
        _show_changes(run, plans, several=len(outcomes) > 1)
    raise_failures(outcomes, "compared")
    if exit_code and any(plan.differences for plan in plans.values()):
        raise typer.Exit(CHANGES_FOUND)


def _show_changes(run: Run, plans: Mapping[str, "Plan"], *, several: bool) -> None:
    documents = [
        {
            "changes": [
                {"action": c.action, "id": c.logical_id, "type": c.type, "replacement": c.replacement}
                for c in plan.differences
            ],
            "stack": run.settings.stack,
            "region": region,
        }
        for region, plan in plans.items()
    ]
    changes = [(region, change) for region, plan in plans.items() for change in plan.differences]
    rows = [[f"{region}: {change}" if several else str(change)] for region, change in changes]
    run.output.show(Result({"regions": documents} if several else documents[0], rows))


def destroy(
    run: Run,
    delete_tickets: Annotated[
        str | None,
        typer.Option(
            metavar="STACK", help="Delete the table too, with every counter; repeat the stack's name. Default: keep it."
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Delete the stack in its regions. The tables are kept, and a later deploy continues their counters.

    Examples:
        ticketctl destroy
        ticketctl destroy --region eu-west-1 --yes
        ticketctl destroy --delete-tickets Tickets
    """
    from ticketctl.deployments import destroy as destroying

    run.require_stack()
    if delete_tickets is not None and delete_tickets != run.settings.stack:
        raise UsageError(
            f"--delete-tickets {delete_tickets!r} does not name the stack {run.settings.stack}",
            hint=f"pass --delete-tickets {run.settings.stack} to delete its table",
        )
    outcomes = destroying.plan(run.regions, delete_tickets=delete_tickets is not None)
    to_delete = {region: removal for region, removal in succeeded(outcomes).items() if removal.what}
    _show_removals(run, succeeded(outcomes))
    if to_delete:
        what = "; ".join(dict.fromkeys(removal.what for removal in to_delete.values()))
        run.confirm(f"Delete {what} of {run.describe_regions(to_delete)}, {_who(run)}?", yes=yes)
        destroyed = destroying.destroy(run.regions, to_delete, _dialog(run, yes=yes))
        _show_destroyed(run, succeeded(destroyed))
        outcomes = {**outcomes, **destroyed}
    if succeeded(outcomes):
        documents = [
            {
                "destroyed": standing.stack is not None,
                "table_deleted": standing.deletes_table,
                "stack": run.settings.stack,
                "region": region,
            }
            for region, standing in succeeded(outcomes).items()
        ]
        run.output.show(Result(documents[0] if len(outcomes) == 1 else {"regions": documents}))
    raise_failures(outcomes, "destroyed")


def _show_removals(run: Run, removals: Mapping[str, "Removal"]) -> None:
    for region, removal in removals.items():
        if not removal.what:
            kept = f"; the table {run.settings.stack} is kept" if removal.has_table else ""
            run.output.note(f"nothing to destroy in {_who(run)}/{region}{kept}")
        elif removal.has_table:
            _show_counters(run, run.regions.at(region))


def _show_destroyed(run: Run, removals: Mapping[str, "Removal"]) -> None:
    for region, removal in removals.items():
        kept = f"; the table {run.settings.stack} is kept, and ticketctl deploy uses it again"
        ending = "" if removal.deletes_table else kept
        run.output.note(f"destroyed {removal.what} of {run.describe_regions([region])}{ending}")


def _dialog(run: Run, *, yes: bool) -> "Dialog":
    from ticketctl.deployments.dialog import Dialog

    return Dialog(run.output.note, run.output.warn, partial(run.confirm, yes=yes), run.output.side_by_side)


def synth(
    run: Run,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Write a cloud assembly into this folder (needs the extra 'cdk'). Default: print."
        ),
    ] = None,
) -> None:
    """Print the CloudFormation template.

    Examples:
        ticketctl synth
        ticketctl synth --stack orders
        ticketctl synth --out cdk.out
    """
    from ticketctl.aws.template import fresh, load

    run.require_stack()
    if out is None:
        run.output.line(json.dumps(load(run.settings.stack), indent=1))
        return
    if not out:  # such as an unset variable of a script; to ``Path`` it is the current folder
        raise UsageError("--out is empty", hint="name a folder; for the current one: --out .")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out} cannot be written: {error.strerror}", hint="name another folder with --out") from None
    fresh(run.settings.stack, Path(out))
    run.output.show(Result({"out": out}, [[out]]))


def _show_counters(run: Run, stack: "RegionalStack") -> None:
    run.output.note(f"the counters of {run.describe_regions([stack.region])}:")
    try:
        for counter in stack.session.counters(run.settings.stack).all(run.output.warn):
            run.output.note("  " + "\t".join(counter_row(counter)))
    except TicketctlError as error:  # a user who may delete the stack may not be allowed to read its table
        run.output.note(f"  cannot be read: {error.message}")


def _who(run: Run) -> str:
    identity = "" if run.settings.local else f", {run.settings.identity}"
    return f"account {run.regions.account()}{identity}"
