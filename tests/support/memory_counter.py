"""A counter in memory for the tests of leases and clients: it mints, keeps receipts, and fails on request."""

import threading
from collections.abc import Callable

from ticketctl.deadline import Deadline
from ticketctl.errors import NotMintedError, OutcomeUnknownError
from ticketctl.models import Block, MintRequest

NOT_MINTED = NotMintedError("not minted")
UNKNOWN = OutcomeUnknownError("unknown")


class Mint:
    """Mints; calls are ``(count, key)``. The next calls raise ``failures``, an unknown outcome after minting."""

    def __init__(self) -> None:
        self.last = 0
        self.calls: list[tuple[int, str]] = []
        self.failures: list[Exception] = []
        self.closed = False
        self._receipts: dict[str, Block] = {}
        self._lock = threading.Lock()

    def __call__(self, count: int, key: str) -> Block:
        with self._lock:
            self.calls.append((count, key))
            failure = self.failures.pop(0) if self.failures else None
            if failure is not None and failure is not UNKNOWN:
                raise failure
            if key not in self._receipts:
                first, self.last = self.last + 1, self.last + count
                self._receipts[key] = Block("orders", first=first, last=self.last, count=count, increment=1)
            if failure is not None:
                raise failure
            return self._receipts[key]

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:  # noqa: ARG002
        return self(request.count, request.key)

    def close(self) -> None:
        self.closed = True

    @property
    def sizes(self) -> list[int]:
        return [count for count, _ in self.calls]


class Background:
    """Runs work immediately in the calling thread; while ``paused``, only when ``run`` is called."""

    def __init__(self) -> None:
        self.paused = False
        self.waiting: list[Callable[[], None]] = []
        self.came = threading.Event()

    def __call__(self, work: Callable[[], None]) -> None:
        if self.paused:
            self.waiting.append(work)
            self.came.set()
        else:
            work()

    def run(self) -> None:
        self.paused = False
        for work in self.waiting:
            work()
        self.waiting.clear()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
