"""``handover``: each of its writes, and every interleaving with minting clients and with other runs."""

import json
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from tests.support.counter_items import item, number, offered, regions
from tests.support.model_table import Client, Item, ModelTable, Request
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.arrangement import arrange, hand_over
from ticketctl.counters.handover import Holding, clear_offer, create_counter, offer, read_holding, release, take
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import DEFAULT, Member, survey
from ticketctl.counters.table import Counters
from ticketctl.errors import CounterInvalidError, RefusedError
from ticketctl.handler import handler

MAX = 2**53 - 1
TABLE = "Tickets"


class Region:
    """A table and its counters."""

    def __init__(self, name: str, *items: Mapping[str, Any]) -> None:
        self.model = ModelTable(TABLE, rows={str(each["partition"]["S"]): each for each in items})
        self.table = Counters(self.model, TABLE, region=name)

    @property
    def items(self) -> list[Item]:
        return list(self.model.rows.values())

    def holding(self, name: str = "orders") -> Holding:
        found = read_holding(self.table, name)
        assert found
        return found

    def mint(self, count: int = 1, *, name: str = "orders", lane: handler.Fence | None = None) -> list[int]:
        """Mint as the handler does; ``lane`` is the fence that the caller knows."""
        send = sdk_sender(self.model, TABLE)
        block, _ = handler.mint(send, TABLE, name, count, fence=lane or handler.Fence(), offset=None, now_ms=7)
        return list(range(block["first"], block["last"] + 1, block["increment"]))


# --- create ----------------------------------------------------------------------------------------


def test_a_counter_begins_with_the_lanes_of_the_others() -> None:
    """The write that creates a counter sets its lane, the offers to other regions, and the regions that share it."""
    west = Region("west")
    create_counter(west.table, "west", Lane(2, 3), offers={"east": Lane(1, 3), "north": Lane(3, 3)})
    assert west.items == [
        item(
            "west",
            -1,
            3,
            **offered("east", Lane(1, 3)),
            **offered("north", Lane(3, 3)),
            **regions("east", "north", "west"),
        )
    ]
    assert west.mint(2, name="west") == [2, 5]


def test_a_counter_begins_held_back_and_with_a_ceiling() -> None:
    """A pending counter is frozen with its own mark."""
    west = Region("west")
    create_counter(west.table, "orders", Lane(7, 2), offers={}, ceiling=7, pending=True)
    assert west.items == [item("orders", 5, 2, ceiling=number(7), frozen={"S": "half-made"}, **regions("west"))]
    holding = west.holding()
    assert (holding.region, holding.lane, holding.offers, holding.is_pending) == ("west", Lane(7, 2), {}, True)
    assert holding.counter.frozen


def test_a_counter_begins_once() -> None:
    """If the counter exists it is not changed, and the error has its item."""
    there = item("orders", 41)
    west = Region("west", there)
    with pytest.raises(handler.ConditionFailedError) as caught:
        create_counter(west.table, "orders", Lane(1, 2), offers={"east": Lane(2, 2)})
    assert (caught.value.item, west.items) == (there, [there])


@pytest.mark.parametrize("ceiling", [6, 1, MAX + 1])
def test_a_counter_that_could_not_mint_is_not_created(ceiling: int) -> None:
    """A ceiling below the first ticket or above the largest is an error before anything is sent."""
    west = Region("west")
    with pytest.raises(RefusedError, match=f"^no ticket fits: the first is 7, the ceiling {ceiling}$"):
        create_counter(west.table, "orders", Lane(7, 2), offers={}, ceiling=ceiling)
    assert west.items == []


def test_a_counter_whose_first_ticket_is_too_large_is_not_created() -> None:
    """Without a ceiling the largest ticket is the limit."""
    west = Region("west")
    with pytest.raises(RefusedError, match=f"^no ticket fits: the first is {MAX + 1}, the ceiling {MAX}$"):
        create_counter(west.table, "orders", Lane(MAX + 1, 2), offers={})
    assert west.items == []


