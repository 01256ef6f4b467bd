"""The tables of ``docs/scale.md``: ``python -m tests.benchmarks.scale`` prints them exactly as in the page.

The first table is simulated: requests for tickets are a Poisson process at the peak of the day, and an item with a
limited number of writes per second accepts or throttles each write. Programs lease with the library's own ``Buffer``,
and throttled writes are retried with the pauses of ``ticketctl.minting.retry``. Regions are independent, and a Poisson
process that is split among them is one in each (the splitting theorem), so a single region is simulated. The second
table is calculated from AWS's prices. Nothing is measured here.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from itertools import count, islice
from operator import length_hint
from random import Random

from ticketctl.client.buffer import SLICES, Buffer
from ticketctl.deadline import Deadline
from ticketctl.errors import NotMintedError, ThrottledError
from ticketctl.minting.retry import Tries
from ticketctl.models import Block

DAY = 86_400
MONTH = 30
YEAR = 365.25
MAX_TICKET = 2**53 - 1
PEAK = 5
"""Tickets per second at the peak, as a multiple of the day's average."""

WRITES = 1_000
"""Writes per second that one item accepts (DynamoDB, "Best practices for designing and using partition keys")."""
DEPTH = 100
"""Writes that the item accepts in a burst after a pause: those of a tenth of a second. AWS promises none."""
ANSWER = 0.02
"""Seconds from a write to its answer: an assumption, not a figure from AWS."""
TIMEOUT = 10.0
"""Seconds after which a mint that is always throttled fails: the default of ``--timeout``."""

MIN_BLOCK = 100
LEASE_SECONDS = 60.0
"""The defaults of ``TicketClient.lease``; its default block is the largest block of the plans that lease."""

WRITE_PRICE = 0.625e-6
INVOCATION_PRICE = 0.20e-6
GB_SECOND_PRICE = 0.0000133334
MEMORY_GB = 0.25
INVOCATION_SECONDS = 0.010
"""What ``docs/performance.md`` assumes for an invocation; it calls DynamoDB once, with a retry key and without."""

Task = Generator[float, None, None]
"""A task of the simulation; it yields the seconds for which it waits."""


@dataclass(frozen=True)
class Plan:
    """How the tickets of a day are minted: in blocks of at most ``block``, from ``processes`` in all regions.

    If each ticket is a separate write, the number of processes does not matter.
    """

    tickets: int
    block: int = 1
    regions: int = 1
    processes: int = 0

    @property
    def peak(self) -> float:
        """Tickets per second in each region at the peak."""
        return self.tickets / DAY * PEAK / self.regions

    @property
    def each_process(self) -> float:
        """Tickets per second in each process, averaged over the day."""
        return self.tickets / DAY / self.processes

    def block_at(self, rate: float) -> float:
        """The size of a block if a process needs ``rate`` tickets per second; see ``Lease``."""
        if self.block == 1:
            return 1
        return max(min(MIN_BLOCK, self.block), min(self.block, rate * LEASE_SECONDS))

    @property
    def peak_writes(self) -> float:
        """Writes per second on each item at the peak."""
        return self.peak / (self.block_at(self.each_process * PEAK) if self.processes else 1)

    @property
    def calls(self) -> float:
        """Mints per day, at the average rate."""
        return self.tickets / (self.block_at(self.each_process) if self.processes else 1)


PLANS = (
    Plan(10**3),
    Plan(10**4),
    Plan(10**5),
    Plan(10**6),
    Plan(10**7),
    Plan(10**8),
    Plan(10**8, regions=4),
    Plan(10**8, regions=8),
    Plan(10**9, regions=32),
    Plan(10**7, 100, processes=8),
    Plan(10**8, 100, processes=16),
    Plan(10**9, 100, processes=64),
    Plan(10**9, 100, regions=2, processes=64),
    Plan(10**6, 10_000, processes=4),
    Plan(10**7, 10_000, processes=8),
    Plan(10**8, 10_000, processes=16),
    Plan(10**9, 10_000, processes=64),
    Plan(10**9, 10_000, regions=4, processes=64),
)


@dataclass(frozen=True)
class Load:
    """The load on the item of one region at the peak.

    ``busiest`` is the largest number of requests in one second, including retries; ``throttled`` the share of them that
    was throttled; ``given_up`` the share of mints that ended without a ticket; ``wait`` the seconds that 99 of 100
    tickets do not exceed; ``size`` the mean block; ``left`` the tickets that the region's processes hold when they end.
    """

    busiest: int
    throttled: float
    given_up: float
    wait: float
    size: float
    left: int

    @property
    def carried(self) -> bool:
        """True if the item can serve the load: every mint succeeds, and almost none is throttled at first."""
        return self.given_up == 0 and self.throttled < 0.01


# --- the simulation ------------------------------------------------------------------------------------


