"""``retry``: which failures are retried, for how long, and what is known about the outcome."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    CounterExhaustedError,
    IdempotencyConflictError,
    NotMintedError,
    OutcomeUnknownError,
    ThrottledError,
    TicketctlError,
    UnreachableError,
)
from ticketctl.minting.failover import Failover
from ticketctl.models import Block, MintRequest

NOT_MINTED = NotMintedError("not minted")
UNKNOWN = OutcomeUnknownError("unknown")
WRITES_AGAIN = OutcomeUnknownError("no answer", may_write_again=True)
BLOCK = Block("orders", 7, 7, 1, 1)
REQUEST = MintRequest("orders", 1, "k", is_typed=False)
REPLAY = replace(BLOCK, replayed=True)
GAP = replace(BLOCK, possible_gaps=("here",))


def highest(low: float, bound: float) -> float:
    assert low == 0.0
    return bound


class Run:
    """Mint with a clock that only sleeps and attempts move; each attempt takes ``takes`` seconds.

    ``outcomes`` come in order, and the last one repeats.
    """

    place = "here"

    def __init__(self, *outcomes: Exception | Block, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.now = 1000.0
        self.left: list[float] = []
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def attempt(self, request: MintRequest, deadline: Deadline, **_: bool) -> Block:
        assert request == REQUEST
        self.left.append(deadline.left())
        self.now += self.takes
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def __call__(self, *, timeout: float = 10.0, jitter: Callable[[float, float], float] = highest) -> Block:
        failover = Failover(lambda request: [self], sleep=self.sleep, jitter=jitter)
        return failover.mint(REQUEST, Deadline(timeout, clock=lambda: self.now))


def test_the_first_answer_is_the_answer() -> None:
    """A mint that succeeds is not retried, and nothing sleeps."""
    run = Run(BLOCK)
    assert (run(), run.left, run.pauses) == (BLOCK, [10.0], [])


@pytest.mark.parametrize("error", [NOT_MINTED, ThrottledError("throttled"), UnreachableError("unreachable")], ids=repr)
def test_not_minted_is_tried_again(error: TicketctlError) -> None:
    """If nothing was minted, a retry is safe and leaves no gap."""
    run = Run(error, error, BLOCK)
    assert (run(), len(run.left)) == (BLOCK, 3)


def test_not_minted_until_the_deadline() -> None:
    """If nothing was minted until the deadline, the last error is raised."""
    last = ThrottledError("the last one")
    run = Run(*[NOT_MINTED] * 5, last)
    with pytest.raises(ThrottledError) as caught:
        run()
    assert (caught.value, run.now <= 1010.0) == (last, True)


def test_unknown_is_tried_again() -> None:
    """After an unknown outcome, a retry with the same key returns the same ticket, so nothing is lost."""
    run = Run(NOT_MINTED, UNKNOWN, NOT_MINTED, REPLAY)
    assert (run(), len(run.left)) == (REPLAY, 4)


@pytest.mark.parametrize("outcomes", [[UNKNOWN, BLOCK], [UNKNOWN, NOT_MINTED, BLOCK], [UNKNOWN, UNKNOWN, BLOCK]])
def test_a_block_that_is_no_replay_names_the_possible_gap(outcomes: list[Exception | Block]) -> None:
    """A block that is not a replay, after an unknown attempt, names a possible gap."""
    assert Run(*outcomes)() == GAP


@pytest.mark.parametrize("outcomes", [[WRITES_AGAIN, REPLAY], [UNKNOWN, UNKNOWN, REPLAY]])
def test_a_replay_does_not_clear_two_writes(outcomes: list[Exception | Block]) -> None:
    """After two writes, even a replay names a possible gap: between them, the key may have left the register."""
    assert Run(*outcomes)() == replace(REPLAY, possible_gaps=("here",))


def test_a_gap_is_named_once() -> None:
    """If the function and the retries report the same possible gap, it is named once."""
    assert Run(UNKNOWN, GAP)() == GAP
    assert Run(replace(REPLAY, possible_gaps=("here",)))().possible_gaps == ("here",)


def test_no_attempt_is_too_short() -> None:
    """An attempt that would be too short is not started, unless the outcome is already unknown."""
    refused, unknown = Run(NOT_MINTED), Run(UNKNOWN)
    for run in (refused, unknown):
        with pytest.raises(TicketctlError):
            run(timeout=1.05)
    assert [min(refused.left), min(unknown.left)] == pytest.approx([0.7, 0.3])


def test_unknown_until_the_deadline() -> None:
    """If every attempt is unknown, the outcome is unknown."""
    with pytest.raises(OutcomeUnknownError):
        Run(UNKNOWN)()


def test_once_unknown_always_unknown() -> None:
    """If a later attempt minted nothing, the outcome of the earlier unknown attempt is still unknown."""
    with pytest.raises(OutcomeUnknownError) as caught:
        Run(NOT_MINTED, UNKNOWN, NOT_MINTED)()
    assert caught.value is UNKNOWN


@pytest.mark.parametrize(
    "error",
    [AccessError("forbidden"), CounterExhaustedError("full"), IdempotencyConflictError("used"), ValueError("a bug")],
    ids=repr,
)
def test_other_errors_are_raised_immediately(error: Exception) -> None:
    """Other errors are not retried."""
    run = Run(error, BLOCK)
    with pytest.raises(type(error)) as caught:
        run()
    assert (caught.value, len(run.left), run.pauses) == (error, 1, [])


@pytest.mark.parametrize("error", [AccessError("forbidden"), CounterExhaustedError("full")], ids=repr)
def test_unknown_and_then_another_error(error: TicketctlError) -> None:
    """If a retry after an unknown attempt fails with a final error, the outcome is unknown."""
    with pytest.raises(OutcomeUnknownError) as caught:
        Run(OutcomeUnknownError("unknown"), error)()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("later", [[], [NOT_MINTED], [AccessError("forbidden")]], ids=repr)
def test_an_unknown_outcome_keeps_its_cause(later: list[Exception]) -> None:
    """``--debug`` shows why there was no answer."""
    lost = OutcomeUnknownError("lost")
    lost.__cause__ = TimeoutError("the answer takes too long")
    with pytest.raises(OutcomeUnknownError) as caught:
        Run(lost, *later)()
    assert repr(caught.value.__cause__) == "TimeoutError('the answer takes too long')"


def test_pauses_double_up_to_a_second() -> None:
    """The upper bound of the pauses starts at 50 ms and doubles up to 1 s."""
    run = Run(NOT_MINTED)
    with pytest.raises(NotMintedError):
        run(timeout=6.2)
    assert run.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


def test_a_pause_is_anywhere_below_its_bound() -> None:
    """Each pause is random between zero and its upper bound."""
    bounds: list[tuple[float, float]] = []

    def jitter(low: float, bound: float) -> float:
        bounds.append((low, bound))
        return bound / 2

    run = Run(NOT_MINTED, NOT_MINTED, NOT_MINTED, BLOCK)
    assert run(jitter=jitter) == BLOCK
    assert (bounds, run.pauses) == ([(0.0, 0.05), (0.0, 0.1), (0.0, 0.2)], [0.025, 0.05, 0.1])


@pytest.mark.parametrize("timeout", [0.001, 0.05, 0.3, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("takes", [0.0, 0.3, 4.0])
def test_no_pause_past_the_deadline(timeout: float, takes: float) -> None:
    """No pause starts if it would reach the deadline, and no attempt starts after the deadline."""
    run = Run(NOT_MINTED, takes=takes)
    with pytest.raises(NotMintedError):
        run(timeout=timeout)
    woke = 1000.0
    for pause in run.pauses:
        woke += takes + pause
        assert woke < 1000.0 + timeout


def test_an_attempt_gets_the_seconds_that_are_left() -> None:
    """Attempts and pauses both use up the time of later attempts."""
    run = Run(NOT_MINTED, NOT_MINTED, BLOCK, takes=2.0)
    assert run(timeout=10.0) == BLOCK
    assert run.left == pytest.approx([10.0, 7.95, 5.85])


def test_a_late_answer_is_an_answer() -> None:
    """A ticket that arrives after the deadline is still returned."""
    assert Run(BLOCK, takes=60.0)(timeout=1.0) == BLOCK
