"""The Python clients and their leases, against the embedded AWS over HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION, Connect, put, table_resource
from tests.support.faulty_proxy import Fault, FaultyProxy, proxy_to
from tests.support.memory_counter import Background
from tests.support.minting import look, take
from ticketctl import AsyncLease, AsyncTicketClient, TicketClient
from ticketctl.aws.account import Aws
from ticketctl.client.aio import async_minter
from ticketctl.client.lease import Lease, Mint
from ticketctl.client.sync import ClientSettings, open_regions, resolve_client_settings
from ticketctl.embedded.engine import Engine
from ticketctl.errors import CounterExhaustedError, NotMintedError, OutcomeUnknownError, UnknownCounterError

BOTH = pytest.mark.parametrize("via", ["url", "dynamodb"])


@dataclass(frozen=True)
class Clients:
    """Clients of the embedded AWS, as ``connect(local=True, …)`` makes them."""

    environ: dict[str, str]

    def sync(self, **given: object) -> TicketClient:
        table, settings = resolve_client_settings(self._settings(given), self.environ)
        partition, timeout = settings.partition, settings.timeout
        return TicketClient(lambda: open_regions(settings, self.environ, table), partition=partition, timeout=timeout)

    def asynchronous(self, **given: object) -> AsyncTicketClient:
        table, settings = resolve_client_settings(self._settings(given), self.environ)
        partition, timeout = settings.partition, settings.timeout
        return AsyncTicketClient(
            lambda: async_minter(settings, self.environ, table), partition=partition, timeout=timeout
        )

    @staticmethod
    def _settings(given: dict[str, object]) -> ClientSettings:
        return {"local": True, "timeout": 30, **given}  # type: ignore[typeddict-item]


@pytest.fixture
def clients(environ: dict[str, str], engine: Engine) -> Clients:
    assert engine.port
    return Clients(environ)


@BOTH
def test_next_and_fetch(clients: Clients, deployed: str, via: str) -> None:
    """A client mints a ticket and a block, and the same ticket again with the same key."""
    with clients.sync(stack=deployed, via=via) as tickets:
        assert tickets.next() == 1
        block = tickets.fetch(100)
        assert (block.partition, block.tickets) == (REGION, range(2, 102))
        assert tickets.next(idempotency_key="order 17") == 102
        assert tickets.fetch(1, idempotency_key="order 17").replayed
        assert tickets.next() == 103


@BOTH
def test_next_and_fetch_with_await(clients: Clients, deployed: str, via: str) -> None:
    """The asynchronous client mints from the same counter with the same rules."""

    async def main() -> None:
        async with clients.asynchronous(stack=deployed, via=via) as tickets:
            assert await tickets.next() == 1
            assert (await tickets.fetch(100)).tickets == range(2, 102)
            assert [await tickets.next(idempotency_key="order 17") for _ in range(2)] == [102, 102]
            assert sorted(await asyncio.gather(*(tickets.next() for _ in range(4)))) == list(range(103, 107))

    asyncio.run(main())


def test_a_table_without_a_stack(clients: Clients, connect: Connect, deployed: str) -> None:
    """With ``table``, a client mints from an existing counter but does not start one, because its lane is unknown."""
    with clients.sync(table=deployed) as tickets:
        with pytest.raises(UnknownCounterError):
            tickets.next()
        assert take(connect(stack=deployed), 5).last == 5
        assert (tickets.next(), tickets.fetch(3).tickets) == (6, range(7, 10))

    async def main() -> None:
        async with clients.asynchronous(table=deployed) as tickets:
            assert await tickets.next() == 10

    asyncio.run(main())


def test_counters_of_a_table(clients: Clients, aws: Aws, deployed: str) -> None:
    """With ``table``, counters are created, read and claimed from in that table, not in the one of the stack."""
    table, records = f"{deployed}-table", f"{deployed}-records"
    for name in (table, records):
        aws.client("dynamodb").create_table(**table_resource(name)["Properties"])

    def record(number: int) -> list[dict[str, object]]:
        item = {"partition": {"S": str(number)}}
        put = {"TableName": records, "Item": item, "ConditionExpression": "attribute_not_exists(#p)"}
        return [{"Put": {**put, "ExpressionAttributeNames": {"#p": "partition"}}}]

    with clients.sync(table=table) as tickets:
        assert tickets.create_counter("orders", start=5).last == 4
        assert tickets.create_counter("invoices", gapless=True).gapless
        assert (tickets.next(partition="orders"), tickets.claim(record, partition="invoices")) == (5, 1)
        found = [(counter.partition, counter.last) for counter in tickets.counters()]
        assert found == [("invoices", 1), ("orders", 5)]
    with clients.sync(stack=deployed) as tickets:
        assert tickets.counters() == []


@BOTH
def test_a_lease_has_no_other_gap(clients: Clients, connect: Connect, deployed: str, via: str) -> None:
    """Eight threads get every number exactly once; the only gap is what ``close`` returns."""
    with clients.sync(stack=deployed, via=via) as tickets:
        lease = tickets.lease(block_size=1000)

        def draw(worker: int) -> list[int]:
            return [next(lease) for _ in range(2000)] if worker % 2 else list(islice(lease, 2000))

        with ThreadPoolExecutor(8) as pool:
            numbers = sorted(number for part in pool.map(draw, range(8)) for number in part)
        left = lease.close()
    assert numbers == list(range(1, 16_001))
    assert look(connect(stack=deployed)).last == 16_000 + left


def test_threads_at_once_find_the_stack_once(clients: Clients, deployed: str) -> None:
    """Threads that use a new client at the same time each get a different number, from both sources."""
    for via in ("url", "dynamodb"):
        with clients.sync(stack=deployed, via=via) as tickets, ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda _, tickets=tickets: tickets.next(), range(24)))
        assert len(set(numbers)) == 24
    assert max(numbers) == 48


def test_a_lease_with_await_has_no_other_gap(clients: Clients, connect: Connect, deployed: str) -> None:
    """Ten tasks get every number exactly once; the only gap is what ``close`` returns."""

    async def draw(lease: AsyncLease) -> list[int]:
        numbers = []
        async for number in lease:
            numbers.append(number)
            if len(numbers) == 500:
                break
        return numbers

    async def main() -> tuple[list[int], int]:
        async with clients.asynchronous(stack=deployed) as tickets, tickets.lease(1000) as lease:
            drawn = await asyncio.gather(*(draw(lease) for _ in range(10)))
            return sorted(number for part in drawn for number in part), await lease.close()

    numbers, left = asyncio.run(main())
    assert numbers == list(range(1, 5001))
    assert look(connect(stack=deployed)).last == 5000 + left


def test_a_lease_below_a_ceiling(clients: Clients, aws: Aws, deployed: str) -> None:
    """If less than a block is left, the lease raises an error after its last number; ``fetch`` can take the rest."""
    put(aws, deployed, "small", hand_crafted_int=0, ceiling=20)
    with clients.sync(stack=deployed, partition="small") as tickets:
        lease = tickets.lease(16)
        assert [next(lease) for _ in range(16)] == list(range(1, 17))
        with pytest.raises(CounterExhaustedError):
            next(lease)
        assert (lease.close(), tickets.fetch(4).tickets) == (0, range(17, 21))


# --- outages ------------------------------------------------------------------------------------------


class Outage:
    """Chooses the fault of each request: ``fault`` if it is set."""

    def __init__(self) -> None:
        self.fault: Fault = ""

    def __call__(self) -> Fault:
        return self.fault


def in_calls_of(tickets: TicketClient) -> Mint:
    """Return the function that the client's own leases mint with."""
    return tickets._mint


