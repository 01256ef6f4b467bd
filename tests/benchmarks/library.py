"""A lease compared with other unique numbers within a process: ``range``, ``uuid4``, Snowflake generators.

Every ticket is minted by the embedded AWS. Only taking numbers from blocks in memory is timed: a block of 10,000 lasts
half a millisecond, less than any network needs for the next one, so with the mints a row would show the network. Each
figure is the median of runs that alternate with those of the alternative.

A Snowflake generator has 4,096 numbers per millisecond and then waits for the next one; it is timed over many
milliseconds. Within one millisecond, a compiled generator takes as long as any call from Python, and so does a lease.
"""

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median
from timeit import Timer

from tests.benchmarks.table import Row
from ticketctl.client.lease import Lease
from ticketctl.client.sync import TicketClient, open_regions, resolve_client_settings
from ticketctl.embedded.engine import LocalAws
from ticketctl.models import Block

RUNS = 31
BLOCK = 10_000
SLICE = BLOCK // 8
TIMED = 8_000
"""Tickets per run: they come from one block, whose first slice is used and whose next block is in memory."""
IN_A_ROW = 50_000
"""Numbers per run of a Snowflake generator."""
THREADS = 8
SNOWFLAKES: dict[str, Callable[[], Callable[[], object]]] = {
    "kitx-snowflake": lambda: import_module("kitx_snowflake").fn_snowflake,
    "snowflake-id": lambda: import_module("snowflake").SnowflakeGenerator(1).__next__,
}


def rows() -> Iterator[Row]:
    """Measure a ``for`` loop, then ``next``, then threads."""
    with tempfile.TemporaryDirectory() as home:
        environ = {"PATH": os.environ["PATH"], "TICKETCTL_HOME": home}
        _, settings = resolve_client_settings({"local": True, "timeout": 60}, environ)
        with TicketClient(lambda: open_regions(settings, environ), timeout=60) as tickets:
            try:
                yield from _rows(Stock(tickets))
            finally:
                LocalAws(Path(home) / "local", environ=environ).stop()


class Stock:
    """A lease, and the numbers of tickets that were minted for it and taken from it."""

    def __init__(self, tickets: TicketClient) -> None:
        self._tickets = tickets
        self._minted = 0
        self._taken = 0
        self.lease = Lease(self._mint, block_size=BLOCK)

    def _mint(self, count: int, key: str) -> Block:  # noqa: ARG002 - each fetch makes a key of its own
        block = self._tickets.fetch(count)
        self._minted += count
        return block

    def fill(self) -> None:
        """Advance to a point at which the next ``TIMED`` tickets are in memory and nothing is being minted."""
        self._take((-self._taken) % BLOCK + SLICE + 1)
        while self._minted - self._taken < BLOCK + TIMED:
            time.sleep(0.001)
        time.sleep(0.005)  # until the minting thread has ended

    def timed(self, run: Callable[[], float]) -> float:
        """Return the nanoseconds per ticket of a run that takes ``TIMED`` tickets."""
        self.fill()
        seconds = run()
        self._taken += TIMED
        return seconds / TIMED * 1e9

    def _take(self, count: int) -> None:
        for _ in islice(self.lease, count):
            pass
        self._taken += count


def _rows(stock: Stock) -> Iterator[Row]:
    lease = stock.lease
    ours, theirs = _alternating(
        lambda: stock.timed(lambda: _seconds(lambda: _loop_over_lease(lease))),
        lambda: _seconds(_loop_over_range) / TIMED * 1e9,
    )
    yield Row("for n in lease / for n in range(...)", ours, theirs, "ns", 2.0)

    draw = Timer("next(lease)", globals={"lease": lease})
    ours, theirs = _alternating(lambda: stock.timed(lambda: draw.timeit(TIMED)), lambda: _each(uuid.uuid4, TIMED))
    yield Row("next(lease) / uuid.uuid4()", ours, theirs, "ns", 0.1)

    name, generate = _fastest_snowflake()
    ours, theirs = _alternating(lambda: stock.timed(lambda: draw.timeit(TIMED)), lambda: _each(generate, IN_A_ROW))
    yield Row(f"next(lease) / {name}, {IN_A_ROW:,} in a row", ours, theirs, "ns", 1 / 3)

    ours, theirs = _alternating(
        lambda: stock.timed(lambda: _in_threads(lambda: draw.timeit(TIMED // THREADS))),
        lambda: _in_threads(lambda: Timer(uuid.uuid4).timeit(TIMED // THREADS)) / TIMED * 1e9,
    )
    yield Row(f"next(lease) / uuid.uuid4(), {THREADS} threads", ours, theirs, "ns", 0.1)


def _alternating(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    pairs = [(ours(), theirs()) for _ in range(RUNS)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _seconds(run: Callable[[], None]) -> float:
    return Timer(run).timeit(1)


def _each(generate: Callable[[], object], calls: int) -> float:
    """Return the nanoseconds per call."""
    return Timer("generate()", globals={"generate": generate}).timeit(calls) / calls * 1e9


def _loop_over_lease(lease: Lease) -> None:
    for _ in islice(lease, TIMED):
        pass


def _loop_over_range() -> None:
    for _ in range(10**6, 10**6 + TIMED):
        pass


def _in_threads(work: Callable[[], object]) -> float:
    """Return the seconds from the start of all threads until all have finished."""
    begin, end = threading.Barrier(THREADS + 1), threading.Barrier(THREADS + 1)

    def run() -> None:
        begin.wait()
        work()
        end.wait()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    begin.wait()
    started = time.perf_counter()
    end.wait()
    seconds = time.perf_counter() - started
    for thread in threads:
        thread.join()
    return seconds


def _fastest_snowflake() -> tuple[str, Callable[[], object]]:
    """Return the fastest installed Snowflake generator, and a function that returns a number from it."""
    found = {}
    for name, load in SNOWFLAKES.items():
        try:
            found[name] = load()
        except ImportError:
            continue
    if not found:
        return "Snowflake: NOT INSTALLED", lambda: None
    name = min(found, key=lambda name: min(_each(found[name], IN_A_ROW) for _ in range(3)))
    return name, found[name]
