"""``client``: what programs import, how settings are resolved, and the use of one client by threads and forks."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ticketctl
from tests.support.forks import run_program
from tests.support.http_server import Answer, Server
from tests.support.memory_counter import Mint
from tests.support.scripted_transport import BY_AWS
from ticketctl import TicketClient
from ticketctl.client.sync import ClientSettings, open_regions, resolve_client_settings
from ticketctl.errors import (
    FileError,
    NoCredentialsError,
    NotDeployedError,
    NotMintedError,
    TicketctlError,
    UsageError,
)
from ticketctl.models import Block

HEAVY = ("asyncio", "boto3", "botocore", "httpcore", "httpx", "typer", "typing")
ONE = b'{"partition": "%s", "first": 8, "last": 8, "count": 1, "increment": 1}'
BLOCK = b'{"partition": "orders", "first": 8, "last": 17, "count": 4, "increment": 3}'


class Opener:
    """Opens minters and keeps them."""

    def __init__(self) -> None:
        self.opened: list[Mint] = []

    def __call__(self) -> Mint:
        self.opened.append(Mint())
        return self.opened[-1]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"TICKETCTL_HOME": str(tmp_path)}


# --- what is imported ---------------------------------------------------------------------------------


def test_every_public_name_is_there() -> None:
    """Every name in ``__all__`` can be imported."""
    assert {name: getattr(ticketctl, name).__module__ for name in ticketctl.__all__ if name != "__version__"} == {
        "AsyncLease": "ticketctl.client.aio",
        "AsyncTicketClient": "ticketctl.client.aio",
        "Block": "ticketctl.models",
        "Lease": "ticketctl.client.lease",
        "TicketClient": "ticketctl.client.sync",
        "TicketctlError": "ticketctl.errors",
    }


def test_an_unknown_name() -> None:
    """A misspelled name raises an ``AttributeError``."""
    with pytest.raises(AttributeError, match="module 'ticketctl' has no attribute 'TicketKlient'"):
        _ = ticketctl.TicketKlient


def test_importing_the_package_is_light() -> None:
    """``import ticketctl`` loads no library, not even ``typing``."""
    script = f"import sys; import ticketctl; print(sorted(sys.modules.keys() & {set(HEAVY)}))"
    run = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False, env=bare())
    assert run.stdout == "[]\n", run.stderr


def test_importing_the_client_is_light() -> None:
    """Importing the synchronous client loads neither asyncio nor an HTTP client nor the AWS SDK."""
    script = f"import sys; from ticketctl import TicketClient; print(sorted(sys.modules.keys() & {set(HEAVY)}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout == "['typing']\n", run.stderr


def bare() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(ticketctl.__file__).parent.parent), "PATH": os.environ["PATH"]}


def test_the_package_says_that_it_is_typed() -> None:
    """The package has ``py.typed``, so that type checkers use its annotations (PEP 561)."""
    assert (Path(ticketctl.__file__).parent / "py.typed").exists()


# --- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ({}, {}, {"stack": "Tickets", "via": "url", "local": False, "region": "eu-west-1", "timeout": 10.0}),
        ({"stack": "orders"}, {"TICKETCTL_STACK": "bills"}, {"stack": "orders"}),
        ({}, {"TICKETCTL_STACK": "bills"}, {"stack": "bills"}),
        ({"region": "us-east-2"}, {}, {"region": "us-east-2"}),
        ({"local": False}, {"TICKETCTL_LOCAL": "1"}, {"local": False}),
        ({"local": True, "timeout": 3}, {}, {"local": True, "timeout": 3.0, "region": "us-east-1"}),
        ({"url": "http://127.0.0.1:1"}, {"TICKETCTL_VIA": "dynamodb"}, {"url": "http://127.0.0.1:1", "via": "url"}),
        ({"table": "Old"}, {"TICKETCTL_URL": "http://127.0.0.1:1"}, {"url": None, "via": "dynamodb"}),
        ({"profile": "p", "partition": "orders"}, {}, {"profile": "p", "partition": "orders"}),
    ],
)
def test_keywords_take_the_place_of_flags(
    given: ClientSettings, variables: dict[str, str], expected: dict[str, object], environ: dict[str, str]
) -> None:
    """A keyword overrides a variable, and a variable overrides the default, as on the command line."""
    _, settings = resolve_client_settings(given, {**environ, "AWS_REGION": "eu-west-1", **variables})
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regoin": "us-east-1"}, "unknown settings: regoin"),
        ({"via": "pigeon"}, "invalid value 'pigeon' for via"),
        ({"timeout": 0}, "invalid timeout 0"),
        ({"url": "ftp://tickets.example"}, "not an http or https URL"),
        ({"table": "a table"}, "invalid table name 'a table'"),
        ({"table": ""}, "invalid table name ''"),
        ({"table": 5}, "invalid table name 5"),
        ({"table": "Tickets", "via": "url"}, "via dynamodb only"),
        ({"table": "Tickets", "url": "http://127.0.0.1:1"}, "via dynamodb only"),
        ({"local": True, "profile": "p"}, "cannot be used with the embedded AWS"),
    ],
)
def test_invalid_settings(given: ClientSettings, message: str) -> None:
    """Invalid settings are an error when the client is created, not at its first mint."""
    with pytest.raises(UsageError, match=message):
        TicketClient.connect(**given)


def test_a_table_is_minted_from_directly(environ: dict[str, str]) -> None:
    """With ``table``, only the first region is used: the table may belong to another sequence in other regions."""
    table, settings = resolve_client_settings({"table": "Old", "region": ["us-east-1", "eu-west-1"]}, environ)
    assert table == "Old"
    assert open_regions(settings, environ, table).names == ("us-east-1",)
    assert open_regions(settings, environ).names == ("us-east-1", "eu-west-1")


def test_a_broken_configuration_file_is_an_error(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration file is read as on the command line, with the same errors."""
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    (no_aws / "config.toml").write_text("stack = ", encoding="utf-8")
    with pytest.raises(FileError):
        TicketClient.connect()