class Item:
    """The item of a counter as a token bucket: it accepts ``rate`` writes per second and throttles the others."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._depth = DEPTH * rate / WRITES
        self._tokens = self._depth
        self._at = 0.0
        self._last = 0
        self.refused = 0
        self.blocks = 0
        self.asked: dict[int, int] = {}

    def write(self, now: float, tickets: int) -> Block | None:
        """Take tickets in one write; return ``None`` if it is throttled."""
        self.asked[int(now)] = self.asked.get(int(now), 0) + 1
        self._tokens = min(self._depth, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            self.refused += 1
            return None
        self._tokens -= 1
        self.blocks += 1
        first, self._last = self._last + 1, self._last + tickets
        return Block("simulated", first=first, last=self._last, count=tickets, increment=1)


@dataclass
class World:
    """The item, the time in seconds, the waiting tasks, and the results of the requested tickets."""

    item: Item
    dice: Random
    now: float = 0.0
    tickets: int = 0
    given_up: int = 0
    waits: list[float] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)
    _waiting: list[tuple[float, int, Task]] = field(default_factory=list)

    def clock(self) -> float:
        """Return the time, for code that needs a clock."""
        return self.now

    def begin(self, task: Task, at: float) -> None:
        """Start a task at a given time."""
        heappush(self._waiting, (at, next(self._order), task))

    def run(self) -> None:
        """Advance from event to event until no task is waiting."""
        waiting = self._waiting
        while waiting:
            self.now, _, task = waiting[0]
            pause = next(task, None)
            # Tasks that were started at this moment follow, because their order is higher.
            if pause is None:
                heappop(waiting)
            else:
                heapreplace(waiting, (self.now + pause, next(self._order), task))


def mint(world: World, tickets: int) -> Generator[float, None, Block | None]:
    """Mint once, with the retries of ``ticketctl.minting.retry``; a throttled write is answered immediately."""
    tries = Tries(Deadline(TIMEOUT, world.clock), jitter=world.dice.uniform)
    while (block := world.item.write(world.now, tickets)) is None:
        tries.failed(ThrottledError("throttled"), "the region")
        try:
            pause = tries.pause()
        except NotMintedError:
            world.given_up += 1
            return None
        yield pause
    yield ANSWER
    return block


def one_by_one(world: World) -> Task:
    """Request and mint a single ticket."""
    asked = world.now
    if (yield from mint(world, 1)) is not None:
        world.tickets += 1
        world.waits.append(world.now - asked)


@dataclass
class Process:
    """A program with a lease: its numbers in memory, and whether a block is being minted."""

    buffer: Buffer
    fetching: bool = False


def fetch(world: World, process: Process) -> Task:
    """Mint the block that the process needs."""
    process.fetching = True
    block = yield from mint(world, process.buffer.wanted().tickets)
    if block is not None:
        process.buffer.put(block)
    process.fetching = False


def leasing(world: World, process: Process, rate: float, until: float) -> Task:
    """Take ``rate`` tickets per second, as ``Lease`` hands them out; while it waits, the program requests none.

    A slice of n tickets takes as long as n arrivals of a Poisson process, which is gamma-distributed.
    """
    buffer = process.buffer
    while True:
        asked = world.now
        while not buffer.turn():
            if process.fetching:
                yield ANSWER  # checks again, often enough for a figure in milliseconds
            else:
                yield from fetch(world, process)
        if world.now > asked:
            world.waits.append(world.now - asked)
        if buffer.wants_next and not process.fetching:
            world.begin(fetch(world, process), world.now)
        size = length_hint(buffer.numbers)
        seconds = world.dice.gammavariate(size, 1 / rate)
        if world.now + seconds > until:
            drawn = max(0, int(size * (until - world.now) / seconds))
            world.tickets += len(list(islice(buffer.numbers, drawn)))
            return
        world.tickets += size
        yield seconds


def simulated(plan: Plan) -> Load:
    """Simulate the plan's peak in one region; the result is always the same, because the seed depends on the plan."""
    return _leased(plan) if plan.processes else _singly(plan)


def _singly(plan: Plan) -> Load:
    # An overload is scaled down to a tenth, the arrivals as well as the writes that the item accepts;
    # otherwise the repeated retries would take most of the time.
    thinned = 10 if plan.peak > WRITES else 1
    rate = plan.peak / thinned
    seconds = min(DAY, max(30.0, 20_000 / plan.peak))
    world = World(Item(WRITES / thinned), _dice(plan))
    at, arrivals = world.dice.expovariate(rate), 0
    while at < seconds:
        world.begin(one_by_one(world), at)
        at, arrivals = at + world.dice.expovariate(rate), arrivals + 1
    world.run()
    return _load(world, arrivals, thinned, left=0)


