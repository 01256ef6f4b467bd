"""An asynchronous lease whose blocks come from a counter in memory."""

import asyncio

from tests.support.memory_counter import Clock, Mint
from ticketctl import AsyncLease
from ticketctl.models import Block


class AsyncMint(Mint):
    """A counter whose answers take one turn of the event loop, or wait for ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on: asyncio.Event | None = None
        self.aclosed = False

    async def later(self, count: int, key: str) -> Block:
        await (asyncio.sleep(0) if self.go_on is None else self.go_on.wait())
        return self(count, key)


def leased(mint: AsyncMint, block_size: int = 16) -> AsyncLease:
    return AsyncLease(mint.later, block_size=block_size, clock=Clock())


async def take(lease: AsyncLease, count: int) -> list[int]:
    return [await anext(lease) for _ in range(count)]
