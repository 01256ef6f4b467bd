"""A ticket server for your own CDK app: ``from ticketctl.cdk import TicketServer``. It needs the extra ``cdk``."""

from ticketctl.errors import MissingExtraError, install_hint

try:
    from ticketctl.cdk.ticket_server import TicketServer
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("aws_cdk", "constructs"):
        raise
    hint = install_hint("cdk")
    raise MissingExtraError(f"ticketctl.cdk needs {missing}: {hint}", hint=hint) from None

__all__ = ["TicketServer"]
