"""The moment at which a command or call must have answered: made once, handed down."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ticketctl.errors import NotMintedError

T = TypeVar("T")


class Deadline:
    """A moment ``seconds`` from now; ``clock`` gives monotonic seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ends = clock() + seconds

    def left(self) -> float:
        """The seconds that are left; 0 once it has passed."""
        return max(0.0, self.ends - self._clock())

    def within(self, seconds: float) -> "Deadline":
        """A deadline ``seconds`` from now, but no later than this one."""
        return Deadline(min(seconds, self.left()), self._clock)

    @contextmanager
    def holding(self, lock: "threading.Lock | threading.RLock") -> Iterator[None]:
        """Hold a lock; ``NotMintedError`` if another thread holds it until the deadline."""
        if not lock.acquire(timeout=self.left()):
            raise NotMintedError("another thread took all of the time; nothing was minted", hint="try again")
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time that is spent inside."""
        begin = self._clock()
        try:
            yield
        finally:
            self.ends += self._clock() - begin


def call_within(deadline: Deadline, work: Callable[[], T]) -> T:
    """Return the result of ``work``, or raise ``TimeoutError`` when the deadline passes first.

    For calls that take no timeout: name resolution, other programs, an SDK. ``work`` runs in a daemon thread, where
    it continues after the deadline; its result is then dropped.
    """
    finished = threading.Event()
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)
        finished.set()

    if deadline.left() <= 0:
        raise TimeoutError("no time is left")
    threading.Thread(target=run, daemon=True).start()
    if not finished.wait(deadline.left()):
        raise TimeoutError("it took too long")
    if errors:
        raise errors[0]
    result: T = results[0]
    return result
