"""The ``counter`` commands: no counter goes back or leaves its lane, and a refused command changes nothing."""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import REGION, Connect, put
from tests.support.make_counter import alone, make_counter
from tests.support.minting import look, take
from ticketctl.aws.account import Aws
from ticketctl.counters.changes import adopt, advance, freeze, thaw
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.errors import (
    CounterFrozenError,
    CounterInvalidError,
    RefusedError,
    TicketctlError,
    UnknownCounterError,
    UsageError,
)
from ticketctl.models import Counter

BOTH = pytest.mark.parametrize("via", ["url", "dynamodb"])
MOST = 2**53 - 1
STACK = "counters"
OPTIONS = ("--local", "--stack", STACK)
_names = (f"counter-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module", autouse=True)
def stack(ticketctl: Ticketctl) -> None:
    """One stack for this module; each test has its own counter."""
    assert ticketctl("deploy", *OPTIONS).returncode == 0


@pytest.fixture
def name() -> str:
    """A counter that no other test uses."""
    return next(_names)


@pytest.fixture(scope="module")
def counters(aws: Aws) -> Counters:
    return Counters(aws.client("dynamodb"), STACK, region=REGION)


def made(name: str, last: int, *, increment: int = 1, ceiling: int = MOST, frozen: bool = False) -> Counter:
    """A counter that has not minted yet."""
    return Counter(
        partition=name,
        last=last,
        increment=increment,
        ceiling=ceiling,
        remaining=(ceiling - last) // increment,
        minted_at=None,
        frozen=frozen,
        region=REGION,
    )


def row(counter: Counter) -> str:
    numbers = (counter.last, counter.increment, counter.remaining)
    state = "frozen" if counter.frozen else "mints"
    return "\t".join([counter.partition, *map(str, numbers), "-", state, str(counter.offset), REGION]) + "\n"


def tell(counter: Counter, what: str) -> str:
    return f"{counter.partition} {what}, in {STACK} in the embedded AWS, {REGION}\n"


def refusal(call: Callable[[], object]) -> tuple[type[TicketctlError], str, str, int]:
    with pytest.raises(TicketctlError) as caught:
        call()
    error = caught.value
    return type(error), error.message, error.hint, error.exit_code


# --- create -----------------------------------------------------------------------------------------


def test_create(ticketctl: Ticketctl, name: str) -> None:
    """A counter is created with a lane and a ceiling and mints up to it; creating it again does not change it."""
    asked = ("--start", "12", "--increment", "10", "--offset", "2", "--ceiling", "39")
    counter = made(name, 2, increment=10, ceiling=39)
    assert ticketctl("counter", "create", name, *asked, *OPTIONS) == Result(0, row(counter), tell(counter, "created"))
    again = ticketctl("counter", "create", name, *asked, "--json", *OPTIONS)
    assert (again.returncode, json.loads(again.stdout), again.stderr) == (0, counter.as_dict() | {"created": False}, "")
    assert ticketctl("fetch", "3", "-p", name, *OPTIONS) == Result(0, "12\n22\n32\n", "")
    full = ticketctl("next", "-p", name, "--json", *OPTIONS)
    assert (full.returncode, full.stdout, json.loads(full.stderr)["error"]["code"]) == (6, "", "counter_exhausted")


@BOTH
@pytest.mark.parametrize(
    ("asked", "tickets"),
    [
        ({}, [1, 2, 3]),
        ({"start": 100}, [100, 101, 102]),
        ({"increment": 10}, [1, 11, 21]),
        ({"increment": 10, "offset": 3}, [3, 13, 23]),
        ({"increment": 2, "offset": 2, "start": 100}, [100, 102, 104]),
        ({"offset": 7}, [7, 8, 9]),
        ({"ceiling": 3}, [1, 2, 3]),
        ({"start": MOST - 2}, [MOST - 2, MOST - 1, MOST]),
        ({"increment": MOST, "ceiling": 1}, [1]),
    ],
    ids=str,
)
def test_first_tickets(
    connect: Connect, counters: Counters, name: str, via: str, asked: dict[str, int], tickets: list[int]
) -> None:
    """The first ticket is the start, by default the offset; the others follow in the lane."""
    assert make_counter(counters, name, **asked)[1] is True
    source = connect(stack=STACK, via=via, partition=name)
    assert [take(source, 1).last for _ in tickets] == tickets


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"increment": 5},
        {"offset": 3},
        {"offset": 8, "increment": 5},
        {"start": 13},
        {"start": 3, "offset": 3, "increment": 5},
        {"ceiling": 100},
    ],
    ids=str,
)
def test_create_again_as_it_is(counters: Counters, name: str, asked: dict[str, int]) -> None:
    """Creating an existing counter again with the same options does not change it."""
    make_counter(counters, name, start=3, offset=3, increment=5, ceiling=100)
    there = counters.advance(name, 28)
    assert make_counter(counters, name, **asked) == (there, False)


