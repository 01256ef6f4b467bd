"""Any sequence of operations against a model: no duplicates, no counter moves back, and errors change nothing.

Many sequences run on the model of a table, which ``test_model_table.py`` compares with the embedded AWS, and a few on
the embedded AWS. They are the same in every run; ``TICKETCTL_TEST_EFFORT=60`` tries more, and new ones in each run.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support.effort import DERANDOMIZED, times
from tests.support.make_counter import make_counter
from tests.support.minting import requested
from tests.support.model_table import Item, ModelTable
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.table import Counters
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine
from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    CounterInvalidError,
    IdempotencyConflictError,
    NotMintedError,
    OutcomeUnknownError,
    RefusedError,
    TicketctlError,
    UnknownCounterError,
)
from ticketctl.handler import handler
from ticketctl.minting.dynamodb import DynamoDBSource
from ticketctl.minting.source import RETRY_KEY
from ticketctl.models import Block, Counter
from ticketctl.settings import resolve

MAX = 2**53 - 1
OFFSET, STEP = 2, 2  # the lane in which the default counter starts
DAY = 24 * 60 * 60
REMEMBERED = 16  # keys per counter
_runs = itertools.count(1)

Answer = Block | Counter | tuple[Counter, bool] | TicketctlError
Refusal = type[TicketctlError]


# --- the model -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A key that a counter remembers, and the block that it minted."""

    digest: bytes
    count: int
    increment: int
    last: int


@dataclass(frozen=True)
class Model:
    """The expected state of a counter; ``keys`` are its last 16 keys, newest first."""

    last: int
    increment: int
    ceiling: int = MAX
    frozen: bool = False
    keys: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """The block of a typed key, valid until ``expires``."""

    block: Block
    expires: int


class Expected(NamedTuple):
    """The expected result of a mint, and the expected table after the counter was written and after the receipt was."""

    told: Block | Refusal
    minted: "World"
    done: "World"


@dataclass(frozen=True)
class World:
    """The expected table; ``default`` is the name of its default counter."""

    default: str
    now: int
    counters: Mapping[str, Model]
    receipts: Mapping[str, Receipt]

    def mint(self, name: str, key: str, count: int) -> Expected:
        told = self.find_receipt(name, key, count)
        if told is not None:
            return Expected(told, self, self)
        told, minted = self.take(name, key, count)
        if not isinstance(told, Block):
            return Expected(told, minted, minted)
        told, done = minted.write_receipt(key, told)
        return Expected(told, minted, done)

    def find_receipt(self, name: str, key: str, count: int) -> Block | Refusal | None:
        receipt = self.receipts.get(key)
        if receipt is None or receipt.expires <= self.now:
            return None
        if (receipt.block.partition, receipt.block.count) != (name, count):
            return IdempotencyConflictError
        return replace(receipt.block, replayed=True)

    def take(self, name: str, key: str, count: int) -> "tuple[Block | Refusal, World]":
        """Find the key in the counter's register; otherwise take tickets."""
        model, digest = self.counters.get(name), digest_of(key, self.now)
        for entry in model.keys if model else ():
            if entry.digest == digest:
                return block_of(name, entry, replayed=True) if entry.count == count else IdempotencyConflictError, self
        if model is None and name == self.default:
            model = Model(OFFSET - STEP, STEP)
        if model is None:
            return UnknownCounterError, self
        if model.frozen:
            return CounterFrozenError, self
        if model.last + model.increment < 1:
            return CounterInvalidError, self
        last = model.last + count * model.increment
        if last > model.ceiling:
            return CounterExhaustedError, self
        entry = Entry(digest, count, model.increment, last)
        model = replace(model, last=last, keys=(entry, *model.keys)[:REMEMBERED])
        return block_of(name, entry), self.having(name, model)

    def write_receipt(self, key: str, block: Block) -> "tuple[Block | Refusal, World]":
        """Write the receipt of a typed key; if another request wrote it first, return that request's block."""
        if key.startswith(RETRY_KEY):
            return block, self
        faster = self.find_receipt(block.partition, key, block.count)
        if faster is None:
            receipt = Receipt(replace(block, replayed=False), self.now + DAY)
            return block, replace(self, receipts={**self.receipts, key: receipt})
        if isinstance(faster, Block) and faster.first != block.first:
            return replace(faster, possible_gaps=(self.default,)), self
        return block if isinstance(faster, Block) else faster, self

    def having(self, name: str, model: Model) -> "World":
        return replace(self, counters={**self.counters, name: model})


