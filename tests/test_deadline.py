"""``deadline``: the remaining time, and parts of it."""

import threading
import time

import pytest

from ticketctl.deadline import Deadline, call_within


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_left() -> None:
    """The remaining seconds decrease with the clock, and are never negative."""
    clock = Clock()
    deadline = Deadline(5, clock)
    assert deadline.left() == 5
    clock.now += 3
    assert deadline.left() == 2
    clock.now += 3
    assert deadline.left() == 0


def test_within() -> None:
    """A part of a deadline ends before the whole deadline, or at the same time."""
    clock = Clock()
    deadline = Deadline(5, clock)
    assert deadline.within(2).left() == 2
    assert deadline.within(9).left() == 5
    clock.now += 4
    assert deadline.within(2).left() == 1


def test_work_in_time() -> None:
    """Work that ends before the deadline returns its result, or raises its error unchanged."""
    assert call_within(Deadline(10), lambda: 5) == 5
    with pytest.raises(ValueError, match="gone"):
        call_within(Deadline(10), lambda: int("gone"))


def test_work_that_takes_too_long() -> None:
    """At the deadline the caller gets an error; the work continues in the background."""
    released, ended = threading.Event(), threading.Event()

    def work() -> None:
        released.wait(10)
        ended.set()

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        call_within(Deadline(0.1), work)
    assert time.monotonic() - begun < 1.0
    released.set()
    assert ended.wait(10)


def test_work_after_the_deadline() -> None:
    """After the deadline no work is started."""
    begun: list[int] = []
    with pytest.raises(TimeoutError):
        call_within(Deadline(0), lambda: begun.append(1))
    assert begun == []