@pytest.mark.parametrize(
    "asked",
    [
        {"increment": 4},
        {"increment": 1},
        {"offset": 1},
        {"ceiling": 99},
        {"ceiling": MOST},
        {"start": 1000, "ceiling": 1000},
        {"start": 43, "increment": 5, "offset": 3},
    ],
    ids=str,
)
def test_create_again_as_another(counters: Counters, name: str, asked: dict[str, int]) -> None:
    """Creating an existing counter with other options is refused and does not change it."""
    there = make_counter(counters, name, start=33, offset=3, increment=5, ceiling=100)[0]
    kind, message, _, exit_code = refusal(lambda: make_counter(counters, name, **asked))
    assert (kind, message, exit_code) == (
        RefusedError,
        f"the counter {name!r} exists in {REGION} with other options: last ticket 28, increment 5, ceiling 100",
        6,
    )
    assert counters.get(name) == there


def test_create_off_its_lane(ticketctl: Ticketctl, counters: Counters, name: str) -> None:
    """A start outside the lane is refused, the error names the next number in it, and no counter is created."""
    refused = ticketctl("counter", "create", name, "--start", "4", "--increment", "10", "--offset", "2", *OPTIONS)
    assert refused == Result(
        6, "", "error: 4 is not in the lane 2, 12, 22, …\nhint: the next number that is: --start 12\n"
    )
    assert counters.get(name) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"start": 11, "ceiling": 10},
        {"start": MOST + 1},
        {"ceiling": MOST + 1},
        {"offset": MOST + 1},
        {"start": 10**40},
        {"increment": 10**40},
        {"increment": 10**40, "offset": 10**39},
    ],
    ids=str,
)
def test_create_without_room(counters: Counters, name: str, asked: dict[str, int]) -> None:
    """A counter that has no room for a ticket, or whose numbers JSON readers do not keep exact, is refused."""
    assert refusal(lambda: make_counter(counters, name, **asked))[3] == 6
    assert counters.get(name) is None


@pytest.mark.parametrize("option", ["start", "offset", "increment", "ceiling"])
@pytest.mark.parametrize("value", [0, -3, True, 2.0, "5"], ids=repr)
def test_create_with_an_invalid_number(counters: Counters, name: str, option: str, value: object) -> None:
    """From Python, too, an option that is not an integer of 1 or more is wrong usage, and no counter is created."""
    refused = refusal(lambda: make_counter(counters, name, **{option: value}))
    assert refused == (UsageError, f"{option} must be an integer of 1 or more, not {value!r}", "", 2)
    assert counters.get(name) is None


BAD_NAMES = ["", "n" * 256, "a\tb", "a\nb", "\x00", "\x7f", "\x85", "a\ud800", "receipt#", "receipt#x"]


@pytest.mark.parametrize("bad", BAD_NAMES, ids=repr)
def test_invalid_names(counters: Counters, bad: str) -> None:
    """A name has 1 to 255 characters, no control characters, and is not the key of a receipt."""
    calls: list[Callable[[], object]] = [
        lambda: make_counter(counters, bad),
        lambda: counters.advance(bad, 5),
        lambda: counters.freeze(bad),
        lambda: counters.thaw(bad),
        lambda: advance(alone(counters), bad, 5),
        lambda: adopt(alone(counters), [REGION], bad, 5),
        lambda: freeze(alone(counters), bad),
        lambda: thaw(alone(counters), bad),
    ]
    assert [(kind, exit_code) for kind, _, _, exit_code in map(refusal, calls)] == [(UsageError, 2)] * len(calls)


@pytest.mark.parametrize("bad", ["", "receipt#x"], ids=repr)
def test_invalid_names_on_the_command_line(ticketctl: Ticketctl, bad: str) -> None:
    """An invalid name is wrong usage, and no counter is created."""
    refused = ticketctl("counter", "create", bad, "--json", *OPTIONS)
    assert (refused.returncode, refused.stdout, json.loads(refused.stderr)["error"]["code"]) == (2, "", "usage")


