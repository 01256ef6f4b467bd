"""Claims against the embedded AWS: every number is in exactly one record, even if answers are lost or clients killed.

``TICKETCTL_TEST_EFFORT=25`` makes each thread claim 50 times, and kills 100 processes.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.claims import BILLS, STACK, bill, claims_at
from tests.support.command_line import Ticketctl
from tests.support.effort import times
from tests.support.embedded_aws import REGION, table_resource
from tests.support.faulty_proxy import SEED, proxy_to, sometimes
from tests.support.iam_users import make_user
from ticketctl import AsyncTicketClient, TicketClient
from ticketctl.aws.account import Aws
from ticketctl.client.aio import async_minter
from ticketctl.client.sync import open_regions, resolve_client_settings
from ticketctl.deadline import Deadline
from ticketctl.embedded.engine import Engine
from ticketctl.errors import AccessError, ClaimRefusedError, CounterFrozenError, CounterGaplessError, RefusedError
from ticketctl.minting.claim import Claims

OPTIONS = ("--local", "--stack", STACK)


@pytest.fixture(scope="module")
def stack(ticketctl: Ticketctl, aws: Aws) -> str:
    """Deploy one stack for the module, and create the table of the caller's records."""
    aws.client("dynamodb").create_table(**table_resource(BILLS)["Properties"])
    deployed = ticketctl("deploy", "--yes", *OPTIONS)
    assert deployed.returncode == 0, deployed.stderr
    return STACK


@pytest.fixture
def name(stack: str, ticketctl: Ticketctl, request: pytest.FixtureRequest) -> str:  # noqa: ARG001
    """A new gapless counter."""
    name = str(request.node.name)
    created = ticketctl("counter", "create", name, "--gapless", *OPTIONS)
    assert (created.returncode, created.stdout.split("\t")[5]) == (0, "gapless"), created.stderr
    return name


@pytest.fixture
def client(environ: dict[str, str], engine: Engine, stack: str) -> Iterator[TicketClient]:
    assert engine.port
    _, settings = resolve_client_settings({"local": True, "stack": stack, "timeout": 30}, environ)
    with TicketClient(lambda: open_regions(settings, environ), timeout=30) as tickets:
        yield tickets


def records(aws: Aws, name: str) -> dict[int, str]:
    """Return, for each number of a counter, who wrote its record."""
    pages = aws.client("dynamodb").get_paginator("scan").paginate(TableName=BILLS, ConsistentRead=True)
    items = [item for page in pages for item in page["Items"] if item["partition"]["S"].startswith(f"{name}/")]
    return {int(item["number"]["N"]): item["who"]["S"] for item in items}


def test_claims(client: TicketClient, name: str, aws: Aws) -> None:
    """Each claim takes the next number together with its record."""
    assert [client.claim(bill(name, who), partition=name) for who in "abc"] == [1, 2, 3]
    assert records(aws, name) == {1: "a", 2: "b", 3: "c"}
    counter = client.counter(name)
    assert (counter.last, counter.state, counter.region) == (3, "gapless", REGION)
    assert counter in client.counters()
    assert client.create_counter(name, gapless=True) == counter


def test_claims_with_await(environ: dict[str, str], name: str, aws: Aws) -> None:
    """An asynchronous client claims in many tasks and manages the counters of the stack."""
    _, settings = resolve_client_settings({"local": True, "stack": STACK, "timeout": 30}, environ)
    blocking = TicketClient(lambda: open_regions(settings, environ), timeout=30)

    async def main() -> None:
        async with AsyncTicketClient(lambda: async_minter(settings, environ), blocking=blocking) as tickets:
            claims = [tickets.claim(bill(name, str(who)), partition=name) for who in range(40)]
            taken = await asyncio.gather(*claims)
            assert records(aws, name) == {number: str(who) for who, number in enumerate(taken)}
            assert sorted(taken) == list(range(1, 41))
            assert (await tickets.counter(name)).last == 40
            assert await tickets.create_counter(name, gapless=True) in await tickets.counters()

    asyncio.run(main())


