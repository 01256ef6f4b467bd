"""``deploy``, ``diff``, ``destroy`` and ``synth``: the stack."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ticketctl.commands.options import PARAMETERS, Run, Yes, command
from ticketctl.errors import FileError, InterruptedRunError, RefusedError, TicketctlError, UsageError
from ticketctl.render import counter_row
from ticketctl.table import Tables

if TYPE_CHECKING:
    from ticketctl.cloudformation import CloudFormation, Plan

CHANGES_FOUND = 9
_TEMPLATE_NAMES = {
    "max_count": "MaxCount",
    "offset": "Offset",
    "increment": "Increment",
    "reserved_concurrency": "ReservedConcurrency",
    "log_retention": "LogRetentionDays",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "deploy", shared=PARAMETERS)(deploy)
    command(app, "diff", shared=PARAMETERS)(diff)
    command(app, "destroy")(destroy)
    command(app, "synth")(synth)


def deploy(run: Run, yes: Yes = False) -> None:
    """Deploy the ticket server, or bring it up to date. What is not named keeps its value."""
    note = run.output.note
    stacks = run.connection.cloudformation(report=note)
    note(f"deploying {run.place}, {_who(run)}")
    with run.connection.exclusively():
        existing = stacks.make_ready(run.settings.stack)
        plan = _plan(run, stacks)
        for change in plan.changes:
            note(f"  {change}")
        was_public = existing is not None and existing.parameters.get("AuthType") == "NONE"
        if run.flags["public"] and not was_public:
            _confirm_public(run, stacks, plan, yes=yes)
        if plan.changes:
            with _goes_on("deployment", "ticketctl deploy"):
                stacks.execute(plan)
        else:
            note("no changes")
    outputs, address = run.connection.look_up(), run.connection.url()
    note(f"the ticket server is at {address}" + (", open to anyone" if outputs.auth == "NONE" else ""))
    note(f"mint a ticket: {run.in_context('ticketctl next')}")
    if run.output.as_json:
        run.output.document({"url": address, "auth": outputs.auth, "changed": bool(plan.changes), **_where(run)})
    else:
        run.output.line(address)


def diff(
    run: Run,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 9 where there are changes.")] = False,
) -> None:
    """Show what deploy would change; nothing is changed."""
    stacks = run.connection.cloudformation(report=run.output.note)
    plan = _plan(run, stacks)
    if plan.changes:
        stacks.discard(plan)
    else:
        run.output.note("no changes")
    if run.output.as_json:
        changes = [
            {"action": c.action, "id": c.logical_id, "type": c.type, "replacement": c.replacement} for c in plan.changes
        ]
        run.output.document({"changes": changes, **_where(run)})
    else:
        for change in plan.changes:
            run.output.line(str(change))
    if plan.changes and exit_code:
        raise typer.Exit(CHANGES_FOUND)


def destroy(
    run: Run,
    delete_tickets: Annotated[
        str | None,
        typer.Option(metavar="STACK", help="Delete the table too, with every counter; repeat the stack's name."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Delete the stack. Its table stays, and a later deploy carries its counters on."""
    name = run.settings.stack
    if delete_tickets is not None and delete_tickets != name:
        raise UsageError(f"--delete-tickets {delete_tickets} does not name the stack {name}")
    stacks = run.connection.cloudformation(report=run.output.note)
    tables = Tables(run.connection.aws.client("dynamodb"), profile=run.settings.profile)
    stack, has_table = stacks.find_ours(name), tables.exists(name)
    deletes_table = has_table and delete_tickets is not None
    if stack is None and not deletes_table:
        kept = f"; the table {name} is there and stays" if has_table else ""
        run.output.note(f"nothing to destroy in {_who(run)}/{run.settings.region}{kept}")
    else:
        if has_table:
            _show_counters(run)
        what = " and ".join(["the stack"] * (stack is not None) + ["the table with every counter"] * deletes_table)
        run.confirm(f"Delete {what} of {run.place}, {_who(run)}?", yes=yes)
        with run.connection.exclusively(), _goes_on("deletion", "ticketctl destroy"):
            if stack is not None:
                stacks.delete(stack)
                run.connection.forget()
            if deletes_table:
                tables.delete(name)
        kept = "" if deletes_table else f"; its table {name} stays, and ticketctl deploy takes it back"
        run.output.note(f"destroyed {what} of {run.place}{kept}")
    if run.output.as_json:
        run.output.document({"destroyed": stack is not None, "table_deleted": deletes_table, **_where(run)})


def synth(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(help="Write a cloud assembly into this folder instead (needs the extra 'cdk').")
    ] = None,
) -> None:
    """Print the CloudFormation template."""
    from ticketctl.template import fresh, load

    if out is None:
        run.output.line(json.dumps(load(run.settings.stack), indent=1))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out} cannot be written: {error.strerror}", hint="name another folder with --out") from None
    fresh(run.settings.stack, out)
    if run.output.as_json:
        run.output.document({"out": str(out)})
    else:
        run.output.line(str(out))


def _plan(run: Run, stacks: "CloudFormation") -> "Plan":
    """What a deployment would change; refused where that would cost the table."""
    from ticketctl.template import as_body, load

    template = load(run.settings.stack)
    plan = stacks.plan(run.settings.stack, as_body(template), _parameters(run.flags, template))
    if plan.endangers_table:
        stacks.discard(plan)
        dangers = "; ".join(map(str, plan.endangers_table))
        raise RefusedError(f"this would replace or delete the table: {dangers}; nothing was changed")
    return plan


@contextmanager
def _goes_on(what: str, again: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; the {what} goes on without us, follow it again", hint=again) from None


def _confirm_public(run: Run, stacks: "CloudFormation", plan: "Plan", *, yes: bool) -> None:
    try:
        run.confirm("Anyone who has the URL will be able to mint. Deploy it?", yes=yes)
    except BaseException:
        stacks.discard(plan)
        raise


def _parameters(flags: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, str]:
    """The template's parameters that were named, checked against what the template allows."""
    named = {_TEMPLATE_NAMES[flag]: (flag, flags[flag]) for flag in _TEMPLATE_NAMES if flags[flag] is not None}
    for name, (flag, value) in named.items():
        rules = template["Parameters"][name]
        allowed = rules.get("AllowedValues", [])
        too_small, too_large = value < rules.get("MinValue", value), value > rules.get("MaxValue", value)
        if too_small or too_large or (allowed and str(value) not in allowed):
            span = f"from {rules.get('MinValue')} up to {rules.get('MaxValue', 'any number')}"
            hint = f"one of {', '.join(allowed)}" if allowed else span
            raise UsageError(f"--{flag.replace('_', '-')} {value} is not allowed", hint=hint)
    parameters = {name: str(value) for name, (_, value) in named.items()}
    if flags["public"] is not None:
        parameters["AuthType"] = "NONE" if flags["public"] else "AWS_IAM"
    return parameters


def _show_counters(run: Run) -> None:
    run.output.note(f"the counters of {run.place}:")
    try:
        for counter in run.connection.counters_of(run.settings.stack).all(run.output.warn):
            run.output.note("  " + "\t".join(counter_row(counter)))
    except TicketctlError as error:  # whoever may delete the stack may not be allowed to read its table
        run.output.note(f"  cannot be read: {error.message}")


def _who(run: Run) -> str:
    profile = "" if run.settings.local else f", profile {run.settings.profile or 'default'}"
    return f"account {run.connection.aws.account()}{profile}"


def _where(run: Run) -> dict[str, str | None]:
    return {"stack": run.settings.stack, "region": run.settings.region}