@pytest.mark.parametrize("odd", ["n" * 255, "größe 😀", "a/b?c=d&e", " ", "Receipt#1", "receipt", "a#b"], ids=repr)
@BOTH
def test_odd_names(connect: Connect, counters: Counters, via: str, odd: str) -> None:
    """Any other text is a valid name, through both sources."""
    make_counter(counters, odd)
    source = connect(stack=STACK, via=via, partition=odd)
    minted = take(source, 1)
    assert (minted.partition, look(source).last) == (odd, minted.last)


# --- advance ----------------------------------------------------------------------------------------


def test_advance_back_is_refused(ticketctl: Ticketctl, counters: Counters, name: str) -> None:
    """A counter at 9 does not move back to 5: exit 6, and nothing changes."""
    make_counter(counters, name, start=10)
    before = counters.get(name)
    refused = ticketctl("counter", "advance", name, "--to", "5", *OPTIONS)
    assert refused == Result(6, "", f"error: the counter '{name}' is at 9; going back to 5 would mint numbers again\n")
    assert counters.get(name) == before == made(name, 9)


def test_advance(ticketctl: Ticketctl, connect: Connect, name: str) -> None:
    """``advance`` moves a counter past a number; moving it to its last ticket again is no error."""
    make_counter(connect(stack=STACK).counters(), name)
    moved = ticketctl("counter", "advance", name, "--to", "41", *OPTIONS)
    assert moved == Result(0, row(made(name, 41)), tell(made(name, 41), "is now past that number"))
    as_json = ticketctl("counter", "advance", name, "--to", "41", "--json", *OPTIONS)
    assert (json.loads(as_json.stdout), as_json.stderr) == (made(name, 41).as_dict(), "")
    tickets = [take(connect(stack=STACK, via=via, partition=name), 1).last for via in ("url", "dynamodb")]
    assert tickets == [42, 43]


def test_advance_in_a_lane(counters: Counters, name: str) -> None:
    """Only a number of the lane, up to the ceiling, can become the last ticket; otherwise nothing changes."""
    there = make_counter(counters, name, start=2, increment=10, offset=2, ceiling=52)[0]
    assert refusal(lambda: counters.advance(name, 13)) == (
        RefusedError,
        f"13 is not in the lane of {name!r}: …, -8, 2, …",
        f"ticketctl counter advance {name} --to 22",
        6,
    )
    beyond = (RefusedError, f"62 is beyond the ceiling 52 of {name!r}", "", 6)
    assert refusal(lambda: counters.advance(name, 62)) == beyond
    assert counters.get(name) == there
    assert counters.advance(name, 52).remaining == 0


def test_advance_hint_can_be_typed(counters: Counters, name: str) -> None:
    """The hint quotes a name for the shell."""
    odd = f"{name} of 'May'"
    make_counter(counters, odd, increment=10)
    hint = f"ticketctl counter advance '{name} of '\"'\"'May'\"'\"'' --to 11"
    assert refusal(lambda: counters.advance(odd, 5))[2] == hint


@pytest.mark.parametrize("to", [MOST + 1, 10**40])
def test_advance_beyond_what_is_exact(counters: Counters, name: str, to: int) -> None:
    """No counter moves beyond the largest integer that JSON readers keep exact."""
    make_counter(counters, name)
    assert refusal(lambda: counters.advance(name, to))[0] is RefusedError
    assert counters.get(name) == made(name, 0)


@pytest.mark.parametrize("command", [("advance", "--to", "5"), ("freeze",), ("thaw",)], ids=str)
def test_unknown(ticketctl: Ticketctl, name: str, command: tuple[str, ...]) -> None:
    """A change of an unknown counter does not create it: exit 5 and a hint how to create it."""
    refused = ticketctl("counter", command[0], name, *command[1:], *OPTIONS)
    hint = f"ticketctl counter create {name} --stack {STACK} --local"
    assert refused == Result(5, "", f"error: there is no counter '{name}'\nhint: {hint}\n")


