"""A ticket server for your own CDK app: ``from ticketctl.cdk import TicketServer``. It needs the extra ``cdk``."""

from ticketctl.errors import MissingExtraError

try:
    from ticketctl.cdk.ticket_server import TicketServer
except ModuleNotFoundError as error:
    if error.name not in ("aws_cdk", "constructs"):
        raise
    hint = "pip install 'ticketctl[cdk]'"
    raise MissingExtraError(f"ticketctl.cdk needs {error.name}: {hint}", hint=hint) from None

__all__ = ["TicketServer"]
