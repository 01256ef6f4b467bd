"""``failover``: which region is tried, when and for how long, and what is known about the outcome."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    CounterExhaustedError,
    CounterFrozenError,
    CounterInvalidError,
    IdempotencyConflictError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
    UsageError,
)
from ticketctl.minting.failover import ASIDE_SECONDS, Failover
from ticketctl.minting.retry import LEAST_SECONDS
from ticketctl.models import Block, MintRequest

NOT_MINTED = UnreachableError("no connection")
UNKNOWN = OutcomeUnknownError("no reply")
EXHAUSTED = CounterExhaustedError("full")
NOT_DEPLOYED = NotDeployedError("no stack")
NO_COUNTER = UnknownCounterError("no counter")
FROZEN = CounterFrozenError("frozen")
REPLAY = "replay"
NAMES = ("east", "west", "north")
Outcome = TicketctlError | str | None


class Asked(NamedTuple):
    """One attempt in one region."""

    region: str
    tickets: int
    key: str
    within: float
    looks_up: bool


class Clock:
    """A clock that only sleeps and attempts move; it records all attempts and notes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[Asked] = []
        self.notes: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def order(self) -> list[str]:
        """Return the regions of the attempts since the last call."""
        order = [asked.region for asked in self.asked]
        self.asked.clear()
        return order


class Region:
    """A region that returns its ``outcomes`` in order, repeating the last one, after ``takes`` seconds.

    ``None`` is a block, ``REPLAY`` a block that an earlier attempt minted.
    """

    def __init__(self, clock: Clock, name: str, *outcomes: Outcome, takes: float = 0.0) -> None:
        self.clock = clock
        self.place = name
        self.outcomes: list[Outcome] = list(outcomes) or [None]
        self.takes = takes

    def attempt(self, request: MintRequest, deadline: Deadline, *, looks_up: bool) -> Block:
        self.clock.asked.append(Asked(self.place, request.count, request.key, deadline.left(), looks_up))
        self.clock.now += self.takes
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, TicketctlError):
            raise outcome
        return replace(block_of(self.place, request.count), replayed=outcome == REPLAY)


def block_of(region: str, count: int = 1, *gaps: str) -> Block:
    return Block("orders", 7, 6 + count, count, 1, region=region, possible_gaps=gaps)


class Source:
    """The regions behind one ``Failover``, with the clock of the tests."""

    def __init__(self, clock: Clock, regions: Sequence[Region], *, timeout: float, spread: bool) -> None:
        self.clock = clock
        self.regions = regions
        self.timeout = timeout
        self.failover = Failover(
            lambda request: regions,
            spread=spread,
            note=clock.notes.append,
            clock=lambda: clock.now,
            sleep=clock.sleep,
        )

    def mint(self, count: int, *, key: str) -> Block:
        request = MintRequest("orders", count, key, is_typed=False)
        return self.failover.mint(request, Deadline(self.timeout, clock=lambda: self.clock.now))


def failover(clock: Clock, regions: Sequence[Region], *, timeout: float = 8.0, spread: bool = False) -> Source:
    return Source(clock, regions, timeout=timeout, spread=spread)


def three(*outcomes: Sequence[Outcome], takes: float = 0.0) -> tuple[Clock, list[Region]]:
    """Three regions with their outcomes; a region without outcomes mints."""
    clock = Clock()
    given = [*outcomes, *([()] * (3 - len(outcomes)))]
    return clock, [Region(clock, name, *each, takes=takes) for name, each in zip(NAMES, given, strict=True)]


# --- the order -------------------------------------------------------------------------------------


def test_the_first_region_mints_as_long_as_it_answers() -> None:
    """While the first region answers, no other region is tried and nothing is reported."""
    clock, regions = three()
    source = failover(clock, regions)
    assert [source.mint(5, key="k") for _ in range(3)] == [block_of("east", 5)] * 3
    assert clock.asked == [Asked("east", 5, "k", pytest.approx(8.0 / 3), looks_up=False)] * 3  # type: ignore[arg-type]
    assert clock.notes == []


def test_spread_mints_from_each_region_in_turn() -> None:
    """Each mint starts with the region after the one that the previous mint started with."""
    clock, regions = three()
    source = failover(clock, regions, spread=True)
    blocks = [source.mint(1, key="k").region for _ in range(7)]
    begin = NAMES.index(blocks[0] or "")
    assert blocks == [NAMES[(begin + turn) % 3] for turn in range(7)]