def _leased(plan: Plan) -> Load:
    each = plan.peak / plan.processes * plan.regions
    slices = plan.peak_writes * SLICES
    seconds = min(1_800.0, max(30.0, 60_000 / slices))
    world = World(Item(WRITES), _dice(plan))
    processes = [
        Process(Buffer(block_size=plan.block, min_block=MIN_BLOCK, seconds=LEASE_SECONDS, clock=world.clock))
        for _ in range(plan.processes // plan.regions)
    ]
    for process in processes:
        # They start within ten seconds, because not even a deployment starts all of them at the same moment.
        world.begin(leasing(world, process, each, seconds), world.dice.uniform(0, 10))
    world.run()
    return _load(world, world.item.blocks, 1, left=sum(process.buffer.drain() for process in processes))


def _dice(plan: Plan) -> Random:
    return Random(str(plan))  # noqa: S311 - the same each run is what it is for


def _load(world: World, mints: int, thinned: int, *, left: int) -> Load:
    item = world.item
    return Load(
        busiest=max(item.asked.values()) * thinned,
        throttled=item.refused / sum(item.asked.values()),
        given_up=world.given_up / mints,
        wait=_percentile(world.waits, world.tickets),
        size=(world.tickets + left) / item.blocks,
        left=left,
    )


def _percentile(waits: list[float], tickets: int) -> float:
    """Return the wait that 99 of 100 tickets do not exceed; tickets that are not in ``waits`` did not wait."""
    beyond = tickets // 100
    return sorted(waits)[-beyond - 1] if len(waits) > beyond else 0.0


# --- cost and time ---------------------------------------------------------------------------------------


def cost(calls: float) -> float:
    """Return the dollars for this many mints through the URL, at AWS's prices for us-east-1 without the free tier.

    A mint is one write, with a retry key and without.
    """
    return calls * (INVOCATION_PRICE + INVOCATION_SECONDS * MEMORY_GB * GB_SECOND_PRICE + WRITE_PRICE)


def years(tickets: float, *, gaps: float = 0.0, share: float = 1.0) -> float:
    """Return how many years ``share`` of all numbers last with this many tickets and gaps per day."""
    return MAX_TICKET * share / (tickets + gaps) / YEAR


# --- the tables of the page ------------------------------------------------------------------------------


def main() -> None:
    """Print both tables."""
    loads = [(plan, simulated(plan)) for plan in PLANS]
    print(tables(loads), end="")  # noqa: T201 - the tables are what this program is for


def tables(loads: list[tuple[Plan, Load]]) -> str:
    """Return both tables as in the page, each after its line in bold."""
    carried = [(plan, load) for plan, load in loads if load.carried]
    return "\n".join(
        [
            "**Load at the peak** (writes computed, what follows them simulated)",
            "",
            *_markdown(LOAD, (_load_cells(plan, load) for plan, load in loads)),
            "",
            "**Cost and time** (computed, for the plans that are carried)",
            "",
            *_markdown(COST, (_cost_cells(plan, load) for plan, load in carried)),
            "",
        ]
    )


PLAN = ("tickets a day", "minted", "regions")
LOAD = (
    *PLAN,
    "processes",
    "writes/s on each item",
    "busiest second",
    "throttled",
    "given up",
    "wait p99",
    "tickets a write",
    "left as gaps",
    "carried",
)
COST = (*PLAN, "mints a day", "a day", "a month", "the numbers last, years")


def _load_cells(plan: Plan, load: Load) -> Iterator[str]:
    yield from _plan_cells(plan)
    yield str(plan.processes or "-")
    yield _rate(plan.peak_writes)
    yield f"{load.busiest:,}"
    yield _percent(load.throttled)
    yield _percent(load.given_up)
    yield f"{load.wait * 1000:.0f} ms" if load.wait < 1 else f"{load.wait:.1f} s"
    yield f"{load.size:,.0f}"
    yield f"{load.left * plan.regions:,}"
    yield "yes" if load.carried else "**no**"


def _cost_cells(plan: Plan, load: Load) -> Iterator[str]:
    yield from _plan_cells(plan)
    yield f"{plan.calls:,.0f}"
    for days in (1, MONTH):
        yield _dollars(cost(plan.calls * days))
    yield _rounded(years(plan.tickets, gaps=load.left * plan.regions))


def _plan_cells(plan: Plan) -> Iterator[str]:
    yield f"10^{len(str(plan.tickets)) - 1}"
    yield {1: "one by one", 100: "blocks of 100"}.get(plan.block, f"blocks to {plan.block:,}")
    yield str(plan.regions)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else "<1%" if part else "0"


def _dollars(amount: float) -> str:
    if amount >= 100:
        return f"${amount:,.0f}"
    return f"${amount:.2f}" if amount >= 0.1 else f"${amount:.2g}"


def _rounded(number: float) -> str:
    """Round to three significant digits, with words for large numbers."""
    for unit, name in ((10**9, " billion"), (10**6, " million")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{round(number, 3 - len(str(int(number)))):,.0f}"


def _markdown(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join([' ---: ', ' --- ', *[' ---: '] * (len(header) - 2)])}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
