"""The client for Python programs, and the minter that its settings select."""

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypedDict, Unpack
from weakref import WeakSet

from ticketctl.client.counters import CreateOptions, create_counter, read_counter, read_counters
from ticketctl.client.forks import forget_in_child, fork_gate
from ticketctl.client.lease import Lease
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions, connect_seconds, resolve_settings
from ticketctl.deployments.session import Session
from ticketctl.errors import UsageError
from ticketctl.minting.source import check_typed_key, new_retry_key
from ticketctl.models import Block, Counter, MintRequest
from ticketctl.settings import TABLE, Settings

if TYPE_CHECKING:
    from ticketctl.minting.claim import Writes

_log = logging.getLogger("ticketctl")


class ClientSettings(TypedDict, total=False):
    """The settings of a client: those of the command line, with the same names, and ``table``.

    A setting that is not given comes from ``TICKETCTL_*``, else ``AWS_*``, else the configuration file, else the
    default. ``timeout`` is in seconds, for one mint with all its retries. With several regions, the first one that
    answers mints.

    ``table`` mints directly from the DynamoDB table of that name, even if it belongs to no stack. CloudFormation is
    not called, so the lane of a new counter is unknown: the counter must exist.
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
    """The minter of a client. It retries if that is safe, and raises the errors of ``ticketctl.errors``.

    Threads may share it.
    """

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets, and answer by the deadline."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class TicketClient:
    """Mints tickets for a program: one, a block, or a lease. Threads and forked children may share it.

    A fork waits, at most 30 seconds, while another thread makes the client's first mint: otherwise the child would
    have copies of locks that are never released. Do not call the client from a signal handler: it may wait for the
    code that it interrupted. A lease may be called from one.

    ``open_minter`` is called at the first mint, and again in each forked child, which never uses its parent's
    connections. ``TicketClient.connect`` makes a client from settings.
    """

    def __init__(
        self, open_minter: Callable[[], Minter], *, partition: str | None = None, timeout: float = 10.0
    ) -> None:
        self._open = open_minter
        self._partition = partition
        self._timeout = timeout
        self._opened: Minter | None = None
        self._parents: Minter | None = None
        self._minted = self._claimed = False
        self._closed = False
        self._lock = threading.Lock()
        self._leases: WeakSet[Lease] = WeakSet()
        forget_in_child(self, TicketClient._forget)

    @classmethod
    def connect(cls, **given: Unpack[ClientSettings]) -> Self:
        """Make a client from settings (see ``ClientSettings``); nothing is sent before the first mint.

        Raises ``UsageError`` or ``SetupError`` if the settings are invalid.
        """
        table, settings = resolve_client_settings(given, os.environ)
        return cls(
            lambda: open_regions(settings, os.environ, table), partition=settings.partition, timeout=settings.timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self, *, partition: str | None = None, idempotency_key: str | None = None) -> int:
        """Mint one ticket. The same ``idempotency_key`` gives the same ticket again for a day.

        ``partition`` is the counter's name; the default is that of the client.
        """
        return self.fetch(1, partition=partition, idempotency_key=idempotency_key).last

    def fetch(self, count: int, *, partition: str | None = None, idempotency_key: str | None = None) -> Block:
        """Mint ``count`` tickets, 1 to 10,000, in one write. The same ``idempotency_key`` gives them again for a day.

        Raises ``NotMintedError`` if no ticket was spent and it is safe to call again, ``OutcomeUnknownError`` if
        tickets may have been spent, and the other errors of ``ticketctl.errors`` if the request was refused.
        """
        key, is_typed = key_of_call(idempotency_key)
        return self._mint(count, key, is_typed=is_typed, partition=partition)

    def lease(
        self, block_size: int = 10_000, *, min_block: int = 100, seconds: float = 60.0, partition: str | None = None
    ) -> Lease:
        """Return an endless iterator of tickets, which are minted ahead in blocks: see ``Lease``.

        The first block has ``block_size`` tickets. A later block has as many tickets as ``seconds`` will use at the
        rate of the block before it: at least ``min_block``, at most ``block_size``.
        """
        mint = partial(self._mint, partition=partition)
        lease = Lease(mint, block_size=block_size, min_block=min_block, seconds=seconds)
        with self._lock:
            self._leases.add(lease)
        return lease

    def claim(self, writes: "Writes", *, partition: str | None = None, timeout: float = 30.0) -> int:
        """Take the next number of a gapless counter, in one DynamoDB transaction with the records that carry it.

        ``writes(number)`` returns the ``TransactItems`` that contain the number: 1 to 99 dictionaries, at least one
        with a condition. It is called again with another number if another caller was faster, so it must only build
        them. Claims of one counter wait for each other. ``timeout`` is in seconds, at most 300.

        Raises ``ClaimRefusedError`` if a condition of the caller's own writes does not hold (nothing was written),
        ``OutcomeUnknownError`` with the ``number`` that may have been taken, ``NotMintedError`` if none was, and the
        other errors of ``ticketctl.errors`` if the counter refused.
        """
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise UsageError(f"invalid timeout {timeout!r}: use a number of seconds above 0")
        deadline, regions = Deadline(timeout), self._regions()
        named = self._partition if partition is None else partition
        name = regions.home.region if named is None else named
        if self._claimed:
            return regions.home.claims.claim(name, writes, deadline)
        with fork_gate.closed():
            number = regions.home.claims.claim(name, writes, deadline)
        self._claimed = True
        return number

    def counter(self, name: str | None = None) -> Counter:
        """Read a counter; the default is that of the client. With several regions, read it in the first."""
        with fork_gate.closed():
            return read_counter(self._regions(), self._partition if name is None else name, Deadline(self._timeout))

    def counters(self) -> list[Counter]:
        """Read all counters, in every region, sorted by name."""
        with fork_gate.closed():
            return read_counters(self._regions())

    def create_counter(self, name: str, **options: Unpack[CreateOptions]) -> Counter:
        """Create a counter as ``ticketctl counter create`` does. One that exists with these options is not changed."""
        with fork_gate.closed():
            return create_counter(self._regions(), name, options)

    def close(self) -> None:
        """Close the leases and the connections."""
        with self._lock:
            self._closed = True
            leases, opened = list(self._leases), self._opened
        for lease in leases:
            lease.close()
        if opened is not None:
            opened.close()

    def _mint(self, count: int, key: str, *, is_typed: bool = False, partition: str | None = None) -> Block:
        name = self._partition if partition is None else partition
        deadline, request = Deadline(self._timeout), MintRequest(name, count, key, is_typed)
        if self._minted:
            return self._minter().mint(request, deadline)
        with fork_gate.closed():  # the first mint imports modules, finds the stack and opens connections
            block = self._minter().mint(request, deadline)
        self._minted = True
        return block

    def _regions(self) -> Regions:
        minter = self._minter()
        if not isinstance(minter, Regions):
            raise UsageError("this client only mints", hint="make it with TicketClient.connect")
        return minter

    def _minter(self) -> Minter:
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed")
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _forget(self) -> None:
        """In a forked child: keep the parent's connections, unused; closing them would need their locks."""
        self._lock = threading.Lock()
        self._minted = self._claimed = False
        self._parents, self._opened = self._opened or self._parents, None