# --- offer, take, clear ----------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 3])
def test_a_hand_over_step_by_step(m: int) -> None:
    """From v on, the donor continues with v + 2m, v + 4m, …; the new region starts with v + m, v + 3m, …."""
    east, west = Region("east", item("orders", 40, None if m == 1 else m)), Region("west")
    both = regions("east", "west")
    new = Lane(40 + m, 2 * m)

    donor = offer(east.table, "orders", m, ["west"])
    assert east.items == [item("orders", 40, 2 * m, **offered("west", new), **both)]
    assert (donor.lane, donor.offers) == (Lane(40 + 2 * m, 2 * m), {"west": new})
    assert donor.regions == {"east", "west"}
    assert read_holding(east.table, "orders") == donor

    take(west.table, "orders", donor)
    assert east.items == [item("orders", 40, 2 * m, **offered("west", new), **both)]
    assert west.items == [item("orders", 40 - m, 2 * m, **both)]

    clear_offer(east.table, "orders", "west", new)
    assert east.items == [item("orders", 40, 2 * m, **both)]
    assert west.items == [item("orders", 40 - m, 2 * m, **both)]
    assert west.holding().came_from(new)

    assert east.mint(3, lane=handler.Fence(m)) == [40 + 2 * m, 40 + 4 * m, 40 + 6 * m]
    assert west.mint(3, lane=handler.Fence(m)) == [40 + m, 40 + 3 * m, 40 + 5 * m]


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_a_lane_is_split_into_more_parts_at_once(m: int, k: int) -> None:
    """With k parts, the i-th new region starts with v + i·m, every increment is k·m, and no number is left out."""
    east = Region("east", item("orders", 40, m))
    others = [Region(f"west-{i}") for i in range(1, k)]
    donor = offer(east.table, "orders", m, [region.table.region for region in others])
    assert donor.offers == {f"west-{i}": Lane(40 + i * m, k * m) for i in range(1, k)}
    for region in others:
        take(region.table, "orders", donor)
        clear_offer(east.table, "orders", region.table.region, donor.offers[region.table.region])
    assert east.items == [item("orders", 40, k * m, **donor_regions(others))]
    assert [region.mint() for region in others] == [[40 + i * m] for i in range(1, k)]
    both = [number for region in (east, *others) for number in region.mint(2)]
    assert sorted(both) == [40 + i * m for i in range(k, 3 * k)]


def donor_regions(others: Iterable[Region]) -> dict[str, Any]:
    return regions("east", *(region.table.region for region in others))


def test_the_lane_is_computed_from_the_last_ticket_at_that_moment() -> None:
    """Numbers that were minted after the counter was read are not handed over."""
    east = Region("east", item("orders", 40))
    before = east.holding()
    east.mint(5)
    donor = offer(east.table, "orders", before.counter.increment, ["west"])
    assert donor.offers == {"west": Lane(46, 2)}


def test_other_attributes_stay() -> None:
    """An offer changes no attribute but the increment, the offers and the regions."""
    more: dict[str, Any] = {"minted_at": number(7), "ceiling": number(99), "note": {"S": "ours"}}
    east = Region("east", item("orders", 40, 2, **more, **offered("north", Lane(41, 2)), **regions("east", "north")))
    offer(east.table, "orders", 2, ["west"])
    lanes = {**offered("north", Lane(41, 2)), **offered("west", Lane(42, 4))}
    assert east.items == [item("orders", 40, 4, **more, **lanes, **regions("east", "north", "west"))]


@pytest.mark.parametrize(
    ("there", "increment"),
    [
        pytest.param(item("orders", 40, 4), 2, id="split meanwhile"),
        pytest.param(item("orders", 40, 2), 1, id="no longer 1"),
        pytest.param(item("orders", 40), 2, id="still 1"),
        pytest.param(item("orders", 40, 2, **offered("west", Lane(41, 2))), 2, id="offered already"),
        pytest.param({"partition": {"S": "orders"}, "increment": number(2)}, 2, id="no counter"),
    ],
)
def test_an_offer_is_refused_if_the_lane_has_changed(there: dict[str, Any], increment: int) -> None:
    """If the lane was split since it was read, the offer is refused and changes nothing."""
    east = Region("east", there)
    with pytest.raises(handler.ConditionFailedError) as caught:
        offer(east.table, "orders", increment, ["west"])
    assert (caught.value.item, east.items) == (there, [there])


def test_an_offer_does_not_create_a_counter() -> None:
    """An offer by a counter that was deleted does not create its item again."""
    east = Region("east")
    with pytest.raises(handler.ConditionFailedError) as caught:
        offer(east.table, "orders", 1, ["west"])
    assert (caught.value.item, east.items) == (None, [])


