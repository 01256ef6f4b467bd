"""Real faults, in front of the Function URL and between the handler and DynamoDB."""

import base64
import json
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.command_line import Ticketctl
from tests.support.effort import times
from tests.support.embedded_aws import REGION, Connect, route_dynamodb
from tests.support.faulty_proxy import SEED, Fault, first, proxy_to, sometimes
from tests.support.minting import look, requested, take
from ticketctl.aws.account import Aws
from ticketctl.aws.dynamodb import plain_sender
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.embedded.engine import Engine
from ticketctl.errors import NotMintedError, OutcomeUnknownError, ThrottledError
from ticketctl.handler import handler
from ticketctl.http_client import HttpClient
from ticketctl.minting.dynamodb import DynamoDBSource
from ticketctl.minting.failover import Failover
from ticketctl.minting.function_url import FunctionUrl, UrlSource
from ticketctl.minting.source import Source
from ticketctl.models import Block, MintRequest

MINTS = times(25)
"""Mints per run; ``TICKETCTL_TEST_EFFORT=80`` makes it 2,000."""
BEFORE_SENT: list[Fault] = ["lost request", "reset before"]
IN_FRONT: list[Fault] = [*BEFORE_SENT, "lost reply", "reset", "delay", "half", "302", "403", "408", "499", "502"]
BEHIND: list[Fault] = [*IN_FRONT, "failed", "throttled"]
ATTEMPT_SECONDS, DELAY = 2.0, 2.5  # longer than a call waits for an answer


@contextmanager
def url_source(connection: RegionalStack, port: int | None = None) -> Iterator[Source]:
    """The Function URL of a connection as a source, at its own port or through a proxy."""
    url = connection.url()
    if port is not None:
        url = url.replace(urlsplit(url).netloc, f"127.0.0.1:{port}")
    function_url = FunctionUrl(url, sign=connection.session.aws.signed_headers, signs_at_once=True)
    source = UrlSource(function_url, HttpClient(direct=True))
    try:
        yield source
    finally:
        source.close()


@contextmanager
def table_source(connection: RegionalStack, engine: Engine, port: int) -> Iterator[Source]:
    """The table of a connection as a source, through a proxy."""
    aws = Aws(REGION, endpoint_url=f"http://127.0.0.1:{port}", embedded=engine.credentials)
    table, http = connection.locator.look_up().table, HttpClient(direct=True)
    send_until = plain_sender(aws, http, "the table", timeout=ATTEMPT_SECONDS, connect=1.0)
    try:
        yield DynamoDBSource(send_until, table, region=REGION)
    finally:
        http.close()
        aws.close()


@pytest.mark.parametrize("fault", IN_FRONT)
def test_fault_before_the_function_is_unknown(connect: Connect, engine: Engine, deployed: str, fault: Fault) -> None:
    """A fault after the request was sent is an unknown outcome; a retry with the same key returns the same ticket."""
    connection = connect(stack=deployed)
    take(connection, 1)
    with proxy_to(engine.port, first(fault, 2), delay=4.0) as proxy, url_source(connection, proxy.port) as source:
        with pytest.raises(OutcomeUnknownError):
            source.mint(requested(1), Deadline(2.0))
        before = look(connection).last
        with pytest.raises(OutcomeUnknownError):
            source.mint(requested(1, "k"), Deadline(2.0))
        took = look(connection).last
        assert took == before + (fault not in BEFORE_SENT)
        assert source.mint(requested(1, "k"), Deadline(10.0)).last == before + 1
        assert look(connection).last == before + 1


@pytest.mark.parametrize("fault", [fault for fault in BEHIND if fault != "throttled"])
def test_one_fault_behind_the_function_is_repaired(
    connect: Connect, aws: Aws, engine: Engine, deployed: str, fault: Fault
) -> None:
    """After a fault behind the function, the handler retries: the number is returned or reported as a possible gap."""
    connection = connect(stack=deployed)
    take(connection, 1)
    with proxy_to(engine.port, first(fault), delay=4.0) as proxy, url_source(connection) as source:
        route_dynamodb(aws, deployed, proxy.port)
        block = source.mint(requested(1), Deadline(9.0))
        assert (block.last, proxy.injected) == (2, {fault: 1, "": 1})
        assert (block.replayed, len(block.possible_gaps)) == ((False, 1) if fault in BEFORE_SENT else (True, 0))


@pytest.mark.parametrize("fault", BEHIND)
def test_fault_behind_the_function_has_a_body(
    connect: Connect, aws: Aws, engine: Engine, deployed: str, fault: Fault
) -> None:
    """The handler itself returns 429 or 504, within the function's time; DynamoDB gets the write at most twice."""
    connection = connect(stack=deployed)
    take(connection, 1)
    attempts, expected = (1, ThrottledError) if fault == "throttled" else (2, OutcomeUnknownError)
    with proxy_to(engine.port, first(fault, 2), delay=4.0) as proxy, url_source(connection) as source:
        route_dynamodb(aws, deployed, proxy.port)
        wanted = requested(1)
        with pytest.raises(expected, match="DynamoDB"):
            source.mint(wanted, Deadline(9.0))
        assert proxy.injected == {fault: attempts}
        if fault == "throttled":
            with pytest.raises(expected, match="DynamoDB"):
                source.mint(wanted, Deadline(9.0))
        assert source.mint(wanted, Deadline(9.0)).last == 2


