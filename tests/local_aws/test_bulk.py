"""Many tickets and many counters on the command line: blocks in flight, tables of thousands, little memory."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import REGION
from tests.support.faulty_proxy import Fault, proxy_to
from tests.support.make_counter import make_counter
from ticketctl.aws.account import Aws
from ticketctl.commands.status import PAGE
from ticketctl.counters.table import Counters
from ticketctl.embedded.engine import Engine

STACK, ONE, MANY = "bulk", "bulk-one", "bulk-many"
OPTIONS = ("--local", "--stack", STACK)
BOTH = pytest.mark.parametrize("via", ["url", "dynamodb"])
LISTS = pytest.mark.parametrize("command", [("status",), ("counter", "list")], ids=" ".join)
COUNTERS = 3_000
PADDING = "x" * 2_000  # an attribute that makes the items large enough for several of DynamoDB's pages
MORE_MIB = 10.0
SECONDS = 60.0
_names = (f"counter-{number}" for number in itertools.count(1))

# A process inherits its parent's peak memory, so a small process must stand between pytest and the measured one.
MEASURE = """
import os, sys
into = (os.POSIX_SPAWN_OPEN, 1, sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
_, status, usage = os.wait4(os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=[into]), 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture(scope="module", autouse=True)
def stack(ticketctl: Ticketctl) -> None:
    """One stack for this module; each test has its own counter."""
    assert ticketctl("deploy", *OPTIONS).returncode == 0


@pytest.fixture(scope="module")
def counters(aws: Aws) -> Counters:
    return Counters(aws.client("dynamodb"), STACK, region=REGION)


@pytest.fixture
def name(counters: Counters) -> str:
    """A counter that no other test uses."""
    return make_counter(counters, next(_names))[0].partition


@pytest.fixture(scope="module")
def many(ticketctl: Ticketctl, aws: Aws) -> Sequence[str]:
    """The names of many counters in the stack ``MANY``, in the order in which DynamoDB returns them."""
    assert ticketctl("deploy", "--local", "--stack", MANY).returncode == 0
    client = aws.client("dynamodb")
    padding = {"note": {"S": PADDING}, "hand_crafted_int": {"N": "7"}}
    items = [{"partition": {"S": f"counter-{n:04}-{'of-many-' * 8}"}, **padding} for n in range(COUNTERS)]
    for begin in range(0, COUNTERS, 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[begin : begin + 25]]
        written = client.batch_write_item(RequestItems={MANY: puts})
        assert not written["UnprocessedItems"]
    pages = list(client.get_paginator("scan").paginate(TableName=MANY))
    assert len(pages) > COUNTERS // PAGE
    return [item["partition"]["S"] for page in pages for item in page["Items"]]


@pytest.fixture(scope="module")
def one(ticketctl: Ticketctl, aws: Aws) -> str:
    """A stack with a single counter."""
    assert ticketctl("deploy", "--local", "--stack", ONE).returncode == 0
    make_counter(Counters(aws.client("dynamodb"), ONE, region=REGION), "single")
    return ONE


def last_of(counters: Counters, name: str) -> int:
    """Return the last ticket of a counter, which here is the number of tickets that were minted."""
    counter = counters.get(name)
    assert counter is not None
    return counter.last


@contextmanager
def started(
    environ: dict[str, str], *arguments: str, stdout: int | None = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command line; what it writes to its pipes stays there until it is read."""
    command = [sys.executable, "-m", "ticketctl", *arguments]
    with subprocess.Popen(command, env=environ, stdout=stdout, stderr=subprocess.PIPE, bufsize=0) as process:
        yield process


def peak(environ: dict[str, str], out: Path, *arguments: str) -> float:
    """Return the peak memory, in MiB, of a run of the command line whose stdout is a file."""
    command = [sys.executable, "-S", "-c", MEASURE, str(out), sys.executable, "-m", "ticketctl", *arguments]
    measured = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (measured.returncode, measured.stderr) == (0, "")
    return int(measured.stdout) / 1024


def lost(story: str) -> range:
    """Return the tickets that stderr reports as minted but not delivered."""
    found = re.search(r"minted but not delivered: (\d+) to (\d+), (\d+) tickets", story)
    assert found is not None, story
    tickets = range(int(found[1]), int(found[2]) + 1)
    assert len(tickets) == int(found[3])
    return tickets


def perhaps_spent(story: str) -> int:
    """Return how many more tickets may be spent, according to stderr."""
    found = re.search(r"up to (\d+) more may be spent", story)
    return int(found[1]) if found else 0


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.02)


# --- blocks in flight ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("concurrency", ["1", "8"])
def test_each_number_is_printed_once_and_each_block_together(
    ticketctl: Ticketctl, counters: Counters, name: str, via: str, concurrency: str
) -> None:
    """Blocks are printed in any order, each block whole and ascending; every number is printed exactly once."""
    asked = ("fetch", "200", "--block", "10", "--concurrency", concurrency, "--via", via, "-p", name)
    fetched = ticketctl(*asked, *OPTIONS)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    tickets = [int(line) for line in fetched.stdout.splitlines()]
    blocks = [tickets[begin : begin + 10] for begin in range(0, 200, 10)]
    assert all(block == list(range(block[0], block[0] + 10)) for block in blocks)
    assert sorted(tickets) == list(range(1, 201))
    assert last_of(counters, name) == 200


def test_a_block_of_several_in_flight_is_a_line_with_ranges(ticketctl: Ticketctl, name: str) -> None:
    """``--ranges`` prints first, last and step of each block; together the blocks have every number exactly once."""
    asked = ("fetch", "253", "--block", "25", "--concurrency", "5", "--ranges", "-p", name)
    fetched = ticketctl(*asked, *OPTIONS)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    rows = sorted(tuple(map(int, line.split("\t"))) for line in fetched.stdout.splitlines())
    assert {step for _, _, step in rows} == {1}
    assert sorted(last - first + 1 for first, last, _ in rows) == [3] + [25] * 10
    assert [ticket for first, last, _ in rows for ticket in range(first, last + 1)] == list(range(1, 254))


def test_a_block_of_several_in_flight_is_a_document_with_json(ticketctl: Ticketctl, name: str) -> None:
    """With --json, each line is one block; together the blocks have every number exactly once."""
    fetched = ticketctl("fetch", "103", "--block", "10", "--concurrency", "5", "--json", "-p", name, *OPTIONS)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    blocks = sorted((json.loads(line) for line in fetched.stdout.splitlines()), key=lambda block: block["first"])
    assert sorted(block["count"] for block in blocks) == [3] + [10] * 10
    assert {(block["partition"], block["increment"], block["replayed"]) for block in blocks} == {(name, 1, False)}
    assert [n for block in blocks for n in range(block["first"], block["last"] + 1)] == list(range(1, 104))


@BOTH
def test_the_same_key_gives_the_same_set_of_numbers(
    ticketctl: Ticketctl, counters: Counters, name: str, via: str
) -> None:
    """A run with the same key prints the same numbers in any order and spends none."""
    asked = ("fetch", "95", "--block", "10", "--concurrency", "4", "--via", via, "-p", name)
    runs = [ticketctl(*asked, "--idempotency-key", f"nightly {name}", *OPTIONS) for _ in range(2)]
    assert [(run.returncode, run.stderr) for run in runs] == [(0, ""), (0, "")]
    assert [sorted(map(int, run.stdout.splitlines())) for run in runs] == [list(range(1, 96))] * 2
    assert last_of(counters, name) == 95


@BOTH
def test_blocks_in_flight_are_printed_before_the_error(ticketctl: Ticketctl, counters: Counters, via: str) -> None:
    """When the counter is exhausted, the run exits 8 and has printed every ticket that was minted."""
    name = next(_names)
    assert ticketctl("counter", "create", name, "--ceiling", "77", *OPTIONS).returncode == 0
    fetched = ticketctl("fetch", "500", "--block", "10", "--concurrency", "4", "-p", name, "--via", via, *OPTIONS)
    message = (
        f"70 of 500 tickets were printed, then: The counter {name!r} has 7 tickets left below its ceiling 77; "
        "the request was for 10."
    )
    assert (fetched.returncode, fetched.stderr) == (8, f"error: {message}\n")
    assert sorted(map(int, fetched.stdout.splitlines())) == list(range(1, last_of(counters, name) + 1))


def test_an_error_beside_blocks_in_flight_is_partial_in_json(ticketctl: Ticketctl, counters: Counters) -> None:
    """With --json, the minted blocks are on stdout and the error is one object on stderr."""
    name = next(_names)
    make_counter(counters, name, ceiling=25)
    fetched = ticketctl("fetch", "60", "--block", "10", "--concurrency", "3", "--json", "-p", name, *OPTIONS)
    assert sorted(json.loads(line)["last"] for line in fetched.stdout.splitlines()) == [10, 20]
    error = json.loads(fetched.stderr)["error"]
    assert (fetched.returncode, error["code"], error["exit_code"]) == (8, "partial", 8)


def test_the_first_error_if_nothing_was_printed(ticketctl: Ticketctl, counters: Counters) -> None:
    """If no block was minted, the run exits 6 with the first error and prints nothing on stdout."""
    name = next(_names)
    make_counter(counters, name, ceiling=5)
    refused = ticketctl("fetch", "60", "--block", "10", "--concurrency", "3", "-p", name, *OPTIONS)
    message = f"The counter {name!r} has 5 tickets left below its ceiling 5; the request was for 10."
    assert refused == Result(6, "", f"error: {message}\n")


@pytest.mark.parametrize("concurrency", ["0", "65"])
def test_an_invalid_concurrency_mints_nothing(
    ticketctl: Ticketctl, counters: Counters, name: str, concurrency: str
) -> None:
    """``--concurrency`` is 1 to 64; any other value exits 2, and the error names the option."""
    refused = ticketctl("fetch", "3", "--concurrency", concurrency, "-p", name, *OPTIONS)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: Invalid value for '--concurrency': ")
    assert last_of(counters, name) == 0


def test_the_largest_concurrency_is_taken(ticketctl: Ticketctl, name: str) -> None:
    """``--concurrency 64`` with fewer blocks prints every number exactly once."""
    fetched = ticketctl("fetch", "40", "--block", "1", "--concurrency", "64", "--via", "dynamodb", "-p", name, *OPTIONS)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert sorted(map(int, fetched.stdout.splitlines())) == list(range(1, 41))


# --- closed pipes and Ctrl-C -----------------------------------------------------------------------


def cut_off(
    environ: dict[str, str], counters: Counters, name: str, end: Callable[[subprocess.Popen[bytes]], None]
) -> tuple[int, list[int], str]:
    """End a run that has minted four blocks but printed little more than one; return exit code, tickets and stderr."""
    counters.advance(name, 1_000_000_000)  # a block of such numbers does not fit into a pipe
    asked = ("fetch", "40000", "--concurrency", "4", "--via", "dynamodb", "-p", name)
    with started(environ, *asked, *OPTIONS) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(11 * 200)
        until(lambda: last_of(counters, name) == 1_000_040_000)
        end(process)
        story = process.stderr.read().decode()
        rest = b"" if process.stdout.closed else process.stdout.read()
        code = process.wait(SECONDS)
    return code, [int(line) for line in (first + rest).splitlines(keepends=True) if line.endswith(b"\n")], story


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.close()


def interrupt(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)


ENDS = pytest.mark.parametrize(("end", "code"), [(close, 141), (interrupt, 130)])


@ENDS
def test_a_block_that_is_cut_off_is_named(
    environ: dict[str, str],
    counters: Counters,
    name: str,
    end: Callable[[subprocess.Popen[bytes]], None],
    code: int,
) -> None:
    """If a run ends with four blocks in flight, stderr starts with the unprinted rest of the current block."""
    ended, printed, story = cut_off(environ, counters, name, end)
    assert ended == code
    assert story.startswith(("error: minted but not delivered: ", "error: interrupted; minted but not delivered: "))
    assert len(set(printed)) == len(printed) >= 200
    assert set(printed).isdisjoint(lost(story))
    if end is interrupt:  # the reader reads to the end, so the first lost ticket follows the last printed one
        assert printed[-1] + 1 == lost(story)[0]
    assert {*printed, *lost(story)} <= set(range(1_000_000_001, 1_000_040_001))


@ENDS
def test_blocks_in_flight_are_reported(
    environ: dict[str, str],
    counters: Counters,
    name: str,
    end: Callable[[subprocess.Popen[bytes]], None],
    code: int,
) -> None:
    """Every minted ticket is printed, reported as lost, or counted in the tickets that may be spent."""
    ended, _, story = cut_off(environ, counters, name, end)
    assert ended == code
    first_lost = lost(story)[0]
    accepted = (first_lost - 1_000_000_001) % 10_000  # of the block that was cut off; no other was partly printed
    assert accepted + len(lost(story)) + perhaps_spent(story) >= 40_000, story


@contextmanager
def held_back(environ: dict[str, str], engine: Engine, ticketctl: Ticketctl, *, after: int) -> Iterator[dict[str, str]]:
    """An environment in which all answers after the first ``after`` are delayed longer than the test waits."""
    faults: Iterator[Fault] = itertools.repeat("")
    with proxy_to(engine.port or 0, lambda: next(faults), delay=SECONDS) as proxy:
        user = {**engine.variables(REGION), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        assert ticketctl("url", "--stack", STACK, env=user).returncode == 0  # caches the URL; later commands only mint
        faults = itertools.chain(itertools.repeat("", after), itertools.repeat("delay"))
        yield {**environ, **user}


def test_an_interrupt_does_not_wait_for_blocks_in_flight(
    environ: dict[str, str], engine: Engine, ticketctl: Ticketctl, counters: Counters, name: str, tmp_path: Path
) -> None:
    """If interrupted while four answers are delayed, the run exits 130 at once and says how many may be spent."""
    printed = tmp_path / "tickets"
    asked = ("fetch", "100", "--block", "10", "--concurrency", "4", "-p", name, "--stack", STACK)
    with (
        held_back(environ, engine, ticketctl, after=2) as user,
        printed.open("wb") as file,
        started(user, *asked, "--timeout", str(SECONDS), stdout=file.fileno()) as process,
    ):
        assert process.stderr is not None
        until(lambda: last_of(counters, name) == 60 and printed.read_text().count("\n") == 20)
        interrupt(process)
        assert process.wait(SECONDS / 2) == 130  # half of the time by which the answers are delayed
        story = process.stderr.read().decode()
    assert story == "error: interrupted; 20 of 100 tickets were printed, up to 40 more may be spent\n"


def test_no_more_may_be_spent_than_was_asked_for(
    environ: dict[str, str], engine: Engine, ticketctl: Ticketctl, counters: Counters, name: str
) -> None:
    """An interrupted run for 3 tickets reports at most 3 as possibly spent, even if its blocks could be larger."""
    asked = ("fetch", "3", "--concurrency", "2", "-p", name, "--stack", STACK, "--timeout", str(SECONDS))
    with held_back(environ, engine, ticketctl, after=0) as user, started(user, *asked) as process:
        assert process.stderr is not None
        until(lambda: last_of(counters, name) == 3)
        interrupt(process)
        assert process.wait(SECONDS / 2) == 130
        story = process.stderr.read().decode()
    assert story == "error: interrupted; 0 of 3 tickets were printed, up to 3 more may be spent\n"


# --- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", ["1", "8"])
def test_a_million_tickets_take_no_more_memory_than_ten_thousand(
    environ: dict[str, str], name: str, tmp_path: Path, concurrency: str
) -> None:
    """Printed tickets are not kept: a hundred times as many tickets need the same memory."""
    out = tmp_path / "tickets"
    asked = ("--via", "dynamodb", "--concurrency", concurrency, "-p", name)
    few = peak(environ, out, "fetch", "10000", *asked, *OPTIONS)
    million = peak(environ, out, "fetch", "1000000", *asked, *OPTIONS)
    assert out.read_bytes().count(b"\n") == 1_000_000
    assert million < 60
    assert million < few + MORE_MIB


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("counter", "list")], ids=" ".join)
def test_thousands_of_counters_take_hardly_more_memory_than_one(
    environ: dict[str, str], many: Sequence[str], one: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Only the counters that are sorted together are kept in memory, however large the table is."""
    out = tmp_path / "counters"
    single = peak(environ, out, *command, "--local", "--stack", one)
    assert out.read_text().count("single") == 1
    thousands = peak(environ, out, *command, "--local", "--stack", MANY)
    assert out.read_text().count("of-many-" * 8) == len(many)
    assert thousands < single + MORE_MIB


# --- thousands of counters -------------------------------------------------------------------------


@LISTS
def test_every_counter_is_shown_once(ticketctl: Ticketctl, many: Sequence[str], command: tuple[str, ...]) -> None:
    """Each counter is one line, sorted by name within each page."""
    shown = ticketctl(*command, "--local", "--stack", MANY)
    assert (shown.returncode, shown.stderr) == (0, "")
    names = [line.split("\t")[0] for line in shown.stdout.splitlines()]
    assert names == [name for begin in range(0, len(many), PAGE) for name in sorted(many[begin : begin + PAGE])]


@LISTS
def test_all_counters_are_one_document(ticketctl: Ticketctl, many: Sequence[str], command: tuple[str, ...]) -> None:
    """With --json, all counters are one document on one line, however many pages were read."""
    shown = ticketctl(*command, "--json", "--local", "--stack", MANY)
    assert (shown.returncode, shown.stderr, shown.stdout.count("\n")) == (0, "", 1)
    document = json.loads(shown.stdout)
    assert list(document) == ["counters"]
    assert sorted(counter["partition"] for counter in document["counters"]) == sorted(many)
    assert {(counter["increment"], counter["region"]) for counter in document["counters"]} == {(1, REGION)}


@LISTS
def test_the_first_counters_are_shown_before_the_last_are_read(
    environ: dict[str, str], aws: Aws, many: Sequence[str], command: tuple[str, ...]
) -> None:
    """If a counter moves after the first line was printed, its new last ticket is shown."""
    counters = Counters(aws.client("dynamodb"), MANY, region=REGION)
    to = last_of(counters, many[-1]) + 1
    with started(environ, *command, "--local", "--stack", MANY) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        counters.advance(many[-1], to)  # the process waits, because a page does not fit into its pipe
        rows = [line.split("\t") for line in (first + process.stdout.read()).decode().splitlines()]
        assert process.wait(SECONDS) == 0
    assert [row[1] for row in rows if row[0] == many[-1]] == [str(to)]


@LISTS
def test_a_reader_that_takes_one_line_is_no_error(
    environ: dict[str, str], many: Sequence[str], command: tuple[str, ...]
) -> None:
    """If the pipe is closed after the first line, the command exits 141 with an empty stderr."""
    with started(environ, *command, "--local", "--stack", MANY) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().decode().split("\t")[0] == min(many[:PAGE])
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 141