def test_advance_under_load(connect: Connect, counters: Counters, name: str) -> None:
    """While eight threads mint, a counter is advanced many times: no number is issued twice or out of order."""
    make_counter(counters, name)
    minting = threading.Event()
    sources = [connect(stack=STACK, via="url" if n % 2 else "dynamodb", partition=name) for n in range(8)]

    def mint(source: RegionalStack) -> list[int]:
        tickets = []
        for _ in range(25):
            tickets.append(take(source, 1).last)
            minting.set()
        return tickets

    seen = [0]
    with ThreadPoolExecutor(len(sources)) as pool:
        working = [pool.submit(mint, source) for source in sources]
        minting.wait(60)
        while not all(each.done() for each in working):
            try:
                seen.append(counters.advance(name, seen[-1] + 1000).last)
            except RefusedError:  # a mint was faster, or kept changing the counter
                found = counters.get(name)
                assert found is not None
                seen.append(found.last)
        results = [each.result() for each in working]
    tickets = [ticket for result in results for ticket in result]
    assert len(set(tickets)) == len(tickets) == 200
    assert all(result == sorted(result) for result in results)
    assert seen == sorted(seen)
    assert len(seen) > 1
    # a number that was advanced to counts as issued
    assert not set(tickets) & {number for number in seen if number % 1000 == 0 and number > 200}


# --- adopt ------------------------------------------------------------------------------------------


def test_adopt_a_file(ticketctl: Ticketctl, connect: Connect, tmp_path: Path, name: str) -> None:
    """A new counter starts above the largest number of a file; a counter that is already beyond it does not change."""
    numbers = tmp_path / "numbers"
    numbers.write_bytes(b"\xef\xbb\xbf7\r\n41\r\n\r\n12\r\n")
    adopt = ("counter", "adopt", name, "--from-max", str(numbers), *OPTIONS)
    assert ticketctl(*adopt) == Result(0, row(made(name, 41)), tell(made(name, 41), "starts above 41"))
    assert ticketctl(*adopt).stderr == tell(made(name, 41), "was beyond 41 already")
    as_json = ticketctl(*adopt, "--json")
    assert (json.loads(as_json.stdout), as_json.stderr) == (made(name, 41).as_dict() | {"moved": False}, "")
    assert take(connect(stack=STACK, partition=name), 1).last == 42