def open_regions(settings: Settings, environ: Mapping[str, str], table: str | None = None) -> Regions:
    """Open the minter of a client; it logs the messages that a command prints on stderr.

    A ``table`` is in one region: tables of the same name in other regions may belong to other sequences.
    """
    if table is not None:
        settings = settings.in_region(settings.require_region())
    connect = connect_seconds(settings)
    session = Session(settings, environ=environ, connect=connect, report=_log.info)
    return Regions(RegionalStack(session, table=table), environ=environ, note=_log.info, warn=_log.warning)


def resolve_client_settings(given: ClientSettings, environ: Mapping[str, str]) -> tuple[str | None, Settings]:
    """The table that was named, if any, and the settings of a command with the same options."""
    flags = dict(given)
    table = flags.pop("table", None)
    known = ClientSettings.__annotations__
    if unknown := sorted(flags.keys() - known.keys()):
        raise UsageError(f"unknown settings: {', '.join(unknown)}", hint=f"use: {', '.join(known)}")
    if table is not None:
        if not isinstance(table, str) or not re.fullmatch(TABLE, table):
            raise UsageError(f"invalid table name {table!r}")
        if flags.get("url") is not None or flags.get("via") not in (None, "dynamodb"):
            raise UsageError("'table' mints via dynamodb only", hint="do not set url or via")
        flags["via"] = "dynamodb"
    return table, resolve_settings(flags, environ)


def key_of_call(typed: str | None) -> tuple[str, bool]:
    """The key of a call, and whether the caller gave it. If not, it is a random retry key."""
    return (new_retry_key(), False) if typed is None else (check_typed_key(typed, "an idempotency key"), True)
