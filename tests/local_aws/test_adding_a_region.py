"""Adding a region to a sequence in use: under load, interrupted at any step, from a machine without a cache."""

import fcntl
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl, command
from tests.support.embedded_aws import Connect, table_resource
from tests.support.faulty_proxy import Fault, FaultyProxy, proxy_to
from tests.support.make_counter import make_counter
from tests.support.minting import take
from tests.support.regional_stacks import (
    AP,
    EU,
    SA,
    US,
    deploy_alone,
    first_numbers,
    items,
    lanes,
    named,
    own_home,
    row,
    send_to,
)
from ticketctl.aws.account import Aws
from ticketctl.counters.handover import create_counter, offer
from ticketctl.counters.lanes import Lane
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine
from ticketctl.errors import CounterFrozenError, RefusedError, TicketctlError, UnknownCounterError
from ticketctl.minting.failover import FAILOVER_CONNECT_SECONDS
from ticketctl.models import Block
from ticketctl.settings import resolve

PATIENCE = 60.0  # seconds to wait for something that must happen


def until(what: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- under load --------------------------------------------------------------------------------------


def test_in_the_middle_of_a_fetch(
    environ: dict[str, str], ticketctl: Ticketctl, connect: Connect, tmp_path: Path, new_stack: str
) -> None:
    """A region is added during a fetch; the fetch continues with half of the numbers, the new region has the others."""
    options = ("--local", "--stack", new_stack)
    take(connect(stack=new_stack), 1)
    fetch = command("fetch", "50000", "--block", "400", "--ranges", "-q", *options)
    with (tmp_path / "printed").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(fetch, env=environ, stdout=printed, stderr=subprocess.PIPE, text=True)
        until(lambda: os.fstat(printed.fileno()).st_size > 0)
        added = ticketctl("deploy", "-q", *named(AP), *options)
        assert process.communicate(timeout=PATIENCE)[1] == ""
        printed.seek(0)
        blocks = [tuple(map(int, line.split("\t"))) for line in printed]
    assert (added.returncode, process.returncode) == (0, 0)
    assert {step for _, _, step in blocks} == {1, 2}
    fetched = [ticket for first, last, step in blocks for ticket in range(first, last + 1, step)]
    assert (len(fetched), sorted(set(fetched))) == (50_000, fetched)
    assert {region for _, region in lanes(ticketctl("regions", "--json", *options))} == {AP, US}
    other = connect(stack=new_stack, region=AP)
    minted: list[int] = []
    while not minted or minted[-1] < fetched[-1]:
        minted += take(other, 10_000).tickets
    both = {1, *fetched, *minted}
    assert len(both) == 1 + len(fetched) + len(minted)
    # Creating a function in another region may end its namesake's request in the embedded AWS, which loses one block.
    assert len({*range(1, fetched[-1])} - both) in (0, 400)


class Worker:
    """A thread that mints tickets one at a time, through its own connection to each region."""

    def __init__(self, regions: Regions, name: str) -> None:
        self.blocks: list[Block] = []
        self._regions = regions
        self._name = name

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            self.blocks.append(take(self._regions, 1, key=f"once:{self._name}-{len(self.blocks)}"))


@contextmanager
def at_work(stop: threading.Event, workers: Sequence[Worker]) -> Iterator[None]:
    """Let the workers mint during the ``with`` block; then raise what any of them raised."""
    with ThreadPoolExecutor(len(workers)) as pool:
        jobs = [pool.submit(worker.run, stop) for worker in workers]
        try:
            yield
        finally:
            stop.set()
        for job in jobs:
            job.result()


def all_mint(workers: Sequence[Worker], more: int) -> None:
    """Wait until each worker has minted ``more`` tickets."""
    least = [len(worker.blocks) + more for worker in workers]
    until(lambda: all(len(worker.blocks) >= enough for worker, enough in zip(workers, least, strict=True)))


def test_a_region_is_added_while_another_is_cut_off(
    environ: dict[str, str], ticketctl: Ticketctl, engine: Engine, tmp_path: Path, new_stack: str
) -> None:
    """Eight workers mint in three regions while a fourth is added and one is lost: no call fails, no duplicates."""
    options = ("--local", "--stack", new_stack)
    three = [US, EU, AP]
    assert ticketctl("deploy", "-q", *named(*three), *options).returncode == 0
    own = own_home(environ, tmp_path / "home") | {"TICKETCTL_LOCAL": "1", "TICKETCTL_STACK": new_stack}
    cut, stop, notes = threading.Event(), threading.Event(), list[str]()
    faults: Iterator[Fault] = itertools.cycle(("reset", "lost reply", "half", "lost request"))
    with ExitStack() as opened:
        proxy = opened.enter_context(proxy_to(engine.port, lambda: next(faults) if cut.is_set() else ""))
        for region in three:
            send_to(own, region, proxy.port if region == EU else engine.port)

        def regions(names: list[str], **flags: Any) -> Regions:
            settings = resolve({"region": names, "timeout": 60.0, **flags}, own)
            home = opened.enter_context(RegionalStack(Session(settings, environ=own, connect=FAILOVER_CONNECT_SECONDS)))
            return Regions(home, environ=own, spread=len(names) < 3, note=notes.append)

        orders = [[US, EU, AP], [EU, AP, US], [AP, US, EU], [US, EU], [EU, AP], [AP, EU], [EU, US, AP], [US, AP, EU]]
        workers = [
            Worker(regions(order, via="dynamodb" if number > 5 else "url"), f"worker-{number}")
            for number, order in enumerate(orders)
        ]
        with at_work(stop, workers):
            all_mint(workers, 5)
            deploy = command("deploy", "-q", *named(SA), *options)
            with subprocess.Popen(deploy, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as adding:
                cut.set()
                stderr = adding.communicate(timeout=PATIENCE)[1]
            assert (adding.returncode, stderr) == (0, b"")
            new = regions([SA])
            added = [take(new, 1, key=f"once:new-{number}") for number in range(20)]
            all_mint(workers, 5)
    blocks = [block for worker in workers for block in worker.blocks] + added
    numbers = [block.last for block in blocks]
    assert len(set(numbers)) == len(numbers)
    assert {block.region for block in blocks} == {*three, SA}
    assert (EU,) in {block.possible_gaps for block in blocks}
    shown = lanes(ticketctl("regions", "--json", *options))
    assert {region for _, region in shown} == {*three, SA}
    # Creating a function in another region may end its namesake's request in the embedded AWS.
    unsettled = {note.partition(" ")[0] for note in notes if "may have spent" in note}
    for region in (US, AP, SA):
        held = sorted((block.last, block.increment) for block in blocks if block.region == region)
        steps = [(after - before, step) for (before, _), (after, step) in itertools.pairwise(held)]
        assert region in unsettled or all(distance == step for distance, step in steps), region
        assert shown[None, region][2] > held[-1][0]


# --- interrupted -------------------------------------------------------------------------------------


class KillingProxy(FaultyProxy):
    """A proxy to the embedded AWS that kills ``victim`` once it has made a number of changes."""

    def __init__(self, target: int) -> None:
        super().__init__(target, lambda: "")
        self.victim: subprocess.Popen[str] | None = None
        self.made: list[str] = []
        self.at_most = 1

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"] or 0))
        status, headers, answer = self._pass_on(request, body)
        operation = str(request.headers["x-amz-target"]).rpartition(".")[2]
        change = "ExecuteChangeSet" if b"Action=ExecuteChangeSet" in body else operation
        if change in ("ExecuteChangeSet", "UpdateItem") and status == 200 and self.victim is not None:
            self.made.append(change)
            if len(self.made) == self.at_most:
                self.victim.kill()
                request.close_connection = True
                return
        self._answer(request, status, answer, headers)


@pytest.fixture
def killing(environ: dict[str, str], engine: Engine, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Run the command line and kill it after a number of changes; return the changes that it made."""
    proxy = KillingProxy(engine.port)
    proxy.start()

    def run(*arguments: str, at_most: int = 1) -> list[str]:
        proxy.made, proxy.at_most = [], at_most
        with subprocess.Popen(
            command(*arguments), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            proxy.victim = process
            output = process.communicate(timeout=PATIENCE)
        assert process.returncode == (-signal.SIGKILL if len(proxy.made) >= at_most else 0), output
        return proxy.made

    with home_behind(proxy, environ, engine, tmp_path / "behind-a-proxy") as env:
        yield run
    proxy.stop()


@contextmanager
def home_behind(proxy: FaultyProxy, environ: dict[str, str], engine: Engine, home: Path) -> Iterator[dict[str, str]]:
    """An environment with its own home folder that reaches the embedded AWS through a proxy."""
    folder = home / "local"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "engine.json").write_text(json.dumps(asdict(replace(engine, port=proxy.port))), encoding="utf-8")
    with (folder / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the engine does
        yield {**environ, "TICKETCTL_HOME": str(home)}


@pytest.mark.heavy
def test_killed_after_every_single_change(
    killing: Callable[..., list[str]], ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """If a deployment is killed after any of its changes, running it again finishes it, while counters mint."""
    options = ("--local", "--stack", new_stack)
    make_counter(connect(stack=new_stack).counters(), "orders")
    minted: dict[str | None, list[int]] = {None: [], "orders": []}

    def mint(region: str, count: int) -> None:
        for partition, numbers in minted.items():
            source = connect(stack=new_stack, region=region, partition=partition, via="dynamodb")
            numbers += take(source, count).tickets

    changes: list[str] = []
    while made := killing("deploy", "-q", *named(EU), *options):
        changes += made
        if len(changes) > 1:  # after the first change, the second one still has to create the default counter
            mint(US, 1)
        assert len(changes) < 10
    assert changes == ["ExecuteChangeSet", *["UpdateItem"] * 7]
    shown = lanes(ticketctl("regions", "--json", *options))
    expected = [(counter, region) for counter in minted for region in (US, EU)]
    assert {place: lane[1] for place, lane in shown.items()} == dict.fromkeys(expected, 2)
    mint(EU, 100)
    mint(US, 100)
    for numbers in minted.values():
        assert len(set(numbers)) == len(numbers)
        assert {*numbers} >= {*range(1, 200)}  # no number is lost


def test_a_partly_created_counter_does_not_mint(
    killing: Callable[..., list[str]], ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """A counter that does not exist in all regions mints in none; creating it again finishes the work."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    refusals: list[list[type[TicketctlError]]] = [
        [CounterFrozenError, UnknownCounterError],
        [CounterFrozenError] * 2,
        [],
    ]
    for changes, kinds in enumerate(refusals, start=1):  # the third change lets it mint in the first region
        name = f"orders-{changes}"
        killing("counter", "create", name, *named(US, EU), *options, at_most=changes)
        for region, kind in zip((US, EU), kinds, strict=False):
            with pytest.raises(kind):
                first_numbers(connect, new_stack, [region], partition=name)
            with pytest.raises((RefusedError, UnknownCounterError)):
                connect(stack=new_stack, region=region).counters().thaw(name)
        made = ticketctl("counter", "create", name, "--json", *options)
        assert (made.returncode, json.loads(made.stdout)["created"], made.stderr) == (0, True, "")
        assert first_numbers(connect, new_stack, [US, EU, US, EU], partition=name) == [1, 2, 3, 4]


def test_a_counter_is_finished_although_the_lanes_have_changed(
    ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """A counter left pending is created in all regions, even if a region has been added in the meantime."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    create_counter(connect(stack=new_stack, region=EU).counters(), "orders", Lane(2, 2), pending=True)
    assert ticketctl("deploy", "-q", *named(SA), *options).returncode == 0  # it gets a part of the second lane
    made = ticketctl("counter", "create", "orders", *options)
    regions = {line.rpartition("\t")[2] for line in made.stdout.splitlines()}
    assert (made.returncode, regions) == (0, {US, EU, SA})
    minted = first_numbers(connect, new_stack, [US, EU, SA] * 3, partition="orders")
    assert len(set(minted)) == len(minted)


# --- from a machine without a cache ------------------------------------------------------------------


def test_a_machine_without_a_cache(
    environ: dict[str, str], ticketctl: Ticketctl, connect: Connect, tmp_path: Path, new_stack: str
) -> None:
    """A machine without a cache finds the other regions: a new one gets its lane from them, and regions shows all."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(EU, AP), *options).returncode == 0
    minted = first_numbers(connect, new_stack, [EU, EU, AP])
    fresh = own_home(environ, tmp_path / "home")
    added = ticketctl("deploy", *named(SA), *options, env=fresh)
    assert added.returncode == 0
    assert f"the default counter: {AP} has handed 4, 8, 12, … over to {SA}" in added.stderr.splitlines()
    empty = own_home(environ, tmp_path / "another")
    expected = {(None, EU): (1, 2, 5, "mints"), (None, AP): (2, 4, 6, "mints"), (None, SA): (4, 4, 4, "mints")}
    assert lanes(ticketctl("regions", "--json", *options, env=empty)) == expected
    regions = [
        json.loads(line)["region"] for line in ticketctl("url", "--json", *options, env=empty).stdout.splitlines()
    ]
    assert sorted(regions) == [AP, EU, SA]  # the regions that it found are cached
    for region in (EU, AP, SA):
        minted += take(connect(stack=new_stack, region=region), 50).tickets
    assert len(set(minted)) == len(minted)


# --- what a deployment reads -------------------------------------------------------------------------


class CountingProxy(FaultyProxy):
    """A proxy to the embedded AWS that counts the scans of each region's table."""

    def __init__(self, target: int) -> None:
        super().__init__(target, lambda: "")
        self.scans: Counter[str] = Counter()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        if str(request.headers["x-amz-target"]).endswith(".Scan"):
            self.scans[str(request.headers["authorization"]).split("/")[2]] += 1
        super().serve(request)


@pytest.mark.parametrize("regions", [[US, EU], [US, EU, AP, SA]], ids=len)
def test_a_deployment_that_changes_nothing_scans_each_table_once(
    environ: dict[str, str], engine: Engine, ticketctl: Ticketctl, tmp_path: Path, new_stack: str, regions: list[str]
) -> None:
    """A deployment without changes scans each table once, before it; that shows that there is nothing to hand over."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(*regions), *options).returncode == 0
    assert ticketctl("counter", "create", "orders", *options).returncode == 0
    proxy = CountingProxy(engine.port)
    proxy.start()
    try:
        with home_behind(proxy, environ, engine, tmp_path / "behind-a-proxy") as env:
            again = ticketctl("deploy", *named(*regions), *options, env=env)
    finally:
        proxy.stop()
    assert again.returncode == 0
    assert {f"{region}: no changes" for region in regions} <= set(again.stderr.splitlines())
    assert proxy.scans == dict.fromkeys(regions, 1)


# --- one region --------------------------------------------------------------------------------------


def test_one_region_has_no_hand_over_attributes(
    aws: Aws, ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """With one region, items have no hand-over attributes; when a second is added, the counters continue in both."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("next", *options).stdout == "1\n"
    assert ticketctl("counter", "create", "orders", *options).returncode == 0
    assert ticketctl("counter", "freeze", "orders", *options).returncode == 0
    assert ticketctl("deploy", "-q", *options).returncode == 0
    assert ticketctl("fetch", "2", *options) == Result(0, "2\n3\n", "")
    register = {letter + slot for letter in "kl" for slot in "0123456789abcdef"}
    attributes = {item["partition"]["S"]: sorted(item.keys() - register) for item in items(aws, new_stack, US)}
    assert attributes == {
        US: ["hand_crafted_int", "minted_at", "partition"],
        "orders": ["frozen", "hand_crafted_int", "partition"],
    }
    assert ticketctl("deploy", "-q", *named(EU), *options).returncode == 0
    regions = {item["partition"]["S"]: set(item["regions"]["SS"]) for item in items(aws, new_stack, EU)}
    assert regions == {EU: {US, EU}, "orders": {US, EU}}
    assert lanes(ticketctl("regions", "--json", *options)) == {
        (None, US): (1, 2, 5, "mints"),
        (None, EU): (2, 2, 4, "mints"),
        ("orders", US): (2, 2, 2, "frozen"),
        ("orders", EU): (1, 2, 1, "frozen"),
    }
    assert first_numbers(connect, new_stack, [US, EU]) == [5, 4]


def test_the_articles_table(aws: Aws, ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """A table written by the article's code gets a second region; its counters continue in both."""
    options = ("--local", "--stack", new_stack)
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(**table_resource(new_stack)["Properties"])
    for name, number in ((US, 99), ("visits", 7)):
        item = {"partition": {"S": name}, "hand_crafted_int": {"N": str(number)}}
        dynamodb.put_item(TableName=new_stack, Item=item)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    assert first_numbers(connect, new_stack, [US, EU, US, EU]) == [101, 100, 103, 102]
    assert first_numbers(connect, new_stack, [US, EU, US, EU], partition="visits") == [9, 8, 11, 10]


# --- what could start a second sequence --------------------------------------------------------------


class WallBefore(FaultyProxy):
    """A proxy to the embedded AWS: in one region DynamoDB denies every request, or nothing answers."""

    def __init__(self, target: int, region: str, *, answers: bool) -> None:
        super().__init__(target, lambda: "")
        self._scope = f"/{region}/dynamodb/" if answers else f"/{region}/"
        self._answers = answers

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        if self._scope not in str(request.headers["authorization"]):
            super().serve(request)
            return
        request.rfile.read(int(request.headers["content-length"] or 0))
        if self._answers:
            refusal = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": "denied by a policy"}
            self._answer(request, 400, json.dumps(refusal).encode())
        request.close_connection = True


@contextmanager
def behind_a_wall(environ: dict[str, str], engine: Engine, home: Path, *, answers: bool) -> Iterator[dict[str, str]]:
    """An environment in which the first region cannot be read."""
    proxy = WallBefore(engine.port, US, answers=answers)
    proxy.start()
    try:
        with home_behind(proxy, environ, engine, home) as env:
            yield env
    finally:
        proxy.stop()


@pytest.mark.parametrize(
    ("regions", "answers"), [([EU, US], True), ([EU], False)], ids=["denied and named", "unreachable and not named"]
)
def test_the_region_with_the_sequence_cannot_be_read(
    environ: dict[str, str],
    engine: Engine,
    ticketctl: Ticketctl,
    connect: Connect,
    tmp_path: Path,
    new_stack: str,
    regions: list[str],
    *,
    answers: bool,
) -> None:
    """If a region that may have the sequence cannot be read, no other region starts the sequence again."""
    options = ("--local", "--stack", new_stack)
    minted = first_numbers(connect, new_stack, [US, US, US])
    with behind_a_wall(environ, engine, tmp_path / "home", answers=answers) as env:
        run = ticketctl("deploy", "-q", *named(*regions), *options, env=env)
    assert run.returncode != 0
    assert US in run.stderr
    assert ticketctl("deploy", "-q", *named(EU, US), *options).returncode == 0
    minted += first_numbers(connect, new_stack, [EU, US, EU, US])
    assert len(set(minted)) == len(minted)


def test_the_first_region_cannot_be_reached(
    environ: dict[str, str], engine: Engine, ticketctl: Ticketctl, connect: Connect, tmp_path: Path, new_stack: str
) -> None:
    """If the first region is unreachable, the others are shown and deployed; exit 8 names the missing region."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    with behind_a_wall(environ, engine, tmp_path / "home", answers=False) as env:
        shown = ticketctl("counter", "list", *named(US, EU), *options, env=env)
        deployed = ticketctl("deploy", "-q", "--max-count", "7", *named(US, EU), *options, env=env)
    assert (shown.returncode, shown.stdout) == (8, row(EU, EU, 0, offset=2, increment=2))
    assert f"error: shown in {EU}, but not in {US}: " in shown.stderr
    assert (deployed.returncode, len(deployed.stdout.splitlines())) == (8, 1)
    assert f"error: deployed in {EU}, but not in {US}: " in deployed.stderr
    assert [connect(stack=new_stack, region=region).locator.look_up().max_count for region in (US, EU)] == [10_000, 7]


def test_a_counter_waits_for_the_lane_of_its_region(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """No counter is created in a region whose lane has not been handed over yet."""
    options = ("--local", "--stack", new_stack)
    take(connect(stack=new_stack), 1)
    make_counter(connect(stack=new_stack).counters(), "orders")
    minted = first_numbers(connect, new_stack, [US, US], partition="orders")
    deploy_alone(connect(stack=new_stack, region=EU), {"Offset": "0"})
    created = ticketctl("counter", "create", "orders", *named(EU), *options)
    if created.returncode == 0:
        minted += first_numbers(connect, new_stack, [EU, EU], partition="orders")
    assert ticketctl("deploy", "-q", *named(EU), *options).returncode == 0
    minted += first_numbers(connect, new_stack, [EU, US, EU, US], partition="orders")
    assert len(set(minted)) == len(minted)


def test_moving_a_default_counter_leaves_a_lane_on_offer(
    aws: Aws, ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """A handed-over lane goes to the default counter of the new region, not to a counter with the donor's name."""
    options = ("--local", "--stack", new_stack)
    take(connect(stack=new_stack), 1)
    deploy_alone(connect(stack=new_stack, region=EU), {"Offset": "0"})
    offer(connect(stack=new_stack).counters(), US, 1, [EU])
    assert ticketctl("counter", "advance", US, "--to", "100", *named(US, EU), *options).returncode == 0
    assert ticketctl("deploy", "-q", *named(EU), *options).returncode == 0
    assert [item["partition"]["S"] for item in items(aws, new_stack, EU)] == [EU]
    assert lanes(ticketctl("regions", "--json", *options))[None, EU][:2] == (2, 2)
