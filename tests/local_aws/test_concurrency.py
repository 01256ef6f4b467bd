"""Concurrent mints: no duplicates and no gaps."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.effort import times
from tests.support.minting import take
from ticketctl.deployments.regional_stack import RegionalStack

WORKERS = 16


@pytest.mark.parametrize(("via", "mints"), [("url", times(30)), ("dynamodb", times(60))])
def test_no_duplicate_and_no_gap(connect: Callable[..., RegionalStack], deployed: str, via: str, mints: int) -> None:
    """16 threads with one client each get every number from 1 exactly once, each thread in ascending order."""
    connections = [connect(stack=deployed, via=via) for _ in range(WORKERS)]
    connections[0].locator.look_up()

    def work(connection: RegionalStack) -> list[int]:
        return [take(connection, 1).last for _ in range(mints)]

    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(work, connections))
    assert sorted(ticket for tickets in results for ticket in tickets) == list(range(1, WORKERS * mints + 1))
    assert all(tickets == sorted(tickets) for tickets in results)


def test_blocks_never_overlap(connect: Callable[..., RegionalStack], deployed: str) -> None:
    """Blocks of different sizes, minted through both sources at once, have every number exactly once."""
    jobs = [(connect(stack=deployed, via="url" if n % 2 else "dynamodb"), 1 + 37 * n) for n in range(8)]

    def work(job: tuple[RegionalStack, int]) -> list[int]:
        connection, size = job
        return [ticket for _ in range(10) for ticket in take(connection, size).tickets]

    with ThreadPoolExecutor(len(jobs)) as pool:
        tickets = sorted(ticket for result in pool.map(work, jobs) for ticket in result)
    assert tickets == list(range(1, 10 * sum(size for _, size in jobs) + 1))