def digest_of(key: str, now: int) -> bytes:
    text = key if key.startswith(RETRY_KEY) else f"{now // DAY} {key}"
    return sha256(text.encode()).digest()[:12]


def block_of(name: str, entry: Entry, *, replayed: bool = False) -> Block:
    first = entry.last - (entry.count - 1) * entry.increment
    return Block(name, first, entry.last, entry.count, entry.increment, replayed=replayed)


# --- the table -------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table, and how to read some of its items."""

    client: Any
    name: str
    read: Callable[[list[str]], list[Item]]


def in_memory() -> Table:
    model = ModelTable()
    return Table(model, model.name, lambda names: [model.rows[name] for name in names if name in model.rows])


@pytest.fixture(scope="module")
def deployed(environ: dict[str, str], engine: Engine) -> Iterator[Table]:
    """One table for the module; each run has its own counters."""
    assert engine.port
    options = resolve({"local": True, "timeout": 60, "stack": "properties"}, environ)
    with RegionalStack(Session(options, environ=environ)) as connection:
        client = connection.session.aws.client("dynamodb", retries=0)
        table = connection.locator.look_up().table

        def read(names: list[str]) -> list[Item]:
            keys = [{"partition": {"S": name}} for name in names]
            answer = client.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
            found: list[Item] = answer["Responses"][table]
            return found

        yield Table(client, table, read)


def model_of(item: Item) -> Model:
    keys: list[Entry] = []
    for slot in "0123456789abcdef":
        entry = item.get("k" + slot, {}).get("B", b"-")
        if entry != b"-":
            count, increment = int.from_bytes(entry[12:14], "big"), int.from_bytes(entry[14:], "big")
            keys.append(Entry(entry[:12], count, increment, number(item, "l" + slot)))
    ceiling = number(item, "ceiling", MAX)
    return Model(number(item, "hand_crafted_int"), number(item, "increment", 1), ceiling, "frozen" in item, tuple(keys))


def receipt_of(item: Item) -> Receipt:
    first, last, count, increment = (number(item, name) for name in ("first", "last", "count", "increment"))
    return Receipt(Block(item["counter"]["S"], first, last, count, increment), number(item, "expires_at"))


def number(item: Item, name: str, default: int | None = None) -> int:
    return default if default is not None and name not in item else int(item[name]["N"])


