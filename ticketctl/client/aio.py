"""The client and the lease with ``await``, for one asyncio event loop."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, Unpack
from weakref import WeakSet

import httpcore

from ticketctl.client.buffer import Buffer, is_final
from ticketctl.client.counters import CreateOptions
from ticketctl.client.forks import forget_in_child, fork_gate
from ticketctl.client.sync import (
    ClientSettings,
    Minter,
    TicketClient,
    key_of_call,
    open_regions,
    resolve_client_settings,
)
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.spread import Spreading
from ticketctl.errors import NotMintedError, OutcomeUnknownError, TicketctlError, UsageError
from ticketctl.minting.async_function_url import AsyncUrlSource, open_pool
from ticketctl.minting.retry import LEAST_SECONDS, Tries, call_with_retries
from ticketctl.minting.source import Source
from ticketctl.models import Block, Counter, MintRequest
from ticketctl.settings import Settings

if TYPE_CHECKING:
    from ticketctl.minting.claim import Writes

T = TypeVar("T")
MAX_THREADS = 32
"""The threads of one client. If more calls are in progress, the others wait."""


class AsyncMinter(Protocol):
    """The minter of an asynchronous client: ``ticketctl.client.sync.Minter`` with ``await``."""

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets, and answer by the deadline."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class _Fetch:
    """A mint of one block in progress. ``on_demand``: it was started because no number was left."""

    task: asyncio.Task[None]

    def __init__(self, *, on_demand: bool) -> None:
        self.on_demand = on_demand
        self.error: Exception | None = None


class AsyncLease:
    """An endless asynchronous iterator of tickets, for ``async for`` or ``await anext(lease)``.

    The tasks of an event loop may share it: no two of them get the same ticket, and if one is cancelled while it
    waits, the others lose nothing. Outages, forks and closing work as in ``ticketctl.Lease``.
    """

    def __init__(
        self,
        mint: Callable[[int, str], Awaitable[Block]],
        *,
        block_size: int = 10_000,
        min_block: int = 100,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mint = mint
        self._buffer = Buffer(block_size=block_size, min_block=min_block, seconds=seconds, clock=clock)
        self._fetch: _Fetch | None = None
        self._failed: _Fetch | None = None
        """The last background mint, if its error is final. Nothing is minted until a caller has received the error."""
        self._closed = False
        self._left = 0
        forget_in_child(self, AsyncLease._forget)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        while True:
            for number in self._buffer.numbers:
                return number
            await self._turn()

    async def close(self) -> int:
        """Stop handing out tickets; return how many were minted and never handed out. Waits for a mint in progress."""
        self._closed = True
        if self._fetch is not None:
            await asyncio.wait({self._fetch.task})
        self._left += self._buffer.drain()
        return self._left

    async def _turn(self) -> None:
        """Continue with the next numbers, or wait for a block; then the caller checks again if numbers are left."""
        if self._closed:
            raise UsageError("the lease is closed")
        if self._buffer.turn():
            if self._buffer.wants_next and self._fetch is None and self._failed is None:
                self._begin(on_demand=False)
            return
        fetch = self._failed or self._fetch or self._begin(on_demand=True)
        await asyncio.wait({fetch.task})  # does not cancel the task if this wait is cancelled
        # If a background mint failed because of an outage, the outage may be over: mint once more.
        if fetch.error is not None and (fetch.on_demand or is_final(fetch.error)):
            self._failed = None
            raise fetch.error

    def _begin(self, *, on_demand: bool) -> _Fetch:
        fetch = self._fetch = _Fetch(on_demand=on_demand)
        fetch.task = asyncio.create_task(self._complete(fetch, *self._buffer.wanted()))
        return fetch

    async def _complete(self, fetch: _Fetch, count: int, key: str) -> None:
        try:
            block = await self._mint(count, key)
        except Exception as error:  # the waiting task raises it
            fetch.error = error
        else:
            if self._fetch is fetch:  # otherwise this is a forked child, and the block belongs to its parent
                self._buffer.put(block)
        finally:
            if self._fetch is fetch:
                self._fetch = None
                self._failed = fetch if is_final(fetch.error) and not fetch.on_demand else None

    def _forget(self) -> None:
        """In a forked child: drop the task and the numbers, which belong to the parent."""
        self._fetch = self._failed = None
        self._buffer.forget()


class AsyncTicketClient:
    """``ticketctl.TicketClient`` with ``await``. It belongs to one event loop, whose tasks may share it.

    Requests to a Function URL are sent on the event loop. Threads mint directly from a table, or from several regions.
    A cancelled call may have spent its tickets: they become a gap. If the client is closed during a call that then
    cannot finish, the call raises ``OutcomeUnknownError``.

    What is not minting (``claim`` and the counters) is done by ``blocking``, a ``TicketClient``, in threads.

    Forks work as with ``TicketClient``, with one exception: do not fork in the thread of the event loop during the
    first mint.
    """

    def __init__(
        self,
        open_minter: Callable[[], AsyncMinter],
        *,
        partition: str | None = None,
        timeout: float = 10.0,
        blocking: TicketClient | None = None,
    ) -> None:
        self._open = open_minter
        self._blocking = blocking
        self._threads: ThreadPoolExecutor | None = None
        self._partition = partition
        self._timeout = timeout
        self._opened: AsyncMinter | None = None
        self._parents: AsyncMinter | None = None
        self._minted = False
        self._closed = False
        self._leases: WeakSet[AsyncLease] = WeakSet()
        forget_in_child(self, AsyncTicketClient._forget)

    @classmethod
    def connect(cls, **given: Unpack[ClientSettings]) -> Self:
        """Make a client from settings, as ``TicketClient.connect`` does."""
        table, settings = resolve_client_settings(given, os.environ)
        return cls(
            lambda: async_minter(settings, os.environ, table),
            partition=settings.partition,
            timeout=settings.timeout,
            blocking=TicketClient.connect(**given),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def next(self, *, partition: str | None = None, idempotency_key: str | None = None) -> int:
        """Mint one ticket; parameters as with ``TicketClient.next``."""
        return (await self.fetch(1, partition=partition, idempotency_key=idempotency_key)).last

    async def fetch(self, count: int, *, partition: str | None = None, idempotency_key: str | None = None) -> Block:
        """Mint ``count`` tickets, 1 to 10,000, in one write; errors as with ``TicketClient.fetch``."""
        key, is_typed = key_of_call(idempotency_key)
        return await self._mint(count, key, is_typed=is_typed, partition=partition)

    def lease(
        self, block_size: int = 10_000, *, min_block: int = 100, seconds: float = 60.0, partition: str | None = None
    ) -> AsyncLease:
        """Return an endless asynchronous iterator of tickets; the parameters are those of ``TicketClient.lease``."""
        mint = partial(self._mint, partition=partition)
        lease = AsyncLease(mint, block_size=block_size, min_block=min_block, seconds=seconds)
        self._leases.add(lease)
        return lease

    async def claim(self, writes: "Writes", *, partition: str | None = None, timeout: float = 30.0) -> int:
        """Take the next number of a gapless counter, as ``TicketClient.claim`` does; a thread calls ``writes``.

        A cancelled claim continues in its thread, and may still take the number.
        """
        return await self._in_thread(TicketClient.claim, writes, partition=partition, timeout=timeout)

    async def counter(self, name: str | None = None) -> Counter:
        """Read a counter, as ``TicketClient.counter`` does."""
        return await self._in_thread(TicketClient.counter, name)

    async def counters(self) -> list[Counter]:
        """Read all counters, in every region, sorted by name."""
        return await self._in_thread(TicketClient.counters)

    async def create_counter(self, name: str, **options: Unpack[CreateOptions]) -> Counter:
        """Create a counter, as ``TicketClient.create_counter`` does."""
        return await self._in_thread(TicketClient.create_counter, name, **options)

    async def close(self) -> None:
        """Close the leases and the connections."""
        self._closed = True
        for lease in list(self._leases):
            await lease.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        if self._blocking is not None:
            self._blocking.close()
        if self._opened is not None:
            await self._opened.close()

    async def _in_thread(self, call: Callable[..., T], *arguments: object, **more: object) -> T:
        """Call a method of the blocking client in a thread."""
        if self._closed:
            raise UsageError("the client is closed")
        if self._blocking is None:
            raise UsageError("this client only mints", hint="make it with AsyncTicketClient.connect")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="ticketctl")
        work = partial(call, self._blocking, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _mint(self, count: int, key: str, *, is_typed: bool = False, partition: str | None = None) -> Block:
        deadline = Deadline(self._timeout)
        if self._closed:
            raise UsageError("the client is closed")
        if self._opened is None:
            self._opened = self._open()
        name = self._partition if partition is None else partition
        request = MintRequest(name, count, key, is_typed)
        try:
            # The first mint imports modules and finds the stack, in threads: do not fork before it ends.
            with nullcontext() if self._minted else fork_gate.closed():
                block = await self._opened.mint(request, deadline)
        except Exception as error:
            if self._is_closed() and not isinstance(error, TicketctlError):
                raise OutcomeUnknownError(
                    f"the client was closed during a mint of {count}: they may have been spent and lost",
                    hint="await the calls in progress before close()",
                ) from error
            raise
        self._minted = True
        return block

    def _is_closed(self) -> bool:
        return self._closed

    def _forget(self) -> None:
        """In a forked child: keep the parent's connections, unused."""
        self._minted = False
        self._threads = None  # of the parent; the blocking client forgets by itself
        self._parents, self._opened = self._opened or self._parents, None