def test_a_lane_that_is_too_thin_is_not_split() -> None:
    """A split whose increment would exceed the largest ticket is refused; the largest possible increment is allowed."""
    thin = MAX // 2 + 1
    east = Region("east", item("orders", 40, thin), item("users", 40, MAX // 2))
    with pytest.raises(
        RefusedError, match=f"^the lane of 'orders' in east cannot be split again: its increment is already {thin}$"
    ):
        offer(east.table, "orders", thin, ["west"])
    assert offer(east.table, "users", MAX // 2, ["west"]).counter.increment == MAX - 1


def test_taking_twice_is_taking_once() -> None:
    """Taking a lane twice changes nothing, even if the counter has minted or was split in between."""
    east, west = Region("east", item("orders", 40)), Region("west")
    donor = offer(east.table, "orders", 1, ["west"])
    take(west.table, "orders", donor)
    once = west.items
    take(west.table, "orders", donor)
    assert west.items == once
    assert west.mint(2) == [41, 43]
    offer(west.table, "orders", 2, ["north"])
    split = west.items
    take(west.table, "orders", donor)
    assert (
        west.items
        == split
        == [
            item(
                "orders",
                43,
                4,
                minted_at=number(7),
                **offered("north", Lane(45, 4)),
                **regions("east", "north", "west"),
            )
        ]
    )


@pytest.mark.parametrize(
    "alien",
    [
        pytest.param(item("orders", 0), id="all numbers"),
        pytest.param(item("orders", 40, 2), id="the donor's own residue"),
        pytest.param(item("orders", 35, 2), id="before the first"),
        pytest.param(item("orders", 41, 3), id="another step"),
    ],
)
def test_a_lane_is_not_taken_if_the_region_has_another_counter(alien: dict[str, Any]) -> None:
    """If the region has another counter of that name, neither that counter nor the record is changed."""
    east, west = Region("east", item("orders", 40)), Region("west", alien)
    donor = offer(east.table, "orders", 1, ["west"])
    with pytest.raises(RefusedError) as caught:
        take(west.table, "orders", donor)
    assert (caught.value.message, caught.value.hint) == (
        "west already has a counter 'orders', and it is not in the lane 41, 43, 45, … that east has handed over to it; "
        "nothing was changed",
        "ticketctl regions",
    )
    assert (west.items, read_holding(east.table, "orders")) == ([alien], donor)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"ceiling": number(1000)}, id="ceiling"),
        pytest.param({"frozen": {"BOOL": True}}, id="frozen"),
        pytest.param({"frozen": {"S": "half-made"}}, id="half-made"),
        pytest.param({"frozen": {"S": "half-made"}, "ceiling": number(1000)}, id="both"),
    ],
)
def test_what_holds_for_a_counter_holds_for_each_part(state: dict[str, Any]) -> None:
    """The new region's counter has the donor's ceiling and its frozen state."""
    east, west = Region("east", item("orders", 40, 3, **state)), Region("west")
    take(west.table, "orders", offer(east.table, "orders", 3, ["west"]))
    assert west.items == [item("orders", 37, 6, **state, **regions("east", "west"))]
    assert east.items == [item("orders", 40, 6, **state, **offered("west", Lane(43, 6)), **regions("east", "west"))]


@pytest.mark.parametrize(
    "unknown",
    [{"S": "ours"}, {"N": "7"}, {"BOOL": False}, {"SS": ["a", "b"]}, {"B": b"\x00\xff"}],
    ids=lambda value: next(iter(value)),
)
def test_an_attribute_that_this_version_does_not_know_is_handed_over(unknown: dict[str, Any]) -> None:
    """A new region's counter gets every attribute of the donor's that does not concern only the donor."""
    east, west = Region("east", item("orders", 40, 3, note=unknown)), Region("west")
    take(west.table, "orders", offer(east.table, "orders", 3, ["west"]))
    assert west.items == [item("orders", 37, 6, note=unknown, **regions("east", "west"))]
    assert east.items[0]["note"] == unknown


def test_what_is_about_the_donor_alone_is_not_handed_over() -> None:
    """The donor keeps its time of the last mint, its offers to others, and its register of keys.

    The keys were minted in its region, and a retry of a key is sent to the same region.
    """
    slots = "0123456789abcdef"
    register: dict[str, Any] = {f"k{slot}": {"B": slot.encode() * 15} for slot in slots}
    register |= {f"l{slot}": number(40 - step) for step, slot in enumerate(slots)}
    kept = {**register, "minted_at": number(7), **offered("north", Lane(41, 3))}
    east, west = Region("east", item("orders", 40, 3, **kept)), Region("west")
    donor = offer(east.table, "orders", 3, ["west"])
    take(west.table, "orders", donor)
    assert west.items == [item("orders", 37, 6, **regions("east", "west"))]
    assert {name: east.items[0][name] for name in kept} == kept


