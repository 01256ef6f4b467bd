"""Destroying a stack in its regions: finding what there is to delete, and deleting it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ticketctl.counters.arrangement import withdraw_offers
from ticketctl.deployments import last_tickets
from ticketctl.deployments.adoption import require_tickets, tables_of
from ticketctl.deployments.dialog import Dialog, interruptible
from ticketctl.deployments.outcomes import Outcomes, succeeded
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.errors import RefusedError

if TYPE_CHECKING:
    from ticketctl.aws.stacks import Stack


@dataclass(frozen=True)
class Removal:
    """What there is to delete in one region."""

    stack: "Stack | None"
    has_table: bool
    deletes_table: bool

    @property
    def is_protected(self) -> bool:
        """Whether AWS refuses to delete the stack."""
        return self.stack is not None and self.stack.is_protected

    @property
    def what(self) -> str:
        """What is deleted, in words; empty if nothing is."""
        parts = ["the stack"] * (self.stack is not None) + ["the table with every counter"] * self.deletes_table
        return " and ".join(parts)


def plan(regions: Regions, *, delete_tickets: bool) -> Outcomes[Removal]:
    """What there is to delete in each region; nothing is changed.

    ``RefusedError`` if, in any of them, the stack has termination protection; if its table has another name than the
    stack, because another tool deployed it, and ``ticketctl deploy`` would not continue the counters of its table; or
    if the table is to be kept and has no deletion protection, because the stack's template may delete it.
    """

    def look(region: RegionalStack) -> Removal:
        name = region.settings.stack
        stack, table = region.session.cloudformation().find_ours(name), tables_of(region.session).describe(name)
        if stack is not None and (named := stack.outputs.get("TableName", name)) != name:
            raise RefusedError(
                f"{name} in {region.region} has the table {named}: ticketctl did not deploy it; nothing was deleted",
                hint="delete the stack with the tool that deployed it",
            )
        if table is not None and delete_tickets:
            require_tickets(tables_of(region.session), table)
        elif stack is not None and table is not None and not table.is_protected:
            protect = f"aws dynamodb update-table --table-name {name} --deletion-protection-enabled"
            raise RefusedError(
                f"the table {name} in {region.region} has no deletion protection, so it may be deleted with the stack; "
                "nothing was deleted",
                hint=f"{protect} --region {region.region}",
            )
        return Removal(stack, has_table=table is not None, deletes_table=table is not None and delete_tickets)

    outcomes = regions.each(look)
    protected = [name for name, removal in succeeded(outcomes).items() if removal.is_protected]
    if protected:
        raise RefusedError(
            f"the stack {regions.home.settings.stack} has termination protection in {', '.join(protected)}; "
            "nothing was deleted",
            hint="ticketctl deploy --no-termination-protection",
        )
    return outcomes


def destroy(regions: Regions, removals: Mapping[str, Removal], dialog: Dialog) -> Outcomes[Removal]:
    """Delete what was planned, in all regions at once; the others withdraw lanes offered to a deleted table."""
    members = regions.members() if any(removal.deletes_table for removal in removals.values()) else ()

    with dialog.progress(list(removals)) as tell:

        def delete(region: RegionalStack) -> Removal:
            removal = removals[region.region]
            if removal.stack is not None:
                region.session.cloudformation(report=partial(tell, region.region)).delete(removal.stack)
                region.locator.forget()
            if removal.deletes_table:
                withdraw_offers(members, region.region)
                tables_of(region.session).delete(region.settings.stack)
                last_tickets.forget(region)
            return removal

        with regions.home.session.exclusively(), interruptible("deletion", "ticketctl destroy"):
            outcomes = regions.each(delete, removals)
    if gone := succeeded(outcomes):
        regions.remember([region for region in regions.before() if region not in gone])
    return outcomes
