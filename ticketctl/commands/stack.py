"""``deploy``, ``diff``, ``destroy`` and ``synth``: the stack."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketctl.commands.options import PARAMETERS, Run, Yes, command
from ticketctl.deployments.outcomes import Outcomes, all_of, failures, raise_failures, succeeded
from ticketctl.errors import FileError, InterruptedRunError, NotMintedError, TicketctlError, UsageError
from ticketctl.output import Result, counter_row

if TYPE_CHECKING:
    from ticketctl.aws.cloudformation import CloudFormation, Plan, Stack
    from ticketctl.aws.tables import Tables
    from ticketctl.deployments.deploy import Planned
    from ticketctl.deployments.regional_stack import RegionalStack

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
    """Deploy the ticket server to its regions, or bring it up to date. What is not named keeps its value.

    Examples:
        ticketctl deploy --region eu-central-1
        ticketctl deploy --region us-east-1 --region eu-west-1
        ticketctl deploy --local --max-count 1000 --log-retention 7
    """
    from ticketctl.deployments import deploy as deploying

    note, regions = run.output.note, run.regions
    parameters = _parameters(run)
    note(f"deploying {run.place}, {_who(run)}")
    with ExitStack() as held:
        held.enter_context(run.home.exclusively())
        shared = deploying.sharing(regions, parameters)
        if shared.begins and regions.unread:
            unread = ", ".join(regions.unread)
            run.confirm(f"Not looked into: {unread}. Begin as if {run.settings.stack} had no ticket there?", yes=yes)
        plans = _planned(run, parameters, shared=bool(shared.names))
        if run.flags["public"] and not all(planned.is_public for planned in succeeded(plans).values()):
            held.close()  # nobody else waits for this user's answer
            _confirm_public(run, succeeded(plans).values(), yes=yes)
            held.enter_context(run.home.exclusively())
        with run.output.side_by_side(regions.names) as tell, _goes_on("deployment", "ticketctl deploy"):
            plans = _carried_out(run, plans, tell)
    if succeeded(plans):
        with _goes_on("deployment", "ticketctl deploy"):
            deploying.give_lanes(regions, shared, note)
    _show_deployed(run, plans)


def _planned(run: Run, parameters: dict[str, str], *, shared: bool) -> Outcomes["Planned"]:
    """What is to change in each region, as it is said; nothing is changed."""
    from ticketctl.deployments import deploy as deploying

    with run.output.side_by_side(run.regions.names) as tell:

        def plan(stack: "RegionalStack") -> "Planned":
            stacks = stack.cloudformation(report=partial(tell, stack.region))
            stacks.make_ready(run.settings.stack)
            planned = deploying.plan(stack, stacks, parameters, shared=shared)
            for change in planned.plan.changes:
                tell(stack.region, f"  {change}")
            return planned

        return run.regions.each(plan)


def _carried_out(run: Run, plans: Outcomes["Planned"], tell: Callable[[str, str], None]) -> Outcomes["Planned"]:
    """Execute the plans; a region that failed before stays as it is."""

    def execute(stack: "RegionalStack") -> "Planned":
        planned = succeeded(plans)[stack.region]
        if planned.plan.changes:
            planned.stacks.execute(planned.plan)
        else:
            tell(stack.region, "no changes")
        return planned

    done = {**failures(plans), **run.regions.each(execute, succeeded(plans))}
    if len(plans) > 1:
        for name, error in failures(done).items():
            tell(name, f"failed: {error.message}")
    return {name: done[name] for name in plans}


def _show_deployed(run: Run, plans: Outcomes["Planned"]) -> None:
    """Say where the ticket server is, in every region that is up to date; then what failed."""
    found = all_of(run.regions.each(lambda stack: (stack.look_up(), stack.url()), succeeded(plans)))
    for outputs, address in found.values():
        opened = ", open to anyone" if outputs.auth == "NONE" else ""
        run.output.note(f"the ticket server is at {address}{opened}")
    if found:
        run.output.note(f"mint a ticket: {run.with_options('ticketctl next')}")
    documents = [
        {
            "url": address,
            "auth": outputs.auth,
            "changed": bool(succeeded(plans)[name].plan.changes),
            "stack": run.settings.stack,
            "region": name,
        }
        for name, (outputs, address) in found.items()
    ]
    if documents:
        document = documents[0] if len(plans) == 1 else {"regions": documents}
        run.output.show(Result(document, [[address] for _, address in found.values()]))
    raise_failures(plans, "deployed")


def diff(
    run: Run,
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

    parameters = _parameters(run)
    shared = deploying.sharing(run.regions, parameters)

    def look(stack: "RegionalStack") -> "Plan":
        stacks = stack.cloudformation(report=run.output.note)
        plan = deploying.plan(stack, stacks, parameters, shared=bool(shared.names)).plan
        if plan.changes:
            stacks.discard(plan)
        return plan

    outcomes = run.regions.each(look)
    plans = succeeded(outcomes)
    if plans and not any(plan.changes for plan in plans.values()):
        run.output.note("no changes")
    if plans:
        _show_changes(run, plans, several=len(outcomes) > 1)
    raise_failures(outcomes, "compared")
    if exit_code and any(plan.changes for plan in plans.values()):
        raise typer.Exit(CHANGES_FOUND)


def _show_changes(run: Run, plans: Mapping[str, "Plan"], *, several: bool) -> None:
    documents = [
        {
            "changes": [
                {"action": c.action, "id": c.logical_id, "type": c.type, "replacement": c.replacement}
                for c in plan.changes
            ],
            "stack": run.settings.stack,
            "region": region,
        }
        for region, plan in plans.items()
    ]
    changes = [(region, change) for region, plan in plans.items() for change in plan.changes]
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
    """Delete the stack in its regions. Its tables stay, and a later deploy carries their counters on.

    Examples:
        ticketctl destroy
        ticketctl destroy --region eu-west-1 --yes
        ticketctl destroy --delete-tickets Tickets
    """
    if delete_tickets is not None and delete_tickets != run.settings.stack:
        raise UsageError(f"--delete-tickets {delete_tickets} does not name the stack {run.settings.stack}")
    outcomes = run.regions.each(lambda stack: _removal(stack, run, deletes=delete_tickets is not None))
    there = succeeded(outcomes)
    to_delete = [region for region, standing in there.items() if standing.what]
    for region, standing in there.items():
        if not standing.what:
            kept = f"; the table {run.settings.stack} is there and stays" if standing.has_table else ""
            run.output.note(f"nothing to destroy in {_who(run)}/{region}{kept}")
        elif standing.has_table:
            _show_counters(run, run.regions.at(region))
    if to_delete:
        what = "; ".join(dict.fromkeys(there[region].what for region in to_delete))
        run.confirm(f"Delete {what} of {run.describe_regions(to_delete)}, {_who(run)}?", yes=yes)
        outcomes = {**outcomes, **_destroyed(run, {region: there[region] for region in to_delete})}
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


@dataclass(frozen=True)
class _Removal:
    """What there is to destroy in one region."""

    stacks: "CloudFormation"
    stack: "Stack | None"
    has_table: bool
    deletes_table: bool

    @property
    def what(self) -> str:
        """What goes, for a person; empty where nothing does."""
        parts = ["the stack"] * (self.stack is not None) + ["the table with every counter"] * self.deletes_table
        return " and ".join(parts)


def _removal(region: "RegionalStack", run: Run, *, deletes: bool) -> _Removal:
    stacks = region.cloudformation(report=run.output.note)
    stack, has_table = stacks.find_ours(run.settings.stack), _tables(region).exists(run.settings.stack)
    return _Removal(stacks, stack, has_table, deletes_table=has_table and deletes)


def _destroyed(run: Run, to_delete: Mapping[str, _Removal]) -> Outcomes[_Removal]:
    """Delete what there is, side by side; the regions are not asked for tickets any more."""
    from ticketctl.counters.sequence import withdraw_offers

    name = run.settings.stack
    members = run.regions.members() if any(standing.deletes_table for standing in to_delete.values()) else ()
    with run.output.side_by_side(list(to_delete)) as tell:

        def delete(stack: "RegionalStack") -> _Removal:
            standing = to_delete[stack.region]
            if standing.stack is not None:
                stack.cloudformation(report=partial(tell, stack.region)).delete(standing.stack)
                stack.forget()
            if standing.deletes_table:
                withdraw_offers(members, stack.region)
                _tables(stack).delete(name)
            return standing

        with run.home.exclusively(), _goes_on("deletion", "ticketctl destroy"):
            outcomes = run.regions.each(delete, to_delete)
    gone = succeeded(outcomes)
    if gone:
        run.regions.remember([region for region in run.regions.before() if region not in gone])
    for region, standing in gone.items():
        kept = "" if standing.deletes_table else f"; its table {name} pinned, and ticketctl deploy takes it back"
        run.output.note(f"destroyed {standing.what} of {run.describe_regions([region])}{kept}")
    return outcomes


def _tables(stack: "RegionalStack") -> "Tables":
    from ticketctl.aws.tables import Tables

    return Tables(stack.aws.client("dynamodb"), profile=stack.settings.profile)


def synth(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a cloud assembly into this folder (needs the extra 'cdk'). Default: print."),
    ] = None,
) -> None:
    """Print the CloudFormation template.

    Examples:
        ticketctl synth
        ticketctl synth --stack orders
        ticketctl synth --out cdk.out
    """
    from ticketctl.aws.template import fresh, load

    if out is None:
        run.output.line(json.dumps(load(run.settings.stack), indent=1))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out} cannot be written: {error.strerror}", hint="name another folder with --out") from None
    fresh(run.settings.stack, out)
    run.output.show(Result({"out": str(out)}, [[str(out)]]))


@contextmanager
def _goes_on(what: str, again: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; the {what} goes on without us, follow it again", hint=again) from None


def _confirm_public(run: Run, plans: Collection["Planned"], *, yes: bool) -> None:
    """Ask before anyone is let in, once for all regions; the plans are dropped if the answer is no."""
    try:
        run.confirm("Anyone who has the URL will be able to mint. Deploy it?", yes=yes)
    except BaseException:
        for planned in plans:
            if planned.plan.changes:
                planned.stacks.discard(planned.plan)
        raise


def _parameters(run: Run) -> dict[str, str]:
    """The template's parameters that were named, checked against what the template allows."""
    from ticketctl.aws.template import load

    flags = run.flags
    if flags["offset"] == 0:
        raise UsageError("--offset 0 is not allowed", hint="from 1 up to 1000000")
    template = load(run.settings.stack)
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


def _show_counters(run: Run, stack: "RegionalStack") -> None:
    run.output.note(f"the counters of {run.describe_regions([stack.region])}:")
    try:
        for counter in stack.counters_of(run.settings.stack).all(run.output.warn):
            run.output.note("  " + "\t".join(counter_row(counter)))
    except TicketctlError as error:  # whoever may delete the stack may not be allowed to read its table
        run.output.note(f"  cannot be read: {error.message}")


def _who(run: Run) -> str:
    profile = "" if run.settings.local else f", profile {run.settings.profile or 'default'}"
    for name in run.regions.names[:-1]:
        with suppress(NotMintedError):  # the next region knows the account as well
            return f"account {run.regions.at(name).aws.account()}{profile}"
    return f"account {run.regions.at(run.regions.names[-1]).aws.account()}{profile}"
