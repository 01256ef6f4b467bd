"""The moment at which a command or call must have answered: made once, handed down."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
    def paused(self) -> Iterator[None]:
        """Do not count the time that is spent inside."""
        begin = self._clock()
        try:
            yield
        finally:
            self.ends += self._clock() - begin