class Faulty:
    """A client whose calls meet the ``fates`` in turn; after those, all calls are answered.

    ``meanwhile`` runs once, before the first write of an item whose key begins with ``interrupted``.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.put_item = client.put_item
        self.fates: list[str] = []
        self.met: set[str] = set()
        self.interrupted = ""
        self.meanwhile: Callable[[], None] | None = None

    def get_item(self, **request: Any) -> Any:
        return self._call(self.client.get_item, request)

    def update_item(self, **request: Any) -> Any:
        if self.meanwhile is not None and request["Key"]["partition"]["S"].startswith(self.interrupted):
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return self._call(self.client.update_item, request)

    def _call(self, call: Callable[..., Any], request: dict[str, Any]) -> Any:
        fate = self.fates.pop(0) if self.fates else "answered"
        self.met.add(fate)
        if fate == "not sent":
            raise EndpointConnectionError(endpoint_url="http://tickets")
        if fate == "reply lost":
            with suppress(ClientError):
                call(**request)
            raise ReadTimeoutError(endpoint_url="http://tickets")
        return call(**request)


# --- the machine -----------------------------------------------------------------------------------

NAMES = st.sampled_from([*["orders"] * 6, "default", "users"])  # mostly the same counter, so that operations meet
TYPED = ("k1", "k2", "k3")
KEYS = st.sampled_from([*TYPED, "once:r1", "once:r2"])
COUNTS = st.sampled_from([1, 1, 2, 50])
CALLERS = st.sampled_from([0, 0, 0, 1])
FATES = st.sampled_from(
    [
        *([[]] * 6),
        ["reply lost"],
        ["not sent"],
        *(["answered", fault] for fault in ("reply lost", "not sent")),
        *(["answered", "answered", *faults] for faults in (["reply lost"], ["reply lost"] * 2, ["not sent"] * 2)),
        ["answered", "answered", "not sent", "reply lost"],
    ]
)


def attempt(call: Callable[[], Answer]) -> Answer:
    """Return the answer or the error of an operation."""
    try:
        return call()
    except TicketctlError as error:
        return error


def check(told: Answer, expected: Block | Refusal) -> None:
    if isinstance(expected, Block):
        assert told == expected
    else:
        assert type(told) is expected


class Tickets(RuleBasedStateMachine):
    """Two callers with their cached lanes, and an administrator of the counters, all with one faulty client."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.run = f"run-{next(_runs)}-"
        self.true, self.table, self.read = table
        self.faulty = Faulty(self.true)
        self.callers = [self._source(self.faulty) for _ in range(2)]
        self.rival = self._source(self.true)
        self.keeper = Counters(self.faulty, self.table, region="us-east-1")
        self.world = World(self.run + "default", 4_000_000_000, {}, {})
        self.holders: dict[tuple[str, int], str] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.fresh = itertools.count(1)

    def _source(self, client: Any) -> DynamoDBSource:
        send = sdk_sender(client, "the table")
        return DynamoDBSource(
            lambda deadline: send,
            self.table,
            region=self.run + "default",
            increment=STEP,
            offset=OFFSET,
            clock=lambda: self.world.now,
        )

    def _key(self, key: str) -> str:
        """Return a key that no other run uses, because all runs share a table."""
        return RETRY_KEY + self.run + key.removeprefix(RETRY_KEY) if key.startswith(RETRY_KEY) else self.run + key

    def _fresh_key(self) -> str:
        return self._key(f"{RETRY_KEY}fresh {next(self.fresh)}")

    # --- state ---

    def _stored(self) -> World:
        names = [self.run + name for name in ("default", "orders", "users")]
        receipts = [handler.RECEIPT + self.run + key for key in TYPED]
        found = {item["partition"]["S"]: item for item in self.read([*names, *receipts])}
        return replace(
            self.world,
            counters={name: model_of(found[name]) for name in names if name in found},
            receipts={
                name.removeprefix(handler.RECEIPT): receipt_of(found[name]) for name in receipts if name in found
            },
        )

    def _settle(self, *allowed: World) -> None:
        """Check that the table is one of the ``allowed`` worlds and that no counter moved back."""
        stored, before = self._stored(), self.world
        assert stored in allowed
        assert all(stored.counters[name].last >= model.last for name, model in before.counters.items())
        self.world = stored

    def _settle_counter(self, name: str, told: Answer, after: Model | None) -> None:
        """Check that the counter is as ``after``, or unchanged after an error that says so."""
        world = self.world if after is None else self.world.having(name, after)
        if isinstance(told, OutcomeUnknownError):
            self._settle(self.world, world)
        else:
            self._settle(self.world if isinstance(told, TicketctlError) else world)

    def _check_refusal(self, told: Answer, expected: Block | Refusal) -> None:
        """Check that an error is the expected one, or the result of a fault."""
        if isinstance(told, OutcomeUnknownError | NotMintedError):
            self._check_fault(told)
        else:
            check(told, expected)

    def _hold(self, block: Block, key: str) -> None:
        """Check that each ticket belongs to one key, and that a ticket that is not a replay is new."""
        for ticket in block.tickets:
            place = (block.partition, ticket)
            assert block.replayed or place not in self.holders
            assert self.holders.setdefault(place, key) == key

    def _check_fault(self, told: Answer) -> None:
        """Check that a fault explains the error; only a lost reply explains an unknown outcome."""
        faults = {"reply lost"} if isinstance(told, OutcomeUnknownError) else {"reply lost", "not sent"}
        assert self.faulty.met & faults

    def _meet(self, fates: list[str], call: Callable[[], Answer]) -> Answer:
        self.faulty.fates, self.faulty.met = list(fates), set()
        told = attempt(call)
        self.faulty.fates = []
        return told

    # --- minting ---

    @initialize(increment=st.integers(1, 4), ceiling=st.sampled_from([50, 200, MAX, MAX]), users=st.booleans())
    def begin(self, increment: int, ceiling: int, users: bool) -> None:
        """Most runs begin with existing counters; the default one starts with its first mint."""
        for name in ("orders", "users") if users else ("orders",):
            make_counter(self.keeper, self.run + name, increment=increment, ceiling=ceiling)
        self.world = self._stored()

    @rule(name=NAMES, key=st.none() | KEYS, count=COUNTS, caller=CALLERS, fates=FATES, again=st.booleans())
    def mint(self, name: str, key: str | None, count: int, caller: int, fates: list[str], again: bool) -> None:
        """Mint; the caller may immediately retry with the same key."""
        request = (self.run + name, self._fresh_key() if key is None else self._key(key), count)
        self._mint(*request, caller, fates)
        if again:
            self._mint(*request, caller, [])

    @rule(back=st.integers(0, 3) | st.integers(14, 18), caller=CALLERS, fates=FATES)
    def ask_again(self, back: int, caller: int, fates: list[str]) -> None:
        """Send an earlier request again, as after a lost answer."""
        if back < len(self.asked):
            self._mint(*self.asked[-1 - back], caller, fates)

    @rule(name=NAMES, others=st.integers(13, 17), caller=CALLERS)
    def mint_others(self, name: str, others: int, caller: int) -> None:
        """Mint with about as many keys as a counter remembers."""
        for _ in range(others):
            self._mint(self.run + name, self._fresh_key(), 1, caller, [])

    def _mint(self, name: str, key: str, count: int, caller: int, fates: list[str]) -> None:
        self.asked.append((name, key, count))
        before, expected = self.world, self.world.mint(name, key, count)
        told = self._meet(fates, lambda: self._take(self.callers[caller], name, key, count))
        if isinstance(told, Block):
            check(replace(told, receipt_missing=False), expected.told)
            self._hold(told, key)
            if told.receipt_missing:
                self._check_fault(told)
            self._settle(expected.done, *((expected.minted,) if told.receipt_missing else ()))
        else:
            self._check_refusal(told, expected.told)
            self._settle(before, *((expected.minted,) if isinstance(told, OutcomeUnknownError) else ()))

    @rule(
        moment=st.sampled_from(["before the mint", "before the receipt"]),
        name=NAMES,
        other=NAMES,
        key=st.sampled_from(TYPED),
        count=st.integers(1, 2),
        other_count=st.integers(1, 2),
        between=st.sampled_from([0, 0, REMEMBERED]),
        caller=CALLERS,
    )
    def race_with_one_key(
        self,
        moment: Literal["before the mint", "before the receipt"],
        name: str,
        other: str,
        key: str,
        count: int,
        other_count: int,
        between: int,
        caller: int,
    ) -> None:
        """While a caller mints, others mint, one of them with the same key, from the same or another counter."""
        name, other, key, world = self.run + name, self.run + other, self._key(key), self.world
        if world.find_receipt(name, key, count) is not None:
            return
        told: Block | Refusal | None = None
        if moment == "before the receipt":
            told, world = world.take(name, key, count)
            if not isinstance(told, Block):
                return
        requests = [(name, self._fresh_key(), 1) for _ in range(between)] + [(other, key, other_count)]
        rivals: list[tuple[str, Block | Refusal]] = []
        for request in requests:
            expected = world.mint(*request)
            world = expected.done
            rivals.append((request[1], expected.told))
        if told is None:
            told, world = world.take(name, key, count)
        if isinstance(told, Block):
            told, world = world.write_receipt(key, told)
        self._race(moment, (name, key, count), told, requests, rivals, caller)
        self._settle(world)
        self.asked.append((name, key, count))

    def _race(
        self,
        moment: str,
        ours: tuple[str, str, int],
        expected: Block | Refusal,
        requests: list[tuple[str, str, int]],
        rivals: list[tuple[str, Block | Refusal]],
        caller: int,
    ) -> None:
        answers: list[Answer] = []

        def meanwhile() -> None:
            answers.extend(attempt(lambda: self._take(self.rival, *request)) for request in requests)  # noqa: B023 - called at once

        self.faulty.meanwhile = meanwhile
        self.faulty.interrupted = self.run if moment == "before the mint" else handler.RECEIPT
        told = self._meet([], lambda: self._take(self.callers[caller], *ours))
        for answer, (_, rival) in zip(answers, rivals, strict=True):
            check(answer, rival)
        check(told, expected)
        keyed = [(told, ours[1]), *((answer, key) for answer, (key, _) in zip(answers, rivals, strict=True))]
        blocks = [(answer, key) for answer, key in keyed if isinstance(answer, Block)]
        for block, key in sorted(blocks, key=lambda pair: pair[0].replayed):
            self._hold(block, key)

    @rule(hours=st.sampled_from([1, 12, 24]))
    def wait(self, hours: int) -> None:
        self.world = replace(self.world, now=self.world.now + hours * 60 * 60)

    def _take(self, source: DynamoDBSource, name: str, key: str, count: int) -> Block:
        return source.mint(requested(count, key, name), Deadline(5))

    # --- administration ---

    @rule(
        name=NAMES,
        start=st.none() | st.integers(1, 60),
        offset=st.none() | st.integers(1, 4),
        increment=st.none() | st.integers(1, 4),
        ceiling=st.none() | st.integers(1, 300) | st.sampled_from([MAX, MAX + 1]),
        fates=FATES,
    )
    def create(
        self,
        name: str,
        start: int | None,
        offset: int | None,
        increment: int | None,
        ceiling: int | None,
        fates: list[str],
    ) -> None:
        name = self.run + name
        before, step, residue = self.world.counters.get(name), increment or 1, offset or 1
        first, limit = residue if start is None else start, MAX if ceiling is None else ceiling
        sound = (first - residue) % step == 0 and first <= limit <= MAX
        made = Model(first - step, step, limit) if sound and before is None else before
        told = self._meet(
            fates,
            lambda: make_counter(self.keeper, name, start=start, offset=offset, increment=increment, ceiling=ceiling),
        )
        if isinstance(told, tuple):
            assert sound
            assert told[1] == (before is None)
        else:
            self._check_refusal(told, RefusedError)
            if isinstance(told, RefusedError):
                assert before is not None or not sound
        if isinstance(told, NotMintedError) and made is not None:  # the fault may have hit a read after the write
            self._settle(self.world, self.world.having(name, made))
        else:
            self._settle_counter(name, told, made)

    @rule(name=NAMES, steps=st.integers(-3, 40), beside=st.sampled_from([0, 0, 0, 1, -1]), fates=FATES)
    def advance(self, name: str, steps: int, beside: int, fates: list[str]) -> None:
        name = self.run + name
        before = self.world.counters.get(name)
        to = steps * (before.increment if before else 1) + (before.last if before else 0) + beside
        after, refusal = before, UnknownCounterError if before is None else RefusedError
        if before and to >= before.last and (to - before.last) % before.increment == 0 and to <= before.ceiling:
            after = replace(before, last=to)
        told = self._meet(fates, lambda: self.keeper.advance(name, to))
        if isinstance(told, Counter):
            assert after is not None
            assert (told.last, after.last) == (to, to)
        else:
            self._check_refusal(told, refusal)
        self._settle_counter(name, told, after)

    @rule(name=NAMES, frozen=st.booleans(), fates=FATES)
    def freeze_or_thaw(self, name: str, frozen: bool, fates: list[str]) -> None:
        name = self.run + name
        before, switch = self.world.counters.get(name), self.keeper.freeze if frozen else self.keeper.thaw
        after = replace(before, frozen=frozen) if before else None
        told = self._meet(fates, lambda: switch(name))
        if isinstance(told, Counter):
            assert told.frozen == frozen
        else:
            self._check_refusal(told, UnknownCounterError)
        self._settle_counter(name, told, after)

    @rule(name=NAMES, increment=st.integers(1, 4), room=st.none() | st.integers(-5, 100))
    def change_lane_by_hand(self, name: str, increment: int, room: int | None) -> None:
        """Change the increment or ceiling of the item by hand; callers still know the old ones."""
        name = self.run + name
        if (before := self.world.counters.get(name)) is None:
            return
        after = replace(before, increment=increment, ceiling=before.ceiling if room is None else before.last + room)
        self.true.update_item(
            TableName=self.table,
            Key={"partition": {"S": name}},
            UpdateExpression="SET #i = :i, #c = :c",
            ExpressionAttributeNames={"#i": "increment", "#c": "ceiling"},
            ExpressionAttributeValues={":i": {"N": str(after.increment)}, ":c": {"N": str(after.ceiling)}},
        )
        self._settle(self.world.having(name, after))


def run(table: Callable[[], Table], examples: int) -> None:
    run_state_machine_as_test(
        lambda: Tickets(table()),  # type: ignore[arg-type] # what makes a machine will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            derandomize=DERANDOMIZED,
            print_blob=True,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )


def test_no_sequence_of_operations_issues_a_number_twice_or_moves_a_counter_back() -> None:
    """Mints with keys, created, advanced and frozen counters, lost replies and changed lanes, in any order."""
    run(in_memory, times(60))


def test_the_embedded_aws_does_the_same(deployed: Table) -> None:
    """A few such sequences run on a real table."""
    run(lambda: deployed, times(2))
