"""Any sequence of operations against a plain model: no number twice, no counter back, no refusal that changes a thing.

The sequences are the same in every run; ``TICKETCTL_TEST_EFFORT=60`` tries more, and others each time.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support.effort import DERANDOMIZED, times
from tests.support.make_counter import make_counter
from tests.support.minting import requested
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.table import Counters
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine
from ticketctl.errors import (
    CounterExhaustedError,
    CounterFrozenError,
    IdempotencyConflictError,
    NotMintedError,
    OutcomeUnknownError,
    RefusedError,
    TicketctlError,
    UnknownCounterError,
)
from ticketctl.handler import handler
from ticketctl.minting.dynamodb import DynamoDBSource
from ticketctl.models import Block, Counter
from ticketctl.settings import resolve

MAX = 2**53 - 1
OFFSET, STEP = 2, 2  # the lane in which the default counter comes to life
DAY = 24 * 60 * 60
_runs = itertools.count(1)

Answer = Block | Counter | tuple[Counter, bool] | TicketctlError
Refusal = type[TicketctlError]


class Deployed(NamedTuple):
    """The table of a deployed stack."""

    client: Any
    table: str


@pytest.fixture(scope="module")
def deployed(environ: dict[str, str], engine: Engine) -> Iterator[Deployed]:
    """One table for the module; each run has counters of its own in it."""
    assert engine.port
    options = resolve({"local": True, "timeout": 60, "stack": "properties"}, environ)
    with RegionalStack(Session(options, environ=environ)) as connection:
        yield Deployed(connection.session.aws.client("dynamodb", retries=0), connection.locator.look_up().table)


class Faulty:
    """A client whose calls meet the ``fates`` in turn, then are all answered; ``meanwhile`` runs before a PutItem."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.fates: list[str] = []
        self.met: set[str] = set()
        self.meanwhile: Callable[[], None] | None = None

    def get_item(self, **request: Any) -> Any:
        return self._call(self.client.get_item, request)

    def update_item(self, **request: Any) -> Any:
        return self._call(self.client.update_item, request)

    def put_item(self, **request: Any) -> Any:
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            meanwhile()
        return self._call(self.client.put_item, request)

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


@dataclass(frozen=True)
class Model:
    """A counter as it must be."""

    last: int
    increment: int
    ceiling: int = MAX
    frozen: bool = False


@dataclass(frozen=True)
class Receipt:
    """What a key took, until ``expires``."""

    block: Block
    expires: int


NAMES = st.sampled_from([*["orders"] * 6, "default", "users"])  # mostly one, so that operations meet
KEYS = st.sampled_from(["k1", "k2", "k3"])
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
    """The answer or the error of an operation."""
    try:
        return call()
    except TicketctlError as error:
        return error