@pytest.mark.parametrize("frozen", [{"S": "gapless"}, {"N": "1"}, {"BOOL": False}], ids=str)
def test_a_state_that_this_version_does_not_know_is_not_split(frozen: dict[str, Any]) -> None:
    """A counter in an unknown state, such as gapless, is not split, because two regions could not keep that state."""
    before = item("orders", 40, frozen=frozen)
    east, west = Region("east", before), Region("west")
    assert not east.holding().can_be_split
    with pytest.raises(handler.ConditionFailedError):
        offer(east.table, "orders", 1, ["west"])
    members = [Member(east.table), Member(west.table)]
    with pytest.raises(RefusedError, match=r"^orders is in a state that several regions cannot share; nothing was"):
        hand_over(members, "orders", members[1], lambda line: None)
    assert (east.items, west.items) == ([before], [])


def test_every_region_learns_of_all_the_others() -> None:
    """A region that takes a lane learns the regions that its donor knows."""
    east, west = Region("east", item("orders", 40, **regions("east", "north"))), Region("west")
    take(west.table, "orders", offer(east.table, "orders", 1, ["west"]))
    assert west.holding().regions == east.holding().regions == {"east", "north", "west"}


def test_a_part_whose_first_number_is_beyond_the_ceiling_mints_nothing() -> None:
    """A counter can be split near its ceiling; no part mints above the ceiling."""
    east, west = Region("east", item("orders", 40, ceiling=number(41))), Region("west")
    take(west.table, "orders", offer(east.table, "orders", 1, ["west"]))
    assert west.mint() == [41]
    for region in (east, west):
        with pytest.raises(handler.ProblemError, match="has 0 tickets left"):
            region.mint()


@pytest.mark.parametrize(
    ("region", "lane"), [("west", Lane(43, 2)), ("west", Lane(41, 4)), ("north", Lane(41, 2))], ids=str
)
def test_only_the_record_that_was_meant_is_cleared(region: str, lane: Lane) -> None:
    """Clearing an offer of another lane, or an offer that does not exist, changes nothing and is no error."""
    east = Region("east", item("orders", 40))
    donor = offer(east.table, "orders", 1, ["west"])
    clear_offer(east.table, "orders", region, lane)
    assert read_holding(east.table, "orders") == donor


def test_settling_twice_is_settling_once() -> None:
    """Clearing an offer again changes nothing."""
    east = Region("east", item("orders", 40))
    offer(east.table, "orders", 1, ["west"])
    for _ in range(2):
        clear_offer(east.table, "orders", "west", Lane(41, 2))
        assert east.items == [item("orders", 40, 2, **regions("east", "west"))]


# --- release and find ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"frozen": {"S": "half-made"}}, {}, id="half-made"),
        pytest.param({"frozen": {"BOOL": True}}, {"frozen": {"BOOL": True}}, id="frozen"),
        pytest.param({}, {}, id="minting"),
    ],
)
def test_only_what_was_held_back_is_released(before: dict[str, Any], after: dict[str, Any]) -> None:
    """``release`` unfreezes a pending counter, but not one that a user has frozen."""
    east = Region("east", item("orders", 40, **before))
    release(east.table, "orders")
    assert east.items == [item("orders", 40, **after)]


def test_releasing_does_not_create_a_counter() -> None:
    """Releasing does not create a counter."""
    east = Region("east")
    release(east.table, "orders")
    assert east.items == []


def test_no_holding_without_a_counter() -> None:
    """If a region has no counter, the holding is ``None``; an article's item has all numbers after its last ticket."""
    assert read_holding(Region("east").table, "orders") is None
    holding = Region("east", item("orders", 40)).holding()
    assert (holding.lane, holding.offers, holding.regions, holding.is_pending) == (
        Lane(41, 1),
        {},
        frozenset(),
        False,
    )


