"""Short unique integers from a serverless ticket server.

::

    from ticketctl import TicketClient

    with TicketClient.connect() as tickets:  # the settings of the command line
        ticket = tickets.next()
        block = tickets.fetch(100)  # one write
        for ticket in tickets.lease():  # endless, minted ahead
            ...

``AsyncTicketClient`` is the same with ``await``. The errors are in ``ticketctl.errors``.
"""

TYPE_CHECKING = False  # type checkers assume that it is true; the package loads nothing, not even ``typing``
if TYPE_CHECKING:
    from ticketctl.client.aio import AsyncLease, AsyncTicketClient
    from ticketctl.client.lease import Lease
    from ticketctl.client.sync import TicketClient
    from ticketctl.errors import TicketctlError
    from ticketctl.models import Block

__version__ = "0.1.0"
__all__ = ["AsyncLease", "AsyncTicketClient", "Block", "Lease", "TicketClient", "TicketctlError", "__version__"]

_MODULES = {
    "AsyncLease": "ticketctl.client.aio",
    "AsyncTicketClient": "ticketctl.client.aio",
    "Block": "ticketctl.models",
    "Lease": "ticketctl.client.lease",
    "TicketClient": "ticketctl.client.sync",
    "TicketctlError": "ticketctl.errors",
}


def __getattr__(name: str) -> object:
    """Load a name at its first use: ``ticketctl --version`` also imports this module, and needs none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