def test_adopt_a_column_of_a_stream(environ: dict[str, str], connect: Connect, name: str) -> None:
    """``-`` reads stdin as it reads a file; ``--column`` selects a column of a CSV file."""
    process = subprocess.run(
        [sys.executable, "-m", "ticketctl", "counter", "adopt", name, "--from-max", "-", "--column", "id", *OPTIONS],
        env=environ,
        input="\ufeffid,name\r\n41,a\r\n7,größe\r\n",
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (
        0,
        row(made(name, 41)),
        tell(made(name, 41), "starts above 41"),
    )
    assert take(connect(stack=STACK, via="dynamodb", partition=name), 1).last == 42


@pytest.mark.parametrize("closed", [True, False])
def test_adopt_without_a_readable_stdin(
    environ: dict[str, str], counters: Counters, name: str, *, closed: bool
) -> None:
    """If stdin is closed, or is not UTF-8, the error says so, and no counter is created."""
    command = [sys.executable, "-m", "ticketctl", "counter", "adopt", name, "--from-max", "-", *OPTIONS]
    process = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {"<&-" if closed else ""}', *command],
        env=environ,
        input=b"\xff\xfe7\n",
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (3, b"")
    assert process.stderr.startswith(b"error: stdin cannot be read: ")
    assert counters.get(name) is None


@pytest.mark.parametrize(
    ("content", "column", "code", "exit_code"),
    [
        (None, None, "file", 3),
        (b"\xff\xfe7\n", None, "file", 3),
        (b"41\nseven\n", None, "counter_invalid", 6),
        (b"id\n7\n", "order", "counter_invalid", 6),
    ],
    ids=str,
)
def test_adopt_an_invalid_file(
    ticketctl: Ticketctl,
    counters: Counters,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    column: str | None,
    code: str,
    exit_code: int,
) -> None:
    """A file that is unreadable, or that has no number to start above, creates no counter."""
    if content is not None:
        (tmp_path / "numbers").write_bytes(content)
    extra = () if column is None else ("--column", column)
    adopt = ("counter", "adopt", name, "--from-max", str(tmp_path / "numbers"), *extra, "--json", *OPTIONS)
    refused = ticketctl(*adopt)
    error = json.loads(refused.stderr)["error"]
    assert (error["code"], error["exit_code"], refused.returncode, refused.stdout) == (code, exit_code, exit_code, "")
    assert counters.get(name) is None


@pytest.mark.parametrize(("largest", "last"), [(0, 7), (7, 7), (8, 7), (16, 7), (17, 17), (18, 17), (27, 27)])
def test_adopt_in_a_lane(counters: Counters, name: str, largest: int, last: int) -> None:
    """An existing counter moves just far enough that its next ticket is above the number, and never back."""
    make_counter(counters, name, start=17, increment=10, offset=7)
    assert adopt(alone(counters), [REGION], name, largest) == ([made(name, last, increment=10)], last > 7)
    assert last + 10 > largest


@pytest.mark.parametrize(("largest", "first"), [(-5, 1), (0, 1), (1, 2), (41, 42)])
def test_adopt_a_new_counter(counters: Counters, name: str, largest: int, first: int) -> None:
    """A new counter starts with the next number of the stack's lane."""
    assert adopt(alone(counters), [REGION], name, largest) == ([made(name, first - 1)], True)


def test_adopt_into_the_lane_of_the_stack(connect: Connect, name: str) -> None:
    """A counter that starts above 41 is in the stack's lane 2, 5, 8, …."""
    members = alone(connect(stack=STACK).counters(), Lane(2, 3))
    assert adopt(members, [REGION], name, 41) == ([made(name, 41, increment=3)], True)
    assert take(connect(stack=STACK, partition=name), 2).tickets == range(44, 48, 3)


def test_adopt_beyond_the_ceiling(counters: Counters, name: str) -> None:
    """A counter does not start above numbers that are beyond its ceiling."""
    there = make_counter(counters, name, ceiling=40)[0]
    assert refusal(lambda: adopt(alone(counters), [REGION], name, 41))[0] is RefusedError
    assert counters.get(name) == there


# --- freeze, thaw, list ------------------------------------------------------------------------------


def test_freeze_and_thaw(ticketctl: Ticketctl, connect: Connect, name: str) -> None:
    """A frozen counter mints through no source, and the error prints how to thaw it; after a thaw it mints again."""
    make_counter(connect(stack=STACK).counters(), name)
    frozen = made(name, 0, frozen=True)
    assert ticketctl("counter", "freeze", name, *OPTIONS) == Result(0, row(frozen), tell(frozen, "is frozen"))
    assert connect(stack=STACK).counters().freeze(name) == frozen
    thaw = f"ticketctl counter thaw {name} --stack {STACK} --local"
    for via in ("url", "dynamodb"):
        refused = ticketctl("next", "-p", name, "--via", via, *OPTIONS)
        assert refused == Result(6, "", f"error: The counter '{name}' is frozen.\nhint: {thaw}\n")
        assert look(connect(stack=STACK, via=via, partition=name)) == frozen
    assert ticketctl(*thaw.split()[1:]) == Result(0, row(made(name, 0)), tell(made(name, 0), "mints again"))
    assert connect(stack=STACK).counters().thaw(name) == made(name, 0)
    assert [take(connect(stack=STACK, via=via, partition=name), 1).last for via in ("url", "dynamodb")] == [1, 2]


@BOTH
def test_frozen_under_load(connect: Connect, counters: Counters, name: str, via: str) -> None:
    """A client that knows the counter's lane cannot mint from it while it is frozen."""
    make_counter(counters, name)
    source = connect(stack=STACK, via=via, partition=name)
    take(source, 3)
    counters.freeze(name)
    with pytest.raises(CounterFrozenError):
        take(source, 1)
    assert counters.advance(name, 10).frozen is True
    counters.thaw(name)
    assert take(source, 1).last == 11


def test_list_has_no_receipts(ticketctl: Ticketctl, connect: Connect, deployed: str) -> None:
    """List and status show every counter in the order of names, and no receipts."""
    options = ("--local", "--stack", deployed)
    counters = connect(stack=deployed).counters()
    for name in ("b", "a", "receipts"):
        make_counter(counters, name)
    counters.freeze("b")
    take(connect(stack=deployed, via="dynamodb", partition="a"), 1, key="k")
    shown = ticketctl("counter", "list", *options)
    rows = [(*line.split("\t")[:2], line.split("\t")[5]) for line in shown.stdout.splitlines()]
    assert (shown.returncode, rows, shown.stderr) == (
        0,
        [("a", "1", "mints"), ("b", "0", "frozen"), ("receipts", "0", "mints")],
        "",
    )
    assert ticketctl("status", *options) == shown
    document = json.loads(ticketctl("counter", "list", "--json", *options).stdout)
    assert [counter["partition"] for counter in document["counters"]] == ["a", "b", "receipts"]


@BOTH
def test_a_receipt_is_no_counter(connect: Connect, via: str, name: str) -> None:
    """A receipt can be neither shown nor minted from like a counter."""
    take(connect(stack=STACK, via=via), 1, key=name)
    receipt = connect(stack=STACK, via=via, partition=f"receipt#{name}")
    calls: list[Callable[[], object]] = [
        lambda: look(receipt),
        lambda: take(receipt, 1),
        lambda: take(receipt, 1, key="k"),
    ]
    assert [(kind, exit_code) for kind, _, _, exit_code in map(refusal, calls)] == [(UsageError, 2)] * 3


def test_a_damaged_item(aws: Aws, counters: Counters, name: str) -> None:
    """An item without its last ticket is not changed by any command, and ``counter list`` warns about it."""
    item = {"partition": {"S": name}, "note": {"S": "mine"}}
    dynamodb = aws.client("dynamodb")
    dynamodb.put_item(TableName=STACK, Item=item)
    try:
        for change in (lambda: make_counter(counters, name), lambda: counters.advance(name, 5)):
            assert refusal(change)[0] is CounterInvalidError
        assert refusal(lambda: counters.freeze(name))[0] in (CounterInvalidError, UnknownCounterError)
        warnings: list[str] = []
        assert name not in [counter.partition for counter in counters.all(warnings.append)]
        assert warnings == [f"The item of the counter {name!r} has no integer in 'hand_crafted_int'."]
        assert dynamodb.get_item(TableName=STACK, Key={"partition": {"S": name}})["Item"] == item
    finally:
        counters.remove(name)


@BOTH
@pytest.mark.parametrize("count", [1, 10])
def test_a_counter_below_zero(connect: Connect, aws: Aws, counters: Counters, name: str, via: str, count: int) -> None:
    """If an item was edited to be below 0, nothing is spent until the counter is advanced."""
    put(aws, STACK, name, hand_crafted_int=-6)
    source = connect(stack=STACK, via=via, partition=name)
    with pytest.raises(CounterInvalidError, match="is below 0: its next number, -5, is no ticket"):
        take(source, count)
    assert counters.advance(name, 3).last == 3
    assert take(source, count).first == 4


@pytest.mark.parametrize("place", ["--stack", "--table"])
def test_a_damaged_default_counter(ticketctl: Ticketctl, aws: Aws, deployed: str, place: str) -> None:
    """A damaged default counter stops only the commands that need it."""
    dynamodb, options = aws.client("dynamodb"), ("--local", place, deployed)
    damaged = {"partition": {"S": REGION}, "hand_crafted_int": {"S": "41"}}
    dynamodb.put_item(TableName=deployed, Item=damaged)
    for command in ("create orders", "advance orders --to 7", "freeze orders", "thaw orders", "create orders"):
        assert ticketctl("counter", *command.split(), *options).returncode == 0, command
    assert ticketctl("next", "-p", "orders", *options).stdout == "8\n"
    listed = ticketctl("counter", "list", *options)
    assert (listed.returncode, listed.stdout.split("\t")[:2]) == (0, ["orders", "8"])
    assert "has no integer in 'hand_crafted_int'" in listed.stderr
    for command in (f"create {REGION}", f"advance {REGION} --to 50", f"freeze {REGION}", f"thaw {REGION}"):
        refused = ticketctl("counter", *command.split(), *options, "--json")
        assert (refused.returncode, json.loads(refused.stderr)["error"]["code"]) == (6, "counter_invalid"), command
    assert dynamodb.get_item(TableName=deployed, Key={"partition": {"S": REGION}})["Item"] == damaged


def test_little_is_left(ticketctl: Ticketctl, connect: Connect, deployed: str) -> None:
    """If less than a tenth is left, status and list warn on stderr; at exactly a tenth they do not."""
    options = ("--local", "--stack", deployed)
    counters = connect(stack=deployed).counters()
    make_counter(counters, "enough", ceiling=100)
    counters.advance("enough", 90)
    make_counter(counters, "little", ceiling=100)
    counters.advance("little", 91)
    make_counter(counters, "wide", increment=10, ceiling=1000)
    counters.advance("wide", 911)
    warnings = "warning: the counter little has 9 tickets left\nwarning: the counter wide has 8 tickets left\n"
    for command in (("status",), ("counter", "list")):
        shown = ticketctl(*command, *options)
        assert (shown.returncode, shown.stderr) == (0, warnings)
    one = ticketctl("status", "-p", "little", "--json", *options)
    assert (json.loads(one.stdout)["remaining"], json.loads(one.stderr)) == (
        9,
        {"warning": "the counter little has 9 tickets left"},
    )