class Tickets(RuleBasedStateMachine):
    """Two callers, each with what it has learned of lanes, and the counters' keeper, all over one faulty client."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.prefix = f"run {next(_runs)} "
        self.true, self.table = deployed
        self.now = 4_000_000_000
        self.faulty = Faulty(self.true)
        self.callers = [self._source(self.faulty) for _ in range(2)]
        self.rival = self._source(self.true)
        self.keeper = Counters(self.faulty, self.table, region="us-east-1")
        self.models: dict[str, Model] = {}
        self.receipts: dict[str, Receipt] = {}
        self.issued: dict[str, set[int]] = {}
        self.asked: tuple[str, str, int] | None = None

    def _source(self, client: Any) -> DynamoDBSource:
        send = sdk_sender(client, "the table")
        return DynamoDBSource(
            lambda deadline: send,
            self.table,
            region=self.prefix + "default",
            increment=STEP,
            offset=OFFSET,
            clock=lambda: self.now,
        )

    # --- what is there ---

    def _stored(self) -> dict[str, Model]:
        keys = [{"partition": {"S": self.prefix + name}} for name in ("default", "orders", "users")]
        request = {self.table: {"Keys": keys, "ConsistentRead": True}}
        found = [
            handler.read_counter(item)
            for item in self.true.batch_get_item(RequestItems=request)["Responses"][self.table]
        ]
        return {
            counter["partition"].removeprefix(self.prefix): Model(
                counter["hand_crafted_int"], counter["increment"], counter["ceiling"], counter["frozen"]
            )
            for counter in found
        }

    def _settle(self, name: str, *allowed: Model | None) -> bool:
        """Whether the counter moved; it is as one of ``allowed`` says, and nothing else changed."""
        stored, before = self._stored(), self.models
        assert stored.get(name) in allowed
        assert {**stored, name: None} == {**before, name: None}
        if name in before:
            assert stored[name].last >= before[name].last
        self.models = stored
        return stored.get(name) != before.get(name)

    def _receipt(self, key: str) -> Receipt | None:
        """The receipt that is stored and still good."""
        request = handler.read_request(self.table, handler.RECEIPT + self.prefix.replace(" ", "-") + key)
        item = self.true.get_item(**request).get("Item")
        if item is None or int(item["expires_at"]["N"]) <= self.now:
            return None
        first, last, count, increment = (int(item[name]["N"]) for name in ("first", "last", "count", "increment"))
        return Receipt(Block(item["counter"]["S"], first, last, count, increment), int(item["expires_at"]["N"]))

    # --- what must come ---

    def _tickets(self, name: str, count: int) -> range | Refusal:
        """The tickets that a mint must give, or why it must be refused."""
        model = self.models.get(name)
        if model is None:
            return range(OFFSET, OFFSET + count * STEP, STEP) if name == "default" else UnknownCounterError
        if model.frozen:
            return CounterFrozenError
        if model.last + count * model.increment > model.ceiling:
            return CounterExhaustedError
        return range(model.last + model.increment, model.last + count * model.increment + 1, model.increment)

    def _after(self, name: str, expected: range | Refusal) -> Model | None:
        """The counter after a mint of those tickets."""
        before = self.models.get(name)
        return replace(before or Model(0, STEP), last=expected[-1]) if isinstance(expected, range) else before

    def _hand_out(self, name: str, block: Block) -> None:
        issued = self.issued.setdefault(name, set())
        assert issued.isdisjoint(block.tickets)
        issued.update(block.tickets)

    def _check_refusal(self, told: Answer, expected: object, *, keyed: bool = False) -> None:
        """An error is the expected one, or tells of a fault that was met.

        Only a lost reply leaves the outcome unknown, or with a key also a receipt that could not be sent.
        """
        if isinstance(told, OutcomeUnknownError):
            assert self.faulty.met & ({"reply lost", "not sent"} if keyed else {"reply lost"})
        elif isinstance(told, NotMintedError):
            assert self.faulty.met & {"reply lost", "not sent"}
        else:
            assert type(told) is expected

    def _meet(self, fates: list[str], call: Callable[[], Answer]) -> Answer:
        self.faulty.fates, self.faulty.met = list(fates), set()
        told = attempt(call)
        self.faulty.fates = []
        return told

    # --- minting ---

    @initialize(increment=st.integers(1, 4), ceiling=st.sampled_from([20, 50, 200, MAX]), users=st.booleans())
    def begin(self, increment: int, ceiling: int, users: bool) -> None:
        """Most runs begin with counters; the default one begins by itself."""
        for name in ("orders", "users") if users else ("orders",):
            make_counter(self.keeper, self.prefix + name, increment=increment, ceiling=ceiling)
        self.models = self._stored()

    @rule(name=NAMES, count=st.integers(1, 50), caller=CALLERS, fates=FATES)
    def mint(self, name: str, count: int, caller: int, fates: list[str]) -> None:
        expected, before = self._tickets(name, count), self.models.get(name)
        told = self._meet(fates, lambda: self._new(self.callers[caller], name, count))
        after = self._after(name, expected)
        if isinstance(told, Block):
            assert (told.tickets, told.replayed) == (expected, False)
            self._hand_out(name, told)
            self._settle(name, after)
        else:
            self._check_refusal(told, expected)
            self._settle(name, *((before, after) if isinstance(told, OutcomeUnknownError) else (before,)))

    @rule(name=NAMES, key=KEYS, count=st.sampled_from([1, 1, 2, 50]), caller=CALLERS, fates=FATES)
    def mint_once(self, name: str, key: str, count: int, caller: int, fates: list[str]) -> None:
        self.asked = (name, key, count)
        self._mint_once(name, key, count, caller, fates)

    @rule(caller=CALLERS, fates=FATES)
    def ask_again(self, caller: int, fates: list[str]) -> None:
        """The last request with a key is made again, as after a lost answer."""
        if self.asked is not None:
            self._mint_once(*self.asked, caller, fates)

    def _mint_once(self, name: str, key: str, count: int, caller: int, fates: list[str]) -> None:
        expected, before, known = self._tickets(name, count), self.models.get(name), self._live(key)
        told = self._meet(fates, lambda: self._keyed(self.callers[caller], name, key, count))
        stored = self._receipt(key)
        if known is not None:
            self._check_replay(told, known, name, count)
            assert stored == known
            self._settle(name, before)
            return
        after = self._after(name, expected)
        if isinstance(told, Block):
            assert (told.tickets, told.replayed) == (expected, False)
            assert stored == Receipt(told, self.now + DAY)
            self._hand_out(name, told)
            self._settle(name, after)
        else:
            self._check_refusal(told, expected, keyed=True)
            unknown = isinstance(told, OutcomeUnknownError)
            moved = self._settle(name, *((before, after) if unknown else (before,)))
            if stored is not None:  # its reply was lost: the key's next use finds it
                assert moved
                assert stored.block.tickets == expected
                self._hand_out(name, stored.block)
        self._keep(key, stored)

    @rule(name=NAMES, key=KEYS, count=st.integers(1, 3), caller=CALLERS)
    def race_with_one_key(self, name: str, key: str, count: int, caller: int) -> None:
        """Between a caller's mint and its receipt another one goes through with the same key."""
        if self._live(key) is not None or not isinstance(expected := self._tickets(name, count), range):
            return
        self.asked = (name, key, count)
        rivals: list[Answer] = []
        ours = self._after(name, expected)
        self.faulty.meanwhile = lambda: rivals.append(attempt(lambda: self._keyed(self.rival, name, key, count)))
        told = self._meet([], lambda: self._keyed(self.callers[caller], name, key, count))
        assert isinstance(told, Block)
        (rival,) = rivals
        if isinstance(rival, Block):
            assert (told, rival.replayed) == (replace(rival, replayed=True), False)
            assert rival.first == expected[-1] + rival.increment
            ours = replace(ours, last=rival.last) if ours else None
        else:
            assert type(rival) is CounterExhaustedError
            assert (told.tickets, told.replayed) == (expected, False)
        self._hand_out(name, told)
        self._settle(name, ours)
        stored = self._receipt(key)
        assert stored == Receipt(replace(told, replayed=False), self.now + DAY)
        self._keep(key, stored)

    @rule(hours=st.sampled_from([1, 12, 24]))
    def wait(self, hours: int) -> None:
        self.now += hours * 60 * 60

    def _keyed(self, source: DynamoDBSource, name: str, key: str, count: int) -> Block:
        request = requested(count, self.prefix.replace(" ", "-") + key, self.prefix + name)
        return source.mint(request, Deadline(5))

    def _new(self, source: DynamoDBSource, name: str, count: int) -> Block:
        return source.mint(requested(count, partition=self.prefix + name), Deadline(5))

    def _live(self, key: str) -> Receipt | None:
        known = self.receipts.get(key)
        return known if known is not None and known.expires > self.now else None

    def _keep(self, key: str, stored: Receipt | None) -> None:
        if stored is not None:
            self.receipts[key] = stored

    def _check_replay(self, told: Answer, known: Receipt, name: str, count: int) -> None:
        if isinstance(told, Block):
            assert told == replace(known.block, replayed=True)
            assert (told.partition, told.count) == (self.prefix + name, count)
        elif isinstance(told, IdempotencyConflictError):
            assert (known.block.partition, known.block.count) != (self.prefix + name, count)
        else:
            assert isinstance(told, NotMintedError)
            assert self.faulty.met & {"reply lost", "not sent"}

    # --- looking after counters ---

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
        before, step, residue = self.models.get(name), increment or 1, offset or 1
        first, limit = residue if start is None else start, MAX if ceiling is None else ceiling
        sound = (first - residue) % step == 0 and first <= limit <= MAX
        made = Model(first - step, step, limit) if sound and before is None else before
        told = self._meet(
            fates,
            lambda: make_counter(
                self.keeper, self.prefix + name, start=start, offset=offset, increment=increment, ceiling=ceiling
            ),
        )
        if isinstance(told, tuple):
            assert sound
            assert told[1] == (before is None)
            self._settle(name, made)
        else:
            self._check_refusal(told, RefusedError)
            if isinstance(told, RefusedError):
                assert before is not None or not sound
            self._settle(name, *((before, made) if isinstance(told, OutcomeUnknownError) else (before,)))

    @rule(name=NAMES, steps=st.integers(-3, 40), beside=st.sampled_from([0, 0, 0, 1, -1]), fates=FATES)
    def advance(self, name: str, steps: int, beside: int, fates: list[str]) -> None:
        before = self.models.get(name)
        to = steps * (before.increment if before else 1) + (before.last if before else 0) + beside
        after, refusal = before, UnknownCounterError if before is None else RefusedError
        if before and to >= before.last and (to - before.last) % before.increment == 0 and to <= before.ceiling:
            after = replace(before, last=to)
        told = self._meet(fates, lambda: self.keeper.advance(self.prefix + name, to))
        if isinstance(told, Counter):
            assert after is not None
            assert (told.last, after.last) == (to, to)
            self._settle(name, after)
        else:
            self._check_refusal(told, refusal)
            self._settle(name, *((before, after) if isinstance(told, OutcomeUnknownError) else (before,)))

    @rule(name=NAMES, frozen=st.booleans(), fates=FATES)
    def freeze_or_thaw(self, name: str, frozen: bool, fates: list[str]) -> None:
        before, switch = self.models.get(name), self.keeper.freeze if frozen else self.keeper.thaw
        after = replace(before, frozen=frozen) if before else None
        told = self._meet(fates, lambda: switch(self.prefix + name))
        if isinstance(told, Counter):
            assert told.frozen == frozen
            self._settle(name, after)
        else:
            self._check_refusal(told, UnknownCounterError)
            self._settle(name, *((before, after) if isinstance(told, OutcomeUnknownError) else (before,)))

    @rule(name=NAMES, increment=st.integers(1, 4), room=st.none() | st.integers(-5, 100))
    def change_lane_by_hand(self, name: str, increment: int, room: int | None) -> None:
        """Somebody writes another increment or ceiling into the item; callers know the old ones."""
        if (before := self.models.get(name)) is None:
            return
        after = replace(before, increment=increment, ceiling=before.ceiling if room is None else before.last + room)
        self.true.update_item(
            TableName=self.table,
            Key={"partition": {"S": self.prefix + name}},
            UpdateExpression="SET #i = :i, #c = :c",
            ExpressionAttributeNames={"#i": "increment", "#c": "ceiling"},
            ExpressionAttributeValues={":i": {"N": str(after.increment)}, ":c": {"N": str(after.ceiling)}},
        )
        self._settle(name, after)


def test_no_sequence_of_operations_issues_a_number_twice_or_moves_a_counter_back(deployed: Deployed) -> None:
    """Minting with and without keys, creating, advancing, freezing, lost replies and changed lanes, in any order."""
    run_state_machine_as_test(
        lambda: Tickets(deployed),  # type: ignore[arg-type] # what makes a machine will do
        settings=settings(
            max_examples=times(15),
            stateful_step_count=50,
            derandomize=DERANDOMIZED,
            print_blob=True,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