@pytest.mark.parametrize(
    "damage",
    [
        {"hand_crafted_int": {"S": "many"}},
        {"regions": {"L": [{"S": "east"}, {"S": "west"}]}},
        {"first@west": number(41)},
        offered("west", Lane(41, 2)) | {"first@west": {"S": "41"}},
        offered("west", Lane(41, 2)) | {"increment@west": number(0)},
        offered("west", Lane(41, 2)) | {"increment@west": {"N": "1.5"}},
    ],
    ids=str,
)
def test_a_damaged_item_is_named(damage: dict[str, Any]) -> None:
    """An item whose last ticket, regions or offers are damaged is an error."""
    east = Region("east", item("orders", 40) | damage)
    with pytest.raises(CounterInvalidError, match="'orders'"):
        read_holding(east.table, "orders")


# --- every interleaving ----------------------------------------------------------------------------

Rows = Mapping[str, Mapping[str, Item]]
"""The items of each region's table."""
Reached = Callable[[str], Client]
"""The client for a region's table."""


class NextCall(BaseException):
    """An actor makes a call that has no answer yet."""

    def __init__(self, region: str, operation: str, request: Request) -> None:
        self.call = (region, operation, request)


class Tickets(list[tuple[str, int]]):
    """The tickets that an actor minted, each with its region."""

    def mint(
        self,
        client: Client,
        region: str,
        count: int,
        lane: handler.Fence,
        offset: int | None = None,
        key: str | None = None,
    ) -> handler.Fence:
        """Mint from a region's default counter as the handler does; return the fence that the caller then knows.

        With a ``key`` the answer is lost: the caller mints again with the fence that it knew, and must get the block
        that was minted.
        """
        send, digest = sdk_sender(client, TABLE), None if key is None else handler.key_digest(key, 7)
        block, new = handler.mint(send, TABLE, region, count, fence=lane, offset=offset, now_ms=7, digest=digest)
        self += [(region, ticket) for ticket in range(block["first"], block["last"] + 1, block["increment"])]
        if digest is not None:
            again, new = handler.mint(send, TABLE, region, count, fence=lane, offset=offset, now_ms=7, digest=digest)
            assert again == block | {"replayed": True}
        return new


Actor = Callable[[Reached, Tickets], None]
"""A run of a client or command. It must be deterministic: the same answers lead to the same calls."""


class Replay(Client):
    """A client with given answers; the first call after them stops the actor."""

    def __init__(self, region: str, answers: "list[dict[str, Any] | ClientError]") -> None:
        self.region = region
        self.answers = answers

    def call(self, operation: str, request: Request) -> dict[str, Any]:
        if not self.answers:
            raise NextCall(self.region, operation, request)
        answer = self.answers.pop(0)
        if isinstance(answer, ClientError):
            raise answer
        return answer


@dataclass(frozen=True)
class Progress:
    """An actor after its answers so far: its next call, and its tickets."""

    answers: "tuple[dict[str, Any] | ClientError, ...]"
    call: tuple[str, str, Request] | None
    tickets: tuple[tuple[str, int], ...]


class State(NamedTuple):
    """The tables, the tables as text, and the progress of each actor."""

    rows: Rows
    text: str
    progress: tuple[Progress, ...]

    @property
    def tickets(self) -> list[tuple[str, int]]:
        return [ticket for progress in self.progress for ticket in progress.tickets]

    @property
    def is_end(self) -> bool:
        return all(progress.call is None for progress in self.progress)


def as_text(value: Any) -> str:
    """Items or an answer as text that is equal only if they are equal."""
    return json.dumps(value, sort_keys=True, default=bytes.hex)


