"""``retry``: what is tried again, for how long, and what is known in the end."""

from collections.abc import Callable

import pytest

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
from ticketctl.minting.retry import call_with_retries

NOT_MINTED = NotMintedError("not minted")
UNKNOWN = OutcomeUnknownError("unknown")


def highest(low: float, bound: float) -> float:
    assert low == 0.0
    return bound


class Run:
    """``call_with_retries`` on a clock that only sleeping and the attempts move; each attempt takes ``takes`` seconds.

    ``outcomes`` come in turn, the last of them again and again.
    """

    def __init__(self, *outcomes: Exception | str, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.now = 1000.0
        self.left: list[float] = []
        self.pauses: list[float] = []

    def attempt(self, left: float) -> str:
        self.left.append(left)
        self.now += self.takes
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(
        self, *, keyed: bool = False, timeout: float = 10.0, jitter: Callable[[float, float], float] = highest
    ) -> str:
        return call_with_retries(
            self.attempt, timeout=timeout, keyed=keyed, clock=lambda: self.now, sleep=self.sleep, jitter=jitter
        )


@pytest.mark.parametrize("keyed", [False, True])
def test_the_first_answer_is_the_answer(keyed: bool) -> None:
    """What ends well is not tried again, and nobody sleeps."""
    run = Run("42")
    assert (run(keyed=keyed), run.left, run.pauses) == ("42", [10.0], [])


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("error", [NOT_MINTED, ThrottledError("throttled"), UnreachableError("unreachable")], ids=repr)
def test_not_minted_is_tried_again(error: TicketctlError, keyed: bool) -> None:
    """Where nothing was minted another attempt is safe, with a key and without."""
    run = Run(error, error, "42")
    assert (run(keyed=keyed), len(run.left)) == ("42", 3)


@pytest.mark.parametrize("keyed", [False, True])
def test_not_minted_until_the_deadline(keyed: bool) -> None:
    """Where no attempt minted, the last error is told when the time is over."""
    last = ThrottledError("the last one")
    run = Run(*[NOT_MINTED] * 5, last)
    with pytest.raises(ThrottledError) as caught:
        run(keyed=keyed)
    assert (caught.value, run.now <= 1010.0) == (last, True)


def test_unknown_without_a_key_is_told_at_once() -> None:
    """Without a key another attempt might spend another ticket."""
    run = Run(UNKNOWN, "42")
    with pytest.raises(OutcomeUnknownError) as caught:
        run(keyed=False)
    assert (caught.value, run.left, run.pauses) == (UNKNOWN, [10.0], [])


def test_unknown_without_a_key_after_a_retry() -> None:
    """A retry that ends unknown without a key is the last."""
    run = Run(NOT_MINTED, UNKNOWN, "42")
    with pytest.raises(OutcomeUnknownError):
        run(keyed=False)
    assert len(run.left) == 2


def test_unknown_with_a_key_is_tried_again() -> None:
    """With a key another attempt gives the same ticket."""
    run = Run(UNKNOWN, NOT_MINTED, UNKNOWN, "42")
    assert (run(keyed=True), len(run.left)) == ("42", 4)


def test_unknown_until_the_deadline() -> None:
    """With a key the time may end as unknown as it began."""
    with pytest.raises(OutcomeUnknownError):
        Run(UNKNOWN)(keyed=True)


def test_once_unknown_always_unknown() -> None:
    """That a later attempt minted nothing says nothing of the one that ended unknown."""
    with pytest.raises(OutcomeUnknownError) as caught:
        Run(NOT_MINTED, UNKNOWN, NOT_MINTED)(keyed=True)
    assert caught.value is UNKNOWN


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    "error",
    [AccessError("forbidden"), CounterExhaustedError("full"), IdempotencyConflictError("used"), ValueError("a bug")],
    ids=repr,
)
def test_other_errors_are_told_at_once(error: Exception, keyed: bool) -> None:
    """No other error gets better by waiting."""
    run = Run(error, "42")
    with pytest.raises(type(error)) as caught:
        run(keyed=keyed)
    assert (caught.value, len(run.left), run.pauses) == (error, 1, [])


@pytest.mark.parametrize("error", [AccessError("forbidden"), CounterExhaustedError("full")], ids=repr)
def test_unknown_and_then_another_error(error: TicketctlError) -> None:
    """A refusal says nothing of an earlier attempt that may have spent a ticket: the whole is unknown."""
    with pytest.raises(OutcomeUnknownError):
        Run(UNKNOWN, error)(keyed=True)


def test_pauses_double_up_to_a_second() -> None:
    """The bound of the pauses begins at 50 ms, doubles, and stays at a second."""
    run = Run(NOT_MINTED)
    with pytest.raises(NotMintedError):
        run(timeout=6.0)
    assert run.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


def test_a_pause_is_anywhere_below_its_bound() -> None:
    """The jitter chooses each pause between nothing and the bound."""
    bounds: list[tuple[float, float]] = []

    def jitter(low: float, bound: float) -> float:
        bounds.append((low, bound))
        return bound / 2

    run = Run(NOT_MINTED, NOT_MINTED, NOT_MINTED, "42")
    assert run(jitter=jitter) == "42"
    assert (bounds, run.pauses) == ([(0.0, 0.05), (0.0, 0.1), (0.0, 0.2)], [0.025, 0.05, 0.1])


@pytest.mark.parametrize("timeout", [0.001, 0.05, 0.3, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("takes", [0.0, 0.3, 4.0])
def test_nobody_sleeps_past_the_deadline(timeout: float, takes: float) -> None:
    """A pause that would reach the deadline is not begun, and no attempt begins after it."""
    run = Run(NOT_MINTED, takes=takes)
    with pytest.raises(NotMintedError):
        run(timeout=timeout)
    woke = 1000.0
    for pause in run.pauses:
        woke += takes + pause
        assert woke < 1000.0 + timeout


def test_an_attempt_gets_the_seconds_that_are_left() -> None:
    """Attempts and pauses both use up the time."""
    run = Run(NOT_MINTED, NOT_MINTED, "42", takes=2.0)
    assert run(timeout=10.0) == "42"
    assert run.left == pytest.approx([10.0, 7.95, 5.85])


def test_an_attempt_always_gets_a_moment() -> None:
    """The shortest timeout leaves an attempt 50 ms."""
    run = Run("42")
    assert (run(timeout=0.001), run.left) == ("42", [0.05])


def test_a_late_answer_is_an_answer() -> None:
    """A ticket that comes after the deadline is not thrown away."""
    assert Run("42", takes=60.0)(timeout=1.0) == "42"
