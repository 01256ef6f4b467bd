"""If regions fail one after the other, the next region mints: no duplicates, and every possible gap is named."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import Connect, route_dynamodb
from tests.support.faulty_proxy import Fault, first, proxy_to
from tests.support.minting import look, take
from tests.support.regional_stacks import AP, EU, SA, US, deploy_alone, named, own_home, send_to
from ticketctl.aws.account import Aws
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import HOST, Engine
from ticketctl.errors import NotMintedError
from ticketctl.minting.failover import FAILOVER_CONNECT_SECONDS
from ticketctl.models import Block
from ticketctl.settings import resolve

Open = Callable[..., Regions]
STACK = "failover"
ALL = (US, EU, AP)


@pytest.fixture(scope="module", autouse=True)
def stack(ticketctl: Ticketctl) -> None:
    """One stack in three regions for this module."""
    assert ticketctl("deploy", "-q", *named(*ALL), "--local", "--stack", STACK).returncode == 0


@pytest.fixture
def own(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A separate home folder, in which the cached addresses of the regions can be replaced."""
    home = own_home(environ, tmp_path / "home")
    return home | {"TICKETCTL_LOCAL": "1", "TICKETCTL_STACK": STACK, "TICKETCTL_REGIONS": ",".join(ALL)}


@pytest.fixture
def regions(own: dict[str, str]) -> Iterator[Open]:
    """Open the stack in all its regions, as the command line does; ``notes`` collects what it reports."""
    with ExitStack() as opened:

        def connect(*, spread: bool = False, notes: list[str] | None = None, **flags: Any) -> Regions:
            home = RegionalStack(Session(resolve(flags, own), environ=own, connect=FAILOVER_CONNECT_SECONDS))
            told: list[str] = [] if notes is None else notes
            return Regions(opened.enter_context(home), environ=own, spread=spread, note=told.append)

        yield connect


@contextmanager
def refusing() -> Iterator[int]:
    """A port that refuses every connection and stays reserved."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield int(bound.getsockname()[1])


@contextmanager
def deaf() -> Iterator[int]:
    """A port that neither accepts nor refuses a connection, because its queue is full."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind((HOST, 0))
        listening.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


@contextmanager
def without_dynamodb(connect: Connect, aws: Aws, engine: Engine, *regions: str) -> Iterator[None]:
    """Disconnect the functions of some regions from DynamoDB, so that they run but mint nothing."""
    try:
        for region in regions:
            route_dynamodb(aws.in_region(region), STACK, 1)
            with pytest.raises(NotMintedError):  # the function has started by now, however slow that was
                look(connect(stack=STACK, region=region))
        yield
    finally:
        for region in regions:
            route_dynamodb(aws.in_region(region), STACK, engine.port)


def last(connect: Connect, *regions: str) -> list[int]:
    """Return the last ticket of the default counter of each region."""
    return [look(connect(stack=STACK, region=region)).last for region in regions]


# --- not minted --------------------------------------------------------------------------------------


def test_the_next_region_answers(ticketctl: Ticketctl, connect: Connect, own: dict[str, str]) -> None:
    """If the first region refuses connections, the second mints silently; --verbose reports what was skipped."""
    before = last(connect, *ALL)
    with refusing() as port:
        send_to(own, US, port)
        assert ticketctl("next", env=own) == Result(0, f"{before[1] + 3}\n", "")
        told = ticketctl("next", "--verbose", env=own)
    assert (told.returncode, told.stdout) == (0, f"{before[1] + 6}\n")
    skipped = [line for line in told.stderr.splitlines() if " is skipped" in line]
    assert skipped == told.stderr.splitlines()[-1:]
    assert skipped[0].startswith(f"{US} is skipped: {HOST}:{port} cannot be reached: ")
    assert skipped[0].endswith("; nothing was minted")
    assert last(connect, *ALL) == [before[0], before[1] + 6, before[2]]


def test_the_document_names_the_region(ticketctl: Ticketctl, connect: Connect, own: dict[str, str]) -> None:
    """With --json, a block names its region; a region that certainly minted nothing is no possible gap."""
    number = last(connect, AP)[0] + 3
    with refusing() as port:
        for region in (US, EU):
            send_to(own, region, port)
        run = ticketctl("next", "--json", env=own)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout) == {
        "partition": AP,
        "first": number,
        "last": number,
        "count": 1,
        "increment": 3,
        "replayed": False,
        "region": AP,
        "possible_gaps": [],
        "receipt_missing": False,
    }


def test_a_region_that_accepts_no_connection(ticketctl: Ticketctl, connect: Connect, own: dict[str, str]) -> None:
    """A region that accepts no connection is skipped after the connect timeout, however long ``--timeout`` is."""
    number = last(connect, EU)[0] + 3
    with deaf() as port:
        send_to(own, US, port)
        assert ticketctl("next", "--timeout", "3600", env=own) == Result(0, f"{number}\n", "")


