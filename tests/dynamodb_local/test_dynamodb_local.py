"""Amazon's own DynamoDB Local takes our requests, and its answers mean what we think they mean."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.dynamodb_local.conftest import CREDENTIALS
from tests.support.claims import BILLS, STACK, bill, claims_at
from tests.support.command_line import Ticketctl
from tests.support.effort import times
from tests.support.embedded_aws import REGION
from tests.support.faulty_proxy import SEED, proxy_to, sometimes
from ticketctl.deadline import Deadline
from ticketctl.errors import ClaimRefusedError

pytestmark = pytest.mark.heavy

NewTable = Callable[[str], str]
ARTICLE = "from tests.benchmarks.article_handler import handler; print(handler({}, None)['body'])"

THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from ticketctl import TicketClient

with TicketClient.connect(table=sys.argv[1], partition="orders", timeout=60) as tickets:
    with ThreadPoolExecutor(16) as pool:
        for numbers in pool.map(lambda _: [tickets.next() for _ in range(200)], range(16)):
            print(*numbers)
"""


def run_python(environ: dict[str, str], program: str, *arguments: str) -> str:
    """Run a program as a process of its own; its standard output."""
    run, root = [sys.executable, "-c", program, *arguments], Path(__file__).parents[2]
    return subprocess.run(run, env=environ, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def claims_table(new_table: NewTable) -> str:
    new_table(BILLS)
    return new_table(STACK)


@pytest.fixture
def name(claims_table: str, ticketctl: Ticketctl, request: pytest.FixtureRequest) -> str:
    """A new gapless counter."""
    name = str(request.node.name)
    created = ticketctl("counter", "create", name, "--gapless", "--table", claims_table)
    assert (created.returncode, created.stdout.split("\t")[5]) == (0, "gapless"), created.stderr
    return name


def records(database: Any, name: str) -> list[int]:
    """The number of each record that a counter's claims made."""
    pages = database.get_paginator("scan").paginate(TableName=BILLS, ConsistentRead=True)
    items = [item for page in pages for item in page["Items"] if item["partition"]["S"].startswith(f"{name}/")]
    return sorted(int(item["number"]["N"]) for item in items)


def test_commands(ticketctl: Ticketctl, new_table: NewTable) -> None:
    """The commands of a table: mint, repeat, create, advance, freeze, show."""
    table = ("--table", new_table("commands"))
    assert [ticketctl("next", *table).stdout for _ in range(2)] == ["1\n", "2\n"]
    assert [ticketctl("next", "--idempotency-key", "a", *table).stdout for _ in range(2)] == ["3\n", "3\n"]
    assert ticketctl("fetch", "20000", "--ranges", *table).stdout == "4\t10003\t1\n10004\t20003\t1\n"
    unknown = ticketctl("next", "--partition", "orders", *table)
    assert (unknown.returncode, unknown.stdout) == (5, "")
    assert ticketctl("counter", "create", "orders", "--start", "10", "--ceiling", "11", *table).returncode == 0
    assert ticketctl("next", "--partition", "orders", *table).stdout == "10\n"
    for command in ("freeze", "thaw"):
        assert ticketctl("counter", command, "orders", *table).returncode == 0
    assert ticketctl("counter", "advance", "orders", "--to", "11", *table).returncode == 0
    assert ticketctl("next", "--partition", "orders", *table).returncode == 6
    assert ticketctl("status", "--partition", REGION, *table).stdout.startswith(f"{REGION}\t20003\t1\t")
    assert ticketctl("verify", "--workers", "4", "--mints", "10", *table).returncode == 0


def test_threads_mint(environ: dict[str, str], ticketctl: Ticketctl, new_table: NewTable) -> None:
    """16 threads mint 200 tickets each: no duplicate, and no gap."""
    table = new_table("threads")
    assert ticketctl("counter", "create", "orders", "--table", table).returncode == 0
    numbers = run_python(environ, THREADS, table).split()
    assert sorted(int(number) for number in numbers) == list(range(1, 3201))


def test_a_table_of_the_article(environ: dict[str, str], ticketctl: Ticketctl, new_table: NewTable) -> None:
    """A table that the article's code wrote goes on, while that code still mints from it."""
    new_table("Tickets")

    def article() -> int:
        return int(json.loads(run_python(environ | {"AWS_DEFAULT_REGION": REGION}, ARTICLE))["hand_crafted_int"])

    def ours(*options: str) -> int:
        return int(ticketctl("next", "--table", "Tickets", "--via", "dynamodb", *options).stdout)

    assert [article(), article(), ours(), ours("--idempotency-key", "a"), article()] == [1, 2, 3, 4, 5]
    assert [ours("--idempotency-key", "a"), ours()] == [4, 6]


@pytest.mark.parametrize("processes", [1, 8])
def test_threads_claim(url: str, database: Any, name: str, processes: int) -> None:
    """Eight threads, of one process or as of eight that compete, claim 1 to N without a gap or a duplicate."""
    each = times(20)
    claims = [claims_at(url, CREDENTIALS) for _ in range(processes)]

    def work(worker: int) -> list[int]:
        return [claims[worker % processes].claim(name, bill(name), Deadline(120)) for _ in range(each)]

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(number for part in pool.map(work, range(8)) for number in part)
    assert numbers == records(database, name) == list(range(1, 8 * each + 1))


def test_lost_answers(url: str, database: Any, name: str) -> None:
    """A fifth of all answers is lost: a request that is sent again with its token is not made twice."""
    each = times(10)
    with proxy_to(urlsplit(url).port or 0, sometimes(0.2, "lost reply", "reset", "half")) as proxy:
        claims = [claims_at(f"http://127.0.0.1:{proxy.port}", CREDENTIALS) for _ in range(2)]

        def work(worker: int) -> list[int]:
            return [claims[worker % 2].claim(name, bill(name), Deadline(120)) for _ in range(each)]

        with ThreadPoolExecutor(8) as pool:
            numbers = sorted(number for part in pool.map(work, range(8)) for number in part)
        assert proxy.injected.total() - proxy.injected[""] > 0
    assert numbers == records(database, name) == list(range(1, 8 * each + 1)), SEED


def test_the_callers_own_condition(url: str, database: Any, name: str) -> None:
    """If it does not hold, nothing is spent, and the refusal names the write and has its item."""
    claims = claims_at(url, CREDENTIALS)
    record = bill(name)(1)[0]["Put"]["Item"]
    database.put_item(TableName=BILLS, Item=record)

    def writes(number: int) -> list[dict[str, Any]]:
        return [{"Put": {**bill(name)(number)[0]["Put"], "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}}]

    with pytest.raises(ClaimRefusedError) as refused:
        claims.claim(name, writes, Deadline(30))
    (refusal,) = refused.value.refusals
    assert (refusal.index, refusal.reason, refusal.item) == (0, "ConditionalCheckFailed", record)
    database.delete_item(TableName=BILLS, Key={"partition": record["partition"]})
    assert claims.claim(name, writes, Deadline(30)) == 1