def test_spread_starts_with_a_random_region() -> None:
    """The first mint of a process starts with a random region, so that short processes share the load."""
    clock, regions = three()
    assert {failover(clock, regions, spread=True).mint(1, key="k").region for _ in range(200)} == set(NAMES)


def test_spread_continues_with_the_next_region() -> None:
    """If the region whose turn it is does not answer, the one after it mints."""
    clock, regions = three([], [NOT_MINTED], [])
    source = failover(clock, regions, spread=True)
    while source.mint(1, key="k").region != "east":
        pass
    clock.now += ASIDE_SECONDS
    assert clock.order
    assert source.mint(1, key="k") == block_of("north")
    assert clock.order == ["west", "north"]


@pytest.mark.parametrize(
    "passed_over", [NOT_MINTED, ThrottledError("slow"), EXHAUSTED, NOT_DEPLOYED, NO_COUNTER, FROZEN], ids=repr
)
def test_a_region_that_cannot_mint_is_passed_over(passed_over: TicketctlError) -> None:
    """If a region cannot mint, the next one does; nothing was spent, so there is no gap."""
    clock, regions = three([passed_over], [passed_over])
    assert failover(clock, regions).mint(2, key="k") == block_of("north", 2)
    assert clock.order == ["east", "west", "north"]
    assert clock.notes == [f"{name} is skipped: {passed_over.message}" for name in ("east", "west")]


@pytest.mark.parametrize(
    "told",
    [
        AccessError("forbidden"),
        CounterInvalidError("damaged"),
        UsageError("wrong"),
        IdempotencyConflictError("used"),
    ],
    ids=repr,
)
def test_other_errors_are_raised_immediately(told: TicketctlError) -> None:
    """An error that every region would give is raised immediately, and no other region is tried."""
    clock, regions = three([told])
    with pytest.raises(type(told)) as caught:
        failover(clock, regions).mint(1, key="k")
    assert (caught.value, clock.order, clock.notes, clock.now) == (told, ["east"], [], 1000.0)


@pytest.mark.parametrize("before", [NOT_MINTED, EXHAUSTED], ids=repr)
def test_an_error_of_every_region_counts_more_than_not_minted(before: TicketctlError) -> None:
    """If the second region denies the mint, that is the error: a retry would not help."""
    told = AccessError("forbidden")
    clock, regions = three([before], [told])
    with pytest.raises(AccessError) as caught:
        failover(clock, regions).mint(1, key="k")
    assert (caught.value, clock.order, clock.now) == (told, ["east", "west"], 1000.0)


def test_every_region_is_asked_with_the_same_key() -> None:
    """Every attempt has the same key, so a region that has already minted returns the same tickets."""
    clock, regions = three([NOT_MINTED, None], [UNKNOWN], [NOT_MINTED])
    failover(clock, regions).mint(3, key="mine")
    assert [(asked.region, asked.tickets, asked.key) for asked in clock.asked] == [
        (name, 3, "mine") for name in ("east", "west", "north", "east")
    ]


def test_addresses_are_looked_up_again_from_the_second_pass_on() -> None:
    """The first pass uses the cached addresses; from the second pass on, they may be looked up."""
    clock, regions = three([NOT_MINTED, NOT_MINTED, None], [NOT_MINTED], [NOT_MINTED])
    failover(clock, regions).mint(1, key="k")
    assert [asked.looks_up for asked in clock.asked] == [False] * 3 + [True] * 4


# --- the time --------------------------------------------------------------------------------------


def test_each_region_has_its_share_of_the_time() -> None:
    """The remaining time is divided evenly among the regions that are not tried yet."""
    clock, regions = three([NOT_MINTED], [NOT_MINTED], takes=2.0)
    failover(clock, regions, timeout=12.0).mint(1, key="k")
    assert [asked.within for asked in clock.asked] == pytest.approx([4.0, 5.0, 8.0])


def test_regions_share_what_a_slow_one_leaves() -> None:
    """If a region takes more than its share of the time, the others get less; the deadline holds."""
    clock, regions = three([NOT_MINTED], [NOT_MINTED], [NOT_MINTED])
    regions[0].takes = 20.0
    with pytest.raises(NotMintedError):
        failover(clock, regions).mint(1, key="k")
    assert [asked.within for asked in clock.asked] == pytest.approx([8.0 / 3, 0.0, 0.0])