# --- minting ------------------------------------------------------------------------------------------


def test_one_ticket_and_a_block() -> None:
    """``next`` takes one ticket, ``fetch`` a block in one write."""
    opener = Opener()
    with TicketClient(opener) as tickets:
        assert (tickets.next(), tickets.fetch(100), tickets.next()) == (1, Block("orders", 2, 101, 100, 1), 102)
    assert opener.opened[0].sizes == [1, 100, 1]


def test_each_call_has_a_key_of_its_own() -> None:
    """Without a typed key each call uses a new random key; with a typed key the same tickets are returned again."""
    opener = Opener()
    tickets = TicketClient(opener)
    assert [tickets.next(), tickets.next(), tickets.next(idempotency_key="order 17")] == [1, 2, 3]
    assert tickets.next(idempotency_key="order 17") == 3
    keys = [key for _, key in opener.opened[0].calls]
    assert (len(set(keys)), keys[2:]) == (3, ["order 17"] * 2)


@pytest.mark.parametrize("key", ["", "a\nb", "ü", "x" * 201, "once:a"])
def test_invalid_keys(key: str) -> None:
    """A key that a header cannot contain is an error and mints nothing."""
    opener = Opener()
    with pytest.raises(UsageError, match="idempotency key"):
        TicketClient(opener).next(idempotency_key=key)
    assert opener.opened == []
    assert TicketClient(opener).next(idempotency_key="x" * 200) == 1


def test_errors_are_unchanged() -> None:
    """The minter's error is raised unchanged."""
    mint = Mint()
    mint.failures = [failure := NotMintedError("not minted")]
    tickets = TicketClient(lambda: mint)
    with pytest.raises(NotMintedError) as caught:
        tickets.next()
    assert (caught.value, tickets.next()) == (failure, 1)


def test_nothing_is_opened_before_the_first_mint() -> None:
    """Creating a client and a lease opens nothing; the first mint opens the minter once."""
    opener = Opener()
    tickets = TicketClient(opener)
    lease = tickets.lease()
    assert opener.opened == []
    next(lease)
    tickets.next()
    assert len(opener.opened) == 1


def test_threads_open_one_minter() -> None:
    """If eight threads make the first mint at the same time, one opens the minter and all use it."""
    opener, begun = Opener(), threading.Barrier(8)

    def mint(_: int) -> int:
        begun.wait()
        return tickets.next()

    tickets = TicketClient(opener)
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(mint, range(8))) == list(range(1, 9))
    assert len(opener.opened) == 1


