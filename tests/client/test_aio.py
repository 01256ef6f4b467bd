"""``aio``: the asynchronous client and lease behave like the synchronous ones."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Unpack

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.async_lease import AsyncMint, leased, take
from tests.support.forks import run_program
from tests.support.http_server import Answer, Server
from tests.support.memory_counter import NOT_MINTED, UNKNOWN, Clock
from tests.support.peer import Peer, never_answers
from tests.support.scripted_transport import (
    AFTER_SENDING,
    BEFORE_SENDING,
    BY_AWS,
    Function,
    ScriptedPool,
    ScriptedTransport,
    problem,
)
from ticketctl import AsyncLease, AsyncTicketClient
from ticketctl.client.aio import ThreadMinter, UrlMinter, async_minter
from ticketctl.client.sync import ClientSettings, resolve_client_settings
from ticketctl.deadline import Deadline
from ticketctl.deployments.cache import StackCache, key_of
from ticketctl.errors import AccessError, NotMintedError, OutcomeUnknownError, TicketctlError, UsageError
from ticketctl.handler import handler
from ticketctl.minting.async_function_url import AsyncUrlSource
from ticketctl.minting.failover import Failover
from ticketctl.minting.function_url import FunctionUrl, UrlSource
from ticketctl.minting.retry import Tries, call_with_retries
from ticketctl.models import Block, MintRequest, StackOutputs

BLOCK = {"partition": "orders", "first": 8, "last": 17, "count": 4, "increment": 3}


class AsyncMintMinter:
    def __init__(self, mint: AsyncMint) -> None:
        self._mint = mint

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:  # noqa: ARG002
        return await self._mint.later(request.count, request.key)

    async def close(self) -> None:
        self._mint.aclosed = True


def test_a_client_of_another_minter_only_mints() -> None:
    """A client of another minter can only mint, not claim or list counters; a closed client says that it is closed."""
    tickets = AsyncTicketClient(lambda: AsyncMintMinter(AsyncMint()))
    with pytest.raises(UsageError, match="only mints"):
        asyncio.run(tickets.claim(lambda _: []))
    with pytest.raises(UsageError, match="only mints"):
        asyncio.run(tickets.counters())
    asyncio.run(tickets.close())
    with pytest.raises(UsageError, match="is closed"):
        asyncio.run(tickets.counter("a"))


# --- the lease ----------------------------------------------------------------------------------------


def test_numbers_come_in_order() -> None:
    """A loop and ``anext`` get the numbers in order, across blocks."""

    async def main() -> list[int]:
        lease, numbers = leased(AsyncMint(), 10), []
        async for number in lease:
            numbers.append(number)
            if number == 35:
                break
        return numbers + await take(lease, 5)

    assert asyncio.run(main()) == list(range(1, 41))


def test_the_next_block_is_minted_ahead() -> None:
    """The next block is requested when an eighth of a block is used; it arrives while the caller does other work."""
    mint = AsyncMint()

    async def main() -> None:
        lease = leased(mint)
        await take(lease, 2)
        assert mint.sizes == [16]
        await take(lease, 1)
        await asyncio.sleep(0.01)
        assert mint.sizes == [16, 16]

    asyncio.run(main())


def test_tasks_share_a_lease() -> None:
    """A hundred tasks get every number exactly once, each task in ascending order."""
    mint = AsyncMint()

    async def draw(lease: AsyncLease) -> list[int]:
        numbers = []
        for _ in range(50):
            numbers.append(await anext(lease))
            await asyncio.sleep(0)
        return numbers

    async def main() -> tuple[list[list[int]], int]:
        lease = leased(mint, 30)
        drawn = await asyncio.gather(*(draw(lease) for _ in range(100)))
        return drawn, await lease.close()

    drawn, left = asyncio.run(main())
    assert sorted(number for part in drawn for number in part) == list(range(1, 5001))
    assert all(part == sorted(part) for part in drawn)
    assert left == mint.last - 5000


def test_a_cancelled_waiter_takes_nothing_from_the_others() -> None:
    """If a task that waits for a block is cancelled, the block still arrives, and the other tasks get all of it."""
    mint = AsyncMint()

    async def main() -> list[int]:
        mint.go_on = asyncio.Event()
        lease = leased(mint)
        waiters = [asyncio.create_task(take(lease, 4)) for _ in range(4)]
        await asyncio.sleep(0.01)
        waiters[0].cancel()
        await asyncio.wait({waiters[0]})
        mint.go_on.set()
        numbers = await asyncio.gather(*waiters[1:])
        return sorted(number for part in numbers for number in part)

    assert asyncio.run(main()) == list(range(1, 13))


@pytest.mark.parametrize("failure", [AccessError("forbidden"), ValueError("a bug")], ids=repr)
def test_no_mint_ahead_after_a_final_error(failure: Exception) -> None:
    """After an error that is not an outage, the lease mints only when no number is left, once per call."""
    mint = AsyncMint()

    async def main() -> None:
        lease = leased(mint)
        await take(lease, 2)
        mint.failures = [failure] * 3
        for _ in range(14):
            await anext(lease)
            await asyncio.sleep(0.001)
        for calls in (2, 3, 4):
            with pytest.raises(type(failure)):
                await anext(lease)
            assert len(mint.calls) == calls
        assert await take(lease, 1) == [17]

    asyncio.run(main())


@pytest.mark.parametrize("failure", [NOT_MINTED, UNKNOWN], ids=repr)
def test_outages(failure: Exception) -> None:
    """An outage that ends before the buffer is used up is not noticed; a longer one raises its error once."""
    mint = AsyncMint()

    async def main() -> None:
        lease = leased(mint)
        await take(lease, 2)
        mint.failures = [failure] * 3
        numbers = []
        for _ in range(14):
            numbers.append(await anext(lease))
            await asyncio.sleep(0.001)
        assert numbers == list(range(3, 17))
        assert (mint.failures, mint.sizes) == ([], [16] * 5)
        await take(lease, 16)
        mint.failures = [failure] * 20
        with pytest.raises(type(failure)) as caught:
            await take(lease, 33)
        assert caught.value is failure
        mint.failures = []
        assert await take(lease, 1) == [mint.last - 15]

    asyncio.run(main())


def test_an_unknown_outcome_loses_no_number() -> None:
    """After an unknown outcome, the retry has the same key, so no number is lost."""
    mint = AsyncMint()

    async def main() -> None:
        lease = leased(mint)
        mint.failures = [UNKNOWN]
        with pytest.raises(OutcomeUnknownError):
            await anext(lease)
        assert await anext(lease) == 1

    asyncio.run(main())
    assert len(set(mint.calls)) == 1


@pytest.mark.parametrize(("taken", "left"), [(0, 0), (1, 15), (3, 29), (17, 15)])
def test_close_says_what_is_left(taken: int, left: int) -> None:
    """``close`` waits for a mint in progress and returns how many numbers are left; then the lease raises an error."""

    async def main() -> None:
        async with leased(AsyncMint()) as lease:
            await take(lease, taken)
            assert (await lease.close(), await lease.close()) == (left, left)
        with pytest.raises(UsageError, match="closed"):
            await anext(lease)

    asyncio.run(main())


def test_a_loop_ends_with_a_block_under_way() -> None:
    """``asyncio.run`` does not wait for a hanging background mint and prints no warning about it."""
    script = """if True:
        import asyncio
        from tests.support.async_lease import AsyncMint, leased, take

        async def main():
            mint = AsyncMint()
            lease = leased(mint)
            print(*await take(lease, 2))
            mint.go_on = asyncio.Event()
            print(*await take(lease, 1))

        asyncio.run(main(), debug=True)
    """
    run = python(script)
    assert (run.returncode, run.stdout, run.stderr) == (0, "1 2\n3\n", "")


def test_a_forked_child_never_gets_its_parents_numbers() -> None:
    """In a forked child, the lease mints new numbers."""
    script = """if True:
        import asyncio, os
        from tests.support.async_lease import AsyncMint, leased, take

        class Own(AsyncMint):
            async def later(self, count, key):
                self.last = max(self.last, os.getpid() * 1000)
                return await super().later(count, key)

        lease = leased(Own())
        first = asyncio.run(take(lease, 3))
        child = os.fork()
        numbers = asyncio.run(take(lease, 10))
        assert all(number // 1000 == os.getpid() for number in numbers)
        assert child == 0 or os.waitpid(child, 0)[1] == 0
    """
    run = python(script)
    assert (run.returncode, run.stderr) == (0, "")


def python(script: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )


# --- the client ---------------------------------------------------------------------------------------


def test_one_ticket_and_a_block() -> None:
    """``next`` takes one ticket and ``fetch`` a block; each call uses a new key or the caller's key."""
    mint = AsyncMint()

    async def main() -> None:
        async with AsyncTicketClient(lambda: AsyncMintMinter(mint)) as tickets:
            assert (await tickets.next(), await tickets.fetch(100)) == (1, Block("orders", 2, 101, 100, 1))
            again = [await tickets.next(idempotency_key="order 17") for _ in range(2)]
            assert again == [102, 102]
            with pytest.raises(UsageError):
                await tickets.next(idempotency_key="")

    asyncio.run(main())
    assert len({key for _, key in mint.calls}) == 3


def test_closing_a_client_closes_its_leases() -> None:
    """Closing a client closes its leases, and it opens nothing afterwards."""
    mint = AsyncMint()

    async def main() -> None:
        tickets = AsyncTicketClient(lambda: AsyncMintMinter(mint))
        lease = tickets.lease(16)
        await anext(lease)
        await tickets.close()
        assert (mint.aclosed, await lease.close()) == (True, 15)
        for call in (tickets.next(), tickets.fetch(2), anext(lease)):
            with pytest.raises(UsageError, match="closed"):
                await call

    asyncio.run(main())


def test_errors_are_unchanged() -> None:
    """The minter's error is raised unchanged, and the next call tries again."""
    mint = AsyncMint()
    mint.failures = [NOT_MINTED]

    async def main() -> None:
        tickets = AsyncTicketClient(lambda: AsyncMintMinter(mint))
        with pytest.raises(NotMintedError):
            await tickets.next()
        assert await tickets.next() == 1

    asyncio.run(main())


def test_what_mints_for_each_setting(tmp_path: Path) -> None:
    """A Function URL is called on the event loop; a table or several regions are called in threads."""
    environ = {"TICKETCTL_HOME": str(tmp_path), "AWS_REGION": "us-east-1"}

    def minter(**named: Unpack[ClientSettings]) -> type:
        table, settings = resolve_client_settings(named, environ)
        return type(async_minter(settings, environ, table))

    assert minter() is UrlMinter
    assert minter(via="dynamodb") is ThreadMinter
    assert minter(table="Old") is ThreadMinter
    assert minter(region=["us-east-1", "eu-west-1"]) is ThreadMinter


Connect = Callable[[], AsyncTicketClient]


@pytest.fixture
def connect(no_aws: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Connect:
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    return lambda: AsyncTicketClient.connect(url=server.url, region="us-east-1", partition="orders")


def test_retries(connect: Connect, server: Server) -> None:
    """Throttling and invalid answers are retried with the same key."""
    server.answers = [
        Answer(429, "text/plain", b""),
        None,
        Answer(200, "application/json", json.dumps(BLOCK).encode()),
    ]

    async def main() -> None:
        async with connect() as tickets:
            gaps = (server.url.removeprefix("http://"),)  # the second answer was lost, and the third was not a replay
            assert await tickets.fetch(4) == Block("orders", 8, 17, 4, 3, possible_gaps=gaps)

    asyncio.run(main())
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.usefixtures("connect")
def test_many_mints_without_an_answer() -> None:
    """If many requests are sent and none is answered, each outcome is unknown at its deadline."""

    async def main(url: str) -> list[int | BaseException]:
        async with AsyncTicketClient.connect(url=url, region="us-east-1", timeout=0.8) as tickets:
            return await asyncio.gather(*(tickets.next() for _ in range(40)), return_exceptions=True)

    with Peer(never_answers) as peer:
        outcomes = asyncio.run(main(peer.url))
        assert len(peer.received) == 40
    assert {type(outcome) for outcome in outcomes} == {OutcomeUnknownError}


@pytest.mark.usefixtures("connect")
def test_closing_a_client_during_a_mint() -> None:
    """If a client is closed during a mint, the mint raises an error which says that tickets may be lost."""

    async def main(url: str, asked: asyncio.Event) -> None:
        tickets = AsyncTicketClient.connect(url=url, region="us-east-1", partition="orders")
        mint = asyncio.create_task(tickets.fetch(7))
        await asyncio.wait_for(asked.wait(), 10)
        await tickets.close()
        with pytest.raises(OutcomeUnknownError, match="7"):
            await mint

    async def serve() -> None:
        asked = asyncio.Event()

        async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            asked.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            await main(f"http://{host}:{port}", asked)

    asyncio.run(serve())


class NoExecutor(ThreadPoolExecutor):
    """Takes no work: asyncio's default executor belongs to the rest of the program."""

    def submit(self, *work: object, **_: object) -> Any:
        raise AssertionError(f"the default executor got {work}")


IN_THE_TABLE = b'{"Attributes": {"hand_crafted_int": {"N": "8"}}}'
IN_A_BLOCK = b'{"partition": "orders", "first": 8, "last": 8, "count": 1, "increment": 1}'


@pytest.mark.parametrize("source", ["url", "table", "regions", "table-only"])
def test_the_threads_are_its_own(no_aws: Path, server: Server, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Signing, looking up and minting from tables use the client's threads, never those of the event loop."""
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given: ClientSettings = {"region": "us-east-1", "partition": "orders", "endpoint_url": server.url}
    if source == "url":
        given["url"] = server.url
        server.answers = [Answer(403, "application/json", b"{}"), Answer(200, "application/json", IN_A_BLOCK)]
    else:
        server.answers = [Answer(200, "application/x-amz-json-1.0", IN_THE_TABLE)]
    if source == "table":
        given["table"] = "Old"
    if source in ("regions", "table-only"):
        regions = ["us-east-1", "us-west-2"] if source == "regions" else ["us-east-1"]
        given["region"] = regions
        cache = StackCache(no_aws / "stacks.json")
        for region in regions:
            key = key_of(stack="Tickets", region=region, endpoint=server.url, profile=None, environ=os.environ)
            cache.put(key, StackOutputs("1", region, "Tickets", None, "AWS_IAM", "Tickets", 1, 1, 10_000))

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(NoExecutor())
        async with AsyncTicketClient.connect(**given) as tickets:
            assert await tickets.next() == 8

    asyncio.run(main())


def test_a_refusal_is_not_retried(connect: Connect, server: Server) -> None:
    """An error that a retry cannot fix is raised immediately."""
    server.answers = [Answer(404, "application/problem+json", b'{"code": "not_found", "detail": "why"}')]

    async def main() -> None:
        async with connect() as tickets:
            with pytest.raises(TicketctlError) as caught:
                await tickets.next()
            assert caught.value.code == "not_deployed"

    asyncio.run(main())


FORKS_AT_THE_FIRST_MINT = """
import asyncio, os, sys, threading
from tests.support.forks import fork_children
from ticketctl import AsyncTicketClient

async def mint():
    os.write(1, b"%d\\n" % await tickets.next())

tickets = AsyncTicketClient.connect(url=sys.argv[1], region="us-east-1", partition="orders")
thread = threading.Thread(target=lambda: asyncio.run(mint()))
thread.start()
fork_children(4, lambda: asyncio.run(mint()))
thread.join()
"""


@pytest.mark.usefixtures("connect")
def test_a_fork_during_the_first_mint(server: Server) -> None:
    """If another thread forks while the event loop makes the first mint, the children mint their own numbers."""
    numbers = range(8, 13)
    server.answers = [
        Answer(200, "application/json", json.dumps(BLOCK | {"first": n, "last": n, "count": 1}).encode())
        for n in numbers
    ]
    run = run_program(FORKS_AT_THE_FIRST_MINT, server.url)
    assert run.returncode == 0, run.stderr
    assert sorted(map(int, run.stdout.split())) == list(numbers)


# --- the Function URL ---------------------------------------------------------------------------------


class AsyncFunction(Function):
    """Returns copies of its answers, because an answer that was read once is either synchronous or not."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def sign(method: str, url: str, headers: Mapping[str, str], body: bytes, _: Deadline) -> Mapping[str, str]:
    return {**headers, "authorization": f"signed {method} {url} {body.decode()}"}


def outcome(error: TicketctlError) -> tuple[object, ...]:
    return type(error), error.message, error.hint


@pytest.mark.parametrize("signs_at_once", [True, False])
@pytest.mark.parametrize(
    "answers",
    [
        *([answer] for answer in (*BEFORE_SENDING, *AFTER_SENDING)),
        *([problem(status, code)] for code, status in handler.STATUS.items()),
        [httpx.Response(404, text="Not Found")],
        [httpx.Response(429, json={"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"})],
        [httpx.Response(200, json=BLOCK)],
        [httpx.Response(200, json=BLOCK | {"count": 5})],
        [httpx.Response(403, json={"Message": "Forbidden"}, headers=BY_AWS), httpx.Response(200, json=BLOCK)],
        [httpx.Response(403, json={"Message": "Forbidden"}), httpx.Response(200, json=BLOCK)],
        [
            httpx.Response(403, json={"Message": "Forbidden"}, headers=BY_AWS),
            httpx.Response(403, headers=BY_AWS),
        ],
        [httpx.Response(301, headers={"location": "https://elsewhere.example/"})],
    ],
    ids=repr,
)
@pytest.mark.usefixtures("no_aws")
def test_both_twins_say_the_same(answers: list[httpx.Response | Exception], signs_at_once: bool) -> None:
    """For every answer, both clients send the same requests and return the same result."""

    def function_url() -> FunctionUrl:
        return FunctionUrl("https://tickets.example", sign=sign, signs_at_once=signs_at_once)

    async def asynchronously(function: AsyncFunction) -> Block:
        return await AsyncUrlSource(function_url(), threads, ScriptedPool(function)).mint(request, Deadline(5.0))

    def synchronously(function: AsyncFunction) -> Block:
        source = UrlSource(function_url(), ScriptedTransport(function))
        try:
            return source.mint(request, Deadline(5.0))
        finally:
            source.close()

    threads, request = ThreadPoolExecutor(1), MintRequest("orders", 4, "once:k", is_typed=False)
    results: list[object] = []
    sent: list[list[tuple[object, ...]]] = []
    for ask in (synchronously, lambda function: asyncio.run(asynchronously(function))):
        function = AsyncFunction(*answers)
        try:
            results.append(ask(function))
        except TicketctlError as error:
            results.append(outcome(error))
        sent.append([(r.method, r.url, r.content, r.headers.get("authorization")) for r in function.requests])
    assert results[0] == results[1]
    assert sent[0] == sent[1]


# --- retries ----------------------------------------------------------------------------------------

MINTED = Block("orders", 7, 7, 1, 1)
OUTCOMES = st.lists(st.sampled_from([NOT_MINTED, UNKNOWN, AccessError("forbidden"), MINTED]), min_size=1, max_size=12)


@given(outcomes=OUTCOMES, timeout=st.floats(0.01, 5.0), takes=st.floats(0.0, 1.0))
def test_both_twins_try_the_same(outcomes: list[Exception | Block], timeout: float, takes: float) -> None:
    """With and without ``await``, the attempts, pauses and results are the same."""

    class Run:
        place = "east"

        def __init__(self) -> None:
            self.clock = Clock()
            self.left = list(outcomes)
            self.log: list[float] = []
            self.deadline = Deadline(timeout, self.clock)

        def attempt(self, request: MintRequest, deadline: Deadline, **_: bool) -> Block:
            self.log.append(deadline.left())
            assert request.count == 1
            self.clock.now += takes
            outcome = self.left.pop(0) if len(self.left) > 1 else self.left[0]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        def sleep(self, seconds: float) -> None:
            self.log.append(-seconds)
            self.clock.now += seconds

    request = MintRequest("orders", 1, "k", is_typed=False)

    def mean(low: float, bound: float) -> float:
        return (low + bound) / 2

    def synchronously(run: Run) -> Block:
        return Failover(lambda _: [run], sleep=run.sleep, jitter=mean).mint(request, run.deadline)

    def asynchronously(run: Run) -> Block:
        async def attempt(deadline: Deadline) -> Block:
            return run.attempt(request, deadline)

        async def sleep(seconds: float) -> None:
            run.sleep(seconds)

        tries = Tries(run.deadline, jitter=mean)
        return asyncio.run(call_with_retries(attempt, run.place, tries, sleep=sleep))

    runs = [Run(), Run()]
    results: list[object] = []
    for run, twin in zip(runs, (synchronously, asynchronously), strict=True):
        try:
            results.append(twin(run))
        except TicketctlError as error:
            results.append(error)
    assert results[0] == results[1]
    assert runs[0].log == runs[1].log