class Interleavings:
    """Every possible order of the actors' calls, starting from ``rows``.

    An actor is replayed from its answers, so every state can be continued in every way. Two schedules that lead to the
    same tables and the same answers have the same future, which is followed only once; nothing else is omitted.
    ``schedules`` is the number of complete schedules, ``states`` the number of states that were checked.
    """

    def __init__(self, rows: Rows, actors: Sequence[Actor], check: Callable[[State], None]) -> None:
        self._actors = actors
        self._check = check
        self._progress: dict[tuple[int, tuple[str, ...]], Progress] = {}
        self._counted: dict[object, int] = {}
        self._path: list[int] = []
        begin = State(rows, as_text(rows), tuple(self._run(actor, ()) for actor in actors))
        self.schedules = self._follow(begin, tuple(() for _ in actors))
        self.states = len(self._counted)

    def _run(self, actor: Actor, answers: "tuple[dict[str, Any] | ClientError, ...]") -> Progress:
        left, tickets = list(answers), Tickets()
        try:
            actor(lambda region: Replay(region, left), tickets)
        except NextCall as waiting:
            return Progress(answers, waiting.call, tuple(tickets))
        assert not left
        return Progress(answers, None, tuple(tickets))

    def _follow(self, state: State, heard: tuple[tuple[str, ...], ...]) -> int:
        """Count the schedules that start from a state. ``heard`` is the text of each actor's answers."""
        key = (state.text, heard)
        if key in self._counted:
            return self._counted[key]
        try:
            self._check(state)
        except AssertionError as error:
            error.add_note(f"after the calls of {self._path}")
            raise
        schedules = 1 if state.is_end else 0
        for actor, progress in enumerate(state.progress):
            if progress.call is not None:
                self._path.append(actor)
                schedules += self._follow(*self._step(state, heard, actor))
                self._path.pop()
        self._counted[key] = schedules
        return schedules

    def _step(
        self, state: State, heard: tuple[tuple[str, ...], ...], actor: int
    ) -> tuple[State, tuple[tuple[str, ...], ...]]:
        """Perform the next call of one actor."""
        progress = state.progress[actor]
        assert progress.call
        region, operation, request = progress.call
        table = ModelTable(TABLE, rows=state.rows[region])
        answer: dict[str, Any] | ClientError
        try:
            answer = table.perform(operation, request)
        except ClientError as refused:
            answer = refused
        text = as_text(answer.response if isinstance(answer, ClientError) else answer)
        history = (*heard[actor], text)
        if (actor, history) not in self._progress:
            self._progress[actor, history] = self._run(self._actors[actor], (*progress.answers, answer))
        others = list(state.progress)
        others[actor] = self._progress[actor, history]
        histories = (*heard[:actor], history, *heard[actor + 1 :])
        if operation in ("GetItem", "Scan"):
            return State(state.rows, state.text, tuple(others)), histories
        for name, row in state.rows[region].items():
            assert int(table.rows[name]["hand_crafted_int"]["N"]) >= int(row["hand_crafted_int"]["N"])
        rows = {**state.rows, region: table.rows}
        return State(rows, as_text(rows), tuple(others)), histories


def members(reach: Reached, names: Sequence[str], *, start: Lane | None = None) -> list[Member]:
    tables = [Counters(reach(name), TABLE, region=name) for name in names]
    return [Member(tables[0], start), *map(Member, tables[1:])]


def lanes(rows: Rows) -> list[tuple[str, Lane]]:
    """Return every lane of the default counter, offered or taken."""
    there = {name: ModelTable(TABLE, rows=items) for name, items in rows.items()}
    found = survey(members(there.__getitem__, list(there)))
    assert found.conflicts == []
    return [(entry.region, entry.lane) for entry in found.entries[DEFAULT]]


def shared_out(lane: Lane, *, far: int = 40) -> Callable[[State], None]:
    """Return a check that every number of ``lane`` is in exactly one place: issued once, or in one lane."""
    numbers = [lane.offset + step * lane.increment for step in range(far)]
    passed: set[object] = set()

    def check(state: State) -> None:
        key = (state.text, tuple(sorted(state.tickets)))
        if key in passed or not any(state.rows.values()):
            return
        places = Tally(ticket for _, ticket in state.tickets)
        places.update(number for _, there in lanes(state.rows) for number in numbers if number in there)
        assert places == dict.fromkeys(numbers, 1)
        passed.add(key)

    return check


def whole(lane: Lane, *names: str) -> Callable[[State], None]:
    """Return the check of ``shared_out`` that also checks that in the end each region has a lane with its tickets.

    For a region that had the whole lane before, tickets of the whole lane are allowed.
    """
    check = shared_out(lane)

    def checked(state: State) -> None:
        check(state)
        if not state.is_end:
            return
        there = dict(lanes(state.rows))
        assert sorted(there) == sorted(name for name, _ in lanes(state.rows)) == sorted(names)
        assert not any(
            key.startswith("first@") for items in state.rows.values() for row in items.values() for key in row
        )
        for region, ticket in state.tickets:
            (row,) = state.rows[region].values()
            assert (there[region].offset - ticket) % there[region].increment == 0 or (
                region == names[0] and ticket in lane and ticket <= int(row["hand_crafted_int"]["N"])
            )

    return checked


def deploys(*names: str, to: Sequence[str], start: Lane | None = None) -> Actor:
    """A deployment to the regions ``to``; ``start`` is the lane in which the first region's function would start."""
    return lambda reach, tickets: arrange(members(reach, names, start=start), to)


