"""Importing an existing table into a stack: refuse an unrelated table, and give the table the template's settings.

A deployment imports a table that has the stack's name. Everything is checked before anything changes.
"""

from collections.abc import Mapping
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.aws.sdk_errors import not_a_ticket_table
from ticketctl.aws.tables import Table, Tables
from ticketctl.deployments.dialog import Dialog
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError, RefusedError


def require_importable(session: Session, stacks: CloudFormation) -> None:
    """Raise ``RefusedError`` if a new stack cannot have the table of its name; without such a table, do nothing."""
    tables = tables_of(session)
    table = tables.describe(session.settings.stack)
    if table is None:
        return
    table.require_key()
    table.require_no_replicas()
    _require_no_owner(tables, table, stacks)
    require_tickets(tables, table)


def require_usable(session: Session, wanted: Mapping[str, Any]) -> bool:
    """Raise ``RefusedError`` if the table of a deployed stack cannot give unique numbers, as far as that is known.

    Return False if its settings are not ``wanted``, the template's: an import before may not have been finished.
    """
    try:
        table = tables_of(session).describe(session.settings.stack)
    except AccessError:  # a stack can be updated without this permission
        return True
    if table is None:
        return True
    table.require_key()
    table.require_no_replicas()
    same_billing = table.billing == wanted.get("BillingMode", table.billing)
    same_protection = table.is_protected == wanted.get("DeletionProtectionEnabled", table.is_protected)
    return bool(same_billing and same_protection)


def require_tickets(tables: Tables, table: Table) -> None:
    """Raise ``RefusedError`` if the first items of a table are not all counters and receipts."""
    for item in tables.sample(table.name):
        name = str(item.get("partition", {}).get("S", ""))
        if "hand_crafted_int" not in item and not name.startswith(bundle.handler.RECEIPT):
            raise not_a_ticket_table(str(table), f"its item {name[:50]!r} is no counter, without 'hand_crafted_int'")


def _require_no_owner(tables: Tables, table: Table, stacks: CloudFormation) -> None:
    """Raise ``RefusedError`` if another stack has the table. The tag of a deleted stack stays on a retained table.

    If the user may not read the stacks, nothing is raised: AWS itself refuses the import, with a worse message.
    """
    try:
        stack_id = tables.stack_of(table)
        is_owned = bool(stack_id) and stacks.has_table(stack_id, table.name)
    except AccessError:
        return
    if is_owned:
        owner = stack_id.split("/")[1]
        raise RefusedError(
            f"{table} belongs to the stack {owner}; nothing was changed",
            hint=f"use another name: --stack NAME; or delete the stack {owner} first: CDK retains its table",
        )


def adopt(session: Session, wanted: Mapping[str, Any], dialog: Dialog) -> None:
    """Give an imported table the settings ``wanted``, the template's; a failure is a warning."""
    from ticketctl.aws.table_settings import TableSettings

    client, settings = session.aws.client("dynamodb"), session.settings
    TableSettings(client, settings.stack, wanted, profile=settings.profile).repair(dialog.note, dialog.warn)


def tables_of(session: Session) -> Tables:
    """The tables of a session's account and region."""
    return Tables(session.aws.client("dynamodb"), profile=session.settings.profile)