@pytest.mark.parametrize("timeout", [2.0, 30.0])
def test_if_no_region_mints_the_deadline_ends_it(timeout: float) -> None:
    """All regions are retried until the deadline; then the error says that nothing was minted."""
    last = ThrottledError("busy")
    clock, regions = three([last], [EXHAUSTED], [NOT_DEPLOYED], takes=0.02)
    with pytest.raises(ThrottledError) as caught:
        failover(clock, regions, timeout=timeout).mint(1, key="k")
    assert caught.value is last
    order = clock.order
    assert order == list(NAMES) * (len(order) // 3)
    assert len(order) >= 6
    assert clock.now <= 1000.0 + timeout + 0.06


@pytest.mark.parametrize("first", [NOT_MINTED, UNKNOWN], ids=repr)
def test_a_pass_needs_time_for_answers(first: TicketctlError) -> None:
    """No pass starts if the attempts would be so short that a slow error would count as unknown."""
    clock, regions = three([first], [NOT_MINTED], [NOT_MINTED], takes=0.02)
    with pytest.raises(type(first)):
        failover(clock, regions, timeout=1.0).mint(1, key="k")
    assert clock.order == list(NAMES)
    with pytest.raises(type(first)):
        failover(clock, regions, timeout=30.0).mint(1, key="k")
    assert min(asked.within for asked in clock.asked) > LEAST_SECONDS - 0.02
    assert clock.asked[-1].region == NAMES[-1]


# --- unknown ---------------------------------------------------------------------------------------


def test_a_region_that_may_have_minted_is_named() -> None:
    """If it is unknown whether the first region minted, the next region's block names it as a possible gap."""
    clock, regions = three([UNKNOWN])
    assert failover(clock, regions).mint(4, key="k") == block_of("west", 4, "east")
    assert clock.notes == ["east is skipped; it may have spent tickets: no reply"]


def test_every_region_that_may_have_minted_is_named() -> None:
    """All regions that may have minted are possible gaps, in their order; a region that did not mint is not."""
    clock, regions = three([UNKNOWN], [UNKNOWN])
    assert failover(clock, regions).mint(1, key="k") == block_of("north", 1, "east", "west")
    clock, regions = three([UNKNOWN], [NOT_MINTED])
    assert failover(clock, regions).mint(1, key="k") == block_of("north", 1, "east")


def test_a_replay_leaves_no_gap() -> None:
    """If the retry in the same region is a replay, there is no possible gap."""
    clock, regions = three([UNKNOWN, REPLAY], [NOT_MINTED], [NOT_MINTED])
    assert failover(clock, regions).mint(1, key="k") == replace(block_of("east"), replayed=True)
    assert clock.order == ["east", "west", "north", "east"]


def test_a_new_block_after_an_unknown_outcome_leaves_a_gap() -> None:
    """If the retry is not a replay, there is a possible gap: the key may have been pushed out of the register."""
    clock, regions = three([UNKNOWN, None], [NOT_MINTED], [NOT_MINTED])
    assert failover(clock, regions).mint(1, key="k") == block_of("east", 1, "east")


def test_a_replay_leaves_the_gap_of_another_region() -> None:
    """A replay from one region does not remove the possible gap of another."""
    clock, regions = three([UNKNOWN, REPLAY], [UNKNOWN], [NOT_MINTED])
    assert failover(clock, regions).mint(1, key="k") == replace(block_of("east", 1, "west"), replayed=True)


def test_a_later_refusal_does_not_close_a_gap() -> None:
    """If the second attempt in a region minted nothing, the first one is still a possible gap."""
    clock, regions = three([UNKNOWN, NOT_MINTED], [NOT_MINTED, None], [NOT_MINTED])
    assert failover(clock, regions).mint(1, key="k") == block_of("west", 1, "east")


def test_a_gap_is_reported_once() -> None:
    """The next mint starts without possible gaps."""
    clock, regions = three([UNKNOWN, None])
    source = failover(clock, regions)
    assert source.mint(1, key="k1") == block_of("west", 1, "east")
    assert source.mint(1, key="k2") == block_of("west")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_unknown_counts_more_than_not_minted(at: int) -> None:
    """If one region may have minted and none certainly did, the outcome is unknown, whichever region it was."""
    outcomes: list[list[Outcome]] = [[NOT_MINTED], [NOT_DEPLOYED], [EXHAUSTED]]
    outcomes[at] = [UNKNOWN, NOT_MINTED]
    clock, regions = three(*outcomes)
    with pytest.raises(OutcomeUnknownError) as caught:
        failover(clock, regions).mint(1, key="k")
    assert caught.value is UNKNOWN


def test_not_minted_counts_more_than_what_cannot_mint() -> None:
    """While at least one region might mint, all are retried."""
    clock, regions = three([EXHAUSTED], [NOT_MINTED, None], [NOT_DEPLOYED])
    assert failover(clock, regions).mint(1, key="k") == block_of("west")
    assert clock.order == ["east", "west", "north", "east", "west"]


@pytest.mark.parametrize(
    ("first", "others"),
    [(EXHAUSTED, NOT_DEPLOYED), (NOT_DEPLOYED, EXHAUSTED), (NO_COUNTER, FROZEN), (FROZEN, NO_COUNTER)],
    ids=repr,
)
def test_if_no_region_can_mint_the_first_error_is_raised(first: TicketctlError, others: TicketctlError) -> None:
    """If no region can ever mint, the first error is raised immediately."""
    clock, regions = three([first], [others], [others])
    with pytest.raises(type(first)) as caught:
        failover(clock, regions).mint(1, key="k")
    assert (caught.value, clock.order, clock.now) == (first, list(NAMES), 1000.0)


def test_a_refusal_after_an_unknown_outcome_leaves_it_unknown() -> None:
    """If a retry is denied after an unknown outcome, the outcome stays unknown."""
    clock, regions = three([UNKNOWN, AccessError("forbidden")], [NOT_MINTED], [NOT_MINTED])
    with pytest.raises(OutcomeUnknownError) as caught:
        failover(clock, regions).mint(1, key="k")
    assert caught.value is UNKNOWN


def test_a_refusal_behind_an_unknown_outcome_in_one_pass_leaves_it_unknown() -> None:
    """If the second region denies the mint after an unknown outcome in the first, the outcome is unknown."""
    clock, regions = three([UNKNOWN], [AccessError("forbidden")])
    with pytest.raises(OutcomeUnknownError) as caught:
        failover(clock, regions).mint(1, key="k")
    assert caught.value is UNKNOWN


# --- skipped regions -------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NOT_MINTED, UNKNOWN, EXHAUSTED], ids=repr)
def test_a_region_that_did_not_answer_is_asked_last_for_a_while(failure: TicketctlError) -> None:
    """A region that did not answer is tried last for a while; then it is the first again."""
    clock, regions = three([failure, None])
    source = failover(clock, regions)
    assert source.mint(1, key="k").region == "west"
    clock.now += ASIDE_SECONDS - 0.01
    assert source.mint(1, key="k").region == "west"
    clock.now += 0.01
    assert source.mint(1, key="k").region == "east"
    assert clock.order == ["east", "west", "west", "east"]


def test_regions_that_are_aside_keep_their_order_and_are_still_asked() -> None:
    """If no other region mints, recently skipped regions are still tried, in their order."""
    clock, regions = three([NOT_MINTED, None], [NOT_MINTED], [None, NOT_MINTED])
    source = failover(clock, regions)
    assert source.mint(1, key="k").region == "north"
    assert source.mint(1, key="k").region == "east"
    assert clock.order == ["east", "west", "north", "north", "east"]


def test_one_region_alone_is_a_source_too() -> None:
    """A single region gets all the time, and its error is the outcome."""
    clock = Clock()
    source = failover(clock, [Region(clock, "east", NOT_MINTED, UNKNOWN, REPLAY, None)])
    assert source.mint(1, key="k") == replace(block_of("east"), replayed=True)
    assert clock.asked[0] == Asked("east", 1, "k", 8.0, looks_up=True)
    assert source.mint(1, key="k") == block_of("east")
    assert clock.notes == []
    with pytest.raises(NotMintedError):
        failover(clock, [Region(clock, "east", NOT_MINTED)]).mint(1, key="k")