def hands_over(*names: str, to: str) -> Actor:
    """A hand-over of the default counter to ``to``, without the surveys of a deployment."""

    def work(reach: Reached, _: Tickets) -> None:
        there = members(reach, names)
        (target,) = (member for member in there if member.region == to)
        hand_over(there, DEFAULT, target, lambda line: None)

    return work


class Stopping(Client):
    """A client that stops after a number of calls, counted over all regions."""

    def __init__(self, client: Client, left: list[None]) -> None:
        self.client = client
        self.left = left

    def call(self, operation: str, request: Request) -> dict[str, Any]:
        if not self.left:
            raise CutOffError
        self.left.pop()
        return self.client.call(operation, request)


class CutOffError(Exception):
    """The process was killed here."""


def cut_off(actor: Actor, calls: int) -> Actor:
    """A run that is killed after a number of calls, and then a second, complete run."""

    def work(reach: Reached, tickets: Tickets) -> None:
        left = [None] * calls
        with suppress(CutOffError):
            actor(lambda region: Stopping(reach(region), left), tickets)
            return
        actor(reach, tickets)

    return work


def mints(region: str, *counts: int, known: int, patience: int = 0, offset: int | None = None) -> Actor:
    """A client that mints with a lane that may be old; it retries ``patience`` times if there is no counter.

    With ``offset`` it creates a counter that does not exist.
    """

    def work(reach: Reached, tickets: Tickets) -> None:
        lane, left = handler.Fence(known), patience
        for turn, count in enumerate(counts):
            while True:
                try:
                    lane = tickets.mint(reach(region), region, count, lane, None if turn else offset)
                except handler.ProblemError as problem:
                    if problem.code not in ("unknown_counter", "counter_frozen"):  # missing, or still pending
                        raise
                    if not left:
                        return
                    left -= 1
                else:
                    break

    return work


def retries(region: str, *counts: int, known: int) -> Actor:
    """A client with an old lane that mints each block with a key of its own, loses the answer and mints again."""

    def work(reach: Reached, tickets: Tickets) -> None:
        for turn, count in enumerate(counts):
            tickets.mint(reach(region), region, count, handler.Fence(known), key=f"once:{count}/{turn}")

    return work


def looks(*names: str) -> Actor:
    """A survey that checks that all lanes are disjoint."""
    return lambda reach, tickets: survey(members(reach, names)).require_disjoint()


def splits_in_three(donor: str, *others: str, step: int) -> Actor:
    """A split of the donor's default counter with the increment ``step``, for two regions at once."""

    def work(reach: Reached, _: Tickets) -> None:
        table = Counters(reach(donor), TABLE, region=donor)
        holding = offer(table, donor, step, others)
        for other in others:
            target = Counters(reach(other), TABLE, region=other)
            take(target, other, holding)
            clear_offer(table, donor, other, holding.offers[other])

    return work


def east_alone(m: int) -> Rows:
    """A counter at 10 with the increment ``m`` (absent if 1, as in the article), and a region without a counter."""
    return {"east": {"east": item("east", 10, None if m == 1 else m)}, "west": {}}


BOTH = ("east", "west")


@pytest.mark.parametrize("m", [1, 3])
def test_every_interleaving_of_a_split_and_two_minters(m: int) -> None:
    """In every schedule, after every call, each number was issued once or is in one lane, and nothing fails.

    Tens of thousands of schedules for each increment: one hand-over, a client that mints two blocks of 3, and one that
    mints two single tickets; both know the old lane.
    """
    actors = [hands_over(*BOTH, to="west"), mints("east", 3, 3, known=m), mints("east", 1, 1, known=m)]
    every = Interleavings(east_alone(m), actors, whole(Lane(10 + m, m), *BOTH))
    assert every.schedules > 5_000


@pytest.mark.parametrize("m", [1, 3])
def test_every_interleaving_of_a_split_and_two_minters_that_retry(m: int) -> None:
    """A key gives the block that it minted, wherever the lane changes between a lost answer and the retry."""
    actors = [hands_over(*BOTH, to="west"), retries("east", 3, known=m), retries("east", 1, known=m)]
    every = Interleavings(east_alone(m), actors, whole(Lane(10 + m, m), *BOTH))
    assert every.schedules > 1_000