def test_the_callers_own_condition(client: TicketClient, name: str, aws: Aws) -> None:
    """If the caller's condition fails, nothing is spent, and the error names the write and has its item."""
    writes = bill(name, "first")(1)
    aws.client("dynamodb").put_item(TableName=BILLS, Item=writes[0]["Put"]["Item"])
    check = {"TableName": BILLS, "Key": {"partition": {"S": "?"}}, "ConditionExpression": "attribute_not_exists(who)"}

    def second(number: int) -> list[dict[str, Any]]:
        put = bill(name, "second")(number)[0]["Put"]
        return [{"ConditionCheck": check}, {"Put": {**put, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}}]

    for _ in range(2):
        with pytest.raises(ClaimRefusedError) as refused:
            client.claim(second, partition=name)
        (refusal,) = refused.value.refusals
        assert (refusal.index, refusal.reason) == (1, "ConditionalCheckFailed")
        assert refusal.item == writes[0]["Put"]["Item"]
    assert (client.counter(name).last, records(aws, name)) == (0, {1: "first"})


def test_a_plain_mint_is_refused(ticketctl: Ticketctl, client: TicketClient, name: str) -> None:
    """A gapless counter mints neither through the URL nor from the table; the command exits 6."""
    for via in ("url", "dynamodb"):
        refused = ticketctl("next", "--partition", name, "--via", via, *OPTIONS)
        told = f"error: The counter '{name}' is gapless: only a claim takes its numbers.\n"
        hint = "hint: take the number together with its record, from Python: TicketClient.claim\n"
        assert (refused.returncode, refused.stdout, refused.stderr) == (6, "", told + hint)
    with pytest.raises(CounterGaplessError):
        client.next(partition=name)
    assert ticketctl("counter", "advance", name, "--to", "9", *OPTIONS).returncode == 6
    assert client.counter(name).last == 0


def test_frozen(ticketctl: Ticketctl, client: TicketClient, name: str) -> None:
    """While a counter is frozen, claims are rejected; after a thaw they continue without a gap."""
    assert client.claim(bill(name), partition=name) == 1
    frozen = ticketctl("counter", "freeze", name, *OPTIONS)
    assert (frozen.returncode, frozen.stdout.split("\t")[5]) == (0, "gapless, frozen")
    for _ in range(2):
        with pytest.raises(CounterFrozenError, match="is frozen"):
            client.claim(bill(name), partition=name)
    thawed = ticketctl("counter", "thaw", name, *OPTIONS)
    assert (thawed.returncode, thawed.stdout.split("\t")[5]) == (0, "gapless")
    assert client.claim(bill(name), partition=name) == 2


def test_many_counters_from_one_client(client: TicketClient, stack: str) -> None:  # noqa: ARG001
    """``partition`` selects another counter than the client's own, for a ticket, a block and a lease."""
    for name in ("many-a", "many-b"):
        assert client.create_counter(name, start=5).last == 4
    assert (client.next(partition="many-a"), client.fetch(3, partition="many-b").tickets) == (5, range(5, 8))
    lease = client.lease(10, partition="many-a")
    assert [next(lease), client.next(partition="many-a"), client.next()] == [6, 16, 1]
    with pytest.raises(RefusedError, match="'many-a' is not gapless"):
        client.claim(bill("many-a"), partition="many-a")


@pytest.mark.parametrize("processes", [1, 2])
def test_lost_answers(engine: Engine, aws: Aws, name: str, processes: int) -> None:
    """A fifth of all answers is lost: every number up to the last is in exactly one record, the one of its claim."""
    each = times(2)
    with proxy_to(engine.port, sometimes(0.2, "lost reply", "reset", "half")) as proxy:
        claims = [
            claims_at(f"http://127.0.0.1:{proxy.port}", engine.credentials) for _ in range(processes)
        ]  # several clients compete like several processes

        def work(worker: int) -> dict[int, str]:
            taken = {}
            for turn in range(each):
                who = f"{worker}.{turn}"
                taken[claims[worker % processes].claim(name, bill(name, who), Deadline(120))] = who
            return taken

        with ThreadPoolExecutor(32) as pool:
            taken = list(pool.map(work, range(32)))
        sent = sum(b'"TransactItems"' in body for body, _ in proxy.exchanges)
    assert sum(map(len, taken)) == 32 * each, SEED
    assert {number: who for part in taken for number, who in part.items()} == records(aws, name), SEED
    assert sorted(records(aws, name)) == list(range(1, 32 * each + 1)), SEED
    assert sent > 32 * each


