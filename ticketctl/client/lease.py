"""A lease: an iterator of tickets whose blocks are minted in the background, so that callers rarely wait."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Self

from ticketctl.client.buffer import Buffer, is_final
from ticketctl.client.forks import forget_in_child
from ticketctl.errors import UsageError
from ticketctl.models import Block

Mint = Callable[[int, str], Block]
"""Mints a block of ``count`` tickets: ``(count, key)`` to the block. Must return or raise within a bounded time."""


def in_daemon_thread(work: Callable[[], None]) -> None:
    """Run the work in the background, or now if no thread can start, for example while Python shuts down."""
    try:
        threading.Thread(target=work, name="ticketctl-lease", daemon=True).start()
    except RuntimeError:
        work()


def _raising(error: BaseException) -> Iterator[int]:
    """An iterator that raises the error once and then ends."""
    raise error
    yield 0


class _Fetch:
    """A mint of one block, in the background. ``on_demand``: a caller waits for it because no number was left.

    A ``threading.Event`` is not enough: its lock is not reentrant, so a signal handler could block on a lock
    that the code it interrupted holds. Here every waiter has its own lock.
    """

    def __init__(self, *, on_demand: bool) -> None:
        self.on_demand = on_demand
        self.error: Exception | None = None
        self._done = False
        self._waiters: list[threading.Lock] = []

    def finish(self) -> None:
        """Wake all waiting threads."""
        self._done = True
        while self._waiters:
            self._waiters.pop().release()

    def wait(self) -> None:
        """Return after ``finish``."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if not self._done:  # read after the append: ``finish`` sets it before it looks for waiters
            waiter.acquire()


class Lease:
    """An endless iterator of tickets, taken from blocks that are minted ahead. Threads may share it.

    ``next(lease)`` and all ``for`` loops over it draw from the same numbers: no number comes twice, and a loop
    that ends early leaves the rest to the others.

    The next block is minted in the background while the current one lasts, so callers do not notice an outage
    that ends before both are used up. A longer outage raises its error (see ``ticketctl.errors``) from ``next``
    or the loop; the next call on the same iterator retries. After an error that is not an outage, such as
    ``AccessError``, the lease mints only when a call finds no number left, one block per call. Each failed mint
    raises its error once per waiting caller.

    It mints whole blocks: ``UsageError`` if the stack's ``--max-count`` is below ``block_size``, and
    ``CounterExhaustedError`` if less than a block is left below the counter's ceiling.

    A forked child never hands out its parent's numbers: it mints its own.

    A signal handler may draw from it while numbers are left in memory. If the signal interrupted the lease itself,
    the draw may raise ``UsageError``; if it interrupted a mint, a draw that needs a new block can wait for ever.

    The numbers left on ``close()`` are a gap, fewer than two blocks. The same holds if a program ends without
    ``close()``. A closed lease raises ``UsageError``.
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
        self._lock = threading.RLock()  # reentrant: ``spawn`` may have to do the work itself
        self._fetch: _Fetch | None = None
        self._failed: _Fetch | None = None
        """The last background mint, if its error is final. Nothing is minted until a caller has received the error."""
        self._closed = False
        self._left = 0
        forget_in_child(self, Lease._forget)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._slices())  # a loop takes the numbers of a slice without calling our code

    def _slices(self) -> Iterator[Iterator[int]]:
        numbers = self._buffer.numbers
        while True:
            yield numbers
            try:
                numbers = self._after(numbers)
            except BaseException as error:
                numbers = _raising(error)  # ``chain`` would end for good if this generator raised

    def __next__(self) -> int:
        numbers = self._buffer.numbers
        while True:
            try:
                return next(numbers)
            except StopIteration:
                numbers = self._after(numbers)

    def close(self) -> int:
        """Stop handing out tickets; return how many were minted and never handed out.

        It waits for a mint in progress, which takes no longer than the setting ``timeout``.
        """
        with self._lock_once():
            self._closed = True
            fetch = self._fetch
        if fetch is not None:
            fetch.wait()
        with self._lock_once():
            self._left += self._buffer.drain()
            return self._left

    def _lock_once(self) -> threading.RLock:
        """The lock; raises ``UsageError`` if this is a signal handler that interrupted the thread that holds it."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise UsageError(
                "the lease is in use by the code that this signal handler interrupted",
                hint="draw again later, outside the signal handler",
            )
        return self._lock

    def _after(self, used: Iterator[int]) -> Iterator[int]:
        """The numbers after ``used``, which is used up; waits for a block if there are none."""
        while True:
            with self._lock_once():
                numbers, fetch = self._turn(used)
            if numbers is not None:
                return numbers
            if fetch is None:
                continue
            fetch.wait()
            # If a background mint failed because of an outage, the outage may be over: mint once more.
            if fetch.error is not None and (fetch.on_demand or is_final(fetch.error)):
                self._failed = None
                raise fetch.error

    def _turn(self, used: Iterator[int]) -> tuple[Iterator[int] | None, _Fetch | None]:
        """The numbers after ``used``, or the mint to wait for."""
        if self._closed:
            raise UsageError("the lease is closed")
        if self._buffer.numbers is not used:
            return self._buffer.numbers, None  # another thread has replaced them
        if self._buffer.turn():
            if self._buffer.wants_next and self._fetch is None and self._failed is None:
                self._begin(on_demand=False)
            return self._buffer.numbers, None
        return None, self._failed or self._fetch or self._begin(on_demand=True)

    def _begin(self, *, on_demand: bool) -> _Fetch:
        fetch = _Fetch(on_demand=on_demand)
        work = partial(self._complete, fetch, *self._buffer.wanted())
        try:
            self._fetch = fetch
            self._spawn(work)
        except BaseException:  # such as Ctrl-C: it is unknown whether the work began
            self._fetch = None
            fetch.finish()
            raise
        return fetch

    def _complete(self, fetch: _Fetch, count: int, key: str) -> None:
        block = None
        try:
            block = self._mint(count, key)
        except Exception as error:  # the waiting caller raises it
            fetch.error = error
        finally:
            with self._lock:
                if self._fetch is fetch:  # otherwise it was abandoned, and another mint got the same block by its key
                    self._fetch = None
                    self._failed = fetch if is_final(fetch.error) and not fetch.on_demand else None
                    if block is not None:
                        self._buffer.put(block)
            fetch.finish()

    def _forget(self) -> None:
        """In a forked child: no other thread runs, and the numbers in the buffer belong to the parent."""
        self._lock = threading.RLock()
        self._fetch = self._failed = None
        self._buffer.forget()