def test_addresses_that_are_out_of_date(ticketctl: Ticketctl, connect: Connect, own: dict[str, str]) -> None:
    """If no region is at its cached address, CloudFormation is asked and the first region mints."""
    number = last(connect, US)[0] + 3
    with refusing() as port:
        for region in ALL:
            send_to(own, region, port)
        assert ticketctl("next", env=own) == Result(0, f"{number}\n", "")


def test_no_region_mints(ticketctl: Ticketctl, connect: Connect, aws: Aws, engine: Engine, own: dict[str, str]) -> None:
    """If the table of every region is missing, nothing is minted: exit 7, safe to retry."""
    before = last(connect, *ALL)
    with without_dynamodb(connect, aws, engine, *ALL):
        run = ticketctl("next", "--json", "--timeout", "9", env=own)
    error = json.loads(run.stderr)["error"]
    assert (run.returncode, run.stdout, error["code"], error["exit_code"]) == (7, "", "unavailable", 7)
    assert last(connect, *ALL) == before


def test_a_region_is_asked_last_for_a_while(connect: Connect, own: dict[str, str], regions: Open) -> None:
    """A region that did not answer is not the first that the next mints try."""
    notes: list[str] = []
    before = last(connect, *ALL)
    with refusing() as port:
        send_to(own, US, port)
        server = regions(notes=notes)
        blocks = [take(server, 2, key=f"once:aside-{port}-{number}") for number in range(3)]
    assert [(block.region, block.first) for block in blocks] == [(EU, before[1] + n) for n in (3, 9, 15)]
    assert [note.partition(":")[0] for note in notes] == [f"{US} is skipped"]


def test_spread_over_the_regions_that_answer(own: dict[str, str], regions: Open) -> None:
    """With --spread, the regions that answer take turns, and no call fails."""
    with refusing() as port:
        send_to(own, EU, port)
        server = regions(spread=True)
        blocks = [take(server, 1, key=f"once:spread-{port}-{number}") for number in range(6)]
    assert {block.region for block in blocks} == {US, AP}
    assert len({block.last for block in blocks}) == 6


# --- unknown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost request", "lost reply", "reset", "half", "delay"])
def test_an_unknown_outcome_is_a_possible_gap(
    connect: Connect, engine: Engine, own: dict[str, str], regions: Open, fault: Fault
) -> None:
    """If a region's outcome is unknown, the next region mints and the block names the first as a possible gap."""
    key, notes, before = f"once:unknown-{fault}", list[str](), last(connect, *ALL)
    with proxy_to(engine.port, first(fault), delay=3.0) as proxy:
        send_to(own, US, proxy.port)
        block = take(regions(notes=notes, timeout=3.0), 1, key=key)
        assert proxy.injected[fault] == 1
    number = before[1] + 3
    assert block == Block(EU, number, number, count=1, increment=3, region=EU, possible_gaps=(US,))
    spent = fault != "lost request"
    assert last(connect, *ALL) == [before[0] + 3 * spent, number, before[2]]
    assert [note.partition(":")[0] for note in notes] == [f"{US} is skipped; it may have spent tickets"]
    again = take(connect(stack=STACK, region=US), 1, key=key)
    assert (again.last, again.replayed) == (before[0] + 3, spent)


def test_a_possible_gap_is_reported_on_request(
    ticketctl: Ticketctl, connect: Connect, engine: Engine, own: dict[str, str]
) -> None:
    """After a lost reply, a plain run prints only the ticket; --json names the region, and --verbose says why."""
    before = last(connect, US, EU)
    with proxy_to(engine.port, lambda: "lost reply") as proxy:
        send_to(own, US, proxy.port)
        assert ticketctl("next", env=own) == Result(0, f"{before[1] + 3}\n", "")
        run = ticketctl("next", "--json", "--verbose", env=own)
    document = json.loads(run.stdout)
    assert (run.returncode, document["last"], document["region"]) == (0, before[1] + 6, EU)
    assert document["possible_gaps"] == [US]
    told = json.loads(run.stderr.splitlines()[-1])["detail"]
    assert told.startswith(f"{US} is skipped; it may have spent tickets: {HOST}:{proxy.port} gave no usable answer")
    assert last(connect, US, EU) == [before[0] + 6, before[1] + 6]


