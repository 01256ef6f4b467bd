"""Deploying a stack to its regions: plan, execute, and give each region its lane."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.aws.stacks import UNCHANGED, Plan, Stack, StackOptions, outputs_of
from ticketctl.aws.template import table_properties
from ticketctl.counters.arrangement import arrange, require_names_free
from ticketctl.counters.survey import DEFAULT, Member, Survey, survey
from ticketctl.deployments.adoption import adopt, require_importable, require_usable
from ticketctl.deployments.dialog import Dialog, Tell, interruptible
from ticketctl.deployments.last_tickets import LastTickets
from ticketctl.deployments.locator import template_body
from ticketctl.deployments.outcomes import Outcomes, failures, raise_first_failure, succeeded
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.errors import RefusedError, UsageError
from ticketctl.models import StackOutputs


@dataclass(frozen=True)
class Deployed:
    """A region whose stack is up to date."""

    outputs: StackOutputs
    url: str | None
    changed: bool


@dataclass(frozen=True)
class Planned:
    """What a deployment would do in one region. ``existing`` is the stack before it."""

    stacks: CloudFormation
    existing: Stack | None
    plan: Plan
    adopts: Mapping[str, Any]
    """The settings to give its table if it is imported, or if an earlier import is unfinished; otherwise empty."""

    @property
    def is_public(self) -> bool:
        """Whether anyone who has the URL can mint before the deployment."""
        return self.existing is not None and self.existing.parameters.get("AuthType") == "NONE"


def deploy(
    regions: Regions,
    parameters: Mapping[str, str],
    dialog: Dialog,
    *,
    opens_to_anyone: bool,
    options: StackOptions = UNCHANGED,
    table_only: bool = False,
) -> Outcomes[Deployed]:
    """Deploy to every region, with ``table_only`` without a function. If one region fails, the others continue.

    With ``--local`` no lock is held while the user is asked whether to let anyone mint, or to remove a URL.
    """
    with ExitStack() as held:
        held.enter_context(regions.home.session.exclusively())
        shared = sharing(regions, parameters)
        if shared.begins and regions.unread:
            name, unread = regions.home.settings.stack, regions.describe_unread()
            dialog.confirm(f"Not read: {unread}. Continue as if {name} had no tickets there?")
        last_tickets = LastTickets(regions, shared.found)
        last_tickets.warn_of_older(dialog.warn)
        plans = _plan_all(regions, parameters, options, dialog, shared=bool(shared.names), table_only=table_only)
        if question := _question(succeeded(plans), opens_to_anyone=opens_to_anyone):
            held.close()
            _confirm(dialog, question, succeeded(plans).values())
            held.enter_context(regions.home.session.exclusively())
        with dialog.progress(regions.names) as tell, interruptible("deployment", "ticketctl deploy"):
            plans = _execute_all(regions, plans, tell)
    if not (executed := succeeded(plans)):
        return dict(failures(plans))
    known = _unchanged(executed)
    with interruptible("deployment", "ticketctl deploy"):
        give_lanes(regions, shared, dialog.note, known)
        imported = [name for name, planned in executed.items() if planned.adopts]
        regions.each(lambda stack: adopt(stack.session, executed[stack.region].adopts, dialog), imported)
    last_tickets.remember()
    outcomes: Outcomes[Deployed] = {**failures(plans), **_deployed(regions, executed, known)}
    return {name: outcomes[name] for name in plans}


def preview(
    regions: Regions,
    parameters: Mapping[str, str],
    report: Callable[[str], None],
    options: StackOptions = UNCHANGED,
    *,
    table_only: bool = False,
) -> Outcomes[Plan]:
    """What a deployment would change in each region; nothing is changed."""
    shared = sharing(regions, parameters)

    def look(stack: RegionalStack) -> Plan:
        stacks = stack.session.cloudformation(report=report)
        existing = stacks.find_ours(stack.settings.stack)
        plan = _plan(
            stack, stacks, existing, parameters, options, shared=bool(shared.names), table_only=table_only
        ).plan
        if plan.changes:
            stacks.discard(plan)
        return plan

    return regions.each(look)


def _plan_all(
    regions: Regions,
    parameters: Mapping[str, str],
    options: StackOptions,
    dialog: Dialog,
    *,
    shared: bool,
    table_only: bool,
) -> Outcomes[Planned]:
    """Plan in each region and show the changes."""
    with dialog.progress(regions.names) as tell:

        def plan(stack: RegionalStack) -> Planned:
            stacks = stack.session.cloudformation(report=partial(tell, stack.region))
            existing = stacks.prepare(stack.settings.stack)
            planned = _plan(stack, stacks, existing, parameters, options, shared=shared, table_only=table_only)
            for change in planned.plan.differences:
                tell(stack.region, f"  {change}")
            return planned

        return regions.each(plan)


def _plan(
    stack: RegionalStack,
    stacks: CloudFormation,
    existing: Stack | None,
    parameters: Mapping[str, str],
    options: StackOptions,
    *,
    shared: bool,
    table_only: bool,
) -> Planned:
    """What a deployment would change; ``RefusedError`` if the table is unrelated, or would be replaced or deleted.

    If the sequence is ``shared``, a new stack does not start the default counter by itself.
    """
    is_new = existing is None or existing.is_empty
    if is_new:
        require_importable(stack.session, stacks)
    given = {**parameters, **({"Offset": "0"} if shared and is_new else {})}
    before = {} if existing is None else existing.parameters
    body = template_body(stack.settings, {**before, **given} if table_only else None)
    wanted = table_properties(json.loads(body))
    differs = not is_new and not require_usable(stack.session, wanted)
    plan = stacks.plan_from(existing, stack.settings.stack, body, given, options)
    if plan.endangers_table:
        stacks.discard(plan)
        dangers = "; ".join(map(str, plan.endangers_table))
        raise RefusedError(f"this would replace or delete the table: {dangers}; nothing was changed")
    return Planned(stacks, existing, plan, adopts=wanted if plan.imports_table or differs else {})


def _question(plans: Mapping[str, Planned], *, opens_to_anyone: bool) -> str:
    """What to ask the user before the plans are executed; empty if nothing."""
    if opens_to_anyone and not all(planned.is_public for planned in plans.values()):
        return "Anyone who has the URL will be able to mint. Deploy it?"
    if closing := [region for region, planned in plans.items() if planned.plan.removes_url]:
        return f"The function and its URL in {', '.join(closing)} will be removed; the counters stay. Remove them?"
    return ""


def _confirm(dialog: Dialog, question: str, plans: Collection[Planned]) -> None:
    """Ask once for all regions; discard the plans if the user does not agree."""
    try:
        dialog.confirm(question)
    except BaseException:
        for planned in plans:
            if planned.plan.changes:
                planned.stacks.discard(planned.plan)
        raise


def _execute_all(regions: Regions, plans: Outcomes[Planned], tell: Tell) -> Outcomes[Planned]:
    """Execute the plans; a region whose plan failed stays as it is."""

    def execute(stack: RegionalStack) -> Planned:
        planned = succeeded(plans)[stack.region]
        if planned.plan.differences:
            planned.stacks.execute(planned.plan)
        else:
            tell(stack.region, "no changes")
        return planned

    done = {**failures(plans), **regions.each(execute, succeeded(plans))}
    if len(plans) > 1:
        for name, error in failures(done).items():
            tell(name, f"failed: {error.message}")
    return {name: done[name] for name in plans}


def _unchanged(plans: Mapping[str, Planned]) -> Mapping[str, StackOutputs]:
    """The stacks as they were planned, if no region changed; otherwise minutes may have passed, and none is known."""
    if any(planned.plan.changes for planned in plans.values()):
        return {}
    existing = {name: planned.existing for name, planned in plans.items()}
    return {name: outputs_of(stack, name) for name, stack in existing.items() if stack is not None}


def _deployed(
    regions: Regions, plans: Mapping[str, Planned], known: Mapping[str, StackOutputs]
) -> Mapping[str, Deployed]:
    """The stacks after the deployment; those that are not ``known`` are looked up."""

    def look(stack: RegionalStack) -> Deployed:
        if outputs := known.get(stack.region):
            stack.locator.remember(outputs)
        else:
            outputs = stack.locator.look_up()
        if plans[stack.region].plan.changes:
            stack.locator.mark_deployed()
        url = None if outputs.url is None else stack.url()
        return Deployed(outputs, url, changed=bool(plans[stack.region].plan.differences))

    return raise_first_failure(regions.each(look, plans))


@dataclass(frozen=True)
class Sharing:
    """The regions that would share the sequence after a deployment; empty if there is only one.

    ``begins``: no region that could be read has a lane of the sequence yet. ``found``: the lanes before the deployment.
    """

    names: Sequence[str]
    begins: bool
    found: Survey | None = None


def sharing(regions: Regions, parameters: Mapping[str, str]) -> Sharing:
    """The regions that would share the sequence after a deployment to ``regions``.

    If none of them has it, every region of the account is read; ``regions.unread`` has those that failed.
    ``UsageError`` if ``parameters`` set a lane although regions share the lanes, ``RefusedError`` if lanes overlap.
    """
    members = regions.members(tolerant=True)
    if not any(_has_lane(member) for member in members):
        members = regions.members(also=regions.elsewhere(), tolerant=True)
    begins = not any(_has_lane(member) for member in members)
    names = list(dict.fromkeys([*regions.names, *(member.region for member in members)]))
    if len(names) < 2:
        return Sharing((), begins)
    if parameters.keys() & {"Offset", "Increment"}:
        raise UsageError("--offset and --increment cannot be set if several regions share the lanes")
    found = survey(members)
    found.require_disjoint()
    require_names_free(found, regions.names)
    return Sharing(names, begins, found)


def give_lanes(
    regions: Regions, shared: Sharing, report: Callable[[str], None], known: Mapping[str, StackOutputs]
) -> None:
    """Give the regions their lanes of every counter, and remember the regions.

    ``RefusedError`` if another deployment has started the sequence in another region in the meantime.
    ``known`` are stacks that need no look-up.
    """
    alone = not shared.begins or regions.home.settings.local  # in the embedded AWS a lock keeps deployments apart
    if not alone and (others := [n for n in regions.elsewhere() if n not in (*regions.names, *shared.names)]):
        raise RefusedError(
            f"another deployment has begun in {', '.join(others)} at the same time: each would begin with 1",
            hint="destroy one of them with --delete-tickets before anything is minted, and deploy its region again",
        )
    if not shared.names:
        return
    members = regions.members(also=shared.names, tolerant=True, known=known)
    arrange(members, regions.names, report, may_begin=shared.begins, known=shared.found)
    others = [name for name in (*regions.before(), *shared.names) if name not in regions.names]
    order = [*regions.names, *others] if len(regions.names) > 1 else [*others, *regions.names]
    active = {member.region for member in members if not member.retired}
    regions.remember([name for name in dict.fromkeys(order) if name in active])


def _has_lane(member: Member) -> bool:
    return member.start is not None or member.holding(DEFAULT) is not None