def test_a_client_of_another_minter_only_mints() -> None:
    """A client of another minter can only mint, because claims and counters need a stack."""
    tickets = TicketClient(Opener())
    calls: list[Callable[[], object]] = [
        lambda: tickets.claim(lambda _: []),
        tickets.counter,
        tickets.counters,
        lambda: tickets.create_counter("a"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="only mints"):
            call()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", None])
def test_a_claim_without_time(timeout: Any) -> None:
    """A timeout that leaves no time is the caller's error, and opens nothing."""
    opener = Opener()
    with pytest.raises(UsageError, match=f"invalid timeout {timeout!r}: use a number of seconds above 0"):
        TicketClient(opener).claim(lambda _: [], timeout=timeout)
    assert opener.opened == []


def test_closing_a_client_closes_its_leases() -> None:
    """Closing a client closes its leases, which still return how many numbers are left."""
    opener = Opener()
    with TicketClient(opener) as tickets:
        lease = tickets.lease(16)
        next(lease)
    assert opener.opened[0].closed
    assert lease.close() == 15
    for draw in (tickets.next, lambda: tickets.fetch(5), lambda: next(lease)):
        with pytest.raises(UsageError, match="closed"):
            draw()


def test_a_client_that_never_minted_is_closed() -> None:
    """Closing a client that opened nothing does nothing."""
    opener = Opener()
    TicketClient(opener).close()
    assert opener.opened == []


# --- over HTTP ----------------------------------------------------------------------------------------


@pytest.fixture
def at_server(no_aws: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TicketClient]:
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    return lambda **given: TicketClient.connect(url=server.url, region="us-east-1", partition="orders", **given)


def test_a_url_is_enough(at_server: Callable[..., TicketClient], server: Server) -> None:
    """With a public URL, no credentials and no deployed stack are needed."""
    server.answers = [Answer(200, "application/json", BLOCK)]
    with at_server() as tickets:
        assert tickets.fetch(4) == Block("orders", first=8, last=17, count=4, increment=3)


def test_the_partition_of_a_call(at_server: Callable[..., TicketClient], server: Server) -> None:
    """A ticket, a block and a lease may come from another counter than the client's."""
    server.answers = [Answer(200, "application/json", ONE % name) for name in (b"bills", b"orders", b"bills")]
    with at_server() as tickets:
        assert tickets.next(partition="bills") == 8
        assert tickets.next() == 8
        assert next(tickets.lease(1, min_block=1, partition="bills")) == 8
    names = [json.loads(request.body)["partition"] for request in server.requests]
    assert names == ["bills", "orders", "bills"]


def test_what_needs_the_table(at_server: Callable[..., TicketClient], server: Server) -> None:
    """With a typed URL, a client can neither claim nor list or create counters."""
    with at_server() as tickets:
        calls: list[Callable[[], object]] = [
            lambda: tickets.claim(lambda _: []),
            tickets.counters,
            lambda: tickets.create_counter("a"),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="through a URL"):
                call()
    assert server.requests == []


def test_retries(at_server: Callable[..., TicketClient], server: Server) -> None:
    """Throttling and invalid answers are retried with the same key."""
    server.answers = [
        Answer(429, "text/plain", b""),
        None,
        Answer(502, "text/plain", b""),
        Answer(200, "application/json", BLOCK),
    ]
    with at_server() as tickets:
        gaps = (server.url.removeprefix("http://"),)  # two answers were lost, and the last was not a replay
        assert tickets.fetch(4) == Block("orders", 8, 17, 4, 3, possible_gaps=gaps)
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(404, "application/problem+json", b'{"code": "not_found", "detail": "why"}'), NotDeployedError),
        (Answer(403, "text/plain", b"", headers=BY_AWS), NoCredentialsError),
        (Answer(400, "application/problem+json", b'{"code": "bad_request", "detail": "why"}'), UsageError),
    ],
    ids=["not found", "forbidden", "bad request"],
)
def test_refusals(
    at_server: Callable[..., TicketClient], server: Server, answer: Answer, kind: type[TicketctlError]
) -> None:
    """An error that a retry cannot fix is raised immediately."""
    server.answers = [answer]
    with at_server() as tickets, pytest.raises(kind):
        tickets.next()
    assert len(server.requests) == 1


# --- processes ----------------------------------------------------------------------------------------

FORK = """
import os
from ticketctl import TicketClient
from tests.support.memory_counter import Mint

class Minter(Mint):
    def __init__(self):
        super().__init__()
        self.last = os.getpid() * 1000

    def close(self):
        assert self.last // 1000 == os.getpid(), "closed what is its parent's"

with TicketClient(Minter) as tickets:
    assert tickets.next() == os.getpid() * 1000 + 1
    if (child := os.fork()) == 0:
        assert tickets.next() == os.getpid() * 1000 + 1
        if (grandchild := os.fork()) != 0:
            assert os.waitpid(grandchild, 0)[1] == 0
    else:
        assert os.waitpid(child, 0)[1] == 0
        assert tickets.next() == os.getpid() * 1000 + 2
"""


def test_a_forked_child_opens_its_own_connections() -> None:
    """A forked child opens its own minter, and neither uses nor closes its parent's."""
    run = run_program(FORK)
    assert (run.returncode, run.stderr) == (0, "")


FORKS_AT_THE_FIRST_MINT = """
import os, sys, threading
from tests.support.forks import fork_children
from ticketctl import TicketClient

tickets = TicketClient.connect(url=sys.argv[1], region="us-east-1", partition="orders")
threads = [threading.Thread(target=tickets.next) for _ in range(4)]
for thread in threads:
    thread.start()
fork_children(12, lambda: os.write(1, b"%d\\n" % tickets.next()))  # print would write the newline apart
for thread in threads:
    thread.join()
"""


def test_a_fork_during_the_first_mint(server: Server, no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process is forked while threads make the first mint, the children mint their own numbers and end."""
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server.answers = [Answer(200, "application/json", one(number)) for number in range(1, 17)]
    run = run_program(FORKS_AT_THE_FIRST_MINT, server.url)
    assert run.returncode == 0, run.stderr
    assert len(set(run.stdout.split())) == 12


def one(number: int) -> bytes:
    return b'{"partition": "orders", "first": %d, "last": %d, "count": 1, "increment": 1}' % (number, number)
