"""What programs use instead of the command: a client, and the minter that its settings name."""

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, Self, TypedDict, Unpack
from weakref import WeakSet

from ticketctl.client.forks import forget_in_child, fork_gate
from ticketctl.client.lease import Lease
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions, connect_seconds, resolve_settings
from ticketctl.deployments.session import Session
from ticketctl.errors import UsageError
from ticketctl.minting.source import check_typed_key, new_retry_key
from ticketctl.models import Block, MintRequest
from ticketctl.settings import Settings

_log = logging.getLogger("ticketctl")


class Where(TypedDict, total=False):
    """Where to mint: the settings of the command line, by the same names, and ``table``.

    What is left out comes from ``TICKETCTL_*``, else ``AWS_*``, else the configuration file, else the default.
    ``timeout`` is in seconds, for one mint with all its tries. Of several regions the first that answers mints.

    ``table`` mints straight from a DynamoDB table of that name, whether or not a stack owns it; CloudFormation
    is not asked, so the counter must exist: nobody says in which lane a new one would begin.
    """

    stack: str
    region: str | Sequence[str]
    profile: str
    partition: str
    via: Literal["url", "dynamodb"]
    local: bool
    endpoint_url: str
    url: str
    timeout: float
    table: str


class Minter(Protocol):
    """What mints for a client, tries again where that is safe, and raises the errors of ``ticketctl.errors``.

    Threads may share it.
    """

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets, and answer by the deadline."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class TicketClient:
    """Tickets for a program: one, a block, or a lease. Threads may share it, and so may forked children.

    A fork waits, at most 30 seconds, while another thread makes the client's first mint: it would copy locks that
    stay locked in the child. Do not call the client from a signal handler: it may wait for the code that it
    interrupted. A lease may be called from one.

    ``open_minter`` is called at the first mint, and again in each forked child: it never uses its parent's
    connections. ``TicketClient.connect`` makes one from settings.
    """

    def __init__(
        self, open_minter: Callable[[], Minter], *, partition: str | None = None, timeout: float = 10.0
    ) -> None:
        self._open = open_minter
        self._partition = partition
        self._timeout = timeout
        self._opened: Minter | None = None
        self._parents: Minter | None = None
        self._minted = False
        self._closed = False
        self._lock = threading.Lock()
        self._leases: WeakSet[Lease] = WeakSet()
        forget_in_child(self, TicketClient._forget)

    @classmethod
    def connect(cls, **where: Unpack[Where]) -> Self:
        """A client for the place that the settings name (see ``Where``); nothing is sent before the first mint.

        Raises ``UsageError`` or ``SetupError`` where the settings are none.
        """
        table, settings = client_settings(where, os.environ)
        return cls(
            lambda: open_regions(settings, os.environ, table), partition=settings.partition, timeout=settings.timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self, *, idempotency_key: str | None = None) -> int:
        """Mint one ticket. The same ``idempotency_key`` gives the same ticket again for a day."""
        return self.fetch(1, idempotency_key=idempotency_key).last

    def fetch(self, count: int, *, idempotency_key: str | None = None) -> Block:
        """Mint ``count`` tickets, 1 to 10,000, in one write. The same ``idempotency_key`` gives them again for a day.

        Raises ``NotMintedError`` where nothing was spent and it is safe to call again, ``OutcomeUnknownError``
        where tickets may have been, and the other errors of ``ticketctl.errors`` for what was refused.
        """
        key, is_typed = key_of_call(idempotency_key)
        return self._mint(count, key, is_typed=is_typed)

    def lease(self, block_size: int = 10_000, *, min_block: int = 100, seconds: float = 60.0) -> Lease:
        """Tickets one after another, without end, minted ahead in blocks: see ``Lease``.

        The first block has ``block_size`` tickets; those after it as many as go in ``seconds`` at the speed of
        the one before, at most ``block_size`` and at least ``min_block``.
        """
        lease = Lease(self._mint, block_size=block_size, min_block=min_block, seconds=seconds)
        with self._lock:
            self._leases.add(lease)
        return lease

    def close(self) -> None:
        """Close the leases and the connections."""
        with self._lock:
            self._closed = True
            leases, opened = list(self._leases), self._opened
        for lease in leases:
            lease.close()
        if opened is not None:
            opened.close()

    def _mint(self, count: int, key: str, *, is_typed: bool = False) -> Block:
        deadline, request = Deadline(self._timeout), MintRequest(self._partition, count, key, is_typed)
        if self._minted:
            return self._minter().mint(request, deadline)
        with fork_gate.closed():  # the first mint imports modules, finds the stack and opens connections
            block = self._minter().mint(request, deadline)
        self._minted = True
        return block

    def _minter(self) -> Minter:
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed")
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _forget(self) -> None:
        """In a forked child: keep the parent's connections, unused; to close them would take their locks."""
        self._lock = threading.Lock()
        self._minted = False
        self._parents, self._opened = self._opened or self._parents, None


def open_regions(settings: Settings, environ: Mapping[str, str], table: str | None = None) -> Regions:
    """What mints for a client; it logs what a command prints on stderr.

    A ``table`` is in one region: tables of the same name in others may be of other sequences.
    """
    if table is not None:
        settings = settings.in_region(settings.require_region())
    connect = connect_seconds(settings)
    session = Session(settings, environ=environ, connect=connect, report=_log.info)
    return Regions(RegionalStack(session, table=table), environ=environ, note=_log.info, warn=_log.warning)


def client_settings(where: Where, environ: Mapping[str, str]) -> tuple[str | None, Settings]:
    """The table that was named, if any, and the settings of a command with such flags."""
    flags = dict(where)
    table = flags.pop("table", None)
    if unknown := sorted(flags.keys() - Where.__annotations__.keys()):
        raise UsageError(
            f"unknown settings: {', '.join(unknown)}", hint=f"known are: {', '.join(Where.__annotations__)}"
        )
    if table is not None:
        if not isinstance(table, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", table):
            raise UsageError(f"the table's name {table!r} is not one")
        if flags.get("url") is not None or flags.get("via") not in (None, "dynamodb"):
            raise UsageError("a table is minted from via dynamodb only", hint="leave url and via out")
        flags["via"] = "dynamodb"
    return table, resolve_settings(flags, environ)


def key_of_call(typed: str | None) -> tuple[str, bool]:
    """The key of a call, and whether the caller gave it: else a retry key."""
    return (new_retry_key(), False) if typed is None else (check_typed_key(typed, "an idempotency key"), True)
