"""Deploying a stack to its regions: what would change in each, carrying it out, and the lanes that they get."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ticketctl.aws.cloudformation import CloudFormation, Plan, Stack
from ticketctl.counters.sequence import DEFAULT, Member, Survey, arrange, require_names_free, survey
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.errors import RefusedError, UsageError


@dataclass(frozen=True)
class Planned:
    """What a deployment would do in one region. ``existing`` is the stack as it is."""

    stacks: CloudFormation
    existing: Stack | None
    plan: Plan

    @property
    def is_public(self) -> bool:
        """Whether anyone who has the URL may mint there now."""
        return self.existing is not None and self.existing.parameters.get("AuthType") == "NONE"


def plan(stack: RegionalStack, stacks: CloudFormation, parameters: Mapping[str, str], *, shared: bool) -> Planned:
    """What a deployment would change; ``RefusedError`` where that would cost the table.

    Where the sequence is ``shared``, a new stack does not begin the default counter by itself.
    """
    name = stack.settings.stack
    existing = stacks.find_ours(name)
    is_new = existing is None or existing.is_empty
    offset = {"Offset": "0"} if shared and is_new else {}
    plan = stacks.plan(name, stack.template(), {**parameters, **offset})
    if plan.endangers_table:
        stacks.discard(plan)
        dangers = "; ".join(map(str, plan.endangers_table))
        raise RefusedError(f"this would replace or delete the table: {dangers}; nothing was changed")
    return Planned(stacks, existing, plan)


@dataclass(frozen=True)
class Sharing:
    """The regions that would share the sequence after a deployment; none where there is only one.

    ``begins``: none of them that could be read has any lane of it yet. ``found``: their lanes before the deployment.
    """

    names: Sequence[str]
    begins: bool
    found: Survey | None = None


def sharing(regions: Regions, parameters: Mapping[str, str]) -> Sharing:
    """Who would share the sequence if it were deployed to ``regions``.

    Where none of them has it, every region of the account is looked into; ``regions.unread`` tells where that failed.
    ``UsageError`` where a lane is asked for that is nobody's to choose then, ``RefusedError`` where lanes meet.
    """
    members = regions.members(tolerant=True)
    if not any(_has_lane(member) for member in members):
        members = regions.members(also=regions.elsewhere(), tolerant=True)
    begins = not any(_has_lane(member) for member in members)
    names = list(dict.fromkeys([*regions.names, *(member.region for member in members)]))
    if len(names) < 2:
        return Sharing((), begins)
    if parameters.keys() & {"Offset", "Increment"}:
        raise UsageError("--offset and --increment cannot be set where several regions share the lanes")
    found = survey(members)
    found.require_disjoint()
    require_names_free(found, regions.names)
    return Sharing(names, begins, found)


def give_lanes(regions: Regions, shared: Sharing, report: Callable[[str], None]) -> None:
    """Give the regions their lanes of every counter, and remember them.

    ``RefusedError`` where another deployment has begun the sequence elsewhere meanwhile.
    """
    alone = not shared.begins or regions.home.settings.local  # in the embedded AWS a lock keeps deployments apart
    if not alone and (others := [n for n in regions.elsewhere() if n not in (*regions.names, *shared.names)]):
        raise RefusedError(
            f"another deployment has begun in {', '.join(others)} at the same time: each would begin with 1",
            hint="destroy one of them with --delete-tickets before anything is minted, and deploy its region again",
        )
    if not shared.names:
        return
    members = regions.members(also=shared.names, tolerant=True)
    arrange(members, regions.names, report, may_begin=shared.begins, known=shared.found)
    others = [name for name in (*regions.before(), *shared.names) if name not in regions.names]
    order = [*regions.names, *others] if len(regions.names) > 1 else [*others, *regions.names]
    active = {member.region for member in members if not member.retired}
    regions.remember([name for name in dict.fromkeys(order) if name in active])


def _has_lane(member: Member) -> bool:
    return member.start is not None or member.holding(DEFAULT) is not None