@pytest.mark.parametrize("m", [1, 3])
def test_every_interleaving_of_a_deployment_and_a_minter_of_the_new_region(m: int) -> None:
    """A new region mints only in its lane, and only after the lane was handed over.

    Millions of schedules for each increment: a whole deployment, a client of the old region, and one of the new region
    that retries up to three times until its counter exists.
    """
    actors = [
        deploys(*BOTH, to=["west"]),
        mints("east", 3, 3, known=m),
        mints("west", 1, 1, known=m, patience=3),
    ]
    every = Interleavings(east_alone(m), actors, whole(Lane(10 + m, m), *BOTH))
    assert every.schedules > 1_000_000


def test_every_interleaving_with_a_counter_that_begins_meanwhile() -> None:
    """The first region's counter gets the same lane, whether its function or the second region's deployment starts it.

    Millions of schedules.
    """
    actors = [
        deploys(*BOTH, to=["west"], start=Lane(1, 1)),
        mints("east", 3, 1, known=1, offset=1),
        mints("west", 1, known=1, patience=2),
    ]
    every = Interleavings({"east": {}, "west": {}}, actors, whole(Lane(1, 1), *BOTH))
    assert every.schedules > 100_000


def test_every_interleaving_of_a_first_deployment_and_a_minter_in_each_region() -> None:
    """If a sequence starts in two regions, no region mints before it has its lane.

    Millions of schedules.
    """
    actors = [
        deploys(*BOTH, to=BOTH),
        mints("east", 3, 1, known=1, patience=2),
        mints("west", 1, known=1, patience=2),
    ]
    every = Interleavings({"east": {}, "west": {}}, actors, shared_out(Lane(1, 1)))
    assert every.schedules > 1_000_000


@pytest.mark.parametrize("m", [1, 3])
def test_every_interleaving_of_a_split_in_three_and_three_minters(m: int) -> None:
    """A split in three parts is as safe as a split in two."""
    rows = {**east_alone(m), "north": {}}
    actors = [
        splits_in_three("east", "north", "west", step=m),
        mints("east", 2, known=m),
        mints("east", 1, 1, known=m),
        mints("north", 1, known=m, patience=1),
    ]
    every = Interleavings(rows, actors, whole(Lane(10 + m, m), "east", "north", "west"))
    assert every.schedules > every.states > 1000


def test_a_deployment_that_is_cut_off_after_any_call_is_finished_by_the_next() -> None:
    """If a run is killed after any call, while a client mints, the next run leaves two lanes and no open offer."""
    deployment, minter = deploys(*BOTH, to=["west"]), mints("east", 3, known=1)
    undisturbed = Interleavings(east_alone(1), [deployment, minter], shared_out(Lane(11, 1))).schedules
    for calls in range(100):
        actors = [cut_off(deployment, calls), minter]
        if Interleavings(east_alone(1), actors, whole(Lane(11, 1), *BOTH)).schedules == undisturbed and calls:
            break  # a run with this many calls is complete
    assert 10 < calls < 50


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(["east"], "west", id="one donor"),
        pytest.param(["east"], "a-west", id="one donor, behind the new region in the alphabet"),
        pytest.param(["east", "north"], "west", id="two donors"),
    ],
)
def test_every_interleaving_of_two_who_add_the_same_region(old: list[str], new: str) -> None:
    """If two runs add the same region in any order, it gets one lane, and neither run fails."""
    rows: Rows = {**{name: {name: item(name, 10 - i, len(old))} for i, name in enumerate(old)}, new: {}}
    actors = [hands_over(*old, new, to=new) for _ in range(2)]
    every = Interleavings(rows, actors, whole(Lane(11, 1), *old, new))
    assert every.schedules > every.states > 100


def test_every_interleaving_of_two_who_add_different_regions() -> None:
    """Two hand-overs from one donor at the same time give each region its own lane.

    Millions of schedules.
    """
    rows = {**east_alone(1), "north": {}}
    actors = [hands_over("east", "north", "west", to=name) for name in ("north", "west")]
    every = Interleavings(rows, actors, whole(Lane(11, 1), "east", "north", "west"))
    assert every.schedules > 1_000_000


@pytest.mark.parametrize("order", [("east", "west"), ("west", "east")], ids=str)
def test_a_survey_during_a_hand_over_finds_no_conflict(order: tuple[str, str]) -> None:
    """A hand-over between two reads of a survey is not reported as a conflict."""
    every = Interleavings(east_alone(1), [hands_over(*BOTH, to="west"), looks(*order)], shared_out(Lane(11, 1)))
    assert every.schedules > 20
