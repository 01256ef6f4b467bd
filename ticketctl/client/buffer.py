"""The buffer of a lease: the current block, the block after it, and the size of the next block to mint."""

import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from ticketctl.errors import NotMintedError, OutcomeUnknownError, UsageError
from ticketctl.minting.source import new_retry_key
from ticketctl.models import Block

MAX_BLOCK = 10_000
SLICES = 8
"""A block is handed out in this many slices. Between two slices the lease checks if it must mint the next block."""


def is_final(error: Exception | None) -> bool:
    """Whether a mint failed in a way that a retry alone does not fix, such as a missing permission."""
    return error is not None and not isinstance(error, NotMintedError | OutcomeUnknownError)


class Wanted(NamedTuple):
    """A block to be minted. Its key is the same until the block arrives, so that a lost answer loses no number."""

    tickets: int
    key: str


class LockedIterator:
    """A thread-safe iterator, for a Python without the GIL."""

    def __init__(self, numbers: range) -> None:
        self._numbers = iter(numbers)
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)

    def unlock(self) -> None:
        """Release the lock, in a child that was forked while a thread of the parent held it."""
        self._lock = threading.Lock()


_shared: Callable[[range], Iterator[int]] = LockedIterator if sysconfig.get_config_var("Py_GIL_DISABLED") else iter
"""With the GIL a range's own iterator is thread-safe: its ``__next__`` is one uninterrupted call into C."""


class Buffer:
    """The numbers of one lease. Threads may iterate over ``numbers`` at the same time; everything else needs a lock.

    A signal handler may raise between any two lines. So numbers are always removed from one attribute before they are
    stored in another: they may be lost, but are never handed out twice.

    The first block has ``block_size`` tickets. A later block has as many tickets as ``seconds`` will use at the rate
    of the block before it: at least ``min_block``, at most ``block_size``.
    """

    def __init__(
        self, *, block_size: int, min_block: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 1 <= block_size <= MAX_BLOCK:
            raise UsageError(f"block_size is {block_size!r}", hint=f"use 1 to {MAX_BLOCK}")
        if not min_block >= 1:
            raise UsageError(f"min_block is {min_block!r}", hint="use 1 or more")
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds!r}", hint="use more than 0")
        self._largest = block_size
        self._smallest = min(min_block, block_size)
        self._seconds = seconds
        self._clock = clock
        self._empty()

    def _empty(self) -> None:
        self.numbers: Iterator[int] = iter(())
        self._rest = range(0)
        self._count = 0
        self._used = 0
        self._begun = 0.0
        self._next: Block | None = None
        self._wanted: Wanted | None = None

    def turn(self) -> bool:
        """Replace ``numbers``, which is used up, with the next slice; return False if there is none."""
        self._used = self._count - len(self._rest)
        if not self._rest:
            if self._next is None:
                return False
            block, self._next = self._next, None
            self._count, self._used, self._begun = block.count, 0, self._clock()
            self._rest = block.tickets
        size = -(-self._count // SLICES)
        taken, self._rest = self._rest[:size], self._rest[size:]
        self.numbers = _shared(taken)
        return True

    @property
    def wants_next(self) -> bool:
        """Whether it is time to mint the next block: a slice of the current one is used up."""
        return self._next is None and self._used > 0

    def wanted(self) -> Wanted:
        """The block to mint next; the same one until it arrives."""
        if self._wanted is None:
            self._wanted = Wanted(self._size(), new_retry_key())
        return self._wanted

    def put(self, block: Block) -> None:
        """Store the block that was wanted."""
        self._wanted = None  # its key would return the same block again
        self._next = block

    def drain(self) -> int:
        """Remove all numbers; return how many there were."""
        numbers, rest, block = self.numbers, self._rest, self._next
        self._empty()
        return sum(1 for _ in numbers) + len(rest) + (block.count if block else 0)

    def forget(self) -> None:
        """Remove all numbers in a forked child: they belong to its parent."""
        if isinstance(self.numbers, LockedIterator):
            self.numbers.unlock()
        self.drain()

    def _size(self) -> int:
        elapsed = self._clock() - self._begun
        if self._used == 0 or elapsed <= 0:  # the first block, or one used up too fast to measure
            return self._largest
        return max(self._smallest, int(min(self._largest, self._used * self._seconds / elapsed)))