def test_fetch_continues_in_another_region(
    ticketctl: Ticketctl, connect: Connect, engine: Engine, own: dict[str, str]
) -> None:
    """If a region is lost between two blocks, the next region continues; each block names its region, no duplicates."""
    before = last(connect, US, EU)
    faults: list[Fault] = ["", "", "lost reply", "lost reply"]
    with proxy_to(engine.port, lambda: faults.pop(0) if faults else "lost request") as proxy:
        send_to(own, US, proxy.port)
        run = ticketctl("fetch", "10", "--block", "2", "--json", env=own)
    blocks = [json.loads(line) for line in run.stdout.splitlines()]
    assert (run.returncode, run.stderr) == (0, "")
    assert [(block["region"], block["first"], block["possible_gaps"]) for block in blocks] == [
        (US, before[0] + 3, []),
        (US, before[0] + 9, []),
        (EU, before[1] + 3, [US]),
        (EU, before[1] + 9, []),
        (EU, before[1] + 15, []),
    ]
    assert last(connect, US, EU) == [before[0] + 18, before[1] + 18]


def test_no_region_replies(ticketctl: Ticketctl, connect: Connect, engine: Engine, own: dict[str, str]) -> None:
    """If every reply is lost, the exit code is 8; despite all retries each region spends only one number."""
    before = last(connect, *ALL)
    with proxy_to(engine.port, lambda: "lost reply") as proxy:
        for region in ALL:
            send_to(own, region, proxy.port)
        run = ticketctl("next", "--timeout", "3", env=own)
        assert proxy.injected["lost reply"] > len(ALL)
    assert (run.returncode, run.stdout) == (8, "")
    assert "a ticket may have been spent" in run.stderr
    assert last(connect, *ALL) == [number + 3 for number in before]


# --- what does not fail over -------------------------------------------------------------------------


def test_a_typed_key_stays_in_the_first_region(
    ticketctl: Ticketctl, connect: Connect, aws: Aws, engine: Engine, own: dict[str, str]
) -> None:
    """With a typed key, no other region mints (exit 7); once the first region is back, it returns the same ticket."""
    keyed = ("next", "--idempotency-key", "mine")
    before = last(connect, *ALL)
    assert ticketctl(*keyed, env=own) == Result(0, f"{before[0] + 3}\n", "")
    with without_dynamodb(connect, aws, engine, US):
        refused = ticketctl(*keyed, "--spread", "--timeout", "1", env=own)
        assert (refused.returncode, refused.stdout) == (7, "")
        assert "nothing was minted" in refused.stderr
        assert ticketctl("next", env=own) == Result(0, f"{before[1] + 3}\n", "")
    again = ticketctl(*keyed, "--json", env=own)
    document = json.loads(again.stdout)
    assert (document["last"], document["replayed"], document["region"]) == (before[0] + 3, True, US)
    assert last(connect, *ALL) == [before[0] + 3, before[1] + 3, before[2]]


def test_the_default_counter_of_a_region(connect: Connect, aws: Aws, engine: Engine, regions: Open) -> None:
    """A region's name as ``--partition`` means its own default counter, which no other region has."""
    before = last(connect, EU)[0]
    block = take(regions(partition=EU), 1, key=f"once:named-{before}")
    assert (block.region, block.partition, block.last) == (EU, EU, before + 3)
    with without_dynamodb(connect, aws, engine, EU), pytest.raises(NotMintedError):
        take(regions(partition=EU, timeout=1.0), 1, key=f"once:refused-{before}")


# --- refused in one region ---------------------------------------------------------------------------


def test_a_region_that_is_used_up(ticketctl: Ticketctl, own: dict[str, str]) -> None:
    """If one region's lane is exhausted, the next one mints; if all are exhausted, the command exits 6."""
    assert ticketctl("counter", "create", "few", "--ceiling", "5", env=own).returncode == 0
    run = ticketctl("fetch", "5", "--block", "1", "--json", "-p", "few", env=own)
    blocks = [json.loads(line) for line in run.stdout.splitlines()]
    assert (run.returncode, run.stderr) == (0, "")
    assert [(block["region"], block["last"]) for block in blocks] == [(US, 1), (US, 4), (EU, 2), (EU, 5), (AP, 3)]
    assert {tuple(block["possible_gaps"]) for block in blocks} == {()}
    full = ticketctl("next", "--json", "-p", "few", env=own)
    assert (full.returncode, full.stdout) == (6, "")
    assert json.loads(full.stderr)["error"]["code"] == "counter_exhausted"


def test_a_region_that_has_no_stack(ticketctl: Ticketctl, connect: Connect, own: dict[str, str]) -> None:
    """A region without the stack is skipped."""
    number = last(connect, US)[0] + 3
    run = ticketctl("next", *named(SA, US), env=own)
    assert run == Result(0, f"{number}\n", "")
    assert connect(stack=STACK, region=SA).locator.describe() is None


def test_a_region_that_has_no_lane_yet(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """A region that has the stack but no lane yet is skipped."""
    assert take(connect(stack=new_stack, region=US), 1).last == 1
    deploy_alone(connect(stack=new_stack, region=EU), {"Offset": "0"})
    run = ticketctl("next", *named(EU, US), "--local", "--stack", new_stack)
    assert run == Result(0, "2\n", "")