def async_minter(settings: Settings, environ: Mapping[str, str], table: str | None = None) -> AsyncMinter:
    """Open the minter of an asynchronous client."""
    regions = open_regions(settings, environ, table)
    is_url = settings.via == "url" and len(regions.names) < 2
    return UrlMinter(regions.home) if is_url else ThreadMinter(regions)


class ThreadMinter:
    """Mints as a synchronous client does, each call in a thread of a pool."""

    def __init__(self, minter: Minter) -> None:
        self._minter = minter
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="ticketctl")

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._minter.mint, request, deadline)

    async def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False)
        self._minter.close()


class _ThreadSource:
    """A source whose calls run in threads."""

    def __init__(self, source: Source, threads: ThreadPoolExecutor) -> None:
        self._source = source
        self._threads = threads

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._source.mint, request, deadline)


class UrlMinter:
    """Mints through the Function URL of one stack; threads of a pool look up the URL and sign requests.

    If the stack is table-only, the threads mint from its table.
    """

    def __init__(self, stack: RegionalStack) -> None:
        self._stack = stack
        self._source: tuple[AsyncUrlSource | _ThreadSource, int] | None = None
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._finding = asyncio.Lock()
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="ticketctl")

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets, with retries."""
        return await call_with_retries(
            lambda deadline: self._attempt(request, deadline), self._stack.place, Tries(deadline), sleep=asyncio.sleep
        )

    async def _attempt(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets in one attempt, as ``RegionalStack.attempt`` does."""
        source, generation = await self._find(deadline)
        try:
            block = await self._mint_with(source, request, deadline)
        except TicketctlError as error:
            if not await self._refreshed(error, generation, deadline) or deadline.left() < LEAST_SECONDS:
                raise
            source, generation = await self._find(deadline)
            block = await source.mint(request, deadline)
        self._stack.locator.mark_working(generation)
        return replace(block, region=self._stack.named_region)

    async def _mint_with(
        self, source: "AsyncUrlSource | _ThreadSource", request: MintRequest, deadline: Deadline
    ) -> Block:
        """Take tickets; if the stack was just deployed, a refusal is retried for a few seconds."""
        spreading = Spreading(self._stack.locator, deadline)
        while True:
            try:
                return await source.mint(request, deadline)
            except TicketctlError as error:
                if (pause := spreading.pause_after(error)) is None:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections."""
        for pool in list(self._pools.values()):
            await pool.aclose()
        self._threads.shutdown(wait=False)
        self._stack.close()

    async def _find(self, deadline: Deadline) -> "tuple[AsyncUrlSource | _ThreadSource, int]":
        """The source, and the generation of the stack that it was opened with."""
        async with self._holding(deadline):
            if self._source is None or self._source[1] != self._stack.locator.generation:
                self._source = await self._in_thread(self._open, deadline)
            return self._source

    def _open(self, deadline: Deadline) -> "tuple[AsyncUrlSource | _ThreadSource, int]":
        if self._stack.mints_from_table(deadline):
            table, generation = self._stack.table_source(deadline)
            return _ThreadSource(table, self._threads), generation
        url, generation = self._stack.function_url(deadline)
        if url.url not in self._pools:
            self._pools[url.url] = open_pool(url.url, direct=self._stack.settings.local)
        return AsyncUrlSource(url, self._threads, self._pools[url.url]), generation

    async def _refreshed(self, error: TicketctlError, generation: int, deadline: Deadline) -> bool:
        return await self._in_thread(self._stack.locator.refresh_after, error, generation, deadline)

    @asynccontextmanager
    async def _holding(self, deadline: Deadline) -> AsyncIterator[None]:
        """Hold the lock, as ``Session.holding`` does."""
        try:
            async with asyncio.timeout(None if self._stack.settings.local else deadline.left()):
                await self._finding.acquire()
        except TimeoutError:
            raise NotMintedError("another task took all of the time; nothing was minted", hint="try again") from None
        try:
            yield
        finally:
            self._finding.release()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