def test_dynamodb_out_of_reach_mints_nothing(connect: Connect, aws: Aws, deployed: str) -> None:
    """If DynamoDB refuses the handler's connection, the answer is 503: nothing was minted."""
    take(connect(stack=deployed), 1)
    route_dynamodb(aws, deployed, 1)
    hasty = connect(stack=deployed, timeout=3)
    with pytest.raises(NotMintedError, match="nothing was minted"):
        take(hasty, 1, key="k")
    assert [counter.last for counter in hasty.counters().all()] == [1]


def test_every_reply_dropped(connect: Connect, engine: Engine, ticketctl: Ticketctl, deployed: str) -> None:
    """If every reply is lost, next retries and then exits 8; if the port is closed, it exits 7."""
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


@dataclass(frozen=True)
class Place:
    """A source in the form in which the retries expect a region; each attempt ends before a delayed answer arrives."""

    source: Source
    place: str = "here"

    def attempt(self, request: MintRequest, deadline: Deadline, **_: bool) -> Block:
        """Take the tickets in one attempt."""
        return self.source.mint(request, deadline.within(ATTEMPT_SECONDS))


Told = dict[MintRequest, Block | None]
"""What a caller was told of each mint; ``None`` is an unknown outcome."""


def mint_as_ticketctl_does(source: Source, request: MintRequest) -> Block:
    """Retry with the same key until there is an answer, as a command does."""
    return Failover(lambda request: [Place(source)]).mint(request, Deadline(60.0))


def mint_many(source: Source, mints: int, *, gives_up: bool) -> Told:
    """Mint many times, half of them with a typed key. With ``gives_up``, half of the mints are not retried."""
    told: Told = {}
    for number in range(mints):
        request = requested(1 + number % 3, uuid.uuid4().hex if number % 2 else None)
        try:
            once = gives_up and number % 4 < 2
            told[request] = until_sent(source, request) if once else mint_as_ticketctl_does(source, request)
        except OutcomeUnknownError:
            told[request] = None
    return told


def until_sent(source: Source, request: MintRequest) -> Block:
    """Retry only if nothing was minted."""
    while True:
        with suppress(NotMintedError):
            return source.mint(request, Deadline(ATTEMPT_SECONDS))


def named(request: MintRequest, block: Block | None) -> int:
    """Return how many more tickets may be spent, according to what the caller was told."""
    return request.count * (1 if block is None else len(block.possible_gaps))


def taken(exchanges: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, int]]:
    """Yield the key's digest and the last ticket of every block that DynamoDB returned, even if its answer was lost."""
    for body, answer in exchanges:
        digest = json.loads(body)["ExpressionAttributeValues"].get(":digest") if b":digest" in body else None
        if digest and (attributes := json.loads(answer).get("Attributes")):
            yield base64.b64decode(digest["B"]), int(attributes["hand_crafted_int"]["N"])


@pytest.mark.parametrize("callers", [1, 8], ids=["quiet", "busy"])
@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_many_mints_with_faults(
    connect: Connect, aws: Aws, engine: Engine, deployed: str, via: str, callers: int
) -> None:
    """With faults in 20 % of the requests there are no duplicates, and each ticket that nobody holds was named.

    A function may finish, and mint, after its caller has given up and received a replay: that is named as well.
    If a counter has one caller, who retries after an unknown outcome, it has no gap at all.
    """
    print(f"TICKETCTL_FAULT_SEED={SEED}")  # noqa: T201 - to replay it
    connection, begun_ms = connect(stack=deployed), time.time_ns() // 1_000_000
    take(connection, 1)
    with ExitStack() as opened:
        behind = opened.enter_context(proxy_to(engine.port, sometimes(0.2, *BEHIND), delay=DELAY))
        in_front = opened.enter_context(proxy_to(engine.port, sometimes(0.2, *IN_FRONT), delay=DELAY))
        if via == "url":
            route_dynamodb(aws, deployed, behind.port)
            sources = [opened.enter_context(url_source(connection, in_front.port)) for _ in range(callers)]
        else:
            sources = [opened.enter_context(table_source(connection, engine, behind.port)) for _ in range(callers)]
        with ThreadPoolExecutor(callers) as pool:
            work = pool.map(lambda source: mint_many(source, -(-MINTS // callers), gives_up=callers > 1), sources)
            told = {request: block for one in work for request, block in one.items()}
        route_dynamodb(aws, deployed, engine.port)
        last = look(connection).last
    tickets = [ticket for block in told.values() if block for ticket in block.tickets]
    gaps, unknown = set(range(2, last + 1)) - set(tickets), list(told.values()).count(None)
    most = sum(named(request, block) for request, block in told.items())
    print(f"{len(told)} mints, {len(tickets)} tickets, {len(gaps)} gaps of {most} named, {unknown} unknown")  # noqa: T201
    print(f"in front {dict(in_front.injected)}, behind {dict(behind.injected)}")  # noqa: T201 - figures of a long run
    assert len(set(tickets)) == len(tickets)
    assert max(tickets) <= last
    assert len(gaps) <= (most if callers > 1 else 0)
    assert callers > 1 or not unknown
    days = (begun_ms, time.time_ns() // 1_000_000)
    mints = {handler.key_digest(request.key, now): (request, block) for request, block in told.items() for now in days}
    for digest, number in taken(behind.exchanges):
        request, block = mints[digest]
        assert (block and block.last == number) or named(request, block), request


def test_killed_clients_leave_no_duplicate(environ: dict[str, str], tmp_path: Path, deployed: str) -> None:
    """Clients that are killed at random moments never print the same number twice."""
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