@contextmanager
def through_proxy(
    clients: Clients, connect: Connect, engine: Engine, stack: str, outage: Outage
) -> Iterator[tuple[TicketClient, FaultyProxy]]:
    """A client that reaches the Function URL through a proxy, with a timeout of three seconds."""
    connection = connect(stack=stack)
    take(connection, 1)  # the function's first run is slower
    url = connection.url()
    with proxy_to(engine.port, outage) as proxy:
        at_proxy = url.replace(urlsplit(url).netloc, f"127.0.0.1:{proxy.port}")
        with clients.sync(stack=stack, url=at_proxy, timeout=3) as tickets:
            yield tickets, proxy


@pytest.mark.parametrize("fault", ["lost request", "lost reply"])
def test_a_short_outage_is_not_noticed(
    clients: Clients, connect: Connect, engine: Engine, deployed: str, fault: Fault
) -> None:
    """While the buffer lasts, callers do not notice an outage, even one longer than the timeout of a mint."""
    outage = Outage()
    with through_proxy(clients, connect, engine, deployed, outage) as (tickets, proxy):
        lease = Lease(in_calls_of(tickets), block_size=80, spawn=Background())
        numbers = [next(lease) for _ in range(10)]
        outage.fault = fault
        numbers.append(next(lease))  # this call tried to mint ahead for three seconds, without success
        assert proxy.injected[fault] > 1
        outage.fault = ""
        numbers += [next(lease) for _ in range(200)]
        left = lease.close()
    assert numbers == list(range(2, 213))
    assert look(connect(stack=deployed)).last == 212 + left


