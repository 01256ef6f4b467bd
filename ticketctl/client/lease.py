"""A lease: tickets one after another at the speed of the interpreter, their blocks minted in the background."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Self

from ticketctl.client.buffer import Buffer
from ticketctl.client.forks import forget_in_child
from ticketctl.errors import UsageError
from ticketctl.models import Block

Mint = Callable[[int, str], Block]
"""``(count, key)`` to a block of so many tickets; ends within a bounded time."""


def in_daemon_thread(work: Callable[[], None]) -> None:
    """Run it in the background; where there is no thread to be had, as while Python shuts down, run it now."""
    try:
        threading.Thread(target=work, name="ticketctl-lease", daemon=True).start()
    except RuntimeError:
        work()


class _Fetch:
    """A block under way. ``on_demand``: it was begun when no number was left."""

    def __init__(self, *, on_demand: bool) -> None:
        self.on_demand = on_demand
        self.error: Exception | None = None
        self.done = threading.Event()


class Lease:
    """Tickets one after another, without end, from leased blocks. Threads may share it.

    ``next(lease)`` and any number of ``for`` loops over it draw from the same numbers: no two of them get the
    same one, and a loop that is left leaves the rest to the others. The iterator that ``iter(lease)`` gives
    belongs to one thread; the lease itself to all of them.

    The next block is minted in the background while the current one lasts, so an outage that is over before
    both are used up goes unnoticed. One that lasts longer raises its error (see ``ticketctl.errors``) from
    ``next`` or the loop, and the next call tries again.

    It mints whole blocks: ``UsageError`` where the stack's ``--max-count`` is below ``block_size``, and
    ``CounterExhaustedError`` where less than a block is left below the counter's ceiling.

    A child that is forked never hands out its parent's numbers: it mints its own.

    What is left on ``close()`` is a gap, less than two blocks. So is what is left when a program ends
    without it. Once closed, the lease raises ``UsageError``.
    """

    def __init__(
        self,
        mint: Mint,
        *,
        block_size: int = 10_000,
        min_block: int = 100,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        spawn: Callable[[Callable[[], None]], None] = in_daemon_thread,
    ) -> None:
        self._mint = mint
        self._spawn = spawn
        self._buffer = Buffer(block_size=block_size, min_block=min_block, seconds=seconds, clock=clock)
        self._lock = threading.RLock()  # one that its holder may take again: ``spawn`` may have to do the work itself
        self._fetch: _Fetch | None = None
        self._closed = False
        self._left = 0
        forget_in_child(self, Lease._forget)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._slices())

    def __next__(self) -> int:
        numbers = self._buffer.numbers
        while True:
            try:
                return next(numbers)
            except StopIteration:
                numbers = self._after(numbers)

    def close(self) -> int:
        """Hand out no more; how many tickets were minted and never handed out.

        It waits for a block that is under way, which takes no longer than a mint may (the setting ``timeout``).
        """
        with self._lock:
            self._closed = True
            fetch = self._fetch
        if fetch is not None:
            fetch.done.wait()
        with self._lock:
            self._left += self._buffer.drain()
            return self._left

    def _slices(self) -> Iterator[Iterator[int]]:
        numbers = self._buffer.numbers
        while True:
            yield numbers
            numbers = self._after(numbers)

    def _after(self, used: Iterator[int]) -> Iterator[int]:
        """The numbers after those, which are used up; waits for a block where there are none."""
        while True:
            with self._lock:
                if self._closed:
                    raise UsageError("the lease is closed")
                if self._buffer.numbers is not used:
                    return self._buffer.numbers  # another thread was here
                if self._buffer.turn():
                    if self._buffer.wants_next and self._fetch is None:
                        self._begin(on_demand=False)
                    return self._buffer.numbers
                fetch = self._fetch or self._begin(on_demand=True)
            fetch.done.wait()
            # A fetch that was begun earlier may have met an outage that is over: then one more is made.
            if fetch.error is not None and fetch.on_demand:
                raise fetch.error

    def _begin(self, *, on_demand: bool) -> _Fetch:
        fetch = _Fetch(on_demand=on_demand)
        work = partial(self._complete, fetch, *self._buffer.wanted())
        try:
            self._fetch = fetch
            self._spawn(work)
        except BaseException:  # a Ctrl-C, say: nobody knows whether the work was begun
            self._fetch = None
            fetch.done.set()
            raise
        return fetch

    def _complete(self, fetch: _Fetch, count: int, key: str) -> None:
        block = None
        try:
            block = self._mint(count, key)
        except Exception as error:  # it belongs to whoever waits
            fetch.error = error
        finally:
            with self._lock:
                if self._fetch is fetch:  # else it was given up, and another got the same block by its key
                    self._fetch = None
                    if block is not None:
                        self._buffer.put(block)
            fetch.done.set()

    def _forget(self) -> None:
        """In a forked child: there is no thread but this one, and what is in the buffer is the parent's."""
        self._lock = threading.RLock()
        self._fetch = None
        self._buffer.forget()
