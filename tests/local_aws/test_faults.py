"""Faults, tried for real: in front of the Function URL, and between the handler and DynamoDB."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.command_line import Ticketctl
from tests.support.effort import times
from tests.support.embedded_aws import Connect, route_dynamodb
from tests.support.faulty_proxy import SEED, Fault, FaultyProxy, first, proxy_to, sometimes
from tests.support.minting import look, requested, take
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.embedded.engine import Engine
from ticketctl.errors import NotMintedError, OutcomeUnknownError, ThrottledError, TicketctlError
from ticketctl.http_client import HttpClient
from ticketctl.minting.function_url import FunctionUrl, UrlSource
from ticketctl.minting.retry import Tries, call_with_retries
from ticketctl.minting.source import Source
from ticketctl.models import Block

MINTS = times(240)
"""Without keys, and the same again with keys."""
UNTIL_SENT: list[Fault] = ["lost request", "lost reply", "reset", "delay", "half"]


@contextmanager
def url_source(connection: RegionalStack, port: int | None = None) -> Iterator[Source]:
    """The Function URL of a connection, at its own port or a proxy's."""
    url = connection.url()
    if port is not None:
        url = url.replace(urlsplit(url).netloc, f"127.0.0.1:{port}")
    function_url = FunctionUrl(url, sign=connection.session.aws.signed_headers, signs_at_once=True)
    source = UrlSource(function_url, HttpClient(direct=True))
    try:
        yield source
    finally:
        source.close()


@pytest.mark.parametrize("fault", UNTIL_SENT)
def test_fault_before_the_function_is_unknown(connect: Connect, engine: Engine, deployed: str, fault: Fault) -> None:
    """Once a request has left, a fault is unknown; a retry with its key returns the number that it took."""
    connection = connect(stack=deployed)
    take(connection, 1)
    with proxy_to(engine.port, first(fault, 2), delay=4.0) as proxy, url_source(connection, proxy.port) as source:
        with pytest.raises(OutcomeUnknownError):
            source.mint(requested(1), Deadline(2.0))
        before = look(connection).last
        with pytest.raises(OutcomeUnknownError):
            source.mint(requested(1, "k"), Deadline(2.0))
        took = look(connection).last
        assert took == before + (fault != "lost request")
        assert source.mint(requested(1, "k"), Deadline(10.0)).last == before + 1
        assert look(connection).last == before + 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("throttled", ThrottledError),
        ("failed", OutcomeUnknownError),
        ("lost request", OutcomeUnknownError),
        ("lost reply", OutcomeUnknownError),
        ("reset", OutcomeUnknownError),
        ("half", OutcomeUnknownError),
        ("delay", OutcomeUnknownError),
    ],
)
def test_fault_behind_the_function_has_a_body(
    connect: Connect, aws: Aws, engine: Engine, deployed: str, fault: Fault, expected: type[TicketctlError]
) -> None:
    """The handler answers 429 or 504 itself, within the function's time; DynamoDB gets the write once at most."""
    connection = connect(stack=deployed)
    take(connection, 1)
    with proxy_to(engine.port, first(fault), delay=4.0) as proxy, url_source(connection) as source:
        route_dynamodb(aws, deployed, proxy.port)
        with pytest.raises(expected, match="DynamoDB"):
            source.mint(requested(1), Deadline(9.0))
        assert sum(proxy.injected.values()) == 1
        spent = int(expected is OutcomeUnknownError and fault != "lost request")
        assert source.mint(requested(1), Deadline(9.0)).last == 2 + spent


def test_dynamodb_out_of_reach_mints_nothing(connect: Connect, aws: Aws, deployed: str) -> None:
    """A closed port behind the function is 503: not minted."""
    take(connect(stack=deployed), 1)
    route_dynamodb(aws, deployed, 1)
    hasty = connect(stack=deployed, timeout=3)
    with pytest.raises(NotMintedError, match="nothing was minted"):
        take(hasty, 1, key="k")
    assert [counter.last for counter in hasty.counters().all()] == [1]


def test_every_reply_dropped(connect: Connect, engine: Engine, ticketctl: Ticketctl, deployed: str) -> None:
    """With every reply lost, next retries, then exits 8 and says so; with the port closed it exits 7."""
    url = connect(stack=deployed).url()
    with proxy_to(engine.port, lambda: "lost reply") as proxy:
        at_proxy = url.replace(urlsplit(url).netloc, f"127.0.0.1:{proxy.port}")
        options = ("--local", "--stack", deployed, "--url", at_proxy, "--timeout", "3")
        lost = ticketctl("next", *options)
        assert proxy.injected["lost reply"] > 1
    assert (lost.returncode, lost.stdout) == (8, "")
    assert "a ticket may have been spent" in lost.stderr
    closed = ticketctl("next", *options)
    assert (closed.returncode, closed.stdout) == (7, "")
    assert "nothing was minted" in closed.stderr