@pytest.mark.parametrize("fault", ["lost request", "lost reply"])
def test_a_long_outage_raises_its_error(
    clients: Clients, connect: Connect, engine: Engine, deployed: str, fault: Fault
) -> None:
    """If the buffer is used up during an outage, its error is raised; later the lease continues without a gap."""
    outage = Outage()
    with through_proxy(clients, connect, engine, deployed, outage) as (tickets, _):
        lease = tickets.lease(16)
        numbers = [next(lease), next(lease)]
        outage.fault = fault
        with pytest.raises(OutcomeUnknownError):
            numbers.extend(next(lease) for _ in range(100))
        assert numbers == list(range(2, 18))
        with pytest.raises(OutcomeUnknownError):
            next(lease)
        outage.fault = ""
        numbers += [next(lease) for _ in range(100)]
        left = lease.close()
    assert numbers == list(range(2, 118))
    assert look(connect(stack=deployed)).last == 117 + left


def test_an_unreachable_address_mints_nothing(clients: Clients) -> None:
    """If no connection can be opened, nothing was minted, and client and lease raise ``NotMintedError``."""
    with clients.sync(url="http://127.0.0.1:1", timeout=0.2) as tickets:
        with pytest.raises(NotMintedError):
            tickets.next()
        with tickets.lease() as lease, pytest.raises(NotMintedError):
            next(lease)

    async def main() -> None:
        async with clients.asynchronous(url="http://127.0.0.1:1", timeout=0.2) as tickets:
            with pytest.raises(NotMintedError):
                await anext(tickets.lease())

    asyncio.run(main())


def test_a_stack_that_is_replaced_meanwhile(clients: Clients, ticketctl: Ticketctl, deployed: str) -> None:
    """If the stack is replaced while a program runs, the program continues with the new stack, without a gap."""

    async def main() -> None:
        with clients.sync(stack=deployed) as tickets:
            async with clients.asynchronous(stack=deployed) as others:
                numbers = [tickets.next(), await others.next()]
                for _ in range(2):
                    assert ticketctl("destroy", "--yes", "--local", "--stack", deployed).returncode == 0
                    with ThreadPoolExecutor(4) as pool:
                        numbers += sorted(pool.map(lambda _: tickets.next(), range(4)))
                    numbers.append(await others.next())
                assert numbers == list(range(1, 13))

    asyncio.run(main())


# --- processes ----------------------------------------------------------------------------------------

PROCESSES = """
import multiprocessing, os, sys
from itertools import islice
from ticketctl import TicketClient

def connect():
    return TicketClient.connect(local=True, stack=sys.argv[1], via=sys.argv[2], timeout=30)

def work(lease):
    return [next(lease) for _ in range(100)]

def spawned(_):
    with connect() as tickets:
        return [tickets.next(), *work(tickets.lease(50))]

def forked(_):
    return [tickets.next(), *work(lease)]

if __name__ == "__main__":
    tickets = connect()
    lease = tickets.lease(50)
    print(*work(lease), flush=True)
    for _ in range(3):
        if os.fork() == 0:
            print(*forked(None), flush=True)
            os._exit(0)
        print(*forked(None), flush=True)
    for _ in range(3):
        assert os.wait()[1] == 0
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for numbers in pool.map(forked, range(3), chunksize=1):
            print(*numbers)
    if sys.argv[2] == "url":
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for numbers in pool.map(spawned, range(2), chunksize=1):
                print(*numbers)
    print(*forked(None))
    tickets.close()
"""


@BOTH
def test_processes_share_no_number(environ: dict[str, str], tmp_path: Path, deployed: str, via: str) -> None:
    """A parent and its children, forked with an open client and lease or spawned, never get the same number."""
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script), deployed, via], env=environ, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    numbers = [int(number) for number in run.stdout.split()]
    assert len(numbers) >= 100 + 10 * 101
    assert len(set(numbers)) == len(numbers)


def test_a_program_may_leave_its_lease_open(environ: dict[str, str], deployed: str) -> None:
    """A program that never closes its lease ends with exit code 0 and an empty stderr."""
    script = """if True:
        import sys
        from ticketctl import TicketClient
        tickets = TicketClient.connect(local=True, stack=sys.argv[1])
        for number in tickets.lease(16):
            print(number)
            if number == 3:
                break
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, deployed], env=environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "1\n2\n3\n", "")