def test_a_claim_is_one_request(engine: Engine, name: str) -> None:
    """Threads of one process do not compete: after one read, each claim is one transaction."""
    with proxy_to(engine.port, lambda: "") as proxy:
        claims = claims_at(f"http://127.0.0.1:{proxy.port}", engine.credentials)
        with ThreadPoolExecutor(16) as pool:
            taken = list(pool.map(lambda _: claims.claim(name, bill(name), Deadline(60)), range(80)))
        operations = [b'"TransactItems"' in body for body, _ in proxy.exchanges]
    assert sorted(taken) == list(range(1, 81))
    assert (operations.count(False), operations.count(True)) == (1, 80)


CLAIM_UNTIL_KILLED = """
import os, sys
from tests.support.claims import bill, claims_at
from ticketctl.deadline import Deadline
url, key, secret, name = sys.argv[1:]
claims = claims_at(url, (key, secret))
while True:
    print(claims.claim(name, bill(name, str(os.getpid())), Deadline(60)), flush=True)
"""


def test_killed(engine: Engine, aws: Aws, client: TicketClient, name: str, environ: dict[str, str]) -> None:
    """Processes that claim at the same time are killed at random moments: no number is missing or used twice."""
    random, root = Random(SEED), str(Path(__file__).parents[2])  # noqa: S311 - moments, not secrets
    for _ in range(times(2)):
        arguments = [engine.endpoint_url, *engine.credentials, name]
        running = [
            subprocess.Popen(
                [sys.executable, "-c", CLAIM_UNTIL_KILLED, *arguments],
                env=environ,
                cwd=root,
                stdout=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for process in running:
            assert process.stdout
            assert process.stdout.readline()
        for process in running:
            time.sleep(random.uniform(0.0, 0.2))
            os.kill(process.pid, signal.SIGKILL)
        for process in running:
            process.communicate()
    last = client.claim(bill(name, "last"), partition=name)
    assert last > times(2) * 2
    assert sorted(records(aws, name)) == list(range(1, last + 1)), SEED


def test_permissions(aws: Aws, name: str) -> None:
    """A claim needs GetItem and UpdateItem on the counter, and the permissions for the caller's own writes."""

    def claims_of(user: str, *actions: str) -> Claims:
        keys = make_user(aws, user, {"Effect": "Allow", "Action": list(actions), "Resource": "*"})
        return claims_at(str(aws.endpoint_url), (keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]))

    needed = ("dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:PutItem")
    assert claims_of("claims", *needed).claim(name, bill(name), Deadline(30)) == 1
    for missing in needed:
        claims = claims_of(f"claims-{missing[9:]}", *(action for action in needed if action != missing))
        with pytest.raises(AccessError, match=missing):
            claims.claim(name, bill(name), Deadline(30))
    assert list(records(aws, name)) == [1]


FORK = """
import os, sys, threading
from tests.support.claims import STACK, bill
from ticketctl import TicketClient
name = sys.argv[1]
tickets = TicketClient.connect(local=True, stack=STACK, timeout=30)
def claim(who, count):
    for _ in range(count):
        tickets.claim(bill(name, who), partition=name)
claim("parent", 1)
thread = threading.Thread(target=claim, args=("thread", 20))
thread.start()
child = os.fork()
claim("parent" if child else "child", 10)
if child:
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child(aws: Aws, name: str, environ: dict[str, str]) -> None:
    """A forked child claims with its own connections, while its parent's threads continue."""
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", FORK, name], env=environ, cwd=root, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    found = records(aws, name)
    assert sorted(found) == list(range(1, 42))
    assert Counter(found.values()) == {"parent": 11, "child": 10, "thread": 20}