@dataclass
class Seen:
    """What one worker got, and how many of its attempts ended unknown."""

    blocks: dict[str, Block]
    unknown: int = 0


def until_minted(attempt: Callable[[Deadline], Block]) -> Block:
    """Try again only what minted nothing, as a caller without keys may."""
    while True:
        with suppress(NotMintedError):
            return attempt(Deadline(30.0))


def mint_through(source: Source, worker: int, mints: int, *, keyed: bool) -> Seen:
    """Mint so many times as ticketctl does, counting the attempts that ended unknown."""
    seen = Seen({})
    for number in range(mints):
        key = f"{worker}-{number}"

        def attempt(deadline: Deadline, key: str = key) -> Block:
            try:
                return source.mint(requested(1, key if keyed else None), deadline)
            except OutcomeUnknownError:
                seen.unknown += 1
                raise

        if keyed:
            seen.blocks[key] = call_with_retries(attempt, Tries(Deadline(30.0)))
        else:
            with suppress(OutcomeUnknownError):
                seen.blocks[key] = until_minted(attempt)
    return seen


@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
def test_many_mints_with_faults(connect: Connect, aws: Aws, engine: Engine, deployed: str, *, keyed: bool) -> None:
    """With a fault in every fifth request no ticket comes twice, and unknown outcomes explain each gap."""
    print(f"TICKETCTL_FAULT_SEED={SEED}")  # noqa: T201 - to replay it
    connection = connect(stack=deployed)
    take(connection, 1)
    workers, mints = 8, MINTS // 8
    before = sometimes(0.1, "lost request", "lost reply", "reset", "half")
    behind = sometimes(0.1 if keyed else 0.12, "throttled", "failed", "lost request", "lost reply", "reset", "half")
    with ExitStack() as opened:
        outer: FaultyProxy = opened.enter_context(proxy_to(engine.port, before))
        inner: FaultyProxy = opened.enter_context(proxy_to(engine.port, behind))
        route_dynamodb(aws, deployed, inner.port)
        sources = [opened.enter_context(url_source(connection, outer.port)) for _ in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(mint_through, source, n, mints, keyed=keyed) for n, source in enumerate(sources)]
            seen = [job.result() for job in jobs]
        tickets = [block.last for worker in seen for block in worker.blocks.values()]
        unknown = sum(worker.unknown for worker in seen)
        assert len(set(tickets)) == len(tickets)
        route_dynamodb(aws, deployed, engine.port)
        last = look(connection).last
        gaps = set(range(2, last + 1)) - set(tickets)
        assert max(tickets) <= last
        assert len(gaps) <= unknown
        if keyed:
            assert len(tickets) == workers * mints
            for key, block in list(seen[0].blocks.items())[::10]:
                again = take(connection, 1, key=key)
                assert (again.last, again.replayed) == (block.last, True)
        else:
            assert len(tickets) == workers * mints - unknown


def test_killed_clients_leave_no_duplicate(environ: dict[str, str], tmp_path: Path, deployed: str) -> None:
    """A client that is killed at a random moment, again and again: no number is printed twice."""
    print(f"TICKETCTL_FAULT_SEED={SEED}")  # noqa: T201 - to replay it
    moments = random.Random(SEED)  # noqa: S311 - faults, not secrets
    command = [sys.executable, "-m", "ticketctl", "fetch", "100000", "--block", "7", "--local", "--stack", deployed]

    def run_and_kill(job: tuple[int, bool, float]) -> list[str]:
        number, waits, seconds = job
        printed = tmp_path / f"{number}"
        with printed.open("w") as file:
            process = subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.DEVNULL)
            while waits and printed.stat().st_size == 0:
                time.sleep(0.01)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = printed.read_text().splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    jobs = [(n, moments.random() < 0.8, moments.uniform(0.0, 0.3)) for n in range(times(15))]
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(run_and_kill, jobs))
    tickets = [line for run in runs for line in run]
    assert len(tickets) > 2 * len(jobs)
    assert len(set(tickets)) == len(tickets)
